/* The vectors of a run's state: their sizes, memory, names in files, and digest. Knows nothing of what is in them. A worker opens them when
 * it joins (workers/learner.c) and digests them after each step. */
#include "model/optim/state.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"
#include "proto/steps.h"

enum { VECTORS_MAX = 8 };

bool state_is_moment(enum state_part part) {
    switch (part) {
    case STATE_MOMENT1:
    case STATE_MOMENT2: return true;
    case STATE_WEIGHTS:
    case STATE_EMA: return false;
    case STATE_PARTS: break;
    }
    CHECK(!"no part of a state");
    return false;
}

static bool is_bf16(const struct state_parts *parts, enum state_part part) {
    return state_is_moment(part) && parts->moments_type == MOMENTS_BF16;
}

size_t state_element_bytes(const struct state_parts *parts, enum state_part part) {
    return is_bf16(parts, part) ? sizeof(uint16_t) : sizeof(float);
}

const char *state_dtype(const struct state_parts *parts, enum state_part part) {
    return is_bf16(parts, part) ? "BF16" : "F32";
}

size_t state_bytes_per_element(const struct state_parts *parts) {
    size_t bytes = 0;
    for (size_t i = 0; i < parts->count; i++) bytes += state_element_bytes(parts, parts->part[i]);
    return bytes;
}

size_t state_moments(const struct state_parts *parts) {
    size_t moments = 0;
    for (size_t i = 0; i < parts->count; i++) moments += state_is_moment(parts->part[i]);
    return moments;
}

const char *state_prefix(enum state_part part, size_t moments) {
    switch (part) {
    case STATE_MOMENT1: return moments == 1 ? "momentum_buffer." : "exp_avg.";
    case STATE_MOMENT2: return "exp_avg_sq.";
    case STATE_WEIGHTS:
    case STATE_EMA: return "";
    case STATE_PARTS: break;
    }
    CHECK(!"no part of a state");
    return "";
}

int state_open(void *state[STATE_PARTS], const struct state_parts *parts, size_t elements) {
    for (size_t i = 0; i < parts->count; i++)
        TRY(mem_try(&state[parts->part[i]], elements, state_element_bytes(parts, parts->part[i])));
    return 0;
}

void state_close(void *state[STATE_PARTS]) {
    for (int part = 0; part < STATE_PARTS; part++) free(state[part]);
}

void *state_at(void *const state[STATE_PARTS], const struct state_parts *parts, enum state_part part, size_t element) {
    return (char *)state[part] + element * state_element_bytes(parts, part);
}

struct vector {
    const void *elements;
    size_t element_bytes;
};

/* Segments are numbered through all vectors, one vector after the other. */
struct digest_run {
    const struct vector *vector;
    size_t elements, segments, first; /* segments: of each vector; first: of those at hand */
    uint8_t digest[SEGMENTS_AT_ONCE][XXH128_BYTES];
};

static void digest_work(void *arg, size_t item) {
    struct digest_run *run = arg;
    size_t number = run->first + item, segment = number % run->segments;
    const struct vector *v = &run->vector[number / run->segments];
    xxh128_of(run->digest[item], (const char *)v->elements + segment * SEGMENT_ELEMENTS * v->element_bytes,
              segment_size(run->elements, segment) * v->element_bytes);
}

static void digest_of(uint8_t out[XXH128_BYTES], const struct vector *vectors, size_t count, size_t elements, struct pool *pool) {
    struct digest_run run = {.vector = vectors, .elements = elements, .segments = segment_count(elements)};
    struct xxh128 all;
    xxh128_begin(&all);
    for (size_t end = count * run.segments, n; run.first < end; run.first += n) {
        n = end - run.first < SEGMENTS_AT_ONCE ? end - run.first : SEGMENTS_AT_ONCE;
        pool_run(pool, n, digest_work, &run);
        xxh128_add(&all, run.digest, n * XXH128_BYTES);
    }
    xxh128_end(&all, out);
}

void vectors_digest(uint8_t out[XXH128_BYTES], const float *const *vectors, size_t vector_count, size_t elements, struct pool *pool) {
    struct vector vector[VECTORS_MAX];
    CHECK(vector_count >= 1 && vector_count <= VECTORS_MAX);
    for (size_t i = 0; i < vector_count; i++) vector[i] = (struct vector){vectors[i], sizeof(float)};
    digest_of(out, vector, vector_count, elements, pool);
}

void state_digest(uint8_t out[XXH128_BYTES], void *const state[STATE_PARTS], const struct state_parts *parts, size_t elements,
                  struct pool *pool) {
    struct vector vector[STATE_PARTS];
    for (size_t i = 0; i < parts->count; i++)
        vector[i] = (struct vector){state[parts->part[i]], state_element_bytes(parts, parts->part[i])};
    digest_of(out, vector, parts->count, elements, pool);
}
