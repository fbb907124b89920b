/* Pre-tokens on processors with AVX2, BMI and AES. Standard headers come first: the instruction set is for our own code alone. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,aes,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2,aes,popcnt")
#endif

#define PRETOKEN_KERNELS      pretoken_kernels_avx2
#define PRETOKEN_KERNELS_NAME "avx2"
#define PRETOKEN_KERNELS_AVX2
#include "dataset/tokenizer/pretokens_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
extern int pretokens_avx2_absent;
#endif
