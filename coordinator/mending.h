/* Makes a shard again that broke or went. */
#ifndef MILLRACE_COORDINATOR_MENDING_H
#define MILLRACE_COORDINATOR_MENDING_H

#include <stdbool.h>
#include <stddef.h>

struct context;

/* Begins to make a broken shard again; err_text() says how it broke. While mending_goes_on() it is, or another one: come again later. */
int mending_shard(struct context *c, size_t number);
bool mending_goes_on(const struct context *c);
void mending_not_needed(struct context *c, size_t number); /* the shard is whole */
void mending_open(struct context *c);
void mending_close(struct context *c);

#endif
