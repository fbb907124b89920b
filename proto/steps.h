/* The arithmetic of slices, tree and segments that coordinator and workers must agree on. Pure.
 *
 * Slices 0 .. S-1 of a step are the leaves of a fixed binary tree: node (level, index) is the sum of the slices
 * [index * 2^level, (index + 1) * 2^level); a node whose right half lies past S-1 equals its left half. Floating-point sums
 * are taken along this tree alone, so the result depends on S and never on who computed what. */
#ifndef MILLRACE_PROTO_STEPS_H
#define MILLRACE_PROTO_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SLICES_MAX = 4096,
    MEMBERS_MAX = 1024,
    SLOTS_MAX = 4,   /* segments whose partial sums a member collects at once: each takes memory for its parts */
    NODES_MAX = 32,  /* partial sums that one member may hold, each as large as the model: healthy ones have 20 at most, and what deaths and
                      * joins scatter further is computed anew rather than kept */
};
#ifndef SEGMENT_ELEMENTS /* the simulation builds the same code with small ones */
enum {
    SEGMENT_ELEMENTS = 1 << 20, /* float32 values of the flat parameter vector in a segment: 4 MiB; the last is shorter */
};
#endif

struct node {
    uint32_t level, index;
};

/* A set of slices. */
struct slice_set {
    uint64_t bits[SLICES_MAX / 64];
};
void slice_add(struct slice_set *set, uint32_t slice);
void slice_remove(struct slice_set *set, uint32_t slice);
bool slice_in(const struct slice_set *set, uint32_t slice);
size_t slice_count(const struct slice_set *set);

bool node_complete(struct node node, const struct slice_set *set, uint32_t slices);  /* all its slices are in the set */
struct node node_parent(struct node node);
struct node node_sibling(struct node node);
bool node_exists(struct node node, uint32_t slices);   /* has at least one slice */
struct node node_root(uint32_t slices);
bool node_same(struct node a, struct node b);
static inline uint32_t node_first_slice(struct node node) { return node.index << node.level; }

/* The fewest nodes that make up exactly `set`, in slice order. Returns their number, at most slice_count(set). */
size_t nodes_cover(struct node *out, const struct slice_set *set, uint32_t slices);

/* Gives every slice in [0, slices) to a member. held[i] is what member i has already computed, and keeps; on return assigned[i] holds it
 * plus member i's new work. New work goes out in aligned blocks, the largest first, so that members have few large nodes; each to the
 * member with the least left to do, and nobody gets more than its share of the new work, rounded up; ties go to the lower number. Members
 * past the slices stay empty. Where what is held lies so scattered that a member would come to more than NODES_MAX partial sums, all give
 * up the smallest pieces of it, up to as large a size as needed, which are given out as new work. */
void slices_assign(struct slice_set *assigned, const struct slice_set *held, size_t members, uint32_t slices);

/* To how many of so many members that come with nothing it gives slices: all where their number divides that of the slices, else it may be
 * fewer than there are of either, as blocks are aligned: 4 slices go to 2 of 3 members. */
size_t slices_busy(size_t members, uint32_t slices);

/* How many partial sums a member with these slices has at most at once, when it computes them in order and sums what it can: the one that
 * is being computed among them. */
size_t nodes_held_max(const struct slice_set *set, uint32_t slices);

/* Of the nodes that a member holds when it computes `slice` next: which one makes room. It is one after the slice, so that it is computed
 * again in its turn, and of those one with the fewest slices. false: there is none. */
bool node_to_give_up(size_t *out, const struct node *held, size_t count, uint32_t slice);

size_t segment_count(size_t elements);
size_t segment_size(size_t elements, size_t segment);  /* values in that segment */

/* Tokens that so many steps predict (num_input_tokens_seen of transformers): every position of every sequence, padding too. Steps that
 * were skipped, because their gradient was not finite, count like all others. */
static inline uint64_t steps_tokens(uint64_t steps, int64_t global_batch, int64_t sequence_length) {
    return steps * (uint64_t)global_batch * (uint64_t)sequence_length;
}

/* How many steps a run has: max_steps if it is above 0, else what num_train_epochs passes over the sequences need, rounded up. Positions
 * go on across epochs: an epoch's last batch is filled with the next one's first sequences. */
static inline uint64_t steps_total(int64_t max_steps, double epochs, uint64_t sequences, int64_t global_batch) {
    if (max_steps > 0) return (uint64_t)max_steps;
    double steps = epochs * (double)sequences / (double)global_batch;
    uint64_t whole = (uint64_t)steps;
    return (double)whole < steps || whole == 0 ? whole + 1 : whole;
}

/* Sums one value per slice along the tree. values[slices]. */
double tree_sum(const double *values, uint32_t slices);

#endif
