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
static struct tokenizer *open_without_cuts(void) {
    json_error_t error;
    struct tokenizer *tokenizer = NULL;
    json_t *golden = json_load_file("tests/oracle/tokenizers.json", JSON_ALLOW_NUL, &error), *one;
    size_t i;
    json_array_foreach(json_object_get(golden, "cases"), i, one) {
        if (strcmp(json_string_value(json_object_get(one, "name")), "an unknown pattern") != 0) continue;
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
    struct tokenizer *tokenizer = open_without_cuts();
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_is_found_whatever_the_chunks_before_it),
        cmocka_unit_test(a_document_that_the_tokenizer_cannot_take_is_a_fault_of_the_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
