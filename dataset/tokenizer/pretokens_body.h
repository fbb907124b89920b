/* The functions of struct pretoken_kernels, compiled once for each instruction set. pretokenize() turns 64 bytes at a time into one bit for
 * each byte and class, and finds where pre-tokens begin with arithmetic on those words; the table is looked up without a branch on what a
 * pre-token is like. */
#include <string.h>

#include "dataset/tokenizer/pretokenize.h"
#include "dataset/tokenizer/pretokens.h"
#include "dataset/unicode/utf8.h"

/* One bit for each of 64 bytes. `multi`: part of a longer character, of any class. */
struct byte_bits {
    uint64_t letter, number, space, blank, apostrophe, multi;
};

#if defined(PRETOKEN_KERNELS_AVX512)

/* Which bytes are one of the `count` that begin with `first`. */
static inline uint64_t bits_in(__m512i bytes, char first, char count) {
    return _mm512_cmplt_epu8_mask(_mm512_sub_epi8(bytes, _mm512_set1_epi8(first)), _mm512_set1_epi8(count));
}

static inline struct byte_bits classify(const uint8_t *text) {
    __m512i bytes = _mm512_loadu_si512(text);
    uint64_t blank = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(' '));
    return (struct byte_bits){.letter = bits_in(_mm512_or_si512(bytes, _mm512_set1_epi8(0x20)), 'a', 26),
                              .number = bits_in(bytes, '0', 10),
                              .space = blank | bits_in(bytes, '\t', 5),
                              .blank = blank,
                              .apostrophe = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('\'')),
                              .multi = _mm512_movepi8_mask(bytes)};
}

#elif defined(PRETOKEN_KERNELS_AVX2)

static inline uint32_t bits_of(__m256i lanes) { return (uint32_t)_mm256_movemask_epi8(lanes); }

/* Which bytes are one of the `count` that begin with `first`. */
static inline uint32_t bits_in(__m256i bytes, char first, char count) {
    return bits_of(
        _mm256_cmpgt_epi8(_mm256_set1_epi8((char)(-128 + count)), _mm256_sub_epi8(bytes, _mm256_set1_epi8((char)(first - 128)))));
}

static inline struct byte_bits classify(const uint8_t *text) {
    struct byte_bits bits = {0};
    for (int half = 0; half < 2; half++) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(text + 32 * half));
        uint32_t blank = bits_of(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(' ')));
        bits.letter |= (uint64_t)bits_in(_mm256_or_si256(bytes, _mm256_set1_epi8(0x20)), 'a', 26) << 32 * half;
        bits.number |= (uint64_t)bits_in(bytes, '0', 10) << 32 * half;
        bits.space |= (uint64_t)(blank | bits_in(bytes, '\t', 5)) << 32 * half;
        bits.blank |= (uint64_t)blank << 32 * half;
        bits.apostrophe |= (uint64_t)bits_of(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('\''))) << 32 * half;
        bits.multi |= (uint64_t)bits_of(bytes) << 32 * half;
    }
    return bits;
}

#else

static inline struct byte_bits classify(const uint8_t *text) {
    struct byte_bits bits = {0};
    for (int i = 0; i < 64; i++) {
        uint8_t byte = text[i];
        bits.letter |= (uint64_t)((uint8_t)((byte | 0x20) - 'a') < 26) << i;
        bits.number |= (uint64_t)((uint8_t)(byte - '0') < 10) << i;
        bits.space |= (uint64_t)((byte == ' ') | ((uint8_t)(byte - '\t') < 5)) << i;
        bits.blank |= (uint64_t)(byte == ' ') << i;
        bits.apostrophe |= (uint64_t)(byte == '\'') << i;
        bits.multi |= (uint64_t)(byte >= 0x80) << i;
    }
    return bits;
}

#endif

/* What one block of 64 bytes leaves for the next. */
struct pretokenize_state {
    uint64_t letter, number, space, other, blank;              /* bit 0: the last byte is of that class */
    uint64_t letter_rest, number_rest, space_rest, multi_rest; /* bytes of a character that began before */
    uint64_t set, clear;                                       /* borders that a contraction moved */
};

/* Is the character at p white space, or the end of the text? The pattern's (?!\S). */
static inline bool space_or_end(const uint8_t *p) {
    if (*p < 0x80) return *p == ' ' || (uint8_t)(*p - '\t') < 5;
    return *p == PRETOKEN_SENTINEL || char_class(utf8_character(p)) == CHAR_SPACE;
}

/* Adds the longer characters of a block to its bits. Returns those that are white space before something that is not. */
static uint64_t classify_multi(struct byte_bits *bits, struct pretokenize_state *state, const uint8_t *text, uint64_t valid) {
    uint64_t last = 0, todo = bits->multi & valid & ~state->multi_rest;
    bits->letter |= state->letter_rest, bits->number |= state->number_rest, bits->space |= state->space_rest;
    state->letter_rest = state->number_rest = state->space_rest = state->multi_rest = 0;
    while (todo) {
        int at = __builtin_ctzll(todo);
        const uint8_t *p = text + at;
        size_t length = utf8_length(*p);
        enum char_class class = char_class(utf8_character(p));
        uint64_t bytes = ((uint64_t)1 << length) - 1, here = bytes << at, rest = (size_t)at + length > 64 ? bytes >> (64 - at) : 0;
        todo &= ~here;
        state->multi_rest = rest;
        if (class == CHAR_LETTER) bits->letter |= here, state->letter_rest = rest;
        if (class == CHAR_NUMBER) bits->number |= here, state->number_rest = rest;
        if (class == CHAR_SPACE) {
            bits->space |= here, state->space_rest = rest;
            last |= (uint64_t)!space_or_end(p + length) << at;
        }
    }
    return last;
}

/* Bytes of the contraction at an apostrophe, or 0. */
static inline unsigned contraction_bytes(const uint8_t *p) {
    if (p[1] == 's' || p[1] == 't' || p[1] == 'm' || p[1] == 'd') return 2;
    return ((p[1] == 'r' || p[1] == 'v') && p[2] == 'e') || (p[1] == 'l' && p[2] == 'l') ? 3 : 0;
}

/* A contraction at the beginning of a pre-token takes its letters, and the next pre-token begins behind them. */
static uint64_t move_borders(uint64_t begins, struct pretokenize_state *state, uint64_t apostrophes, const uint8_t *text) {
    for (; apostrophes; apostrophes &= apostrophes - 1) {
        unsigned at = (unsigned)__builtin_ctzll(apostrophes), length = contraction_bytes(text + at);
        if (length == 0) continue;
        if (at < 63) begins &= ~((uint64_t)2 << at);
        else state->clear = 1;
        if (at + length < 64) begins |= (uint64_t)1 << (at + length);
        else state->set |= (uint64_t)1 << (at + length - 64);
    }
    return begins;
}

/* Where pre-tokens begin in a block, of which `valid` belongs to the text. */
static inline uint64_t block_begins(struct pretokenize_state *state, const uint8_t *text, uint64_t valid) {
    struct byte_bits bits = classify(text);
    uint64_t last = 0;
    if (__builtin_expect(((bits.multi & valid) | state->multi_rest) != 0, 0)) last = classify_multi(&bits, state, text, valid);
    uint64_t letter = bits.letter & valid, number = bits.number & valid, space = bits.space & valid;
    uint64_t other = ~(letter | number | space) & valid, blank = bits.blank & valid;
    uint64_t space_before = space << 1 | state->space;
    uint64_t same = (letter & (letter << 1 | state->letter)) | (number & (number << 1 | state->number)) |
                    (other & (other << 1 | state->other));
    /* Behind the text's last byte there is as good as a space: \s+(?!\S) takes all of the run. */
    uint64_t space_after = (space | ~valid) >> 1 | (uint64_t)space_or_end(text + 64) << 63;
    last |= space & ~bits.multi & ~space_after;
    uint64_t begins = (space & ~space_before) | (space & space_before & last) | (valid & ~space & ~same & ~(blank << 1 | state->blank));
    begins = (begins & ~state->clear) | (state->set & valid);
    state->set = state->clear = 0;
    state->letter = letter >> 63, state->number = number >> 63, state->space = space >> 63;
    state->other = other >> 63, state->blank = blank >> 63;
    uint64_t apostrophes = bits.apostrophe & begins;
    if (__builtin_expect(apostrophes != 0, 0)) begins = move_borders(begins, state, apostrophes, text) & valid;
    return begins;
}

/* Writes where the set bits are, several at a time: what is too much is overwritten by the next block. */
#ifdef PRETOKEN_KERNELS_AVX512
static inline uint16_t *write_borders(uint16_t *border, uint64_t begins, size_t base) {
    const __m512i positions = _mm512_set_epi64(0x3F3E3D3C3B3A3938, 0x3736353433323130, 0x2F2E2D2C2B2A2928, 0x2726252423222120,
                                               0x1F1E1D1C1B1A1918, 0x1716151413121110, 0x0F0E0D0C0B0A0908, 0x0706050403020100);
    __m512i set = _mm512_maskz_compress_epi8(begins, positions), from = _mm512_set1_epi16((short)base);
    int count = __builtin_popcountll(begins);
    _mm512_storeu_si512(border, _mm512_add_epi16(_mm512_cvtepu8_epi16(_mm512_castsi512_si256(set)), from));
    if (count > 32) _mm512_storeu_si512(border + 32, _mm512_add_epi16(_mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(set, 1)), from));
    return border + count;
}
#else
static inline uint16_t *write_borders(uint16_t *border, uint64_t begins, size_t base) {
    int count = __builtin_popcountll(begins);
    for (int done = 0; done < count; done += 8)
        for (int k = 0; k < 8; k++) {
            border[done + k] = (uint16_t)(base + (size_t)__builtin_ctzll(begins | (uint64_t)1 << 63));
            begins &= begins - 1;
        }
    return border + count;
}
#endif

static size_t pretokenize(uint16_t *border, const uint8_t *text, size_t size, bool final) {
    enum { MARGIN = 8 }; /* a border depends on no more bytes behind it: two characters */
    struct pretokenize_state state = {0};
    uint16_t *end = border;
    for (size_t base = 0; base < size; base += 64) {
        uint64_t valid = size - base >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << (size - base)) - 1;
        end = write_borders(end, block_begins(&state, text + base, valid), base);
    }
    if (final) {
        *end = (uint16_t)size;
        return (size_t)(end - border);
    }
    while (end > border && (size_t)end[-1] + MARGIN > size) end--;
    return end > border ? (size_t)(end - border) - 1 : 0;
}

#ifdef PRETOKEN_KERNELS_AVX2

/* Rows of zeros, then of 0xFF: 16 bytes from 16 - n are what is laid over a pre-token of n bytes. */
static const uint8_t key_filler[32] = {[16] = 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
                                       0xFF,        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};

static inline __m128i make_key(const uint8_t *pretoken, size_t size) {
    return _mm_or_si128(_mm_loadu_si128((const __m128i *)pretoken), _mm_loadu_si128((const __m128i *)(key_filler + 16 - size)));
}

/* Two rounds of AES: every bit of the key reaches every bit of the sum. */
static inline size_t set_offset(__m128i key, size_t sets) {
    const __m128i round = _mm_set_epi64x(0x2545F4914F6CDD1D, (long long)0x9E3779B97F4A7C15u);
    __m128i mixed = _mm_aesenc_si128(_mm_aesenc_si128(key, round), round);
    return (uint32_t)_mm_cvtsi128_si32(mixed) & (uint32_t)((sets - 1) * sizeof(struct pretoken_set));
}

static size_t locate(uint8_t key[PRETOKENS_KEY_BYTES], size_t sets, const uint8_t *pretoken, size_t size) {
    __m128i words = make_key(pretoken, size);
    _mm_storeu_si128((__m128i *)key, words);
    return set_offset(words, sets) / sizeof(struct pretoken_set);
}

/* By which of a set's four words of keys are equal: how far the value is from the first one, or 0xFF. */
#define NO 0xFF
static const uint8_t value_offset[16] = {NO, NO, NO, 0, NO, NO, NO, 0, NO, NO, NO, 0, 16, 16, 16, 0};
#undef NO

static size_t prepare(struct pretoken_batch *batch, const struct pretoken_set *table, size_t sets, const uint8_t *text,
                      const uint16_t *border, size_t pretokens) {
    size_t count = pretokens < PRETOKENS_BATCH ? pretokens : PRETOKENS_BATCH, begin = border[0];
    for (size_t k = 0; k < count; k++) {
        size_t end = border[k + 1], size = end - begin;
        __m128i key = make_key(text + begin, size > PRETOKENS_KNOWN_BYTES ? 0 : size);
        size_t offset = set_offset(key, sets);
        _mm_prefetch((const char *)table + offset, _MM_HINT_T0);
        _mm_storeu_si128((__m128i *)batch->key[k], key);
        batch->offset[k] = (uint32_t)offset;
        begin = end;
    }
    return count;
}

static size_t look_up(uint32_t **out, const struct pretoken_batch *batch, size_t first, size_t pretokens,
                      const struct pretoken_set *table) {
    uint32_t *to = *out;
    size_t k = first;
    for (; k < pretokens; k++) {
        const uint8_t *set = (const uint8_t *)table + batch->offset[k];
        __m256i key = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)batch->key[k]));
        __m256i equal = _mm256_cmpeq_epi64(key, _mm256_load_si256((const __m256i *)set));
        size_t offset = value_offset[_mm256_movemask_pd(_mm256_castsi256_pd(equal))];
        if (__builtin_expect(offset == 0xFF, 0)) break;
        const uint8_t *value = set + offsetof(struct pretoken_set, value) + offset;
        _mm256_storeu_si256((__m256i *)to, _mm256_cvtepu16_epi32(_mm_load_si128((const __m128i *)value)));
        to += ((const struct pretoken_value *)value)->count;
    }
    *out = to;
    return k;
}

#else

static size_t locate(uint8_t key[PRETOKENS_KEY_BYTES], size_t sets, const uint8_t *pretoken, size_t size) {
    uint64_t low, high;
    memset(key, 0xFF, PRETOKENS_KEY_BYTES);
    memcpy(key, pretoken, size);
    memcpy(&low, key, 8), memcpy(&high, key + 8, 8);
    uint64_t hash = (low ^ (high << 29 | high >> 35)) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93u;
    return (size_t)(hash >> 32) & (sets - 1);
}

static size_t prepare(struct pretoken_batch *batch, const struct pretoken_set *table, size_t sets, const uint8_t *text,
                      const uint16_t *border, size_t pretokens) {
    size_t count = pretokens < PRETOKENS_BATCH ? pretokens : PRETOKENS_BATCH;
    for (size_t k = 0; k < count; k++) {
        size_t size = (size_t)border[k + 1] - border[k];
        size_t set = locate(batch->key[k], sets, text + border[k], size > PRETOKENS_KNOWN_BYTES ? 0 : size);
        batch->offset[k] = (uint32_t)(set * sizeof *table);
        __builtin_prefetch(&table[set]);
    }
    return count;
}

static size_t look_up(uint32_t **out, const struct pretoken_batch *batch, size_t first, size_t pretokens,
                      const struct pretoken_set *table) {
    uint32_t *to = *out;
    size_t k = first;
    for (; k < pretokens; k++) {
        const struct pretoken_set *set = &table[batch->offset[k] / sizeof *table];
        const uint8_t *key = batch->key[k];
        int which = memcmp(key, set->key[0], PRETOKENS_KEY_BYTES) == 0 ? 0 : memcmp(key, set->key[1], PRETOKENS_KEY_BYTES) == 0 ? 1 : -1;
        if (which < 0) break;
        for (int i = 0; i < PRETOKENS_KNOWN_IDS; i++) to[i] = set->value[which].id[i];
        to += set->value[which].count;
    }
    *out = to;
    return k;
}

#endif

/* What two ids merge into, or MERGE_NONE. */
static inline uint32_t merge_of(const struct merge_tables *tables, uint32_t left, uint32_t right) {
    uint32_t pair = left << 16 | right, hash = merge_hash(pair);
    size_t bit = merge_any_of(hash);
    if (!(tables->any[bit / 64] >> bit % 64 & 1)) return MERGE_NONE;
    for (size_t at = merge_bucket_of(hash);; at = (at + 1) % MERGE_BUCKETS) {
        const struct merge_bucket *bucket = &tables->bucket[at];
#ifdef PRETOKEN_KERNELS_AVX2
        __m256i equal = _mm256_cmpeq_epi32(_mm256_load_si256((const __m256i *)bucket->pair), _mm256_set1_epi32((int)pair));
        unsigned which = (unsigned)__builtin_ctz((unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(equal)) | 1 << MERGE_WAYS);
#else
        unsigned which = 0;
        while (which < MERGE_WAYS && bucket->pair[which] != pair) which++;
#endif
        if (__builtin_expect(which < MERGE_WAYS || !bucket->full, 1)) return bucket->id[which];
    }
}

/* What each token of a short pre-token and the next one merge into, above the position of the token, from 1 on. */
enum { MERGE_POSITIONS = PRETOKENS_KNOWN_BYTES + 2 };
#ifdef PRETOKEN_KERNELS_AVX2
struct pairs {
    __m256i low, high;
};

static inline struct pairs pairs_open(const uint32_t first[16]) {
    return (struct pairs){_mm256_loadu_si256((const __m256i *)first), _mm256_loadu_si256((const __m256i *)(first + 8))};
}

static inline uint32_t pairs_lowest(const struct pairs *pairs) {
    __m256i eight = _mm256_min_epu32(pairs->low, pairs->high);
    __m128i four = _mm_min_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    __m128i two = _mm_min_epu32(four, _mm_shuffle_epi32(four, 0x4E));
    return (uint32_t)_mm_cvtsi128_si32(_mm_min_epu32(two, _mm_shuffle_epi32(two, 0xB1)));
}

static inline void pairs_set(struct pairs *pairs, uint32_t position, uint32_t merged) {
    __m256i value = _mm256_set1_epi32((int)(merged << 16 | position)), here = _mm256_set1_epi32((int)position);
    __m256i low = _mm256_cmpeq_epi32(_mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 8), here);
    __m256i high = _mm256_cmpeq_epi32(_mm256_setr_epi32(9, 10, 11, 12, 13, 14, 15, 16), here);
    pairs->low = _mm256_blendv_epi8(pairs->low, value, low);
    pairs->high = _mm256_blendv_epi8(pairs->high, value, high);
}
#else
struct pairs {
    uint32_t pair[MERGE_POSITIONS];
};

static inline struct pairs pairs_open(const uint32_t first[16]) {
    struct pairs pairs;
    memcpy(pairs.pair + 1, first, 16 * sizeof *first);
    return pairs;
}

static inline uint32_t pairs_lowest(const struct pairs *pairs) {
    uint32_t lowest = pairs->pair[1];
    for (int i = 2; i <= 16; i++) lowest = pairs->pair[i] < lowest ? pairs->pair[i] : lowest;
    return lowest;
}

static inline void pairs_set(struct pairs *pairs, uint32_t position, uint32_t merged) { pairs->pair[position] = merged << 16 | position; }
#endif

/* A pre-token's tokens are held by the position of their first byte. There is something that merges with nothing on both sides, so that
 * nobody asks whether a token has neighbours. */
static size_t merge(uint32_t *out, const struct merge_tables *tables, const uint8_t *bytes, size_t size) {
    uint32_t id[MERGE_POSITIONS], first[16], there = (1u << (size + 2)) - 1; /* bit p: a token begins at position p */
    for (uint32_t i = 0; i < 16; i++) first[i] = (uint32_t)MERGE_NONE << 16 | (i + 1);
    id[0] = id[size + 1] = MERGE_NONE;
    for (size_t i = 0; i < size; i++) id[i + 1] = tables->byte_id[bytes[i]];
    for (uint32_t i = 0; i + 1 < size; i++) first[i] = (uint32_t)tables->of_bytes[bytes[i] << 8 | bytes[i + 1]] << 16 | (i + 1);
    struct pairs pairs = pairs_open(first);
    for (uint32_t lowest; (lowest = pairs_lowest(&pairs)) >> 16 != MERGE_NONE;) {
        uint32_t merged = lowest >> 16, at = lowest & 0xFFFF;
        uint32_t before = 31 - (uint32_t)__builtin_clz(there & ((1u << at) - 1)), behind = there & ~((2u << at) - 1);
        uint32_t right = (uint32_t)__builtin_ctz(behind), after = (uint32_t)__builtin_ctz(behind & (behind - 1));
        there &= ~(1u << right);
        id[at] = merged;
        pairs_set(&pairs, right, MERGE_NONE);
        pairs_set(&pairs, at, merge_of(tables, merged, id[after]));
        pairs_set(&pairs, before, merge_of(tables, id[before], merged));
    }
    size_t count = 0;
    for (uint32_t left = there & ((1u << (size + 1)) - 2); left; left &= left - 1) out[count++] = id[__builtin_ctz(left)];
    return count;
}

const struct pretoken_kernels PRETOKEN_KERNELS = {PRETOKEN_KERNELS_NAME, pretokenize, prepare, look_up, locate, merge};
