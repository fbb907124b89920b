/* Measures the peaks of this machine's memory and arithmetic, for `millrace bench machine`. Keeps nothing between calls. */
#include "model/trial/machine.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"

/* ---- arithmetic ---- */

#define PASS_SECONDS 0.004 /* long beside waking threads, no longer than a neighbour leaves the core alone */
enum { PASSES = 5, TRIES = 3 }; /* of a turn; of the first passes, which find how many rounds take that time */

struct peak_pass {
    const struct machine_peak *peak;
    size_t rounds;
    double *best;
    _Atomic uint64_t *sink;
};

static void keep_best(double *best, double speed) { *best = speed > *best ? speed : *best; }

static void sink_add(_Atomic uint64_t *sink, const void *bytes) {
    uint64_t word[MACHINE_SINK_BYTES / sizeof(uint64_t)];
    memcpy(word, bytes, sizeof word);
    for (size_t i = 0; i < sizeof word / sizeof *word; i++) atomic_fetch_xor(sink, word[i]);
}

static void peak_work(void *arg, size_t item) {
    (void)item;
    const struct peak_pass *p = arg;
    char sum[MACHINE_SINK_BYTES] = {0};
    p->peak->run(p->rounds, sum);
    sink_add(p->sink, sum);
}

static double peak_seconds(struct peak_pass *p, struct pool *pool) {
    double start = clock_seconds();
    pool_run(pool, (size_t)pool_threads(pool), peak_work, p);
    return clock_seconds() - start;
}

static double least_seconds(struct peak_pass *p, int passes, struct pool *pool) {
    double least = peak_seconds(p, pool);
    for (int i = 1; i < passes; i++) {
        double seconds = peak_seconds(p, pool);
        least = seconds < least ? seconds : least;
    }
    return least;
}

static struct peak_pass peak_open(const struct machine_peak *peak, double *best, _Atomic uint64_t *sink, struct pool *pool) {
    struct peak_pass pass = {peak, 1 << 10, best, sink};
    while (least_seconds(&pass, TRIES, pool) < PASS_SECONDS) pass.rounds *= 2;
    return pass;
}

static void peak_measure(struct peak_pass *p, struct pool *pool) {
    double operations = p->peak->operations * (double)p->rounds * pool_threads(pool);
    keep_best(p->best, operations / least_seconds(p, PASSES, pool) / 1e9);
}

/* ---- memory ---- */

typedef uint64_t words __attribute__((vector_size(16))); /* what every baseline has; memory is slower than these by far */
typedef float floats __attribute__((vector_size(16)));

enum { PART_BYTES = 1 << 20, PART_VECTORS = PART_BYTES / sizeof(floats), LINE_VECTORS = 64 / sizeof(floats), ARRAYS = 3, STREAMS = 4 };
#define ARRAY_BYTES      ((size_t)256 << 20) /* the largest caches that one processor shares, or about */
#define ARRAY_EACH_BYTES ((size_t)16 << 20)  /* more for each thread, whose core may bring caches of its own */

struct memory {
    floats *array[ARRAYS];
    size_t parts; /* of each array */
    _Atomic uint64_t *sink;
};

/* Not zeros: there are caches that keep those out of memory. */
static void fill_part(void *arg, size_t part) {
    const struct memory *m = arg;
    for (int i = 0; i < ARRAYS; i++) {
        floats *x = m->array[i] + part * PART_VECTORS;
        for (size_t at = 0; at < PART_VECTORS; at++) x[at] = (floats){0} + (float)(i + 1);
    }
}

static void read_part(void *arg, size_t part) {
    const struct memory *m = arg;
    const words *x = (const words *)(m->array[1] + part * PART_VECTORS);
    words sum[LINE_VECTORS] = {0};
    for (size_t at = 0; at < PART_VECTORS; at += LINE_VECTORS)
        _Pragma("GCC unroll 4") for (size_t i = 0; i < LINE_VECTORS; i++) sum[i] += x[at + i];
    sink_add(m->sink, sum);
}

/* The same from several places at once: which way is faster depends on the processor. */
static void read_part_in_streams(void *arg, size_t part) {
    const struct memory *m = arg;
    const words *x = (const words *)(m->array[1] + part * PART_VECTORS);
    words sum[STREAMS] = {0};
    for (size_t at = 0; at < PART_VECTORS / STREAMS; at += LINE_VECTORS) _Pragma("GCC unroll 4") for (size_t i = 0; i < STREAMS; i++) {
            const words *line = x + i * (PART_VECTORS / STREAMS) + at;
            sum[i] += line[0] + line[1] + line[2] + line[3];
        }
    sink_add(m->sink, sum);
}

static void copy_part(void *arg, size_t part) {
    const struct memory *m = arg;
    floats *a = m->array[0] + part * PART_VECTORS;
    const floats *b = m->array[1] + part * PART_VECTORS;
    for (size_t at = 0; at < PART_VECTORS; at++) a[at] = b[at];
}

static void triad_part(void *arg, size_t part) {
    const struct memory *m = arg;
    floats *a = m->array[0] + part * PART_VECTORS;
    const floats *b = m->array[1] + part * PART_VECTORS, *c = m->array[2] + part * PART_VECTORS;
    for (size_t at = 0; at < PART_VECTORS; at++) a[at] = b[at] + 3.0f * c[at];
}

static int memory_open(struct memory *m, struct pool *pool) {
    size_t bytes = ARRAY_BYTES + ARRAY_EACH_BYTES * (size_t)pool_threads(pool);
    m->parts = bytes / PART_BYTES;
    for (int i = 0; i < ARRAYS; i++) TRY(mem_try(&m->array[i], bytes, 1));
    pool_run(pool, m->parts, fill_part, m);
    return 0;
}

static void memory_pass(double *best, double arrays, void (*work)(void *, size_t), struct memory *m, struct pool *pool) {
    double start = clock_seconds();
    pool_run(pool, m->parts, work, m);
    keep_best(best, arrays * (double)m->parts * PART_BYTES / (clock_seconds() - start) / 1e9);
}

/* In turns, so that what a cache holds is never what comes next. */
static void memory_measure(struct machine_speed *out, struct memory *m, struct pool *pool) {
    memory_pass(&out->read_gbytes_per_second, 1, read_part, m, pool);
    memory_pass(&out->copy_gbytes_per_second, 2, copy_part, m, pool);
    memory_pass(&out->read_gbytes_per_second, 1, read_part_in_streams, m, pool);
    memory_pass(&out->triad_gbytes_per_second, 3, triad_part, m, pool);
}

/* ---- both ---- */

/* All kinds of work in short turns: a neighbour's busy second falls on each of them, and each has the others' quiet ones. */
static void measure(struct machine_speed *out, struct memory *memory, double seconds, struct pool *pool) {
    double end = clock_seconds() + seconds, *const best[MACHINE_KINDS] = {&out->fp32_gflops, &out->bf16_gflops, &out->int8_gops};
    const struct machine_peak *peak[MACHINE_PEAKS];
    struct peak_pass pass[MACHINE_PEAKS];
    size_t peaks = machine_peaks(peak);
    for (size_t i = 0; i < peaks; i++) pass[i] = peak_open(peak[i], best[peak[i]->kind], memory->sink, pool);
    do {
        memory_measure(out, memory, pool);
        for (size_t i = 0; i < peaks; i++) peak_measure(&pass[i], pool);
    } while (clock_seconds() < end);
}

int machine_measure(struct machine_speed *out, double seconds, struct pool *pool) {
    _Atomic uint64_t sink = 0;
    struct memory memory = {.sink = &sink};
    int code = memory_open(&memory, pool);
    if (code == 0) {
        struct machine_speed speed = {0};
        measure(&speed, &memory, seconds, pool);
        *out = speed;
    }
    for (int i = 0; i < ARRAYS; i++) free(memory.array[i]);
    return code;
}

/* ---- Loops between registers ----
 *
 * The processor's arithmetic alone: loops between registers, one for each instruction whose peak is asked for. As many independent chains
 * as hide the longest latency of one (two a cycle, five cycles), and as 16 registers hold. */

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
