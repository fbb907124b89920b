/* The exchange of one step's sums (the all-reduce), as decisions alone: reduce-scatter, then all-gather, both by asking. With n members in
 * the view, those without slices too, segment s belongs to member s mod n. For each segment of ours we read the partial sums of the other
 * members' nodes and add them up along the slice tree; every other segment we read from its owner.
 *
 * exchange_view() when a STEP comes, exchange_begin() when our own slices are computed; then exchange_ask(), and exchange_take() with each
 * answer, until exchange_complete(). exchange_full() says which slot has all its partial sums; exchange_summed() when they are added up.
 *
 * Pure: events come in as calls, what to ask goes into a table of reads, what to add up is a list of additions. It knows segments,
 * partial sums and peers as numbers, and never touches a float: summing.c does what is decided here, and tests do it with numbers of their
 * own. The work thread's. */
#ifndef MILLRACE_WORKERS_EXCHANGE_H
#define MILLRACE_WORKERS_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/reads.h"
#include "proto/steps.h"

enum {
    PARTIALS_MAX = SLICES_MAX, /* nodes of the covers of all members: at worst one for each slice */
};

struct exchange_limits {
    size_t slots, reads_at_peer, reads;
};
static const struct exchange_limits exchange_limits = {SLOTS_MAX, READS_AT_PEER_MAX, EXCHANGE_READS_MAX};

struct exchange_partial { /* a node of somebody's cover: it comes as one partial sum */
    struct node node;
    uint32_t member;
};

/* What an addition reads or writes: a partial sum, one of two scratch vectors for each level, or the segment's sum itself. */
struct operand {
    enum { OPERAND_PARTIAL, OPERAND_SCRATCH, OPERAND_SUM } of;
    uint32_t index; /* of the partial sum; of the scratch vector */
};
struct addition {
    struct operand out, left, right; /* out = left + right, left being the lower slices */
};
enum { SCRATCH_MAX = 32 };

struct exchange_slot { /* one of our segments, being collected */
    bool used;
    size_t segment;
    size_t next_partial; /* the first one not asked for yet */
    size_t missing;      /* partial sums of others that are not here */
};

struct exchange {
    struct exchange_limits limits;
    uint64_t step, fence; /* of the view; questions carry both */
    size_t members, self, segments;
    uint64_t peer[MEMBERS_MAX]; /* the number that reads know each member by */
    struct exchange_partial partial[PARTIALS_MAX];
    size_t partials, partials_of_others;
    struct addition addition[PARTIALS_MAX]; /* the same ones for every segment, in order */
    size_t additions;
    struct operand sum; /* where the sum is after them: a partial sum, when that one is the whole */
    bool running;
    struct exchange_slot slot[SLOTS_MAX];
    size_t next_own, next_other; /* the first segments not asked for yet */
    size_t sums;                 /* segments whose sum is here */
};

/* A view: sets[i] are the slices of member i, peers[i] its number. Ends what was under way. ERR_CORRUPT when a slice is nobody's. */
int exchange_view(struct exchange *exchange, uint64_t step, uint64_t fence, size_t members, size_t self, const struct slice_set *sets,
                  const uint64_t *peers, uint32_t slices, size_t segments, const struct exchange_limits *limits);

/* Our own partial sums are there. */
void exchange_begin(struct exchange *exchange);

/* Adds what may be asked now to `reads`. Call it after every event. */
void exchange_ask(struct exchange *exchange, struct reads *reads);

/* An answer to a question of ours that was taken out of `reads`. `good`: its status is OK, its size what was asked for. Else the question
 * goes back and is asked again later: nobody but us knows that we wait for it. */
enum exchange_taken {
    TAKEN_NOT,     /* of an exchange that is over: of no use */
    TAKEN_AGAIN,   /* not good: will be asked again */
    TAKEN_PARTIAL, /* keep it as partial sum *out_partial of slot *out_slot */
    TAKEN_SUM,     /* keep it as the sum of segment read->body.c */
};
enum exchange_taken exchange_take(struct exchange *exchange, struct reads *reads, size_t *out_slot, size_t *out_partial,
                                  const struct read *read, bool good, int64_t now_ms);

/* A slot with all its partial sums: the caller does the additions for its segment, then calls exchange_summed(). */
bool exchange_full(const struct exchange *exchange, size_t *out_slot);
void exchange_summed(struct exchange *exchange, size_t slot);

bool exchange_complete(const struct exchange *exchange);           /* all sums are here */
void exchange_end(struct exchange *exchange, struct reads *reads); /* forgets what is under way */

#endif
