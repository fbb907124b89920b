/* What training takes of a worker's memory, before it takes it. The model's part is counted by the code that allocates it (gpt2_memory());
 * the rest follows the workers: state and sum of learner.c, partial sums of partials.c, segments under way of exchange.c and summing.c.
 * Pure: the machine's memory is an argument. */
#ifndef MILLRACE_ESTIMATE_MEMORY_H
#define MILLRACE_ESTIMATE_MEMORY_H

#include <stdint.h>

#include "base/machine.h"
#include "config/config.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"

/* What the memory is a function of. */
struct worker_shape {
    struct gpt2_config model;
    struct optimizer optimizer;
    int64_t global_batch, slices, sequence_length, cache_bytes;
    int64_t members; /* workers that train together */
    int threads;     /* of each */
};
struct worker_shape worker_shape_of(const struct config *config, int64_t members, int threads);
int64_t worker_batch(const struct worker_shape *shape); /* sequences that it computes at a time */

/* Bytes; float64, so that sizes that no machine has can be shown, too. */
struct worker_memory {
    double weights, optimizer;          /* N floats, and the other parts of the state */
    double gradient;                    /* the summed one, N */
    double partial_sums;                /* N for each sum held at once, when this worker computes all slices, as the first one may */
    struct gpt2_memory activations;
    double exchange;                    /* segments and messages under way, at most */
    double data;                        /* the cache of frames, as much as it may hold, and one slice's tokens */
    double process;                     /* the program, its libraries and the tokenizer's tables */
    double total;                       /* of the above: what the worker may reach */
    double least;                       /* what it reaches in any case: its own share of the slices, messages and caches empty */
};
struct worker_memory worker_memory(const struct worker_shape *shape);

/* ERR_MEMORY when `workers` such workers cannot be on this machine at once: their least is over its limit, or
 * that of one over what a process may have. The text has both numbers, and
 * each change that would make them fit, alone or together. */
int worker_memory_check(const struct worker_shape *shape, int64_t workers, const struct machine_memory *machine);

#endif
