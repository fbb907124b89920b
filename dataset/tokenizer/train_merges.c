/* Counts of pairs, kept up to date while pieces shrink, and a heap of pairs by count.
 *
 * An entry of the heap has a count that may be out of date, and a list of pieces in which the pair was when the entry was made. When it
 * comes up with a wrong count it goes back with the right one; with the right one its pair is merged in those pieces. A merge changes only
 * the counts of the neighbours, and new entries are made for pairs that got more. The same procedure as Hugging Face's, whose results it
 * has to give also where it is odd: a token that two merges lead to is one token, and a pair of it may be merged twice. */
#include "dataset/tokenizer/train_merges.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

#define LIST_END UINT32_MAX

struct place {              /* of a list of pieces */
    uint32_t piece, next;
};
struct pair_slot {
    uint64_t pair;          /* left << 32 | right; UINT64_MAX: free */
    int64_t count;
    uint32_t list;          /* pieces that got the pair in this step, or LIST_END */
};
struct entry {
    int64_t count;
    uint64_t pair, made;    /* made: how many entries were made before it */
    uint32_t list;
};
struct piece {
    uint64_t first;         /* in symbol */
    uint32_t size;
    uint64_t count;
};
struct training {
    struct hf_tokenizer *hf;
    uint32_t *symbol;
    struct piece *piece;
    size_t pieces;
    struct pair_slot *slot;
    size_t slots, pairs;
    struct entry *heap;
    size_t entries, entries_room;
    uint64_t made;
    struct place *place;
    uint32_t places, places_room, place_free;
    uint64_t *touched;      /* pairs with a list */
    size_t touched_count, touched_room;
};

static void training_free(struct training *t) {
    free(t->symbol), free(t->piece), free(t->slot), free(t->heap), free(t->place), free(t->touched);
}

/* Room for one more element of an array that doubles. */
static int grow(void *array_pointer, size_t count, size_t *room, size_t element_bytes) {
    void **array = array_pointer;
    if (count < *room) return 0;
    size_t more = *room ? 2 * *room : 1024;
    void *fresh = realloc(*array, more * element_bytes);
    if (!fresh) return err_set(ERR_MEMORY, "out of memory: %zu bytes for the pairs of a training were wanted", more * element_bytes);
    *array = fresh, *room = more;
    return 0;
}

/* ---- lists of pieces ---- */

static int list_add(struct training *t, uint32_t *list, uint32_t piece) {
    if (*list != LIST_END && t->place[*list].piece == piece) return 0; /* a piece's changes come together */
    uint32_t at = t->place_free;
    if (at != LIST_END) {
        t->place_free = t->place[at].next;
    } else {
        size_t room = t->places_room;
        if (t->places >= LIST_END - 1) return err_set(ERR_LIMIT, "too many different pairs; train on a part of the text");
        TRY(grow(&t->place, t->places, &room, sizeof *t->place));
        t->places_room = room < LIST_END ? (uint32_t)room : LIST_END;
        at = t->places++;
    }
    t->place[at] = (struct place){piece, *list};
    *list = at;
    return 0;
}

static void list_free(struct training *t, uint32_t list) {
    while (list != LIST_END) {
        uint32_t next = t->place[list].next;
        t->place[list].next = t->place_free;
        t->place_free = list;
        list = next;
    }
}

/* ---- pairs ---- */

static size_t slot_of(const struct training *t, uint64_t pair) {
    uint64_t hash = pair * 0x9E3779B97F4A7C15u;
    size_t i = (hash ^ hash >> 32) & (t->slots - 1);
    while (t->slot[i].pair != UINT64_MAX && t->slot[i].pair != pair) i = (i + 1) & (t->slots - 1);
    return i;
}

static int slots_grow(struct training *t) {
    size_t slots = t->slots ? 2 * t->slots : 1 << 16, before = t->slots;
    struct pair_slot *fresh, *old = t->slot;
    TRY(mem_try(&fresh, slots, sizeof *fresh));
    for (size_t i = 0; i < slots; i++) fresh[i].pair = UINT64_MAX;
    t->slot = fresh, t->slots = slots;
    for (size_t i = 0; i < before; i++)
        if (old[i].pair != UINT64_MAX) t->slot[slot_of(t, old[i].pair)] = old[i];
    free(old);
    return 0;
}

/* Counts `times` more (or less) of a pair in a piece. */
static int pair_change(struct training *t, uint32_t left, uint32_t right, int64_t times, uint32_t piece) {
    if (2 * t->pairs >= t->slots) TRY(slots_grow(t));
    uint64_t pair = (uint64_t)left << 32 | right;
    struct pair_slot *slot = &t->slot[slot_of(t, pair)];
    if (slot->pair != pair) {
        *slot = (struct pair_slot){pair, 0, LIST_END};
        t->pairs++;
    }
    slot->count += times;
    if (times <= 0) return 0;
    if (slot->list == LIST_END) {
        TRY(grow(&t->touched, t->touched_count, &t->touched_room, sizeof *t->touched));
        t->touched[t->touched_count++] = pair;
    }
    return list_add(t, &slot->list, piece);
}

/* ---- the heap: the highest count first, then the lower ids, then the older entry ---- */

static bool comes_before(const struct entry *a, const struct entry *b) {
    if (a->count != b->count) return a->count > b->count;
    return a->pair != b->pair ? a->pair < b->pair : a->made < b->made;
}

static int heap_push(struct training *t, struct entry entry) {
    TRY(grow(&t->heap, t->entries, &t->entries_room, sizeof *t->heap));
    size_t at = t->entries++;
    for (size_t parent; at > 0 && comes_before(&entry, &t->heap[parent = (at - 1) / 2]); at = parent) t->heap[at] = t->heap[parent];
    t->heap[at] = entry;
    return 0;
}

static struct entry heap_pop(struct training *t) {
    struct entry top = t->heap[0], last = t->heap[--t->entries];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < t->entries; at = child) {
        if (child + 1 < t->entries && comes_before(&t->heap[child + 1], &t->heap[child])) child++;
        if (!comes_before(&t->heap[child], &last)) break;
        t->heap[at] = t->heap[child];
    }
    if (t->entries) t->heap[at] = last;
    return top;
}

/* Makes entries of the pairs that got more. */
static int push_touched(struct training *t) {
    for (size_t i = 0; i < t->touched_count; i++) {
        struct pair_slot *slot = &t->slot[slot_of(t, t->touched[i])];
        if (slot->count > 0) TRY(heap_push(t, (struct entry){slot->count, slot->pair, t->made++, slot->list}));
        else list_free(t, slot->list);
        slot->list = LIST_END;
    }
    t->touched_count = 0;
    return 0;
}

/* ---- pieces ---- */

static int take_pieces(struct training *t, const struct piece_counts *counts) {
    t->pieces = counts->pieces;
    TRY(mem_try(&t->symbol, counts->text.size + 1, sizeof *t->symbol));
    TRY(mem_try(&t->piece, t->pieces + 1, sizeof *t->piece));
    uint64_t at = 0;
    for (size_t i = 0; i < t->pieces; i++) {
        const struct piece_count *from = &counts->piece[i];
        t->piece[i] = (struct piece){at, from->size, from->count};
        for (uint32_t k = 0; k < from->size; k++) t->symbol[at++] = t->hf->byte_id[counts->text.data[from->first + k]];
    }
    return 0;
}

static int count_pairs(struct training *t) {
    for (size_t i = 0; i < t->pieces; i++) {
        const uint32_t *symbol = t->symbol + t->piece[i].first;
        for (uint32_t k = 0; k + 1 < t->piece[i].size; k++)
            TRY(pair_change(t, symbol[k], symbol[k + 1], (int64_t)t->piece[i].count, (uint32_t)i));
    }
    return push_touched(t);
}

/* Merges the pair wherever it is in the piece, from the left. */
static int merge_in(struct training *t, uint32_t number, uint32_t left, uint32_t right, uint32_t merged) {
    struct piece *piece = &t->piece[number];
    uint32_t *symbol = t->symbol + piece->first, size = piece->size, to = 0;
    int64_t count = (int64_t)piece->count;
    for (uint32_t from = 0; from < size; to++) {
        if (symbol[from] != left || from + 1 == size || symbol[from + 1] != right) {
            symbol[to] = symbol[from++];
            continue;
        }
        from += 2;
        symbol[to] = merged;
        if (to > 0) {
            TRY(pair_change(t, symbol[to - 1], left, -count, number));
            TRY(pair_change(t, symbol[to - 1], merged, count, number));
        }
        if (from < size) {
            TRY(pair_change(t, right, symbol[from], -count, number));
            TRY(pair_change(t, merged, symbol[from], count, number));
        }
    }
    piece->size = to;
    return 0;
}

/* The token that the pair makes, a new one unless there is one of these bytes. */
static int token_of(struct training *t, uint32_t *out, uint32_t left, uint32_t right) {
    const struct hf_token *l = &t->hf->token[left], *r = &t->hf->token[right];
    size_t size = (size_t)l->size + r->size;
    uint8_t *bytes = mem_alloc(size);
    memcpy(bytes, t->hf->text.data + l->first, l->size);
    memcpy(bytes + l->size, t->hf->text.data + r->first, r->size);
    uint32_t id = hf_find(t->hf, bytes, size, false);
    int code = id == HF_NONE ? hf_add_bytes(t->hf, id = t->hf->ids, bytes, size) : 0;
    free(bytes);
    *out = id;
    return code;
}

static int merge(struct training *t, const struct entry *top) {
    uint32_t left = (uint32_t)(top->pair >> 32), right = (uint32_t)top->pair, merged;
    TRY(token_of(t, &merged, left, right));
    TRY(hf_add_merge_of(t->hf, (struct hf_merge){left, right, merged}));
    for (uint32_t at = top->list; at != LIST_END; at = t->place[at].next) TRY(merge_in(t, t->place[at].piece, left, right, merged));
    return push_touched(t);
}

static int merge_all(struct training *t, uint32_t vocab_size, uint64_t min_frequency, int (*merged)(void *), void *arg) {
    while (t->hf->ids < vocab_size && t->entries > 0) {
        struct entry top = heap_pop(t);
        int64_t count = t->slot[slot_of(t, top.pair)].count;
        if (count != top.count) {
            top.count = count;
            TRY(heap_push(t, top));
            continue;
        }
        if (count < 1 || (uint64_t)count < min_frequency) break;
        TRY(merge(t, &top));
        list_free(t, top.list);
        TRY(merged(arg));
    }
    return 0;
}

int train_merges(struct hf_tokenizer *hf, struct piece_counts *counts, uint32_t vocab_size, uint64_t min_frequency,
                 int (*merged)(void *arg), void *arg) {
    struct training t = {.hf = hf, .place_free = LIST_END};
    int code = take_pieces(&t, counts);
    piece_counts_free(counts);
    if (code == 0) code = count_pairs(&t);
    if (code == 0) code = merge_all(&t, vocab_size, min_frequency, merged, arg);
    training_free(&t);
    return code;
}
