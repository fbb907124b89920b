/* The jobs of the stage under way. Owns the queue (queue.h), the serialized lease of each job, and the time until which nothing is leased
 * because a disk is full. What is particular about the jobs is in their kind (dispatch.h).
 *
 * The loop's thread calls dispatch_load() once for the jobs of a stage, or dispatch_begin() once for each set of jobs outside the
 * store (an evaluation, say); then in each turn dispatch_message() with each DONE and FAILED, dispatch_outputs() for what download.c has,
 * dispatch_release() for a worker that went, and dispatch_lease() at last. */
#include "coordinator/dispatch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/plain.h"
#include "coordinator/arrivals.h"
#include "coordinator/context.h"
#include "coordinator/download.h"
#include "coordinator/output.h"
#include "coordinator/queue.h"
#include "coordinator/roster.h"
#include "coordinator/store.h"
#include "proto/body.h"
#include "proto/frame.h"

enum {
    LEASES_AT_WORKER_MAX = 2, /* one at work, one to go on with */
    PAUSE_MS = 5000,
    REST_MS = 2000, /* of a worker at which a job failed: what was in its way may pass, and others may come meanwhile */
};

struct dispatch {
    struct queue queue;      /* its attempts go on from one opening to the next */
    bool open;
    const struct job_kind *kind;
    struct buf *spec;        /* the lease of each, serialized */
    int64_t paused_until_ms; /* nothing is leased before: the disk is full, say */
};

/* Job numbers on the wire are those of no other stage: a result of an earlier one is nobody's. */
static uint64_t wire_number(const struct dispatch *jobs, size_t job) { return ((uint64_t)jobs->kind->stage + 1) << 40 | (uint64_t)job; }

/* ---- the queue of the stage ---- */

void dispatch_clear(struct context *c) {
    struct dispatch *jobs = c->dispatch;
    if (!jobs->open) return;
    for (size_t i = 0; i < jobs->queue.count; i++) buf_free(&jobs->spec[i]);
    free(jobs->spec);
    jobs->spec = NULL;
    queue_close(&jobs->queue);
    jobs->open = false;
    c->paused_why[PAUSED_JOBS][0] = 0;
    for (size_t i = 0; i < c->workers; i++) c->worker[i].leases = 0;
}

void dispatch_begin(struct context *c, const struct job_kind *kind, size_t count) {
    struct dispatch *jobs = c->dispatch;
    dispatch_clear(c);
    queue_open(&jobs->queue, count, (uint32_t)c->config->cluster.attempts_max);
    jobs->spec = mem_alloc((count + 1) * sizeof *jobs->spec);
    jobs->kind = kind;
    jobs->open = true;
}

void dispatch_add(struct context *c, struct buf *spec, uint32_t preferred) {
    struct dispatch *jobs = c->dispatch;
    size_t number = queue_add(&jobs->queue, preferred);
    jobs->spec = mem_resize(jobs->spec, (number + 1) * sizeof *jobs->spec);
    jobs->spec[number] = *spec;
    *spec = (struct buf){0};
}

const struct queue *dispatch_queue(const struct context *c) { return c->dispatch->open ? &c->dispatch->queue : NULL; }

struct buf *dispatch_spec(const struct context *c, size_t job) { return &c->dispatch->spec[job]; }

int dispatch_lease_of(Millrace__Lease **out, const struct context *c, size_t job) {
    const struct buf *spec = dispatch_spec(c, job);
    return body_unpack(out, &millrace__lease__descriptor, spec->data, spec->size);
}

struct loading {
    struct context *c;
    size_t count;
};

static int load_job(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes) {
    struct loading *loading = arg;
    struct context *c = loading->c;
    struct dispatch *jobs = c->dispatch;
    if (number != loading->count++ || number >= jobs->queue.count)
        return err_set(ERR_CORRUPT, "state database: job %" PRIu64 " has no place", number);
    TRY(buf_append(&jobs->spec[number], spec, spec_bytes));
    if (!result) return 0;
    queue_restore_done(&jobs->queue, number);
    Millrace__Done *done;
    int code = body_unpack(&done, &millrace__done__descriptor, result, result_bytes);
    if (code < 0) return err_add(code, "state database: the result of job %" PRIu64, number);
    bool fits = jobs->kind->fits(done);
    if (fits) c->progress.done += jobs->kind->done_weight(done);
    millrace__done__free_unpacked(done, NULL);
    return fits ? 0 : err_set(ERR_CORRUPT, "state database: the result of job %" PRIu64 " is that of another kind of job", number);
}

static int restore_failures(void *arg, uint64_t number, uint64_t failures) {
    struct queue *queue = &((struct context *)arg)->dispatch->queue;
    if (number < queue->count) queue_restore_failures(queue, number, failures > UINT32_MAX ? UINT32_MAX : (uint32_t)failures);
    return 0;
}

int dispatch_drop_recorded(struct context *c) {
    for (int stage = 0; stage < STAGE_TRAIN; stage++) TRY(store_jobs_drop(c->store, stage_name((enum stage)stage)));
    return 0;
}

int dispatch_load(struct context *c, const struct job_kind *kind) {
    uint64_t count;
    const char *stage = stage_name(kind->stage);
    TRY(store_job_count(c->store, stage, &count));
    dispatch_begin(c, kind, count);
    struct loading loading = {c, 0};
    c->progress = (struct progress){.began_ms = clock_ms()};
    TRY(store_jobs(c->store, stage, load_job, &loading));
    for (size_t i = 0; i < count; i++) {
        Millrace__Lease *lease;
        int code = dispatch_lease_of(&lease, c, i);
        if (code < 0) return err_add(code, "state database: %s job %zu", stage, i);
        if (lease->work_case == kind->work) c->progress.total += kind->weight(lease);
        millrace__lease__free_unpacked(lease, NULL);
    }
    c->progress.done_at_start = c->progress.done;
    c->stage = kind->stage;
    return store_job_failures(c->store, stage, restore_failures, c);
}

/* ---- handing out and taking in ---- */

static void pause_jobs(struct context *c, int code) {
    char *paused_why = c->paused_why[PAUSED_JOBS], text[sizeof c->paused_why[PAUSED_JOBS]];
    char cause[sizeof text - 128]; /* without how much is free, which changes */
    if (!err_passes(code)) {
        fail_pipeline(c, err_add(code, "what a job made cannot be kept"));
        return;
    }
    snprintf(cause, sizeof cause, "%s", err_text());
    output_wait_words(text, sizeof text, c->config, code, PAUSE_MS / 1000);
    if (strncmp(paused_why, cause, strlen(cause)) != 0) note_event(c, "paused", "%s", text);
    snprintf(paused_why, sizeof text, "%s", text);
    c->dispatch->paused_until_ms = clock_ms() + PAUSE_MS;
}

static void lease_to(struct context *c, uint32_t number) {
    struct dispatch *jobs = c->dispatch;
    int64_t job = queue_lease(&jobs->queue, number, clock_ms());
    if (job < 0) return;
    Millrace__Lease *lease;
    int code = dispatch_lease_of(&lease, c, (size_t)job);
    if (code < 0) {
        fail_pipeline(c, err_add(code, "job %s/%lld", stage_name(jobs->kind->stage), (long long)job));
        return;
    }
    c->worker[number].leases++;
    if (jobs->queue.worker[number].jobs == 1) c->worker[number].moved_ms = clock_ms();
    struct envelope envelope = {.kind = MILLRACE__KIND__LEASE, .job = wire_number(jobs, (size_t)job)};
    envelope.attempt = fence_of(c, jobs->queue.job[job].attempt);
    code = send_to(c, number, &envelope, &lease->base);
    millrace__lease__free_unpacked(lease, NULL);
    if (code == ERR_LIMIT) fail_pipeline(c, err_add(code, "job %s/%lld", stage_name(jobs->kind->stage), (long long)job));
}

static bool can_do_jobs(const struct context *c, uint32_t number) {
    const struct job_kind *kind = c->dispatch->kind;
    return roster_admitted(&c->worker[number]) && !c->worker[number].leaving && (!kind->may_do || kind->may_do(c, number));
}

void dispatch_lease(struct context *c) {
    struct dispatch *jobs = c->dispatch;
    int64_t now = clock_ms();
    for (uint32_t i = 0; i < c->workers; i++) c->worker[i].owed = jobs->open ? jobs->queue.worker[i].jobs : 0;
    if (!jobs->open || c->stopping || c->ended || now < jobs->paused_until_ms) return;
    c->paused_why[PAUSED_JOBS][0] = 0;
    bool able[WORKERS_MAX] = {false}, others = false; /* a worker that was set aside gets jobs only when no other one can do them */
    for (uint32_t i = 0; i < c->workers; i++) others |= (able[i] = can_do_jobs(c, i)) && !c->worker[i].aside[0];
    for (uint32_t i = 0; i < c->workers; i++) {
        able[i] = able[i] && !(others && c->worker[i].aside[0]);
        if (able[i]) queue_here(&jobs->queue, i, now); /* a job that failed elsewhere waits for those that get jobs */
        else queue_not_here(&jobs->queue, i);
    }
    for (size_t round = 0; round < LEASES_AT_WORKER_MAX; round++)
        for (uint32_t i = 0; i < c->workers && jobs->queue.pending; i++)
            if (able[i] && c->worker[i].leases <= round && now >= c->worker[i].rests_until_ms) lease_to(c, i);
}

static void settle(struct context *c, uint32_t worker, const struct envelope *envelope) {
    Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    send_to(c, worker, &(struct envelope){.kind = MILLRACE__KIND__SETTLED, .job = envelope->job, .attempt = envelope->attempt},
            &empty.base);
}

static void settle_job(struct context *c, uint32_t worker, size_t job, uint32_t attempt) {
    settle(c, worker, &(struct envelope){.job = wire_number(c->dispatch, job), .attempt = fence_of(c, attempt)});
}

/* The job can be done, so those who failed at it were at fault. Not those whose build does not know it: they can do other things. */
static void blame_others(struct context *c, uint32_t worker, size_t job) {
    const struct job *j = &c->dispatch->queue.job[job];
    for (uint32_t i = 0; i < j->faults; i++) {
        uint32_t number = j->fault[i].worker;
        struct worker_entry *w = &c->worker[number];
        if (number == worker || j->fault[i].unknown || ++w->blamed != WORKER_BLAMED_MAX) continue;
        char why[160];
        snprintf(why, sizeof why, "%d jobs failed on it that others did; the last one: %s/%zu", WORKER_BLAMED_MAX,
                 stage_name(c->dispatch->kind->stage), job);
        roster_set_aside(c, number, why);
        queue_not_here(&c->dispatch->queue, number);
    }
}

static void job_finished(struct context *c, uint32_t worker, size_t job, const Millrace__Done *done) {
    struct worker_entry *w = &c->worker[worker];
    if (w->leases) w->leases--;
    w->jobs_done++;
    queue_done(&c->dispatch->queue, job, clock_ms());
    c->progress.done += c->dispatch->kind->done_weight(done);
    blame_others(c, worker, job);
}

/* The job goes back to the queue, or has failed for good, which ends the run. */
static void job_failed(struct context *c, uint32_t worker, size_t job, const char *reason, enum failure how) {
    if (c->worker[worker].leases) c->worker[worker].leases--;
    c->worker[worker].rests_until_ms = clock_ms() + REST_MS;
    queue_fail(&c->dispatch->queue, job, how, clock_ms());
    note_event(c, "job-failed", "%s/%zu on %s: %s", stage_name(c->dispatch->kind->stage), job, c->worker[worker].id, reason);
    if (c->dispatch->kind->recorded && how != FAILURE_UNKNOWN)
        store_job_failed(c->store, stage_name(c->dispatch->kind->stage), job, c->worker[worker].id, reason);
    const struct job *j = &c->dispatch->queue.job[job];
    if (c->dispatch->kind->check_input && c->dispatch->kind->check_input(c, job) == ERR_CORRUPT) { /* no other worker can do it either */
        fail_pipeline(c, ERR_CORRUPT);
        return;
    }
    if (j->state != JOB_FAILED) return;
    if (how == FAILURE_FINAL) { /* the input is at fault, not who did the job */
        fail_pipeline(c, err_set(ERR_CONFIG, "%s", reason));
        return;
    }
    uint32_t times = 0; /* since this coordinator began */
    for (uint32_t i = 0; i < j->faults; i++) times += j->fault[i].times;
    fail_pipeline(c, err_set(ERR_IO, "%s; tried %u time%s, on %u worker%s (job %s/%zu)", reason, times, plural(times), j->faults,
                             plural(j->faults), stage_name(c->dispatch->kind->stage), job));
}

/* The output cannot be kept now, which is no failure of the worker; err_text() has the reason. */
static void put_off(struct context *c, uint32_t worker, size_t job, int code) {
    queue_return(&c->dispatch->queue, job, clock_ms());
    if (c->worker[worker].leases) c->worker[worker].leases--;
    pause_jobs(c, code);
}

static int check_size(const struct context *c, size_t job, uint64_t size) {
    const struct job_kind *kind = c->dispatch->kind;
    Millrace__Lease *lease;
    TRY(dispatch_lease_of(&lease, c, job));
    CHECK(lease->work_case == kind->work);
    uint64_t most = kind->bytes_max(lease);
    millrace__lease__free_unpacked(lease, NULL);
    return size <= most ? 0 : err_set(ERR_PEER, "its output has %" PRIu64 " bytes; at most %" PRIu64 " can come of such a job", size, most);
}

static int begin_download(struct context *c, uint32_t worker, size_t job, const Millrace__Done *done) {
    struct dispatch *jobs = c->dispatch;
    char *path = jobs->kind->path(c, job);
    if (!path) return ERR_MEMORY;
    struct download_order order = {.job = job, .attempt = jobs->queue.job[job].attempt, .worker = worker, .path = path, .done = done};
    order.wire_number = wire_number(jobs, job);
    order.spec = &jobs->spec[job];
    order.terms = arrival_terms_of(c->config, c->tokenizer);
    order.check = jobs->kind->check;
    int code = download_begin(c, &order);
    free(path);
    return code;
}

static void on_done(struct context *c, uint32_t worker, size_t job, const struct message *message) {
    const struct job_kind *kind = c->dispatch->kind;
    const Millrace__Done *done = (const Millrace__Done *)message->body;
    if (!kind->fits(done)) { /* nothing else in the message is looked at before */
        settle(c, worker, &message->envelope);
        job_failed(c, worker, job, "its DONE does not have the result of such a job", FAILURE_HERE);
        return;
    }
    if (!kind->path) {
        settle(c, worker, &message->envelope);
        job_finished(c, worker, job, done);
        int code = kind->done(c, job, done, NULL, worker); /* the job is over: nobody can do it again */
        if (code < 0) fail_pipeline(c, code);
        return;
    }
    int code = check_size(c, job, done->size);
    if (code == ERR_PEER) {
        settle(c, worker, &message->envelope);
        job_failed(c, worker, job, err_text(), FAILURE_HERE);
        return;
    }
    queue_told(&c->dispatch->queue, job, clock_ms());
    if (code == 0) code = begin_download(c, worker, job, done);
    if (code < 0) {
        put_off(c, worker, job, code);
        settle(c, worker, &message->envelope);
    }
}

static void on_failed(struct context *c, uint32_t worker, size_t job, const struct message *message) {
    const Millrace__Failed *failed = (const Millrace__Failed *)message->body;
    settle(c, worker, &message->envelope);
    enum failure how = failed->unknown ? FAILURE_UNKNOWN : failed->final ? FAILURE_FINAL : FAILURE_HERE;
    job_failed(c, worker, job, failed->reason, how);
}

void dispatch_message(struct context *c, uint32_t worker, const struct message *message) {
    const struct envelope *envelope = &message->envelope;
    size_t job = (size_t)(envelope->job & (((uint64_t)1 << 40) - 1));
    bool ours = c->dispatch->open && envelope->attempt >> 32 == c->generation && envelope->job == wire_number(c->dispatch, job) &&
                queue_holds(&c->dispatch->queue, job, (uint32_t)envelope->attempt, worker);
    if (!ours) { /* fenced: the job is somebody else's by now, or done */
        settle(c, worker, envelope);
        return;
    }
    if (envelope->kind == MILLRACE__KIND__DONE) on_done(c, worker, job, message);
    else on_failed(c, worker, job, message);
}

/* ---- outputs ---- */

/* The output has its name: records the result. */
static int record(struct context *c, const struct download_event *event) {
    struct buf bytes = {0};
    int code = body_pack(&bytes, &event->done->base);
    if (code == 0) code = c->dispatch->kind->done(c, event->job, event->done, &bytes, event->worker);
    buf_free(&bytes);
    TRY(code);
    job_finished(c, event->worker, event->job, event->done);
    settle_job(c, event->worker, event->job, event->attempt);
    return 0;
}

static void take_output(struct context *c, const struct download_event *event) {
    bool ours = c->dispatch->open && queue_holds(&c->dispatch->queue, event->job, event->attempt, event->worker);
    int code = event->code;
    if (event->news == DOWNLOAD_BROKEN && ours) {
        settle_job(c, event->worker, event->job, event->attempt);
        job_failed(c, event->worker, event->job, event->why, FAILURE_HERE);
    }
    if (event->news == DOWNLOAD_PUT_OFF) err_set(code, "%s", event->why);
    if (event->news == DOWNLOAD_ARRIVED && ours) code = record(c, event);
    if (code >= 0 || !ours) return;
    log_warn("output of %s/%zu: %s", stage_name(c->dispatch->kind->stage), event->job, err_text());
    put_off(c, event->worker, event->job, code);
    settle_job(c, event->worker, event->job, event->attempt); /* the job is done again, and not from what the worker keeps */
}

void dispatch_outputs(struct context *c) {
    struct download_event event;
    while (!c->ended && download_event(c, &event)) {
        take_output(c, &event);
        if (event.done) millrace__done__free_unpacked(event.done, NULL);
    }
}

void dispatch_release(struct context *c, uint32_t worker, bool lost) {
    int64_t job = c->dispatch->open ? queue_release(&c->dispatch->queue, worker, lost, clock_ms()) : -1;
    if (job < 0) return;
    fail_pipeline(c, err_set(ERR_IO,
                             "job %s/%lld ends the workers that do it: %u went away while they were at it, and hardly any otherwise; see "
                             "their logs in %s/logs",
                             stage_name(c->dispatch->kind->stage), (long long)job, c->dispatch->queue.job[job].losses,
                             c->config->output_dir));
}

void dispatch_forget(struct context *c, uint32_t worker) {
    if (c->dispatch->open) queue_forget(&c->dispatch->queue, worker);
}

void dispatch_open(struct context *c) { c->dispatch = mem_alloc(sizeof *c->dispatch); }

void dispatch_close(struct context *c) {
    if (!c->dispatch) return;
    dispatch_clear(c);
    free(c->dispatch);
    c->dispatch = NULL;
}
