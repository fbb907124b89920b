/* One seed's disaster: a small run, disturbed at random for a while, then left alone. It must then end, with the results of the undisturbed
 * run. Everything is drawn from the seed, so a failure is seen again by running that seed. */
#ifndef MILLRACE_TESTS_SIM_SCENARIO_H
#define MILLRACE_TESTS_SIM_SCENARIO_H

#include <malloc.h>

#include "coordinator/coordinator.h"
#include "tests/sim/disturbances.h"
#include "tests/sim/inputs.h"
#include "workers/worker.h"

/* ---- opening and closing ---- */

static void remove_below(const struct sim *s, const char *name) {
    char *path = mem_format("%s/%s", s->folder, name);
    CHECK(folder_remove(path) == 0);
    free(path);
}

static struct sim *sim_open(void) {
    struct sim *s = mem_alloc(sizeof *s);
    mallopt(M_MMAP_THRESHOLD, 1 << 17); /* what is large and mostly empty costs the pages alone that are touched */
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    s->pool_size = 1 << 15;
    s->pool = mem_alloc(s->pool_size * sizeof *s->pool);
    s->free_events = mem_alloc(s->pool_size * sizeof(struct event *));
    s->heap = mem_alloc(s->pool_size * sizeof(struct event *));
    s->disk = mem_alloc(sizeof *s->disk);
    s->folder = mem_format("%s/millrace-sim-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    CHECK(mkdtemp(s->folder) != NULL);
    make_inputs(s);
    make_folder(s, "temporary");
    make_folder(s, "kept");
    database_begin();
    return s;
}

/* Whatever a run left: processes, messages under way, files. */
static void sim_clear(struct sim *s) {
    for (int i = 0; i < PLACES; i++) process_kill(&s->process[i]);
    for (size_t i = 0; i < s->heap_count; i++)
        if (s->heap[i]->sent) sent_drop(s->heap[i]->sent);
    s->heap_count = 0;
    disk_clear(s);
    remove_below(s, "out");
    remove_below(s, "kept");
    make_folder(s, "kept");
    config_free(&s->config);
    s->config = (struct config){0};
    free(s->pipeline);
    s->pipeline = NULL;
}

static void sim_close(struct sim *s) {
    for (int i = 0; i < PLACES; i++)
        for (int k = 0; k < 2; k++)
            if (s->process[i].part[k].stack) munmap(s->process[i].part[k].stack, STACK_BYTES);
    for (unsigned i = 0; i < VARIANTS; i++) free(s->reference[i].split[0].token), free(s->reference[i].split[1].token);
    forget_tokenizer();
    world = NULL;
    CHECK(folder_remove(s->folder) == 0);
    free(s->folder);
    free(s->pool);
    free(s->free_events);
    free(s->heap);
    free(s->disk);
    free(s);
}

/* ---- what a seed stands for ---- */

static void draw_plan(struct sim *s) {
    static const int64_t gaps_ms[] = {30, 100, 300, 1000, 3000};
    static const char *const optims[] = {"adamw", "adamw", "adam", "sgd"};
    struct plan *p = &s->plan;
    p->options = (struct trainer_options){
        .slices = (uint32_t)draw_in(s, 1, chance(s, 90) ? 12 : SLICES_CAP),
        .max_steps = (uint64_t)draw_in(s, 1, STEPS_CAP),
        .eval_steps = (uint64_t)draw_in(s, 0, 5),
        .save_steps = (uint64_t)draw_in(s, 0, 5),
    };
    p->elements = (size_t)draw_in(s, 1, chance(s, 70) ? ELEMENTS_CAP / 3 : ELEMENTS_CAP);
    p->sequences = (int)draw_in(s, 1, 3);
    p->optim = optims[draw_in(s, 0, sizeof optims / sizeof *optims - 1)];
    p->workers = (int)draw_in(s, 1, 4);
    p->disturbances = (int)draw_in(s, 0, 15);
    p->gap_ms = gaps_ms[draw_in(s, 0, 4)];
    p->slice_ms = draw_in(s, 2, 60);
    if (p->options.slices > 12) p->slice_ms = draw_in(s, 2, 15);
    else if (chance(s, 10)) { /* as a large model's: a slice takes longer than a beat of the heart */
        p->slice_ms = draw_in(s, 300, 1500);
        if (p->options.max_steps > 2) p->options.max_steps = 2;
    }
    p->job_ms = draw_in(s, 1, chance(s, 80) ? 60 : 1500);
    p->delay_ms = draw_in(s, 1, 20);
    p->harsh = chance(s, 20);
    p->lossy = chance(s, 25);
    p->clocks = chance(s, 30);
    p->bad_states = !p->harsh && !p->lossy && !p->clocks && chance(s, 30);
    p->not_finite = chance(s, 20);
    p->stops = chance(s, 20);
    p->walled = !p->bad_states && chance(s, 20);
    if (s->wish == WISH_LOSSY) p->lossy = true, p->bad_states = false;
    if (s->wish == WISH_WALLED) p->walled = true, p->bad_states = false;
    p->wall_both = chance(s, 50);
    int first = p->workers > 1 ? p->workers : 4; /* where they are */
    p->wall_from = (int)draw_in(s, 0, first - 1);
    p->wall_to = (p->wall_from + (int)draw_in(s, 1, first - 1)) % first;
    p->leaves = chance(s, 40);
    p->gentle = p->leaves && chance(s, 30);
    if (s->wish == WISH_GENTLE) p->leaves = p->gentle = true, p->stops = false;
    p->disks = !p->bad_states && chance(s, 30);
    p->damages = !p->bad_states && chance(s, 20);
    p->dataset_alone = chance(s, 15) && s->wish == WISH_NONE;
    p->late = !p->dataset_alone && chance(s, 60);
    p->variant = (unsigned)draw_in(s, 0, VARIANTS - 1);
    p->afar = chance(s, 40) ? (unsigned)draw(s) & ((1 << SLOTS) - 1) : 0;
    if (p->gentle) p->harsh = p->lossy = p->clocks = p->bad_states = p->walled = p->disks = p->damages = false;
    if (p->bad_states && p->gap_ms < 300) p->gap_ms = 300; /* a worker's memory goes bad while nothing else is wrong */
}

static void print_pipeline(struct sim *s) {
    static const char *const packings[] = {"concat", "concat", "pad", "best_fit"};
    const struct plan *p = &s->plan;
    const struct trainer_options *o = &p->options;
    bool average = chance(s, 30), half = chance(s, 30);
    unsigned v = p->variant;
    s->pipeline = mem_format(
        "run_name: sim\noutput_dir: out\n"
        "dataset: {sources: [{path: text-%u-*.jsonl, field: text}], sequence_length: %d, tokenizer: ./tokenizer, validation_fraction: %s,\n"
        "  shard_tokens: %d, packing: %s, deduplicate: %s, shuffle_window: %u}\n"
        "cluster: {threads_per_worker: 1, compression: none, lease_seconds: %d, attempts_max: %d}\n"
        "model: {n_layer: 1, n_head: 1, n_embd: 4, n_positions: %d}\n"
        "training: {global_batch: %u, slices: %u, max_steps: %llu, optim: %s, warmup_steps: 0%s%s,\n"
        "  eval_steps: %llu, save_steps: %llu, save_total_limit: %d, eval_sequences: 9, max_bad_steps: 1000}\n",
        v, SEQUENCE, v % 3 ? "0.3" : "0", v % 2 ? 64 : 1, packings[v / 4 % 4], v % 5 ? "none" : "exact", v % 4, SILENT_MS / 1000,
        p->lossy ? 20 : 3, SEQUENCE, o->slices * (unsigned)p->sequences, o->slices,
        (unsigned long long)o->max_steps, p->optim, average ? ", ema_decay: 0.9" : "", half ? ", optim_state: bf16" : "",
        (unsigned long long)o->eval_steps, (unsigned long long)o->save_steps, (int)draw_in(s, 1, 3));
}

static void parse_pipeline(struct config *out, const struct sim *s) {
    if (config_parse(out, "pipeline", s->pipeline, strlen(s->pipeline), s->folder, NULL, 0) == 0) return;
    fprintf(stderr, "%s\n", err_text());
    abort();
}

static void sim_reset(struct sim *s, uint64_t seed) {
    struct sim *fresh = mem_alloc(sizeof *fresh);
    *fresh = (struct sim){.seed = seed, .now_ms = 1000, .defect = s->defect, .wish = s->wish, .trace = s->trace, .folder = s->folder,
                          .pool = s->pool, .free_events = s->free_events, .heap = s->heap, .pool_size = s->pool_size, .disk = s->disk};
    memcpy(fresh->reference, s->reference, sizeof s->reference);
    for (int i = 0; i < PLACES; i++) {
        fresh->process[i].place = i;
        for (int k = 0; k < 2; k++) fresh->process[i].part[k].stack = s->process[i].part[k].stack;
    }
    *s = *fresh;
    free(fresh);
    for (size_t i = 0; i < s->pool_size; i++) s->free_events[i] = &s->pool[s->pool_size - 1 - i];
    s->free_count = s->pool_size;
    world = s;
    simulation_fiber = FIBER_HERE();
    char *temporary = mem_format("%s/temporary", s->folder);
    setenv("TMPDIR", temporary, 1);
    free(temporary);
}

/* What is computed from the pipeline and the dataset that the undisturbed run makes. */
static void open_truth(struct sim *s) {
    parse_pipeline(&s->config, s);
    s->optimizer = optimizer_of(&s->config);
    s->parts = optimizer_parts(&s->optimizer);
    uint64_t there = s->reference[s->plan.variant].split[1].sequences, most = (uint64_t)s->config.training.eval_sequences;
    s->evaluated_sequences = there < most ? there : most;
    undisturbed(s);
}

/* ---- the coordinator ---- */

static int run_coordinator(const struct sim *s) {
    struct config config;
    parse_pipeline(&config, s);
    struct coordinator_options options = {.config = &config, .bind = s->drawn % 2 ? COORDINATOR_ADDRESS : NULL, .grace_ms = STOP_MS,
                                          .stop_after_dataset = s->plan.dataset_alone};
    int code = coordinator_check_inputs(&config, false);
    if (code == 0) code = coordinator_run(&options);
    config_free(&config);
    return code;
}

static void finish(struct sim *s) {
    s->finished = true;
    s->finished_ms = s->now_ms;
    trace(s, "the run is done");
}

/* It is given the same command again, whatever ended it. What may end it: being asked to, and a disk that fails. */
static void *coordinator_main(void *arg) {
    struct process *p = arg;
    struct sim *s = world;
    s->restarts++;
    s->disk->touched = false;
    trace(s, "coordinator begins, life %u", p->life);
    int code = run_coordinator(s);
    if (p->dying) return NULL;
    trace(s, "coordinator ended: %d %s", code, code < 0 ? err_text() : "");
    bool asked = code == ERR_INTERRUPTED && s->stop_asked, disk = s->disk->touched && err_passes(code);
    if (code < 0 && !asked && !disk) broken(s, "the coordinator ended: %s", err_text());
    s->stop_asked = false;
    if (code == 0) finish(s);
    else after(s, draw_in(s, 50, 1000), EVENT_SPAWN, COORDINATOR);
    return NULL;
}

static void coordinator_is_dead(struct sim *s) {
    process_end(&s->process[COORDINATOR]);
    if (s->crash_is_power) lose_power(s);
    s->crash_is_power = s->stop_asked = false;
    s->crash_in = 0;
    trace(s, "coordinator is dead");
    after(s, draw_in(s, 50, 4000), EVENT_SPAWN, COORDINATOR);
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
    if (!world->finished) after(world, draw_in(world, 500, 3000), EVENT_SPAWN, p->place); /* the same command is given again */
    return NULL;
}

static void spawn(struct sim *s, int place) {
    struct process *p = &s->process[place];
    if (p->alive || s->finished) return;
    if (place != COORDINATOR) trace(s, "%s begins, life %u", place_name(place), p->life + 1);
    process_begin(p, place == COORDINATOR ? coordinator_main : worker_main);
}

/* ---- the events ---- */

static void calm_down(struct sim *s) {
    trace(s, "calm");
    s->calm = true;
    s->calm_ms = s->now_ms;
    s->crash_in = s->disk->failures = 0;
    s->disk->full_until_ms = 0;
    for (int i = 0; i < PLACES; i++)
        for (int k = i + 1; k < PLACES; k++) s->line[i][k].down_until_ms = 0;
    if (count_alive(s) == 0) after(s, 0, EVENT_SPAWN, 0);
}

/* The part of a process that ran just now has ended, or died on its way. */
static void look_after(struct sim *s, struct process *p) {
    if (!p->alive) return;
    if (p->dying && p->place == COORDINATOR) coordinator_is_dead(s);
    else if (p->part[0].state == COROUTINE_ENDED) process_end(p);
}

/* The run is done: who did not hear it is asked to leave, as somebody would who sees that the coordinator is gone. */
static void drain(struct sim *s) {
    for (int i = 0; i < SLOTS; i++)
        if (s->process[i].alive) s->process[i].stops = 1;
}

static void handle(struct sim *s, const struct event *event) {
    switch (event->kind) {
    case EVENT_MESSAGE: deliver(s, event->sent); break;
    case EVENT_RESUME:
        if (event->coroutine->state != COROUTINE_WAITS || event->coroutine->ticket != event->ticket) break;
        resume(event->coroutine);
        look_after(s, event->coroutine->process);
        break;
    case EVENT_SPAWN: spawn(s, event->place); break;
    case EVENT_DISTURB:
        if (s->finished) break;
        if (s->plan.late && s->now_ms < LATE_MS && !(s->c && s->c->trainer)) { /* nothing disturbs the making of the dataset */
            after(s, draw_in(s, 1, 300), EVENT_DISTURB, COORDINATOR);
            break;
        }
        s->plan.late = false;
        disturb(s);
        if (++s->disturbed < s->plan.disturbances) after(s, draw_in(s, 1, s->plan.gap_ms), EVENT_DISTURB, COORDINATOR);
        else after(s, 0, EVENT_CALM, COORDINATOR);
        break;
    case EVENT_CALM: calm_down(s); break;
    case EVENT_DRAIN: drain(s); break;
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

static void look_at_time(struct sim *s) {
    int64_t calm_ms = s->plan.lossy || s->plan.walled ? 3 * CALM_MS : CALM_MS; /* those go on for ever */
    if (!s->finished && s->calm && s->now_ms > s->calm_ms + calm_ms)
        broken(s, "not finished %lld s after the last disturbance: at step %llu of %llu", (long long)calm_ms / 1000,
               (unsigned long long)s->record.ledger, (unsigned long long)s->plan.options.max_steps);
    if (s->finished && s->now_ms > s->finished_ms + GOING_MS) broken(s, "the run is done, and not all of its workers are gone");
}

static bool run_events(struct sim *s) {
    bool drains = false;
    while (!s->failure[0] && !(s->finished && count_alive(s) == 0 && !s->process[COORDINATOR].alive)) {
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
        if (s->finished && !drains) after(s, GOING_MS / 4, EVENT_DRAIN, COORDINATOR);
        drains = s->finished;
        look_at_time(s);
    }
    return !s->failure[0];
}

static bool play(struct sim *s) {
    const struct plan *p = &s->plan;
    spawn(s, COORDINATOR);
    for (int i = 0; i < p->workers; i++) after(s, draw_in(s, 0, chance(s, 80) ? 20 : 2000), EVENT_SPAWN, i);
    if (p->disturbances) after(s, draw_in(s, 1, 500), EVENT_DISTURB, COORDINATOR);
    else after(s, 0, EVENT_CALM, COORDINATOR);
    return run_events(s);
}

/* ---- the dataset of the undisturbed run ---- */

static void make_reference(struct sim *s, unsigned variant) {
    struct reference *r = &s->reference[variant];
    struct manifest manifest;
    bool trace = s->trace;
    enum defect defect = s->defect;
    if (r->made) return;
    s->trace = false, s->defect = DEFECT_NONE;
    sim_reset(s, variant);
    s->plan = (struct plan){.options = {.slices = 1, .max_steps = 1}, .elements = 1, .sequences = 1, .optim = "sgd", .workers = 1,
                            .slice_ms = 1, .job_ms = 1, .delay_ms = 1, .dataset_alone = true, .variant = variant};
    print_pipeline(s);
    char *folder = mem_format("%s/out/dataset", s->folder);
    if (!play(s) || manifest_read(&manifest, folder) < 0) {
        fprintf(stderr, "the undisturbed run over text %u: %s\n", variant, s->failure[0] ? s->failure : err_text());
        abort();
    }
    memcpy(r->digest, manifest.digest, SHA256_BYTES);
    for (int i = 0; i < 2; i++) read_split(s, &r->split[i], &manifest, i);
    manifest_free(&manifest);
    free(folder);
    r->made = true;
    sim_clear(s);
    s->trace = trace, s->defect = defect;
}

/* ---- what is held ---- */

enum { HELD_BYTES = 1 << 20 }; /* what is kept for the next time, and not a leak: make asan finds those to the byte */

struct held {
    size_t bytes; /* of memory */
    int files;    /* that are open */
};

static struct held look_at_held(void) {
    struct mallinfo2 info = mallinfo2();
    struct held held = {.bytes = info.uordblks + info.hblkhd};
    DIR *dir = opendir("/proc/self/fd");
    CHECK(dir != NULL);
    while (readdir(dir)) held.files++;
    closedir(dir);
    return held;
}

/* Runs the seed; false: s->failure says what broke. */
static bool scenario(struct sim *s, uint64_t seed) {
    sim_reset(s, seed);
    draw_plan(s);
    make_reference(s, s->plan.variant);
    sim_reset(s, seed);
    draw_plan(s);
    print_pipeline(s);
    open_truth(s);
    const struct plan *p = &s->plan;
    trace(s, "text %u, %d workers, %u slices, %llu steps, %zu elements in %zu segments, %s, eval %llu, save %llu%s%s%s%s%s%s%s%s",
          p->variant, p->workers, p->options.slices, (unsigned long long)p->options.max_steps, p->elements, segment_count(p->elements),
          p->optim, (unsigned long long)p->options.eval_steps, (unsigned long long)p->options.save_steps, p->harsh ? ", repeats" : "",
          p->lossy ? ", losses" : "", p->walled ? ", a wall" : "", p->clocks ? ", clocks" : "", p->bad_states ? ", bad states" : "",
          p->disks ? ", disks" : "", p->gentle ? ", gentle" : "", p->dataset_alone ? ", the dataset alone" : "");
    struct held before = look_at_held();
    if (play(s)) check_end(s);
    sim_clear(s);
    struct held after_it = look_at_held();
    if (after_it.bytes > before.bytes + HELD_BYTES) broken(s, "%zu bytes of memory stayed in use", after_it.bytes - before.bytes);
    if (after_it.files != before.files) broken(s, "%d files stayed open", after_it.files - before.files);
    return !s->failure[0];
}

#endif
