/* Text is cut into words, the words' hashes into shingles, and of each permutation of the shingles the least is kept; bands are hashes of
 * some of these. Finding the least is nearly all of the work: it takes a batch of shingles and LANES permutations at a time, which stay in
 * registers. Permutations are of 32 bits, the width in which vector instructions multiply. A struct minhash has the permutations, the word
 * under way and the batch; one thread at a time. */
#include "dataset/filter/minhash.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/philox.h"
#include "dataset/filter/verdict.h"
#include "dataset/tokenizer/pretokenize.h"
#include "dataset/unicode/unicode.h"
#include "dataset/unicode/utf8.h"

enum {
    WORDS_MAX = 64,
    BATCH = 1024,      /* shingles */
    LANES = 16,        /* permutations at a time */
    WORD_BYTES = 256,  /* a longer word is hashed in parts of so many */
    PERMUTATIONS_MAX = MINHASH_BANDS_MAX * MINHASH_ROWS_MAX,
};
static const uint64_t PERMUTATIONS_KEY = 0x6D696E68617368; /* "minhash" */

struct lanes {
    uint32_t add[LANES], multiply[LANES];
    int32_t least[LANES];
};
struct minhash {
    uint32_t bands, rows, words;
    uint8_t plain[128];          /* ASCII: lower case, ' ' for white space, 0 for what is left out */
    size_t lane_groups;
    void (*take)(struct minhash *minhash);

    uint8_t word[WORD_BYTES];    /* the word under way */
    size_t word_bytes;
    uint64_t word_hash;          /* of its parts that were full */
    uint64_t hash[BATCH + WORDS_MAX]; /* of the last words; the first words - 1 of them are already in shingles */
    size_t hashes;
    uint64_t words_seen;
    uint32_t shingle[BATCH];
    size_t shingles;
    struct lanes lanes[PERMUTATIONS_MAX / LANES];
};

/* ---- The least of each permutation ---- */

static inline __attribute__((always_inline)) void take_shingles(struct minhash *minhash) {
    const uint32_t *shingle = minhash->shingle;
    size_t count = minhash->shingles;
    for (size_t g = 0; g < minhash->lane_groups; g++) {
        struct lanes lanes = minhash->lanes[g];
        for (size_t i = 0; i < count; i++) {
            uint32_t x = shingle[i];
            for (int l = 0; l < LANES; l++) {
                int32_t h = (int32_t)((x ^ lanes.add[l]) * lanes.multiply[l]);
                lanes.least[l] = h < lanes.least[l] ? h : lanes.least[l];
            }
        }
        memcpy(minhash->lanes[g].least, lanes.least, sizeof lanes.least);
    }
    minhash->shingles = 0;
}

static void take_plain(struct minhash *minhash) { take_shingles(minhash); }
#if defined(__x86_64__)
__attribute__((target("avx2"))) static void take_avx2(struct minhash *minhash) { take_shingles(minhash); }
#endif

struct minhash *minhash_open(uint32_t bands, uint32_t rows, uint32_t words) {
    CHECK(bands >= 1 && bands <= MINHASH_BANDS_MAX && rows >= 1 && rows <= MINHASH_ROWS_MAX && words >= 1 && words <= WORDS_MAX);
    struct minhash *minhash = mem_alloc(sizeof *minhash);
    minhash->bands = bands;
    minhash->rows = rows;
    minhash->words = words;
    minhash->lane_groups = (bands * rows + LANES - 1) / LANES;
    for (uint32_t j = 0; j < minhash->lane_groups * LANES; j++) {
        struct philox_block random = philox(PERMUTATIONS_KEY, 0, j);
        minhash->lanes[j / LANES].add[j % LANES] = random.word[0];
        minhash->lanes[j / LANES].multiply[j % LANES] = random.word[1] | 1;
    }
    uint8_t folded[4];
    for (unsigned c = 0; c < sizeof minhash->plain; c++)
        minhash->plain[c] = char_class(c) == CHAR_SPACE ? ' ' : unicode_fold(folded, c) ? folded[0] : 0;
    minhash->take = take_plain;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) minhash->take = take_avx2;
#endif
    return minhash;
}

void minhash_close(struct minhash *minhash) { free(minhash); }

/* ---- Words and shingles ---- */

/* Shingles of the words that are there, and what the next ones need of them. */
static void make_shingles(struct minhash *minhash) {
    while (minhash->hashes >= minhash->words) {
        size_t count = minhash->hashes - minhash->words + 1;
        if (count > BATCH) count = BATCH;
        for (size_t i = 0; i < count; i++)
            minhash->shingle[i] = (uint32_t)xxh64_of(minhash->hash + i, minhash->words * sizeof *minhash->hash, 0);
        minhash->shingles = count;
        minhash->take(minhash);
        minhash->hashes -= count;
        memmove(minhash->hash, minhash->hash + count, minhash->hashes * sizeof *minhash->hash);
    }
}

static inline void end_word(struct minhash *minhash) {
    if (minhash->word_bytes == 0 && minhash->word_hash == 0) return;
    minhash->hash[minhash->hashes++] = xxh64_of(minhash->word, minhash->word_bytes, minhash->word_hash);
    minhash->word_bytes = 0;
    minhash->word_hash = 0;
    minhash->words_seen++;
    if (minhash->hashes == BATCH + WORDS_MAX) make_shingles(minhash);
}

/* A word is longer than its room: goes on with the hash of what there is. */
static void fold_word(struct minhash *minhash) {
    minhash->word_hash = xxh64_of(minhash->word, WORD_BYTES, minhash->word_hash);
    minhash->word_bytes = 0;
}

static void add_to_word(struct minhash *minhash, uint8_t byte) {
    minhash->word[minhash->word_bytes++] = byte;
    if (minhash->word_bytes == WORD_BYTES) fold_word(minhash);
}

static void add_character(struct minhash *minhash, uint32_t c) {
    if (char_class(c) == CHAR_SPACE) {
        end_word(minhash);
        return;
    }
    uint8_t folded[4];
    size_t size = unicode_fold(folded, c);
    if (size == 0) return;
    bool alone = unicode_is_word(c);
    if (alone) end_word(minhash);
    for (size_t i = 0; i < size; i++) add_to_word(minhash, folded[i]);
    if (alone) end_word(minhash);
}

static void add_text(struct minhash *minhash, const uint8_t *text, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        size_t room = WORD_BYTES - minhash->word_bytes, stop = room < bytes - at ? at + room : bytes;
        uint8_t *word = minhash->word + minhash->word_bytes;
        for (; at < stop && text[at] < 0x80; at++) { /* most of the text */
            uint8_t plain = minhash->plain[text[at]];
            if (plain == ' ') break;
            *word = plain;
            word += plain != 0;
        }
        minhash->word_bytes = (size_t)(word - minhash->word);
        if (minhash->word_bytes == WORD_BYTES) fold_word(minhash);
        if (at == stop) continue;
        if (text[at] < 0x80) {
            end_word(minhash);
            at++;
        } else {
            add_character(minhash, utf8_character(text + at));
            at += utf8_length(text[at]);
        }
    }
    end_word(minhash);
}

/* ---- Bands ---- */

void minhash_of(struct minhash *minhash, uint64_t *out_band, const uint8_t *text, size_t bytes) {
    minhash->word_bytes = minhash->hashes = 0;
    minhash->word_hash = minhash->words_seen = 0;
    for (size_t g = 0; g < minhash->lane_groups; g++)
        for (int l = 0; l < LANES; l++) minhash->lanes[g].least[l] = INT32_MAX;
    add_text(minhash, text, bytes);
    if (minhash->words_seen == 0) {
        for (uint32_t k = 0; k < minhash->bands; k++) out_band[k] = ~xxh64_of(text, bytes, k);
        return;
    }
    if (minhash->words_seen < minhash->words) { /* one shingle of fewer words */
        minhash->shingle[0] = (uint32_t)xxh64_of(minhash->hash, minhash->hashes * sizeof *minhash->hash, 0);
        minhash->shingles = 1;
        minhash->take(minhash);
    } else {
        make_shingles(minhash);
    }
    int32_t row[MINHASH_ROWS_MAX];
    for (uint32_t k = 0, j = 0; k < minhash->bands; k++) {
        for (uint32_t r = 0; r < minhash->rows; r++, j++) row[r] = minhash->lanes[j / LANES].least[j % LANES];
        out_band[k] = xxh64_of(row, minhash->rows * sizeof *row, k);
    }
}
