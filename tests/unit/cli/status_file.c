/* What a status that was written while a run lived becomes when it is read later. The memory of JSON values is made unreadable when it is
 * freed, and never used again: a text that is kept longer than its value shows every time, not once in a while. */
#include "cli/status_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

static char folder[40];

/* What lies in front of each value of a JSON. */
struct block {
    struct block *next;
    size_t bytes;
    max_align_t value[];
};
static struct block *blocks;

static void *take(size_t bytes) {
    struct block *block = malloc(sizeof *block + bytes);
    *block = (struct block){.next = blocks, .bytes = bytes};
    blocks = block;
    return block->value;
}

/* By what is a text as well: no JSON is made of bytes that are none. Given back at the end alone. */
static void spoil(void *value) {
    if (value) memset(value, '?', ((struct block *)((char *)value - sizeof(struct block)))->bytes);
}

static int begin(void **state) {
    (void)state;
    strcpy(folder, "/tmp/millrace-status-file-XXXXXX");
    json_set_alloc_funcs(take, spoil);
    return mkdtemp(folder) ? 0 : -1;
}

static int end(void **state) {
    (void)state;
    for (struct block *next; blocks; blocks = next) {
        next = blocks->next;
        free(blocks);
    }
    return folder_remove(folder);
}

/* The status that such a coordinator wrote, read when it is gone. */
static json_t *read_later(const char *state, const char *doing) {
    char *path = mem_format("%s/state", folder);
    assert_int_equal(folder_make(path), 0);
    free(path);
    json_t *written = json_pack("{s:s, s:s, s:b, s:[{s:s, s:s}], s:{s:s, s:i, s:{}}, s:[{s:s}]}", "output_dir", folder, "state", state,
                                "needs_workers", 1, "stages", "name", "train", "state", "running", "training", "doing", doing,
                                "tokens_per_second", 5, "evaluation", "workers", "state", "busy");
    path = mem_format("%s/state/status.json", folder);
    assert_int_equal(json_dump_file(written, path, 0), 0);
    free(path);
    json_decref(written);
    json_t *status;
    assert_int_equal(status_read(&status, folder), 0);
    return status;
}

static const char *text(const json_t *object, const char *key) { return json_string_value(json_object_get(object, key)); }

static void check(const char *state, const char *doing, const char *state_later, const char *doing_later) {
    json_t *status = read_later(state, doing), *training = json_object_get(status, "training");
    assert_string_equal(text(status, "state"), state_later);
    assert_string_equal(text(training, "doing"), doing_later);
    assert_null(json_object_get(training, "tokens_per_second"));
    assert_null(json_object_get(training, "evaluation"));
    assert_string_equal(text(json_array_get(json_object_get(status, "stages"), 0), "state"), "stopped");
    assert_string_equal(text(json_array_get(json_object_get(status, "workers"), 0), "state"), "left");
    json_decref(status);
}

static void each_end_of_a_run_is_told_as_it_was(void **state) {
    (void)state;
    check("done", "finished", "done", "finished");
    check("failed", "failed", "failed", "failed");
    check("stopped", "running", "stopped", "stopped");
    check("running", "running", "stopped", "stopped");
    check("stopping", "waiting for workers", "stopped", "stopped");
}

/* Who kills what it started may find that it had ended in order in the meantime. */
static void a_run_that_ended_in_order_is_not_called_killed(void **state) {
    (void)state;
    static const char *const told[][2] = {{"done", "done"}, {"failed", "failed"}, {"running", "stopped"}};
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        json_decref(read_later(told[i][0], "running"));
        status_stopped(folder, "it had to be killed");
        json_t *status;
        assert_int_equal(status_read(&status, folder), 0);
        assert_string_equal(text(status, "state"), told[i][1]);
        assert_int_equal(json_object_get(status, "reason") != NULL, i == 2);
        json_decref(status);
    }
}

static bool of_btrfs; /* files tell another device than the one that their file system is mounted from */

int __real_stat(const char *path, struct stat *out);
int __wrap_stat(const char *path, struct stat *out);
int __wrap_stat(const char *path, struct stat *out) {
    int code = __real_stat(path, out);
    if (of_btrfs && code == 0) out->st_dev += 1000;
    return code;
}

/* Within a chroot its root's mount is not. */
static bool mount_is_listed(void) {
    struct statx facts;
    unsigned mount;
    char line[4096];
    bool listed = false;
    FILE *mounts = fopen("/proc/self/mountinfo", "r");
    assert_int_equal(statx(AT_FDCWD, folder, 0, STATX_MNT_ID, &facts), 0);
    while (!listed && mounts && fgets(line, sizeof line, mounts)) listed = sscanf(line, "%u", &mount) == 1 && mount == facts.stx_mnt_id;
    if (mounts) fclose(mounts);
    return listed;
}

static void a_run_that_lives_is_seen_on_any_file_system(void **state) {
    (void)state;
    char *logs = mem_format("%s/logs", folder);
    assert_int_equal(folder_make(logs), 0);
    free(logs);
    bool listed = mount_is_listed();
    if (!listed) print_message("not tried with another device: this folder's mount is not in /proc/self/mountinfo (a chroot)\n");
    for (int i = 0; i < 1 + listed; i++) {
        of_btrfs = i;
        assert_false(status_is_held(folder));
        int held = status_hold(folder);
        assert_true(held >= 0 && status_is_held(folder));
        close(held);
        assert_false(status_is_held(folder));
    }
    of_btrfs = false;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_end_of_a_run_is_told_as_it_was, begin, end),
        cmocka_unit_test_setup_teardown(a_run_that_ended_in_order_is_not_called_killed, begin, end),
        cmocka_unit_test_setup_teardown(a_run_that_lives_is_seen_on_any_file_system, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
