/* Files that are whole or absent: through full disks, kills, and everything else that was in the way. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/broken_folder.h"
#include "tests/unit/random.h"

static char folder[64];

static const char *at(const char *name) {
    static char paths[4][200];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int fresh_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/millrace-file-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_it(void **state) {
    (void)state;
    return folder_remove(folder);
}

static size_t entries(const char *path) {
    DIR *dir = opendir(path);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(dir));) count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void check_content(const char *path, const char *expected) {
    struct buf buf = {0};
    assert_int_equal(file_read(&buf, path, 1 << 20), 0);
    assert_string_equal((char *)buf.data, expected);
    buf_free(&buf);
}

static void published_files_are_whole_and_replace_the_old(void **state) {
    (void)state;
    assert_false(file_exists(at("a")));
    assert_int_equal(file_publish(at("a"), "first", 5), 0);
    check_content(at("a"), "first");
    assert_int_equal(file_publish(at("a"), "2nd", 3), 0);
    check_content(at("a"), "2nd");
    assert_int_equal(file_publish(at("empty"), "", 0), 0);
    uint64_t size = 9;
    assert_int_equal(file_size(&size, at("empty")), 0);
    assert_int_equal(size, 0);
    assert_int_equal(entries(folder), 2);  /* no draft is left */
}

static void drafts_appear_only_when_published(void **state) {
    (void)state;
    struct draft draft, other;
    assert_int_equal(draft_open(&draft, at("a")), 0);
    assert_int_equal(draft_open(&other, at("a")), 0);  /* two of one target do not meet */
    assert_int_equal(file_write_at(draft.fd, "mine", 4, 0), 0);
    assert_int_equal(file_write_at(other.fd, "theirs", 6, 0), 0);
    assert_false(file_exists(at("a")));
    draft_discard(&other);
    draft_discard(&other);
    assert_int_equal(entries(folder), 1);
    assert_int_equal(draft_publish(&draft), 0);
    draft_discard(&draft);
    check_content(at("a"), "mine");
    assert_int_equal(entries(folder), 1);
    assert_int_equal(draft_open(&draft, at("absent/a")), ERR_NOTFOUND);
    assert_int_equal(file_publish(at("a/below-a-file"), "x", 1), ERR_DENIED);
}

/* Nodes of the folder's own; a device could be made by root alone. */
static void an_output_is_a_file_or_nothing(void **state) {
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", at("socket"));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    assert_int_equal(mkfifo(at("pipe"), 0600), 0);
    assert_int_equal(symlink("pipe", at("to-pipe")), 0);
    assert_int_equal(symlink("/dev/null", at("to-device")), 0);
    assert_int_equal(symlink("nothing", at("to-nothing")), 0);
    assert_int_equal(file_publish(at("a"), "x", 1), 0);
    assert_int_equal(symlink("a", at("to-a")), 0);
    static const char *const names[][2] = {{"socket", "is a socket"}, {"pipe", "is a pipe"}, {"to-pipe", "is a pipe"},
                                           {"to-device", "is a device"}, {"", "is a folder"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(file_check_output(at(names[i][0])), ERR_DENIED);
        assert_non_null(strstr(err_text(), names[i][1]));
        assert_non_null(strstr(err_text(), "; name a file"));
    }
    assert_int_equal(file_check_output(at("a")), 0);
    assert_int_equal(file_check_output(at("to-a")), 0);
    assert_int_equal(file_check_output(at("none")), 0);
    assert_int_equal(file_check_output(at("to-nothing")), 0);
}

/* What each way of writing can and cannot take the place of. */
static void what_a_file_cannot_take_the_place_of_is_in_the_way(void **state) {
    (void)state;
    assert_int_equal(file_publish(at("file"), "x", 1), 0);
    assert_int_equal(folder_make(at("folder")), 0);
    assert_int_equal(mkfifo(at("pipe"), 0600), 0);
    assert_int_equal(symlink("file", at("to-file")), 0);
    assert_int_equal(symlink("folder", at("to-folder")), 0);
    assert_int_equal(symlink("/dev/null", at("to-device")), 0);
    assert_int_equal(symlink("nothing", at("to-nothing")), 0);
    static const struct {
        const char *name, *published, *opened, *opened_here; /* what it is called, where it is in the way */
    } cases[] = {{"none", NULL, NULL, NULL},         {"file", NULL, NULL, NULL},       {"folder", "folder", "folder", "folder"},
                 {"pipe", NULL, "pipe", "pipe"},     {"to-file", NULL, NULL, "link"},  {"to-folder", NULL, "folder", "link"},
                 {"to-device", NULL, NULL, "link"}, {"to-nothing", NULL, NULL, "link"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const is[] = {[FILE_PUBLISHED] = cases[i].published, [FILE_OPENED] = cases[i].opened,
                                  [FILE_OPENED_HERE] = cases[i].opened_here};
        for (int how = FILE_PUBLISHED; how <= FILE_OPENED_HERE; how++) {
            assert_int_equal(file_check_place(at(cases[i].name), (enum file_place)how), is[how] ? ERR_DENIED : 0);
            if (!is[how]) continue;
            char words[200];
            snprintf(words, sizeof words, "%s is in the way: it is a %s, and a run writes a file of that name; move it away",
                     at(cases[i].name), is[how]);
            assert_string_equal(err_text(), words);
        }
    }
    assert_int_equal(file_publish(at("folder"), "x", 1), ERR_DENIED);
    assert_non_null(strstr(err_text(), "folder is in the way"));
    assert_int_equal(file_publish(at("pipe"), "x", 1), 0);
}

static void reads_stop_at_their_limit(void **state) {
    (void)state;
    assert_int_equal(file_publish(at("a"), "0123456789", 10), 0);
    struct buf buf = {0};
    assert_int_equal(buf_append(&buf, "before ", 7), 0);
    assert_int_equal(file_read(&buf, at("a"), 9), ERR_LIMIT);
    assert_int_equal(file_read(&buf, at("none"), 9), ERR_NOTFOUND);
    assert_int_equal(file_read(&buf, folder, 9), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), " is a folder, not a file; name a file"));
    assert_int_equal(buf.size, 7);
    assert_int_equal(file_read(&buf, at("a"), 10), 0);
    assert_string_equal((char *)buf.data, "before 0123456789");
    buf_free(&buf);
    buf.max_bytes = 5;
    assert_int_equal(file_read(&buf, at("a"), 10), ERR_LIMIT);
    buf_free(&buf);
    assert_int_equal(file_read(&buf, "/dev/zero", 100000), ERR_CORRUPT); /* a device is no file, and is not read for ever */
    buf_free(&buf);

    char bytes[10] = {0};
    size_t got = 0;
    int fd = open(at("a"), O_RDONLY);
    assert_int_equal(file_read_at(fd, bytes, &got, 4, 3), 0);
    assert_int_equal(got, 4);
    assert_memory_equal(bytes, "3456", 4);
    assert_int_equal(file_read_at(fd, bytes, &got, 10, 8), 0);
    assert_int_equal(got, 2);
    assert_int_equal(file_read_at(fd, bytes, &got, 10, 100), 0);
    assert_int_equal(got, 0);
    assert_int_equal(file_write_at(fd, "x", 1, 0), ERR_IO);  /* not open for writing */
    close(fd);
    assert_int_equal(file_read_at(fd, bytes, &got, 1, 0), ERR_IO);
}

static void folders_are_made_with_their_parents_and_removed_whole(void **state) {
    (void)state;
    assert_int_equal(folder_make(at("x/y//z/")), 0);
    assert_int_equal(folder_make(at("x/y/z")), 0);
    assert_int_equal(file_publish(at("x/y/f"), "f", 1), 0);
    assert_true(folder_make(at("x/y/f")) < 0);
    assert_true(folder_make(at("x/y/f/g")) < 0);
    assert_true(folder_make("") < 0);
    assert_int_equal(folder_make(at("other")), 0);
    assert_int_equal(file_publish(at("other/f"), "f", 1), 0);
    assert_int_equal(symlink("../other", at("x/link")), 0);
    assert_int_equal(folder_remove(at("x")), 0);
    assert_false(file_exists(at("x")));
    assert_true(file_exists(at("other/f")));  /* links are not followed */
    assert_int_equal(folder_remove(at("x")), 0);
    assert_int_equal(folder_sync(at("x")), ERR_NOTFOUND);
}

static void a_folder_is_private_whoever_made_it(void **state) {
    (void)state;
    struct stat st;
    for (int i = 0; i < 2; i++) {
        const char *path = at(i ? "made" : "new");
        if (i) assert_true(mkdir(path, 0755) == 0 && chmod(path, 0755) == 0);
        assert_int_equal(folder_make_private(path), 0);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0700);
    }
}

static void folders_are_published_whole(void **state) {
    (void)state;
    assert_int_equal(folder_make(at("draft")), 0);
    assert_int_equal(file_publish(at("draft/a"), "a", 1), 0);
    assert_int_equal(file_publish(at("draft/b"), "b", 1), 0);
    assert_int_equal(folder_publish(at("draft"), at("final")), 0);
    assert_false(file_exists(at("draft")));
    check_content(at("final/b"), "b");
    assert_int_equal(folder_publish(at("draft"), at("final")), ERR_NOTFOUND);
    assert_int_equal(folder_make(at("again")), 0);
    assert_int_equal(folder_publish(at("again"), at("final")), ERR_DENIED);  /* one with files in it is not replaced */
    check_content(at("final/a"), "a");
}

/* Runs `body` in a process of its own and returns how that ended. */
static int in_child(void (*body)(void)) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        body();
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void die_before_publishing(void) {
    struct draft draft;
    if (draft_open(&draft, at("a")) != 0 || file_write_at(draft.fd, "half of", 7, 0) != 0) _exit(1);
    kill(getpid(), SIGKILL);
}

static void publish_without_end(void) {
    char bytes[5000];
    for (unsigned round = 0;; round++) {
        memset(bytes, 'a' + (int)(round % 26), sizeof bytes);
        if (file_publish(at("a"), bytes, sizeof bytes) != 0) _exit(1);
    }
}

static void a_killed_writer_leaves_old_or_new(void **state) {
    (void)state;
    assert_int_equal(file_publish(at("a"), "old", 3), 0);
    int status = in_child(die_before_publishing);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    check_content(at("a"), "old");

    struct random random = random_open("kill");
    for (int round = 0; round < 20; round++) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) publish_without_end();
        clock_sleep_ms((int64_t)random_in(&random, 1, 30));
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        struct buf buf = {0};
        assert_int_equal(file_read(&buf, at("a"), 1 << 20), 0);
        if (round > 0 || buf.size != 3) {
            assert_true(buf.size == 5000 || buf.size == 3);
            for (size_t i = 1; i < buf.size && buf.size == 5000; i++) assert_int_equal(buf.data[i], buf.data[0]);
        }
        buf_free(&buf);
    }
}

static void write_past_the_limit(void) {
    static char bytes[100000];
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){50000, 50000});
    int code = file_publish(at("a"), bytes, sizeof bytes);
    if (code >= 0 || !strstr(err_text(), "File too large")) _exit(1);
    if (entries(folder) != 1) _exit(2);
    if (file_publish(at("a"), "new", 3) != 0) _exit(3);  /* smaller things go on */
}

static void files_over_the_limit_are_not_published(void **state) {
    (void)state;
    assert_int_equal(file_publish(at("a"), "old", 3), 0);
    int status = in_child(write_past_the_limit);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    check_content(at("a"), "new");
}

enum { NO_MOUNTS = 77 };

/* A file system of 64 KiB that only this process sees. */
static void fill_the_disk(void) {
    static char bytes[40000], huge[200000];
    bool root = geteuid() == 0;
    if (unshare(root ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0) _exit(NO_MOUNTS);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) _exit(NO_MOUNTS);
    if (mount("tmpfs", folder, "tmpfs", 0, "size=65536") != 0) _exit(NO_MOUNTS);
    memset(bytes, 'o', sizeof bytes);
    if (file_publish(at("a"), bytes, sizeof bytes) != 0) _exit(1);
    if (file_publish(at("a"), huge, sizeof huge) != ERR_NOSPACE) _exit(2);
    if (!strstr(err_text(), "No space left")) _exit(3);
    if (file_publish(at("b"), bytes, sizeof bytes) != ERR_NOSPACE) _exit(4);
    struct buf buf = {0};
    if (file_read(&buf, at("a"), sizeof bytes) != 0 || buf.size != sizeof bytes || buf.data[sizeof bytes - 1] != 'o') _exit(5);
    if (entries(folder) != 1) _exit(6);  /* neither b nor a draft that keeps the disk full */
    if (file_publish(at("b"), "small", 5) != 0) _exit(7);
}

static void a_full_disk_keeps_the_old_file(void **state) {
    (void)state;
    int fd = open("/dev/full", O_WRONLY);
    assert_int_equal(file_write_at(fd, "x", 1, 0), ERR_NOSPACE);
    close(fd);
    int status = in_child(fill_the_disk);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == NO_MOUNTS) {
        print_message("mounting a small tmpfs is not allowed here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_folder_that_fails_in_the_middle_has_not_ended(void **state) {
    (void)state;
    size_t swept;
    assert_int_equal(folder_make(at("draft")), 0);
    assert_int_equal(file_publish(at("draft/a"), "whole", 5), 0);
    for (int after = 0; after < 4; after++) { /* "a", the folder itself, the one above, and the end of them */
        broken_folder_after = after;
        assert_int_equal(folder_publish(at("draft"), at("published")), ERR_IO);
        assert_non_null(strstr(err_text(), "read folder"));
        assert_false(file_exists(at("published")));
        broken_folder_after = after;
        assert_int_equal(drafts_sweep(&swept, at("draft")), ERR_IO);
    }
    broken_folder_after = INT_MAX;
    assert_int_equal(folder_publish(at("draft"), at("published")), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(published_files_are_whole_and_replace_the_old, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(drafts_appear_only_when_published, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(an_output_is_a_file_or_nothing, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(what_a_file_cannot_take_the_place_of_is_in_the_way, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(reads_stop_at_their_limit, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(folders_are_made_with_their_parents_and_removed_whole, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_folder_is_private_whoever_made_it, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(folders_are_published_whole, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_killed_writer_leaves_old_or_new, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(files_over_the_limit_are_not_published, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_full_disk_keeps_the_old_file, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(a_folder_that_fails_in_the_middle_has_not_ended, fresh_folder, remove_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
