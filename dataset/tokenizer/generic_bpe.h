/* Byte-pair encoding of one pre-token for any vocabulary: the rank of a merge is its place in the list of merges, ids are in any order, and
 * several merges may make the same token. As long as two neighbours merge, the pair of lowest rank does, the leftmost of equals first
 * (Sennrich et al. 2016, arXiv 1508.07909). dataset/tokenizer/bpe.h does the same faster where ids follow from ranks.
 *
 * Order of calls: merge_ranks_open() once for a tokenizer; generic_bpe_open() once for each thread; then generic_bpe_encode(). */
#ifndef MILLRACE_DATASET_GENERIC_BPE_H
#define MILLRACE_DATASET_GENERIC_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "dataset/tokenizer/hf_tokenizer.h"
#include "dataset/tokenizer/ids.h"

struct merge_ranks; /* the merges by pair; immutable, shared by threads; `hf` has to outlive it */
int merge_ranks_open(struct merge_ranks **out, const struct hf_tokenizer *hf);
size_t merge_ranks_way(const struct merge_ranks *ranks); /* entries of its table that one look-up may go through at most */
void merge_ranks_close(struct merge_ranks *ranks);

struct generic_bpe; /* one thread's: a cache of 1.5 MiB, and 28 bytes for each byte of the longest pre-token */
int generic_bpe_open(struct generic_bpe **out, const struct merge_ranks *ranks);
void generic_bpe_close(struct generic_bpe *bpe);

/* Called now and then in a long pre-token; below 0: generic_bpe_encode() ends with that. NULL: nobody is. */
void generic_bpe_set_tick(struct generic_bpe *bpe, int (*tick)(void *arg), void *tick_arg);
/* Appends the ids of pretoken[0, size), 0 < size < 2^31. Time: n log n. */
int generic_bpe_encode(struct generic_bpe *bpe, struct ids *out, const uint8_t *pretoken, size_t size);
void generic_bpe_trim(struct generic_bpe *bpe); /* gives back the room for long pre-tokens when it is large */

#endif
