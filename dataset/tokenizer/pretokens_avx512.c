/* Pre-tokens on processors that have AVX-512 with its byte instructions. Standard headers come first: the instruction set is for our own
 * code alone. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,aes,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2,aes,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi2")
#endif

#define PRETOKEN_KERNELS      pretoken_kernels_avx512
#define PRETOKEN_KERNELS_NAME "avx512"
#define PRETOKEN_KERNELS_AVX2
#define PRETOKEN_KERNELS_AVX512
#include "dataset/tokenizer/pretokens_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
extern int pretokens_avx512_absent;
#endif
