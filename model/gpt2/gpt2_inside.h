/* What gpt2.c (the whole pass) and layer.c (one layer of it) share: the activations of one part, at most batch_max sequences. M is
 * batch_max * T rows. Never included elsewhere. */
#ifndef MILLRACE_MODEL_GPT2_INSIDE_H
#define MILLRACE_MODEL_GPT2_INSIDE_H

#include "model/gpt2/attention.h"
#include "model/gpt2/crossentropy.h"
#include "model/gpt2/gpt2.h"
#include "model/gpt2/layout.h"
#include "model/kernels/kernels.h"
#include "model/kernels/product.h"

enum { ROW_ITEM = 32, COLUMN_ITEM = 64 };

/* What one layer leaves for its backward pass. With bfloat16 that is what this pass multiplies with, packed, and GELU's slope: where words
 * are pairs, slope and act take the room of fch alone. In float32 they would take twice that, so they are NULL, and made again from x, mid
 * and fch. */
struct layer_kept {
    float *x;                             /* (M, C) its input */
    float *qkv;                           /* (M, 3C) */
    float *atty;                          /* (M, C) the heads' outputs */
    float *mid;                           /* (M, C) after the attention's residual */
    float *fch;                           /* (M, F) before GELU; with `slope` one buffer for all layers, which lasts until GELU is done */
    uint16_t *slope;                      /* (M, F) of GELU, in bfloat16 */
    float *norm1, *act, *norm2;           /* LayerNorms' outputs and GELU's, packed for the weights' gradients */
    float *mean1, *rstd1, *mean2, *rstd2; /* (M) */
    float *max, *factor;                  /* (B, NH, T) */
};

struct gpt2 {
    struct gpt2_config config;
    struct layout at;
    struct pool *pool;
    int batch_max, sequence_length;
    bool training;
    float *memory;
    struct layer_kept *layer; /* [n_layer]; all the same buffers but x when not training or when layers are computed again */
    float *final;             /* (M, C) the last layer's output */
    float *meanf, *rstdf;     /* (M) */
    float *norm;              /* (M, C) a LayerNorm's output */
    float *dx, *dnorm, *dres; /* (M, C): gradient of the residual stream, of `norm`, and dx after dropout */
    float *dqkv, *dact;       /* (M, 3C), (M, F) */
    float *words[4];          /* of packed matrices: two left ones, two right ones */
    float *head_scratch;      /* in the memory of dqkv, dact and words: the head runs when no layer does */
    int *first;               /* (M) with document_mask: the first position of each one's document; else NULL */
    struct attention_scratch *scratch;
    struct head *head;
    void (*tick)(void *);
    void *tick_arg;
    /* the part at hand */
    const float *params;
    float *grads;
    const int32_t *tokens, *targets;
    int B, T, rows;
    int first_sequence; /* of this part, within the slice */
    bool add;           /* not the slice's first part */
    const struct gpt2_random *random;
};

/* layer.c: one layer, from layer[l].x to layer_output(); and from dx, the gradient of its output, to that of its input. */
void layer_forward(struct gpt2 *model, int l);
void layer_backward(struct gpt2 *model, int l);
float *layer_output(struct gpt2 *model, int l);
size_t layer_packed_words(const struct gpt2 *model, int words); /* how many words[words] has to hold */

/* LayerNorm of x (M, C), to model->norm. */
struct norm_task {
    const float *x;                       /* (M, C) */
    float *mean, *rstd;                   /* (M) */
    size_t weight, bias;                  /* offsets of the tensors */
    const struct packed_matrix *by_rows, *by_columns; /* where the output is packed as well; NULL: not */
};
void norm_forward(struct gpt2 *model, struct norm_task task);
void norm_backward(struct gpt2 *model, struct norm_task task); /* dx += the gradient through the LayerNorm of dnorm */

/* work(model, arg, first, count) over [0, size), `item` at a time. */
void share_out(struct gpt2 *model, int size, int item, void (*work)(struct gpt2 *, const void *, int, int), const void *arg);

/* Dropout of a block of (M, C). Elements are numbered over the slice, so that its division in parts changes no mask. */
void drop(const struct gpt2 *model, float *x, int layer, enum dropout_site site, int row, int rows, int column, int columns, float p);

#endif
