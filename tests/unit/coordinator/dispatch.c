/* Who gets a job that failed: somebody else, as long as somebody else may be given it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/dispatch.h"
#include "coordinator/parts.h"
#include "coordinator/queue.h"
#include "coordinator/roster.h"
#include "coordinator/store.h"
#include "proto/body.h"
#include "proto/frame.h"

static char folder[64];
static struct context *c;

static bool fits(const Millrace__Done *done) { return done->result_case == MILLRACE__DONE__RESULT_PACK; }

static uint64_t done_weight(const Millrace__Done *done) { return done->pack->tokens; }

static int refuse_result(struct context *context, size_t job, const Millrace__Done *done, const struct buf *done_bytes, uint32_t worker) {
    (void)context, (void)job, (void)done, (void)done_bytes, (void)worker;
    return err_set(ERR_CORRUPT, "what came of it cannot be");
}

/* Without an output. */
static const struct job_kind kind = {.stage = STAGE_PACK, .work = MILLRACE__LEASE__WORK_PACK, .fits = fits, .done_weight = done_weight,
                                     .done = refuse_result};

static void fail_at(uint32_t worker) {
    Millrace__Failed failed = MILLRACE__FAILED__INIT;
    struct message message = {.envelope = {.kind = MILLRACE__KIND__FAILED, .job = (uint64_t)(STAGE_PACK + 1) << 40}, .body = &failed.base};
    failed.reason = "nobody knows why";
    message.envelope.attempt = dispatch_queue(c)->job[0].attempt;
    dispatch_message(c, worker, &message);
}

/* One job, which failed at the first of two workers. */
static int begin(void **state) {
    (void)state;
    static struct config config = {.cluster.attempts_max = 3};
    Millrace__PackJob job = MILLRACE__PACK_JOB__INIT;
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    struct buf spec = {0};
    snprintf(folder, sizeof folder, "/tmp/millrace-jobs-XXXXXX");
    c = mem_alloc(sizeof *c);
    c->config = &config;
    parts_open(c);
    if (!mkdtemp(folder) || store_open(&c->store, folder) < 0) return -1;
    c->stage = STAGE_PACK;
    c->workers = 2;
    for (int i = 0; i < 2; i++) c->worker[i].state = WORKER_READY, snprintf(c->worker[i].id, sizeof c->worker[i].id, "w-%d", i);
    lease.work_case = MILLRACE__LEASE__WORK_PACK, lease.pack = &job;
    if (body_pack(&spec, &lease.base) < 0) return -1;
    dispatch_begin(c, &kind, 0);
    dispatch_add(c, &spec, QUEUE_ANYONE);
    dispatch_lease(c);
    if (c->worker[0].leases != 1) return -1;
    fail_at(0);
    c->worker[0].rests_until_ms = 0;
    return 0;
}

static int end(void **state) {
    (void)state;
    parts_close(c);
    store_close(c->store);
    free(c);
    return folder_remove(folder);
}

static uint32_t who_gets_it(void) {
    dispatch_lease(c);
    const struct job *job = &dispatch_queue(c)->job[0];
    return job->state == JOB_LEASED ? job->worker : QUEUE_ANYONE;
}

static void a_job_that_failed_goes_to_another_worker(void **state) {
    (void)state;
    assert_int_equal(who_gets_it(), 1);
}

static void a_job_does_not_wait_for_who_was_set_aside(void **state) {
    (void)state;
    roster_set_aside(c, 1, "it held another result than most others");
    assert_int_equal(who_gets_it(), 0);
}

static void a_job_does_not_wait_for_who_is_leaving(void **state) {
    (void)state;
    c->worker[1].leaving = true;
    assert_int_equal(who_gets_it(), 0);
}

static void a_result_without_an_output_that_cannot_be_used_ends_the_run(void **state) {
    (void)state;
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    done.result_case = MILLRACE__DONE__RESULT_PACK, done.pack = &result;
    assert_int_equal(who_gets_it(), 1);
    struct message message = {.envelope = {.kind = MILLRACE__KIND__DONE, .job = (uint64_t)(STAGE_PACK + 1) << 40}, .body = &done.base};
    message.envelope.attempt = dispatch_queue(c)->job[0].attempt;
    dispatch_message(c, 1, &message);
    assert_true(c->ended && c->outcome == ERR_CORRUPT);
    assert_string_equal(c->reason, "what came of it cannot be");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_job_that_failed_goes_to_another_worker, begin, end),
        cmocka_unit_test_setup_teardown(a_job_does_not_wait_for_who_was_set_aside, begin, end),
        cmocka_unit_test_setup_teardown(a_job_does_not_wait_for_who_is_leaving, begin, end),
        cmocka_unit_test_setup_teardown(a_result_without_an_output_that_cannot_be_used_ends_the_run, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
