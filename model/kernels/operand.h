/* Operands of matrix products, packed.
 *
 * A product is out (M, N) = sum over a depth K of a (M, K) b (K, N). Its left operand holds M rows in panels of some rows each, its right
 * one N columns in panels of some columns each; a panel holds, step after step of depth, one word for each of its rows or columns. With
 * bfloat16 a word is a pair of elements where the processor multiplies pairs, else one element, rounded to bfloat16 and kept as float32.
 *
 * A matrix in memory is packed "along" where depth runs along its rows, and "across" where depth runs down its columns, so that transposing
 * costs nothing of its own:
 *   y = x w        x along (M, K)    w across (K, N)
 *   dx = dy w^T    dy along (M, N)   w along (K, N)
 *   dw = x^T dy    x across (M, K)   dy across (M, N) */
#ifndef MILLRACE_MODEL_OPERAND_H
#define MILLRACE_MODEL_OPERAND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/pool.h"
#include "model/kernels/kernel_set.h"

enum operand_side { OPERAND_LEFT, OPERAND_RIGHT };

struct operand {
    float *words;  /* [panels][steps][width], borrowed */
    size_t stride; /* words from one panel to the next */
    int count;     /* rows of a left operand, columns of a right one */
    int depth, steps, width;
    enum pack_mode mode;
};

/* How many words an operand takes. */
size_t operand_words(enum operand_side side, int count, int depth, bool bf16);

/* Over memory of that size, which must be aligned to 64 bytes. Nothing is written. */
struct operand operand_over(float *words, enum operand_side side, int count, int depth, bool bf16);

/* Panels as narrow as a tile, whatever products of whole matrices use, and without a gap between them; for attention. */
struct operand operand_small(float *words, enum operand_side side, int count, int depth, bool bf16);
size_t operand_small_words(enum operand_side side, int count, int depth, bool bf16);

/* Packs the block of count rows or columns from `first` on and depth elements from depth_first on, whose first element is x[0]. first is a
 * multiple of 8, depth_first of 2. An odd depth ends with a 0. */
void operand_pack_along(const struct operand *o, const float *x, size_t ld, int first, int count, int depth_first, int depth);
void operand_pack_across(const struct operand *o, const float *x, size_t ld, int first, int count, int depth_first, int depth);

/* The whole of it, shared out. */
void operand_fill_along(struct pool *pool, const struct operand *o, const float *x, size_t ld);
void operand_fill_across(struct pool *pool, const struct operand *o, const float *x, size_t ld);

/* The panel that holds row or column `first`, at the step of depth_first. */
static inline float *operand_at(const struct operand *o, int first, int depth_first) {
    int step = o->mode == PACK_PAIRS ? depth_first / 2 : depth_first;
    return o->words + (size_t)(first / o->width) * o->stride + (size_t)step * (size_t)o->width;
}

#endif
