/* Numbered messages: each that is lost is missed by the next one, whatever came before. */
#include "proto/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "proto/millrace.pb-c.h"
#include "tests/unit/random.h"

static void messages_in_their_order_are_taken(void **state) {
    (void)state;
    struct session here = {0}, there = {0};
    for (int i = 0; i < 100; i++) {
        bool counts = i % 3 != 0; /* heartbeats between them */
        assert_int_equal(session_take(&there, counts, session_number(&here, counts)), SESSION_NEXT);
        session_sent(&here, counts);
    }
    assert_int_equal(there.taken, here.sent);
}

static void a_repeated_message_is_not_taken_again(void **state) {
    (void)state;
    struct session there = {0};
    assert_int_equal(session_take(&there, true, 1), SESSION_NEXT);
    assert_int_equal(session_take(&there, true, 2), SESSION_NEXT);
    assert_int_equal(session_take(&there, true, 2), SESSION_AGAIN);
    assert_int_equal(session_take(&there, true, 1), SESSION_AGAIN);
    assert_int_equal(session_take(&there, false, 1), SESSION_NEXT); /* an old heartbeat is one */
    assert_int_equal(session_take(&there, true, 3), SESSION_NEXT);
}

static void who_does_not_number_is_heard(void **state) {
    (void)state;
    struct session there = {.taken = 4};
    assert_int_equal(session_take(&there, true, 0), SESSION_NEXT);
    assert_int_equal(session_take(&there, false, 0), SESSION_NEXT);
    assert_int_equal(there.taken, 4);
}

static void a_lost_message_is_missed_at_the_next_one_of_any_kind(void **state) {
    (void)state;
    for (int counts = 0; counts < 2; counts++) {
        struct session here = {.sent = 8}, there = {.taken = 8};
        session_sent(&here, true); /* this one is lost */
        assert_int_equal(session_take(&there, counts, session_number(&here, counts)), SESSION_GAP);
        assert_int_equal(there.taken, 8);
    }
}

static void a_lost_heartbeat_is_not_missed(void **state) {
    (void)state;
    struct session here = {0}, there = {0};
    session_sent(&here, false);
    assert_int_equal(session_take(&there, false, session_number(&here, false)), SESSION_NEXT);
    assert_int_equal(session_take(&there, true, session_number(&here, true)), SESSION_NEXT);
}

/* Random messages, some of them lost or repeated: what is taken is what was sent up to the first loss, which is noticed at once. */
static void what_is_taken_has_no_holes(void **state) {
    (void)state;
    struct random random = random_open("session");
    for (int round = 0; round < 2000; round++) {
        struct session here = {0}, there = {0};
        uint64_t taken = 0;
        bool lost = false;
        for (int i = 0; i < 50; i++) {
            bool counts = random_in(&random, 0, 2) > 0;
            uint64_t number = session_number(&here, counts);
            session_sent(&here, counts);
            if (random_in(&random, 0, 19) == 0) {
                lost |= counts;
                continue;
            }
            for (uint64_t copies = 1 + (random_in(&random, 0, 9) == 0); copies > 0; copies--) {
                enum session_news news = session_take(&there, counts, number);
                assert_int_equal(news == SESSION_GAP, lost);
                if (news != SESSION_NEXT || !counts) continue;
                assert_int_equal(number, ++taken);
            }
            if (lost) break;
        }
    }
}

static void every_kind_is_numbered_or_asks_for_itself_again(void **state) {
    (void)state;
    static const uint32_t again[] = {MILLRACE__KIND__NOTHING, MILLRACE__KIND__HELLO, MILLRACE__KIND__WHO,  MILLRACE__KIND__REFUSED,
                                     MILLRACE__KIND__HEARTBEAT, MILLRACE__KIND__GOODBYE, MILLRACE__KIND__READ, MILLRACE__KIND__DATA,
                                     MILLRACE__KIND__ASK,  MILLRACE__KIND__TOLD};
    const ProtobufCEnumDescriptor *kinds = &millrace__kind__descriptor;
    for (unsigned i = 0; i < kinds->n_values; i++) {
        bool numbered = true;
        for (size_t k = 0; k < sizeof again / sizeof *again; k++) numbered &= again[k] != (uint32_t)kinds->values[i].value;
        if (session_counts((uint32_t)kinds->values[i].value) != numbered) fail_msg("%s", kinds->values[i].name);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_in_their_order_are_taken),
        cmocka_unit_test(a_repeated_message_is_not_taken_again),
        cmocka_unit_test(who_does_not_number_is_heard),
        cmocka_unit_test(a_lost_message_is_missed_at_the_next_one_of_any_kind),
        cmocka_unit_test(a_lost_heartbeat_is_not_missed),
        cmocka_unit_test(what_is_taken_has_no_holes),
        cmocka_unit_test(every_kind_is_numbered_or_asks_for_itself_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
