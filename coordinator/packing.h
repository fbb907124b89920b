/* Runs to shards and their manifest: the plan, its kind of job, and what the dataset is then. */
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
