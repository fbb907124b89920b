/* Generation's kernels for processors with AVX-512 and its products of bytes. Standard headers come first: the instruction set is for
 * our own code alone. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

enum { LANES = 16, FLOAT_ROWS = 8, INT8_ROWS = 6 };
#define BYTES_AVX512
#define KERNELS      stripe_kernels_avx512
#define KERNELS_NAME "avx512"
#include "model/kernels/stripe_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
extern int stripes_avx512_absent;
#endif
