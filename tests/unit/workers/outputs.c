/* What is kept of finished jobs, and until when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "workers/outputs.h"
#include "workers/serve.h"

enum { JOB = 7, FIRST = 100, SECOND = 101 };

static struct worker *begin(void) {
    struct worker *worker = mem_alloc(sizeof *worker);
    pthread_mutex_init(&worker->lock, NULL);
    return worker;
}

static void end(struct worker *worker) {
    outputs_settle_all(worker);
    pthread_mutex_destroy(&worker->lock);
    free(worker);
}

static void keep_of(struct worker *worker, uint64_t job, uint64_t attempt) {
    int fd;
    assert_int_equal(file_open_unnamed(&fd), 0);
    assert_int_equal(file_write_at(fd, &attempt, sizeof attempt, 0), 0);
    assert_int_equal(outputs_keep(worker, job, attempt, fd, sizeof attempt), 0);
}

static void keep(struct worker *worker, uint64_t attempt) { keep_of(worker, JOB, attempt); }

static uint64_t kept(struct worker *worker) {
    uint64_t attempt = 0;
    size_t got = 0;
    int code = outputs_read(worker, &attempt, &got, JOB, 0, sizeof attempt);
    return code == 0 && got == sizeof attempt ? attempt : 0;
}

static void a_settled_output_is_forgotten(void **state) {
    (void)state;
    struct worker *worker = begin();
    keep(worker, FIRST);
    assert_int_equal(kept(worker), FIRST);
    outputs_settle(worker, JOB, FIRST);
    assert_int_equal(kept(worker), 0);
    outputs_settle(worker, JOB, FIRST);
    end(worker);
}

/* It lost its lease and got it again: that the first attempt is settled comes when the second one is done. */
static void what_a_later_attempt_made_stays(void **state) {
    (void)state;
    struct worker *worker = begin();
    keep(worker, FIRST);
    keep(worker, SECOND);
    outputs_settle(worker, JOB, FIRST);
    outputs_settle(worker, JOB, 0);
    assert_int_equal(kept(worker), SECOND);
    outputs_settle(worker, JOB, SECOND);
    assert_int_equal(kept(worker), 0);
    end(worker);
}

/* Wherever in the table the two lie: what is read is what was told last. */
static void of_two_attempts_the_later_one_alone_is_kept(void **state) {
    (void)state;
    struct worker *worker = begin();
    keep_of(worker, JOB + 1, FIRST);
    keep(worker, FIRST);
    outputs_settle(worker, JOB + 1, FIRST);
    keep(worker, SECOND); /* before the place of the first one */
    assert_int_equal(kept(worker), SECOND);
    outputs_settle(worker, JOB, SECOND);
    assert_int_equal(kept(worker), 0);
    for (uint64_t job = 1; job <= OUTPUTS_MAX; job++) keep_of(worker, job, FIRST); /* there is room for as many as before */
    end(worker);
}

/* Its file has no name: the room on the disk is free when nobody has it open any more. */
static void what_is_not_kept_any_more_is_closed(void **state) {
    (void)state;
    struct worker *worker = begin();
    for (uint64_t attempt = FIRST; attempt <= SECOND; attempt++) {
        int fd;
        struct stat st;
        assert_int_equal(file_open_unnamed(&fd), 0);
        assert_int_equal(outputs_keep(worker, JOB, attempt, fd, 0), 0);
        assert_int_equal(fstat(fd, &st), 0);
        outputs_settle(worker, JOB, attempt);
        assert_int_equal(fstat(fd, &st), -1);
    }
    end(worker);
}

static int served(struct worker *worker, uint64_t size) {
    struct buf chunk = {0};
    enum frame_encoding encoding = FRAME_NONE;
    Millrace__Data data = MILLRACE__DATA__INIT;
    Millrace__Read read = MILLRACE__READ__INIT;
    read.what = MILLRACE__READ__WHAT__OUTPUT, read.a = JOB, read.size = size;
    int code = serve_read(worker, &data, &chunk, &encoding, &(struct envelope){.kind = MILLRACE__KIND__READ}, &read);
    if (code == 1) assert_int_equal(chunk.size, sizeof(uint64_t));
    buf_free(&chunk);
    return code;
}

static void a_question_for_more_than_one_may_ask_for_is_refused(void **state) {
    (void)state;
    struct worker *worker = begin();
    keep(worker, FIRST);
    assert_int_equal(served(worker, READ_BYTES_MAX), 1);
    assert_int_equal(served(worker, READ_BYTES_MAX + 1), ERR_PEER);
    end(worker);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_settled_output_is_forgotten),
        cmocka_unit_test(what_a_later_attempt_made_stays),
        cmocka_unit_test(of_two_attempts_the_later_one_alone_is_kept),
        cmocka_unit_test(what_is_not_kept_any_more_is_closed),
        cmocka_unit_test(a_question_for_more_than_one_may_ask_for_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
