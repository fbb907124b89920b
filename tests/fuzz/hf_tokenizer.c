/* tokenizer.json, then NUL, then a text. What is accepted is printed, and accepted again as the same tokenizer; a text has the same ids in
 * parts as at once. */
#include <jansson.h>

#include "dataset/tokenizer/tokenizer.h"
#include "dataset/tokenizer/vocabulary.h"
#include "tests/fuzz/fuzz.h"

static void check_printed(const struct tokenizer *tokenizer) {
    struct buf text = {0};
    struct tokenizer *again;
    uint8_t digest[SHA256_BYTES], other[SHA256_BYTES];
    CHECK(tokenizer_print(tokenizer, &text) == 0);
    if (tokenizer_parse(&again, text.data, text.size) < 0) fuzz_fail("printed is not accepted: %s\n%s", err_text(), (char *)text.data);
    tokenizer_digest(tokenizer, digest);
    tokenizer_digest(again, other);
    CHECK(memcmp(digest, other, sizeof digest) == 0);
    CHECK(tokenizer_vocabulary(tokenizer) == tokenizer_vocabulary(again) && tokenizer_eos(tokenizer) == tokenizer_eos(again));
    tokenizer_close(again);
    buf_free(&text);
    struct tokenizer_file files[TOKENIZER_FILES_MAX];
    size_t count;
    if (tokenizer_print_files(tokenizer, files, &count, 0) == 0) tokenizer_files_free(files);
}

static void check_text(const struct tokenizer *tokenizer, const uint8_t *text, size_t size, bool special) {
    struct ids whole = {0}, parts = {0};
    struct buf decoded = {0};
    if (tokenizer_encode(tokenizer, &whole, text, size, special) == 0) {
        struct encoder *encoder;
        CHECK((special ? encoder_open_special : encoder_open)(&encoder, tokenizer) == 0);
        for (size_t at = 0; at < size; at += 3) CHECK(encoder_feed(encoder, &parts, text + at, size - at < 3 ? size - at : 3) == 0);
        CHECK(encoder_finish(encoder, &parts) == 0);
        encoder_close(encoder);
        CHECK(whole.count == parts.count && (whole.count == 0 || memcmp(whole.id, parts.id, whole.count * sizeof *whole.id) == 0));
        CHECK(tokenizer_decode(tokenizer, &decoded, whole.id, whole.count) == 0);
    }
    ids_free(&whole);
    ids_free(&parts);
    buf_free(&decoded);
}

void fuzz(const uint8_t *data, size_t size) {
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    size_t bytes = end ? (size_t)(end - data) : size;
    struct tokenizer *tokenizer;
    if (bytes == 0 || tokenizer_parse(&tokenizer, data, bytes) < 0) return; /* no bytes: GPT-2's */
    check_printed(tokenizer);
    for (int special = 0; end && special < 2; special++) check_text(tokenizer, end + 1, size - bytes - 1, special);
    tokenizer_close(tokenizer);
}

/* 256 bytes, some merges, and what comes before them. */
static void add_tokenizer(void (*add)(const void *, size_t), const char *pre_tokenizer, const char *normalizer) {
    static const char *const merges[] = {"t h", "th e", "\u0120 the", "a b", "ab ab", "\u00c3 \u00a9"};
    static const char text[] = "the the ab abab 123456 caf\u00e9 \u6f22 <|end|>x\n\n  y's";
    json_t *vocabulary = json_object(), *list = json_array();
    int id = 0;
    for (int b = 0; b < 256; b++) {
        uint32_t letter = byte_letters()->letter[byte_letters()->order[b]];
        char name[4] = {(char)letter};
        if (letter >= 0x80) name[0] = (char)(0xC0 | letter >> 6), name[1] = (char)(0x80 | (letter & 63));
        json_object_set_new(vocabulary, name, json_integer(id++));
    }
    for (size_t m = 0; m < sizeof merges / sizeof *merges; m++) {
        const char *space = strchr(merges[m], ' ');
        char *name = mem_format("%.*s%s", (int)(space - merges[m]), merges[m], space + 1);
        json_object_set_new(vocabulary, name, json_integer(id++));
        json_array_append_new(list, json_string(merges[m]));
        free(name);
    }
    json_t *root = json_pack("{s:s, s:o, s:o, s:{s:s, s:o, s:o}, s:[{s:i, s:s, s:b, s:b, s:b, s:b, s:b}]}", "version", "1.0", "normalizer",
                             json_loads(normalizer, JSON_DECODE_ANY, NULL), "pre_tokenizer", json_loads(pre_tokenizer, 0, NULL), "model",
                             "type", "BPE", "vocab", vocabulary, "merges", list, "added_tokens", "id", id, "content", "<|end|>", "special",
                             1, "single_word", 0, "lstrip", 0, "rstrip", 1, "normalized", 0);
    CHECK(root != NULL);
    char *printed = json_dumps(root, JSON_COMPACT);
    struct buf seed = {0};
    CHECK(buf_append(&seed, printed, strlen(printed) + 1) == 0 && buf_append(&seed, text, strlen(text)) == 0);
    struct tokenizer *tokenizer;
    if (tokenizer_parse(&tokenizer, printed, strlen(printed)) < 0) fuzz_fail("seed: %s", err_text());
    tokenizer_close(tokenizer);
    add(seed.data, seed.size);
    buf_free(&seed);
    free(printed);
    json_decref(root);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    static const char level[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}";
    static const char sequence[] =
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false,\"pattern\":{\"Regex\":"
        "\"(?i:'s|'t)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}|"
        " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s+(?!\\\\S)|\\\\s+\"}},"
        "{\"type\":\"Digits\",\"individual_digits\":true},"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}]}";
    add_tokenizer(add, level, "null");
    add_tokenizer(add, sequence, "{\"type\":\"NFC\"}");
    static const char *const texts[] = {"{}", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\"]]}}", NULL};
    fuzz_add_texts(add, texts);
}
