/* What a tokenizer may cost that is large or was made to cost much: ids, long pre-tokens, look-ups. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/tokenizer/generic_bpe.h"
#include "dataset/tokenizer/generic_encoder.h"
#include "dataset/tokenizer/tokenizer.h"

static void ids_may_have_24_bits(void **state) {
    (void)state;
    static const uint32_t highest[] = {65535, 65536, HF_IDS_MAX - 1, HF_IDS_MAX};
    for (size_t i = 0; i < 4; i++) { /* the last is one too many */
        struct hf_tokenizer *hf = hf_make();
        for (unsigned b = 0; b < 256; b++) assert_int_equal(hf_add_bytes(hf, b, &(uint8_t){(uint8_t)b}, 1), 0);
        int code = hf_add_token(hf, highest[i], "ab", 2);
        assert_int_equal(code, i < 3 ? 0 : ERR_LIMIT);
        if (code == 0) {
            struct buf text = {0};
            struct tokenizer *tokenizer;
            assert_int_equal(hf_add_merge(hf, "a", 1, "b", 1), 0);
            hf->stages = 1;
            assert_int_equal(hf_finish(hf), 0);
            assert_int_equal(hf_print(hf, &text), 0);
            assert_int_equal(tokenizer_parse(&tokenizer, text.data, text.size), 0);
            assert_int_equal(tokenizer_token_bytes(tokenizer), i == 0 ? 2 : 4);
            struct ids ids = {0};
            assert_int_equal(tokenizer_encode(tokenizer, &ids, "cab", 3, false), 0);
            assert_true(ids.count == 2 && ids.id[0] == 'c' && ids.id[1] == highest[i]);
            assert_int_equal(tokenizer_decode(tokenizer, &text, &(uint32_t){300}, 1), ERR_CORRUPT); /* a hole */
            ids_free(&ids), buf_free(&text), tokenizer_close(tokenizer);
        }
        hf_close(hf);
    }
}

static int stop_at_zero(void *arg) { return (*(int *)arg)-- == 0 ? ERR_INTERRUPTED : 0; }

static void a_long_pretoken_ticks_while_it_is_merged(void **state) {
    (void)state;
    enum { SIZE = 1 << 20, TICKS = 4 };
    struct hf_tokenizer *hf = hf_make();
    struct merge_ranks *ranks;
    struct generic_bpe *bpe;
    for (unsigned b = 0; b < 256; b++) assert_int_equal(hf_add_bytes(hf, b, &(uint8_t){(uint8_t)b}, 1), 0);
    assert_int_equal(hf_add_token(hf, 256, "ab", 2), 0);
    assert_int_equal(hf_add_merge(hf, "a", 1, "b", 1), 0);
    assert_int_equal(hf_finish(hf), 0);
    assert_int_equal(merge_ranks_open(&ranks, hf), 0);
    assert_int_equal(generic_bpe_open(&bpe, ranks), 0);
    uint8_t *text = mem_alloc(SIZE);
    for (size_t i = 0; i < SIZE; i++) text[i] = "ab"[i % 2];
    struct ids ids = {0};
    int left = 2 * TICKS;
    generic_bpe_set_tick(bpe, stop_at_zero, &left);
    assert_int_equal(generic_bpe_encode(bpe, &ids, text, SIZE), 0);
    assert_int_equal(ids.count, SIZE / 2);
    assert_true(2 * TICKS - left >= TICKS);
    left = TICKS - 1; /* it is stopped at the last one */
    assert_int_equal(generic_bpe_encode(bpe, &ids, text, SIZE), ERR_INTERRUPTED);
    ids_free(&ids);
    free(text);
    generic_bpe_close(bpe), merge_ranks_close(ranks), hf_close(hf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_may_have_24_bits),
        cmocka_unit_test(a_long_pretoken_ticks_while_it_is_merged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
