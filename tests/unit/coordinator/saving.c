/* Checkpoints that cannot be written: tried so often, then given up, and tried anew when there is a reason to. */
#include "tests/unit/coordinator/story.h"

static void a_checkpoint_that_cannot_be_written_is_given_up_and_the_next_one_is_tried(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.save_steps = 2}, 1);
    do_step(&s, 1);
    do_step(&s, 1);
    HAPPENS(&s, "commit 0@1, view 0@2, commit 0@2, view 0@3, save 0@2");
    compute(&s, 0);
    reduced(&s, 0);
    for (int i = 1; i < TRAINER_SAVE_TRIES_MAX; i++) {
        trainer_saved(s.t, 2, false, s.now);
        HAPPENS(&s, "save 0@2");
    }
    trainer_saved(s.t, 2, false, s.now);
    HAPPENS(&s, "commit 0@3, view 0@4");
    assert_int_equal(s.t->checkpoint, 0);
    applied(&s, 0, 3);
    do_step(&s, 1);
    HAPPENS(&s, "commit 0@4, view 0@5, save 0@4");
    trainer_saved(s.t, 4, true, s.now);
    assert_int_equal(s.t->checkpoint, 4);
    end(&s);
}

static void failures_count_for_one_checkpoint_alone(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.save_steps = 1}, 1);
    for (uint64_t step = 1; step <= 2; step++) {
        do_step(&s, 1);
        for (int i = 1; i < TRAINER_SAVE_TRIES_MAX; i++) trainer_saved(s.t, step, false, s.now);
        assert_int_equal(s.t->save_skipped, 0);
        trainer_saved(s.t, step, true, s.now);
        assert_int_equal(s.t->checkpoint, step);
    }
    end(&s);
}

static void a_checkpoint_that_was_given_up_is_tried_when_its_step_is_done_anew(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.save_steps = 1}, 1);
    for (int life = 0; life < 2; life++) {
        do_step(&s, 1);
        assert_true(s.t->saving);
        for (int i = 0; i < TRAINER_SAVE_TRIES_MAX; i++) trainer_saved(s.t, 1, false, s.now);
        assert_int_equal(s.t->save_skipped, 1);
        do_step(&s, 1); /* its checkpoint fails, too, but is not given up yet */
        trainer_saved(s.t, 2, false, s.now);
        go(&s, 0);
        come(&s, 0);
        pass(&s, TRAINER_GATHER_MS);
        applied(&s, 0, 0);
        assert_int_equal(s.t->committed, 0);
        assert_int_equal(s.t->save_tries, 0);
        actions(&s);
    }
    end(&s);
}

static void what_was_given_up_is_tried_again_when_the_run_stops(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.save_steps = 1}, 1);
    do_step(&s, 1);
    HAPPENS(&s, "commit 0@1, view 0@2, save 0@1");
    for (int i = 0; i < TRAINER_SAVE_TRIES_MAX; i++) trainer_saved(s.t, 1, false, s.now);
    actions(&s);
    trainer_stop(s.t, s.now);
    HAPPENS(&s, "save 0@1");
    trainer_saved(s.t, 1, true, s.now);
    HAPPENS(&s, "stopped 0@1");
    end(&s);
}

static void what_was_asked_for_and_given_up_is_not_tried_at_the_next_step(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 1);
    do_step(&s, 1);
    trainer_save(s.t, s.now);
    HAPPENS(&s, "commit 0@1, view 0@2, save 0@1");
    for (int i = 0; i < TRAINER_SAVE_TRIES_MAX; i++) trainer_saved(s.t, 1, false, s.now);
    actions(&s);
    do_step(&s, 1);
    HAPPENS(&s, "commit 0@2, view 0@3");
    end(&s);
}

static void a_last_checkpoint_that_cannot_be_written_ends_the_run_after_long(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.max_steps = 1}, 1);
    do_step(&s, 1);
    HAPPENS(&s, "commit 0@1, save 0@1");
    for (int i = 1; i < TRAINER_LAST_SAVE_TRIES_MAX; i++) {
        trainer_saved(s.t, 1, false, s.now);
        HAPPENS(&s, "save 0@1");
    }
    trainer_saved(s.t, 1, false, s.now);
    HAPPENS(&s, "failed 0@1");
    assert_non_null(strstr(s.t->reason, "cannot be written"));
    end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_that_cannot_be_written_is_given_up_and_the_next_one_is_tried),
        cmocka_unit_test(failures_count_for_one_checkpoint_alone),
        cmocka_unit_test(a_checkpoint_that_was_given_up_is_tried_when_its_step_is_done_anew),
        cmocka_unit_test(what_was_given_up_is_tried_again_when_the_run_stops),
        cmocka_unit_test(what_was_asked_for_and_given_up_is_not_tried_at_the_next_step),
        cmocka_unit_test(a_last_checkpoint_that_cannot_be_written_ends_the_run_after_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
