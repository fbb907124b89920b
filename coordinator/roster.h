/* Who is there. A worker says HELLO, gets the pipeline (WELCOMED) and with its READY is admitted to the dataset's jobs; before it takes
 * part in training a self-test shows that it computes this run's bits (self_tests.h; that takes the memory of training, so not before). It
 * is lost when it is silent, when its connection is gone, or when its work does not move for the length of a lease.
 *
 * The roster calls nobody who builds on it: what they must know comes out as events, which the loop takes and routes before it does
 * anything else. */
#ifndef MILLRACE_COORDINATOR_ROSTER_H
#define MILLRACE_COORDINATOR_ROSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "coordinator/queue.h"
#include "proto/endpoint.h"
#include "proto/frame.h"
#include "proto/session.h"

struct context;

enum {
    WORKERS_MAX = QUEUE_WORKERS_MAX,
    WORKER_BLAMED_MAX = 3, /* times that one is at fault where others are not: no accident any more, and it is set aside */
};

enum worker_state {
    WORKER_WELCOMED, /* it said HELLO, and takes the pipeline in; "joining" in status */
    WORKER_READY, WORKER_BUSY,
    WORKER_LOST,     /* it is gone, without a word */
    WORKER_LEFT,     /* the same, after GOODBYE, a refusal, or another HELLO */
};

struct worker_entry {
    uint64_t peer;                 /* on our link; 0: none */
    struct session session;
    char id[48], host[64], endpoint[ENDPOINT_TEXT_MAX], build[192];
    uint32_t pid;
    enum worker_state state;
    int64_t heard_ms;              /* last message */
    int64_t hello_ms, welcomed_ms; /* its HELLO; last WELCOME */
    int64_t moved_ms;              /* when its work thread moved last, or had nothing to do */
    uint64_t progress, rss_bytes;
    int64_t progress_ms;           /* when that was told first */
    bool told_busy;                /* by its last heartbeat */
    bool leaving;                  /* it was asked to leave, and waits for GOODBYE */
    bool asked, answered;          /* for its self-test */
    bool proved;                   /* its self-test gives this run's bits: it may take part in training */
    bool in_question;              /* its self-test gives other bits than the one that counts, and no digest has a majority */
    uint8_t answer[SHA256_BYTES];
    int64_t asked_ms, answered_ms;
    uint64_t answer_order;         /* grows with each that comes */
    char unreached[480];           /* why it is out of the step, once another worker did not reach it */
    bool unreachable;              /* sending to it failed: its connection is gone */
    size_t leases;
    size_t owed;                   /* leases of which no DONE or FAILED came, so it cannot be idle: from the queue, in each turn */
    uint64_t jobs_done, slices_done;
    int64_t rests_until_ms;        /* a job failed here: it gets no other before that */
    uint32_t blamed;               /* jobs that failed here and nowhere else */
    uint32_t joins_failed;         /* times in a row that it could not take the state over */
    uint64_t mute_step;            /* the last step of which it did not give the state when asked; 0: none */
    uint32_t odd;                  /* times that it held another result of a step than most others, or kept its own to itself */
    uint32_t false_counts;         /* times that it told of more tokens than a slice has */
    uint32_t false_states;         /* times that it gave another state than the one whose digest it had sent */
    char aside[160];               /* why it gets no work as long as others are here; empty: it does */
    uint32_t compute_ms;
    bool has_state;
    uint64_t state_step;
    uint8_t state_digest[XXH128_BYTES];
};

void roster_open(struct context *c);
void roster_close(struct context *c);
int roster_prepare(struct context *c);                                    /* what newcomers get: the pipeline and its tokenizer */

enum roster_news {
    ROSTER_CAME,    /* it was admitted */
    ROSTER_PROVED,  /* its self-test gives this run's bits */
    ROSTER_DOUBTED, /* its digest does not count any more: no digest has a majority */
    ROSTER_LEAVING, /* it was asked to leave, and goes on until roster_send_home() */
    ROSTER_GONE,    /* one that was admitted is there no more */
    ROSTER_OTHER,   /* another one has its place in the table, and so its number */
};
struct roster_event {
    enum roster_news news;
    uint32_t worker;
    bool lost;      /* GONE: without GOODBYE */
};
bool roster_event(struct context *c, struct roster_event *out);           /* the next one, in the order in which they happened */
void roster_note(struct context *c, enum roster_news news, uint32_t worker);

int64_t roster_find(const struct context *c, uint64_t peer);              /* the admitted or joining worker at this peer; -1: none */
bool roster_admitted(const struct worker_entry *worker);
/* Is the message the next one of its session? Else there is nothing more to do with it. */
bool roster_take(struct context *c, uint32_t worker, const struct message *message);
bool roster_expects_hello(const struct context *c, int64_t now_ms); /* somebody was asked for it a moment ago */
/* HELLO, READY, HEARTBEAT, GOODBYE, or any of a stranger. */
void roster_message(struct context *c, uint64_t peer, const struct message *message);
/* For so long up to now the loop took no message: that was nobody's silence. Before the tick. */
void roster_pause(struct context *c, int64_t pause_ms, int64_t now_ms);
void roster_tick(struct context *c, int64_t now_ms);
/* ERR_LIMIT: the message is over a cap and can never be sent. Anything else is made good by later messages. */
int send_to(struct context *c, uint32_t worker, const struct envelope *envelope, const ProtobufCMessage *body);
/* READ and its answer, which are asked for or said again when they are lost. No memory for one fails the pipeline. */
void send_unnumbered(struct context *c, uint64_t peer, const struct envelope *envelope, const ProtobufCMessage *body,
                     const struct buf *chunk, enum frame_encoding encoding);
void roster_lost(struct context *c, uint32_t worker, enum worker_state state, const char *why);
void roster_set_aside(struct context *c, uint32_t worker, const char *why); /* it gets no work any more while others are here */
void roster_refuse(struct context *c, uint64_t peer, bool final, const char *reason);
void roster_send_home(struct context *c, uint32_t worker);                /* it was asked to leave, and has nothing that is needed */

#endif
