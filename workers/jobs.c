/* The jobs, one at a time, on the work thread. Owns what is kept from one job to the next: the encoder, and the ingests that stand at the
 * end of long tokenize jobs.
 *
 * job_do() takes a LEASE. A kind with an output goes through do_with_output(): the job writes to a sink (an unnamed temporary file and its
 * digest), then report_output() keeps the file for the coordinator to read (outputs.h) and sends DONE. A kind whose result is in the DONE
 * itself sends it with report_result(). What fails goes to report_failure(). jobs_close() comes when training needs the memory, and at the
 * end. */
#include "workers/jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "dataset/ingest/ingest.h"
#include "dataset/shard/shard.h"
#include "dataset/source/http.h"
#include "dataset/source/local.h"
#include "workers/learner.h"
#include "workers/outputs.h"
#include "workers/questions.h"

enum { INGESTS_MAX = 3 }; /* one more than the coordinator leases at once */

struct jobs {
    struct encoder *encoder;             /* of all tokenize jobs: its table of pieces is filled once; NULL: not open */
    struct ingest *ingest[INGESTS_MAX];  /* at the ends of long jobs, to go on with; the one kept last is first */
};

static struct jobs *jobs_of(struct worker *worker) {
    if (!worker->jobs) worker->jobs = mem_alloc(sizeof *worker->jobs);
    return worker->jobs;
}

/* ---- an output under way ---- */

struct sink {
    struct sha256 *sha;
    int fd;
    uint64_t size;
    struct err failed; /* of the first write that did not go; code 0: none */
};

/* What is wrong with the folder for temporary files is told as it is, without the source that happened to be read. */
static int sink_write(void *arg, const void *bytes, size_t size_bytes) {
    struct sink *sink = arg;
    int code = file_write_unnamed(sink->fd, bytes, size_bytes, sink->size);
    if (code < 0) {
        sink->failed = err_take();
        return code;
    }
    sha256_add(sink->sha, bytes, size_bytes);
    sink->size += size_bytes;
    return 0;
}

/* ---- tokenize ---- */

/* A source that this machine does not have: the coordinator is asked for it. */
struct remote {
    struct worker *worker;
    uint32_t file;
    uint64_t end; /* of the part */
};

/* Reads of the largest size come one after the other: the next one is asked for while this one is worked on. */
static int read_remote(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    const struct remote *remote = arg;
    Millrace__Read read = MILLRACE__READ__INIT, next;
    read.what = MILLRACE__READ__WHAT__SOURCE;
    read.a = remote->file;
    read.offset = offset;
    read.size = size_bytes;
    next = read;
    next.offset += size_bytes;
    struct buf chunk = {0};
    int code = size_bytes > READ_BYTES_MAX ? err_set(ERR_LIMIT, "a read of %zu bytes", size_bytes)
                                           : questions_read(remote->worker, &chunk, NULL, &read);
    if (code == 0 && chunk.size > size_bytes) code = err_set(ERR_PEER, "more bytes came than were asked for");
    if (code == 0) {
        if (chunk.size) memcpy(out, chunk.data, chunk.size);
        *out_got = chunk.size;
        if (size_bytes == READER_BYTES_MAX && offset + 2 * size_bytes <= remote->end) questions_ask(remote->worker, &next, 1);
    }
    buf_free(&chunk);
    return code;
}

static int open_part(void *arg, struct byte_reader *out, const Millrace__SourcePart *part) {
    struct local *local;
    int code = local_open(&local, part, worker_tick_or_stop, arg);
    if (code == 0) *out = local_reader(local);
    if (code != ERR_NOTFOUND || http_is_url(part->name)) return code;
    struct remote *remote = mem_alloc(sizeof *remote);
    *remote = (struct remote){arg, part->file, part->end};
    *out = (struct byte_reader){read_remote, remote, part->name, part->size};
    return 0;
}

static void close_part(void *arg, struct byte_reader *reader) {
    (void)arg;
    if (reader->read == read_remote) free(reader->arg);
    else local_close(reader->arg);
}

/* The coordinator looks at what it serves itself. */
static int check_part(void *arg, struct byte_reader *reader) {
    (void)arg;
    return reader->read == read_remote ? 0 : local_check(reader->arg);
}

static struct ingest_options ingest_options_of(struct worker *worker) {
    const struct config *config = &worker->config;
    struct ingest_options options = {.tokenizer = worker->tokenizer, .token_bytes = tokenizer_token_bytes(worker->tokenizer)};
    options.groups = config->dataset.sources.item;
    options.group_count = config->dataset.sources.count;
    options.policy = policy_options_of(config);
    options.text_bytes = INGEST_TEXT_BYTES;
    options.max_left_out = config->dataset.max_left_out;
    options.open = open_part;
    options.close = close_part;
    options.check = check_part;
    options.tick = worker_tick_or_stop;
    options.arg = worker;
    return options;
}

/* An ingest at the place where the job begins: the one kept at the end of the job before it, or a new one. */
static int take_ingest(struct worker *worker, struct ingest **out, const Millrace__TokenizeJob *job) {
    struct jobs *jobs = jobs_of(worker);
    for (size_t i = 0; i < INGESTS_MAX; i++)
        if (jobs->ingest[i] && ingest_continues(jobs->ingest[i], job)) {
            *out = jobs->ingest[i];
            jobs->ingest[i] = NULL;
            return 0;
        }
    struct ingest_options options = ingest_options_of(worker);
    return ingest_open(out, &options, job);
}

static void keep_ingest(struct worker *worker, struct ingest *ingest) {
    struct jobs *jobs = jobs_of(worker);
    ingest_close(jobs->ingest[INGESTS_MAX - 1]);
    memmove(jobs->ingest + 1, jobs->ingest, (INGESTS_MAX - 1) * sizeof *jobs->ingest);
    jobs->ingest[0] = ingest;
}

void jobs_close(struct worker *worker) {
    struct jobs *jobs = worker->jobs;
    if (!jobs) return;
    for (size_t i = 0; i < INGESTS_MAX; i++) ingest_close(jobs->ingest[i]);
    encoder_close(jobs->encoder);
    free(jobs);
    worker->jobs = NULL;
}

/* out->next points into *out_ingest. */
static int do_tokenize(struct worker *worker, struct ingest **out_ingest, Millrace__TokenizeResult *out, struct sink *sink,
                       const Millrace__TokenizeJob *job) {
    struct jobs *jobs = jobs_of(worker);
    TRY(take_ingest(worker, out_ingest, job));
    if (!jobs->encoder) TRY(encoder_open(&jobs->encoder, worker->tokenizer));
    int code = ingest_run(*out_ingest, out, jobs->encoder, sink_write, sink);
    questions_forget(worker, MILLRACE__READ__WHAT__SOURCE);
    if (code < 0) { /* somewhere inside a text */
        encoder_close(jobs->encoder);
        jobs->encoder = NULL;
    }
    return code;
}

/* ---- pack ---- */

/* The question for as much of a run as one may ask for at once. */
static Millrace__Read run_read(uint32_t run, size_t size_bytes, uint64_t offset) {
    Millrace__Read read = MILLRACE__READ__INIT;
    read.what = MILLRACE__READ__WHAT__RUN;
    read.a = run;
    read.offset = offset;
    read.size = size_bytes < READ_BYTES_MAX ? size_bytes : READ_BYTES_MAX;
    return read;
}

static int read_run(void *arg, uint32_t run, void *out, size_t size_bytes, uint64_t offset) {
    for (size_t done = 0; done < size_bytes;) {
        Millrace__Read read = run_read(run, size_bytes - done, offset + done);
        struct buf chunk = {0};
        int code = questions_read(arg, &chunk, NULL, &read);
        if (code == 0 && chunk.size != read.size) code = err_set(ERR_CORRUPT, "run %u ends early", run);
        if (code == 0) memcpy((char *)out + done, chunk.data, chunk.size);
        buf_free(&chunk);
        TRY(code);
        done += read.size;
    }
    return 0;
}

static void expect_run(void *arg, uint32_t run, size_t size_bytes, uint64_t offset) {
    Millrace__Read read = run_read(run, size_bytes, offset);
    questions_ask(arg, &read, RUN_READS_EXPECTED);
}

static int do_pack(struct worker *worker, Millrace__PackResult *out, struct sink *sink, const Millrace__PackJob *job) {
    struct token_run_reader reader = {read_run, expect_run, worker};
    int code = shard_build(out, job, &reader, sink_write, sink, worker_tick_or_stop, worker);
    questions_forget(worker, MILLRACE__READ__WHAT__RUN);
    return code;
}

/* ---- any kind of job ---- */

static void send_failure(struct worker *worker, const struct envelope *envelope, bool final, bool unknown) {
    Millrace__Failed failed = MILLRACE__FAILED__INIT;
    failed.reason = (char *)err_text();
    failed.final = final;
    failed.unknown = unknown;
    log_warn("job %llu failed: %s", (unsigned long long)envelope->job, failed.reason);
    struct envelope reply = *envelope;
    reply.kind = MILLRACE__KIND__FAILED;
    worker_send(worker, NULL, &reply, &failed.base, NULL, 0);
}

static void report_failure(struct worker *worker, const struct envelope *envelope, int code) {
    send_failure(worker, envelope, code == ERR_CONFIG, false);
}

static void report_result(struct worker *worker, const struct envelope *envelope, const Millrace__Done *done) {
    struct envelope reply = *envelope;
    reply.kind = MILLRACE__KIND__DONE;
    worker_send(worker, NULL, &reply, &done->base, NULL, 0);
}

static void report_output(struct worker *worker, const struct envelope *envelope, Millrace__Done *done, struct sink *sink) {
    uint8_t digest[SHA256_BYTES];
    sha256_finish(sink->sha, digest);
    done->digest = (ProtobufCBinaryData){sizeof digest, digest};
    done->size = sink->size;
    int code = outputs_keep(worker, envelope->job, envelope->attempt, sink->fd, sink->size);
    if (code < 0) {
        report_failure(worker, envelope, code);
        return;
    }
    sink->fd = -1;
    report_result(worker, envelope, done);
}

static void do_with_output(struct worker *worker, const struct envelope *envelope, const Millrace__Lease *lease) {
    struct sink sink = {.fd = -1, .sha = sha256_open()};
    Millrace__Done done = MILLRACE__DONE__INIT;
    Millrace__TokenizeResult tokenized = MILLRACE__TOKENIZE_RESULT__INIT;
    Millrace__PackResult packed = MILLRACE__PACK_RESULT__INIT;
    struct ingest *ingest = NULL;
    int code = file_open_unnamed(&sink.fd);
    if (code == 0 && lease->work_case == MILLRACE__LEASE__WORK_TOKENIZE) {
        code = do_tokenize(worker, &ingest, &tokenized, &sink, lease->tokenize);
        done.result_case = MILLRACE__DONE__RESULT_TOKENIZE;
        done.tokenize = &tokenized;
    } else if (code == 0 && lease->work_case == MILLRACE__LEASE__WORK_PACK) {
        code = do_pack(worker, &packed, &sink, lease->pack);
        done.result_case = MILLRACE__DONE__RESULT_PACK;
        done.pack = &packed;
    } else CHECK(code < 0); /* job_do() sends no other kind here */
    if (code < 0 && sink.failed.code < 0) code = err_give(&sink.failed);
    if (code == 0) report_output(worker, envelope, &done, &sink);
    else report_failure(worker, envelope, code);
    if (sink.fd >= 0) close(sink.fd);
    sha256_close(sink.sha);
    if (code == 0 && tokenized.next) keep_ingest(worker, ingest);
    else ingest_close(ingest);
}

static void do_evaluate(struct worker *worker, const struct envelope *envelope, const Millrace__EvaluateJob *job) {
    Millrace__Done done = MILLRACE__DONE__INIT;
    Millrace__EvaluateResult result = MILLRACE__EVALUATE_RESULT__INIT;
    int code = learner_evaluate(worker, &result.loss_sum, &result.tokens, job);
    if (code < 0) {
        report_failure(worker, envelope, code);
        return;
    }
    done.result_case = MILLRACE__DONE__RESULT_EVALUATE;
    done.evaluate = &result;
    report_result(worker, envelope, &done);
}

void job_do(struct worker *worker, const struct message *message) {
    const Millrace__Lease *lease = (const Millrace__Lease *)message->body;
    switch (lease->work_case) {
    case MILLRACE__LEASE__WORK_TOKENIZE:
    case MILLRACE__LEASE__WORK_PACK: do_with_output(worker, &message->envelope, lease); break;
    case MILLRACE__LEASE__WORK_EVALUATE: do_evaluate(worker, &message->envelope, lease->evaluate); break;
    default:
        err_set(ERR_UNSUPPORTED, "this worker does not know the work of stage \"%s\"", lease->stage);
        send_failure(worker, &message->envelope, false, true);
    }
}
