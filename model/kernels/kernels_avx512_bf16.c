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
#define TILE_DOT(a, b, acc)   _mm512_dpbf16_ps(acc, (__m512bh)(a), (__m512bh)(b))
#define TILE_ROUND(low, high) ((TILE_V)_mm512_cvtne2ps_pbh(high, low))
#include "model/kernels/avx512_macros.h"
#include "model/kernels/kernel_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
extern int kernels_avx512_bf16_absent;
#endif
