/* GPT-2's forward pass for generation: keys and values of the tokens taken so far are kept, so that one more token costs one pass over the
 * weights. Everything is allocated when it is opened. The bits are a function of shapes, type of weights and inputs: the same for any
 * number of threads, any instruction set, and tokens taken one by one or many at once. */
#ifndef MILLRACE_MODEL_DECODER_H
#define MILLRACE_MODEL_DECODER_H

#include "model/generate/decoder_weights.h"

struct decoder;

enum { DECODER_BLOCK = 64 }; /* tokens that go through the weights together */

/* Room for `positions` tokens, at most n_positions. Pool and weights are borrowed. ERR_MEMORY names the bytes. Keys and values are kept as
 * float32 beside float32 weights, else as bfloat16. */
int decoder_open_weights(struct decoder **out, const struct decoder_weights *weights, int positions, struct pool *pool);

/* The same with float32 weights of its own, laid out from `params`. */
int decoder_open(struct decoder **out, const struct gpt2_config *config, const float *params, int positions, struct pool *pool);
void decoder_close(struct decoder *decoder);  /* NULL is fine */

void decoder_clear(struct decoder *decoder);          /* forgets all tokens */
int decoder_length(const struct decoder *decoder);    /* tokens taken so far */

/* Takes count more tokens, at least one and at most what there is room for. Ids must be in the vocabulary. */
void decoder_take(struct decoder *decoder, const int32_t *tokens, int count);

/* Logits (V) of the token after the last one taken. Valid, and free to be changed, until the next call. */
float *decoder_logits(struct decoder *decoder);

/* Logits (count, V) after each of the last `count` tokens, at most those of one decoder_take() and DECODER_BLOCK. */
void decoder_logits_of_last(struct decoder *decoder, float *out, int count);

#endif
