/* Text of others: every byte of it harmless, and the same when made harmless twice. */
#include "base/plain.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/random.h"

static void assert_plain(const char *text, const char *wanted) {
    char got[256];
    plain_text(got, sizeof got, text, false);
    assert_string_equal(got, wanted);
    assert_true(plain_is(got));
    assert_int_equal(plain_is(text), strcmp(text, wanted) == 0);
}

static void what_a_screen_would_obey_is_escaped(void **state) {
    (void)state;
    assert_plain("", "");
    assert_plain("plain, naïve 東京 👩‍👩", "plain, naïve 東京 👩‍👩");
    assert_plain("\x1b[31mred\x07", "\\x1B[31mred\\x07");
    assert_plain("two\nlines\r\t", "two\\nlines\\x0D\\x09");
    assert_plain("\xc2\x9b" "31m \x7f", "\\x9B" "31m \\x7F"); /* the CSI of eight bits */
    assert_plain("\xe2\x80\xae" "evil\xe2\x80\xa8", "\\u202Eevil\\u2028");
    assert_plain("\xff\xc3", "\\xFF\\xC3");
    assert_plain("\xed\xa0\x80", "\\xED\\xA0\\x80"); /* a surrogate */
    char lines[64];
    plain_text(lines, sizeof lines, "a\nb\tc\r\n", true);
    assert_string_equal(lines, "a\nb\tc\\x0D\n");
    char one[PLAIN_ONE_BYTES];
    size_t taken;
    assert_int_equal(plain_one(one, "\0é", 3, true, &taken), 4);
    assert_memory_equal(one, "\\x00", 4);
    assert_int_equal(taken, 1);
    assert_int_equal(plain_one(one, "é", 2, true, &taken), 2);
    assert_int_equal(taken, 2);
}

static void what_does_not_fit_ends_between_characters(void **state) {
    (void)state;
    static const char text[] = "a\x1b" "ä👩z";
    char whole[64];
    plain_text(whole, sizeof whole, text, false);
    for (size_t room = 1; room <= sizeof whole; room++) {
        char got[64];
        memset(got, 'X', sizeof got);
        plain_text(got, room, text, false);
        assert_true(strlen(got) < room && plain_is(got));
        assert_memory_equal(got, whole, strlen(got));
    }
}

static void random_bytes_become_plain(void **state) {
    (void)state;
    struct random random = random_open("random_bytes_become_plain");
    for (int round = 0; round < 20000; round++) {
        char text[64], got[512];
        size_t size = random_in(&random, 0, sizeof text - 1);
        for (size_t i = 0; i < size; i++) text[i] = (char)random_in(&random, 1, round % 2 ? 255 : 40);
        text[size] = 0;
        plain_text(got, sizeof got, text, false);
        if (!plain_is(got) || (plain_is(text) && strcmp(text, got) != 0)) fail_msg("seed %llu", (unsigned long long)random.seed);
    }
}

static void a_share_has_two_digits_no_exponent_and_is_whole_only_of_all(void **state) {
    static const struct {
        double part, all;
        const char *wanted;
    } cases[] = {{0, 0, "0 %"},       {0, 7, "0 %"},         {7, 7, "100 %"},       {1, 1, "100 %"},     {86, 100, "86 %"},
                 {1, 8, "12 %"},      {1, 360, "0.28 %"},    {995, 1000, "99.5 %"}, {1e6 - 1, 1e6, "99.9 %"}, {9949, 10000, "99 %"},
                 {3, 2, "150 %"},     {1, 1e6, "0.0001 %"},  {1, 1e9, "less than 0.0001 %"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(percent_text(cases[i].part, cases[i].all), cases[i].wanted);
}

static void a_perplexity_is_readable_however_large(void **state) {
    (void)state;
    assert_string_equal(text_perplexity(0, 2), "1.00");
    assert_string_equal(text_perplexity(2.5, 4), "12.1825");
    assert_string_equal(text_perplexity(20.7, 2), "977002725.83");
    assert_string_equal(text_perplexity(20.8, 2), "1.08e+09");
    assert_string_equal(text_perplexity(290.5, 2), "1.454e+126");
    assert_string_equal(text_perplexity(1292, 2), "inf");
    assert_string_equal(text_perplexity((double)INFINITY, 2), "inf");
    assert_string_equal(text_perplexity((double)NAN, 2), "nan");
    assert_string_equal(text_perplexity(-(double)NAN, 2), "nan");
}

/* A limit that is told must not look like another one. */
static void a_real_is_told_with_the_digits_it_needs(void **state) {
    static const struct {
        double value;
        const char *wanted;
    } cases[] = {{0, "0"}, {20, "20"}, {0.1, "0.1"}, {0.9999999, "0.9999999"}, {0.30000000000000004, "0.30000000000000004"}, {-2.5, "-2.5"},
                 {6e-4, "0.0006"}, {1e-8, "1e-08"}, {1e15, "1e+15"}, {(double)INFINITY, "inf"}, {(double)NAN, "nan"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) assert_string_equal(text_real(cases[i].value), cases[i].wanted);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_screen_would_obey_is_escaped),
        cmocka_unit_test(what_does_not_fit_ends_between_characters),
        cmocka_unit_test(random_bytes_become_plain),
        cmocka_unit_test(a_share_has_two_digits_no_exponent_and_is_whole_only_of_all),
        cmocka_unit_test(a_perplexity_is_readable_however_large),
        cmocka_unit_test(a_real_is_told_with_the_digits_it_needs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
