/* Slices, the fixed tree over them, and segments: the part of the step protocol that coordinator and workers must compute alike. It exists
 * once so that they cannot differ. Functions of their arguments alone. It never sums gradients: workers do, their own while they
 * compute them and all of them in the exchange, along the nodes that this file names. */
#include "proto/steps.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

enum { LEVELS_MAX = 13 };  /* levels 0 .. 12 for SLICES_MAX leaves */

void slice_add(struct slice_set *set, uint32_t slice) {
    CHECK(slice < SLICES_MAX);
    set->bits[slice / 64] |= UINT64_C(1) << slice % 64;
}

void slice_remove(struct slice_set *set, uint32_t slice) {
    CHECK(slice < SLICES_MAX);
    set->bits[slice / 64] &= ~(UINT64_C(1) << slice % 64);
}

bool slice_in(const struct slice_set *set, uint32_t slice) {
    return slice < SLICES_MAX && (set->bits[slice / 64] >> slice % 64 & 1);
}

size_t slice_count(const struct slice_set *set) {
    size_t count = 0;
    for (size_t i = 0; i < SLICES_MAX / 64; i++) count += (size_t)__builtin_popcountll(set->bits[i]);
    return count;
}

/* The slices [begin, end) of a node that exists; the last node of a level may have fewer than 2^level. */
static void node_range(struct node node, uint32_t slices, uint32_t *out_begin, uint32_t *out_end) {
    uint32_t begin = node.index << node.level, size = UINT32_C(1) << node.level;
    *out_begin = begin;
    *out_end = slices - begin < size ? slices : begin + size;
}

bool node_complete(struct node node, const struct slice_set *set, uint32_t slices) {
    if (!node_exists(node, slices)) return false;
    uint32_t slice, end;
    for (node_range(node, slices, &slice, &end); slice < end; slice++)
        if (!slice_in(set, slice)) return false;
    return true;
}

struct node node_parent(struct node node) {
    return (struct node){node.level + 1, node.index / 2};
}

struct node node_sibling(struct node node) {
    return (struct node){node.level, node.index ^ 1};
}

bool node_exists(struct node node, uint32_t slices) {
    return slices <= SLICES_MAX && node.level <= node_root(slices).level && (uint64_t)node.index << node.level < slices;
}

struct node node_root(uint32_t slices) {
    uint32_t level = 0;
    while (level < LEVELS_MAX - 1 && UINT32_C(1) << level < slices) level++;
    return (struct node){level, 0};
}

bool node_same(struct node a, struct node b) {
    return a.level == b.level && a.index == b.index;
}

/* Walks down from `node`: a node that is complete covers itself, any other is covered by its children. */
static size_t cover_below(struct node *out, struct node node, const struct slice_set *set, uint32_t slices) {
    if (!node_exists(node, slices)) return 0;
    if (node_complete(node, set, slices)) {
        *out = node;
        return 1;
    }
    if (node.level == 0) return 0;
    struct node left = {node.level - 1, node.index * 2};
    size_t count = cover_below(out, left, set, slices);
    return count + cover_below(out + count, node_sibling(left), set, slices);
}

size_t nodes_cover(struct node *out, const struct slice_set *set, uint32_t slices) {
    CHECK(slices <= SLICES_MAX);
    return cover_below(out, node_root(slices), set, slices);
}

/* What a set has of whole nodes of that level. */
static struct slice_set whole_nodes(const struct slice_set *set, uint32_t level, uint32_t slices) {
    if (level == 0) return *set;
    struct slice_set out = {0};
    uint32_t slice, end;
    for (struct node node = {level, 0}; node_exists(node, slices); node.index++) {
        if (!node_complete(node, set, slices)) continue;
        for (node_range(node, slices, &slice, &end); slice < end; slice++) slice_add(&out, slice);
    }
    return out;
}

/* Copies what is held in whole nodes of that level, each slice to the first member that holds it, and returns what nobody holds so. */
static struct slice_set assign_held(struct slice_set *assigned, const struct slice_set *held, size_t members, uint32_t slices,
                                    uint32_t level) {
    struct slice_set missing = {0};
    for (uint32_t slice = 0; slice < slices; slice++) slice_add(&missing, slice);
    for (size_t member = 0; member < members; member++) {
        struct slice_set kept = whole_nodes(&held[member], level, slices);
        for (size_t i = 0; i < SLICES_MAX / 64; i++) {
            assigned[member].bits[i] = kept.bits[i] & missing.bits[i];
            missing.bits[i] &= ~kept.bits[i];
        }
    }
    return missing;
}

static size_t least_loaded(const uint32_t *load, size_t members) {
    size_t least = 0;
    for (size_t member = 1; member < members; member++)
        if (load[member] < load[least]) least = member;
    return least;
}

/* Hands a node's slices to the member with the least to do, unless that would take it over the quota. */
static bool give_node(struct slice_set *assigned, uint32_t *load, struct slice_set *missing, size_t members, struct node node,
                      uint32_t slices, uint32_t quota) {
    uint32_t begin, end;
    node_range(node, slices, &begin, &end);
    size_t member = least_loaded(load, members);
    if (load[member] + (end - begin) > quota) return false;
    load[member] += end - begin;
    for (uint32_t slice = begin; slice < end; slice++) {
        slice_add(&assigned[member], slice);
        slice_remove(missing, slice);
    }
    return true;
}

/* Nobody gets more than the fair share, rounded up: the slowest member rules the step's time. Below that, the largest
 * aligned blocks go first, so a share of q slices is about popcount(q) nodes. */
static void assign_above(struct slice_set *assigned, const struct slice_set *held, size_t members, uint32_t slices, uint32_t level_kept) {
    struct slice_set missing = assign_held(assigned, held, members, slices, level_kept);
    size_t busy = members < slices ? members : slices;  /* more can never get work: those past it keep out of the scan */
    uint32_t load[SLICES_MAX] = {0}, left = (uint32_t)slice_count(&missing);
    if (left == 0) return;
    uint32_t quota = (uint32_t)((left + busy - 1) / busy);
    for (uint32_t level = node_root(slices).level + 1; level-- > 0;) {
        struct node node = {level, 0};
        for (; node_exists(node, slices); node.index++)
            if (node_complete(node, &missing, slices)) give_node(assigned, load, &missing, busy, node, slices, quota);
    }
    CHECK(slice_count(&missing) == 0);
}

/* Only who holds all slices holds anything at the root, so the loop ends at the latest with an assignment from nothing. */
void slices_assign(struct slice_set *assigned, const struct slice_set *held, size_t members, uint32_t slices) {
    CHECK(slices <= SLICES_MAX && members > 0);
    for (uint32_t level = 0; level <= node_root(slices).level; level++) {
        size_t most = 0;
        assign_above(assigned, held, members, slices, level);
        for (size_t i = 0; i < members; i++) {
            size_t own = nodes_held_max(&assigned[i], slices);
            if (own > most) most = own;
        }
        if (most <= NODES_MAX) return;
    }
}

size_t slices_busy(size_t members, uint32_t slices) {
    struct slice_set *assigned = mem_alloc(members * sizeof *assigned), *held = mem_alloc(members * sizeof *held);
    size_t busy = 0;
    slices_assign(assigned, held, members, slices);
    for (size_t i = 0; i < members; i++) busy += slice_count(&assigned[i]) > 0;
    free(assigned);
    free(held);
    return busy;
}

/* In order, so only the last sum can have got a sibling. */
size_t nodes_held_max(const struct slice_set *set, uint32_t slices) {
    CHECK(slices <= SLICES_MAX);
    struct node held[SLICES_MAX + 1], root = node_root(slices);
    size_t count = 0, most = 0;
    for (uint32_t slice = 0; slice < slices; slice++) {
        if (!slice_in(set, slice)) continue;
        held[count++] = (struct node){0, slice};
        if (count > most) most = count;
        for (struct node *last = &held[count - 1]; !node_same(*last, root); last = &held[count - 1]) {
            struct node sibling = node_sibling(*last);
            if (node_exists(sibling, slices)) {
                if (count == 1 || !node_same(held[count - 2], sibling)) break;
                count--;
            }
            held[count - 1] = node_parent(*last);
        }
    }
    return most;
}

bool node_to_give_up(size_t *out, const struct node *held, size_t count, uint32_t slice) {
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        if (node_first_slice(held[i]) <= slice || (found && held[i].level >= held[*out].level)) continue;
        *out = i;
        found = true;
    }
    return found;
}

size_t segment_count(size_t elements) {
    return elements / SEGMENT_ELEMENTS + (elements % SEGMENT_ELEMENTS != 0);
}

size_t segment_size(size_t elements, size_t segment) {
    CHECK(segment < segment_count(elements));
    size_t first = segment * (size_t)SEGMENT_ELEMENTS, left = elements - first;
    return left < SEGMENT_ELEMENTS ? left : SEGMENT_ELEMENTS;
}

/* A binary counter: after slice i, sums[l] holds the finished node of level l for each bit l that is set in i + 1. */
double tree_sum(const double *values, uint32_t slices) {
    CHECK(slices <= SLICES_MAX);
    double sums[LEVELS_MAX] = {0};
    for (uint32_t slice = 0; slice < slices; slice++) {
        double sum = values[slice];
        uint32_t level = 0;
        for (; slice >> level & 1; level++) sum = sums[level] + sum;
        sums[level] = sum;
    }
    /* What is left are nodes whose right neighbours lie past the end: join them from the right. */
    bool some = false;
    double total = 0;
    for (uint32_t level = 0; level < LEVELS_MAX; level++) {
        if (!(slices >> level & 1)) continue;
        total = some ? sums[level] + total : sums[level];
        some = true;
    }
    return total;
}
