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
#include "tests/unit/random.h"

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

/* Ids that are multiples of a large power of two, as somebody may choose them. */
static void no_choice_of_ids_makes_merges_lie_side_by_side(void **state) {
    (void)state;
    enum { MERGES = 256, STRIDE = 1 << 10, WAY_MAX = 32 };
    struct hf_tokenizer *hf = hf_make();
    struct merge_ranks *ranks;
    for (unsigned b = 0; b < 256; b++) assert_int_equal(hf_add_bytes(hf, 1 + b, &(uint8_t){(uint8_t)b}, 1), 0);
    for (uint32_t i = 0; i < MERGES; i++) {
        const uint8_t bytes[3] = {'m', (uint8_t)i, 'x'};
        uint32_t left = (i + 1) * STRIDE, merged = left + 1;
        assert_int_equal(hf_add_bytes(hf, left, bytes, 2), 0);
        assert_int_equal(hf_add_bytes(hf, merged, bytes, 3), 0);
        assert_int_equal(hf_add_merge_of(hf, (struct hf_merge){left, hf->byte_id['x'], merged}), 0);
    }
    assert_int_equal(hf_finish(hf), 0);
    assert_int_equal(merge_ranks_open(&ranks, hf), 0);
    assert_true(merge_ranks_way(ranks) < WAY_MAX);
    merge_ranks_close(ranks), hf_close(hf);
}

static int count_tick(void *arg) { return ++*(int *)arg < 0; }

/* Ticks stand for the work: of tokens with one beginning, and of tokens each of which begins with the one before. */
static void added_tokens_cost_no_more_where_they_begin_alike(void **state) {
    (void)state;
    enum { TOKENS = 1 << 10, SIZE = 1 << 16, TICKS_MAX = 40 };
    uint8_t *text = mem_alloc(SIZE);
    for (int nested = 0; nested < 2; nested++) {
        struct hf_tokenizer *hf = hf_make();
        struct generic_tokenizer *generic;
        struct generic_encoder *encoder;
        struct buf name = {0};
        struct ids ids = {0};
        int ticks = 0;
        for (unsigned b = 0; b < 256; b++) assert_int_equal(hf_add_bytes(hf, b, &(uint8_t){(uint8_t)b}, 1), 0);
        for (uint32_t i = 0; i < TOKENS; i++) {
            if (!nested) buf_clear(&name);
            assert_int_equal(nested ? buf_append(&name, i ? "a" : "aa", i ? 1 : 2) : buf_print(&name, "a%04u", i), 0);
            assert_int_equal(hf_add_added(hf, &(struct hf_added){.id = 256 + i}, (const char *)name.data, name.size), 0);
        }
        hf->stages = 1;
        assert_int_equal(hf_finish(hf), 0);
        for (size_t i = 0; i < SIZE; i++) text[i] = "ab"[i % 2]; /* behind all of them */
        memcpy(text, nested ? "aaa " : "a0777 ", nested ? 4 : 6);
        assert_int_equal(generic_tokenizer_open(&generic, hf, false), 0);
        assert_int_equal(generic_encoder_open(&encoder, generic, false, NULL), 0);
        generic_encoder_set_tick(encoder, count_tick, &ticks);
        assert_int_equal(generic_encoder_feed(encoder, &ids, text, SIZE), 0);
        assert_int_equal(generic_encoder_finish(encoder, &ids), 0);
        assert_int_equal(ids.id[0], nested ? 257 : 256 + 777);
        if (ticks > TICKS_MAX) fail_msg("%d ticks, nested %d", ticks, nested);
        generic_encoder_close(encoder), generic_tokenizer_close(generic);
        ids_free(&ids), buf_free(&name);
    }
    free(text);
}

/* As plainly as can be: at each place the longest token that is there. */
static void the_longest_added_token_is_taken(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    for (int round = 0; round < 200; round++) {
        enum { TOKENS = 40, SIZE = 200, LONGEST = 9 };
        char token[TOKENS][LONGEST + 1], text[SIZE + 1] = "";
        struct hf_tokenizer *hf = hf_make();
        struct generic_tokenizer *generic;
        struct generic_encoder *encoder;
        struct ids ids = {0}, wanted = {0};
        uint32_t count = 0;
        for (unsigned b = 0; b < 256; b++) assert_int_equal(hf_add_bytes(hf, b, &(uint8_t){(uint8_t)b}, 1), 0);
        for (int i = 0; i < TOKENS; i++) {
            size_t size = random_in(&random, 2, LONGEST);
            for (size_t k = 0; k < size; k++) token[count][k] = (char)random_in(&random, 'a', k ? 'b' : 'c');
            token[count][size] = 0;
            if (hf_find(hf, token[count], size, true) != HF_NONE || hf_find(hf, token[count], size, false) != HF_NONE) continue;
            assert_int_equal(hf_add_added(hf, &(struct hf_added){.id = 256 + count}, token[count], size), 0);
            count++;
        }
        hf->stages = 1;
        assert_int_equal(hf_finish(hf), 0);
        for (size_t i = 0; i < SIZE; i++) text[i] = (char)random_in(&random, 'a', 'c');
        for (size_t i = 0, size; i < SIZE; i += size) {
            uint32_t id = (uint8_t)text[i];
            size = 1;
            for (uint32_t k = 0; k < count; k++)
                if (strlen(token[k]) > size && strncmp(text + i, token[k], strlen(token[k])) == 0) id = 256 + k, size = strlen(token[k]);
            assert_int_equal(ids_append(&wanted, &id, 1), 0);
        }
        assert_int_equal(generic_tokenizer_open(&generic, hf, false), 0);
        assert_int_equal(generic_encoder_open(&encoder, generic, false, NULL), 0);
        assert_int_equal(generic_encoder_feed(encoder, &ids, text, SIZE), 0);
        assert_int_equal(generic_encoder_finish(encoder, &ids), 0);
        if (ids.count != wanted.count || memcmp(ids.id, wanted.id, ids.count * sizeof *ids.id) != 0) fail_msg("round %d: %s", round, text);
        generic_encoder_close(encoder), generic_tokenizer_close(generic);
        ids_free(&ids), ids_free(&wanted);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_may_have_24_bits),
        cmocka_unit_test(a_long_pretoken_ticks_while_it_is_merged),
        cmocka_unit_test(no_choice_of_ids_makes_merges_lie_side_by_side),
        cmocka_unit_test(added_tokens_cost_no_more_where_they_begin_alike),
        cmocka_unit_test(the_longest_added_token_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
