/* The work thread: takes messages one by one and does what they ask, and pieces of the step under way in between. It alone computes, and
 * its ticks alone renew leases: a worker whose network thread lives while its work stands still loses its work. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "estimate/memory.h"
#include "model/trial/self_test.h"
#include "proto/link.h"
#include "workers/asked.h"
#include "workers/feed.h"
#include "workers/internal.h"

enum {
    WAIT_MS = 200,           /* idle: until the next look at questions that must be sent again */
};

void work_tick(void *arg) { atomic_fetch_add(&((struct worker *)arg)->progress, 1); }

int work_tick_or_stop(void *arg) {
    work_tick(arg);
    return atomic_load(&((struct worker *)arg)->stopping);
}

void work_send(struct worker *worker, const char *endpoint, const struct envelope *envelope, const ProtobufCMessage *body,
               const void *chunk, size_t chunk_bytes) {
    struct letter *letter = mem_alloc(sizeof *letter);
    struct envelope stamped = *envelope;
    stamped.run = atomic_load(&worker->run);
    if (frame_pack(&letter->frame, &stamped, body, chunk, chunk_bytes, FRAME_ZSTD) < 0) {
        log_error("%s: %s", kind_name(envelope->kind), err_text());
        letter_free(letter);
        return;
    }
    if (endpoint) letter->endpoint = mem_text(endpoint);
    letter->message.envelope = stamped;
    if (envelope->kind == MILLRACE__KIND__READ) {
        letter->question = envelope->job;
        letter->question_bytes = asked_bytes((const Millrace__Read *)body);
    }
    mailbox_put(&worker->outbox, letter);
    link_wake(worker->link);
}

void work_news(struct worker *worker) {
    atomic_store(&worker->news, true);
    link_wake(worker->link);
}

void work_fatal(struct worker *worker, int code) {
    if (atomic_load(&worker->stopping)) return;
    snprintf(worker->outcome_text, sizeof worker->outcome_text, "%s", err_text());
    atomic_store(&worker->outcome, code);
    atomic_store(&worker->stopping, true);
    link_wake(worker->link);
}

/* ---- asking the coordinator and waiting ---- */

static void send_due_reads(struct worker *worker) {
    struct read *read;
    while ((read = reads_due(&worker->reads, clock_ms()))) {
        const char *endpoint = addresses_find(&worker->addresses, read->peer);
        CHECK(endpoint || !read->peer); /* the questions to a peer end before its address is forgotten */
        work_send(worker, endpoint, &read->envelope, &read->body.base, NULL, 0);
    }
}

static void defer(struct worker *worker, struct letter *letter) {
    letter->next = NULL;
    *worker->deferred_last = letter;
    worker->deferred_last = &letter->next;
}

/* To a coordinator that has just welcomed us: it has heard none of our questions, and gave up the jobs whose outputs are here. */
static void say_ready(struct worker *worker) {
    Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    for (size_t i = 0; i < OUTPUTS_MAX; i++) job_settled(worker, worker->shared.output[i].job);
    for (size_t i = 0; i < worker->reads.count; i++) worker->reads.read[i].sent_ms = 0;
    work_send(worker, NULL, &(struct envelope){.kind = MILLRACE__KIND__READY}, &empty.base, NULL, 0);
}

static int take_answer(struct buf *out, int64_t *out_next, const struct message *message) {
    const Millrace__Data *data = (const Millrace__Data *)message->body;
    if (data->status == MILLRACE__DATA__STATUS__FAULT) return err_set(ERR_IO, "coordinator: %s", data->reason);
    if (data->status != MILLRACE__DATA__STATUS__OK) return err_set(ERR_STALE, "the coordinator has no use for this any more");
    if (out_next) *out_next = data->next_token;
    return buf_append(out, message->chunk, message->chunk_bytes);
}

static bool answers(const struct letter *letter, uint64_t id) {
    return letter->message.envelope.kind == MILLRACE__KIND__DATA && letter->message.envelope.job == id;
}

/* The answer to a question asked before may have come while another one was waited for. */
static struct letter *take_deferred(struct worker *worker, uint64_t id) {
    for (struct letter **at = &worker->deferred; *at; at = &(*at)->next) {
        struct letter *letter = *at;
        if (!answers(letter, id)) continue;
        *at = letter->next;
        if (!*at) worker->deferred_last = at;
        return letter;
    }
    return NULL;
}

/* Waits for the answer to an open question. */
static int wait_for(struct worker *worker, struct buf *out, int64_t *out_next, uint64_t id) {
    struct read answered;
    struct letter *letter = take_deferred(worker, id);
    for (;; letter = NULL) {
        if (!letter) {
            send_due_reads(worker);
            letter = mailbox_take(&worker->inbox, WAIT_MS);
        }
        if (atomic_load(&worker->stopping)) {
            letter_free(letter);
            reads_take(&worker->reads, &answered, id);
            return err_set(ERR_INTERRUPTED, "the worker is leaving");
        }
        if (!letter) continue;
        const struct message *message = &letter->message;
        if (!answers(letter, id)) {
            if (message->envelope.kind == MILLRACE__KIND__WELCOME) { /* a new coordinator, which answers only those who said READY */
                say_ready(worker);
                letter_free(letter);
            } else defer(worker, letter);
            continue;
        }
        reads_take(&worker->reads, &answered, id);
        work_tick(worker);
        int code = take_answer(out, out_next, message);
        letter_free(letter);
        return code;
    }
}

/* Asked of the coordinator already? *out_open: how many of this kind are open there. */
static const struct read *find_asked(const struct worker *worker, const Millrace__Read *body, size_t *out_open) {
    const struct read *found = NULL;
    *out_open = 0;
    for (size_t i = 0; i < worker->reads.count; i++) {
        const struct read *read = &worker->reads.read[i];
        const Millrace__Read *other = &read->body;
        if (read->peer || other->what != body->what) continue;
        ++*out_open;
        bool same = other->a == body->a && other->b == body->b && other->offset == body->offset && other->size == body->size;
        if (same && (!body->split || strcmp(other->split, body->split) == 0)) found = read;
    }
    return found;
}

void work_ask(struct worker *worker, const Millrace__Read *body, size_t open_max) {
    size_t open;
    if (find_asked(worker, body, &open) || open >= open_max) return;
    struct read *read = reads_add(&worker->reads, 0, 0);
    if (read) read->body = *body;
    send_due_reads(worker);
}

void work_forget(struct worker *worker, Millrace__Read__What what) {
    for (size_t i = worker->reads.count; i-- > 0;) {
        struct read read = worker->reads.read[i];
        if (!read.peer && read.body.what == what) reads_take(&worker->reads, &read, read.id);
    }
}

int work_read(struct worker *worker, struct buf *out, int64_t *out_next, const Millrace__Read *body) {
    size_t open;
    const struct read *asked = find_asked(worker, body, &open);
    if (asked) return wait_for(worker, out, out_next, asked->id);
    struct read *read = reads_add(&worker->reads, 0, 0);
    if (!read) return err_set(ERR_LIMIT, "%d reads are open already", READS_MAX);
    read->body = *body;
    return wait_for(worker, out, out_next, read->id);
}

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
    return work_read(arg, out, out_next, &body);
}

static void ask_frame(void *arg, const char *split, uint32_t shard, uint32_t frame) {
    enum { FRAMES_AHEAD_MAX = 8 }; /* answers wait in the inbox */
    Millrace__Read body = frame_read(split, shard, frame);
    work_ask(arg, &body, FRAMES_AHEAD_MAX);
}

/* ---- admission ---- */

static int configure(struct worker *worker, const Millrace__Welcome *welcome) {
    TRY(config_parse(&worker->config, "pipeline of the coordinator", welcome->config, strlen(welcome->config), "/", NULL, 0));
    worker->configured = true;
    const struct config *config = &worker->config;
    int threads = worker->options.threads ? worker->options.threads : (int)config->cluster.threads_per_worker;
    atomic_store(&worker->tensor_encoding, config->cluster.compression == COMPRESSION_NONE ? FRAME_NONE : FRAME_PLANES_ZSTD);
    TRY(pool_open_from(&worker->pool, threads, worker->options.threads ? "--threads" : "cluster.threads_per_worker"));
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
    say_ready(worker);
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

/* The known answer needs the memory of a training step, so it is computed when training begins; once. */
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
    Millrace__Answer answer = MILLRACE__ANSWER__INIT;
    answer.digest = (ProtobufCBinaryData){sizeof worker->answer, worker->answer};
    work_send(worker, NULL, &(struct envelope){.kind = MILLRACE__KIND__ANSWER}, &answer.base, NULL, 0);
    return 0;
}

/* ---- the loop ---- */

static void on_data(struct worker *worker, struct message *message) {
    struct read read;
    if (reads_take(&worker->reads, &read, message->envelope.job)) member_data(worker, &read, message);
}

static int on_message(struct worker *worker, struct message *message) {
    work_tick(worker);
    if (!worker->configured && message->envelope.kind != MILLRACE__KIND__WELCOME) {
        log_debug("%s before the pipeline", kind_name(message->envelope.kind));
        return 0;
    }
    switch (message->envelope.kind) {
    case MILLRACE__KIND__WELCOME: return welcome(worker, (const Millrace__Welcome *)message->body);
    case MILLRACE__KIND__PROVE: return prove(worker);
    case MILLRACE__KIND__LEASE: job_do(worker, message); return 0;
    case MILLRACE__KIND__SETTLED: job_settled(worker, message->envelope.job); return 0;
    case MILLRACE__KIND__JOIN: member_join(worker, message); return 0;
    case MILLRACE__KIND__STEP: member_step(worker, message); return 0;
    case MILLRACE__KIND__COMMIT: member_commit(worker, message); return 0;
    case MILLRACE__KIND__DATA: on_data(worker, message); return 0;
    default: log_debug("%s is not for workers", kind_name(message->envelope.kind)); return 0;
    }
}

static struct letter *next_letter(struct worker *worker, int timeout_ms) {
    struct letter *letter = worker->deferred;
    if (!letter) return mailbox_take(&worker->inbox, timeout_ms);
    worker->deferred = letter->next;
    if (!worker->deferred) worker->deferred_last = &worker->deferred;
    return letter;
}

static void leave(struct worker *worker) {
    for (struct letter *letter; (letter = next_letter(worker, 0));) letter_free(letter);
    for (size_t i = 0; i < OUTPUTS_MAX; i++) job_settled(worker, worker->shared.output[i].job);
    member_close(worker);
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
        struct letter *letter = next_letter(worker, more ? 0 : WAIT_MS);
        int code = letter ? on_message(worker, &letter->message) : 0;
        letter_free(letter);
        if (code < 0) work_fatal(worker, code);
        more = letter || worker->deferred;
        if (!letter) more = worker->configured && member_work(worker);
        send_due_reads(worker);
    }
    leave(worker);
    return NULL;
}
