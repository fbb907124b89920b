/* What each part of the coordinator keeps for itself, in one go. */
#ifndef MILLRACE_COORDINATOR_PARTS_H
#define MILLRACE_COORDINATOR_PARTS_H

struct context;

void parts_open(struct context *c);
void parts_close(struct context *c);

#endif
