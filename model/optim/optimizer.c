/* AdamW, Adam, SGD, clipping and sums over flat vectors, shared out in segments. Factors are computed once in float64 from
 * products and square roots alone, then rounded. */
#include "model/optim/optimizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/kernels/fmath.h"
#include "model/kernels/kernel_set.h"
#include "model/kernels/kernels.h"
#include "proto/steps.h"

/* ---- Learning rates ----
 *
 * Learning rates as transformers' schedulers of the same names give them (transformers/optimization.py): after warm-up a function of the
 * progress through the run, or through its end. */

#define PI 3.14159265358979323846

enum { INVERSE_SQRT_STEPS = 10000, DECAY_SHARE = 10 };

static double larger(double a, double b) { return a > b ? a : b; }

/* From 1 down to 0 along half a wave. */
static double half_wave(double progress) { return progress >= 1.0 ? 0.0 : larger(0.0, 0.5 * (1.0 + fmath_cos(PI * progress))); }

static double raised(double factor, double least) { return factor * (1.0 - least) + least; }

static double remaining_power(double progress, double power) {
    double rest = 1.0 - progress;
    if (power == 1.0 || rest >= 1.0) return larger(0.0, rest);
    return rest <= 0.0 ? 0.0 : fmath_exp(power * fmath_log(rest));
}

/* The last num_decay_steps go down, and warm-up begins at the lowest rate. */
static double stable_decay(const struct config *config, double done, double warmup, double last) {
    double steps = (double)config->training.num_decay_steps, least = config->training.min_lr_rate, progress;
    if (config->training.num_decay_steps == 0) steps = (double)((uint64_t)last / DECAY_SHARE);
    if (done < warmup) return raised(done / larger(1.0, warmup), least);
    if (done < last - steps) return 1.0;
    progress = (done - (last - steps)) / larger(1.0, steps);
    switch (config->training.decay_type) {
    case DECAY_LINEAR: return raised(larger(0.0, 1.0 - progress), least);
    case DECAY_COSINE: return raised(half_wave(progress), least);
    case DECAY_ONE_MINUS_SQRT: return raised(larger(0.0, 1.0 - sqrt(progress)), least);
    }
    return least;
}

static double factor_of(const struct config *config, double done, double warmup, double last) {
    double progress = (done - warmup) / larger(1.0, last - warmup), least = config->training.min_lr_rate, scale;
    if (config->training.lr_scheduler_type == SCHEDULER_WARMUP_STABLE_DECAY) return stable_decay(config, done, warmup, last);
    if (config->training.lr_scheduler_type == SCHEDULER_CONSTANT) return 1.0; /* the one that has no warm-up */
    if (done < warmup) return done / larger(1.0, warmup);
    switch (config->training.lr_scheduler_type) {
    case SCHEDULER_COSINE: return half_wave(progress);
    case SCHEDULER_LINEAR: return larger(0.0, (last - done) / larger(1.0, last - warmup));
    case SCHEDULER_COSINE_WITH_MIN_LR: return raised(half_wave(progress), least);
    case SCHEDULER_POLYNOMIAL: return raised(remaining_power(progress, config->training.power), least);
    case SCHEDULER_INVERSE_SQRT:
        scale = warmup > 0 ? warmup : INVERSE_SQRT_STEPS;
        return 1.0 / sqrt((done + scale - warmup) / scale);
    case SCHEDULER_CONSTANT:
    case SCHEDULER_CONSTANT_WITH_WARMUP:
    case SCHEDULER_WARMUP_STABLE_DECAY: break;
    }
    return 1.0;
}

double learning_rate(const struct config *config, uint64_t step, uint64_t max_steps) {
    double done = step > 0 ? (double)(step - 1) : 0.0; /* LambdaLR: the optimizer's t-th step runs at lambda(t - 1) */
    return config->training.learning_rate * factor_of(config, done, (double)config->training.warmup_steps, (double)max_steps);
}

/* ---- Optimizers ---- */

float gradient_scale(double squares, uint64_t tokens, double max_norm) {
    CHECK(tokens > 0);
    double norm = sqrt(squares) / (double)tokens, clip = 1.0;
    if (max_norm > 0.0 && max_norm / (norm + 1e-6) < 1.0) clip = max_norm / (norm + 1e-6);
    return (float)(clip / (double)tokens);
}

double square_sum(const float *values, size_t count) { return kernel_set()->square_sum(values, count); }

struct squares_run {
    const float *values;
    double *sum; /* [segments] */
    size_t elements;
};

static void squares_work(void *arg, size_t segment) {
    const struct squares_run *run = arg;
    run->sum[segment] = square_sum(run->values + segment * SEGMENT_ELEMENTS, segment_size(run->elements, segment));
}

double square_sum_of_segments(const float *values, size_t elements, struct pool *pool) {
    size_t segments = segment_count(elements);
    struct squares_run run = {values, mem_alloc(segments * sizeof(double)), elements};
    double sum = 0.0;
    pool_run(pool, segments, squares_work, &run);
    for (size_t i = 0; i < segments; i++) sum += run.sum[i];
    free(run.sum);
    return sum;
}

void vector_add(float *out, const float *left, const float *right, size_t count) { vector_sum_of(out, left, right, count); }

/* base^exponent by squaring: the C library's pow() differs between versions. */
static double power(double base, uint64_t exponent) {
    double result = 1.0;
    for (; exponent; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

struct optimizer optimizer_of(const struct config *config) {
    return (struct optimizer){
        .kind = config->training.optim,
        .beta1 = config->training.adam_beta1,
        .beta2 = config->training.adam_beta2,
        .epsilon = config->training.adam_epsilon,
        .momentum = config->training.sgd_momentum,
        .nesterov = config->training.sgd_nesterov,
        .weight_decay = config->training.weight_decay,
        .ema_decay = config->training.ema_decay,
        .moments = config->training.optim_state,
        .seed = config->training.seed,
    };
}

struct state_parts optimizer_state(const struct optimizer *optimizer) {
    struct state_parts parts = {1, {STATE_WEIGHTS}, optimizer->moments};
    bool adam = optimizer->kind != OPTIM_SGD;
    if (adam || optimizer->momentum > 0) parts.part[parts.count++] = STATE_MOMENT1;
    if (adam) parts.part[parts.count++] = STATE_MOMENT2;
    if (optimizer->ema_decay > 0) parts.part[parts.count++] = STATE_EMA;
    return parts;
}

void optimizer_begin(void *const state[STATE_PARTS], const struct gpt2_config *config, const struct optimizer *optimizer) {
    struct state_parts parts = optimizer_state(optimizer);
    size_t elements = gpt2_parameters(config);
    gpt2_init(state[STATE_WEIGHTS], config, optimizer->seed);
    for (size_t i = 1; i < parts.count; i++)
        if (parts.part[i] == STATE_EMA) memcpy(state[STATE_EMA], state[STATE_WEIGHTS], elements * sizeof(float));
        else memset(state[parts.part[i]], 0, elements * state_element_bytes(&parts, parts.part[i]));
}

struct optimizer_run {
    enum optim kind;
    enum optim_state moments;
    float *params, *average; /* average NULL: there is none */
    void *m, *v;             /* of what `moments` says; NULL: there is none */
    const float *grads;
    uint64_t key; /* rounds the moments */
    float ema_rest;
    struct adam_factors adam[2]; /* [decay] */
    struct sgd_factors sgd[2];
    const struct gpt2_tensor *tensor; /* [tensors] */
    size_t tensors, elements;
};

/* m and v are the moments of these elements. */
static void update_float(const struct optimizer_run *run, float *m, float *v, size_t at, size_t count, bool decay) {
    const struct kernel_set *k = kernel_set();
    float *p = run->params + at;
    const float *g = run->grads + at;
    switch (run->kind) {
    case OPTIM_ADAMW: k->adamw_update(p, m, v, g, count, &run->adam[decay]); break;
    case OPTIM_ADAM: k->adam_update(p, m, v, g, count, &run->adam[decay]); break;
    case OPTIM_SGD: k->sgd_update(p, m, g, count, &run->sgd[decay]); break;
    }
    if (run->average) k->ema_update(run->average + at, p, run->ema_rest, count);
}

/* Block by block, so that the moments as float32 never leave the nearest cache; blocks begin where groups of random words do. */
static void update_bf16(const struct optimizer_run *run, size_t at, size_t count, bool decay) {
    enum { BLOCK = 1024 };
    const struct kernel_set *k = kernel_set();
    float m[BLOCK], v[BLOCK];
    for (size_t end = at + count, n; at < end; at += n) {
        uint16_t *kept_m = (uint16_t *)run->m + at, *kept_v = run->v ? (uint16_t *)run->v + at : NULL;
        n = BLOCK - at % BLOCK < end - at ? BLOCK - at % BLOCK : end - at;
        k->moments_widen(m, kept_m, n);
        if (kept_v) k->moments_widen(v, kept_v, n);
        update_float(run, m, v, at, n, decay);
        k->moments_round(kept_m, kept_v, m, v, run->key, at, n);
    }
}

static void update(const struct optimizer_run *run, size_t at, size_t count, bool decay) {
    float *m = run->m, *v = run->v;
    if (run->m && run->moments == OPTIM_STATE_BF16) update_bf16(run, at, count, decay);
    else update_float(run, m ? m + at : NULL, v ? v + at : NULL, at, count, decay);
}

/* One segment: the pieces of the tensors that lie in it. */
static void update_work(void *arg, size_t segment) {
    const struct optimizer_run *run = arg;
    size_t at = segment * SEGMENT_ELEMENTS, end = at + segment_size(run->elements, segment);
    for (size_t i = 0; i < run->tensors && at < end; i++) {
        const struct gpt2_tensor *t = &run->tensor[i];
        size_t stop = t->offset + t->size < end ? t->offset + t->size : end;
        if (stop <= at) continue;
        update(run, at, stop - at, t->decay);
        at = stop;
    }
}

static struct adam_factors adam_factors(const struct optimizer *o, double weight_decay) {
    double correction1 = 1.0 - power(o->beta1, o->step), correction2 = 1.0 - power(o->beta2, o->step);
    return (struct adam_factors){
        .scale = o->scale,
        .shrink = o->kind == OPTIM_ADAMW ? (float)(1.0 - o->learning_rate * weight_decay) : 1.0f,
        .beta1 = (float)o->beta1,
        .beta1_rest = (float)(1.0 - o->beta1),
        .beta2 = (float)o->beta2,
        .beta2_rest = (float)(1.0 - o->beta2),
        .root2 = (float)sqrt(correction2),
        .step_size = (float)(o->learning_rate / correction1),
        .epsilon = (float)o->epsilon,
        .l2 = (float)weight_decay,
    };
}

static struct sgd_factors sgd_factors(const struct optimizer *o, double weight_decay) {
    return (struct sgd_factors){.scale = o->scale,
                                .l2 = (float)weight_decay,
                                .momentum = (float)o->momentum,
                                .step_size = (float)o->learning_rate,
                                .nesterov = o->nesterov};
}

void optimizer_apply(void *const state[STATE_PARTS], const float *grads, const struct gpt2_config *config,
                     const struct optimizer *optimizer, struct pool *pool) {
    struct gpt2_tensor *tensor = mem_alloc(gpt2_tensor_count(config) * sizeof *tensor); /* small; freed below */
    struct optimizer_run run = {.kind = optimizer->kind,
                                .moments = optimizer->moments,
                                .key = moments_key(optimizer->seed, optimizer->step),
                                .params = state[STATE_WEIGHTS],
                                .m = state[STATE_MOMENT1],
                                .v = state[STATE_MOMENT2],
                                .average = state[STATE_EMA],
                                .grads = grads,
                                .ema_rest = (float)(1.0 - optimizer->ema_decay),
                                .adam = {adam_factors(optimizer, 0.0), adam_factors(optimizer, optimizer->weight_decay)},
                                .sgd = {sgd_factors(optimizer, 0.0), sgd_factors(optimizer, optimizer->weight_decay)},
                                .tensor = tensor,
                                .tensors = gpt2_tensors(tensor, config),
                                .elements = gpt2_parameters(config)};
    pool_run(pool, segment_count(run.elements), update_work, &run);
    free(tensor);
}
