/* What this worker answers to READs: outputs of its jobs, partial sums, summed segments, training state. Runs on the network thread, under
 * the lock, and copies; it never waits: what is not there yet is parked by the caller. */
#include <string.h>

#include "base/err.h"
#include "workers/internal.h"

/* -1: the asker is ahead of us, 0: the same, 1: the asker is behind. */
static int compare(uint64_t ours, uint64_t theirs) { return ours < theirs ? -1 : ours > theirs; }

static int stale(Millrace__Data *data) {
    data->status = MILLRACE__DATA__STATUS__STALE;
    return 1;
}

static int give_segment(struct buf *chunk, const void *values, size_t elements, size_t element_bytes, uint64_t segment) {
    const char *at = (const char *)values + segment * SEGMENT_ELEMENTS * element_bytes;
    TRY(buf_append(chunk, at, segment_size(elements, segment) * element_bytes));
    return 1;
}

static int serve_partial(const struct shared *shared, Millrace__Data *data, struct buf *chunk, const struct envelope *envelope,
                         const Millrace__Read *read) {
    int order = compare(shared->fence, envelope->attempt);
    if (order > 0) return stale(data);
    if (order < 0 || !shared->partials_done) return 0;
    for (size_t i = 0; i < shared->partials; i++) {
        const struct partial *partial = &shared->partial[i];
        if (partial->node.level == read->a && partial->node.index == read->b)
            return give_segment(chunk, partial->values, shared->elements, sizeof *partial->values, read->c);
    }
    return err_set(ERR_NOTFOUND, "partial sum (%llu, %llu) is not ours", (unsigned long long)read->a, (unsigned long long)read->b);
}

static int serve_sum(const struct shared *shared, Millrace__Data *data, struct buf *chunk, const struct envelope *envelope,
                     const Millrace__Read *read) {
    int order = compare(shared->fence, envelope->attempt);
    if (order > 0) return stale(data);
    if (order < 0 || !shared->sum_ready[read->c]) return 0;
    return give_segment(chunk, shared->sum, shared->elements, sizeof *shared->sum, read->c);
}

static int serve_state(const struct shared *shared, Millrace__Data *data, struct buf *chunk, const struct envelope *envelope,
                       const Millrace__Read *read) {
    int order = compare(shared->state_step, envelope->step);
    if (!shared->has_state || order > 0) return stale(data);
    if (order < 0) return 0;
    if (read->a >= STATE_PARTS || !shared->state[read->a]) return err_set(ERR_PEER, "state has no part %llu", (unsigned long long)read->a);
    enum state_part part = (enum state_part)read->a;
    return give_segment(chunk, shared->state[part], shared->elements, state_element_bytes(&shared->parts, part), read->c);
}

static int serve_output(struct worker *worker, struct buf *chunk, const Millrace__Read *read) {
    if (read->size > READ_BYTES_MAX) return err_set(ERR_PEER, "a read of %llu bytes is over the limit", (unsigned long long)read->size);
    TRY(buf_reserve(chunk, read->size));
    size_t got;
    TRY(output_read(worker, chunk->data, &got, read->a, read->offset, read->size));
    chunk->size = got;
    return 1;
}

int serve_read(struct worker *worker, Millrace__Data *data, struct buf *chunk, enum frame_encoding *encoding,
               const struct envelope *envelope, const Millrace__Read *read) {
    if (read->what == MILLRACE__READ__WHAT__OUTPUT) return serve_output(worker, chunk, read);
    pthread_mutex_lock(&worker->lock);
    const struct shared *shared = &worker->shared;
    int code;
    *encoding = (enum frame_encoding)atomic_load(&worker->tensor_encoding);
    if (shared->elements == 0) code = 0;
    else if (read->c >= segment_count(shared->elements)) code = err_set(ERR_PEER, "there is no segment %llu", (unsigned long long)read->c);
    else if (read->what == MILLRACE__READ__WHAT__PARTIAL) code = serve_partial(shared, data, chunk, envelope, read);
    else if (read->what == MILLRACE__READ__WHAT__SUM) code = serve_sum(shared, data, chunk, envelope, read);
    else if (read->what == MILLRACE__READ__WHAT__STATE) code = serve_state(shared, data, chunk, envelope, read);
    else code = err_set(ERR_PEER, "a worker does not serve reads of kind %d", (int)read->what);
    pthread_mutex_unlock(&worker->lock);
    return code;
}
