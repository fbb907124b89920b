/* Generation's kernels for processors with AVX2. Standard headers come first, as in stripes_avx512.c. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

enum { LANES = 8, FLOAT_ROWS = 3, INT8_ROWS = 1 };
#define BYTES_AVX2
#define KERNELS      stripe_kernels_avx2
#define KERNELS_NAME "avx2"
#include "model/kernels/stripe_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
extern int stripes_avx2_absent;
#endif
