/* What is published is on the disk first: the order of fsync and rename, seen by standing in for both, and what a failed fsync does. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/random.h"

static char folder[64], steps[2000]; /* what happened, in order: "sync NAME; rename NAME to NAME; " with paths below the folder */
static const char *fail_at;          /* fsync of this name fails */
static int fail_errno;

static const char *below(const char *path) {
    size_t above = strlen(folder);
    return strncmp(path, folder, above) ? path : path[above] ? path + above + 1 : ".";
}

static void note(const char *what, const char *a, const char *b) {
    size_t used = strlen(steps);
    snprintf(steps + used, sizeof steps - used, "%s %s%s%s; ", what, a, b ? " to " : "", b ? b : "");
}

/* A draft's name without its process and number. */
static const char *plain(char out[300], const char *path) {
    snprintf(out, 300, "%s", below(path));
    char *numbers = strstr(out, ".draft-");
    if (numbers) snprintf(numbers, 10, ".draft");
    return out;
}

int fsync(int fd) {
    char link[64], path[300] = "", name[300];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) < 0) path[0] = 0;
    note("sync", plain(name, path), NULL);
    if (!fail_at || strcmp(name, fail_at) != 0) return (int)syscall(SYS_fsync, fd);
    errno = fail_errno;
    return -1;
}

int rename(const char *from, const char *to) {
    char a[300], b[300];
    note("rename", plain(a, from), plain(b, to));
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static const char *stuck; /* a name that cannot be removed */

int remove(const char *path) {
    if (stuck && strcmp(below(path), stuck) == 0) {
        errno = EACCES;
        return -1;
    }
    int code = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    return code < 0 && errno == EISDIR ? (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR) : code;
}

static const char *at(const char *name) {
    static char paths[4][200];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int fresh_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/millrace-durable-XXXXXX");
    steps[0] = 0;
    fail_at = stuck = NULL;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_it(void **state) {
    (void)state;
    return folder_remove(folder);
}

static void a_file_is_synced_before_its_name_and_the_folder_after_it(void **state) {
    (void)state;
    assert_int_equal(file_publish(at("a"), "whole", 5), 0);
    assert_string_equal(steps, "sync a.draft; rename a.draft to a; sync .; ");
}

static void a_folder_is_synced_with_all_its_files_before_its_name(void **state) {
    (void)state;
    assert_int_equal(mkdir(at("half"), 0777), 0);
    assert_int_equal(file_publish(at("half/one"), "1", 1), 0);
    assert_int_equal(file_publish(at("half/two"), "2", 1), 0);
    steps[0] = 0;
    assert_int_equal(folder_publish(at("half"), at("whole")), 0);
    const char *renamed = strstr(steps, "rename half to whole; ");
    assert_non_null(renamed);
    const char *before[] = {"sync half/one; ", "sync half/two; ", "sync half; "};
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        const char *synced = strstr(steps, before[i]);
        if (!synced || synced > renamed) fail_msg("%sbefore the rename: %s", before[i], steps);
    }
    assert_string_equal(renamed, "rename half to whole; sync .; ");
}

/* A file in a folder whose own name is lost is lost, too. */
static void a_folder_that_was_made_is_synced_in_its_parent(void **state) {
    (void)state;
    assert_int_equal(folder_make(at("x/y")), 0);
    assert_string_equal(steps, "sync .; sync x; ");
    steps[0] = 0;
    assert_int_equal(folder_make(at("x/y/z")), 0);
    assert_string_equal(steps, "sync x/y; "); /* what was there is left alone */
}

static int fails_with(const char *name, int number, int (*body)(void)) {
    int status = -1;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        fail_at = name;
        fail_errno = number;
        if (!freopen("/dev/null", "w", stderr)) _exit(99);
        _exit(body() == 0 ? 0 : 50);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int publish_a(void) { return file_publish(at("a"), "new", 3); }
static int publish_half(void) { return folder_publish(at("half"), at("whole")); }
static int make_x(void) { return folder_make(at("x")); }

static void a_failed_fsync_ends_the_process(void **state) {
    (void)state;
    static const int numbers[] = {EIO, ENOSPC, EDQUOT};
    assert_int_equal(file_publish(at("a"), "old", 3), 0);
    assert_int_equal(folder_make(at("half")), 0);
    assert_int_equal(file_publish(at("half/one"), "1", 1), 0);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        assert_int_equal(fails_with("a.draft", numbers[i], publish_a), 1);
        struct buf buf = {0};
        assert_int_equal(file_read(&buf, at("a"), 100), 0);
        assert_string_equal((char *)buf.data, "old"); /* it ended before anything had the name */
        buf_free(&buf);
        assert_int_equal(fails_with(".", numbers[i], publish_a), 1);
        assert_int_equal(file_publish(at("a"), "old", 3), 0);
        assert_int_equal(fails_with("half/one", numbers[i], publish_half), 1);
        assert_int_equal(fails_with("half", numbers[i], publish_half), 1);
        assert_false(file_exists(at("whole")));
        assert_int_equal(fails_with(".", numbers[i], make_x), 1);
        assert_int_equal(folder_remove(at("x")), 0);
    }
    assert_int_equal(fails_with("a.draft", EINVAL, publish_a), 0); /* a special file, or one that cannot be written: nothing to lose */
    assert_int_equal(fails_with(".", EROFS, publish_a), 0);
}

static void only_drafts_of_the_dead_are_swept(void **state) {
    (void)state;
    char half[60], folder_half[60], living[60], ours[60], longer[60];
    pid_t dead = fork();
    if (dead == 0) _exit(0);
    assert_int_equal(waitpid(dead, NULL, 0), dead);
    snprintf(half, sizeof half, "a.draft-%d-2", (int)dead);
    snprintf(folder_half, sizeof folder_half, "b [1].draft-%d-0", (int)dead);
    snprintf(living, sizeof living, "c.draft-%d-0", (int)getppid());
    snprintf(ours, sizeof ours, "d.draft-%d-7", (int)getpid()); /* of who had our number before */
    snprintf(longer, sizeof longer, "a.draft-%d-2.tok", (int)dead);
    static const char *const kept[] = {"a",         "a.draft",     "draft-1-2",       "a.draft-",
                                       "a.draft-1", "a.draft-x-1", "a.draft-1-2.tok", "b.draft-12-3x"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) assert_int_equal(file_publish(at(kept[i]), "kept", 4), 0);
    assert_int_equal(file_publish(at(half), "half", 4), 0);
    assert_int_equal(file_publish(at(living), "half", 4), 0);
    assert_int_equal(file_publish(at(ours), "half", 4), 0);
    assert_int_equal(file_publish(at(longer), "kept", 4), 0);
    assert_int_equal(folder_make(at(folder_half)), 0);
    assert_int_equal(mkdir(at("x"), 0777), 0);
    assert_int_equal(file_publish(at("x/y"), "half", 4), 0);
    assert_int_equal(rename(at("x"), at(folder_half)), 0);
    size_t swept = 9;
    assert_int_equal(drafts_sweep(&swept, folder), 0);
    assert_int_equal(swept, 3);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) assert_true(file_exists(at(kept[i])));
    assert_true(file_exists(at(living)) && file_exists(at(longer)));
    assert_false(file_exists(at(ours)));
    assert_false(file_exists(at(half)));
    assert_false(file_exists(at(folder_half)));
    assert_int_equal(drafts_sweep(&swept, at("none")), 0); /* no folder, no drafts */
    assert_int_equal(swept, 0);
}

static void a_draft_that_cannot_be_removed_keeps_no_other(void **state) {
    (void)state;
    enum { DRAFTS = 4 };
    char name[DRAFTS][32];
    for (int which = 0; which < DRAFTS; which++) {
        for (int i = 0; i < DRAFTS; i++) {
            snprintf(name[i], sizeof name[i], "%c.draft-%d-0", 'a' + i, (int)getpid());
            assert_int_equal(file_publish(at(name[i]), "half", 4), 0);
        }
        size_t swept;
        stuck = name[which];
        assert_int_equal(drafts_sweep(&swept, folder), ERR_DENIED);
        assert_non_null(strstr(err_text(), stuck));
        assert_int_equal(swept, DRAFTS - 1);
        for (int i = 0; i < DRAFTS; i++) assert_int_equal(file_exists(at(name[i])), i == which);
        stuck = NULL;
        assert_int_equal(drafts_sweep(&swept, folder), 0);
        assert_int_equal(swept, 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_is_synced_before_its_name_and_the_folder_after_it, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_folder_is_synced_with_all_its_files_before_its_name, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_folder_that_was_made_is_synced_in_its_parent, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_failed_fsync_ends_the_process, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(only_drafts_of_the_dead_are_swept, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_draft_that_cannot_be_removed_keeps_no_other, fresh_folder, remove_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
