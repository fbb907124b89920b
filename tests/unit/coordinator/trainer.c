/* The step protocol's decisions, one story at a time; simulation.c looks for the stories that nobody thought of. */
#include "tests/unit/coordinator/story.h"

/* ---- steps ---- */

static void the_first_worker_makes_the_first_state_and_begins(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){0}, 0, 0, 0);
    pass(&s, 5000);
    HAPPENS(&s, "");
    come(&s, 3);
    HAPPENS(&s, "join 3@0");
    assert_false(trainer_holds_state(s.t, 3));
    applied(&s, 3, 0);
    HAPPENS(&s, "view 0@1");
    assert_true(trainer_holds_state(s.t, 3));
    assert_int_equal(slice_count(&trainer_member(s.t, 3)->assigned), SLICES);
    end(&s);
}

static void a_step_commits_when_all_hold_the_same_sum(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    compute(&s, 0);
    reduced(&s, 0);
    compute(&s, 1);
    HAPPENS(&s, "");
    reduced(&s, 1);
    HAPPENS(&s, "commit 0@1, view 0@2");
    assert_true(s.t->step_loss_sum == 0.5 + 1.5 + (2.5 + 3.5));
    assert_int_equal(s.t->step_tokens, 40);
    assert_memory_equal(s.t->step_gradient, sum, sizeof sum);
    assert_false(s.t->step_skipped);
    assert_int_equal(s.t->step_view, s.t->view - 1);
    end(&s);
}

static void what_is_not_of_this_step_and_view_counts_for_nothing(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    for (uint32_t w = 0; w < 2; w++) compute(&s, w);
    reduced(&s, 0);
    trainer_reduced(s.t, 1, 1, s.t->view - 1, sum, 4, true, s.now);
    trainer_reduced(s.t, 1, 1, s.t->view + 1, sum, 4, true, s.now);
    trainer_reduced(s.t, 1, 2, s.t->view, sum, 4, true, s.now);
    trainer_reduced(s.t, 7, 1, s.t->view, sum, 4, true, s.now);
    trainer_slice(s.t, 1, 2, 0, 9, 9, 9, s.now);
    trainer_slice(s.t, 1, 1, SLICES, 9, 9, 9, s.now);
    trainer_applied(s.t, 1, 1, right, s.now);
    trainer_evaluated(s.t, 0, s.now);
    trainer_saved(s.t, 0, true, s.now);
    HAPPENS(&s, "");
    reduced(&s, 1);
    HAPPENS(&s, "commit 0@1, view 0@2");
    assert_int_equal(s.t->step_tokens, 40);
    end(&s);
}

static void a_step_waits_until_all_told_the_state_before_it(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 3);
    for (uint32_t w = 0; w < 3; w++) compute(&s, w);
    for (uint32_t w = 0; w < 3; w++) reduced(&s, w);
    HAPPENS(&s, "commit 0@1, view 0@2");
    applied(&s, 0, 1);
    applied(&s, 1, 1);
    for (uint32_t w = 0; w < 3; w++) compute(&s, w);
    for (uint32_t w = 0; w < 3; w++) reduced(&s, w);
    HAPPENS(&s, "");
    assert_false(trainer_holds_state(s.t, 0)); /* nobody knows yet whether its state is the right one */
    applied(&s, 2, 1);
    HAPPENS(&s, "commit 0@2, view 0@3");
    end(&s);
}

/* Both compute; the second one's sum is another. */
static void differ(struct story *s) {
    for (uint32_t w = 0; w < 2; w++) compute(s, w);
    reduced(s, 0);
    trainer_reduced(s->t, 1, s->t->committed + 1, s->t->view, other_sum, 4, true, s->now);
}

static void sums_that_differ_twice_at_the_same_step_end_the_run(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    differ(&s);
    HAPPENS(&s, "doubt 0@1, join 0@0, join 1@0");
    assert_int_equal(s.t->saids, 2);
    assert_memory_equal(s.t->said[1].digest, other_sum, XXH128_BYTES);
    for (uint32_t w = 0; w < 2; w++) applied(&s, w, 0);
    HAPPENS(&s, "view 0@1, view 0@1");
    assert_int_equal(slice_count(&trainer_member(s.t, 0)->held), 0); /* all is computed again */
    differ(&s);
    HAPPENS(&s, "doubt 0@1, failed 0@0");
    assert_true(s.t->phase == TRAINER_FAILED && s.t->disagreed);
    come(&s, 5);
    pass(&s, 100000);
    HAPPENS(&s, "");
    end(&s);
}

static void a_step_that_differed_in_an_earlier_life_ends_the_run(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){0}, 0, 0, 0);
    trainer_doubted(s.t, 2);
    for (uint32_t w = 0; w < 2; w++) come(&s, w);
    for (uint32_t w = 0; w < 2; w++) applied(&s, w, 0);
    do_step(&s, 2);
    actions(&s);
    differ(&s);
    HAPPENS(&s, "doubt 0@2, failed 0@1");
    end(&s);
}

/* What is told then is that, and no second doubt about this step. */
static void after_doubts_about_many_steps_the_next_one_ends_the_run(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){0}, 0, 0, 0);
    for (uint64_t step = 1; step < TRAINER_DOUBTS_MAX; step++) trainer_doubted(s.t, 100 + step);
    for (uint32_t w = 0; w < 2; w++) come(&s, w);
    for (uint32_t w = 0; w < 2; w++) applied(&s, w, 0);
    differ(&s);
    assert_int_equal(s.t->phase, TRAINER_RUN);
    for (uint32_t w = 0; w < 2; w++) applied(&s, w, 0);
    do_step(&s, 2);
    actions(&s);
    differ(&s);
    HAPPENS(&s, "doubt 0@2, failed 0@1");
    assert_true(s.t->disagreed);
    assert_string_equal(s.t->reason, "members differed about 64 steps before, and none was in the majority");
    end(&s);
}

/* Whatever the odd one says otherwise: the digest, the norm, or that it is finite. */
static void the_majoritys_sum_counts_and_the_odd_ones_slices_go_to_others(void **state) {
    (void)state;
    for (int lie = 0; lie < 3; lie++) {
        struct story s = running((struct trainer_options){0}, 3);
        for (uint32_t w = 0; w < 3; w++) compute(&s, w);
        trainer_reduced(s.t, 0, 1, s.t->view, lie == 0 ? other_sum : sum, lie == 1 ? 5 : 4, lie != 2, s.now);
        for (uint32_t w = 1; w < 3; w++) reduced(&s, w);
        HAPPENS(&s, "odd 0@1, view 0@1");
        for (uint32_t w = 1; w < 3; w++) compute(&s, w);
        for (uint32_t w = 1; w < 3; w++) reduced(&s, w);
        HAPPENS(&s, "commit 0@1, view 0@2");
        assert_false(s.t->step_skipped);
        assert_true(s.t->step_square_sum == 4);
        pass(&s, 2000);
        for (uint32_t w = 1; w < 3; w++) applied(&s, w, 1);
        HAPPENS(&s, "join 0@1");
        end(&s);
    }
}

static void a_slice_counts_only_from_who_was_asked(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    for (uint32_t i = 0; i < SLICES; i++) trainer_slice(s.t, 1, 1, i, 1000, 1000, 7, s.now); /* half of them are 0's */
    assert_int_equal(slice_count(&s.t->counted), SLICES / 2);
    end(&s);
}

static void sums_that_differ_once_do_no_harm(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    differ(&s);
    for (uint32_t w = 0; w < 2; w++) applied(&s, w, 0);
    for (int step = 1; step <= 5; step++) do_step(&s, 2);
    assert_int_equal(s.t->phase, TRAINER_RUN);
    end(&s);
}

static void a_gradient_that_is_not_finite_skips_its_step(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.max_bad_steps = 2}, 1);
    for (int i = 1; i <= 3; i++) {
        compute(&s, 0);
        trainer_reduced(s.t, 0, s.t->committed + 1, s.t->view, sum, 4, false, s.now);
        if (i == 3) break;
        assert_true(s.t->step_skipped);
        assert_int_equal(s.t->committed, i);
        applied(&s, 0, (uint64_t)i);
    }
    assert_int_equal(s.t->phase, TRAINER_FAILED);
    assert_non_null(strstr(s.t->reason, "max_bad_steps"));
    assert_int_equal(s.t->committed, 2);
    end(&s);
}

static void a_step_without_a_counted_target_is_skipped_and_not_held_against_the_run(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.max_bad_steps = 0}, 1);
    for (uint32_t step = 1; step <= 3; step++) {
        for (uint32_t i = 0; i < SLICES; i++) trainer_slice(s.t, 0, step, i, 0.0, step == 2 && i == 1, 7, s.now);
        reduced(&s, 0);
        assert_int_equal(s.t->committed, step);
        assert_int_equal(s.t->step_tokens, step == 2); /* one is enough */
        assert_int_equal(s.t->step_skipped, step != 2);
        applied(&s, 0, step);
    }
    assert_int_equal(s.t->bad_steps, 0);
    assert_int_equal(s.t->phase, TRAINER_RUN);
    end(&s);
}

static void a_skipped_step_that_is_done_again_counts_once(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.max_bad_steps = 1}, 1);
    for (int i = 0; i < 3; i++) {
        compute(&s, 0);
        trainer_reduced(s.t, 0, 1, s.t->view, sum, 4, false, s.now);
        assert_int_equal(s.t->committed, 1);
        go(&s, 0);
        come(&s, 0);
        pass(&s, TRAINER_GATHER_MS);
        assert_int_equal(s.t->committed, 0);
        applied(&s, 0, 0);
    }
    assert_int_equal(s.t->bad_steps, 1);
    assert_int_equal(s.t->phase, TRAINER_RUN);
    end(&s);
}

/* ---- members come and go ---- */

static void a_member_lost_leaves_its_slices_to_the_others(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    compute(&s, 0);
    struct slice_set before = trainer_member(s.t, 0)->held;
    assert_int_equal(slice_count(&before), 2);
    go(&s, 1);
    HAPPENS(&s, "view 0@1");
    assert_int_equal(slice_count(&trainer_member(s.t, 0)->assigned), SLICES);
    assert_memory_equal(&trainer_member(s.t, 0)->held, &before, sizeof before); /* not done again */
    do_step(&s, 1);
    end(&s);
}

static void a_joiner_takes_part_when_it_has_the_state_and_the_commit_waits(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.save_steps = 1}, 1);
    do_step(&s, 1);
    trainer_saved(s.t, 1, true, s.now);
    do_step(&s, 1);
    trainer_saved(s.t, 2, true, s.now);
    actions(&s);
    come(&s, 1);
    HAPPENS(&s, "join 1@2");
    compute(&s, 0);
    reduced(&s, 0);
    HAPPENS(&s, "");
    applied(&s, 1, 2);
    HAPPENS(&s, "view 0@3");
    reduced(&s, 0);
    reduced(&s, 1);
    HAPPENS(&s, "commit 0@3, view 0@4");
    end(&s);
}

static void whoever_reads_from_a_lost_member_is_told_others(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.save_steps = 1}, 2);
    do_step(&s, 2);
    trainer_saved(s.t, 1, true, s.now);
    come(&s, 2);
    actions(&s);
    go(&s, 0);
    HAPPENS(&s, "join 2@1, view 0@2");
    come(&s, 3);
    actions(&s);
    go(&s, 2); /* nobody read from it */
    HAPPENS(&s, "");
    end(&s);
}

static void a_state_is_read_only_when_it_is_agreed_on(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 3);
    for (uint32_t w = 0; w < 3; w++) compute(&s, w);
    for (uint32_t w = 0; w < 3; w++) reduced(&s, w);
    trainer_applied(s.t, 0, 1, wrong, s.now);
    actions(&s);
    come(&s, 3);
    pass(&s, 50);
    HAPPENS(&s, "");
    applied(&s, 1, 1);
    applied(&s, 2, 1);
    HAPPENS(&s, "evict 0@1, join 3@1, view 0@2");
    assert_memory_equal(s.t->state_digest, right, sizeof right);
    end(&s);
}

static void the_odd_one_out_takes_the_state_of_the_majority(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 3);
    for (uint32_t w = 0; w < 3; w++) compute(&s, w);
    for (uint32_t w = 0; w < 3; w++) reduced(&s, w);
    compute(&s, 1);
    assert_true(slice_count(&trainer_member(s.t, 1)->held) > 0);
    trainer_applied(s.t, 1, 1, wrong, s.now);
    applied(&s, 0, 1);
    HAPPENS(&s, "commit 0@1, view 0@2");
    applied(&s, 2, 1);
    HAPPENS(&s, "evict 1@1, view 0@2");
    assert_int_equal(slice_count(&trainer_member(s.t, 1)->held), 0); /* computed with a wrong state */
    pass(&s, 2000);
    HAPPENS(&s, "join 1@1");
    trainer_applied(s.t, 1, 1, wrong, s.now);
    HAPPENS(&s, "evict 1@1");
    pass(&s, 2000);
    applied(&s, 1, 1);
    HAPPENS(&s, "join 1@1, view 0@2");
    end(&s);
}

static void without_a_majority_the_checkpoint_is_believed(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.save_steps = 1}, 2);
    do_step(&s, 2);
    trainer_saved(s.t, 1, true, s.now);
    for (uint32_t w = 0; w < 2; w++) compute(&s, w);
    for (uint32_t w = 0; w < 2; w++) reduced(&s, w);
    applied(&s, 0, 2);
    actions(&s);
    trainer_applied(s.t, 1, 2, wrong, s.now);
    HAPPENS(&s, "doubt 0@2, rollback 0@1, join 0@1, join 1@1");
    assert_true(s.t->has_state_digest); /* that of the checkpoint: known since it was written */
    applied(&s, 0, 1);
    HAPPENS(&s, "view 0@2");
    trainer_applied(s.t, 1, 1, wrong, s.now);
    HAPPENS(&s, "evict 1@1");
    end(&s);
}

static void states_that_differ_twice_at_the_same_step_end_the_run(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){0}, 0, 0, 0);
    come(&s, 0);
    come(&s, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(s.t->phase, TRAINER_RUN);
        applied(&s, 0, 0);
        trainer_applied(s.t, 1, 0, wrong, s.now);
    }
    assert_true(s.t->phase == TRAINER_FAILED && s.t->disagreed);
    end(&s);
}

static void the_first_to_answer_does_not_speak_for_all(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){0}, 0, 0, 0);
    for (uint32_t w = 0; w < 3; w++) come(&s, w);
    trainer_applied(s.t, 0, 0, wrong, s.now);
    applied(&s, 1, 0);
    applied(&s, 2, 0);
    HAPPENS(&s, "join 0@0, join 1@0, join 2@0, view 0@1, view 0@1, evict 0@0, view 0@1");
    end(&s);
}

/* ---- where nothing moves ---- */

static void a_member_that_never_told_a_loss_computes_it_again(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    compute(&s, 0);
    for (uint32_t i = 0; i < SLICES - 1; i++) /* all but the last one of worker 1 */
        if (slice_in(&trainer_member(s.t, 1)->assigned, i)) trainer_slice(s.t, 1, 1, i, i + 0.5, 10, 7, s.now);
    reduced(&s, 0);
    reduced(&s, 1);
    pass(&s, PATIENCE_MS - 1);
    HAPPENS(&s, "");
    pass(&s, 1);
    HAPPENS(&s, "join 1@0, view 0@1");
    applied(&s, 1, 0);
    HAPPENS(&s, "view 0@1");
    do_step(&s, 2);
    HAPPENS(&s, "commit 0@1, view 0@2");
    end(&s);
}

static void what_cannot_be_is_computed_again(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 1);
    assert_false(trainer_again(s.t, 7, s.now));
    do_step(&s, 1);
    compute(&s, 0);
    actions(&s);
    assert_true(trainer_again(s.t, 0, s.now));
    assert_false(trainer_again(s.t, 0, s.now)); /* what else it told of that view says nothing new */
    reduced(&s, 0);
    pass(&s, 999);
    HAPPENS(&s, "");
    pass(&s, 1);
    HAPPENS(&s, "join 0@1");
    applied(&s, 0, 1); /* what it holds is not given up */
    HAPPENS(&s, "view 0@2");
    assert_int_equal(slice_count(&trainer_member(s.t, 0)->held), 0);
    do_step(&s, 1);
    end(&s);
}

static void a_view_in_which_nothing_moves_is_renewed_later_and_later(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    uint64_t view = s.t->view;
    compute(&s, 0);
    pass(&s, PATIENCE_MS - 1);
    HAPPENS(&s, "");
    compute(&s, 1);
    pass(&s, PATIENCE_MS - 1);
    HAPPENS(&s, "");
    pass(&s, 1);
    HAPPENS(&s, "view 0@1");
    assert_int_equal(s.t->view, view + 1);
    pass(&s, 2 * PATIENCE_MS - 1);
    HAPPENS(&s, "");
    pass(&s, 1);
    HAPPENS(&s, "view 0@1");
    pass(&s, 4 * PATIENCE_MS - 1);
    HAPPENS(&s, "");
    reduced(&s, 0);
    reduced(&s, 1);
    HAPPENS(&s, "commit 0@1, view 0@2");
    applied(&s, 0, 1);
    applied(&s, 1, 1);
    pass(&s, 4 * PATIENCE_MS - 1);
    HAPPENS(&s, ""); /* the next step has the patience that this one needed */
    for (int step = 2; step < 5; step++) do_step(&s, 2); /* less and less of it, when steps do not need it */
    actions(&s);
    pass(&s, PATIENCE_MS - 1);
    HAPPENS(&s, "");
    pass(&s, 1);
    HAPPENS(&s, "view 0@5");
    end(&s);
}

/* Three members, one of which answers and gives the others nothing of its sums: they are left out in turn, the newest first. */
static void who_gives_nothing_is_found_by_leaving_one_out_after_the_other(void **state) {
    (void)state;
    for (uint32_t bad = 0; bad < 3; bad++) {
        struct story s = running((struct trainer_options){0}, 3);
        do_step(&s, 3);
        actions(&s);
        for (int64_t patience = PATIENCE_MS, renewal = 1; renewal <= 2; renewal++, patience *= 2) {
            for (uint32_t w = 0; w < 3; w++) compute(&s, w);
            pass(&s, patience);
            HAPPENS(&s, "view 0@2"); /* with all of them */
        }
        bool withheld = false;
        for (int renewal = 3; renewal <= 5 && !withheld; renewal++) {
            for (uint32_t w = 0; w < 3; w++) compute(&s, w);
            actions(&s);
            pass(&s, 4 * PATIENCE_MS);
            actions(&s); /* who was left out before joins */
            for (uint32_t w = 0; w < 3; w++)
                if (trainer_member(s.t, w)->state == MEMBER_JOINING) applied(&s, w, 1);
            uint32_t out = (uint32_t)(5 - renewal);
            for (uint32_t w = 0; w < 3; w++) assert_int_equal(trainer_member(s.t, w)->in_view, w != out);
            if (out != bad) continue;
            for (uint32_t w = 0; w < 3; w++)
                if (w != bad) compute(&s, w);
            actions(&s);
            for (uint32_t w = 0; w < 3; w++)
                if (w != bad) reduced(&s, w);
            char wanted[64];
            snprintf(wanted, sizeof wanted, "commit 0@2, withheld %u@2, view 0@3", bad);
            HAPPENS(&s, wanted);
            withheld = true;
        }
        assert_true(withheld);
        end(&s);
    }
}

static void who_is_left_out_is_asked_when_nobody_else_is_left(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    for (int renewal = 1; renewal <= 3; renewal++) {
        for (uint32_t w = 0; w < 2; w++) compute(&s, w);
        pass(&s, (int64_t)PATIENCE_MS << (renewal - 1));
    }
    assert_false(trainer_member(s.t, 1)->in_view);
    actions(&s);
    go(&s, 0);
    HAPPENS(&s, "join 1@0");
    end(&s);
}

static void a_member_that_never_applies_is_asked_for_its_state(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    for (uint32_t w = 0; w < 2; w++) compute(&s, w);
    for (uint32_t w = 0; w < 2; w++) reduced(&s, w);
    applied(&s, 0, 1);
    compute(&s, 0);
    actions(&s);
    pass(&s, PATIENCE_MS - 1);
    HAPPENS(&s, "");
    pass(&s, 1);
    HAPPENS(&s, "late 1@1, join 1@1, view 0@2");
    applied(&s, 1, 1);
    HAPPENS(&s, "view 0@2");
    do_step(&s, 2);
    end(&s);
}

static void a_member_that_went_back_is_asked_for_its_state(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    do_step(&s, 2);
    actions(&s);
    applied(&s, 1, 0);
    HAPPENS(&s, "join 1@1, view 0@2");
    end(&s);
}

/* ---- evaluations, checkpoints, the end ---- */

static void evaluation_stops_the_steps_and_a_checkpoint_the_commit(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.eval_steps = 2, .save_steps = 2, .validation = true}, 1);
    do_step(&s, 1);
    do_step(&s, 1);
    HAPPENS(&s, "commit 0@1, view 0@2, commit 0@2, evaluate 0@2, save 0@2");
    trainer_evaluated(s.t, 1, s.now); /* of another step */
    HAPPENS(&s, "");
    trainer_evaluated(s.t, 2, s.now);
    HAPPENS(&s, "view 0@3");
    compute(&s, 0);
    reduced(&s, 0);
    HAPPENS(&s, "");
    trainer_saved(s.t, 2, false, s.now);
    HAPPENS(&s, "save 0@2");
    trainer_saved(s.t, 2, true, s.now);
    HAPPENS(&s, "commit 0@3, view 0@4");
    end(&s);
}

static void a_member_lost_while_evaluating_holds_nothing_up(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.eval_steps = 1, .validation = true}, 2);
    do_step(&s, 2);
    HAPPENS(&s, "commit 0@1, evaluate 0@1");
    go(&s, 0);
    come(&s, 2);
    HAPPENS(&s, "join 2@1");
    applied(&s, 2, 1);
    HAPPENS(&s, "");
    trainer_evaluated(s.t, 1, s.now);
    HAPPENS(&s, "view 0@2");
    end(&s);
}

static void the_run_is_finished_when_the_last_step_is_evaluated_and_saved(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.max_steps = 1, .validation = true}, 1);
    do_step(&s, 1);
    HAPPENS(&s, "commit 0@1, evaluate 0@1, save 0@1");
    trainer_saved(s.t, 1, true, s.now);
    HAPPENS(&s, "");
    trainer_evaluated(s.t, 1, s.now);
    HAPPENS(&s, "finished 0@1");
    come(&s, 1);
    go(&s, 0);
    pass(&s, 100000);
    HAPPENS(&s, "");
    end(&s);
}

static void a_restart_evaluates_and_saves_what_was_left(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){.max_steps = 4, .eval_steps = 1, .validation = true}, 4, 2, 3);
    come_with(&s, 0, 4);
    pass(&s, TRAINER_GATHER_MS);
    applied(&s, 0, 4);
    HAPPENS(&s, "join 0@4, evaluate 0@4, save 0@4");
    end(&s);
}

static void all_lost_before_the_checkpoint_is_saved_does_its_steps_again(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.max_steps = 2}, 1);
    do_step(&s, 1);
    do_step(&s, 1);
    HAPPENS(&s, "commit 0@1, view 0@2, commit 0@2, save 0@2");
    go(&s, 0);
    assert_false(s.t->saving);
    trainer_saved(s.t, 2, true, s.now); /* the answer came too late to count */
    come(&s, 1);
    pass(&s, TRAINER_GATHER_MS);
    HAPPENS(&s, "rollback 0@0, join 1@0");
    applied(&s, 1, 0);
    HAPPENS(&s, "view 0@1");
    end(&s);
}

static void a_stop_saves_what_is_committed_and_begins_nothing(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.eval_steps = 2, .validation = true}, 1);
    do_step(&s, 1);
    do_step(&s, 1);
    HAPPENS(&s, "commit 0@1, view 0@2, commit 0@2, evaluate 0@2");
    trainer_stop(s.t, s.now);
    HAPPENS(&s, "save 0@2");
    assert_false(s.t->evaluating); /* it is done after the restart: its jobs are not given out any more */
    come(&s, 1);
    applied(&s, 1, 2);
    HAPPENS(&s, "join 1@2");
    trainer_saved(s.t, 2, true, s.now);
    HAPPENS(&s, "stopped 0@2");
    pass(&s, 1000);
    HAPPENS(&s, "");
    end(&s);
}

static void a_stop_in_the_middle_of_a_step_does_not_commit_it(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){.save_steps = 1}, 1);
    do_step(&s, 1);
    trainer_saved(s.t, 1, true, s.now);
    compute(&s, 0);
    actions(&s);
    trainer_stop(s.t, s.now);
    reduced(&s, 0);
    HAPPENS(&s, "stopped 0@1");
    end(&s);
}

static void more_workers_than_places_stay_outside(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){0}, 0, 0, 0);
    for (uint32_t w = 0; w < MEMBERS_MAX + 5; w++) {
        come(&s, w);
        actions(&s);
    }
    assert_null(trainer_member(s.t, MEMBERS_MAX));
    for (uint32_t w = 0; w < MEMBERS_MAX; w++) {
        applied(&s, w, 0);
        actions(&s);
    }
    go(&s, 17);
    come(&s, 5000);
    assert_non_null(trainer_member(s.t, 5000));
    come(&s, 5000); /* known already */
    HAPPENS(&s, "view 0@1, join 5000@0");
    end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_worker_makes_the_first_state_and_begins),
        cmocka_unit_test(a_step_commits_when_all_hold_the_same_sum),
        cmocka_unit_test(what_is_not_of_this_step_and_view_counts_for_nothing),
        cmocka_unit_test(a_step_waits_until_all_told_the_state_before_it),
        cmocka_unit_test(sums_that_differ_twice_at_the_same_step_end_the_run),
        cmocka_unit_test(a_step_that_differed_in_an_earlier_life_ends_the_run),
        cmocka_unit_test(after_doubts_about_many_steps_the_next_one_ends_the_run),
        cmocka_unit_test(the_majoritys_sum_counts_and_the_odd_ones_slices_go_to_others),
        cmocka_unit_test(a_slice_counts_only_from_who_was_asked),
        cmocka_unit_test(sums_that_differ_once_do_no_harm),
        cmocka_unit_test(a_gradient_that_is_not_finite_skips_its_step),
        cmocka_unit_test(a_step_without_a_counted_target_is_skipped_and_not_held_against_the_run),
        cmocka_unit_test(a_skipped_step_that_is_done_again_counts_once),
        cmocka_unit_test(a_member_lost_leaves_its_slices_to_the_others),
        cmocka_unit_test(a_joiner_takes_part_when_it_has_the_state_and_the_commit_waits),
        cmocka_unit_test(whoever_reads_from_a_lost_member_is_told_others),
        cmocka_unit_test(a_state_is_read_only_when_it_is_agreed_on),
        cmocka_unit_test(the_odd_one_out_takes_the_state_of_the_majority),
        cmocka_unit_test(without_a_majority_the_checkpoint_is_believed),
        cmocka_unit_test(states_that_differ_twice_at_the_same_step_end_the_run),
        cmocka_unit_test(the_first_to_answer_does_not_speak_for_all),
        cmocka_unit_test(a_member_that_never_told_a_loss_computes_it_again),
        cmocka_unit_test(what_cannot_be_is_computed_again),
        cmocka_unit_test(a_view_in_which_nothing_moves_is_renewed_later_and_later),
        cmocka_unit_test(who_gives_nothing_is_found_by_leaving_one_out_after_the_other),
        cmocka_unit_test(who_is_left_out_is_asked_when_nobody_else_is_left),
        cmocka_unit_test(a_member_that_never_applies_is_asked_for_its_state),
        cmocka_unit_test(a_member_that_went_back_is_asked_for_its_state),
        cmocka_unit_test(evaluation_stops_the_steps_and_a_checkpoint_the_commit),
        cmocka_unit_test(a_member_lost_while_evaluating_holds_nothing_up),
        cmocka_unit_test(the_run_is_finished_when_the_last_step_is_evaluated_and_saved),
        cmocka_unit_test(a_restart_evaluates_and_saves_what_was_left),
        cmocka_unit_test(all_lost_before_the_checkpoint_is_saved_does_its_steps_again),
        cmocka_unit_test(a_stop_saves_what_is_committed_and_begins_nothing),
        cmocka_unit_test(a_stop_in_the_middle_of_a_step_does_not_commit_it),
        cmocka_unit_test(more_workers_than_places_stay_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
