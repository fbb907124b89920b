/* The jobs of the stage under way: loads them, hands them out, takes their results and outputs. What the jobs are for is known to
 * tokenizing.c, packing.c and training.c alone. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/plain.h"
#include "coordinator/internal.h"

enum {
    PAUSE_MS = 5000,
    REST_MS = 2000, /* of a worker at which a job failed: what was in its way may pass, and others may come meanwhile */
};

/* Job numbers on the wire are unique in a run: a result of an earlier stage is nobody's. */
static uint64_t wire_number(enum stage stage, size_t job) { return ((uint64_t)stage + 1) << 40 | (uint64_t)job; }

/* ---- the queue of the stage ---- */

void jobs_clear(struct context *c) {
    if (!c->queue_open) return;
    for (size_t i = 0; i < c->queue.count; i++) buf_free(&c->job[i].spec);
    free(c->job);
    c->job = NULL;
    queue_close(&c->queue);
    c->queue_open = false;
    for (size_t i = 0; i < c->workers; i++) c->worker[i].leases = 0;
}

void jobs_begin(struct context *c, size_t count) {
    jobs_clear(c);
    queue_open(&c->queue, count, (uint32_t)c->config->cluster.attempts_max);
    c->job = mem_alloc((count + 1) * sizeof *c->job);
    c->queue_open = true;
}

void jobs_add(struct context *c, struct buf *spec, uint32_t preferred) {
    size_t number = queue_add(&c->queue, preferred);
    c->job = mem_resize(c->job, (number + 1) * sizeof *c->job);
    c->job[number] = (struct stage_job){.spec = *spec};
    *spec = (struct buf){0};
}

int jobs_pack(struct buf *out, const Millrace__Lease *lease) {
    size_t size = millrace__lease__get_packed_size(lease);
    TRY(buf_reserve(out, size));
    out->size += millrace__lease__pack(lease, out->data + out->size);
    return 0;
}

struct loading {
    struct context *c;
    size_t count;
};

static int load_job(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes) {
    struct loading *loading = arg;
    struct context *c = loading->c;
    if (number != loading->count++ || number >= c->queue.count)
        return err_set(ERR_CORRUPT, "state database: job %" PRIu64 " has no place", number);
    TRY(buf_append(&c->job[number].spec, spec, spec_bytes));
    if (!result) return 0;
    queue_restore_done(&c->queue, number);
    Millrace__Done *done = millrace__done__unpack(NULL, result_bytes, result);
    if (!done) return err_set(ERR_CORRUPT, "state database: the result of job %" PRIu64 " cannot be read", number);
    if (done->result_case == MILLRACE__DONE__RESULT_TOKENIZE) c->progress.done += done->tokenize->source_bytes;
    if (done->result_case == MILLRACE__DONE__RESULT_PACK) c->progress.done += done->pack->tokens;
    millrace__done__free_unpacked(done, NULL);
    return 0;
}

/* What the job adds to the stage's total. A job that goes on where another ended adds nothing. */
static uint64_t lease_weight(const Millrace__Lease *lease) {
    uint64_t weight = 0;
    if (lease->work_case == MILLRACE__LEASE__WORK_PACK) return lease->pack->tokens;
    if (lease->work_case != MILLRACE__LEASE__WORK_TOKENIZE || lease->tokenize->from) return 0;
    for (size_t i = 0; i < lease->tokenize->n_parts; i++) {
        const Millrace__SourcePart *part = lease->tokenize->parts[i];
        weight += part->end > part->begin ? part->end - part->begin : part->size;
    }
    return weight;
}

static int restore_failures(void *arg, uint64_t number, uint64_t failures) {
    struct context *c = arg;
    if (number < c->queue.count) queue_restore_failures(&c->queue, number, failures > UINT32_MAX ? UINT32_MAX : (uint32_t)failures);
    return 0;
}

int jobs_load(struct context *c, enum stage stage) {
    uint64_t count;
    TRY(store_job_count(c->store, stage_name(stage), &count));
    jobs_begin(c, count);
    struct loading loading = {c, 0};
    c->progress = (struct progress){.began_ms = clock_ms()};
    TRY(store_jobs(c->store, stage_name(stage), load_job, &loading));
    for (size_t i = 0; i < count; i++) {
        Millrace__Lease *lease = millrace__lease__unpack(NULL, c->job[i].spec.size, c->job[i].spec.data);
        if (!lease) return err_set(ERR_CORRUPT, "state database: %s job %zu cannot be read", stage_name(stage), i);
        c->job[i].weight = lease_weight(lease);
        c->progress.total += c->job[i].weight;
        millrace__lease__free_unpacked(lease, NULL);
    }
    c->progress.done_at_start = c->progress.done;
    c->stage = stage;
    return store_job_failures(c->store, stage_name(stage), restore_failures, c);
}

/* ---- handing out and taking in ---- */

void jobs_pause(struct context *c, int code) {
    char text[sizeof c->paused_why], cause[sizeof text - 100]; /* what to do must not be cut */
    struct statvfs disk;
    if (!err_passes(code)) {
        fail_pipeline(c, err_add(code, "what a job made cannot be kept"));
        return;
    }
    snprintf(cause, sizeof cause, "%s", err_text());
    if (statvfs(c->config->output_dir, &disk) != 0) snprintf(text, sizeof text, "%s", cause);
    else
        snprintf(text, sizeof text, "%s; %llu MiB are free there, and it is tried again every %d s", cause,
                 (unsigned long long)disk.f_bavail * disk.f_frsize >> 20, PAUSE_MS / 1000);
    if (strncmp(c->paused_why, cause, strlen(cause)) != 0) note_event(c, "paused", "%s", text);
    snprintf(c->paused_why, sizeof c->paused_why, "%s", text);
    c->paused_until_ms = clock_ms() + PAUSE_MS;
}

static void lease_to(struct context *c, uint32_t number) {
    int64_t job = queue_lease(&c->queue, number, clock_ms());
    if (job < 0) return;
    Millrace__Lease *lease = millrace__lease__unpack(NULL, c->job[job].spec.size, c->job[job].spec.data);
    CHECK(lease != NULL);
    c->worker[number].leases++;
    if (c->worker[number].leases == 1) c->worker[number].moved_ms = clock_ms();
    struct envelope envelope = {.kind = MILLRACE__KIND__LEASE, .job = wire_number(c->stage, (size_t)job)};
    envelope.attempt = fence_of(c, c->queue.job[job].attempt);
    int code = send_to(c, number, &envelope, &lease->base);
    millrace__lease__free_unpacked(lease, NULL);
    if (code == ERR_LIMIT) fail_pipeline(c, err_add(code, "job %s/%lld", stage_name(c->stage), (long long)job));
}

static bool can_do_jobs(const struct context *c, uint32_t number) {
    return roster_admitted(&c->worker[number]) && !c->worker[number].leaving &&
           (c->stage != STAGE_TRAIN || trainer_holds_state(c->trainer, number));
}

void jobs_lease(struct context *c) {
    int64_t now = clock_ms();
    if (!c->queue_open || c->stopping || c->ended || now < c->paused_until_ms) return;
    c->paused_why[0] = 0;
    bool others = false; /* who was set aside gets work only when nobody else is here */
    for (uint32_t i = 0; i < c->workers; i++) others |= !c->worker[i].aside[0] && can_do_jobs(c, i);
    for (uint32_t i = 0; i < c->workers; i++) { /* a job that failed does not wait for who gets none */
        if (can_do_jobs(c, i) && !(others && c->worker[i].aside[0])) queue_here(&c->queue, i, now);
        else queue_not_here(&c->queue, i);
    }
    for (size_t round = 0; round < LEASES_AT_WORKER_MAX; round++)
        for (uint32_t i = 0; i < c->workers && c->queue.pending; i++) {
            const struct worker_entry *w = &c->worker[i];
            if (!can_do_jobs(c, i) || w->leases > round || now < w->rests_until_ms || (others && w->aside[0])) continue;
            lease_to(c, i);
        }
}

static void settle(struct context *c, uint32_t worker, const struct envelope *envelope) {
    Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    send_to(c, worker, &(struct envelope){.kind = MILLRACE__KIND__SETTLED, .job = envelope->job, .attempt = envelope->attempt},
            &empty.base);
}

void jobs_settle(struct context *c, uint32_t worker, size_t job, uint32_t attempt) {
    settle(c, worker, &(struct envelope){.job = wire_number(c->stage, job), .attempt = fence_of(c, attempt)});
}

/* The job can be done: those who failed at it were the odd ones out. */
static void blame_others(struct context *c, uint32_t worker, size_t job) {
    const struct job *j = &c->queue.job[job];
    for (uint32_t i = 0; i < j->faults; i++) {
        uint32_t number = j->fault[i].worker;
        struct worker_entry *w = &c->worker[number];
        if (number == worker || ++w->blamed != WORKER_BLAMED_MAX) continue;
        char why[160];
        snprintf(why, sizeof why, "%d jobs failed on it that others did; the last one: %s/%zu", WORKER_BLAMED_MAX, stage_name(c->stage),
                 job);
        roster_set_aside(c, number, why);
        queue_not_here(&c->queue, number);
    }
}

static void job_finished(struct context *c, uint32_t worker, size_t job, uint64_t weight) {
    struct worker_entry *w = &c->worker[worker];
    if (w->leases) w->leases--;
    w->jobs_done++;
    queue_done(&c->queue, job, clock_ms());
    c->progress.done += weight;
    blame_others(c, worker, job);
}

/* The job goes back to the queue, or is set aside for good. */
void jobs_failed(struct context *c, uint32_t worker, size_t job, const char *reason, bool final) {
    if (c->worker[worker].leases) c->worker[worker].leases--;
    c->worker[worker].rests_until_ms = clock_ms() + REST_MS;
    queue_fail(&c->queue, job, final, clock_ms());
    note_event(c, "job-failed", "%s/%zu on %s: %s", stage_name(c->stage), job, c->worker[worker].id, reason);
    if (c->stage != STAGE_TRAIN) store_job_failed(c->store, stage_name(c->stage), job, c->worker[worker].id, reason);
    const struct job *j = &c->queue.job[job];
    if (c->stage == STAGE_TOKENIZE && tokenizing_check_job(c, job) == ERR_CORRUPT) { /* nobody will fare better */
        fail_pipeline(c, ERR_CORRUPT);
        return;
    }
    if (j->state != JOB_FAILED) return;
    if (final) { /* the input is at fault, not who did the job */
        fail_pipeline(c, err_set(ERR_CONFIG, "%s", reason));
        return;
    }
    uint32_t times = 0; /* since this coordinator began */
    for (uint32_t i = 0; i < j->faults; i++) times += j->fault[i].times;
    fail_pipeline(c, err_set(ERR_IO, "%s; tried %u time%s, on %u worker%s (job %s/%zu)", reason, times, plural(times), j->faults,
                             plural(j->faults), stage_name(c->stage), job));
}

/* Does it tell what a job of this stage must tell? Nothing else in the message is looked at before. */
static bool has_result(const struct context *c, const Millrace__Done *done) {
    switch (c->stage) {
    case STAGE_TOKENIZE: return done->result_case == MILLRACE__DONE__RESULT_TOKENIZE && done->digest.len == SHA256_BYTES;
    case STAGE_PACK: return done->result_case == MILLRACE__DONE__RESULT_PACK && done->digest.len == SHA256_BYTES;
    default: return done->result_case == MILLRACE__DONE__RESULT_EVALUATE;
    }
}

static void on_done(struct context *c, uint32_t worker, size_t job, const struct message *message) {
    const Millrace__Done *done = (const Millrace__Done *)message->body;
    if (!has_result(c, done)) {
        settle(c, worker, &message->envelope);
        jobs_failed(c, worker, job, "its DONE does not have the result of such a job", false);
        return;
    }
    if (c->stage == STAGE_TRAIN) {
        settle(c, worker, &message->envelope);
        job_finished(c, worker, job, c->job[job].weight);
        training_evaluated_job(c, job, done->evaluate);
        return;
    }
    if (arrival_check_size(c, job, done->size) < 0) {
        settle(c, worker, &message->envelope);
        jobs_failed(c, worker, job, err_text(), false);
        return;
    }
    queue_told(&c->queue, job, clock_ms());
    int code = transfer_begin(c, worker, job, c->queue.job[job].attempt, done);
    if (code < 0) {
        char why[ERR_TEXT_BYTES];
        snprintf(why, sizeof why, "%s", err_text());
        queue_return(&c->queue, job, clock_ms());
        if (c->worker[worker].leases) c->worker[worker].leases--;
        settle(c, worker, &message->envelope);
        jobs_pause(c, err_set(code, "%s", why));
    }
}

static void on_failed(struct context *c, uint32_t worker, size_t job, const struct message *message) {
    const Millrace__Failed *failed = (const Millrace__Failed *)message->body;
    settle(c, worker, &message->envelope);
    jobs_failed(c, worker, job, failed->reason, failed->final);
}

void jobs_message(struct context *c, uint32_t worker, const struct message *message) {
    const struct envelope *envelope = &message->envelope;
    size_t job = (size_t)(envelope->job & (((uint64_t)1 << 40) - 1));
    bool ours = c->queue_open && envelope->attempt >> 32 == c->generation && envelope->job == wire_number(c->stage, job) &&
                queue_holds(&c->queue, job, (uint32_t)envelope->attempt, worker);
    if (!ours) { /* fenced: the job is somebody else's by now, or done */
        settle(c, worker, envelope);
        return;
    }
    if (envelope->kind == MILLRACE__KIND__DONE) on_done(c, worker, job, message);
    else on_failed(c, worker, job, message);
}

int jobs_output(struct context *c, struct transfer *transfer) {
    const Millrace__Done *done = transfer->done;
    TRY(draft_publish(&transfer->draft));
    struct buf packed = {0};
    int code = buf_reserve(&packed, millrace__done__get_packed_size(transfer->done));
    if (code == 0) {
        packed.size = millrace__done__pack(transfer->done, packed.data);
        if (done->result_case == MILLRACE__DONE__RESULT_TOKENIZE)
            code = tokenizing_done(c, transfer->job, done->tokenize, &packed, transfer->worker);
        else code = packing_done(c, transfer->job, &packed, transfer->worker);
    }
    buf_free(&packed);
    TRY(code);
    uint64_t weight = done->result_case == MILLRACE__DONE__RESULT_TOKENIZE ? done->tokenize->source_bytes : c->job[transfer->job].weight;
    job_finished(c, transfer->worker, transfer->job, weight);
    jobs_settle(c, transfer->worker, transfer->job, transfer->attempt);
    return 0;
}

void jobs_release(struct context *c, uint32_t worker, bool lost) {
    int64_t job = c->queue_open ? queue_release(&c->queue, worker, lost, clock_ms()) : -1;
    if (job < 0) return;
    fail_pipeline(c, err_set(ERR_IO,
                             "job %s/%lld ends the workers that do it: %u went away while they were at it, and hardly any otherwise; see "
                             "their logs in %s/logs",
                             stage_name(c->stage), (long long)job, c->queue.job[job].losses, c->config->output_dir));
}
