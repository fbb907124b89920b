/* Three things. status_get() asks the coordinator for the status of a run, or reads what it wrote last. status_show() prints one, key by
 * key: a new key is shown when it is named there. struct follower turns one status after the other, and the new lines of metrics.jsonl,
 * into lines on standard error: it keeps which lines have been shown, so that each is shown once. Decides nothing about the run. */
#include "cli/follow.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/plain.h"
#include "cli/account.h"
#include "cli/status_file.h"
#include "coordinator/output.h"
#include "proto/endpoint.h"
#include "proto/link.h"

enum { ASK_AGAIN_MS = 500 };

/* ---- the status ---- */

/* Text from a coordinator must not control the terminal: escapes are made visible. */
static void make_plain(json_t *value) {
    const char *key;
    size_t i;
    json_t *inner;
    if (json_is_string(value) && !plain_is(json_string_value(value))) {
        size_t room = 6 * json_string_length(value) + 1; /* an escaped character is at most that long */
        char *plain = mem_alloc(room);
        plain_text(plain, room, json_string_value(value), true);
        json_string_set(value, plain);
        free(plain);
    }
    json_object_foreach(value, key, inner) make_plain(inner);
    json_array_foreach(value, i, inner) make_plain(inner);
}

static int parse(json_t **out, const char *text, size_t size, const char *from) {
    json_error_t fault;
    *out = json_loadb(text, size, 0, &fault);
    if (!*out) return err_set(ERR_CORRUPT, "%s: %s", from, fault.text);
    make_plain(*out);
    return 0;
}

static int ask(json_t **out, const char *endpoint, int timeout_ms) {
    struct link *link;
    if (endpoint_refuses(endpoint, timeout_ms)) return err_set(ERR_NOTFOUND, "nobody listens at %s", endpoint);
    TRY(link_open(&link, &(struct link_options){.insecure = true}));
    Millrace__Ask body = MILLRACE__ASK__INIT;
    body.what = "status";
    uint64_t peer = 0;
    struct frame frame;
    int code = link_connect(link, &peer, endpoint);
    int64_t now = clock_ms(), until = now + timeout_ms, again = now;
    bool answered = false;
    for (; code == 0 && !answered && now < until; now = clock_ms()) {
        struct message message;
        if (now >= again) { /* the question or its answer may be lost */
            code = frame_pack(&frame, &(struct envelope){.kind = MILLRACE__KIND__ASK, .job = 1}, &body.base, NULL, 0, FRAME_NONE);
            if (code == 0) code = link_send(link, peer, &frame);
            again = now + ASK_AGAIN_MS;
        }
        int got = link_receive(link, &peer, &message, (int)((again < until ? again : until) - now));
        if (got < 0) code = got;
        if (got != 1) continue;
        const Millrace__Told *told = (const Millrace__Told *)message.body;
        if (message.envelope.kind == MILLRACE__KIND__TOLD && *told->json) {
            code = parse(out, told->json, strlen(told->json), endpoint);
            answered = true;
        }
        message_free(&message);
    }
    if (peer) link_disconnect(link, peer); /* a question that was not heard is not waited for */
    link_close(link);
    return code < 0 ? code : answered ? 0 : err_set(ERR_TIMEOUT, "the coordinator at %s does not answer", endpoint);
}

int status_get(json_t **out, const char *output_dir, int timeout_ms) {
    struct buf endpoint = {0};
    int code = output_endpoint(&endpoint, output_dir);
    if (code == 0) code = ask(out, (const char *)endpoint.data, timeout_ms);
    if (code == 0 && !status_is_of(*out, output_dir)) {
        json_decref(*out);
        code = err_set(ERR_NOTFOUND, "another run's coordinator is at that address");
    }
    buf_free(&endpoint);
    return code == 0 ? 0 : status_read(out, output_dir);
}

static double real(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static uint64_t whole(const json_t *object, const char *key) { return (uint64_t)json_integer_value(json_object_get(object, key)); }

static const char *text(const json_t *object, const char *key) {
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

/* "45.1 %  5.2 MB of 11.5 MB  8.1 MB/s  ETA 1 s"; without a rate before anything is done, and without an ETA when all is. */
static void print_progress(char *out, size_t size, const json_t *stage) {
    double done = real(stage, "done"), total = real(stage, "total"), rate = real(stage, "rate"), eta = real(stage, "eta_seconds");
    double percent = total > 0 ? 100 * done / total : 100;
    const char *unit = text(stage, "unit");
    bool bytes = strcmp(unit, "bytes") == 0;
    char speed[64] = "", left[64] = "";
    if (rate > 0 && bytes) snprintf(speed, sizeof speed, "  %s/s", text_bytes(rate));
    else if (rate > 0 && rate < 100) snprintf(speed, sizeof speed, "  %.2f/s", rate);
    else if (rate > 0) snprintf(speed, sizeof speed, "  %s/s", text_count((uint64_t)rate));
    if (isfinite(eta) && done < total) snprintf(left, sizeof left, "  ETA %s", text_seconds(fmax(eta, 1))); /* 0 s would be over */
    if (bytes) snprintf(out, size, "%5.1f %%  %s of %s%s%s", percent, text_bytes(done), text_bytes(total), speed, left);
    else
        snprintf(out, size, "%5.1f %%  %s of %s %.*s%s%s", percent, text_count((uint64_t)done), text_count((uint64_t)total),
                 (int)strlen(unit) - (total == 1), unit, speed, left); /* "1 of 1 step" */
}

/* The state of these steps is with workers alone, who may be gone; or their checkpoint is gone. */
static bool is_in_doubt(const json_t *training) {
    const char *doing = text(training, "doing");
    bool rests = strcmp(doing, "waiting for workers") == 0 || strcmp(doing, "stopped") == 0 || strcmp(doing, "finished") == 0;
    return rests && json_object_get(training, "saved_step") && whole(training, "step") > whole(training, "saved_step");
}

static void show_unsaved(const json_t *training) {
    if (is_in_doubt(training))
        printf("  unsaved   steps %s to %s: they are made again unless a worker still holds them\n",
               text_count(whole(training, "saved_step") + 1), text_count(whole(training, "step")));
}

void status_show(const json_t *status) {
    printf("%s: %s", text(status, "run_name"), text(status, "state"));
    if (*text(status, "reason")) printf(" (%s)", text(status, "reason"));
    printf("\n  output    %s\n", text(status, "output_dir"));
    if (*text(status, "restarted")) printf("  restart   %s\n", text(status, "restarted"));
    if (*text(status, "waiting_for")) printf("  waiting   %s\n", text(status, "waiting_for"));
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(status, "stages"), i, item) {
        char progress[200] = "";
        if (json_object_get(item, "total")) print_progress(progress, sizeof progress, item);
        const char *state = text(item, *text(item, "doing") ? "doing" : "state");
        if (*progress) printf("  %-9s %-8s %s\n", text(item, "name"), state, progress);
        else printf("  %-9s %s\n", text(item, "name"), state);
    }
    json_array_foreach(json_object_get(json_object_get(status, "dataset"), "warnings"), i, item)
        printf("  warning   %s\n", json_string_value(item));
    const json_t *training = json_object_get(status, "training");
    if (training) {
        printf("  step      %s of %s, %s", text_count(whole(training, "step")), text_count(whole(training, "max_steps")),
               text(training, "doing"));
        const json_t *evaluation = json_object_get(training, "evaluation");
        if (evaluation) printf(" %s of %s sequence%s", text_count(whole(evaluation, "done")), text_count(whole(evaluation, "total")),
                               plural(whole(evaluation, "total")));
        if (isfinite(real(training, "loss"))) printf(", loss %.4f", real(training, "loss"));
        if (isfinite(real(training, "eval_loss")))
            printf(", validation loss %.4f (perplexity %s)", real(training, "eval_loss"), text_perplexity(real(training, "eval_loss"), 2));
        uint64_t rate = (uint64_t)fmax(real(training, "tokens_per_second"), 0);
        if (rate) printf(", %s token%s/s", text_count(rate), plural(rate));
        printf("\n");
        if (*text(training, "checkpoint")) printf("  saved     %s\n", text(training, "checkpoint"));
        show_unsaved(training);
        json_array_foreach(json_object_get(training, "warnings"), i, item) printf("  warning   %s\n", json_string_value(item));
    }
    json_array_foreach(json_object_get(status, "workers"), i, item) {
        char speed[48] = "";
        if (whole(item, "slice_ms")) snprintf(speed, sizeof speed, ", %llu ms a slice", (unsigned long long)whole(item, "slice_ms"));
        printf("  worker    %-20s pid %-7llu %-10s %-8s slices %llu, jobs %llu%s\n", text(item, "id"),
               (unsigned long long)whole(item, "pid"), text(item, "host"), text(item, "state"),
               (unsigned long long)whole(item, "slices_done"), (unsigned long long)whole(item, "jobs_done"), speed);
        if (*text(item, "set_aside")) printf("            set aside: %s\n", text(item, "set_aside"));
        if (*text(item, "unreached")) printf("            not in the step: %s\n", text(item, "unreached"));
    }
}

/* ---- live progress ---- */

struct follower {
    char *metrics;            /* path */
    ino_t inode;
    long offset;
    uint64_t last_step, last_evaluation;
    uint64_t generation, backs;      /* of the coordinator whose roll-backs were shown, and how many of them */
    int64_t quiet_waiting_ms;   /* when it was last said that something is waited for, though all else is not; 0: never */
    bool quiet, terminal, told_restart, told_dataset, told_account, told_passed, told_begin, told_steps, line_open;
    bool stopping, told_saving, told_silence;
    int64_t shown_ms, evaluating_ms; /* since when this evaluation; 0: there is none */
    int64_t silent_ms;               /* since when the coordinator does not answer; 0: it does */
    char *checkpoint;         /* the newest one that was shown; NULL: not looked yet */
    char *saved;              /* one to be shown, of saved_step, before the lines of later steps; NULL: none */
    uint64_t saved_step;
    char stage[16], waiting[700];
    char unit[16];            /* of the stage, and how much of it there is in all */
    double total;
    bool stage_whole;         /* its end was shown */
    uint64_t max_steps;
    double rate; /* steps a second; NAN: not known */
};

static void say(struct follower *f, const char *line) {
    if (f->quiet) return;
    if (f->line_open) fprintf(stderr, "\r\033[K");
    f->line_open = false;
    fprintf(stderr, "%s\n", line);
}

static uint64_t checkpoint_step(const char *path) {
    const char *number = strrchr(path, '-');
    return number ? strtoull(number + 1, NULL, 10) : 0;
}

static void tell_saved(struct follower *f) {
    if (!f->saved) return;
    char *line = mem_format("saved     %s", f->saved);
    say(f, line);
    free(line);
    free(f->checkpoint);
    f->checkpoint = f->saved;
    f->saved = NULL;
}

static void show_metrics_line(struct follower *f, const char *line, bool silently) {
    json_t *object = json_loads(line, 0, NULL);
    if (!object) return;
    uint64_t step = whole(object, "step");
    bool evaluation = json_object_get(object, "eval_loss") != NULL;
    uint64_t *last = evaluation ? &f->last_evaluation : &f->last_step;
    bool eta = !f->terminal && f->rate > 0 && step < f->max_steps && !f->stopping; /* on a terminal the line below has it */
    uint64_t rate = (uint64_t)fmax(real(object, "tokens_per_second"), 0);
    char out[256];
    if (step > *last) {
        *last = step;
        f->told_steps |= !silently && !evaluation;
        if (f->saved && !evaluation && step > f->saved_step) tell_saved(f);
        if (evaluation)
            snprintf(out, sizeof out, "step %6s  validation loss %.4f  perplexity %s", text_count(step),
                     real(object, "eval_loss"), text_perplexity(real(object, "eval_loss"), 2));
        else
            snprintf(out, sizeof out, "step %6s%s%s  loss %.4f  lr %.2e  norm %.3f  %s token%s/s%s%s", text_count(step),
                     f->max_steps ? " of " : "", f->max_steps ? text_count(f->max_steps) : "", real(object, "loss"),
                     real(object, "learning_rate"), real(object, "grad_norm"),
                     text_count(rate), plural(rate), eta ? "  ETA " : "",
                     eta ? text_seconds(fmax((double)(f->max_steps - step) / f->rate, 1)) : "");
        if (!silently) say(f, out);
    }
    json_decref(object);
}

static void read_metrics(struct follower *f, bool silently) {
    FILE *file = file_stream(f->metrics);
    struct stat st;
    if (!file) return;
    if (fstat(fileno(file), &st) == 0 && (st.st_ino != f->inode || st.st_size < f->offset)) { /* written anew: a roll-back or a resume */
        f->inode = st.st_ino;
        f->offset = 0;
    }
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    fseek(file, f->offset, SEEK_SET);
    while ((n = getline(&line, &room, file)) > 0 && line[n - 1] == '\n') {
        f->offset += n;
        show_metrics_line(f, line, silently);
    }
    free(line);
    fclose(file);
}

struct follower *follower_open(const char *output_dir, bool quiet) {
    struct follower *f = mem_alloc(sizeof *f);
    f->metrics = mem_format("%s/metrics.jsonl", output_dir);
    f->quiet = quiet;
    f->terminal = isatty(STDERR_FILENO);
    f->rate = NAN;
    read_metrics(f, true); /* an earlier part of the run was shown then */
    return f;
}

static const json_t *running_stage(const json_t *status) {
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(status, "stages"), i, item)
        if (strcmp(text(item, "state"), "running") == 0) return item;
    return NULL;
}

enum {
    EVERY_MS = 2000,
    EVALUATION_EVERY_MS = 10000, /* lines of progress where no terminal can write over them */
    SILENCE_MS = 3000,           /* a shorter one is nothing that a person can do something about */
};

static void show_line(struct follower *f, const char *line, int64_t every_ms) {
    if (f->quiet) return;
    if (f->terminal) {
        fprintf(stderr, "\r\033[K%s", line);
        f->line_open = true;
    } else if (clock_ms() - f->shown_ms >= every_ms) {
        f->shown_ms = clock_ms();
        say(f, line);
    }
}

/* True during an evaluation: no step is done meanwhile, and the run must not look as if it hung. */
static bool show_evaluation(struct follower *f, const json_t *status) {
    const json_t *evaluation = json_object_get(json_object_get(status, "training"), "evaluation");
    if (!evaluation) {
        f->evaluating_ms = 0;
        return false;
    }
    if (f->evaluating_ms == 0) f->evaluating_ms = f->shown_ms = clock_ms(); /* a short one needs no line of its own */
    char progress[200], line[256];
    print_progress(progress, sizeof progress, evaluation);
    snprintf(line, sizeof line, "evaluate  %s", progress);
    show_line(f, line, EVALUATION_EVERY_MS);
    return true;
}

/* The end of one that was shown on the way. Training ends with a line of its own, a look through what is there with none. */
static void show_stage_end(struct follower *f, const json_t *status) {
    size_t i;
    const json_t *stage;
    bool told = f->stage_whole || !*f->stage || strcmp(f->stage, "train") == 0 || strcmp(f->stage, "check") == 0;
    json_array_foreach(json_object_get(status, "stages"), i, stage) {
        if (told || strcmp(text(stage, "name"), f->stage) != 0 || strcmp(text(stage, "state"), "done") != 0) continue;
        char line[128], all[64];
        if (strcmp(f->unit, "bytes") == 0) snprintf(all, sizeof all, "%s of %s", text_bytes(f->total), text_bytes(f->total));
        else snprintf(all, sizeof all, "%s of %s %s", text_count((uint64_t)f->total), text_count((uint64_t)f->total), f->unit);
        snprintf(line, sizeof line, "%-9s 100.0 %%  %s", f->stage, all);
        say(f, line);
        f->stage_whole = true;
    }
}

/* Before the first step is done there is no number of steps that grows. */
static void print_training(char *out, size_t size, const json_t *stage, const json_t *training) {
    uint64_t step = whole(training, "step"), slices = whole(training, "slices");
    print_progress(out, size, stage);
    if (step != whole(training, "began_at") || step >= whole(training, "max_steps")) return;
    size_t end = strlen(out);
    snprintf(out + end, size - end, "; %s of %s slice%s of step %s", text_count(whole(training, "step_slices_done")), text_count(slices),
             plural(slices), text_count(step + 1));
}

static void show_stage(struct follower *f, const json_t *status) {
    const json_t *stage = running_stage(status), *training = json_object_get(status, "training");
    if (!stage || is_in_doubt(training)) return;
    char progress[200], line[256];
    bool training_on = training && strcmp(text(stage, "name"), "train") == 0;
    if (training_on) print_training(progress, sizeof progress, stage, training);
    else print_progress(progress, sizeof progress, stage);
    bool checking = strcmp(text(stage, "doing"), "checking") == 0;
    const char *name = checking ? "check" : text(stage, "name");
    bool changed = strcmp(f->stage, name) != 0;
    if (changed && real(stage, "done") >= real(stage, "total")) return; /* all was there already */
    snprintf(f->stage, sizeof f->stage, "%s", name);
    snprintf(f->unit, sizeof f->unit, "%s", text(stage, "unit"));
    f->total = real(stage, "total");
    f->stage_whole = real(stage, "done") >= f->total && !f->terminal;
    snprintf(line, sizeof line, "%-9s %s", f->stage, progress);
    if (show_evaluation(f, status)) return;
    if (training_on && !f->terminal && f->told_steps) return; /* the steps speak for themselves */
    if (checking && changed) f->shown_ms = clock_ms(); /* that takes a moment, as a rule, and needs no line then */
    show_line(f, line, changed && !checking ? 0 : training_on ? EVALUATION_EVERY_MS : EVERY_MS);
}

/* Instead of the progress of what is not gone on with. */
static void show_saving(struct follower *f, const json_t *training) {
    uint64_t step = whole(training, "step");
    if (f->told_saving || step == 0 || step <= checkpoint_step(text(training, "checkpoint"))) return;
    char line[64];
    snprintf(line, sizeof line, "saving    step %s", text_count(step));
    say(f, line);
    f->told_saving = true;
}

static void show_warnings(struct follower *f, const json_t *warnings) {
    size_t i;
    const json_t *item;
    json_array_foreach(warnings, i, item) {
        char *line = mem_format("warning   %s", json_string_value(item));
        say(f, line);
        free(line);
    }
}

/* True when training went back since this was asked last. The lines of the steps that are made again are new ones. */
static bool went_back(struct follower *f, const json_t *status, const json_t *back) {
    uint64_t generation = whole(status, "generation"), backs = whole(back, "number");
    if (generation != f->generation) f->backs = 0;
    f->generation = generation;
    if (backs <= f->backs) return false;
    f->backs = backs;
    uint64_t kept = whole(back, "first") - 1;
    if (f->last_step > kept) f->last_step = kept;
    if (f->last_evaluation > kept) f->last_evaluation = kept;
    f->offset = 0;
    return true;
}

/* "resumed   at step 60, from .../checkpoint-60 (steps 61 to 147 are made again: no checkpoint has them)" */
static void say_begin(struct follower *f, const json_t *training, const char *lead, uint64_t step, const json_t *back) {
    const char *checkpoint = text(training, "checkpoint");
    bool saved = *checkpoint && checkpoint_step(checkpoint) == step;
    char *again = back ? mem_format(" (steps %s to %s are made again: no checkpoint has them)", text_count(whole(back, "first")),
                                    text_count(whole(back, "last"))) : mem_text("");
    char *line = step ? mem_format("%s at step %s%s%s%s", lead, text_count(step), saved ? ", from " : "", saved ? checkpoint : "", again)
                      : mem_format("%s from the beginning%s", lead, again);
    say(f, line);
    free(line);
    free(again);
}

/* What training begins from, what should be looked at, and what is saved. From what it begins is not known while workers that hold a newer
 * state than the checkpoint may come. */
static void show_training(struct follower *f, const json_t *status) {
    const json_t *training = json_object_get(status, "training"), *back = json_object_get(training, "rolled_back");
    const char *checkpoint = text(training, "checkpoint");
    bool known = json_is_integer(json_object_get(training, "began_at"));
    bool was_written_before = json_is_true(json_object_get(status, "unanswered")) || strcmp(text(status, "state"), "stopped") == 0;
    bool goes_back = !was_written_before && went_back(f, status, back);
    if (f->told_begin && goes_back) say_begin(f, training, "back     ", whole(back, "first") - 1, back);
    if (!f->told_begin && known && !was_written_before) {
        uint64_t step = whole(training, "began_at");
        if ((step > 0 && step < f->max_steps) || goes_back) say_begin(f, training, "resumed  ", step, goes_back ? back : NULL);
        show_warnings(f, json_object_get(training, "warnings"));
        f->told_begin = true;
        f->checkpoint = mem_text(step > 0 ? checkpoint : "");
    }
    if (*checkpoint && f->told_begin && strcmp(checkpoint, f->checkpoint) != 0) {
        f->saved = mem_text(checkpoint);
        f->saved_step = checkpoint_step(checkpoint);
    }
}

static void say_to(void *follower, const char *line) { say(follower, line); }

/* What was there of an earlier dataset, when one is made again. */
static void show_remade(struct follower *f, const json_t *remade, uint64_t shards) {
    if (!remade) return;
    uint64_t jobs = whole(remade, "jobs"), kept = whole(remade, "jobs_kept");
    const char *why = text(remade, "why");
    char *line = mem_format("kept      %s of %s tokenize job%s and %s of %s shard%s of the dataset before%s%s; %s", text_count(kept),
                            text_count(jobs), plural(jobs), text_count(whole(remade, "shards_kept")), text_count(shards), plural(shards),
                            *why ? ": " : "", why, kept < jobs ? "the rest was tokenized anew" : "nothing was tokenized anew");
    say(f, line);
    free(line);
}

static void show_dataset_line(struct follower *f, const json_t *dataset) {
    if (f->told_dataset) return;
    f->told_dataset = true;
    char line[256];
    uint64_t documents = whole(dataset, "documents"), tokens = whole(dataset, "tokens"), sequences = whole(dataset, "sequences");
    uint64_t shards = whole(dataset, "shards");
    snprintf(line, sizeof line, "dataset   %s document%s, %s token%s, %s sequence%s in %s shard%s, digest %.16s...", text_count(documents),
             plural(documents), text_count(tokens), plural(tokens), text_count(sequences), plural(sequences), text_count(shards),
             plural(shards), text(dataset, "digest"));
    say(f, line);
    show_remade(f, json_object_get(dataset, "remade"), shards);
    show_warnings(f, json_object_get(dataset, "warnings"));
}

/* Its account may come later: it is shown when training begins, or else with the result. */
static void show_dataset(struct follower *f, const json_t *status) {
    const json_t *dataset = json_object_get(status, "dataset");
    if (!dataset) return;
    show_dataset_line(f, dataset);
    if (f->told_account || !json_object_get(status, "training")) return;
    f->told_account = true;
    account_show(json_object_get(dataset, "account"), say_to, f);
}

static void show_restart(struct follower *f, const json_t *status) {
    if (f->told_restart || !*text(status, "restarted") || json_is_true(json_object_get(status, "unanswered"))) return;
    char *line = mem_format("restart   %s", text(status, "restarted"));
    say(f, line);
    free(line);
    f->told_restart = true;
}

static void show_passed(struct follower *f, const json_t *status) {
    size_t i;
    const json_t *place;
    const json_t *places = json_object_get(status, "not_sources");
    json_array_foreach(places, i, place) {
        const char *others = json_is_true(json_object_get(place, "others")) ? " and others" : "";
        char *line = mem_format("sources   skipped: %s%s, %s", text(place, "place"), others, text(place, "why"));
        if (!f->told_passed) say(f, line);
        free(line);
    }
    f->told_passed = f->told_passed || json_array_size(places) > 0;
}

/* True while the coordinator does not answer: what there is was written before. Told once, and not of one that has to save in a hurry. */
static bool show_silence(struct follower *f, const json_t *status) {
    if (!json_is_true(json_object_get(status, "unanswered"))) {
        f->silent_ms = 0;
        f->told_silence = false;
        return false;
    }
    if (f->silent_ms == 0) f->silent_ms = clock_ms();
    if (clock_ms() - f->silent_ms >= SILENCE_MS && !f->told_silence && !f->stopping) {
        char line[96];
        snprintf(line, sizeof line, "waiting   the coordinator has not answered for %d s; it may be busy", SILENCE_MS / 1000);
        say(f, line);
        f->told_silence = true;
    }
    return true;
}

enum { QUIET_WAITING_MS = 60000 }; /* between two lines about waiting, where nothing else is said */

static void show_waiting(struct follower *f, const json_t *status) {
    const char *waiting = text(status, "waiting_for");
    if (strcmp(f->waiting, waiting) == 0) return;
    char line[720];
    snprintf(f->waiting, sizeof f->waiting, "%s", waiting);
    snprintf(line, sizeof line, "waiting   %s", waiting);
    if (!*waiting) return;
    say(f, line);
    if (!f->quiet || (f->quiet_waiting_ms && clock_ms() - f->quiet_waiting_ms < QUIET_WAITING_MS)) return;
    f->quiet_waiting_ms = clock_ms(); /* standard output is for a program then; a person still has to see that nothing goes on */
    fprintf(stderr, "%s\n", line);
}

/* The lines of steps wait for what comes before them: the dataset, and how many steps there will be. */
void follower_poll(struct follower *f, const json_t *status) {
    const json_t *stage = running_stage(status), *training = json_object_get(status, "training");
    if (!status) return;
    show_restart(f, status);
    show_passed(f, status);
    show_stage_end(f, status);
    show_dataset(f, status);
    if (!show_silence(f, status)) show_waiting(f, status);
    if (training) {
        f->max_steps = whole(training, "max_steps");
        f->rate = stage && strcmp(text(stage, "name"), "train") == 0 ? real(stage, "rate") : NAN;
        show_training(f, status);
        if (f->told_begin) read_metrics(f, false); /* before that the file has what the run may go back behind */
        tell_saved(f);
    }
    if (!f->stopping) show_stage(f, status);
    else if (training && strcmp(text(status, "state"), "stopping") == 0) show_saving(f, training); /* no step commits any more */
}

void follower_stopping(struct follower *f) {
    f->stopping = true;
    if (f->line_open) fprintf(stderr, "\r\033[K");
    f->line_open = false;
}

uint64_t follower_step(struct follower *f) {
    read_metrics(f, !f->told_begin);
    return f->last_step;
}

void follower_say(struct follower *f, const char *line) { say(f, line); }

void follower_close(struct follower *f) {
    if (!f) return;
    if (f->told_begin) read_metrics(f, false);
    if (f->line_open) fprintf(stderr, "\r\033[K");
    free(f->checkpoint);
    free(f->saved);
    free(f->metrics);
    free(f);
}
