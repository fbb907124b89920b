/* When a stall is one, and what is waited for. */
#include "coordinator/stall.h"

#include "tests/unit/coordinator/story.h"

static void five_times_the_usual_interval_and_ten_seconds_are_a_stall(void **state) {
    (void)state;
    static const int64_t intervals_ms[] = {20, 500, 3000, 60000, 3600000};
    for (size_t i = 0; i < sizeof intervals_ms / sizeof *intervals_ms; i++) {
        struct stall stall = {0};
        int64_t now = 77;
        for (uint64_t done = 0; done < 30; done++, now += intervals_ms[i]) {
            if (done) assert_int_equal(now - stall.moved_ms, intervals_ms[i]);
            stall_look(&stall, 2, done, now);
        }
        now = stall.moved_ms;
        assert_int_equal(stall.usual_ms, intervals_ms[i]);
        assert_false(stall_look(&stall, 2, 29, now + 5 * intervals_ms[i] + STALL_MS));
        assert_true(stall_look(&stall, 2, 29, now + 5 * intervals_ms[i] + STALL_MS + 1));
        assert_false(stall_look(&stall, 2, 30, now + 5 * intervals_ms[i] + STALL_MS + 2)); /* it goes on */
    }
}

static void nothing_from_the_start_is_a_stall_after_ten_seconds(void **state) {
    (void)state;
    struct stall stall = {0};
    assert_false(stall_look(&stall, 0, 0, 5000));
    assert_false(stall_look(&stall, 0, 0, 5000 + STALL_MS));
    assert_true(stall_look(&stall, 0, 0, 5001 + STALL_MS));
}

static void another_stage_has_another_usual_interval(void **state) {
    (void)state;
    struct stall stall = {0};
    for (int i = 0; i < 10; i++) stall_look(&stall, 0, (uint64_t)i, 1000 + i * 60000);
    assert_false(stall_look(&stall, 1, 9, 600000));
    assert_int_equal(stall.usual_ms, 0);
    assert_true(stall_look(&stall, 1, 9, 600001 + STALL_MS));
}

static void waits(const struct story *s, enum wait_kind kind, uint32_t worker, uint64_t step) {
    struct wait wait = stall_wait(s->t);
    assert_int_equal(wait.kind, kind);
    assert_int_equal(wait.step, step);
    if (kind >= WAIT_SLICE && kind <= WAIT_APPLY) assert_int_equal(wait.worker, worker);
}

static void what_is_waited_for_is_told_step_by_step(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){.save_steps = 1, .eval_steps = 1, .validation = true}, 0, 0, 0);
    waits(&s, WAIT_WORKERS, 0, 1);
    come(&s, 3);
    waits(&s, WAIT_JOIN, 3, 0);
    applied(&s, 3, 0);
    come(&s, 5);
    applied(&s, 5, 0);
    waits(&s, WAIT_SLICE, 3, 1);
    assert_int_equal(stall_wait(s.t).slice, 0);
    compute(&s, 3);
    waits(&s, WAIT_SLICE, 5, 1);
    compute(&s, 5);
    waits(&s, WAIT_SUM, 3, 1);
    assert_int_equal(stall_wait(s.t).others, 1);
    reduced(&s, 3);
    waits(&s, WAIT_SUM, 5, 1);
    assert_int_equal(stall_wait(s.t).others, 0);
    come(&s, 8);
    waits(&s, WAIT_SUM, 5, 1);
    assert_int_equal(stall_wait(s.t).others, 0); /* who only comes lacks none */
    reduced(&s, 5);
    waits(&s, WAIT_JOIN, 8, 0); /* a commit would change what it reads */
    go(&s, 8);
    actions(&s);
    pass(&s, 1);
    if (s.t->committed == 0) { /* the view is another one without it */
        compute(&s, 3);
        compute(&s, 5);
        reduced(&s, 3);
        reduced(&s, 5);
    }
    waits(&s, WAIT_APPLY, 3, 1);
    applied(&s, 3, 1);
    waits(&s, WAIT_APPLY, 5, 1);
    applied(&s, 5, 1);
    waits(&s, WAIT_SAVE, 0, 1);
    trainer_saved(s.t, 1, true, s.now);
    waits(&s, WAIT_EVALUATION, 0, 1);
    trainer_evaluated(s.t, 1, s.now);
    waits(&s, WAIT_SLICE, 3, 2);
    go(&s, 3);
    go(&s, 5);
    waits(&s, WAIT_WORKERS, 0, 2);
    end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_times_the_usual_interval_and_ten_seconds_are_a_stall),
        cmocka_unit_test(nothing_from_the_start_is_a_stall_after_ten_seconds),
        cmocka_unit_test(another_stage_has_another_usual_interval),
        cmocka_unit_test(what_is_waited_for_is_told_step_by_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
