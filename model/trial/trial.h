/* A training step on made-up tokens: what the self-test, the benchmark and the calibration of a plan do the same way. Owns the model, the
 * state and the gradient; the pool is borrowed. Used by one thread at a time: trial_open(), then the caller fills in weights, then
 * trial_gradient() and optimizer_apply() on its fields as often as needed, trial_close(). */
#ifndef MILLRACE_MODEL_TRIAL_H
#define MILLRACE_MODEL_TRIAL_H

#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"

struct trial {
    struct gpt2_config config;
    struct optimizer optimizer; /* its seed is that of tokens and dropout, too */
    struct state_parts parts;   /* optimizer_parts() */
    struct pool *pool;
    int B, T;
    size_t N;                 /* parameters */
    struct gpt2 *model;       /* for gpt2_batch_for() sequences at a time */
    void *state[STATE_PARTS]; /* (N) each */
    float *grads;             /* (N) */
    int32_t *tokens;          /* (B T + 1): inputs (B, T), and targets one further */
    double loss;              /* of the last gradient: gpt2_gradient()'s *out_loss */
    uint64_t counted;
};

/* Everything is zeros but for the tokens, which are random ones of the vocabulary. ERR_MEMORY. trial_close() is due in any case. */
int trial_open(struct trial *out, const struct gpt2_config *config, const struct optimizer *optimizer, int B, int T, struct pool *pool);
void trial_close(struct trial *trial);

/* The gradient of all tokens, with the dropout of that step. */
void trial_gradient(struct trial *trial, uint64_t step);

#endif
