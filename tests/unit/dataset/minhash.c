/* MinHash: every value beside the definition told plainly, and how often bands agree beside 1 - (1 - s^r)^b. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/philox.h"
#include "dataset/filter/minhash.h"
#include "dataset/filter/policy.h"
#include "tests/unit/random.h"

/* ---- The definition, for words in ASCII ---- */

/* Hashes of the words of a text. */
static size_t words_of(uint64_t *out, const char *text) {
    size_t count = 0;
    while (*text) {
        char word[256];
        size_t bytes = 0;
        for (; *text && *text != ' '; text++) {
            char c = *text;
            if (c >= 'A' && c <= 'Z') c = (char)(c | 0x20);
            if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) word[bytes++] = c;
        }
        if (bytes) out[count++] = xxh64_of(word, bytes, 0);
        if (*text) text++;
    }
    return count;
}

static void plain_minhash(uint64_t *band, uint32_t bands, uint32_t rows, uint32_t n, const char *text) {
    uint64_t *word = mem_alloc((strlen(text) + 1) * sizeof *word);
    size_t words = words_of(word, text);
    if (words < n) n = (uint32_t)words;
    for (uint32_t k = 0; k < bands; k++) {
        int32_t row[MINHASH_ROWS_MAX];
        for (uint32_t r = 0; r < rows; r++) {
            struct philox_block random = philox(0x6D696E68617368, 0, k * rows + r);
            row[r] = INT32_MAX;
            for (size_t i = 0; i + n <= words; i++) {
                uint32_t x = (uint32_t)xxh64_of(word + i, n * sizeof *word, 0);
                int32_t h = (int32_t)((x ^ random.word[0]) * (random.word[1] | 1));
                if (h < row[r]) row[r] = h;
            }
        }
        band[k] = xxh64_of(row, rows * sizeof *row, k);
    }
    free(word);
}

static void put_words(struct buf *out, struct random *random, size_t words) {
    static const char *const shapes[] = {"%llx ", "Word%llx, ", "-- (%llX)  ", "it's%llu... "};
    for (size_t i = 0; i < words; i++)
        assert_int_equal(buf_print(out, shapes[random_in(random, 0, 3)], (unsigned long long)random_in(random, 0, 5000)), 0);
}

static void bands_are_as_defined(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    static const size_t sizes[] = {1, 2, 4, 5, 6, 1023, 1024, 1027, 1028, 1029, 1087, 1088, 1089, 2500};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint32_t bands = (uint32_t)random_in(&random, 1, 30), rows = (uint32_t)random_in(&random, 1, 10);
        uint32_t words = s % 2 ? 5 : (uint32_t)random_in(&random, 1, 64);
        struct buf text = {0};
        put_words(&text, &random, sizes[s]);
        uint64_t wanted[MINHASH_BANDS_MAX], got[MINHASH_BANDS_MAX];
        plain_minhash(wanted, bands, rows, words, (const char *)text.data);
        struct minhash *minhash = minhash_open(bands, rows, words);
        for (int again = 0; again < 2; again++) {
            minhash_of(minhash, got, text.data, text.size);
            if (memcmp(wanted, got, bands * sizeof *got) != 0)
                fail_msg("seed %llu: %zu words, %u bands of %u", (unsigned long long)random.seed, sizes[s], bands, rows);
        }
        minhash_close(minhash);
        buf_free(&text);
    }
}

/* Parts of a long word end in the middle of its characters. */
static void a_long_word_is_hashed_in_parts(void **state) {
    (void)state;
    char text[2 * 300 + 2] = "x";
    for (size_t i = 1; i < sizeof text - 1; i += 2) memcpy(text + i, "\u00e9", 2);
    uint64_t hash = 0, got;
    for (size_t at = 0, left = strlen(text), n; left > 0; at += n, left -= n) hash = xxh64_of(text + at, n = left < 256 ? left : 256, hash);
    struct philox_block random = philox(0x6D696E68617368, 0, 0);
    int32_t row = (int32_t)(((uint32_t)xxh64_of(&hash, sizeof hash, 0) ^ random.word[0]) * (random.word[1] | 1));
    struct minhash *minhash = minhash_open(1, 1, 1);
    minhash_of(minhash, &got, (const uint8_t *)text, strlen(text));
    assert_true(got == xxh64_of(&row, sizeof row, 0));
    minhash_close(minhash);
}

/* ---- What is the same and what is not ---- */

static bool same(uint32_t words, const char *one, const char *other) {
    uint64_t a[1], b[1];
    struct minhash *minhash = minhash_open(1, 8, words);
    minhash_of(minhash, a, (const uint8_t *)one, strlen(one));
    minhash_of(minhash, b, (const uint8_t *)other, strlen(other));
    minhash_close(minhash);
    return a[0] == b[0];
}

static void case_punctuation_and_space_do_not_count(void **state) {
    (void)state;
    assert_true(same(5, "One two, three - four (five) six.", "one\u3000TWO three\n\nfour  five; six"));
    assert_true(same(5, "\u00c9T\u00c9 \u0414\u041e\u041c", "\u00e9t\u00e9\u00a0\u0434\u043e\u043c"));
    assert_false(same(5, "one two three four five six", "one two three four six five"));
    assert_false(same(5, "one two", "onetwo"));
    assert_false(same(5, "\u00e9t\u00e9", "ete"));
    assert_true(same(2, "a b a b a b", "a b a b"));     /* sets of shingles, not lists */
    assert_false(same(2, "a b a b a b", "a b a"  " c"));
}

static void scripts_without_spaces_have_characters_for_words(void **state) {
    (void)state;
    assert_true(same(2, "\u6f22\u5b57\u4eee\u540d", "\u6f22 \u5b57\u3001\u4eee\u540d\u3002"));
    assert_false(same(2, "\u6f22\u5b57\u4eee\u540d", "\u6f22\u4eee\u5b57\u540d"));
}

static void texts_without_words_are_like_none_but_themselves(void **state) {
    (void)state;
    assert_true(same(5, "", ""));
    assert_true(same(5, "--- !", "--- !"));
    assert_false(same(5, "", "---"));
    assert_false(same(5, "---", "- - -"));
    assert_false(same(5, "", "a"));
}

static void a_word_of_a_megabyte_is_a_word(void **state) {
    (void)state;
    size_t bytes = 1 << 20;
    char *one = mem_alloc(bytes + 1), *other = mem_alloc(bytes + 1);
    memset(one, 'a', bytes);
    memcpy(other, one, bytes);
    assert_true(same(5, one, other));
    other[bytes - 1] = 'b';
    assert_false(same(5, one, other));
    memcpy(other, one, bytes);
    other[0] = 'b';
    assert_false(same(5, one, other));
    free(one);
    free(other);
}

/* ---- Probability ---- */

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static size_t shingles_of(uint64_t *out, const char *text, size_t n) {
    uint64_t *word = mem_alloc((strlen(text) + 1) * sizeof *word);
    size_t words = words_of(word, text), count = 0;
    for (size_t i = 0; i + n <= words; i++) out[count++] = xxh64_of(word + i, n * sizeof *word, 1);
    free(word);
    qsort(out, count, sizeof *out, compare);
    size_t unique = 0;
    for (size_t i = 0; i < count; i++)
        if (i == 0 || out[i] != out[i - 1]) out[unique++] = out[i];
    return unique;
}

static double jaccard(const char *one, const char *other, size_t n) {
    uint64_t *a = mem_alloc((strlen(one) + 1) * sizeof *a), *b = mem_alloc((strlen(other) + 1) * sizeof *b);
    size_t na = shingles_of(a, one, n), nb = shingles_of(b, other, n), both = 0;
    for (size_t i = 0, j = 0; i < na && j < nb;) {
        if (a[i] == b[j]) both++, i++, j++;
        else if (a[i] < b[j]) i++;
        else j++;
    }
    free(a);
    free(b);
    return (double)both / (double)(na + nb - both);
}

/* A text, and the same with some of its words changed, left out or moved. */
static void make_pair(struct buf *one, struct buf *other, struct random *random) {
    buf_clear(one);
    buf_clear(other);
    size_t words = random_in(random, 40, 400);
    uint64_t edits = random_in(random, 0, 80); /* of a thousand words */
    for (size_t i = 0; i < words; i++) {
        unsigned long long word = random_in(random, 0, 100000);
        assert_int_equal(buf_print(one, "w%llu ", word), 0);
        bool edited = random_in(random, 0, 999) < edits;
        if (edited && word % 3 == 0) continue;
        assert_int_equal(buf_print(other, "%s%llu ", edited && word % 3 == 1 ? "x" : "w", word), 0);
        if (edited && word % 3 == 2) assert_int_equal(buf_print(other, "more "), 0);
    }
}

/* Over many pairs, the number whose bands agree is what the formula says, within five times its standard deviation. */
static void check_probability(struct random *random, uint32_t bands, uint32_t rows, size_t pairs) {
    struct minhash *minhash = minhash_open(bands, rows, 5);
    struct buf one = {0}, other = {0};
    double expected[5] = {0}, variance[5] = {0}, found[5] = {0};
    for (size_t p = 0; p < pairs; p++) {
        make_pair(&one, &other, random);
        double s = jaccard((char *)one.data, (char *)other.data, 5), chance = 1 - pow(1 - pow(s, rows), bands);
        uint64_t a[MINHASH_BANDS_MAX], b[MINHASH_BANDS_MAX];
        minhash_of(minhash, a, one.data, one.size);
        minhash_of(minhash, b, other.data, other.size);
        bool agree = false;
        for (uint32_t k = 0; k < bands; k++) agree |= a[k] == b[k];
        int bin = s == 1 ? 4 : (int)(5 * s);
        expected[bin] += chance;
        variance[bin] += chance * (1 - chance);
        found[bin] += agree;
    }
    for (int bin = 0; bin < 5; bin++) {
        print_message("%2u bands of %u, similarity from %.1f: %6.1f pairs expected, %5.0f found\n", bands, rows, bin / 5.0, expected[bin],
                      found[bin]);
        double deviation = fabs(found[bin] - expected[bin]);
        if (deviation > 5 * sqrt(variance[bin]) + 1) fail_msg("seed %llu: too far from it", (unsigned long long)random->seed);
    }
    minhash_close(minhash);
    buf_free(&one);
    buf_free(&other);
}

static void bands_agree_as_often_as_the_formula_says(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    check_probability(&random, 14, 8, 4000);
    check_probability(&random, 1, 1, 4000);
    check_probability(&random, 20, 5, 2000);
    check_probability(&random, 64, 3, 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bands_are_as_defined),
        cmocka_unit_test(a_long_word_is_hashed_in_parts),
        cmocka_unit_test(case_punctuation_and_space_do_not_count),
        cmocka_unit_test(scripts_without_spaces_have_characters_for_words),
        cmocka_unit_test(texts_without_words_are_like_none_but_themselves),
        cmocka_unit_test(a_word_of_a_megabyte_is_a_word),
        cmocka_unit_test(bands_agree_as_often_as_the_formula_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
