/* How long this machine takes for the pieces of a training step, from a short trial at the step's own shapes: on a few layers where all of
 * them would take too long, on fewer tokens where that still would. */
#ifndef MILLRACE_ESTIMATE_CALIBRATE_H
#define MILLRACE_ESTIMATE_CALIBRATE_H

#include <stdbool.h>

#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"
#include "proto/frame.h"

struct calibration_options {
    struct gpt2_config model;
    struct optimizer optimizer;
    int batch, sequence_length, threads;
    enum frame_encoding encoding; /* of tensors on the wire */
    double seconds;               /* to spend, about: small models need less */
};

struct calibration {
    double part_seconds;    /* one gradient of `batch` sequences */
    double apply_seconds;   /* the gradient's norm and digest, the optimizer's update, the state's digest */
    double add_seconds;     /* the sum of two gradients */
    double pack_seconds, unpack_seconds; /* of a byte of a gradient, on one thread */
    double packed;          /* bytes on the wire for each of its bytes */
    double flop_per_second; /* of the gradient */
    int layers_measured, tokens_measured;
};
int calibrate(struct calibration *out, const struct calibration_options *options); /* ERR_MEMORY */

#endif
