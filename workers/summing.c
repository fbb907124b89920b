/* The additions of exchange.c with their floats, in blocks that stay in the nearest caches. */
#include "workers/summing.h"

#include <string.h>

#include "model/optim/optimizer.h"

enum {
    BLOCK_ELEMENTS = 2048,     /* added up at once: all vectors of a block, scratch too, stay in the nearest caches */
    ITEM_ELEMENTS = 64 * 1024, /* one thread's piece of a segment */
};

struct run {
    const float *const *own;      /* by part */
    const struct message *pieces; /* of the slot, by part */
    const struct exchange *exchange;
    float *sum;                   /* of the segment */
    size_t offset, elements;      /* the segment's */
};

struct block {
    const struct run *run;
    size_t at; /* in the segment */
    float scratch[SCRATCH_MAX][BLOCK_ELEMENTS];
};

static float *operand_out(struct block *block, struct operand operand) {
    return operand.of == OPERAND_SUM ? block->run->sum + block->at : block->scratch[operand.index];
}

static const float *operand_in(struct block *block, struct operand operand) {
    const struct run *run = block->run;
    if (operand.of != OPERAND_PART) return operand_out(block, operand);
    const float *ours = run->own[operand.index];
    return (ours ? ours + run->offset : (const float *)run->pieces[operand.index].chunk) + block->at;
}

/* Element by element, so that neither blocks nor threads can change a bit. */
static void sum_item(void *arg, size_t item) {
    const struct run *run = arg;
    const struct exchange *e = run->exchange;
    struct block block; /* its scratch is written before it is read */
    block.run = run;
    size_t end = (item + 1) * ITEM_ELEMENTS < run->elements ? (item + 1) * ITEM_ELEMENTS : run->elements;
    for (block.at = item * ITEM_ELEMENTS; block.at < end; block.at += BLOCK_ELEMENTS) {
        size_t count = end - block.at < BLOCK_ELEMENTS ? end - block.at : BLOCK_ELEMENTS;
        for (size_t i = 0; i < e->additions; i++) {
            const struct addition *addition = &e->addition[i];
            vector_add(operand_out(&block, addition->out), operand_in(&block, addition->left), operand_in(&block, addition->right), count);
        }
        if (e->sum.of != OPERAND_SUM) memcpy(run->sum + block.at, operand_in(&block, e->sum), count * sizeof(float));
    }
}

static void forget_slot(struct summing *summing, const struct exchange *exchange, size_t slot) {
    for (size_t i = 0; i < exchange->parts; i++) message_free(&summing->piece[slot][i]);
}

void summing_slot(struct summing *summing, float *sum, const struct exchange *exchange, size_t slot, size_t offset, size_t elements,
                  struct pool *pool) {
    struct run run = {summing->own, summing->piece[slot], exchange, sum, offset, elements};
    pool_run(pool, (elements + ITEM_ELEMENTS - 1) / ITEM_ELEMENTS, sum_item, &run);
    forget_slot(summing, exchange, slot);
}

void summing_forget(struct summing *summing, const struct exchange *exchange) {
    for (size_t slot = 0; slot < SLOTS_MAX; slot++) forget_slot(summing, exchange, slot);
}
