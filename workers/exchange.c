/* The exchange of one step: reduce-scatter, then all-gather, both by asking. For each segment that we own we read the partial sums of the
 * other members' nodes, sum them along the slice tree and show the result; every other segment we read from its owner. Which bits come out
 * depends on the tree alone. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/link.h"
#include "workers/member.h"

static void show_segment(struct worker *worker, size_t segment) {
    pthread_mutex_lock(&worker->lock);
    worker->shared.sum_ready[segment] = true;
    pthread_mutex_unlock(&worker->lock);
    worker->member->sums++;
    atomic_store(&worker->news, true);
    link_wake(worker->link);
}

/* ---- summing ---- */

static int scratch(struct member_side *m, float **out, uint32_t level, int side) {
    if (!m->scratch[level][side]) TRY(mem_try(&m->scratch[level][side], SEGMENT_ELEMENTS, sizeof(float)));
    *out = m->scratch[level][side];
    return 0;
}

struct summing {
    struct member_side *m;
    const struct slot *slot;
    size_t offset, count;   /* the segment */
    uint32_t slices;
};

static const float *part_values(const struct summing *s, struct node node) {
    for (size_t i = 0; i < s->m->parts; i++) {
        const struct peer_part *part = &s->m->part[i];
        if (!node_same(part->node, node)) continue;
        return part->values ? part->values + s->offset : s->slot->values[i];
    }
    return NULL;
}

/* The sum of a node over the segment: a part as it is, or left + right in `out`. */
static int sum_node(const struct summing *s, const float **result, float *out, struct node node) {
    *result = part_values(s, node);
    if (*result) return 0;
    if (node.level == 0) return err_set(ERR_CORRUPT, "slice %u belongs to nobody", node.index);
    struct node left = {node.level - 1, node.index * 2}, right = {node.level - 1, node.index * 2 + 1};
    const float *l, *r;
    float *space;
    TRY(scratch(s->m, &space, left.level, 0));
    TRY(sum_node(s, &l, space, left));
    if (!node_exists(right, s->slices)) {
        *result = l;
        return 0;
    }
    TRY(scratch(s->m, &space, right.level, 1));
    TRY(sum_node(s, &r, space, right));
    vector_add(out, l, r, s->count);
    *result = out;
    return 0;
}

static void finish_slot(struct worker *worker, struct slot *slot) {
    struct member_side *m = worker->member;
    struct summing s = {m, slot, slot->segment * SEGMENT_ELEMENTS, segment_size(m->elements, slot->segment),
                        (uint32_t)worker->config.training.slices};
    float *out = worker->shared.sum + s.offset;
    const float *result;
    int code = sum_node(&s, &result, out, node_root(s.slices));
    if (code < 0) work_fatal(worker, code);
    else if (result != out) memcpy(out, result, s.count * sizeof *out);
    for (size_t i = 0; i < m->parts; i++) {
        free(slot->values[i]);
        slot->values[i] = NULL;
    }
    slot->used = false;
    work_tick(worker);
    if (code == 0) show_segment(worker, slot->segment);
}

/* ---- beginning and ending ---- */

/* Our slices are done: our partial sums are the nodes of our cover, and others may have them. */
void exchange_begin(struct worker *worker) {
    struct member_side *m = worker->member;
    struct shared *shared = &worker->shared;
    pthread_mutex_lock(&worker->lock);
    for (size_t i = 0; i < m->parts; i++) {
        struct peer_part *part = &m->part[i];
        if (part->member != m->self) continue;
        for (size_t k = 0; k < shared->partials; k++)
            if (node_first_slice(shared->partial[k].node) == node_first_slice(part->node)) {
                shared->partial[k].node = part->node;
                part->values = shared->partial[k].values;
            }
        CHECK(part->values != NULL);
    }
    shared->partials_done = true;
    pthread_mutex_unlock(&worker->lock);
    m->exchanging = true;
    atomic_store(&worker->news, true);
    link_wake(worker->link);
}

void exchange_end(struct worker *worker) {
    struct member_side *m = worker->member;
    reads_drop_all(&worker->reads);
    for (int i = 0; i < SLOTS_MAX; i++) {
        for (size_t k = 0; k < m->parts; k++) free(m->slot[i].values[k]);
        memset(&m->slot[i], 0, sizeof m->slot[i]);
    }
    m->exchanging = m->reduced = false;
    m->next_own = m->next_other = m->sums = 0;
}

/* ---- asking ---- */

static size_t open_reads(const struct worker *worker, uint64_t peer, Millrace__Read__What what) {
    size_t n = 0;
    for (size_t i = 0; i < worker->reads.count; i++)
        n += worker->reads.read[i].peer == peer && worker->reads.read[i].body.what == what;
    return n;
}

static struct read *ask(struct worker *worker, size_t member, Millrace__Read__What what, uint64_t tag, size_t segment) {
    struct member_side *m = worker->member;
    uint64_t peer = m->peer[member];
    if (open_reads(worker, peer, what) >= READS_AT_PEER_MAX) return NULL;
    struct read *read = reads_add(&worker->reads, peer, tag);
    if (!read) return NULL;
    read->envelope.step = m->step;
    read->envelope.attempt = m->fence;
    read->body.what = what;
    read->body.c = segment;
    return read;
}

/* Asks for the slot's parts in order; false when a peer has enough questions open. */
static bool ask_parts(struct worker *worker, size_t slot_number) {
    struct member_side *m = worker->member;
    struct slot *slot = &m->slot[slot_number];
    for (; slot->next_part < m->parts; slot->next_part++) {
        const struct peer_part *part = &m->part[slot->next_part];
        if (part->member == m->self) continue;
        struct read *read = ask(worker, part->member, MILLRACE__READ__WHAT__PARTIAL, (uint64_t)slot_number << 32 | slot->next_part,
                                slot->segment);
        if (!read) return false;
        read->body.a = part->node.level;
        read->body.b = part->node.index;
    }
    return true;
}

static size_t parts_of_others(const struct member_side *m) {
    size_t n = 0;
    for (size_t i = 0; i < m->parts; i++) n += m->part[i].member != m->self;
    return n;
}

/* The next of our segments that nobody collects yet; false: all are collected or done. */
static bool next_own(struct member_side *m, size_t *out) {
    while (m->next_own < m->segments && m->next_own % m->members != m->self) m->next_own++;
    if (m->next_own == m->segments) return false;
    *out = m->next_own++;
    return true;
}

/* A slot that has no segment any more must not keep the others from asking for the rest of their parts. */
static void pump_own(struct worker *worker) {
    struct member_side *m = worker->member;
    size_t others = parts_of_others(m);
    for (size_t i = 0; i < SLOTS_MAX; i++) {
        struct slot *slot = &m->slot[i];
        while (!slot->used && next_own(m, &slot->segment)) {
            slot->used = true;
            slot->missing = others;
            slot->next_part = 0;
            if (others == 0) finish_slot(worker, slot);
        }
        if (slot->used && !ask_parts(worker, i)) return;
    }
}

static void pump_others(struct worker *worker) {
    struct member_side *m = worker->member;
    for (; m->next_other < m->segments; m->next_other++) {
        size_t owner = m->next_other % m->members;
        if (owner == m->self) continue;
        if (!ask(worker, owner, MILLRACE__READ__WHAT__SUM, m->next_other, m->next_other)) return;
    }
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

void exchange_pump(struct worker *worker) {
    struct member_side *m = worker->member;
    if (!m->exchanging || m->reduced) return;
    pump_own(worker);
    pump_others(worker);
    if (m->sums == m->segments) tell_reduced(worker);
}

void exchange_data(struct worker *worker, const struct read *read, const struct message *message) {
    struct member_side *m = worker->member;
    const Millrace__Data *data = (const Millrace__Data *)message->body;
    if (!m->exchanging || read->envelope.attempt != m->fence) return;
    size_t segment = read->body.c, size = segment_size(m->elements, segment) * sizeof(float);
    if (data->status != MILLRACE__DATA__STATUS__OK || message->chunk_bytes != size) {
        if (data->status != MILLRACE__DATA__STATUS__STALE)
            log_warn("segment %zu of a sum: %s", segment, data->reason ? data->reason : "no reason");
        return; /* the coordinator is about to tell a new view, or will when it notices that we stand still */
    }
    if (read->body.what == MILLRACE__READ__WHAT__SUM) {
        memcpy(worker->shared.sum + segment * SEGMENT_ELEMENTS, message->chunk, size);
        show_segment(worker, segment);
    } else {
        struct slot *slot = &m->slot[read->tag >> 32];
        float *values;
        int code = mem_try(&values, SEGMENT_ELEMENTS, sizeof *values);
        if (code < 0) {
            work_fatal(worker, code);
            return;
        }
        memcpy(values, message->chunk, size);
        slot->values[read->tag & UINT32_MAX] = values;
        if (--slot->missing == 0) finish_slot(worker, slot);
    }
    exchange_pump(worker);
}
