/* The links of tests/unit/world.h: what is above must not be able to tell them from ZeroMQ's, and what a test asks to go wrong does. */
#include "tests/unit/world.h"

#include "tests/unit/proto/link_contract.h"

static int begin(void **state) {
    (void)state;
    world_begin(random_open("world"));
    return 0;
}

static void taken_endpoints_are_in_use(void **state) {
    (void)state;
    struct link *first = open_bound("tcp://127.0.0.1:*"), *second = NULL;
    assert_int_equal(link_open(&second, &(struct link_options){.bind = link_endpoint(first)}), ERR_IO);
    assert_non_null(strstr(err_text(), "in use"));
    assert_null(second);
    link_close(first);
}

static void messages_are_lost_repeated_and_overtaken(void **state) {
    (void)state;
    enum { MESSAGES = 1000 };
    struct link *server = open_bound("tcp://127.0.0.1:*"), *client = open_unbound();
    uint64_t to = connect_to(client, link_endpoint(server)), from, last = 0;
    size_t times[MESSAGES] = {0}, lost = 0, repeated = 0, overtaken = 0;
    world.lose_permille = world.repeat_permille = 200;
    world.delay_max_ms = 2000;
    for (uint64_t i = 0; i < MESSAGES; i++) assert_int_equal(send_data(client, to, i, 4), 0);
    int64_t start_ms = clock_ms();
    struct message message;
    while (link_receive(server, &from, &message, 3000) == 1) {
        uint64_t i = message.envelope.sequence;
        overtaken += i < last;
        last = i;
        times[i]++;
        message_free(&message);
    }
    for (size_t i = 0; i < MESSAGES; i++) lost += times[i] == 0, repeated += times[i] > 1;
    assert_true(lost > MESSAGES / 10 && lost < MESSAGES / 3);
    assert_true(repeated > MESSAGES / 20 && repeated < MESSAGES / 3);
    assert_true(overtaken > MESSAGES / 10);
    assert_true(clock_ms() - start_ms >= 3000 && clock_ms() - start_ms <= 5000); /* its own time: the wait at the end is in it */
    link_close(client);
    link_close(server);
}

static void waking_ends_a_wait_before_its_time(void **state) {
    (void)state;
    struct link *link = open_unbound();
    int64_t start_ms = clock_ms();
    link_wake(link);
    assert_true(nothing_comes(link, 1000));
    assert_int_equal(clock_ms(), start_ms);
    assert_true(nothing_comes(link, 1000));
    assert_int_equal(clock_ms(), start_ms + 1000);
    link_close(link);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(questions_are_answered, begin),
        cmocka_unit_test_setup(peers_that_left_are_not_found, begin),
        cmocka_unit_test_setup(taken_endpoints_are_in_use, begin),
        cmocka_unit_test_setup(messages_are_lost_repeated_and_overtaken, begin),
        cmocka_unit_test_setup(waking_ends_a_wait_before_its_time, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
