/* The work thread: takes messages one by one and does what they ask, and a piece of the step under way when none is there. It alone
 * computes, and while it is busy its ticks alone renew leases: a worker whose network thread lives while its work does not move loses its
 * work. It is busy for all of a turn of the loop, whatever it does, but not while it waits for the next message; what takes long ticks on
 * the way, most of it through the pool. Owns what struct worker has under "the work thread's alone": opened by the first WELCOME, given
 * back by leave(). */
#include "workers/work.h"

#include <string.h>

#include "base/log.h"
#include "estimate/memory.h"
#include "model/trial/self_test.h"
#include "workers/jobs.h"
#include "workers/learner.h"
#include "workers/outputs.h"
#include "workers/questions.h"

enum {
    WAIT_MS = 200,           /* idle: until the next look at questions that must be sent again */
};

/* ---- frames ---- */

static Millrace__Read frame_read(const char *split, uint32_t shard, uint32_t frame) {
    Millrace__Read read = MILLRACE__READ__INIT;
    read.what = MILLRACE__READ__WHAT__FRAME;
    read.split = (char *)split;
    read.a = shard;
    read.b = frame;
    return read;
}

static int fetch_frame(void *arg, struct buf *out, int64_t *out_next, const char *split, uint32_t shard, uint32_t frame) {
    Millrace__Read body = frame_read(split, shard, frame);
    return questions_read(arg, out, out_next, &body);
}

static void ask_frame(void *arg, const char *split, uint32_t shard, uint32_t frame) {
    enum { FRAMES_AHEAD_MAX = 8 }; /* answers wait in the inbox */
    Millrace__Read body = frame_read(split, shard, frame);
    questions_ask(arg, &body, FRAMES_AHEAD_MAX);
}

/* ---- admission ---- */

static int configure(struct worker *worker, const Millrace__Welcome *welcome) {
    TRY(config_parse(&worker->config, "pipeline of the coordinator", welcome->config, strlen(welcome->config), "/", NULL, 0));
    worker->configured = true;
    const struct config *config = &worker->config;
    int threads = worker->options.threads ? worker->options.threads : (int)config->cluster.threads_per_worker;
    atomic_store(&worker->tensor_encoding, config->cluster.compression == COMPRESSION_NONE ? FRAME_NONE : FRAME_PLANES_ZSTD);
    TRY(pool_open_from(&worker->pool, threads, worker->options.threads ? "--threads" : "cluster.threads_per_worker"));
    pool_on_tick(worker->pool, worker_tick, worker);
    if (welcome->tokenizer.len) TRY(tokenizer_parse(&worker->tokenizer, (const char *)welcome->tokenizer.data, welcome->tokenizer.len));
    else TRY(tokenizer_open(&worker->tokenizer, "gpt2"));
    worker->feed = feed_open(&(struct feed_options){
        .cache_bytes = (size_t)config->cluster.cache_mib << 20,
        .vocab_size = (uint32_t)config->model.vocab_size,
        .pad_in_loss = config->dataset.pad_in_loss,
        .fetch = fetch_frame,
        .ask = ask_frame,
        .arg = worker,
    });
    return 0;
}

static int welcome(struct worker *worker, const Millrace__Welcome *message) {
    if (!worker->configured) TRY(configure(worker, message));
    questions_welcome(worker);
    return 0;
}

/* What this worker will take whatever its share: one slice of a step's. Better to say so than to be killed in the middle. */
static int check_memory(const struct worker *worker) {
    struct machine_memory machine;
    struct worker_shape shape = worker_shape_of(&worker->config, worker->config.training.slices, pool_threads(worker->pool));
    if (machine_memory(&machine, "") < 0) {
        log_warn("%s", err_text());
        return 0;
    }
    return worker_memory_check(&shape, 1, &machine);
}

/* The self-test needs the memory of a training step, so it is computed when training begins; once. */
static int prove(struct worker *worker) {
    if (!worker->configured) return 0;
    jobs_close(worker); /* a step needs the memory more */
    if (!worker->answered) {
        struct gpt2_config model = gpt2_config_of(&worker->config);
        struct optimizer optimizer = optimizer_of(&worker->config);
        TRY(check_memory(worker));
        TRY(self_test(worker->answer, &model, &optimizer, (int)worker->config.dataset.sequence_length, worker->pool));
        worker->answered = true;
    }
    Millrace__SelfTestResult answer = MILLRACE__SELF_TEST_RESULT__INIT;
    answer.digest = (ProtobufCBinaryData){sizeof worker->answer, worker->answer};
    worker_send(worker, NULL, &(struct envelope){.kind = MILLRACE__KIND__SELF_TEST_RESULT}, &answer.base, NULL, 0);
    return 0;
}

/* ---- the loop ---- */

static void on_data(struct worker *worker, struct message *message) {
    struct read read;
    if (reads_take(&worker->reads, &read, message->envelope.job)) learner_data(worker, &read, message);
}

static int on_message(struct worker *worker, struct message *message) {
    worker_tick(worker);
    if (!worker->configured && message->envelope.kind != MILLRACE__KIND__WELCOME) {
        log_debug("%s before the pipeline", kind_name(message->envelope.kind));
        return 0;
    }
    switch (message->envelope.kind) {
    case MILLRACE__KIND__WELCOME: return welcome(worker, (const Millrace__Welcome *)message->body);
    case MILLRACE__KIND__SELF_TEST: return prove(worker);
    case MILLRACE__KIND__LEASE: job_do(worker, message); return 0;
    case MILLRACE__KIND__SETTLED: outputs_settle(worker, message->envelope.job, message->envelope.attempt); return 0;
    case MILLRACE__KIND__JOIN: learner_join(worker, message); return 0;
    case MILLRACE__KIND__STEP: learner_step(worker, message); return 0;
    case MILLRACE__KIND__COMMIT: learner_commit(worker, message); return 0;
    case MILLRACE__KIND__DATA: on_data(worker, message); return 0;
    default: log_debug("%s is not for workers", kind_name(message->envelope.kind)); return 0;
    }
}

static void leave(struct worker *worker) {
    for (struct queued_message *queued; (queued = questions_next(worker, 0));) queued_message_free(queued);
    outputs_settle_all(worker);
    learner_close(worker);
    jobs_close(worker);
    feed_close(worker->feed);
    pool_close(worker->pool);
    tokenizer_close(worker->tokenizer);
    addresses_close(&worker->addresses);
    if (worker->configured) config_free(&worker->config);
}

void *work_main(void *arg) {
    struct worker *worker = arg;
    bool more = false;
    while (!atomic_load(&worker->stopping)) {
        struct queued_message *queued = questions_next(worker, more ? 0 : WAIT_MS);
        atomic_store(&worker->busy, true);
        int code = queued ? on_message(worker, &queued->message) : 0;
        queued_message_free(queued);
        if (code < 0) worker_fatal(worker, code);
        more = queued || worker->deferred;
        if (!queued) more = worker->configured && learner_work(worker);
        questions_send(worker);
        atomic_store(&worker->busy, false); /* who waits for others does not lose its lease */
    }
    leave(worker);
    atomic_store(&worker->ended, true);
    return NULL;
}
