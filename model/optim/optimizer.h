/* AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), Adam and SGD as torch.optim computes them, gradient clipping by global norm as
 * torch.nn.utils.clip_grad_norm_, and the learning rate schedules of transformers. Elementwise: any division of the work gives the same
 * bits. */
#ifndef MILLRACE_MODEL_OPTIMIZER_H
#define MILLRACE_MODEL_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "config/config.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/state.h"

/* Learning rate of step t (1-based: the rate with which step t is applied), as transformers' schedulers give it for the optimizer's t-th
 * step: the factor at t - 1. So with warmup_steps above 0 the first step's rate is 0, as it is there. */
double learning_rate(const struct config *config, uint64_t step, uint64_t max_steps);

struct optimizer {
    enum optim kind;
    double beta1, beta2, epsilon; /* AdamW's and Adam's */
    double momentum;              /* SGD's; its velocity is the first moment, which is not there when this is 0 */
    bool nesterov;
    double weight_decay; /* of matrices and embeddings */
    double ema_decay;    /* d of average = d average + (1 - d) weights, after each step; 0: there is no average */
    enum optim_state moments; /* what they are kept as */
    uint64_t seed;            /* of the first weights, and of what rounds the moments */
    /* of one step: */
    double learning_rate;
    uint64_t step; /* 1-based */
    float scale;   /* what every gradient element is multiplied with first: 1 / tokens, times the clip factor */
};
struct optimizer optimizer_of(const struct config *config); /* without what is of one step */
struct state_parts optimizer_state(const struct optimizer *optimizer);

/* State 0: weights as gpt2_init() makes them, moments 0, the average as the weights. state[part] (N) for each part that the optimizer
 * has. */
void optimizer_begin(void *const state[STATE_PARTS], const struct gpt2_config *config, const struct optimizer *optimizer);

/* 1 / tokens * min(1, max_norm / (norm + 1e-6)), where norm = sqrt(square_sum) / tokens; max_norm 0: no clipping. */
float gradient_scale(double square_sum, uint64_t tokens, double max_norm);

/* Sum of squares of one segment in float64, in index order of fixed lanes. */
double square_sum(const float *values, size_t count);

/* Sum of squares of a whole vector: of each segment (SEGMENT_ELEMENTS), then over the segments in order. */
double square_sum_of_segments(const float *values, size_t elements, struct pool *pool);

/* Updates the state from grads (N). All is computed in float32; moments kept as bfloat16 are then rounded stochastically (moments_round()
 * of model/kernels/kernel_set.h), by a function of (seed, step, element): rounded to the nearest, a second moment would stand still,
 * because with beta2 = 0.999 what a step adds to it is less than half of its last place. */
void optimizer_apply(void *const state[STATE_PARTS], const float *grads, const struct gpt2_config *config,
                     const struct optimizer *optimizer, struct pool *pool);

/* out = left + right, elementwise; out may be left. */
void vector_add(float *out, const float *left, const float *right, size_t count);

#endif
