/* A vocabulary as dataset/tokenizer/bpe.c merges with it: the tokens' bytes and the merges that make them. GPT-2's is read from merges in
 * the form of vocab.bpe (one "LEFT RIGHT" a line, rank by line), where each byte is written as a printable character: openai/gpt-2,
 * bytes_to_unicode() in src/encoder.py; others are made of what Hugging Face's files say.
 *
 * Ids here: 0 to 255 are the single bytes in the order of that function, 256 + i is merge i; in GPT-2's the next is <|endoftext|>. A
 * merge's id grows with its rank and is above the ids of both tokens that it joins; dataset/tokenizer/bpe.c relies on both. Where a
 * tokenizer has other ids, `outer` tells them. */
#ifndef MILLRACE_DATASET_VOCABULARY_H
#define MILLRACE_DATASET_VOCABULARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "dataset/tokenizer/hf_tokenizer.h"
#include "dataset/tokenizer/tokenizer.h"

enum {
    VOCABULARY_MERGES = GPT2_VOCABULARY - 257,   /* GPT-2's */
    VOCABULARY_IDS_MAX = 0xFFFF,                 /* of any: ids are held in 16 bits, and one of them says that there is none */
    VOCABULARY_TOKEN_BYTES_MAX = 255,
    VOCABULARY_SLOTS_LOG2 = 17,  /* of the table of merges, open addressing, half full at most */
    NO_MERGE = 0xFFFF,
};

struct merge_slot {
    uint32_t pair;   /* left << 16 | right */
    uint32_t merged; /* id, or NO_MERGE: free */
};
struct vocabulary {
    uint32_t ids;                        /* bytes and merges */
    uint32_t *outer;                     /* [ids]: what each is outside; NULL: the same */
    uint8_t byte_id[256];                /* byte -> id */
    uint8_t length[VOCABULARY_IDS_MAX];  /* of each token, in bytes */
    uint32_t first[VOCABULARY_IDS_MAX];  /* where its bytes begin in text */
    struct buf text;
    struct merge_slot slot[1 << VOCABULARY_SLOTS_LOG2];
};

int vocabulary_open(struct vocabulary **out, const char *merges, size_t merges_bytes);  /* ERR_CORRUPT names the line */
/* Of other merges. ERR_UNSUPPORTED: there are too many, tokens are too long, or ids cannot follow the ranks. */
int vocabulary_of(struct vocabulary **out, const struct hf_tokenizer *hf);
void vocabulary_close(struct vocabulary *vocabulary);

/* The token that left and right merge into, or NO_MERGE. Of two merges, the one with the smaller id comes first. */
static inline uint32_t vocabulary_merge(const struct vocabulary *vocabulary, uint32_t left, uint32_t right) {
    uint32_t pair = left << 16 | right, i = pair * 0x9E3779B1u >> (32 - VOCABULARY_SLOTS_LOG2);
    while (vocabulary->slot[i].pair != pair && vocabulary->slot[i].merged != NO_MERGE) i = (i + 1) & ((1u << VOCABULARY_SLOTS_LOG2) - 1);
    return vocabulary->slot[i].merged;
}

/* How byte-level tokenizers write bytes as text: the printable ones as themselves, the others as U+0100, U+0101, ... in ascending order, so
 * that no token holds a space or a control character (openai/gpt-2, bytes_to_unicode() in src/encoder.py). */

enum { LETTERS_END = 324 };  /* all letters are below */

static inline bool letter_is_itself(unsigned byte) {
    return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/* byte -> letter, letter -> byte or -1, and the bytes in the order of their letters, which is the order of ids in GPT-2. */
struct byte_letters {
    uint16_t letter[256];
    int16_t byte[LETTERS_END];
    uint8_t order[256];
};
const struct byte_letters *byte_letters(void);

/* Text to bytes. Returns how many bytes, or -1 when some character is no letter; out has room for `size`. */
ptrdiff_t byte_letters_read(uint8_t *out, const char *text, size_t size);

#endif
