/* One seed's disaster: a small run, disturbed at random for a while, then left alone. It must then end, with the results of the undisturbed
 * run. Everything is drawn from the seed, so a failure is seen again by running that seed. */
#ifndef MILLRACE_TESTS_SIM_SCENARIO_H
#define MILLRACE_TESTS_SIM_SCENARIO_H

#include "tests/sim/coordinator.h"

static struct sim *sim_open(void) {
    struct sim *s = mem_alloc(sizeof *s);
    s->pool_size = 1 << 16;
    s->pool = mem_alloc(s->pool_size * sizeof *s->pool);
    s->free_events = mem_alloc(s->pool_size * sizeof(struct event *));
    s->heap = mem_alloc(s->pool_size * sizeof(struct event *));
    s->c.trainer = mem_alloc(sizeof *s->c.trainer);
    return s;
}

static void sim_close(struct sim *s) {
    if (s->c.queue_open) queue_close(&s->c.queue);
    free(s->pool);
    free(s->free_events);
    free(s->heap);
    free(s->c.trainer);
    free(s);
}

static void draw_plan(struct sim *s) {
    static const int64_t gaps_ms[] = {30, 100, 300, 1000, 3000};
    struct plan *p = &s->plan;
    p->options = (struct trainer_options){
        .slices = (uint32_t)draw_in(s, 1, SLICES_CAP),
        .max_steps = (uint64_t)draw_in(s, 1, STEPS_CAP),
        .eval_steps = (uint64_t)draw_in(s, 0, 5),
        .save_steps = (uint64_t)draw_in(s, 0, 5),
        .validation = chance(s, 70),
        .max_bad_steps = 1000,
        .patience_ms = 5000,
    };
    p->workers = (int)draw_in(s, 1, 4);
    p->disturbances = (int)draw_in(s, 0, 15);
    p->gap_ms = gaps_ms[draw_in(s, 0, 4)];
    p->slice_ms = draw_in(s, 2, 60);
    p->delay_ms = draw_in(s, 1, 20);
    p->harsh = chance(s, 20);
    p->lossy = !p->harsh && chance(s, 25);
    p->bad_states = !p->harsh && !p->lossy && chance(s, 30);
    p->not_finite = chance(s, 20);
    p->stops = chance(s, 20);
    p->walled = !p->bad_states && chance(s, 20);
    p->wall_both = chance(s, 50);
    p->wall_from = (int)draw_in(s, 0, 3); /* where the first workers are */
    p->wall_to = (p->wall_from + (int)draw_in(s, 1, 3)) % 4;
    p->leaves = chance(s, 40);
    p->gentle = p->leaves && chance(s, 30);
    if (p->gentle) p->harsh = p->lossy = p->bad_states = p->walled = false;
    if (p->bad_states && p->gap_ms < 300) p->gap_ms = 300; /* a worker's memory goes bad while nothing else is wrong */
}

static void sim_reset(struct sim *s, uint64_t seed) {
    struct sim fresh = {.seed = seed, .defect = s->defect, .trace = s->trace, .pool = s->pool, .free_events = s->free_events,
                        .heap = s->heap, .pool_size = s->pool_size};
    if (s->c.queue_open) queue_close(&s->c.queue);
    fresh.c.trainer = s->c.trainer;
    *s = fresh;
    for (size_t i = 0; i < s->pool_size; i++) s->free_events[i] = &s->pool[s->pool_size - 1 - i];
    s->free_count = s->pool_size;
    draw_plan(s);
    undisturbed(s);
}

/* ---- disturbances ---- */

static int some_worker(struct sim *s, bool alive) {
    int slot = (int)draw_in(s, 0, SLOTS - 1);
    for (int i = 0; i < SLOTS; i++, slot = (slot + 1) % SLOTS)
        if (s->worker[slot].alive == alive) return slot;
    return -1;
}

static size_t count_alive(const struct sim *s) {
    size_t n = 0;
    for (int i = 0; i < SLOTS; i++) n += s->worker[i].alive;
    return n;
}

/* Bad memory shows while the coordinator hears from all members: two faults at once can hide each other. */
static bool suspects(const struct sim *s) {
    for (int i = 0; i < SLOTS; i++)
        if (s->worker[i].alive && (s->worker[i].bad || s->worker[i].spoil)) return true;
    return false;
}

static void spoil_state(struct sim *s) {
    struct coordinator_model *c = &s->c;
    size_t ready = 0;
    if (!s->plan.bad_states || !c->up || c->ended || c->crash_in || c->stopping || c->trainer->phase != TRAINER_RUN) return;
    if (c->trainer->committed + 1 >= s->plan.options.max_steps) return;
    for (size_t i = 0; i < c->trainer->doubts; i++) /* to differ about the same step again ends a run */
        if (c->trainer->doubted[i] == c->trainer->committed + 1) return;
    for (size_t i = 0; i < c->trainer->members; i++) {
        const struct member *m = &c->trainer->member[i];
        const struct entry *e = &c->entry[m->worker];
        if (m->state == MEMBER_ABSENT) continue;
        if (!s->worker[e->slot].alive || s->worker[e->slot].life != e->life) return;
        if (s->worker[e->slot].leaving) return; /* who is left alone has nobody to differ with */
        if (e->connection != line_between(s, COORDINATOR, e->slot)->connection) return;
        ready += m->state == MEMBER_READY;
    }
    for (int i = 0; i <= SLOTS; i++)
        for (int k = i + 1; k <= SLOTS; k++)
            if (s->line[i][k].down_until_ms > s->now_ms) return;
    for (int i = 0; i < SLOTS; i++)
        if (s->worker[i].paused_until_ms && s->now_ms < s->worker[i].paused_until_ms + LEASE_MS) return;
    int slot = some_worker(s, true);
    if (slot < 0 || ready < 2) return;
    for (size_t i = 0; i < c->entries; i++)
        if (c->entry[i].slot == slot && c->entry[i].life == s->worker[slot].life && trainer_holds_state(c->trainer, (uint32_t)i)) {
            trace(s, "worker %d will spoil its next state", slot);
            s->worker[slot].spoil = true;
        }
}

static void crash_worker(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    trace(s, "worker %d crashes", slot);
    w->alive = false;
    line_break(s, COORDINATOR, slot, 0);
    if (chance(s, 80)) after(s, draw_in(s, 50, 3000), EVENT_SPAWN, slot);
}

static void pause_worker(struct sim *s, int slot) {
    static const int64_t pauses_ms[] = {30, 300, 2000, 4000, 8000};
    int64_t ms = draw_in(s, 1, pauses_ms[draw_in(s, 0, 4)]);
    trace(s, "worker %d pauses for %lld ms", slot, (long long)ms);
    if (s->worker[slot].paused_until_ms > s->now_ms) return;
    s->worker[slot].paused_until_ms = s->now_ms + ms;
    after(s, ms, EVENT_WAKE, slot);
}

static void disturb(struct sim *s) {
    static const int64_t breaks_ms[] = {0, 100, 1000, 5000};
    int slot = some_worker(s, true);
    int kind = (int)draw_in(s, s->plan.gentle ? 10 : 0, s->plan.bad_states ? 20 : 13);
    if (s->plan.gentle && chance(s, 20)) kind = 3;
    if (suspects(s) && kind != 3) return; /* one thing after the other; joiners may come */
    switch (kind) {
    case 0:
    case 1:
        if (slot >= 0) crash_worker(s, slot);
        break;
    case 2:
        for (int i = 0; i < SLOTS && chance(s, 30); i++)
            if (s->worker[i].alive) crash_worker(s, i);
        break;
    case 3:
        slot = some_worker(s, false);
        if (slot >= 0) after(s, 0, EVENT_SPAWN, slot);
        break;
    case 4:
    case 5:
        if (slot >= 0) pause_worker(s, slot);
        break;
    case 6:
    case 7: {
        int other = chance(s, 70) ? COORDINATOR : (int)draw_in(s, 0, SLOTS - 1);
        int64_t ms = draw_in(s, 0, breaks_ms[draw_in(s, 0, 3)]);
        if (slot < 0 || other == slot) break;
        trace(s, "link %d - %d breaks for %lld ms", slot, other, (long long)ms);
        line_break(s, slot, other, ms);
        break;
    }
    case 8:
        if (s->c.up && !s->c.crash_in) s->c.crash_in = (int)draw_in(s, 1, 12);
        break;
    case 9: s->c.saves_to_fail = (int)draw_in(s, 0, 2); break;
    case 10:
        if (s->plan.stops && s->c.up && !s->c.ended && !s->c.stopping) coordinator_stop(s);
        break;
    case 11:
        if (s->plan.leaves && slot >= 0) worker_leave(s, slot);
        break;
    case 12:
        for (int i = 0; i < SLOTS && s->plan.leaves; i++)
            if (s->worker[i].alive && chance(s, 90)) worker_leave(s, i);
        break;
    case 13:
        if (s->plan.leaves && s->c.up && !s->c.ended) coordinator_save(s);
        break;
    default: spoil_state(s);
    }
}

static void calm_down(struct sim *s) {
    trace(s, "calm");
    s->calm = true;
    s->calm_ms = s->now_ms;
    s->c.saves_to_fail = s->c.crash_in = 0;
    for (int i = 0; i <= SLOTS; i++)
        for (int k = i + 1; k <= SLOTS; k++) s->line[i][k].down_until_ms = 0;
    if (count_alive(s) == 0) after(s, 0, EVENT_SPAWN, 0);
}

/* ---- running ---- */

static void deliver(struct sim *s, const struct event *event) {
    int to = event->to;
    if (event->connection != line_between(s, event->from, to)->connection) return;
    if (event->letter.kind != HEARTBEAT)
        trace(s, "%d -> %d %s step %llu fence %llx%s", event->from, to, kind_names[event->letter.kind],
              (unsigned long long)event->letter.step, (unsigned long long)event->letter.fence, event->letter.has_digest ? " digest" : "");
    if (to == COORDINATOR) {
        if (s->c.up && !s->c.ended && event->life == s->c.life) coordinator_receive(s, event->from, event->connection, &event->letter);
    } else if (event->life == s->worker[to].life && s->worker[to].alive) {
        worker_receive(s, to, event->from, &event->letter);
    }
}

static void handle(struct sim *s, const struct event *event) {
    int to = event->to;
    bool same = to == COORDINATOR ? event->life == s->c.life : event->life == s->worker[to].life;
    switch (event->kind) {
    case EVENT_LETTER: deliver(s, event); break;
    case EVENT_WORK:
        if (same && s->worker[to].alive) worker_done(s, to);
        break;
    case EVENT_HEARTBEAT:
        if (same && s->worker[to].alive) worker_heartbeat(s, to);
        break;
    case EVENT_WAKE:
        if (same) worker_run(s, to);
        break;
    case EVENT_TICK:
        if (same && s->c.up && !s->c.ended) coordinator_tick(s);
        break;
    case EVENT_COORDINATOR:
        if (!s->c.up) coordinator_start(s);
        break;
    case EVENT_SPAWN:
        if (!s->worker[to].alive) worker_spawn(s, to);
        break;
    case EVENT_DISTURB:
        disturb(s);
        if (++s->disturbed < s->plan.disturbances) after(s, draw_in(s, 1, s->plan.gap_ms), EVENT_DISTURB, COORDINATOR);
        else after(s, 0, EVENT_CALM, COORDINATOR);
        break;
    case EVENT_CALM: calm_down(s); break;
    case EVENT_GRACE:
        if (same && s->worker[to].alive) worker_leave_now(s, to);
        break;
    }
    if (s->c.up && !s->c.ended) act(s);
}

/* A stopped process notices what came meanwhile when it goes on, in the order in which it came. */
static bool put_off(struct sim *s, struct event *event) {
    if (event->to >= SLOTS || event->kind == EVENT_SPAWN || event->kind == EVENT_WAKE) return false;
    const struct worker_model *w = &s->worker[event->to];
    if (!w->alive || event->life != w->life || s->now_ms >= w->paused_until_ms) return false;
    event->time_ms = w->paused_until_ms;
    heap_push(s, event);
    return true;
}

/* Runs the seed; false: s->failure says what broke. */
static bool scenario(struct sim *s, uint64_t seed) {
    sim_reset(s, seed);
    trace(s, "%d workers, %u slices, %llu steps, eval %llu, save %llu, validation %d, harsh %d, bad %d", s->plan.workers,
          s->plan.options.slices, (unsigned long long)s->plan.options.max_steps, (unsigned long long)s->plan.options.eval_steps,
          (unsigned long long)s->plan.options.save_steps, s->plan.options.validation, s->plan.harsh, s->plan.bad_states);
    coordinator_start(s);
    for (int i = 0; i < s->plan.workers; i++) after(s, draw_in(s, 0, chance(s, 80) ? 20 : 2000), EVENT_SPAWN, i);
    if (s->plan.disturbances) after(s, draw_in(s, 1, 500), EVENT_DISTURB, COORDINATOR);
    else after(s, 0, EVENT_CALM, COORDINATOR);
    while (!s->done && !s->failure[0]) {
        if (s->heap_count == 0) {
            broken(s, "nothing is going on any more");
            break;
        }
        struct event *event = heap_pop(s);
        s->now_ms = event->time_ms;
        if (put_off(s, event)) continue;
        s->events++;
        handle(s, event);
        s->free_events[s->free_count++] = event;
        if (s->calm && s->now_ms > s->calm_ms + CALM_MS)
            broken(s, "not finished %d s after the last disturbance: at step %llu of %llu", CALM_MS / 1000,
                   (unsigned long long)s->durable.ledger, (unsigned long long)s->plan.options.max_steps);
    }
    return !s->failure[0];
}

#endif
