/* The macros that kernels_avx512.c and kernels_avx512_bf16.c have in common: both sets have the same registers and fuse
 * alike, which is why all but their products of bfloat16 have the same bits. Never included elsewhere. */
#define TILE_V               __m512
#define TILE_LANES           16
#define TILE_SET1(x)         _mm512_set1_ps(x)
#define TILE_FMA             _mm512_fmadd_ps
#define TILE_ROWS_AT_ONCE    8
#define TILE_VECTORS_AT_ONCE 2
#define FMATH_MAX            _mm256_max_ps
#define FMATH_MIN            _mm256_min_ps
#define FMATH_SQRT           _mm256_sqrt_ps
#define WIDE_MULTIPLY(a, b)  ((vlong)_mm512_mul_epu32((__m512i)(a), (__m512i)(b)))
