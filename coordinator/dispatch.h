/* The jobs of the stage under way: loads them, hands them out, takes their results and outputs. What is particular about a kind of jobs is
 * in its `struct job_kind`: a new one is a file that fills one in, and a stage that begins with it. */
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
    bool recorded;                                                 /* jobs, results and failures are in the store */
    bool (*may_do)(const struct context *c, uint32_t worker);      /* NULL: everybody who is admitted */
    uint64_t (*weight)(const Millrace__Lease *lease);              /* of the stage's total; NULL: dispatch_load() is not for them */
    uint64_t (*done_weight)(const Millrace__Done *done);           /* of what is done of it; the DONE fits */
    bool (*fits)(const Millrace__Done *done);                      /* does it tell what such a job must tell? */
    /* After a failure, or NULL. ERR_CORRUPT: it is no worker's fault, and err_text() says whose. */
    int (*check_input)(struct context *c, size_t job);
    /* Their outputs; a kind without any has NULL for these: */
    char *(*path)(const struct context *c, size_t job);            /* the caller frees it */
    uint64_t (*bytes_max)(const Millrace__Lease *lease);
    arrival_check *check;
    /* The job is done: records the result. `packed`: the DONE, where there is an output, which has its name by now. */
    int (*done)(struct context *c, size_t job, const Millrace__Done *done, const struct buf *done_bytes, uint32_t worker);
};

void dispatch_open(struct context *c);
void dispatch_close(struct context *c);

void dispatch_begin(struct context *c, const struct job_kind *kind, size_t count); /* that many: fill in each dispatch_spec() */
int dispatch_load(struct context *c, const struct job_kind *kind);     /* the jobs of its stage as the store has them; the stage begins */
void dispatch_add(struct context *c, struct buf *spec, uint32_t preferred); /* one more, which takes the spec over */
void dispatch_clear(struct context *c);
const struct queue *dispatch_queue(const struct context *c);           /* NULL: none is open */
struct buf *dispatch_spec(const struct context *c, size_t job);        /* the packed lease */
int dispatch_serialize(struct buf *out, const Millrace__Lease *lease);

void dispatch_lease(struct context *c);
void dispatch_message(struct context *c, uint32_t worker, const struct message *message); /* DONE, FAILED */
void dispatch_outputs(struct context *c);                              /* takes those that came since */
void dispatch_release(struct context *c, uint32_t worker, bool lost);  /* lost: it did not say that it would go */

#endif
