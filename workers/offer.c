/* Comparing numbers: questions of an earlier view or step get OFFER_NO_MORE, those of a later one wait, because the message that brings
 * this member there is on its way. */
#include "workers/offer.h"

#include <string.h>

#include "base/err.h"

/* What an asker of `theirs` gets while `ours` is here and `there`. */
static enum offered compare(uint64_t ours, uint64_t theirs, bool there) {
    if (ours > theirs) return OFFER_NO_MORE;
    return ours == theirs && there ? OFFER_THIS : OFFER_LATER;
}

static enum offered find_partial(const struct offer *o, size_t *out_which, const struct envelope *envelope, const Millrace__Read *read) {
    enum offered offered = compare(o->fence, envelope->attempt, o->partials);
    if (offered != OFFER_THIS) return offered;
    for (size_t i = 0; i < o->nodes; i++) {
        *out_which = i;
        if (o->node[i].level == read->a && o->node[i].index == read->b) return OFFER_THIS;
    }
    return OFFER_NEVER;
}

enum offered offer_find(const struct offer *o, size_t *out_which, const struct envelope *envelope, const Millrace__Read *read) {
    if (o->segments == 0) return OFFER_LATER;
    if (read->c >= o->segments) return OFFER_NEVER;
    switch (read->what) {
    case MILLRACE__READ__WHAT__PARTIAL: return find_partial(o, out_which, envelope, read);
    case MILLRACE__READ__WHAT__SUM: return compare(o->fence, envelope->attempt, o->sum[read->c]);
    case MILLRACE__READ__WHAT__STATE: return o->state ? compare(o->state_step, envelope->step, !o->state_changes) : OFFER_NO_MORE;
    default: return OFFER_NEVER;
    }
}

void offer_view(struct offer *o, uint64_t fence) {
    o->fence = fence;
    o->partials = false;
    o->nodes = 0;
    memset(o->sum, 0, o->segments * sizeof *o->sum);
}

void offer_partials(struct offer *o, const struct node *nodes, size_t count) {
    CHECK(count <= NODES_MAX);
    if (count) memcpy(o->node, nodes, count * sizeof *nodes);
    o->nodes = count;
    o->partials = true;
}
