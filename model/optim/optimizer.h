/* AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), Adam (Kingma & Ba 2015, arXiv 1412.6980) and SGD as torch.optim computes them,
 * gradient clipping by global norm as torch.nn.utils.clip_grad_norm_ (Pascanu et al. 2013, arXiv 1211.5063), an average of the weights, and
 * the learning rate schedules of transformers. Any division of the work gives the same bits. Thread-safe but for the vectors that are
 * written; a pool is used by one caller at a time. */
#ifndef MILLRACE_MODEL_OPTIMIZER_H
#define MILLRACE_MODEL_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "config/config.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/state.h"

/* Learning rate of step t (1-based: the rate with which step t is applied), that of transformers' schedulers for the optimizer's t-th
 * step: the factor at t - 1. So with warmup_steps above 0 the first step's rate is 0, as it is there. */
double learning_rate(const struct config *config, uint64_t step, uint64_t max_steps);

struct optimizer {
    enum optim kind;
    double beta1, beta2, epsilon; /* AdamW's and Adam's */
    double momentum;              /* SGD's; its velocity is the first moment, which is not there when this is 0 */
    bool nesterov;
    double weight_decay;            /* of matrices and embeddings (gpt2_decayed()) */
    double ema_decay;               /* after each step average = ema_decay average + (1 - ema_decay) weights; 0: there is no average */
    enum moments_type moments_type; /* the type of the moments' elements */
    uint64_t seed;                  /* of the first weights, and of the random numbers that round the moments */
    /* of one step: */
    double learning_rate;
    uint64_t step; /* 1-based */
    float scale;   /* every element of the gradient is multiplied with it first: gradient_scale() */
};
struct optimizer optimizer_of(const struct config *config); /* without what is of one step */

/* How many moments it keeps: 2, 1 or 0. */
size_t optimizer_moments(const struct optimizer *optimizer);

/* The vectors of its state: weights, moments, average. Memory, checkpoints, joins and digests follow from this. */
struct state_parts optimizer_parts(const struct optimizer *optimizer);

/* The state before the first step: weights as gpt2_init() makes them, moments 0, the average equal to the weights. state[part] (N) for each
 * part of optimizer_parts(). */
void optimizer_begin(void *const state[STATE_PARTS], const struct gpt2_config *config, const struct optimizer *optimizer,
                     struct pool *pool);

/* 1 / tokens * min(1, max_norm / (norm + 1e-6)), where norm = sqrt(square_sum) / tokens; max_norm 0: no clipping. */
float gradient_scale(double square_sum, uint64_t tokens, double max_norm);

/* Sum of squares of values (count) in float64, in eight fixed lanes. */
double square_sum(const float *values, size_t count);

/* Sum of squares of a whole vector: of each segment (SEGMENT_ELEMENTS), then over the segments in order. */
double square_sum_of_segments(const float *values, size_t elements, struct pool *pool);

/* Updates the state from grads (N), the gradient of the loss's sum. All is computed in float32; moments kept as bfloat16 are then rounded
 * stochastically (moments_round() of model/kernels/kernel_set.h), by a function of (seed, step, element): rounded to the nearest, a second
 * moment would never change, because with beta2 = 0.999 a step adds less than half of its last place. */
void optimizer_apply(void *const state[STATE_PARTS], const float *grads, const struct gpt2_config *config,
                     const struct optimizer *optimizer, struct pool *pool);

/* out = left + right, elementwise; out may be left. */
void vector_add(float *out, const float *left, const float *right, size_t count);

#endif
