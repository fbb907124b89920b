/* Outputs of finished jobs, kept until the coordinator has settled them: until then they may be the only copy. Thread-safe: the work
 * thread keeps them, the network thread reads them. */
#ifndef MILLRACE_WORKERS_OUTPUTS_H
#define MILLRACE_WORKERS_OUTPUTS_H

#include "workers/shared.h"

int outputs_keep(struct worker *worker, uint64_t job, uint64_t attempt, int fd, uint64_t size);  /* takes fd, unless it fails */
int outputs_read(struct worker *worker, void *out, size_t *out_got, uint64_t job, uint64_t offset, size_t size);
/* Forgets what that attempt made; none is fine. What a later one made meanwhile stays. */
void outputs_settle(struct worker *worker, uint64_t job, uint64_t attempt);
void outputs_settle_all(struct worker *worker);

#endif
