/* Pairs answers with questions by number, over the table of reads in struct worker. While an answer is waited for, other messages that
 * come are put off (worker.deferred), in their order; questions_next() gives those first. */
#include "workers/questions.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "workers/outputs.h"

enum {
    WAIT_MS = 200,           /* until the next look at questions that must be sent again */
    OFTEN = 3,               /* so many times a question was sent: then who does not answer it is named, once */
    OFTEN_OF_SUMS = 5,       /* the same for parts of a sum, which wait where they are asked for until that member has computed its own */
};

static uint32_t often(const struct read *read) {
    bool of_sum = read->body.what == MILLRACE__READ__WHAT__PARTIAL || read->body.what == MILLRACE__READ__WHAT__SUM;
    return of_sum ? OFTEN_OF_SUMS : OFTEN;
}

static void say_unanswered(const struct read *read, const char *from) {
    unsigned long long a = read->body.a, b = read->body.b, c = read->body.c, step = read->envelope.step;
    char what[80];
    switch (read->body.what) {
    case MILLRACE__READ__WHAT__PARTIAL:
    case MILLRACE__READ__WHAT__SUM: snprintf(what, sizeof what, "segment %llu of a sum of step %llu", c, step); break;
    case MILLRACE__READ__WHAT__STATE: snprintf(what, sizeof what, "segment %llu of the state of step %llu", c, step); break;
    case MILLRACE__READ__WHAT__FRAME: snprintf(what, sizeof what, "frame %llu of shard %llu", b, a); break;
    case MILLRACE__READ__WHAT__SOURCE: snprintf(what, sizeof what, "source file %llu", a); break;
    default: snprintf(what, sizeof what, "token run %llu", a); break;
    }
    log_warn("%s, from %s: no answer for long; asking again", what, from);
}

void questions_send(struct worker *worker) {
    struct read *read;
    while ((read = reads_due(&worker->reads, clock_ms()))) {
        const char *endpoint = addresses_find(&worker->addresses, read->peer);
        CHECK(endpoint || !read->peer); /* the questions to a peer end before its address is forgotten */
        if (read->times == often(read)) say_unanswered(read, endpoint ? endpoint : "the coordinator");
        worker_send(worker, endpoint, &read->envelope, &read->body.base, NULL, 0);
    }
}

static void defer(struct worker *worker, struct queued_message *queued) {
    queued->next = NULL;
    *worker->deferred_last = queued;
    worker->deferred_last = &queued->next;
}

/* To a coordinator that has just welcomed us: it has heard none of our questions, and gave up the jobs whose outputs are here. */
void questions_welcome(struct worker *worker) {
    Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    outputs_settle_all(worker);
    for (size_t i = 0; i < worker->reads.count; i++) worker->reads.read[i].sent_ms = 0;
    worker_send(worker, NULL, &(struct envelope){.kind = MILLRACE__KIND__READY}, &empty.base, NULL, 0);
}

static int take_answer(struct buf *out, int64_t *out_next, const struct message *message) {
    const Millrace__Data *data = (const Millrace__Data *)message->body;
    if (data->status == MILLRACE__DATA__STATUS__FAULT) return err_set(ERR_IO, "coordinator: %s", data->reason);
    if (data->status != MILLRACE__DATA__STATUS__OK) return err_set(ERR_STALE, "the coordinator has no use for this any more");
    if (out_next) *out_next = data->next_token;
    return buf_append(out, message->chunk, message->chunk_bytes);
}

static bool answers(const struct queued_message *queued, uint64_t id) {
    return queued->message.envelope.kind == MILLRACE__KIND__DATA && queued->message.envelope.job == id;
}

/* The answer to a question asked before may have come while another one was waited for. */
static struct queued_message *take_deferred(struct worker *worker, uint64_t id) {
    for (struct queued_message **at = &worker->deferred; *at; at = &(*at)->next) {
        struct queued_message *queued = *at;
        if (!answers(queued, id)) continue;
        *at = queued->next;
        if (!*at) worker->deferred_last = at;
        return queued;
    }
    return NULL;
}

/* Waits for the answer to an open question. */
static int wait_for(struct worker *worker, struct buf *out, int64_t *out_next, uint64_t id) {
    struct read answered;
    struct queued_message *queued = take_deferred(worker, id);
    for (;; queued = NULL) {
        if (!queued) {
            questions_send(worker);
            queued = mailbox_take(&worker->inbox, WAIT_MS);
        }
        if (atomic_load(&worker->stopping)) {
            queued_message_free(queued);
            reads_take(&worker->reads, &answered, id);
            return err_set(ERR_INTERRUPTED, "the worker is leaving");
        }
        if (!queued) continue;
        const struct message *message = &queued->message;
        if (!answers(queued, id)) {
            if (message->envelope.kind == MILLRACE__KIND__WELCOME) { /* a new coordinator, which answers only those who said READY */
                questions_welcome(worker);
                queued_message_free(queued);
            } else defer(worker, queued);
            continue;
        }
        reads_take(&worker->reads, &answered, id);
        worker_tick(worker);
        int code = take_answer(out, out_next, message);
        queued_message_free(queued);
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
        bool same = other->a == body->a && other->b == body->b && other->c == body->c;
        same = same && other->offset == body->offset && other->size == body->size;
        if (same && (!body->split || strcmp(other->split, body->split) == 0)) found = read;
    }
    return found;
}

void questions_ask(struct worker *worker, const Millrace__Read *body, size_t open_max) {
    size_t open;
    if (find_asked(worker, body, &open) || open >= open_max) return;
    struct read *read = reads_add(&worker->reads, 0, 0);
    if (read) read->body = *body;
    questions_send(worker);
}

void questions_forget(struct worker *worker, Millrace__Read__What what) {
    for (size_t i = worker->reads.count; i-- > 0;) {
        struct read read = worker->reads.read[i];
        if (!read.peer && read.body.what == what) reads_take(&worker->reads, &read, read.id);
    }
}

int questions_read(struct worker *worker, struct buf *out, int64_t *out_next, const Millrace__Read *body) {
    size_t open;
    const struct read *asked = find_asked(worker, body, &open);
    if (asked) return wait_for(worker, out, out_next, asked->id);
    struct read *read = reads_add(&worker->reads, 0, 0);
    if (!read) return err_set(ERR_LIMIT, "%d reads are open already", READS_MAX);
    read->body = *body;
    return wait_for(worker, out, out_next, read->id);
}

struct queued_message *questions_next(struct worker *worker, int timeout_ms) {
    struct queued_message *queued = worker->deferred;
    if (!queued) return mailbox_take(&worker->inbox, timeout_ms);
    worker->deferred = queued->next;
    if (!worker->deferred) worker->deferred_last = &worker->deferred;
    return queued;
}
