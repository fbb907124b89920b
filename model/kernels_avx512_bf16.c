/* The kernels for processors with AVX-512 and its bfloat16 products. Standard headers come first: the instruction set is for our own code
 * alone. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#endif

#define KERNEL_SET            kernel_set_avx512_bf16
#define KERNEL_SET_NAME       "avx512_bf16"
#define TILE_V                __m512
#define TILE_LANES            16
#define TILE_SET1(x)          _mm512_set1_ps(x)
#define TILE_FMA              _mm512_fmadd_ps
#define TILE_ROWS_AT_ONCE     8
#define TILE_VECTORS_AT_ONCE  2
#define TILE_DOT(a, b, acc)   _mm512_dpbf16_ps(acc, (__m512bh)(a), (__m512bh)(b))
#define TILE_ROUND(low, high) ((TILE_V)_mm512_cvtne2ps_pbh(high, low))
#define FMATH_MAX             _mm256_max_ps
#define FMATH_MIN             _mm256_min_ps
#define FMATH_SQRT            _mm256_sqrt_ps
#define WIDE_MULTIPLY(a, b)   ((vlong)_mm512_mul_epu32((__m512i)(a), (__m512i)(b)))
#include "model/kernel_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
extern int kernels_avx512_bf16_absent;
#endif
