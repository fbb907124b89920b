/* Products of packed operands, shared out over the pool in blocks of tiles.
 *
 * Each element is a chain of fused multiplications and additions over at most PRODUCT_STEPS steps of depth; such chains are added up in
 * order. So its bits are a function of the operands alone: not of blocks, threads, or widths of registers. Sets of kernels whose processors
 * fuse (avx2, avx512) give the same bits for float32; `portable` multiplies with OpenBLAS, one call a tile on one thread, and gives bits of
 * its own; so does bfloat16 where the processor multiplies pairs. */
#ifndef MILLRACE_MODEL_PRODUCT_H
#define MILLRACE_MODEL_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/pool.h"
#include "model/kernels/operand.h"

enum { PRODUCT_STEPS = 512 }; /* part of the arithmetic: changing it changes every result */

/* What the kernels in use multiply with, made ready: OpenBLAS for `portable`, which only then is loaded (ERR_UNSUPPORTED: it cannot be
 * used), nothing for the others. Before the first product; cheap to call again. */
int product_setup(void);
void product_library(char out[64]); /* its name, after product_setup(): "openblas 0.3.21 SkylakeX", or "" where it is not needed */

int product_left_width(void), product_right_width(void); /* of the panels of operand_over() */

struct product {
    const char *name; /* in a profile */
    float *out;       /* (a's rows, b's columns), rows ld apart; overlaps nothing */
    size_t ld;
    const struct operand *a, *b; /* of one depth */
    const float *bias;           /* added to each row; NULL: none */
    bool add;                    /* to what is in out */
    int block_columns;           /* every block but the last is this wide, a multiple of 256; 0: as seems best */
    /* For each finished block of out, by the thread that made it, while it is in cache. Blocks begin at multiples of 8 rows and 32 columns.
     * NULL: nothing. */
    void (*after)(void *arg, int row, int rows, int column, int columns);
    void *arg;
};
void product_run(struct pool *pool, const struct product *product);

/* out (rows, columns of one panel) from the first `rows` rows of a and the panel of b that begins at `column`, over the first `depth`
 * elements of both; on the caller's thread. a and b are operand_small(). */
void product_strip(float *out, size_t ld, const struct operand *a, int rows, const struct operand *b, int column, int depth, bool add);

/* Kernels in use, and the library that they multiply with, for people and for hello: "avx512_bf16", "portable; openblas 0.3.21 Cooperlake".
 * ERR_UNSUPPORTED when MILLRACE_KERNELS names a set that this machine has not, or `portable` is used and OpenBLAS is not there or is a
 * build without threads (it races when several threads call it); also holds the library to one thread. Call once at start. */
int kernels_setup(char out[128]);

#endif
