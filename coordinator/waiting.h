/* What a run waits for when nothing is finished, in words, for `status`, the screen of `run` and the log. docs/PROTOCOL.md, "What a step
 * waits for", has every line with what ends it. */
#ifndef MILLRACE_COORDINATOR_WAITING_H
#define MILLRACE_COORDINATOR_WAITING_H

#include <stdint.h>

struct context;

void waiting_tick(struct context *c, int64_t now_ms);
const char *waiting_for(const struct context *c);       /* while nothing is finished; empty: all goes on */
int64_t waiting_since_ms(const struct context *c);      /* when something was finished last */
void waiting_open(struct context *c);
void waiting_close(struct context *c);

#endif
