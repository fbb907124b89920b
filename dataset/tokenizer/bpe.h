/* Byte-pair encoding of one piece: as long as two neighbours merge, the pair of lowest rank does, the leftmost of equals first (Sennrich et
 * al. 2016, arXiv 1508.07909). Time is linear in the piece (n log n is not needed: a merge only ever makes pairs of higher rank). */
#ifndef MILLRACE_DATASET_BPE_H
#define MILLRACE_DATASET_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "dataset/tokenizer/vocabulary.h"

/* What one thread needs to merge: tables of pieces that came before, which grow with what comes to 16.2 MiB, and room for long ones (10
 * bytes for each byte of the longest piece so far). */
struct bpe;
struct bpe_tables;
int bpe_open(struct bpe **out, const struct vocabulary *vocabulary, const struct bpe_tables *tables);
void bpe_close(struct bpe *bpe);

/* Writes the ids of piece[0..size), 0 < size < 2^31, at most `size` of them. PIECES_SLACK bytes behind the piece may be read. Only a long
 * piece can fail, with ERR_MEMORY. */
int bpe_encode(struct bpe *bpe, uint32_t *out, size_t *out_count, const uint8_t *piece, size_t size);

/* The same for the pieces text[border[k]..border[k + 1]); out has room for PIECES_IDS_SLACK ids more. */
int bpe_encode_pieces(struct bpe *bpe, uint32_t *out, size_t *out_count, const uint8_t *text, const uint16_t *border, size_t pieces);

/* Gives back the room for long pieces when it is large. */
void bpe_trim(struct bpe *bpe);

#endif
