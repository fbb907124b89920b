/* Members that answer and give the others nothing: whoever they are, each step ends without them. */
#include "tests/unit/coordinator/story.h"

enum { WORKERS_MAX = 6, LOOK_MS = 15000, DAY_MS = 86400000 };

/* Which workers are at fault, and whether one of them comes to the end of a step in which nobody else has part. */
struct faults {
    uint32_t workers, bad;
    bool end_alone;
};

static bool is_bad(const struct faults *f, uint32_t worker) { return f->bad >> worker & 1; }

/* All that was decided since the last look: who is blamed is at fault; of two that come to no end one is. */
static void check_blame(struct story *s, const struct faults *f, uint32_t *blamed) {
    for (struct action action; trainer_action(s->t, &action);) {
        if (action.kind == ACTION_WITHHELD) assert_true(is_bad(f, action.worker));
        if (action.kind == ACTION_NO_END) assert_true(is_bad(f, action.worker) || is_bad(f, action.other));
        if (action.kind == ACTION_NO_END) assert_int_not_equal(action.worker, action.other);
        if (action.kind == ACTION_WITHHELD || action.kind == ACTION_NO_END) blamed[action.worker]++;
    }
}

/* What all do in a moment: take a state over, compute, and tell the sum where all give what they have. */
static void act(struct story *s, const struct faults *f) {
    size_t view = 0, bad = 0;
    for (uint32_t w = 0; w < f->workers; w++) {
        const struct member *m = trainer_member(s->t, w);
        if (m && (m->state == MEMBER_JOINING || (m->state == MEMBER_READY && !m->has_digest))) applied(s, w, s->t->committed);
    }
    for (uint32_t w = 0; w < f->workers; w++) {
        const struct member *m = trainer_member(s->t, w);
        if (!m || !m->in_view) continue;
        compute(s, w);
        view++;
        bad += is_bad(f, w);
    }
    bool end = view > 0 && (bad == 0 || (view == 1 && f->end_alone));
    for (uint32_t w = 0; w < f->workers && end; w++)
        if (trainer_member(s->t, w) && trainer_member(s->t, w)->in_view) reduced(s, w);
}

/* How long one more step takes; DAY_MS: it does not end. */
static int64_t step_ms(struct story *s, const struct faults *f, uint32_t *blamed) {
    uint64_t committed = s->t->committed;
    int64_t begin_ms = s->now;
    while (s->t->committed == committed && s->now - begin_ms < DAY_MS) {
        act(s, f);
        check_blame(s, f, blamed);
        if (s->t->committed == committed) pass(s, LOOK_MS);
    }
    pass(s, 2000); /* who was out joins again */
    act(s, f);
    check_blame(s, f, blamed);
    return s->now - begin_ms;
}

static void whoever_is_at_fault_each_step_ends_while_one_is_not(void **state) {
    (void)state;
    for (struct faults f = {.workers = 2}; f.workers <= WORKERS_MAX; f.workers++)
        for (f.bad = 1; f.bad < (1u << f.workers) - 1; f.bad++)
            for (int alone = 0; alone < 2; alone++) {
                uint32_t blamed[WORKERS_MAX] = {0};
                struct story s = running((struct trainer_options){0}, f.workers);
                f.end_alone = alone;
                for (int step = 0; step < 5; step++) {
                    int64_t ms = step_ms(&s, &f, blamed);
                    if (ms >= DAY_MS / 4)
                        print_error("%u workers, at fault 0x%x, step %d: %d s\n", f.workers, f.bad, step, (int)(ms / 1000));
                    assert_true(ms < DAY_MS / 4);
                }
                end(&s);
            }
}

static size_t bits(uint32_t x) {
    size_t n = 0;
    for (; x; x &= x - 1) n++;
    return n;
}

/* In the next steps the tries begin where they came to an end: with a single one at the first try, with more at the second one. */
static void check_who_is_found(bool end_alone) {
    for (struct faults f = {.workers = 2, .end_alone = end_alone}; f.workers <= WORKERS_MAX; f.workers++)
        for (f.bad = 1; f.bad < (1u << f.workers) - 1; f.bad++) {
            uint32_t blamed[WORKERS_MAX] = {0}, most = 0;
            size_t tries = bits(f.bad) == 1 ? 1 : 2;
            struct story s = running((struct trainer_options){0}, f.workers);
            step_ms(&s, &f, blamed);
            for (int step = 1; step < 3; step++) {
                int64_t usual_ms = (3 + 4 * (int64_t)tries) * PATIENCE_MS, ms = step_ms(&s, &f, blamed);
                if (ms > usual_ms + 2 * LOOK_MS)
                    print_error("%u workers, at fault 0x%x, step %d: %d s\n", f.workers, f.bad, step, (int)(ms / 1000));
                assert_true(ms <= usual_ms + 2 * LOOK_MS);
            }
            for (uint32_t w = 0; w < f.workers; w++) most = blamed[w] > most ? blamed[w] : most;
            if (end_alone || bits(f.bad) == 1) assert_int_equal(most, 3); /* the same one each time: it is set aside then */
            else assert_true(most >= 2);
            end(&s);
        }
}

static void who_was_found_is_tried_first_in_the_next_step(void **state) {
    (void)state;
    check_who_is_found(true);
}

static void who_does_not_end_a_step_alone_either_is_found(void **state) {
    (void)state;
    check_who_is_found(false);
}

/* The others have slices to compute again, and one takes longer than a try may rest. */
static void who_is_left_out_stays_out_as_long_as_the_others_move(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    for (int64_t patience = PATIENCE_MS, renewal = 1; renewal <= 3; renewal++, patience *= 2) {
        for (uint32_t w = 0; w < 2; w++) compute(&s, w);
        actions(&s);
        pass(&s, patience);
        HAPPENS(&s, renewal < 3 ? "view 0@1" : "left-out 1@1, view 0@1");
    }
    const struct member *in = trainer_member(s.t, 0), *out = trainer_member(s.t, 1);
    for (uint32_t i = 0; i < SLICES; i++) {
        if (slice_in(&in->held, i)) continue;
        for (int k = 0; k < 15; k++) pass(&s, 15000);
        assert_true(in->in_view);
        assert_int_equal(out->state, MEMBER_PRESENT);
        trainer_slice(s.t, 0, 1, i, i + 0.5, 10, 7, s.now);
    }
    actions(&s);
    reduced(&s, 0);
    HAPPENS(&s, "commit 0@1, no-end 1@1, view 0@2");
    end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whoever_is_at_fault_each_step_ends_while_one_is_not),
        cmocka_unit_test(who_was_found_is_tried_first_in_the_next_step),
        cmocka_unit_test(who_does_not_end_a_step_alone_either_is_found),
        cmocka_unit_test(who_is_left_out_stays_out_as_long_as_the_others_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
