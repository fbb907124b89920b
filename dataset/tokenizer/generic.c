/* The general encoder. Owns the text it holds, the matchers of its patterns and the list of added tokens. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/tokenizer/cut.h"
#include "dataset/tokenizer/generic.h"
#include "dataset/tokenizer/pattern.h"
#include "dataset/tokenizer/pretokenize.h"
#include "dataset/unicode/unicode.h"
#include "dataset/unicode/utf8.h"

/* ---- Merging one pre-token ----
 *
 * A cache for short pre-tokens that came before, a scan for short ones, a heap of merges for long ones. */

enum {
    CACHE_LOG2 = 15,
    CACHE_PRETOKEN_BYTES = 15,
    CACHE_IDS = 7,
    SCAN_BYTES = 48,           /* up to here the square of the length costs less than the heap */
    LONG_KEEP_BYTES = 1 << 16, /* room for long pre-tokens that bpe_any_trim() leaves */
};
#define NO_RANK UINT32_MAX

struct merge_slot {
    uint32_t left, right;  /* left HF_NONE: free */
    uint32_t rank, merged;
};
struct bpe_table {
    const struct hf_tokenizer *hf;
    struct merge_slot *slot;
    size_t slots;
};

/* Long pre-tokens: a list of tokens, and a heap of pairs that merge, the lowest first: rank, then place. A pair that is no longer there
 * stays in the heap until it comes up. */
struct node {
    uint32_t id, previous, next;  /* id HF_NONE: merged away; previous and next HF_NONE: none */
};
struct bpe_any {
    const struct bpe_table *table;
    struct cache_entry *cache;
    struct node *node;
    uint64_t *heap;               /* rank << 32 | place */
    size_t heap_count, capacity;
};
struct cache_entry {
    uint64_t low, high; /* the pre-token, zeros after it, its length in the last byte; length 0: free */
    uint32_t count, id[CACHE_IDS];
};

static size_t pair_slot(const struct bpe_table *table, uint32_t left, uint32_t right) {
    uint64_t hash = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    size_t i = (hash >> 32) & (table->slots - 1);
    while (table->slot[i].left != HF_NONE && (table->slot[i].left != left || table->slot[i].right != right))
        i = (i + 1) & (table->slots - 1);
    return i;
}

/* The merge of two neighbours; its rank is NO_RANK when there is none. */
static inline struct merge_slot merge_of(const struct bpe_table *table, uint32_t left, uint32_t right) {
    return table->slot[pair_slot(table, left, right)];
}

int bpe_table_open(struct bpe_table **out, const struct hf_tokenizer *hf) {
    struct bpe_table *table = mem_alloc(sizeof *table);
    table->hf = hf;
    for (table->slots = 1024; table->slots < 2 * (size_t)hf->merges + 2; table->slots *= 2) continue;
    int code = mem_try(&table->slot, table->slots, sizeof *table->slot);
    if (code < 0) {
        free(table);
        return code;
    }
    for (size_t i = 0; i < table->slots; i++) table->slot[i] = (struct merge_slot){HF_NONE, HF_NONE, NO_RANK, HF_NONE};
    for (uint32_t rank = 0; rank < hf->merges; rank++) {
        const struct hf_merge *m = &hf->merge[rank];
        table->slot[pair_slot(table, m->left, m->right)] = (struct merge_slot){m->left, m->right, rank, m->merged};
    }
    *out = table;
    return 0;
}

void bpe_table_close(struct bpe_table *table) {
    if (!table) return;
    free(table->slot);
    free(table);
}

int bpe_any_open(struct bpe_any **out, const struct bpe_table *table) {
    struct cache_entry *cache;
    TRY(mem_try(&cache, (size_t)1 << CACHE_LOG2, sizeof *cache));
    *out = mem_alloc(sizeof **out);
    (*out)->table = table;
    (*out)->cache = cache;
    return 0;
}

static void long_free(struct bpe_any *bpe) {
    free(bpe->node), free(bpe->heap);
    bpe->node = NULL, bpe->heap = NULL, bpe->capacity = 0;
}

void bpe_any_close(struct bpe_any *bpe) {
    if (!bpe) return;
    long_free(bpe);
    free(bpe->cache);
    free(bpe);
}

void bpe_any_trim(struct bpe_any *bpe) {
    if (bpe->capacity > LONG_KEEP_BYTES) long_free(bpe);
}

/* Short pre-tokens: look for the lowest merge, do it, look again. */
static size_t encode_by_scan(const struct bpe_table *table, uint32_t *id, const uint8_t *bytes, size_t n) {
    struct merge_slot merge[SCAN_BYTES]; /* of token i with its right neighbour */
    for (size_t i = 0; i < n; i++) id[i] = table->hf->byte_id[bytes[i]];
    for (size_t i = 0; i + 1 < n; i++) merge[i] = merge_of(table, id[i], id[i + 1]);
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
            merge[at] = merge_of(table, id[at], id[at + 1]);
        }
        if (at > 0) merge[at - 1] = merge_of(table, id[at - 1], id[at]);
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

static uint64_t heap_pop(struct bpe_any *bpe) {
    uint64_t top = bpe->heap[0], last = bpe->heap[--bpe->heap_count];
    if (bpe->heap_count) sift_down(bpe->heap, bpe->heap_count, 0, last);
    return top;
}

/* Notes the merge of the token at `place` with the one after it, if there is any. */
static void heap_push(struct bpe_any *bpe, uint32_t place) {
    const struct node *node = &bpe->node[place];
    if (node->next == HF_NONE) return;
    uint32_t rank = merge_of(bpe->table, node->id, bpe->node[node->next].id).rank;
    if (rank == NO_RANK) return;
    uint64_t value = (uint64_t)rank << 32 | place;
    size_t at = bpe->heap_count++;
    for (size_t parent; at > 0 && bpe->heap[parent = (at - 1) / 2] > value; at = parent) bpe->heap[at] = bpe->heap[parent];
    bpe->heap[at] = value;
}

/* A merge takes one entry out of the heap and puts in two at most, and there are fewer merges than bytes: 2 * size entries are enough. */
static int long_reserve(struct bpe_any *bpe, size_t size) {
    if (size <= bpe->capacity) return 0;
    long_free(bpe);
    TRY(mem_try(&bpe->node, size, sizeof *bpe->node));
    int code = mem_try(&bpe->heap, 2 * size, sizeof *bpe->heap);
    if (code < 0) long_free(bpe);
    else bpe->capacity = size;
    return code;
}

static void begin_long(struct bpe_any *bpe, const uint8_t *bytes, size_t size) {
    uint32_t n = (uint32_t)size;
    for (uint32_t i = 0; i < n; i++)
        bpe->node[i] = (struct node){bpe->table->hf->byte_id[bytes[i]], i ? i - 1 : HF_NONE, i + 1 < n ? i + 1 : HF_NONE};
    bpe->heap_count = 0;
    for (uint32_t i = 0; i + 1 < n; i++) {
        uint32_t rank = merge_of(bpe->table, bpe->node[i].id, bpe->node[i + 1].id).rank;
        if (rank != NO_RANK) bpe->heap[bpe->heap_count++] = (uint64_t)rank << 32 | i;
    }
    for (size_t i = bpe->heap_count / 2; i-- > 0;) sift_down(bpe->heap, bpe->heap_count, i, bpe->heap[i]);
}

static int encode_by_heap(struct bpe_any *bpe, struct ids *out, const uint8_t *bytes, size_t size) {
    TRY(long_reserve(bpe, size));
    struct node *node = bpe->node;
    begin_long(bpe, bytes, size);
    while (bpe->heap_count) {
        uint64_t top = heap_pop(bpe);
        uint32_t place = (uint32_t)top, right = node[place].next;
        if (node[place].id == HF_NONE || right == HF_NONE) continue;
        struct merge_slot merge = merge_of(bpe->table, node[place].id, node[right].id);
        if (merge.rank != top >> 32) continue; /* of a pair that was there before */
        node[place].id = merge.merged;
        node[place].next = node[right].next;
        node[right].id = HF_NONE;
        if (node[place].next != HF_NONE) node[node[place].next].previous = place;
        heap_push(bpe, place);
        if (node[place].previous != HF_NONE) heap_push(bpe, node[place].previous);
    }
    for (uint32_t place = 0; place != HF_NONE; place = node[place].next) TRY(ids_append(out, &node[place].id, 1));
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

static size_t encode_new(struct bpe_any *bpe, uint32_t *id, const uint8_t *pretoken, size_t size) {
    id[0] = whole_token(bpe->table->hf, pretoken, size);
    return id[0] != HF_NONE ? 1 : encode_by_scan(bpe->table, id, pretoken, size);
}

static size_t encode_short(struct bpe_any *bpe, uint32_t *id, const uint8_t *pretoken, size_t size) {
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

int bpe_any_encode(struct bpe_any *bpe, struct ids *out, const uint8_t *pretoken, size_t size) {
    uint32_t id[SCAN_BYTES];
    if (size <= SCAN_BYTES) {
        size_t count = size <= CACHE_PRETOKEN_BYTES ? encode_short(bpe, id, pretoken, size) : encode_new(bpe, id, pretoken, size);
        return ids_append(out, id, count);
    }
    id[0] = whole_token(bpe->table->hf, pretoken, size);
    return id[0] != HF_NONE ? ids_append(out, id, 1) : encode_by_heap(bpe, out, pretoken, size);
}

/* ---- Whole texts ---- */

enum {
    HOLD_BYTES = 1 << 16,                                        /* as long as there are places to cut */
    HOLD_BYTES_CUT = PRETOKEN_BYTES_MAX + 2 * UTF8_REPLACE_ROOM, /* with rules, but without a place: full, it holds what is cut then */
};

/* Added tokens by what they look like, those with the same first byte together, longer ones first. */
struct added_form {
    const uint8_t *text;
    size_t size;
    const struct hf_added *token;
};
struct added_set {
    struct added_form *form;
    size_t count, from[257];   /* forms [from[b], from[b + 1]) begin with byte b */
    struct buf normal;         /* their normalized forms */
};

struct tokenizer_any {
    struct hf_tokenizer *hf;
    struct bpe_table *table;
    struct pattern *pattern[HF_STAGES_MAX];  /* NULL: GPT-2's */
    struct added_set raw, normalized;        /* looked for before and after normalization */
    bool all_special;                        /* of the added tokens */
    unsigned rules, rules_special;
};

struct encoder_any {
    const struct tokenizer_any *any;
    struct bpe_any *bpe;
    struct matcher *matcher[HF_STAGES_MAX];
    struct encoder *fast;
    struct utf8_replacer replacer;
    bool special, begun;      /* begun: some of the text is encoded already */
    uint8_t *held;            /* capacity + 1 bytes, of which size hold whole characters */
    size_t size, capacity, capacity_max;
    struct buf normal, segment;
};

/* ---- the tokenizer ---- */

static int by_form(const void *a, const void *b) {
    const struct added_form *x = a, *y = b;
    if (x->text[0] != y->text[0]) return x->text[0] < y->text[0] ? -1 : 1;
    if (x->size != y->size) return x->size > y->size ? -1 : 1;
    return x->token->id < y->token->id ? -1 : 1;
}

static void added_set_index(struct added_set *set) {
    if (set->count) qsort(set->form, set->count, sizeof *set->form, by_form);
    for (size_t i = 0; i < set->count; i++) set->from[set->form[i].text[0] + 1]++;
    for (unsigned b = 0; b < 256; b++) set->from[b + 1] += set->from[b];
}

static int added_sets_fill(struct tokenizer_any *any) {
    const struct hf_tokenizer *hf = any->hf;
    any->raw.form = mem_alloc((hf->added_count + 1) * sizeof *any->raw.form);
    any->normalized.form = mem_alloc((hf->added_count + 1) * sizeof *any->normalized.form);
    any->all_special = true;
    size_t *place = mem_alloc((hf->added_count + 1) * sizeof *place); /* normal may move while it grows */
    int code = 0;
    for (size_t i = 0; i < hf->added_count && code == 0; i++) {
        const struct hf_added *a = &hf->added[i];
        any->all_special &= a->special;
        struct added_set *set = a->normalized ? &any->normalized : &any->raw;
        place[i] = set->normal.size;
        set->form[set->count++] = (struct added_form){hf->text.data + a->first, a->size, a};
        if (a->normalized && hf->nfc) code = unicode_normalize(&set->normal, NORMALIZE_NFC, hf->text.data + a->first, a->size);
        set->form[set->count - 1].size = a->normalized && hf->nfc ? set->normal.size - place[i] : a->size;
    }
    for (size_t k = 0; k < any->normalized.count && hf->nfc && code == 0; k++)
        any->normalized.form[k].text = any->normalized.normal.data + place[any->normalized.form[k].token - hf->added];
    free(place);
    if (code == 0) added_set_index(&any->raw), added_set_index(&any->normalized);
    return code;
}

static int patterns_open(struct tokenizer_any *any) {
    for (size_t i = 0; i < any->hf->stages; i++) {
        const struct hf_stage *stage = &any->hf->stage[i];
        bool gpt2 = !stage->regex || (!stage->literal && !stage->drop_matches && strcmp(stage->regex, gpt2_pattern) == 0);
        if (!gpt2) TRY(pattern_open(&any->pattern[i], stage->regex, stage->literal));
    }
    return 0;
}

int tokenizer_any_open(struct tokenizer_any **out, struct hf_tokenizer *hf, bool fast) {
    struct tokenizer_any *any = mem_alloc(sizeof *any);
    any->hf = hf;
    int code = added_sets_fill(any);
    if (code == 0 && !fast) code = patterns_open(any);
    if (code == 0 && !fast) code = bpe_table_open(&any->table, hf);
    any->rules = cut_rules(hf, !any->all_special);
    any->rules_special = cut_rules(hf, true);
    if (code < 0) tokenizer_any_close(any);
    else *out = any;
    return code;
}

static void added_set_free(struct added_set *set) {
    free(set->form);
    buf_free(&set->normal);
}

void tokenizer_any_close(struct tokenizer_any *any) {
    if (!any) return;
    for (size_t i = 0; i < HF_STAGES_MAX; i++) pattern_close(any->pattern[i]);
    added_set_free(&any->raw), added_set_free(&any->normalized);
    bpe_table_close(any->table);
    hf_close(any->hf);
    free(any);
}

const struct hf_tokenizer *tokenizer_any_files(const struct tokenizer_any *any) { return any->hf; }
void tokenizer_any_ends(struct tokenizer_any *any, int64_t bos, int64_t eos) { any->hf->bos = bos, any->hf->eos = eos; }
unsigned tokenizer_any_rules(const struct tokenizer_any *any) { return any->rules; }

/* ---- one pre-token of text after the other, from the inside out ---- */

static size_t character_border(const uint8_t *text, size_t at) {
    while ((text[at] & 0xC0) == 0x80) at--;
    return at;
}

static int encode_pretoken(struct encoder_any *e, struct ids *out, const uint8_t *pretoken, size_t size) {
    while (size > PRETOKEN_BYTES_MAX) {
        size_t part = character_border(pretoken, PRETOKEN_BYTES_MAX);
        TRY(bpe_any_encode(e->bpe, out, pretoken, part));
        pretoken += part, size -= part;
    }
    return size > 0 ? bpe_any_encode(e->bpe, out, pretoken, size) : 0;
}

static int split(struct encoder_any *e, struct ids *out, size_t stage, uint8_t *text, size_t size);

static int split_gpt2(struct encoder_any *e, struct ids *out, size_t stage, uint8_t *text, size_t size) {
    uint8_t *p = text, *end = text + size, kept = *end;
    int code = 0;
    *end = PRETOKEN_SENTINEL;
    while (p < end && code == 0) {
        size_t n = pretoken_measure(p, (size_t)(end - p), true);
        code = split(e, out, stage + 1, p, n);
        p += n;
    }
    *end = kept;
    return code;
}

/* As Oniguruma's iterator goes: an empty match right behind the last one does not count. */
static int split_pattern(struct encoder_any *e, struct ids *out, size_t stage, uint8_t *text, size_t size) {
    const struct hf_stage *s = &e->any->hf->stage[stage];
    size_t at = 0, last = 0, begin, end;
    for (bool first = true; at <= size; first = false) {
        int found = matcher_next(e->matcher[stage], &begin, &end, text, size, at);
        if (found < 0) return found;
        if (!found) break;
        at = end;
        if (begin == end) at += end < size ? utf8_length(text[end]) : 1;
        if (begin == end && !first && begin == last) continue;
        if (!s->drop_gaps) TRY(split(e, out, stage + 1, text + last, begin - last));
        if (!s->drop_matches) TRY(split(e, out, stage + 1, text + begin, end - begin));
        last = end;
    }
    return s->drop_gaps ? 0 : split(e, out, stage + 1, text + last, size - last);
}

/* Text goes through the stages from `stage` on. The byte behind it may be written to while this lasts. */
static int split(struct encoder_any *e, struct ids *out, size_t stage, uint8_t *text, size_t size) {
    if (size == 0) return 0;
    if (stage == e->any->hf->stages) return encode_pretoken(e, out, text, size);
    return e->matcher[stage] ? split_pattern(e, out, stage, text, size) : split_gpt2(e, out, stage, text, size);
}

/* What lies between two added tokens. */
static int encode_segment(struct encoder_any *e, struct ids *out, const uint8_t *text, size_t size, bool goes_on) {
    if (size == 0) return 0;
    if (e->fast) {
        TRY(encoder_feed(e->fast, out, text, size));
        return encoder_finish(e->fast, out);
    }
    buf_clear(&e->segment);
    if (e->any->hf->add_prefix_space && text[0] != ' ' && !goes_on) TRY(buf_append(&e->segment, " ", 1));
    TRY(buf_append(&e->segment, text, size));
    return split(e, out, 0, e->segment.data, e->segment.size);
}

/* The added token that text begins with, the longest one. */
static const struct added_form *form_at(const struct added_set *set, const uint8_t *text, size_t size) {
    for (size_t i = set->from[text[0]]; i < set->from[text[0] + 1]; i++) {
        const struct added_form *form = &set->form[i];
        if (form->size <= size && memcmp(form->text, text, form->size) == 0) return form;
    }
    return NULL;
}

static bool is_space(const uint8_t *p) { return char_class(utf8_character(p)) == CHAR_SPACE; }

typedef int encode_part(struct encoder_any *e, struct ids *out, const uint8_t *text, size_t size, bool goes_on);

/* Takes the tokens of `set` out of the text and gives what lies between to `next`. Special ones that are ordinary text now are passed over
 * as a whole, as Hugging Face's encode_special_tokens does. */
static int take_added(struct encoder_any *e, struct ids *out, const struct added_set *set, const uint8_t *text, size_t size, bool goes_on,
                      encode_part *next) {
    size_t done = 0;
    for (size_t i = 0; i < size && set->count && (e->special || !e->any->all_special);) {
        const struct added_form *form = form_at(set, text + i, size - i);
        size_t begin = i, end = i + (form ? form->size : 1);
        i = end;
        if (!form || (form->token->special && !e->special)) continue;
        if (form->token->lstrip)
            for (size_t before; begin > done && is_space(text + (before = character_border(text, begin - 1)));) begin = before;
        if (form->token->rstrip)
            while (end < size && is_space(text + end)) end += utf8_length(text[end]);
        if (begin > done) TRY(next(e, out, text + done, begin - done, goes_on && done == 0));
        TRY(ids_append(out, &form->token->id, 1));
        i = done = end;
    }
    return done < size ? next(e, out, text + done, size - done, goes_on && done == 0) : 0;
}

static int encode_normal(struct encoder_any *e, struct ids *out, const uint8_t *text, size_t size, bool goes_on) {
    if (e->any->hf->nfc) {
        buf_clear(&e->normal);
        TRY(unicode_normalize(&e->normal, NORMALIZE_NFC, text, size));
        text = e->normal.data, size = e->normal.size;
    }
    return take_added(e, out, &e->any->normalized, text, size, goes_on, encode_segment);
}

/* Encodes held[0, size) and moves what is behind it to the front. */
static int encode_held(struct encoder_any *e, struct ids *out, size_t size) {
    TRY(take_added(e, out, &e->any->raw, e->held, size, e->begun, encode_normal));
    e->begun = true;
    e->size -= size;
    memmove(e->held, e->held + size, e->size);
    return 0;
}

/* ---- the encoder ---- */

static int hold_resize(struct encoder_any *e, size_t capacity) {
    uint8_t *held = realloc(e->held, capacity);
    if (!held) return err_set(ERR_MEMORY, "out of memory: %zu bytes for text that cannot be cut were wanted", capacity);
    e->held = held, e->capacity = capacity;
    return 0;
}

int encoder_any_open(struct encoder_any **out, const struct tokenizer_any *any, bool special, struct encoder *fast) {
    struct encoder_any *e = mem_alloc(sizeof *e);
    *e = (struct encoder_any){.any = any, .special = special, .fast = fast};
    unsigned rules = special ? any->rules_special : any->rules;
    e->capacity_max = rules ? HOLD_BYTES_CUT : ENCODER_HOLD_BYTES_MAX;
    int code = hold_resize(e, HOLD_BYTES);
    if (code == 0 && !fast) code = bpe_any_open(&e->bpe, any->table);
    for (size_t i = 0; i < any->hf->stages && code == 0 && !fast; i++)
        if (any->pattern[i]) code = matcher_open(&e->matcher[i], any->pattern[i]);
    if (code < 0) encoder_any_close(e);
    else *out = e;
    return code;
}

void encoder_any_close(struct encoder_any *e) {
    if (!e) return;
    for (size_t i = 0; i < HF_STAGES_MAX; i++) matcher_close(e->matcher[i]);
    bpe_any_close(e->bpe);
    encoder_close(e->fast);
    buf_free(&e->normal), buf_free(&e->segment);
    free(e->held);
    free(e);
}

uint64_t encoder_any_replaced(const struct encoder_any *e) { return e->replacer.replaced; }

/* Makes room in a full buffer: encodes up to the last place to cut, or holds twice as much. */
static int make_room(struct encoder_any *e, struct ids *out) {
    unsigned rules = e->special ? e->any->rules_special : e->any->rules;
    size_t cut = cut_last(rules, e->held, e->size);
    if (cut > 0) return encode_held(e, out, cut);
    if (e->capacity < e->capacity_max)
        return hold_resize(e, 2 * e->capacity < e->capacity_max ? 2 * e->capacity : e->capacity_max);
    if (rules) return encode_held(e, out, character_border(e->held, PRETOKEN_BYTES_MAX));
    return err_set(ERR_LIMIT, "a document has more than %d bytes; with this tokenizer's pattern it cannot be tokenized in parts; "
                              "divide the document, or take a tokenizer whose pattern is known", ENCODER_HOLD_BYTES_MAX);
}

int encoder_any_feed(struct encoder_any *e, struct ids *out, const void *text, size_t text_bytes) {
    const uint8_t *rest = text;
    while (text_bytes > 0) {
        size_t written, room = e->capacity - e->size;
        size_t took = utf8_replace(&e->replacer, e->held + e->size, &written, room, rest, text_bytes);
        e->size += written;
        rest += took, text_bytes -= took;
        if (text_bytes > 0) TRY(make_room(e, out));
    }
    return 0;
}

int encoder_any_finish(struct encoder_any *e, struct ids *out) {
    while (e->capacity - e->size < UTF8_REPLACE_ROOM) TRY(make_room(e, out));
    e->size += utf8_replace_end(&e->replacer, e->held + e->size);
    TRY(encode_held(e, out, e->size));
    e->begun = false;
    if (e->bpe) bpe_any_trim(e->bpe);
    if (e->capacity == HOLD_BYTES) return 0;
    buf_free(&e->normal), buf_free(&e->segment);
    return hold_resize(e, HOLD_BYTES);
}
