/* How much there will be to train on, by making a dataset of a part of the text: the jobs, documents, policy and packing of a real build,
 * with nothing kept. Small sources are done whole, so that the answer is exact; of others some MiB are, and what they gave is scaled. */
#ifndef MILLRACE_CLI_PLAN_SAMPLE_H
#define MILLRACE_CLI_PLAN_SAMPLE_H

#include "config/config.h"
#include "dataset/sources.h"
#include "dataset/tokenizer.h"
#include "workers/plan.h"

struct plan_sampled {
    bool whole;             /* nothing was left to scale */
    double bytes_a_token;
    double rate;            /* bytes of text a second, of one thread */
};

/* ERR_CONFIG and others as a build would end with. */
int plan_sample(struct plan_data *out, struct plan_sampled *out_how, const struct config *config, const struct sources *sources,
                const struct tokenizer *tokenizer);

#endif
