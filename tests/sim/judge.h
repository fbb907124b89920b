/* Looks over the coordinator's shoulder: sees what is decided, recorded and published, and says what must never be. It changes nothing. The
 * linker puts the functions named __wrap_ between the coordinator's files. */
#ifndef MILLRACE_TESTS_SIM_JUDGE_H
#define MILLRACE_TESTS_SIM_JUDGE_H

#include "coordinator/parts.h"
#include "coordinator/roster.h"
#include "coordinator/store.h"
#include "coordinator/training.h"
#include "model/checkpoint/checkpoint.h"
#include "tests/sim/arithmetic.h"
#include "tests/sim/disk.h"
#include "tests/sim/network.h"

static bool due(uint64_t step, uint64_t every, uint64_t last) { return step == last || (every && step % every == 0); }

static bool has_validation(const struct sim *s) { return s->evaluated_sequences > 0; }

/* The process that the coordinator knows by that number, if it still lives; NULL: not. */
static struct process *process_of(struct sim *s, uint32_t worker) {
    const struct worker_entry *w = &s->c->worker[worker];
    int place = place_of(w->endpoint);
    struct process *p = place < 0 ? NULL : &s->process[place];
    return p && p->alive && p->life == life_of(w->endpoint) ? p : NULL;
}

static int place_of_worker(const struct sim *s, uint32_t worker) { return place_of(s->c->worker[worker].endpoint); }

static bool same_number(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

/* ---- its life ---- */

void __real_parts_open(struct context *c);
void __wrap_parts_open(struct context *c);
void __wrap_parts_open(struct context *c) {
    if (world) world->c = c;
    __real_parts_open(c);
}

void __real_parts_close(struct context *c);
void __wrap_parts_close(struct context *c);
void __wrap_parts_close(struct context *c) {
    if (world) world->c = NULL;
    __real_parts_close(c);
}

/* What was told to others before it died it knows again. */
void __real_trainer_open(struct trainer *t, const struct trainer_options *options, uint64_t ledger, uint64_t checkpoint,
                         uint64_t evaluated);
void __wrap_trainer_open(struct trainer *t, const struct trainer_options *options, uint64_t ledger, uint64_t checkpoint,
                         uint64_t evaluated);
void __wrap_trainer_open(struct trainer *t, const struct trainer_options *options, uint64_t ledger, uint64_t checkpoint,
                         uint64_t evaluated) {
    struct sim *s = world;
    struct record *r = &s->record;
    unsigned long long was = (unsigned long long)r->ledger, is = (unsigned long long)ledger;
    trace(s, "training goes on: ledger %llu, checkpoint %llu, evaluated %llu", is, (unsigned long long)checkpoint,
          (unsigned long long)evaluated);
    if (ledger < r->ledger) broken(s, "step %llu was committed, and the ledger ends at %llu", was, is);
    if (ledger > r->ledger_most) broken(s, "the ledger ends at %llu, and step %llu was the last to be committed", is, was);
    if (checkpoint < r->checkpoint) broken(s, "a checkpoint of step %llu was published, and %llu is the newest",
                                           (unsigned long long)r->checkpoint, (unsigned long long)checkpoint);
    if (evaluated < r->evaluated) broken(s, "step %llu was evaluated, and %llu is the newest that was",
                                         (unsigned long long)r->evaluated, (unsigned long long)evaluated);
    if (checkpoint > ledger)
        broken(s, "there is a checkpoint of step %llu, and the ledger ends at %llu", (unsigned long long)checkpoint, is);
    if (ledger > s->plan.options.max_steps) broken(s, "step %llu is past the last one", is);
    else r->committed_once[ledger] = true;
    r->save_wanted = 0, r->save_open = false; /* whoever asked for a save asked the process before this one */
    r->ledger = r->ledger_most = ledger, r->checkpoint = checkpoint, r->evaluated = evaluated;
    __real_trainer_open(t, options, ledger, checkpoint, evaluated);
}

/* ---- the ledger ---- */

static void check_commit(struct sim *s, const struct step_row *row) {
    const struct trainer *t = s->c->trainer;
    const struct record *r = &s->record;
    const struct plan *p = &s->plan;
    unsigned long long n = (unsigned long long)row->step;
    if (row->step != r->ledger + 1) broken(s, "step %llu is committed after step %llu", n, (unsigned long long)r->ledger);
    if (row->step > p->options.max_steps || s->failure[0]) {
        broken(s, "step %llu is past the last one", n);
        return;
    }
    const struct truth *truth = &s->truth[row->step];
    if (memcmp(truth->gradient_digest, row->gradient, XXH128_BYTES) != 0) broken(s, "step %llu is committed with another gradient", n);
    if (row->tokens != truth->tokens) broken(s, "step %llu is committed with %llu tokens", n, (unsigned long long)row->tokens);
    if (!same_number(row->loss, truth->loss / (double)truth->tokens)) broken(s, "step %llu is committed with another loss", n);
    if (row->skipped != is_skipped(s, row->step)) broken(s, "step %llu is skipped, or should be", n);
    uint64_t before = row->step - 1;
    bool given_up = t->save_skipped == before;
    if (before && r->save_wanted == before && r->checkpoint < before && !given_up)
        broken(s, "step %llu came before the save that was asked for", n);
    if (before && due(before, p->options.save_steps, 0) && r->checkpoint < before && !given_up)
        broken(s, "step %llu came before the checkpoint that was due", n);
    if (before && has_validation(s) && due(before, p->options.eval_steps, 0) && r->evaluated < before)
        broken(s, "step %llu came before the evaluation that was due", n);
}

int __real_store_step_add(struct store *store, const struct step_row *row);
int __wrap_store_step_add(struct store *store, const struct step_row *row);
int __wrap_store_step_add(struct store *store, const struct step_row *row) {
    struct sim *s = world;
    if (!on_disk() || running->process->dying) return __real_store_step_add(store, row);
    check_commit(s, row);
    s->record.ledger_most = row->step;
    int code = __real_store_step_add(store, row);
    if (code < 0 || running->process->dying) return code;
    s->record.ledger = row->step;
    if (row->step <= STEPS_CAP) s->record.committed_once[row->step] = true;
    s->commits++;
    s->segments += segment_count(s->plan.elements);
    s->digest = mix(s->digest, row->step);
    trace(s, "commit %llu", (unsigned long long)row->step);
    return code;
}

int __real_store_evaluation_add(struct store *store, const struct evaluation_row *row);
int __wrap_store_evaluation_add(struct store *store, const struct evaluation_row *row);
int __wrap_store_evaluation_add(struct store *store, const struct evaluation_row *row) {
    struct sim *s = world;
    if (!on_disk() || running->process->dying) return __real_store_evaluation_add(store, row);
    if (row->step > s->plan.options.max_steps || !same_number(row->loss, s->truth_evaluation[row->step]))
        broken(s, "the evaluation of step %llu gives another loss", (unsigned long long)row->step);
    int code = __real_store_evaluation_add(store, row);
    if (code == 0 && !running->process->dying) s->record.evaluated = row->step;
    return code;
}

/* A worker that the coordinator hears from holds a later state: it should have been asked. */
static void check_needed(struct sim *s, uint64_t step) {
    enum { WORD_MS = 1000 };
    const struct plan *p = &s->plan;
    if (s->c->trainer->doubts || p->harsh || p->lossy || p->clocks || p->disks) return; /* no majority; the word of it may be lost */
    for (uint32_t i = 0; i < s->c->workers; i++) {
        const struct worker_entry *e = &s->c->worker[i];
        const struct process *w = process_of(s, i);
        if (!w || !roster_admitted(e) || !e->proved || w->bad || w->still_until_ms > s->now_ms) continue;
        if (w->shown_step == UINT64_MAX || w->shown_step <= step || w->shown_step > s->record.ledger) continue;
        if (s->now_ms < w->shown_ms + WORD_MS) continue;
        broken(s, "rolled back to step %llu, and %s holds state %llu", (unsigned long long)step, place_name(w->place),
               (unsigned long long)w->shown_step);
    }
}

/* Until the transaction is over it may come to nothing, and then the later rows are there again. */
int __real_store_steps_supersede(struct store *store, uint64_t after_step);
int __wrap_store_steps_supersede(struct store *store, uint64_t after_step);
int __wrap_store_steps_supersede(struct store *store, uint64_t after_step) {
    struct sim *s = world;
    struct record *r = &s->record;
    int code = __real_store_steps_supersede(store, after_step);
    if (!on_disk() || running->process->dying) return code;
    if (after_step < r->checkpoint || after_step > r->ledger) broken(s, "rolled back to step %llu", (unsigned long long)after_step);
    r->ledger = after_step;
    if (r->save_wanted > after_step) r->save_wanted = 0;
    if (r->evaluated > after_step) {
        const struct trainer_options *o = &s->plan.options;
        uint64_t evaluated = after_step; /* the newest one that is left */
        while (evaluated && !due(evaluated, o->eval_steps, o->max_steps)) evaluated--;
        r->evaluated = evaluated;
    }
    return code;
}

int __real_store_commit(struct store *store);
int __wrap_store_commit(struct store *store);
int __wrap_store_commit(struct store *store) {
    int code = __real_store_commit(store);
    if (code < 0 || !on_disk() || running->process->dying) return code;
    if (world->c && world->c->trainer) world->record.ledger_most = world->record.ledger;
    return code;
}

static void check_roll_back(struct sim *s, uint64_t step) {
    trace(s, "roll back to step %llu", (unsigned long long)step);
    s->rollbacks++;
    check_needed(s, step);
    if (s->plan.gentle) broken(s, "rolled back to step %llu, although workers were only asked to leave", (unsigned long long)step);
}

/* ---- what is noted ---- */

/* May this happen in such a run? Nobody lies here, and what is synced is kept: so nothing but what this seed does may be called damaged. */
static bool may_be_noted(const struct sim *s, const char *kind, const char *text) {
    static const char *const never[] = {"records-damaged", "records-begun", "ledger-repaired", "sources-changed", "runs-gone",
                                        "dataset-changed", "dataset-outdated", "manifest-damaged", "length-changed", "pipeline-changed",
                                        "worker-refused", "no-source"};
    const struct plan *p = &s->plan;
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (strcmp(kind, never[i]) == 0) return false;
    if (strcmp(kind, "shard-repaired") == 0) return p->damages;
    if (strcmp(kind, "paused") == 0) return p->disks;
    if (strcmp(kind, "doubt") == 0) return p->bad_states;
    if (strcmp(kind, "worker-set-aside") == 0) return p->bad_states || p->lossy;
    if (strcmp(kind, "checkpoint-failed") == 0) return p->disks || strstr(text, "none of the members gives its state");
    if (strcmp(kind, "job-failed") == 0) return strstr(text, "does not give its output") || strstr(text, "is not here");
    return true;
}

int __real_store_event(struct store *store, const char *kind, const char *text);
int __wrap_store_event(struct store *store, const char *kind, const char *text);
int __wrap_store_event(struct store *store, const char *kind, const char *text) {
    if (on_disk() && !running->process->dying && !may_be_noted(world, kind, text)) broken(world, "%s: %s", kind, text);
    return __real_store_event(store, kind, text);
}

/* ---- checkpoints ---- */

int __real_checkpoint_seal(struct checkpoint_draft *draft, struct checkpoint_facts *state, const struct buf *trainer_json);
int __wrap_checkpoint_seal(struct checkpoint_draft *draft, struct checkpoint_facts *state, const struct buf *trainer_json);
int __wrap_checkpoint_seal(struct checkpoint_draft *draft, struct checkpoint_facts *state, const struct buf *trainer_json) {
    struct sim *s = world;
    int code = __real_checkpoint_seal(draft, state, trainer_json);
    if (code < 0 || !on_disk()) return code;
    s->record.sealed = state->step;
    if (state->step > s->plan.options.max_steps || memcmp(state->state_digest, s->truth[state->step].state_digest, XXH128_BYTES) != 0)
        broken(s, "checkpoint of a wrong state of step %llu", (unsigned long long)state->step);
    return code;
}

int __real_checkpoint_publish(struct checkpoint_draft *draft);
int __wrap_checkpoint_publish(struct checkpoint_draft *draft);
int __wrap_checkpoint_publish(struct checkpoint_draft *draft) {
    struct sim *s = world;
    uint64_t step = s->record.sealed;
    int code = __real_checkpoint_publish(draft);
    if (code < 0 || !on_disk() || running->process->dying) return code;
    trace(s, "the checkpoint of step %llu is published", (unsigned long long)step);
    if (step > s->record.ledger) broken(s, "a checkpoint of step %llu is published, and the ledger ends before", (unsigned long long)step);
    s->record.checkpoint = step;
    s->record.save_open = false;
    return code;
}

/* Asked for at some time; from now on it counts. */
void __real_trainer_save(struct trainer *t, int64_t now_ms);
void __wrap_trainer_save(struct trainer *t, int64_t now_ms);
void __wrap_trainer_save(struct trainer *t, int64_t now_ms) {
    struct record *r = &world->record;
    r->save_open = trainer_unsaved(t);
    r->save_wanted = r->save_open ? t->committed : 0;
    __real_trainer_save(t, now_ms);
}

/* ---- decisions ---- */

static bool all_leave(const struct sim *s) {
    const struct trainer *t = s->c->trainer;
    bool all = true, some = false;
    for (size_t i = 0; i < t->members; i++) {
        if (t->member[i].state != MEMBER_READY) continue;
        all = all && s->c->worker[t->member[i].worker].leaving;
        some = true;
    }
    return some && all;
}

static void check_save(struct sim *s, uint64_t step) {
    const struct plan *p = &s->plan;
    trace(s, "save %llu", (unsigned long long)step);
    if (s->c->stopping || due(step, p->options.save_steps, p->options.max_steps) || s->record.save_open || all_leave(s)) return;
    broken(s, "checkpoint at step %llu, which is not due", (unsigned long long)step);
}

static void check_evaluation(struct sim *s, uint64_t step) {
    trace(s, "evaluate %llu", (unsigned long long)step);
    if (!has_validation(s) || !due(step, s->plan.options.eval_steps, s->plan.options.max_steps))
        broken(s, "evaluation at step %llu, which is not due", (unsigned long long)step);
}

static void check_view(struct sim *s, uint64_t step) {
    const struct trainer *t = s->c->trainer;
    uint32_t counted = 0, members = 0;
    uint64_t all = 0;
    for (size_t i = 0; i < t->members; i++) {
        const struct member *m = &t->member[i];
        if (!m->in_view) continue;
        members++;
        for (uint32_t slice = 0; slice < s->plan.options.slices; slice++)
            if (slice_in(&m->assigned, slice)) all |= UINT64_C(1) << slice, counted++;
        if (m->leaving && slice_count(&t->counted) == 0)
            broken(s, "step %llu begins with %s, which was asked to leave", (unsigned long long)step,
                   place_name(place_of_worker(s, m->worker)));
    }
    trace(s, "view %llu of step %llu, %u members", (unsigned long long)t->view, (unsigned long long)step, members);
    if (members == 0 || t->stopping) return; /* some were lost since it was decided, and nobody goes on with the step */
    if (all != (UINT64_C(1) << s->plan.options.slices) - 1) broken(s, "a slice is assigned to nobody");
    if (counted != s->plan.options.slices) broken(s, "a slice is assigned twice");
}

static void check_finished(struct sim *s) {
    const struct trainer_options *o = &s->plan.options;
    if (s->record.ledger != o->max_steps || s->record.checkpoint != o->max_steps) broken(s, "finished without the last checkpoint");
    if (has_validation(s) && s->record.evaluated != o->max_steps) broken(s, "finished without the last evaluation");
}

bool __real_trainer_action(struct trainer *t, struct action *out);
bool __wrap_trainer_action(struct trainer *t, struct action *out);
bool __wrap_trainer_action(struct trainer *t, struct action *out) {
    struct sim *s = world;
    if (!__real_trainer_action(t, out)) return false;
    if (!on_disk() || running->process->dying || s->failure[0]) return true;
    switch (out->kind) {
    case ACTION_JOIN:
        trace(s, "join %s to step %llu", place_name(place_of_worker(s, out->worker)), (unsigned long long)out->step);
        s->joins++;
        break;
    case ACTION_VIEW: check_view(s, out->step); break;
    case ACTION_EVALUATE: check_evaluation(s, out->step); break;
    case ACTION_SAVE: check_save(s, out->step); break;
    case ACTION_EVICT:
        trace(s, "evict %s", place_name(place_of_worker(s, out->worker)));
        s->evictions++;
        break;
    case ACTION_ODD: broken(s, "%s has another sum than the others", place_name(place_of_worker(s, out->worker))); break;
    case ACTION_DOUBT: trace(s, "doubt about step %llu", (unsigned long long)out->step); break;
    case ACTION_BAR: s->bars++; break;
    case ACTION_NO_END: broken(s, "%s is said to come to no end with another", place_name(place_of_worker(s, out->worker))); break;
    case ACTION_WITHHELD: broken(s, "%s is said to give nothing", place_name(place_of_worker(s, out->worker))); break;
    case ACTION_FINISHED: check_finished(s); break;
    case ACTION_STOPPED:
        if (s->record.checkpoint != s->record.ledger) broken(s, "stopped without a checkpoint");
        break;
    case ACTION_ROLLBACK: check_roll_back(s, out->step); break;
    case ACTION_COMMIT:
    case ACTION_LATE:
    case ACTION_LEFT_OUT:
    case ACTION_FAILED: break;
    }
    return true;
}

void __real_trainer_applied(struct trainer *t, uint32_t worker, uint64_t step, const uint8_t *digest, int64_t now_ms);
void __wrap_trainer_applied(struct trainer *t, uint32_t worker, uint64_t step, const uint8_t *digest, int64_t now_ms);
void __wrap_trainer_applied(struct trainer *t, uint32_t worker, uint64_t step, const uint8_t *digest, int64_t now_ms) {
    struct sim *s = world;
    struct process *w = process_of(s, worker);
    bool right = step <= s->plan.options.max_steps && memcmp(digest, s->truth[step].state_digest, XXH128_BYTES) == 0;
    if (!right && !s->plan.bad_states)
        broken(s, "%s holds a wrong state of step %llu", place_name(place_of_worker(s, worker)), (unsigned long long)step);
    if (right && w) w->bad = false;
    if (w) w->shown_step = step, w->shown_ms = s->now_ms;
    __real_trainer_applied(t, worker, step, digest, now_ms);
}

void __real_roster_send_home(struct context *c, uint32_t worker);
void __wrap_roster_send_home(struct context *c, uint32_t worker);
void __wrap_roster_send_home(struct context *c, uint32_t worker) {
    struct sim *s = world;
    const struct member *m = c->trainer ? trainer_member(c->trainer, worker) : NULL;
    trace(s, "%s may leave", place_name(place_of_worker(s, worker)));
    if (m && m->in_view && c->trainer->view_sent && c->trainer->phase == TRAINER_RUN && !running->process->dying)
        broken(s, "%s is let go in the middle of a step", place_name(place_of_worker(s, worker)));
    __real_roster_send_home(c, worker);
}

/* ---- what is there in the end ---- */

static void check_dataset(struct sim *s) {
    const struct reference *r = &s->reference[s->plan.variant];
    char *folder = mem_format("%s/out/dataset", s->folder);
    struct manifest manifest;
    if (manifest_read(&manifest, folder) < 0) broken(s, "%s", err_text());
    else {
        if (memcmp(manifest.digest, r->digest, SHA256_BYTES) != 0) broken(s, "another dataset came out");
        for (size_t i = 0; i < manifest.shards && s->plan.damages == 0; i++)
            if (manifest_verify_shard(&manifest, folder, i, NULL) < 0) broken(s, "%s", err_text());
        s->shards += manifest.shards;
        manifest_free(&manifest);
    }
    free(folder);
}

static void check_weights(struct sim *s) {
    uint64_t step = 0;
    char *folder = mem_format("%s/out", s->folder), *path = NULL;
    struct buf passed = {0};
    struct checkpoint *checkpoint;
    static uint8_t bytes[ELEMENTS_CAP * sizeof(float)];
    if (checkpoint_newest(&path, &step, &passed, folder) < 0 || passed.size || !path || step != s->plan.options.max_steps)
        broken(s, "the last checkpoint is not there");
    else if (checkpoint_open(&checkpoint, path) < 0) broken(s, "%s", err_text());
    else {
        for (size_t i = 0; i < s->parts.count; i++) {
            enum state_part part = s->parts.part[i];
            size_t size = s->plan.elements * state_element_bytes(&s->parts, part);
            if (checkpoint_read_state(checkpoint, bytes, &s->parts, part, 0, s->plan.elements) < 0) broken(s, "%s", err_text());
            else if (memcmp(bytes, s->truth[step].state[part], size) != 0) broken(s, "another final state");
        }
        checkpoint_close(checkpoint);
    }
    free(path);
    free(folder);
}

static int check_row(void *arg, const struct step_row *row) {
    struct sim *s = arg;
    if (row->step != ++s->record.sealed) broken(s, "the ledger has no step %llu", (unsigned long long)s->record.sealed);
    else if (row->step <= s->plan.options.max_steps && memcmp(row->gradient, s->truth[row->step].gradient_digest, XXH128_BYTES) != 0)
        broken(s, "the ledger has another gradient of step %llu", (unsigned long long)row->step);
    return 0;
}

static int check_evaluated(void *arg, const struct evaluation_row *row) {
    struct sim *s = arg;
    const struct trainer_options *o = &s->plan.options;
    if (!due(row->step, o->eval_steps, o->max_steps) || !same_number(row->loss, s->truth_evaluation[row->step]))
        broken(s, "the store has another evaluation of step %llu", (unsigned long long)row->step);
    return 0;
}

static void check_store(struct sim *s) {
    char *folder = mem_format("%s/out/state", s->folder);
    struct store *store;
    s->record.sealed = 0;
    if (store_open(&store, folder) < 0) broken(s, "%s", err_text());
    else {
        if (store_steps(store, check_row, s) < 0 || store_evaluations(store, check_evaluated, s) < 0) broken(s, "%s", err_text());
        if (s->record.sealed != s->plan.options.max_steps) broken(s, "the ledger ends at %llu", (unsigned long long)s->record.sealed);
        store_close(store);
    }
    free(folder);
}

/* Nothing of what was under way stays behind. */
static void check_folder(struct sim *s, const char *name) {
    char *path = mem_format("%s/%s", s->folder, name);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (strstr(entry->d_name, ".draft-") || strstr(entry->d_name, ".damaged") || strncmp(entry->d_name, "millrace-", 9) == 0)
            broken(s, "%s/%s was left over", name, entry->d_name);
    if (dir) closedir(dir);
    free(path);
}

static void check_end(struct sim *s) {
    static const char *const folders[] = {"out", "out/dataset", "out/state", "out/state/runs", "temporary"};
    check_dataset(s);
    if (!s->plan.dataset_alone) check_weights(s);
    if (!s->plan.dataset_alone) check_store(s);
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) check_folder(s, folders[i]);
}

#endif
