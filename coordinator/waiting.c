/* What a run waits for, in words: whose answer, for what, since when. Owns the text. stall.c decides what counts as too long, and what a
 * step waits for; paused_why() of context.h goes before this text in `status`.
 *
 * The loop's thread calls waiting_tick() once a turn; all else only reads what that left. */
#include "coordinator/waiting.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/plain.h"
#include "coordinator/context.h"
#include "coordinator/dispatch.h"
#include "coordinator/queue.h"
#include "coordinator/repair.h"
#include "coordinator/roster.h"
#include "coordinator/stall.h"
#include "coordinator/trainer.h"
#include "coordinator/training.h"
#include "proto/link.h"

enum { NOTE_MS = 60000 }; /* between two lines of the log about one stall */

struct waiting {
    struct stall stall;
    char text[660];         /* what is waited for, while nothing is finished; empty: all goes on */
    char since[32];         /* in words, since when; computed once for each stall, as the wall clock does not keep step with the other */
    int64_t since_ms;       /* which stall.moved_ms that is */
    int64_t noted_ms;
};

struct words {
    char *out;
    size_t size;
};

/* "w-12-ab (pid 12 on host, tcp://...)" */
static const char *who(const struct context *c, uint32_t worker) {
    static _Thread_local char text[400];
    const struct worker_entry *w = &c->worker[worker];
    snprintf(text, sizeof text, "%s (pid %u on %s, %.*s)", w->id, w->pid, w->host, endpoint_shown(w->endpoint), w->endpoint);
    return text;
}

static size_t count_workers(const struct context *c, bool admitted) {
    size_t n = 0;
    for (size_t i = 0; i < c->workers; i++)
        n += admitted ? roster_admitted(&c->worker[i]) : c->worker[i].state == WORKER_WELCOMED;
    return n;
}

static void say_workers(const struct context *c, struct words words) {
    uint32_t i = 0;
    if (count_workers(c, true) == 0 && count_workers(c, false) == 0) {
        snprintf(words.out, words.size, "a worker: none is there; 'millrace worker --connect %s' starts one", link_endpoint(c->link));
        return;
    }
    for (i = 0; i < c->workers; i++)
        if (c->worker[i].state == WORKER_WELCOMED) {
            snprintf(words.out, words.size, "%s to take the pipeline in", who(c, i));
            return;
        }
    for (i = 0; i < c->workers && c->trainer; i++)
        if (roster_admitted(&c->worker[i]) && c->worker[i].asked) {
            snprintf(words.out, words.size, "the self-test of %s", who(c, i));
            return;
        }
    for (i = 0; i < c->workers; i++)
        if (roster_admitted(&c->worker[i]) && c->worker[i].in_question) {
            snprintf(words.out, words.size, "a worker that decides about %s: %s", who(c, i), c->worker[i].aside);
            return;
        }
    for (i = 0; i < c->workers; i++)
        if (training_barred(c, i)) {
            snprintf(words.out, words.size, "a worker that others reach: %s", c->worker[i].unreached);
            return;
        }
    snprintf(words.out, words.size, "a worker that can take part: %zu %s here", count_workers(c, true),
             count_workers(c, true) == 1 ? "is" : "are");
}

static void say_job(const struct context *c, struct words words) {
    const char *stage = c->stage == STAGE_TRAIN ? "evaluate" : stage_name(c->stage);
    const struct queue *queue = dispatch_queue(c);
    size_t job = 0;
    while (queue && job < queue->count && queue->job[job].state != JOB_LEASED) job++;
    if (!queue) snprintf(words.out, words.size, "the coordinator itself, which reads sources, the dataset or a checkpoint");
    else if (job == queue->count) say_workers(c, words);
    else
        snprintf(words.out, words.size, "job %s/%zu of %s, and %zu other%s", stage, job, who(c, queue->job[job].worker),
                 queue->leased - 1, plural(queue->leased - 1));
}

__attribute__((format(printf, 2, 3))) static void add(struct words words, const char *format, ...) {
    size_t n = strlen(words.out);
    va_list args;
    va_start(args, format);
    vsnprintf(words.out + n, words.size - n, format, args);
    va_end(args);
}

static void say_sum(const struct context *c, struct words words, const struct wait *wait) {
    size_t named = wait->others < WAIT_OTHERS_MAX ? wait->others : WAIT_OTHERS_MAX, rest = wait->others - named;
    snprintf(words.out, words.size, "the sum of step %" PRIu64 ": %zu of %zu members %s it: %s", wait->step, wait->others + 1,
             wait->members, wait->others ? "lack" : "lacks", who(c, wait->worker));
    for (size_t i = 0; i < named; i++) add(words, "%s%s", i + 1 < named || rest ? ", " : " and ", c->worker[wait->other[i]].id);
    if (rest) add(words, " and %zu other%s", rest, plural(rest));
}

static void say_training(const struct context *c, struct words words) {
    struct wait wait = stall_wait(c->trainer);
    switch (wait.kind) {
    case WAIT_SLICE:
        snprintf(words.out, words.size, "slice %u of step %" PRIu64 " from %s%s", wait.slice, wait.step, who(c, wait.worker),
                 c->worker[wait.worker].told_busy ? "" : ", which is idle"); /* it does not know of the slice, and its lease does not run */
        break;
    case WAIT_SUM: say_sum(c, words, &wait); break;
    case WAIT_JOIN: snprintf(words.out, words.size, "%s to take over the state of step %" PRIu64, who(c, wait.worker), wait.step); break;
    case WAIT_APPLY: snprintf(words.out, words.size, "%s to apply step %" PRIu64, who(c, wait.worker), wait.step); break;
    case WAIT_SAVE: snprintf(words.out, words.size, "the checkpoint of step %" PRIu64, wait.step); break;
    case WAIT_EVALUATION: say_job(c, words); break;
    case WAIT_WORKERS: say_workers(c, words); break;
    case WAIT_NOTHING: words.out[0] = 0; break;
    }
}

static void since(char *out, size_t size, int64_t ms_ago) {
    time_t then = (time_t)((clock_wall_ms() - ms_ago) / 1000);
    struct tm utc;
    gmtime_r(&then, &utc);
    strftime(out, size, "%H:%M:%S UTC", &utc);
}

void waiting_tick(struct context *c, int64_t now_ms) {
    struct waiting *waiting = c->waiting;
    const struct queue *queue = dispatch_queue(c);
    uint64_t done = c->progress.done * 31 + (queue ? queue->done + 1 : 0) * 7;
    if (c->trainer) done += c->trainer->checkpoint * 3 + c->trainer->evaluated;
    bool stalled = stall_look(&waiting->stall, c->stage, done, now_ms);
    if (c->stage > STAGE_TRAIN || c->stopping || !stalled) { /* a stop has an end of its own */
        waiting->text[0] = 0;
        waiting->noted_ms = 0;
        return;
    }
    char what[sizeof waiting->text - 64];
    struct words words = {what, sizeof what};
    if (repair_goes_on(c)) snprintf(what, sizeof what, "a broken shard to be made again");
    else if (c->stage == STAGE_TRAIN && c->trainer) say_training(c, words);
    else say_job(c, words);
    if (waiting->since_ms != waiting->stall.moved_ms) {
        waiting->since_ms = waiting->stall.moved_ms;
        since(waiting->since, sizeof waiting->since, now_ms - waiting->since_ms);
    }
    snprintf(waiting->text, sizeof waiting->text, "%s; nothing was finished since %s", what, waiting->since);
    if (waiting->noted_ms && now_ms - waiting->noted_ms < NOTE_MS) return;
    waiting->noted_ms = now_ms;
    note_event(c, "waiting", "%s", waiting->text);
}

const char *waiting_for(const struct context *c) { return c->waiting->text; }

int64_t waiting_since_ms(const struct context *c) { return c->waiting->stall.moved_ms; }

void waiting_open(struct context *c) { c->waiting = mem_alloc(sizeof *c->waiting); }

void waiting_close(struct context *c) {
    free(c->waiting);
    c->waiting = NULL;
}
