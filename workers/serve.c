/* Outputs of jobs, partial sums, summed segments, training state: offer.h decides, this copies. What is not there yet is parked by the
 * caller (agent.c). Keeps nothing. */
#include "workers/serve.h"

#include "workers/outputs.h"

static int give_segment(struct buf *chunk, const void *values, size_t elements, size_t element_bytes, uint64_t segment) {
    const char *at = (const char *)values + segment * SEGMENT_ELEMENTS * element_bytes;
    TRY(buf_append(chunk, at, segment_size(elements, segment) * element_bytes));
    return 1;
}

/* What offer_find() has found. */
static int give(const struct shared *shared, struct buf *chunk, const Millrace__Read *read, size_t which) {
    size_t elements = shared->elements;
    if (read->what == MILLRACE__READ__WHAT__PARTIAL) return give_segment(chunk, shared->partial[which], elements, sizeof(float), read->c);
    if (read->what == MILLRACE__READ__WHAT__SUM) return give_segment(chunk, shared->sum, elements, sizeof(float), read->c);
    if (read->a >= STATE_PARTS || !shared->state[read->a]) return err_set(ERR_PEER, "state has no part %llu", (unsigned long long)read->a);
    enum state_part part = (enum state_part)read->a;
    return give_segment(chunk, shared->state[part], elements, state_element_bytes(&shared->parts, part), read->c);
}

static int serve_offer(const struct shared *shared, Millrace__Data *data, struct buf *chunk, const struct envelope *envelope,
                       const Millrace__Read *read) {
    size_t which;
    switch (offer_find(&shared->offer, &which, envelope, read)) {
    case OFFER_THIS: return give(shared, chunk, read, which);
    case OFFER_LATER: return 0;
    case OFFER_NO_MORE: data->status = MILLRACE__DATA__STATUS__STALE; return 1;
    default:
        return err_set(ERR_NOTFOUND, "a worker does not serve read %d of (%llu, %llu), segment %llu", (int)read->what,
                       (unsigned long long)read->a, (unsigned long long)read->b, (unsigned long long)read->c);
    }
}

static int serve_output(struct worker *worker, struct buf *chunk, const Millrace__Read *read) {
    if (read->size > READ_BYTES_MAX) return err_set(ERR_PEER, "a read of %llu bytes is over the limit", (unsigned long long)read->size);
    TRY(buf_reserve(chunk, read->size));
    size_t got;
    TRY(outputs_read(worker, chunk->data, &got, read->a, read->offset, read->size));
    chunk->size = got;
    return 1;
}

int serve_read(struct worker *worker, Millrace__Data *data, struct buf *chunk, enum frame_encoding *encoding,
               const struct envelope *envelope, const Millrace__Read *read) {
    if (read->what == MILLRACE__READ__WHAT__OUTPUT) return serve_output(worker, chunk, read);
    pthread_mutex_lock(&worker->lock);
    *encoding = (enum frame_encoding)atomic_load(&worker->tensor_encoding);
    int code = serve_offer(&worker->shared, data, chunk, envelope, read);
    pthread_mutex_unlock(&worker->lock);
    return code;
}
