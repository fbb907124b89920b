/* What the simulation's coordinator does: carries the trainer's actions out as the files of coordinator/ do, onto a model of the store, and
 * checks everything that is decided. */
#ifndef MILLRACE_TESTS_SIM_DUTIES_H
#define MILLRACE_TESTS_SIM_DUTIES_H

#include "tests/sim/arithmetic.h"
#include "tests/sim/network.h"

enum { ENTRIES = 256, ATTEMPTS_MAX = 5, SAVE_AGAIN_MS = 5000, STOP_MS = 30000, HEARTBEAT_EVERY_MS = 500, EVALUATE_JOBS = 3,
       ITEMS_CAP = STATE_PARTS * SEGMENTS_CAP };

struct entry {                /* a worker as the coordinator knows it */
    char worker[64], endpoint[ENDPOINT_BYTES];
    int slot;
    uint32_t life;
    uint64_t peer;
    enum { ENTRY_FREE, ENTRY_JOINING, ENTRY_PROVING, ENTRY_HERE, ENTRY_GONE } state;
    struct session session;
    int64_t heard_ms;
    bool unreachable, has_claim, leaving;
    uint64_t claim_step;
    uint8_t claim[XXH128_BYTES];
    size_t leases;
};

struct coordinator_model {
    bool up, ended, stopping;
    struct link *link;
    int64_t stop_at_ms, heartbeat_ms, tick_ms;
    struct trainer *trainer;
    struct entry entry[ENTRIES];
    size_t entries;
    struct queue queue;
    bool queue_open;
    uint64_t evaluate_step;
    struct reads reads;
    struct {
        bool active;
        uint64_t step;
        bool requested[ITEMS_CAP], arrived[ITEMS_CAP];
        uint8_t state[STATE_PARTS][ELEMENTS_CAP * sizeof(float)];
        int64_t again_ms, published_ms; /* 0: not being published */
    } saving;
    int crash_in;             /* 0: no crash is planned; else after that many more sends and writes */
    int saves_to_fail;
    uint64_t save_wanted;     /* step whose state was asked to be saved; 0: none */
    bool save_open;           /* a save was asked for, and nothing saved since: after a roll-back the next state will do */
};

static void act(struct sim *s);
static void saving_begin(struct sim *s);

static uint64_t fence_of(const struct sim *s, uint64_t low) { return s->disk.generation << 32 | low; }
static size_t segments_of(const struct sim *s) { return segment_count(s->plan.elements); }
static size_t items_of(const struct sim *s) { return s->parts.count * segments_of(s); }
static enum state_part item_part(const struct sim *s, size_t item) { return s->parts.part[item / segments_of(s)]; }

/* The bytes of a segment of a state that is kept here. */
static uint8_t *item_at(const struct sim *s, uint8_t state[STATE_PARTS][ELEMENTS_CAP * sizeof(float)], size_t item, size_t *out_bytes) {
    enum state_part part = item_part(s, item);
    size_t element = state_element_bytes(&s->parts, part), segment = item % segments_of(s);
    *out_bytes = segment_size(s->plan.elements, segment) * element;
    return state[part] + segment * SEGMENT_ELEMENTS * element;
}

static void state_name(const struct sim *s, uint8_t out[XXH128_BYTES], uint8_t state[STATE_PARTS][ELEMENTS_CAP * sizeof(float)]) {
    void *parts[STATE_PARTS];
    struct pool *pool;
    for (size_t i = 0; i < STATE_PARTS; i++) parts[i] = state[i];
    CHECK(pool_open(&pool, 1) == 0);
    __real_state_digest(out, parts, &s->parts, s->plan.elements, pool);
    pool_close(pool);
}

static bool is_true_state(const struct sim *s, uint8_t state[STATE_PARTS][ELEMENTS_CAP * sizeof(float)], uint64_t step) {
    uint8_t digest[XXH128_BYTES];
    state_name(s, digest, state);
    return memcmp(digest, s->truth[step].state_digest, XXH128_BYTES) == 0;
}

/* ---- dying ---- */

static void coordinator_down(struct sim *s, int64_t restart_ms) {
    struct coordinator_model *c = s->c;
    trace(s, "coordinator is gone");
    c->up = false;
    c->crash_in = 0;
    if (c->queue_open) queue_close(&c->queue);
    c->queue_open = false;
    s->process[COORDINATOR].alive = false;
    after(s, restart_ms, EVENT_SPAWN, COORDINATOR);
}

/* Before each write and each send: is this where it dies? */
static bool still_up(struct sim *s) {
    if (!s->c->up) return false;
    if (s->c->crash_in && --s->c->crash_in == 0 && !s->calm) {
        s->faults[FAULT_COORDINATOR]++;
        coordinator_down(s, draw_in(s, 50, 4000));
        return false;
    }
    return true;
}

static int say_to_peer(struct sim *s, uint64_t peer, const struct envelope *envelope, const ProtobufCMessage *body, const void *chunk,
                       size_t chunk_bytes) {
    struct frame frame;
    struct envelope stamped = *envelope;
    stamped.run = 1;
    CHECK(frame_pack(&frame, &stamped, body, chunk, chunk_bytes, FRAME_NONE) == 0);
    return link_send(s->c->link, peer, &frame);
}

static bool tell_with(struct sim *s, uint32_t to, struct envelope envelope, const ProtobufCMessage *body, const void *chunk,
                      size_t chunk_bytes) {
    struct entry *e = &s->c->entry[to];
    bool counts = session_counts(envelope.kind);
    if (!still_up(s)) return false;
    if (envelope.kind != MILLRACE__KIND__DATA) envelope.sequence = session_number(&e->session, counts);
    session_sent(&e->session, counts);
    if (say_to_peer(s, e->peer, &envelope, body, chunk, chunk_bytes) < 0) e->unreachable = true;
    return true;
}

static bool tell(struct sim *s, uint32_t to, struct envelope envelope, const ProtobufCMessage *body) {
    return tell_with(s, to, envelope, body, NULL, 0);
}

static void ask_who(struct sim *s, uint64_t peer) {
    say_to_peer(s, peer, &(struct envelope){.kind = MILLRACE__KIND__WHO}, NULL, NULL, 0);
}

/* ---- jobs of an evaluation ---- */

static void jobs_clear(struct sim *s) {
    if (!s->c->queue_open) return;
    queue_close(&s->c->queue);
    s->c->queue_open = false;
    for (size_t i = 0; i < s->c->entries; i++) s->c->entry[i].leases = 0;
}

static void lease_jobs(struct sim *s) {
    struct coordinator_model *c = s->c;
    if (!c->queue_open || c->stopping || c->ended) return;
    for (size_t round = 0; round < 2; round++)
        for (uint32_t i = 0; i < c->entries && c->up && c->queue.pending; i++) {
            struct entry *e = &c->entry[i];
            if (e->state != ENTRY_HERE || e->leaving || e->leases > round || !trainer_holds_state(c->trainer, i)) continue;
            int64_t job = queue_lease(&c->queue, i, clock_ms());
            e->leases++;
            Millrace__Geometry geometry = geometry_of("validation");
            Millrace__EvaluateJob evaluate = MILLRACE__EVALUATE_JOB__INIT;
            Millrace__Lease lease = MILLRACE__LEASE__INIT;
            evaluate.step = c->evaluate_step;
            evaluate.first = (uint64_t)job;
            evaluate.count = 1;
            evaluate.geometry = &geometry;
            lease.stage = (char *)"evaluate";
            lease.work_case = MILLRACE__LEASE__WORK_EVALUATE;
            lease.evaluate = &evaluate;
            tell(s, i, (struct envelope){.kind = MILLRACE__KIND__LEASE, .step = c->evaluate_step, .job = (uint64_t)job + 1,
                                         .attempt = fence_of(s, c->queue.job[job].attempt)}, &lease.base);
        }
}

static void job_result(struct sim *s, uint32_t number, const struct message *message) {
    struct coordinator_model *c = s->c;
    const struct envelope *e = &message->envelope;
    uint64_t job = e->job - 1;
    if (!c->queue_open || e->attempt >> 32 != s->disk.generation || !queue_holds(&c->queue, job, (uint32_t)e->attempt, number)) return;
    if (c->entry[number].leases) c->entry[number].leases--;
    if (e->kind == MILLRACE__KIND__FAILED) {
        queue_fail(&c->queue, job, false, clock_ms());
        if (c->queue.failed) broken(s, "evaluation of step %llu failed for good", (unsigned long long)c->evaluate_step);
        return;
    }
    const Millrace__Done *done = (const Millrace__Done *)message->body;
    int32_t tokens[SEQUENCE];
    for (uint64_t i = 0; i < SEQUENCE; i++) tokens[i] = token_at(false, job * SEQUENCE + i);
    const float *weights = (const float *)s->truth[c->evaluate_step].state[s->config.training.eval_ema ? STATE_EMA : STATE_WEIGHTS];
    if (!done->evaluate || done->evaluate->loss_sum != validation_loss(s, weights, tokens)) broken(s, "a wrong state was evaluated");
    queue_done(&c->queue, job, clock_ms());
    if (!queue_finished(&c->queue)) return;
    jobs_clear(s);
    if (!still_up(s)) return;
    s->disk.evaluated = c->evaluate_step;
    trainer_evaluated(c->trainer, c->evaluate_step, clock_ms());
    act(s);
}

/* ---- checkpoints ---- */

static void saving_end(struct sim *s) {
    struct coordinator_model *c = s->c;
    int64_t again = c->saving.again_ms;
    if (c->saving.published_ms) broken(s, "a checkpoint that is being published is forgotten");
    memset(&c->saving, 0, sizeof c->saving);
    c->saving.again_ms = again;
    c->reads.count = 0;
}

static void save_failed(struct sim *s, bool tell_trainer) {
    uint64_t step = s->c->saving.step;
    saving_end(s);
    s->c->saving.again_ms = clock_ms() + SAVE_AGAIN_MS;
    if (!tell_trainer) return;
    trainer_saved(s->c->trainer, step, false, clock_ms());
    act(s);
}

static void ask_state(struct sim *s) {
    struct coordinator_model *c = s->c;
    for (size_t item = 0; item < items_of(s); item++)
        for (uint32_t i = 0; i < c->entries && !c->saving.requested[item]; i++) {
            uint32_t number = (uint32_t)((i + item) % c->entries);
            struct entry *e = &c->entry[number];
            if (e->state != ENTRY_HERE || !trainer_holds_state(c->trainer, number)) continue;
            struct read *read = reads_add(&c->reads, number, item);
            if (!read) return;
            read->envelope.step = c->saving.step;
            read->body.what = MILLRACE__READ__WHAT__STATE;
            read->body.a = item_part(s, item);
            read->body.c = item % segments_of(s);
            c->saving.requested[item] = true;
        }
}

static void saving_begin(struct sim *s) {
    struct coordinator_model *c = s->c;
    if (c->saving.active || clock_ms() < c->saving.again_ms) return;
    memset(&c->saving, 0, sizeof c->saving);
    c->saving.active = true;
    c->saving.step = c->trainer->committed;
    ask_state(s);
}

static void publish(struct sim *s) {
    struct coordinator_model *c = s->c;
    uint8_t digest[XXH128_BYTES];
    state_name(s, digest, c->saving.state);
    if (memcmp(digest, c->trainer->state_digest, XXH128_BYTES) != 0) {
        save_failed(s, false);
        return;
    }
    if (c->saves_to_fail > 0 && chance(s, 50)) {
        c->saves_to_fail--;
        s->faults[FAULT_SAVE]++;
        save_failed(s, chance(s, 50));
        return;
    }
    c->saving.published_ms = clock_ms() + draw_in(s, 0, chance(s, 10) ? 10000 : 100);
    trainer_publishing(c->trainer, c->saving.step);
}

static void published(struct sim *s) {
    struct coordinator_model *c = s->c;
    c->saving.published_ms = 0;
    if (c->saves_to_fail > 0) {
        c->saves_to_fail--;
        s->faults[FAULT_SAVE]++;
        save_failed(s, true);
        return;
    }
    if (!still_up(s)) return;
    uint64_t step = c->saving.step;
    if (!is_true_state(s, c->saving.state, step)) broken(s, "checkpoint of a wrong state of step %llu", (unsigned long long)step);
    s->disk.checkpoint = step;
    memcpy(s->disk.checkpoint_state, c->saving.state, sizeof c->saving.state);
    c->save_open = false;
    saving_end(s);
    if (!still_up(s)) return;
    trainer_saved(c->trainer, step, true, clock_ms());
    act(s);
}

static void state_came(struct sim *s, const struct message *message) {
    struct coordinator_model *c = s->c;
    struct read read;
    if (!reads_take(&c->reads, &read, message->envelope.job)) return;
    size_t item = read.tag, size;
    if (!c->saving.active || read.envelope.step != c->saving.step || c->saving.arrived[item]) return;
    uint8_t *at = item_at(s, c->saving.state, item, &size);
    if (((const Millrace__Data *)message->body)->status != MILLRACE__DATA__STATUS__OK || message->chunk_bytes != size) {
        c->saving.requested[item] = false;
        return;
    }
    memcpy(at, message->chunk, size);
    c->saving.arrived[item] = true;
    for (size_t i = 0; i < items_of(s); i++)
        if (!c->saving.arrived[i]) return;
    publish(s);
}

static void saving_tick(struct sim *s) {
    struct coordinator_model *c = s->c;
    if (c->saving.active && !c->trainer->saving) saving_end(s);
    if (c->saving.published_ms && clock_ms() >= c->saving.published_ms) published(s);
    if (!c->up || c->ended) return;
    if (c->saving.active) ask_state(s);
    else if (c->trainer->saving) saving_begin(s);
    struct read *read;
    while (c->up && (read = reads_due(&c->reads, clock_ms()))) {
        struct envelope envelope = read->envelope;
        envelope.kind = MILLRACE__KIND__READ;
        envelope.job = read->id;
        tell(s, (uint32_t)read->peer, envelope, &read->body.base);
    }
}

/* ---- actions ---- */

static void tell_join(struct sim *s, uint32_t number, uint64_t step) {
    struct trainer *t = s->c->trainer;
    Millrace__Join join = MILLRACE__JOIN__INIT;
    Millrace__Geometry geometry = geometry_of("train");
    char *peers[PEERS_CAP];
    join.step = step;
    join.geometry = &geometry;
    join.peers = peers;
    if (t->has_state_digest) join.digest = (ProtobufCBinaryData){XXH128_BYTES, t->state_digest};
    for (size_t i = 0; i < t->members && join.n_peers < PEERS_CAP; i++) {
        uint32_t other = t->member[i].worker;
        if (t->member[i].state == MEMBER_ABSENT || other == number || !trainer_holds_state(t, other)) continue;
        if (trainer_reaches(t, number, other)) peers[join.n_peers++] = s->c->entry[other].endpoint;
    }
    trace(s, "join %d to step %llu, %zu peers", s->c->entry[number].slot, (unsigned long long)step, join.n_peers);
    s->joins++;
    tell(s, number, (struct envelope){.kind = MILLRACE__KIND__JOIN, .step = step}, &join.base);
}

static void tell_view(struct sim *s, uint64_t step) {
    struct trainer *t = s->c->trainer;
    Millrace__Step view = MILLRACE__STEP__INIT;
    Millrace__Member member[PEERS_CAP], *members[PEERS_CAP];
    uint32_t workers[PEERS_CAP], slices[PEERS_CAP][SLICES_CAP], counted = 0;
    uint64_t all = 0;
    view.members = members;
    for (size_t i = 0; i < t->members; i++) {
        const struct member *m = &t->member[i];
        if (!m->in_view) continue;
        if (view.n_members == PEERS_CAP) {
            broken(s, "a view of more members than workers are there");
            return;
        }
        size_t n = view.n_members++;
        struct entry *e = &s->c->entry[m->worker];
        workers[n] = m->worker;
        millrace__member__init(members[n] = &member[n]);
        member[n].endpoint = e->endpoint;
        member[n].slices = slices[n];
        for (uint32_t slice = 0; slice < s->plan.options.slices; slice++)
            if (slice_in(&m->assigned, slice)) slices[n][member[n].n_slices++] = slice, all |= UINT64_C(1) << slice, counted++;
        if (e->leaving && slice_count(&t->counted) == 0)
            broken(s, "step %llu begins with worker %d, which was asked to leave", (unsigned long long)step, e->slot);
    }
    if (all != (UINT64_C(1) << s->plan.options.slices) - 1) broken(s, "a slice is assigned to nobody");
    if (counted != s->plan.options.slices) broken(s, "a slice is assigned twice");
    trace(s, "view %llu of step %llu, %zu members", (unsigned long long)t->view, (unsigned long long)step, view.n_members);
    for (view.self = 0; view.self < view.n_members; view.self++)
        tell(s, workers[view.self], (struct envelope){.kind = MILLRACE__KIND__STEP, .step = step, .attempt = fence_of(s, t->view)},
             &view.base);
}

static bool due(uint64_t step, uint64_t every, uint64_t last) { return step == last || (every && step % every == 0); }

static void commit(struct sim *s, uint64_t step) {
    struct trainer *t = s->c->trainer;
    struct disk *d = &s->disk;
    const struct trainer_options *o = &s->plan.options;
    unsigned long long n = (unsigned long long)step;
    if (step != d->ledger + 1) broken(s, "step %llu is committed after step %llu", n, (unsigned long long)d->ledger);
    if (step > o->max_steps || s->failure[0]) {
        broken(s, "step %llu is past the last one", n);
        return;
    }
    const struct truth *truth = &s->truth[step];
    if (memcmp(truth->gradient_digest, t->step_gradient, XXH128_BYTES) != 0) broken(s, "step %llu is committed with another gradient", n);
    if (t->step_tokens != truth->tokens) broken(s, "step %llu is committed with %llu tokens", n, (unsigned long long)t->step_tokens);
    if (t->step_loss_sum != truth->loss) broken(s, "step %llu is committed with another loss", n);
    if (t->step_skipped == is_finite_step(s, step)) broken(s, "step %llu is skipped, or should be", n);
    uint64_t before = step - 1;
    if (before && s->c->save_wanted == before && d->checkpoint < before) broken(s, "step %llu came before the save that was asked for", n);
    if (before && due(before, o->save_steps, 0) && d->checkpoint < before)
        broken(s, "step %llu came before the checkpoint that was due", n);
    if (before && o->validation && due(before, o->eval_steps, 0) && d->evaluated < before)
        broken(s, "step %llu came before the evaluation that was due", n);
    if (!still_up(s)) return;
    trace(s, "commit %llu", n);
    d->ledger = step;
    d->committed_once[step] = true;
    s->commits++;
    s->segments += segments_of(s);
    Millrace__Commit body = MILLRACE__COMMIT__INIT;
    body.tokens = t->step_tokens;
    body.skip = t->step_skipped;
    struct envelope envelope = {.kind = MILLRACE__KIND__COMMIT, .step = step, .attempt = fence_of(s, t->step_view)};
    for (size_t i = 0; i < t->members; i++)
        if (t->member[i].state == MEMBER_READY) tell(s, t->member[i].worker, envelope, &body.base);
}

static void finished(struct sim *s) {
    const struct trainer_options *o = &s->plan.options;
    if (s->disk.ledger != o->max_steps || s->disk.checkpoint != o->max_steps) broken(s, "finished without the last checkpoint");
    if (o->validation && s->disk.evaluated != o->max_steps) broken(s, "finished without the last evaluation");
    if (!is_true_state(s, s->disk.checkpoint_state, o->max_steps)) broken(s, "another final state");
    s->c->ended = s->done = true;
}

static void stopped(struct sim *s) {
    s->c->ended = true;
    for (uint32_t i = 0; i < s->c->entries && s->c->up; i++)
        if (s->c->entry[i].state == ENTRY_HERE) tell(s, i, (struct envelope){.kind = MILLRACE__KIND__GOODBYE}, NULL);
    if (s->c->up) coordinator_down(s, draw_in(s, 50, 1000));
    for (int i = 0; i < s->plan.workers; i++) after(s, draw_in(s, 1000, 3000), EVENT_SPAWN, i);
}

/* A worker that the coordinator hears from holds a later state: it should have been asked. */
static void check_needed(struct sim *s, uint64_t step) {
    enum { WORD_MS = 1000 };
    if (s->c->trainer->doubts || s->plan.harsh || s->plan.lossy || s->plan.clocks) return; /* no majority; the word of it may be lost */
    for (uint32_t i = 0; i < s->c->entries; i++) {
        const struct entry *e = &s->c->entry[i];
        const struct process *w = &s->process[e->slot];
        if (e->state != ENTRY_HERE || !w->alive || w->life != e->life || w->bad || w->still_until_ms > s->now_ms) continue;
        if (w->shown_step == UINT64_MAX || w->shown_step <= step || w->shown_step > s->disk.ledger) continue;
        if (s->now_ms < w->shown_ms + WORD_MS) continue;
        broken(s, "rolled back to step %llu, and worker %d holds state %llu", (unsigned long long)step, e->slot,
               (unsigned long long)w->shown_step);
    }
}

static void roll_back(struct sim *s, uint64_t step) {
    trace(s, "roll back to step %llu", (unsigned long long)step);
    if (step < s->disk.checkpoint || step >= s->disk.ledger) broken(s, "rolled back to step %llu", (unsigned long long)step);
    saving_end(s);
    jobs_clear(s);
    if (!still_up(s)) return;
    s->rollbacks++;
    check_needed(s, step);
    if (s->plan.gentle) broken(s, "rolled back to step %llu, although workers were only asked to leave", (unsigned long long)step);
    s->disk.ledger = step;
    if (s->c->save_wanted > step) s->c->save_wanted = 0;
    if (s->disk.evaluated > step) {
        const struct trainer_options *o = &s->plan.options;
        uint64_t evaluated = step; /* the newest one that is left */
        while (evaluated && !due(evaluated, o->eval_steps, o->max_steps)) evaluated--;
        s->disk.evaluated = evaluated;
    }
}

static bool all_leave(const struct sim *s) {
    const struct trainer *t = s->c->trainer;
    bool all = true, some = false;
    for (size_t i = 0; i < t->members; i++) {
        if (t->member[i].state != MEMBER_READY) continue;
        all = all && s->c->entry[t->member[i].worker].leaving;
        some = true;
    }
    return some && all;
}

static void check_save(struct sim *s, uint64_t step) {
    const struct coordinator_model *c = s->c;
    if (c->stopping || due(step, s->plan.options.save_steps, s->plan.options.max_steps) || c->save_open || all_leave(s)) return;
    broken(s, "checkpoint at step %llu, which is not due", (unsigned long long)step);
}

static void evaluate(struct sim *s, uint64_t step) {
    trace(s, "evaluate %llu", (unsigned long long)step);
    if (!s->plan.options.validation || !due(step, s->plan.options.eval_steps, s->plan.options.max_steps))
        broken(s, "evaluation at step %llu, which is not due", (unsigned long long)step);
    jobs_clear(s);
    queue_open(&s->c->queue, EVALUATE_JOBS, ATTEMPTS_MAX);
    s->c->queue_open = true;
    s->c->evaluate_step = step;
}

static void carry_out(struct sim *s, const struct action *action) {
    switch (action->kind) {
    case ACTION_JOIN: tell_join(s, action->worker, action->step); break;
    case ACTION_VIEW: tell_view(s, action->step); break;
    case ACTION_COMMIT: commit(s, action->step); break;
    case ACTION_EVALUATE: evaluate(s, action->step); break;
    case ACTION_SAVE:
        trace(s, "save %llu", (unsigned long long)action->step);
        check_save(s, action->step);
        saving_begin(s);
        break;
    case ACTION_EVICT:
        trace(s, "evict %d", s->c->entry[action->worker].slot);
        s->evictions++;
        break;
    case ACTION_ODD: broken(s, "worker %d has another sum than the others", s->c->entry[action->worker].slot); break;
    case ACTION_DOUBT: trace(s, "doubt about step %llu", (unsigned long long)action->step); break;
    case ACTION_BAR:
        trace(s, "bar %d, because of %d", s->c->entry[action->worker].slot, s->c->entry[action->other].slot);
        s->bars++;
        break;
    case ACTION_ROLLBACK: roll_back(s, action->step); break;
    case ACTION_FINISHED: finished(s); break;
    case ACTION_STOPPED:
        trace(s, "stopped at %llu", (unsigned long long)action->step);
        if (!s->c->stopping || s->disk.checkpoint != s->disk.ledger) broken(s, "stopped without a checkpoint");
        stopped(s);
        break;
    case ACTION_FAILED: broken(s, "failed: %s", s->c->trainer->reason); break;
    }
}

static void act(struct sim *s) {
    struct action action;
    while (s->c->up && !s->c->ended && trainer_action(s->c->trainer, &action)) carry_out(s, &action);
}

#endif
