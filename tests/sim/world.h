/* The simulated world: time, random numbers, events, and what a seed stands for. Nothing here knows what coordinator and workers do: the
 * processes are in process.h, what is between them in network.h, the coordinator's files in disk.h, what stands for arithmetic in
 * arithmetic.h; judge.h looks on. */
#ifndef MILLRACE_TESTS_SIM_WORLD_H
#define MILLRACE_TESTS_SIM_WORLD_H

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/philox.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/trainer.h"
#include "dataset/shard/manifest.h"
#include "model/optim/optimizer.h"
#include "proto/frame.h"
#include "proto/reads.h"
#include "proto/session.h"
#include "proto/steps.h"

enum {
    SLOTS = 6,            /* worker processes at a time */
    COORDINATOR = SLOTS,  /* the coordinator's place among the processes */
    PLACES,
    STEPS_CAP = 12,
    SLICES_CAP = 48,
    LINKS_CAP = 16,       /* that are open at a time */
    ELEMENTS_CAP = 160,
    SEGMENTS_CAP = ELEMENTS_CAP / SEGMENT_ELEMENTS,
    SEQUENCE = 4,
    VARIANTS = 16,        /* of texts and what is made of them */
    SILENT_MS = 3000,     /* cluster.lease_seconds: after that a silent worker is taken for lost */
    LATE_MS = 60000,
    STOP_MS = 30000,      /* the coordinator's grace */
    CALM_MS = 300000,     /* a run must be done this long after the last disturbance */
    GOING_MS = 60000,     /* and everybody gone this long after the run is done */
};

/* What is done to a run, each with how often. */
enum fault {
    FAULT_CRASH, FAULT_PAUSE, FAULT_CLOCK, FAULT_BREAK, FAULT_PARTITION, FAULT_LOST, FAULT_REPEATED, FAULT_REORDERED, FAULT_WALL,
    FAULT_COORDINATOR, FAULT_COORDINATOR_DATASET, FAULT_POWER, FAULT_FULL, FAULT_WRITE, FAULT_SLOW, FAULT_STOP, FAULT_LEAVE,
    FAULT_SAVE_ASKED, FAULT_SPOILT, FAULT_NOT_FINITE, FAULT_AFAR, FAULT_DAMAGED, FAULTS
};
static const char *const fault_names[FAULTS] = {
    "a worker crashed", "a process stood still", "a clock jumped", "a connection broke", "the network was split", "a message was lost",
    "a message came twice", "a message came out of order", "a message between two that never reach each other",
    "the coordinator crashed", "the same while the dataset was made", "its machine lost power: what was not synced was lost",
    "its disk was full", "its disk failed to write", "its disk took a second or more for a write", "the run was stopped and begun again",
    "a worker was asked to leave", "a save was asked for", "a worker's state went bad", "a gradient was not finite",
    "a worker had no source files of its own", "a shard was damaged on the disk"};

/* Faults of workers or links that no protocol can make good: the simulation must notice them. */
enum defect {
    DEFECT_NONE,
    DEFECT_WRONG_SUM,     /* an addition is off by a bit */
    DEFECT_FORGOTTEN_SLICE,
    DEFECT_DEAF,          /* workers do not hear JOIN */
    DEFECT_UNNUMBERED,    /* a lost message is not missed */
    DEFECT_UNTOLD,        /* workers do not notice whom they cannot reach */
    DEFECT_HASTY,         /* who is asked to leave does so at once */
};

/* What a test wants to be in each plan. */
enum wish { WISH_NONE, WISH_LOSSY, WISH_WALLED, WISH_GENTLE };

struct plan {                   /* what a seed stands for */
    struct trainer_options options;
    size_t elements;            /* of the model: some segments, the last one often a short one */
    int sequences;              /* of a slice */
    const char *optim;
    int workers, disturbances;
    int64_t gap_ms, slice_ms, job_ms, delay_ms;
    bool harsh;                 /* links repeat, and bulk bytes and questions for them come in any order */
    bool lossy;                 /* links that live on lose messages */
    bool walled, wall_both;     /* workers in one place never reach those in another one, or both not the other */
    int wall_from, wall_to;
    bool clocks;                /* clocks jump */
    bool bad_states, not_finite, stops;
    bool leaves;                /* workers are asked to leave, and the coordinator to save */
    bool gentle;                /* nothing worse than that happens, so no step may be lost */
    bool disks;                 /* the coordinator's disk is full for a while, or fails */
    bool damages;               /* shards are damaged */
    bool late;                  /* nothing happens before training begins */
    bool dataset_alone;         /* the run is over when the dataset is there: `millrace dataset build` */
    unsigned afar;              /* bits: places whose machines do not have the source files */
    unsigned variant;           /* of the text and what is made of it */
};

enum event_kind { EVENT_MESSAGE, EVENT_RESUME, EVENT_DISTURB, EVENT_SPAWN, EVENT_CALM, EVENT_DRAIN };

struct coroutine;
struct sent_message;

struct event {
    int64_t time_ms;
    uint64_t serial;
    enum event_kind kind;
    int place;                  /* whose: a process that stands still notices it when it goes on */
    struct coroutine *coroutine;
    uint64_t ticket;            /* of the coroutine: it waits for this, and not for something else since */
    struct sent_message *sent;
};

struct line {                   /* between two places */
    uint32_t connection;
    int64_t down_until_ms;
    int64_t last_ms[2];         /* newest delivery, by direction: a connection keeps the order */
};

struct truth {                  /* state and gradient of a step, as the undisturbed run has them */
    uint8_t state[STATE_PARTS][ELEMENTS_CAP * sizeof(float)];
    uint8_t state_digest[XXH128_BYTES];
    float gradient[ELEMENTS_CAP];
    uint8_t gradient_digest[XXH128_BYTES];
    double loss;
    uint64_t tokens;
};

/* A dataset as the undisturbed run makes it. */
struct reference {
    bool made;
    uint8_t digest[SHA256_BYTES];
    struct split {
        Millrace__Geometry geometry;
        uint16_t *token;
        uint64_t tokens, sequences;
    } split[2];                 /* train, validation */
};

/* What the coordinator must not forget: as it told of it. */
struct record {
    uint64_t ledger, checkpoint, evaluated, sealed;
    uint64_t ledger_most;       /* a row that was being written, or taken back, when it died may be there or not */
    bool committed_once[STEPS_CAP + 1];
    uint64_t save_wanted;       /* step whose state was asked to be saved; 0: none */
    bool save_open;             /* a save was asked for, and nothing saved since: after a roll-back the next state will do */
};

/* A part of a process that runs by itself until it waits: what is a thread elsewhere. */
struct coroutine {
    ucontext_t context;
    char *stack;                /* kept for the next one */
    struct process *process;
    void *(*main)(void *arg);
    void *arg;
    enum { COROUTINE_FREE, COROUTINE_WAITS, COROUTINE_RUNS, COROUTINE_ENDED } state;
    bool detached;
    const void *waits_on;       /* a condition, a link or a coroutine; NULL: for its time alone */
    bool woken;                 /* before that */
    uint64_t ticket;
    void *fiber;                /* what a sanitizer knows it by */
};

struct process {
    int place;
    uint32_t life;
    bool alive, dying;
    volatile sig_atomic_t stops; /* how often it was asked to leave */
    int64_t still_until_ms;
    int64_t clock_ms, wall_ms;  /* its clocks, less the world's */
    struct coroutine part[2];
    bool spoil, bad;            /* its next state goes bad; it did */
    uint64_t shown_step;        /* of the state that it last told of; UINT64_MAX: none */
    int64_t shown_ms;
};

struct sim {
    uint64_t seed, drawn, serial, links, events, digest;
    int64_t now_ms;
    bool trace, calm;
    bool finished, done;        /* the run is; and everybody is gone */
    char failure[512];
    enum defect defect;
    enum wish wish;
    struct plan plan;
    struct config config;
    struct optimizer optimizer;
    struct state_parts parts;
    char *folder, *pipeline;    /* where its files are; what the run is given */
    struct event *pool, **free_events, **heap;
    size_t pool_size, free_count, heap_count;
    struct line line[PLACES][PLACES];
    struct link *link[LINKS_CAP];
    struct process process[PLACES];
    struct reference reference[VARIANTS];
    struct truth truth[STEPS_CAP + 1];
    double truth_evaluation[STEPS_CAP + 1];
    uint64_t evaluated_sequences; /* of the validation split */
    struct record record;
    struct disk *disk;
    struct context *c;          /* the coordinator's; NULL: there is none */
    int crash_in;               /* 0: no crash of the coordinator is planned; else after that many more sends and writes */
    bool crash_is_power, stop_asked;
    int disturbed;
    int64_t calm_ms, finished_ms;
    uint64_t faults[FAULTS], bars, rollbacks, evictions, commits, restarts, joins, segments, runs, shards;
};

/* ---- random numbers ---- */

static inline uint64_t draw(struct sim *s) {
    struct philox_block block = philox(s->seed, 0, s->drawn++);
    return (uint64_t)block.word[0] << 32 | block.word[1];
}
static inline int64_t draw_in(struct sim *s, int64_t low, int64_t high) { return low + (int64_t)(draw(s) % (uint64_t)(high - low + 1)); }
static inline bool chance(struct sim *s, int percent) { return draw_in(s, 1, 100) <= percent; }

static inline uint64_t mix(uint64_t a, uint64_t b) {
    uint64_t x = a * UINT64_C(0x9E3779B97F4A7C15) + (b ^ (b >> 29)) * UINT64_C(0xBF58476D1CE4E5B9) + 1;
    x = (x ^ (x >> 31)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 30);
}

/* ---- telling ---- */

__attribute__((format(printf, 2, 3))) static void trace(struct sim *s, const char *format, ...) {
    if (!s->trace) return;
    va_list args;
    va_start(args, format);
    printf("%8lld ", (long long)s->now_ms);
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

__attribute__((format(printf, 2, 3))) static void broken(struct sim *s, const char *format, ...) {
    if (s->failure[0]) return;
    va_list args;
    va_start(args, format);
    int n = snprintf(s->failure, sizeof s->failure, "at %lld ms: ", (long long)s->now_ms);
    vsnprintf(s->failure + n, sizeof s->failure - (size_t)n, format, args);
    va_end(args);
    trace(s, "BROKEN %s", s->failure);
}

static const char *place_name(int place) {
    static const char *const names[PLACES] = {"worker 0", "worker 1", "worker 2", "worker 3", "worker 4", "worker 5", "coordinator"};
    return names[place];
}

/* ---- events, earliest first ---- */

static inline bool earlier(const struct event *a, const struct event *b) {
    return a->time_ms != b->time_ms ? a->time_ms < b->time_ms : a->serial < b->serial;
}

static void heap_push(struct sim *s, struct event *event) {
    size_t i = s->heap_count++;
    for (; i > 0 && earlier(event, s->heap[(i - 1) / 2]); i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = event;
}

static struct event *heap_pop(struct sim *s) {
    struct event *first = s->heap[0], *last = s->heap[--s->heap_count];
    size_t i = 0;
    for (size_t child; (child = i * 2 + 1) < s->heap_count; i = child) {
        if (child + 1 < s->heap_count && earlier(s->heap[child + 1], s->heap[child])) child++;
        if (!earlier(s->heap[child], last)) break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = last;
    return first;
}

static struct event *event_at(struct sim *s, int64_t time_ms, enum event_kind kind, int place) {
    if (s->free_count == 0) {
        fprintf(stderr, "seed %llu: more events than the simulation has room for\n", (unsigned long long)s->seed);
        abort();
    }
    struct event *event = s->free_events[--s->free_count];
    *event = (struct event){.time_ms = time_ms, .serial = s->serial++, .kind = kind, .place = place};
    return event;
}

static inline void after(struct sim *s, int64_t ms, enum event_kind kind, int place) {
    heap_push(s, event_at(s, s->now_ms + ms, kind, place));
}

/* ---- connections ---- */

static struct line *line_between(struct sim *s, int a, int b) { return a < b ? &s->line[a][b] : &s->line[b][a]; }

/* Everything under way is lost; for that long nothing new comes through. */
static void line_break(struct sim *s, int a, int b, int64_t ms) {
    struct line *line = line_between(s, a, b);
    line->connection++;
    if (line->down_until_ms < s->now_ms + ms) line->down_until_ms = s->now_ms + ms;
    line->last_ms[0] = line->last_ms[1] = 0;
}

#endif
