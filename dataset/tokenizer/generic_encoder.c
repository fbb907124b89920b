/* Owns the text that is held, the matchers of the patterns and the lists of added tokens.
 *
 * The way of the text, each function calling the next: encode_held() takes out the added tokens that are looked for in the raw text,
 * encode_normal() normalizes what lies between and takes out those that are looked for after that, encode_segment() puts the blank before
 * it that add_prefix_space asks for, pretokenize() goes through the stages of the pattern, encode_pretoken() merges. */
#include "dataset/tokenizer/generic_encoder.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/tokenizer/cut.h"
#include "dataset/tokenizer/generic_bpe.h"
#include "dataset/tokenizer/pattern.h"
#include "dataset/tokenizer/pretokenize.h"
#include "dataset/unicode/unicode.h"
#include "dataset/unicode/utf8.h"

enum {
    HOLD_BYTES = 1 << 16, /* as long as there are safe cuts */
    HOLD_BYTES_CUT = PRETOKEN_BYTES_MAX +
                     2 * UTF8_REPLACE_ROOM, /* with rules, but without a safe cut; then it is cut at PRETOKEN_BYTES_MAX */
    TICK_WORK = 1 << 16,                    /* between two ticks: bytes, once for each stage, added tokens that are looked at, matches */
    MATCH_WORK = 1 << 5,
};

/* Added tokens by what they look like, in the order of their bytes. Those that one begins with are a chain: what text begins with is found
 * in steps of its logarithm (jump pointers: Myers 1983, An applicative random-access stack), whatever tokens somebody chose. */
struct added_form {
    const uint8_t *text;
    size_t size;
    const struct hf_added *token;
    uint32_t shorter, leap; /* the longest other one that it begins with, and one further down that chain, whose end is form 0 */
    uint32_t depth;         /* of the chain */
};
struct added_set {
    struct added_form *form; /* form[0] is empty and of no token */
    size_t count, from[257]; /* without form[0]; forms [from[b], from[b + 1]) begin with byte b */
    struct buf normal;       /* their normalized forms */
};

struct generic_tokenizer {
    struct hf_tokenizer *hf;
    struct merge_ranks *ranks;
    struct pattern *pattern[HF_STAGES_MAX]; /* NULL: GPT-2's */
    struct added_set raw, normalized;       /* looked for before and after normalization */
    bool all_special;                       /* of the added tokens */
    unsigned rules, rules_special;
};

struct generic_encoder {
    const struct generic_tokenizer *tokenizer;
    struct generic_bpe *bpe;
    struct matcher *matcher[HF_STAGES_MAX];
    struct fast_encoder *fast;
    struct utf8_replacer replacer;
    bool special, begun; /* begun: some of the text is encoded already */
    uint8_t *held;       /* capacity + 1 bytes, of which size hold whole characters */
    size_t size, capacity, capacity_max;
    struct buf normal, segment;
    int (*tick)(void *arg);
    void *tick_arg;
    size_t work; /* since the last tick */
};

/* ---- the tokenizer ---- */

/* Below 0: the form comes before the text; 0: the text begins with it, too. */
static int form_order(const struct added_form *form, const uint8_t *text, size_t size) {
    int order = memcmp(form->text, text, form->size < size ? form->size : size);
    return order ? order : form->size > size;
}

static int by_form(const void *a, const void *b) {
    const struct added_form *x = a, *y = b;
    int order = form_order(x, y->text, y->size);
    if (order || x->size < y->size) return order ? order : -1;
    return x->token->id < y->token->id ? -1 : 1;
}

/* Of tokens that look alike the one with the lowest id counts. */
static void added_set_drop_repeated(struct added_set *set) {
    size_t kept = 0;
    for (size_t i = 1; i <= set->count; i++) {
        const struct added_form *form = &set->form[i], *last = &set->form[kept];
        if (kept == 0 || form->size != last->size || memcmp(form->text, last->text, form->size) != 0) set->form[++kept] = *form;
    }
    set->count = kept;
}

static void added_set_link(struct added_form *form, uint32_t i) {
    uint32_t shorter = i - 1;
    while (form_order(&form[shorter], form[i].text, form[i].size) != 0) shorter = form[shorter].shorter;
    uint32_t leap = form[shorter].leap, further = form[leap].leap;
    bool even = form[shorter].depth - form[leap].depth == form[leap].depth - form[further].depth;
    form[i].shorter = shorter, form[i].depth = form[shorter].depth + 1;
    form[i].leap = even ? further : shorter;
}

static void added_set_index(struct added_set *set) {
    if (set->count) qsort(set->form + 1, set->count, sizeof *set->form, by_form);
    added_set_drop_repeated(set);
    set->from[0] = 1;
    for (size_t i = 1; i <= set->count; i++) set->from[set->form[i].text[0] + 1]++;
    for (unsigned b = 0; b < 256; b++) set->from[b + 1] += set->from[b];
    for (uint32_t i = 1; i <= set->count; i++) added_set_link(set->form, i);
}

static int added_sets_fill(struct generic_tokenizer *tokenizer) {
    const struct hf_tokenizer *hf = tokenizer->hf;
    tokenizer->raw.form = mem_alloc((hf->added_count + 1) * sizeof *tokenizer->raw.form);
    tokenizer->normalized.form = mem_alloc((hf->added_count + 1) * sizeof *tokenizer->normalized.form);
    tokenizer->raw.form[0].text = tokenizer->normalized.form[0].text = (const uint8_t *)"";
    tokenizer->all_special = true;
    size_t *first = mem_alloc((hf->added_count + 1) * sizeof *first); /* of each form in `normal`, which may move while it grows */
    int code = 0;
    for (size_t i = 0; i < hf->added_count && code == 0; i++) {
        const struct hf_added *a = &hf->added[i];
        tokenizer->all_special &= a->special;
        struct added_set *set = a->normalized ? &tokenizer->normalized : &tokenizer->raw;
        first[i] = set->normal.size;
        set->form[++set->count] = (struct added_form){.text = hf->text.data + a->first, .size = a->size, .token = a};
        if (a->normalized && hf->nfc) code = unicode_normalize(&set->normal, NORMALIZE_NFC, hf->text.data + a->first, a->size);
        set->form[set->count].size = a->normalized && hf->nfc ? set->normal.size - first[i] : a->size;
    }
    for (size_t k = 1; k <= tokenizer->normalized.count && hf->nfc && code == 0; k++)
        tokenizer->normalized.form[k].text = tokenizer->normalized.normal.data + first[tokenizer->normalized.form[k].token - hf->added];
    free(first);
    if (code == 0) added_set_index(&tokenizer->raw), added_set_index(&tokenizer->normalized);
    return code;
}

static int patterns_open(struct generic_tokenizer *tokenizer) {
    for (size_t i = 0; i < tokenizer->hf->stages; i++) {
        const struct hf_stage *stage = &tokenizer->hf->stage[i];
        bool gpt2 = !stage->regex || (!stage->literal && !stage->drop_matches && strcmp(stage->regex, gpt2_pattern) == 0);
        if (!gpt2) TRY(pattern_open(&tokenizer->pattern[i], stage->regex, stage->literal));
    }
    return 0;
}

int generic_tokenizer_open(struct generic_tokenizer **out, struct hf_tokenizer *hf, bool fast) {
    struct generic_tokenizer *tokenizer = mem_alloc(sizeof *tokenizer);
    tokenizer->hf = hf;
    int code = added_sets_fill(tokenizer);
    if (code == 0 && !fast) code = patterns_open(tokenizer);
    if (code == 0 && !fast) code = merge_ranks_open(&tokenizer->ranks, hf);
    tokenizer->rules = cut_rules(hf, !tokenizer->all_special);
    tokenizer->rules_special = cut_rules(hf, true);
    if (code < 0) generic_tokenizer_close(tokenizer);
    else *out = tokenizer;
    return code;
}

static void added_set_free(struct added_set *set) {
    free(set->form);
    buf_free(&set->normal);
}

void generic_tokenizer_close(struct generic_tokenizer *tokenizer) {
    if (!tokenizer) return;
    for (size_t i = 0; i < HF_STAGES_MAX; i++) pattern_close(tokenizer->pattern[i]);
    added_set_free(&tokenizer->raw), added_set_free(&tokenizer->normalized);
    merge_ranks_close(tokenizer->ranks);
    hf_close(tokenizer->hf);
    free(tokenizer);
}

const struct hf_tokenizer *generic_tokenizer_files(const struct generic_tokenizer *tokenizer) { return tokenizer->hf; }
void generic_tokenizer_set_ends(struct generic_tokenizer *tokenizer, int64_t bos, int64_t eos) {
    tokenizer->hf->bos = bos, tokenizer->hf->eos = eos;
}
unsigned generic_tokenizer_rules(const struct generic_tokenizer *tokenizer) { return tokenizer->rules; }

/* ---- encoding, the innermost function first ---- */

static int worked(struct generic_encoder *e, size_t work) {
    e->work += work;
    if (e->work < TICK_WORK) return 0;
    e->work = 0;
    return e->tick ? e->tick(e->tick_arg) : 0;
}

static size_t character_border(const uint8_t *text, size_t at) {
    while ((text[at] & 0xC0) == 0x80) at--;
    return at;
}

static int encode_pretoken(struct generic_encoder *e, struct ids *out, const uint8_t *pretoken, size_t size) {
    while (size > PRETOKEN_BYTES_MAX) {
        size_t chunk = character_border(pretoken, PRETOKEN_BYTES_MAX);
        TRY(generic_bpe_encode(e->bpe, out, pretoken, chunk));
        pretoken += chunk, size -= chunk;
    }
    return size > 0 ? generic_bpe_encode(e->bpe, out, pretoken, size) : 0;
}

static int pretokenize(struct generic_encoder *e, struct ids *out, size_t stage, uint8_t *text, size_t size);

static int pretokenize_by_gpt2(struct generic_encoder *e, struct ids *out, size_t stage, uint8_t *text, size_t size) {
    uint8_t *p = text, *end = text + size, kept = *end;
    int code = 0;
    *end = PRETOKEN_SENTINEL;
    while (p < end && code == 0) {
        size_t n = pretoken_measure(p, (size_t)(end - p), true);
        code = pretokenize(e, out, stage + 1, p, n);
        p += n;
    }
    *end = kept;
    return code;
}

/* As Oniguruma's iterator goes: an empty match right behind the last one does not count. */
static int pretokenize_by_pattern(struct generic_encoder *e, struct ids *out, size_t stage, uint8_t *text, size_t size) {
    const struct hf_stage *s = &e->tokenizer->hf->stage[stage];
    size_t at = 0, last = 0, begin, end;
    for (bool first = true; at <= size; first = false) {
        int found = matcher_next(e->matcher[stage], &begin, &end, text, size, at);
        if (found < 0) return found;
        if (!found) break;
        TRY(worked(e, MATCH_WORK));
        at = end;
        if (begin == end) at += end < size ? utf8_length(text[end]) : 1;
        if (begin == end && !first && begin == last) continue;
        if (!s->drop_gaps) TRY(pretokenize(e, out, stage + 1, text + last, begin - last));
        if (!s->drop_matches) TRY(pretokenize(e, out, stage + 1, text + begin, end - begin));
        last = end;
    }
    return s->drop_gaps ? 0 : pretokenize(e, out, stage + 1, text + last, size - last);
}

/* Text goes through the stages from `stage` on. The byte behind it may be written to while this lasts. */
static int pretokenize(struct generic_encoder *e, struct ids *out, size_t stage, uint8_t *text, size_t size) {
    if (size == 0) return 0;
    TRY(worked(e, size));
    if (stage == e->tokenizer->hf->stages) return encode_pretoken(e, out, text, size);
    return e->matcher[stage] ? pretokenize_by_pattern(e, out, stage, text, size) : pretokenize_by_gpt2(e, out, stage, text, size);
}

/* What lies between two added tokens. */
static int encode_segment(struct generic_encoder *e, struct ids *out, const uint8_t *text, size_t size, bool goes_on) {
    if (size == 0) return 0;
    if (e->fast) {
        TRY(fast_encoder_feed(e->fast, out, text, size));
        return fast_encoder_finish(e->fast, out);
    }
    buf_clear(&e->segment);
    if (e->tokenizer->hf->add_prefix_space && text[0] != ' ' && !goes_on) TRY(buf_append(&e->segment, " ", 1));
    TRY(buf_append(&e->segment, text, size));
    return pretokenize(e, out, 0, e->segment.data, e->segment.size);
}

/* The added token that text begins with, the longest one. *out_work: how many were looked at. */
static const struct added_form *form_at(const struct added_set *set, size_t *out_work, const uint8_t *text, size_t size) {
    size_t low = set->from[text[0]], high = set->from[text[0] + 1], same = 0;
    *out_work = 1;
    if (low == high) return NULL;
    for (size_t middle; low < high; ++*out_work) { /* the last one that does not come behind the text begins with all that the text does */
        middle = (low + high) / 2;
        if (form_order(&set->form[middle], text, size) > 0) high = middle;
        else low = middle + 1;
    }
    const struct added_form *form = &set->form[low - 1];
    while (same < form->size && same < size && form->text[same] == text[same]) same++;
    for (; form->size > same; ++*out_work) {
        const struct added_form *leap = &set->form[form->leap];
        form = leap->size > same ? leap : &set->form[form->shorter];
    }
    return form->token ? form : NULL;
}

static bool is_space(const uint8_t *p) { return char_class(utf8_character(p)) == CHAR_SPACE; }

typedef int encode_rest(struct generic_encoder *e, struct ids *out, const uint8_t *text, size_t size, bool goes_on);

/* Takes the tokens of `set` out of the text and gives what lies between to `next`. Special ones that are ordinary text now are passed over
 * as a whole, as Hugging Face's encode_special_tokens does. */
static int take_added(struct generic_encoder *e, struct ids *out, const struct added_set *set, const uint8_t *text, size_t size,
                      bool goes_on, encode_rest *next) {
    size_t done = 0;
    for (size_t i = 0; i < size && set->count && (e->special || !e->tokenizer->all_special);) {
        size_t work;
        const struct added_form *form = form_at(set, &work, text + i, size - i);
        size_t begin = i, end = i + (form ? form->size : 1);
        TRY(worked(e, work));
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

static int encode_normal(struct generic_encoder *e, struct ids *out, const uint8_t *text, size_t size, bool goes_on) {
    if (e->tokenizer->hf->nfc) {
        buf_clear(&e->normal);
        TRY(unicode_normalize(&e->normal, NORMALIZE_NFC, text, size));
        text = e->normal.data, size = e->normal.size;
    }
    return take_added(e, out, &e->tokenizer->normalized, text, size, goes_on, encode_segment);
}

/* Encodes held[0, size) and moves what is behind it to the front. */
static int encode_held(struct generic_encoder *e, struct ids *out, size_t size) {
    TRY(take_added(e, out, &e->tokenizer->raw, e->held, size, e->begun, encode_normal));
    e->begun = true;
    e->size -= size;
    memmove(e->held, e->held + size, e->size);
    return 0;
}

/* ---- the encoder ---- */

static int hold_resize(struct generic_encoder *e, size_t capacity) {
    uint8_t *held = realloc(e->held, capacity);
    if (!held) return err_set(ERR_MEMORY, "out of memory: %zu bytes for text that cannot be cut were wanted", capacity);
    e->held = held, e->capacity = capacity;
    return 0;
}

int generic_encoder_open(struct generic_encoder **out, const struct generic_tokenizer *tokenizer, bool special, struct fast_encoder *fast) {
    struct generic_encoder *e = mem_alloc(sizeof *e);
    *e = (struct generic_encoder){.tokenizer = tokenizer, .special = special, .fast = fast};
    unsigned rules = special ? tokenizer->rules_special : tokenizer->rules;
    e->capacity_max = rules ? HOLD_BYTES_CUT : ENCODER_HOLD_BYTES_MAX;
    int code = hold_resize(e, HOLD_BYTES);
    if (code == 0 && !fast) code = generic_bpe_open(&e->bpe, tokenizer->ranks);
    for (size_t i = 0; i < tokenizer->hf->stages && code == 0 && !fast; i++)
        if (tokenizer->pattern[i]) code = matcher_open(&e->matcher[i], tokenizer->pattern[i]);
    if (code < 0) generic_encoder_close(e);
    else *out = e;
    return code;
}

void generic_encoder_close(struct generic_encoder *e) {
    if (!e) return;
    for (size_t i = 0; i < HF_STAGES_MAX; i++) matcher_close(e->matcher[i]);
    generic_bpe_close(e->bpe);
    fast_encoder_close(e->fast);
    buf_free(&e->normal), buf_free(&e->segment);
    free(e->held);
    free(e);
}

void generic_encoder_set_tick(struct generic_encoder *e, int (*tick)(void *), void *tick_arg) {
    e->tick = tick, e->tick_arg = tick_arg;
    if (e->bpe) generic_bpe_set_tick(e->bpe, tick, tick_arg);
}

uint64_t generic_encoder_replaced(const struct generic_encoder *e) { return e->replacer.replaced; }

/* Makes room in a full buffer: encodes up to the last safe cut, or makes the buffer twice as large. */
static int make_room(struct generic_encoder *e, struct ids *out) {
    unsigned rules = e->special ? e->tokenizer->rules_special : e->tokenizer->rules;
    size_t cut = cut_last(rules, e->held, e->size);
    if (cut > 0) return encode_held(e, out, cut);
    if (e->capacity < e->capacity_max) return hold_resize(e, 2 * e->capacity < e->capacity_max ? 2 * e->capacity : e->capacity_max);
    if (rules) return encode_held(e, out, character_border(e->held, PRETOKEN_BYTES_MAX));
    return err_set(ERR_LIMIT,
                   "a document has more than %d bytes; with this tokenizer's pattern it cannot be tokenized in parts; "
                   "divide the document, or take a tokenizer whose pattern is known",
                   ENCODER_HOLD_BYTES_MAX);
}

int generic_encoder_feed(struct generic_encoder *e, struct ids *out, const void *text, size_t text_bytes) {
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

int generic_encoder_finish(struct generic_encoder *e, struct ids *out) {
    while (e->capacity - e->size < UTF8_REPLACE_ROOM) TRY(make_room(e, out));
    e->size += utf8_replace_end(&e->replacer, e->held + e->size);
    TRY(encode_held(e, out, e->size));
    e->begun = false;
    if (e->bpe) generic_bpe_trim(e->bpe);
    if (e->capacity == HOLD_BYTES) return 0;
    buf_free(&e->normal), buf_free(&e->segment);
    return hold_resize(e, HOLD_BYTES);
}
