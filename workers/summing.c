/* The additions of exchange.c with their floats, in blocks that stay in the nearest caches. */
#include "workers/summing.h"

#include <string.h>

#include "model/optim/optimizer.h"

enum {
    BLOCK_ELEMENTS = 2048,     /* added up at once: all vectors of a block, scratch too, stay in the nearest caches */
    ITEM_ELEMENTS = 64 * 1024, /* one thread's share of a segment */
};

struct sum_work {
    const float *const *own;      /* by partial sum */
    const struct message *theirs; /* of the slot, by partial sum */
    const struct exchange *exchange;
    float *sum;                   /* of the segment */
    size_t offset, elements;      /* the segment's */
};

struct block {
    const struct sum_work *work;
    size_t at; /* in the segment */
    float scratch[SCRATCH_MAX][BLOCK_ELEMENTS];
};

static float *operand_out(struct block *block, struct operand operand) {
    return operand.of == OPERAND_SUM ? block->work->sum + block->at : block->scratch[operand.index];
}

static const float *operand_in(struct block *block, struct operand operand) {
    const struct sum_work *work = block->work;
    if (operand.of != OPERAND_PARTIAL) return operand_out(block, operand);
    const float *ours = work->own[operand.index];
    return (ours ? ours + work->offset : (const float *)work->theirs[operand.index].chunk) + block->at;
}

/* Element by element, so that neither blocks nor threads can change a bit. */
static void sum_item(void *arg, size_t item) {
    const struct sum_work *work = arg;
    const struct exchange *e = work->exchange;
    struct block block; /* its scratch is written before it is read */
    block.work = work;
    size_t end = (item + 1) * ITEM_ELEMENTS < work->elements ? (item + 1) * ITEM_ELEMENTS : work->elements;
    for (block.at = item * ITEM_ELEMENTS; block.at < end; block.at += BLOCK_ELEMENTS) {
        size_t count = end - block.at < BLOCK_ELEMENTS ? end - block.at : BLOCK_ELEMENTS;
        for (size_t i = 0; i < e->additions; i++) {
            const struct addition *addition = &e->addition[i];
            vector_add(operand_out(&block, addition->out), operand_in(&block, addition->left), operand_in(&block, addition->right), count);
        }
        if (e->sum.of != OPERAND_SUM) memcpy(work->sum + block.at, operand_in(&block, e->sum), count * sizeof(float));
    }
}

static void forget_slot(struct summing *summing, const struct exchange *exchange, size_t slot) {
    for (size_t i = 0; i < exchange->partials; i++) message_free(&summing->theirs[slot][i]);
}

void summing_slot(struct summing *summing, float *sum, const struct exchange *exchange, size_t slot, size_t offset, size_t elements,
                  struct pool *pool) {
    struct sum_work work = {summing->own, summing->theirs[slot], exchange, sum, offset, elements};
    pool_run(pool, (elements + ITEM_ELEMENTS - 1) / ITEM_ELEMENTS, sum_item, &work);
    forget_slot(summing, exchange, slot);
}

void summing_forget(struct summing *summing, const struct exchange *exchange) {
    for (size_t slot = 0; slot < SLOTS_MAX; slot++) forget_slot(summing, exchange, slot);
}
