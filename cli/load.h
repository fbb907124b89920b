/* What generate and evaluate need of a model: its weights in memory, its tokenizer and threads. */
#ifndef MILLRACE_CLI_LOAD_H
#define MILLRACE_CLI_LOAD_H

#include <stdint.h>

#include "base/pool.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/checkpoint/hf_config.h"
#include "model/generate/decoder_weights.h"

struct loaded {
    char *path; /* of the checkpoint that was chosen */
    struct gpt2_config config;
    float *params;                   /* gpt2_parameters(&config); of loaded_open() */
    struct decoder_weights *weights; /* of loaded_open_weights() */
    struct tokenizer *tokenizer;
    struct pool *pool;
    struct hf_generation generation; /* what the checkpoint asks for; of loaded_open_weights() */
    int32_t *tokenless;              /* the model's ids for which the tokenizer has no token; the same */
    int tokenless_count;
};

/* `path`: what checkpoint_open() accepts, or a run's output_dir, which stands for the newest good checkpoint in it. A folder with a record
 * of ours is checked against its digests. threads 0: all cores. */
int loaded_open(struct loaded *out, const char *path, int64_t threads);
int loaded_open_weights(struct loaded *out, const char *path, int64_t threads, enum weights_type type);
void loaded_close(struct loaded *loaded);  /* an all-zero one is fine */

#endif
