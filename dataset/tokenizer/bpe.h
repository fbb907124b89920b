/* Byte-pair encoding of one pre-token: as long as two neighbours merge, the pair of lowest rank does, the leftmost of equals first
 * (Sennrich et al. 2016, arXiv 1508.07909). Time is linear in the pre-token (n log n is not needed: a merge only ever makes pairs of higher
 * rank). */
#ifndef MILLRACE_DATASET_BPE_H
#define MILLRACE_DATASET_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataset/tokenizer/pretokens.h"
#include "dataset/tokenizer/vocabulary.h"

/* What all threads look up while they merge: tokens by their bytes, merges by the two tokens that they join, and which bytes are side by
 * side in any token. Made from a vocabulary once, immutable from then on, 3 MiB. */

enum {
    TOKEN_SLOTS = 1 << 17, /* half full at most */
    TOKEN_NONE = UINT16_MAX,
};
_Static_assert((int)VOCABULARY_IDS_MAX <= (int)NO_MERGE && (int)NO_MERGE == (int)MERGE_NONE, "ids are held in 16 bits");

struct bpe_tables {
    const struct pretoken_kernels *kernels;
    struct merge_tables merges;
    uint64_t joined[1 << 10];   /* bit left << 8 | right: these two bytes are neighbours in some token */
    uint32_t slot[TOKEN_SLOTS]; /* tag << 16 | id + 1, 0: free; open addressing */
    uint8_t key[VOCABULARY_IDS_MAX][PRETOKENS_KEY_BYTES];
};

int bpe_tables_open(struct bpe_tables **out, const struct vocabulary *vocabulary, const struct pretoken_kernels *kernels);
void bpe_tables_close(struct bpe_tables *tables);

/* The token of exactly those bytes, at most PRETOKENS_KNOWN_BYTES and none of them 0xFF, or TOKEN_NONE. PRETOKENS_SLACK bytes behind them
 * may be read. The bytes of a token that is found merge into that token again, so it is what the pre-token merges into. */
uint32_t bpe_tables_token(const struct bpe_tables *tables, const uint8_t *pretoken, size_t size);

/* Whether some token has these two bytes side by side. If not, no merge reaches over them. */
static inline bool bpe_tables_joined(const struct bpe_tables *tables, const uint8_t *two) {
    uint32_t pair = (uint32_t)two[0] << 8 | two[1];
    return tables->joined[pair / 64] >> pair % 64 & 1;
}

/* Zeroed memory for a table that is read all over, in huge pages where the system has them. ERR_MEMORY; release with free(). */
int bpe_tables_memory(void *out_pointer, size_t size);

/* What one thread needs to merge: tables of pre-tokens that came before, which grow with what comes to 16.2 MiB, and room for long ones (10
 * bytes for each byte of the longest pre-token so far). */
struct bpe;
int bpe_open(struct bpe **out, const struct vocabulary *vocabulary, const struct bpe_tables *tables);
void bpe_close(struct bpe *bpe);

/* Writes the ids of pretoken[0..size), 0 < size < 2^31, at most `size` of them. PRETOKENS_SLACK bytes behind the pre-token may be read.
 * Only a long pre-token can fail, with ERR_MEMORY. */
int bpe_encode(struct bpe *bpe, uint32_t *out, size_t *out_count, const uint8_t *pretoken, size_t size);

/* The same for the pre-tokens text[border[k]..border[k + 1]); out has room for PRETOKENS_IDS_SLACK ids more. */
int bpe_encode_pretokens(struct bpe *bpe, uint32_t *out, size_t *out_count, const uint8_t *text, const uint16_t *border, size_t pretokens);

/* Gives back the room for long pre-tokens when it is large. */
void bpe_trim(struct bpe *bpe);

#endif
