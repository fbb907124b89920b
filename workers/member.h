/* A worker's membership, as decisions alone: which state it takes, which view of which step it follows, and what it does next. The order of
 * things within a step follows the coordinator's messages: who does what is not decided here.
 *
 * Pure: messages go in as calls, what to ask goes into a table of reads, what to do comes out as duties, one after the other. learner.c
 * carries them out and says when each is done. */
#ifndef MILLRACE_WORKERS_MEMBER_H
#define MILLRACE_WORKERS_MEMBER_H

#include "workers/exchange.h"
#include "workers/join.h"
#include "workers/offer.h"
#include "workers/partials.h"

struct member {
    size_t segments;
    /* the step under way; step 0: none */
    uint64_t step, fence;
    struct partials partials;
    struct exchange exchange;
    bool reduced; /* the whole sum is here, and was told of */
    struct join join;
};

enum duty_kind {
    DUTY_FIRST_STATE, /* make the state of step 0; then the same as for DUTY_BELIEVE */
    DUTY_BELIEVE,     /* all of the state is here: show it or not, as join_believes() has it; then member_joined() */
    DUTY_SLICE,       /* compute `slice`, into the vector that partials_room() gives, and add what partials_add() says */
    DUTY_SHOW,        /* our partial sums may be asked for; then exchange_begin() */
    DUTY_SUM,         /* add up the segment of exchange.slot[slot]; then exchange_summed() */
    DUTY_REDUCED,     /* tell the coordinator of the whole sum; then member_reduced() */
};
struct duty {
    enum duty_kind kind;
    uint32_t slice;
    size_t slot;
};

void member_open(struct member *member, uint32_t slices, size_t segments, const uint64_t *parts, size_t part_count);

/* JOIN: take this state. Ends what was under way. False: it is here already, as offer and its digest say; nothing is to be done. */
bool member_join(struct member *member, struct reads *reads, const struct offer *offer, const uint8_t *offered_digest, uint64_t step,
                 const uint8_t *digest_or_null, const uint64_t *peers, size_t peer_count);
void member_joined(struct member *member, struct reads *reads);

/* STEP: is it one that follows what is here, in a later view? Then member_view() takes it: sets[i] are the slices of member i, peers[i] its
 * number. ERR_CORRUPT when they cannot be. */
bool member_follows(const struct member *member, const struct offer *offer, uint64_t step, uint64_t fence);
int member_view(struct member *member, struct reads *reads, uint64_t step, uint64_t fence, size_t members, size_t self,
                const struct slice_set *sets, const uint64_t *peers);

/* COMMIT: is it of the sum that was told of? Then it is applied, and member_committed() ends the step. */
bool member_commits(const struct member *member, uint64_t step, uint64_t fence);
void member_committed(struct member *member, struct reads *reads);

/* What to do now; asks what may be asked. False: nothing until a message comes. The same duty comes again until it is done. */
bool member_next(struct member *member, struct duty *out, struct reads *reads);
void member_reduced(struct member *member);

#endif
