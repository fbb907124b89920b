/* The simulated world: time, random numbers, links that lose letters, and the undisturbed run that every disturbed one must equal.
 *
 * A training state and a gradient are SEGMENTS hashes. A slice's gradient is a hash of (state, step, slice), a sum the hash of its left and
 * right half in that order: a wrong tree, a slice that is missing or counted twice, or a state that is not the right one gives another
 * number, for good. Nothing here knows what coordinator and workers do (coordinator.h, worker.h). */
#ifndef MILLRACE_TESTS_SIM_WORLD_H
#define MILLRACE_TESTS_SIM_WORLD_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/philox.h"
#include "coordinator/queue.h"
#include "coordinator/trainer.h"
#include "proto/reads.h"
#include "proto/session.h"
#include "proto/steps.h"

enum {
    SLOTS = 6,            /* worker processes at a time */
    PEERS_CAP = 32,       /* workers that the coordinator takes for living: dead ones among them */
    COORDINATOR = SLOTS,  /* the coordinator's place among the ends of links */
    STEPS_CAP = 16,
    SLICES_CAP = 12,
    SEGMENTS = 2,
    LETTERS_CAP = 256,    /* in an inbox, or parked */
    HEARTBEAT_MS = 500,
    TICK_MS = 50,
    LEASE_MS = 3000,
    UNHEARD_MS = 6000,    /* silence of another worker, before the coordinator is told */
    CALM_MS = 60000,      /* a run must be done this long after the last disturbance */
};

struct sum {
    uint64_t v[SEGMENTS];
};

enum kind {
    WHO, HELLO, WELCOME, ANSWER, HEARTBEAT, GOODBYE, JOIN, STEP, SLICE, REDUCED, COMMIT, APPLIED, LEASE, DONE, FAILED, READ, DATA, KINDS
};
static const char *const kind_names[KINDS] = {"WHO",  "HELLO",   "WELCOME", "ANSWER",  "HEARTBEAT", "GOODBYE", "JOIN", "STEP", "SLICE",
                                              "REDUCED", "COMMIT", "APPLIED", "LEASE", "DONE", "FAILED", "READ", "DATA"};

struct peer {              /* a worker process: a later one in the same slot has another life */
    int slot;
    uint32_t life;
    uint32_t slices;       /* in STEP: one bit for each */
};

struct letter {
    enum kind kind;
    uint64_t step, fence, job;
    uint64_t number;       /* in its session */
    bool has_digest;       /* HELLO, JOIN, APPLIED */
    bool good;             /* REDUCED: finite. COMMIT: skip. DATA: OK. */
    uint8_t digest[XXH128_BYTES];
    uint32_t slice;
    double loss;
    uint64_t tokens;
    int what;              /* READ: Millrace__Read__What */
    struct node node;
    size_t segment;
    uint64_t value;        /* DATA */
    uint32_t unheard;      /* HEARTBEAT: places of workers, one bit for each */
    bool leaving;          /* HEARTBEAT: the sender was asked to leave */
    size_t peers, self;    /* JOIN: who holds the state. STEP: the members. */
    struct peer peer[PEERS_CAP];
};

enum event_kind {
    EVENT_LETTER, EVENT_WORK, EVENT_HEARTBEAT, EVENT_TICK, EVENT_DISTURB, EVENT_SPAWN, EVENT_COORDINATOR, EVENT_WAKE, EVENT_CALM,
    EVENT_GRACE
};

struct event {
    int64_t time_ms;
    uint64_t serial;
    enum event_kind kind;
    int from, to;
    uint32_t life, connection;  /* of the receiver, of the link: a letter for another one is lost */
    struct letter letter;
};

struct line {                   /* between two ends */
    uint32_t connection;
    int64_t down_until_ms;
    int64_t last_ms[2];         /* newest delivery, by direction: a connection keeps the order */
};

/* Faults of the model's workers that no protocol can make good: the simulation must notice them. */
enum defect {
    DEFECT_NONE,
    DEFECT_SWAPPED_SUM,
    DEFECT_UNASKED_APPLY,
    DEFECT_FORGOTTEN_SLICE,
    DEFECT_DEAF,
    DEFECT_UNNUMBERED,
    DEFECT_UNTOLD,
    DEFECT_HASTY
};

struct plan {                   /* what a seed stands for */
    struct trainer_options options;
    int workers, disturbances;
    int64_t gap_ms, slice_ms, delay_ms;
    bool harsh;                 /* links repeat and reorder, too */
    bool lossy;                 /* links that live on lose letters, and letters are numbered as in proto/session.h */
    bool walled, wall_both;     /* workers in one place never reach those in another one, or both not the other */
    int wall_from, wall_to;
    bool bad_states, not_finite, stops;
    bool leaves;                /* workers are asked to leave, and the coordinator to save */
    bool gentle;                /* nothing worse than that happens, so no step may be lost */
};

#include "tests/sim/parts.h"

struct sim {
    uint64_t seed, drawn, serial, events;
    int64_t now_ms;
    bool trace, calm, done;
    char failure[512];
    enum defect defect;
    struct plan plan;
    struct event *pool, **free_events, **heap;
    size_t pool_size, free_count, heap_count;
    struct line line[SLOTS + 1][SLOTS + 1];
    struct sum true_state[STEPS_CAP + 1], true_gradient[STEPS_CAP + 1];
    double true_loss[STEPS_CAP + 1];
    struct durable durable;
    struct coordinator_model c;
    struct worker_model worker[SLOTS];
    int disturbed;
    int64_t calm_ms;
    uint64_t bars, rollbacks, evictions, commits, restarts, leaves, saves;
};

/* ---- random numbers ---- */

static inline uint64_t draw(struct sim *s) {
    struct philox_block block = philox(s->seed, 0, s->drawn++);
    return (uint64_t)block.word[0] << 32 | block.word[1];
}
static inline int64_t draw_in(struct sim *s, int64_t low, int64_t high) { return low + (int64_t)(draw(s) % (uint64_t)(high - low + 1)); }
static inline bool chance(struct sim *s, int percent) { return draw_in(s, 1, 100) <= percent; }

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

/* ---- hashes in the place of arithmetic ---- */

static inline uint64_t mix(uint64_t a, uint64_t b) {
    uint64_t x = a * UINT64_C(0x9E3779B97F4A7C15) + (b ^ (b >> 29)) * UINT64_C(0xBF58476D1CE4E5B9) + 1;
    x = (x ^ (x >> 31)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 30);
}

static void digest_of(uint8_t out[XXH128_BYTES], const struct sum *sum) {
    uint64_t both[2] = {mix(sum->v[0], sum->v[1]), mix(sum->v[1], sum->v[0])};
    memcpy(out, both, XXH128_BYTES);
}
static inline bool same_digest(const uint8_t *a, const uint8_t *b) { return memcmp(a, b, XXH128_BYTES) == 0; }
static inline bool same_sum(const struct sum *a, const struct sum *b) { return memcmp(a, b, sizeof *a) == 0; }

static struct sum slice_gradient(const struct sum *state, uint64_t step, uint32_t slice) {
    struct sum out;
    for (size_t g = 0; g < SEGMENTS; g++) out.v[g] = mix(mix(state->v[0], state->v[1]), step << 20 | slice << 4 | g);
    return out;
}
static double slice_loss(const struct sum *state, uint64_t step, uint32_t slice) {
    return (double)(mix(state->v[0] ^ state->v[1], step * 64 + slice) % 100000) / 7;
}
static inline uint64_t slice_tokens(uint32_t slice) { return 10 + slice; }
static inline bool is_finite_step(const struct sim *s, uint64_t step) { return !s->plan.not_finite || mix(s->seed, step) % 4 != 0; }

static struct sum next_state(const struct sum *state, const struct sum *gradient, uint64_t step, bool skip) {
    struct sum out = *state;
    for (size_t g = 0; g < SEGMENTS && !skip; g++) out.v[g] = mix(mix(state->v[g], gradient->v[g]), step);
    return out;
}
static struct sum first_state(const struct sim *s) { return (struct sum){{mix(s->seed, 1), mix(s->seed, 2)}}; }

/* ---- the undisturbed run, from the definition of the tree alone ---- */

static struct sum true_sum(const struct sim *s, const struct sum *state, uint64_t step, uint32_t begin, uint32_t size) {
    if (size == 1) return slice_gradient(state, step, begin);
    struct sum left = true_sum(s, state, step, begin, size / 2), right;
    if (begin + size / 2 >= s->plan.options.slices) return left;
    right = true_sum(s, state, step, begin + size / 2, size / 2);
    for (size_t g = 0; g < SEGMENTS; g++) left.v[g] = mix(left.v[g], right.v[g]);
    return left;
}

static void undisturbed(struct sim *s) {
    uint32_t slices = s->plan.options.slices, size = 1;
    while (size < slices) size *= 2;
    s->true_state[0] = first_state(s);
    for (uint64_t step = 1; step <= s->plan.options.max_steps; step++) {
        const struct sum *before = &s->true_state[step - 1];
        double loss[SLICES_CAP];
        for (uint32_t i = 0; i < slices; i++) loss[i] = slice_loss(before, step, i);
        s->true_loss[step] = tree_sum(loss, slices);
        s->true_gradient[step] = true_sum(s, before, step, 0, size);
        s->true_state[step] = next_state(before, &s->true_gradient[step], step, !is_finite_step(s, step));
    }
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

static struct event *event_at(struct sim *s, int64_t time_ms, enum event_kind kind, int to) {
    if (s->free_count == 0) {
        fprintf(stderr, "seed %llu: more events than the simulation has room for\n", (unsigned long long)s->seed);
        abort();
    }
    struct event *event = s->free_events[--s->free_count];
    event->time_ms = time_ms;
    event->serial = s->serial++;
    event->kind = kind;
    event->to = to;
    return event;
}

static void after(struct sim *s, int64_t ms, enum event_kind kind, int to) {
    struct event *event = event_at(s, s->now_ms + ms, kind, to);
    event->life = to < SLOTS && to >= 0 ? s->worker[to].life : s->c.life;
    heap_push(s, event);
}

/* ---- links ---- */

/* The kinds that are numbered, as session_counts() has them. */
static bool letter_counts(const struct sim *s, const struct letter *letter) {
    enum kind k = letter->kind;
    return s->plan.lossy && s->defect != DEFECT_UNNUMBERED &&
           (k == WELCOME || k == ANSWER || (k >= JOIN && k <= FAILED));
}

static void letter_number(const struct sim *s, struct session *session, struct letter *letter) {
    letter->number = session_number(session, letter_counts(s, letter));
    session_sent(session, letter_counts(s, letter));
}

static enum session_news letter_take(const struct sim *s, struct session *session, const struct letter *letter) {
    if (!letter_counts(s, letter) && letter->kind != HEARTBEAT) return SESSION_NEXT;
    return session_take(session, letter_counts(s, letter), letter->number);
}

static struct line *line_between(struct sim *s, int a, int b) { return a < b ? &s->line[a][b] : &s->line[b][a]; }

/* Everything under way is lost; for that long nothing new comes through. */
static void line_break(struct sim *s, int a, int b, int64_t ms) {
    struct line *line = line_between(s, a, b);
    line->connection++;
    if (line->down_until_ms < s->now_ms + ms) line->down_until_ms = s->now_ms + ms;
    line->last_ms[0] = line->last_ms[1] = 0;
}

static bool walled(const struct sim *s, int from, int to) {
    const struct plan *p = &s->plan;
    return p->walled && ((from == p->wall_from && to == p->wall_to) || (p->wall_both && from == p->wall_to && to == p->wall_from));
}

/* Hands a letter to the link; false: the sender knows that it cannot arrive. */
static bool post(struct sim *s, int from, int to, const struct letter *letter) {
    struct line *line = line_between(s, from, to);
    if (s->now_ms < line->down_until_ms) return false;
    if (letter->kind == READ && walled(s, from, to)) return true;
    if (s->plan.lossy && chance(s, s->calm ? 1 : 3)) { /* for ever */
        trace(s, "%d -> %d %s is lost", from, to, kind_names[letter->kind]);
        return true;
    }
    int64_t delay = draw_in(s, 1, s->plan.delay_ms), *last = &line->last_ms[from > to];
    if (chance(s, 1)) delay += draw_in(s, 0, 400);
    bool wild = s->plan.harsh && !s->calm && letter->kind != JOIN; /* an old JOIN is obeyed: it has no fence, TCP keeps it in its place */
    for (int copies = wild && chance(s, 3) ? 2 : 1; copies > 0; copies--) {
        int64_t time = s->now_ms + delay;
        if (!wild || !chance(s, 3)) { /* in order */
            if (time < *last) time = *last;
            *last = time;
        }
        struct event *event = event_at(s, time, EVENT_LETTER, to);
        event->from = from;
        event->life = to == COORDINATOR ? s->c.life : s->worker[to].life;
        event->connection = line->connection;
        event->letter = *letter;
        heap_push(s, event);
        delay += draw_in(s, 1, 300);
    }
    return true;
}

#endif
