/* Outputs of jobs, read from workers: asked for in pieces, written as they come, checked as a whole, published. The thread for files
 * checks and publishes, which takes as long as an output is large; the loop goes on meanwhile. What came of it is told as an event.
 *
 * download_begin() for each DONE, download_data() with each answer, download_tick() once a turn, download_event() until it is empty;
 * download_drop_worker() when a worker goes. Knows no stage: what an output must be, its order says. */
#ifndef MILLRACE_COORDINATOR_DOWNLOAD_H
#define MILLRACE_COORDINATOR_DOWNLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "coordinator/arrivals.h"
#include "proto/frame.h"
#include "proto/reads.h"

struct context;

struct download_order {
    size_t job;                 /* `job`, `attempt` and `worker` come back with the event */
    uint32_t attempt, worker;
    uint64_t wire_number;       /* of the job, for the worker */
    const char *path;           /* of the output */
    const struct buf *spec;     /* the packed lease */
    const Millrace__Done *done; /* is copied */
    struct arrival_terms terms;
    arrival_check *check;
};

enum download_news {
    DOWNLOAD_ARRIVED, /* it is published */
    DOWNLOAD_BROKEN,  /* it cannot be read, or is not what it must be: a failure of the worker. `why` */
    DOWNLOAD_PUT_OFF, /* it cannot be kept here; no failure of the worker. `code`, `why` */
};
struct download_event {
    enum download_news news;
    size_t job;
    uint32_t attempt, worker;
    Millrace__Done *done;       /* ARRIVED: the caller frees it */
    int code;
    char why[ERR_TEXT_BYTES];
};

void download_open(struct context *c);
void download_close(struct context *c); /* when the thread for files is closed */

int download_begin(struct context *c, const struct download_order *order);
void download_data(struct context *c, const struct read *read, const struct message *message); /* which answers that question */
void download_drop_worker(struct context *c, uint32_t worker);   /* its transfers end without an event */
void download_pause(struct context *c, int64_t pause_ms, int64_t now_ms); /* so long up to now no answer was taken: nobody's silence */
void download_tick(struct context *c, int64_t now_ms);
bool download_is_publishing(const struct context *c);           /* the thread for files has an output, whose name would not be on record */
bool download_event(struct context *c, struct download_event *out);

#endif
