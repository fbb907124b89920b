/* Steps about which the members differed and no value had a majority, on record. doubts_load() when training begins, doubts_note() when
 * the trainer says so (ACTION_DOUBT). */
#ifndef MILLRACE_COORDINATOR_DOUBTS_H
#define MILLRACE_COORDINATOR_DOUBTS_H

#include <stdint.h>

struct context;

int doubts_load(struct context *c);                                 /* hands what is on record to the trainer */
void doubts_note(struct context *c, uint64_t step);                 /* records who said what */
const char *doubts_text(const struct context *c);                   /* of the last one; NULL: never */
void doubts_open(struct context *c);
void doubts_close(struct context *c);

#endif
