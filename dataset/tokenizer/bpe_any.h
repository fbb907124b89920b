/* Byte-pair encoding of one piece for any vocabulary: ranks are of pairs, ids are in any order, several merges may lead to one token. As
 * long as two neighbours merge, the pair of lowest rank does, the leftmost of equals first (Sennrich et al. 2016, arXiv 1508.07909).
 * dataset/tokenizer/bpe.h does the same faster where ids follow from ranks. */
#ifndef MILLRACE_DATASET_BPE_ANY_H
#define MILLRACE_DATASET_BPE_ANY_H

#include <stddef.h>
#include <stdint.h>

#include "dataset/tokenizer/hf_tokenizer.h"
#include "dataset/tokenizer/tokenizer.h"

struct bpe_table;  /* the merges by pair; immutable, shared by threads */
int bpe_table_open(struct bpe_table **out, const struct hf_tokenizer *hf);
void bpe_table_close(struct bpe_table *table);

struct bpe_any;    /* what one thread needs: a cache of 1.5 MiB, and 28 bytes for each byte of the longest piece */
int bpe_any_open(struct bpe_any **out, const struct bpe_table *table);
void bpe_any_close(struct bpe_any *bpe);

/* Appends the ids of piece[0, size), 0 < size < 2^31. Time: n log n. */
int bpe_any_encode(struct bpe_any *bpe, struct ids *out, const uint8_t *piece, size_t size);
void bpe_any_trim(struct bpe_any *bpe);  /* gives back the room for long pieces when it is large */

#endif
