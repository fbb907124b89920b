/* The kernels for processors with AVX2 and FMA. Standard headers come first: the instruction set is for our own code alone. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define KERNEL_SET           kernel_set_avx2
#define KERNEL_SET_NAME      "avx2"
#define TILE_V               __m256
#define TILE_LANES           8
#define TILE_SET1(x)         _mm256_set1_ps(x)
#define TILE_FMA             _mm256_fmadd_ps
#define TILE_ROWS_AT_ONCE    4
#define TILE_VECTORS_AT_ONCE 2
#define FMATH_MAX            _mm256_max_ps
#define FMATH_MIN            _mm256_min_ps
#define FMATH_SQRT           _mm256_sqrt_ps
#define WIDE_MULTIPLY(a, b)  ((vlong)_mm256_mul_epu32((__m256i)(a), (__m256i)(b)))
#include "model/kernels/kernel_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
extern int kernels_avx2_absent;
#endif
