/* The tokenizer against the world's cases, against the textbook, and against itself in other portions. */
#include "dataset/tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "dataset/tokenizer/pretokenize.h"
#include "dataset/tokenizer/vocabulary.h"
#include "dataset/unicode/utf8.h"
#include "tests/unit/random.h"

extern const char gpt2_vocab_bpe[], gpt2_vocab_bpe_end[];

static struct tokenizer *tokenizer;
static int open_tokenizer(void **state) {
    (void)state;
    return tokenizer_open_gpt2(&tokenizer);
}
static int close_tokenizer(void **state) {
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

static struct ids encode(const void *text, size_t size, bool special) {
    struct ids ids = {0};
    assert_int_equal(tokenizer_encode(tokenizer, &ids, text, size, special), 0);
    return ids;
}
static bool same(const struct ids *a, const struct ids *b) {
    return a->count == b->count && (a->count == 0 || memcmp(a->id, b->id, a->count * sizeof *a->id) == 0);
}

/* ---- cases from other tokenizers' test suites, where they are ---- */

static json_t *read_cases(const char *name) {
    const char *folder = getenv("MILLRACE_SHARED_DATA");
    char *path = mem_format("%s/tokenizer/%s", folder ? folder : "../shared/data", name);
    json_t *cases = json_array();
    FILE *file = fopen(path, "r");
    if (!file) {
        print_message("%s is not there (MILLRACE_SHARED_DATA names its folder)\n", path);
        free(path), json_decref(cases);
        skip();
        return NULL; /* never reached */
    }
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t size; (size = getline(&line, &capacity, file)) > 0;) {
        json_error_t error;
        json_t *one = json_loadb(line, (size_t)size, JSON_ALLOW_NUL, &error);
        if (!one) fail_msg("%s: row %zu: %s", path, json_array_size(cases) + 1, error.text);
        json_array_append_new(cases, one);
    }
    free(line), free(path), fclose(file);
    assert_true(json_array_size(cases) > 0);
    return cases;
}
static struct ids case_ids(const json_t *one) {
    struct ids ids = {0};
    size_t i;
    json_t *id;
    json_array_foreach(json_object_get(one, "ids"), i, id) ids_append(&ids, &(uint32_t){(uint32_t)json_integer_value(id)}, 1);
    return ids;
}
static struct buf case_hex(const json_t *one) {
    struct buf bytes = {0};
    const char *hex = json_string_value(json_object_get(one, "hex"));
    for (unsigned byte; hex[0] && sscanf(hex, "%2x", &byte) == 1; hex += 2) buf_append(&bytes, &(uint8_t){(uint8_t)byte}, 1);
    return bytes;
}

static void agrees_with_seven_other_tokenizers(void **state) {
    (void)state;
    json_t *cases = read_cases("tokenizer_cases.jsonl"), *one;
    size_t i;
    json_array_foreach(cases, i, one) {
        const json_t *text = json_object_get(one, "text");
        struct ids ids = encode(json_string_value(text), json_string_length(text), json_is_true(json_object_get(one, "special")));
        struct ids expected = case_ids(one);
        if (!same(&ids, &expected)) fail_msg("row %zu: other ids for: %s", i + 1, json_string_value(text));
        struct buf back = {0};
        assert_int_equal(tokenizer_decode(tokenizer, &back, ids.id, ids.count), 0);
        assert_int_equal(back.size, json_string_length(text));
        if (back.size) assert_memory_equal(back.data, json_string_value(text), back.size);
        buf_free(&back), ids_free(&ids), ids_free(&expected);
    }
    print_message("%zu texts\n", json_array_size(cases));
    json_decref(cases);
}

static void decodes_ids_to_the_known_bytes(void **state) {
    (void)state;
    json_t *cases = read_cases("decode_cases.jsonl"), *one;
    size_t i;
    json_array_foreach(cases, i, one) {
        struct ids ids = case_ids(one);
        struct buf expected = case_hex(one), bytes = {0};
        assert_int_equal(tokenizer_decode(tokenizer, &bytes, ids.id, ids.count), 0);
        if (bytes.size != expected.size || (bytes.size && memcmp(bytes.data, expected.data, bytes.size) != 0))
            fail_msg("row %zu: other bytes", i + 1);
        buf_free(&bytes), buf_free(&expected), ids_free(&ids);
    }
    json_decref(cases);
}

static void reads_ill_formed_text_as_others_do(void **state) {
    (void)state;
    json_t *cases = read_cases("invalid_utf8_cases.jsonl"), *one;
    size_t i;
    json_array_foreach(cases, i, one) {
        struct buf bytes = case_hex(one);
        struct ids expected = case_ids(one), ids = encode(bytes.data, bytes.size, false);
        if (!same(&ids, &expected)) fail_msg("row %zu: other ids for %s", i + 1, json_string_value(json_object_get(one, "hex")));
        buf_free(&bytes), ids_free(&ids), ids_free(&expected);
    }
    json_decref(cases);
}

/* ---- our own, always there ---- */

static void encodes_known_texts(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t size;
        uint32_t id[8];
        size_t count;
    } known[] = {
        {"", 0, {0}, 0},
        {" ", 1, {220}, 1},
        {"Hello world", 11, {15496, 995}, 2},
        {"\n\n\n", 3, {628, 198}, 2},
        {"a  b", 4, {64, 220, 275}, 3},
        {"F\xC3\xBChrer", 7, {37, 9116, 71, 11751}, 4},
        {"a\0b", 3, {64, 188, 65}, 3},                             /* NUL is a character like others */
        {"1 \xEF\xBB\xBF" "2", 6, {16, 27332, 119, 123, 17}, 5},      /* U+FEFF is no white space */
        {"\x80", 1, {4210}, 1},                                    /* a lone continuation byte */
        {"\xE2\x82(", 3, {4210, 7}, 2},                            /* one maximal part, one replacement */
        {"\xC0\xAF", 2, {6353}, 1},                                /* two */
        {"<|endoftext|>", 13, {27, 91, 437, 1659, 5239, 91, 29}, 7}, /* ordinary text unless asked for */
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct ids ids = encode(known[i].text, known[i].size, false), expected = {0};
        ids_append(&expected, known[i].id, known[i].count);
        if (!same(&ids, &expected)) fail_msg("text %zu", i);
        ids_free(&ids), ids_free(&expected);
    }
}

static void special_text_is_one_token_only_when_asked_for(void **state) {
    (void)state;
    static const char text[] = "a<|endoftext|><|endoftext|><|endoftext|";
    struct ids ids = encode(text, sizeof text - 1, true);
    assert_int_equal(ids.id[0], 64);
    assert_int_equal(ids.id[1], GPT2_END_OF_TEXT);
    assert_int_equal(ids.id[2], GPT2_END_OF_TEXT);
    for (size_t i = 3; i < ids.count; i++) assert_int_not_equal(ids.id[i], GPT2_END_OF_TEXT);
    ids_free(&ids);
}

static void replaced_parts_are_counted_over_texts(void **state) {
    (void)state;
    struct encoder *encoder;
    struct ids ids = {0};
    assert_int_equal(encoder_open(&encoder, tokenizer), 0);
    assert_int_equal(encoder_feed(encoder, &ids, "\xF0\x9F\x98", 3), 0);
    assert_int_equal(encoder_replaced(encoder), 0); /* the rest may still come */
    assert_int_equal(encoder_finish(encoder, &ids), 0);
    assert_int_equal(encoder_replaced(encoder), 1);
    assert_int_equal(encoder_feed(encoder, &ids, "\xF0\x9F\x98\x80\xED\xA0\x80", 7), 0);
    assert_int_equal(encoder_finish(encoder, &ids), 0);
    assert_int_equal(encoder_replaced(encoder), 4); /* a surrogate is three bytes that fit nowhere */
    ids_free(&ids), encoder_close(encoder);
}

static void id_beyond_the_vocabulary_is_refused_and_named(void **state) {
    (void)state;
    struct buf out = {0};
    const uint32_t id[] = {15496, 50257};
    assert_int_equal(tokenizer_decode(tokenizer, &out, id, 2), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "50257"));
    assert_int_equal(out.size, 0);
    assert_int_equal(tokenizer_decode(tokenizer, &out, id, 1), 0);
    assert_string_equal((char *)out.data, "Hello");
    buf_free(&out);
}

static void vocabulary_files_are_the_published_ones(void **state) {
    (void)state;
    struct buf vocab = {0}, merges = {0};
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX];
    assert_int_equal(tokenizer_print_vocab(tokenizer, &vocab), 0);
    sha256_of(digest, vocab.data, vocab.size);
    hex_of(hex, digest, sizeof digest);
    assert_string_equal(hex, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"); /* OpenAI's encoder.json */
    assert_int_equal(tokenizer_print_merges(tokenizer, &merges), 0);
    sha256_of(digest, merges.data, merges.size);
    hex_of(hex, digest, sizeof digest);
    assert_string_equal(hex, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"); /* vocab.bpe, merges.txt */
    buf_free(&vocab), buf_free(&merges);
}

static void damaged_vocabulary_is_refused(void **state) {
    (void)state;
    size_t size = (size_t)(gpt2_vocab_bpe_end - gpt2_vocab_bpe);
    struct vocabulary *vocabulary;
    assert_int_equal(vocabulary_open(&vocabulary, gpt2_vocab_bpe, size - 1), ERR_CORRUPT); /* the last line is torn */
    assert_int_equal(vocabulary_open(&vocabulary, gpt2_vocab_bpe, 5), ERR_CORRUPT);
    struct buf text = {0};
    buf_append(&text, gpt2_vocab_bpe, size);
    buf_append(&text, "a b\n", 4);
    assert_int_equal(vocabulary_open(&vocabulary, (char *)text.data, text.size), ERR_CORRUPT); /* one too many */
    text.data[sizeof "#version: 0.2\n" - 1] = 'z';
    assert_int_equal(vocabulary_open(&vocabulary, (char *)text.data, size), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "line"));
    buf_free(&text);
}

/* ---- portions ---- */

/* Text that has everything: words, contractions, kinds of white space, other scripts, ill-formed bytes. */
static struct buf random_text(struct random *random, size_t parts) {
    static const char *const part[] = {"the",
                                       " a",
                                       "'ll",
                                       "'",
                                       "'r",
                                       "e",
                                       " ",
                                       "  ",
                                       "\n",
                                       "\r\n",
                                       "\t",
                                       "\xC2\x85",
                                       "0",
                                       "1999",
                                       "\xC2\xBD",
                                       "--",
                                       " =",
                                       "\xE3\x80\x80",
                                       "\xE2\x82",
                                       "\xC3\xA9",
                                       "\xED\xA0",
                                       "\x80",
                                       "\xF0\x9F\x99\x82",
                                       "\xE6\x97\xA5",
                                       "\xF0\x9F",
                                       "\xEF\xBB\xBF",
                                       "z"};
    struct buf text = {0};
    for (size_t i = 0; i < parts; i++) {
        uint64_t kind = random_in(random, 0, 20), n = kind < 19 ? 1 : random_in(random, 1, 200);
        const char *bytes = part[random_in(random, 0, sizeof part / sizeof *part - 1)];
        for (uint64_t k = 0; k < n; k++) buf_append(&text, bytes, strlen(bytes));
        if (kind == 0) buf_append(&text, &(uint8_t){(uint8_t)random_next(random)}, 1);
    }
    return text;
}

static void any_portions_give_the_same_ids(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    struct encoder *encoder;
    assert_int_equal(encoder_open(&encoder, tokenizer), 0);
    for (int round = 0; round < 60; round++) {
        struct buf text = random_text(&random, random_in(&random, 0, round % 10 == 0 ? 30000 : 300));
        struct ids whole = encode(text.data, text.size, false), ids = {0};
        size_t most = round % 3 == 0 ? 1 : (size_t)random_in(&random, 1, 300);
        for (size_t at = 0, n; at < text.size; at += n) {
            n = (size_t)random_in(&random, 1, most);
            if (n > text.size - at) n = text.size - at;
            assert_int_equal(encoder_feed(encoder, &ids, text.data + at, n), 0);
        }
        assert_int_equal(encoder_finish(encoder, &ids), 0);
        if (!same(&ids, &whole))
            fail_msg("MILLRACE_SEED=%llu round %d: %zu and %zu ids", (unsigned long long)random.seed, round, ids.count, whole.count);
        ids_free(&ids), ids_free(&whole), buf_free(&text);
    }
    encoder_close(encoder);
}

static void text_with_replacements_decodes_to_itself(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    for (int round = 0; round < 50; round++) {
        struct buf text = random_text(&random, 500), valid = {0}, back = {0};
        for (size_t at = 0; at < text.size;) { /* the rule, one step at a time */
            int n = utf8_measure(text.data + at, text.size - at);
            if (n > 0) buf_append(&valid, text.data + at, (size_t)n);
            else buf_append(&valid, "\xEF\xBF\xBD", 3);
            at += n > 0 ? (size_t)n : n < 0 ? (size_t)-n : text.size - at;
        }
        struct ids ids = encode(text.data, text.size, false);
        assert_int_equal(tokenizer_decode(tokenizer, &back, ids.id, ids.count), 0);
        if (back.size != valid.size || (back.size && memcmp(back.data, valid.data, back.size) != 0))
            fail_msg("MILLRACE_SEED=%llu round %d", (unsigned long long)random.seed, round);
        buf_free(&text), buf_free(&valid), buf_free(&back), ids_free(&ids);
    }
}

/* ---- the pattern and the merges, told plainly ---- */

/* The pattern's alternatives in their order, on whole characters, with the backtracking that a regular expression would do. */
static size_t pattern_match(const uint32_t *c, size_t n) {
    static const char *const contractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t k = 0; k < 7; k++) {
        size_t i = 0;
        while (contractions[k][i] && i < n && c[i] == (unsigned char)contractions[k][i]) i++;
        if (!contractions[k][i]) return i;
    }
    static const enum char_class classes[] = {CHAR_LETTER, CHAR_NUMBER, CHAR_OTHER};
    for (size_t k = 0; k < 3; k++)
        for (size_t space = c[0] == ' '; space <= 1; space--) {
            size_t i = space;
            while (i < n && char_class(c[i]) == classes[k]) i++;
            if (i > space) return i;
        }
    size_t spaces = 0;
    while (spaces < n && char_class(c[spaces]) == CHAR_SPACE) spaces++;
    for (size_t i = spaces; i > 0; i--)
        if (i == n || char_class(c[i]) == CHAR_SPACE) return i; /* (?!\S) */
    return spaces;
}

static void pretokens_are_what_the_pattern_says(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    static const uint32_t character[] = {'a', 'S',  's', 't', 'r',  'e',    'v',  'l',    '\'',    '\'', ' ',
                                         ' ', '\n', '7', '-', 0x85, 0x3000, 0xE9, 0x65E5, 0x1F642, 0xBD, 0};
    for (int round = 0; round < 20000; round++) {
        uint32_t c[24];
        size_t n = (size_t)random_in(&random, 1, 24), bytes = 0, first[25];
        uint8_t text[24 * 4 + 1];
        for (size_t i = 0; i < n; i++) {
            uint32_t x = c[i] = character[random_in(&random, 0, sizeof character / sizeof *character - 1)];
            first[i] = bytes;
            if (x < 0x80) text[bytes++] = (uint8_t)x;
            else if (x < 0x800) text[bytes++] = (uint8_t)(0xC0 | x >> 6);
            else if (x < 0x10000) text[bytes++] = (uint8_t)(0xE0 | x >> 12);
            else text[bytes++] = (uint8_t)(0xF0 | x >> 18), text[bytes++] = (uint8_t)(0x80 | (x >> 12 & 63));
            if (x >= 0x800) text[bytes++] = (uint8_t)(0x80 | (x >> 6 & 63));
            if (x >= 0x80) text[bytes++] = (uint8_t)(0x80 | (x & 63));
        }
        first[n] = bytes;
        text[bytes] = PRETOKEN_SENTINEL;
        for (size_t at = 0; at < n;) {
            size_t expected = pattern_match(c + at, n - at), size = pretoken_measure(text + first[at], bytes - first[at], true);
            uint8_t begun[sizeof text]; /* what is known before the rest comes is nothing, or the same */
            size_t come = first[random_in(&random, at + 1, n)] - first[at];
            memcpy(begun, text + first[at], come), begun[come] = PRETOKEN_SENTINEL;
            size_t early = pretoken_measure(begun, come, false);
            if (size != first[at + expected] - first[at] || (early != 0 && early != size))
                fail_msg("MILLRACE_SEED=%llu round %d: character %zu of %zu", (unsigned long long)random.seed, round, at, n);
            at += expected;
        }
    }
}

/* All merges of the lowest rank, then look again: the textbook's loop. */
static size_t merge_plainly(const struct vocabulary *v, uint32_t *id, size_t n) {
    for (;;) {
        uint32_t lowest = NO_MERGE;
        for (size_t i = 0; i + 1 < n; i++) {
            uint32_t merged = vocabulary_merge(v, id[i], id[i + 1]);
            if (merged < lowest) lowest = merged;
        }
        if (lowest == NO_MERGE) return n;
        size_t count = 0;
        for (size_t i = 0; i < n; i++, count++) {
            bool here = i + 1 < n && vocabulary_merge(v, id[i], id[i + 1]) == lowest;
            id[count] = here ? lowest : id[i];
            i += here;
        }
        n = count;
    }
}

static void pretokens_of_any_length_merge_as_the_textbook_says(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    struct vocabulary *vocabulary;
    assert_int_equal(vocabulary_open(&vocabulary, gpt2_vocab_bpe, (size_t)(gpt2_vocab_bpe_end - gpt2_vocab_bpe)), 0);
    static const char *const letters[] = {"a", "ab", "the", "aAhe", "=", "-=", "*-=_.", "etaoinshrdlu", "0", "01", "0123456789"};
    for (int round = 0; round < 3000; round++) {
        const char *from = letters[random_in(&random, 0, sizeof letters / sizeof *letters - 1)];
        size_t n = (size_t)random_in(&random, 1, round % 4 == 0 ? 1500 : 90);
        char text[1500];
        uint32_t id[1500];
        for (size_t i = 0; i < n; i++)
            text[i] = from[random_in(&random, 0, strlen(from) - 1)], id[i] = vocabulary->byte_id[(uint8_t)text[i]];
        struct ids ids = encode(text, n, false), expected = {.id = id, .count = merge_plainly(vocabulary, id, n)};
        if (!same(&ids, &expected)) fail_msg("MILLRACE_SEED=%llu round %d: %zu of %s", (unsigned long long)random.seed, round, n, from);
        ids_free(&ids);
    }
    vocabulary_close(vocabulary);
}

/* ---- limits ---- */

static void pretoken_beyond_the_limit_ends_at_the_last_character_within_it(void **state) {
    (void)state;
    static const char *const unit[] = {"a", " ", "ab", "\xE6\x97\xA5", "aaaaaaaaaaaaaaaaab", "=-"};
    for (size_t k = 0; k < sizeof unit / sizeof *unit; k++) {
        struct buf text = {0};
        size_t length = strlen(unit[k]), character = k == 3 ? 3 : 1, cut = PRETOKEN_BYTES_MAX - PRETOKEN_BYTES_MAX % character;
        while (text.size < PRETOKEN_BYTES_MAX + 70000) buf_append(&text, unit[k], length);
        struct ids whole = encode(text.data, text.size, false), expected = encode(text.data, cut, false), ids = {0};
        struct ids rest = encode(text.data + cut, text.size - cut, false);
        ids_append(&expected, rest.id, rest.count);
        if (!same(&whole, &expected)) fail_msg("unit %zu: not cut at %zu", k, cut);
        struct encoder *encoder;
        assert_int_equal(encoder_open(&encoder, tokenizer), 0);
        for (size_t at = 0; at < text.size; at += 4099)
            assert_int_equal(encoder_feed(encoder, &ids, text.data + at, text.size - at < 4099 ? text.size - at : 4099), 0);
        assert_int_equal(encoder_finish(encoder, &ids), 0);
        if (!same(&whole, &ids)) fail_msg("unit %zu: portions matter", k);
        encoder_close(encoder), buf_free(&text);
        ids_free(&whole), ids_free(&expected), ids_free(&ids), ids_free(&rest);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_seven_other_tokenizers),
        cmocka_unit_test(decodes_ids_to_the_known_bytes),
        cmocka_unit_test(reads_ill_formed_text_as_others_do),
        cmocka_unit_test(encodes_known_texts),
        cmocka_unit_test(special_text_is_one_token_only_when_asked_for),
        cmocka_unit_test(replaced_parts_are_counted_over_texts),
        cmocka_unit_test(id_beyond_the_vocabulary_is_refused_and_named),
        cmocka_unit_test(vocabulary_files_are_the_published_ones),
        cmocka_unit_test(damaged_vocabulary_is_refused),
        cmocka_unit_test(any_portions_give_the_same_ids),
        cmocka_unit_test(text_with_replacements_decodes_to_itself),
        cmocka_unit_test(pretokens_are_what_the_pattern_says),
        cmocka_unit_test(pretokens_of_any_length_merge_as_the_textbook_says),
        cmocka_unit_test(pretoken_beyond_the_limit_ends_at_the_last_character_within_it),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
