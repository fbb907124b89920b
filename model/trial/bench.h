/* How fast this machine trains (gradient, clip and AdamW on random tokens, nothing else) and generates. */
#ifndef MILLRACE_MODEL_BENCH_H
#define MILLRACE_MODEL_BENCH_H

#include <stddef.h>

#include "model/gpt2/gpt2.h"
#include "model/kernels/profile.h"
#include "model/kernels/stripes.h"

enum { BENCH_STEPS_MAX = 10000 };

struct bench_options {
    struct gpt2_config model;
    int batch, sequence_length; /* B sequences of T positions a step; done in parts of gpt2_batch_for() */
    int threads, steps;         /* one more step is done first and not counted */
    enum moments_type moments_type; /* AdamW's */
};

struct bench_result {
    size_t parameters;
    double tokens_per_second_best, tokens_per_second_median;
    double gflop_per_step;                      /* gpt2_flop() */
    double gflops_median;                       /* gflop_per_step / median seconds */
    double gradient_seconds, optimizer_seconds; /* of the median step */
    double loss_first, loss_last;               /* mean a token */
    size_t peak_rss_bytes;                      /* of the process */
    struct profile_line phase[PROFILE_LINES]; /* of all steps together, longest first */
    size_t phases;
};

/* `millrace bench train --json` prints the fields above under their names; tests/bench/bench_train.py sets them beside PyTorch's. */
int bench_train(struct bench_result *out, const struct bench_options *options);

struct bench_generate_options {
    struct gpt2_config model;
    enum weights_type type;
    int prompt_tokens, new_tokens; /* together at most n_positions */
    int threads;
};

struct bench_generate_result {
    size_t parameters;
    double tokens_per_second_best, tokens_per_second_median; /* of the new tokens: a pass over the weights and a greedy choice each */
    double prefill_tokens_per_second;                        /* the whole prompt, its second time */
    size_t bytes_of_weights;                                 /* read for each new token */
    double gbytes_per_second;                                /* of them, at the median */
    size_t peak_rss_bytes;                                   /* of the process */
    const char *kernels;
};

/* Random weights, a random prompt. `millrace bench generate --json` prints the fields above. */
int bench_generate(struct bench_generate_result *out, const struct bench_generate_options *options);

#endif
