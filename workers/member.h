/* A worker's side of training: its copy of the state, the step under way, and the exchange of its sums. member.c holds the state and
 * computes slices; exchange.c sums segments with the other members; join.c takes the state from others. All of it belongs to the work
 * thread, but for what struct shared shows to the network thread. */
#ifndef MILLRACE_WORKERS_MEMBER_H
#define MILLRACE_WORKERS_MEMBER_H

#include "workers/internal.h"

enum {
    MEMBERS_MAX = 1024,
    PARTS_MAX = SLICES_MAX,  /* nodes of the covers of all members: at worst one for each slice */
    SLOTS_MAX = 4,           /* segments whose partial sums are being collected at once */
    READS_AT_PEER_MAX = 4,   /* open reads of one kind at one peer */
};

struct peer_part {           /* a node of the step's cover */
    struct node node;
    uint32_t member;
    const float *values;     /* ours: the whole vector; others': NULL */
};

struct slot {                /* one of our segments, being collected */
    bool used;
    size_t segment, missing;
    float *values[PARTS_MAX];/* by part; only those of others are allocated */
    size_t next_part;        /* the first part not asked for yet */
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
    size_t members, self;
    uint64_t peer[MEMBERS_MAX];     /* their numbers */
    struct slice_set mine, held;
    struct peer_part part[PARTS_MAX];
    size_t parts;
    bool exchanging, reduced;
    struct slot slot[SLOTS_MAX];
    size_t next_own, next_other;    /* the first segments not asked for yet */
    size_t sums;                    /* segments of the sum that are here */
    float *scratch[32][2];
    double square_sum;

    /* joining */
    bool joining;
    uint64_t join_step;
    bool join_has_digest;
    uint8_t join_digest[XXH128_BYTES];
    uint64_t join_peer[MEMBERS_MAX];
    size_t join_peers, join_next, join_missing;  /* items are (part, segment) pairs */
};

/* exchange.c */
void exchange_begin(struct worker *worker);
void exchange_pump(struct worker *worker);   /* asks for what may be asked for now */
void exchange_data(struct worker *worker, const struct read *read, const struct message *message);
void exchange_end(struct worker *worker);    /* forgets what is under way */

/* join.c */
void join_pump(struct worker *worker);
void join_data(struct worker *worker, const struct read *read, const struct message *message);
void join_end(struct worker *worker);

/* member.c */
void member_tell_applied(struct worker *worker, const uint8_t *digest_or_null);
int member_spare(struct worker *worker, float **out);
void member_give_back(struct worker *worker, float *values);
struct envelope member_envelope(const struct worker *worker, uint32_t kind);

#endif
