/* The ledger ends before the newest whole checkpoint: SQLite's log was damaged or gone and is cut off there, so what is left looks whole;
 * or somebody put an older state/ back. Results follow from pipeline, dataset and build alone, so a checkpoint that carries their digest
 * is this run's, whatever the store has: the run goes on from it. The rows of the steps between come from the checkpoint's own log,
 * exactly, and what that has not from metrics.jsonl; the rest is lost. Keeps nothing. */
#include "coordinator/ledger_behind.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/plain.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/trainer_state.h"
#include "model/optim/optimizer.h"

enum {
    STEPS_MAX = 10 * 1000 * 1000, /* that can come back: 1 GB for a moment; of more, only the checkpoint's own */
    LOG_BYTES_MAX = 64 << 20,     /* a log of TRAIN_LOG_STEPS_MAX steps has 3 MB */
};

int ledger_behind_name_run(struct context *c) {
    struct buf text = {0};
    int code = buf_print(&text, "millrace run 1\n");
    if (code == 0) code = config_print_marks(&text, c->config);
    if (code == 0) code = buf_append(&text, c->tokenizer_digest, SHA256_BYTES);
    if (code == 0) code = buf_append(&text, c->dataset->manifest.digest, SHA256_BYTES);
    if (code == 0) sha256_of(c->run_digest, text.data, text.size);
    buf_free(&text);
    return code;
}

int ledger_behind_check(const struct context *c, uint64_t checkpoint, const struct checkpoint_facts *facts) {
    bool same = facts->has_run && memcmp(facts->run, c->run_digest, SHA256_BYTES) == 0 && checkpoint <= c->max_steps;
    for (uint64_t step = 1; same && step <= checkpoint; step++) /* of another length, which had the same rates up to here */
        same = learning_rate(c->config, step, c->max_steps) == learning_rate(c->config, step, facts->max_steps);
    if (same) return 0;
    return err_set(ERR_CONFIG,
                   "%s is newer than the records in %s and is of another run: another pipeline, dataset or tokenizer; move it away, run "
                   "with --restart, or choose another output_dir",
                   c->newest_path, c->state_folder);
}

/* What is known of a step. */
struct known_step {
    struct step_row row;
    struct evaluation_row evaluation;
};
struct gap {
    struct context *c;
    uint64_t after, last; /* steps behind the one and up to the other are lost, and maybe the evaluation of the first */
    struct known_step *known; /* by step - after; .row.step 0: nothing is known of it */
};

static struct known_step *known_of(const struct gap *t, uint64_t step) {
    return step >= t->after && step <= t->last ? &t->known[step - t->after] : NULL;
}

static uint64_t step_positions(const struct context *c) {
    return (uint64_t)c->config->training.global_batch * (uint64_t)c->config->dataset.sequence_length;
}

static void fill_step(const struct gap *t, struct known_step *known, uint64_t step, double loss, double norm) {
    struct step_row *row = &known->row;
    row->step = step;
    row->loss = loss;
    row->gradient_norm = norm;
    row->learning_rate = learning_rate(t->c->config, step, t->c->max_steps);
    row->tokens = step_positions(t->c);
    row->skipped = !isfinite(norm);
}

static double real_or_nan(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Its numbers have nine digits where the checkpoint's log has all, but more is in it: tokens, seconds. */
static void take_line(const struct gap *t, const json_t *object) {
    json_int_t step = json_integer_value(json_object_get(object, "step"));
    struct known_step *known = step > 0 ? known_of(t, (uint64_t)step) : NULL;
    const json_t *tokens = json_object_get(object, "eval_tokens");
    double rate = real_or_nan(object, "tokens_per_second");
    if (known && tokens)
        known->evaluation = (struct evaluation_row){(uint64_t)step, (uint64_t)json_integer_value(tokens), real_or_nan(object, "eval_loss")};
    else if (known) {
        fill_step(t, known, (uint64_t)step, real_or_nan(object, "loss"), real_or_nan(object, "grad_norm"));
        if (rate > 0) known->row.seconds = (double)known->row.tokens / rate;
    }
}

static void take_metrics(const struct gap *t) {
    char *path = mem_format("%s/metrics.jsonl", t->c->config->output_dir), *line = NULL;
    FILE *file = file_stream(path);
    size_t room = 0;
    while (file && getline(&line, &room, file) > 0) {
        json_t *object = json_loads(line, 0, NULL);
        take_line(t, object);
        json_decref(object);
    }
    free(line);
    if (file) fclose(file);
    free(path);
}

static void take_row(void *arg, const struct train_log_row *row) {
    const struct gap *t = arg;
    struct known_step *known = known_of(t, row->step);
    if (!known) return;
    if (row->evaluation) known->evaluation = (struct evaluation_row){row->step, known->evaluation.tokens, row->eval_loss};
    else fill_step(t, known, row->step, row->loss, row->grad_norm);
}

/* The log was checked with the checkpoint's digests. When it cannot be read, its rows stay unknown. */
static void take_log(struct gap *t) {
    struct buf text = {0};
    char *path = mem_format("%s/trainer_state.json", t->c->newest_path);
    if (file_read(&text, path, LOG_BYTES_MAX) == 0) trainer_state_rows((const char *)text.data, text.size, take_row, t);
    free(path);
    buf_free(&text);
}

static int record_rows(const struct gap *t) {
    int code = 0;
    for (uint64_t i = 0; i <= t->last - t->after && code == 0; i++) {
        const struct known_step *known = &t->known[i];
        if (i && known->row.step) code = store_step_add(t->c->store, &known->row);
        if (code == 0 && known->evaluation.step) code = store_evaluation_add(t->c->store, &known->evaluation);
    }
    return code;
}

static int record(const struct gap *t, const struct checkpoint_facts *facts) {
    struct store *store = t->c->store;
    TRY(store_steps_drop(store, t->after)); /* none, but for evaluations without their step */
    TRY(record_rows(t));
    TRY(store_set(store, "answer", facts->self_test, SHA256_BYTES));
    return store_set(store, "build", facts->build, strlen(facts->build));
}

static void say(const struct gap *t) {
    uint64_t rows = 0, evaluations = 0;
    for (uint64_t i = 0; i <= t->last - t->after; i++) {
        rows += i && t->known[i].row.step;
        evaluations += t->known[i].evaluation.step != 0;
    }
    const char *slash = strrchr(t->c->newest_path, '/');
    note_lost(t->c, "records-lost",
              "the records of steps %" PRIu64 " to %" PRIu64 " are lost; going on from %s, which is whole and of this run; it and "
              "metrics.jsonl still tell of %" PRIu64 " of these steps and of %" PRIu64 " evaluation%s; bad steps among the others are not "
              "counted",
              t->after + 1, t->last, slash ? slash + 1 : t->c->newest_path, rows, evaluations, plural(evaluations));
}

/* The evaluation of the first one is there: what the store has of it stays. */
static int keep_evaluation(void *arg, const struct evaluation_row *row) {
    struct gap *t = arg;
    if (row->step == t->after) t->known[0].evaluation.step = 0;
    return 0;
}

int ledger_behind_catch_up(struct context *c, uint64_t checkpoint, const struct checkpoint_facts *facts, uint64_t *ledger) {
    CHECK(checkpoint > *ledger);
    struct gap t = {.c = c, .after = *ledger, .last = checkpoint};
    if (t.last - t.after > STEPS_MAX) t.after = t.last - 1;
    TRY(mem_try(&t.known, (size_t)(t.last - t.after) + 1, sizeof *t.known));
    take_metrics(&t);
    take_log(&t);
    struct known_step *newest = &t.known[t.last - t.after];
    if (!newest->row.step) fill_step(&t, newest, checkpoint, facts->train_loss, 0);
    int code = store_evaluations(c->store, keep_evaluation, &t);
    if (code == 0) code = store_begin(c->store);
    if (code == 0 && (code = record(&t, facts)) < 0) store_cancel(c->store);
    if (code == 0) code = store_commit(c->store);
    if (code == 0) say(&t);
    if (code == 0) *ledger = checkpoint;
    free(t.known);
    return code;
}
