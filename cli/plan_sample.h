/* How much there will be to train on, from a dataset that is made of some of the text: with the jobs, documents, policy and packing of a
 * real build, and nothing kept. Small sources are done whole, so that the answer is exact; of others some MiB are, some of each entry, and
 * the result is scaled. */
#ifndef MILLRACE_CLI_PLAN_SAMPLE_H
#define MILLRACE_CLI_PLAN_SAMPLE_H

#include "config/config.h"
#include "dataset/source/sources.h"
#include "dataset/tokenizer/tokenizer.h"
#include "estimate/plan.h"

struct plan_sampled {
    bool whole;             /* nothing was left to scale */
    double bytes_a_token;
    double rate;            /* bytes of text a second, of one thread */
};

/* ERR_CONFIG: a build would surely end with it. Others: a part of the text, or a server, had nothing to reckon with now. */
int plan_sample(struct plan_data *out, struct plan_sampled *out_how, struct buf *out_warnings, const struct config *config,
                const struct sources *sources, const struct tokenizer *tokenizer);

#endif
