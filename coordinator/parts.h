/* What the parts of the coordinator keep in memory: opened once before all else, closed at the end. A part that keeps something has
 * NAME_open() and NAME_close(), and a pointer in struct context. */
#ifndef MILLRACE_COORDINATOR_PARTS_H
#define MILLRACE_COORDINATOR_PARTS_H

struct context;

void parts_open(struct context *c);
void parts_close(struct context *c);

#endif
