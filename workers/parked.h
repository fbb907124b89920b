/* Questions of others for things that are not there yet. Everybody has room for as many as an honest asker has open; when all is full, who
 * has most gives way. parking_add() when a question cannot be answered, parking_drop() when it was, or is too old. The network thread's
 * alone. Pure. */
#ifndef MILLRACE_WORKERS_PARKED_H
#define MILLRACE_WORKERS_PARKED_H

#include <stddef.h>
#include <stdint.h>

#include "proto/reads.h"

enum { PARKED_MAX = 1024 };

struct parked {
    uint64_t peer;
    struct envelope envelope;
    Millrace__Read read;
    int64_t since_ms;
};

struct parking {
    struct parked parked[PARKED_MAX];
    size_t count;
};

/* A question that is here already takes its new form. Of READS_MAX of this peer the oldest goes. */
void parking_add(struct parking *parking, const struct parked *parked);
void parking_drop(struct parking *parking, size_t i);  /* another one takes its place */

#endif
