/* The kernels for processors with AVX-512. Standard headers come first: the instruction set is for our own code alone. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#endif

#define KERNEL_SET           kernel_set_avx512
#define KERNEL_SET_NAME      "avx512"
#include "model/kernels/avx512_macros.h"
#include "model/kernels/kernel_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
extern int kernels_avx512_absent;
#endif
