/* A struct hf_tokenizer in memory: tokens by id and by bytes (a hash table), merges by rank. Building, looking up, and printing as Hugging
 * Face's files; reading them is in dataset/tokenizer/hf_read.c. */
#include "dataset/tokenizer/hf_tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/tokenizer/vocabulary.h"
#include "dataset/unicode/utf8.h"

struct hf_tokenizer *hf_make(void) {
    struct hf_tokenizer *hf = mem_alloc(sizeof *hf);
    hf->text.max_bytes = UINT32_MAX;
    hf->bos = hf->eos = -1;
    for (unsigned b = 0; b < 256; b++) hf->byte_id[b] = HF_NONE;
    return hf;
}

void hf_close(struct hf_tokenizer *hf) {
    if (!hf) return;
    for (size_t i = 0; i < hf->stages; i++) free(hf->stage[i].regex);
    buf_free(&hf->text);
    free(hf->token), free(hf->merge), free(hf->added), free(hf->slot);
    free(hf);
}

/* ---- by bytes ---- */

static bool token_is(const struct hf_tokenizer *hf, uint32_t id, const void *bytes, size_t size, bool raw) {
    const struct hf_token *token = &hf->token[id];
    return token->size == size && token->raw == raw && memcmp(hf->text.data + token->first, bytes, size) == 0;
}

/* The slot of those bytes, or the free one where they belong. */
static uint32_t *slot_of(const struct hf_tokenizer *hf, const uint8_t *bytes, size_t size, bool raw) {
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a: the strings are short */
    for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 0x100000001B3u;
    for (size_t i = (hash ^ hash >> 29) & (hf->slots - 1);; i = (i + 1) & (hf->slots - 1))
        if (hf->slot[i] == HF_NONE || token_is(hf, hf->slot[i], bytes, size, raw)) return &hf->slot[i];
}

uint32_t hf_find(const struct hf_tokenizer *hf, const void *bytes, size_t size, bool raw) {
    return hf->slots ? *slot_of(hf, bytes, size, raw) : HF_NONE;
}

static int slots_reserve(struct hf_tokenizer *hf, size_t tokens) {
    if (2 * tokens <= hf->slots) return 0;
    size_t slots = hf->slots ? 4 * hf->slots : 1024;
    while (slots < 2 * tokens) slots *= 2;
    uint32_t *slot;
    TRY(mem_try(&slot, slots, sizeof *slot));
    memset(slot, 0xFF, slots * sizeof *slot);
    free(hf->slot);
    hf->slot = slot, hf->slots = slots;
    for (uint32_t id = 0; id < hf->ids; id++) {
        const struct hf_token *token = &hf->token[id];
        if (token->size) *slot_of(hf, hf->text.data + token->first, token->size, token->raw) = id;
    }
    return 0;
}

/* ---- tokens ---- */

static int tokens_reserve(struct hf_tokenizer *hf, uint32_t ids) {
    if (ids <= hf->ids_room) return 0;
    uint32_t room = hf->ids_room ? hf->ids_room : 1024;
    while (room < ids) room *= 2;
    struct hf_token *token;
    TRY(mem_try(&token, room, sizeof *token));
    if (hf->ids) memcpy(token, hf->token, hf->ids * sizeof *token);
    free(hf->token);
    hf->token = token, hf->ids_room = room;
    return 0;
}

static int put_token(struct hf_tokenizer *hf, uint32_t id, const void *bytes, size_t size, bool raw, bool model) {
    if (id >= HF_IDS_MAX) return err_set(ERR_LIMIT, "the id %u is beyond %d, the highest there may be", id, HF_IDS_MAX - 1);
    if (size == 0 || size > HF_TOKEN_BYTES_MAX)
        return err_set(ERR_LIMIT, "the token with the id %u has %zu bytes; there may be 1 to %d", id, size, HF_TOKEN_BYTES_MAX);
    TRY(tokens_reserve(hf, id + 1));
    if (id < hf->ids && hf->token[id].size) return err_set(ERR_CORRUPT, "two tokens have the id %u", id);
    TRY(slots_reserve(hf, hf->tokens + (size_t)1));
    uint32_t *slot = slot_of(hf, bytes, size, raw);
    if (*slot != HF_NONE) return err_set(ERR_CORRUPT, "the ids %u and %u are of the same token", *slot, id);
    uint32_t first = (uint32_t)hf->text.size;
    TRY(buf_append(&hf->text, bytes, size));
    if (id >= hf->ids) hf->ids = id + 1;
    hf->token[id] = (struct hf_token){first, (uint32_t)size, raw, model};
    *slot = id;
    hf->tokens++;
    return 0;
}

int hf_add_token(struct hf_tokenizer *hf, uint32_t id, const char *text, size_t size) {
    if (size > HF_TOKEN_BYTES_MAX)
        return err_set(ERR_LIMIT, "the token with the id %u has %zu bytes; there may be 1 to %d", id, size, HF_TOKEN_BYTES_MAX);
    uint8_t *bytes = mem_alloc(size + 1);
    ptrdiff_t count = byte_letters_read(bytes, text, size);
    int code = count < 0 ? put_token(hf, id, text, size, true, true) : put_token(hf, id, bytes, (size_t)count, false, true);
    if (code == 0 && count == 1) hf->byte_id[bytes[0]] = id;
    free(bytes);
    return code;
}

int hf_add_bytes(struct hf_tokenizer *hf, uint32_t id, const uint8_t *bytes, size_t size) {
    if (size == 1) hf->byte_id[bytes[0]] = id;
    return put_token(hf, id, bytes, size, false, true);
}

/* ---- merges ---- */

int hf_add_merge(struct hf_tokenizer *hf, const char *left, size_t left_size, const char *right, size_t right_size) {
    uint8_t bytes[2 * HF_TOKEN_BYTES_MAX];
    if (left_size > HF_TOKEN_BYTES_MAX || right_size > HF_TOKEN_BYTES_MAX)
        return err_set(ERR_LIMIT, "merge %u has a token of more than %d bytes", hf->merges + 1, HF_TOKEN_BYTES_MAX);
    ptrdiff_t l = byte_letters_read(bytes, left, left_size), r = l < 0 ? -1 : byte_letters_read(bytes + l, right, right_size);
    if (l <= 0 || r <= 0)
        return err_set(ERR_UNSUPPORTED, "merge %u, \"%.40s %.40s\", is not of tokens that are bytes", hf->merges + 1, left, right);
    struct hf_merge merge = {hf_find(hf, bytes, (size_t)l, false), hf_find(hf, bytes + l, (size_t)r, false),
                             hf_find(hf, bytes, (size_t)(l + r), false)};
    if (merge.left == HF_NONE || merge.right == HF_NONE || merge.merged == HF_NONE)
        return err_set(ERR_CORRUPT, "merge %u, \"%.*s %.*s\", is of tokens that the vocabulary does not have", hf->merges + 1,
                       (int)(left_size < 80 ? left_size : 80), left, (int)(right_size < 80 ? right_size : 80), right);
    return hf_add_merge_of(hf, merge);
}

int hf_add_merge_of(struct hf_tokenizer *hf, struct hf_merge merge) {
    if (hf->merges == hf->merges_room) {
        uint32_t room = hf->merges_room ? 2 * hf->merges_room : 1024;
        if (room > 2 * (uint32_t)HF_IDS_MAX) return err_set(ERR_LIMIT, "there are more than %d merges", 2 * HF_IDS_MAX);
        hf->merge = mem_resize(hf->merge, room * sizeof *hf->merge);
        hf->merges_room = room;
    }
    hf->merge[hf->merges++] = merge;
    return 0;
}

struct ranked {
    struct hf_merge merge;
    uint32_t rank;
};
static int by_pair(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->merge.left != y->merge.left) return x->merge.left < y->merge.left ? -1 : 1;
    if (x->merge.right != y->merge.right) return x->merge.right < y->merge.right ? -1 : 1;
    return x->rank < y->rank ? -1 : 1;
}
static int by_rank(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    return x->rank < y->rank ? -1 : 1;
}

/* Of a pair that is listed twice the later place counts, as it does in Hugging Face's table. */
static int drop_repeated_merges(struct hf_tokenizer *hf) {
    struct ranked *all;
    if (hf->merges == 0) return 0;
    TRY(mem_try(&all, hf->merges, sizeof *all));
    for (uint32_t i = 0; i < hf->merges; i++) all[i] = (struct ranked){hf->merge[i], i};
    qsort(all, hf->merges, sizeof *all, by_pair);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < hf->merges; i++) {
        bool repeated = i + 1 < hf->merges && all[i].merge.left == all[i + 1].merge.left && all[i].merge.right == all[i + 1].merge.right;
        if (!repeated) all[kept++] = all[i];
    }
    if (kept < hf->merges) {
        qsort(all, kept, sizeof *all, by_rank);
        for (uint32_t i = 0; i < kept; i++) hf->merge[i] = all[i].merge;
        hf->merges = kept;
    }
    free(all);
    return 0;
}

/* ---- added tokens ---- */

int hf_add_added(struct hf_tokenizer *hf, const struct hf_added *flags, const char *text, size_t size) {
    if (hf->added_count == HF_ADDED_MAX) return err_set(ERR_LIMIT, "there are more than %d added tokens", HF_ADDED_MAX);
    if (size == 0 || size > HF_TOKEN_BYTES_MAX)
        return err_set(ERR_LIMIT, "the added token with the id %u has %zu bytes; there may be 1 to %d", flags->id, size,
                       HF_TOKEN_BYTES_MAX);
    uint8_t *bytes = mem_alloc(size + 1);
    ptrdiff_t count = byte_letters_read(bytes, text, size);
    uint32_t there = count < 0 ? hf_find(hf, text, size, true) : hf_find(hf, bytes, (size_t)count, false);
    free(bytes);
    if (there != HF_NONE && there != flags->id)
        return err_set(ERR_CORRUPT, "the added token \"%.*s\" has the id %u, but in the vocabulary it has %u",
                       (int)(size < 80 ? size : 80), text, flags->id, there);
    struct hf_added added = *flags;
    if (there == HF_NONE) TRY(put_token(hf, flags->id, text, size, true, false));
    added.first = (uint32_t)hf->text.size, added.size = (uint32_t)size;
    TRY(buf_append(&hf->text, text, size));
    for (size_t i = 0; i < hf->added_count; i++)
        if (hf->added[i].id == added.id) return err_set(ERR_CORRUPT, "two added tokens have the id %u", added.id);
    hf->added = mem_resize(hf->added, (hf->added_count + 1) * sizeof *hf->added);
    hf->added[hf->added_count++] = added;
    return 0;
}

static int by_id(const void *a, const void *b) {
    const struct hf_added *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

int hf_finish(struct hf_tokenizer *hf) {
    for (unsigned b = 0; b < 256; b++)
        if (hf->byte_id[b] == HF_NONE)
            return err_set(ERR_UNSUPPORTED, "the vocabulary has no token for the byte 0x%02X; only byte-level tokenizers can be used", b);
    TRY(drop_repeated_merges(hf));
    if (hf->added_count) qsort(hf->added, hf->added_count, sizeof *hf->added, by_id);
    bool all_normalized = true;
    for (size_t i = 0; i < hf->added_count; i++) all_normalized &= hf->added[i].normalized;
    for (size_t i = 0; i < hf->added_count && !hf->nfc && all_normalized; i++) hf->added[i].normalized = false; /* says nothing then */
    if (hf->bos >= (int64_t)hf->ids || hf->eos >= (int64_t)hf->ids) return err_set(ERR_CORRUPT, "bos or eos is not in the vocabulary");
    return 0;
}

bool hf_is_plain(const struct hf_tokenizer *hf) {
    for (size_t i = 0; i < hf->added_count; i++)
        if (!hf->added[i].special || !hf->token[hf->added[i].id].model) return false;
    return hf->stages == 1 && !hf->stage[0].regex && !hf->nfc && !hf->add_prefix_space && !hf->ignore_merges;
}

/* ---- Writing ----
 *
 * Tokenizers to Hugging Face's files. Written as text, not through a JSON library: digests depend on these bytes. */

static int print_unit(struct buf *out, unsigned unit) {
    char text[8];
    static const char hex[] = "0123456789abcdef";
    if (unit == '"' || unit == '\\') return buf_append(out, (char[]){'\\', (char)unit}, 2);
    if (unit >= 0x20 && unit < 0x7F) return buf_append(out, (char[]){(char)unit}, 1);
    memcpy(text, "\\u", 2);
    for (int i = 0; i < 4; i++) text[2 + i] = hex[unit >> (12 - 4 * i) & 15];
    return buf_append(out, text, 6);
}

/* Well-formed UTF-8 as a JSON string of ASCII characters. */
static int print_text(struct buf *out, const void *text, size_t size) {
    const uint8_t *p = text, *end = p + size;
    TRY(buf_append(out, "\"", 1));
    for (; p < end; p += utf8_length(*p)) {
        CHECK(utf8_measure(p, (size_t)(end - p)) > 0); /* JSON is, and who trains looks */
        uint32_t c = utf8_character(p);
        if (c >= 0x10000) TRY(print_unit(out, 0xD800 + ((c - 0x10000) >> 10)));
        TRY(print_unit(out, c >= 0x10000 ? 0xDC00 + (c & 0x3FF) : c));
    }
    return buf_append(out, "\"", 1);
}

static int print_letters(const struct hf_tokenizer *hf, struct buf *out, uint32_t id) {
    const struct byte_letters *letters = byte_letters();
    const struct hf_token *token = &hf->token[id];
    for (uint32_t i = 0; i < token->size; i++) TRY(print_unit(out, letters->letter[hf->text.data[token->first + i]]));
    return 0;
}

static int print_token(const struct hf_tokenizer *hf, struct buf *out, uint32_t id) {
    const struct hf_token *token = &hf->token[id];
    if (token->raw) return print_text(out, hf->text.data + token->first, token->size);
    TRY(buf_append(out, "\"", 1));
    TRY(print_letters(hf, out, id));
    return buf_append(out, "\"", 1);
}

int hf_print_vocab(const struct hf_tokenizer *hf, struct buf *out) {
    const char *before = "{";
    for (uint32_t id = 0; id < hf->ids; id++) {
        if (!hf->token[id].model) continue;
        TRY(buf_print(out, "%s", before));
        TRY(print_token(hf, out, id));
        TRY(buf_print(out, ": %u", id));
        before = ", ";
    }
    return buf_print(out, "}");
}

/* A token of merges.txt, which is UTF-8 and has no escapes. */
static int print_plain(const struct hf_tokenizer *hf, struct buf *out, uint32_t id) {
    const struct byte_letters *letters = byte_letters();
    const struct hf_token *token = &hf->token[id];
    for (uint32_t i = 0; i < token->size; i++) {
        unsigned letter = letters->letter[hf->text.data[token->first + i]];
        char text[2] = {(char)letter};
        if (letter >= 0x80) text[0] = (char)(0xC0 | letter >> 6), text[1] = (char)(0x80 | (letter & 0x3F));
        TRY(buf_append(out, text, letter >= 0x80 ? 2 : 1));
    }
    return 0;
}

int hf_print_merges(const struct hf_tokenizer *hf, struct buf *out) {
    TRY(buf_print(out, "#version: 0.2\n"));
    for (uint32_t i = 0; i < hf->merges; i++) {
        TRY(print_plain(hf, out, hf->merge[i].left));
        TRY(buf_append(out, " ", 1));
        TRY(print_plain(hf, out, hf->merge[i].right));
        TRY(buf_append(out, "\n", 1));
    }
    return 0;
}

static const char *json_bool(bool value) { return value ? "true" : "false"; }

static const struct hf_added *added_of(const struct hf_tokenizer *hf, int64_t id) {
    for (size_t i = 0; i < hf->added_count; i++)
        if (hf->added[i].id == id) return &hf->added[i];
    return NULL;
}

/* What a text for people and programs calls the token; null: none. */
static int print_name(const struct hf_tokenizer *hf, struct buf *out, int64_t id) {
    if (id < 0) return buf_print(out, "null");
    const struct hf_added *added = added_of(hf, id);
    return added ? print_text(out, hf->text.data + added->first, added->size) : print_token(hf, out, (uint32_t)id);
}

static int print_flags(struct buf *out, const struct hf_added *a) {
    return buf_print(out, "\"single_word\": false, \"lstrip\": %s, \"rstrip\": %s, \"normalized\": %s, \"special\": %s}",
                     json_bool(a->lstrip), json_bool(a->rstrip), json_bool(a->normalized), json_bool(a->special));
}

static int print_added(const struct hf_tokenizer *hf, struct buf *out) {
    TRY(buf_print(out, "  \"added_tokens\": ["));
    for (size_t i = 0; i < hf->added_count; i++) {
        const struct hf_added *a = &hf->added[i];
        TRY(buf_print(out, "%s\n    {\"id\": %u, \"content\": ", i ? "," : "", a->id));
        TRY(print_text(out, hf->text.data + a->first, a->size));
        TRY(buf_print(out, ", "));
        TRY(print_flags(out, a));
    }
    return buf_print(out, "%s],\n", hf->added_count ? "\n  " : "");
}

static int print_byte_level(struct buf *out, bool add_prefix_space, bool use_regex) {
    return buf_print(out, "{\"type\": \"ByteLevel\", \"add_prefix_space\": %s, \"trim_offsets\": true, \"use_regex\": %s}",
                     json_bool(add_prefix_space), json_bool(use_regex));
}

static int print_split(struct buf *out, const struct hf_stage *stage) {
    TRY(buf_print(out, "      {\"type\": \"Split\", \"pattern\": {\"%s\": ", stage->literal ? "String" : "Regex"));
    TRY(print_text(out, stage->regex, strlen(stage->regex)));
    /* inverted, "Removed" leaves the matches alone */
    return buf_print(out, "}, \"behavior\": \"%s\", \"invert\": %s},\n", stage->drop_gaps || stage->drop_matches ? "Removed" : "Isolated",
                     json_bool(stage->drop_gaps));
}

static int print_pre_tokenizer(const struct hf_tokenizer *hf, struct buf *out) {
    bool use_regex = hf->stages > 0 && !hf->stage[hf->stages - 1].regex;
    size_t splits = hf->stages - use_regex;
    TRY(buf_print(out, "  \"pre_tokenizer\": "));
    if (splits > 0) TRY(buf_print(out, "{\n    \"type\": \"Sequence\",\n    \"pretokenizers\": [\n"));
    for (size_t i = 0; i < splits; i++) TRY(print_split(out, &hf->stage[i]));
    if (splits > 0) TRY(buf_print(out, "      "));
    TRY(print_byte_level(out, hf->add_prefix_space, use_regex));
    return buf_print(out, splits > 0 ? "\n    ]\n  },\n" : ",\n");
}

static int print_model(const struct hf_tokenizer *hf, struct buf *out) {
    TRY(buf_print(out, "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
                       "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"));
    TRY(buf_print(out, "    \"byte_fallback\": false,\n    \"ignore_merges\": %s,\n    \"vocab\": ", json_bool(hf->ignore_merges)));
    TRY(hf_print_vocab(hf, out));
    TRY(buf_print(out, ",\n    \"merges\": ["));
    for (uint32_t i = 0; i < hf->merges; i++) {
        TRY(buf_print(out, i ? ",\n\"" : "\n\""));
        TRY(print_letters(hf, out, hf->merge[i].left));
        TRY(buf_append(out, " ", 1));
        TRY(print_letters(hf, out, hf->merge[i].right));
        TRY(buf_append(out, "\"", 1));
    }
    return buf_print(out, "]\n  }");
}

static int print_tokenizer(const struct hf_tokenizer *hf, struct buf *out) {
    TRY(buf_print(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"));
    TRY(print_added(hf, out));
    TRY(buf_print(out, "  \"normalizer\": %s,\n", hf->nfc ? "{\"type\": \"NFC\"}" : "null"));
    TRY(print_pre_tokenizer(hf, out));
    TRY(buf_print(out, "  \"post_processor\": null,\n  \"decoder\": "));
    TRY(print_byte_level(out, true, true));
    TRY(buf_print(out, ",\n"));
    return print_model(hf, out);
}

int hf_print_tokenizer(const struct hf_tokenizer *hf, struct buf *out) {
    TRY(print_tokenizer(hf, out));
    return buf_print(out, "\n}\n");
}

int hf_print(const struct hf_tokenizer *hf, struct buf *out) {
    TRY(print_tokenizer(hf, out));
    TRY(buf_print(out, ",\n  \"bos_token\": "));
    TRY(print_name(hf, out, hf->bos));
    TRY(buf_print(out, ",\n  \"eos_token\": "));
    TRY(print_name(hf, out, hf->eos));
    return buf_print(out, "\n}\n");
}

int hf_print_settings(const struct hf_tokenizer *hf, struct buf *out, int64_t max_length) {
    bool plain = hf_is_plain(hf);
    TRY(buf_print(out, "{\n  \"add_prefix_space\": %s,\n  \"added_tokens_decoder\": {", json_bool(hf->add_prefix_space)));
    for (size_t i = 0; i < hf->added_count; i++) {
        const struct hf_added *a = &hf->added[i];
        TRY(buf_print(out, "%s\n    \"%u\": {\"content\": ", i ? "," : "", a->id));
        TRY(print_text(out, hf->text.data + a->first, a->size));
        TRY(buf_print(out, ", "));
        TRY(print_flags(out, a));
    }
    TRY(buf_print(out, "%s},\n  \"bos_token\": ", hf->added_count ? "\n  " : ""));
    TRY(print_name(hf, out, hf->bos));
    TRY(buf_print(out, ",\n  \"clean_up_tokenization_spaces\": false,\n  \"eos_token\": "));
    TRY(print_name(hf, out, hf->eos));
    TRY(buf_print(out, ",\n"));
    if (max_length > 0) TRY(buf_print(out, "  \"model_max_length\": %" PRId64 ",\n", max_length));
    TRY(buf_print(out, "  \"tokenizer_class\": \"%s\",\n  \"unk_token\": ", plain ? "GPT2Tokenizer" : "PreTrainedTokenizerFast"));
    TRY(print_name(hf, out, plain ? hf->eos : -1));
    return buf_print(out, "\n}\n");
}

int hf_print_special_map(const struct hf_tokenizer *hf, struct buf *out) {
    const char *before = "{\n";
    const int64_t ids[2] = {hf->bos, hf->eos};
    for (int i = 0; i < 2; i++) {
        if (ids[i] < 0) continue;
        TRY(buf_print(out, "%s  \"%s\": ", before, i ? "eos_token" : "bos_token"));
        TRY(print_name(hf, out, ids[i]));
        before = ",\n";
    }
    return buf_print(out, "%s}\n", before[0] == '{' ? "{" : "\n");
}
