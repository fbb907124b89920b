/* The loops around the tile kernels: blocks of a product are items of work; within a block, depth is done in chains of PRODUCT_STEPS, and
 * each right panel meets all of the block's left panels while it is in cache. */
#include "model/kernels/product.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "model/kernels/kernels.h"
#include "model/kernels/openblas.h"
#include "model/kernels/profile.h"

/* ---- Packed matrices ----
 *
 * Where the words of packed matrices are, and the loops around the kernels that pack them. */

enum {
    PACK_LANES = 8,   /* rows that a kernel transposes at once */
    ITEM_SIZE = 256,  /* rows or columns of an item of work: several panels, since each fetches the next one's input */
    ITEM_DEPTH = 512, /* long runs of memory, which prefetchers see; less where there would be too few items */
    ITEM_DEPTH_MIN = 64,
    PACK_ITEMS_PER_THREAD = 2,
    GAP = 16, /* words between panels: without it their lines would share few sets of a cache when steps are a power of two */
};

static struct packed_matrix shaped(float *words, int width, int gap, int count, int depth, bool bf16) {
    enum pack_mode mode = !bf16 ? PACK_FLOAT : kernel_set()->tile_pairs ? PACK_PAIRS : PACK_ROUNDED;
    int steps = mode == PACK_PAIRS ? (depth + 1) / 2 : depth;
    return (struct packed_matrix){words, (size_t)steps * (size_t)width + (size_t)gap, count, depth, steps, width, mode};
}

static size_t words_of(const struct packed_matrix *m) { return (size_t)((m->count + m->width - 1) / m->width) * m->stride; }

struct packed_matrix packed_over(float *words, enum packed_side side, int count, int depth, bool bf16) {
    return shaped(words, side == PACKED_LEFT ? product_left_width() : product_right_width(), GAP, count, depth, bf16);
}

size_t packed_words(enum packed_side side, int count, int depth, bool bf16) {
    struct packed_matrix m = packed_over(NULL, side, count, depth, bf16);
    return words_of(&m);
}

struct packed_matrix packed_small(float *words, enum packed_side side, int count, int depth, bool bf16) {
    return shaped(words, side == PACKED_LEFT ? TILE_ROWS : TILE_COLUMNS, 0, count, depth, bf16);
}

size_t packed_small_words(enum packed_side side, int count, int depth, bool bf16) {
    struct packed_matrix m = packed_small(NULL, side, count, depth, bf16);
    return words_of(&m);
}

void pack_rows(const struct packed_matrix *m, const float *x, size_t ld, int first, int count, int depth_first, int depth) {
    for (int i = 0; i < count; i += PACK_LANES)
        kernel_set()->pack_rows(packed_at(m, first + i, depth_first) + (first + i) % m->width, m->width, x + (size_t)i * ld, ld,
                                count - i < PACK_LANES ? count - i : PACK_LANES, depth, m->mode);
}

void pack_columns(const struct packed_matrix *m, const float *x, size_t ld, int first, int count, int depth_first, int depth) {
    float *place[PACK_COLUMNS / PACK_LANES];
    for (int from = 0; from < count; from += PACK_COLUMNS) {
        int columns = count - from < PACK_COLUMNS ? count - from : PACK_COLUMNS;
        for (int i = 0; i < columns; i += PACK_LANES)
            place[i / PACK_LANES] = packed_at(m, first + from + i, depth_first) + (first + from + i) % m->width;
        kernel_set()->pack_columns(place, m->width, x + from, ld, columns, depth, m->mode);
    }
}

struct fill {
    const struct packed_matrix *m;
    const float *x;
    size_t ld;
    bool by_rows;
    int sizes, item_depth; /* items side by side, and how deep they are */
};

static void fill_work(void *arg, size_t item) {
    const struct fill *f = arg;
    const struct packed_matrix *m = f->m;
    int first = (int)(item % (size_t)f->sizes) * ITEM_SIZE, depth_first = (int)(item / (size_t)f->sizes) * f->item_depth;
    int count = m->count - first < ITEM_SIZE ? m->count - first : ITEM_SIZE;
    int depth = m->depth - depth_first < f->item_depth ? m->depth - depth_first : f->item_depth;
    if (f->by_rows) pack_rows(m, f->x + (size_t)first * f->ld + (size_t)depth_first, f->ld, first, count, depth_first, depth);
    else pack_columns(m, f->x + (size_t)depth_first * f->ld + (size_t)first, f->ld, first, count, depth_first, depth);
}

static size_t fill_items(const struct fill *f) { return (size_t)f->sizes * (size_t)((f->m->depth + f->item_depth - 1) / f->item_depth); }

static void fill(struct pool *pool, struct fill *f) {
    size_t wanted = (size_t)pool_threads(pool) * PACK_ITEMS_PER_THREAD;
    f->sizes = (f->m->count + ITEM_SIZE - 1) / ITEM_SIZE, f->item_depth = ITEM_DEPTH;
    while (f->item_depth > ITEM_DEPTH_MIN && fill_items(f) < wanted) f->item_depth /= 2;
    pool_run(pool, fill_items(f), fill_work, f);
    profile_lap("packing", 0, 4.0 * f->m->count * ((double)f->m->depth + f->m->steps));
}

void pack_all_rows(struct pool *pool, const struct packed_matrix *m, const float *x, size_t ld) {
    fill(pool, &(struct fill){.m = m, .x = x, .ld = ld, .by_rows = true});
}

void pack_all_columns(struct pool *pool, const struct packed_matrix *m, const float *x, size_t ld) {
    fill(pool, &(struct fill){.m = m, .x = x, .ld = ld});
}

/* ---- Products ---- */

enum {
    BLOCK_ROWS = 64, /* with PRODUCT_STEPS: 128 KiB of left panels, which stay in a second-level cache while right ones pass through it */
    BLOCK_COLUMNS = 512,
    ITEMS_PER_THREAD = 16, /* so that threads end together; blocks are halved until there are as many */
    LIBRARY_ROWS = 128,    /* the library packs once more: it wants more at a time */
    LIBRARY_COLUMNS = 256,
    EDGE_FLOATS = LIBRARY_ROWS * LIBRARY_COLUMNS,
};

static bool by_library(void) { return kernel_set() == &kernel_set_portable; }

int product_setup(void) { return by_library() ? openblas_setup() : 0; }

void product_library(char out[64]) {
    out[0] = '\0';
    if (by_library()) openblas_name(out);
}

int product_left_width(void) { return by_library() ? LIBRARY_ROWS : TILE_ROWS; }
int product_right_width(void) { return by_library() ? LIBRARY_COLUMNS : TILE_COLUMNS; }

static void library_tile(float *c, size_t ldc, const float *a, const float *b, int steps, int add, const float *next_left,
                         const float *next_right) {
    (void)next_left, (void)next_right;
    openblas_product(c, (int)ldc, a, b, LIBRARY_ROWS, LIBRARY_COLUMNS, steps, add);
}

static tile_function *tile_for(const struct packed_matrix *a) {
    if (a->width == LIBRARY_ROWS) return library_tile;
    return a->mode == PACK_PAIRS ? kernel_set()->tile_pairs : kernel_set()->tile;
}

/* Where one tile is: panels a and b from the step at hand on, and what is fetched meanwhile. */
struct tile_at {
    float *out;
    size_t ld;
    const float *a, *b, *next_left, *next_right;
    int steps;
    bool add;
    int rows, columns; /* of out that are there, at least 1; the tile's or more: all */
};

/* At the right and lower edge only a part of the tile is there. */
static void edge(const struct tile_at *t, tile_function *tile, int rows, int columns, int width) {
    float whole[EDGE_FLOATS] __attribute__((aligned(64)));
    tile(whole, (size_t)width, t->a, t->b, t->steps, false, t->next_left, t->next_right);
    for (int i = 0; i < rows; i++) {
        float *line = t->out + (size_t)i * t->ld;
        if (t->add) vector_accumulate(line, whole + (size_t)i * (size_t)width, (size_t)columns);
        else memcpy(line, whole + (size_t)i * (size_t)width, (size_t)columns * sizeof *line);
    }
}

static void tile_run(const struct tile_at *t, tile_function *tile, int height, int width) {
    if (t->rows >= height && t->columns >= width) tile(t->out, t->ld, t->a, t->b, t->steps, t->add, t->next_left, t->next_right);
    else edge(t, tile, t->rows < height ? t->rows : height, t->columns < width ? t->columns : width, width);
}

void product_strip(float *out, size_t ld, const struct packed_matrix *a, int rows, const struct packed_matrix *b, int column, int depth,
                   bool add) {
    int steps = a->mode == PACK_PAIRS ? (depth + 1) / 2 : depth;
    const float *left = a->words, *right = packed_at(b, column, 0);
    for (int i = 0; i < rows; i += a->width, left += a->stride, out += (size_t)a->width * ld)
        tile_run(&(struct tile_at){out, ld, left, right, left + a->stride, right, steps, add, rows - i, b->count - column}, tile_for(a),
                 a->width, b->width);
}

struct blocks {
    const struct product *p;
    tile_function *tile;
    int rows, columns, row_blocks, column_blocks;
};

/* Always inline: gcc takes a call of a function that only prefetches for one that does nothing, and leaves it out. */
static inline __attribute__((always_inline)) void fetch_out(const struct tile_at *t, int height, int width) {
    for (int i = 0; i < height && i < t->rows; i++)
        for (int j = 0; j < width && j < t->columns; j += LINE_WORDS) __builtin_prefetch(t->out + (size_t)i * t->ld + j, 1);
}

/* One chain of each element of a block. The panels of b are read one after the other, by all panels of a each; so while one is, the next
 * one is fetched piece by piece, and of a what the next chain reads. A tile's place in memory is fetched before it is computed. */
static void block_chain(const struct blocks *s, int row, int rows, int column, int columns, int step, int steps) {
    const struct product *p = s->p;
    const struct packed_matrix *a = p->a, *b = p->b;
    size_t left = (size_t)step * (size_t)a->width, right = (size_t)step * (size_t)b->width;
    bool last = step + steps == a->steps;
    struct tile_at t = {.ld = p->ld, .steps = steps, .add = p->add || step > 0};
    for (int j = column; j < column + columns; j += b->width) {
        t.b = t.next_right = packed_at(b, j, 0) + right, t.columns = column + columns - j;
        if (t.columns > b->width) t.next_right += b->stride;
        else if (!last) t.next_right = packed_at(b, column, 0) + right + (size_t)steps * (size_t)b->width;
        for (int i = row; i < row + rows; i += a->width, t.next_right += steps / NEXT_RIGHT_STEPS * LINE_WORDS) {
            t.out = p->out + (size_t)i * p->ld + j, t.rows = row + rows - i;
            t.a = t.next_left = packed_at(a, i, 0) + left;
            if (!last) t.next_left += steps * a->width + (j - column) / b->width * (steps / NEXT_LEFT_STEPS * LINE_WORDS);
            fetch_out(&t, a->width, b->width);
            tile_run(&t, s->tile, a->width, b->width);
        }
    }
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
    struct blocks s = {
        .p = p, .tile = tile_for(p->a), .rows = p->a->width > BLOCK_ROWS ? p->a->width : BLOCK_ROWS, .columns = BLOCK_COLUMNS};
    size_t items = count_items(&s), wanted = (size_t)pool_threads(pool) * ITEMS_PER_THREAD;
    if (p->block_columns) s.columns = p->block_columns, items = count_items(&s);
    while (!p->block_columns && items < wanted && s.columns % (2 * p->b->width) == 0) s.columns /= 2, items = count_items(&s);
    while (items < wanted && s.rows % (2 * p->a->width) == 0) s.rows /= 2, items = count_items(&s);
    pool_run(pool, items, block_work, &s);
    double M = p->a->count, N = p->b->count, K = p->a->depth;
    profile_lap(p->name, 2.0 * M * N * K, 4.0 * (M * p->a->steps + N * p->b->steps + M * N * (p->add ? 2 : 1)));
}

/* ---- which kernels ---- */

int kernels_setup(char out[128]) {
    TRY(kernels_choose_wanted());
    TRY(product_setup());
    char library[64];
    product_library(library);
    snprintf(out, 128, "%s%s%s", kernels_name(), library[0] ? "; " : "", library);
    return 0;
}
