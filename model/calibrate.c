/* The trial behind a plan's times. Each trial opens a model of its own shape, takes one gradient for warming up and then the best of a few.
 * What is measured on fewer layers is extended by what one layer more has taken; fewer tokens, by the count of operations. Decides nothing. */
#include "model/calibrate.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "proto/steps.h"

enum { REPEATS = 3, PROBE_TOKENS = 64 };

struct trial {
    const struct calibration_options *options;
    struct pool *pool;
    struct gpt2_config model; /* with the layers of this trial */
    int batch, T;
    struct gpt2 *gpt2;
    float *state[STATE_PARTS], *grads;
    int32_t *tokens;
    size_t N;
    uint64_t counted;
};

/* Values that are neither 0 nor alike; which ones does not matter to time. */
static void fill(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] = ((float)(i * 2654435761u >> 7 & 1023) - 511.5f) * 4e-5f;
}

static int trial_open(struct trial *t) {
    struct state_parts parts = optimizer_state(&t->options->optimizer);
    size_t count = (size_t)t->batch * (size_t)t->T + 1;
    t->N = gpt2_parameters(&t->model);
    for (size_t i = 0; i < parts.count; i++) TRY(mem_try(&t->state[parts.part[i]], t->N, sizeof(float)));
    TRY(mem_try(&t->grads, t->N, sizeof(float)));
    TRY(mem_try(&t->tokens, count, sizeof *t->tokens));
    fill(t->state[STATE_WEIGHTS], t->N);
    for (size_t i = 0; i < count; i++) t->tokens[i] = (int32_t)((i * 40503u) % (size_t)t->model.vocab_size);
    return gpt2_open(&t->gpt2, &t->model, t->batch, t->T, true, t->pool);
}

static void trial_close(struct trial *t) {
    gpt2_close(t->gpt2);
    for (int part = 0; part < STATE_PARTS; part++) free(t->state[part]);
    free(t->grads);
    free(t->tokens);
}

static double gradient_seconds(struct trial *t) {
    struct gpt2_random random = {.seed = 1, .step = 1};
    double began = clock_seconds(), loss;
    gpt2_gradient(t->gpt2, t->grads, &loss, &t->counted, t->state[STATE_WEIGHTS], t->tokens, t->tokens + 1, t->batch, t->T, &random);
    return clock_seconds() - began;
}

/* The best of a few, the first not counted, within about `seconds`. */
static double best_gradient(struct trial *t, double seconds) {
    double until = clock_seconds() + seconds, first = gradient_seconds(t), best = first;
    for (int i = 0; i < REPEATS && clock_seconds() + best <= until; i++) {
        double again = gradient_seconds(t);
        best = i == 0 || again < best ? again : best;
    }
    return best;
}

/* ---- what is done with a gradient ---- */

struct squares {
    const float *values;
    double *sums;
    size_t elements;
};

static void square_segment(void *arg, size_t segment) {
    struct squares *s = arg;
    s->sums[segment] = square_sum(s->values + segment * SEGMENT_ELEMENTS, segment_size(s->elements, segment));
}

static double apply_seconds(struct trial *t) {
    struct optimizer optimizer = t->options->optimizer;
    struct state_parts parts = optimizer_state(&optimizer);
    struct squares squares = {t->grads, mem_alloc(segment_count(t->N) * sizeof(double)), t->N};
    uint8_t digest[XXH128_BYTES];
    double began = clock_seconds();
    vectors_digest(digest, (const float *const[]){t->grads}, 1, t->N, t->pool);
    pool_run(t->pool, segment_count(t->N), square_segment, &squares);
    optimizer.learning_rate = 1e-6, optimizer.step = 1, optimizer.scale = 1.0f / (float)t->counted;
    optimizer_apply(t->state, t->grads, &t->model, &optimizer, t->pool);
    state_digest(digest, t->state, &parts, t->N, t->pool);
    free(squares.sums);
    return clock_seconds() - began;
}

static double add_seconds(struct trial *t) {
    double began = clock_seconds();
    vector_add(t->grads, t->grads, t->state[STATE_WEIGHTS], t->N);
    return clock_seconds() - began;
}

static int wire_seconds(struct calibration *out, struct trial *t) {
    size_t bytes = segment_size(t->N, 0) * sizeof(float);
    struct envelope envelope = {.kind = MILLRACE__KIND__DATA};
    Millrace__Data data = MILLRACE__DATA__INIT;
    struct frame frame;
    struct message message;
    double began = clock_seconds();
    TRY(frame_pack(&frame, &envelope, &data.base, t->grads, bytes, t->options->encoding));
    double packed = clock_seconds();
    int code = frame_unpack(&message, frame.header.data, frame.header.size, frame.body.data, frame.body.size);
    if (code == 0) {
        out->pack_seconds = (packed - began) / (double)bytes;
        out->unpack_seconds = (clock_seconds() - packed) / (double)bytes;
        out->packed = (double)frame.body.size / (double)bytes;
        message_free(&message);
    }
    frame_free(&frame);
    return code;
}

/* All of them scale with the number of parameters. */
static int measure_rest(struct calibration *out, struct trial *t) {
    double all = (double)gpt2_parameters(&t->options->model) / (double)t->N;
    apply_seconds(t); /* the first one touches the memory */
    out->apply_seconds = apply_seconds(t) * all;
    TRY(wire_seconds(out, t));
    out->add_seconds = add_seconds(t) * all;
    return 0;
}

/* ---- trials ---- */

/* One shape: *seconds of a gradient; with `rest`, all else too. */
static int try_shape(double *seconds, struct calibration *rest, const struct calibration_options *options, struct pool *pool, int layers,
                     int batch, int T, double budget) {
    struct trial trial = {.options = options, .pool = pool, .model = options->model, .batch = batch, .T = T};
    trial.model.n_layer = layers;
    int code = trial_open(&trial);
    if (code == 0) *seconds = best_gradient(&trial, budget);
    if (code == 0 && rest) code = measure_rest(rest, &trial);
    trial_close(&trial);
    return code;
}

static double flop_of(const struct gpt2_config *model, int layers, int batch, int T) {
    struct gpt2_config shape = *model;
    shape.n_layer = layers;
    return gpt2_flop(&shape, (double)batch * T, T);
}

/* The largest part of the step's own shape that two gradients of `layers` layers are done of in time. */
static void fit(int *batch, int *T, const struct calibration_options *o, int layers, double rate, double seconds) {
    *batch = o->batch, *T = o->sequence_length;
    while (*batch > 1 && 2 * flop_of(&o->model, layers, *batch, *T) / rate > seconds) *batch = (*batch + 1) / 2;
    while (*T > PROBE_TOKENS && 2 * flop_of(&o->model, layers, *batch, *T) / rate > seconds) *T /= 2;
}

static int measure(struct calibration *out, const struct calibration_options *o, struct pool *pool) {
    const struct gpt2_config *model = &o->model;
    int L = model->n_layer, batch, T, probe = o->sequence_length < PROBE_TOKENS ? o->sequence_length : PROBE_TOKENS;
    double one, two, whole = flop_of(model, L, o->batch, o->sequence_length), budget = o->seconds / 4;
    TRY(try_shape(&one, NULL, o, pool, 1, 1, probe, budget));
    double rate = flop_of(model, 1, 1, probe) / one;
    int layers = L <= 2 || 2 * whole / rate < o->seconds / 2 ? L : 2;
    fit(&batch, &T, o, layers, rate, layers == L ? o->seconds / 2 : budget);
    TRY(try_shape(&two, out, o, pool, layers, batch, T, layers == L ? o->seconds / 2 : budget));
    double seconds = two;
    if (layers < L) {
        TRY(try_shape(&one, NULL, o, pool, 1, batch, T, budget));
        double counted = two * (1 - flop_of(model, 1, batch, T) / flop_of(model, 2, batch, T));
        double layer = two - one > counted / 3 ? two - one : counted; /* a difference that makes no sense was disturbed */
        seconds = two + (L - 2) * layer;
    }
    out->layers_measured = layers, out->tokens_measured = batch * T;
    out->part_seconds = seconds * whole / flop_of(model, L, batch, T);
    out->flop_per_second = whole / out->part_seconds;
    return 0;
}

int calibrate(struct calibration *out, const struct calibration_options *options) {
    struct calibration measured = {0};
    struct pool *pool;
    TRY(pool_open(&pool, options->threads));
    int code = measure(&measured, options, pool);
    pool_close(pool);
    if (code == 0) *out = measured;
    return code;
}
