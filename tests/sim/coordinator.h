/* The coordinator's loop around the real trainer, queue and reads: carries actions out as coordinator/training.c, transfer.c, stages.c and
 * roster.c do, onto a model of the store. Checks everything that the trainer decides. */
#ifndef MILLRACE_TESTS_SIM_COORDINATOR_H
#define MILLRACE_TESTS_SIM_COORDINATOR_H

#include "tests/sim/worker.h"

static void act(struct sim *s);
static void saving_begin(struct sim *s);

static uint64_t fence_of(const struct sim *s, uint64_t low) { return s->durable.generation << 32 | low; }

/* ---- dying ---- */

static void coordinator_down(struct sim *s, int64_t restart_ms) {
    struct coordinator_model *c = &s->c;
    trace(s, "coordinator is gone");
    c->up = false;
    c->life++;
    c->crash_in = 0;
    if (c->queue_open) queue_close(&c->queue);
    c->queue_open = false;
    for (int i = 0; i < SLOTS; i++)
        if (chance(s, 50)) line_break(s, COORDINATOR, i, 0); /* what was under way is lost, or arrives yet */
    after(s, restart_ms, EVENT_COORDINATOR, COORDINATOR);
}

/* Before each write and each send: is this where it dies? */
static bool still_up(struct sim *s) {
    if (!s->c.up) return false;
    if (s->c.crash_in && --s->c.crash_in == 0 && !s->calm) {
        coordinator_down(s, draw_in(s, 50, 4000));
        return false;
    }
    return true;
}

static bool tell(struct sim *s, uint32_t to, const struct letter *letter) {
    struct entry *e = &s->c.entry[to];
    struct letter numbered = *letter;
    if (!still_up(s)) return false;
    letter_number(s, &e->session, &numbered);
    if (e->connection != line_between(s, COORDINATOR, e->slot)->connection || !post(s, COORDINATOR, e->slot, &numbered))
        e->unreachable = e->unreachable || chance(s, 50);
    return true;
}

/* ---- jobs of an evaluation ---- */

static void jobs_clear(struct sim *s) {
    if (!s->c.queue_open) return;
    queue_close(&s->c.queue);
    s->c.queue_open = false;
    for (size_t i = 0; i < s->c.entries; i++) s->c.entry[i].leases = 0;
}

static void lease_jobs(struct sim *s) {
    struct coordinator_model *c = &s->c;
    if (!c->queue_open || c->stopping || c->ended) return;
    for (size_t round = 0; round < 2; round++)
        for (uint32_t i = 0; i < c->entries && c->up && c->queue.pending; i++) {
            struct entry *e = &c->entry[i];
            if (e->state != ENTRY_HERE || e->leaving || e->leases > round || !trainer_holds_state(c->trainer, i)) continue;
            int64_t job = queue_lease(&c->queue, i, s->now_ms);
            e->leases++;
            tell(s, i, &(struct letter){.kind = LEASE, .step = c->evaluate_step, .job = (uint64_t)job,
                                        .fence = fence_of(s, c->queue.job[job].attempt)});
        }
}

static void job_result(struct sim *s, uint32_t number, const struct letter *letter) {
    struct coordinator_model *c = &s->c;
    if (!c->queue_open || letter->fence >> 32 != s->durable.generation ||
        !queue_holds(&c->queue, letter->job, (uint32_t)letter->fence, number))
        return;
    if (c->entry[number].leases) c->entry[number].leases--;
    if (letter->kind == FAILED) {
        queue_fail(&c->queue, letter->job, false, s->now_ms);
        if (c->queue.failed) broken(s, "evaluation of step %llu failed for good", (unsigned long long)c->evaluate_step);
        return;
    }
    const struct sum *state = &s->true_state[c->evaluate_step];
    if (letter->value != mix(state->v[0], state->v[1])) broken(s, "a wrong state was evaluated");
    queue_done(&c->queue, letter->job, s->now_ms);
    if (!queue_finished(&c->queue)) return;
    jobs_clear(s);
    if (!still_up(s)) return;
    s->durable.evaluated = c->evaluate_step;
    trainer_evaluated(c->trainer, c->evaluate_step, s->now_ms);
    act(s);
}

/* ---- checkpoints ---- */

static void saving_end(struct sim *s) {
    struct coordinator_model *c = &s->c;
    int64_t again = c->saving.again_ms;
    if (c->saving.published_ms) broken(s, "a checkpoint that is being published is forgotten");
    memset(&c->saving, 0, sizeof c->saving);
    c->saving.again_ms = again;
    c->reads.count = 0;
}

static void save_failed(struct sim *s, bool tell_trainer) {
    uint64_t step = s->c.saving.step;
    saving_end(s);
    s->c.saving.again_ms = s->now_ms + SAVE_AGAIN_MS;
    if (!tell_trainer) return;
    trainer_saved(s->c.trainer, step, false, s->now_ms);
    act(s);
}

static void ask_state(struct sim *s) {
    struct coordinator_model *c = &s->c;
    for (size_t g = 0; g < SEGMENTS; g++)
        for (uint32_t i = 0; i < c->entries && !c->saving.requested[g]; i++) {
            uint32_t number = (uint32_t)((i + g) % c->entries);
            struct entry *e = &c->entry[number];
            if (e->state != ENTRY_HERE || !trainer_holds_state(c->trainer, number)) continue;
            struct read *read = reads_add(&c->reads, number, g);
            read->envelope.step = c->saving.step;
            c->saving.requested[g] = true;
        }
}

static void saving_begin(struct sim *s) {
    struct coordinator_model *c = &s->c;
    if (c->saving.active || s->now_ms < c->saving.again_ms) return;
    memset(&c->saving, 0, sizeof c->saving);
    c->saving.active = true;
    c->saving.step = c->trainer->committed;
    ask_state(s);
}

static void publish(struct sim *s) {
    struct coordinator_model *c = &s->c;
    uint8_t digest[XXH128_BYTES];
    digest_of(digest, &c->saving.state);
    if (!same_digest(digest, c->trainer->state_digest)) {
        save_failed(s, false);
        return;
    }
    if (c->saves_to_fail > 0 && chance(s, 50)) {
        c->saves_to_fail--;
        save_failed(s, chance(s, 50));
        return;
    }
    c->saving.published_ms = s->now_ms + draw_in(s, 0, chance(s, 10) ? 10000 : 100);
    trainer_publishing(c->trainer, c->saving.step);
}

static void published(struct sim *s) {
    struct coordinator_model *c = &s->c;
    c->saving.published_ms = 0;
    if (c->saves_to_fail > 0) {
        c->saves_to_fail--;
        save_failed(s, true);
        return;
    }
    if (!still_up(s)) return;
    uint64_t step = c->saving.step;
    if (!same_sum(&c->saving.state, &s->true_state[step])) broken(s, "checkpoint of a wrong state of step %llu", (unsigned long long)step);
    s->durable.checkpoint = step;
    s->durable.checkpoint_state = c->saving.state;
    c->save_open = false;
    saving_end(s);
    if (!still_up(s)) return;
    trainer_saved(c->trainer, step, true, s->now_ms);
    act(s);
}

static void coordinator_data(struct sim *s, const struct letter *data) {
    struct coordinator_model *c = &s->c;
    struct read read;
    if (!reads_take(&c->reads, &read, data->job)) return;
    size_t g = read.tag;
    if (!c->saving.active || read.envelope.step != c->saving.step || c->saving.arrived[g]) return;
    if (!data->good) {
        c->saving.requested[g] = false;
        return;
    }
    c->saving.state.v[g] = data->value;
    c->saving.arrived[g] = true;
    for (size_t i = 0; i < SEGMENTS; i++)
        if (!c->saving.arrived[i]) return;
    publish(s);
}

static void transfer_tick(struct sim *s) {
    struct coordinator_model *c = &s->c;
    if (c->saving.active && !c->trainer->saving) saving_end(s);
    if (c->saving.published_ms && s->now_ms >= c->saving.published_ms) published(s);
    if (!c->up || c->ended) return;
    if (c->saving.active) ask_state(s);
    else if (c->trainer->saving) saving_begin(s);
    struct read *read;
    while (c->up && (read = reads_due(&c->reads, s->now_ms + 1))) {
        struct letter letter = {.kind = READ, .step = read->envelope.step, .job = read->id, .what = MILLRACE__READ__WHAT__STATE};
        letter.segment = read->tag;
        tell(s, (uint32_t)read->peer, &letter);
    }
}

/* ---- actions ---- */

static void tell_join(struct sim *s, uint32_t number, uint64_t step) {
    struct trainer *t = s->c.trainer;
    struct letter join = {.kind = JOIN, .step = step, .has_digest = t->has_state_digest};
    if (join.has_digest) memcpy(join.digest, t->state_digest, XXH128_BYTES);
    for (size_t i = 0; i < t->members; i++) {
        uint32_t other = t->member[i].worker;
        if (t->member[i].state == MEMBER_ABSENT || other == number || !trainer_holds_state(t, other)) continue;
        if (!trainer_reaches(t, number, other)) continue;
        join.peer[join.peers++] = (struct peer){s->c.entry[other].slot, s->c.entry[other].life, 0};
    }
    trace(s, "join %d to step %llu, %zu peers", s->c.entry[number].slot, (unsigned long long)step, join.peers);
    tell(s, number, &join);
}

static void tell_view(struct sim *s, uint64_t step) {
    struct trainer *t = s->c.trainer;
    struct letter view = {.kind = STEP, .step = step, .fence = fence_of(s, t->view)};
    uint32_t workers[PEERS_CAP], all = 0;
    for (size_t i = 0; i < t->members; i++) {
        const struct member *m = &t->member[i];
        if (!m->in_view) continue;
        if (view.peers == PEERS_CAP) {
            broken(s, "a view of more members than workers are there");
            return;
        }
        workers[view.peers] = m->worker;
        view.peer[view.peers++] = (struct peer){s->c.entry[m->worker].slot, s->c.entry[m->worker].life, (uint32_t)m->assigned.bits[0]};
        if (all & m->assigned.bits[0]) broken(s, "a slice is assigned twice");
        if (s->c.entry[m->worker].leaving && slice_count(&t->counted) == 0)
            broken(s, "step %llu begins with worker %d, which was asked to leave", (unsigned long long)step, s->c.entry[m->worker].slot);
        all |= (uint32_t)m->assigned.bits[0];
    }
    if (all != (UINT32_C(1) << s->plan.options.slices) - 1) broken(s, "a slice is assigned to nobody");
    trace(s, "view %llu of step %llu, %zu members", (unsigned long long)t->view, (unsigned long long)step, view.peers);
    for (view.self = 0; view.self < view.peers; view.self++) tell(s, workers[view.self], &view);
}

static bool due(uint64_t step, uint64_t every, uint64_t last) { return step == last || (every && step % every == 0); }

static void commit(struct sim *s, uint64_t step) {
    struct trainer *t = s->c.trainer;
    struct durable *d = &s->durable;
    const struct trainer_options *o = &s->plan.options;
    unsigned long long n = (unsigned long long)step;
    uint8_t truth[XXH128_BYTES];
    if (step != d->ledger + 1) broken(s, "step %llu is committed after step %llu", n, (unsigned long long)d->ledger);
    if (step > o->max_steps || s->failure[0]) {
        broken(s, "step %llu is past the last one", n);
        return;
    }
    digest_of(truth, &s->true_gradient[step]);
    if (!same_digest(truth, t->step_gradient)) broken(s, "step %llu is committed with another gradient", n);
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < o->slices; i++) tokens += slice_tokens(i);
    if (t->step_tokens != tokens) broken(s, "step %llu is committed with %llu tokens", n, (unsigned long long)t->step_tokens);
    if (t->step_loss_sum != s->true_loss[step]) broken(s, "step %llu is committed with another loss", n);
    if (t->step_skipped == is_finite_step(s, step)) broken(s, "step %llu is skipped, or should be", n);
    uint64_t before = step - 1;
    if (before && s->c.save_wanted == before && d->checkpoint < before) broken(s, "step %llu came before the save that was asked for", n);
    if (before && due(before, o->save_steps, 0) && d->checkpoint < before)
        broken(s, "step %llu came before the checkpoint that was due", n);
    if (before && o->validation && due(before, o->eval_steps, 0) && d->evaluated < before)
        broken(s, "step %llu came before the evaluation that was due", n);
    if (!still_up(s)) return;
    trace(s, "commit %llu", n);
    d->ledger = step;
    d->committed_once[step] = true;
    s->commits++;
    struct letter letter = {.kind = COMMIT, .step = step, .fence = fence_of(s, t->step_view), .good = t->step_skipped};
    for (size_t i = 0; i < t->members; i++)
        if (t->member[i].state == MEMBER_READY) tell(s, t->member[i].worker, &letter);
}

static void finished(struct sim *s) {
    const struct trainer_options *o = &s->plan.options;
    if (s->durable.ledger != o->max_steps || s->durable.checkpoint != o->max_steps) broken(s, "finished without the last checkpoint");
    if (o->validation && s->durable.evaluated != o->max_steps) broken(s, "finished without the last evaluation");
    if (!same_sum(&s->durable.checkpoint_state, &s->true_state[o->max_steps])) broken(s, "another final state");
    s->c.ended = s->done = true;
}

static void stopped(struct sim *s) {
    s->c.ended = true;
    for (uint32_t i = 0; i < s->c.entries && s->c.up; i++)
        if (s->c.entry[i].state == ENTRY_HERE) tell(s, i, &(struct letter){.kind = GOODBYE});
    if (s->c.up) coordinator_down(s, draw_in(s, 50, 1000));
    for (int i = 0; i < s->plan.workers; i++) after(s, draw_in(s, 1000, 3000), EVENT_SPAWN, i);
}

/* A worker that the coordinator hears from holds a later state: it should have been asked. */
static void check_needed(struct sim *s, uint64_t step) {
    if (s->c.trainer->doubts || s->plan.harsh) return; /* no state had a majority; an old hello came again */
    for (uint32_t i = 0; i < s->c.entries; i++) {
        const struct entry *e = &s->c.entry[i];
        const struct worker_model *w = &s->worker[e->slot];
        if (e->state != ENTRY_HERE || !w->alive || w->life != e->life || w->bad || w->paused_until_ms > s->now_ms) continue;
        if (!w->has_state || w->state_step <= step || w->state_step > s->durable.ledger) continue;
        if (s->now_ms < w->state_since_ms + 1000) continue; /* the word of it may be under way */
        broken(s, "rolled back to step %llu, and worker %d holds state %llu", (unsigned long long)step, e->slot,
               (unsigned long long)w->state_step);
    }
}

static void roll_back(struct sim *s, uint64_t step) {
    trace(s, "roll back to step %llu", (unsigned long long)step);
    if (step < s->durable.checkpoint || step >= s->durable.ledger) broken(s, "rolled back to step %llu", (unsigned long long)step);
    saving_end(s);
    jobs_clear(s);
    if (!still_up(s)) return;
    s->rollbacks++;
    check_needed(s, step);
    if (s->plan.gentle) broken(s, "rolled back to step %llu, although workers were only asked to leave", (unsigned long long)step);
    s->durable.ledger = step;
    if (s->c.save_wanted > step) s->c.save_wanted = 0;
    if (s->durable.evaluated > step) {
        const struct trainer_options *o = &s->plan.options;
        uint64_t evaluated = step; /* the newest one that is left */
        while (evaluated && !due(evaluated, o->eval_steps, o->max_steps)) evaluated--;
        s->durable.evaluated = evaluated;
    }
}

static bool all_leave(const struct sim *s) {
    const struct trainer *t = s->c.trainer;
    bool all = true, some = false;
    for (size_t i = 0; i < t->members; i++) {
        if (t->member[i].state != MEMBER_READY) continue;
        all = all && s->c.entry[t->member[i].worker].leaving;
        some = true;
    }
    return some && all;
}

static void check_save(struct sim *s, uint64_t step) {
    const struct coordinator_model *c = &s->c;
    if (c->stopping || due(step, s->plan.options.save_steps, s->plan.options.max_steps) || c->save_open || all_leave(s)) return;
    broken(s, "checkpoint at step %llu, which is not due", (unsigned long long)step);
}

static void carry_out(struct sim *s, const struct action *action) {
    switch (action->kind) {
    case ACTION_JOIN: tell_join(s, action->worker, action->step); break;
    case ACTION_VIEW: tell_view(s, action->step); break;
    case ACTION_COMMIT: commit(s, action->step); break;
    case ACTION_EVALUATE:
        trace(s, "evaluate %llu", (unsigned long long)action->step);
        if (!s->plan.options.validation || !due(action->step, s->plan.options.eval_steps, s->plan.options.max_steps))
            broken(s, "evaluation at step %llu, which is not due", (unsigned long long)action->step);
        jobs_clear(s);
        queue_open(&s->c.queue, EVALUATE_JOBS, ATTEMPTS_MAX);
        s->c.queue_open = true;
        s->c.evaluate_step = action->step;
        break;
    case ACTION_SAVE:
        trace(s, "save %llu", (unsigned long long)action->step);
        check_save(s, action->step);
        saving_begin(s);
        break;
    case ACTION_EVICT:
        trace(s, "evict %d", s->c.entry[action->worker].slot);
        s->evictions++;
        break;
    case ACTION_ODD: broken(s, "worker %d has another sum than the others", s->c.entry[action->worker].slot); break;
    case ACTION_DOUBT: trace(s, "doubt about step %llu", (unsigned long long)action->step); break;
    case ACTION_BAR:
        trace(s, "bar %d, because of %d", s->c.entry[action->worker].slot, s->c.entry[action->other].slot);
        s->bars++;
        break;
    case ACTION_ROLLBACK: roll_back(s, action->step); break;
    case ACTION_FINISHED: finished(s); break;
    case ACTION_STOPPED:
        trace(s, "stopped at %llu", (unsigned long long)action->step);
        if (!s->c.stopping || s->durable.checkpoint != s->durable.ledger) broken(s, "stopped without a checkpoint");
        stopped(s);
        break;
    case ACTION_FAILED: broken(s, "failed: %s", s->c.trainer->reason); break;
    }
}

static void act(struct sim *s) {
    struct action action;
    while (s->c.up && !s->c.ended && trainer_action(s->c.trainer, &action)) carry_out(s, &action);
}

/* ---- who is there ---- */

static int64_t entry_at(const struct sim *s, int slot, uint32_t connection) {
    for (size_t i = 0; i < s->c.entries; i++) {
        const struct entry *e = &s->c.entry[i];
        if (e->slot == slot && e->connection == connection && (e->state == ENTRY_JOINING || e->state == ENTRY_HERE)) return (int64_t)i;
    }
    return -1;
}

static void entry_lost(struct sim *s, uint32_t number) {
    struct coordinator_model *c = &s->c;
    struct entry *e = &c->entry[number];
    if (e->state == ENTRY_GONE) return;
    bool was_here = e->state == ENTRY_HERE;
    trace(s, "worker %d is lost", e->slot);
    e->state = ENTRY_GONE;
    e->leases = 0;
    reads_drop_peer(&c->reads, number);
    if (!was_here) return;
    if (c->saving.active) memcpy(c->saving.requested, c->saving.arrived, sizeof c->saving.requested);
    if (c->queue_open) queue_release(&c->queue, number, true, s->now_ms);
    trainer_absent(c->trainer, number, s->now_ms);
    act(s);
}

static void on_hello(struct sim *s, int slot, uint32_t connection, const struct letter *hello) {
    struct coordinator_model *c = &s->c;
    uint32_t number = 0, life = s->worker[slot].life;
    while (number < c->entries && (c->entry[number].slot != slot || c->entry[number].life != life)) number++;
    if (number < c->entries) entry_lost(s, number);
    if (!c->up || c->ended) return;
    CHECK(number < ENTRIES);
    if (number == c->entries) c->entries++;
    c->entry[number] = (struct entry){.slot = slot, .life = life, .connection = connection, .state = ENTRY_JOINING, .heard_ms = s->now_ms,
                                      .has_claim = hello->has_digest, .claim_step = hello->step};
    memcpy(c->entry[number].claim, hello->digest, XXH128_BYTES);
    tell(s, number, &(struct letter){.kind = WELCOME});
}

static void come_in(struct sim *s, uint32_t number, uint64_t step, const uint8_t *digest_or_null) {
    trainer_present(s->c.trainer, number, step, digest_or_null, s->now_ms);
    if (s->c.entry[number].leaving) trainer_leaving(s->c.trainer, number, s->now_ms);
}

static void on_applied(struct sim *s, uint32_t number, const struct letter *applied) {
    if (applied->has_digest) {
        trainer_applied(s->c.trainer, number, applied->step, applied->digest, s->now_ms);
    } else {
        trainer_absent(s->c.trainer, number, s->now_ms);
        come_in(s, number, 0, NULL);
    }
}

static void on_answer(struct sim *s, uint32_t number) {
    struct entry *e = &s->c.entry[number];
    if (e->state != ENTRY_JOINING) return;
    e->state = ENTRY_HERE;
    trace(s, "worker %d is here, with state %lld", e->slot, e->has_claim ? (long long)e->claim_step : -1);
    come_in(s, number, e->claim_step, e->has_claim ? e->claim : NULL);
}

static void on_unheard(struct sim *s, uint32_t number, uint32_t places) {
    uint32_t others[TRAINER_UNHEARD_MAX];
    size_t n = 0;
    for (uint32_t i = 0; i < s->c.entries && n < TRAINER_UNHEARD_MAX; i++)
        if (s->c.entry[i].state == ENTRY_HERE && places >> s->c.entry[i].slot & 1) others[n++] = i;
    trainer_unheard(s->c.trainer, number, others, n, s->now_ms);
}

static void on_leaving(struct sim *s, uint32_t number) {
    s->c.entry[number].leaving = true;
    trace(s, "worker %d wants to leave", s->c.entry[number].slot);
    if (s->c.entry[number].state == ENTRY_HERE) trainer_leaving(s->c.trainer, number, s->now_ms);
}

/* As coordinator/roster.c has it. */
static bool may_leave(const struct sim *s, uint32_t number) {
    const struct entry *e = &s->c.entry[number];
    const struct trainer *t = s->c.trainer;
    if (e->leases) return false;
    bool asked = e->state == ENTRY_HERE || !e->has_claim || e->claim_step <= t->checkpoint;
    return (asked || !trainer_unsaved(t)) && trainer_may_leave(t, number);
}

static void send_home(struct sim *s, uint32_t number) {
    const struct member *m = trainer_member(s->c.trainer, number);
    trace(s, "worker %d may leave", s->c.entry[number].slot);
    if (m && m->in_view && s->c.trainer->view_sent && s->c.trainer->phase == TRAINER_RUN)
        broken(s, "worker %d is let go in the middle of a step", s->c.entry[number].slot);
    if (tell(s, number, &(struct letter){.kind = GOODBYE})) entry_lost(s, number);
}

static void serve_checkpoint(struct sim *s, uint32_t number, const struct letter *read) {
    struct letter data = *read;
    data.kind = DATA;
    data.good = read->step == s->c.trainer->checkpoint && read->step > 0 && read->segment < SEGMENTS;
    if (data.good) data.value = s->durable.checkpoint_state.v[data.segment];
    tell(s, number, &data);
}

static void coordinator_receive(struct sim *s, int slot, uint32_t connection, const struct letter *letter) {
    struct coordinator_model *c = &s->c;
    int64_t found = entry_at(s, slot, connection);
    if (letter->kind == HELLO) {
        on_hello(s, slot, connection, letter);
        return;
    }
    if (found < 0) {
        if (letter->kind == HEARTBEAT) post(s, COORDINATOR, slot, &(struct letter){.kind = WHO});
        return;
    }
    uint32_t number = (uint32_t)found;
    c->entry[number].heard_ms = s->now_ms;
    enum session_news news = letter_take(s, &c->entry[number].session, letter);
    if (news == SESSION_GAP) {
        entry_lost(s, number);
        if (c->up) post(s, COORDINATOR, slot, &(struct letter){.kind = WHO});
    }
    if (news != SESSION_NEXT || !c->up) return;
    bool ours = letter->fence >> 32 == s->durable.generation;
    if (letter->kind == ANSWER) on_answer(s, number);
    if (letter->kind == HEARTBEAT && letter->leaving && !c->entry[number].leaving) on_leaving(s, number);
    if (letter->kind == GOODBYE) entry_lost(s, number);
    if (c->entry[number].state != ENTRY_HERE) return;
    switch (letter->kind) {
    case APPLIED: on_applied(s, number, letter); break;
    case SLICE:
        if (ours) trainer_slice(c->trainer, number, letter->step, letter->slice, letter->loss, letter->tokens, 1, s->now_ms);
        break;
    case REDUCED:
        if (ours)
            trainer_reduced(c->trainer, number, letter->step, letter->fence & UINT32_MAX, letter->digest, 1, letter->good, s->now_ms);
        break;
    case DONE:
    case FAILED: job_result(s, number, letter); break;
    case DATA: coordinator_data(s, letter); break;
    case READ: serve_checkpoint(s, number, letter); break;
    case HEARTBEAT: on_unheard(s, number, letter->unheard); break;
    default: break;
    }
    act(s);
}

/* ---- its life ---- */

static void look_at_stop(struct sim *s) {
    struct coordinator_model *c = &s->c;
    if (!c->stopping) return;
    bool nothing_to_save = c->trainer->phase != TRAINER_RUN || c->trainer->committed == c->trainer->checkpoint;
    if (!nothing_to_save && s->now_ms < c->stop_at_ms) return;
    trace(s, "stopped");
    stopped(s);
}

static void coordinator_tick(struct sim *s) {
    struct coordinator_model *c = &s->c;
    look_at_stop(s);
    for (uint32_t i = 0; i < c->entries && c->up && !c->ended; i++) {
        const struct entry *e = &c->entry[i];
        if (e->state != ENTRY_JOINING && e->state != ENTRY_HERE) continue;
        if (e->unreachable || s->now_ms - e->heard_ms > LEASE_MS) entry_lost(s, i);
        else if (e->leaving && may_leave(s, i)) send_home(s, i);
    }
    for (uint32_t i = 0; i < c->entries && s->now_ms - c->heartbeat_ms >= HEARTBEAT_MS && c->up; i++)
        if (c->entry[i].state == ENTRY_JOINING || c->entry[i].state == ENTRY_HERE) tell(s, i, &(struct letter){.kind = HEARTBEAT});
    if (s->now_ms - c->heartbeat_ms >= HEARTBEAT_MS) c->heartbeat_ms = s->now_ms;
    if (!c->up || c->ended) return;
    trainer_tick(c->trainer, s->now_ms);
    act(s);
    if (!c->up || c->ended) return;
    if (c->queue_open && !c->trainer->evaluating) jobs_clear(s);
    lease_jobs(s);
    if (c->up && !c->ended) transfer_tick(s);
    if (c->up && !c->ended) after(s, TICK_MS, EVENT_TICK, COORDINATOR);
}

static void coordinator_start(struct sim *s) {
    struct coordinator_model *c = &s->c;
    struct trainer *trainer = c->trainer;
    uint32_t life = c->life;
    memset(c, 0, sizeof *c);
    c->trainer = trainer;
    c->life = life;
    c->up = true;
    s->durable.generation++;
    s->restarts++;
    trace(s, "coordinator begins: ledger %llu, checkpoint %llu, evaluated %llu", (unsigned long long)s->durable.ledger,
          (unsigned long long)s->durable.checkpoint, (unsigned long long)s->durable.evaluated);
    trainer_open(trainer, &s->plan.options, s->durable.ledger, s->durable.checkpoint, s->durable.evaluated);
    const struct trainer_options *o = &s->plan.options;
    if (s->durable.checkpoint >= o->max_steps && (s->durable.evaluated >= o->max_steps || !o->validation)) {
        finished(s);
        return;
    }
    after(s, TICK_MS, EVENT_TICK, COORDINATOR);
}

static void coordinator_save(struct sim *s) {
    struct trainer *t = s->c.trainer;
    s->c.save_open = trainer_unsaved(t);
    s->c.save_wanted = s->c.save_open ? t->committed : 0;
    s->saves++;
    trace(s, "save is asked for");
    trainer_save(t, s->now_ms);
}

static void coordinator_stop(struct sim *s) {
    s->c.stopping = true;
    s->c.stop_at_ms = s->now_ms + STOP_MS;
    trace(s, "stop is asked for");
    trainer_stop(s->c.trainer, s->now_ms);
}

#endif
