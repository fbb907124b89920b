/* Many pre-tokens at a time, by each set of instructions this machine has, against one pre-token at a time and the textbook's merges. */
#include "dataset/tokenizer/pretokens.h"

#include <string.h>

#include "base/buf.h"
#include "dataset/tokenizer/bpe.h"
#include "dataset/tokenizer/pretokenize.h"
#include "dataset/tokenizer/vocabulary.h"
#include "dataset/unicode/utf8.h"
#include "tests/unit/random.h"

extern const char gpt2_vocab_bpe[], gpt2_vocab_bpe_end[];

static struct vocabulary *vocabulary;
static const struct pretoken_kernels *kernels[PRETOKEN_KERNELS_MAX];
static struct bpe_tables *tables[PRETOKEN_KERNELS_MAX];
static int sets;

static int open_tables(void **state) {
    (void)state;
    int code = vocabulary_open(&vocabulary, gpt2_vocab_bpe, (size_t)(gpt2_vocab_bpe_end - gpt2_vocab_bpe));
    sets = (int)pretoken_kernels_list(kernels);
    for (int i = 0; i < sets; i++) print_message("instructions: %s\n", kernels[i]->name);
    for (int i = 0; code == 0 && i < sets; i++) code = bpe_tables_open(&tables[i], vocabulary, kernels[i]);
    return code;
}
static int close_tables(void **state) {
    (void)state;
    for (int i = 0; i < sets; i++) bpe_tables_close(tables[i]);
    vocabulary_close(vocabulary);
    return 0;
}

/* Well-formed text of all sorts, with PRETOKENS_SLACK bytes of PRETOKEN_SENTINEL behind it, which do not count. */
static struct buf random_text(struct random *random, size_t parts) {
    static const char *const part[] = {"the",
                                       " of",
                                       "'ll",
                                       "'",
                                       "'r",
                                       "'ve",
                                       "e",
                                       "s",
                                       " ",
                                       "  ",
                                       "\n",
                                       "\r\n",
                                       "\t",
                                       "\xC2\x85", /**/
                                       "\xC2\xA0",
                                       "\xE3\x80\x80",
                                       "0",
                                       "1999",
                                       "\xC2\xBD",
                                       "--",
                                       " =",
                                       "\xC3\xA9",
                                       "\xE6\x97\xA5\xE6\x9C\xAC",
                                       "\xF0\x9F\x99\x82",
                                       "\xEF\xBB\xBF",
                                       "\xE3\x82\xAA",
                                       " antidisestablishmentarianism",
                                       "."};
    struct buf text = {0};
    for (size_t i = 0; i < parts; i++) {
        uint64_t n = random_in(random, 0, 20) < 19 ? 1 : random_in(random, 1, 100);
        const char *bytes = part[random_in(random, 0, sizeof part / sizeof *part - 1)];
        for (uint64_t k = 0; k < n; k++) buf_append(&text, bytes, strlen(bytes));
        if (random_in(random, 0, 9) == 0) buf_append(&text, &(uint8_t){(uint8_t)random_in(random, 0, 127)}, 1);
    }
    size_t size = text.size;
    for (size_t i = 0; i < PRETOKENS_SLACK; i++) buf_append(&text, &(uint8_t){PRETOKEN_SENTINEL}, 1);
    text.size = size;
    return text;
}

static void borders_are_where_one_pretoken_at_a_time_ends(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    static uint16_t border[PRETOKENS_BORDERS];
    for (int round = 0; round < 4000; round++) {
        struct buf text = random_text(&random, (size_t)random_in(&random, 1, round % 20 == 0 ? 1500 : 60));
        size_t size = text.size < PRETOKENS_TEXT_BYTES ? text.size : PRETOKENS_TEXT_BYTES;
        while (size < text.size && (text.data[size] & 0xC0) == 0x80) size--;
        bool final = size == text.size && round % 2;
        for (int set = 0; set < sets; set++) {
            size_t pretokens = kernels[set]->pretokenize(border, text.data, size, final), at = 0;
            for (size_t k = 0; k < pretokens; k++) {
                assert_int_equal(border[k], at);
                at += pretoken_measure(text.data + at, text.size - at, true);
            }
            if (pretokens > 0 && border[pretokens] != at)
                fail_msg("MILLRACE_SEED=%llu round %d, %s: %u, not %zu", (unsigned long long)random.seed, round, kernels[set]->name,
                         border[pretokens], at);
            if (final) assert_int_equal(at, size); /* all of it */
            else if (pretokens == 0)
                assert_true(pretoken_measure(text.data, text.size, true) + 16 > size); /* what is near the end is left */
        }
        buf_free(&text);
    }
}

static void text_whose_pretokens_are_longer_than_it_has_none(void **state) {
    (void)state;
    static uint8_t text[PRETOKENS_TEXT_BYTES + PRETOKENS_SLACK];
    static uint16_t border[PRETOKENS_BORDERS];
    memset(text, 'a', PRETOKENS_TEXT_BYTES);
    memset(text + PRETOKENS_TEXT_BYTES, PRETOKEN_SENTINEL, PRETOKENS_SLACK);
    for (int set = 0; set < sets; set++) {
        assert_int_equal(kernels[set]->pretokenize(border, text, PRETOKENS_TEXT_BYTES, false), 0);
        assert_int_equal(kernels[set]->pretokenize(border, text, PRETOKENS_TEXT_BYTES, true), 1);
        assert_int_equal(border[1], PRETOKENS_TEXT_BYTES);
        assert_int_equal(kernels[set]->pretokenize(border, text + PRETOKENS_TEXT_BYTES - 1, 1, true), 1);
    }
}

/* All merges of the lowest rank, then look again: the textbook's loop. */
static size_t merge_plainly(uint32_t *id, const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) id[i] = vocabulary->byte_id[bytes[i]];
    for (;;) {
        uint32_t lowest = NO_MERGE;
        for (size_t i = 0; i + 1 < n; i++) {
            uint32_t merged = vocabulary_merge(vocabulary, id[i], id[i + 1]);
            if (merged < lowest) lowest = merged;
        }
        if (lowest == NO_MERGE) return n;
        size_t count = 0;
        for (size_t i = 0; i < n; i++, count++) {
            bool here = i + 1 < n && vocabulary_merge(vocabulary, id[i], id[i + 1]) == lowest;
            id[count] = here ? lowest : id[i];
            i += here;
        }
        n = count;
    }
}

static void each_tokens_bytes_merge_into_it(void **state) {
    (void)state;
    for (uint32_t id = 0; id < GPT2_END_OF_TEXT; id++) {
        uint32_t merged[VOCABULARY_TOKEN_BYTES_MAX];
        uint8_t bytes[VOCABULARY_TOKEN_BYTES_MAX + PRETOKENS_SLACK] = {0};
        size_t size = vocabulary->length[id];
        memcpy(bytes, vocabulary->text.data + vocabulary->first[id], size);
        assert_int_equal(merge_plainly(merged, bytes, size), 1);
        assert_int_equal(merged[0], id);
        for (int set = 0; size <= PRETOKENS_KNOWN_BYTES && set < sets; set++) {
            assert_int_equal(bpe_tables_token(tables[set], bytes, size), bytes[size - 1] == 0xFF ? TOKEN_NONE : id);
            assert_int_equal(kernels[set]->merge(merged, &tables[set]->merges, bytes, size), 1);
            assert_int_equal(merged[0], id);
        }
    }
    assert_int_equal(bpe_tables_token(tables[0], (const uint8_t *)"zqzq                                 ", 4), TOKEN_NONE);
}

static void short_pretokens_merge_as_the_textbook_says(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    static const char *const letters[] = {"a",       "ab",   "the",        "etaoinshrdlu",
                                          " etaoin", "=-*.", "0123456789", "\xE3\x83\x81\xE6\x97\xA5\xA5"};
    for (int round = 0; round < 200000; round++) {
        const char *from = letters[random_in(&random, 0, sizeof letters / sizeof *letters - 1)];
        uint8_t pretoken[PRETOKENS_KNOWN_BYTES];
        uint32_t expected[PRETOKENS_KNOWN_BYTES], id[PRETOKENS_KNOWN_BYTES];
        size_t size = (size_t)random_in(&random, 1, PRETOKENS_KNOWN_BYTES);
        for (size_t i = 0; i < size; i++) pretoken[i] = (uint8_t)from[random_in(&random, 0, strlen(from) - 1)];
        size_t count = merge_plainly(expected, pretoken, size);
        for (int set = 0; set < sets; set++)
            if (kernels[set]->merge(id, &tables[set]->merges, pretoken, size) != count || memcmp(id, expected, count * sizeof *id) != 0)
                fail_msg("MILLRACE_SEED=%llu round %d, %s", (unsigned long long)random.seed, round, kernels[set]->name);
    }
}

/* The same encoder for all texts, so that its tables fill, grow and forget. */
static void any_text_is_encoded_as_the_textbook_says(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    static uint16_t border[PRETOKENS_BORDERS];
    static uint32_t id[PRETOKENS_TEXT_BYTES + PRETOKENS_IDS_SLACK], expected[PRETOKENS_TEXT_BYTES];
    struct bpe *bpe[PRETOKEN_KERNELS_MAX];
    for (int set = 0; set < sets; set++) assert_int_equal(bpe_open(&bpe[set], vocabulary, tables[set]), 0);
    for (int round = 0; round < 1500; round++) {
        struct buf text = random_text(&random, 250);
        size_t size = text.size < PRETOKENS_TEXT_BYTES ? text.size : PRETOKENS_TEXT_BYTES, expected_count = 0;
        while (size < text.size && (text.data[size] & 0xC0) == 0x80) size--;
        size_t pretokens = kernels[0]->pretokenize(border, text.data, size, size == text.size);
        for (size_t k = 0; k < pretokens; k++)
            expected_count += merge_plainly(expected + expected_count, text.data + border[k], (size_t)border[k + 1] - border[k]);
        for (int set = 0; set < sets; set++) {
            size_t count;
            assert_int_equal(bpe_encode_pretokens(bpe[set], id, &count, text.data, border, pretokens), 0);
            if (count != expected_count || memcmp(id, expected, count * sizeof *id) != 0)
                fail_msg("MILLRACE_SEED=%llu round %d, %s", (unsigned long long)random.seed, round, kernels[set]->name);
        }
        buf_free(&text);
    }
    for (int set = 0; set < sets; set++) bpe_close(bpe[set]);
}

static void a_pretoken_of_zeros_is_not_a_free_place(void **state) {
    (void)state;
    static const uint8_t zeros[64 + PRETOKENS_SLACK];
    for (size_t size = 1; size <= 64; size++)
        for (int set = 0; set < sets; set++) {
            struct bpe *bpe;
            uint32_t id[64 + PRETOKENS_IDS_SLACK];
            assert_int_equal(bpe_open(&bpe, vocabulary, tables[set]), 0);
            for (int again = 0; again < 2; again++) {
                size_t count;
                assert_int_equal(bpe_encode_pretokens(bpe, id, &count, zeros, (const uint16_t[]){0, (uint16_t)size}, 1), 0);
                assert_int_equal(count, size); /* no merge has a NUL */
                assert_int_equal(id[size - 1], vocabulary->byte_id[0]);
            }
            bpe_close(bpe);
        }
}

/* What makes merging slow, a hundred thousand bytes of it. */
static void long_worst_cases_merge_as_the_textbook_says(void **state) {
    (void)state;
    static const char *const unit[] = {
        "a", "ab", "aab", "abcabd", "=-", "the", "\xE6\x97\xA5", "0", "aaaaaaaaaaaaaaaab", "\xE3\x82\xAA\xE3\x83\xBC"};
    enum { SIZE = 100002 };
    uint8_t *text = calloc(1, SIZE + PRETOKENS_SLACK);
    uint32_t *id = calloc(SIZE + PRETOKENS_IDS_SLACK, sizeof *id), *expected = calloc(SIZE, sizeof *id);
    assert_true(text && id && expected);
    for (size_t k = 0; k < sizeof unit / sizeof *unit; k++) {
        for (size_t i = 0; i < SIZE; i++) text[i] = (uint8_t)unit[k][i % strlen(unit[k])];
        size_t count, expected_count = merge_plainly(expected, text, SIZE);
        for (int set = 0; set < sets; set++) {
            struct bpe *bpe;
            assert_int_equal(bpe_open(&bpe, vocabulary, tables[set]), 0);
            assert_int_equal(bpe_encode(bpe, id, &count, text, SIZE), 0);
            bpe_close(bpe);
            if (count != expected_count || memcmp(id, expected, count * sizeof *id) != 0) fail_msg("%s, %s", unit[k], kernels[set]->name);
        }
    }
    free(text), free(id), free(expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(borders_are_where_one_pretoken_at_a_time_ends),
        cmocka_unit_test(text_whose_pretokens_are_longer_than_it_has_none),
        cmocka_unit_test(each_tokens_bytes_merge_into_it),
        cmocka_unit_test(short_pretokens_merge_as_the_textbook_says),
        cmocka_unit_test(any_text_is_encoded_as_the_textbook_says),
        cmocka_unit_test(a_pretoken_of_zeros_is_not_a_free_place),
        cmocka_unit_test(long_worst_cases_merge_as_the_textbook_says),
    };
    return cmocka_run_group_tests(tests, open_tables, close_tables);
}
