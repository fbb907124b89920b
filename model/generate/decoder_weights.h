/* A model's weights as generation reads them: matrices in stripes, in the order of use in one run of memory, and the vectors beside them.
 * Read-only once open; several decoders may share one. */
#ifndef MILLRACE_MODEL_DECODER_WEIGHTS_H
#define MILLRACE_MODEL_DECODER_WEIGHTS_H

#include "model/gpt2/gpt2.h"
#include "model/kernels/stripes.h"

struct decoder_layer {
    struct stripes attn, attn_proj, fc, mlp_proj; /* (C, 3C), (C, C), (C, F), (F, C) */
    const float *ln1_weight, *ln1_bias, *attn_bias, *attn_proj_bias, *ln2_weight, *ln2_bias, *fc_bias, *mlp_proj_bias;
};

struct decoder_weights {
    struct gpt2_config config;
    enum weights_type type;
    struct decoder_layer *layer;              /* [n_layer] */
    struct stripes wte;                       /* (C, V): the head; its columns are the embeddings */
    const float *wpe, *lnf_weight, *lnf_bias; /* (P, C), (C), (C) */
    size_t bytes_per_token;                   /* of matrices and vectors, read for each token */
    char *memory;                             /* of all stripes */
    float *vectors;
};

/* Where the numbers come from: reads `count` parameters of the flat vector from number `first` on. */
struct weights_source {
    int (*read)(void *arg, float *out, size_t first, size_t count);
    void *arg;
};

/* Reads one tensor at a time, so that a model in memory is never there twice. ERR_CORRUPT when int8 meets a weight that is no finite
 * number; ERR_MEMORY names the bytes; the source's own errors. */
int decoder_weights_open(struct decoder_weights **out, const struct gpt2_config *config, enum weights_type type,
                         const struct weights_source *source, struct pool *pool);
void decoder_weights_close(struct decoder_weights *weights); /* NULL is fine */

/* Sources, borrowed while they are read: an array of all parameters, a checkpoint. */
struct checkpoint;
struct weights_source weights_in_memory(const float *params);
struct weights_source weights_in_checkpoint(const struct checkpoint *checkpoint);

#endif
