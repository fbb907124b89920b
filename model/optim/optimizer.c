/* The schedules of the learning rate, clipping, and the optimizer's step over a flat vector. Keeps nothing between calls and allocates
 * nothing: the state is the caller's.
 *
 * For one step the caller (workers/learner.c) calls square_sum_of_segments(); when the step's tokens are known learning_rate() and
 * gradient_scale(), then optimizer_apply(). That computes once, in float64, what is the same for all elements (adam_factors(),
 * sgd_factors()), rounds it to float32, and shares out segments over the pool; each thread goes over its segment's tensors and calls the
 * kernel of the optimizer for each piece (model/kernels/kernel_body.h has the formulas). Every element is computed alone, so any division
 * of the work gives the same bits. */
#include "model/optim/optimizer.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "model/kernels/fmath.h"
#include "model/kernels/kernel_set.h"
#include "model/kernels/kernels.h"
#include "proto/steps.h"

/* ---- Learning rates ----
 *
 * The schedulers of transformers (transformers/optimization.py, lr_scheduler_type). With t steps done before this one, W = warmup_steps, S
 * = the run's steps, p = (t - W) / max(1, S - W) and m = min_lr_rate the rate is training.learning_rate times
 *
 *     t / max(1, W)                       while t < W, for all but `constant`
 *     1                                   constant, constant_with_warmup
 *     max(0, S - t) / max(1, S - W)       linear
 *     max(0, (1 + cos(pi p)) / 2)         cosine (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts)
 *     the same * (1 - m) + m              cosine_with_min_lr
 *     (1 - p)^power * (1 - m) + m         polynomial
 *     1 / sqrt((t + s - W) / s)           inverse_sqrt (Vaswani et al. 2017, arXiv 1706.03762); s = W, or 10000 without warm-up
 *     stable_decay()                      warmup_stable_decay (Hu et al. 2024, arXiv 2404.06395) */

#define PI 3.14159265358979323846

enum { INVERSE_SQRT_STEPS = 10000, DECAY_SHARE = 10 /* of the run without num_decay_steps: a tenth */ };

static double larger(double a, double b) { return a > b ? a : b; }

/* From 1 at progress 0 to 0 at 1. */
static double half_cosine(double progress) { return progress >= 1.0 ? 0.0 : larger(0.0, 0.5 * (1.0 + fmath_cos(PI * progress))); }

/* From [0, 1] to [least, 1]. */
static double raised(double factor, double least) { return factor * (1.0 - least) + least; }

/* (1 - progress)^power. */
static double remaining_power(double progress, double power) {
    double remaining = 1.0 - progress;
    if (power == 1.0 || remaining >= 1.0) return larger(0.0, remaining);
    return remaining <= 0.0 ? 0.0 : fmath_exp(power * fmath_log(remaining));
}

/* With D = num_decay_steps, q = (t - (S - D)) / max(1, D) and m = min_lr_rate:
 *
 *     t / max(1, W) * (1 - m) + m         t < W
 *     1                                   W <= t < S - D
 *     shape(q) * (1 - m) + m              after: shape(q) is 1 - q, (1 + cos(pi q)) / 2 or 1 - sqrt(q), as decay_type asks */
static double stable_decay(const struct config *config, double done, double warmup, double last) {
    double steps = (double)config->training.num_decay_steps, least = config->training.min_lr_rate, progress;
    if (config->training.num_decay_steps == 0) {
        uint64_t share = (uint64_t)last / DECAY_SHARE;
        steps = (double)share;
    }
    if (done < warmup) return raised(done / larger(1.0, warmup), least);
    if (done < last - steps) return 1.0;
    progress = (done - (last - steps)) / larger(1.0, steps);
    switch (config->training.decay_type) {
    case DECAY_LINEAR: return raised(larger(0.0, 1.0 - progress), least);
    case DECAY_COSINE: return raised(half_cosine(progress), least);
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
    case SCHEDULER_COSINE: return half_cosine(progress);
    case SCHEDULER_LINEAR: return larger(0.0, (last - done) / larger(1.0, last - warmup));
    case SCHEDULER_COSINE_WITH_MIN_LR: return raised(half_cosine(progress), least);
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

/* ---- Clipping ---- */

float gradient_scale(double squares, uint64_t tokens, double max_norm) {
    CHECK(tokens > 0);
    double norm = sqrt(squares) / (double)tokens, clip = 1.0;
    if (max_norm > 0.0 && max_norm / (norm + 1e-6) < 1.0) clip = max_norm / (norm + 1e-6);
    return (float)(clip / (double)tokens);
}

double square_sum(const float *values, size_t count) { return kernel_set()->square_sum(values, count); }

struct squares_run {
    const float *values;    /* (elements) */
    size_t elements, first; /* first: of the segments at hand */
    double sum[SEGMENTS_AT_ONCE];
};

static void squares_work(void *arg, size_t item) {
    struct squares_run *run = arg;
    size_t segment = run->first + item;
    run->sum[item] = square_sum(run->values + segment * SEGMENT_ELEMENTS, segment_size(run->elements, segment));
}

double square_sum_of_segments(const float *values, size_t elements, struct pool *pool) {
    size_t segments = segment_count(elements);
    struct squares_run run = {.values = values, .elements = elements};
    double sum = 0.0;
    for (size_t count; run.first < segments; run.first += count) {
        count = segments - run.first < SEGMENTS_AT_ONCE ? segments - run.first : SEGMENTS_AT_ONCE;
        pool_run(pool, count, squares_work, &run);
        for (size_t i = 0; i < count; i++) sum += run.sum[i];
    }
    return sum;
}

void vector_add(float *out, const float *left, const float *right, size_t count) { vector_sum_of(out, left, right, count); }

/* ---- Optimizers ---- */

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
        .moments_type = config->training.optim_state,
        .seed = config->training.seed,
    };
}

size_t optimizer_moments(const struct optimizer *optimizer) {
    switch (optimizer->kind) {
    case OPTIM_ADAMW:
    case OPTIM_ADAM: return 2;
    case OPTIM_SGD: return optimizer->momentum > 0 ? 1 : 0;
    }
    return 0;
}

struct state_parts optimizer_parts(const struct optimizer *optimizer) {
    struct state_parts parts = {1, {STATE_WEIGHTS}, optimizer->moments_type};
    size_t moments = optimizer_moments(optimizer);
    if (moments >= 1) parts.part[parts.count++] = STATE_MOMENT1;
    if (moments >= 2) parts.part[parts.count++] = STATE_MOMENT2;
    if (optimizer->ema_decay > 0) parts.part[parts.count++] = STATE_EMA;
    return parts;
}

struct begin_run {
    void *const *state;
    const struct gpt2_config *config;
    const struct optimizer *optimizer;
    struct state_parts parts;
    size_t elements;
};

static void init_work(void *arg, size_t part) {
    const struct begin_run *run = arg;
    gpt2_init_part(run->state[STATE_WEIGHTS], run->config, run->optimizer->seed, part);
}

/* One segment of what follows from the weights. */
static void begin_work(void *arg, size_t segment) {
    const struct begin_run *run = arg;
    size_t at = segment * SEGMENT_ELEMENTS, count = segment_size(run->elements, segment);
    for (size_t i = 1; i < run->parts.count; i++) {
        enum state_part part = run->parts.part[i];
        void *to = state_at(run->state, &run->parts, part, at);
        if (part == STATE_EMA) memcpy(to, state_at(run->state, &run->parts, STATE_WEIGHTS, at), count * sizeof(float));
        else memset(to, 0, count * state_element_bytes(&run->parts, part));
    }
}

void optimizer_begin(void *const state[STATE_PARTS], const struct gpt2_config *config, const struct optimizer *optimizer,
                     struct pool *pool) {
    struct begin_run run = {state, config, optimizer, optimizer_parts(optimizer), gpt2_parameters(config)};
    pool_run(pool, gpt2_init_parts(config), init_work, &run);
    pool_run(pool, segment_count(run.elements), begin_work, &run);
}

/* One optimizer_apply(). Vectors are (N), N = elements. */
struct optimizer_run {
    const struct gpt2_config *config;
    size_t elements;
    enum optim kind;
    enum moments_type moments_type;
    float *params;      /* (N) */
    const float *grads; /* (N) */
    void *m, *v;        /* (N) of moments_type; NULL: the optimizer has no such moment */
    float *average;     /* (N); NULL: there is none */
    uint64_t key;       /* of the random numbers that round the moments */
    float one_minus_ema_decay;
    struct adam_factors adam[2]; /* [1]: of tensors with weight decay, [0]: without */
    struct sgd_factors sgd[2];
};

/* The elements at .. at + count - 1, all of tensors with weight decay (decayed) or all without. m, v (count): their moments in float32. */
static void update_float(const struct optimizer_run *run, float *m, float *v, size_t at, size_t count, bool decayed) {
    const struct kernel_set *k = kernel_set();
    float *p = run->params + at;
    const float *g = run->grads + at;
    switch (run->kind) {
    case OPTIM_ADAMW: k->adamw_update(p, m, v, g, count, &run->adam[decayed]); break;
    case OPTIM_ADAM: k->adam_update(p, m, v, g, count, &run->adam[decayed]); break;
    case OPTIM_SGD: k->sgd_update(p, m, g, count, &run->sgd[decayed]); break;
    }
    if (run->average) k->ema_update(run->average + at, p, run->one_minus_ema_decay, count);
}

/* Moments kept as bfloat16: widened, updated and rounded again, so few at a time that their float32 never leaves the nearest cache. Blocks
 * end at multiples of BLOCK elements, so that none but a tensor's first and last splits a group of random words (random_body.h). */
static void update_bf16(const struct optimizer_run *run, size_t at, size_t count, bool decayed) {
    enum { BLOCK = 1024 };
    const struct kernel_set *k = kernel_set();
    float m[BLOCK], v[BLOCK];
    for (size_t end = at + count, n; at < end; at += n) {
        uint16_t *kept_m = (uint16_t *)run->m + at, *kept_v = run->v ? (uint16_t *)run->v + at : NULL;
        n = BLOCK - at % BLOCK < end - at ? BLOCK - at % BLOCK : end - at;
        k->moments_widen(m, kept_m, n);
        if (kept_v) k->moments_widen(v, kept_v, n);
        update_float(run, m, v, at, n, decayed);
        k->moments_round(kept_m, kept_v, m, v, run->key, at, n);
    }
}

static void update(const struct optimizer_run *run, size_t at, size_t count, bool decayed) {
    float *m = run->m, *v = run->v;
    if (run->m && run->moments_type == MOMENTS_BF16) update_bf16(run, at, count, decayed);
    else update_float(run, m ? m + at : NULL, v ? v + at : NULL, at, count, decayed);
}

/* One segment, tensor by tensor: some have weight decay, some not. */
static void update_work(void *arg, size_t segment) {
    const struct optimizer_run *run = arg;
    size_t at = segment * SEGMENT_ELEMENTS, end = at + segment_size(run->elements, segment);
    while (at < end) {
        size_t stop;
        bool decayed = gpt2_decayed(&stop, run->config, at);
        if (stop > end) stop = end;
        update(run, at, stop - at, decayed);
        at = stop;
    }
}

/* With t = step, from the formulas above adam_body() (model/kernels/kernel_body.h):
 * shrink = 1 - rate weight_decay (AdamW), step_size = rate / (1 - beta1^t), bias_correction2_sqrt = sqrt(1 - beta2^t). */
static struct adam_factors adam_factors(const struct optimizer *o, double weight_decay) {
    double bias_correction1 = 1.0 - power(o->beta1, o->step), bias_correction2 = 1.0 - power(o->beta2, o->step);
    return (struct adam_factors){
        .scale = o->scale,
        .shrink = o->kind == OPTIM_ADAMW ? (float)(1.0 - o->learning_rate * weight_decay) : 1.0f,
        .beta1 = (float)o->beta1,
        .one_minus_beta1 = (float)(1.0 - o->beta1),
        .beta2 = (float)o->beta2,
        .one_minus_beta2 = (float)(1.0 - o->beta2),
        .bias_correction2_sqrt = (float)sqrt(bias_correction2),
        .step_size = (float)(o->learning_rate / bias_correction1),
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
    struct optimizer_run run = {.config = config,
                                .elements = gpt2_parameters(config),
                                .kind = optimizer->kind,
                                .moments_type = optimizer->moments_type,
                                .key = moments_key(optimizer->seed, optimizer->step),
                                .params = state[STATE_WEIGHTS],
                                .m = state[STATE_MOMENT1],
                                .v = state[STATE_MOMENT2],
                                .average = state[STATE_EMA],
                                .grads = grads,
                                .one_minus_ema_decay = (float)(1.0 - optimizer->ema_decay),
                                .adam = {adam_factors(optimizer, 0.0), adam_factors(optimizer, optimizer->weight_decay)},
                                .sgd = {sgd_factors(optimizer, 0.0), sgd_factors(optimizer, optimizer->weight_decay)}};
    pool_run(pool, segment_count(run.elements), update_work, &run);
}
