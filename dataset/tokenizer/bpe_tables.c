/* Fills the tables. Owns no text and merges nothing. */
#include "dataset/tokenizer/bpe_tables.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/mem.h"

int bpe_tables_memory(void *out_pointer, size_t size) {
    enum { HUGE_PAGE = 2 << 20 };
    if (size < HUGE_PAGE) return mem_try(out_pointer, 1, size);
    size_t all = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *table = aligned_alloc(HUGE_PAGE, all);
    if (!table) return err_set(ERR_MEMORY, "out of memory: %zu bytes for a table were wanted", all);
    madvise(table, all, MADV_HUGEPAGE); /* before the first touch, or it is too late; a refusal costs only speed */
    memset(table, 0, size);
    memcpy(out_pointer, &table, sizeof table);
    return 0;
}

/* Where to look for a key first, and what its slot has above the id. */
struct token_place {
    size_t slot;
    uint32_t tag;
};
static struct token_place token_place(const struct bpe_tables *tables, uint8_t key[PIECES_KEY_BYTES], const uint8_t *piece, size_t size) {
    enum { TAGS = 1 << 8 };
    size_t place = tables->kernels->place(key, (size_t)TOKEN_SLOTS * TAGS, piece, size);
    return (struct token_place){place % TOKEN_SLOTS, (uint32_t)(place / TOKEN_SLOTS) << 16};
}

/* Do the bytes of a token merge into it? In a vocabulary that was not trained they may not. Those of GPT-2 do, a test looks at each. */
static bool comes_again(const struct bpe_tables *tables, uint32_t id, const uint8_t *piece, size_t size) {
    uint32_t ids[PIECES_KEY_BYTES + PIECES_IDS_SLACK];
    return size == 1 || (tables->kernels->merge(ids, &tables->merges, piece, size) == 1 && ids[0] == id);
}

static void add_token(struct bpe_tables *tables, uint32_t id, const uint8_t *bytes, size_t size) {
    for (size_t i = 1; i < size; i++) {
        uint32_t pair = (uint32_t)bytes[i - 1] << 8 | bytes[i];
        tables->joined[pair / 64] |= (uint64_t)1 << pair % 64;
    }
    if (size > PIECES_KNOWN_BYTES) return;
    uint8_t padded[PIECES_KEY_BYTES + PIECES_SLACK] = {0};
    memcpy(padded, bytes, size);
    if (!comes_again(tables, id, padded, size)) return;
    struct token_place at = token_place(tables, tables->key[id], padded, size);
    while (tables->slot[at.slot]) at.slot = (at.slot + 1) % TOKEN_SLOTS;
    tables->slot[at.slot] = at.tag | (id + 1);
}

uint32_t bpe_tables_token(const struct bpe_tables *tables, const uint8_t *piece, size_t size) {
    uint8_t key[PIECES_KEY_BYTES];
    struct token_place at = token_place(tables, key, piece, size);
    for (uint32_t slot; (slot = tables->slot[at.slot]) != 0; at.slot = (at.slot + 1) % TOKEN_SLOTS) {
        uint32_t id = (slot & 0xFFFF) - 1;
        if ((slot & ~(uint32_t)0xFFFF) == at.tag && memcmp(tables->key[id], key, PIECES_KEY_BYTES) == 0) return id;
    }
    return TOKEN_NONE;
}

static void add_merge(struct merge_tables *merges, uint32_t pair, uint32_t id) {
    size_t bit = merge_any_of(merge_hash(pair));
    merges->any[bit / 64] |= (uint64_t)1 << bit % 64;
    for (size_t at = merge_bucket_of(merge_hash(pair));; at = (at + 1) % MERGE_BUCKETS) {
        struct merge_bucket *bucket = &merges->bucket[at];
        size_t way = 0;
        while (way < MERGE_WAYS && bucket->pair[way] != UINT32_MAX) way++;
        if (way == MERGE_WAYS) {
            bucket->full = true;
            continue;
        }
        bucket->pair[way] = pair;
        bucket->id[way] = (uint16_t)id;
        return;
    }
}

static void add_merges(struct merge_tables *merges, const struct vocabulary *v) {
    for (size_t i = 0; i < MERGE_BUCKETS; i++) {
        memset(&merges->bucket[i], 0xFF, sizeof merges->bucket[i]);
        merges->bucket[i].full = false;
    }
    for (size_t i = 0; i < sizeof v->slot / sizeof *v->slot; i++)
        if (v->slot[i].merged != NO_MERGE) add_merge(merges, v->slot[i].pair, v->slot[i].merged);
    for (uint32_t pair = 0; pair < 1 << 16; pair++)
        merges->of_bytes[pair] = (uint16_t)vocabulary_merge(v, v->byte_id[pair >> 8], v->byte_id[pair & 255]);
    for (size_t byte = 0; byte < 256; byte++) merges->byte_id[byte] = v->byte_id[byte];
}

int bpe_tables_open(struct bpe_tables **out, const struct vocabulary *v, const struct piece_kernels *kernels) {
    struct bpe_tables *tables;
    TRY(bpe_tables_memory(&tables, sizeof *tables));
    tables->kernels = kernels;
    add_merges(&tables->merges, v);
    for (uint32_t id = 0; id < v->ids; id++) add_token(tables, id, v->text.data + v->first[id], v->length[id]);
    *out = tables;
    return 0;
}

void bpe_tables_close(struct bpe_tables *tables) { free(tables); }
