/* Four ways to the same ids, tried in this order: a table of pre-tokens that came before, the table of tokens, a scan for the lowest merge
 * (short pre-tokens, whose results a second table keeps), and lists of pairs by rank (long ones).
 *
 * struct bpe_tables is made once and shared by all threads. struct bpe is one thread's: its tables of earlier pre-tokens, which grow as
 * text comes, and room for one long pre-token. bpe_encode_pretokens() looks up many pre-tokens at once and calls bpe_encode() for those
 * that the table does not have. */
#include "dataset/tokenizer/bpe.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/mem.h"

/* ---- What all threads look up ----
 *
 * Fills the tables. Owns no text and merges nothing. */

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
struct token_slot {
    size_t slot;
    uint32_t tag;
};
static struct token_slot token_slot_of(const struct bpe_tables *tables, uint8_t key[PRETOKENS_KEY_BYTES], const uint8_t *pretoken,
                                       size_t size) {
    enum { TAGS = 1 << 8 };
    size_t at = tables->kernels->locate(key, (size_t)TOKEN_SLOTS * TAGS, pretoken, size);
    return (struct token_slot){at % TOKEN_SLOTS, (uint32_t)(at / TOKEN_SLOTS) << 16};
}

/* Do the bytes of a token merge into it? In a vocabulary that was not trained they may not. Those of GPT-2 do, a test looks at each. */
static bool comes_again(const struct bpe_tables *tables, uint32_t id, const uint8_t *pretoken, size_t size) {
    uint32_t ids[PRETOKENS_KEY_BYTES + PRETOKENS_IDS_SLACK];
    return size == 1 || (tables->kernels->merge(ids, &tables->merges, pretoken, size) == 1 && ids[0] == id);
}

static void add_token(struct bpe_tables *tables, uint32_t id, const uint8_t *bytes, size_t size) {
    for (size_t i = 1; i < size; i++) {
        uint32_t pair = (uint32_t)bytes[i - 1] << 8 | bytes[i];
        tables->joined[pair / 64] |= (uint64_t)1 << pair % 64;
    }
    if (size > PRETOKENS_KNOWN_BYTES) return;
    if (bytes[size - 1] == 0xFF) return; /* no text has it, and with it the key is that of the text before it */
    uint8_t padded[PRETOKENS_KEY_BYTES + PRETOKENS_SLACK] = {0};
    memcpy(padded, bytes, size);
    if (!comes_again(tables, id, padded, size)) return;
    struct token_slot at = token_slot_of(tables, tables->key[id], padded, size);
    while (tables->slot[at.slot]) at.slot = (at.slot + 1) % TOKEN_SLOTS;
    tables->slot[at.slot] = at.tag | (id + 1);
}

uint32_t bpe_tables_token(const struct bpe_tables *tables, const uint8_t *pretoken, size_t size) {
    uint8_t key[PRETOKENS_KEY_BYTES];
    struct token_slot at = token_slot_of(tables, key, pretoken, size);
    for (uint32_t slot; (slot = tables->slot[at.slot]) != 0; at.slot = (at.slot + 1) % TOKEN_SLOTS) {
        uint32_t id = (slot & 0xFFFF) - 1;
        if ((slot & ~(uint32_t)0xFFFF) == at.tag && memcmp(tables->key[id], key, PRETOKENS_KEY_BYTES) == 0) return id;
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

int bpe_tables_open(struct bpe_tables **out, const struct vocabulary *v, const struct pretoken_kernels *kernels) {
    struct bpe_tables *tables;
    TRY(bpe_tables_memory(&tables, sizeof *tables));
    tables->kernels = kernels;
    add_merges(&tables->merges, v);
    for (uint32_t id = 0; id < v->ids; id++) add_token(tables, id, v->text.data + v->first[id], v->length[id]);
    *out = tables;
    return 0;
}

void bpe_tables_close(struct bpe_tables *tables) { free(tables); }

/* ---- Merging ---- */

enum {
    SETS_FIRST = 1 << 8, /* of the table of pre-tokens: 16 KiB, which a short text does not fill */
    SETS_MAX = 1 << 18,  /* 16 MiB: of 100 MB of English 98 of 100 pre-tokens are found there */
    SETS_GROWTH = 4,
    SETS_YOUNG = 1 << 14, /* up to here a pre-token may be a token that did not come yet; later hardly any is, and to look costs more */
    KEEP_TURNS = 8,       /* of so many pre-tokens that fall out of a set, one is the older one */
    MEMOS_FIRST = 1 << 5, /* of longer pre-tokens: lines of dashes, indentation, names */
    MEMOS_MAX = 1 << 10,
    MEMO_BYTES = 96,
    MEMO_IDS = 31,
    CHUNK_SCAN_BYTES = 1 << 15, /* of a pre-token that are looked at for borders of chunks at a time */
    CHUNKS_MAX = 1 << 10,
    SCAN_BYTES = 64,          /* up to here the square of the length costs less than the queue */
    LONG_KEEP_BYTES = 1 << 16 /* room for long pre-tokens that bpe_trim() leaves */
};
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "keys are hashed as little-endian words");

/* A longer pre-token that came before. Of two with the same hash the later one stays. */
struct memo {
    uint8_t size, count; /* size 0: free */
    uint16_t id[MEMO_IDS];
    uint8_t pretoken[MEMO_BYTES];
};

/* Long pre-tokens. A token that covers bytes p to q of the pre-token has its id at id[p] and id[q]: its neighbours are found from there,
 * without links. Each pair of neighbours that merges waits, under its left token's first byte, in a doubly linked list of its merge. */
#define LINK_END    UINT32_MAX
#define LINK_ABSENT (UINT32_MAX - 1)
#define LINK_HEAD   (UINT32_C(1) << 31)
struct link {
    uint32_t next;     /* or LINK_END */
    uint32_t previous; /* or LINK_HEAD | merge for a list's first, or LINK_ABSENT outside of any list */
};
struct long_pretoken {
    size_t size, capacity;
    uint16_t *id;
    struct link *link;
    uint32_t *head;    /* [VOCABULARY_IDS_MAX]: the list of each merge, or LINK_END */
    uint64_t *waiting; /* bit m: list m may have a pair */
};
enum { WAITING_WORDS = (VOCABULARY_IDS_MAX + 63) / 64 };

struct bpe {
    const struct vocabulary *vocabulary;
    const struct bpe_tables *tables;
    const struct pretoken_kernels *kernels;
    struct pretoken_set *table;
    size_t sets, added, turn;
    struct memo *memo;
    size_t memos, memos_added;
    struct long_pretoken pretoken;
};

int bpe_open(struct bpe **out, const struct vocabulary *vocabulary, const struct bpe_tables *tables) {
    struct pretoken_set *table;
    TRY(mem_try(&table, SETS_FIRST, sizeof *table));
    *out = mem_alloc(sizeof **out);
    **out = (struct bpe){.vocabulary = vocabulary, .tables = tables, .kernels = tables->kernels, .table = table, .sets = SETS_FIRST};
    return 0;
}

static void long_pretoken_free(struct long_pretoken *pretoken) {
    free(pretoken->id), free(pretoken->link), free(pretoken->head), free(pretoken->waiting);
    *pretoken = (struct long_pretoken){0};
}

void bpe_close(struct bpe *bpe) {
    if (!bpe) return;
    long_pretoken_free(&bpe->pretoken);
    free(bpe->table), free(bpe->memo);
    free(bpe);
}

void bpe_trim(struct bpe *bpe) {
    if (bpe->pretoken.capacity > LONG_KEEP_BYTES) long_pretoken_free(&bpe->pretoken);
}

/* Pre-tokens of some length: look for the lowest merge, do it, look again. */
static size_t encode_by_scan(const struct vocabulary *v, uint32_t *id, const uint8_t *bytes, size_t n) {
    uint32_t merge[SCAN_BYTES]; /* of token i with its right neighbour */
    for (size_t i = 0; i < n; i++) id[i] = v->byte_id[bytes[i]];
    for (size_t i = 0; i + 1 < n; i++) merge[i] = vocabulary_merge(v, id[i], id[i + 1]);
    while (n > 1) {
        size_t at = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (merge[i] < merge[at]) at = i;
        if (merge[at] == NO_MERGE) break;
        id[at] = merge[at];
        n--;
        memmove(id + at + 1, id + at + 2, (n - at - 1) * sizeof *id);
        if (at + 1 < n) {
            memmove(merge + at + 1, merge + at + 2, (n - at - 2) * sizeof *merge);
            merge[at] = vocabulary_merge(v, id[at], id[at + 1]);
        }
        if (at > 0) merge[at - 1] = vocabulary_merge(v, id[at - 1], id[at]);
    }
    return n;
}

static int long_pretoken_reserve(struct long_pretoken *pretoken, size_t size) {
    if (!pretoken->head) {
        TRY(mem_try(&pretoken->head, VOCABULARY_IDS_MAX, sizeof *pretoken->head));
        memset(pretoken->head, 0xFF, VOCABULARY_IDS_MAX * sizeof *pretoken->head);
    }
    if (!pretoken->waiting) TRY(mem_try(&pretoken->waiting, WAITING_WORDS, sizeof *pretoken->waiting));
    if (size <= pretoken->capacity) return 0;
    free(pretoken->id), free(pretoken->link);
    pretoken->id = NULL, pretoken->link = NULL, pretoken->capacity = 0;
    TRY(mem_try(&pretoken->id, size, sizeof *pretoken->id));
    TRY(mem_try(&pretoken->link, size, sizeof *pretoken->link));
    pretoken->capacity = size;
    return 0;
}

static void list_add(struct long_pretoken *pretoken, uint32_t p, uint32_t merge) {
    uint32_t next = pretoken->head[merge];
    pretoken->link[p] = (struct link){next, LINK_HEAD | merge};
    if (next != LINK_END) pretoken->link[next].previous = p;
    pretoken->head[merge] = p;
    pretoken->waiting[merge / 64] |= (uint64_t)1 << merge % 64;
}

static void list_remove(struct long_pretoken *pretoken, uint32_t p) {
    struct link link = pretoken->link[p];
    if (link.previous == LINK_ABSENT) return;
    if (link.previous & LINK_HEAD) pretoken->head[link.previous & ~LINK_HEAD] = link.next;
    else pretoken->link[link.previous].next = link.next;
    if (link.next != LINK_END) pretoken->link[link.next].previous = link.previous;
    pretoken->link[p].previous = LINK_ABSENT;
}

/* Merges the token at p with the one after it, and lists the pairs that this makes. */
static void merge_at(struct long_pretoken *pretoken, const struct vocabulary *v, uint32_t p, uint32_t merged) {
    uint32_t right = p + v->length[pretoken->id[p]], end = right + v->length[pretoken->id[right]];
    list_remove(pretoken, p);
    list_remove(pretoken, right);
    pretoken->id[p] = pretoken->id[end - 1] = (uint16_t)merged;
    if (p > 0) {
        uint32_t before = pretoken->id[p - 1], left = p - v->length[before], merge = vocabulary_merge(v, before, merged);
        list_remove(pretoken, left);
        if (merge != NO_MERGE) list_add(pretoken, left, merge);
    }
    if (end < pretoken->size) {
        uint32_t merge = vocabulary_merge(v, merged, pretoken->id[end]);
        if (merge != NO_MERGE) list_add(pretoken, p, merge);
    }
}

/* Does every waiting merge of that id. The order matters only where pairs overlap: a token with itself, which goes from the left of its
 * run. */
static void merge_all(struct long_pretoken *pretoken, const struct vocabulary *v, uint32_t merged) {
    for (uint32_t p; (p = pretoken->head[merged]) != LINK_END;) {
        uint32_t id = pretoken->id[p], length = v->length[id];
        if (pretoken->id[p + length] != id) {
            merge_at(pretoken, v, p, merged);
            continue;
        }
        while (p > 0 && pretoken->id[p - 1] == id) p -= length;
        while (p + length < pretoken->size && pretoken->id[p] == id && pretoken->id[p + length] == id) {
            merge_at(pretoken, v, p, merged);
            p += 2 * length;
        }
    }
}

/* Long pre-tokens: the merges in the order of their rank, each wherever it applies. A merge makes only pairs with a token newer than
 * itself, whose merges come later still: so one pass over the ranks does all, and each byte is touched a bounded number of times. */
static int encode_by_rank(struct bpe *bpe, uint32_t *out, size_t *out_count, const uint8_t *bytes, size_t size) {
    const struct vocabulary *v = bpe->vocabulary;
    struct long_pretoken *pretoken = &bpe->pretoken;
    TRY(long_pretoken_reserve(pretoken, size));
    pretoken->size = size;
    for (size_t i = 0; i < size; i++) pretoken->id[i] = v->byte_id[bytes[i]];
    for (size_t i = 0; i < size; i++) {
        uint32_t merge = i + 1 < size ? vocabulary_merge(v, pretoken->id[i], pretoken->id[i + 1]) : NO_MERGE;
        pretoken->link[i].previous = LINK_ABSENT;
        if (merge != NO_MERGE) list_add(pretoken, (uint32_t)i, merge);
    }
    for (uint32_t word = 0; word < WAITING_WORDS; word++)
        while (pretoken->waiting[word]) {
            uint32_t bit = (uint32_t)__builtin_ctzll(pretoken->waiting[word]);
            merge_all(pretoken, v, 64 * word + bit);
            pretoken->waiting[word] &= ~((uint64_t)1 << bit);
        }
    size_t count = 0;
    for (size_t p = 0; p < size; p += v->length[pretoken->id[p]]) out[count++] = pretoken->id[p];
    *out_count = count;
    return 0;
}

/* Puts a pre-token into its set. When both entries are taken it takes the second, the one that is replaced often; now and then the
 * second moves up first, so that a change of the text's language reaches the first ones too. */
static void table_put(struct bpe *bpe, size_t set_index, const uint8_t key[PRETOKENS_KEY_BYTES], const struct pretoken_value *value) {
    struct pretoken_set *set = &bpe->table[set_index];
    size_t which = set->value[0].count ? 1 : 0;
    if (set->value[1].count && ++bpe->turn % KEEP_TURNS == 0) {
        memcpy(set->key[0], set->key[1], PRETOKENS_KEY_BYTES);
        set->value[0] = set->value[1];
    }
    memcpy(set->key[which], key, PRETOKENS_KEY_BYTES);
    set->value[which] = *value;
    bpe->added++;
}

/* Room for more pre-tokens. Without memory for it the old table does, only slower. */
static void table_grow(struct bpe *bpe) {
    struct pretoken_set *old = bpe->table, *table;
    size_t sets = bpe->sets, more = sets * SETS_GROWTH < SETS_MAX ? sets * SETS_GROWTH : SETS_MAX;
    if (bpe_tables_memory(&table, more * sizeof *table) < 0) return;
    bpe->table = table;
    bpe->sets = more;
    for (size_t i = 0; i < 2 * sets; i++) {
        const struct pretoken_value *value = &old[i / 2].value[i % 2];
        if (value->count == 0) continue;
        uint8_t key[PRETOKENS_KEY_BYTES], pretoken[PRETOKENS_KEY_BYTES];
        memcpy(pretoken, old[i / 2].key[i % 2], PRETOKENS_KEY_BYTES);
        size_t size = 0;
        while (pretoken[size] != 0xFF) size++;
        size_t set = bpe->kernels->locate(key, bpe->sets, pretoken, size);
        table_put(bpe, set, key, value);
    }
    bpe->added = 0;
    free(old);
}

/* Puts a pre-token and its ids into the table, if it may be there. */
static void remember(struct bpe *bpe, const uint32_t *id, size_t count, const uint8_t *pretoken, size_t size) {
    if (size > PRETOKENS_KNOWN_BYTES || count > PRETOKENS_KNOWN_IDS) return;
    if (bpe->added > bpe->sets && bpe->sets < SETS_MAX) table_grow(bpe);
    struct pretoken_value value = {.count = (uint16_t)count};
    for (size_t i = 0; i < count; i++) value.id[i] = (uint16_t)id[i];
    uint8_t key[PRETOKENS_KEY_BYTES];
    size_t set = bpe->kernels->locate(key, bpe->sets, pretoken, size);
    table_put(bpe, set, key, &value);
}

/* Where a longer pre-token is remembered; NULL without memory for it. The first ones go when there come to be many. */
static struct memo *find_memo(struct bpe *bpe, const uint8_t *pretoken, size_t size) {
    if (bpe->memos_added >= bpe->memos && bpe->memos < MEMOS_MAX) {
        struct memo *memo;
        size_t memos = bpe->memos ? MEMOS_MAX : MEMOS_FIRST;
        if (mem_try(&memo, memos, sizeof *memo) < 0) return NULL;
        free(bpe->memo);
        bpe->memo = memo, bpe->memos = memos, bpe->memos_added = 0;
    }
    uint64_t hash = size, word;
    for (size_t i = 0; i < size - 8; i += 8) {
        memcpy(&word, pretoken + i, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u, hash ^= hash >> 32;
    }
    memcpy(&word, pretoken + size - 8, 8);
    hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
    return &bpe->memo[hash >> 32 & (bpe->memos - 1)];
}

static size_t encode_by_memo(struct bpe *bpe, uint32_t *out, const uint8_t *pretoken, size_t size, int *code) {
    struct memo *memo = find_memo(bpe, pretoken, size);
    size_t count;
    if (memo && memo->size == size && memcmp(memo->pretoken, pretoken, size) == 0) {
        for (size_t i = 0; i < memo->count; i++) out[i] = memo->id[i];
        return memo->count;
    }
    if (size <= SCAN_BYTES) count = encode_by_scan(bpe->vocabulary, out, pretoken, size);
    else if ((*code = encode_by_rank(bpe, out, &count, pretoken, size)) < 0) return 0;
    if (memo && count <= MEMO_IDS) {
        memo->size = (uint8_t)size, memo->count = (uint8_t)count;
        for (size_t i = 0; i < count; i++) memo->id[i] = (uint16_t)out[i];
        memcpy(memo->pretoken, pretoken, size);
        bpe->memos_added++;
    }
    return count;
}

/* A chunk that no table holds. */
static int encode_chunk(struct bpe *bpe, uint32_t *out, size_t *out_count, const uint8_t *chunk, size_t size) {
    if (size > MEMO_BYTES) return encode_by_rank(bpe, out, out_count, chunk, size);
    if (size > PRETOKENS_KNOWN_BYTES) {
        int code = 0;
        *out_count = encode_by_memo(bpe, out, chunk, size, &code);
        return code;
    }
    uint32_t token = bpe->sets > SETS_YOUNG ? TOKEN_NONE : bpe_tables_token(bpe->tables, chunk, size);
    *out_count = 1;
    if (token != TOKEN_NONE) out[0] = token;
    else *out_count = bpe->kernels->merge(out, &bpe->tables->merges, chunk, size);
    remember(bpe, out, *out_count, chunk, size);
    return 0;
}

/* Pre-tokens by the table, in batches: while one is looked up, the memory that the next one needs is on its way. */
static int encode_known(struct bpe *bpe, uint32_t *out, size_t *out_count, const uint8_t *text, const uint16_t *border, size_t pretokens,
                        int (*encode_other)(struct bpe *bpe, uint32_t *out, size_t *out_count, const uint8_t *pretoken, size_t size)) {
    const struct pretoken_kernels *kernels = bpe->kernels;
    struct pretoken_batch batches[2];
    uint32_t *to = out;
    size_t sets = bpe->sets, count = kernels->prepare(&batches[0], bpe->table, sets, text, border, pretokens);
    for (size_t turn = 0; pretokens > 0; turn++) {
        struct pretoken_batch *batch = &batches[turn % 2], *next = &batches[(turn + 1) % 2];
        size_t next_count = kernels->prepare(next, bpe->table, sets, text, border + count, pretokens - count);
        for (size_t k = 0; (k = kernels->look_up(&to, batch, k, count, bpe->table)) < count; k++) {
            size_t ids;
            TRY(encode_other(bpe, to, &ids, text + border[k], (size_t)border[k + 1] - border[k]));
            to += ids;
            if (bpe->sets == sets) continue;
            sets = bpe->sets; /* the table has grown, and everything in it has moved */
            kernels->prepare(batch, bpe->table, sets, text, border, count);
            kernels->prepare(next, bpe->table, sets, text, border + count, next_count);
        }
        border += count, pretokens -= count, count = next_count;
    }
    *out_count = (size_t)(to - out);
    return 0;
}

/* No merge reaches over two bytes that no token has side by side, so what is on either side of them merges by itself. That is how words of
 * scripts that the vocabulary knows little of fall apart into characters, of which there are few. */
int bpe_encode(struct bpe *bpe, uint32_t *out, size_t *out_count, const uint8_t *pretoken, size_t size) {
    uint32_t *to = out;
    for (size_t begin = 0, count; begin < size; to += count) {
        uint16_t border[CHUNKS_MAX + 2];
        const uint8_t *text = pretoken + begin;
        size_t rest = size - begin, most = rest < CHUNK_SCAN_BYTES ? rest : CHUNK_SCAN_BYTES, chunks = 0, end = 1;
        for (border[0] = 0; end < most && chunks < CHUNKS_MAX; end++)
            if (!bpe_tables_joined(bpe->tables, text + end - 1)) border[++chunks] = (uint16_t)end;
        if (end == rest) border[++chunks] = (uint16_t)end;
        if (chunks > 1) {
            TRY(encode_known(bpe, to, &count, text, border, chunks, encode_chunk));
            begin += border[chunks];
            if (begin == size) remember(bpe, out, (size_t)(to - out) + count, pretoken, size);
            continue;
        }
        if (chunks == 1) end = border[1];
        else
            while (end < rest && bpe_tables_joined(bpe->tables, text + end - 1)) end++;
        TRY(encode_chunk(bpe, to, &count, text, end));
        begin += end;
    }
    *out_count = (size_t)(to - out);
    return 0;
}

int bpe_encode_pretokens(struct bpe *bpe, uint32_t *out, size_t *out_count, const uint8_t *text, const uint16_t *border, size_t pretokens) {
    return encode_known(bpe, out, out_count, text, border, pretokens, bpe_encode);
}
