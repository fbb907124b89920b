/* Causal self-attention of all heads, forward and backward (FlashAttention's recomputation, arXiv 2205.14135, with whole rows). One work
 * item is one head of one sequence; its scores exist for a block of queries at a time and are computed again in the backward pass, so that
 * nothing of size T^2 is kept. */
#ifndef MILLRACE_MODEL_ATTENTION_H
#define MILLRACE_MODEL_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"

struct attention_scratch; /* one piece of memory for each thread that may be at work */
int attention_scratch_open(struct attention_scratch **out, int threads, int T, int head_size, bool bf16);
void attention_scratch_close(struct attention_scratch *scratch); /* NULL is fine */
size_t attention_scratch_bytes(int threads, int T, int head_size, bool bf16);

struct attention {
    int B, T, C, NH;
    bool bf16;           /* products of bfloat16, as the scratch was opened for */
    float scale;         /* of the scores; above 0 */
    const float *qkv;    /* (B, T, 3C): queries, keys, values; head h has channels h * C / NH .. */
    float *out;          /* (B, T, C) */
    float *max, *factor; /* (B, NH, T): maximum and 1 / sum of each row's softmax; written forward, read backward */
    const float *dout;   /* (B, T, C) */
    float *dqkv;         /* (B, T, 3C), overwritten */
    const int *first;    /* (B, T): the first position that each one sees, its document's first; NULL: 0 for all */
    float dropout;       /* 0: none */
    uint64_t dropout_key;
    int first_sequence; /* of the slice: numbers the mask's elements ((sequence * NH + head) * T + row) * T + column */
    struct attention_scratch *scratch;
};

void attention_forward(struct pool *pool, struct attention *attention);
void attention_backward(struct pool *pool, struct attention *attention); /* reads out, too */

#endif
