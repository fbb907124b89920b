/* Where words of packed operands lie, and the loops around the kernels that pack them. */
#include "model/operand.h"

#include "base/err.h"
#include "model/product.h"
#include "model/profile.h"

enum {
    PACK_LANES = 8,  /* rows that a kernel transposes at once */
    ITEM_SIZE = 256, /* rows or columns of an item of work: several panels, since each fetches the next one's input */
    ITEM_DEPTH = 128,
    LINE_WORDS = 16, /* of a cache */
    GAP = 16,        /* words between panels: without it their lines would share few sets of a cache when steps are a power of two */
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

/* Fetches the lines that the panel of `first` will be written to. Panels lie far apart and each gets a few lines at a time: unasked, every
 * one of them is waited for. */
static void expect(const struct operand *o, int first, int depth_first, int depth) {
    int steps = o->mode == PACK_PAIRS ? (depth + 1) / 2 : depth;
    const float *at = operand_at(o, first, depth_first), *end = at + (size_t)steps * (size_t)o->width;
    for (; at < end; at += LINE_WORDS) __builtin_prefetch(at, 1);
}

void operand_pack_along(const struct operand *o, const float *x, size_t ld, int first, int count, int depth_first, int depth) {
    const struct kernel_set *k = kernel_set();
    expect(o, first, depth_first, depth);
    for (int i = 0; i < count; i += PACK_LANES) {
        if ((first + i) % o->width == 0 && i + o->width < count) expect(o, first + i + o->width, depth_first, depth);
        k->pack_along(operand_at(o, first + i, depth_first) + (first + i) % o->width, o->width, x + (size_t)i * ld, ld,
                      count - i < PACK_LANES ? count - i : PACK_LANES, depth, o->mode);
    }
}

void operand_pack_across(const struct operand *o, const float *x, size_t ld, int first, int count, int depth_first, int depth) {
    const struct kernel_set *k = kernel_set();
    expect(o, first, depth_first, depth);
    for (int i = 0, lanes; i < count; i += lanes) {
        lanes = o->width - (first + i) % o->width; /* to the end of the panel */
        if (i + lanes < count) expect(o, first + i + lanes, depth_first, depth);
        k->pack_across(operand_at(o, first + i, depth_first) + (first + i) % o->width, o->width, x + i, ld,
                       count - i < lanes ? count - i : lanes, depth, o->mode);
    }
}

struct fill {
    const struct operand *o;
    const float *x;
    size_t ld;
    bool along;
    int sizes; /* items side by side */
};

static void fill_work(void *arg, size_t item) {
    const struct fill *f = arg;
    const struct operand *o = f->o;
    int first = (int)(item % (size_t)f->sizes) * ITEM_SIZE, depth_first = (int)(item / (size_t)f->sizes) * ITEM_DEPTH;
    int count = o->count - first < ITEM_SIZE ? o->count - first : ITEM_SIZE;
    int depth = o->depth - depth_first < ITEM_DEPTH ? o->depth - depth_first : ITEM_DEPTH;
    if (f->along) operand_pack_along(o, f->x + (size_t)first * f->ld + (size_t)depth_first, f->ld, first, count, depth_first, depth);
    else operand_pack_across(o, f->x + (size_t)depth_first * f->ld + (size_t)first, f->ld, first, count, depth_first, depth);
}

static void fill(struct pool *pool, struct fill *f) {
    f->sizes = (f->o->count + ITEM_SIZE - 1) / ITEM_SIZE;
    pool_run(pool, (size_t)f->sizes * (size_t)((f->o->depth + ITEM_DEPTH - 1) / ITEM_DEPTH), fill_work, f);
    profile_lap("packing", 0, 4.0 * f->o->count * ((double)f->o->depth + f->o->steps));
}

void operand_fill_along(struct pool *pool, const struct operand *o, const float *x, size_t ld) {
    fill(pool, &(struct fill){.o = o, .x = x, .ld = ld, .along = true});
}

void operand_fill_across(struct pool *pool, const struct operand *o, const float *x, size_t ld) {
    fill(pool, &(struct fill){.o = o, .x = x, .ld = ld});
}
