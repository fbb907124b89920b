/* What became of source files, in words. */
#include "coordinator/listing.h"

#include <string.h>

#include "tests/unit/random.h"

static void expect(const char *old, const char *fresh, const char *wanted) {
    struct buf before = {0}, now = {0};
    assert_int_equal(buf_append(&before, old, strlen(old)), 0);
    assert_int_equal(buf_append(&now, fresh, strlen(fresh)), 0);
    char *said = listing_difference(&before, &now);
    if (wanted) assert_string_equal(said ? said : "nothing", wanted);
    else assert_null(said);
    free(said);
    buf_free(&before);
    buf_free(&now);
}

static void the_same_files_are_no_difference(void **state) {
    (void)state;
    expect("", "", NULL);
    expect("a\t1\t2\nb\t3\t4\n", "a\t1\t2\nb\t3\t4\n", NULL);
}

static void each_file_is_named_with_what_became_of_it(void **state) {
    (void)state;
    expect("a\t1\t2\n", "a\t1\t3\n", "a changed");
    expect("b\t1\t2\n", "a\t1\t2\nb\t1\t2\n", "a came");
    expect("a\t1\t2\nb\t1\t2\n", "b\t1\t2\n", "a went");
    expect("a\t1\t2\nb\t1\t2\n", "", "a and b went");
    expect("a\t1\t2\nb\t1\t2\nd\t1\t1\n", "a\t1\t9\nb\t1\t9\nc\t1\t1\n", "a and b changed, c came, d went");
    expect("a b\t1\t2\n", "a\t1\t2\n", "a came, a b went");
}

static void only_a_few_are_named_and_the_rest_is_counted(void **state) {
    (void)state;
    expect("", "a\t1\t1\nb\t1\t1\nc\t1\t1\n", "a, b and c came");
    expect("", "a\t1\t1\nb\t1\t1\nc\t1\t1\nd\t1\t1\n", "a, b and 2 others came");
    expect("", "e\t1\t1\na\t1\t1\nb\t1\t1\nc\t1\t1\nd\t1\t1\n", "a, b and 3 others came");
}

static void another_order_of_the_same_files_is_said(void **state) {
    (void)state;
    expect("b\t1\t1\na\t1\t1\n", "a\t1\t1\nb\t1\t1\n", "the order of the source files changed");
}

static void a_long_name_loses_its_middle_and_no_half_of_a_character(void **state) {
    (void)state;
    char fresh[1200] = "", wanted[400] = "";
    for (int i = 0; i < 500; i++) strcat(fresh, "\xC3\xBC"); /* 80 bytes at each end are 40 of them, after an odd one */
    memmove(fresh + 1, fresh, strlen(fresh) + 1);
    fresh[0] = 'x';
    strcat(wanted, "x");
    for (int i = 0; i < 39; i++) strcat(wanted, "\xC3\xBC");
    strcat(wanted, "...");
    for (int i = 0; i < 40; i++) strcat(wanted, "\xC3\xBC");
    strcat(wanted, " came");
    strcat(fresh, "\t1\t1\n");
    expect("", fresh, wanted);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_files_are_no_difference),
        cmocka_unit_test(each_file_is_named_with_what_became_of_it),
        cmocka_unit_test(only_a_few_are_named_and_the_rest_is_counted),
        cmocka_unit_test(another_order_of_the_same_files_is_said),
        cmocka_unit_test(a_long_name_loses_its_middle_and_no_half_of_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
