/* Every set of kernels that this machine has, one after the other; and which of them must give the same bits for products. */
#ifndef MILLRACE_TESTS_UNIT_MODEL_SETS_H
#define MILLRACE_TESTS_UNIT_MODEL_SETS_H

#include <stdbool.h>
#include <stddef.h>

#include "model/kernels/kernel_set.h"

/* Sets of one family fuse alike; `portable` never does, and where the processor multiplies pairs of bfloat16 it rounds in its own way. */
enum family { FUSED, PAIRS, LIBRARY, FAMILIES };

static inline enum family family_of(const struct kernel_set *set, bool bf16) {
    if (set == &kernel_set_portable) return LIBRARY;
    return bf16 && set->tile_pairs ? PAIRS : FUSED;
}

struct sets {
    const struct kernel_set *set[KERNEL_SETS];
    size_t count;
};

static inline struct sets sets_here(void) {
    struct sets sets = {.count = 0};
    sets.count = kernel_sets(sets.set);
    return sets;
}

#endif
