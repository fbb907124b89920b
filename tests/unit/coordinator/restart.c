/* Beginning from nothing: what goes, what stays, a kill -9 at each system call that changes the disk, and what is synced before what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/coordinator.h"
#include "coordinator/restart.h"
#include "coordinator/store.h"

/* The name of an output_dir is text, and its neighbours are what it would match as a pattern. */
static const char *const names[] = {"exp[1]", "a*b", "wh?t", "with a blank", "back\\slash", "{a,b}", "%s"};
static const char *const neighbours[] = {"exp1", "aXb", "what", "with", "backslash", "a", "s"};
static const char *const results[] = {"dataset/dataset.pb", "dataset/train-00000.tok.zst", "checkpoint-3/model.safetensors",
                                      "checkpoint-3/millrace_state.json", "checkpoint-12.draft-1-0/model.safetensors", "metrics.jsonl",
                                      "state/status.json", "state/status.json.reserve"};
static const char *const kept[] = {"checkpoint-best/model.safetensors", "checkpoint-3-copy/x", "notes.txt", "state/runs/0123.tok",
                                   "checkpoint-5/mine.txt", "checkpoint-6/model.safetensors", "checkpoint-6/trainer_state.json",
                                   "logs/coordinator.log", "dataset/my own.txt", "dataset/sub/train-00000.tok.zst"};
enum { RESULTS = sizeof results / sizeof *results, KEPT = sizeof kept / sizeof *kept };

static void put(const char *folder, const char *name) {
    char *path = mem_format("%s/%s", folder, name), *above = mem_text(path);
    *strrchr(above, '/') = 0;
    assert_int_equal(folder_make(above), 0);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(name, file);
    fclose(file);
    free(above);
    free(path);
}

static size_t there(const char *folder, const char *const *list, size_t count) {
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        char *path = mem_format("%s/%s", folder, list[i]);
        n += file_exists(path);
        free(path);
    }
    return n;
}

/* An output_dir with results, whose dataset and one of whose checkpoints are links to what lies elsewhere. */
static void make_output(const char *folder, const char *elsewhere) {
    for (size_t i = 0; i < RESULTS; i++) put(folder, results[i]);
    for (size_t i = 0; i < KEPT; i++) put(folder, kept[i]);
    put(elsewhere, "precious");
    char *link = mem_format("%s/checkpoint-7", folder), *state = mem_format("%s/state", folder);
    assert_int_equal(symlink(elsewhere, link), 0);
    struct store *store;
    assert_int_equal(store_open(&store, state), 0);
    assert_int_equal(store_set_number(store, "run", 5), 0);
    assert_int_equal(store_memo_put(store, (const uint8_t[SHA256_BYTES]){1}, "memo", 4), 0);
    store_close(store);
    free(link);
    free(state);
}

static void load(struct config *config, const char *output_dir, const char *prepared) {
    char *text = mem_format("output_dir: '%s'\ndataset: { %s: '%s' }\n", output_dir, prepared ? "prepared" : "sources",
                            prepared ? prepared : "*.txt");
    assert_int_equal(config_parse(config, "p.yaml", text, strlen(text), "/", NULL, 0), 0);
    free(text);
}

static bool remembers(const char *folder, const char *name) {
    uint64_t value = 0;
    struct store *store;
    char *state = mem_format("%s/state", folder);
    assert_int_equal(store_open(&store, state), 0);
    assert_true(store_get_number(store, name, &value) >= 0);
    struct buf memo = {0};
    assert_int_equal(store_memo_get(store, (const uint8_t[SHA256_BYTES]){1}, &memo), 1);
    buf_free(&memo);
    store_close(store);
    free(state);
    return value != 0;
}

/* Does the file there hold these words? */
static bool says(const char *folder, const char *name, const char *words) {
    char *path = mem_format("%s/%s", folder, name);
    struct buf text = {0};
    bool found = file_exists(path) && file_read(&text, path, 1000) == 0 && strstr((const char *)text.data, words);
    buf_free(&text);
    free(path);
    return found;
}

/* In memory where that is possible: fsync takes no time there, and nobody takes the power away. */
static char *new_folder(void) {
    char *folder = mem_format("%s/millrace-restart-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static void a_restart_removes_what_is_its_own_and_nothing_else(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *folder = new_folder(), *output = mem_format("%s/%s", folder, names[i]), *elsewhere = mem_format("%s/elsewhere", folder);
        char *neighbour = mem_format("%s/%s", folder, neighbours[i]);
        for (size_t k = 0; k < RESULTS; k++) put(neighbour, results[k]);
        make_output(output, elsewhere);
        struct config config;
        load(&config, output, NULL);
        assert_int_equal(coordinator_restart(&config), 0);
        assert_int_equal(there(output, results, RESULTS), 0);
        assert_int_equal(there(output, kept, KEPT), KEPT);
        assert_int_equal(there(neighbour, results, RESULTS), RESULTS);
        assert_int_equal(there(elsewhere, (const char *const[]){"precious"}, 1), 1);
        assert_int_equal(there(output, (const char *const[]){"checkpoint-7"}, 1), 0);
        assert_false(remembers(output, "run"));
        config_free(&config);
        folder_remove(folder);
        free(neighbour), free(elsewhere), free(output), free(folder);
    }
}

static void a_prepared_dataset_in_output_dir_is_not_a_result(void **state) {
    (void)state;
    char *folder = new_folder(), *output = mem_format("%s/out", folder), *elsewhere = mem_format("%s/elsewhere", folder);
    char *prepared = mem_format("%s/../out/dataset", output);
    make_output(output, elsewhere);
    struct config config;
    load(&config, output, prepared);
    assert_int_equal(coordinator_restart(&config), 0);
    assert_int_equal(there(output, results, RESULTS), 2);
    config_free(&config);
    folder_remove(folder);
    free(prepared), free(elsewhere), free(output), free(folder);
}

static void while_a_coordinator_runs_nothing_is_removed(void **state) {
    (void)state;
    char *folder = new_folder(), *output = mem_format("%s/out", folder), *elsewhere = mem_format("%s/elsewhere", folder);
    char *state_folder = mem_format("%s/state", output);
    make_output(output, elsewhere);
    struct store *store;
    assert_int_equal(store_open(&store, state_folder), 0);
    struct config config;
    load(&config, output, NULL);
    assert_int_equal(coordinator_restart(&config), ERR_IO);
    assert_non_null(strstr(err_text(), "in use"));
    assert_int_equal(there(output, results, RESULTS), RESULTS);
    store_close(store);
    config_free(&config);
    folder_remove(folder);
    free(state_folder), free(elsewhere), free(output), free(folder);
}

static void what_is_in_the_way_is_found_before_anything_is_removed(void **state) {
    (void)state;
    static const char *const ways[] = {"dataset/dataset.pb/mine", "dataset/train-00002.tok.zst/mine", "metrics.jsonl/mine",
                                       "state/status.json/mine"};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char *folder = new_folder(), *output = mem_format("%s/out", folder), *elsewhere = mem_format("%s/elsewhere", folder);
        char *way = mem_format("%s/%s", output, ways[i]);
        make_output(output, elsewhere);
        *strrchr(way, '/') = 0;
        assert_int_equal(folder_remove(way), 0);
        put(output, ways[i]);
        size_t before = there(output, results, RESULTS);
        struct config config;
        load(&config, output, NULL);
        assert_int_equal(coordinator_restart(&config), ERR_DENIED);
        assert_non_null(strstr(err_text(), "is in the way: it is a folder"));
        assert_int_equal(there(output, results, RESULTS), before);
        assert_true(remembers(output, "run") && !remembers(output, "restart_begun"));
        assert_int_equal(folder_remove(way), 0);
        assert_int_equal(coordinator_restart(&config), 0);
        config_free(&config);
        folder_remove(folder);
        free(way), free(elsewhere), free(output), free(folder);
    }
}

/* ---- kills ---- */

static bool changes_the_disk(long call) {
    static const long calls[] = {SYS_unlink, SYS_unlinkat, SYS_rmdir, SYS_rename, SYS_renameat, SYS_renameat2, SYS_pwrite64, SYS_write,
                                 SYS_fsync, SYS_fdatasync, SYS_ftruncate};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (call == calls[i]) return true;
    return false;
}

/* Restarts in a process of its own. `before` is asked before each of its changes of the disk whether it is killed there. False: it came to
 * its end. */
static bool restart_traced(const char *state_folder, const struct config *config,
                           bool (*before)(void *arg, pid_t pid, const struct __ptrace_syscall_info *info), void *arg) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        struct store *store;
        _exit(store_open(&store, state_folder) == 0 && restart_begin(store, config) == 0 ? 0 : 1);
    }
    int status;
    waitpid(pid, &status, 0);
    ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD);
    for (;;) {
        ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
        waitpid(pid, &status, 0);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            return false;
        }
        assert_true(WIFSTOPPED(status));
        struct __ptrace_syscall_info info = {0};
        ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
        if (info.op != PTRACE_SYSCALL_INFO_ENTRY || !changes_the_disk((long)info.entry.nr) || !before(arg, pid, &info)) continue;
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        return true;
    }
}

static bool count_down(void *arg, pid_t pid, const struct __ptrace_syscall_info *info) {
    (void)pid, (void)info;
    return --*(int *)arg == 0;
}

/* Killed before its n-th change of the disk. */
static bool killed_before_change(const char *state_folder, const struct config *config, int n) {
    return restart_traced(state_folder, config, count_down, &n);
}

static void killed_anywhere_it_goes_on_or_begins_anew(void **state) {
    (void)state;
    int went_on = 0, began_anew = 0;
    for (int n = 1;; n++) {
        char *folder = new_folder(), *output = mem_format("%s/exp[1]", folder), *elsewhere = mem_format("%s/elsewhere", folder);
        char *state_folder = mem_format("%s/state", output);
        make_output(output, elsewhere);
        struct config config;
        load(&config, output, NULL);
        bool killed = killed_before_change(state_folder, &config, n);
        bool knows = remembers(output, "run"), begun = remembers(output, "restart_begun");
        size_t left = there(output, results, RESULTS);
        bool old_status = says(output, "state/status.json", "state/status.json");
        if (knows && !begun) assert_int_equal(left, RESULTS); /* the old run, whole */
        if (left < RESULTS) assert_false(old_status);         /* as if it still were */
        struct store *store;                                  /* as the next coordinator does it */
        assert_int_equal(store_open(&store, state_folder), 0);
        assert_int_equal(restart_go_on(store, &config), 0);
        store_close(store);
        if (!knows || begun) {
            assert_int_equal(there(output, results, RESULTS), 0);
            assert_false(remembers(output, "run"));
            began_anew++;
        } else went_on++;
        assert_int_equal(there(output, kept, KEPT), KEPT);
        assert_int_equal(there(elsewhere, (const char *const[]){"precious"}, 1), 1);
        config_free(&config);
        folder_remove(folder);
        free(state_folder), free(elsewhere), free(output), free(folder);
        if (!killed) break;
    }
    printf("killed %d times: %d went on, %d began anew\n", went_on + began_anew - 1, went_on, began_anew);
    assert_true(went_on > 0 && began_anew > RESULTS);
}

/* ---- the power goes ---- */

struct order {
    const char *output;
    int removed, unsynced, writes_after;
};

static bool look_at_order(void *arg, pid_t pid, const struct __ptrace_syscall_info *info) {
    struct order *order = arg;
    char *link = mem_format("/proc/%d/fd/%d", (int)pid, (int)info->entry.args[0]), path[PATH_MAX] = "";
    bool known = readlink(link, path, sizeof path - 1) > 0;
    free(link);
    switch (info->entry.nr) {
    case SYS_unlink:
    case SYS_unlinkat:
    case SYS_rmdir: order->removed++, order->unsynced++; break;
    case SYS_fsync:
    case SYS_fdatasync:
        if (known && strcmp(path, order->output) == 0) order->unsynced = 0;
        break;
    case SYS_write:
    case SYS_pwrite64:
        if (!known || !strstr(path, "/millrace.db") || order->removed == 0) break;
        order->writes_after++;
        assert_int_equal(order->unsynced, 0);
        break;
    default: break;
    }
    return false;
}

/* Else a checkpoint that comes back would be believed over records that know of none. */
static void what_was_removed_is_gone_from_the_disk_before_the_records_are(void **state) {
    (void)state;
    char *folder = new_folder(), *output = mem_format("%s/out", folder), *elsewhere = mem_format("%s/elsewhere", folder);
    char *state_folder = mem_format("%s/state", output);
    make_output(output, elsewhere);
    struct config config;
    load(&config, output, NULL);
    struct order order = {.output = output};
    assert_false(restart_traced(state_folder, &config, look_at_order, &order));
    assert_true(order.removed > RESULTS && order.writes_after > 0);
    config_free(&config);
    folder_remove(folder);
    free(state_folder), free(elsewhere), free(output), free(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restart_removes_what_is_its_own_and_nothing_else),
        cmocka_unit_test(a_prepared_dataset_in_output_dir_is_not_a_result),
        cmocka_unit_test(while_a_coordinator_runs_nothing_is_removed),
        cmocka_unit_test(what_is_in_the_way_is_found_before_anything_is_removed),
        cmocka_unit_test(killed_anywhere_it_goes_on_or_begins_anew),
        cmocka_unit_test(what_was_removed_is_gone_from_the_disk_before_the_records_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
