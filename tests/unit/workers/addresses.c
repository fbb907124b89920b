/* Numbers of endpoints: one each, and never another's. */
#include "workers/addresses.h"

#include <stdio.h>
#include <string.h>

#include "tests/unit/random.h"

static void an_endpoint_keeps_its_number(void **state) {
    (void)state;
    struct addresses a = {0};
    assert_null(addresses_find(&a, 0));
    uint64_t one = addresses_number(&a, "tcp://127.0.0.1:1"), two = addresses_number(&a, "tcp://127.0.0.1:2");
    assert_true(one != 0 && two != 0 && one != two);
    assert_int_equal(addresses_number(&a, "tcp://127.0.0.1:1"), one);
    assert_string_equal(addresses_find(&a, two), "tcp://127.0.0.1:2");
    assert_null(addresses_find(&a, 0));
    addresses_close(&a);
}

static void a_forgotten_number_never_comes_back(void **state) {
    (void)state;
    struct addresses a = {0};
    struct random random = random_open("numbers");
    uint64_t number[40] = {0}, newest = 0;
    char text[32];
    for (int round = 0; round < 500; round++) {
        size_t i = random_in(&random, 0, 39);
        snprintf(text, sizeof text, "endpoint %zu", i);
        uint64_t got = addresses_number(&a, text);
        if (number[i]) assert_int_equal(got, number[i]);
        else assert_true(got > newest);
        if (got > newest) newest = got;
        number[i] = got;
        if (round % 7) continue;
        uint64_t kept[40];
        size_t count = 0;
        for (size_t k = 0; k < 40; k++)
            if (random_in(&random, 0, 1)) number[k] = 0;
            else if (number[k]) kept[count++] = number[k];
        addresses_keep(&a, kept, count);
        assert_int_equal(a.count, count);
        for (size_t k = 0; k < count; k++) assert_non_null(addresses_find(&a, kept[k]));
    }
    addresses_close(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_endpoint_keeps_its_number),
        cmocka_unit_test(a_forgotten_number_never_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
