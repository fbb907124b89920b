/* A linked list behind a lock, and a condition for who waits. Bounded by what its users ask for: reads are limited, control messages are
 * few. */
#include "workers/mailbox.h"

#include <stdlib.h>
#include <time.h>

void mailbox_open(struct mailbox *box) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    *box = (struct mailbox){0};
    pthread_mutex_init(&box->lock, NULL);
    pthread_cond_init(&box->filled, &attributes);
    pthread_condattr_destroy(&attributes);
    box->last = &box->first;
}

void mailbox_put(struct mailbox *box, struct queued_message *queued) {
    queued->next = NULL;
    pthread_mutex_lock(&box->lock);
    *box->last = queued;
    box->last = &queued->next;
    pthread_cond_signal(&box->filled);
    pthread_mutex_unlock(&box->lock);
}

struct queued_message *mailbox_take(struct mailbox *box, int timeout_ms) {
    pthread_mutex_lock(&box->lock);
    if (!box->first && !box->woken && timeout_ms > 0) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += timeout_ms / 1000;
        until.tv_nsec += timeout_ms % 1000 * 1000000L;
        if (until.tv_nsec >= 1000000000L) until.tv_sec++, until.tv_nsec -= 1000000000L;
        while (!box->first && !box->woken)
            if (pthread_cond_timedwait(&box->filled, &box->lock, &until) != 0) break;
    }
    box->woken = false;
    struct queued_message *queued = box->first;
    if (queued) {
        box->first = queued->next;
        if (!box->first) box->last = &box->first;
        queued->next = NULL;
    }
    pthread_mutex_unlock(&box->lock);
    return queued;
}

void mailbox_wake(struct mailbox *box) {
    pthread_mutex_lock(&box->lock);
    box->woken = true;
    pthread_cond_signal(&box->filled);
    pthread_mutex_unlock(&box->lock);
}

void queued_message_free(struct queued_message *queued) {
    if (!queued) return;
    free(queued->endpoint);
    frame_free(&queued->frame);
    message_free(&queued->message);
    free(queued);
}

void mailbox_close(struct mailbox *box) {
    for (struct queued_message *queued; (queued = mailbox_take(box, 0));) queued_message_free(queued);
    pthread_cond_destroy(&box->filled);
    pthread_mutex_destroy(&box->lock);
}
