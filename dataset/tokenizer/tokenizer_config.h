/* The tokenizer that a pipeline names, and what the model takes from it. */
#ifndef MILLRACE_DATASET_TOKENIZER_CONFIG_H
#define MILLRACE_DATASET_TOKENIZER_CONFIG_H

#include "config/config.h"
#include "dataset/tokenizer/tokenizer.h"

/* Opens dataset.tokenizer and fills in the model's vocab_size, bos_token_id and eos_token_id where the pipeline leaves them to it. */
int tokenizer_open_for(struct tokenizer **out, struct config *config);

#endif
