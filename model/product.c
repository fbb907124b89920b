/* The loops around the tile kernels: blocks of a product are items of work; within a block, depth is done in chains of PRODUCT_STEPS, and
 * each right panel meets all of the block's left panels while it is in cache. */
#include "model/product.h"

#include <string.h>

#include "base/err.h"
#include "model/kernels.h"
#include "model/openblas.h"
#include "model/profile.h"

enum {
    BLOCK_ROWS = 128, /* with PRODUCT_STEPS: 256 KiB of left panels, well inside a second-level cache */
    BLOCK_COLUMNS = 256,
    ITEMS_PER_THREAD = 16, /* so that threads end together; blocks are halved until there are as many */
    LIBRARY_ROWS = 128,    /* the library packs once more: it wants more at a time */
    LIBRARY_COLUMNS = 256,
    EDGE_FLOATS = LIBRARY_ROWS * LIBRARY_COLUMNS,
};

static bool by_library(void) { return kernel_set() == &kernel_set_portable; }

int product_left_width(void) { return by_library() ? LIBRARY_ROWS : TILE_ROWS; }
int product_right_width(void) { return by_library() ? LIBRARY_COLUMNS : TILE_COLUMNS; }

static void library_tile(float *c, size_t ldc, const float *a, const float *b, int steps, int add) {
    openblas_product(c, (int)ldc, a, b, LIBRARY_ROWS, LIBRARY_COLUMNS, steps, add);
}

static tile_function *tile_for(const struct operand *a) {
    if (a->width == LIBRARY_ROWS) return library_tile;
    return a->mode == PACK_PAIRS ? kernel_set()->tile_pairs : kernel_set()->tile;
}

/* At the right and lower edge only a part of the tile is there. */
static void edge(float *out, size_t ld, tile_function *tile, const float *a, const float *b, int width, int steps, bool add, int rows,
                 int columns) {
    float whole[EDGE_FLOATS] __attribute__((aligned(64)));
    tile(whole, (size_t)width, a, b, steps, false);
    for (int i = 0; i < rows; i++) {
        float *line = out + (size_t)i * ld;
        if (add) vector_accumulate(line, whole + (size_t)i * (size_t)width, (size_t)columns);
        else memcpy(line, whole + (size_t)i * (size_t)width, (size_t)columns * sizeof *line);
    }
}

static void some(float *out, size_t ld, tile_function *tile, const float *a, int rows_whole, const float *b, int columns_whole, int steps,
                 bool add, int rows, int columns) {
    if (rows >= rows_whole && columns >= columns_whole) tile(out, ld, a, b, steps, add);
    else
        edge(out, ld, tile, a, b, columns_whole, steps, add, rows < rows_whole ? rows : rows_whole,
             columns < columns_whole ? columns : columns_whole);
}

void product_strip(float *out, size_t ld, const struct operand *a, int rows, const struct operand *b, int column, int depth, bool add) {
    int steps = a->mode == PACK_PAIRS ? (depth + 1) / 2 : depth, columns = b->count - column;
    tile_function *tile = tile_for(a);
    const float *left = a->words, *right = operand_at(b, column, 0);
    for (; rows > 0; rows -= a->width, left += a->stride, out += (size_t)a->width * ld)
        some(out, ld, tile, left, a->width, right, b->width, steps, add, rows, columns);
}

struct blocks {
    const struct product *p;
    tile_function *tile;
    int rows, columns, row_blocks, column_blocks;
};

static void block_chain(const struct blocks *s, int row, int rows, int column, int columns, int step, int steps) {
    const struct product *p = s->p;
    const struct operand *a = p->a, *b = p->b;
    size_t left = (size_t)step * (size_t)a->width, right = (size_t)step * (size_t)b->width;
    for (int j = column; j < column + columns; j += b->width)
        for (int i = row; i < row + rows; i += a->width)
            some(p->out + (size_t)i * p->ld + j, p->ld, s->tile, operand_at(a, i, 0) + left, a->width, operand_at(b, j, 0) + right,
                 b->width, steps, p->add || step > 0, row + rows - i, column + columns - j);
}

static void block_work(void *arg, size_t item) {
    const struct blocks *s = arg;
    const struct product *p = s->p;
    int row = (int)(item % (size_t)s->row_blocks) * s->rows, column = (int)(item / (size_t)s->row_blocks) * s->columns;
    int rows = p->a->count - row < s->rows ? p->a->count - row : s->rows;
    int columns = p->b->count - column < s->columns ? p->b->count - column : s->columns;
    for (int step = 0; step < p->a->steps; step += PRODUCT_STEPS)
        block_chain(s, row, rows, column, columns, step, p->a->steps - step < PRODUCT_STEPS ? p->a->steps - step : PRODUCT_STEPS);
    if (p->bias)
        for (int i = row; i < row + rows; i++) vector_accumulate(p->out + (size_t)i * p->ld + column, p->bias + column, (size_t)columns);
    if (p->after) p->after(p->arg, row, rows, column, columns);
}

static size_t count_items(struct blocks *s) {
    s->row_blocks = (s->p->a->count + s->rows - 1) / s->rows, s->column_blocks = (s->p->b->count + s->columns - 1) / s->columns;
    return (size_t)s->row_blocks * (size_t)s->column_blocks;
}

void product_run(struct pool *pool, const struct product *p) {
    CHECK(p->a->steps == p->b->steps && p->a->mode == p->b->mode && p->a->count >= 1 && p->b->count >= 1);
    struct blocks s = {.p = p, .tile = tile_for(p->a), .rows = BLOCK_ROWS, .columns = BLOCK_COLUMNS};
    size_t items = count_items(&s), wanted = (size_t)pool_threads(pool) * ITEMS_PER_THREAD;
    if (p->block_columns) s.columns = p->block_columns, items = count_items(&s);
    while (!p->block_columns && items < wanted && s.columns % (2 * p->b->width) == 0) s.columns /= 2, items = count_items(&s);
    while (items < wanted && s.rows % (2 * p->a->width) == 0) s.rows /= 2, items = count_items(&s);
    pool_run(pool, items, block_work, &s);
    double M = p->a->count, N = p->b->count, K = p->a->depth;
    profile_lap(p->name, 2.0 * M * N * K, 4.0 * (M * p->a->steps + N * p->b->steps + M * N * (p->add ? 2 : 1)));
}
