/* The partial sums that a member holds of the step under way, as decisions alone: which slice is computed next, what is added to what, what
 * a new view keeps, and what is given up where there is no more room. Pure: a sum's values are known by the number of their vector. */
#ifndef MILLRACE_WORKERS_PARTIALS_H
#define MILLRACE_WORKERS_PARTIALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/steps.h"

struct partials {
    uint32_t slices;              /* of a step */
    struct slice_set mine, held;  /* what the view gives us; what is in the sums */
    struct node node[NODES_MAX];
    uint32_t vector[NODES_MAX];   /* below NODES_MAX; each sum has its own */
    size_t count;
};

/* A new view gives us these slices. Of the same step what is wholly ours stays: a sum with a slice that is not ours any more is of no
 * use. */
void partials_view(struct partials *partials, const struct slice_set *mine, bool same_step);
bool partials_next(const struct partials *partials, uint32_t *out_slice); /* to compute; false: all of ours are there */
/* A vector for the slice's gradient. Where there is none, a sum is given up, whose slices come again. false: nothing can be given up. */
bool partials_room(struct partials *partials, uint32_t *out_vector, uint32_t slice);
void partials_put(struct partials *partials, uint32_t slice, uint32_t vector);
/* After each slice, until it says false: add `right` to `left`, which are vectors; then `right` is free. */
bool partials_add(struct partials *partials, uint32_t *out_left, uint32_t *out_right);
/* The sum that begins with the node's slice, under the node's name from now on; its vector. false: there is none. */
bool partials_name(struct partials *partials, uint32_t *out_vector, struct node node);
void partials_drop(struct partials *partials); /* all of them */

#endif
