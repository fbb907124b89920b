/* What a worker's two threads share: what it offers to others, what it wants to send, and whether it goes on; and the functions with which
 * the work thread's files act on it (worker_tick(), worker_send(), worker_news(), worker_end()). What one part of the work thread has
 * for itself is known to that part's file. */
#ifndef MILLRACE_WORKERS_SHARED_H
#define MILLRACE_WORKERS_SHARED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/pool.h"
#include "config/config.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/optim/state.h"
#include "proto/endpoint.h"
#include "proto/frame.h"
#include "proto/reads.h"
#include "workers/addresses.h"
#include "workers/feed.h"
#include "workers/mailbox.h"
#include "workers/offer.h"
#include "workers/worker.h"

enum { OUTPUTS_MAX = 16 }; /* finished jobs whose output the coordinator has not taken yet */

struct output {             /* of a finished job; an unnamed temporary file, so that a crash leaves nothing behind */
    uint64_t job;           /* 0: free */
    uint64_t attempt;       /* its fencing number */
    int fd;
    uint64_t size;
};

/* What this worker has to offer to others. The vectors are large, and the lock is held for as long as it takes to copy a segment at most:
 * so what is offered does not change, what is about to change is taken back first, and is changed without the lock. */
struct shared {
    struct output output[OUTPUTS_MAX];
    struct offer offer;
    const float *partial[NODES_MAX]; /* of offer.node */
    float *sum;                      /* the summed gradient, where offer.sum says so */
    void *state[STATE_PARTS]; /* NULL for a part that this run's optimizer does not have */
    struct state_parts parts; /* which it has */
    uint8_t state_digest[XXH128_BYTES]; /* of offer.state_step */
    size_t elements;        /* N; 0 before the configuration is known */
};

struct worker {
    struct worker_options options;
    char endpoint[ENDPOINT_TEXT_MAX]; /* where others reach it */
    char id[40];
    char host[64];
    atomic_bool ends;           /* one thread has a reason: the next two are what that one writes */
    atomic_bool ended;          /* the work thread has */
    atomic_int outcome;         /* what worker_run() returns */
    char outcome_text[ERR_TEXT_BYTES];
    atomic_bool stopping;       /* both are written: both threads end */
    atomic_ulong progress;      /* ticks of the work loop: while `busy`, the only thing that renews leases */
    atomic_bool busy;           /* the work thread does something: its progress has to move */
    atomic_bool news;           /* something that others may be waiting for was made */
    atomic_int tensor_encoding; /* enum frame_encoding of tensors on the wire */
    atomic_ulong run;
    bool knows_pipeline;        /* the network thread's: of the first WELCOME */
    uint8_t pipeline[SHA256_BYTES];
    struct mailbox inbox, outbox;
    struct link *link;          /* the network thread's alone, but for link_wake() */
    uint64_t coordinator;       /* its peer number */
    bool coordinator_is_local;  /* on this machine: to compress what it reads costs more than to send it */
    pthread_mutex_t lock;
    struct shared shared;       /* guarded by lock: the work thread changes it, the network thread serves it */
    /* the work thread's alone */
    struct config config;
    bool configured;
    bool answered;              /* `answer` is known */
    uint8_t answer[SHA256_BYTES];
    struct pool *pool;
    struct tokenizer *tokenizer;
    struct addresses addresses;          /* of members that are asked; reads name them by number, 0 is the coordinator */
    struct reads reads;
    struct queued_message *deferred, **deferred_last;  /* messages that came while a read was waited for */
    struct feed *feed;
    struct jobs *jobs;                   /* workers/jobs.c's */
    struct learner *learner;           /* workers/learner.h's; NULL: no state was to be taken yet */
};

void worker_tick(void *worker);        /* the work thread has moved: whatever computes calls it every so often, or leases run out */
int worker_tick_or_stop(void *worker);  /* for callbacks that may stop: 1 when the worker ends */
/* endpoint NULL: to the coordinator. */
void worker_send(struct worker *worker, const char *endpoint, const struct envelope *envelope, const ProtobufCMessage *body,
                 const void *chunk, size_t chunk_bytes);
void worker_news(struct worker *worker); /* something is offered that was not: the network thread looks at parked questions */
/* This worker ends, for the first reason that either thread gives. */
void worker_end(struct worker *worker, int outcome, const char *text);
/* It cannot go on: it ends with err_text(). */
void worker_fatal(struct worker *worker, int code);

#endif
