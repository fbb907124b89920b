/* Where words of packed operands lie, and the loops around the kernels that pack them. */
#include "model/kernels/operand.h"

#include "base/err.h"
#include "model/kernels/product.h"
#include "model/kernels/profile.h"

enum {
    PACK_LANES = 8,   /* rows that a kernel transposes at once */
    ITEM_SIZE = 256,  /* rows or columns of an item of work: several panels, since each fetches the next one's input */
    ITEM_DEPTH = 512, /* long runs of memory, which prefetchers see; less where there would be too few items */
    ITEM_DEPTH_MIN = 64,
    ITEMS_PER_THREAD = 2,
    GAP = 16, /* words between panels: without it their lines would share few sets of a cache when steps are a power of two */
};

static struct operand shaped(float *words, int width, int gap, int count, int depth, bool bf16) {
    enum pack_mode mode = !bf16 ? PACK_FLOAT : kernel_set()->tile_pairs ? PACK_PAIRS : PACK_ROUNDED;
    int steps = mode == PACK_PAIRS ? (depth + 1) / 2 : depth;
    return (struct operand){words, (size_t)steps * (size_t)width + (size_t)gap, count, depth, steps, width, mode};
}

static size_t words_of(const struct operand *o) { return (size_t)((o->count + o->width - 1) / o->width) * o->stride; }

struct operand operand_over(float *words, enum operand_side side, int count, int depth, bool bf16) {
    return shaped(words, side == OPERAND_LEFT ? product_left_width() : product_right_width(), GAP, count, depth, bf16);
}

size_t operand_words(enum operand_side side, int count, int depth, bool bf16) {
    struct operand o = operand_over(NULL, side, count, depth, bf16);
    return words_of(&o);
}

struct operand operand_small(float *words, enum operand_side side, int count, int depth, bool bf16) {
    return shaped(words, side == OPERAND_LEFT ? TILE_ROWS : TILE_COLUMNS, 0, count, depth, bf16);
}

size_t operand_small_words(enum operand_side side, int count, int depth, bool bf16) {
    struct operand o = operand_small(NULL, side, count, depth, bf16);
    return words_of(&o);
}

void operand_pack_along(const struct operand *o, const float *x, size_t ld, int first, int count, int depth_first, int depth) {
    for (int i = 0; i < count; i += PACK_LANES)
        kernel_set()->pack_along(operand_at(o, first + i, depth_first) + (first + i) % o->width, o->width, x + (size_t)i * ld, ld,
                                 count - i < PACK_LANES ? count - i : PACK_LANES, depth, o->mode);
}

void operand_pack_across(const struct operand *o, const float *x, size_t ld, int first, int count, int depth_first, int depth) {
    float *place[PACK_COLUMNS / PACK_LANES];
    for (int from = 0; from < count; from += PACK_COLUMNS) {
        int columns = count - from < PACK_COLUMNS ? count - from : PACK_COLUMNS;
        for (int i = 0; i < columns; i += PACK_LANES)
            place[i / PACK_LANES] = operand_at(o, first + from + i, depth_first) + (first + from + i) % o->width;
        kernel_set()->pack_across(place, o->width, x + from, ld, columns, depth, o->mode);
    }
}

struct fill {
    const struct operand *o;
    const float *x;
    size_t ld;
    bool along;
    int sizes, item_depth; /* items side by side, and how deep they are */
};

static void fill_work(void *arg, size_t item) {
    const struct fill *f = arg;
    const struct operand *o = f->o;
    int first = (int)(item % (size_t)f->sizes) * ITEM_SIZE, depth_first = (int)(item / (size_t)f->sizes) * f->item_depth;
    int count = o->count - first < ITEM_SIZE ? o->count - first : ITEM_SIZE;
    int depth = o->depth - depth_first < f->item_depth ? o->depth - depth_first : f->item_depth;
    if (f->along) operand_pack_along(o, f->x + (size_t)first * f->ld + (size_t)depth_first, f->ld, first, count, depth_first, depth);
    else operand_pack_across(o, f->x + (size_t)depth_first * f->ld + (size_t)first, f->ld, first, count, depth_first, depth);
}

static size_t fill_items(const struct fill *f) { return (size_t)f->sizes * (size_t)((f->o->depth + f->item_depth - 1) / f->item_depth); }

static void fill(struct pool *pool, struct fill *f) {
    size_t wanted = (size_t)pool_threads(pool) * ITEMS_PER_THREAD;
    f->sizes = (f->o->count + ITEM_SIZE - 1) / ITEM_SIZE, f->item_depth = ITEM_DEPTH;
    while (f->item_depth > ITEM_DEPTH_MIN && fill_items(f) < wanted) f->item_depth /= 2;
    pool_run(pool, fill_items(f), fill_work, f);
    profile_lap("packing", 0, 4.0 * f->o->count * ((double)f->o->depth + f->o->steps));
}

void operand_fill_along(struct pool *pool, const struct operand *o, const float *x, size_t ld) {
    fill(pool, &(struct fill){.o = o, .x = x, .ld = ld, .along = true});
}

void operand_fill_across(struct pool *pool, const struct operand *o, const float *x, size_t ld) {
    fill(pool, &(struct fill){.o = o, .x = x, .ld = ld});
}
