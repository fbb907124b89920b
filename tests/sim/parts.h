/* What the model's processes remember. Included by world.h alone. */
#ifndef MILLRACE_TESTS_SIM_PARTS_H
#define MILLRACE_TESTS_SIM_PARTS_H

/* What outlives a coordinator: its store and its checkpoints. */
struct durable {
    uint64_t generation, ledger, checkpoint, evaluated;
    bool committed_once[STEPS_CAP + 1];
    struct sum checkpoint_state;
};

enum { ENTRIES = 256, EVALUATE_JOBS = 3, ATTEMPTS_MAX = 5, SAVE_AGAIN_MS = 5000, STOP_MS = 30000 };

struct entry {                /* a worker as the coordinator knows it */
    int slot;
    uint32_t life, connection;
    enum { ENTRY_FREE, ENTRY_JOINING, ENTRY_HERE, ENTRY_GONE } state;
    struct session session;
    int64_t heard_ms;
    bool unreachable, has_claim, leaving;
    uint64_t claim_step;
    uint8_t claim[XXH128_BYTES];
    size_t leases;
};

struct coordinator_model {
    bool up, ended, stopping;
    uint32_t life;
    int64_t stop_at_ms, heartbeat_ms;
    struct trainer *trainer;
    struct entry entry[ENTRIES];
    size_t entries;
    struct queue queue;
    bool queue_open;
    uint64_t evaluate_step;
    struct reads reads;
    struct {
        bool active;
        uint64_t step;
        bool requested[SEGMENTS], arrived[SEGMENTS];
        struct sum state;
        int64_t again_ms, published_ms; /* 0: not being published */
    } saving;
    int crash_in;             /* 0: no crash is planned; else after that many more sends and writes */
    int saves_to_fail;
    uint64_t save_wanted;     /* step whose state was asked to be saved; 0: none */
    bool save_open;           /* a save was asked for, and nothing saved since: after a roll-back the next state will do */
};

struct partial_model {
    struct node node;
    struct sum sum;
};

struct part_model {           /* a node of the step's cover */
    struct node node;
    size_t member;
};

enum work { IDLE, WORK_SLICE, WORK_FIRST_STATE, WORK_APPLY, WORK_EVALUATE };

struct worker_model {
    bool alive;
    uint32_t life;
    int64_t paused_until_ms;
    bool welcomed, leaving;
    struct session session;
    int64_t asked_ms[SLOTS];   /* a worker in that place, which has been silent since; 0: none */
    struct letter inbox[LETTERS_CAP];
    size_t inbox_first, inbox_count;
    struct { int from; uint32_t connection; struct letter letter; } parked[LETTERS_CAP];
    size_t parked_count;
    enum work work;
    uint32_t slice;            /* of WORK_SLICE */
    struct letter lease;       /* of WORK_EVALUATE */
    /* what others may see */
    bool has_state, bad, spoil;
    uint64_t state_step;
    int64_t state_since_ms;
    struct sum state;
    uint8_t state_digest[XXH128_BYTES];
    uint64_t shown_fence;
    struct partial_model partial[SLICES_CAP];
    size_t partials;
    bool partials_done, sum_ready[SEGMENTS];
    struct sum sum;
    /* the step under way */
    uint64_t step, fence;
    size_t members, self;
    struct peer member[PEERS_CAP];
    struct slice_set mine, held;
    struct part_model part[SLICES_CAP];
    size_t parts;
    bool exchanging, reduced;
    size_t sums, missing[SEGMENTS];
    uint64_t values[SEGMENTS][SLICES_CAP];
    struct reads reads;
    /* joining */
    bool joining, join_has_digest;
    uint64_t join_step;
    uint8_t join_digest[XXH128_BYTES];
    size_t join_missing;
};

#endif
