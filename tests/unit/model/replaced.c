/* A checkpoint takes the place of an older one of its name on a file system that cannot let two names change places (NFS, say): whatever a
 * crash or the disk does meanwhile, one of the two keeps the name, or gets it back at the next start. And what happens where an older one
 * cannot be removed, or a file cannot have two names. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "model/checkpoint/checkpoint.h"
#include "tests/unit/model/small_model.h"

enum { STEP = 10, KILLED = 9, CALLS_MAX = 400 };

/* ---- the disk ---- */

static int calls_left = -1;              /* changes of names and syncs until this process is gone; -1: it is not killed */
static int renames, fails_from, fails_to; /* renames with these numbers fail */

static void one_call(void) {
    if (calls_left >= 0 && calls_left-- == 0) _exit(KILLED);
}

int fsync(int fd) {
    one_call();
    return (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to) {
    one_call();
    if (++renames < fails_from || renames >= fails_to) return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    errno = EIO;
    return -1;
}

static bool exchanges; /* this file system does */

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    (void)from_folder, (void)to_folder, (void)flags;
    if (!exchanges) {
        errno = EINVAL;
        return -1;
    }
    char *between = mem_format("%s.between", from);
    int code = rename(from, between) + rename(to, from) + rename(between, to);
    free(between);
    return code;
}

static int link_fails; /* with this errno; 0: it does not */

int link(const char *from, const char *to) {
    if (!link_fails) return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    errno = link_fails;
    return -1;
}

static char stuck[200]; /* nothing whose path begins so can be removed; empty: all can */

int remove(const char *path) {
    one_call();
    if (*stuck && strncmp(path, stuck, strlen(stuck)) == 0) {
        errno = EACCES;
        return -1;
    }
    int code = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    return code < 0 && errno == EISDIR ? (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR) : code;
}

/* ---- a folder with one checkpoint ---- */

static char folder[64], path[100]; /* of checkpoint-STEP */

static size_t entries(void) {
    size_t count = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    while (readdir(dir)) count++;
    closedir(dir);
    return count - 2;
}

static int write_step(uint64_t step) {
    static const struct state_parts weights = {1, {STATE_WEIGHTS}, MOMENTS_FP32};
    struct gpt2_config config = small_config();
    size_t count = gpt2_parameters(&config);
    float *values = mem_alloc(count * sizeof *values);
    struct checkpoint_facts facts = {.step = step, .max_steps = 100, .train_loss = 1, .eval_loss = NAN};
    struct checkpoint_draft *draft = NULL;
    char *place = mem_format("%s/checkpoint-%llu", folder, (unsigned long long)step);
    int code = checkpoint_begin(&draft, place, &config, &weights, NULL, 0);
    if (code == 0) code = checkpoint_put(draft, STATE_WEIGHTS, values, 0, count);
    if (code == 0) code = checkpoint_seal(draft, &facts, NULL);
    if (code == 0) code = checkpoint_publish(draft);
    else checkpoint_discard(draft);
    free(values);
    free(place);
    return code;
}

static int write_checkpoint(void) { return write_step(STEP); }

static int add_evaluation(void) {
    struct buf text = {0};
    int code = buf_print(&text, "{}");
    if (code == 0) code = checkpoint_add_evaluation(path, 1.5, STEP, &text);
    buf_free(&text);
    return code;
}

static int (*const replace[])(void) = {add_evaluation, write_checkpoint};
enum { WAYS = sizeof replace / sizeof *replace };

static int enter(void **state) {
    (void)state;
    renames = fails_from = fails_to = *stuck = link_fails = 0;
    exchanges = false;
    snprintf(folder, sizeof folder, "/tmp/millrace-replaced-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/checkpoint-%d", folder, STEP);
    return write_checkpoint();
}

static int leave(void **state) {
    (void)state;
    return folder_remove(folder);
}

static void assert_there(const char *when, int number) {
    char *newest;
    uint64_t step = 0;
    struct buf passed = {0};
    if (checkpoint_newest(&newest, &step, &passed, folder) < 0) fail_msg("%s", err_text());
    if (passed.size) fail_msg("%s, %d: %.*s", when, number, (int)passed.size, (char *)passed.data);
    if (!newest || step != STEP) fail_msg("%s, %d: there is none", when, number);
    free(newest);
    buf_free(&passed);
}

/* ---- the tests ---- */

static void a_kill_at_any_time_leaves_a_checkpoint_of_that_name(void **unused) {
    (void)unused;
    for (int way = 0; way < WAYS; way++) {
        int status = KILLED << 8, calls = 0;
        for (; status == KILLED << 8 && calls < CALLS_MAX; calls++) {
            pid_t child = fork();
            assert_true(child >= 0);
            if (child == 0) {
                calls_left = calls;
                _exit(replace[way]() == 0 ? 0 : 1);
            }
            assert_int_equal(waitpid(child, &status, 0), child);
            size_t swept;
            uint64_t named;
            assert_int_equal(checkpoint_newest_named(&named, folder), 0); /* what plan and status say before the start */
            assert_int_equal(named, STEP);
            assert_int_equal(drafts_sweep(&swept, folder), 0); /* as a start does */
            assert_int_equal(checkpoint_settle(folder), 0);
            assert_there("killed", calls);
            assert_int_equal(checkpoint_prune(folder, 1), 0);
            assert_there("pruned", calls);
            assert_int_equal(entries(), 1);
        }
        assert_int_equal(status, 0);
        assert_true(calls > 5);
    }
}

/* One rename, or one and all that could put it right. */
static void a_disk_that_fails_leaves_a_checkpoint_of_that_name(void **unused) {
    (void)unused;
    for (int way = 0; way < WAYS; way++)
        for (int alone = 1; alone >= 0; alone--) {
            int failed = 1, tries = 0;
            for (; failed; tries++) {
                renames = 0;
                fails_from = tries + 1;
                fails_to = alone ? fails_from + 1 : 1000;
                failed = replace[way]() < 0;
                fails_to = 0;
                if (alone) assert_there("at once", fails_from);
                assert_int_equal(checkpoint_prune(folder, 1), 0); /* after the next checkpoint */
                assert_there(alone ? "one rename failed" : "from a rename on all failed", fails_from);
                assert_int_equal(entries(), 1);
            }
            assert_true(tries > 3);
        }
}

static bool there(const char *name) {
    char *whole = mem_format("%s/%s", folder, name);
    bool is = file_exists(whole);
    free(whole);
    return is;
}

/* Its owner took away the right to write, say: none of its files goes, and it stays a checkpoint. */
static void a_checkpoint_that_cannot_be_removed_stays_and_keeps_no_other(void **unused) {
    (void)unused;
    char *kept = mem_format("%s/checkpoint-8", folder);
    for (uint64_t step = 6; step < STEP; step++) assert_int_equal(write_step(step), 0);
    snprintf(stuck, sizeof stuck, "%s/checkpoint-8", folder);
    for (int times = 0; times < 2; times++) { /* after the next checkpoint as after this one */
        assert_int_equal(checkpoint_prune(folder, 1), ERR_DENIED);
        assert_non_null(strstr(err_text(), "checkpoint-8 is not removed"));
        assert_true(there("checkpoint-10") && checkpoint_is_own(kept));
        assert_int_equal(entries(), 2);
        assert_int_equal(write_step(7), 0);
    }
    *stuck = 0;
    assert_int_equal(checkpoint_prune(folder, 1), 0);
    assert_int_equal(entries(), 1);
    free(kept);
}

/* A file of it that is open elsewhere, on NFS: what is left is no checkpoint, and goes when it can. */
static void what_is_left_of_a_checkpoint_keeps_no_other(void **unused) {
    (void)unused;
    for (uint64_t step = 6; step < STEP; step++) assert_int_equal(write_step(step), 0);
    for (int times = 0; times < 2; times++) {
        snprintf(stuck, sizeof stuck, "%s/checkpoint-8.draft-removed%s", folder, times ? "" : "/config.json");
        assert_int_equal(checkpoint_prune(folder, 1), ERR_DENIED);
        assert_non_null(strstr(err_text(), "checkpoint-8.draft-removed"));
        assert_true(there("checkpoint-10") && there("checkpoint-8.draft-removed"));
        assert_int_equal(entries(), 2);
        assert_int_equal(write_step(7), 0);
    }
    *stuck = 0;
    assert_int_equal(checkpoint_prune(folder, 1), 0);
    assert_int_equal(entries(), 1);
}

/* exFAT, say: the last checkpoint's bytes do not depend on whether the evaluation ended before it was published. */
static void an_evaluation_is_added_where_there_are_no_hard_links(void **unused) {
    (void)unused;
    static const int none[] = {EPERM, EOPNOTSUPP, ENOSYS, EMLINK};
    struct checkpoint *checkpoint;
    struct checkpoint_facts facts;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        assert_int_equal(write_checkpoint(), 0);
        link_fails = none[i];
        if (add_evaluation() < 0) fail_msg("%s", err_text());
        assert_there("copied", none[i]); /* whole: every file has its digest */
        assert_int_equal(entries(), 1);
        assert_int_equal(checkpoint_open(&checkpoint, path), 0);
        assert_int_equal(checkpoint_facts(checkpoint, &facts), 0);
        checkpoint_close(checkpoint);
        assert_true(facts.eval_loss == 1.5 && facts.eval_step == STEP);
    }
    link_fails = EIO;
    assert_int_equal(add_evaluation(), ERR_IO);
    assert_there("a disk that fails", EIO);
    assert_int_equal(entries(), 1);
}

/* The new one has its name, which is what was asked for. */
static void a_checkpoint_replaces_one_that_cannot_be_removed(void **unused) {
    (void)unused;
    for (int times = 0; times < 2 * WAYS; times++) {
        exchanges = times % 2;
        snprintf(stuck, sizeof stuck, "%s/checkpoint-%d.draft-", folder, STEP);
        if (replace[times / 2]() < 0) fail_msg("%s", err_text());
        assert_there("replaced", times);
        assert_int_equal(entries(), 2);
        *stuck = 0;
        assert_int_equal(checkpoint_prune(folder, 1), 0);
        assert_there("pruned", times);
        assert_int_equal(entries(), 1);
    }
}

int main(void) {
    log_setup("test", LOG_ERROR); /* what cannot be removed is wanted here */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_kill_at_any_time_leaves_a_checkpoint_of_that_name, enter, leave),
        cmocka_unit_test_setup_teardown(a_disk_that_fails_leaves_a_checkpoint_of_that_name, enter, leave),
        cmocka_unit_test_setup_teardown(a_checkpoint_that_cannot_be_removed_stays_and_keeps_no_other, enter, leave),
        cmocka_unit_test_setup_teardown(a_checkpoint_replaces_one_that_cannot_be_removed, enter, leave),
        cmocka_unit_test_setup_teardown(an_evaluation_is_added_where_there_are_no_hard_links, enter, leave),
        cmocka_unit_test_setup_teardown(what_is_left_of_a_checkpoint_keeps_no_other, enter, leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
