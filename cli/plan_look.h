/* What `millrace plan` looks at before it reckons: the dataset or the text it will be made of, and this machine. */
#ifndef MILLRACE_CLI_PLAN_LOOK_H
#define MILLRACE_CLI_PLAN_LOOK_H

#include "base/err.h"
#include "base/machine.h"
#include "config/config.h"
#include "dataset/tokenizer/tokenizer.h"
#include "estimate/plan.h"

struct plan_look {
    struct plan_data data;
    char note[ERR_TEXT_BYTES];        /* why the data is not known, or what an estimate rests on; may be empty */
    bool whole;             /* not taken from a sample: the numbers are exact */
    double tokenize_rate;   /* bytes of text a second, of one thread; 0: not measured */
    uint64_t steps_done;    /* by a run that is there */
    uint64_t steps_saved;   /* of these, by the newest checkpoint */
    struct buf warnings;    /* lines: what to look at in the dataset (dataset/plan/advice.h); plan_look_free() */
    int refused;            /* 0, or the error with which a run would refuse what is in output_dir, and its words: */
    char refusal[ERR_TEXT_BYTES];
};

/* The dataset that is there if a run would go on with it, else what a sample of the sources gives (cli/plan_sample.h). Sources that
 * are not there are a refusal. ERR_CONFIG: a build would refuse the text that is there, with these words. Writes nothing in output_dir,
 * where a run may be at work. */
int plan_look_at_data(struct plan_look *out, const struct config *config, const struct tokenizer *tokenizer);

void plan_look_free(struct plan_look *look);

/* Trains for about ten seconds on random tokens, with as many threads as the plan's busy workers have together here. */
int plan_calibrate(struct calibration *out, const struct plan *plan, const struct config *config);

#endif
