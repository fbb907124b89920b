/* The partial sums that a member holds of the step under way, as decisions alone: which slice is computed next, what is added to what,
 * what a new view keeps, and what is given up where there is no more room. Pure: a sum's values are known by the number of their vector,
 * below NODES_MAX.
 *
 * For each view: partials_view(); then for each slice that partials_next() gives: partials_room(), partials_put(), and partials_add()
 * until it says no. When no slice is left, partials_name() finds the sum of each node that others will ask for. partials_drop() after the
 * commit. The work thread's. */
#ifndef MILLRACE_WORKERS_PARTIALS_H
#define MILLRACE_WORKERS_PARTIALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/steps.h"

struct partials {
    uint32_t slices;              /* of a step */
    struct slice_set mine, held;  /* our slices in this view; those that are in the sums */
    struct node node[NODES_MAX];
    uint32_t vector[NODES_MAX];   /* below NODES_MAX; each sum has its own */
    size_t count;
};

/* A new view gives us these slices. Of the same step, sums of our slices alone stay; one with a slice that is now another member's is of no
 * use. */
void partials_view(struct partials *partials, const struct slice_set *mine, bool same_step);
bool partials_next(const struct partials *partials, uint32_t *out_slice); /* to compute; false: all of ours are there */
/* A free vector for the slice's gradient. When all are taken a sum is given up, and its slices are computed again later. false: none can be
 * given up. */
bool partials_room(struct partials *partials, uint32_t *out_vector, uint32_t slice);
void partials_put(struct partials *partials, uint32_t slice, uint32_t vector);
/* After each slice, until it returns false: add `right` to `left`, which are vectors; then `right` is free. */
bool partials_add(struct partials *partials, uint32_t *out_left, uint32_t *out_right);
/* Finds the sum of that node, which has another level's name where a sibling is missing, and gives it this one. *out_vector: where it is.
 * false: it is not here. */
bool partials_name(struct partials *partials, uint32_t *out_vector, struct node node);
void partials_drop(struct partials *partials); /* all of them */

#endif
