/* What more than half of the members hold: the state after the last commit, the sum of a step. Pure. */
#ifndef MILLRACE_COORDINATOR_MAJORITY_H
#define MILLRACE_COORDINATOR_MAJORITY_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/trainer.h"

bool member_holds_state(const struct trainer *t, const struct member *m);  /* after the last commit, and it has told its digest */

/* The digest that more than half of the members have; false while one of them has not given its own. *out: NULL without a majority. */
bool majority_state(const struct trainer *t, const uint8_t **out);

bool majority_same_sum(const struct member *a, const struct member *b);
/* The member of the view whose sum more than half of it hold; NULL: there is none. *out_all: all hold it. */
const struct member *majority_sum(const struct trainer *t, bool *out_all);

#endif
