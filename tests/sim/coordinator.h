/* The coordinator's loop around the real trainer, queue and reads. It is a process like the others, and knows its workers by proto/link.h
 * alone, so that the shipped loop can take its place. */
#ifndef MILLRACE_TESTS_SIM_COORDINATOR_H
#define MILLRACE_TESTS_SIM_COORDINATOR_H

#include "tests/sim/duties.h"

/* ---- who is there ---- */

static bool is_there(const struct entry *e) { return e->state == ENTRY_JOINING || e->state == ENTRY_PROVING || e->state == ENTRY_HERE; }

static int64_t entry_at(const struct sim *s, uint64_t peer) {
    for (size_t i = 0; i < s->c->entries; i++)
        if (s->c->entry[i].peer == peer && is_there(&s->c->entry[i])) return (int64_t)i;
    return -1;
}

static void entry_lost(struct sim *s, uint32_t number) {
    struct coordinator_model *c = s->c;
    struct entry *e = &c->entry[number];
    if (e->state == ENTRY_GONE) return;
    bool was_here = e->state == ENTRY_HERE;
    trace(s, "worker %d is lost", e->slot);
    e->state = ENTRY_GONE;
    e->leases = 0;
    reads_drop_peer(&c->reads, number);
    if (!was_here) return;
    if (c->saving.active) memcpy(c->saving.requested, c->saving.arrived, sizeof c->saving.requested);
    if (c->queue_open) queue_release(&c->queue, number, true, clock_ms());
    trainer_absent(c->trainer, number, clock_ms());
    act(s);
}

static void on_hello(struct sim *s, uint64_t peer, const Millrace__Hello *hello) {
    struct coordinator_model *c = s->c;
    uint32_t number = 0;
    unsigned port = 0;
    while (number < c->entries && strcmp(c->entry[number].worker, hello->worker) != 0) number++;
    if (number < c->entries) entry_lost(s, number);
    if (!c->up || c->ended) return;
    CHECK(number < ENTRIES);
    if (number == c->entries) c->entries++;
    struct entry *e = &c->entry[number];
    *e = (struct entry){.peer = peer, .state = ENTRY_JOINING, .heard_ms = clock_ms(), .claim_step = hello->state_step,
                        .has_claim = hello->state_digest.len == XXH128_BYTES, .slot = place_of(hello->endpoint)};
    CHECK(e->slot >= 0 && sscanf(strrchr(hello->endpoint, ':') + 1, "%u", &port) == 1);
    e->life = port - 1000;
    snprintf(e->worker, sizeof e->worker, "%s", hello->worker);
    snprintf(e->endpoint, sizeof e->endpoint, "%s", hello->endpoint);
    if (e->has_claim) memcpy(e->claim, hello->state_digest.data, XXH128_BYTES);
    Millrace__Welcome welcome = MILLRACE__WELCOME__INIT;
    welcome.config = s->pipeline;
    welcome.generation = s->disk.generation;
    tell(s, number, (struct envelope){.kind = MILLRACE__KIND__WELCOME}, &welcome.base);
}

static void come_in(struct sim *s, uint32_t number, uint64_t step, const uint8_t *digest_or_null) {
    trainer_present(s->c->trainer, number, step, digest_or_null, clock_ms());
    if (s->c->entry[number].leaving) trainer_leaving(s->c->trainer, number, clock_ms());
}

static void on_applied(struct sim *s, uint32_t number, uint64_t step, const Millrace__Applied *applied) {
    struct process *w = &s->process[s->c->entry[number].slot];
    bool same_life = w->life == s->c->entry[number].life;
    if (applied->digest.len == XXH128_BYTES) {
        bool right = step <= s->plan.options.max_steps && memcmp(applied->digest.data, s->truth[step].state_digest, XXH128_BYTES) == 0;
        if (!right && !s->plan.bad_states) broken(s, "worker %d holds a wrong state of step %llu", s->c->entry[number].slot,
                                                  (unsigned long long)step);
        if (right && same_life) w->bad = false;
        if (same_life) w->shown_step = step, w->shown_ms = s->now_ms;
        trainer_applied(s->c->trainer, number, step, applied->digest.data, clock_ms());
        return;
    }
    if (same_life) w->shown_step = UINT64_MAX;
    trainer_absent(s->c->trainer, number, clock_ms());
    come_in(s, number, 0, NULL);
}

static void on_ready(struct sim *s, uint32_t number) {
    struct entry *e = &s->c->entry[number];
    if (e->state != ENTRY_JOINING) return;
    e->state = ENTRY_PROVING;
    tell(s, number, (struct envelope){.kind = MILLRACE__KIND__SELF_TEST}, NULL);
}

static void on_answer(struct sim *s, uint32_t number) {
    struct entry *e = &s->c->entry[number];
    if (e->state != ENTRY_PROVING) return;
    e->state = ENTRY_HERE;
    trace(s, "worker %d is here, with state %lld", e->slot, e->has_claim ? (long long)e->claim_step : -1);
    come_in(s, number, e->claim_step, e->has_claim ? e->claim : NULL);
}

static void on_heartbeat(struct sim *s, uint32_t number, const Millrace__Heartbeat *beat) {
    uint32_t others[TRAINER_UNHEARD_MAX];
    size_t n = 0;
    struct entry *e = &s->c->entry[number];
    if (beat->leaving && !e->leaving) {
        e->leaving = true;
        trace(s, "worker %d wants to leave", e->slot);
        if (e->state == ENTRY_HERE) trainer_leaving(s->c->trainer, number, clock_ms());
    }
    if (e->state != ENTRY_HERE) return;
    for (uint32_t i = 0; i < s->c->entries && n < TRAINER_UNHEARD_MAX; i++)
        for (size_t k = 0; k < beat->n_unheard && s->c->entry[i].state == ENTRY_HERE; k++)
            if (strcmp(beat->unheard[k], s->c->entry[i].endpoint) == 0) {
                others[n++] = i;
                break;
            }
    trainer_unheard(s->c->trainer, number, others, n, clock_ms());
}

/* As coordinator/roster.c has it. */
static bool may_leave(const struct sim *s, uint32_t number) {
    const struct entry *e = &s->c->entry[number];
    const struct trainer *t = s->c->trainer;
    if (e->leases) return false;
    bool asked = e->state == ENTRY_HERE || !e->has_claim || e->claim_step <= t->checkpoint;
    return (asked || !trainer_unsaved(t)) && trainer_may_leave(t, number);
}

static void send_home(struct sim *s, uint32_t number) {
    const struct member *m = trainer_member(s->c->trainer, number);
    trace(s, "worker %d may leave", s->c->entry[number].slot);
    if (m && m->in_view && s->c->trainer->view_sent && s->c->trainer->phase == TRAINER_RUN)
        broken(s, "worker %d is let go in the middle of a step", s->c->entry[number].slot);
    if (tell(s, number, (struct envelope){.kind = MILLRACE__KIND__GOODBYE}, NULL)) entry_lost(s, number);
}

static void on_read(struct sim *s, uint32_t number, const struct message *message) {
    const Millrace__Read *read = (const Millrace__Read *)message->body;
    Millrace__Data data = MILLRACE__DATA__INIT;
    uint8_t packed[256], *chunk = packed;
    size_t size = 0;
    struct envelope envelope = message->envelope;
    envelope.kind = MILLRACE__KIND__DATA;
    if (read->what == MILLRACE__READ__WHAT__FRAME)
        size = frame_of(packed, sizeof packed, &data.next_token, is_train(read->split), read->a, read->b);
    if (read->what == MILLRACE__READ__WHAT__STATE && envelope.step == s->c->trainer->checkpoint && envelope.step > 0)
        for (size_t item = 0; item < items_of(s); item++)
            if (item_part(s, item) == read->a && item % segments_of(s) == read->c)
                chunk = item_at(s, s->disk.checkpoint_state, item, &size);
    if (!size) data.status = MILLRACE__DATA__STATUS__STALE;
    tell_with(s, number, envelope, &data.base, chunk, size);
}

static void from_here(struct sim *s, uint32_t number, const struct message *message) {
    struct trainer *t = s->c->trainer;
    const struct envelope *e = &message->envelope;
    bool ours = e->attempt >> 32 == s->disk.generation;
    switch (e->kind) {
    case MILLRACE__KIND__APPLIED: on_applied(s, number, e->step, (const Millrace__Applied *)message->body); break;
    case MILLRACE__KIND__SLICE: {
        const Millrace__Slice *slice = (const Millrace__Slice *)message->body;
        if (ours) trainer_slice(t, number, e->step, slice->slice, slice->loss_sum, slice->tokens, slice->compute_ms, clock_ms());
        break;
    }
    case MILLRACE__KIND__REDUCED: {
        const Millrace__Reduced *reduced = (const Millrace__Reduced *)message->body;
        CHECK(reduced->digest.len == XXH128_BYTES);
        if (ours)
            trainer_reduced(t, number, e->step, e->attempt & UINT32_MAX, reduced->digest.data, reduced->square_sum, reduced->finite,
                            clock_ms());
        break;
    }
    case MILLRACE__KIND__DONE:
    case MILLRACE__KIND__FAILED: job_result(s, number, message); break;
    case MILLRACE__KIND__DATA: state_came(s, message); break;
    default: break;
    }
}

static void coordinator_receive(struct sim *s, uint64_t peer, const struct message *message) {
    struct coordinator_model *c = s->c;
    uint32_t kind = message->envelope.kind;
    if (kind == MILLRACE__KIND__HELLO) {
        on_hello(s, peer, (const Millrace__Hello *)message->body);
        return;
    }
    int64_t found = entry_at(s, peer);
    if (found < 0) {
        if (kind != MILLRACE__KIND__GOODBYE) ask_who(s, peer);
        return;
    }
    uint32_t number = (uint32_t)found;
    struct entry *e = &c->entry[number];
    bool counts = session_counts(kind);
    e->heard_ms = clock_ms();
    enum session_news news = !counts && kind != MILLRACE__KIND__HEARTBEAT
                                 ? SESSION_NEXT : session_take(&e->session, counts, message->envelope.sequence);
    if (news == SESSION_GAP) {
        trace(s, "a message of worker %d is missing", e->slot);
        entry_lost(s, number);
        if (c->up) ask_who(s, peer);
    }
    if (news != SESSION_NEXT || !c->up) return;
    if (kind == MILLRACE__KIND__READY) on_ready(s, number);
    if (kind == MILLRACE__KIND__SELF_TEST_RESULT) on_answer(s, number);
    if (kind == MILLRACE__KIND__HEARTBEAT) on_heartbeat(s, number, (const Millrace__Heartbeat *)message->body);
    if (kind == MILLRACE__KIND__GOODBYE) entry_lost(s, number);
    if (c->up && kind == MILLRACE__KIND__READ && e->state != ENTRY_JOINING) on_read(s, number, message); /* also while it proves */
    if (c->up && e->state == ENTRY_HERE) from_here(s, number, message);
    act(s);
}

/* ---- its life ---- */

static void look_at_stop(struct sim *s) {
    struct coordinator_model *c = s->c;
    if (!c->stopping) return;
    bool nothing_to_save = c->trainer->phase != TRAINER_RUN || c->trainer->committed == c->trainer->checkpoint;
    if (!nothing_to_save && clock_ms() < c->stop_at_ms) return;
    trace(s, "stopped");
    stopped(s);
}

static void coordinator_tick(struct sim *s) {
    struct coordinator_model *c = s->c;
    look_at_stop(s);
    for (uint32_t i = 0; i < c->entries && c->up && !c->ended; i++) {
        const struct entry *e = &c->entry[i];
        if (!is_there(e)) continue;
        if (e->unreachable || clock_ms() - e->heard_ms > SILENT_MS) entry_lost(s, i);
        else if (e->leaving && may_leave(s, i)) send_home(s, i);
    }
    for (uint32_t i = 0; i < c->entries && clock_ms() - c->heartbeat_ms >= HEARTBEAT_EVERY_MS && c->up; i++)
        if (is_there(&c->entry[i])) tell(s, i, (struct envelope){.kind = MILLRACE__KIND__HEARTBEAT}, NULL);
    if (clock_ms() - c->heartbeat_ms >= HEARTBEAT_EVERY_MS) c->heartbeat_ms = clock_ms();
    if (!c->up || c->ended) return;
    trainer_tick(c->trainer, clock_ms());
    act(s);
    if (!c->up || c->ended) return;
    if (c->queue_open && !c->trainer->evaluating) jobs_clear(s);
    lease_jobs(s);
    if (c->up && !c->ended) saving_tick(s);
}

static void coordinator_open(struct sim *s) {
    struct coordinator_model *c = s->c;
    struct trainer *trainer = c->trainer;
    const struct trainer_options *o = &s->plan.options;
    memset(c, 0, sizeof *c);
    c->trainer = trainer;
    c->up = true;
    s->disk.generation++;
    s->restarts++;
    CHECK(link_open(&c->link, &(struct link_options){.bind = COORDINATOR_ADDRESS}) == 0);
    trace(s, "coordinator begins: ledger %llu, checkpoint %llu, evaluated %llu", (unsigned long long)s->disk.ledger,
          (unsigned long long)s->disk.checkpoint, (unsigned long long)s->disk.evaluated);
    trainer_open(trainer, o, s->disk.ledger, s->disk.checkpoint, s->disk.evaluated);
    if (s->disk.checkpoint >= o->max_steps && (s->disk.evaluated >= o->max_steps || !o->validation)) finished(s);
}

/* The process: as coordinator_run() is, a loop around a link. */
static void *coordinator_main(void *arg) {
    struct sim *s = world;
    struct coordinator_model *c = s->c;
    struct process *process = arg;
    coordinator_open(s);
    while (c->up && !c->ended && !process->dying) {
        uint64_t peer;
        struct message message;
        if (link_receive(c->link, &peer, &message, TICK_MS) == 1) {
            coordinator_receive(s, peer, &message);
            message_free(&message);
        }
        if (!c->up || c->ended || process->dying || clock_ms() - c->tick_ms < TICK_MS) continue;
        c->tick_ms = clock_ms();
        coordinator_tick(s);
    }
    link_close(c->link);
    c->link = NULL;
    return NULL;
}

static void coordinator_save(struct sim *s) {
    struct trainer *t = s->c->trainer;
    s->c->save_open = trainer_unsaved(t);
    s->c->save_wanted = s->c->save_open ? t->committed : 0;
    s->faults[FAULT_SAVE_ASKED]++;
    trace(s, "save is asked for");
    trainer_save(t, s->now_ms + s->process[COORDINATOR].clock_ms);
}

static void coordinator_stop(struct sim *s) {
    s->faults[FAULT_STOP]++;
    s->c->stopping = true;
    s->c->stop_at_ms = s->now_ms + s->process[COORDINATOR].clock_ms + STOP_MS;
    trace(s, "stop is asked for");
    trainer_stop(s->c->trainer, s->now_ms + s->process[COORDINATOR].clock_ms);
}

#endif
