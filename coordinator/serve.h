/* What the coordinator answers to READs. The loop's thread: serve_message() with each READ of an admitted worker, serve_tick() once a
 * turn. */
#ifndef MILLRACE_COORDINATOR_SERVE_H
#define MILLRACE_COORDINATOR_SERVE_H

#include <stdint.h>

#include "proto/frame.h"

struct context;

void serve_message(struct context *c, uint64_t peer, const struct message *message);

/* Answers what waited for a repair. A checkpoint that has a successor is not held open: its room is wanted. */
void serve_tick(struct context *c, int64_t now_ms);

void serve_open(struct context *c);
void serve_close(struct context *c);

#endif
