/* Training of a tokenizer: the text is counted, then merged.
 *
 * The caller's thread collects text in one batch for each thread of a pool. When all batches are full, the pool counts their pre-tokens
 * (struct pretoken_counts, one table a batch). bpe_trainer_finish() joins the tables, sorts them, so that the result does not depend on
 * the batches, and merges on the caller's thread alone (struct training). */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/pool.h"
#include "dataset/tokenizer/cut.h"
#include "dataset/tokenizer/pretokenize.h"
#include "dataset/tokenizer/pretokens.h"
#include "dataset/tokenizer/tokenizer_inside.h"
#include "dataset/tokenizer/train.h"
#include "dataset/tokenizer/vocabulary.h"
#include "dataset/unicode/utf8.h"

enum { PRETOKEN_COUNTS_MAX = 1 << 25 }; /* different pre-tokens: 1.3 GB, besides their text, of which there may be 4 GiB */

struct pretoken_count {
    uint64_t hash, count;
    uint32_t first, size;   /* in text */
};
struct pretoken_counts {
    struct buf text;
    struct pretoken_count *pretoken;
    uint32_t *slot; /* number of a pre-token + 1, 0: free; open addressing by hash */
    size_t pretokens, pretokens_room, slots;
    struct buf valid;      /* room to work in */
};

/* ---- How often each pre-token of GPT-2's pattern occurs ----
 *
 * A table of pre-tokens by their bytes. */

static uint64_t hash_of(const uint8_t *bytes, size_t size) {
    uint64_t hash = size * 0x9E3779B97F4A7C15u;
    while (size > 0) {
        uint64_t word = 0;
        size_t n = size < 8 ? size : 8;
        memcpy(&word, bytes, n);
        hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
        bytes += n, size -= n;
    }
    return hash;
}

static uint32_t *count_slot(const struct pretoken_counts *counts, uint64_t hash, const uint8_t *bytes, size_t size) {
    for (size_t i = hash & (counts->slots - 1);; i = (i + 1) & (counts->slots - 1)) {
        uint32_t number = counts->slot[i];
        if (number == 0) return &counts->slot[i];
        const struct pretoken_count *pretoken = &counts->pretoken[number - 1];
        if (pretoken->hash == hash && pretoken->size == size && memcmp(counts->text.data + pretoken->first, bytes, size) == 0)
            return &counts->slot[i];
    }
}

static int count_slots_grow(struct pretoken_counts *counts) {
    size_t slots = counts->slots ? 4 * counts->slots : 1 << 16;
    uint32_t *slot;
    TRY(mem_try(&slot, slots, sizeof *slot));
    for (size_t k = 0; k < counts->pretokens; k++) {
        size_t i = counts->pretoken[k].hash & (slots - 1);
        while (slot[i]) i = (i + 1) & (slots - 1);
        slot[i] = (uint32_t)k + 1;
    }
    free(counts->slot);
    counts->slot = slot, counts->slots = slots;
    return 0;
}

static int pretokens_grow(struct pretoken_counts *counts) {
    size_t room = counts->pretokens_room ? 2 * counts->pretokens_room : 1 << 12;
    if (room > PRETOKEN_COUNTS_MAX)
        return err_set(ERR_LIMIT, "the text has more than %d different pre-tokens (words, numbers, runs of signs); train on a part of it",
                       PRETOKEN_COUNTS_MAX);
    struct pretoken_count *pretoken;
    TRY(mem_try(&pretoken, room, sizeof *pretoken));
    if (counts->pretokens) memcpy(pretoken, counts->pretoken, counts->pretokens * sizeof *pretoken);
    free(counts->pretoken);
    counts->pretoken = pretoken, counts->pretokens_room = room;
    return 0;
}

static int count_pretoken(struct pretoken_counts *counts, uint64_t hash, const uint8_t *bytes, size_t size, uint64_t count) {
    if (2 * counts->pretokens >= counts->slots) TRY(count_slots_grow(counts));
    uint32_t *slot = count_slot(counts, hash, bytes, size);
    if (*slot == 0) {
        if (counts->pretokens == counts->pretokens_room) TRY(pretokens_grow(counts));
        size_t first = counts->text.size;
        counts->text.max_bytes = UINT32_MAX;
        if (buf_append(&counts->text, bytes, size) < 0) return err_add(ERR_LIMIT, "the text's different pre-tokens; train on a part of it");
        counts->pretoken[counts->pretokens++] = (struct pretoken_count){hash, 0, (uint32_t)first, (uint32_t)size};
        *slot = (uint32_t)counts->pretokens;
    }
    counts->pretoken[*slot - 1].count += count;
    return 0;
}

/* Well-formed text with PRETOKENS_SLACK bytes of PRETOKEN_SENTINEL behind it. */
static int count_valid(struct pretoken_counts *counts, const uint8_t *text, size_t size) {
    const struct pretoken_kernels *kernels = pretoken_kernels();
    const uint8_t *end = text + size;
    while (text < end) {
        uint16_t border[PRETOKENS_BORDERS];
        size_t left = (size_t)(end - text), chunk = left < PRETOKENS_TEXT_BYTES ? left : PRETOKENS_TEXT_BYTES;
        size_t pretokens = kernels->pretokenize(border, text, chunk, chunk == left);
        for (size_t k = 0; k < pretokens; k++) {
            const uint8_t *pretoken = text + border[k];
            size_t n = (size_t)border[k + 1] - border[k];
            if (n > 1) TRY(count_pretoken(counts, hash_of(pretoken, n), pretoken, n, 1));
        }
        if (pretokens > 0) {
            text += border[pretokens];
            continue;
        }
        size_t n = pretoken_measure(text, left, true);
        if (n > 1) TRY(count_pretoken(counts, hash_of(text, n), text, n, 1));
        text += n;
    }
    return 0;
}

static int pretoken_counts_text(struct pretoken_counts *counts, const uint8_t *text, size_t size) {
    struct utf8_replacer replacer = {0};
    size_t written, room = 3 * size + 2 * UTF8_REPLACE_ROOM; /* each byte becomes a U+FFFD at most */
    buf_clear(&counts->valid);
    TRY(buf_reserve(&counts->valid, room + PRETOKENS_SLACK));
    uint8_t *valid = counts->valid.data;
    CHECK(utf8_replace(&replacer, valid, &written, room, text, size) == size);
    written += utf8_replace_end(&replacer, valid + written);
    memset(valid + written, PRETOKEN_SENTINEL, PRETOKENS_SLACK);
    return count_valid(counts, valid, written);
}

static int pretoken_counts_join(struct pretoken_counts *counts, const struct pretoken_counts *more) {
    for (size_t i = 0; i < more->pretokens; i++) {
        const struct pretoken_count *pretoken = &more->pretoken[i];
        TRY(count_pretoken(counts, pretoken->hash, more->text.data + pretoken->first, pretoken->size, pretoken->count));
    }
    return 0;
}

static int by_bytes(const void *a, const void *b, void *text) {
    const struct pretoken_count *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    size_t size = x->size < y->size ? x->size : y->size;
    int order = memcmp((const uint8_t *)text + x->first, (const uint8_t *)text + y->first, size);
    return order ? order : x->size < y->size ? -1 : x->size > y->size;
}

static void pretoken_counts_sort(struct pretoken_counts *counts) {
    if (counts->pretokens) qsort_r(counts->pretoken, counts->pretokens, sizeof *counts->pretoken, by_bytes, counts->text.data);
    free(counts->slot);
    counts->slot = NULL, counts->slots = 0;
}

static void pretoken_counts_free(struct pretoken_counts *counts) {
    buf_free(&counts->text), buf_free(&counts->valid);
    free(counts->pretoken), free(counts->slot);
    *counts = (struct pretoken_counts){0};
}

/* ---- The merges: from counted pre-tokens to tokens, the most frequent pair first ----
 *
 * Counts of pairs, kept up to date while pre-tokens shrink, and a heap of pairs by count.
 *
 * An entry of the heap has a count that may be out of date, and a list of pre-tokens in which the pair was when the entry was made. When it
 * comes up with a wrong count it goes back with the right one; with the right one its pair is merged in those pre-tokens. A merge changes
 * only the counts of the neighbours, and new entries are made for pairs that got more. The same procedure as Hugging Face's, whose results
 * it has to give also where it is odd: a token that two merges lead to is one token, and a pair of it may be merged twice. */

#define LIST_END UINT32_MAX

struct list_node { /* of a list of pre-tokens */
    uint32_t pretoken, next;
};
struct pair_slot {
    uint64_t pair;          /* left << 32 | right; UINT64_MAX: free */
    int64_t count;
    uint32_t list; /* pre-tokens that got the pair in this step, or LIST_END */
};
struct entry {
    int64_t count;
    uint64_t pair, made;    /* made: how many entries were made before it */
    uint32_t list;
};
struct pretoken {
    uint64_t first;         /* in symbol */
    uint32_t size;
    uint64_t count;
};
struct training {
    struct hf_tokenizer *hf;
    uint32_t *symbol;
    struct pretoken *pretoken;
    size_t pretokens;
    struct pair_slot *slot;
    size_t slots, pairs;
    struct entry *heap;
    size_t entries, entries_room;
    uint64_t made;
    struct list_node *node;
    uint32_t nodes, nodes_room, node_free;
    uint64_t *touched;      /* pairs with a list */
    size_t touched_count, touched_room;
};

static void training_free(struct training *t) {
    free(t->symbol), free(t->pretoken), free(t->slot), free(t->heap), free(t->node), free(t->touched);
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

/* ---- lists of pre-tokens ---- */

static int list_add(struct training *t, uint32_t *list, uint32_t pretoken) {
    if (*list != LIST_END && t->node[*list].pretoken == pretoken) return 0; /* a pre-token's changes come together */
    uint32_t at = t->node_free;
    if (at != LIST_END) {
        t->node_free = t->node[at].next;
    } else {
        size_t room = t->nodes_room;
        if (t->nodes >= LIST_END - 1) return err_set(ERR_LIMIT, "too many different pairs; train on a part of the text");
        TRY(grow(&t->node, t->nodes, &room, sizeof *t->node));
        t->nodes_room = room < LIST_END ? (uint32_t)room : LIST_END;
        at = t->nodes++;
    }
    t->node[at] = (struct list_node){pretoken, *list};
    *list = at;
    return 0;
}

static void list_free(struct training *t, uint32_t list) {
    while (list != LIST_END) {
        uint32_t next = t->node[list].next;
        t->node[list].next = t->node_free;
        t->node_free = list;
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

/* Counts `times` more (or less) of a pair in a pre-token. */
static int pair_change(struct training *t, uint32_t left, uint32_t right, int64_t times, uint32_t pretoken) {
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
    return list_add(t, &slot->list, pretoken);
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

/* ---- pre-tokens ---- */

static int take_pretokens(struct training *t, const struct pretoken_counts *counts) {
    t->pretokens = counts->pretokens;
    TRY(mem_try(&t->symbol, counts->text.size + 1, sizeof *t->symbol));
    TRY(mem_try(&t->pretoken, t->pretokens + 1, sizeof *t->pretoken));
    uint64_t at = 0;
    for (size_t i = 0; i < t->pretokens; i++) {
        const struct pretoken_count *from = &counts->pretoken[i];
        t->pretoken[i] = (struct pretoken){at, from->size, from->count};
        for (uint32_t k = 0; k < from->size; k++) t->symbol[at++] = t->hf->byte_id[counts->text.data[from->first + k]];
    }
    return 0;
}

static int count_pairs(struct training *t) {
    for (size_t i = 0; i < t->pretokens; i++) {
        const uint32_t *symbol = t->symbol + t->pretoken[i].first;
        for (uint32_t k = 0; k + 1 < t->pretoken[i].size; k++)
            TRY(pair_change(t, symbol[k], symbol[k + 1], (int64_t)t->pretoken[i].count, (uint32_t)i));
    }
    return push_touched(t);
}

/* Merges the pair wherever it is in the pre-token, from the left. */
static int merge_in(struct training *t, uint32_t number, uint32_t left, uint32_t right, uint32_t merged) {
    struct pretoken *pretoken = &t->pretoken[number];
    uint32_t *symbol = t->symbol + pretoken->first, size = pretoken->size, to = 0;
    int64_t count = (int64_t)pretoken->count;
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
    pretoken->size = to;
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
    for (uint32_t at = top->list; at != LIST_END; at = t->node[at].next) TRY(merge_in(t, t->node[at].pretoken, left, right, merged));
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

static int train_merges(struct hf_tokenizer *hf, struct pretoken_counts *counts, uint32_t vocab_size, uint64_t min_frequency,
                        int (*merged)(void *arg), void *arg) {
    struct training t = {.hf = hf, .node_free = LIST_END};
    int code = take_pretokens(&t, counts);
    pretoken_counts_free(counts);
    if (code == 0) code = count_pairs(&t);
    if (code == 0) code = merge_all(&t, vocab_size, min_frequency, merged, arg);
    training_free(&t);
    return code;
}

/* ---- The trainer ---- */

enum {
    BATCH_BYTES = 1 << 20,                    /* of text in a batch */
    BATCH_BYTES_MAX = 2 * PRETOKEN_BYTES_MAX, /* of text without a safe cut; it is cut there, at a character's border */
    SPECIAL_MAX = 1 << 12,
};

/* What one thread counts: texts, one after the other. */
struct batch {
    struct buf text;
    size_t *end;              /* of each text */
    size_t ends, ends_room;
    struct pretoken_counts counts;
    struct err error; /* code 0: none */
};
struct bpe_trainer {
    struct train_options options;
    struct hf_tokenizer *hf;
    struct pool *pool;
    struct batch *batch;      /* [threads] */
    size_t filling;           /* the batch that takes text */
    struct train_progress progress;
};

static bool is_utf8(const char *text) {
    const uint8_t *p = (const uint8_t *)text, *end = p + strlen(text);
    while (p < end) {
        int length = utf8_measure(p, (size_t)(end - p));
        if (length <= 0) return false;
        p += length;
    }
    return true;
}

static int add_specials(struct hf_tokenizer *hf, const struct train_options *options) {
    for (size_t i = 0; i < options->special_count; i++) {
        const char *text = options->special[i];
        if (strlen(text) == 0) return err_set(ERR_USAGE, "--special-token: a special token is empty");
        if (!is_utf8(text)) return err_set(ERR_USAGE, "--special-token: number %zu is not UTF-8, as a tokenizer's files are", i + 1);
        for (size_t k = 0; k < i; k++)
            if (strcmp(options->special[k], text) == 0) return err_set(ERR_USAGE, "--special-token %s is given twice", text);
        TRY(hf_add_token(hf, hf->ids, text, strlen(text)));
    }
    return 0;
}

static int add_bytes(struct hf_tokenizer *hf) {
    const struct byte_letters *letters = byte_letters();
    for (unsigned i = 0; i < 256; i++)
        if (hf->byte_id[letters->order[i]] == HF_NONE) TRY(hf_add_bytes(hf, hf->ids, &letters->order[i], 1));
    return 0;
}

int bpe_trainer_open(struct bpe_trainer **out, const struct train_options *options) {
    if (options->special_count > SPECIAL_MAX)
        return err_set(ERR_USAGE, "%zu special tokens; at most %d", options->special_count, SPECIAL_MAX);
    struct bpe_trainer *trainer = mem_alloc(sizeof *trainer);
    trainer->options = *options;
    trainer->hf = hf_make();
    trainer->batch = mem_alloc((size_t)options->threads * sizeof *trainer->batch);
    int code = pool_open_from(&trainer->pool, options->threads, "--threads");
    if (code == 0) code = add_specials(trainer->hf, options);
    if (code == 0) code = add_bytes(trainer->hf);
    if (code == 0 && (options->vocab_size < trainer->hf->ids || options->vocab_size > HF_IDS_MAX))
        code = err_set(ERR_USAGE, "a vocabulary of %lld; expected at least %u, the special tokens and the 256 bytes, and at most %d",
                       (long long)options->vocab_size, trainer->hf->ids, HF_IDS_MAX);
    if (code < 0) bpe_trainer_close(trainer);
    else *out = trainer;
    return code;
}

void bpe_trainer_close(struct bpe_trainer *trainer) {
    if (!trainer) return;
    for (int i = 0; i < trainer->options.threads; i++) {
        struct batch *batch = &trainer->batch[i];
        buf_free(&batch->text);
        free(batch->end);
        pretoken_counts_free(&batch->counts);
    }
    free(trainer->batch);
    pool_close(trainer->pool);
    hf_close(trainer->hf);
    free(trainer);
}

/* ---- counting ---- */

static void count_batch(void *arg, size_t item) {
    struct batch *batch = &((struct batch *)arg)[item];
    size_t begin = 0;
    int code = 0;
    for (size_t i = 0; i < batch->ends && code == 0; i++) {
        if (batch->end[i] > begin) code = pretoken_counts_text(&batch->counts, batch->text.data + begin, batch->end[i] - begin);
        begin = batch->end[i];
    }
    if (code < 0) batch->error = err_take();
}

static int told(struct bpe_trainer *trainer) {
    const struct train_options *o = &trainer->options;
    if (o->progress && o->progress(o->progress_arg, &trainer->progress) != 0) return err_set(ERR_INTERRUPTED, "training was stopped");
    return 0;
}

/* Counts what all batches hold. */
static int count_all(struct bpe_trainer *trainer) {
    pool_run(trainer->pool, (size_t)trainer->options.threads, count_batch, trainer->batch);
    for (int i = 0; i < trainer->options.threads; i++) {
        struct batch *batch = &trainer->batch[i];
        if (batch->error.code < 0) return err_give(&batch->error);
        trainer->progress.bytes += batch->ends ? batch->end[batch->ends - 1] : 0;
        batch->ends = 0;
        buf_clear(&batch->text);
    }
    trainer->filling = 0;
    return told(trainer);
}

static void end_text(struct batch *batch, size_t end) {
    if (batch->ends == batch->ends_room) {
        batch->ends_room = batch->ends_room ? 2 * batch->ends_room : 64;
        batch->end = mem_resize(batch->end, batch->ends_room * sizeof *batch->end);
    }
    batch->end[batch->ends++] = end;
}

/* Of the text that is under way. */
static size_t text_begin(const struct batch *batch) {
    return batch->ends ? batch->end[batch->ends - 1] : 0;
}

/* Bytes without the beginning of a character that goes on behind them. */
static size_t whole_characters(const uint8_t *text, size_t size) {
    for (size_t n = 1; n <= 3 && n <= size; n++)
        if (utf8_measure(text + size - n, n) == 0) return size - n;
    return size;
}

/* The batch that takes text is full: what comes after the last safe cut goes to the next one. */
static int next_batch(struct bpe_trainer *trainer) {
    struct batch *batch = &trainer->batch[trainer->filling];
    size_t begin = text_begin(batch), size = batch->text.size - begin;
    size_t cut = size ? cut_last(CUT_GPT2, batch->text.data + begin, size) : 0;
    if (size > 0 && cut == 0 && size < BATCH_BYTES_MAX && begin == 0) return 0; /* it takes more */
    if (size == BATCH_BYTES_MAX && cut == 0) cut = whole_characters(batch->text.data + begin, size);
    if (cut > 0) end_text(batch, begin + cut);
    struct buf rest = {0};
    TRY(buf_append(&rest, batch->text.data + begin + cut, size - cut));
    int code = 0;
    if (++trainer->filling == (size_t)trainer->options.threads) code = count_all(trainer);
    if (code == 0) code = buf_append(&trainer->batch[trainer->filling].text, rest.data, rest.size);
    buf_free(&rest);
    return code;
}

int bpe_trainer_feed(struct bpe_trainer *trainer, const void *text, size_t size) {
    const uint8_t *p = text;
    while (size > 0) {
        struct batch *batch = &trainer->batch[trainer->filling];
        /* Exactly that much is looked at without a cut, whatever the portions. */
        size_t n = size < BATCH_BYTES ? size : BATCH_BYTES, room = text_begin(batch) + BATCH_BYTES_MAX - batch->text.size;
        if (n > room) n = room;
        TRY(buf_append(&batch->text, p, n));
        p += n, size -= n;
        if (batch->text.size >= BATCH_BYTES) TRY(next_batch(trainer));
    }
    return 0;
}

int bpe_trainer_end(struct bpe_trainer *trainer) {
    struct batch *batch = &trainer->batch[trainer->filling];
    if (batch->text.size == text_begin(batch)) return 0; /* an empty one is none: a dataset's padding is millions of them */
    end_text(batch, batch->text.size);
    return batch->text.size >= BATCH_BYTES ? next_batch(trainer) : 0;
}

/* ---- merging ---- */

static int choose_end(struct hf_tokenizer *hf, const struct train_options *options) {
    for (size_t i = 0; i < options->special_count; i++) {
        const char *text = options->special[i];
        TRY(hf_add_added(hf, &(struct hf_added){.id = (uint32_t)i, .special = true}, text, strlen(text)));
        if (i == 0 || strcmp(text, "<|endoftext|>") == 0) hf->bos = hf->eos = (int64_t)i;
    }
    hf->stages = 1; /* GPT-2's pattern */
    return hf_finish(hf);
}

static int merged(void *arg) {
    struct bpe_trainer *trainer = arg;
    trainer->progress.tokens = trainer->hf->ids;
    return told(trainer);
}

int bpe_trainer_finish(struct bpe_trainer *trainer, struct tokenizer **out) {
    struct pretoken_counts *counts = &trainer->batch[0].counts;
    TRY(count_all(trainer));
    for (int i = 1; i < trainer->options.threads; i++) {
        TRY(pretoken_counts_join(counts, &trainer->batch[i].counts));
        pretoken_counts_free(&trainer->batch[i].counts);
    }
    pretoken_counts_sort(counts);
    trainer->progress.pretokens = counts->pretokens, trainer->progress.wanted = trainer->options.vocab_size;
    TRY(train_merges(trainer->hf, counts, (uint32_t)trainer->options.vocab_size, trainer->options.min_frequency, merged, trainer));
    TRY(choose_end(trainer->hf, &trainer->options));
    struct hf_tokenizer *hf = trainer->hf;
    trainer->hf = NULL;
    return tokenizer_of(out, hf);
}
