/* The exchange with its floats: shows our partial sums, keeps what comes from others, adds up and shows what exchange.c says, and tells the
 * coordinator when the whole sum is here. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "proto/link.h"
#include "workers/member.h"

enum {
    BLOCK_ELEMENTS = 2048,     /* added up at once: all vectors of a block, scratch too, stay in the nearest caches */
    ITEM_ELEMENTS = 64 * 1024, /* one thread's piece of a segment */
};

/* ---- adding up ---- */

struct summing {
    const struct member_side *m;
    const struct message *pieces; /* of the slot, by part */
    float *sum;                   /* of the segment */
    size_t offset, elements;      /* the segment's */
};

struct block {
    const struct summing *summing;
    size_t at; /* in the segment */
    float scratch[SCRATCH_MAX][BLOCK_ELEMENTS];
};

static float *operand_out(struct block *block, struct operand operand) {
    return operand.of == OPERAND_SUM ? block->summing->sum + block->at : block->scratch[operand.index];
}

static const float *operand_in(struct block *block, struct operand operand) {
    const struct summing *s = block->summing;
    if (operand.of != OPERAND_PART) return operand_out(block, operand);
    const float *ours = s->m->own_part[operand.index];
    return (ours ? ours + s->offset : (const float *)s->pieces[operand.index].chunk) + block->at;
}

/* Element by element, so that neither blocks nor threads can change a bit. */
static void sum_item(void *arg, size_t item) {
    const struct summing *s = arg;
    const struct exchange *e = &s->m->exchange;
    struct block block; /* its scratch is written before it is read */
    block.summing = s;
    size_t end = (item + 1) * ITEM_ELEMENTS < s->elements ? (item + 1) * ITEM_ELEMENTS : s->elements;
    for (block.at = item * ITEM_ELEMENTS; block.at < end; block.at += BLOCK_ELEMENTS) {
        size_t count = end - block.at < BLOCK_ELEMENTS ? end - block.at : BLOCK_ELEMENTS;
        for (size_t i = 0; i < e->additions; i++) {
            const struct addition *addition = &e->addition[i];
            vector_add(operand_out(&block, addition->out), operand_in(&block, addition->left), operand_in(&block, addition->right), count);
        }
        if (e->sum.of != OPERAND_SUM) memcpy(s->sum + block.at, operand_in(&block, e->sum), count * sizeof(float));
    }
}

static void sum_slot(struct worker *worker, size_t slot) {
    struct member_side *m = worker->member;
    size_t segment = m->exchange.slot[slot].segment, elements = segment_size(m->elements, segment);
    struct summing s = {m, m->piece[slot], worker->shared.sum + segment * SEGMENT_ELEMENTS, segment * SEGMENT_ELEMENTS, elements};
    pool_run(worker->pool, (elements + ITEM_ELEMENTS - 1) / ITEM_ELEMENTS, sum_item, &s);
    for (size_t i = 0; i < m->exchange.parts; i++) message_free(&m->piece[slot][i]);
    work_tick(worker);
    pthread_mutex_lock(&worker->lock);
    worker->shared.offer.sum[segment] = true;
    pthread_mutex_unlock(&worker->lock);
    work_news(worker);
}

/* ---- the whole sum is here ---- */

static void tell_reduced(struct worker *worker) {
    struct member_side *m = worker->member;
    const float *sum = worker->shared.sum;
    uint8_t digest[XXH128_BYTES];
    vectors_digest(digest, &sum, 1, m->elements, worker->pool);
    m->square_sum = square_sum_of_segments(sum, m->elements, worker->pool);
    m->reduced = true;
    Millrace__Reduced reduced = MILLRACE__REDUCED__INIT;
    reduced.view = m->fence & UINT32_MAX;
    reduced.digest = (ProtobufCBinaryData){sizeof digest, digest};
    reduced.square_sum = m->square_sum;
    reduced.finite = isfinite(m->square_sum);
    struct envelope envelope = member_envelope(worker, MILLRACE__KIND__REDUCED);
    work_send(worker, NULL, &envelope, &reduced.base, NULL, 0);
}

/* ---- the way of a step ---- */

/* Our slices are done: our partial sums are the nodes of our cover, and others may have them. */
static void begin(struct worker *worker) {
    struct member_side *m = worker->member;
    struct shared *shared = &worker->shared;
    struct node node[NODES_MAX];
    for (size_t k = 0; k < m->partials; k++) node[k] = m->partial[k].node;
    for (size_t i = 0; i < m->exchange.parts; i++) {
        const struct exchange_part *part = &m->exchange.part[i];
        m->own_part[i] = NULL;
        for (size_t k = 0; k < m->partials && part->member == m->exchange.self; k++)
            if (node_first_slice(m->partial[k].node) == node_first_slice(part->node)) {
                node[k] = m->partial[k].node = part->node;
                m->own_part[i] = m->partial[k].values;
            }
        CHECK(m->own_part[i] || part->member != m->exchange.self);
    }
    pthread_mutex_lock(&worker->lock);
    for (size_t k = 0; k < m->partials; k++) shared->partial[k] = m->partial[k].values;
    offer_partials(&shared->offer, node, m->partials);
    pthread_mutex_unlock(&worker->lock);
    exchange_begin(&m->exchange);
    work_news(worker);
}

void summing_pump(struct worker *worker) {
    struct member_side *m = worker->member;
    if (m->reduced) return;
    if (!m->exchange.running) begin(worker);
    exchange_ask(&m->exchange, &worker->reads);
    for (size_t slot; exchange_full(&m->exchange, &slot); exchange_ask(&m->exchange, &worker->reads)) {
        sum_slot(worker, slot);
        exchange_summed(&m->exchange, slot);
    }
    if (exchange_complete(&m->exchange)) tell_reduced(worker);
}

void summing_data(struct worker *worker, const struct read *read, struct message *message) {
    struct member_side *m = worker->member;
    const Millrace__Data *data = (const Millrace__Data *)message->body;
    size_t segment = read->body.c, size = segment_size(m->elements, segment) * sizeof(float), slot, part;
    bool good = data->status == MILLRACE__DATA__STATUS__OK && message->chunk_bytes == size;
    switch (exchange_take(&m->exchange, &worker->reads, &slot, &part, read, good, clock_ms())) {
    case TAKEN_NOT: break;
    case TAKEN_AGAIN:
        if (data->status == MILLRACE__DATA__STATUS__STALE) break; /* the member is in a later view: ours is on its way */
        log_warn("segment %zu of a sum, from %s: %s; asking again", segment, addresses_find(&worker->addresses, read->peer),
                 data->status == MILLRACE__DATA__STATUS__OK ? "it has the wrong size" : data->reason);
        break;
    case TAKEN_PART:
        m->piece[slot][part] = *message; /* its bytes are ours now */
        *message = (struct message){0};
        break;
    case TAKEN_SUM: memcpy(worker->shared.sum + segment * SEGMENT_ELEMENTS, message->chunk, size); break;
    }
    if (m->exchange.running) summing_pump(worker);
}

void summing_end(struct worker *worker) {
    struct member_side *m = worker->member;
    exchange_end(&m->exchange, &worker->reads);
    for (size_t slot = 0; slot < SLOTS_MAX; slot++)
        for (size_t i = 0; i < m->exchange.parts; i++) message_free(&m->piece[slot][i]);
    m->reduced = false;
}
