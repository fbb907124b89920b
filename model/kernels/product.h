/* Matrix products, and the packed matrices that they read: packed in panels, as in GotoBLAS and BLIS (Goto & van de Geijn 2008, "Anatomy of
 * high-performance matrix multiplication"; Van Zee & van de Geijn 2015).
 *
 * A product is out (M, N) = sum over a depth K of a (M, K) b (K, N). The left matrix a is packed as panels of some rows each, the right
 * matrix b as panels of some columns each. A panel is [steps][width]: for each step of depth one word of each of its rows or columns. With
 * bfloat16 a word is a pair of elements where the processor multiplies pairs, else one element, rounded to bfloat16 and kept as float32.
 *
 *   left, width 8             panel 0: a[0..7][0], a[0..7][1], .. a[0..7][K-1]     panel 1: a[8..15][0], ..
 *   right, width 32           panel 0: b[0][0..31], b[1][0..31], .. b[K-1][0..31]  panel 1: b[0][32..63], ..
 *
 * A matrix that is in memory row after row is packed by rows, pack_rows(), where its rows become the rows or columns of panels and depth
 * runs along each of them; by columns, pack_columns(), where its columns do and depth runs from row to row. So no matrix is ever transposed
 * by itself:
 *   y = x w        x (M, K) by rows       w (K, N) by columns
 *   dx = dy w^T    dy (M, N) by rows      w (K, N) by rows
 *   dw = x^T dy    x (M, K) by columns    dy (M, N) by columns */
#ifndef MILLRACE_MODEL_PRODUCT_H
#define MILLRACE_MODEL_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/pool.h"
#include "model/kernels/kernel_set.h"

enum packed_side { PACKED_LEFT, PACKED_RIGHT };

struct packed_matrix {
    float *words;  /* [panels][steps][width], borrowed */
    size_t stride; /* words from one panel to the next */
    int count;     /* rows of a left matrix, columns of a right one */
    int depth, steps, width;
    enum pack_mode mode;
};

/* How many words a packed matrix takes. */
size_t packed_words(enum packed_side side, int count, int depth, bool bf16);

/* Over memory of that size, which must be aligned to 64 bytes. Nothing is written. */
struct packed_matrix packed_over(float *words, enum packed_side side, int count, int depth, bool bf16);

/* Panels as narrow as a tile, whatever products of whole matrices use, and without a gap between them; for attention. */
struct packed_matrix packed_small(float *words, enum packed_side side, int count, int depth, bool bf16);
size_t packed_small_words(enum packed_side side, int count, int depth, bool bf16);

/* Packs the block of count rows or columns from `first` on and depth elements from depth_first on, whose first element is x[0];
 * the rows of x are ld apart. first is a multiple of 8, depth_first of 2. An odd depth ends with a 0. */
void pack_rows(const struct packed_matrix *m, const float *x, size_t ld, int first, int count, int depth_first, int depth);
void pack_columns(const struct packed_matrix *m, const float *x, size_t ld, int first, int count, int depth_first, int depth);

/* The whole matrix, shared out. */
void pack_all_rows(struct pool *pool, const struct packed_matrix *m, const float *x, size_t ld);
void pack_all_columns(struct pool *pool, const struct packed_matrix *m, const float *x, size_t ld);

/* The panel that holds row or column `first`, at the step of depth_first. */
static inline float *packed_at(const struct packed_matrix *m, int first, int depth_first) {
    int step = m->mode == PACK_PAIRS ? depth_first / 2 : depth_first;
    return m->words + (size_t)(first / m->width) * m->stride + (size_t)step * (size_t)m->width;
}

/* Products of packed matrices, shared out over the pool in blocks of tiles.
 *
 * Each element is a chain of fused multiplications and additions over at most PRODUCT_STEPS steps of depth; such chains are added up in
 * order. So its bits are a function of the matrices alone: not of blocks, threads, or widths of registers. Sets of kernels whose processors
 * fuse (avx2, avx512) give the same bits for float32; `portable` multiplies with OpenBLAS, one call a tile on one thread, and gives bits of
 * its own; so does bfloat16 where the processor multiplies pairs. */

enum { PRODUCT_STEPS = 512 }; /* part of the arithmetic: changing it changes every result */

/* What the kernels in use multiply with, made ready: OpenBLAS for `portable`, which only then is loaded (ERR_UNSUPPORTED: it cannot be
 * used), nothing for the others. Before the first product; cheap to call again. */
int product_setup(void);
void product_library(char out[64]); /* its name, after product_setup(): "openblas 0.3.21 SkylakeX", or "" where it is not needed */

int product_left_width(void), product_right_width(void); /* of the panels of packed_over() */

struct product {
    const char *name; /* in a profile */
    float *out;       /* (a's rows, b's columns), rows ld apart; overlaps nothing */
    size_t ld;
    const struct packed_matrix *a, *b; /* of one depth */
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
 * elements of both; on the caller's thread. a and b are packed_small(). */
void product_strip(float *out, size_t ld, const struct packed_matrix *a, int rows, const struct packed_matrix *b, int column, int depth,
                   bool add);

/* Kernels in use, and the library that they multiply with, for people and for hello: "avx512_bf16", "portable; openblas 0.3.21 Cooperlake".
 * ERR_UNSUPPORTED when MILLRACE_KERNELS names a set that this machine has not, or `portable` is used and OpenBLAS is not there or is a
 * build without threads (it races when several threads call it); also holds the library to one thread. Call once at start. */
int kernels_setup(char out[128]);

#endif
