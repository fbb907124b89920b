/* What a person should look at in a dataset before it is trained on. Decides nothing, changes nothing. Pure. */
#ifndef MILLRACE_DATASET_ADVICE_H
#define MILLRACE_DATASET_ADVICE_H

#include "base/buf.h"
#include "config/config.h"
#include "dataset/shard/manifest.h"

/* Appends a line for each thing, which says what to do about it: shares far from the weights, a validation split that is empty, far
 * larger than asked for or has nothing of a large entry, text that is hardly UTF-8. None for a dataset that is as it was asked for. The
 * manifest is of a dataset that was made with this configuration; of it only counts, groups and ill_formed are looked at. */
int dataset_advice(struct buf *out, const struct manifest *manifest, const struct config *config);

#endif
