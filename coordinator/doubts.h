/* Steps at which the members differed and none was in the majority, on record. */
#ifndef MILLRACE_COORDINATOR_DOUBTS_H
#define MILLRACE_COORDINATOR_DOUBTS_H

#include <stdint.h>

struct context;

int doubts_load(struct context *c);                                 /* tells the trainer what is on record */
void doubts_note(struct context *c, uint64_t step);                 /* records who said what */
const char *doubts_text(const struct context *c);                   /* of the last one; NULL: never */
void doubts_open(struct context *c);
void doubts_close(struct context *c);

#endif
