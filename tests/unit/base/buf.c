/* The growing buffer and the small things beside it: error texts, memory, time, log lines. */
#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "tests/unit/random.h"

static void buffers_grow_and_end_with_nul(void **state) {
    (void)state;
    struct random random = random_open("grow");
    struct buf buf = {0};
    uint8_t expected[20000], piece[700];
    size_t size = 0;
    while (size + sizeof piece < sizeof expected) {
        size_t more = random_in(&random, 0, sizeof piece);
        for (size_t i = 0; i < more; i++) piece[i] = (uint8_t)random_next(&random);
        assert_int_equal(buf_append(&buf, piece, more), 0);
        memcpy(expected + size, piece, more);
        size += more;
        assert_int_equal(buf.size, size);
        assert_true(buf.capacity > buf.size);
        assert_int_equal(buf.data[buf.size], 0);
    }
    assert_memory_equal(buf.data, expected, size);
    buf_clear(&buf);
    assert_int_equal(buf.size, 0);
    assert_string_equal((char *)buf.data, "");
    assert_int_equal(buf_print(&buf, "%d and %s", 7, "eight"), 0);
    assert_string_equal((char *)buf.data, "7 and eight");
    buf_free(&buf);
    assert_null(buf.data);
    buf_clear(&buf);
    buf_free(&buf);
}

static void a_ceiling_holds_and_leaves_the_buffer_as_it_was(void **state) {
    (void)state;
    struct buf buf = {.max_bytes = 10};
    assert_int_equal(buf_append(&buf, "12345", 5), 0);
    assert_int_equal(buf_append(&buf, "678901", 6), ERR_LIMIT);
    assert_int_equal(buf_print(&buf, "%s", "678901"), ERR_LIMIT);
    assert_string_equal((char *)buf.data, "12345");
    assert_int_equal(buf_append(&buf, "67890", 5), 0);
    assert_string_equal((char *)buf.data, "1234567890");
    assert_int_equal(buf_append(&buf, "", 0), 0);
    assert_int_equal(buf_reserve(&buf, SIZE_MAX - 5), ERR_LIMIT);
    assert_int_equal(buf_reserve(&buf, SIZE_MAX), ERR_LIMIT);
    assert_int_equal(buf.size, 10);
    buf_free(&buf);
    assert_int_equal(buf.max_bytes, 10);
}

static void *other_thread_fails(void *arg) {
    assert_string_equal(err_text(), "no error was recorded");
    err_set(ERR_IO, "theirs");
    return arg;
}

static void error_texts_gather_context_per_thread(void **state) {
    (void)state;
    assert_int_equal(err_set(ERR_CORRUPT, "frame %d: digest differs", 17), ERR_CORRUPT);
    assert_int_equal(err_add(ERR_CORRUPT, "shard-%05d", 3), ERR_CORRUPT);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, other_thread_fails, NULL), 0);
    pthread_join(thread, NULL);
    assert_string_equal(err_text(), "shard-00003: frame 17: digest differs");
    err_set(ERR_IO, "again: %s", err_text());  /* the old text as an argument */
    assert_string_equal(err_text(), "again: shard-00003: frame 17: digest differs");
    char long_text[3000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    err_set(ERR_IO, "%s", long_text);
    assert_true(strlen(err_text()) > 500 && strlen(err_text()) < sizeof long_text);
}

static void *other_error(void *arg) {
    err_set(ERR_PEER, "of another thread");
    *(struct err *)arg = err_take();
    return NULL;
}

static void an_error_is_a_value_that_is_kept_and_passed_on(void **state) {
    (void)state;
    struct err other = {0};
    pthread_t thread;
    err_set(ERR_CORRUPT, "first");
    struct err first = err_take();
    assert_string_equal(first.file, __FILE__);
    assert_int_equal(first.line, __LINE__ - 3);
    err_set(ERR_IO, "second");
    assert_int_equal(err_give(&first), ERR_CORRUPT);
    assert_string_equal(err_text(), "first");
    assert_int_equal(pthread_create(&thread, NULL, other_error, &other), 0);
    pthread_join(thread, NULL);
    assert_string_equal(err_text(), "first");
    assert_int_equal(err_give(&other), ERR_PEER);
    assert_string_equal(err_text(), "of another thread");
}

/* Every place that sets or forwards an error has a line of its own at the level debug, and none above it. */
static void the_log_says_where_an_error_was_set(void **state) {
    (void)state;
    int pipes[2], before = dup(STDERR_FILENO);
    char line[256], said[4096] = "";
    assert_int_equal(pipe(pipes), 0);
    dup2(pipes[1], STDERR_FILENO);
    log_setup("test", LOG_DEBUG);
    err_set(ERR_IO, "lost"), snprintf(line, sizeof line, "error -3 at %s:%d: lost\n", __FILE__, __LINE__);
    log_setup("test", LOG_INFO);
    err_add(ERR_IO, "quietly");
    dup2(before, STDERR_FILENO);
    close(pipes[1]), close(before);
    assert_true(read(pipes[0], said, sizeof said - 1) > 0);
    close(pipes[0]);
    assert_non_null(strstr(said, line));
    assert_null(strstr(said, "quietly"));
}

/* Nobody may read the log any more: the reason that the caller goes on to tell is still its own. */
static void a_line_of_the_log_leaves_the_callers_errno(void **state) {
    (void)state;
    int before = dup(STDERR_FILENO);
    close(STDERR_FILENO);
    log_setup("test", LOG_DEBUG);
    errno = EACCES;
    err_set(ERR_CORRUPT, "the code is looked at");
    int number = errno;
    log_setup("test", LOG_INFO);
    dup2(before, STDERR_FILENO);
    close(before);
    assert_int_equal(number, EACCES);
}

static void errno_becomes_a_code(void **state) {
    (void)state;
    errno = ENOSPC;
    assert_int_equal(err_errno("write %s", "x"), ERR_NOSPACE);
    assert_non_null(strstr(err_text(), "write x: No space left"));
    errno = EDQUOT;
    assert_int_equal(err_errno("w"), ERR_NOSPACE);
    static const int passing[] = {EMFILE, ENFILE};
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++) { /* of open files, not of room on a disk */
        errno = passing[i];
        int code = err_errno("open %s", "x");
        assert_true(err_passes(code) && code != ERR_NOSPACE);
        assert_non_null(strstr(err_text(), i ? "fs.file-max" : "ulimit -n"));
    }
    errno = EFBIG;
    assert_int_equal(err_errno("write %s", "x"), ERR_DENIED);
    assert_non_null(strstr(err_text(), "write x: File too large; see ulimit -f"));
    errno = ENOENT;
    assert_int_equal(err_errno("w"), ERR_NOTFOUND);
    errno = EACCES;
    assert_int_equal(err_errno("w"), ERR_DENIED);
    assert_int_equal(err_exit_code(0), 0);
    assert_int_equal(err_exit_code(ERR_CORRUPT), 1);
    assert_int_equal(err_exit_code(ERR_USAGE), 2);
    assert_int_equal(err_exit_code(ERR_CONFIG), 2);
    assert_int_equal(err_exit_code(ERR_INTERRUPTED), 130);
}

static void what_passes_by_itself_is_told_from_what_somebody_must_put_right(void **state) {
    (void)state;
    static const int passes[] = {ENOSPC, EDQUOT, EIO, ENOMEM, EMFILE, ENFILE, EBUSY, ESTALE, EAGAIN};
    static const int stays[] = {EACCES, EPERM, EROFS, ENOTDIR, EISDIR, ELOOP, EEXIST, ENOTEMPTY, ENAMETOOLONG, EXDEV, EFBIG, ENOENT};
    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) {
        errno = passes[i];
        assert_true(err_passes(err_errno("x")));
    }
    for (size_t i = 0; i < sizeof stays / sizeof *stays; i++) {
        errno = stays[i];
        int code = err_errno("x");
        assert_int_equal(code, stays[i] == ENOENT ? ERR_NOTFOUND : ERR_DENIED);
        assert_false(err_passes(code));
    }
    assert_false(err_passes(ERR_CORRUPT) || err_passes(ERR_CONFIG) || err_passes(ERR_NONE));
}

static void memory_is_zeroed_aligned_and_bounded(void **state) {
    (void)state;
    float *values = NULL;
    assert_int_equal(mem_try(&values, 1001, sizeof *values), 0);
    assert_true((uintptr_t)values % 64 == 0);
    for (int i = 0; i < 1001; i++) assert_true(values[i] == 0);
    free(values);
    values = NULL;
    assert_int_equal(mem_try(&values, SIZE_MAX / 2, 4), ERR_MEMORY);
    assert_int_equal(mem_try(&values, SIZE_MAX / 4, 4), ERR_MEMORY);
    assert_null(values);
    char *empty = mem_text(""), *text = mem_format("%s-%d", empty, 5);
    assert_string_equal(text, "-5");
    free(text);
    free(empty);
}

/* As who ends for an ERR_MEMORY does: with its words, and no crash. */
static void who_gets_no_small_memory_ends_and_says_so(void **state) {
    (void)state;
    int words = memfd_create("last words", 0), status;
    char number[16], said[200] = "";
    snprintf(number, sizeof number, "%d", words);
    pid_t child = fork();
    if (child == 0) {
        setenv(PROCESS_LAST_WORDS, number, 1);
        free(mem_alloc(SIZE_MAX / 2));
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_true(pread(words, said, sizeof said - 1, 0) > 0);
    assert_non_null(strstr(said, MEM_EXHAUSTED "9223372036854775807 bytes were wanted"));
    close(words);
}

static void time_goes_forward(void **state) {
    (void)state;
    int64_t before_ms = clock_ms();
    double before = clock_seconds();
    clock_sleep_ms(30);
    assert_true(clock_ms() - before_ms >= 29);
    assert_true(clock_seconds() - before >= 0.029);
    char stamp[32];
    clock_stamp(stamp);
    assert_int_equal(strlen(stamp), strlen("2026-01-31T12:00:00.123Z"));
    assert_true(stamp[10] == 'T' && stamp[23] == 'Z');
}

static void log_lines_are_whole_and_filtered(void **state) {
    (void)state;
    int ends[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    log_setup("tester", LOG_WARN);
    log_info("not this");
    log_warn("slow: %d s", 5);
    char huge[5000];
    memset(huge, 'y', sizeof huge - 1);
    huge[sizeof huge - 1] = 0;
    log_error("%s", huge);
    log_setup("tester", LOG_INFO);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    char got[9000];
    ssize_t size = read(ends[0], got, sizeof got - 1);
    close(ends[0]);
    assert_true(size > 0);
    got[size] = 0;
    assert_null(strstr(got, "not this"));
    assert_non_null(strstr(got, " warn tester slow: 5 s\n"));
    assert_int_equal(got[size - 1], '\n');  /* cut, and still a line */
    assert_true((size_t)size < sizeof huge);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_grow_and_end_with_nul),
        cmocka_unit_test(a_ceiling_holds_and_leaves_the_buffer_as_it_was),
        cmocka_unit_test(error_texts_gather_context_per_thread),
        cmocka_unit_test(an_error_is_a_value_that_is_kept_and_passed_on),
        cmocka_unit_test(the_log_says_where_an_error_was_set),
        cmocka_unit_test(a_line_of_the_log_leaves_the_callers_errno),
        cmocka_unit_test(errno_becomes_a_code),
        cmocka_unit_test(memory_is_zeroed_aligned_and_bounded),
        cmocka_unit_test(who_gets_no_small_memory_ends_and_says_so),
        cmocka_unit_test(time_goes_forward),
        cmocka_unit_test(log_lines_are_whole_and_filtered),
        cmocka_unit_test(what_passes_by_itself_is_told_from_what_somebody_must_put_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
