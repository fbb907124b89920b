/* Best-fit decreasing: which rests of documents share a sequence. Pure. */
#ifndef MILLRACE_DATASET_PLAN_BEST_FIT_H
#define MILLRACE_DATASET_PLAN_BEST_FIT_H

#include <stddef.h>
#include <stdint.h>

/* size[count], each 0 (no item) to capacity. Puts every item into a bin: the longest first, at equal length the first; into the bin with
 * the least room that has enough, of equal ones the one that has had that much room for longest; else into a new one. bin[count] gets the
 * number of each item's bin, counted as they were opened; *out_bins how many there are. Fast for millions: a step is a search in a tree of
 * bits over the amounts of room. Fails with ERR_MEMORY alone. */
int best_fit(uint32_t *bin, size_t *out_bins, const uint32_t *size, size_t count, uint32_t capacity);

#endif
