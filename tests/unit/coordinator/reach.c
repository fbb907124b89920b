/* Members that do not reach each other: who is out of the step, for how long, and that the others go on. */
#include "tests/unit/coordinator/story.h"

#define SILENT(s, worker, ...) \
    trainer_unheard((s)->t, worker, (uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), (s)->now)

static void the_step_goes_on_without_a_member_that_the_others_do_not_reach(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 3);
    for (uint32_t w = 0; w < 3; w++) compute(&s, w);
    SILENT(&s, 0, 1);
    HAPPENS(&s, ""); /* who else? */
    pass(&s, 500);
    SILENT(&s, 2, 1);
    pass(&s, TRAINER_SETTLE_MS - 501);
    HAPPENS(&s, "");
    pass(&s, 1);
    HAPPENS(&s, "bar 1@0, view 0@1");
    assert_false(trainer_member(s.t, 1)->in_view);
    for (uint32_t w = 0; w < 3; w += 2) compute(&s, w);
    reduced(&s, 0);
    reduced(&s, 2);
    HAPPENS(&s, "commit 0@1, view 0@2");
    end(&s);
}

static void a_member_that_reaches_nobody_is_the_one_to_go(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 3);
    SILENT(&s, 0, 1);
    pass(&s, 100);
    SILENT(&s, 0, 1, 2);
    pass(&s, TRAINER_SETTLE_MS);
    HAPPENS(&s, "bar 0@0, view 0@1");
    end(&s);
}

static void of_many_that_do_not_reach_each_other_one_goes_on(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 4);
    for (uint32_t w = 1; w < 4; w++) {
        uint32_t a = w == 1 ? 2 : 1, b = w == 3 ? 2 : 3;
        SILENT(&s, w, a, b);
    }
    pass(&s, TRAINER_SETTLE_MS);
    HAPPENS(&s, "bar 3@0, bar 2@0, view 0@1");
    assert_true(trainer_member(s.t, 0)->in_view && trainer_member(s.t, 1)->in_view);
    end(&s);
}

/* 0 does not reach four others, which say nothing; three say that they do not reach 5. */
static void the_one_with_most_others_goes_first_whoever_says_so(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 6);
    SILENT(&s, 0, 1, 2, 3, 4);
    for (uint32_t w = 1; w < 4; w++) SILENT(&s, w, 5);
    pass(&s, TRAINER_SETTLE_MS);
    HAPPENS(&s, "bar 0@0, bar 5@0, view 0@1");
    end(&s);
}

static void among_equals_the_one_that_most_do_not_reach_goes(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 4);
    SILENT(&s, 0, 1); /* 1 and 2 have two each, and nobody says that it does not reach 2 */
    SILENT(&s, 2, 1, 3);
    pass(&s, TRAINER_SETTLE_MS);
    HAPPENS(&s, "bar 1@0, bar 3@0, view 0@1");
    end(&s);
}

static void then_the_one_that_came_last_goes_whatever_its_place(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 3);
    go(&s, 0);
    come(&s, 3); /* in the place of 0 */
    applied(&s, 3, 0);
    actions(&s);
    SILENT(&s, 2, 3);
    SILENT(&s, 3, 2);
    pass(&s, TRAINER_SETTLE_MS);
    HAPPENS(&s, "bar 3@0, view 0@1");
    end(&s);
}

static void who_is_not_reached_is_tried_more_and_more_rarely(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    int64_t ms = TRAINER_BAR_MS;
    for (int round = 0; round < 30; round++) {
        SILENT(&s, 0, 1);
        pass(&s, TRAINER_SETTLE_MS);
        HAPPENS(&s, "bar 1@0, view 0@1");
        trainer_unheard(s.t, 0, NULL, 0, s.now); /* a view without it */
        for (int64_t passed = 0; passed + 30000 < ms && round < 4; passed += 30000) pass(&s, 30000);
        assert_true(strstr(actions(&s), "join") == NULL);
        s.now = trainer_member(s.t, 1)->bar_ends_ms - 1;
        trainer_tick(s.t, s.now);
        assert_true(strstr(actions(&s), "join") == NULL);
        pass(&s, 1);
        assert_non_null(strstr(actions(&s), "join 1@0"));
        applied(&s, 1, 0);
        actions(&s);
        if (round < 20) ms *= 2;
    }
    assert_true(ms == (int64_t)TRAINER_BAR_MS << 20);
    end(&s);
}

static void a_fault_that_went_away_is_forgotten(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    for (int round = 0; round < 5; round++) {
        SILENT(&s, 0, 1);
        pass(&s, TRAINER_SETTLE_MS);
        HAPPENS(&s, "bar 1@0, view 0@1");
        assert_int_equal(trainer_member(s.t, 1)->bar_ends_ms - s.now, TRAINER_BAR_MS);
        trainer_unheard(s.t, 0, NULL, 0, s.now);
        assert_true(trainer_member(s.t, 1)->barred);
        pass(&s, TRAINER_BAR_MS);
        HAPPENS(&s, "join 1@0");
        assert_false(trainer_member(s.t, 1)->barred);
        applied(&s, 1, 0);
        pass(&s, 3 * TRAINER_BAR_MS);
        actions(&s);
    }
    end(&s);
}

/* To be forgotten it has to be gone for twice as long as the bar lasted. */
static void a_fault_that_was_away_for_a_while_is_not_forgotten(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    for (int round = 0; round < 2; round++) {
        SILENT(&s, 0, 1);
        pass(&s, TRAINER_SETTLE_MS);
        assert_int_equal(trainer_member(s.t, 1)->bar_ends_ms - s.now, TRAINER_BAR_MS << round);
        trainer_unheard(s.t, 0, NULL, 0, s.now);
        pass(&s, TRAINER_BAR_MS << round);
        applied(&s, 1, 0);
        pass(&s, TRAINER_BAR_MS + TRAINER_BAR_MS / 2);
    }
    end(&s);
}

static void who_is_not_reached_goes_on_when_nobody_else_is_left(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    SILENT(&s, 0, 1);
    pass(&s, TRAINER_SETTLE_MS);
    HAPPENS(&s, "bar 1@0, view 0@1");
    go(&s, 0);
    HAPPENS(&s, "join 1@0");
    end(&s);
}

static void a_joiner_reads_from_those_that_it_reaches(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 2);
    do_step(&s, 2);
    actions(&s);
    come(&s, 2);
    HAPPENS(&s, "join 2@1");
    SILENT(&s, 2, 0);
    HAPPENS(&s, "join 2@1"); /* from the other one */
    assert_false(trainer_reaches(s.t, 2, 0));
    assert_true(trainer_reaches(s.t, 2, 1) && trainer_reaches(s.t, 0, 2));
    SILENT(&s, 2, 0, 1);
    HAPPENS(&s, ""); /* nobody is left to read from, and the step does not wait for it */
    do_step(&s, 2);
    HAPPENS(&s, "commit 0@2, view 0@3");
    trainer_unheard(s.t, 2, NULL, 0, s.now);
    HAPPENS(&s, "join 2@2");
    end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_step_goes_on_without_a_member_that_the_others_do_not_reach),
        cmocka_unit_test(a_member_that_reaches_nobody_is_the_one_to_go),
        cmocka_unit_test(of_many_that_do_not_reach_each_other_one_goes_on),
        cmocka_unit_test(the_one_with_most_others_goes_first_whoever_says_so),
        cmocka_unit_test(among_equals_the_one_that_most_do_not_reach_goes),
        cmocka_unit_test(then_the_one_that_came_last_goes_whatever_its_place),
        cmocka_unit_test(who_is_not_reached_is_tried_more_and_more_rarely),
        cmocka_unit_test(a_fault_that_went_away_is_forgotten),
        cmocka_unit_test(a_fault_that_was_away_for_a_while_is_not_forgotten),
        cmocka_unit_test(who_is_not_reached_goes_on_when_nobody_else_is_left),
        cmocka_unit_test(a_joiner_reads_from_those_that_it_reaches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
