/* What the work thread says to the network thread: messages through the outbox, news and the end through flags and link_wake(). */
#include "workers/shared.h"

#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/link.h"
#include "workers/asked.h"

void worker_tick(void *arg) { atomic_fetch_add(&((struct worker *)arg)->progress, 1); }

int worker_tick_or_stop(void *arg) {
    worker_tick(arg);
    return atomic_load(&((struct worker *)arg)->stopping);
}

void worker_send(struct worker *worker, const char *endpoint, const struct envelope *envelope, const ProtobufCMessage *body,
                 const void *chunk, size_t chunk_bytes) {
    struct queued_message *queued = mem_alloc(sizeof *queued);
    struct envelope stamped = *envelope;
    stamped.run = atomic_load(&worker->run);
    int code = frame_pack(&queued->frame, &stamped, body, chunk, chunk_bytes, FRAME_ZSTD);
    if (code < 0) {
        log_error("%s: %s", kind_name(envelope->kind), err_text());
        if (code == ERR_MEMORY) worker_fatal(worker, code); /* nobody else would say it */
        queued_message_free(queued);
        return;
    }
    if (endpoint) queued->endpoint = mem_text(endpoint);
    queued->message.envelope = stamped;
    if (envelope->kind == MILLRACE__KIND__READ) {
        queued->question = envelope->job;
        queued->question_bytes = asked_bytes((const Millrace__Read *)body);
    }
    mailbox_put(&worker->outbox, queued);
    link_wake(worker->link);
}

void worker_news(struct worker *worker) {
    atomic_store(&worker->news, true);
    link_wake(worker->link);
}

void worker_end(struct worker *worker, int outcome, const char *text) {
    if (atomic_exchange(&worker->ends, true)) return;
    snprintf(worker->outcome_text, sizeof worker->outcome_text, "%s", text);
    atomic_store(&worker->outcome, outcome);
    atomic_store(&worker->stopping, true);
    mailbox_wake(&worker->inbox);
    link_wake(worker->link);
}

void worker_fatal(struct worker *worker, int code) { worker_end(worker, code, err_text()); }
