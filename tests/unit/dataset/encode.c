/* Where a document may be cut does not depend on the chunks in which its text comes. */
#include "dataset/ingest/encode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/err.h"
#include "base/mem.h"

static void a_cut_is_found_whatever_the_chunks_before_it(void **state) {
    (void)state;
    static const char before[] = "Un caf\u00e9\U0001F600", behind[] = " au lait";
    const uint8_t *text = (const uint8_t *)before;
    struct tokenizer *tokenizer;
    assert_int_equal(tokenizer_open_gpt2(&tokenizer), 0);
    struct encode *encode = encode_open(&(struct encode_options){.tokenizer = tokenizer, .token_bytes = 2, .block_bytes = 1 << 20});
    for (size_t chunk = 1; chunk < sizeof before; chunk++) {
        size_t took = 0;
        encode_reset(encode);
        for (size_t at = 0, n; at < sizeof before - 1; at += n) {
            n = sizeof before - 1 - at < chunk ? sizeof before - 1 - at : chunk;
            encode_pass(encode, text + at, n);
        }
        assert_true(encode_seek(encode, &took, (const uint8_t *)behind, sizeof behind - 1));
        assert_int_equal(took, 0); /* before the blank, which follows a whole character */
    }
    encode_close(encode);
    tokenizer_close(tokenizer);
}

/* One whose pattern is known to nobody, so that it has to see whole documents. */
static struct tokenizer *open_without_cuts(const char *name) {
    json_error_t error;
    struct tokenizer *tokenizer = NULL;
    json_t *golden = json_load_file("tests/oracle/tokenizers.json", JSON_ALLOW_NUL, &error), *one;
    size_t i;
    json_array_foreach(json_object_get(golden, "cases"), i, one) {
        if (strcmp(json_string_value(json_object_get(one, "name")), name) != 0) continue;
        char *text = json_dumps(json_object_get(one, "tokenizer"), JSON_COMPACT);
        assert_int_equal(tokenizer_parse(&tokenizer, text, strlen(text)), 0);
        free(text);
    }
    json_decref(golden);
    assert_true(tokenizer && !tokenizer_cuts(tokenizer));
    return tokenizer;
}

static int forget(void *arg, const void *bytes, size_t size_bytes) { return (void)arg, (void)bytes, (void)size_bytes, 0; }

/* Whoever tries it gets the same: the file is at fault, so that the job is not done again and again. */
static void a_document_that_the_tokenizer_cannot_take_is_a_fault_of_the_input(void **state) {
    (void)state;
    enum { PART = 1 << 20, PARTS_MAX = 70 };
    struct tokenizer *tokenizer = open_without_cuts("an unknown pattern");
    struct encode_options options = {.tokenizer = tokenizer, .token_bytes = tokenizer_token_bytes(tokenizer), .block_bytes = 1 << 20};
    struct encode *encode = encode_open(&options);
    struct token_run_builder builder;
    struct encoder *encoder;
    uint8_t *part = mem_alloc(PART);
    memset(part, 'a', PART);
    assert_int_equal(encoder_open(&encoder, tokenizer), 0);
    token_run_builder_open(&builder, options.token_bytes);
    encode_into(encode, encoder, &builder, forget, NULL);
    token_run_builder_piece(&builder, 0, 0, 0);
    encode_begin(encode, 0);
    int code = 0;
    for (int i = 0; i < PARTS_MAX && code == 0; i++) {
        size_t took;
        bool border;
        code = encode_text(encode, &took, &border, part, PART);
    }
    assert_int_equal(code, ERR_CONFIG);
    assert_non_null(strstr(err_text(), "divide the document"));
    token_run_builder_close(&builder);
    encoder_close(encoder);
    encode_close(encode);
    tokenizer_close(tokenizer);
    free(part);
}

/* What becomes of a document: ids as they are written, and how often the one who encodes is heard of. */
struct encoding {
    struct encode *encode;
    struct encoder *encoder;
    struct token_run_builder builder;
    struct encode_options options;
    size_t ticks, ticks_left, written_bytes, written_early_bytes; /* early: before the last tick */
};
static int count_tick(void *arg) {
    struct encoding *e = arg;
    e->ticks++;
    e->written_early_bytes = e->written_bytes;
    return e->ticks_left-- == 0;
}
static int count_bytes(void *arg, const void *bytes, size_t size_bytes) {
    (void)bytes;
    ((struct encoding *)arg)->written_bytes += size_bytes;
    return 0;
}
static struct encoding *encoding_open(const struct tokenizer *tokenizer) {
    struct encoding *e = mem_alloc(sizeof *e);
    e->ticks_left = SIZE_MAX;
    e->options = (struct encode_options){.tokenizer = tokenizer, .token_bytes = tokenizer_token_bytes(tokenizer), .block_bytes = 1 << 20};
    e->options.tick = count_tick, e->options.tick_arg = e;
    e->encode = encode_open(&e->options);
    assert_int_equal(encoder_open(&e->encoder, tokenizer), 0);
    token_run_builder_open(&e->builder, e->options.token_bytes);
    encode_into(e->encode, e->encoder, &e->builder, count_bytes, e);
    token_run_builder_piece(&e->builder, 0, 0, 0);
    encode_begin(e->encode, 0);
    return e;
}
static void encoding_close(struct encoding *e) {
    token_run_builder_close(&e->builder);
    encode_close(e->encode), encoder_close(e->encoder);
    free(e);
}

/* All of it is encoded in one call when the text ends: the lease must not run out in it, and a stop must be heard. */
static void a_document_that_is_encoded_as_a_whole_ticks_and_goes_on_as_it_comes(void **state) {
    (void)state;
    enum { SIZE = 3 << 20, TICKS_MIN = SIZE / (1 << 18) };
    static const char *const names[] = {"no pattern", "an unknown pattern"};
    uint8_t *text = mem_alloc(SIZE);
    for (size_t i = 0; i < SIZE; i++) text[i] = (uint8_t)"the mill 12, "[i % 13];
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        struct tokenizer *tokenizer = open_without_cuts(names[k]);
        for (int stopped = 0; stopped < 2; stopped++) {
            struct encoding *e = encoding_open(tokenizer);
            size_t took = 0, n;
            for (bool border; took < SIZE; took += n) assert_int_equal(encode_text(e->encode, &n, &border, text + took, SIZE - took), 0);
            assert_int_equal(e->written_bytes, 0);
            e->ticks = 0;
            if (stopped) e->ticks_left = TICKS_MIN / 2;
            int code = encode_end(e->encode, true);
            assert_int_equal(code, stopped ? ERR_INTERRUPTED : 0);
            assert_true(stopped ? e->ticks == TICKS_MIN / 2 + 1 : e->ticks >= TICKS_MIN);
            if (!stopped) assert_int_equal(encode_flush(e->encode), 0);
            if (!stopped) assert_int_equal(e->written_bytes, e->builder.table.piece_tokens[0] * e->options.token_bytes);
            if (!stopped && k == 1) assert_true(e->written_early_bytes > e->written_bytes / 2);
            encoding_close(e);
        }
        tokenizer_close(tokenizer);
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_is_found_whatever_the_chunks_before_it),
        cmocka_unit_test(a_document_that_the_tokenizer_cannot_take_is_a_fault_of_the_input),
        cmocka_unit_test(a_document_that_is_encoded_as_a_whole_ticks_and_goes_on_as_it_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
