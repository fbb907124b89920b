/* What a member offers to others: which partial sums, summed segments and state may be read, of which view and step, and what a question
 * for one of them gets now. Pure: it knows nodes, segments and steps, and no vector. What is offered does not change until it is
 * withdrawn. Behind the worker's lock: the work thread offers and withdraws, the network thread asks with offer_find(). */
#ifndef MILLRACE_WORKERS_OFFER_H
#define MILLRACE_WORKERS_OFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/frame.h"
#include "proto/steps.h"

struct offer {
    size_t segments; /* of every vector, so that a question for one more ends no process (segment_size()); 0: not known yet */
    uint64_t fence;  /* the view that partial sums and summed segments are of */
    bool partials;   /* ours are shown */
    struct node node[NODES_MAX];
    size_t nodes;
    bool *sum;  /* [segments]: those that are shown */
    bool state; /* there is one, of state_step, or will be when it does not change any more */
    bool state_changes;
    uint64_t state_step;
};

enum offered {
    OFFER_LATER, /* not there yet: the question waits */
    OFFER_THIS,
    OFFER_NO_MORE, /* there was such a thing, or it will never be: the asker is behind */
    OFFER_NEVER,   /* no such thing belongs to us */
};

/* *out_which is the number of the node for a partial sum. */
enum offered offer_find(const struct offer *offer, size_t *out_which, const struct envelope *envelope, const Millrace__Read *read);

void offer_view(struct offer *offer, uint64_t fence);                             /* a new view: nothing of it is there */
void offer_partials(struct offer *offer, const struct node *nodes, size_t count); /* these may be asked for now; 0: all are withdrawn */

#endif
