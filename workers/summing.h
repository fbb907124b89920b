/* Adds up what the exchange says: the partial sums of one segment, ours and those that came, along the tree. Owns the messages that
 * brought them, until they are summed or forgotten. The work thread, and its pool. */
#ifndef MILLRACE_WORKERS_SUMMING_H
#define MILLRACE_WORKERS_SUMMING_H

#include "base/pool.h"
#include "proto/frame.h"
#include "workers/exchange.h"

struct summing {
    const float *own[PARTIALS_MAX];                 /* the whole vector of a partial sum of ours; others': NULL */
    struct message theirs[SLOTS_MAX][PARTIALS_MAX]; /* of others' ones, the slot's segment: the message that brought it */
};

/* sum (elements): the slot's segment. offset: where that lies in our vectors. Gives back the slot's messages. */
void summing_slot(struct summing *summing, float *sum, const struct exchange *exchange, size_t slot, size_t offset, size_t elements,
                  struct pool *pool);
void summing_forget(struct summing *summing, const struct exchange *exchange); /* the messages of all slots */

#endif
