/* Decisions of the exchange. That it always ends rests on three things: a partial sum depends on its member's own slices alone, so a
 * question for one can always be answered in the end; partial sums are asked for before sums, so sums cannot take all the room for
 * questions; and a slot that has nothing to ask never keeps another one from asking. */
#include "workers/exchange.h"

#include <string.h>

#include "base/err.h"

enum { NOBODY = UINT32_MAX };

/* ---- the view ---- */

/* The partial sums by their first slice; where several begin there, the largest: it is the one that the way down the tree meets first. */
static void index_partials(uint32_t by_slice[SLICES_MAX], const struct exchange *e) {
    for (size_t i = 0; i < SLICES_MAX; i++) by_slice[i] = NOBODY;
    for (uint32_t i = 0; i < e->partials; i++) {
        uint32_t *at = &by_slice[node_first_slice(e->partial[i].node)];
        if (*at == NOBODY || e->partial[*at].node.level < e->partial[i].node.level) *at = i;
    }
}

/* Plans the sum of a node: a partial sum as it is, or left + right in `out`. */
static int plan_node(struct exchange *e, struct operand *result, const uint32_t by_slice[SLICES_MAX], struct operand out, struct node node,
                     uint32_t slices) {
    uint32_t partial = by_slice[node_first_slice(node)];
    if (partial != NOBODY && node_same(e->partial[partial].node, node)) {
        *result = (struct operand){OPERAND_PARTIAL, partial};
        return 0;
    }
    if (node.level == 0) return err_set(ERR_CORRUPT, "slice %u belongs to nobody", node.index);
    struct node left = {node.level - 1, node.index * 2}, right = node_sibling(left);
    struct addition addition = {.out = out};
    TRY(plan_node(e, &addition.left, by_slice, (struct operand){OPERAND_SCRATCH, 2 * left.level}, left, slices));
    if (!node_exists(right, slices)) {
        *result = addition.left;
        return 0;
    }
    TRY(plan_node(e, &addition.right, by_slice, (struct operand){OPERAND_SCRATCH, 2 * right.level + 1}, right, slices));
    e->addition[e->additions++] = addition;
    *result = out;
    return 0;
}

int exchange_view(struct exchange *e, uint64_t step, uint64_t fence, size_t members, size_t self, const struct slice_set *sets,
                  const uint64_t *peers, uint32_t slices, size_t segments, const struct exchange_limits *limits) {
    CHECK(members >= 1 && members <= MEMBERS_MAX && self < members && slices <= SLICES_MAX);
    CHECK(limits->slots >= 1 && limits->slots <= SLOTS_MAX && limits->reads_at_peer >= 1 && limits->reads >= 1);
    e->limits = *limits;
    e->step = step, e->fence = fence;
    e->members = members, e->self = self, e->segments = segments;
    memcpy(e->peer, peers, members * sizeof *peers);
    e->partials = e->partials_of_others = e->additions = 0;
    e->running = false;
    for (uint32_t i = 0; i < members; i++) {
        struct node cover[SLICES_MAX];
        size_t nodes = nodes_cover(cover, &sets[i], slices);
        if (nodes > PARTIALS_MAX - e->partials) return err_set(ERR_CORRUPT, "some slices belong to several members");
        for (size_t k = 0; k < nodes; k++) e->partial[e->partials++] = (struct exchange_partial){cover[k], i};
        if (i != self) e->partials_of_others += nodes;
    }
    uint32_t by_slice[SLICES_MAX];
    index_partials(by_slice, e);
    return plan_node(e, &e->sum, by_slice, (struct operand){OPERAND_SUM, 0}, node_root(slices), slices);
}

/* ---- beginning and ending ---- */

void exchange_begin(struct exchange *e) {
    memset(e->slot, 0, sizeof e->slot);
    e->next_own = e->next_other = e->sums = 0;
    e->running = true;
}

void exchange_end(struct exchange *e, struct reads *reads) {
    reads_drop_what(reads, MILLRACE__READ__WHAT__PARTIAL);
    reads_drop_what(reads, MILLRACE__READ__WHAT__SUM);
    e->running = false;
}

bool exchange_complete(const struct exchange *e) { return e->running && e->sums == e->segments; }

/* ---- asking ---- */

static struct read *ask(const struct exchange *e, struct reads *reads, size_t member, Millrace__Read__What what, uint64_t tag,
                        size_t segment) {
    size_t there = 0, all = 0;
    for (size_t i = 0; i < reads->count; i++) {
        const struct read *read = &reads->read[i];
        all += read->body.what == MILLRACE__READ__WHAT__PARTIAL || read->body.what == MILLRACE__READ__WHAT__SUM;
        there += read->body.what == what && read->peer == e->peer[member];
    }
    if (there >= e->limits.reads_at_peer || all >= e->limits.reads) return NULL;
    struct read *read = reads_add(reads, e->peer[member], tag);
    if (!read) return NULL;
    read->envelope.step = e->step;
    read->envelope.attempt = e->fence;
    read->body.what = what;
    read->body.c = segment;
    return read;
}

/* Asks for the slot's partial sums, in order, as far as their members may be asked. */
static void ask_partials(const struct exchange *e, struct reads *reads, struct exchange_slot *slot) {
    for (; slot->next_partial < e->partials; slot->next_partial++) {
        const struct exchange_partial *partial = &e->partial[slot->next_partial];
        if (partial->member == e->self) continue;
        uint64_t tag = (uint64_t)(slot - e->slot) << 32 | slot->next_partial;
        struct read *read = ask(e, reads, partial->member, MILLRACE__READ__WHAT__PARTIAL, tag, slot->segment);
        if (!read) return;
        read->body.a = partial->node.level;
        read->body.b = partial->node.index;
    }
}

/* Gives a free slot the next segment of ours, if there is one left. */
static void fill_slot(struct exchange *e, struct exchange_slot *slot) {
    while (e->next_own < e->segments && e->next_own % e->members != e->self) e->next_own++;
    if (e->next_own == e->segments) return;
    *slot = (struct exchange_slot){.used = true, .segment = e->next_own++, .missing = e->partials_of_others};
}

static void ask_sums(struct exchange *e, struct reads *reads) {
    for (; e->next_other < e->segments; e->next_other++) {
        size_t owner = e->next_other % e->members;
        if (owner != e->self && !ask(e, reads, owner, MILLRACE__READ__WHAT__SUM, 0, e->next_other)) return;
    }
}

void exchange_ask(struct exchange *e, struct reads *reads) {
    if (!e->running) return;
    for (size_t i = 0; i < e->limits.slots; i++) {
        if (!e->slot[i].used) fill_slot(e, &e->slot[i]);
        if (e->slot[i].used) ask_partials(e, reads, &e->slot[i]);
    }
    ask_sums(e, reads);
}

/* ---- answers ---- */

enum exchange_taken exchange_take(struct exchange *e, struct reads *reads, size_t *out_slot, size_t *out_partial,
                                  const struct read *read, bool good, int64_t now_ms) {
    if (!e->running || read->envelope.attempt != e->fence || read->envelope.step != e->step) return TAKEN_NOT;
    if (!good) {
        reads_put_back(reads, read, now_ms);
        return TAKEN_AGAIN;
    }
    if (read->body.what == MILLRACE__READ__WHAT__SUM) {
        e->sums++;
        return TAKEN_SUM;
    }
    *out_slot = read->tag >> 32;
    *out_partial = read->tag & UINT32_MAX;
    e->slot[*out_slot].missing--;
    return TAKEN_PARTIAL;
}

bool exchange_full(const struct exchange *e, size_t *out_slot) {
    for (size_t i = 0; i < e->limits.slots && e->running; i++) {
        if (!e->slot[i].used || e->slot[i].missing > 0) continue;
        *out_slot = i;
        return true;
    }
    return false;
}

void exchange_summed(struct exchange *e, size_t slot) {
    CHECK(e->slot[slot].used && e->slot[slot].missing == 0);
    e->slot[slot].used = false;
    e->sums++;
}
