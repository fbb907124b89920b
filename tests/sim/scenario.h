/* One seed's disaster: a small run, disturbed at random for a while, then left alone. It must then end, with the results of the undisturbed
 * run. Everything is drawn from the seed, so a failure is seen again by running that seed. */
#ifndef MILLRACE_TESTS_SIM_SCENARIO_H
#define MILLRACE_TESTS_SIM_SCENARIO_H

#include "tests/sim/coordinator.h"
#include "workers/worker.h"

static struct sim *sim_open(void) {
    struct sim *s = mem_alloc(sizeof *s);
    s->pool_size = 1 << 15;
    s->pool = mem_alloc(s->pool_size * sizeof *s->pool);
    s->free_events = mem_alloc(s->pool_size * sizeof(struct event *));
    s->heap = mem_alloc(s->pool_size * sizeof(struct event *));
    s->c = mem_alloc(sizeof *s->c);
    s->c->trainer = mem_alloc(sizeof *s->c->trainer);
    return s;
}

/* Whatever a run left: processes, and messages under way. */
static void sim_clear(struct sim *s) {
    for (int i = 0; i < PLACES; i++) process_kill(&s->process[i]);
    for (size_t i = 0; i < s->heap_count; i++)
        if (s->heap[i]->sent) sent_drop(s->heap[i]->sent);
    s->heap_count = 0;
    if (s->c->queue_open) queue_close(&s->c->queue);
    s->c->queue_open = false;
    config_free(&s->config);
    s->config = (struct config){0};
}

static void sim_close(struct sim *s) {
    for (int i = 0; i < PLACES; i++)
        for (int k = 0; k < 2; k++)
            if (s->process[i].part[k].stack) munmap(s->process[i].part[k].stack, STACK_BYTES);
    free(s->pool);
    free(s->free_events);
    free(s->heap);
    free(s->c->trainer);
    free(s->c);
    free(s);
    world = NULL;
}

static void draw_plan(struct sim *s) {
    static const int64_t gaps_ms[] = {30, 100, 300, 1000, 3000};
    static const char *const optims[] = {"adamw", "adamw", "adam", "sgd"};
    struct plan *p = &s->plan;
    p->options = (struct trainer_options){
        .slices = (uint32_t)draw_in(s, 1, chance(s, 90) ? 12 : SLICES_CAP),
        .max_steps = (uint64_t)draw_in(s, 1, STEPS_CAP),
        .eval_steps = (uint64_t)draw_in(s, 0, 5),
        .save_steps = (uint64_t)draw_in(s, 0, 5),
        .validation = chance(s, 70),
        .max_bad_steps = 1000,
        .patience_ms = 5000,
    };
    p->elements = (size_t)draw_in(s, 1, chance(s, 70) ? ELEMENTS_CAP / 3 : ELEMENTS_CAP);
    p->sequences = (int)draw_in(s, 1, 3);
    p->optim = optims[draw_in(s, 0, 3)];
    p->workers = (int)draw_in(s, 1, 4);
    p->disturbances = (int)draw_in(s, 0, 15);
    p->gap_ms = gaps_ms[draw_in(s, 0, 4)];
    p->slice_ms = draw_in(s, 2, 60);
    if (p->options.slices > 12) p->slice_ms = draw_in(s, 2, 15);
    else if (chance(s, 10)) { /* as a large model's: a slice takes longer than a beat of the heart */
        p->slice_ms = draw_in(s, 300, 1500);
        if (p->options.max_steps > 2) p->options.max_steps = 2;
    }
    p->delay_ms = draw_in(s, 1, 20);
    p->harsh = chance(s, 20);
    p->lossy = chance(s, 25);
    p->clocks = chance(s, 30);
    p->bad_states = !p->harsh && !p->lossy && !p->clocks && chance(s, 30);
    p->not_finite = chance(s, 20);
    p->stops = chance(s, 20);
    p->walled = !p->bad_states && chance(s, 20);
    p->wall_both = chance(s, 50);
    int first = p->workers > 1 ? p->workers : 4; /* where they are */
    p->wall_from = (int)draw_in(s, 0, first - 1);
    p->wall_to = (p->wall_from + (int)draw_in(s, 1, first - 1)) % first;
    p->leaves = chance(s, 40);
    p->gentle = p->leaves && chance(s, 30);
    if (p->gentle) p->harsh = p->lossy = p->clocks = p->bad_states = p->walled = false;
    if (p->bad_states && p->gap_ms < 300) p->gap_ms = 300; /* a worker's memory goes bad while nothing else is wrong */
}

static void open_pipeline(struct sim *s) {
    const struct trainer_options *o = &s->plan.options;
    bool average = chance(s, 30), half = chance(s, 30);
    snprintf(s->pipeline, sizeof s->pipeline,
             "run_name: sim\n"
             "dataset: {sources: [{path: /tmp/text.txt}], sequence_length: %d}\n"
             "cluster: {threads_per_worker: 1, compression: none}\n"
             "model: {n_layer: 1, n_head: 1, n_embd: 4, n_positions: %d}\n"
             "training: {global_batch: %u, slices: %u, max_steps: %llu, optim: %s, warmup_steps: 0%s%s}\n",
             SEQUENCE, SEQUENCE, o->slices * (unsigned)s->plan.sequences, o->slices, (unsigned long long)o->max_steps, s->plan.optim,
             average ? ", ema_decay: 0.9" : "", half ? ", optim_state: bf16" : "");
    if (config_parse(&s->config, "pipeline", s->pipeline, strlen(s->pipeline), "/", NULL, 0) < 0) {
        fprintf(stderr, "%s\n", err_text());
        abort();
    }
    s->optimizer = optimizer_of(&s->config);
    s->parts = optimizer_parts(&s->optimizer);
}

static void sim_reset(struct sim *s, uint64_t seed) {
    struct sim *fresh = mem_alloc(sizeof *fresh);
    *fresh = (struct sim){.seed = seed, .now_ms = 1000, .defect = s->defect, .trace = s->trace, .pool = s->pool,
                          .free_events = s->free_events, .heap = s->heap, .pool_size = s->pool_size, .c = s->c};
    for (int i = 0; i < PLACES; i++) {
        fresh->process[i].place = i;
        for (int k = 0; k < 2; k++) fresh->process[i].part[k].stack = s->process[i].part[k].stack;
    }
    *s = *fresh;
    free(fresh);
    for (size_t i = 0; i < s->pool_size; i++) s->free_events[i] = &s->pool[s->pool_size - 1 - i];
    s->free_count = s->pool_size;
    s->c->up = s->c->ended = false;
    s->c->entries = 0;
    world = s;
    simulation_fiber = FIBER_HERE();
    draw_plan(s);
    open_pipeline(s);
    undisturbed(s);
}

/* ---- workers ---- */

static void *worker_main(void *arg) {
    struct process *p = arg;
    struct worker_options options = {.connect = COORDINATOR_ADDRESS, .threads = 1, .stops = &p->stops,
                                     .grace_ms = world->plan.gentle ? CALM_MS : draw_in(world, 10, 20000)};
    int code = worker_run(&options);
    if (p->dying) return NULL;
    trace(world, "%s ended: %d %s", place_name(p->place), code, code < 0 ? err_text() : "");
    if (code != 0 && code != ERR_INTERRUPTED) broken(world, "%s ended: %s", place_name(p->place), code < 0 ? err_text() : "again");
    after(world, draw_in(world, 500, 3000), EVENT_SPAWN, p->place); /* the same command is given again */
    return NULL;
}

static void spawn(struct sim *s, int place) {
    struct process *p = &s->process[place];
    if (p->alive) return;
    if (place != COORDINATOR) trace(s, "%s begins, life %u", place_name(place), p->life + 1);
    process_begin(p, place == COORDINATOR ? coordinator_main : worker_main);
}

/* ---- disturbances ---- */

static int some_worker(struct sim *s, bool alive) {
    int slot = (int)draw_in(s, 0, SLOTS - 1);
    for (int i = 0; i < SLOTS; i++, slot = (slot + 1) % SLOTS)
        if (s->process[slot].alive == alive) return slot;
    return -1;
}

static size_t count_alive(const struct sim *s) {
    size_t n = 0;
    for (int i = 0; i < SLOTS; i++) n += s->process[i].alive;
    return n;
}

/* Bad memory shows while the coordinator hears from all members: two faults at once can hide each other. */
static bool suspects(const struct sim *s) {
    for (int i = 0; i < SLOTS; i++)
        if (s->process[i].alive && (s->process[i].bad || s->process[i].spoil)) return true;
    return false;
}

static void spoil_state(struct sim *s) {
    struct coordinator_model *c = s->c;
    size_t ready = 0;
    if (!s->plan.bad_states || !c->up || c->ended || c->crash_in || c->stopping || c->trainer->phase != TRAINER_RUN) return;
    if (c->trainer->committed + 1 >= s->plan.options.max_steps || !is_finite_step(s, c->trainer->committed + 1)) return;
    for (size_t i = 0; i < c->trainer->doubts; i++) /* to differ about the same step again ends a run */
        if (c->trainer->doubted[i] == c->trainer->committed + 1) return;
    for (size_t i = 0; i < c->trainer->members; i++) {
        const struct member *m = &c->trainer->member[i];
        const struct entry *e = &c->entry[m->worker];
        if (m->state == MEMBER_ABSENT) continue;
        const struct process *w = &s->process[e->slot];
        if (!w->alive || w->life != e->life || w->stops) return; /* who is left alone has nobody to differ with */
        const struct link_peer *peer = peer_find(c->link, e->peer);
        if (!peer || peer->connection != line_between(s, COORDINATOR, e->slot)->connection) return;
        ready += m->state == MEMBER_READY;
    }
    for (int i = 0; i < PLACES; i++)
        for (int k = i + 1; k < PLACES; k++)
            if (s->line[i][k].down_until_ms > s->now_ms) return;
    for (int i = 0; i < PLACES; i++)
        if (s->process[i].still_until_ms && s->now_ms < s->process[i].still_until_ms + SILENT_MS) return;
    int slot = some_worker(s, true);
    if (slot < 0 || ready < 2) return;
    for (size_t i = 0; i < c->entries; i++)
        if (c->entry[i].slot == slot && c->entry[i].life == s->process[slot].life && trainer_holds_state(c->trainer, (uint32_t)i)) {
            trace(s, "worker %d will spoil its next state", slot);
            s->process[slot].spoil = true;
        }
}

static void crash_worker(struct sim *s, int slot) {
    trace(s, "worker %d crashes", slot);
    s->faults[FAULT_CRASH]++;
    process_kill(&s->process[slot]);
    line_break(s, COORDINATOR, slot, 0);
    if (chance(s, 80)) after(s, draw_in(s, 50, 3000), EVENT_SPAWN, slot);
}

/* What came meanwhile it finds when it goes on. */
static void stand_still(struct sim *s, int place) {
    static const int64_t pauses_ms[] = {30, 300, 2000, 4000, 8000};
    int64_t ms = draw_in(s, 1, pauses_ms[draw_in(s, 0, 4)]);
    if (s->process[place].still_until_ms > s->now_ms) return;
    trace(s, "%s stands still for %lld ms", place_name(place), (long long)ms);
    s->faults[FAULT_PAUSE]++;
    s->process[place].still_until_ms = s->now_ms + ms;
}

static void break_line(struct sim *s, int slot) {
    static const int64_t breaks_ms[] = {0, 100, 1000, 5000};
    int other = chance(s, 70) ? COORDINATOR : (int)draw_in(s, 0, SLOTS - 1);
    int64_t ms = draw_in(s, 0, breaks_ms[draw_in(s, 0, 3)]);
    if (other == slot) return;
    trace(s, "connection %d - %d breaks for %lld ms", slot, other, (long long)ms);
    s->faults[FAULT_BREAK]++;
    line_break(s, slot, other, ms);
}

static void split_network(struct sim *s) {
    uint64_t side = draw(s);
    int64_t ms = draw_in(s, 500, 12000);
    trace(s, "the network is split for %lld ms, sides %llx", (long long)ms, (unsigned long long)(side % (1 << PLACES)));
    s->faults[FAULT_PARTITION]++;
    for (int i = 0; i < PLACES; i++)
        for (int k = i + 1; k < PLACES; k++)
            if ((side >> i & 1) != (side >> k & 1)) line_break(s, i, k, ms);
}

static void ask_to_leave(struct sim *s, int slot) {
    struct process *p = &s->process[slot];
    if (p->stops) return;
    trace(s, "worker %d is asked to leave", slot);
    s->faults[FAULT_LEAVE]++;
    p->stops = s->defect == DEFECT_HASTY ? 2 : 1;
}

static void jump_clock(struct sim *s) {
    int place = (int)draw_in(s, 0, PLACES - 1);
    int64_t ms = draw_in(s, 100, 20000);
    if (!s->plan.clocks) return;
    trace(s, "the clock of %s jumps by %lld ms", place_name(place), (long long)ms);
    s->faults[FAULT_CLOCK]++;
    s->process[place].clock_ms += ms;
}

static void disturb(struct sim *s) {
    int slot = some_worker(s, true);
    int kind = (int)draw_in(s, s->plan.gentle ? 12 : 0, s->plan.bad_states ? 22 : 15);
    if (s->plan.gentle && chance(s, 20)) kind = 3;
    if (suspects(s) && kind != 3) return; /* one thing after the other; joiners may come */
    switch (kind) {
    case 0:
    case 1:
        if (slot >= 0) crash_worker(s, slot);
        break;
    case 2:
        for (int i = 0; i < SLOTS && chance(s, 30); i++)
            if (s->process[i].alive) crash_worker(s, i);
        break;
    case 3:
        slot = some_worker(s, false);
        if (slot >= 0) after(s, 0, EVENT_SPAWN, slot);
        break;
    case 4:
    case 5: stand_still(s, slot >= 0 && chance(s, 90) ? slot : COORDINATOR); break;
    case 6:
    case 7:
        if (slot >= 0) break_line(s, slot);
        break;
    case 8:
        if (s->c->up && !s->c->crash_in) s->c->crash_in = (int)draw_in(s, 1, 12);
        break;
    case 9: s->c->saves_to_fail = (int)draw_in(s, 0, 2); break;
    case 10: jump_clock(s); break;
    case 11:
        if (chance(s, 50)) split_network(s);
        break;
    case 12:
        if (s->plan.stops && s->c->up && !s->c->ended && !s->c->stopping) coordinator_stop(s);
        break;
    case 13:
        if (s->plan.leaves && slot >= 0) ask_to_leave(s, slot);
        break;
    case 14:
        for (int i = 0; i < SLOTS && s->plan.leaves; i++)
            if (s->process[i].alive && chance(s, 90)) ask_to_leave(s, i);
        break;
    case 15:
        if (s->plan.leaves && s->c->up && !s->c->ended) coordinator_save(s);
        break;
    default: spoil_state(s);
    }
}

static void calm_down(struct sim *s) {
    trace(s, "calm");
    s->calm = true;
    s->calm_ms = s->now_ms;
    s->c->saves_to_fail = s->c->crash_in = 0;
    for (int i = 0; i < PLACES; i++)
        for (int k = i + 1; k < PLACES; k++) s->line[i][k].down_until_ms = 0;
    if (count_alive(s) == 0) after(s, 0, EVENT_SPAWN, 0);
}

/* ---- running ---- */

static void handle(struct sim *s, const struct event *event) {
    switch (event->kind) {
    case EVENT_MESSAGE: deliver(s, event->sent); break;
    case EVENT_RESUME:
        if (event->coroutine->state == COROUTINE_WAITS && event->coroutine->ticket == event->ticket) {
            resume(event->coroutine);
            if (s->process[event->place].part[0].state == COROUTINE_ENDED) s->process[event->place].alive = false;
        }
        break;
    case EVENT_SPAWN: spawn(s, event->place); break;
    case EVENT_DISTURB:
        disturb(s);
        if (++s->disturbed < s->plan.disturbances) after(s, draw_in(s, 1, s->plan.gap_ms), EVENT_DISTURB, COORDINATOR);
        else after(s, 0, EVENT_CALM, COORDINATOR);
        break;
    case EVENT_CALM: calm_down(s); break;
    }
}

/* Who stands still goes on later. */
static bool put_off(struct sim *s, struct event *event) {
    const struct process *p = &s->process[event->place];
    if (event->kind != EVENT_RESUME || s->now_ms >= p->still_until_ms) return false;
    event->time_ms = p->still_until_ms;
    heap_push(s, event);
    return true;
}

static bool run_events(struct sim *s) {
    while (!s->done && !s->failure[0]) {
        if (s->heap_count == 0) {
            broken(s, "nothing is going on any more");
            break;
        }
        struct event *event = heap_pop(s);
        s->now_ms = event->time_ms;
        if (put_off(s, event)) continue;
        s->events++;
        struct event copy = *event;
        event->sent = NULL;
        s->free_events[s->free_count++] = event;
        handle(s, &copy);
        int64_t calm_ms = s->plan.lossy || s->plan.walled ? 3 * CALM_MS : CALM_MS; /* those go on for ever */
        if (s->calm && s->now_ms > s->calm_ms + calm_ms)
            broken(s, "not finished %lld s after the last disturbance: at step %llu of %llu", (long long)calm_ms / 1000,
                   (unsigned long long)s->disk.ledger, (unsigned long long)s->plan.options.max_steps);
    }
    return !s->failure[0];
}

/* Runs the seed; false: s->failure says what broke. */
static bool scenario(struct sim *s, uint64_t seed) {
    sim_reset(s, seed);
    const struct plan *p = &s->plan;
    trace(s, "%d workers, %u slices, %llu steps, %zu elements in %zu segments, %s, eval %llu, save %llu, validation %d%s%s%s%s%s%s",
          p->workers, p->options.slices, (unsigned long long)p->options.max_steps, p->elements, segment_count(p->elements), p->optim,
          (unsigned long long)p->options.eval_steps, (unsigned long long)p->options.save_steps, p->options.validation,
          p->harsh ? ", repeats" : "", p->lossy ? ", losses" : "", p->walled ? ", a wall" : "", p->clocks ? ", clocks" : "",
          p->bad_states ? ", bad states" : "", p->gentle ? ", gentle" : "");
    spawn(s, COORDINATOR);
    for (int i = 0; i < p->workers; i++) after(s, draw_in(s, 0, chance(s, 80) ? 20 : 2000), EVENT_SPAWN, i);
    if (p->disturbances) after(s, draw_in(s, 1, 500), EVENT_DISTURB, COORDINATOR);
    else after(s, 0, EVENT_CALM, COORDINATOR);
    bool fine = run_events(s);
    sim_clear(s);
    return fine;
}

#endif
