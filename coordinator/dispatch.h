/* The jobs of the stage under way: loads them, hands them out, takes their results and outputs. What is particular about a kind of jobs is
 * in its `struct job_kind`: a new one is a file that fills one in, somebody who begins its jobs, and a stage whose name and number are
 * those of the jobs in the store and on the wire (docs/EXTENDING.md): jobs that are in the store need one of their own, others may have
 * one, or belong to one that somebody else began. One kind is under way at a time. The loop's thread alone is here.
 *
 *                        with an output (tokenize, pack)                  without one (evaluate)
 *   begins               dispatch_load(): the jobs are in the store;      dispatch_begin(), then body_pack() into each
 *                        sets c->stage and c->progress                    dispatch_spec(); leaves c->stage and c->progress to
 *                                                                         who begins the stage (begin_checking() of stages.c)
 *   on DONE              fits(); done->size <= bytes_max(); the output    fits()
 *                        is read (download.h), check() on the thread
 *                        for files, the output gets its name
 *   then                 done(), with the DONE as bytes; the queue has    the queue has the job as done, done_weight() is added to
 *                        it as done, done_weight() is added to            c->progress.done; done(), which may ask
 *                        c->progress.done; SETTLED to the worker          queue_finished(). SETTLED went before
 *   done() fails         the job is pending again; all jobs wait 5 s      the run ends
 *                        where that may pass, else the run ends
 *   fits() says no,      a failure of this worker at this job: queue.h decides who does it next, or that the run ends
 *   check() fails,
 *   FAILED comes
 *
 * fits() sees the DONE alone, and refuses what no such job can give. What depends on the job (counts, places) check() compares, which gets
 * the lease too; a kind without an output has no such check, so its done() must take whatever numbers fit.
 *
 * Whether a kind has outputs and whether its jobs are in the store are two questions; the kinds that there are answer both alike. */
#ifndef MILLRACE_COORDINATOR_DISPATCH_H
#define MILLRACE_COORDINATOR_DISPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "coordinator/arrivals.h"
#include "coordinator/download.h"
#include "coordinator/queue.h"
#include "proto/frame.h"

struct context;

struct job_kind {
    int stage;                                                     /* whose jobs they are: an enum stage */
    Millrace__Lease__WorkCase work;
    bool recorded;                                                 /* in the store: failures by this file, jobs and results by the kind */
    bool (*may_do)(const struct context *c, uint32_t worker);      /* NULL: everybody who is admitted */
    uint64_t (*weight)(const Millrace__Lease *lease);              /* added to c->progress.total; NULL with dispatch_begin() */
    uint64_t (*done_weight)(const Millrace__Done *done);           /* added to c->progress.done; the DONE fits */
    bool (*fits)(const Millrace__Done *done);                      /* has it the result of such a job? */
    /* Called after a failure; NULL: nothing to look at. ERR_CORRUPT: the input changed, so no worker will fare better: the run ends. */
    int (*check_input)(struct context *c, size_t job);
    /* Of the output. A kind without one has NULL for these three: */
    char *(*path)(const struct context *c, size_t job);            /* the caller frees it; NULL: no memory */
    uint64_t (*bytes_max)(const Millrace__Lease *lease);
    arrival_check *check;
    /* Records the result. `done_bytes`: the DONE, serialized, for the store; NULL where there is no output. */
    int (*done)(struct context *c, size_t job, const Millrace__Done *done, const struct buf *done_bytes, uint32_t worker);
};

void dispatch_open(struct context *c);
void dispatch_close(struct context *c);

void dispatch_begin(struct context *c, const struct job_kind *kind, size_t count); /* that many: fill in each dispatch_spec() */
int dispatch_load(struct context *c, const struct job_kind *kind);     /* the jobs of its stage as the store has them; the stage begins */
int dispatch_drop_recorded(struct context *c);                         /* those of all stages leave the store, to be planned anew */
void dispatch_add(struct context *c, struct buf *spec, uint32_t preferred); /* one more, which takes the spec over */
void dispatch_clear(struct context *c);                                /* forgets the jobs; results of leases that are out are nobody's */
const struct queue *dispatch_queue(const struct context *c);           /* NULL: no jobs are under way */
struct buf *dispatch_spec(const struct context *c, size_t job);        /* its lease, serialized */

void dispatch_lease(struct context *c);                                /* in each turn of the loop: hands out what may be handed out */
void dispatch_message(struct context *c, uint32_t worker, const struct message *message); /* DONE, FAILED */
void dispatch_outputs(struct context *c);                              /* takes the outputs that came since */
void dispatch_forget(struct context *c, uint32_t worker); /* another one has its number: no job of this stage failed at that one */
int dispatch_lease_of(Millrace__Lease **out, const struct context *c, size_t job); /* for the caller to free */
void dispatch_release(struct context *c, uint32_t worker, bool lost);  /* lost: it did not say that it would go */

#endif
