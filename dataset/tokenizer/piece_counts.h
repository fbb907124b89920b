/* How often each piece of GPT-2's pattern occurs in a text: what a tokenizer is trained from. */
#ifndef MILLRACE_DATASET_PIECE_COUNTS_H
#define MILLRACE_DATASET_PIECE_COUNTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum { PIECE_COUNTS_MAX = 1 << 25 };  /* different pieces: 1.3 GB, besides their text, of which there may be 4 GiB */

struct piece_count {
    uint64_t hash, count;
    uint32_t first, size;   /* in text */
};
struct piece_counts {
    struct buf text;
    struct piece_count *piece;
    uint32_t *slot;         /* number of a piece + 1, 0: free; open addressing by hash */
    size_t pieces, pieces_room, slots;
    struct buf mended;      /* room to work in */
};

/* Counts the pieces of a whole text, or of a part between places where it may be cut. Pieces of one byte are left out: nothing merges in
 * them. ERR_LIMIT: too many different ones. */
int piece_counts_text(struct piece_counts *counts, const uint8_t *text, size_t size);
int piece_counts_join(struct piece_counts *counts, const struct piece_counts *more);
void piece_counts_sort(struct piece_counts *counts);  /* in an order that follows from the pieces alone; nothing can be counted after it */
void piece_counts_free(struct piece_counts *counts);

#endif
