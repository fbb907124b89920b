/* A table of (node, vector). A node and its sibling make their parent; a node without a sibling is its parent under another name. A sum
 * that is given up is computed again, and comes after the slice that is computed next: so this ends. */
#include "workers/partials.h"

#include <string.h>

#include "base/err.h"

static void drop(struct partials *p, size_t i) {
    p->node[i] = p->node[--p->count];
    p->vector[i] = p->vector[p->count];
}

static void hold(struct partials *p, struct node node, bool held) {
    uint64_t end = ((uint64_t)node.index + 1) << node.level;
    for (uint64_t s = node_first_slice(node); s < end && s < p->slices; s++) (held ? slice_add : slice_remove)(&p->held, (uint32_t)s);
}

void partials_view(struct partials *p, const struct slice_set *mine, bool same_step) {
    p->mine = *mine;
    for (size_t i = p->count; i-- > 0;)
        if (!same_step || !node_complete(p->node[i], &p->mine, p->slices)) drop(p, i);
    memset(&p->held, 0, sizeof p->held);
    for (size_t i = 0; i < p->count; i++) hold(p, p->node[i], true);
}

bool partials_next(const struct partials *p, uint32_t *out_slice) {
    for (uint32_t s = 0; s < p->slices; s++)
        if (slice_in(&p->mine, s) && !slice_in(&p->held, s)) {
            *out_slice = s;
            return true;
        }
    return false;
}

bool partials_room(struct partials *p, uint32_t *out_vector, uint32_t slice) {
    if (p->count == NODES_MAX) {
        size_t which;
        if (!node_to_give_up(&which, p->node, p->count, slice)) return false;
        hold(p, p->node[which], false);
        drop(p, which);
    }
    uint64_t used = 0;
    for (size_t i = 0; i < p->count; i++) used |= UINT64_C(1) << p->vector[i];
    for (*out_vector = 0; used >> *out_vector & 1;) ++*out_vector;
    return true;
}

void partials_put(struct partials *p, uint32_t slice, uint32_t vector) {
    CHECK(p->count < NODES_MAX);
    p->node[p->count] = (struct node){0, slice};
    p->vector[p->count++] = vector;
    slice_add(&p->held, slice);
}

/* A node that has no sibling takes its parent's name, as far up as that goes. */
static void rise(const struct partials *p, struct node *node) {
    struct node root = node_root(p->slices);
    while (!node_same(*node, root) && !node_exists(node_sibling(*node), p->slices)) *node = node_parent(*node);
}

bool partials_add(struct partials *p, uint32_t *out_left, uint32_t *out_right) {
    for (size_t i = 0; i < p->count; i++) rise(p, &p->node[i]);
    for (size_t i = 0; i < p->count; i++) {
        if (node_same(p->node[i], node_root(p->slices))) continue;
        struct node sibling = node_sibling(p->node[i]);
        for (size_t k = 0; k < p->count; k++) {
            if (!node_same(p->node[k], sibling)) continue;
            size_t left = p->node[i].index & 1 ? k : i, right = left == i ? k : i;
            *out_left = p->vector[left], *out_right = p->vector[right];
            p->node[left] = node_parent(p->node[left]);
            drop(p, right);
            return true;
        }
    }
    return false;
}

bool partials_name(struct partials *p, uint32_t *out_vector, struct node node) {
    for (size_t i = 0; i < p->count; i++) {
        if (node_first_slice(p->node[i]) != node_first_slice(node)) continue;
        p->node[i] = node;
        *out_vector = p->vector[i];
        return true;
    }
    return false;
}

void partials_drop(struct partials *p) {
    p->count = 0;
    memset(&p->held, 0, sizeof p->held);
}
