/* Questions under way: numbers, bounds, repetition. */
#include "proto/reads.h"

#include <string.h>

#include "tests/unit/random.h"

static struct reads reads;

static int setup(void **state) {
    (void)state;
    memset(&reads, 0, sizeof reads);
    return 0;
}

static void an_answer_finds_its_question_once(void **state) {
    (void)state;
    struct read *a = reads_add(&reads, 5, 100), taken;
    uint64_t id = a->id;
    a->envelope.step = 9;
    a->body.what = MILLRACE__READ__WHAT__STATE;
    a->body.c = 3;
    assert_int_equal(a->envelope.kind, MILLRACE__KIND__READ);
    assert_int_equal(a->envelope.job, id);
    reads_add(&reads, 5, 101);
    assert_true(reads_take(&reads, &taken, id));
    assert_true(taken.tag == 100 && taken.peer == 5 && taken.envelope.step == 9 && taken.body.c == 3);
    assert_false(reads_take(&reads, &taken, id));
    assert_false(reads_take(&reads, &taken, 0));
    assert_false(reads_take(&reads, &taken, 999));
    assert_int_equal(reads.count, 1);
    assert_int_equal(reads.read[0].tag, 101);
}

static void numbers_are_never_given_again(void **state) {
    (void)state;
    struct read taken;
    uint64_t before = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t id = reads_add(&reads, 1, 0)->id;
        assert_true(id > before);
        before = id;
        if (i % 3 == 0) reads_drop_what(&reads, MILLRACE__READ__WHAT__NONE);
        else reads_take(&reads, &taken, id);
    }
}

static void past_the_limit_nothing_is_asked(void **state) {
    (void)state;
    struct read taken;
    for (int i = 0; i < READS_MAX; i++) assert_non_null(reads_add(&reads, 1, (uint64_t)i));
    assert_null(reads_add(&reads, 2, 0));
    assert_true(reads_take(&reads, &taken, reads.read[17].id));
    assert_non_null(reads_add(&reads, 2, 0));
    assert_null(reads_add(&reads, 2, 0));
}

static void a_question_is_sent_once_and_again_after_silence(void **state) {
    (void)state;
    enum { NOW = 1000000 };
    uint64_t first = reads_add(&reads, 1, 0)->id, second = reads_add(&reads, 1, 0)->id;
    assert_int_equal(reads_due(&reads, NOW)->id, first);
    assert_int_equal(reads_due(&reads, NOW)->id, second);
    assert_null(reads_due(&reads, NOW));
    assert_null(reads_due(&reads, NOW + READ_AGAIN_MS - 1));
    uint64_t third = reads_add(&reads, 1, 0)->id;
    assert_int_equal(reads_due(&reads, NOW + READ_AGAIN_MS - 1)->id, third);
    assert_int_equal(reads_due(&reads, NOW + READ_AGAIN_MS)->id, first);
    assert_int_equal(reads_due(&reads, NOW + READ_AGAIN_MS)->id, second);
    assert_null(reads_due(&reads, NOW + READ_AGAIN_MS));
    reads.read[0].sent_ms = 0; /* a new coordinator has not heard it */
    assert_int_equal(reads_due(&reads, NOW + READ_AGAIN_MS + 1)->id, first);
}

/* A peer whose link carries 4 MiB in a minute must not get the same question twenty times. */
static void an_unanswered_question_is_sent_more_and_more_rarely_but_never_given_up(void **state) {
    (void)state;
    reads_add(&reads, 1, 0);
    int64_t now = 1000, last = now, gap = 0;
    assert_non_null(reads_due(&reads, now));
    for (int sent = 1; sent < 20; now += 100) {
        if (!reads_due(&reads, now)) continue;
        assert_true(now - last >= gap && now - last <= READ_AGAIN_MS << READ_AGAIN_DOUBLED);
        gap = now - last;
        last = now;
        sent++;
    }
    assert_int_equal(gap, READ_AGAIN_MS << READ_AGAIN_DOUBLED);
}

static void an_answer_gives_the_other_questions_to_its_peer_more_time(void **state) {
    (void)state;
    struct read taken;
    uint64_t first = reads_add(&reads, 1, 0)->id, second = reads_add(&reads, 1, 0)->id, other = reads_add(&reads, 2, 0)->id;
    for (int i = 0; i < 3; i++) assert_non_null(reads_due(&reads, 1000));
    assert_null(reads_due(&reads, 1000 + READ_AGAIN_MS - 1));
    assert_true(reads_take(&reads, &taken, first));
    assert_int_equal(reads_due(&reads, 1000 + READ_AGAIN_MS)->id, other);
    assert_null(reads_due(&reads, 1000 + 2 * READ_AGAIN_MS - 2));
    assert_int_equal(reads_due(&reads, 1000 + 2 * READ_AGAIN_MS - 1)->id, second);
}

static void a_clock_that_begins_at_zero_sends_no_question_twice(void **state) {
    (void)state;
    reads_add(&reads, 1, 0);
    assert_non_null(reads_due(&reads, 0));
    assert_null(reads_due(&reads, 0));
    assert_null(reads_due(&reads, READ_AGAIN_MS - 1));
}

static void a_question_with_a_bad_answer_is_asked_again_later(void **state) {
    (void)state;
    int64_t now = 1000;
    struct read taken;
    uint64_t id = reads_add(&reads, 4, 77)->id;
    reads_due(&reads, now);
    for (int bad = 0; bad < 5; bad++) { /* however often: the peer answers, so it is no later each time */
        assert_true(reads_take(&reads, &taken, id));
        assert_true(taken.peer == 4 && taken.tag == 77);
        reads_put_back(&reads, &taken, now + 10);
        assert_null(reads_due(&reads, now + 10 + READ_AGAIN_MS - 1));
        now += 10 + READ_AGAIN_MS;
        assert_int_equal(reads_due(&reads, now)->id, id);
    }
}

static void a_peer_that_is_gone_takes_its_questions_along(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 30; i++) reads_add(&reads, i % 3, i);
    assert_int_equal(reads_open_at(&reads, 1), 10);
    reads_drop_peer(&reads, 1);
    assert_int_equal(reads_open_at(&reads, 1), 0);
    assert_int_equal(reads.count, 20);
    for (size_t i = 0; i < reads.count; i++) assert_true(reads.read[i].tag % 3 != 1);
    reads_drop_peer(&reads, 77);
    assert_int_equal(reads.count, 20);
    reads.read[3].body.what = MILLRACE__READ__WHAT__SUM;
    reads_drop_what(&reads, MILLRACE__READ__WHAT__NONE);
    assert_int_equal(reads.count, 1);
    reads_drop_what(&reads, MILLRACE__READ__WHAT__SUM);
    assert_null(reads_due(&reads, 1000000000));
}

static void every_open_question_comes_round_whatever_is_dropped(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    struct read taken;
    int64_t now = 1;
    for (int round = 0; round < 2000; round++) {
        for (uint64_t n = random_in(&random, 0, 9); n > 0; n--) reads_add(&reads, random_in(&random, 0, 3), 0);
        if (reads.count && random_in(&random, 0, 1)) reads_take(&reads, &taken, reads.read[random_in(&random, 0, reads.count - 1)].id);
        if (random_in(&random, 0, 9) == 0) reads_drop_peer(&reads, random_in(&random, 0, 3));
        now += (int64_t)random_in(&random, 0, READ_AGAIN_MS);
        while (reads_due(&reads, now)) continue;
        for (size_t i = 0; i < reads.count; i++) {
            if (now - reads.read[i].sent_ms >= READ_AGAIN_MS << READ_AGAIN_DOUBLED)
                fail_msg("MILLRACE_SEED=%llu", (unsigned long long)random.seed);
            for (size_t k = 0; k < i; k++) assert_true(reads.read[i].id != reads.read[k].id);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_answer_finds_its_question_once, setup),
        cmocka_unit_test_setup(numbers_are_never_given_again, setup),
        cmocka_unit_test_setup(past_the_limit_nothing_is_asked, setup),
        cmocka_unit_test_setup(a_question_is_sent_once_and_again_after_silence, setup),
        cmocka_unit_test_setup(an_unanswered_question_is_sent_more_and_more_rarely_but_never_given_up, setup),
        cmocka_unit_test_setup(an_answer_gives_the_other_questions_to_its_peer_more_time, setup),
        cmocka_unit_test_setup(a_clock_that_begins_at_zero_sends_no_question_twice, setup),
        cmocka_unit_test_setup(a_question_with_a_bad_answer_is_asked_again_later, setup),
        cmocka_unit_test_setup(a_peer_that_is_gone_takes_its_questions_along, setup),
        cmocka_unit_test_setup(every_open_question_comes_round_whatever_is_dropped, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
