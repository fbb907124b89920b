/* Many pre-tokens at a time: where they end, and the ids of those that a table of pre-tokens already knows. The same two functions are
 * compiled for each instruction set (dataset/tokenizer/pretokens_body.h); pretoken_kernels() gives this machine's. All give the same
 * borders and ids; a test compares them with each other and with pretoken_measure(). */
#ifndef MILLRACE_DATASET_PRETOKENS_H
#define MILLRACE_DATASET_PRETOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PRETOKENS_TEXT_BYTES = 8192,                   /* of text at a time, at most: a border is a uint16_t */
    PRETOKENS_BORDERS = PRETOKENS_TEXT_BYTES + 64, /* room for the borders, with what is written beyond the last */
    PRETOKENS_SLACK = 80, /* bytes behind the text that are read; text[size] is PRETOKEN_SENTINEL when the text ends there */
    PRETOKENS_KEY_BYTES = 16,
    PRETOKENS_KNOWN_BYTES = PRETOKENS_KEY_BYTES - 1, /* longer pre-tokens are never in a table */
    PRETOKENS_KNOWN_IDS = 7,                         /* nor are those of more ids */
    PRETOKENS_IDS_SLACK = 8,                         /* ids that look_up() may write behind those it counts */
};

/* One cache line: two pre-tokens that share a hash. A key is the pre-token with 0xFF after it, which occurs in no UTF-8; a free entry is
 * all zero and like no key, because a key's last byte is 0xFF. */
struct pretoken_value {
    uint16_t id[PRETOKENS_KNOWN_IDS], count;
};
struct pretoken_set {
    uint8_t key[2][PRETOKENS_KEY_BYTES];
    struct pretoken_value value[2];
};

/* Pre-tokens that are about to be looked up. */
enum { PRETOKENS_BATCH = 64 };
struct pretoken_batch {
    uint8_t key[PRETOKENS_BATCH][PRETOKENS_KEY_BYTES]; /* all 0xFF, like no other: too long */
    uint32_t offset[PRETOKENS_BATCH];                  /* of the set in the table, in bytes */
};

/* What merges are looked up in. Immutable. A merge of two ids is in the bucket of its hash, or, if that is full, in one that follows. Most
 * pairs that are looked up do not merge: `any` tells of nine in ten of them, and its 64 KiB are near. */
enum { MERGE_BUCKETS = 1 << 14, MERGE_WAYS = 8, MERGE_ANY_BITS = 1 << 19, MERGE_NONE = 0xFFFF };
struct merge_bucket {
    _Alignas(64) uint32_t pair[MERGE_WAYS]; /* left << 16 | right; UINT32_MAX: free */
    uint16_t id[MERGE_WAYS + 1];            /* what they merge into; MERGE_NONE behind the last */
    bool full;
    uint8_t unused[13];
};
struct merge_tables {
    uint64_t any[MERGE_ANY_BITS / 64]; /* bit of the hash: some pair that merges has it */
    _Alignas(64) struct merge_bucket bucket[MERGE_BUCKETS];
    uint16_t of_bytes[1 << 16]; /* [left << 8 | right]: what two bytes merge into, or MERGE_NONE */
    uint16_t byte_id[256];
};
_Static_assert(sizeof(struct merge_bucket) == 64, "one cache line");

static inline uint32_t merge_hash(uint32_t pair) { return pair * 0x9E3779B1u; }
static inline size_t merge_bucket_of(uint32_t hash) { return hash >> 18; }
static inline size_t merge_any_of(uint32_t hash) { return hash >> 13; }

struct pretoken_kernels {
    const char *name;

    /* Writes the borders of the first pre-tokens of text[0..size), 0 < size <= PRETOKENS_TEXT_BYTES, well-formed but that its last
     * character may go on behind it: pre-token k is text[border[k]..border[k + 1]). Returns how many pre-tokens there are. `final`: the
     * text ends at size. If not, the last bytes are left for later, and there is none when a pre-token is longer than the text. */
    size_t (*pretokenize)(uint16_t *border, const uint8_t *text, size_t size, bool final);

    /* Makes the keys of the first pre-tokens, at most PRETOKENS_BATCH, and asks for the lines of the table that they belong to. Returns how
     * many. The table has `sets` sets, a power of two. */
    size_t (*prepare)(struct pretoken_batch *batch, const struct pretoken_set *table, size_t sets, const uint8_t *text,
                      const uint16_t *border, size_t pretokens);

    /* Writes the ids of a batch's pre-tokens from `first` on until one is not in the table. Returns its number; moves *out. */
    size_t (*look_up)(uint32_t **out, const struct pretoken_batch *batch, size_t first, size_t pretokens, const struct pretoken_set *table);

    /* The number of the set where a pre-token of up to PRETOKENS_KNOWN_BYTES belongs, and its key. */
    size_t (*locate)(uint8_t key[PRETOKENS_KEY_BYTES], size_t sets, const uint8_t *pretoken, size_t size);

    /* Merges a pre-token of up to PRETOKENS_KNOWN_BYTES. Returns how many ids it wrote. */
    size_t (*merge)(uint32_t *out, const struct merge_tables *tables, const uint8_t *pretoken, size_t size);
};
const struct pretoken_kernels *pretoken_kernels(void);

/* All that this machine can run, the fastest first. Returns how many. */
enum { PRETOKEN_KERNELS_MAX = 3 };
size_t pretoken_kernels_list(const struct pretoken_kernels *list[PRETOKEN_KERNELS_MAX]);
extern const struct pretoken_kernels pretoken_kernels_avx512, pretoken_kernels_avx2,
    pretoken_kernels_portable; /* the first two on x86-64 */

#endif
