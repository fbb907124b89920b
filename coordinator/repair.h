/* Makes a shard again that broke or is gone. Whoever finds one (serve.c, stages.c) calls repair_shard() and comes again when
 * repair_goes_on() is false. */
#ifndef MILLRACE_COORDINATOR_REPAIR_H
#define MILLRACE_COORDINATOR_REPAIR_H

#include <stdbool.h>
#include <stddef.h>

struct context;

/* Begins to make a broken shard again; err_text() says how it broke. While repair_goes_on() it is, or another one: come again later. */
int repair_shard(struct context *c, size_t number);
bool repair_goes_on(const struct context *c);
void repair_not_needed(struct context *c, size_t number); /* the shard is whole */
void repair_open(struct context *c);
void repair_close(struct context *c);

#endif
