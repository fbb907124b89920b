/* A worker's membership, as decisions alone: which state it takes, which view of which step it follows, and what it does next. In which
 * order things come is decided by the coordinator's messages: JOIN, then STEP and COMMIT again and again.
 *
 * Pure: messages come in as calls (membership_join(), membership_view(), membership_committed()), what to ask goes into a table of reads,
 * what to do comes out as duties, one after the other (membership_next()). learner.c carries them out and says when each is done. The work
 * thread's. */
#ifndef MILLRACE_WORKERS_MEMBERSHIP_H
#define MILLRACE_WORKERS_MEMBERSHIP_H

#include "workers/exchange.h"
#include "workers/join.h"
#include "workers/offer.h"
#include "workers/partials.h"

struct membership {
    size_t segments;
    /* the step under way; step 0: none */
    uint64_t step, fence;
    struct partials partials;
    struct exchange exchange;
    bool reduced; /* the whole sum is here, and REDUCED was sent */
    struct join join;
};

enum duty_kind {
    DUTY_FIRST_STATE, /* make the state of step 0; then the same as for DUTY_BELIEVE */
    DUTY_BELIEVE,     /* all of the state is here: offer it if join_believes() its digest; then membership_joined() */
    DUTY_SLICE,       /* compute `slice` into the vector of partials_room(), partials_put(), and do the additions of partials_add() */
    DUTY_SHOW,        /* our partial sums may be asked for; then exchange_begin() */
    DUTY_SUM,         /* add up the segment of exchange.slot[slot]; then exchange_summed() */
    DUTY_REDUCED,     /* the whole sum is here: send REDUCED; then membership_reduced() */
};
struct duty {
    enum duty_kind kind;
    uint32_t slice;
    size_t slot;
};

void membership_open(struct membership *m, uint32_t slices, size_t segments, const uint64_t *state_parts, size_t state_part_count);

/* JOIN: take this state. Ends what was under way. False: it is here already, as offer and its digest say; nothing is to be done. */
bool membership_join(struct membership *m, struct reads *reads, const struct offer *offer, const uint8_t *offered_digest, uint64_t step,
                     const uint8_t *digest_or_null, const uint64_t *peers, size_t peer_count);
void membership_joined(struct membership *m, struct reads *reads);

/* STEP: is it of the step after the state that is here, and a later view than the last? Then membership_view() takes it: sets[i] are the
 * slices of member i, peers[i] its number. ERR_CORRUPT when a slice belongs to nobody. */
bool membership_follows(const struct membership *m, const struct offer *offer, uint64_t step, uint64_t fence);
int membership_view(struct membership *m, struct reads *reads, uint64_t step, uint64_t fence, size_t members, size_t self,
                    const struct slice_set *sets, const uint64_t *peers);

/* COMMIT: is it of the step and view whose REDUCED was sent? Then it is applied, and membership_committed() ends the step. */
bool membership_commits(const struct membership *m, uint64_t step, uint64_t fence);
void membership_committed(struct membership *m, struct reads *reads);

/* What to do now; asks what may be asked. False: nothing until a message comes. The same duty comes again until it is done. */
bool membership_next(struct membership *m, struct duty *out, struct reads *reads);
void membership_reduced(struct membership *m);

#endif
