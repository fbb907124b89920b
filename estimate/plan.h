/* What a pipeline's training will do, before it runs: steps, memory, arithmetic, bytes on the wire and on the disk, and how long it takes
 * where the machine was measured. Pure. */
#ifndef MILLRACE_ESTIMATE_PLAN_H
#define MILLRACE_ESTIMATE_PLAN_H

#include <stdint.h>

#include "config/config.h"
#include "estimate/calibrate.h"
#include "estimate/memory.h"

enum plan_source { PLAN_UNKNOWN, PLAN_ESTIMATED, PLAN_MANIFEST };

/* What there is to train on. */
struct plan_data {
    enum plan_source source;
    double text_bytes;                          /* of the sources, unpacked; 0: not known */
    double tokens;                              /* of both splits */
    double token_bytes;                         /* of one in a shard: 2 or 4, as its tokenizer's ids need; whatever the model pads */
    double train_sequences, validation_sequences;
    double dataset_bytes;                       /* on the disk: as they are, or estimated: not compressed */
};

struct plan {
    struct {
        double total, token_embedding, position_embedding, attention, feed_forward, norms;
    } parameters;
    struct plan_data data;
    double steps, tokens_per_step, tokens, epochs; /* steps 0: not known, for it depends on the dataset; epochs 0: the same */
    int64_t slices, slice_sequences, batch;     /* batch: sequences that a worker computes at a time */
    int64_t workers, busy_workers;              /* busy: with a slice to compute */
    int threads;                                /* of each worker */
    struct worker_shape shape;
    struct worker_memory memory;                /* of each worker */
    double flop_per_step, flop;
    struct {
        double sent, received;                  /* of one worker a step, the one with the most: before compression */
        double all;                             /* sent by all of them a step */
    } wire;
    struct {
        double bytes, written, kept_max;        /* of one; how many the run writes, and how many are there at once */
    } checkpoints;
    double evaluations, evaluated_sequences;    /* sequences: of one evaluation */
};
void plan_make(struct plan *out, const struct config *config, int64_t workers, const struct plan_data *data);

/* Seconds; 0 where it is not known. */
struct plan_times {
    double compute, sum, exchange, apply, step; /* of a step: slices, adding their gradients up, the wire, clipping and the optimizer */
    double tokens_per_second;
    double tokenize, train, evaluate, total;
};
/* measured: with as many threads as all busy workers have together, at most `cores`; all of them are taken to be on this machine.
 * tokenize_rate: bytes of text a second of one thread; 0: not measured. */
struct plan_times plan_times_of(const struct plan *plan, const struct calibration *measured, double tokenize_rate, int cores);

#endif
