/* Items are sorted by counting, bins wait in one queue for each amount of room, and a tree of bits tells which queues are not
 * empty. Knows nothing of documents. */
#include "dataset/plan/plan_best_fit.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"

/* A set of numbers below 64^BIT_LEVELS: bit i of a level says whether word i of the level below has any bit. */
enum { BIT_LEVELS = 4 };
_Static_assert(1 << 6 * BIT_LEVELS > 4 << 20, "a sequence is at most a frame (dataset/shard/shard_index.h)");

struct bits {
    uint64_t *level[BIT_LEVELS];
};

enum { NO_BIN = UINT32_MAX };

struct bins {
    uint32_t capacity, count;
    uint32_t *room;           /* of each bin */
    uint32_t *next;           /* the bin behind it in its queue */
    uint32_t *head, *tail;    /* of the queue for each amount of room */
    struct bits filled;       /* queues with a bin */
};

static int bits_open(struct bits *bits, size_t numbers) {
    for (int l = 0; l < BIT_LEVELS; l++) {
        numbers = numbers / 64 + 1;
        TRY(mem_try(&bits->level[l], numbers, sizeof(uint64_t)));
    }
    return 0;
}

static void bits_set(struct bits *bits, uint32_t i) {
    for (int l = 0; l < BIT_LEVELS; l++, i /= 64) bits->level[l][i / 64] |= UINT64_C(1) << i % 64;
}

static void bits_clear(struct bits *bits, uint32_t i) {
    for (int l = 0; l < BIT_LEVELS; l++, i /= 64) {
        bits->level[l][i / 64] &= ~(UINT64_C(1) << i % 64);
        if (bits->level[l][i / 64]) return;
    }
}

/* The smallest member at or above i that is at most `last`; false: there is none. */
static bool bits_next(const struct bits *bits, uint32_t *out, uint32_t i, uint32_t last) {
    for (int l = 0; l < BIT_LEVELS; l++) {
        if (i > last >> 6 * l) return false;
        uint64_t word = bits->level[l][i / 64] >> i % 64;
        if (word) {
            i += (uint32_t)__builtin_ctzll(word);
            while (l-- > 0) i = i * 64 + (uint32_t)__builtin_ctzll(bits->level[l][i]);
            *out = i;
            return true;
        }
        i = i / 64 + 1;
    }
    return false;
}

static void put_in_queue(struct bins *bins, uint32_t bin) {
    uint32_t room = bins->room[bin];
    bins->next[bin] = NO_BIN;
    if (bins->head[room] == NO_BIN) bins->head[room] = bin, bits_set(&bins->filled, room);
    else bins->next[bins->tail[room]] = bin;
    bins->tail[room] = bin;
}

static uint32_t take_from_queue(struct bins *bins, uint32_t room) {
    uint32_t bin = bins->head[room];
    bins->head[room] = bins->next[bin];
    if (bins->head[room] == NO_BIN) bits_clear(&bins->filled, room);
    return bin;
}

static uint32_t place(struct bins *bins, uint32_t size) {
    uint32_t room, bin;
    if (bits_next(&bins->filled, &room, size, bins->capacity)) {
        bin = take_from_queue(bins, room);
    } else {
        bin = bins->count++;
        bins->room[bin] = bins->capacity;
    }
    bins->room[bin] -= size;
    if (bins->room[bin]) put_in_queue(bins, bin);
    return bin;
}

/* sorted[] gets the items, the longest first. */
static int sort_items(uint32_t *sorted, const uint32_t *size, size_t count, uint32_t capacity) {
    size_t *begin; /* where items of each length begin */
    TRY(mem_try(&begin, (size_t)capacity + 2, sizeof *begin));
    for (size_t i = 0; i < count; i++) begin[size[i]]++;
    for (size_t length = capacity, at = 0; length + 1 > 0; length--) {
        size_t items = begin[length];
        begin[length] = at;
        at += items;
    }
    for (size_t i = 0; i < count; i++) sorted[begin[size[i]]++] = (uint32_t)i;
    free(begin);
    return 0;
}

static int bins_open(struct bins *bins, size_t bins_max, uint32_t capacity) {
    bins->capacity = capacity;
    TRY(mem_try(&bins->room, bins_max, sizeof(uint32_t)));
    TRY(mem_try(&bins->next, bins_max, sizeof(uint32_t)));
    TRY(mem_try(&bins->head, (size_t)capacity + 1, sizeof(uint32_t)));
    TRY(mem_try(&bins->tail, (size_t)capacity + 1, sizeof(uint32_t)));
    for (size_t i = 0; i <= capacity; i++) bins->head[i] = NO_BIN;
    return bits_open(&bins->filled, (size_t)capacity + 1);
}

static void bins_close(struct bins *bins) {
    free(bins->room);
    free(bins->next);
    free(bins->head);
    free(bins->tail);
    for (int l = 0; l < BIT_LEVELS; l++) free(bins->filled.level[l]);
}

int best_fit(uint32_t *bin, size_t *out_bins, const uint32_t *size, size_t count, uint32_t capacity) {
    CHECK(count < NO_BIN);
    struct bins bins = {0};
    uint32_t *sorted;
    TRY(mem_try(&sorted, count, sizeof *sorted));
    int code = bins_open(&bins, count, capacity);
    if (code == 0) code = sort_items(sorted, size, count, capacity);
    for (size_t i = 0; code == 0 && i < count && size[sorted[i]] > 0; i++) bin[sorted[i]] = place(&bins, size[sorted[i]]);
    if (code == 0) *out_bins = bins.count;
    bins_close(&bins);
    free(sorted);
    return code;
}
