/* What the steps on record were trained on, and whether it is still there: files may change under the names that keys give them.
 * trained_load() when the store is open; trained_check_tokenizer() and trained_check_dataset() before the dataset is used; trained_begin()
 * before the first step. */
#ifndef MILLRACE_COORDINATOR_TRAINED_H
#define MILLRACE_COORDINATOR_TRAINED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "dataset/shard/manifest.h"

struct context;

int trained_load(struct context *c);                                /* what is on record */
void trained_layout(uint8_t out[SHA256_BYTES], const struct manifest *manifest);  /* of all but its tokens that their order follows from */
int trained_check_tokenizer(const struct context *c);               /* ERR_CONFIG: steps were made with another one */
int trained_refuse_tokenizer(const struct context *c, const uint8_t before[SHA256_BYTES]);
bool trained_is_other(const struct context *c);                     /* the manifest is not of the dataset that steps were made with */
/* ERR_CONFIG: it is another one, and the run is to go on. Of a finished run it sets dataset.trained_on_other. */
int trained_check_dataset(struct context *c);
/* At the beginning of training, with the steps that are on record: checks all of it; puts it on record where there is none. */
int trained_begin(struct context *c, uint64_t ledger, bool finished);

#endif
