/* What goes on, as JSON: answered to `millrace status`, and kept in state/status.json for when nobody answers any more. Reads every part,
 * changes none. Owns the text that was printed last and the longest pause of the loop. A function for each object, status_print() puts
 * them together. */
#include "coordinator/status.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/plain.h"
#include "base/process.h"
#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/dispatch.h"
#include "coordinator/evaluating.h"
#include "coordinator/metrics.h"
#include "coordinator/queue.h"
#include "coordinator/repair.h"
#include "coordinator/restart.h"
#include "coordinator/roster.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"
#include "coordinator/training.h"
#include "coordinator/waiting.h"
#include "dataset/ingest/left_out.h"
#include "dataset/source/sources.h"
#include "model/gpt2/gpt2.h"
#include "proto/link.h"
#include "proto/steps.h"

enum { STATUS_GROWS_BYTES = 2 * ERR_TEXT_BYTES }; /* by a reason, say, before more room is reserved */

/* For those who ask. */
struct status_text {
    struct buf text;
    int64_t printed_ms;
    uint64_t turn;                 /* of the loop, and how many got it in that */
    unsigned given;
    uint64_t turns;                /* of the loop, so far */
    int64_t longest_pause_ms;      /* the longest time for which it answered nobody */
    size_t reserved_bytes;         /* for the last status.json */
};

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }
static json_t *count(uint64_t value) { return json_integer((json_int_t)value); }

/* Of peers, perhaps: JSON would leave out what is not UTF-8, and a screen would obey the rest. */
static json_t *words(const char *text) {
    char plain[2 * ERR_TEXT_BYTES]; /* escaped */
    plain_text(plain, sizeof plain, text, true);
    return json_string(plain);
}

static json_t *digest(const uint8_t bytes[SHA256_BYTES]) {
    char hex[SHA256_HEX];
    hex_of(hex, bytes, SHA256_BYTES);
    return json_string(hex);
}

static const char *state_text(const struct context *c) {
    if (c->stage == STAGE_DONE) return "done";
    if (c->stage == STAGE_FAILED) return "failed";
    if (c->ended) return "stopped";
    return c->stopping ? "stopping" : "running";
}

/* `run` starts workers when this is true: not while a dataset that is there is only checked, nor for a run that is done. */
static bool needs_workers(const struct context *c) {
    if (c->ended || c->stage > STAGE_TRAIN) return false;
    return c->stage == STAGE_TRAIN || repair_goes_on(c) || !c->dataset->has_manifest;
}

/* The state of training when a dataset alone was asked for: what an earlier command left. */
static const char *training_before(const struct context *c) {
    uint64_t done = 0, sequences = c->dataset->manifest.train_sequences;
    uint64_t total = steps_total(c->config->training.max_steps, c->config->training.num_train_epochs, sequences,
                                 c->config->training.global_batch);
    if (store_step_newest(c->store, &done) < 0 || done == 0) return "not started";
    return done < total ? "stopped" : "done";
}

/* Then it has no speed. */
static bool nothing_goes_on(const struct context *c) { return training_stands(c) || *waiting_for(c) || *paused_why(c); }

struct pace {
    double rate;        /* of c->progress, a second; 0: not known, or nothing goes on */
    double eta_seconds; /* NAN: not known */
};

/* From the time of the last thing that was done, so that the rate does not fall while the next one is under way. The time left shrinks
 * meanwhile, but not below what all but that next one take. */
static struct pace pace_of(const struct context *c) {
    const struct progress *p = &c->progress;
    struct pace pace = {.eta_seconds = NAN};
    double taken = (double)(waiting_since_ms(c) - p->began_ms) / 1000, since = (double)(clock_ms() - waiting_since_ms(c)) / 1000;
    if (nothing_goes_on(c) || taken <= 0 || p->done <= p->done_at_start) return pace;
    pace.rate = (double)(p->done - p->done_at_start) / taken;
    double left = (double)(p->total > p->done ? p->total - p->done : 0) / pace.rate;
    pace.eta_seconds = fmax(fmax(left - since, left - 1 / pace.rate), 0);
    return pace;
}

static json_t *stage(const struct context *c, enum stage which, const char *unit) {
    json_t *object = json_object();
    json_object_set_new(object, "name", json_string(stage_name(which)));
    enum stage at = c->stage == STAGE_FAILED ? c->failed_in : c->stage;
    const char *here = c->stage == STAGE_FAILED ? "failed" : c->ended ? "stopped" : "running";
    const char *state = at > which ? "done" : at < which ? "waiting" : here;
    if (which == STAGE_TRAIN && at == STAGE_DONE && !c->trainer) state = training_before(c);
    json_object_set_new(object, "state", json_string(state));
    if (at != which) return object;
    bool is_made = which == STAGE_PACK && c->dataset->has_manifest;
    if (is_made) json_object_set_new(object, "doing", json_string("checking"));
    const struct progress *p = &c->progress;
    struct pace pace = pace_of(c);
    json_object_set_new(object, "done", count(p->done));
    json_object_set_new(object, "total", count(p->total));
    json_object_set_new(object, "unit", json_string(unit));
    json_object_set_new(object, "rate", number(pace.rate));
    json_object_set_new(object, "eta_seconds", number(pace.eta_seconds));
    const struct queue *queue = dispatch_queue(c);
    if (queue) {
        json_object_set_new(object, "jobs_pending", count(queue->pending));
        json_object_set_new(object, "jobs_leased", count(queue->leased));
        json_object_set_new(object, "jobs_done", count(queue->done));
        json_object_set_new(object, "jobs_failed", count(queue->failed));
    }
    return object;
}

static json_t *worker(const struct context *c, const struct worker_entry *w) {
    static const char *const states[] = {"joining", "ready", "busy", "lost", "left"};
    json_t *object = json_object();
    json_object_set_new(object, "id", words(w->id));
    json_object_set_new(object, "pid", count(w->pid));
    json_object_set_new(object, "host", words(w->host));
    json_object_set_new(object, "state", json_string(states[w->state]));
    json_object_set_new(object, "set_aside", w->aside[0] ? words(w->aside) : json_null());
    json_object_set_new(object, "endpoint", words(w->endpoint));
    json_object_set_new(object, "build", words(w->build));
    json_object_set_new(object, "jobs_done", count(w->jobs_done));
    json_object_set_new(object, "slices_done", count(w->slices_done));
    json_object_set_new(object, "slice_ms", w->compute_ms ? count(w->compute_ms) : json_null()); /* none yet, or it has left */
    json_object_set_new(object, "rss_bytes", count(w->rss_bytes));
    json_object_set_new(object, "heard_ms_ago", count((uint64_t)(clock_ms() - w->heard_ms)));
    bool barred = training_barred(c, (uint32_t)(w - c->worker));
    json_object_set_new(object, "unreached", barred ? json_string(w->unreached) : json_null());
    const struct member *m = c->trainer ? trainer_member(c->trainer, (uint32_t)(w - c->worker)) : NULL;
    if (m) {
        json_t *slices = json_array(), *missing = json_array();
        for (uint32_t s = 0; s < c->trainer->options.slices; s++) {
            if (!m->in_view || !slice_in(&m->assigned, s)) continue;
            json_array_append_new(slices, count(s));
            if (!slice_in(&m->held, s)) json_array_append_new(missing, count(s));
        }
        json_object_set_new(object, "slices", slices);
        json_object_set_new(object, "slices_missing", missing);
        json_object_set_new(object, "in_view", json_boolean(m->in_view));
        json_object_set_new(object, "reduced", json_boolean(m->in_view && m->reduced));
        json_object_set_new(object, "left_out", json_boolean(m->left_out));
        bool joins = m->state == MEMBER_JOINING;
        json_object_set_new(object, "join_rests_ms", joins ? count((uint64_t)(clock_ms() - m->moved_ms)) : json_null());
    }
    return object;
}

static json_t *warnings(const struct context *c, void (*collect)(const struct context *c, struct buf *out)) {
    json_t *list = json_array();
    struct buf text = {0};
    collect(c, &text);
    for (char *line = text.size ? strtok((char *)text.data, "\n") : NULL; line; line = strtok(NULL, "\n"))
        json_array_append_new(list, words(line));
    buf_free(&text);
    return list;
}

static void training_warnings_all(const struct context *c, struct buf *out) {
    training_warnings(c, out);
    buf_append(out, c->lost.data, c->lost.size);
}

static json_t *evaluation(const struct context *c) {
    json_t *object = json_object();
    struct evaluating_progress p = evaluating_progress(c);
    double seconds = (double)(clock_ms() - p.began_ms) / 1000, rate = seconds > 0 ? (double)p.done / seconds : 0;
    json_object_set_new(object, "step", count(p.step));
    json_object_set_new(object, "done", count(p.done));
    json_object_set_new(object, "total", count(p.total));
    json_object_set_new(object, "unit", json_string("sequences"));
    json_object_set_new(object, "rate", number(rate));
    json_object_set_new(object, "eta_seconds", rate > 0 ? number((double)(p.total - p.done) / rate) : json_null());
    return object;
}

static json_t *training(const struct context *c) {
    static const char *const phases[] = {"waiting for workers", "running", "finished", "failed"};
    const struct trainer *t = c->trainer;
    const struct metrics_newest *newest = metrics_newest(c);
    json_t *object = json_object();
    json_object_set_new(object, "step", count(t->committed));
    json_object_set_new(object, "max_steps", count(c->max_steps));
    json_object_set_new(object, "doing",
                        json_string(c->stage == STAGE_DONE ? "finished"
                                    : t->evaluating        ? "evaluating"
                                                           : phases[t->phase]));
    if (t->evaluating && dispatch_queue(c)) json_object_set_new(object, "evaluation", evaluation(c));
    json_object_set_new(object, "began_at", training_began(c) ? count(c->progress.done_at_start) : json_null());
    json_object_set_new(object, "saved_step", count(t->checkpoint));
    struct rolled_back back = training_rolled_back(c);
    if (back.number)
        json_object_set_new(object, "rolled_back", json_pack("{sI sI sI}", "number", (json_int_t)back.number, "first",
                                                             (json_int_t)back.first, "last", (json_int_t)back.last));
    json_object_set_new(object, "warnings", warnings(c, training_warnings_all));
    json_object_set_new(object, "saving", json_boolean(t->saving));
    json_object_set_new(object, "loss", number(newest->loss));
    json_object_set_new(object, "learning_rate", number(newest->rate));
    bool known = newest->tokens_rate > 0 && !nothing_goes_on(c);
    json_object_set_new(object, "tokens_per_second", known ? number(newest->tokens_rate) : json_null());
    json_object_set_new(object, "step_slices_done", count(t->phase == TRAINER_RUN ? slice_count(&t->counted) : 0));
    json_object_set_new(object, "renewals", count(t->renewals));
    bool computes = t->phase == TRAINER_RUN && t->view_sent;
    json_object_set_new(object, "step_rests_ms", computes ? count((uint64_t)(clock_ms() - t->progress_ms)) : json_null());
    json_object_set_new(object, "patience_ms", count((uint64_t)(t->options.patience_ms << t->doubled)));
    json_object_set_new(object, "eval_loss", number(newest->eval_loss));
    json_object_set_new(object, "eval_step", count(newest->eval_step));
    json_object_set_new(object, "perplexity", number(exp(newest->eval_loss)));
    json_object_set_new(object, "bad_steps", count(t->bad_steps));
    json_object_set_new(object, "checkpoint", c->newest_path ? json_string(c->newest_path) : json_null());
    json_object_set_new(object, "slices", count(t->options.slices));
    return object;
}

static json_t *account(const struct context *c) {
    return left_out_json(c->dataset->manifest.account, c->dataset->manifest.dropped, c->dataset->manifest.drops);
}

/* How much of a dataset that is made again was there already. */
static json_t *remade(const struct context *c) {
    const struct remade *r = &c->remade;
    json_t *object = json_object();
    json_object_set_new(object, "why", *r->why ? words(r->why) : json_null());
    json_object_set_new(object, "jobs", count(r->jobs));
    json_object_set_new(object, "jobs_kept", count(r->jobs_kept));
    json_object_set_new(object, "shards_kept", count(r->shards_kept));
    return object;
}

static json_t *dataset(const struct context *c) {
    json_t *object = json_object();
    const struct dataset *d = c->dataset;
    json_object_set_new(object, "warnings", warnings(c, dataset_warnings));
    if (c->remade.jobs && (c->remade.jobs_kept || *c->remade.why)) json_object_set_new(object, "remade", remade(c));
    json_object_set_new(object, "repairs", count(d->repairs));
    if (d->repairs) json_object_set_new(object, "repaired", words((const char *)d->repaired.data));
    json_object_set_new(object, "documents", count(c->dataset->manifest.documents));
    json_object_set_new(object, "tokens", count(c->dataset->manifest.tokens));
    json_object_set_new(object, "train_tokens", count(c->dataset->manifest.train_tokens));
    json_object_set_new(object, "sequences", count(c->dataset->manifest.sequences));
    json_object_set_new(object, "shards", count(c->dataset->manifest.shards));
    json_object_set_new(object, "replaced", count(c->dataset->manifest.replaced));
    json_object_set_new(object, "digest", digest(c->dataset->manifest.digest));
    if (c->dataset->sources_changed[0]) json_object_set_new(object, "sources_changed", json_string(c->dataset->sources_changed));
    if (c->dataset->trained_on_other) json_object_set_new(object, "trained_on", digest(c->dataset->trained.digest));
    json_object_set_new(object, "prepared", c->prepared ? words(c->dataset_folder) : json_null());
    json_object_set_new(object, "account", account(c));
    return object;
}

static json_t *result(const struct context *c) {
    json_t *object = json_object();
    json_object_set_new(object, "state", json_string(state_text(c)));
    json_object_set_new(object, "steps", count(c->trainer ? c->trainer->committed : 0));
    bool other = c->dataset->trained_on_other;
    json_object_set_new(object, "dataset_digest", digest(other ? c->dataset->trained.digest : c->dataset->manifest.digest));
    json_object_set_new(object, "account", other ? json_null() : account(c));
    json_t *all = warnings(c, dataset_warnings), *others = c->trainer ? warnings(c, training_warnings_all) : json_array();
    json_array_extend(all, others);
    if (c->restarted) json_array_append_new(all, json_string(RESTART_FINISHED));
    json_decref(others);
    json_object_set_new(object, "warnings", all);
    if (!c->trainer) { /* stopped after the dataset, as was asked */
        json_object_set_new(object, "dataset", json_string(c->dataset_folder));
        return object;
    }
    json_object_set_new(object, "weights_digest", digest(c->weights_digest));
    json_object_set_new(object, "train_loss", number(metrics_newest(c)->loss));
    json_object_set_new(object, "eval_loss", number(metrics_newest(c)->eval_loss));
    json_object_set_new(object, "checkpoint", c->newest_path ? json_string(c->newest_path) : json_null());
    return object;
}

static json_t *passed_over(const struct source_passed *passed) {
    json_t *object = json_object();
    json_object_set_new(object, "place", json_string(passed->path));
    json_object_set_new(object, "why", json_string(passed->why));
    json_object_set_new(object, "others", json_boolean(passed->others));
    return object;
}

int status_print(struct context *c, struct buf *out) {
    json_t *object = json_object(), *stages = json_array(), *workers = json_array(), *passed = json_array();
    json_object_set_new(object, "run_name", json_string(c->config->run_name));
    json_object_set_new(object, "state", json_string(state_text(c)));
    if (c->reason[0]) json_object_set_new(object, "reason", words(c->reason));
    const char *awaited = *paused_why(c) ? paused_why(c) : waiting_for(c);
    if (*awaited) json_object_set_new(object, "waiting_for", words(awaited));
    json_object_set_new(object, "stalled_ms", *waiting_for(c) ? count((uint64_t)(clock_ms() - waiting_since_ms(c))) : json_null());
    json_object_set_new(object, "needs_workers", json_boolean(needs_workers(c)));
    if (c->restarted) json_object_set_new(object, "restarted", json_string(RESTART_FINISHED));
    json_object_set_new(object, "output_dir", json_string(c->config->output_dir));
    json_object_set_new(object, "endpoint", json_string(link_endpoint(c->link)));
    json_object_set_new(object, "pid", count((uint64_t)getpid()));
    json_object_set_new(object, "generation", count(c->generation));
    json_object_set_new(object, "longest_pause_ms", count((uint64_t)c->status_text->longest_pause_ms));
    json_object_set_new(object, "parameters", count(gpt2_parameters(&c->model)));
    for (size_t i = 0; i < c->sources->passed_count; i++) json_array_append_new(passed, passed_over(&c->sources->passed[i]));
    json_object_set_new(object, "not_sources", passed);
    json_array_append_new(stages, stage(c, STAGE_TOKENIZE, "bytes"));
    json_array_append_new(stages, stage(c, STAGE_PACK, "tokens"));
    json_array_append_new(stages, stage(c, STAGE_TRAIN, "steps"));
    json_object_set_new(object, "stages", stages);
    for (size_t i = 0; i < c->workers; i++) json_array_append_new(workers, worker(c, &c->worker[i]));
    json_object_set_new(object, "workers", workers);
    if (c->dataset->has_manifest) json_object_set_new(object, "dataset", dataset(c));
    if (c->trainer) json_object_set_new(object, "training", training(c));
    if (c->stage == STAGE_DONE) json_object_set_new(object, "result", result(c));
    char *text = json_dumps(object, JSON_REAL_PRECISION(9));
    json_decref(object);
    if (!text) return err_set(ERR_MEMORY, "the status could not be printed");
    int code = buf_append(out, text, strlen(text));
    free(text);
    return code;
}

/* Whoever asks again and again gets what was printed a moment ago, and in one turn of the loop only some get anything: ZeroMQ takes
 * messages of its peers in turn, so it is not always the same ones who ask again in vain. */
const char *status_answer(struct context *c) {
    struct status_text *a = c->status_text;
    int64_t now = clock_ms();
    if (a->turn != a->turns) a->given = 0;
    a->turn = a->turns;
    if (a->given == STATUS_ANSWERS_MAX) return NULL;
    a->given++;
    if (!a->text.size || now - a->printed_ms >= STATUS_FRESH_MS) {
        buf_clear(&a->text);
        a->printed_ms = now;
        if (status_print(c, &a->text) < 0) return NULL;
    }
    return (const char *)a->text.data;
}

/* ---- state/status.json ---- */

static bool put(const char *path, const char *text, size_t size_bytes) {
    char *draft = mem_format("%s.draft", path);
    FILE *file = fopen(draft, "we");
    bool written = file && fwrite(text, 1, size_bytes, file) == size_bytes;
    if (file && fclose(file) != 0) written = false;
    if (written && rename(draft, path) != 0) written = false;
    if (file && !written) {
        log_debug("%s could not be written", path);
        unlink(draft);
    }
    free(draft);
    return written;
}

/* A disk that fills up must still have room for the last status, which tells how far the run came: a file of that size is there until then.
 * Best effort, as all of this. */
static void reserve(struct status_text *t, const char *path, size_t size_bytes) {
    size_bytes += STATUS_GROWS_BYTES;
    if (size_bytes <= t->reserved_bytes) return;
    char *reserved = mem_format("%s" STATUS_RESERVE, path);
    int fd = open(reserved, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0 && posix_fallocate(fd, 0, (off_t)(size_bytes + STATUS_GROWS_BYTES)) == 0)
        t->reserved_bytes = size_bytes + STATUS_GROWS_BYTES;
    if (fd >= 0) close(fd);
    free(reserved);
}

void status_put_last(const char *path, const char *text, size_t size_bytes) {
    char *reserved = mem_format("%s" STATUS_RESERVE, path);
    bool written = put(path, text, size_bytes);
    unlink(reserved);
    if (!written) put(path, text, size_bytes);
    free(reserved);
}

/* Best effort, and not durable: the store knows better. */
static void write_status(struct context *c, bool last) {
    struct buf text = {0};
    char *path = mem_format("%s/status.json", c->state_folder);
    bool printed = status_print(c, &text) == 0;
    if (printed && last) status_put_last(path, (const char *)text.data, text.size);
    else if (printed && put(path, (const char *)text.data, text.size)) reserve(c->status_text, path, text.size);
    buf_free(&text);
    free(path);
}

void status_write(struct context *c) { write_status(c, false); }

void status_write_last(struct context *c) {
    struct buf text = {0};
    write_status(c, true);
    if (c->outcome == 0 && status_print(c, &text) == 0 && buf_append(&text, "", 1) == 0) process_last_words((const char *)text.data);
    buf_free(&text);
}

void status_turn(struct context *c, int64_t pause_ms) {
    struct status_text *t = c->status_text;
    if (pause_ms > t->longest_pause_ms) t->longest_pause_ms = pause_ms;
    t->turns++;
}

int64_t status_longest_pause_ms(const struct context *c) { return c->status_text->longest_pause_ms; }

void status_open(struct context *c) { c->status_text = mem_alloc(sizeof *c->status_text); }

void status_close(struct context *c) {
    if (!c->status_text) return;
    buf_free(&c->status_text->text);
    free(c->status_text);
    c->status_text = NULL;
}
