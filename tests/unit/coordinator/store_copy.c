/* The copy that is looked at has what the store had at one moment, whatever a coordinator writes meanwhile, and leaves nothing behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "coordinator/store.h"

static char folder[64], temporary[80], state_folder[80];
static struct store *writer; /* changes the store as soon as a file of it was copied; NULL: nobody does */
static unsigned changes;
static bool keep_folders;

int __real_file_copy_bytes(int to, int from);
int __wrap_file_copy_bytes(int to, int from);
int __wrap_file_copy_bytes(int to, int from) {
    int code = __real_file_copy_bytes(to, from);
    if (!writer || changes == 3) return code;
    assert_int_equal(store_set_number(writer, "changes", ++changes), 0);
    store_settle(writer);
    return code;
}

int __real_folder_remove(const char *path);
int __wrap_folder_remove(const char *path);
int __wrap_folder_remove(const char *path) {
    return keep_folders ? err_set(ERR_DENIED, "remove %s: not now", path) : __real_folder_remove(path);
}

static int fresh_folders(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/millrace-copy-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(temporary, sizeof temporary, "%s/tmp", folder);
    snprintf(state_folder, sizeof state_folder, "%s/state", folder);
    changes = 0, keep_folders = false, writer = NULL;
    return folder_make(temporary) < 0 || setenv("TMPDIR", temporary, 1) != 0 ? -1 : 0;
}

static int remove_them(void **state) {
    (void)state;
    return __real_folder_remove(folder);
}

static size_t left_in_temporary(void) {
    size_t n = 0;
    DIR *dir = opendir(temporary);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static uint64_t number_in_copy(const char *name) {
    struct store *copy;
    uint64_t number = 0;
    if (store_open_copy(&copy, state_folder) != 0) fail_msg("%s", err_text());
    assert_int_equal(left_in_temporary(), 0);
    assert_true(store_get_number(copy, name, &number) >= 0);
    assert_int_equal(store_set_number(copy, name, 99), 0); /* in the copy alone */
    store_close(copy);
    return number;
}

static void what_the_log_alone_has_is_in_the_copy(void **state) {
    (void)state;
    struct store *store;
    assert_int_equal(store_open(&store, state_folder), 0);
    assert_int_equal(store_set_number(store, "answer", 41), 0);
    store_settle(store);
    assert_int_equal(store_set_number(store, "answer", 42), 0);
    for (int i = 0; i < 2; i++) assert_int_equal(number_in_copy("answer"), 42);
    store_close(store);
}

static void what_changes_while_it_is_copied_is_copied_again(void **state) {
    (void)state;
    struct store *store;
    assert_int_equal(store_open(&store, state_folder), 0);
    writer = store;
    assert_int_equal(number_in_copy("changes"), 3);
    assert_int_equal(changes, 3);
    store_close(store);
}

static void where_there_is_no_store_the_copy_is_empty_and_none_is_made(void **state) {
    (void)state;
    assert_int_equal(number_in_copy("answer"), 0);
    assert_false(file_exists(state_folder));
}

static void a_copy_that_would_be_left_behind_is_not_given(void **state) {
    (void)state;
    struct store *copy = NULL;
    keep_folders = true;
    assert_int_equal(store_open_copy(&copy, state_folder), ERR_DENIED);
    assert_null(copy);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_the_log_alone_has_is_in_the_copy, fresh_folders, remove_them),
        cmocka_unit_test_setup_teardown(what_changes_while_it_is_copied_is_copied_again, fresh_folders, remove_them),
        cmocka_unit_test_setup_teardown(where_there_is_no_store_the_copy_is_empty_and_none_is_made, fresh_folders, remove_them),
        cmocka_unit_test_setup_teardown(a_copy_that_would_be_left_behind_is_not_given, fresh_folders, remove_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
