/* What this worker answers to READs of others. Runs on the network thread, under the lock, and copies; it never waits. */
#ifndef MILLRACE_WORKERS_SERVE_H
#define MILLRACE_WORKERS_SERVE_H

#include "base/buf.h"
#include "workers/shared.h"

/* Fills `data` and *chunk; 1: answered, 0: not there yet, ask again later. `data` and the chunk stay the caller's. */
int serve_read(struct worker *worker, Millrace__Data *data, struct buf *chunk, enum frame_encoding *encoding,
               const struct envelope *envelope, const Millrace__Read *read);

#endif
