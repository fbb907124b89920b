/* Endpoints in their parts, and what of this machine others are told. */
#include "proto/endpoint.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "tests/unit/random.h"

#define KEY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void addresses_and_key_come_apart(void **state) {
    (void)state;
    struct endpoint e;
    assert_int_equal(endpoint_parse(&e, "tcp://10.0.0.3:5555,tcp://node:1,tcp://[fd00::2]:2#" KEY, false, false), 0);
    assert_int_equal(e.addresses, 3);
    assert_string_equal(e.address[0], "tcp://10.0.0.3:5555");
    assert_string_equal(e.address[1], "tcp://node:1");
    assert_string_equal(e.address[2], "tcp://[fd00::2]:2");
    assert_true(e.has_key && e.key[0] == 0x01 && e.key[31] == 0xef);
    char again[ENDPOINT_TEXT_MAX];
    assert_int_equal(endpoint_write(again, "tcp://10.0.0.3:5555,tcp://node:1,tcp://[fd00::2]:2", e.key), 0);
    assert_string_equal(again, "tcp://10.0.0.3:5555,tcp://node:1,tcp://[fd00::2]:2#" KEY);
    assert_int_equal(endpoint_shown(again), strlen("tcp://10.0.0.3:5555"));
    assert_int_equal(endpoint_parse(&e, "ipc:///tmp/a,b#c", false, false), 0); /* a path may hold anything */
    assert_true(e.addresses == 1 && !e.has_key);
    assert_int_equal(endpoint_shown("ipc:///tmp/a,b#c"), strlen("ipc:///tmp/a,b#c"));
    static const char *const bad[] = {"tcp://10.0.0.3:5555", "tcp://127.0.0.1:1,tcp://10.0.0.3:1", "tcp://10.0.0.3:1#",
                                      "tcp://10.0.0.3:1#12",
                                      "tcp://10.0.0.3:1#" KEY "0", "tcp://10.0.0.3:1#" KEY " ", "#" KEY, ",", "tcp://127.0.0.1:1,",
                                      "tcp://h:1,tcp://h:2,tcp://h:3,tcp://h:4,tcp://h:5#" KEY, "tcp://*:1#" KEY, "tcp://h:*#" KEY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (endpoint_check(bad[i], false, false) != ERR_CONFIG) fail_msg("%s is taken", bad[i]);
    assert_int_equal(endpoint_check("tcp://127.0.0.1:1,tcp://127.0.0.2:1", true, false), ERR_CONFIG); /* one is bound */
    assert_true(endpoint_is_local("tcp://127.0.0.1:1,ipc:///x"));
    assert_false(endpoint_is_local("tcp://127.0.0.1:1,tcp://10.0.0.3:1"));
}

static void what_is_advertised_gets_the_bound_port(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"10.0.0.3", "tcp://10.0.0.3:777"},
        {"10.0.0.3:5", "tcp://10.0.0.3:5"},
        {"node,node:9", "tcp://node:777,tcp://node:9"},
        {"fd00::2", "tcp://[fd00::2]:777"},
        {"[fd00::2]", "tcp://[fd00::2]:777"},
        {"[fd00::2]:8,fd00:0:0:0:0:0:0:2", "tcp://[fd00::2]:8,tcp://[fd00:0:0:0:0:0:0:2]:777"},
    };
    char out[ENDPOINT_TEXT_MAX];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (endpoint_announce(out, cases[i][0], "tcp://0.0.0.0:777") < 0) fail_msg("%s: %s", cases[i][0], err_text());
        assert_string_equal(out, cases[i][1]);
    }
    static const char *const bad[] = {"", ",", "a,", ",a", "a b", "a:x", "a:0", "a:65536", "*", "a/b", "a#b", "a,b,c,d,e"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (endpoint_announce(out, bad[i], "tcp://0.0.0.0:777") != ERR_CONFIG) fail_msg("%s is taken: %s", bad[i], out);
    char longest[ENDPOINT_MAX + 10];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    assert_int_equal(endpoint_announce(out, longest, "tcp://0.0.0.0:777"), ERR_CONFIG);
}

static void the_way_to_this_machine_is_the_loopback(void **state) {
    (void)state;
    char out[ENDPOINT_MAX];
    static const char *const local[] = {"tcp://127.0.0.1:5555", "ipc:///tmp/x", "tcp://localhost:1"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(endpoint_toward(out, local[i]), 0);
        assert_string_equal(out, "tcp://127.0.0.1:*");
    }
    if (endpoint_toward(out, "tcp://198.51.100.1:9") == 0) { /* this machine has a way out */
        assert_int_equal(endpoint_check(out, true, true), 0);
        assert_false(endpoint_is_local(out));
    }
    assert_int_equal(endpoint_toward(out, "tcp://no-such-host.invalid:9"), ERR_NOTFOUND);
}

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out);

/* "own-name" is what /etc/hosts may make of a machine's own name: a loopback address, and then one that others know. */
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out) {
    if (strcmp(host, "own-name") != 0) return __real_getaddrinfo(host, port, hints, out);
    assert_int_equal(__real_getaddrinfo("127.0.1.1", port, hints, out), 0);
    struct addrinfo *last = *out;
    while (last->ai_next) last = last->ai_next;
    return __real_getaddrinfo("198.51.100.1", port, hints, &last->ai_next);
}

static void an_address_that_others_can_use_comes_before_a_loopback_s(void **state) {
    (void)state;
    char out[ENDPOINT_MAX], way[ENDPOINT_MAX];
    assert_int_equal(endpoint_toward(out, "tcp://127.1:9"), 0); /* a name, as far as its text tells */
    assert_false(endpoint_is_for_others(out));
    if (endpoint_toward(way, "tcp://198.51.100.1:9") < 0) {
        printf("this machine has no address but the loopback's\n");
        skip();
    }
    assert_true(endpoint_is_for_others(way));
    static const char *const mixed[] = {"tcp://127.0.0.1:5555,tcp://198.51.100.1:5555", "tcp://198.51.100.1:9,tcp://127.0.0.1:9",
                                        "tcp://127.1:5555,tcp://198.51.100.1:5555", "tcp://own-name:5555"};
    for (size_t i = 0; i < sizeof mixed / sizeof *mixed; i++) {
        assert_int_equal(endpoint_toward(out, mixed[i]), 0);
        assert_string_equal(out, way);
    }
    assert_int_equal(endpoint_toward(out, "tcp://127.0.0.1:9,tcp://no-such-host.invalid:9"), 0); /* the one that is left */
    assert_string_equal(out, "tcp://127.0.0.1:*");
}

static void what_others_cannot_be_told_is_known(void **state) {
    (void)state;
    static const char *const good[] = {"tcp://10.0.0.3:5555", "tcp://[fd00::2]:*", "tcp://eth0:5555", "tcp://[::ffff:10.0.0.3]:1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!endpoint_is_for_others(good[i])) fail_msg("%s is refused", good[i]);
    static const char *const bad[] = {"tcp://127.0.1.1:5555", "tcp://localhost:1", "ipc:///tmp/x", "tcp://[::1]:1", "tcp://[0:0::1]:*",
                                      "tcp://*:*", "tcp://0.0.0.0:5555", "tcp://[::]:*", "tcp://[::ffff:127.0.0.1]:1",
                                      "tcp://[::ffff:0.0.0.0]:1", "tcp://[fe80::1%eth0]:*", "tcp://[fe80::1]:5"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (endpoint_is_for_others(bad[i])) fail_msg("%s is taken", bad[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_and_key_come_apart),
        cmocka_unit_test(what_is_advertised_gets_the_bound_port),
        cmocka_unit_test(the_way_to_this_machine_is_the_loopback),
        cmocka_unit_test(an_address_that_others_can_use_comes_before_a_loopback_s),
        cmocka_unit_test(what_others_cannot_be_told_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
