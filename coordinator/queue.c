/* Decides which job goes to whom. Owns the table of jobs and the times that workers live; knows nothing of what jobs do. Functions in the
 * order of a job's life: added or restored, leased, done, failed or given back; queue_release() when its worker goes, queue_forget() when
 * its number is another one's. */
#include "coordinator/queue.h"

#include <math.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"

void queue_open(struct queue *queue, size_t jobs, uint32_t failures_max) {
    *queue = (struct queue){.job = mem_alloc(jobs * sizeof(struct job)),
                            .count = jobs,
                            .pending = jobs,
                            .failures_max = failures_max,
                            .attempts = queue->attempts,
                            .other_losses = queue->other_losses,
                            .other_ms = queue->other_ms};
    for (size_t i = 0; i < jobs; i++) queue->job[i].preferred = QUEUE_ANYONE;
}

size_t queue_add(struct queue *queue, uint32_t preferred) {
    queue->job = mem_resize(queue->job, (queue->count + 1) * sizeof *queue->job);
    queue->job[queue->count] = (struct job){.preferred = preferred};
    queue->pending++;
    queue->preferring |= preferred != QUEUE_ANYONE;
    return queue->count++;
}

void queue_close(struct queue *queue) {
    for (size_t i = 0; i < queue->count; i++) free(queue->job[i].fault);
    free(queue->job);
    *queue = (struct queue){.attempts = queue->attempts, .other_losses = queue->other_losses, .other_ms = queue->other_ms};
}

void queue_restore_done(struct queue *queue, size_t job) {
    CHECK(job < queue->count && queue->job[job].state == JOB_PENDING);
    queue->job[job].state = JOB_DONE;
    queue->pending--;
    queue->done++;
}

static bool is_here(const struct queue *queue, uint32_t worker) { return queue->here[worker / 64] >> worker % 64 & 1; }

void queue_here(struct queue *queue, uint32_t worker, int64_t now_ms) {
    CHECK(worker < QUEUE_WORKERS_MAX);
    if (!is_here(queue, worker) && !queue->worker[worker].jobs) queue->worker[worker].since_ms = now_ms;
    queue->here[worker / 64] |= (uint64_t)1 << worker % 64;
}

/* Nobody measures its life from now on. */
void queue_not_here(struct queue *queue, uint32_t worker) {
    CHECK(worker < QUEUE_WORKERS_MAX);
    queue->here[worker / 64] &= ~((uint64_t)1 << worker % 64);
}

static size_t count_here(const struct queue *queue) {
    size_t n = 0;
    for (size_t i = 0; i < QUEUE_WORKERS_MAX / 64; i++) n += (size_t)__builtin_popcountll(queue->here[i]);
    return n;
}

/* Everybody who could do the job failed at it; unknown: and because it knows no such work. */
static bool failed_at_all(const struct queue *queue, const struct job *job, bool unknown) {
    size_t n = 0;
    for (uint32_t i = 0; i < job->faults; i++) n += (job->fault[i].unknown || !unknown) && is_here(queue, job->fault[i].worker);
    return n == count_here(queue);
}

static struct job_fault *fault_of(const struct job *job, uint32_t worker) {
    for (uint32_t i = 0; i < job->faults; i++)
        if (job->fault[i].worker == worker) return &job->fault[i];
    return NULL;
}

/* Not what failed at this worker while others may fare better. */
static bool may_do(const struct queue *queue, const struct job *job, uint32_t worker) {
    return !job->faults || !fault_of(job, worker) || failed_at_all(queue, job, false);
}

void queue_restore_failures(struct queue *queue, size_t job, uint32_t failures) {
    CHECK(job < queue->count && queue->job[job].state == JOB_PENDING);
    queue->job[job].failures = failures;
}

/* ---- how long workers live ---- */

/* How long the worker is at what it is at; that is over. */
static int64_t take_time(struct queue *queue, uint32_t worker, int64_t now_ms) {
    struct queue_worker *w = &queue->worker[worker];
    int64_t ms = now_ms - w->since_ms;
    w->since_ms = now_ms;
    return ms > 0 ? ms : 0;
}

static bool is_suspect(const struct job *job) { return job->losses >= QUEUE_SUSPECT; }

/* Did workers go because of this job? */
static bool kills(const struct queue *queue, const struct job *job, int64_t now_ms) {
    int64_t other_ms = queue->other_ms + QUEUE_LIFE_MS;
    if (job->losses < QUEUE_LOSSES_MAX) return false;
    if (job->losses >= QUEUE_LOSSES_ALONE && !queue->other_losses) return true;
    for (uint32_t i = 0; i < QUEUE_WORKERS_MAX; i++) { /* those with nothing to do live, too */
        const struct queue_worker *w = &queue->worker[i];
        if (is_here(queue, i) && !w->jobs && now_ms > w->since_ms) other_ms += now_ms - w->since_ms;
    }
    /* The same rate everywhere would share the losses out by time. Chernoff's bound for a share as large as the job's: exp(-surprise). */
    double at_job = job->losses, elsewhere = (double)queue->other_losses, all = at_job + elsewhere;
    double job_ms = job->at_work_ms > 1 ? (double)job->at_work_ms : 1, share = job_ms / (job_ms + (double)other_ms);
    if (at_job <= all * share) return false;
    double surprise = at_job * log(at_job / (all * share));
    if (elsewhere > 0) surprise += elsewhere * log(elsewhere / (all * (1 - share)));
    return surprise > QUEUE_SURPRISE;
}

/* ---- leases ---- */

static int64_t lease(struct queue *queue, size_t i, uint32_t worker, int64_t now_ms) {
    struct job *job = &queue->job[i];
    if (!queue->worker[worker].jobs++) queue->other_ms += take_time(queue, worker, now_ms);
    job->state = JOB_LEASED;
    job->attempt = ++queue->attempts;
    job->worker = worker;
    job->told = false;
    queue->pending--;
    queue->leased++;
    return (int64_t)i;
}

int64_t queue_lease(struct queue *queue, uint32_t worker, int64_t now_ms) {
    queue_here(queue, worker, now_ms);
    while (queue->first_pending < queue->count && queue->job[queue->first_pending].state != JOB_PENDING) queue->first_pending++;
    int64_t anyone = -1, suspect = -1;
    size_t left = queue->pending;
    for (size_t i = queue->first_pending; i < queue->count && left; i++) {
        const struct job *job = &queue->job[i];
        if (job->state != JOB_PENDING) continue;
        left--;
        if (!may_do(queue, job, worker)) continue;
        bool anyones = job->preferred == QUEUE_ANYONE || !is_here(queue, job->preferred);
        if ((anyones || job->preferred == worker) && is_suspect(job)) {
            if (suspect < 0 || job->losses < queue->job[suspect].losses) suspect = (int64_t)i;
            continue;
        }
        if (job->preferred == worker) return lease(queue, i, worker, now_ms);
        if (anyones && anyone < 0) anyone = (int64_t)i;
        if (anyone >= 0 && !queue->preferring) break;
    }
    if (anyone < 0) anyone = suspect;
    return anyone < 0 ? -1 : lease(queue, (size_t)anyone, worker, now_ms);
}

bool queue_holds(const struct queue *queue, size_t job, uint32_t attempt, uint32_t worker) {
    if (job >= queue->count) return false;
    const struct job *j = &queue->job[job];
    return j->state == JOB_LEASED && j->attempt == attempt && j->worker == worker;
}

void queue_told(struct queue *queue, size_t job, int64_t now_ms) {
    CHECK(job < queue->count && queue->job[job].state == JOB_LEASED);
    struct job *j = &queue->job[job];
    if (j->told) return;
    j->told = true;
    j->at_work_ms += take_time(queue, j->worker, now_ms);
    queue->worker[j->worker].jobs--;
}

static void give_back(struct queue *queue, size_t job) {
    queue->job[job].state = JOB_PENDING;
    queue->leased--;
    queue->pending++;
    if (job < queue->first_pending) queue->first_pending = job;
}

void queue_return(struct queue *queue, size_t job, int64_t now_ms) {
    queue_told(queue, job, now_ms);
    give_back(queue, job);
}

void queue_done(struct queue *queue, size_t job, int64_t now_ms) {
    queue_told(queue, job, now_ms);
    struct job *j = &queue->job[job];
    queue->other_losses += j->losses; /* it was not the job */
    queue->other_ms += j->at_work_ms;
    j->state = JOB_DONE;
    queue->leased--;
    queue->done++;
}

static void add_fault(const struct queue *queue, struct job *job, enum failure how) {
    struct job_fault *fault = fault_of(job, job->worker);
    if (!fault) {
        job->fault = mem_resize(job->fault, (job->faults + 1) * sizeof *job->fault);
        fault = &job->fault[job->faults++];
        *fault = (struct job_fault){.worker = job->worker};
    }
    fault->times++;
    fault->final |= how == FAILURE_FINAL;
    fault->unknown = how == FAILURE_UNKNOWN;
    if (!fault->unknown || failed_at_all(queue, job, true)) job->failures++;
}

/* Nobody else will fare better. */
static bool is_hopeless(const struct queue *queue, const struct job *job) {
    bool all = failed_at_all(queue, job, false);
    uint32_t finals = 0, known = 0;
    for (uint32_t i = 0; i < job->faults; i++) finals += job->fault[i].final, known += !job->fault[i].unknown;
    if (finals >= QUEUE_FINAL_MAX || (finals && all)) return true;
    return known >= queue->failures_max || (all && job->failures >= queue->failures_max);
}

void queue_fail(struct queue *queue, size_t number, enum failure how, int64_t now_ms) {
    queue_told(queue, number, now_ms);
    struct job *job = &queue->job[number];
    add_fault(queue, job, how);
    if (job->preferred == job->worker) job->preferred = QUEUE_ANYONE; /* it has the beginning at hand, and yet fails */
    if (!is_hopeless(queue, job)) {
        give_back(queue, number);
        return;
    }
    job->state = JOB_FAILED;
    queue->leased--;
    queue->failed++;
}

/* The job that the worker is at; -1: none. */
static int64_t at_work(const struct queue *queue, uint32_t worker) {
    int64_t oldest = -1;
    for (size_t i = 0; i < queue->count && queue->worker[worker].jobs; i++) {
        const struct job *job = &queue->job[i];
        if (job->state != JOB_LEASED || job->worker != worker || job->told) continue;
        if (oldest < 0 || job->attempt < queue->job[oldest].attempt) oldest = (int64_t)i;
    }
    return oldest;
}

/* It went while it was at this job, or at none. */
static void count_loss(struct queue *queue, uint32_t worker, int64_t job, bool lost, int64_t now_ms) {
    if (job >= 0) {
        queue->job[job].at_work_ms += take_time(queue, worker, now_ms);
        queue->job[job].losses += lost;
    } else if (is_here(queue, worker)) {
        queue->other_ms += take_time(queue, worker, now_ms);
        queue->other_losses += lost;
    }
}

int64_t queue_release(struct queue *queue, uint32_t worker, bool lost, int64_t now_ms) {
    int64_t killer = at_work(queue, worker);
    count_loss(queue, worker, killer, lost, now_ms);
    queue_not_here(queue, worker);
    queue->worker[worker].jobs = 0;
    for (size_t i = 0; i < queue->count; i++) {
        struct job *job = &queue->job[i];
        if (job->preferred == worker) job->preferred = QUEUE_ANYONE;
        if (job->state == JOB_LEASED && job->worker == worker) give_back(queue, i);
    }
    if (killer < 0 || !lost || !kills(queue, &queue->job[killer], now_ms)) return -1;
    queue->job[killer].state = JOB_FAILED;
    queue->pending--;
    queue->failed++;
    return killer;
}

void queue_forget(struct queue *queue, uint32_t worker) {
    for (size_t i = 0; i < queue->count; i++) {
        struct job *job = &queue->job[i];
        struct job_fault *fault = fault_of(job, worker);
        if (fault) *fault = job->fault[--job->faults];
    }
}

bool queue_finished(const struct queue *queue) { return queue->done == queue->count; }
