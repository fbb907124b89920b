/* Members that are asked to leave, and a save that is asked for. */
#include "tests/unit/coordinator/story.h"

static void who_leaves_does_so_at_the_boundary_while_the_others_go_on(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 3);
    compute(&s, 0);
    trainer_leaving(s.t, 1, s.now);
    HAPPENS(&s, "");
    assert_false(trainer_may_leave(s.t, 1));
    compute(&s, 1);
    compute(&s, 2);
    for (uint32_t w = 0; w < 3; w++) reduced(&s, w);
    HAPPENS(&s, "commit 0@1, view 0@2");
    assert_false(trainer_member(s.t, 1)->in_view);
    assert_false(trainer_may_leave(s.t, 1)); /* nobody else has told that it holds the state */
    applied(&s, 1, 1);
    assert_false(trainer_may_leave(s.t, 1));
    applied(&s, 0, 1);
    applied(&s, 2, 1);
    assert_true(trainer_may_leave(s.t, 1));
    assert_false(trainer_may_leave(s.t, 0));
    go(&s, 1);
    HAPPENS(&s, "");
    end(&s);
}

/* It tells its state only after the others have done the next step: that one is committed without it, and nobody waits for it any more. */
static void who_leaves_and_has_no_part_in_a_step_is_not_told_its_commit(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 3);
    compute(&s, 0);
    trainer_leaving(s.t, 1, s.now);
    for (uint32_t w = 1; w < 3; w++) compute(&s, w);
    for (uint32_t w = 0; w < 3; w++) reduced(&s, w);
    HAPPENS(&s, "commit 0@1, view 0@2");
    for (uint32_t w = 0; w < 3; w += 2) applied(&s, w, 1);
    for (uint32_t w = 0; w < 3; w += 2) compute(&s, w);
    for (uint32_t w = 0; w < 3; w += 2) reduced(&s, w);
    HAPPENS(&s, "");
    applied(&s, 1, 1);
    HAPPENS(&s, "commit 0@2, view 0@3");
    assert_true(trainer_member(s.t, 0)->told_commit);
    assert_false(trainer_member(s.t, 1)->told_commit);
    assert_true(trainer_may_leave(s.t, 1));
    for (uint32_t w = 0; w < 3; w += 2) applied(&s, w, 2);
    assert_true(trainer_holds_state(s.t, 0));
    for (uint32_t w = 0; w < 3; w += 2) compute(&s, w);
    for (uint32_t w = 0; w < 3; w += 2) reduced(&s, w);
    HAPPENS(&s, "commit 0@3, view 0@4");
    for (uint32_t w = 0; w < 3; w += 2) go(&s, w); /* all of the others are lost: what it still holds is the newest state */
    assert_false(trainer_may_leave(s.t, 1));
    pass(&s, TRAINER_GATHER_MS);
    HAPPENS(&s, "view 0@4, rollback 0@1, join 1@1");
    applied(&s, 1, 1);
    HAPPENS(&s, "save 0@1");
    end(&s);
}

static void when_all_leave_the_committed_state_is_saved_first(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.eval_steps = 2, .validation = true}, 2);
    do_step(&s, 2);
    actions(&s);
    compute(&s, 0);
    trainer_leaving(s.t, 0, s.now);
    HAPPENS(&s, "");
    trainer_leaving(s.t, 1, s.now);
    HAPPENS(&s, "save 0@1"); /* the step under way is given up: a commit would have to be saved as well */
    compute(&s, 1);
    reduced(&s, 0);
    reduced(&s, 1);
    assert_false(trainer_may_leave(s.t, 0) || trainer_may_leave(s.t, 1));
    trainer_saved(s.t, 1, false, s.now); /* the disk was full */
    HAPPENS(&s, "save 0@1");
    assert_false(trainer_may_leave(s.t, 0));
    trainer_saved(s.t, 1, true, s.now);
    HAPPENS(&s, "");
    assert_true(trainer_may_leave(s.t, 0) && trainer_may_leave(s.t, 1));
    go(&s, 0);
    go(&s, 1);
    HAPPENS(&s, "");
    come(&s, 2);
    HAPPENS(&s, "join 2@1");
    applied(&s, 2, 1);
    HAPPENS(&s, "view 0@2");
    end(&s);
}

static void who_leaves_takes_no_state_but_is_asked_for_the_newest(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){0}, 5, 3, 0);
    come_with(&s, 0, 5);
    trainer_leaving(s.t, 0, s.now);
    assert_false(trainer_may_leave(s.t, 0));
    come(&s, 1);
    trainer_leaving(s.t, 1, s.now);
    assert_true(trainer_may_leave(s.t, 1));
    pass(&s, TRAINER_GATHER_MS);
    HAPPENS(&s, "join 0@5");
    applied(&s, 0, 5);
    HAPPENS(&s, "save 0@5");
    trainer_saved(s.t, 5, true, s.now);
    assert_true(trainer_may_leave(s.t, 0));
    end(&s);
}

/* The checkpoint is made, for it is with them alone; the evaluation can be made from it. */
static void a_run_whose_members_leave_at_its_end_is_not_finished_before_it_is_evaluated(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.max_steps = 1, .validation = true}, 1);
    compute(&s, 0);
    reduced(&s, 0);
    HAPPENS(&s, "commit 0@1");
    trainer_leaving(s.t, 0, s.now);
    applied(&s, 0, 1);
    HAPPENS(&s, "save 0@1");
    trainer_saved(s.t, 1, true, s.now);
    HAPPENS(&s, "");
    assert_int_equal(s.t->phase, TRAINER_RUN);
    assert_true(trainer_may_leave(s.t, 0));
    go(&s, 0);
    HAPPENS(&s, "evaluate 0@1"); /* by whoever comes */
    come(&s, 1);
    HAPPENS(&s, "join 1@1");
    applied(&s, 1, 1);
    HAPPENS(&s, "");
    trainer_evaluated(s.t, 1, s.now);
    HAPPENS(&s, "finished 0@1");
    end(&s);
}

static void asked_to_save_it_saves_once_and_goes_on(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 1);
    trainer_save(s.t, s.now);
    HAPPENS(&s, ""); /* state 0 follows from the seed */
    do_step(&s, 1);
    HAPPENS(&s, "commit 0@1, view 0@2");
    trainer_save(s.t, s.now);
    HAPPENS(&s, "save 0@1");
    compute(&s, 0);
    reduced(&s, 0);
    HAPPENS(&s, ""); /* the commit waits */
    trainer_saved(s.t, 1, true, s.now);
    HAPPENS(&s, "commit 0@2, view 0@3");
    applied(&s, 0, 2);
    HAPPENS(&s, "");
    end(&s);
}

/* All of the state is with the coordinator: what becomes of it is waited for, whoever is lost. */
static void all_lost_while_the_checkpoint_is_published_loses_nothing(void **state) {
    (void)state;
    for (int published = 0; published < 2; published++) {
        struct story s = running((struct trainer_options){.save_steps = 2}, 1);
        trainer_publishing(s.t, 0); /* nothing is being saved */
        assert_false(s.t->publishing);
        do_step(&s, 1);
        do_step(&s, 1);
        HAPPENS(&s, "commit 0@1, view 0@2, commit 0@2, view 0@3, save 0@2");
        trainer_publishing(s.t, 2);
        go(&s, 0);
        come(&s, 1);
        pass(&s, 10 * TRAINER_GATHER_MS);
        HAPPENS(&s, "");
        assert_true(s.t->saving);
        trainer_saved(s.t, 2, published, s.now);
        pass(&s, TRAINER_GATHER_MS);
        if (published) HAPPENS(&s, "join 1@2");
        else HAPPENS(&s, "rollback 0@0, join 1@0");
        end(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_leaves_does_so_at_the_boundary_while_the_others_go_on),
        cmocka_unit_test(who_leaves_and_has_no_part_in_a_step_is_not_told_its_commit),
        cmocka_unit_test(when_all_leave_the_committed_state_is_saved_first),
        cmocka_unit_test(who_leaves_takes_no_state_but_is_asked_for_the_newest),
        cmocka_unit_test(a_run_whose_members_leave_at_its_end_is_not_finished_before_it_is_evaluated),
        cmocka_unit_test(asked_to_save_it_saves_once_and_goes_on),
        cmocka_unit_test(all_lost_while_the_checkpoint_is_published_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
