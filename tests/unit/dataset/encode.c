/* Where a document may be cut does not depend on the chunks in which its text comes. */
#include "dataset/ingest/encode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_is_found_whatever_the_chunks_before_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
