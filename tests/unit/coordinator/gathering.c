/* Coordinators and workers come back: whose state the run goes on from. */
#include "tests/unit/coordinator/story.h"

static void who_was_there_first_and_is_gone_starts_no_time(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){0}, 7, 5, 0);
    come(&s, 0);
    go(&s, 0);
    pass(&s, 10 * TRAINER_GATHER_MS);
    come(&s, 1); /* without a state */
    pass(&s, TRAINER_GATHER_MS - 1);
    HAPPENS(&s, "");
    come_with(&s, 2, 7);
    pass(&s, 1);
    HAPPENS(&s, "join 2@7");
    end(&s);
}

static void a_restarted_coordinator_hears_the_workers_first(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){0}, 7, 5, 0);
    come_with(&s, 0, 7);
    pass(&s, TRAINER_GATHER_MS - 1);
    come(&s, 1);
    HAPPENS(&s, "");
    pass(&s, 1);
    HAPPENS(&s, "join 0@7");
    applied(&s, 0, 7);
    HAPPENS(&s, "join 1@7, view 0@8");
    end(&s);
}

static void a_state_that_nobody_brings_back_is_rolled_back(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){0}, 7, 5, 5);
    pass(&s, 10 * TRAINER_GATHER_MS); /* nobody is there: no time runs */
    come_with(&s, 0, 6);
    come_with(&s, 1, 8); /* ahead of the ledger: of a step that was never committed, or rolled back */
    come_with(&s, 2, 3);
    HAPPENS(&s, "");
    pass(&s, TRAINER_GATHER_MS);
    HAPPENS(&s, "rollback 0@6, join 0@6");
    applied(&s, 0, 6);
    HAPPENS(&s, "join 1@6, join 2@6, view 0@7");
    end(&s);
}

static void a_run_whose_checkpoint_is_its_newest_step_goes_on_at_once(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){0}, 5, 5, 5);
    come(&s, 0);
    HAPPENS(&s, "join 0@5");
    come_with(&s, 1, 5);
    HAPPENS(&s, "join 1@5");
    end(&s);
}

static void all_lost_is_the_last_checkpoint(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.save_steps = 2, .eval_steps = 2, .validation = true}, 2);
    do_step(&s, 2);
    do_step(&s, 2);
    trainer_evaluated(s.t, 2, s.now);
    trainer_saved(s.t, 2, true, s.now);
    do_step(&s, 2);
    actions(&s);
    go(&s, 0);
    go(&s, 1);
    HAPPENS(&s, "view 0@4");
    assert_int_equal(s.t->phase, TRAINER_GATHER);
    pass(&s, 20000);
    come(&s, 2);
    HAPPENS(&s, ""); /* the others may be back in a moment */
    pass(&s, TRAINER_GATHER_MS);
    HAPPENS(&s, "rollback 0@2, join 2@2");
    assert_int_equal(s.t->evaluated, 2);
    end(&s);
}

static void a_worker_that_comes_back_with_the_agreed_state_is_asked_at_once(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 1);
    do_step(&s, 1);
    actions(&s);
    go(&s, 0);
    come_with(&s, 0, 1);
    HAPPENS(&s, "join 0@1");
    come(&s, 1);
    HAPPENS(&s, "");
    go(&s, 1); /* what is known of worker 0 does not get lost with it */
    HAPPENS(&s, "");
    applied(&s, 0, 1);
    HAPPENS(&s, "view 0@2");
    end(&s);
}

static void a_joiner_that_has_the_state_by_now_keeps_the_run_where_it_is(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 1);
    do_step(&s, 1);
    come(&s, 1);
    HAPPENS(&s, "commit 0@1, view 0@2, join 1@1");
    go(&s, 0);
    assert_int_equal(s.t->phase, TRAINER_GATHER);
    applied(&s, 1, 1); /* its word was under way */
    HAPPENS(&s, "join 1@1");
    applied(&s, 1, 1);
    HAPPENS(&s, "view 0@2");
    end(&s);
}

static void one_that_was_told_the_commit_is_asked_when_all_others_are_gone(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    for (uint32_t w = 0; w < 2; w++) compute(&s, w);
    for (uint32_t w = 0; w < 2; w++) reduced(&s, w);
    pass(&s, PATIENCE_MS); /* neither applies it */
    go(&s, 0);
    HAPPENS(&s, "commit 0@1, view 0@2, late 0@1, late 1@1, join 0@1, join 1@1");
    assert_int_equal(s.t->phase, TRAINER_RUN);
    trainer_could_not_join(s.t, 1, s.now, s.now); /* from anybody */
    assert_int_equal(s.t->phase, TRAINER_GATHER);
    pass(&s, TRAINER_GATHER_MS);
    HAPPENS(&s, "rollback 0@0, join 1@0");
    end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_was_there_first_and_is_gone_starts_no_time),
        cmocka_unit_test(a_restarted_coordinator_hears_the_workers_first),
        cmocka_unit_test(a_state_that_nobody_brings_back_is_rolled_back),
        cmocka_unit_test(a_run_whose_checkpoint_is_its_newest_step_goes_on_at_once),
        cmocka_unit_test(all_lost_is_the_last_checkpoint),
        cmocka_unit_test(a_worker_that_comes_back_with_the_agreed_state_is_asked_at_once),
        cmocka_unit_test(a_joiner_that_has_the_state_by_now_keeps_the_run_where_it_is),
        cmocka_unit_test(one_that_was_told_the_commit_is_asked_when_all_others_are_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
