/* GPT-2's tokenizer: ids lead back to the text with what is ill-formed replaced, in parts as at once, and a cut changes nothing. */
#include "dataset/tokenizer/tokenizer.h"

#include "tests/fuzz/fuzz.h"

static struct tokenizer *tokenizer;

static void append(struct ids *ids, const uint8_t *text, size_t size, size_t part, bool special) {
    struct encoder *encoder;
    CHECK((special ? encoder_open_special : encoder_open)(&encoder, tokenizer) == 0);
    for (size_t at = 0; at < size; at += part) CHECK(encoder_feed(encoder, ids, text + at, size - at < part ? size - at : part) == 0);
    CHECK(encoder_finish(encoder, ids) == 0);
    encoder_close(encoder);
}

static bool same(const struct ids *a, const struct ids *b) {
    return a->count == b->count && (a->count == 0 || memcmp(a->id, b->id, a->count * sizeof *a->id) == 0);
}

static void check_text(const struct ids *ids, const uint8_t *text, size_t size, size_t part) {
    struct utf8_replacer replacer = {0};
    uint8_t *valid = malloc(3 * size + 16);
    CHECK(valid != NULL);
    size_t valid_size;
    CHECK(utf8_replace(&replacer, valid, &valid_size, 3 * size + 16, text, size) == size);
    valid_size += utf8_replace_end(&replacer, valid + valid_size);

    struct buf decoded = {0}, stream = {0};
    CHECK(tokenizer_decode(tokenizer, &decoded, ids->id, ids->count) == 0);
    CHECK(decoded.size == valid_size && (valid_size == 0 || memcmp(decoded.data, valid, valid_size) == 0));
    struct text_decoder decoder = {.tokenizer = tokenizer};
    for (size_t i = 0; i < ids->count; i += part)
        CHECK(text_decoder_feed(&decoder, &stream, ids->id + i, ids->count - i < part ? ids->count - i : part) == 0);
    CHECK(text_decoder_finish(&decoder, &stream) == 0);
    CHECK(stream.size == valid_size && (valid_size == 0 || memcmp(stream.data, valid, valid_size) == 0));
    text_decoder_free(&decoder);
    buf_free(&decoded);
    buf_free(&stream);
    free(valid);
}

void fuzz(const uint8_t *data, size_t size) {
    if (!tokenizer) CHECK(tokenizer_open_gpt2(&tokenizer) == 0);
    struct fuzz_input input = {data, size};
    uint32_t options = fuzz_number(&input, 1);
    bool special = options & 1;
    size_t part = 1 + (options >> 1) % 63;
    struct ids whole = {0}, parts = {0}, halves = {0};
    CHECK(tokenizer_encode(tokenizer, &whole, input.at, input.left, special) == 0);
    CHECK(whole.count <= 3 * input.left);
    append(&parts, input.at, input.left, part, special);
    CHECK(same(&whole, &parts));
    size_t cut;
    if (!special && tokenizer_cut(tokenizer, input.at, input.left, 0, &cut)) {
        CHECK(cut > 0 && cut < input.left);
        append(&halves, input.at, cut, part, false);
        append(&halves, input.at + cut, input.left - cut, part, false);
        CHECK(same(&whole, &halves));
    }
    check_text(&whole, input.at, input.left, part);
    ids_free(&whole);
    ids_free(&parts);
    ids_free(&halves);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    static const char *const texts[] = {"\1Hello world, it's 1999!<|endoftext|> and   more\n\n text",
                                        "\2\u00e9t\u00e9 \u6f22\u5b57\u00a0 \U0001F3F3 \u3000x",
                                        "\3\xff\xfe cut \xe2\x82 \xed\xa0\x80'll 're we've I'D",
                                        "\4    leading\t\ttabs\r\nlines  ",
                                        "\5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                        "\6<|endoftext|><|endoftext",
                                        NULL};
    fuzz_add_texts(add, texts);
}
