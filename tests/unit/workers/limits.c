/* What a worker takes from others: answers to its own questions, and questions as far as there is room. */
#include "tests/unit/random.h"
#include "workers/asked.h"
#include "workers/parked.h"

static void only_who_was_asked_may_answer_and_once(void **state) {
    (void)state;
    struct asked asked = {0};
    asked_note(&asked, 7, 1, 100);
    assert_true(asked_open(&asked, 7, 1));
    assert_false(asked_open(&asked, 8, 1));
    assert_false(asked_take(&asked, 8, 1, 10));  /* somebody else */
    assert_false(asked_take(&asked, 7, 2, 10));  /* another question */
    assert_false(asked_take(&asked, 7, 1, 101)); /* more than was asked for */
    assert_false(asked_take(&asked, 0, 0, 0));   /* what is free is nobody's */
    asked_note(&asked, 7, 1, 100);               /* repeated */
    assert_true(asked_take(&asked, 7, 1, 100));
    assert_false(asked_take(&asked, 7, 1, 100));
}

static void the_oldest_question_makes_room(void **state) {
    (void)state;
    static struct asked asked;
    for (uint64_t id = 1; id <= ASKED_MAX; id++) asked_note(&asked, 7, id, 1);
    asked_note(&asked, 7, 1, 1); /* asked again: the newest */
    asked_note(&asked, 7, ASKED_MAX + 1, 1);
    assert_true(asked_open(&asked, 7, 1));
    assert_false(asked_open(&asked, 7, 2));
    assert_true(asked_take(&asked, 7, 3, 1));
    asked_note(&asked, 7, ASKED_MAX + 2, 1); /* takes the free place */
    assert_true(asked_open(&asked, 7, 4));
}

static struct parked question(uint64_t peer, uint64_t id, int64_t since_ms) {
    return (struct parked){.peer = peer, .envelope = {.job = id}, .since_ms = since_ms};
}

static size_t parked_of(const struct parking *parking, uint64_t peer) {
    size_t n = 0;
    for (size_t i = 0; i < parking->count; i++) n += parking->parked[i].peer == peer;
    return n;
}

static void a_greedy_asker_takes_nobody_elses_place(void **state) {
    (void)state;
    static struct parking parking;
    struct parked honest = question(1, 1, 0);
    parking_add(&parking, &honest);
    for (uint64_t id = 1; id <= 10000; id++) { /* one peer with many questions */
        struct parked more = question(2, id, (int64_t)id);
        parking_add(&parking, &more);
    }
    assert_int_equal(parked_of(&parking, 2), READS_MAX);
    for (uint64_t peer = 3; peer < 30; peer++) /* many peers with as many as they may have */
        for (uint64_t id = 1; id <= READS_MAX; id++) {
            struct parked more = question(peer, id, (int64_t)id);
            parking_add(&parking, &more);
        }
    assert_true(parking.count <= PARKED_MAX);
    assert_int_equal(parked_of(&parking, 1), 1);
    struct parked again = question(1, 1, 5);
    parking_add(&parking, &again);
    assert_int_equal(parked_of(&parking, 1), 1);
}

/* Of its own questions the oldest goes, which its asker repeats first. */
static void of_a_greedy_asker_the_oldest_question_goes(void **state) {
    (void)state;
    static struct parking parking;
    for (uint64_t i = 0; i < READS_MAX; i++) { /* not in the order of their age */
        struct parked more = question(2, i, (int64_t)(i * 7 % READS_MAX) + 1);
        parking_add(&parking, &more);
    }
    for (int64_t age = 1; age <= READS_MAX; age++) {
        int64_t least = INT64_MAX;
        for (size_t i = 0; i < parking.count; i++)
            if (parking.parked[i].since_ms < least) least = parking.parked[i].since_ms;
        assert_int_equal(least, age);
        struct parked newest = question(2, READS_MAX + (uint64_t)age, READS_MAX + age);
        parking_add(&parking, &newest);
        assert_int_equal(parked_of(&parking, 2), READS_MAX);
    }
}

static void random_questions_never_overflow(void **state) {
    (void)state;
    static struct parking parking;
    struct random random = random_open(__func__);
    for (int i = 0; i < 20000; i++) {
        struct parked more = question(random_in(&random, 1, 40), random_in(&random, 1, 100), (int64_t)random_in(&random, 0, 50));
        parking_add(&parking, &more);
        assert_true(parking.count <= PARKED_MAX && parked_of(&parking, more.peer) <= READS_MAX);
        if (random_in(&random, 0, 9) == 0) parking_drop(&parking, random_in(&random, 0, parking.count - 1));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_who_was_asked_may_answer_and_once),
        cmocka_unit_test(the_oldest_question_makes_room),
        cmocka_unit_test(a_greedy_asker_takes_nobody_elses_place),
        cmocka_unit_test(of_a_greedy_asker_the_oldest_question_goes),
        cmocka_unit_test(random_questions_never_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
