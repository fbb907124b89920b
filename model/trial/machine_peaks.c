/* The processor's arithmetic alone: loops between registers, one for each instruction whose peak is asked for. As many independent chains
 * as hide the longest latency of one (two a cycle, five cycles), and as 16 registers hold. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "model/trial/machine.h"

enum { CHAINS = 12 };

/* Chains begin with different values, or a compiler would make one of them. They converge: no number gets denormal or infinite. */
#define PEAK_LOOP(name, VECTOR, BEGIN, STEP) \
    static void name(size_t rounds, void *sink) { \
        VECTOR acc[CHAINS], sum = BEGIN(0); \
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) acc[i] = BEGIN(i); \
        for (size_t round = 0; round < rounds; round++) { \
            _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) acc[i] = STEP(acc[i]); \
        } \
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) sum += acc[i]; \
        memcpy(sink, &sum, sizeof sum); \
    }
#define PEAK(name, kind, lanes, per_lane) static const struct machine_peak name = {kind, (double)CHAINS * (lanes) * (per_lane), name##_run}

/* ---- any processor: 16 bytes are what baselines have ---- */

typedef float v4 __attribute__((vector_size(16)));
#define BEGIN(i) ((v4){(float)(i), 1.0f, 2.0f, 3.0f})
#define STEP(x)  ((x) * 0.5f + 0.5f)
PEAK_LOOP(portable_run, v4, BEGIN, STEP)
#undef BEGIN
#undef STEP
PEAK(portable, MACHINE_FP32, 4, 2);

#if defined(__x86_64__)
#define AVX2   __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f")))
#define BF16   __attribute__((target("avx512f,avx512bf16")))
#define VNNI   __attribute__((target("avx512f,avx512vnni")))

#define BEGIN(i) _mm256_set1_ps((float)(i))
#define STEP(x)  _mm256_fmadd_ps(x, _mm256_set1_ps(0.5f), _mm256_set1_ps(0.5f))
AVX2 PEAK_LOOP(avx2_run, __m256, BEGIN, STEP)
#undef BEGIN
#undef STEP
PEAK(avx2, MACHINE_FP32, 8, 2);

#define BEGIN(i) _mm512_set1_ps((float)(i))
#define STEP(x)  _mm512_fmadd_ps(x, _mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f))
AVX512 PEAK_LOOP(avx512_run, __m512, BEGIN, STEP)
#undef STEP
PEAK(avx512, MACHINE_FP32, 16, 2);

#define STEP(x) _mm512_dpbf16_ps(x, (__m512bh)_mm512_set1_epi32(0x3f803f80), (__m512bh)_mm512_set1_epi32(0x3f803f80)) /* 1.0 twice */
BF16 PEAK_LOOP(bf16_run, __m512, BEGIN, STEP)
#undef BEGIN
#undef STEP
PEAK(bf16, MACHINE_BF16, 16, 4);

#define BEGIN(i) _mm512_set1_epi32(i)
#define STEP(x)  _mm512_dpbusd_epi32(x, _mm512_set1_epi8(1), _mm512_set1_epi8(1))
VNNI PEAK_LOOP(vnni_run, __m512i, BEGIN, STEP)
PEAK(vnni, MACHINE_INT8, 16, 8);
#endif

size_t machine_peaks(const struct machine_peak *out[MACHINE_PEAKS]) {
    size_t count = 0;
#if defined(__x86_64__)
    bool has_avx512 = __builtin_cpu_supports("avx512f");
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) out[count++] = &avx2;
    if (has_avx512) out[count++] = &avx512;
    if (has_avx512 && __builtin_cpu_supports("avx512bf16")) out[count++] = &bf16;
    if (has_avx512 && __builtin_cpu_supports("avx512vnni")) out[count++] = &vnni;
#endif
    out[count++] = &portable;
    return count;
}
