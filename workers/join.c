/* Taking over the state of a step: made from the seed (step 0), or read in segments from members that hold it, or from the coordinator's
 * checkpoint. */
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "workers/member.h"

enum {
    BAD_MAX = 16, /* answers that are no good, of several givers, before the coordinator is asked to name others */
};

void join_end(struct worker *worker) {
    struct member_side *m = worker->member;
    reads_drop_what(&worker->reads, MILLRACE__READ__WHAT__STATE);
    m->join_peers = m->join_bad = m->join_next = m->join_missing = 0;
    m->joining = false;
}

/* The whole state is here: is it the right one? */
static void finish(struct worker *worker) {
    struct member_side *m = worker->member;
    struct shared *shared = &worker->shared;
    uint8_t digest[XXH128_BYTES];
    state_digest(digest, shared->state, &shared->parts, m->elements, worker->pool);
    bool right = !m->join_has_digest || memcmp(digest, m->join_digest, sizeof digest) == 0;
    if (!right) log_warn("the state of step %llu came with another digest than announced", (unsigned long long)m->join_step);
    member_show_state(worker, m->join_step, right ? digest : NULL);
    join_end(worker);
    member_tell_applied(worker, right ? digest : NULL);
}

static void make_first_state(struct worker *worker) {
    struct member_side *m = worker->member;
    optimizer_begin(worker->shared.state, &m->model, &m->optimizer);
    work_tick(worker);
    finish(worker);
}

static bool ask(struct worker *worker, uint64_t peer, size_t item) {
    struct member_side *m = worker->member;
    struct read *read = reads_add(&worker->reads, peer, item);
    if (!read) return false;
    read->envelope.step = m->join_step;
    read->body.what = MILLRACE__READ__WHAT__STATE;
    read->body.a = worker->shared.parts.part[item / m->segments];
    read->body.c = item % m->segments;
    return true;
}

/* The same of the next giver; false: it is time to give up. */
static bool ask_another(struct worker *worker, const struct read *read) {
    struct member_side *m = worker->member;
    if (m->join_peers < 2 || ++m->join_bad > BAD_MAX) return false;
    size_t i = 0;
    while (m->join_peer[i] != read->peer) i++;
    return ask(worker, m->join_peer[(i + 1) % m->join_peers], read->tag);
}

void join_pump(struct worker *worker) {
    struct member_side *m = worker->member;
    if (m->join_step == 0 && m->join_peers == 0) {
        make_first_state(worker);
        return;
    }
    size_t items = worker->shared.parts.count * m->segments;
    size_t open_max = m->join_peers ? READS_AT_PEER_MAX * m->join_peers : READS_AT_PEER_MAX;
    if (open_max > READS_MAX / 2) open_max = READS_MAX / 2;
    while (m->join_next < items && worker->reads.count < open_max) {
        uint64_t peer = m->join_peers ? m->join_peer[m->join_next % m->join_peers] : 0;
        if (!ask(worker, peer, m->join_next)) return;
        m->join_next++;
    }
}

void join_data(struct worker *worker, const struct read *read, const struct message *message) {
    struct member_side *m = worker->member;
    const Millrace__Data *data = (const Millrace__Data *)message->body;
    if (!m->joining || read->envelope.step != m->join_step) return;
    struct shared *shared = &worker->shared;
    enum state_part part = shared->parts.part[read->tag / m->segments];
    size_t segment = read->tag % m->segments;
    size_t size = segment_size(m->elements, segment) * state_element_bytes(&shared->parts, part);
    if (data->status != MILLRACE__DATA__STATUS__OK || message->chunk_bytes != size) {
        const char *giver = read->peer ? addresses_find(&worker->addresses, read->peer) : "the coordinator", *why = data->reason;
        if (data->status == MILLRACE__DATA__STATUS__OK) why = "a piece of the wrong size";
        if (data->status == MILLRACE__DATA__STATUS__STALE) why = "it is gone";
        log_warn("state of step %llu, from %s: %s", (unsigned long long)m->join_step, giver, why);
        if (ask_another(worker, read)) return;
        join_end(worker);
        member_tell_applied(worker, NULL); /* the coordinator will name others */
        return;
    }
    memcpy(state_at(shared->state, &shared->parts, part, segment * SEGMENT_ELEMENTS), message->chunk, size);
    if (--m->join_missing == 0) finish(worker);
    else join_pump(worker);
}
