/* Token runs to shards and their manifest. packing_begin() plans on the thread for files (packing_plans() meanwhile), then jobs build the
 * shards; packing_advance() in each turn hashes those that are there, in order; packing_finish() when all are, and packing_has_digest(),
 * writes the manifest. */
#ifndef MILLRACE_COORDINATOR_PACKING_H
#define MILLRACE_COORDINATOR_PACKING_H

#include <stdbool.h>

struct context;

int packing_begin(struct context *c);
int packing_advance(struct context *c);
int packing_finish(struct context *c);             /* 1: not yet, a shard is not what its job made, and is made again */
bool packing_plans(const struct context *c);       /* there are no jobs yet */
bool packing_has_digest(const struct context *c);  /* of all shards */
void packing_open(struct context *c);
void packing_close(struct context *c);

#endif
