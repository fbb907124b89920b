/* Measures what memory and arithmetic of this machine give at most. The arithmetic is machine_peaks.c's. */
#include "model/trial/machine.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"

/* ---- arithmetic ---- */

#define PASS_SECONDS 0.004 /* long beside waking threads, no longer than a neighbour leaves the core alone */
enum { PASSES = 5, TRIES = 3 }; /* of a turn; of the first passes, which tell how many rounds make that time */

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
