/* The jobs of one stage and who has them. Pure: no clock, no store, no sockets; dispatch.c carries out what is decided here.
 *
 * A job is pending, leased, done or failed. A lease belongs to a worker and carries an attempt number that no other lease has, neither in
 * this queue nor in those that were opened in the same struct before it (each evaluation numbers its jobs from 0 again); with the
 * coordinator's generation it is the fence (proto/frame.h): a result under another fence than that of the job's current lease is refused.
 * Safety rests on that number alone. Time only decides when to give up waiting (whoever watches the worker calls queue_release()), and
 * whether a job kills workers.
 *
 * A worker does its leases one after the other, in the order in which it got them: it is at the oldest one for which no DONE or FAILED
 * came. When the worker is lost, that job may have killed it, or somebody who kills any worker every few seconds. How long workers live
 * otherwise (at jobs that were done in the end, and while they have nothing to do) tells the two apart. A job has failed when
 * QUEUE_LOSSES_MAX workers were lost at it, and kills at the same rate everywhere would put so many of all losses into its share of the
 * time only once in e^QUEUE_SURPRISE. QUEUE_LIFE_MS without a loss are added to what is known of the rest of the time; where no worker was
 * ever lost otherwise, QUEUE_LOSSES_ALONE losses are enough.
 *
 * What this cannot tell: kills from outside that follow a job around, or are much more frequent while it is done, count as the job's. A
 * job that kills late takes up to QUEUE_LOSSES_ALONE workers where others do not live some 40 times as long. Where workers are lost
 * elsewhere too, and none of them is ever idle, such a job may never be found. A job at which QUEUE_SUSPECT workers were lost is handed
 * out after all others: it does not hold them up, and by then more is known. */
#ifndef MILLRACE_COORDINATOR_QUEUE_H
#define MILLRACE_COORDINATOR_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Failures count by worker and by job: one bad worker must not end a run. What failed at a worker goes to another one as long as there is
 * one here that did not fail at it. A job has failed when failures_max different workers failed at it, or when everybody who is here did
 * and failures_max attempts were made. */
enum failure {
    FAILURE_HERE,    /* somebody else may fare better, or the same worker later */
    FAILURE_FINAL,   /* the input is at fault: believed of two workers, or of everybody who is here */
    FAILURE_UNKNOWN, /* the worker knows no such work. Counts as nothing, unless that is so of everybody who is here: as an attempt */
};
enum job_state { JOB_PENDING, JOB_LEASED, JOB_DONE, JOB_FAILED };

struct job_fault {
    uint32_t worker, times;
    bool final, unknown;
};

struct job {
    enum job_state state;
    uint32_t attempt;   /* of the current or last lease; 0: never leased */
    uint32_t failures;  /* attempts that failed, on whatever worker */
    uint32_t losses;    /* workers that were lost at it */
    int64_t at_work_ms; /* time for which workers were at it, in all attempts that ended */
    bool told;          /* its DONE or FAILED came: the worker may be at the next one */
    uint32_t worker;    /* who has the lease */
    struct job_fault *fault; /* by worker */
    uint32_t faults;
    uint32_t preferred; /* who alone gets it while it gets jobs: it has the beginning at hand; QUEUE_ANYONE */
};
#define QUEUE_ANYONE UINT32_MAX
enum {
    QUEUE_LOSSES_MAX = 16,
    QUEUE_SURPRISE = 35,      /* e^-35 = 6 * 10^-16: so rarely, at most, kills that strike at the same rate everywhere look like that */
    QUEUE_LOSSES_ALONE = 160,
    QUEUE_LIFE_MS = 5000,
    QUEUE_SUSPECT = 3,
    QUEUE_WORKERS_MAX = 1024, /* as the coordinator knows */
    QUEUE_FINAL_MAX = 2,      /* workers that say of a job that its input is at fault */
};

struct queue {
    struct job *job;
    size_t count, pending, leased, done, failed;
    size_t first_pending; /* no job before it is pending */
    uint32_t failures_max;
    uint32_t attempts;    /* the last attempt number given */
    bool preferring;      /* some job was added with a preference */
    uint64_t here[QUEUE_WORKERS_MAX / 64]; /* bits: workers that may be given jobs */
    struct queue_worker {
        int64_t since_ms; /* it is at this job, or has nothing to do */
        uint32_t jobs;    /* leases that it is not through with */
    } worker[QUEUE_WORKERS_MAX];
    uint64_t other_losses; /* of workers at jobs that were done in the end, or at none */
    int64_t other_ms;      /* time for which workers were there. Both grow from queue to queue in the same struct */
};

void queue_open(struct queue *queue, size_t jobs, uint32_t failures_max);  /* all pending; zero the struct before its first use */
void queue_close(struct queue *queue);
size_t queue_add(struct queue *queue, uint32_t preferred);                 /* one more, pending; returns its number */
/* From the store, after queue_open(): which jobs are done, and how often others failed. Those failures count as attempts, of nobody who is
 * here. */
void queue_restore_done(struct queue *queue, size_t job);
void queue_restore_failures(struct queue *queue, size_t job, uint32_t failures);

/* Who may be given jobs: from queue_here(), which leasing implies, to queue_not_here(), which queue_release() implies. */
void queue_here(struct queue *queue, uint32_t worker, int64_t now_ms);
void queue_not_here(struct queue *queue, uint32_t worker);

/* Leases a pending job to the worker, the first of those that prefer it, else the first that prefers nobody who is here, last the suspects;
 * returns its number, or -1 when there is none for it. */
int64_t queue_lease(struct queue *queue, uint32_t worker, int64_t now_ms);
bool queue_holds(const struct queue *queue, size_t job, uint32_t attempt, uint32_t worker);  /* is this the current lease? */

void queue_told(struct queue *queue, size_t job, int64_t now_ms);  /* its DONE came; the lease lasts until the output is taken */
/* The current lease ends. done: settles it for good. fail: counts it; the job is pending again, or failed. */
void queue_done(struct queue *queue, size_t job, int64_t now_ms);
void queue_fail(struct queue *queue, size_t job, enum failure how, int64_t now_ms);
void queue_return(struct queue *queue, size_t job, int64_t now_ms); /* pending again, without a failure */
/* The worker is gone: its leases are pending again, not counted as failures, and what preferred it prefers nobody. `lost`: it went without
 * GOODBYE. Returns a job that kills workers and has failed, or -1. */
int64_t queue_release(struct queue *queue, uint32_t worker, bool lost, int64_t now_ms);
/* Another worker has that number now: what failed at the one before was not its fault, and may do better here. `failures` stay. */
void queue_forget(struct queue *queue, uint32_t worker);
bool queue_finished(const struct queue *queue);            /* nothing pending, leased or failed */

#endif
