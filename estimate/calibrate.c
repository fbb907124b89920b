/* The measurements behind a plan's times (model/trial/trial.h). calibrate() first finds what a parameter and an operation cost from two
 * probes of few tokens, then measures the largest shape that the time allows: each shape takes one gradient to warm up and then the best of
 * a few. Fewer layers are extended by what one layer more has taken; fewer tokens by the count of operations, apart from what a gradient
 * takes whatever its tokens. One thread calls; keeps nothing. */
#include "estimate/calibrate.h"

#include "base/clock.h"
#include "base/err.h"
#include "model/trial/trial.h"
#include "proto/steps.h"

enum { REPEATS = 3, PROBE_TOKENS = 64, PROBE_TOKENS_MORE = 256 };

/* Values that are neither 0 nor alike; which ones does not matter to time, and random ones would take some of it. */
static void fill(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] = ((float)(i * 2654435761u >> 7 & 1023) - 511.5f) * 4e-5f;
}

static double gradient_seconds(struct trial *t) {
    double began = clock_seconds();
    trial_gradient(t, 1);
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

static double apply_seconds(struct trial *t) {
    struct optimizer *optimizer = &t->optimizer;
    uint8_t digest[XXH128_BYTES];
    double began = clock_seconds();
    vectors_digest(digest, (const float *const[]){t->grads}, 1, t->N, t->pool);
    square_sum_of_segments(t->grads, t->N, t->pool);
    optimizer->learning_rate = 1e-6, optimizer->step = 1, optimizer->scale = 1.0f / (float)t->counted;
    optimizer_apply(t->state, t->grads, &t->config, optimizer, t->pool);
    state_digest(digest, t->state, &t->parts, t->N, t->pool);
    return clock_seconds() - began;
}

static double add_seconds(struct trial *t) {
    double began = clock_seconds();
    vector_add(t->grads, t->grads, t->state[STATE_WEIGHTS], t->N);
    return clock_seconds() - began;
}

static int wire_seconds(struct calibration *out, struct trial *t, enum frame_encoding encoding) {
    size_t bytes = segment_size(t->N, 0) * sizeof(float);
    struct envelope envelope = {.kind = MILLRACE__KIND__DATA};
    Millrace__Data data = MILLRACE__DATA__INIT;
    struct frame frame;
    struct message message;
    double began = clock_seconds();
    TRY(frame_pack(&frame, &envelope, &data.base, t->grads, bytes, encoding));
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
static int measure_others(struct calibration *out, struct trial *t, const struct calibration_options *options) {
    double all = (double)gpt2_parameters(&options->model) / (double)t->N;
    apply_seconds(t); /* the first one touches the memory */
    out->apply_seconds = apply_seconds(t) * all;
    TRY(wire_seconds(out, t, options->encoding));
    out->add_seconds = add_seconds(t) * all;
    return 0;
}

/* ---- trials ---- */

struct shape {
    int layers, batch, T;
};

/* One shape: *seconds of a gradient; with `others`, what is done with a gradient too. */
static int try_shape(double *seconds, struct calibration *others, const struct calibration_options *options, struct pool *pool,
                     struct shape shape, double budget) {
    struct trial trial;
    struct gpt2_config model = options->model;
    model.n_layer = shape.layers;
    int code = trial_open(&trial, &model, &options->optimizer, shape.batch, shape.T, pool);
    if (code == 0) {
        fill(trial.state[STATE_WEIGHTS], trial.N);
        *seconds = best_gradient(&trial, budget);
        if (others) code = measure_others(others, &trial, options);
    }
    trial_close(&trial);
    return code;
}

static double flop_of(const struct gpt2_config *model, struct shape shape) {
    struct gpt2_config part = *model;
    part.n_layer = shape.layers;
    return gpt2_flop(&part, (double)shape.batch * shape.T, shape.T);
}

static double parameters_of(const struct gpt2_config *model, int layers) {
    struct gpt2_config part = *model;
    part.n_layer = layers;
    return (double)gpt2_parameters(&part);
}

/* A gradient takes what its parameters cost whatever the tokens, such as packing them, and what its operations cost. */
struct cost {
    double parameter, flop; /* seconds for each */
};

static double cost_of(const struct cost *cost, const struct gpt2_config *model, struct shape shape) {
    return cost->parameter * parameters_of(model, shape.layers) + cost->flop * flop_of(model, shape);
}

/* About so many tokens of the step's own sequences. */
static struct shape probe_shape(const struct calibration_options *o, int tokens) {
    int T = o->sequence_length < tokens ? o->sequence_length : tokens, batch = tokens / T;
    return (struct shape){1, batch < o->batch ? batch : o->batch, T};
}

/* From two probes of few tokens on one layer. */
static int find_cost(struct cost *out, const struct calibration_options *o, struct pool *pool) {
    struct shape few = probe_shape(o, PROBE_TOKENS), more = probe_shape(o, PROBE_TOKENS_MORE);
    double less_seconds = 0, seconds = 0, less_flop = flop_of(&o->model, few), flop = flop_of(&o->model, more);
    TRY(try_shape(&less_seconds, NULL, o, pool, few, o->seconds / 20));
    TRY(try_shape(&seconds, NULL, o, pool, more, o->seconds / 20));
    *out = (struct cost){0, seconds / flop};
    if (flop <= less_flop) return 0;
    double slope = (seconds - less_seconds) / (flop - less_flop);
    if (slope < out->flop / 10) return 0; /* disturbed, or too small to measure */
    if (slope < out->flop) *out = (struct cost){(seconds - slope * flop) / parameters_of(&o->model, 1), slope};
    return 0;
}

/* The largest part of the step's own shape of which a gradient with `layers` and one with a layer less take so long. */
static struct shape fit(const struct calibration_options *o, const struct cost *cost, int layers, double seconds) {
    struct shape shape = {layers, o->batch, o->sequence_length};
    for (;;) {
        struct shape less = {layers - 1, shape.batch, shape.T};
        if (cost_of(cost, &o->model, shape) + cost_of(cost, &o->model, less) <= seconds) return shape;
        if (shape.batch > 1) shape.batch = (shape.batch + 1) / 2;
        else if (shape.T > PROBE_TOKENS) shape.T /= 2;
        else return shape;
    }
}

/* All of the step's part from `measured`, a trial of fewer tokens. */
static double extend(const struct calibration_options *o, const struct cost *cost, struct shape measured, double seconds) {
    struct shape whole = {measured.layers, o->batch, o->sequence_length};
    double fixed = cost->parameter * parameters_of(&o->model, measured.layers);
    if (fixed > seconds / 2) fixed = seconds / 2; /* the probes were disturbed */
    return fixed + (seconds - fixed) * flop_of(&o->model, whole) / flop_of(&o->model, measured);
}

/* The difference between two layers and one is what a layer takes. */
static int measure_layers(double *seconds, struct calibration *out, const struct calibration_options *o, struct pool *pool,
                          const struct cost *cost) {
    struct shape two = fit(o, cost, 2, o->seconds * 0.35), one = {1, two.batch, two.T}, all = {o->model.n_layer, two.batch, two.T};
    double two_seconds = 0, one_seconds = 0, budget = o->seconds * 0.35;
    TRY(try_shape(&two_seconds, out, o, pool, two, budget));
    TRY(try_shape(&one_seconds, NULL, o, pool, one, budget));
    double layer = two_seconds - one_seconds, share = 1 - flop_of(&o->model, one) / flop_of(&o->model, two);
    if (layer < two_seconds * share / 3) layer = two_seconds * share; /* a difference that makes no sense was disturbed */
    *seconds = extend(o, cost, all, two_seconds + (all.layers - 2) * layer);
    out->layers_measured = 2, out->tokens_measured = two.batch * two.T;
    return 0;
}

static int measure(struct calibration *out, const struct calibration_options *o, struct pool *pool) {
    struct shape whole = {o->model.n_layer, o->batch, o->sequence_length};
    struct cost cost;
    TRY(find_cost(&cost, o, pool));
    if (whole.layers <= 2 || 2 * cost_of(&cost, &o->model, whole) < o->seconds / 2) {
        struct shape shape = fit(o, &cost, whole.layers, o->seconds / 2);
        TRY(try_shape(&out->part_seconds, out, o, pool, shape, o->seconds / 2));
        out->part_seconds = extend(o, &cost, shape, out->part_seconds);
        out->layers_measured = shape.layers, out->tokens_measured = shape.batch * shape.T;
    } else TRY(measure_layers(&out->part_seconds, out, o, pool, &cost));
    out->flop_per_second = flop_of(&o->model, whole) / out->part_seconds;
    return 0;
}

int calibrate(struct calibration *out, const struct calibration_options *options) {
    struct calibration measured = {0};
    struct pool *pool;
    TRY(pool_open_from(&pool, options->threads, "cluster.threads_per_worker"));
    int code = measure(&measured, options, pool);
    pool_close(pool);
    if (code == 0) *out = measured;
    return code;
}
