/* What the worker's files share. `lock` guards what is offered under "shared": the work thread changes it, the network thread serves it. */
#ifndef MILLRACE_WORKERS_INTERNAL_H
#define MILLRACE_WORKERS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/pool.h"
#include "config/config.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"
#include "proto/frame.h"
#include "proto/reads.h"
#include "proto/steps.h"
#include "workers/addresses.h"
#include "workers/mailbox.h"
#include "workers/offer.h"
#include "workers/worker.h"

enum {
    OUTPUTS_MAX = 16, /* finished jobs whose output the coordinator has not taken yet */
    INGESTS_MAX = 3,  /* one more than the coordinator leases at once */
    HEARTBEAT_MS = 500,
};

struct output {             /* of a finished job; an unnamed temporary file, so that a crash leaves nothing behind */
    uint64_t job;           /* 0: free */
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
    char id[40];
    char host[64];
    atomic_bool stopping;       /* both threads end */
    atomic_int outcome;         /* what worker_run() returns */
    char outcome_text[ERR_TEXT_BYTES];    /* set before `stopping` */
    atomic_ulong progress;      /* ticks of the work loop: the only thing that renews leases */
    atomic_bool busy;
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
    struct shared shared;       /* guarded by lock */
    /* the work thread's alone */
    struct config config;
    bool configured;
    bool answered;              /* `answer` is known */
    uint8_t answer[SHA256_BYTES];
    struct pool *pool;
    struct tokenizer *tokenizer;
    struct encoder *encoder;             /* of all tokenize jobs: its table of pieces is filled once; NULL: not open */
    struct ingest *ingest[INGESTS_MAX];  /* at the ends of long jobs, to go on with; the one kept last is first */
    struct addresses addresses;          /* of members that are asked; reads name them by number, 0 is the coordinator */
    struct reads reads;
    struct letter *deferred, **deferred_last;  /* messages that came while a read was waited for */
    struct feed *feed;
    struct member_side *member;
};

/* work.c: the work thread. */
void *work_main(void *worker);
void work_tick(void *worker);
int work_tick_or_stop(void *worker);  /* for callbacks that may stop: 1 when the worker ends */
void work_send(struct worker *worker, const char *endpoint, const struct envelope *envelope, const ProtobufCMessage *body,
               const void *chunk, size_t chunk_bytes);
/* Asks the coordinator and waits: appends the chunk to `out`. *out_next (may be NULL) gets Data.next_token. */
int work_read(struct worker *worker, struct buf *out, int64_t *out_next, const Millrace__Read *read);
/* Asks the coordinator without waiting: the same work_read() later finds the answer under way, or there. Nothing happens when open_max
 * questions of this kind are open. read->split, if any, is a constant text. */
void work_ask(struct worker *worker, const Millrace__Read *read, size_t open_max);
void work_forget(struct worker *worker, Millrace__Read__What what);  /* answers to what was asked ahead are of no use any more */
void work_news(struct worker *worker); /* something is offered that was not before: questions may be waiting for it */
/* This worker cannot go on: it ends with err_text(). */
void work_fatal(struct worker *worker, int code);

/* jobs.c */
void job_do(struct worker *worker, const struct message *lease);
void job_settled(struct worker *worker, uint64_t job);
void jobs_close(struct worker *worker);  /* gives back what is kept from job to job; a later job begins anew */
int output_read(struct worker *worker, void *out, size_t *out_got, uint64_t job, uint64_t offset, size_t size);

/* member.c: this worker's side of training. */
void member_close(struct worker *worker);
void member_join(struct worker *worker, const struct message *message);
void member_step(struct worker *worker, const struct message *message);
void member_commit(struct worker *worker, const struct message *message);
void member_data(struct worker *worker, const struct read *read, struct message *message); /* may take its memory */
bool member_work(struct worker *worker);  /* does one piece of work; false: nothing to do until a message comes */
int member_evaluate(struct worker *worker, double *out_loss, uint64_t *out_tokens, const Millrace__EvaluateJob *job);

/* serve.c, on the network thread: fills `data` and *chunk; 1: answered, 0: not there yet, ask again later. `data` and the chunk stay the
 * caller's. */
int serve_read(struct worker *worker, Millrace__Data *data, struct buf *chunk, enum frame_encoding *encoding,
               const struct envelope *envelope, const Millrace__Read *read);

#endif
