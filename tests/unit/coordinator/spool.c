/* Standard input as a source: copied whole or not at all, read once, and a stop is heard while it gives nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/coordinator.h"
#include "coordinator/spool.h"

static bool stop_at_rest; /* the wish to stop comes while nothing is waited for any more */

int poll(struct pollfd *fds, nfds_t count, int timeout_ms) {
    if (count == 0 && stop_at_rest) spool_stop(true);
    return ppoll(fds, count, &(struct timespec){timeout_ms / 1000, timeout_ms % 1000 * 1000000L}, NULL);
}

static uint64_t room_bytes = UINT64_MAX; /* of the disk */

ssize_t pwrite(int fd, const void *bytes, size_t size_bytes, off_t offset) {
    if ((uint64_t)offset + size_bytes <= room_bytes) return syscall(SYS_pwrite64, fd, bytes, size_bytes, offset);
    errno = ENOSPC;
    return -1;
}

static char folder[32];
static int standard_input = -1;
static struct config config;

static int begin(void **state) {
    (void)state;
    strcpy(folder, "/tmp/millrace-spool-XXXXXX");
    char *text = mem_format("output_dir: '%s/out'\ndataset: { sources: ['-'] }\n", mkdtemp(folder));
    int code = config_parse(&config, "p.yaml", text, strlen(text), "/", NULL, 0);
    free(text);
    standard_input = dup(STDIN_FILENO);
    return code;
}

static int end(void **state) {
    (void)state;
    dup2(standard_input, STDIN_FILENO);
    close(standard_input);
    config_free(&config);
    stop_at_rest = false;
    spool_stop(false);
    return folder_remove(folder);
}

/* A pipe becomes standard input. Returns its other end. */
static int pipe_begin(void) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    close(ends[0]);
    return ends[1];
}

static void give(const char *text) {
    int fd = pipe_begin();
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void check_spooled(const char *expected) {
    struct buf text = {0};
    char *path = mem_format("%s/state/stdin", config.output_dir);
    assert_int_equal(file_read(&text, path, 100), 0);
    assert_int_equal(text.size, strlen(expected));
    assert_memory_equal(text.data, expected, text.size);
    free(path);
    buf_free(&text);
}

static size_t files_of_state(void) {
    char *path = mem_format("%s/state", config.output_dir);
    DIR *dir = opendir(path);
    size_t count = 0;
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) count += entry->d_name[0] != '.';
    closedir(dir);
    free(path);
    return count;
}

static void on_alarm(int number) {
    (void)number;
    coordinator_stop();
}

static void a_stop_ends_the_copy_and_leaves_no_draft(void **state) {
    (void)state;
    int fd = pipe_begin();
    assert_int_equal(write(fd, "half of a", 9), 9);
    struct sigaction heard = {.sa_handler = on_alarm}, before;
    sigaction(SIGALRM, &heard, &before);
    assert_int_equal(setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {.tv_usec = 30000}}, NULL), 0);
    assert_int_equal(coordinator_spool(&config), ERR_INTERRUPTED);
    assert_non_null(strstr(err_text(), "stopped while standard input was read"));
    sigaction(SIGALRM, &before, NULL);
    assert_int_equal(files_of_state(), 0);
    close(fd);
    spool_stop(false);
    give("the whole");
    assert_int_equal(coordinator_spool(&config), 0);
    check_spooled("the whole");
    assert_int_equal(files_of_state(), 1);
}

/* Ctrl-C goes to the program that writes as well, and its end may be seen first: the text is not whole then. */
static void a_text_whose_end_a_stop_brought_about_is_not_kept(void **state) {
    (void)state;
    give("half of a");
    stop_at_rest = true;
    assert_int_equal(coordinator_spool(&config), ERR_INTERRUPTED);
    assert_non_null(strstr(err_text(), "nothing of it is kept"));
    assert_int_equal(files_of_state(), 0);
}

static void another_text_is_not_read_and_that_is_told(void **state) {
    (void)state;
    give("one text");
    assert_int_equal(coordinator_spool(&config), 0);
    give("another text");
    assert_int_equal(coordinator_spool(&config), 1);
    check_spooled("one text");
    give("");
    assert_int_equal(coordinator_spool(&config), 0);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    close(null);
    assert_int_equal(coordinator_spool(&config), 0);
    char *path = mem_format("%s/file", folder);
    assert_int_equal(file_publish(path, "a third one", 11), 0);
    int file = open(path, O_RDONLY);
    dup2(file, STDIN_FILENO);
    close(file);
    assert_int_equal(coordinator_spool(&config), 1);
    lseek(STDIN_FILENO, 0, SEEK_END);
    assert_int_equal(coordinator_spool(&config), 0);
    check_spooled("one text");
    free(path);
}

static void a_full_disk_is_told_with_the_file_and_what_to_do(void **state) {
    (void)state;
    char *path = mem_format("%s/state/stdin", config.output_dir);
    give("a text that is too long");
    room_bytes = 10;
    assert_int_equal(coordinator_spool(&config), ERR_NOSPACE);
    room_bytes = UINT64_MAX;
    assert_true(strstr(err_text(), path) && strstr(err_text(), strerror(ENOSPC)) && strstr(err_text(), "make room"));
    assert_int_equal(files_of_state(), 0);
    free(path);
}

static void no_text_is_refused(void **state) {
    (void)state;
    give("");
    assert_int_equal(coordinator_spool(&config), ERR_CONFIG);
    assert_int_equal(files_of_state(), 0);
}

static void a_text_that_was_refused_gives_way_to_another_one(void **state) {
    (void)state;
    give("one text");
    assert_int_equal(coordinator_spool(&config), 0);
    assert_int_equal(spool_refuse(&config), 0);
    give("");
    assert_int_equal(coordinator_spool(&config), 0);
    check_spooled("one text");
    assert_int_equal(spool_refuse(&config), 0);
    give("another text");
    assert_int_equal(coordinator_spool(&config), 0);
    check_spooled("another text");
    assert_int_equal(files_of_state(), 1);
}

static void its_copy_is_called_standard_input(void **state) {
    (void)state;
    char *path = mem_format("%s/state/stdin", config.output_dir), *said = mem_format("%s is no text, see %s!x", path, path);
    spool_name(said, strlen(said) + 1, &config);
    assert_string_equal(said, "standard input is no text, see standard input!x");
    free(said);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_stop_ends_the_copy_and_leaves_no_draft, begin, end),
        cmocka_unit_test_setup_teardown(a_text_whose_end_a_stop_brought_about_is_not_kept, begin, end),
        cmocka_unit_test_setup_teardown(another_text_is_not_read_and_that_is_told, begin, end),
        cmocka_unit_test_setup_teardown(a_full_disk_is_told_with_the_file_and_what_to_do, begin, end),
        cmocka_unit_test_setup_teardown(no_text_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(a_text_that_was_refused_gives_way_to_another_one, begin, end),
        cmocka_unit_test_setup_teardown(its_copy_is_called_standard_input, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
