/* Taking over the state of a step, as decisions alone: it is made from the seed (step 0), or read item by item from members that hold
 * it, or from the coordinator's checkpoint. An item is a segment of a part of the state. Pure: what to ask goes into a table of reads. */
#ifndef MILLRACE_WORKERS_JOIN_H
#define MILLRACE_WORKERS_JOIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "proto/reads.h"
#include "proto/steps.h"

enum {
    JOIN_STATE_PARTS_MAX = 8,
    JOIN_BAD_MAX = 16, /* answers that are no good, of several givers, before the coordinator is asked to name others */
};

struct join {
    bool active;
    uint64_t step;
    bool has_digest; /* the state's is known beforehand */
    uint8_t digest[XXH128_BYTES];
    uint64_t peer[MEMBERS_MAX];  /* who holds it; none: the coordinator does */
    uint64_t state_part[JOIN_STATE_PARTS_MAX];
    size_t peers, items, segments;
    size_t bad, next, missing;   /* of the items: the first one not asked for yet; those that are not here */
};

/* Of what a state of ours consists: once, before all else. */
void join_shape(struct join *join, const uint64_t *state_parts, size_t state_part_count, size_t segments);
void join_begin(struct join *join, uint64_t step, const uint8_t *digest_or_null, const uint64_t *peers, size_t peer_count);
void join_end(struct join *join, struct reads *reads);  /* forgets what is under way */

bool join_makes_first(const struct join *join);  /* nothing is read: the state follows from the seed */
void join_ask(struct join *join, struct reads *reads);  /* adds what may be asked now */

/* An answer to a question of ours that was taken out of `reads`. `good`: its bytes are what was asked for. */
enum join_taken {
    JOIN_NOT,     /* of a join that is over: of no use */
    JOIN_ITEM,    /* keep it as segment read->body.c of part read->body.a */
    JOIN_ANOTHER, /* not good: somebody else is asked */
    JOIN_FAILED,  /* not good, and nobody else is to be asked: it is over */
};
enum join_taken join_take(struct join *join, struct reads *reads, const struct read *read, bool good);

bool join_whole(const struct join *join);  /* all of it is here */
bool join_believes(const struct join *join, const uint8_t digest[XXH128_BYTES]);  /* is the state with this digest the one? */

#endif
