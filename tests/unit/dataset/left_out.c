/* What cannot be used ends a build above a share of the documents, or of the bytes; what was asked for does not count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "dataset/ingest/left_out.h"

/* Of 1,000 documents and 1,000 bytes, with dataset.max_left_out 0.1. */
static int check(const char *reason, uint64_t documents, uint64_t bytes) {
    Millrace__Account account = MILLRACE__ACCOUNT__INIT;
    Millrace__Dropped dropped = MILLRACE__DROPPED__INIT, *pointer = &dropped;
    account.read_documents = account.read_bytes = 1000;
    dropped.reason = (char *)reason, dropped.documents = documents, dropped.bytes = bytes;
    return left_out_check(&account, &pointer, 1, 0.1);
}

static void a_share_of_documents_or_of_bytes_is_too_much(void **state) {
    (void)state;
    assert_int_equal(check("damaged", 100, 100), 0);
    assert_int_equal(check("damaged", 101, 0), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "101 of 1,000 documents (10 %) cannot be used, and dataset.max_left_out is 0.1: damaged 101"));
    assert_int_equal(check("damaged", 1, 101), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "101 of 1,000 bytes (10 %) cannot be used"));
}

static void what_was_asked_for_does_not_count(void **state) {
    (void)state;
    assert_int_equal(check("min_characters", 1000, 1000), 0);
    assert_int_equal(check("duplicate", 1000, 1000), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_share_of_documents_or_of_bytes_is_too_much),
        cmocka_unit_test(what_was_asked_for_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
