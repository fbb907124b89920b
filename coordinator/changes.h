/* What a pipeline.yaml or sources that changed mean for the results in output_dir: first as decisions, which are pure (two configurations
 * and the number of steps done), then carried out. changes_of_pipeline() before anything of the run is loaded, changes_of_sources() before
 * its dataset is used. */
#ifndef MILLRACE_COORDINATOR_CHANGES_H
#define MILLRACE_COORDINATOR_CHANGES_H

#include <stdint.h>

#include "base/buf.h"
#include "config/config.h"

struct context;

enum change {
    CHANGE_NONE,   /* nothing that alters results */
    CHANGE_ANEW,   /* no step is done yet: what it touches is made anew */
    CHANGE_LENGTH, /* only how long the run is: changes_length() decides */
};

/* Appends what changed and alters results to `altering`, a line for each key. ERR_CONFIG: they do not go with the `done` steps that are
 * there; each is named, but for a length that could change by itself, and what to do. */
int changes_decide(enum change *out, struct buf *altering, const struct config *old, const struct config *fresh, uint64_t done);

/* The run's length in steps, before and now, with a dataset of so many training sequences, which count when num_train_epochs decides.
 * ERR_CONFIG: a step that is done would have been another one, or none at all. Else the results are those of a run that had the new
 * length from the start. */
int changes_length(uint64_t *out_before, uint64_t *out_now, const struct config *old, const struct config *fresh, uint64_t sequences,
                   uint64_t done, const struct buf *altering);

/* Carried out. */
int changes_of_pipeline(struct context *c);                         /* ERR_CONFIG when it does not go with what is there */
/* Finds the sources of a dataset that was made. 1: it is gone on with as it is. 0: they changed, and no step was trained on it: it is made
 * again, from what is left. */
int changes_of_sources(struct context *c);

#endif
