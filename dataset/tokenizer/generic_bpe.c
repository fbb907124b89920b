/* Three ways to the same ids, by the length of the pre-token: a cache of those that came before (to 15 bytes), a scan for the lowest merge
 * (to 48), and a heap of merges. A thread's struct generic_bpe owns the cache and the heap; the merges are shared. */
#include "dataset/tokenizer/generic_bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"

enum {
    CACHE_LOG2 = 15,
    CACHE_PRETOKEN_BYTES = 15,
    CACHE_IDS = 7,
    SCAN_BYTES = 48,           /* up to here the square of the length costs less than the heap */
    LONG_KEEP_BYTES = 1 << 16, /* room for long pre-tokens that generic_bpe_trim() leaves */
    TICK_MERGES = 1 << 16,     /* that are looked at between two ticks */
};
#define NO_RANK UINT32_MAX

struct merge_slot {
    uint32_t left, right; /* left HF_NONE: free */
    uint32_t rank, merged;
};
struct merge_ranks {
    const struct hf_tokenizer *hf;
    struct merge_slot *slot;
    size_t slots;
    uint64_t key; /* of their hash: follows from all merges, so nobody can choose merges that lie side by side */
};

/* Long pre-tokens: a list of tokens, and a heap of pairs that merge, the lowest rank first, then the leftmost. A pair that is no longer
 * there stays in the heap until it comes up. */
struct node {
    uint32_t id, previous, next; /* id HF_NONE: merged away; previous and next HF_NONE: none */
};
struct generic_bpe {
    const struct merge_ranks *ranks;
    struct cache_entry *cache;
    struct node *node;
    uint64_t *heap; /* rank << 32 | index of the left node */
    size_t heap_count, capacity;
    int (*tick)(void *arg);
    void *tick_arg;
};
struct cache_entry {
    uint64_t low, high; /* the pre-token, zeros after it, its length in the last byte; length 0: free */
    uint32_t count, id[CACHE_IDS];
};

static size_t pair_slot(const struct merge_ranks *ranks, uint32_t left, uint32_t right) {
    uint64_t hash = ((uint64_t)left << 32 | right) * ranks->key;
    hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93u;
    size_t i = (hash >> 32) & (ranks->slots - 1);
    while (ranks->slot[i].left != HF_NONE && (ranks->slot[i].left != left || ranks->slot[i].right != right))
        i = (i + 1) & (ranks->slots - 1);
    return i;
}

/* The merge of two neighbours; its rank is NO_RANK when there is none. */
static inline struct merge_slot merge_of(const struct merge_ranks *ranks, uint32_t left, uint32_t right) {
    return ranks->slot[pair_slot(ranks, left, right)];
}

int merge_ranks_open(struct merge_ranks **out, const struct hf_tokenizer *hf) {
    struct merge_ranks *ranks = mem_alloc(sizeof *ranks);
    ranks->hf = hf;
    ranks->key = (hf->merges ? xxh64_of(hf->merge, hf->merges * sizeof *hf->merge, 0) : 0) | 1; /* odd: no two pairs become one */
    for (ranks->slots = 1024; ranks->slots < 2 * (size_t)hf->merges + 2; ranks->slots *= 2) continue;
    int code = mem_try(&ranks->slot, ranks->slots, sizeof *ranks->slot);
    if (code < 0) {
        free(ranks);
        return code;
    }
    for (size_t i = 0; i < ranks->slots; i++) ranks->slot[i] = (struct merge_slot){HF_NONE, HF_NONE, NO_RANK, HF_NONE};
    for (uint32_t rank = 0; rank < hf->merges; rank++) {
        const struct hf_merge *m = &hf->merge[rank];
        ranks->slot[pair_slot(ranks, m->left, m->right)] = (struct merge_slot){m->left, m->right, rank, m->merged};
    }
    *out = ranks;
    return 0;
}

size_t merge_ranks_way(const struct merge_ranks *ranks) {
    size_t longest = 0, way = 0;
    for (size_t i = 0; i < 2 * ranks->slots; i++) { /* the last slot is beside the first */
        way = ranks->slot[i & (ranks->slots - 1)].left == HF_NONE ? 0 : way + 1;
        if (way > longest) longest = way;
    }
    return longest;
}

void merge_ranks_close(struct merge_ranks *ranks) {
    if (!ranks) return;
    free(ranks->slot);
    free(ranks);
}

int generic_bpe_open(struct generic_bpe **out, const struct merge_ranks *ranks) {
    struct cache_entry *cache;
    TRY(mem_try(&cache, (size_t)1 << CACHE_LOG2, sizeof *cache));
    *out = mem_alloc(sizeof **out);
    (*out)->ranks = ranks;
    (*out)->cache = cache;
    return 0;
}

static void long_free(struct generic_bpe *bpe) {
    free(bpe->node), free(bpe->heap);
    bpe->node = NULL, bpe->heap = NULL, bpe->capacity = 0;
}

void generic_bpe_close(struct generic_bpe *bpe) {
    if (!bpe) return;
    long_free(bpe);
    free(bpe->cache);
    free(bpe);
}

void generic_bpe_set_tick(struct generic_bpe *bpe, int (*tick)(void *), void *tick_arg) { bpe->tick = tick, bpe->tick_arg = tick_arg; }

void generic_bpe_trim(struct generic_bpe *bpe) {
    if (bpe->capacity > LONG_KEEP_BYTES) long_free(bpe);
}

/* Short pre-tokens: look for the lowest merge, do it, look again. */
static size_t encode_by_scan(const struct merge_ranks *ranks, uint32_t *id, const uint8_t *bytes, size_t n) {
    struct merge_slot merge[SCAN_BYTES]; /* of token i with its right neighbour */
    for (size_t i = 0; i < n; i++) id[i] = ranks->hf->byte_id[bytes[i]];
    for (size_t i = 0; i + 1 < n; i++) merge[i] = merge_of(ranks, id[i], id[i + 1]);
    while (n > 1) {
        size_t at = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (merge[i].rank < merge[at].rank) at = i;
        if (merge[at].rank == NO_RANK) break;
        id[at] = merge[at].merged;
        n--;
        memmove(id + at + 1, id + at + 2, (n - at - 1) * sizeof *id);
        if (at + 1 < n) {
            memmove(merge + at + 1, merge + at + 2, (n - at - 2) * sizeof *merge);
            merge[at] = merge_of(ranks, id[at], id[at + 1]);
        }
        if (at > 0) merge[at - 1] = merge_of(ranks, id[at - 1], id[at]);
    }
    return n;
}

static void sift_down(uint64_t *heap, size_t count, size_t at, uint64_t value) {
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= value) break;
        heap[at] = heap[child];
    }
    heap[at] = value;
}

static uint64_t heap_pop(struct generic_bpe *bpe) {
    uint64_t top = bpe->heap[0], last = bpe->heap[--bpe->heap_count];
    if (bpe->heap_count) sift_down(bpe->heap, bpe->heap_count, 0, last);
    return top;
}

/* Adds the merge of node `left` with the one after it, if there is such a merge. */
static void heap_push(struct generic_bpe *bpe, uint32_t left) {
    const struct node *node = &bpe->node[left];
    if (node->next == HF_NONE) return;
    uint32_t rank = merge_of(bpe->ranks, node->id, bpe->node[node->next].id).rank;
    if (rank == NO_RANK) return;
    uint64_t value = (uint64_t)rank << 32 | left;
    size_t at = bpe->heap_count++;
    for (size_t parent; at > 0 && bpe->heap[parent = (at - 1) / 2] > value; at = parent) bpe->heap[at] = bpe->heap[parent];
    bpe->heap[at] = value;
}

/* A merge takes one entry out of the heap and puts in two at most, and there are fewer merges than bytes: 2 * size entries are enough. */
static int long_reserve(struct generic_bpe *bpe, size_t size) {
    if (size <= bpe->capacity) return 0;
    long_free(bpe);
    TRY(mem_try(&bpe->node, size, sizeof *bpe->node));
    int code = mem_try(&bpe->heap, 2 * size, sizeof *bpe->heap);
    if (code < 0) long_free(bpe);
    else bpe->capacity = size;
    return code;
}

static void begin_long(struct generic_bpe *bpe, const uint8_t *bytes, size_t size) {
    uint32_t n = (uint32_t)size;
    for (uint32_t i = 0; i < n; i++)
        bpe->node[i] = (struct node){bpe->ranks->hf->byte_id[bytes[i]], i ? i - 1 : HF_NONE, i + 1 < n ? i + 1 : HF_NONE};
    bpe->heap_count = 0;
    for (uint32_t i = 0; i + 1 < n; i++) {
        uint32_t rank = merge_of(bpe->ranks, bpe->node[i].id, bpe->node[i + 1].id).rank;
        if (rank != NO_RANK) bpe->heap[bpe->heap_count++] = (uint64_t)rank << 32 | i;
    }
    for (size_t i = bpe->heap_count / 2; i-- > 0;) sift_down(bpe->heap, bpe->heap_count, i, bpe->heap[i]);
}

static int encode_by_heap(struct generic_bpe *bpe, struct ids *out, const uint8_t *bytes, size_t size) {
    TRY(long_reserve(bpe, size));
    struct node *node = bpe->node;
    begin_long(bpe, bytes, size);
    for (size_t looked_at = 1; bpe->heap_count; looked_at++) {
        if (looked_at % TICK_MERGES == 0 && bpe->tick) TRY(bpe->tick(bpe->tick_arg));
        uint64_t top = heap_pop(bpe);
        uint32_t at = (uint32_t)top, right = node[at].next;
        if (node[at].id == HF_NONE || right == HF_NONE) continue;
        struct merge_slot merge = merge_of(bpe->ranks, node[at].id, node[right].id);
        if (merge.rank != top >> 32) continue; /* of a pair that was there before */
        node[at].id = merge.merged;
        node[at].next = node[right].next;
        node[right].id = HF_NONE;
        if (node[at].next != HF_NONE) node[node[at].next].previous = at;
        heap_push(bpe, at);
        if (node[at].previous != HF_NONE) heap_push(bpe, node[at].previous);
    }
    for (uint32_t at = 0; at != HF_NONE; at = node[at].next) TRY(ids_append(out, &node[at].id, 1));
    return 0;
}

/* The pre-token as two words. */
static struct cache_entry cache_key(const uint8_t *pretoken, size_t size) {
    uint8_t bytes[16] = {0};
    struct cache_entry key;
    memcpy(bytes, pretoken, size);
    bytes[15] = (uint8_t)size;
    memcpy(&key.low, bytes, 8);
    memcpy(&key.high, bytes + 8, 8);
    return key;
}

/* The token that the pre-token is, where that comes before any merge. */
static uint32_t whole_token(const struct hf_tokenizer *hf, const uint8_t *pretoken, size_t size) {
    return hf->ignore_merges && size <= HF_TOKEN_BYTES_MAX ? hf_find(hf, pretoken, size, false) : HF_NONE;
}

static size_t encode_new(struct generic_bpe *bpe, uint32_t *id, const uint8_t *pretoken, size_t size) {
    id[0] = whole_token(bpe->ranks->hf, pretoken, size);
    return id[0] != HF_NONE ? 1 : encode_by_scan(bpe->ranks, id, pretoken, size);
}

static size_t encode_short(struct generic_bpe *bpe, uint32_t *id, const uint8_t *pretoken, size_t size) {
    struct cache_entry key = cache_key(pretoken, size);
    uint64_t hash = (key.low ^ (key.high << 29 | key.high >> 35)) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93u;
    struct cache_entry *entry = &bpe->cache[hash >> (64 - CACHE_LOG2)];
    if (entry->low == key.low && entry->high == key.high) {
        memcpy(id, entry->id, entry->count * sizeof *id);
        return entry->count;
    }
    size_t count = encode_new(bpe, id, pretoken, size);
    if (count > CACHE_IDS) return count;
    entry->low = key.low, entry->high = key.high, entry->count = (uint32_t)count;
    memcpy(entry->id, id, count * sizeof *id);
    return count;
}

int generic_bpe_encode(struct generic_bpe *bpe, struct ids *out, const uint8_t *pretoken, size_t size) {
    uint32_t id[SCAN_BYTES];
    if (size <= SCAN_BYTES) {
        size_t count = size <= CACHE_PRETOKEN_BYTES ? encode_short(bpe, id, pretoken, size) : encode_new(bpe, id, pretoken, size);
        return ids_append(out, id, count);
    }
    id[0] = whole_token(bpe->ranks->hf, pretoken, size);
    return id[0] != HF_NONE ? ids_append(out, id, 1) : encode_by_heap(bpe, out, pretoken, size);
}
