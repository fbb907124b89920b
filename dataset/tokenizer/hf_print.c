/* Tokenizers to Hugging Face's files. Written as text, not through a JSON library: digests depend on these bytes. */
#include <inttypes.h>
#include <string.h>

#include "base/err.h"
#include "dataset/tokenizer/byte_letters.h"
#include "dataset/tokenizer/hf_tokenizer.h"
#include "dataset/unicode/utf8.h"

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
