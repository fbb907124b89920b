/* Who gets a job that failed: somebody else, as long as somebody else may be given it. How often it failed is known over a restart. Whoever
 * tells of a job hears that this is settled, and lets go of what it kept for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/dispatch.h"
#include "coordinator/download.h"
#include "coordinator/files.h"
#include "coordinator/parts.h"
#include "coordinator/queue.h"
#include "coordinator/roster.h"
#include "coordinator/store.h"
#include "dataset/tokenizer/tokenizer.h"
#include "proto/body.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "tests/unit/world.h"

static char folder[64];
static struct context *c;

static bool fits(const Millrace__Done *done) { return done->result_case == MILLRACE__DONE__RESULT_PACK; }

static uint64_t done_weight(const Millrace__Done *done) { return done->pack->tokens; }

static int refuse_result(struct context *context, size_t job, const Millrace__Done *done, const struct buf *done_bytes, uint32_t worker) {
    (void)context, (void)job, (void)done, (void)done_bytes, (void)worker;
    return err_set(ERR_CORRUPT, "what came of it cannot be");
}

static int take_result(struct context *context, size_t job, const Millrace__Done *done, const struct buf *done_bytes, uint32_t worker) {
    (void)context, (void)job, (void)done, (void)done_bytes, (void)worker;
    return 0;
}

static uint64_t weight(const Millrace__Lease *lease) { return lease->pack->tokens; }

static char *no_path(const struct context *context, size_t job) { return (void)context, (void)job, NULL; }

static uint64_t ten_bytes(const Millrace__Lease *lease) { return (void)lease, 10; }

/* Without an output, and a result that is no good; the same with a good one; in the store; with an output. */
static const struct job_kind kind = {.stage = STAGE_PACK, .work = MILLRACE__LEASE__WORK_PACK, .fits = fits, .done_weight = done_weight,
                                     .done = refuse_result};
static const struct job_kind good = {.stage = STAGE_PACK, .work = MILLRACE__LEASE__WORK_PACK, .fits = fits, .done_weight = done_weight,
                                     .done = take_result};
static const struct job_kind recorded = {.stage = STAGE_PACK, .work = MILLRACE__LEASE__WORK_PACK, .fits = fits, .weight = weight,
                                         .done_weight = done_weight, .done = refuse_result, .recorded = true};
static const struct job_kind with_output = {.stage = STAGE_PACK, .work = MILLRACE__LEASE__WORK_PACK, .fits = fits, .weight = weight,
                                            .done_weight = done_weight, .path = no_path, .bytes_max = ten_bytes};

static void tell(uint32_t worker, uint32_t what, const ProtobufCMessage *body) {
    struct message message = {.envelope = {.kind = what, .job = (uint64_t)(STAGE_PACK + 1) << 40}, .body = (ProtobufCMessage *)body};
    message.envelope.attempt = dispatch_queue(c)->job[0].attempt;
    dispatch_message(c, worker, &message);
}

static void fail_at(uint32_t worker) {
    Millrace__Failed failed = MILLRACE__FAILED__INIT;
    failed.reason = "nobody knows why";
    tell(worker, MILLRACE__KIND__FAILED, &failed.base);
}

static int pack_spec(struct buf *spec) {
    Millrace__PackJob job = MILLRACE__PACK_JOB__INIT;
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    lease.work_case = MILLRACE__LEASE__WORK_PACK, lease.pack = &job;
    return body_pack(spec, &lease.base);
}

/* One job, which failed at the first of two workers. */
static int begin(void **state) {
    (void)state;
    static struct config config = {.cluster = {.attempts_max = 3, .lease_seconds = 10}};
    struct buf spec = {0};
    world_begin(random_open("dispatch"));
    snprintf(folder, sizeof folder, "/tmp/millrace-jobs-XXXXXX");
    c = mem_alloc(sizeof *c);
    c->config = &config;
    parts_open(c);
    if (!mkdtemp(folder) || store_open(&c->store, folder) < 0) return -1;
    c->stage = STAGE_PACK;
    c->workers = 2;
    for (int i = 0; i < 2; i++) c->worker[i].state = WORKER_READY, snprintf(c->worker[i].id, sizeof c->worker[i].id, "w-%d", i);
    if (pack_spec(&spec) < 0) return -1;
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

/* A worker at which all fails must not use up the attempts of every job within a moment. */
static void who_failed_at_a_job_rests_before_it_gets_one(void **state) {
    (void)state;
    c->worker[1].leaving = true;
    assert_int_equal(who_gets_it(), 0);
    int64_t before = clock_ms();
    fail_at(0);
    assert_int_equal(who_gets_it(), QUEUE_ANYONE);
    assert_true(c->worker[0].rests_until_ms >= before + 1000);
    c->worker[0].rests_until_ms = clock_ms();
    assert_int_equal(who_gets_it(), 0);
}

/* What stood in its way passed; it was not its own fault. */
static void who_does_a_job_that_it_failed_at_is_not_blamed(void **state) {
    (void)state;
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    done.result_case = MILLRACE__DONE__RESULT_PACK, done.pack = &result;
    c->worker[1].leaving = true;
    for (int times = 0; times < WORKER_BLAMED_MAX; times++) {
        struct buf spec = {0};
        assert_int_equal(pack_spec(&spec), 0);
        dispatch_begin(c, &good, 0);
        dispatch_add(c, &spec, QUEUE_ANYONE);
        assert_int_equal(who_gets_it(), 0);
        fail_at(0);
        c->worker[0].rests_until_ms = 0;
        assert_int_equal(who_gets_it(), 0);
        tell(0, MILLRACE__KIND__DONE, &done.base);
        assert_true(queue_finished(dispatch_queue(c)));
    }
    assert_int_equal(c->worker[0].blamed, 0);
    assert_string_equal(c->worker[0].aside, "");
}

static bool no_memory; /* for a message that is unpacked */

int __real_body_unpack(void *out_pointer, const ProtobufCMessageDescriptor *type, const void *bytes, size_t size_bytes);
int __wrap_body_unpack(void *out_pointer, const ProtobufCMessageDescriptor *type, const void *bytes, size_t size_bytes);
int __wrap_body_unpack(void *out_pointer, const ProtobufCMessageDescriptor *type, const void *bytes, size_t size_bytes) {
    return no_memory ? mem_wanted(7, "") : __real_body_unpack(out_pointer, type, bytes, size_bytes);
}

static void no_memory_for_a_job_is_told_as_that(void **state) {
    (void)state;
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    struct buf spec = {0};
    done.result_case = MILLRACE__DONE__RESULT_PACK, done.pack = &result;
    assert_int_equal(pack_spec(&spec), 0);
    assert_int_equal(store_job_add(c->store, "pack", 0, spec.data, spec.size), 0);
    no_memory = true;
    int code = dispatch_load(c, &recorded);
    no_memory = false;
    assert_int_equal(code, ERR_MEMORY); /* the database is not damaged */
    assert_non_null(strstr(err_text(), MEM_EXHAUSTED "7 bytes"));
    dispatch_begin(c, &with_output, 0);
    dispatch_add(c, &spec, QUEUE_ANYONE);
    c->worker[1].leaving = true;
    assert_int_equal(who_gets_it(), 0);
    no_memory = true;
    tell(0, MILLRACE__KIND__DONE, &done.base);
    no_memory = false;
    assert_int_equal(dispatch_queue(c)->job[0].failures, 0); /* nor is who did it at fault */
    assert_int_equal(dispatch_queue(c)->job[0].state, JOB_PENDING);
    assert_false(c->ended);
    clock_sleep_ms(60000);
    no_memory = true;
    dispatch_lease(c);
    no_memory = false;
    assert_true(c->ended && c->outcome == ERR_MEMORY);
    assert_non_null(strstr(c->reason, MEM_EXHAUSTED "7 bytes"));
}

/* In a full table newcomers get the numbers of those who are gone. */
static void what_failed_at_one_does_not_count_against_who_gets_its_number(void **state) {
    (void)state;
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    Millrace__Hello hello = MILLRACE__HELLO__INIT;
    struct roster_event event;
    struct buf spec = {0};
    done.result_case = MILLRACE__DONE__RESULT_PACK, done.pack = &result;
    hello.worker = "w-new", hello.host = "host", hello.endpoint = "tcp://127.0.0.1:1", hello.build = "build";
    assert_int_equal(pack_spec(&spec), 0);
    dispatch_begin(c, &good, 0);
    dispatch_add(c, &spec, QUEUE_ANYONE);
    assert_int_equal(who_gets_it(), 0);
    fail_at(0);
    assert_int_equal(link_open(&c->link, &(struct link_options){.bind = "tcp://127.0.0.1:*"}), 0);
    for (c->workers = 2; c->workers < WORKERS_MAX; c->workers++)
        c->worker[c->workers] = (struct worker_entry){.id = "w-gone", .state = WORKER_LEFT, .heard_ms = clock_ms()};
    roster_lost(c, 0, WORKER_LOST, "gone");
    roster_message(c, 9, &(struct message){.envelope = {.kind = MILLRACE__KIND__HELLO}, .body = &hello.base});
    assert_string_equal(c->worker[0].id, "w-new");
    while (roster_event(c, &event)) {
        if (event.news == ROSTER_GONE) dispatch_release(c, event.worker, event.lost);
        if (event.news == ROSTER_OTHER) dispatch_forget(c, event.worker);
    }
    c->worker[0].state = WORKER_READY;
    assert_int_equal(dispatch_queue(c)->job[0].failures, 1);
    assert_int_equal(who_gets_it(), 0); /* it may do better, and is not behind the other one */
    dispatch_release(c, 0, false);
    c->worker[0].leases = 0, c->worker[0].leaving = true;
    assert_int_equal(who_gets_it(), 1);
    tell(1, MILLRACE__KIND__DONE, &done.base);
    assert_true(queue_finished(dispatch_queue(c)));
    assert_int_equal(c->worker[0].blamed, 0);
    link_close(c->link);
}

static void a_result_without_an_output_that_cannot_be_used_ends_the_run(void **state) {
    (void)state;
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    done.result_case = MILLRACE__DONE__RESULT_PACK, done.pack = &result;
    assert_int_equal(who_gets_it(), 1);
    tell(1, MILLRACE__KIND__DONE, &done.base);
    assert_true(c->ended && c->outcome == ERR_CORRUPT);
    assert_string_equal(c->reason, "what came of it cannot be");
}

static void a_stored_result_of_another_kind_of_job_is_damage(void **state) {
    (void)state;
    struct buf spec = {0}, result = {0};
    Millrace__Done done = MILLRACE__DONE__INIT;
    Millrace__EvaluateResult other = MILLRACE__EVALUATE_RESULT__INIT;
    Millrace__PackResult own = MILLRACE__PACK_RESULT__INIT;
    for (int fitting = 1; fitting >= 0; fitting--) {
        done.result_case = fitting ? MILLRACE__DONE__RESULT_PACK : MILLRACE__DONE__RESULT_EVALUATE;
        if (fitting) done.pack = &own;
        else done.evaluate = &other;
        assert_int_equal(store_jobs_drop(c->store, stage_name(STAGE_PACK)), 0);
        buf_clear(&spec), buf_clear(&result);
        assert_int_equal(pack_spec(&spec), 0);
        assert_int_equal(body_pack(&result, &done.base), 0);
        assert_int_equal(store_job_add(c->store, stage_name(STAGE_PACK), 0, spec.data, spec.size), 0);
        assert_int_equal(store_job_done(c->store, stage_name(STAGE_PACK), 0, "w", result.data, result.size), 0);
        assert_int_equal(dispatch_load(c, &recorded), fitting ? 0 : ERR_CORRUPT);
    }
    buf_free(&spec), buf_free(&result);
}

/* Of what an earlier coordinator did nobody learns how fast this one is. */
static void what_was_done_before_counts_as_done_at_the_start(void **state) {
    (void)state;
    enum { JOBS = 10 };
    struct buf spec = {0}, bytes = {0};
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    done.result_case = MILLRACE__DONE__RESULT_PACK, done.pack = &result;
    result.tokens = 3;
    assert_int_equal(pack_spec(&spec), 0);
    assert_int_equal(body_pack(&bytes, &done.base), 0);
    for (uint64_t job = 0; job < JOBS; job++) {
        assert_int_equal(store_job_add(c->store, stage_name(STAGE_PACK), job, spec.data, spec.size), 0);
        if (job == 4) continue;
        assert_int_equal(store_job_done(c->store, stage_name(STAGE_PACK), job, "w", bytes.data, bytes.size), 0);
    }
    assert_int_equal(dispatch_load(c, &recorded), 0);
    assert_int_equal(c->progress.done, (JOBS - 1) * result.tokens);
    assert_int_equal(c->progress.done_at_start, c->progress.done);
    buf_free(&spec), buf_free(&bytes);
}

static void failures_count_over_restarts(void **state) {
    (void)state;
    struct buf spec = {0};
    c->workers = 1;
    assert_int_equal(pack_spec(&spec), 0);
    assert_int_equal(store_job_add(c->store, stage_name(STAGE_PACK), 0, spec.data, spec.size), 0);
    buf_free(&spec);
    for (int times = 0; times < 3; times++) {
        assert_false(c->ended);
        assert_int_equal(dispatch_load(c, &recorded), 0); /* another coordinator does no more than that */
        c->worker[0].rests_until_ms = 0;
        assert_int_equal(who_gets_it(), 0);
        fail_at(0);
    }
    assert_true(c->ended && c->outcome == ERR_IO);
}

/* Its build is older than the job. */
static void who_does_not_know_the_work_leaves_no_failure_on_record(void **state) {
    (void)state;
    struct buf spec = {0};
    Millrace__Failed failed = MILLRACE__FAILED__INIT;
    failed.reason = "this worker does not know it", failed.unknown = true;
    assert_int_equal(pack_spec(&spec), 0);
    assert_int_equal(store_job_add(c->store, stage_name(STAGE_PACK), 0, spec.data, spec.size), 0);
    buf_free(&spec);
    assert_int_equal(dispatch_load(c, &recorded), 0);
    assert_int_equal(who_gets_it(), 0);
    tell(0, MILLRACE__KIND__FAILED, &failed.base);
    assert_int_equal(dispatch_queue(c)->job[0].failures, 0);
    assert_int_equal(who_gets_it(), 1);
    assert_int_equal(dispatch_load(c, &recorded), 0);
    assert_int_equal(dispatch_queue(c)->job[0].failures, 0);
}

/* It can train as well as the others, who would have to do without it. */
static void who_does_not_know_the_work_is_not_blamed_for_it(void **state) {
    (void)state;
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    Millrace__Failed failed = MILLRACE__FAILED__INIT;
    done.result_case = MILLRACE__DONE__RESULT_PACK, done.pack = &result;
    failed.reason = "this worker does not know it";
    for (int knows = 0; knows < 2; knows++) {
        failed.unknown = !knows;
        for (int times = 0; times < WORKER_BLAMED_MAX; times++) {
            struct buf spec = {0};
            assert_int_equal(pack_spec(&spec), 0);
            dispatch_begin(c, &good, 0);
            dispatch_add(c, &spec, QUEUE_ANYONE);
            c->worker[0].rests_until_ms = 0;
            assert_int_equal(who_gets_it(), 0);
            tell(0, MILLRACE__KIND__FAILED, &failed.base);
            assert_int_equal(who_gets_it(), 1);
            tell(1, MILLRACE__KIND__DONE, &done.base);
            assert_true(queue_finished(dispatch_queue(c)));
        }
        assert_int_equal(c->worker[0].aside[0] != 0, knows);
    }
}

static void idle_for(uint32_t worker, int64_t milliseconds) {
    Millrace__Heartbeat beat = MILLRACE__HEARTBEAT__INIT;
    for (int64_t until = clock_ms() + milliseconds; clock_ms() < until && c->worker[worker].state != WORKER_LOST; world.now_ms += 500) {
        c->worker[worker].peer = 7, c->worker[worker].unreachable = false;
        roster_message(c, 7, &(struct message){.envelope = {.kind = MILLRACE__KIND__HEARTBEAT}, .body = &beat.base});
        c->worker[worker].heard_ms = clock_ms();
        c->worker[worker].peer = 0; /* there is nobody behind that connection: nothing is sent */
        c->worker[1 - worker].heard_ms = c->worker[1 - worker].moved_ms = clock_ms();
        dispatch_lease(c);
        roster_tick(c, clock_ms());
    }
}

/* It lives, and says that it has nothing to do. */
static void who_keeps_a_job_and_does_not_work_is_lost_and_another_gets_it(void **state) {
    (void)state;
    assert_int_equal(who_gets_it(), 1);
    idle_for(1, 9000);
    assert_int_equal(c->worker[1].state, WORKER_BUSY);
    idle_for(1, 3000);
    assert_int_equal(c->worker[1].state, WORKER_LOST);
    dispatch_release(c, 1, true);
    assert_int_equal(who_gets_it(), 0);
}

/* Its output is fetched: that may take any time. */
static void who_told_of_its_job_may_rest(void **state) {
    (void)state;
    assert_int_equal(who_gets_it(), 1);
    queue_told((struct queue *)dispatch_queue(c), 0, clock_ms());
    idle_for(1, 60000);
    assert_int_equal(c->worker[1].state, WORKER_BUSY);
}

/* How often the worker hears that its job is settled, since the last call. */
static size_t settled(struct link *link) {
    struct message message;
    uint64_t peer;
    size_t count = 0;
    while (link_receive(link, &peer, &message, 10) == 1) {
        if (message.envelope.kind == MILLRACE__KIND__SETTLED) {
            assert_true(message.envelope.job == (uint64_t)(STAGE_PACK + 1) << 40);
            count++;
        }
        message_free(&message);
    }
    return count;
}

/* Worker 0, the only one, with a link of its own. */
static struct link *connect_worker(void) {
    struct link *link;
    struct frame frame;
    struct message message;
    uint64_t at;
    const struct link_options options = {.bind = "tcp://127.0.0.1:*", .frame_max = 1 << 20};
    assert_int_equal(link_open(&c->link, &options), 0);
    assert_int_equal(link_open(&link, &options), 0);
    assert_int_equal(link_connect(link, &at, link_endpoint(c->link)), 0);
    assert_int_equal(frame_pack(&frame, &(struct envelope){.kind = MILLRACE__KIND__READY}, NULL, NULL, 0, FRAME_NONE), 0);
    assert_int_equal(link_send(link, at, &frame), 0);
    assert_int_equal(link_receive(c->link, &c->worker[0].peer, &message, 1000), 1);
    message_free(&message);
    c->workers = 1;
    return link;
}

static void whatever_is_told_of_a_job_is_settled(void **state) {
    (void)state;
    struct link *link = connect_worker();
    struct buf spec = {0};
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    dispatch_begin(c, &with_output, 0);
    assert_int_equal(pack_spec(&spec), 0);
    dispatch_add(c, &spec, QUEUE_ANYONE);

    assert_int_equal(who_gets_it(), 0);
    tell(0, MILLRACE__KIND__DONE, &done.base); /* without the result of such a job */
    assert_int_equal(settled(link), 1);
    c->worker[0].rests_until_ms = 0;
    assert_int_equal(who_gets_it(), 0);
    done.result_case = MILLRACE__DONE__RESULT_PACK, done.pack = &result;
    done.size = 11; /* more than can come of it */
    tell(0, MILLRACE__KIND__DONE, &done.base);
    assert_int_equal(settled(link), 1);
    tell(0, MILLRACE__KIND__DONE, &done.base); /* once more, of a lease that is over */
    assert_int_equal(settled(link), 1);
    c->worker[0].rests_until_ms = 0;
    assert_int_equal(who_gets_it(), 0);
    fail_at(0);
    assert_int_equal(settled(link), 1);
    link_close(link);
    link_close(c->link);
}

static char *some_path(const struct context *context, size_t job) { return mem_format("%s/%p-%zu", folder, (const void *)context, job); }

/* One job of that kind, whose output is kept in the folder; dispatch_clear() and tokenizer_close() end it. */
static void begin_kept(struct job_kind *kept) {
    struct buf spec = {0};
    kept->path = some_path;
    assert_int_equal(tokenizer_open_gpt2(&c->tokenizer), 0);
    assert_int_equal(pack_spec(&spec), 0);
    dispatch_begin(c, kept, 0);
    dispatch_add(c, &spec, QUEUE_ANYONE);
}

static int cannot_keep(const struct arrival_terms *terms, const Millrace__Lease *lease, const Millrace__Done *done, const char *path) {
    (void)terms, (void)lease, (void)done, (void)path;
    return err_set(ERR_IO, "the disk does not take it");
}

static void wake(void *arg) { (void)arg; }

/* The job is done again: a worker that kept all such outputs would have room for no more. */
static void who_made_what_cannot_be_kept_lets_go_of_it(void **state) {
    (void)state;
    struct link *link = connect_worker();
    struct job_kind kept = with_output;
    uint8_t digest[SHA256_BYTES];
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    sha256_of(digest, "", 0);
    done.result_case = MILLRACE__DONE__RESULT_PACK, done.pack = &result;
    done.digest = (ProtobufCBinaryData){sizeof digest, digest};
    kept.check = cannot_keep;
    assert_int_equal(files_open(&c->files, wake, NULL), 0);
    begin_kept(&kept);
    assert_int_equal(who_gets_it(), 0);
    tell(0, MILLRACE__KIND__DONE, &done.base);
    files_drain(c->files, c);
    dispatch_outputs(c);
    assert_int_equal(dispatch_queue(c)->job[0].state, JOB_PENDING);
    assert_int_equal(settled(link), 1);
    assert_int_equal(dispatch_queue(c)->job[0].failures, 0);
    dispatch_clear(c);
    files_close(c->files, c);
    c->files = NULL;
    tokenizer_close(c->tokenizer);
    link_close(link);
    link_close(c->link);
}

/* It did its job: what is in the way is the coordinator's, and passes. */
static void who_made_what_cannot_be_kept_now_gets_jobs_as_before(void **state) {
    (void)state;
    struct job_kind kept = with_output;
    struct rlimit files, none;
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    done.result_case = MILLRACE__DONE__RESULT_PACK, done.pack = &result;
    c->worker[1].leaving = true;
    begin_kept(&kept);
    for (int times = 0; times < 5; times++) {
        assert_int_equal(who_gets_it(), 0);
        assert_int_equal(c->worker[0].leases, 1);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
        none = (struct rlimit){0, files.rlim_max}; /* no file can be opened */
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        tell(0, MILLRACE__KIND__DONE, &done.base);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
        assert_false(c->ended);
        assert_int_equal(c->worker[0].leases, 0);
        assert_string_not_equal(paused_why(c), "");
        clock_sleep_ms(60000);
    }
    dispatch_clear(c);
    tokenizer_close(c->tokenizer);
}

/* It told of a result, and then that it failed after all: its output is still asked for while another does the job. */
static void an_output_that_does_not_come_is_no_failure_of_who_has_the_job_now(void **state) {
    (void)state;
    struct job_kind kept = with_output;
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    done.result_case = MILLRACE__DONE__RESULT_PACK, done.pack = &result, done.size = 10;
    c->worker[1].leaving = true;
    begin_kept(&kept);
    assert_int_equal(who_gets_it(), 0);
    tell(0, MILLRACE__KIND__DONE, &done.base);
    c->worker[1].leaving = false;
    fail_at(0);
    assert_int_equal(who_gets_it(), 1);
    download_tick(c, clock_ms() + 3600000);
    dispatch_outputs(c);
    const struct job *job = &dispatch_queue(c)->job[0];
    assert_int_equal(job->state, JOB_LEASED);
    assert_int_equal(job->worker, 1);
    assert_int_equal(job->failures, 1);
    dispatch_clear(c);
    tokenizer_close(c->tokenizer);
}

/* Jobs of an evaluation are handed out while a checkpoint waits. */
static void who_hands_out_jobs_leaves_the_reason_of_others(void **state) {
    (void)state;
    assert_string_equal(paused_why(c), "");
    for (int clears = 0; clears < 2; clears++) {
        snprintf(c->paused_why[PAUSED_CHECKPOINT], sizeof c->paused_why[0], "the disk is full");
        snprintf(c->paused_why[PAUSED_JOBS], sizeof c->paused_why[0], "an output cannot be kept");
        assert_string_equal(paused_why(c), "the disk is full");
        if (clears) dispatch_clear(c);
        else dispatch_lease(c);
        assert_string_equal(c->paused_why[PAUSED_JOBS], "");
        assert_string_equal(paused_why(c), "the disk is full");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_job_that_failed_goes_to_another_worker, begin, end),
        cmocka_unit_test_setup_teardown(a_job_does_not_wait_for_who_was_set_aside, begin, end),
        cmocka_unit_test_setup_teardown(a_job_does_not_wait_for_who_is_leaving, begin, end),
        cmocka_unit_test_setup_teardown(who_failed_at_a_job_rests_before_it_gets_one, begin, end),
        cmocka_unit_test_setup_teardown(a_stored_result_of_another_kind_of_job_is_damage, begin, end),
        cmocka_unit_test_setup_teardown(who_does_a_job_that_it_failed_at_is_not_blamed, begin, end),
        cmocka_unit_test_setup_teardown(what_failed_at_one_does_not_count_against_who_gets_its_number, begin, end),
        cmocka_unit_test_setup_teardown(no_memory_for_a_job_is_told_as_that, begin, end),
        cmocka_unit_test_setup_teardown(what_was_done_before_counts_as_done_at_the_start, begin, end),
        cmocka_unit_test_setup_teardown(who_keeps_a_job_and_does_not_work_is_lost_and_another_gets_it, begin, end),
        cmocka_unit_test_setup_teardown(who_told_of_its_job_may_rest, begin, end),
        cmocka_unit_test_setup_teardown(failures_count_over_restarts, begin, end),
        cmocka_unit_test_setup_teardown(who_does_not_know_the_work_leaves_no_failure_on_record, begin, end),
        cmocka_unit_test_setup_teardown(who_does_not_know_the_work_is_not_blamed_for_it, begin, end),
        cmocka_unit_test_setup_teardown(whatever_is_told_of_a_job_is_settled, begin, end),
        cmocka_unit_test_setup_teardown(a_result_without_an_output_that_cannot_be_used_ends_the_run, begin, end),
        cmocka_unit_test_setup_teardown(who_made_what_cannot_be_kept_lets_go_of_it, begin, end),
        cmocka_unit_test_setup_teardown(an_output_that_does_not_come_is_no_failure_of_who_has_the_job_now, begin, end),
        cmocka_unit_test_setup_teardown(who_hands_out_jobs_leaves_the_reason_of_others, begin, end),
        cmocka_unit_test_setup_teardown(who_made_what_cannot_be_kept_now_gets_jobs_as_before, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
