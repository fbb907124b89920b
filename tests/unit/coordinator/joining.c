/* Members that take long to join, or never do. */
#include "tests/unit/coordinator/story.h"

static void a_joiner_that_never_answers_is_left_behind_and_asked_again(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 1);
    come(&s, 1);
    HAPPENS(&s, "join 1@0");
    compute(&s, 0);
    reduced(&s, 0);
    pass(&s, PATIENCE_MS - 1);
    HAPPENS(&s, "");
    pass(&s, 1);
    HAPPENS(&s, "late 1@0, commit 0@1, view 0@2");
    applied(&s, 0, 1);
    HAPPENS(&s, "");
    pass(&s, 2000);
    HAPPENS(&s, "join 1@1");
    end(&s);
}

static void a_joiner_whose_work_moves_is_waited_for_and_has_an_end(void **state) {
    (void)state;
    for (int ends = 0; ends < 2; ends++) {
        struct story s = running((struct trainer_options){0}, 1);
        come(&s, 1);
        compute(&s, 0);
        reduced(&s, 0);
        HAPPENS(&s, "join 1@0");
        for (int i = 0; i < (ends ? 10 : 63); i++) {
            trainer_moved(s.t, 1, s.now);
            pass(&s, PATIENCE_MS - 1);
            HAPPENS(&s, "");
        }
        if (ends) {
            applied(&s, 1, 0);
            HAPPENS(&s, "view 0@1");
        } else { /* it moves and moves */
            trainer_moved(s.t, 1, s.now);
            pass(&s, PATIENCE_MS - 1);
            trainer_moved(s.t, 1, s.now);
            pass(&s, 64);
            HAPPENS(&s, "late 1@0, commit 0@1, view 0@2");
        }
        end(&s);
    }
}

static void skip_time(struct story *s, int64_t ms) {
    s->now += ms;
    trainer_pause(s->t, ms, s->now);
    trainer_tick(s->t, s->now);
}

/* The coordinator was stopped, say, or its disk stood still: what came meanwhile it has yet to read. */
static void nobody_is_late_for_time_in_which_nobody_was_heard(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 1);
    skip_time(&s, 10 * PATIENCE_MS);
    HAPPENS(&s, ""); /* no view anew */
    come(&s, 1);
    HAPPENS(&s, "join 1@0");
    compute(&s, 0);
    reduced(&s, 0);
    skip_time(&s, 100 * PATIENCE_MS);
    pass(&s, PATIENCE_MS - 1);
    HAPPENS(&s, "");
    pass(&s, 1);
    HAPPENS(&s, "late 1@0, commit 0@1, view 0@2");
    skip_time(&s, 10 * PATIENCE_MS);
    HAPPENS(&s, ""); /* the APPLIED of 0 may have come */
    pass(&s, PATIENCE_MS);
    assert_non_null(strstr(actions(&s), "late 0@1"));
    end(&s);
    s = begin((struct trainer_options){0}, 5, 3, 0);
    come_with(&s, 0, 4);
    skip_time(&s, 10 * TRAINER_GATHER_MS);
    HAPPENS(&s, ""); /* who has step 5 may have said so */
    pass(&s, TRAINER_GATHER_MS);
    HAPPENS(&s, "rollback 0@4, join 0@4");
    end(&s);
}

/* Each time that it was waited for in vain it is left alone for longer. */
static void a_joiner_that_never_answers_holds_the_others_up_ever_less(void **state) {
    (void)state;
    struct story s = running((struct trainer_options){0}, 1);
    const struct member *m;
    int64_t pause_ms = 1000;
    come(&s, 1);
    m = trainer_member(s.t, 1);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(m->state, MEMBER_JOINING);
        pass(&s, PATIENCE_MS - 1);
        assert_int_equal(m->state, MEMBER_JOINING);
        pass(&s, 1);
        assert_int_equal(m->state, MEMBER_PRESENT);
        do_step(&s, 1);
        pass(&s, pause_ms - 1);
        assert_int_equal(m->state, MEMBER_PRESENT);
        pass(&s, 1);
        pause_ms = i == 0 ? PATIENCE_MS : pause_ms < 64 * PATIENCE_MS ? 2 * pause_ms : pause_ms;
    }
    pass(&s, PATIENCE_MS);
    actions(&s);
    go(&s, 0); /* nobody is held up */
    come_with(&s, 0, 10);
    pass(&s, TRAINER_GATHER_MS);
    HAPPENS(&s, "join 0@10");
    applied(&s, 0, 10);
    assert_int_equal(m->state, MEMBER_PRESENT);
    actions(&s);
    pass(&s, pause_ms);
    HAPPENS(&s, "join 1@10, view 0@11");
    applied(&s, 1, 10); /* it answered: all is as in the beginning */
    assert_int_equal(m->state, MEMBER_READY);
    assert_int_equal(m->joins_late, 0);
    end(&s);
}

/* Nobody is held up: nobody has to be left alone. */
static void who_joins_in_vain_where_nobody_trains_is_asked_again_at_once(void **state) {
    (void)state;
    struct story s = begin((struct trainer_options){0}, 0, 0, 0);
    come(&s, 0);
    come(&s, 1);
    HAPPENS(&s, "join 0@0, join 1@0");
    for (int i = 0; i < 5; i++) {
        pass(&s, PATIENCE_MS);
        HAPPENS(&s, "late 0@0, late 1@0, join 0@0, join 1@0");
    }
    end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_joiner_that_never_answers_is_left_behind_and_asked_again),
        cmocka_unit_test(a_joiner_whose_work_moves_is_waited_for_and_has_an_end),
        cmocka_unit_test(nobody_is_late_for_time_in_which_nobody_was_heard),
        cmocka_unit_test(a_joiner_that_never_answers_holds_the_others_up_ever_less),
        cmocka_unit_test(who_joins_in_vain_where_nobody_trains_is_asked_again_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
