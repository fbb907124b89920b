/* Messages between a worker's two threads: unpacked ones to the work thread (inbox), packed ones to the network thread (outbox). Thread-
 * safe, first in first out. */
#ifndef MILLRACE_WORKERS_MAILBOX_H
#define MILLRACE_WORKERS_MAILBOX_H

#include <pthread.h>
#include <stdbool.h>

#include "proto/frame.h"

struct queued_message {
    struct queued_message *next;
    char *endpoint;          /* outgoing: of the peer, owned; NULL: the coordinator */
    struct frame frame;      /* outgoing */
    uint64_t question;       /* outgoing: the number of a READ; 0: it is none */
    size_t question_bytes;   /* that may come as its answer */
    struct message message;  /* incoming; outgoing: its envelope alone */
};

struct mailbox {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct queued_message *first, **last;
    bool woken;
};

void mailbox_open(struct mailbox *box);
void mailbox_put(struct mailbox *box, struct queued_message *queued);  /* takes it */
/* NULL when nothing came, or after mailbox_wake(); 0: does not wait. */
struct queued_message *mailbox_take(struct mailbox *box, int timeout_ms);
void mailbox_wake(struct mailbox *box);
void queued_message_free(struct queued_message *queued);
void mailbox_close(struct mailbox *box);

#endif
