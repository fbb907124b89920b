/* The trainer's stories: what happens to it, and what it does, as text. */
#ifndef MILLRACE_TESTS_STORY_H
#define MILLRACE_TESTS_STORY_H

#include "coordinator/trainer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

enum { SLICES = 4, PATIENCE_MS = 60000 };

static const uint8_t right[XXH128_BYTES] = "the right state", wrong[XXH128_BYTES] = "a wrong state", sum[XXH128_BYTES] = "the sum";
static const uint8_t other_sum[XXH128_BYTES] = "another sum";

/* A trainer, the actions that it gave since the last look, and the time. */
struct story {
    struct trainer *t;
    int64_t now;
};

static inline struct story begin(struct trainer_options options, uint64_t committed, uint64_t checkpoint, uint64_t evaluated) {
    options.slices = SLICES;
    options.patience_ms = PATIENCE_MS;
    if (!options.max_steps) options.max_steps = 100;
    struct story story = {mem_alloc(sizeof *story.t), 1000};
    trainer_open(story.t, &options, committed, checkpoint, evaluated);
    return story;
}
static inline void end(struct story *story) { free(story->t); }

/* The actions since the last look, as text: "join 1@5, view 0@6". */
static inline const char *actions(struct story *story) {
    static const char *const names[] = {"join", "view", "commit", "evaluate", "save", "evict", "odd", "doubt", "bar", "late",
                                        "left-out", "withheld", "no-end", "rollback", "finished", "stopped", "failed"};
    static char text[1024];
    size_t n = 0;
    text[0] = 0;
    for (struct action action; trainer_action(story->t, &action);)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s %u@%llu", n ? ", " : "", names[action.kind], action.worker,
                              (unsigned long long)action.step);
    return text;
}
#define HAPPENS(story, text) assert_string_equal(actions(story), text)

static inline void come(struct story *s, uint32_t worker) { trainer_present(s->t, worker, 0, NULL, s->now); }
static inline void come_with(struct story *s, uint32_t worker, uint64_t step) { trainer_present(s->t, worker, step, right, s->now); }
static inline void go(struct story *s, uint32_t worker) { trainer_absent(s->t, worker, s->now); }
static inline void applied(struct story *s, uint32_t worker, uint64_t step) { trainer_applied(s->t, worker, step, right, s->now); }
static inline void reduced(struct story *s, uint32_t worker) {
    trainer_reduced(s->t, worker, s->t->committed + 1, s->t->view, sum, 4, true, s->now);
}
static inline void pass(struct story *s, int64_t ms) {
    s->now += ms;
    trainer_tick(s->t, s->now);
}

/* The worker computes what is assigned to it and not held. */
static inline void compute(struct story *s, uint32_t worker) {
    const struct member *m = trainer_member(s->t, worker);
    assert_non_null(m);
    for (uint32_t i = 0; i < SLICES; i++)
        if (slice_in(&m->assigned, i) && !slice_in(&m->held, i))
            trainer_slice(s->t, worker, s->t->committed + 1, i, i + 0.5, 10, 7, s->now);
}

/* All of 0 .. workers - 1 do a whole step. */
static inline void do_step(struct story *s, uint32_t workers) {
    uint64_t step = s->t->committed + 1;
    for (uint32_t w = 0; w < workers; w++) compute(s, w);
    for (uint32_t w = 0; w < workers; w++) reduced(s, w);
    assert_int_equal(s->t->committed, step);
    for (uint32_t w = 0; w < workers; w++) applied(s, w, step);
}

/* A run at step 0 with that many members, who have told their state. */
static inline struct story running(struct trainer_options options, uint32_t workers) {
    struct story s = begin(options, 0, 0, 0);
    for (uint32_t w = 0; w < workers; w++) come(&s, w);
    for (uint32_t w = 0; w < workers; w++) applied(&s, w, 0);
    actions(&s);
    return s;
}

#endif
