/* A job gives what it gives on a worker that did nothing before, whatever became of the jobs before it on this one. */
#include "workers/jobs.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/unit/config/parse.h"
#include "tests/unit/random.h"
#include "workers/learner.h"
#include "workers/outputs.h"
#include "workers/questions.h"

#include "base/file.h"
#include "base/mem.h"
#include "dataset/source/identity.h"
#include "proto/link.h"

enum { JOB = 3, TEXT_BYTES = 2 << 20, OUTPUT_BYTES_MAX = 8 << 20 };

static char path[64];

/* One document of that size: lines of words. */
static void write_text(struct random *random) {
    static const char *const words[] = {"a", "document", "is", "cut", "where", "no", "token", "torn", "apart,", "\n"};
    struct buf text = {0};
    while (text.size < TEXT_BYTES) assert_int_equal(buf_print(&text, "%s ", words[random_in(random, 0, 9)]), 0);
    snprintf(path, sizeof path, "/tmp/millrace-jobs-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(file_write_at(fd, text.data, text.size, 0), 0);
    close(fd);
    buf_free(&text);
}

static struct worker *worker_open(void) {
    struct worker *worker = mem_alloc(sizeof *worker);
    pthread_mutex_init(&worker->lock, NULL);
    mailbox_open(&worker->inbox);
    mailbox_open(&worker->outbox);
    worker->deferred_last = &worker->deferred;
    worker->config = accepted("dataset: {sources: [a.txt]}\n");
    assert_int_equal(link_open(&worker->link, &(struct link_options){0}), 0);
    assert_int_equal(tokenizer_open_gpt2(&worker->tokenizer), 0);
    return worker;
}

static void worker_close(struct worker *worker) {
    jobs_close(worker);
    outputs_settle_all(worker);
    mailbox_close(&worker->inbox);
    mailbox_close(&worker->outbox);
    pthread_mutex_destroy(&worker->lock);
    tokenizer_close(worker->tokenizer);
    link_close(worker->link);
    config_free(&worker->config);
    free(worker);
}

static char reason[1024]; /* why the last job failed; "": it did not */

/* Does the job that tokenizes the file; what comes of it, empty when it failed. */
static struct buf tokenize(struct worker *worker, uint64_t attempt) {
    struct stat st;
    struct buf out = {0};
    Millrace__SourcePart part = MILLRACE__SOURCE_PART__INIT, *parts[] = {&part};
    Millrace__TokenizeJob job = MILLRACE__TOKENIZE_JOB__INIT;
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    assert_int_equal(stat(path, &st), 0);
    struct file_identity identity = identity_of(&st);
    part.name = path, part.size = part.end = identity.size, part.version = identity_version(&identity);
    job.parts = parts, job.n_parts = 1;
    lease.work_case = MILLRACE__LEASE__WORK_TOKENIZE, lease.tokenize = &job;
    job_do(worker, &(struct message){.envelope = {.kind = MILLRACE__KIND__LEASE, .job = JOB, .attempt = attempt}, .body = &lease.base});
    struct queued_message *told = mailbox_take(&worker->outbox, 0);
    assert_non_null(told);
    struct message message;
    const struct frame *f = &told->frame;
    assert_int_equal(frame_unpack(&message, f->header.data, f->header.size, f->body.data, f->body.size), 0);
    *reason = 0;
    if (message.envelope.kind == MILLRACE__KIND__FAILED)
        snprintf(reason, sizeof reason, "%s", ((const Millrace__Failed *)message.body)->reason);
    message_free(&message);
    queued_message_free(told);
    assert_int_equal(buf_reserve(&out, OUTPUT_BYTES_MAX), 0);
    if (outputs_read(worker, out.data, &out.size, JOB, 0, OUTPUT_BYTES_MAX) < 0) out.size = 0;
    return out;
}

/* The folder for temporary files is full while a text is tokenized: half of a word is still to come then. */
static void what_failed_inside_a_text_leaves_nothing_of_it(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    struct rlimit limit;
    write_text(&random);
    struct worker *fresh = worker_open(), *worker = worker_open();
    struct buf wanted = tokenize(fresh, 1);
    assert_true(wanted.size > TEXT_BYTES / 10 && wanted.size < OUTPUT_BYTES_MAX);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    for (uint64_t attempt = 1; attempt <= 4; attempt++) {
        const struct rlimit tight = {.rlim_cur = wanted.size / 5 * attempt, .rlim_max = limit.rlim_max};
        if (attempt < 4) assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
        struct buf got = tokenize(worker, attempt);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        assert_int_equal(got.size, attempt < 4 ? 0 : wanted.size);
        bool told = strstr(reason, "temporary file in /tmp") == reason && strstr(reason, " free") && strstr(reason, "set TMPDIR");
        if (told != (attempt < 4) || strstr(reason, path)) fail_msg("\"%s\"", reason); /* the text has nothing to do with it */
        if (got.size) assert_memory_equal(got.data, wanted.data, wanted.size);
        buf_free(&got);
    }
    buf_free(&wanted);
    worker_close(fresh);
    worker_close(worker);
    unlink(path);
}

/* The coordinator's answers are here already: the n-th question gets the n-th of them. */
static void answer_with_a_byte(struct worker *worker) {
    static Millrace__Data data = MILLRACE__DATA__INIT;
    data.status = MILLRACE__DATA__STATUS__OK;
    for (uint64_t id = 1; id <= READS_MAX; id++) {
        struct queued_message *queued = mem_alloc(sizeof *queued);
        queued->message = (struct message){.envelope = {.kind = MILLRACE__KIND__DATA, .job = id}, .body = &data.base};
        queued->message.chunk = (const uint8_t *)"x", queued->message.chunk_bytes = 1;
        mailbox_put(&worker->inbox, queued);
    }
}

/* The FAILED among what the worker has sent. */
static struct message failure(struct worker *worker) {
    struct message message = {.body = NULL};
    for (struct queued_message *told; !message.body && (told = mailbox_take(&worker->outbox, 0)); queued_message_free(told)) {
        const struct frame *f = &told->frame;
        assert_int_equal(frame_unpack(&message, f->header.data, f->header.size, f->body.data, f->body.size), 0);
        if (message.envelope.kind != MILLRACE__KIND__FAILED) message_free(&message), message.body = NULL;
    }
    assert_non_null(message.body);
    return message;
}

/* What it was given is not what was asked for, which says nothing of the pipeline: another worker may be luckier. */
static void a_run_that_ends_early_is_a_failure_that_may_pass(void **state) {
    (void)state;
    struct worker *worker = worker_open();
    Millrace__PackJob job = MILLRACE__PACK_JOB__INIT;
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    uint32_t none[] = {0};
    uint64_t nothing[] = {0}, tokens[] = {8};
    job.split = (char *)"train", job.token_bytes = 2, job.frame_tokens = job.tokens = 8;
    job.run = job.ends = job.source = none, job.n_run = job.n_ends = job.n_source = 1;
    job.first = job.document = job.offset = job.bytes = nothing, job.n_first = job.n_document = job.n_offset = job.n_bytes = 1;
    job.count = tokens, job.n_count = 1;
    lease.work_case = MILLRACE__LEASE__WORK_PACK, lease.pack = &job;
    answer_with_a_byte(worker);
    job_do(worker, &(struct message){.envelope = {.kind = MILLRACE__KIND__LEASE, .job = JOB, .attempt = 1}, .body = &lease.base});
    struct message message = failure(worker);
    const Millrace__Failed *failed = (const Millrace__Failed *)message.body;
    assert_non_null(strstr(failed->reason, "run 0 ends early"));
    assert_false(failed->final || failed->unknown);
    message_free(&message);
    worker_close(worker);
}

static void a_question_about_another_segment_is_one_of_its_own(void **state) {
    (void)state;
    struct worker *worker = worker_open();
    struct buf chunk = {0};
    Millrace__Read read = MILLRACE__READ__INIT;
    read.what = MILLRACE__READ__WHAT__STATE, read.c = 1;
    questions_ask(worker, &read, 2);
    read.c = 2;
    answer_with_a_byte(worker);
    assert_int_equal(questions_read(worker, &chunk, NULL, &read), 0);
    assert_int_equal(worker->reads.count, 1); /* the first one is open yet */
    questions_forget(worker, read.what);
    buf_free(&chunk);
    worker_close(worker);
}

/* What a later build adds to Lease.work is no work here. */
static void work_of_a_later_build_is_told_as_unknown(void **state) {
    (void)state;
    struct worker *worker = worker_open();
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    lease.stage = (char *)"sort";
    job_do(worker, &(struct message){.envelope = {.kind = MILLRACE__KIND__LEASE, .job = JOB, .attempt = 1}, .body = &lease.base});
    struct message message = failure(worker);
    const Millrace__Failed *failed = (const Millrace__Failed *)message.body;
    assert_non_null(strstr(failed->reason, "does not know the work of stage \"sort\""));
    assert_true(failed->unknown && !failed->final);
    message_free(&message);
    worker_close(worker);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_failed_inside_a_text_leaves_nothing_of_it),
        cmocka_unit_test(a_run_that_ends_early_is_a_failure_that_may_pass),
        cmocka_unit_test(a_question_about_another_segment_is_one_of_its_own),
        cmocka_unit_test(work_of_a_later_build_is_told_as_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
