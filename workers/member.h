/* A worker's side of training: its copy of the state, the step under way, and the exchange of its sums. member.c holds the state and
 * computes slices; exchange.c decides how segments are summed with the other members, summing.c does it; join.c takes the state from
 * others. All of it belongs to the work thread, but for what struct shared shows to the network thread. */
#ifndef MILLRACE_WORKERS_MEMBER_H
#define MILLRACE_WORKERS_MEMBER_H

#include "workers/exchange.h"
#include "workers/internal.h"

struct partial { /* a node's partial sum, N floats */
    struct node node;
    float *values;
};

struct member_side {
    struct gpt2_config model;
    struct optimizer optimizer;
    struct gpt2 *gpt2;
    size_t elements, segments;
    int slice_sequences, T;
    bool dropout;
    uint64_t max_steps;
    Millrace__Geometry geometry;
    int32_t *tokens, *targets;      /* one slice's worth */
    float *spare[NODES_MAX + 2];    /* vectors of N floats that nobody uses */
    size_t spares;

    /* the step under way; step 0: none */
    uint64_t step, fence;
    struct slice_set mine, held;
    struct partial partial[NODES_MAX];
    size_t partials;
    struct exchange exchange;
    const float *own_part[PARTS_MAX];           /* the whole vector of a part of ours; others': NULL */
    struct message piece[SLOTS_MAX][PARTS_MAX]; /* of others' parts, the slot's segment: the message that brought it */
    bool reduced;
    double square_sum;

    /* joining */
    bool joining;
    uint64_t join_step;
    bool join_has_digest;
    uint8_t join_digest[XXH128_BYTES];
    uint64_t join_peer[MEMBERS_MAX];
    size_t join_peers, join_bad, join_next, join_missing; /* items are (part, segment) pairs */
};

/* summing.c */
void summing_pump(struct worker *worker); /* does what may be done now; begins when our slices are done */
void summing_data(struct worker *worker, const struct read *read, struct message *message); /* may take the message's memory */
void summing_end(struct worker *worker);                                                    /* forgets what is under way */

/* join.c */
void join_pump(struct worker *worker);
void join_data(struct worker *worker, const struct read *read, const struct message *message);
void join_end(struct worker *worker);

/* member.c */
void member_show_state(struct worker *worker, uint64_t step, const uint8_t *digest_or_null);
void member_tell_applied(struct worker *worker, const uint8_t *digest_or_null);
int member_spare(struct worker *worker, float **out);
void member_give_back(struct worker *worker, float *values);
struct envelope member_envelope(const struct worker *worker, uint32_t kind);

#endif
