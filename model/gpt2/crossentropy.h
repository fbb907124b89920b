/* The tied head and its cross-entropy, forward and backward, a chunk of tokens at a time: the logits of more than a chunk's tokens never
 * exist together. */
#ifndef MILLRACE_MODEL_CROSSENTROPY_H
#define MILLRACE_MODEL_CROSSENTROPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"

struct head; /* the packed embedding, and the logits and partial sums of one chunk */

/* For at most rows_max tokens at a time; bf16: products of bfloat16. scratch is borrowed: head_scratch_floats() of them, aligned to 64
 * bytes, which only head_run() and head_logits() use, and only until they return. ERR_MEMORY. */
int head_open(struct head **out, int C, int V, int rows_max, bool training, bool bf16, float *scratch);
void head_close(struct head *head); /* NULL is fine */
size_t head_scratch_floats(int C, int V, int rows_max, bool training, bool bf16);
size_t head_bytes(int C, int V, int rows_max, bool training, bool bf16); /* what head_open() takes beside that */

/* Packs wte (V, C) for the runs that follow; it must stay as it is until then. backward: dh and dwte will be asked for. */
void head_load(struct head *head, struct pool *pool, const float *wte, bool backward);

/* h (rows, C) meets wte (V, C): logits = h wte^T. *loss and *counted are added to: -ln softmax(logits)[target], in row order, for targets
 * of 0 and more. With dh, the gradients of the loss's sum: dh (rows, C) is overwritten, dwte (V, C) too unless `add`. tick, which may be
 * NULL, is called between chunks.
 * A loss to learn from may have two terms more. label_smoothing: the target's distribution is mixed with the uniform one over V, as
 * torch.nn.functional.cross_entropy does it: (1 - s) * -ln p[target] + s * mean of -ln p. z_loss: z * (ln of the sum of exp(logits))^2
 * is added for each counted row (PaLM, arXiv 2204.02311). */
struct head_task {
    const float *h;
    const int32_t *targets;
    int rows;
    float *dh, *dwte;
    bool add;
    double label_smoothing, z_loss;
    void (*tick)(void *arg);
    void *tick_arg;
};
void head_run(struct head *head, struct pool *pool, const struct head_task *task, double *loss, uint64_t *counted);

/* logits (rows, V) alone. */
void head_logits(struct head *head, struct pool *pool, float *logits, const float *h, int rows);

#endif
