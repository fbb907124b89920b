/* metrics.jsonl, the lines of the log, and the log that checkpoints carry, all from rows of the ledger: as they come (metrics_step(),
 * metrics_evaluation()), and all anew (metrics_rewrite()) at the start, after a roll-back, and when metrics_look() finds that somebody
 * removed or cut the file. Owns the open file, the checkpoint's log and
 * the newest values. The loop's thread. */
#include "coordinator/metrics.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/plain.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"
#include "model/checkpoint/trainer_state.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"
#include "proto/steps.h"

enum { AGAIN_MS = 30000 }; /* all of the ledger is read for each try */

struct metrics {
    FILE *file;
    off_t size_bytes;       /* of what was written to it */
    bool begun;             /* metrics_rewrite() was called */
    bool failed;            /* the file could not be written again, which was told */
    int64_t failed_ms;
    struct train_log log;   /* for trainer_state.json of the next checkpoint */
    struct metrics_newest newest;
};

/* ---- metrics.jsonl ---- */

static json_t *number_or_null(double value) { return isfinite(value) ? json_real(value) : json_null(); }

/* When a line was written first. Wall time: for people and plots, and for nothing else; no digest covers this file. */
static void put_time(json_t *object, const char *stamp) {
    json_object_set_new(object, "time", stamp && *stamp ? json_string(stamp) : json_null());
}

static off_t print_line(FILE *file, json_t *object) {
    char *text = json_dumps(object, JSON_REAL_PRECISION(9));
    off_t size_bytes = text ? (off_t)strlen(text) + 1 : 0;
    if (text) fprintf(file, "%s\n", text);
    free(text);
    json_decref(object);
    return size_bytes;
}

static off_t print_step(struct context *c, FILE *file, const struct step_row *row, const char *stamp) {
    if (!train_log_due((uint64_t)c->config->training.logging_steps, c->max_steps, row->step)) return 0;
    json_t *object = json_object();
    json_object_set_new(object, "step", json_integer((json_int_t)row->step));
    json_object_set_new(object, "loss", number_or_null(row->loss));
    json_object_set_new(object, "learning_rate", json_real(row->learning_rate));
    json_object_set_new(object, "grad_norm", number_or_null(row->gradient_norm));
    json_object_set_new(object, "tokens_per_second", number_or_null(row->seconds > 0 ? (double)row->tokens / row->seconds : NAN));
    json_object_set_new(object, "epoch",
                        json_real((double)row->step * (double)c->config->training.global_batch / (double)c->train_sequences));
    if (row->skipped) json_object_set_new(object, "skipped", json_true());
    put_time(object, stamp);
    return print_line(file, object);
}

static off_t print_evaluation(FILE *file, const struct evaluation_row *row, const char *stamp) {
    json_t *object = json_object();
    json_object_set_new(object, "step", json_integer((json_int_t)row->step));
    json_object_set_new(object, "eval_loss", number_or_null(row->loss));
    json_object_set_new(object, "perplexity", number_or_null(exp(row->loss)));
    json_object_set_new(object, "eval_tokens", json_integer((json_int_t)row->tokens));
    put_time(object, stamp);
    return print_line(file, object);
}

/* ---- the checkpoint's log, and this process's ---- */

static void say_step(const struct context *c, const struct step_row *row) {
    if (!train_log_due((uint64_t)c->config->training.logging_steps, c->max_steps, row->step)) return;
    log_info("step %llu of %llu: loss %.4f, learning rate %.3e, gradient norm %.3f, %.0f tokens/s%s", (unsigned long long)row->step,
             (unsigned long long)c->max_steps, row->loss, row->learning_rate, row->gradient_norm,
             row->seconds > 0 ? (double)row->tokens / row->seconds : 0.0, row->skipped ? ", skipped" : "");
}

static void say_evaluation(const struct evaluation_row *row) {
    log_info("evaluation of step %llu: validation loss %.4f, perplexity %s, %llu token%s", (unsigned long long)row->step, row->loss,
             text_perplexity(row->loss, 2), (unsigned long long)row->tokens, plural(row->tokens));
}

static void log_step(struct context *c, const struct step_row *row) {
    train_log_add(&c->metrics->log, &(struct train_log_row){row->step, row->loss, row->learning_rate, row->gradient_norm, NAN, false});
}

static void log_evaluation(struct context *c, const struct evaluation_row *row) {
    train_log_add(&c->metrics->log, &(struct train_log_row){row->step, NAN, NAN, NAN, row->loss, true});
}

int metrics_log_print(struct context *c, struct buf *out, uint64_t step) {
    const struct config *config = c->config;
    double epochs_per_step = (double)config->training.global_batch / (double)c->train_sequences;
    struct trainer_facts facts = {
        .step = step,
        .max_steps = c->max_steps,
        .epochs_per_step = epochs_per_step,
        .num_train_epochs = (uint64_t)ceil((double)c->max_steps * epochs_per_step),
        .global_batch = (uint64_t)config->training.global_batch,
        .logging_steps = (uint64_t)config->training.logging_steps,
        .eval_steps = (uint64_t)config->training.eval_steps,
        .save_steps = (uint64_t)config->training.save_steps,
        .tokens_seen = steps_tokens(step, config->training.global_batch, config->dataset.sequence_length),
    };
    facts.total_flos = gpt2_flop(&c->model, (double)facts.tokens_seen, (double)config->dataset.sequence_length);
    return trainer_state_print(out, &facts, &c->metrics->log);
}

/* ---- the times of lines that are written anew ---- */

struct stamp {
    char text[32];
};

static struct stamp stamp_now(void) {
    struct stamp stamp;
    clock_stamp(stamp.text);
    return stamp;
}

struct line_time {
    uint64_t step;
    bool evaluation;
    char stamp[32];
};
struct line_times {
    struct line_time *line;
    size_t count;
};

static int by_line(const void *a, const void *b) {
    const struct line_time *x = a, *y = b;
    if (x->step != y->step) return x->step < y->step ? -1 : 1;
    return (int)x->evaluation - (int)y->evaluation;
}

static void take_time(struct line_times *times, const char *text) {
    json_t *object = json_loads(text, 0, NULL);
    const char *stamp = json_string_value(json_object_get(object, "time"));
    if (stamp) {
        if ((times->count & (times->count - 1)) == 0)
            times->line = mem_resize(times->line, (times->count ? 2 * times->count : 1) * sizeof *times->line);
        struct line_time *line = &times->line[times->count++];
        *line = (struct line_time){.step = (uint64_t)json_integer_value(json_object_get(object, "step")),
                                   .evaluation = json_object_get(object, "eval_tokens") != NULL};
        snprintf(line->stamp, sizeof line->stamp, "%s", stamp);
    }
    json_decref(object);
}

/* The times in the file that is about to be replaced; where it cannot be read, lines have none. Takes `file`, which may have lost its name,
 * or NULL: then the one of that name. */
static struct line_times read_times(FILE *file, const char *path) {
    struct line_times times = {0};
    if (file) rewind(file);
    else file = file_stream(path);
    char *line = NULL;
    size_t room = 0;
    while (file && getline(&line, &room, file) > 0) take_time(&times, line);
    free(line);
    if (file) fclose(file);
    if (times.count) qsort(times.line, times.count, sizeof *times.line, by_line);
    return times;
}

static const char *time_of(const struct line_times *times, uint64_t step, bool evaluation) {
    struct line_time key = {.step = step, .evaluation = evaluation};
    const struct line_time *found = times->count ? bsearch(&key, times->line, times->count, sizeof key, by_line) : NULL;
    return found ? found->stamp : NULL;
}

struct rewriting {
    struct context *c;
    FILE *file;
    struct evaluation_row *evaluation;
    size_t evaluations, next;
    struct line_times times;
};

static int collect_evaluation(void *arg, const struct evaluation_row *row) {
    struct rewriting *r = arg;
    r->evaluation = mem_resize(r->evaluation, (r->evaluations + 1) * sizeof *r->evaluation);
    r->evaluation[r->evaluations++] = *row;
    r->c->metrics->newest.eval_loss = row->loss;
    r->c->metrics->newest.eval_step = row->step;
    return 0;
}

/* For status. After a restart the rows of the ledger go through here too, so it is the same. */
static void note_newest(struct context *c, const struct step_row *row) {
    if (!row->skipped) c->metrics->newest.loss = row->loss;
    c->metrics->newest.rate = row->learning_rate;
    double rate = row->seconds > 0 ? (double)row->tokens / row->seconds : 0;
    c->metrics->newest.tokens_rate = c->metrics->newest.tokens_rate > 0 ? 0.8 * c->metrics->newest.tokens_rate + 0.2 * rate : rate;
}

/* A schedule that another version of this program understood in another way would go on with other rates than it began with. */
static int check_rate(const struct context *c, const struct step_row *row) {
    double rate = learning_rate(c->config, row->step, c->max_steps);
    if (rate == row->learning_rate) return 0;
    return err_set(ERR_CONFIG,
                   "step %llu was made at a learning rate of %s, where this version of millrace has %s for this pipeline; go on with "
                   "the version that began it, or run with --restart",
                   (unsigned long long)row->step, text_real(row->learning_rate), text_real(rate));
}

static int rewrite_step(void *arg, const struct step_row *row) {
    struct rewriting *r = arg;
    TRY(check_rate(r->c, row));
    print_step(r->c, r->file, row, time_of(&r->times, row->step, false));
    log_step(r->c, row);
    for (; r->next < r->evaluations && r->evaluation[r->next].step <= row->step; r->next++) {
        print_evaluation(r->file, &r->evaluation[r->next], time_of(&r->times, r->evaluation[r->next].step, true));
        log_evaluation(r->c, &r->evaluation[r->next]);
    }
    note_newest(r->c, row);
    return 0;
}

static int rewrite(struct context *c) {
    struct metrics *metrics = c->metrics;
    FILE *before = metrics->file;
    metrics->file = NULL;
    metrics->begun = true;
    metrics->newest.eval_loss = metrics->newest.loss = NAN;
    metrics->newest.rate = metrics->newest.tokens_rate = 0;
    metrics->newest.eval_step = 0;
    train_log_begin(&metrics->log, (uint64_t)c->config->training.logging_steps, c->max_steps);
    char *path = mem_format("%s/metrics.jsonl", c->config->output_dir), *text = NULL;
    size_t size;
    struct rewriting rewriting = {.c = c, .file = open_memstream(&text, &size), .times = read_times(before, path)};
    CHECK(rewriting.file != NULL);
    int code = store_evaluations(c->store, collect_evaluation, &rewriting);
    if (code == 0) code = store_steps(c->store, rewrite_step, &rewriting);
    fclose(rewriting.file);
    if (code == 0) code = file_publish(path, text, size);
    if (code == 0 && !(metrics->file = fopen(path, "a+e"))) code = err_errno("open %s", path);
    metrics->size_bytes = (off_t)size;
    free(text);
    free(rewriting.evaluation);
    free(rewriting.times.line);
    free(path);
    return code;
}

static void put_off(struct metrics *metrics, int64_t now) {
    if (!metrics->failed) log_warn("metrics.jsonl is not whole: %s", err_text());
    metrics->failed = true;
    metrics->failed_ms = now;
}

/* After a crash or a roll-back metrics.jsonl may have more or less than the ledger. A full disk stops no training for it: metrics_look()
 * tries again. */
int metrics_rewrite(struct context *c) {
    int code = rewrite(c);
    if (code != ERR_NOSPACE) return code;
    put_off(c->metrics, clock_ms());
    return 0;
}

/* Is it the file of that name, with all that was written to it? A disk that fails for a moment says nothing about it. */
static bool file_stands(const struct metrics *metrics, const char *path) {
    struct stat named, open;
    if (!metrics->file) return false;
    if (stat(path, &named) != 0) return errno != ENOENT;
    if (fstat(fileno(metrics->file), &open) != 0) return true;
    return named.st_dev == open.st_dev && named.st_ino == open.st_ino && named.st_size >= metrics->size_bytes;
}

void metrics_look(struct context *c, int64_t now) {
    struct metrics *metrics = c->metrics;
    if (!metrics->begun || (metrics->failed && now - metrics->failed_ms < AGAIN_MS)) return;
    char *path = mem_format("%s/metrics.jsonl", c->config->output_dir);
    bool stands = file_stands(metrics, path);
    free(path);
    if (stands) return;
    if (rewrite(c) < 0) {
        put_off(metrics, now);
        return;
    }
    metrics->failed = false;
    note_event(c, "metrics-again", "metrics.jsonl was gone, cut or replaced; it is written again");
}

void metrics_step(struct context *c, const struct step_row *row) {
    note_newest(c, row);
    log_step(c, row);
    say_step(c, row);
    if (!c->metrics->file) return;
    c->metrics->size_bytes += print_step(c, c->metrics->file, row, stamp_now().text);
    fflush(c->metrics->file);
}

void metrics_evaluation(struct context *c, const struct evaluation_row *row) {
    c->metrics->newest.eval_loss = row->loss;
    c->metrics->newest.eval_step = row->step;
    log_evaluation(c, row);
    say_evaluation(row);
    if (!c->metrics->file) return;
    c->metrics->size_bytes += print_evaluation(c->metrics->file, row, stamp_now().text);
    fflush(c->metrics->file);
}

const struct metrics_newest *metrics_newest(const struct context *c) { return &c->metrics->newest; }

void metrics_open(struct context *c) {
    c->metrics = mem_alloc(sizeof *c->metrics);
    c->metrics->newest.loss = c->metrics->newest.eval_loss = NAN;
}

void metrics_close(struct context *c) {
    if (!c->metrics) return;
    if (c->metrics->file) fclose(c->metrics->file);
    train_log_free(&c->metrics->log);
    free(c->metrics);
    c->metrics = NULL;
}
