/* GPT-2 (Radford et al. 2019): forward and backward.
 *
 * B sequences, T positions, C channels (n_embd), L layers, NH heads, V vocabulary, F inner width (n_inner). Parameters are one flat array
 * of N floats, in the order and with the names and Conv1D layout (in, out) of Hugging Face's GPT2LMHeadModel; gradients have the same
 * layout, which is what goes on the wire.
 *
 * Every result is a function of shapes and inputs alone: the same bits for any number of threads (docs/ARCHITECTURE.md, "Why the bytes are
 * the same").
 *
 * With document_mask the documents of a sequence do not see each other. A document begins with the sequence's first token and
 * after every eos_token_id, which belongs to the document that it ends: attention reaches back to the document's first token and no
 * further, and positions count from there. So each document is read as if it stood alone. Documents follow from the tokens alone.
 *
 * One struct gpt2 is used by one thread at a time; it spreads work over its pool. Nothing is allocated after gpt2_open(). */
#ifndef MILLRACE_MODEL_GPT2_H
#define MILLRACE_MODEL_GPT2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/pool.h"
#include "config/config.h"

struct gpt2_config {
    int vocab_size, n_positions, n_embd, n_layer, n_head, n_inner;
    float attn_pdrop, embd_pdrop, resid_pdrop, layer_norm_epsilon, initializer_range;
    bool scale_attn_weights;
    int bos_token_id, eos_token_id;
    bool document_mask;          /* see above; false for a model that continues or judges one text */
    bool bf16;                   /* matrix products of bfloat16, with float32 sums, and GELU's slope; all else in float32 */
    bool gradient_checkpointing; /* keeps each layer's input alone and computes the rest again: less memory, the same bits */
    int micro_batch; /* at most so many sequences from gpt2_batch_for(); 0: no other limit than its own */
    double label_smoothing, z_loss; /* of the loss that gpt2_gradient() learns from (model/gpt2/crossentropy.h); 0: plain cross-entropy */
};
struct gpt2_config gpt2_config_of(const struct config *config);

struct gpt2_tensor {
    char name[48]; /* "transformer.h.0.attn.c_attn.weight" as in GPT2LMHeadModel's state dict */
    int rank;      /* 1 or 2 */
    size_t shape[2];
    size_t offset, size; /* floats in the flat array */
    bool decayed;        /* weight decay applies: matrices and embeddings, not biases or LayerNorm */
};

/* The tensors in flat order; returns how many there are, at most gpt2_tensor_count(). out may be NULL. Never allocates. */
size_t gpt2_tensor_count(const struct gpt2_config *config);
size_t gpt2_tensors(struct gpt2_tensor *out, const struct gpt2_config *config);
size_t gpt2_parameters(const struct gpt2_config *config); /* N: 124,439,808 for GPT-2 small */

/* Of the tensor that holds `element` of the flat array: whether weight decay applies to it, and where it ends. For going over a piece of
 * the array without a list of tensors. */
bool gpt2_decayed(size_t *out_end, const struct gpt2_config *config, size_t element);

/* Floating-point operations of forward and backward on sequences of T: 6 * (parameters in matrix products) * tokens
 * + 12 * L * C * T * tokens; attention counted in full, as is usual. Forward alone is a third. */
double gpt2_flop(const struct gpt2_config *config, double tokens, double T);

/* Fills params (N) as GPT2PreTrainedModel does: normal(0, initializer_range), residual projections scaled by 1/sqrt(2 L),
 * biases 0, LayerNorm 1 and 0. Philox keyed by seed: a function of (seed, element). */
void gpt2_init(float *params, const struct gpt2_config *config, uint64_t seed);
/* One part of that, of gpt2_init_parts(), which are independent of each other. */
void gpt2_init_part(float *params, const struct gpt2_config *config, uint64_t seed, size_t part);
size_t gpt2_init_parts(const struct gpt2_config *config);

/* What dropout masks are a function of, besides layer, site and element. */
struct gpt2_random {
    uint64_t seed, step;
    uint32_t slice;
};

/* Bytes that gpt2_open() takes, counted by the code that takes them. */
struct gpt2_memory {
    size_t kept;      /* what the layers leave for the backward pass */
    size_t scratch;   /* gradients of activations, and what one layer at a time needs */
    size_t panels;    /* packed matrices, which products read */
    size_t attention; /* scores and packed matrices, for each thread */
    size_t head;      /* the packed embedding, logits of a chunk and their gradient */
    size_t total;
};
struct gpt2_memory gpt2_memory(const struct gpt2_config *config, int batch_max, int sequence_length, bool training, int threads);

struct gpt2;
/* For at most batch_max sequences of sequence_length positions at a time; ERR_MEMORY names the bytes. The pool is borrowed. training:
 * false needs less memory and allows only gpt2_loss(). */
int gpt2_open(struct gpt2 **out, const struct gpt2_config *config, int batch_max, int sequence_length, bool training, struct pool *pool);
void gpt2_close(struct gpt2 *model);

/* Called between pieces of work so that the owner can show that its work loop lives; may be NULL. */
void gpt2_on_tick(struct gpt2 *model, void (*tick)(void *), void *arg);

/* tokens (B, T), targets (B, T); a target below 0 is ignored. *out_loss: sum over the counted targets of -ln p, in nats, float64, and of
 * what label smoothing and z-loss add; *out_tokens: how many were counted. grads (N) is overwritten with d(loss sum)/d(params). random
 * NULL: no dropout. B may exceed batch_max: it is then done in parts of batch_max, summed in order. */
void gpt2_gradient(struct gpt2 *model, float *grads, double *out_loss, uint64_t *out_tokens, const float *params, const int32_t *tokens,
                   const int32_t *targets, int B, int T, const struct gpt2_random *random);

/* Forward only, without dropout: the sum of -ln p alone. T may be shorter than sequence_length. */
void gpt2_loss(struct gpt2 *model, double *out_loss, uint64_t *out_tokens, const float *params, const int32_t *tokens,
               const int32_t *targets, int B, int T);

/* logits (B, T, V) of at most batch_max sequences, without dropout: for small models and tests, since a large vocabulary makes them huge.
 */
void gpt2_logits(struct gpt2 *model, float *logits, const float *params, const int32_t *tokens, int B, int T);

/* How many sequences one worker takes at a time: a function of the shape alone. About 2048 tokens, or micro_batch sequences. */
int gpt2_batch_for(const struct gpt2_config *config, int slice_sequences, int sequence_length);

#endif
