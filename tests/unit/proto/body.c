/* Stored messages: what was packed is unpacked, bytes that are none are refused, and want of memory is neither. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "proto/body.h"
#include "proto/frame.h"

static size_t allocations; /* the one that fails, counted from now; 0: none */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size) {
    if (allocations && --allocations == 0) return NULL;
    return __real_malloc(size);
}

static struct buf packed(void) {
    Millrace__Failed failed = MILLRACE__FAILED__INIT;
    struct buf bytes = {0};
    failed.reason = "nobody knows why";
    assert_int_equal(body_pack(&bytes, &failed.base), 0);
    return bytes;
}

static void what_was_packed_is_unpacked(void **state) {
    (void)state;
    struct buf bytes = packed();
    Millrace__Failed *failed, *copy;
    assert_int_equal(body_unpack(&failed, &millrace__failed__descriptor, bytes.data, bytes.size), 0);
    assert_string_equal(failed->reason, "nobody knows why");
    assert_int_equal(body_copy(&copy, &failed->base), 0);
    millrace__failed__free_unpacked(failed, NULL);
    assert_string_equal(copy->reason, "nobody knows why");
    millrace__failed__free_unpacked(copy, NULL);
    buf_free(&bytes);
}

static void bytes_that_are_no_message_are_refused(void **state) {
    (void)state;
    struct buf bytes = packed();
    Millrace__Failed *failed = NULL;
    assert_int_equal(body_unpack(&failed, &millrace__failed__descriptor, bytes.data, bytes.size - 1), ERR_CORRUPT);
    assert_null(failed);
    buf_free(&bytes);
}

/* Each allocation fails once. */
static void no_memory_for_a_message_says_nothing_of_its_bytes(void **state) {
    (void)state;
    struct buf bytes = packed();
    size_t wants = 0;
    for (size_t at = 1;; at++) {
        Millrace__Failed *failed = NULL;
        allocations = at;
        int code = body_unpack(&failed, &millrace__failed__descriptor, bytes.data, bytes.size);
        size_t left = allocations;
        allocations = 0;
        if (left) {
            assert_int_equal(code, 0);
            millrace__failed__free_unpacked(failed, NULL);
            break;
        }
        assert_int_equal(code, ERR_MEMORY);
        assert_non_null(strstr(err_text(), MEM_EXHAUSTED));
        assert_null(failed);
        wants++;
    }
    assert_true(wants >= 2);
    buf_free(&bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_packed_is_unpacked),
        cmocka_unit_test(bytes_that_are_no_message_are_refused),
        cmocka_unit_test(no_memory_for_a_message_says_nothing_of_its_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
