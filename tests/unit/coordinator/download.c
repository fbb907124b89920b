/* Outputs are checked and named by the thread for files; the loop goes on meanwhile, and what ended meanwhile is dropped. The check stands
 * still at a gate for as long as a test wants. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/arrivals.h"
#include "coordinator/context.h"
#include "coordinator/dispatch.h"
#include "coordinator/download.h"
#include "coordinator/files.h"
#include "coordinator/parts.h"
#include "coordinator/roster.h"
#include "proto/body.h"
#include "proto/frame.h"
#include "proto/reads.h"

enum { PEER = 5, JOB = 3 };

static char folder[64], path[100];
static struct config config = {.cluster.lease_seconds = 10};
static struct context *c;
static const uint8_t bytes[] = "the output of a job";
static pthread_t loop;
static atomic_bool gate, waits, in_loop;
static int verdict;

static void wake(void *arg) { (void)arg; }

static int begin(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/millrace-download-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/output", folder);
    c = mem_alloc(sizeof *c);
    c->config = &config;
    parts_open(c);
    c->workers = 1;
    c->worker[0] = (struct worker_entry){.peer = PEER, .id = "w-0", .state = WORKER_READY};
    loop = pthread_self();
    gate = waits = in_loop = false;
    verdict = 0;
    return files_open(&c->files, wake, NULL);
}

static int end(void **state) {
    (void)state;
    size_t swept = 0;
    atomic_store(&gate, false);
    files_close(c->files, c);
    parts_close(c);
    free(c);
    assert_int_equal(drafts_sweep(&swept, folder), 0);
    assert_int_equal(swept, 0); /* nothing is left beside what has its name */
    return folder_remove(folder);
}

static int check(const struct arrival_terms *terms, const Millrace__Lease *lease, const Millrace__Done *done, const char *draft) {
    uint64_t size = 0;
    (void)terms, (void)lease;
    atomic_store(&in_loop, pthread_equal(pthread_self(), loop));
    while (atomic_load(&gate)) {
        atomic_store(&waits, true);
        clock_sleep_ms(1);
    }
    if (verdict < 0) return err_set(verdict, "the check says so");
    return file_size(&size, draft) == 0 && size == done->size ? 0 : err_set(ERR_CORRUPT, "another size");
}

/* The worker tells of its output. */
static void ask_for(uint32_t attempt) {
    Millrace__Done done = MILLRACE__DONE__INIT;
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    struct buf spec = {0};
    uint8_t digest[SHA256_BYTES];
    sha256_of(digest, bytes, sizeof bytes);
    done.digest = (ProtobufCBinaryData){sizeof digest, digest};
    done.size = sizeof bytes;
    assert_int_equal(body_pack(&spec, &lease.base), 0);
    struct download_order order = {.job = JOB, .attempt = attempt, .path = path, .spec = &spec, .done = &done, .check = check};
    assert_int_equal(download_begin(c, &order), 0);
    buf_free(&spec);
    assert_int_equal(c->reads.count, 1);
}

/* And gives so much of it. */
static void give_bytes(uint32_t attempt, size_t size_bytes) {
    static const uint8_t more[sizeof bytes + 1] = "the output of a job";
    Millrace__Data data = MILLRACE__DATA__INIT;
    struct read read;
    ask_for(attempt);
    assert_true(reads_take(&c->reads, &read, c->reads.read[0].id));
    struct message message = {.envelope = {.kind = MILLRACE__KIND__DATA}, .body = &data.base, .chunk = more, .chunk_bytes = size_bytes};
    download_data(c, &read, &message);
}

static void give(uint32_t attempt) { give_bytes(attempt, sizeof bytes); }

static void wait_for_gate(void) {
    while (!atomic_load(&waits)) clock_sleep_ms(1);
}

/* Its `done` is the test's to free. */
static struct download_event news(void) {
    struct download_event event;
    files_drain(c->files, c);
    assert_true(download_event(c, &event));
    if (event.done) millrace__done__free_unpacked(event.done, NULL);
    struct download_event more;
    assert_false(download_event(c, &more));
    return event;
}

static void an_output_is_checked_and_named_by_the_thread(void **state) {
    (void)state;
    struct download_event event;
    atomic_store(&gate, true);
    give(7);
    wait_for_gate();
    files_poll(c->files, c);
    download_tick(c, clock_ms() + 60000); /* however long it takes, the worker gave it */
    assert_false(download_event(c, &event));
    assert_false(file_exists(path));
    atomic_store(&gate, false);
    event = news();
    assert_int_equal(event.news, DOWNLOAD_ARRIVED);
    assert_int_equal(event.job, JOB);
    assert_int_equal(event.attempt, 7);
    assert_true(file_exists(path));
    assert_false(in_loop);
}

static void what_ended_meanwhile_gets_no_name_and_tells_nothing(void **state) {
    (void)state;
    struct download_event event;
    atomic_store(&gate, true);
    give(1);
    wait_for_gate();
    download_drop_worker(c, 0);
    atomic_store(&gate, false);
    files_drain(c->files, c);
    assert_false(download_event(c, &event));
    assert_false(file_exists(path));
}

/* The same job by the same worker, given again while the first one is still looked at. */
static void only_the_later_one_of_two_is_told(void **state) {
    (void)state;
    atomic_store(&gate, true);
    give(1);
    wait_for_gate();
    download_drop_worker(c, 0);
    give(2);
    atomic_store(&gate, false);
    struct download_event event = news();
    assert_int_equal(event.news, DOWNLOAD_ARRIVED);
    assert_int_equal(event.attempt, 2);
    assert_true(file_exists(path));
}

static void whose_fault_it_is_the_check_says(void **state) {
    (void)state;
    const int codes[] = {ERR_PEER, ERR_CORRUPT, ERR_IO, ERR_DENIED};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        verdict = codes[i];
        give((uint32_t)i);
        struct download_event event = news();
        assert_int_equal(event.news, i < 2 ? DOWNLOAD_BROKEN : DOWNLOAD_PUT_OFF);
        assert_string_equal(event.why, i < 2 ? "its output is not what it must be: the check says so" : "the check says so");
        assert_false(file_exists(path));
    }
}

static void a_piece_of_another_size_than_was_asked_for_is_none(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        give_bytes(i, i ? sizeof bytes + 1 : sizeof bytes - 1);
        struct download_event event = news();
        assert_int_equal(event.news, DOWNLOAD_BROKEN);
        assert_non_null(strstr(event.why, "does not give its output"));
    }
}

static int stand(void *arg, const atomic_bool *stop) {
    (void)arg, (void)stop;
    while (atomic_load(&gate)) clock_sleep_ms(1);
    return 0;
}

static void stood(void *owner, void *arg, int code) { (void)owner, (void)arg, (void)code; }

static void what_finds_the_queue_full_is_posted_later(void **state) {
    (void)state;
    struct download_event event;
    atomic_store(&gate, true);
    while (files_post(c->files, &(struct file_task){.run = stand, .done = stood})) {}
    give(1);
    download_tick(c, clock_ms());
    atomic_store(&gate, false);
    files_drain(c->files, c);
    assert_false(download_event(c, &event));
    download_tick(c, clock_ms());
    assert_int_equal(news().news, DOWNLOAD_ARRIVED);
}

/* With a short lease, too: a question or its answer may be lost, and is asked again after READ_AGAIN_MS. */
static void a_lost_answer_is_asked_for_again_before_anybody_is_blamed(void **state) {
    (void)state;
    struct download_event event;
    config.cluster.lease_seconds = 1;
    ask_for(1);
    int64_t now = clock_ms();
    download_tick(c, now + 2 * READ_AGAIN_MS);
    assert_false(download_event(c, &event));
    download_tick(c, now + 4 * READ_AGAIN_MS);
    config.cluster.lease_seconds = 10;
    event = news();
    assert_int_equal(event.news, DOWNLOAD_BROKEN);
    assert_non_null(strstr(event.why, "does not give its output"));
}

static void an_answer_that_nobody_looked_for_is_not_late(void **state) {
    (void)state;
    struct download_event event;
    ask_for(1);
    int64_t now = clock_ms() + 60000;
    download_pause(c, 60000, now);
    download_tick(c, now + 9000);
    assert_false(download_event(c, &event));
    download_tick(c, now + 11000);
    assert_int_equal(news().news, DOWNLOAD_BROKEN);
}

static void a_coordinator_that_ends_leaves_nothing_half_done(void **state) {
    (void)state;
    atomic_store(&gate, true);
    give(1);
    atomic_store(&gate, false); /* through or not: end() looks */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_output_is_checked_and_named_by_the_thread, begin, end),
        cmocka_unit_test_setup_teardown(what_ended_meanwhile_gets_no_name_and_tells_nothing, begin, end),
        cmocka_unit_test_setup_teardown(only_the_later_one_of_two_is_told, begin, end),
        cmocka_unit_test_setup_teardown(whose_fault_it_is_the_check_says, begin, end),
        cmocka_unit_test_setup_teardown(a_piece_of_another_size_than_was_asked_for_is_none, begin, end),
        cmocka_unit_test_setup_teardown(what_finds_the_queue_full_is_posted_later, begin, end),
        cmocka_unit_test_setup_teardown(a_lost_answer_is_asked_for_again_before_anybody_is_blamed, begin, end),
        cmocka_unit_test_setup_teardown(an_answer_that_nobody_looked_for_is_not_late, begin, end),
        cmocka_unit_test_setup_teardown(a_coordinator_that_ends_leaves_nothing_half_done, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
