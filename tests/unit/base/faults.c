/* Faults of one thing: in the order of their places, and those that are not shown are counted. */
#include "base/faults.h"

#include <string.h>

#include "base/err.h"
#include "tests/unit/random.h"

static void those_of_one_place_stay_as_they_came(void **state) {
    (void)state;
    static const struct {
        int64_t place;
        const char *text;
    } found[] = {{5, "third"}, {2, "first"}, {5, "fourth"}, {2, "second"}, {9, "sixth"}, {5, "fifth"}};
    struct faults faults = {0};
    assert_int_equal(faults_tell(&faults), 0);
    for (size_t i = 0; i < sizeof found / sizeof *found; i++)
        assert_int_equal(faults_note(&faults, err_set(ERR_CONFIG, "%s", found[i].text), found[i].place), 0);
    assert_int_equal(faults_note(&faults, err_set(ERR_IO, "no fault of what is looked at"), 1), ERR_IO);
    assert_int_equal(faults_tell(&faults), ERR_CONFIG);
    assert_string_equal(err_text(), "first\nsecond\nthird\nfourth\nfifth\nsixth");
    faults_free(&faults);
}

/* Long ones are fewer than are kept: those that are kept and not shown count, too. */
static void all_that_are_not_shown_are_counted(void **state) {
    (void)state;
    char text[FAULTS_BYTES_MAX / 3];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    struct faults faults = {0};
    for (int i = 0; i < FAULTS_SHOWN_MAX + 2; i++)
        assert_int_equal(faults_note(&faults, err_set(ERR_CONFIG, "%s", text), FAULTS_SHOWN_MAX - i), 0);
    assert_int_equal(faults_tell(&faults), ERR_CONFIG);
    size_t shown = 0;
    for (const char *at = err_text(); *at == 'x'; at += sizeof text) shown++;
    assert_int_equal(shown, 3);
    assert_non_null(strstr(err_text(), "\nand 9 faults more"));
    faults_free(&faults);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(those_of_one_place_stay_as_they_came),
        cmocka_unit_test(all_that_are_not_shown_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
