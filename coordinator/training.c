/* Carries out what trainer.c decides: sends JOIN, STEP and COMMIT, writes the ledger and metrics.jsonl, begins evaluations (evaluating.c)
 * and checkpoints (saving.c). Owns the trainer and the times that only people want to know. COMMIT is sent only after the step's row is in
 * the store.
 *
 * Every call from the loop hands something to the trainer, and act() then carries out the actions that came of it, one by one. */
#include "coordinator/training.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/plain.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/dispatch.h"
#include "coordinator/doubts.h"
#include "coordinator/evaluating.h"
#include "coordinator/files.h"
#include "coordinator/ledger_behind.h"
#include "coordinator/lost_rows.h"
#include "coordinator/metrics.h"
#include "coordinator/roster.h"
#include "coordinator/saving.h"
#include "coordinator/self_tests.h"
#include "coordinator/store.h"
#include "coordinator/trained.h"
#include "coordinator/trainer.h"
#include "dataset/shard/manifest.h"
#include "model/checkpoint/checkpoint.h"
#include "model/optim/optimizer.h"
#include "proto/frame.h"
#include "proto/steps.h"

enum {
    PATIENCE_MS = 60000,   /* for who lives and does not move; a dead one is noticed much earlier */
    JOINS_FAILED_MAX = 8,  /* in a row; from the second on another member alone is read from each time */
    JOIN_AGAIN_MS = 250,   /* after the first of them, then twice as long each time: half a minute in all, for a disk that hiccups */
};

struct training {
    double step_began;     /* clock_seconds() of the view that began it */
    int64_t standing_ms;   /* since when no member holds the state, so that no step can go on; 0: one does */
    unsigned renewals;     /* of the step under way that were told */
    bool began;            /* it was decided from which state */
    unsigned tellings;     /* that are under way */
    struct rolled_back rolled_back;
};

/* ---- opening ---- */

/* An evaluation on its way into the newest checkpoint, which was published before it ended. The checkpoint is as good without: a failure is
 * only logged. What the coordinator's end leaves is told at the next start. */
struct telling {
    char *path;
    double loss;
    uint64_t step;
    struct buf log; /* of training, as of its beginning */
};

static int telling_task(void *arg, const atomic_bool *stop) {
    const struct telling *telling = arg;
    (void)stop;
    return checkpoint_add_evaluation(telling->path, telling->loss, telling->step, &telling->log);
}

static void telling_done(void *owner, void *arg, int code) {
    struct context *c = owner;
    struct telling *telling = arg;
    c->training->tellings--;
    if (code < 0 && code != ERR_INTERRUPTED) log_warn("%s does not tell its evaluation: %s", telling->path, err_text());
    buf_free(&telling->log);
    free(telling->path);
    free(telling);
}

static void tell_checkpoint(struct context *c) {
    const struct metrics_newest *newest = metrics_newest(c);
    struct telling *telling = mem_alloc(sizeof *telling);
    *telling = (struct telling){.path = mem_text(c->newest_path), .loss = newest->eval_loss, .step = newest->eval_step};
    c->training->tellings++;
    int code = metrics_log_print(c, &telling->log, telling->step);
    if (code == 0 && files_post(c->files, &(struct file_task){.run = telling_task, .done = telling_done, .arg = telling})) return;
    if (code == 0) code = telling_task(telling, NULL); /* later would be too late: a newer checkpoint may come first */
    telling_done(c, telling, code);
}

bool training_tells(const struct context *c) { return c->training->tellings > 0; }

/* Reads the whole of the newest checkpoint, or of those before it until one is whole: seconds, for a large model. */
struct search {
    char *folder, *path;
    uint64_t step;
    struct buf passed; /* lines: newer ones, which are damaged */
};

static int search_task(void *arg, const atomic_bool *stop) {
    struct search *search = arg;
    (void)stop;
    TRY(checkpoint_settle(search->folder));
    return checkpoint_newest(&search->path, &search->step, &search->passed, search->folder);
}

static int begin_training(struct context *c, uint64_t checkpoint);

static void search_done(void *owner, void *arg, int code) {
    struct context *c = owner;
    struct search *search = arg;
    uint64_t step = search->step;
    c->newest_path = search->path;
    char *passed = search->passed.size ? (char *)search->passed.data : NULL, *rest = NULL;
    for (char *line = passed ? strtok_r(passed, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest))
        note_lost(c, "checkpoint-damaged", "%s", line);
    buf_free(&search->passed);
    free(search->folder);
    free(search);
    if (code == 0 && !c->ended) code = begin_training(c, step);
    if (code < 0 && code != ERR_INTERRUPTED) fail_pipeline(c, code);
}

/* Under this name the store has the digest of the state that a checkpoint was made of. */
enum { STATE_NAME_BYTES = 48 };
static void state_name(char out[STATE_NAME_BYTES], uint64_t step) {
    snprintf(out, STATE_NAME_BYTES, "checkpoint_state/%" PRIu64, step);
}

/* Whole as it is, a checkpoint may have been put there in place of the run's own. */
static int check_own(const struct context *c, uint64_t step, const struct checkpoint_facts *facts) {
    char name[STATE_NAME_BYTES];
    state_name(name, step);
    int own = store_agrees(c->store, name, facts->state_digest, XXH128_BYTES);
    TRY(own);
    if (own) return 0;
    return err_set(ERR_CONFIG,
                   "%s is not the checkpoint that this run made of step %" PRIu64
                   ": it is of another run; move it away, and the same command goes on from the checkpoint before it",
                   c->newest_path, step);
}

static int find_checkpoint(struct context *c, uint64_t *ledger, const uint64_t *out_step, uint64_t *out_evaluated) {
    *out_evaluated = 0;
    struct checkpoint *checkpoint;
    struct checkpoint_facts facts = {0};
    if (!c->newest_path) return lost_rows_repair_ledger(c, 0, &facts, ledger);
    TRY(checkpoint_open(&checkpoint, c->newest_path));
    int code = checkpoint_facts(checkpoint, &facts);
    if (code == 0) code = check_own(c, *out_step, &facts);
    if (code == 0) code = lost_rows_repair_ledger(c, *out_step, &facts, ledger);
    bool newer = *out_step > *ledger;
    if (code == 0 && newer) code = ledger_behind_check(c, *out_step, &facts);
    for (size_t i = 0; i < c->parts.count && code == 0; i++) /* nothing is read: is each part there, as this run has it? */
        code = checkpoint_read_state(checkpoint, NULL, &c->parts, c->parts.part[i], 0, 0);
    if (code == 0 && newer) code = ledger_behind_catch_up(c, *out_step, &facts, ledger);
    checkpoint_close(checkpoint);
    if (code == 0) memcpy(c->weights_digest, facts.weights_sha256, SHA256_BYTES);
    if (code == 0) *out_evaluated = facts.eval_step;
    return code;
}

/* Older checkpoints go when a newer one was read and is whole; before that, those alone that a crash has left half made or half removed. */
struct pruning {
    char *folder;
    uint64_t keep;
};

static int pruning_task(void *arg, const atomic_bool *stop) {
    const struct pruning *pruning = arg;
    (void)stop;
    return checkpoint_prune(pruning->folder, pruning->keep);
}

static void pruning_done(void *owner, void *arg, int code) {
    struct pruning *pruning = arg;
    (void)owner;
    if (code < 0 && code != ERR_INTERRUPTED) log_warn("%s", err_text()); /* only costs room */
    free(pruning->folder);
    free(pruning);
}

/* keep: of whole ones; 0: all. */
static void post_pruning(struct context *c, uint64_t keep) {
    struct pruning *pruning = mem_alloc(sizeof *pruning);
    *pruning = (struct pruning){mem_text(c->config->output_dir), keep};
    if (files_post(c->files, &(struct file_task){.run = pruning_task, .done = pruning_done, .arg = pruning})) return;
    free(pruning->folder); /* the next checkpoint will do it */
    free(pruning);
}

static void finished(struct context *c) {
    char hex[SHA256_HEX];
    hex_of(hex, c->weights_digest, SHA256_BYTES);
    note_event(c, "done", "step %llu, weights %s, %s", (unsigned long long)c->trainer->committed, hex,
               c->newest_path ? c->newest_path : "no checkpoint");
    c->stage = STAGE_DONE;
    c->ended = true;
    c->outcome = 0;
}

void training_warnings(const struct context *c, struct buf *out) {
    config_print_warnings(out, c->config, c->max_steps);
}

static void say_warnings(const struct context *c) {
    struct buf text = {0};
    training_warnings(c, &text);
    dataset_warnings(c, &text);
    for (char *line = text.size ? strtok((char *)text.data, "\n") : NULL; line; line = strtok(NULL, "\n")) log_warn("%s", line);
    buf_free(&text);
}

int training_begin(struct context *c) {
    struct search *search = mem_alloc(sizeof *search);
    search->folder = mem_text(c->config->output_dir);
    if (files_post(c->files, &(struct file_task){.run = search_task, .done = search_done, .arg = search, .may_be_left = true})) return 0;
    free(search->folder);
    free(search);
    return err_set(ERR_LIMIT, "too much is to be read at once"); /* nothing else is under way when a dataset is ready */
}

static int begin_training(struct context *c, uint64_t checkpoint) {
    const struct config *config = c->config;
    bool of_record = c->dataset->trained_on_other && c->dataset->trained.whole; /* what the finished run was trained on */
    c->train_sequences = of_record ? c->dataset->trained.train_sequences : c->dataset->manifest.train_sequences;
    c->validation_sequences = (of_record ? c->dataset->trained.sequences : c->dataset->manifest.sequences) - c->train_sequences;
    if (config->training.eval_sequences > 0 && c->validation_sequences > (uint64_t)config->training.eval_sequences)
        c->validation_sequences = (uint64_t)config->training.eval_sequences;
    c->max_steps = steps_total(config->training.max_steps, config->training.num_train_epochs, c->train_sequences,
                               config->training.global_batch);
    uint64_t ledger, evaluated;
    TRY(store_step_newest(c->store, &ledger));
    TRY(ledger_behind_name_run(c));
    TRY(find_checkpoint(c, &ledger, &checkpoint, &evaluated));
    TRY(metrics_rewrite(c));
    bool is_finished = checkpoint >= c->max_steps && (metrics_newest(c)->eval_step >= c->max_steps || c->validation_sequences == 0);
    TRY(trained_begin(c, ledger, is_finished));
    bool is_told = evaluated >= checkpoint || checkpoint != metrics_newest(c)->eval_step;
    if (checkpoint && !is_told) tell_checkpoint(c); /* a crash came between the two */
    struct trainer_options options = {
        .slices = (uint32_t)config->training.slices,
        .max_steps = c->max_steps,
        .eval_steps = (uint64_t)config->training.eval_steps,
        .save_steps = (uint64_t)config->training.save_steps,
        .validation = c->validation_sequences > 0,
        .max_bad_steps = (uint64_t)config->training.max_bad_steps,
        .patience_ms = PATIENCE_MS,
    };
    c->trainer = mem_alloc(sizeof *c->trainer);
    trainer_open(c->trainer, &options, ledger, checkpoint, metrics_newest(c)->eval_step);
    TRY(store_steps_bad(c->store, &c->trainer->bad_steps, &c->trainer->newest_bad_step));
    TRY(doubts_load(c));
    TRY(self_tests_load(c, ledger));
    c->stage = STAGE_TRAIN;
    c->progress = (struct progress){.done = ledger, .total = c->max_steps, .began_ms = clock_ms(), .done_at_start = ledger};
    c->training->step_began = clock_seconds();
    say_warnings(c);
    post_pruning(c, 0);
    if (is_finished) {
        finished(c);
        return 0;
    }
    for (uint32_t i = 0; i < c->workers; i++)
        if (roster_admitted(&c->worker[i])) self_tests_ask(c, i);
    return 0;
}

void training_open(struct context *c) { c->training = mem_alloc(sizeof *c->training); }

void training_close(struct context *c) {
    free(c->trainer);
    c->trainer = NULL;
    free(c->training);
    c->training = NULL;
}

/* ---- actions ---- */

static void tell_join(struct context *c, uint32_t worker, uint64_t step) {
    struct trainer *t = c->trainer;
    Millrace__Join join = MILLRACE__JOIN__INIT;
    Millrace__Geometry geometry = manifest_geometry(&c->dataset->manifest, false);
    char **peers = mem_alloc((t->members + 1) * sizeof *peers);
    join.step = step;
    if (t->has_state_digest) join.digest = (ProtobufCBinaryData){XXH128_BYTES, t->state_digest};
    for (size_t i = 0; i < t->members; i++)
        if (t->member[i].worker != worker && trainer_holds_state(t, t->member[i].worker) &&
            trainer_reaches(t, worker, t->member[i].worker))
            peers[join.n_peers++] = c->worker[t->member[i].worker].endpoint;
    if (c->worker[worker].joins_failed && join.n_peers > 1) { /* one of them may be at fault: each alone, in turn */
        peers[0] = peers[(c->worker[worker].joins_failed - 1) % join.n_peers];
        join.n_peers = 1;
    }
    join.peers = peers;
    join.geometry = &geometry;
    send_to(c, worker, &(struct envelope){.kind = MILLRACE__KIND__JOIN, .step = step}, &join.base);
    free(peers);
}

/* The time of a step counts from its first view on. A time in which no member held the state counts for no speed. */
static void note_view(struct context *c) {
    struct training *training = c->training;
    if (training->standing_ms) c->progress.began_ms += clock_ms() - training->standing_ms;
    training->standing_ms = 0;
    if (slice_count(&c->trainer->counted) == 0) training->step_began = clock_seconds();
}

static void tell_renewal(struct context *c, uint64_t step) {
    const struct trainer *t = c->trainer;
    if (t->renewals > c->training->renewals)
        note_event(c, "view-renewed", "no slice and no sum of step %llu came for long: its members are told of the step anew",
                   (unsigned long long)step);
    c->training->renewals = t->renewals;
}

static void tell_view(struct context *c, uint64_t step) {
    struct trainer *t = c->trainer;
    size_t n = 0;
    note_view(c);
    tell_renewal(c, step);
    Millrace__Member *members = mem_alloc(t->members * sizeof *members), **pointers = mem_alloc(t->members * sizeof *pointers);
    uint32_t *workers = mem_alloc(t->members * sizeof *workers), *slices = mem_alloc(t->options.slices * sizeof *slices);
    size_t used = 0;
    for (size_t i = 0; i < t->members; i++) {
        struct member *m = &t->member[i];
        if (!m->in_view) continue;
        millrace__member__init(&members[n]);
        members[n].endpoint = c->worker[m->worker].endpoint;
        members[n].slices = slices + used;
        for (uint32_t s = 0; s < t->options.slices; s++)
            if (slice_in(&m->assigned, s)) slices[used++] = s, members[n].n_slices++;
        workers[n] = m->worker;
        pointers[n] = &members[n];
        n++;
    }
    CHECK(used <= t->options.slices);
    Millrace__Step message = MILLRACE__STEP__INIT;
    message.members = pointers;
    message.n_members = n;
    for (size_t i = 0; i < n; i++) {
        message.self = (uint32_t)i;
        send_to(c, workers[i], &(struct envelope){.kind = MILLRACE__KIND__STEP, .step = step, .attempt = fence_of(c, t->view)},
                &message.base);
    }
    free(members);
    free(pointers);
    free(workers);
    free(slices);
}

/* A step that was done before a roll-back must come out the same. Which of two results is right nobody knows: the next try is compared with
 * the new one. */
static int check_replay(struct context *c, const struct step_row *row) {
    uint8_t before[XXH128_BYTES];
    int code = store_step_superseded(c->store, row->step, before);
    if (code <= 0 || memcmp(before, row->gradient, XXH128_BYTES) == 0) return code < 0 ? code : 0;
    TRY(store_step_disputed(c->store, row));
    return err_set(ERR_CORRUPT,
                   "step %llu was done before and gave another gradient: a worker's memory or arithmetic is not to be trusted; run the "
                   "same command again: it does the step once more, and goes on with what comes out twice in a row",
                   (unsigned long long)row->step);
}

static int record_step(struct context *c, uint64_t step) {
    struct trainer *t = c->trainer;
    double now = clock_seconds();
    struct step_row row = {.step = step, .tokens = t->step_tokens, .skipped = t->step_skipped, .seconds = now - c->training->step_began};
    memcpy(row.gradient, t->step_gradient, XXH128_BYTES);
    row.loss = t->step_loss_sum / (double)t->step_tokens; /* NaN, shown as null, where no target counts */
    row.learning_rate = learning_rate(c->config, step, c->max_steps);
    row.gradient_norm = sqrt(t->step_square_sum) / (double)t->step_tokens;
    c->training->step_began = now;
    TRY(check_replay(c, &row));
    TRY(self_tests_record(c));
    TRY(store_step_add(c->store, &row));
    unsigned long long number = step;
    if (row.skipped && row.tokens) note_event(c, "bad-step", "step %llu: the gradient is not finite; the step is skipped", number);
    else if (row.skipped) note_event(c, "empty-step", "step %llu: none of its targets counts; the step is skipped", number);
    c->progress.done = step;
    metrics_step(c, &row);
    return 0;
}

static void commit(struct context *c, uint64_t step) {
    struct trainer *t = c->trainer;
    int code = record_step(c, step);
    if (code < 0) {
        fail_pipeline(c, code);
        return;
    }
    Millrace__Commit message = MILLRACE__COMMIT__INIT;
    message.tokens = t->step_tokens;
    message.skip = t->step_skipped;
    for (size_t i = 0; i < t->members; i++)
        if (t->member[i].told_commit)
            send_to(c, t->member[i].worker,
                    &(struct envelope){.kind = MILLRACE__KIND__COMMIT, .step = step, .attempt = fence_of(c, t->step_view)}, &message.base);
}

static void begin_evaluation(struct context *c, uint64_t step) {
    Millrace__Geometry geometry = manifest_geometry(&c->dataset->manifest, true);
    evaluating_begin(c, step, c->validation_sequences, &geometry);
}

static void evaluated(struct context *c, const struct evaluation_row *row) {
    if (store_evaluation_add(c->store, row) < 0) {
        fail_pipeline(c, ERR_IO);
        return;
    }
    metrics_evaluation(c, row);
    if (c->newest_path && c->trainer->checkpoint == row->step) tell_checkpoint(c);
    trainer_evaluated(c->trainer, row->step, clock_ms());
}

void training_evaluations(struct context *c) {
    struct evaluation_row row;
    if (evaluating_result(c, &row) && !c->ended) evaluated(c, &row);
}

static void roll_back(struct context *c, uint64_t step) {
    note_event(c, "roll-back", "to step %llu: nobody is here whose later state is beyond doubt", (unsigned long long)step);
    saving_end(c);
    dispatch_clear(c);
    int code = store_begin(c->store);
    if (code == 0) code = store_steps_supersede(c->store, step);
    if (code == 0) code = store_commit(c->store);
    if (code == 0) code = metrics_rewrite(c);
    if (code < 0) {
        store_cancel(c->store);
        fail_pipeline(c, code);
    }
    struct rolled_back *last = &c->training->rolled_back;
    *last = (struct rolled_back){.number = last->number + 1, .first = step + 1, .last = c->progress.done};
    c->progress.done = step;
    if (c->progress.done_at_start > step) c->progress.done_at_start = step;
}

/* It joins again, with the others' state, and goes on; the third time it is set aside. */
static void odd_one(struct context *c, uint32_t worker, const char *event, const char *what, uint64_t step) {
    struct worker_entry *w = &c->worker[worker];
    note_event(c, event, "%s (pid %u on %s) %s at step %llu; it takes their state", w->id, w->pid, w->host, what, (unsigned long long)step);
    if (++w->odd < WORKER_BLAMED_MAX) return;
    char why[200];
    snprintf(why, sizeof why, "the others had to go on without it %d times, at last because it %s at step %llu", WORKER_BLAMED_MAX, what,
             (unsigned long long)step);
    roster_set_aside(c, worker, why);
}

static void tell_barred(struct context *c, uint32_t worker, uint32_t other) {
    struct worker_entry *w = &c->worker[worker];
    const struct worker_entry *o = &c->worker[other];
    bool asked = !trainer_reaches(c->trainer, other, worker); /* who got no answer from whom */
    const struct worker_entry *from = asked ? o : w, *to = asked ? w : o;
    int64_t ms = trainer_member(c->trainer, worker)->bar_ends_ms - clock_ms();
    snprintf(w->unreached, sizeof w->unreached, "%s at %.*s gets no answer from %s at %.*s", from->id, endpoint_shown(from->endpoint),
             from->endpoint, to->id, endpoint_shown(to->endpoint), to->endpoint);
    note_event(c, "unreachable",
               "%s; %s takes no part in training for %lld s; let the address through between these machines, or start the worker with the "
               "--bind at which others reach it",
               w->unreached, w->id, (long long)((ms + 999) / 1000));
}

static void tell_late(struct context *c, uint32_t worker, uint64_t step) {
    const struct worker_entry *w = &c->worker[worker];
    note_event(c, "member-late", "%s (pid %u on %s) does not come to the state of step %llu; the others go on, and it is asked again later",
               w->id, w->pid, w->host, (unsigned long long)step);
}

static void tell_left_out(struct context *c, uint32_t worker, uint64_t step) {
    const struct worker_entry *w = &c->worker[worker];
    long long rest_ms = c->trainer->options.patience_ms << c->trainer->doubled;
    note_event(c, "left-out",
               "%s (pid %u on %s) is left out of step %llu until nothing moved for %lld s, to see whether it ends without it",
               w->id, w->pid, w->host, (unsigned long long)step, rest_ms / 1000);
}

static void no_end(struct context *c, uint32_t worker, uint32_t other, uint64_t step) {
    char what[120];
    snprintf(what, sizeof what, "gets to no end with %s, one of which does not do its part,", c->worker[other].id);
    odd_one(c, worker, "sum-withheld", what, step);
}

static void carry_out(struct context *c, const struct action *action) {
    switch (action->kind) {
    case ACTION_JOIN: tell_join(c, action->worker, action->step); break;
    case ACTION_VIEW: tell_view(c, action->step); break;
    case ACTION_COMMIT: commit(c, action->step); break;
    case ACTION_EVALUATE: begin_evaluation(c, action->step); break;
    case ACTION_SAVE: saving_begin(c, action->step); break;
    case ACTION_EVICT:
        odd_one(c, action->worker, "state-differs", "holds another state than the others", action->step);
        break;
    case ACTION_ODD:
        odd_one(c, action->worker, "sum-differs", "holds another sum of the gradients than the others", action->step);
        break;
    case ACTION_WITHHELD:
        odd_one(c, action->worker, "sum-withheld", "does not do its part, and gets to no end with the others", action->step);
        break;
    case ACTION_NO_END: no_end(c, action->worker, action->other, action->step); break;
    case ACTION_LEFT_OUT: tell_left_out(c, action->worker, action->step); break;
    case ACTION_LATE: tell_late(c, action->worker, action->step); break;
    case ACTION_DOUBT: doubts_note(c, action->step); break;
    case ACTION_BAR: tell_barred(c, action->worker, action->other); break;
    case ACTION_ROLLBACK: roll_back(c, action->step); break;
    case ACTION_FINISHED: finished(c); break;
    case ACTION_STOPPED:
        break; /* the loop sees that all is saved */
    case ACTION_FAILED:
        if (doubts_text(c) && c->trainer->disagreed)
            err_set(ERR_CORRUPT, "%s%s; check memory and build of these machines, and leave out the one at fault", doubts_text(c),
                    c->trainer->reason);
        else err_set(ERR_CORRUPT, "%s", c->trainer->reason);
        fail_pipeline(c, ERR_CORRUPT);
        break;
    }
}

static void act(struct context *c) {
    struct action action;
    while (c->trainer && !c->ended && trainer_action(c->trainer, &action)) carry_out(c, &action);
}

/* ---- what happened ---- */

/* Is the worker admitted to training, and not set aside while others can train? */
static bool may_train(const struct context *c, uint32_t worker) {
    bool others = false;
    for (uint32_t i = 0; i < c->workers; i++) {
        const struct worker_entry *w = &c->worker[i];
        others |= i != worker && w->proved && !w->aside[0] && roster_admitted(w);
    }
    return c->worker[worker].proved && roster_admitted(&c->worker[worker]) && !(c->worker[worker].aside[0] && others);
}

/* The trainer forgets members that it loses: whether this one was asked to leave it is told again. */
static void come_in(struct context *c, uint32_t worker, bool with_state, int64_t now_ms) {
    const struct worker_entry *w = &c->worker[worker];
    trainer_present(c->trainer, worker, with_state ? w->state_step : 0, with_state ? w->state_digest : NULL, now_ms);
    if (w->leaving) trainer_leaving(c->trainer, worker, now_ms);
}

static void look_at_set_aside(struct context *c, int64_t now_ms) {
    for (uint32_t i = 0; i < c->workers; i++) {
        const struct worker_entry *w = &c->worker[i];
        if (!w->aside[0] || !w->proved) continue;
        bool is = trainer_member(c->trainer, i) != NULL, may = may_train(c, i);
        if (is && !may) trainer_absent(c->trainer, i, now_ms);
        if (may && !is) come_in(c, i, false, now_ms);
    }
}

void training_worker(struct context *c, uint32_t worker, bool here) {
    if (!c->trainer || c->ended) return;
    const struct worker_entry *w = &c->worker[worker];
    if (here && !may_train(c, worker)) return;
    if (here) come_in(c, worker, w->has_state, clock_ms());
    else trainer_absent(c->trainer, worker, clock_ms());
    act(c);
}

void training_leaving(struct context *c, uint32_t worker) {
    if (!c->trainer || c->ended) return;
    trainer_leaving(c->trainer, worker, clock_ms());
    act(c);
}

/* May it go: is nothing that is needed with this worker alone? It finishes its jobs, and stays with its state until others hold it or it is
 * saved; also with one that it came with, which is asked for only once its self-test fits. */
static bool may_leave(const struct context *c, uint32_t number) {
    const struct worker_entry *w = &c->worker[number];
    if (w->leases) return false;
    if (!c->trainer || !trainer_unsaved(c->trainer)) return !c->trainer || trainer_may_leave(c->trainer, number);
    bool asked = w->proved || !w->has_state || w->state_step <= c->trainer->checkpoint;
    return asked && trainer_may_leave(c->trainer, number);
}

void training_let_go(struct context *c) {
    for (uint32_t i = 0; i < c->workers; i++) {
        const struct worker_entry *w = &c->worker[i];
        if (w->leaving && w->state != WORKER_LOST && w->state != WORKER_LEFT && may_leave(c, i)) roster_send_home(c, i);
    }
}

/* It gave another state than the one whose digest it had sent. The others go on; when nobody else holds the state all go back to the
 * checkpoint, and the third time the run ends. */
static void disbelieve(struct context *c, uint32_t worker, uint64_t step) {
    struct worker_entry *w = &c->worker[worker];
    static const char why[] = "it gave another state than it told to hold";
    roster_set_aside(c, worker, why);
    w->has_state = false;
    training_worker(c, worker, false);
    if (++w->false_states < WORKER_BLAMED_MAX) training_worker(c, worker, true);
    else if (c->trainer->phase == TRAINER_GATHER)
        fail_pipeline(c, err_set(ERR_CORRUPT,
                                 "%s (pid %u on %s): %s, %u times, at last at step %llu, and nobody else holds it; check the memory of "
                                 "that machine, and run the same command with other workers",
                                 w->id, w->pid, w->host, why, w->false_states, (unsigned long long)step));
}

/* It told of more tokens than a slice has: others compute its slices. Alone it does so itself again, and the third time the run ends. */
static void disbelieve_count(struct context *c, uint32_t worker, uint64_t step, int64_t now_ms) {
    struct worker_entry *w = &c->worker[worker];
    static const char why[] = "it told of more tokens than a slice has";
    roster_set_aside(c, worker, why);
    look_at_set_aside(c, now_ms);
    if (trainer_again(c->trainer, worker, now_ms) && ++w->false_counts >= WORKER_BLAMED_MAX)
        fail_pipeline(c, err_set(ERR_CORRUPT,
                                 "%s (pid %u on %s): %s, %u times, at last at step %llu, and nobody else is here; check the memory and "
                                 "the build of that machine, and run the same command with other workers",
                                 w->id, w->pid, w->host, why, w->false_counts, (unsigned long long)step));
    act(c);
}

static void saved(struct context *c, const struct checkpoint_facts *facts) {
    char name[STATE_NAME_BYTES];
    c->paused_why[PAUSED_CHECKPOINT][0] = 0;
    state_name(name, facts->step);
    int code = store_set(c->store, name, facts->state_digest, XXH128_BYTES);
    if (code < 0) {
        fail_pipeline(c, code);
        return;
    }
    note_event(c, "checkpoint", "%s", c->newest_path);
    store_settle(c->store);
    if (metrics_newest(c)->eval_step == facts->step && facts->eval_step != facts->step) tell_checkpoint(c); /* it ended meanwhile */
    post_pruning(c, (uint64_t)c->config->training.save_total_limit);
    trainer_saved(c->trainer, facts->step, true, clock_ms());
}

void training_saves(struct context *c) {
    struct saving_event event;
    if (!saving_event(c, &event) || c->ended) return;
    if (event.news == SAVING_DONE) saved(c, &event.facts);
    else disbelieve(c, event.worker, event.facts.step);
}

void training_unheard(struct context *c, uint32_t worker, char **endpoints, size_t count) {
    if (!c->trainer || c->ended || !trainer_member(c->trainer, worker)) return;
    uint32_t others[TRAINER_UNHEARD_MAX];
    size_t n = 0;
    for (uint32_t i = 0; i < c->workers && count; i++) {
        bool meant = i != worker && roster_admitted(&c->worker[i]) && n < TRAINER_UNHEARD_MAX, named = false;
        for (size_t k = 0; k < count && meant; k++) named |= strcmp(endpoints[k], c->worker[i].endpoint) == 0;
        if (named) others[n++] = i;
    }
    trainer_unheard(c->trainer, worker, others, n, clock_ms());
    act(c);
}

bool training_barred(const struct context *c, uint32_t worker) {
    const struct member *m = c->trainer ? trainer_member(c->trainer, worker) : NULL;
    return m && m->barred;
}

/* What it reads, and nobody else is there to give or take it: most likely the checkpoint. */
static int nobody_joins(const struct worker_entry *w, uint64_t step) {
    return err_set(ERR_CORRUPT,
                   "%s (pid %u on %s) could not take the state of step %llu over, %u times in a row, and nobody else is here; the logs say "
                   "why; run the same command again: it goes on from the newest checkpoint that is whole",
                   w->id, w->pid, w->host, (unsigned long long)step, w->joins_failed);
}

static void on_applied(struct context *c, uint32_t worker, const struct message *message) {
    const Millrace__Applied *applied = (const Millrace__Applied *)message->body;
    struct worker_entry *w = &c->worker[worker];
    int64_t now = clock_ms();
    if (applied->digest.len == XXH128_BYTES) {
        w->joins_failed = 0;
        trainer_applied(c->trainer, worker, message->envelope.step, applied->digest.data, now);
    } else { /* it could not take the state over: it begins again */
        const struct member *m = trainer_member(c->trainer, worker);
        if (!m || m->state != MEMBER_JOINING) return; /* nobody asked it to */
        bool often = ++w->joins_failed >= JOINS_FAILED_MAX;
        if (often && !w->aside[0]) roster_set_aside(c, worker, "it could not take the others' state over, from whomever it read it");
        if (!may_train(c, worker)) trainer_absent(c->trainer, worker, now);
        else if (often) fail_pipeline(c, nobody_joins(w, c->trainer->committed));
        else trainer_could_not_join(c->trainer, worker, now + (JOIN_AGAIN_MS << (w->joins_failed - 1)), now);
    }
}

void training_message(struct context *c, uint32_t worker, const struct message *message) {
    const struct envelope *e = &message->envelope;
    if (!c->trainer || c->ended) return;
    int64_t now = clock_ms();
    if (e->kind == MILLRACE__KIND__APPLIED) on_applied(c, worker, message);
    else if (e->attempt >> 32 != c->generation) return;
    else if (e->kind == MILLRACE__KIND__SLICE) {
        const Millrace__Slice *slice = (const Millrace__Slice *)message->body;
        uint64_t targets = (uint64_t)(c->config->training.global_batch / c->config->training.slices * c->config->dataset.sequence_length);
        if (slice->tokens > targets) { /* the gradient is divided by their sum */
            disbelieve_count(c, worker, e->step, now);
            return;
        }
        c->worker[worker].slices_done++;
        c->worker[worker].compute_ms = slice->compute_ms;
        trainer_slice(c->trainer, worker, e->step, slice->slice, slice->loss_sum, slice->tokens, slice->compute_ms, now);
    } else if (e->kind == MILLRACE__KIND__REDUCED) {
        const Millrace__Reduced *reduced = (const Millrace__Reduced *)message->body;
        if (reduced->digest.len != XXH128_BYTES) return;
        trainer_reduced(c->trainer, worker, e->step, e->attempt & UINT32_MAX, reduced->digest.data, reduced->square_sum, reduced->finite,
                        now);
    }
    act(c);
}

bool training_began(const struct context *c) {
    const struct trainer *t = c->trainer;
    return c->training->began || t->phase != TRAINER_GATHER || t->committed == t->checkpoint;
}

struct rolled_back training_rolled_back(const struct context *c) { return c->training->rolled_back; }

/* Nobody is there who holds the state. */
static bool nobody_is_ready(const struct context *c) {
    const struct trainer *t = c->trainer;
    if (!t || c->ended || t->phase >= TRAINER_FINISHED) return false;
    for (size_t i = 0; i < t->members && t->phase == TRAINER_RUN; i++)
        if (t->member[i].state == MEMBER_READY) return false;
    return true;
}

bool training_stands(const struct context *c) { return c->trainer && (c->training->standing_ms || nobody_is_ready(c)); }

void training_tick(struct context *c, int64_t now_ms) {
    if (!c->trainer || c->ended) return;
    look_at_set_aside(c, now_ms);
    for (size_t i = 0; i < c->trainer->members; i++) {
        const struct member *m = &c->trainer->member[i];
        if (m->state == MEMBER_JOINING) trainer_moved(c->trainer, m->worker, c->worker[m->worker].progress_ms);
    }
    trainer_tick(c->trainer, now_ms);
    act(c);
    c->training->began = training_began(c);
    if (!c->training->standing_ms && nobody_is_ready(c)) c->training->standing_ms = now_ms;
    if (dispatch_queue(c) && !c->trainer->evaluating) dispatch_clear(c); /* everybody who could evaluate is gone */
}
