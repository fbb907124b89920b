/* The text policy: every step at its borders, and random and real documents beside a plain reading of the rules (policy_oracle.py). */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/filter/policy.h"
#include "tests/unit/random.h"

static struct verdict judge_bytes(const struct policy_options *options, const void *text, size_t bytes, struct policy **out) {
    struct verdict verdict;
    assert_int_equal(policy_open(out, options), 0);
    assert_int_equal(policy_judge(*out, &verdict, text, bytes), 0);
    return verdict;
}

/* The reason a text is left out for; "": it is kept. */
static const char *reason_of(const struct policy_options *options, const char *text) {
    static struct verdict verdict;
    struct policy *policy;
    verdict = judge_bytes(options, text, strlen(text), &policy);
    policy_close(policy);
    assert_true(verdict.kept == (verdict.reason[0] == 0) && (verdict.reason[0] == 0) == (verdict.detail[0] == 0));
    return verdict.reason;
}

static void assert_text(const struct policy_options *options, const char *text, const char *wanted) {
    struct policy *policy;
    struct verdict verdict = judge_bytes(options, text, strlen(text), &policy);
    assert_true(verdict.kept);
    assert_int_equal(verdict.bytes, strlen(wanted));
    assert_memory_equal(verdict.text, wanted, verdict.bytes);
    policy_close(policy);
}

/* ---- UTF-8 ---- */

static const char BROKEN[] = "good \xff\xfe bad \xe2\x82 cut \xed\xa0\x80 \xf0\x9f";

static void ill_formed_text_is_replaced_and_counted(void **state) {
    (void)state;
    struct policy_options options = {0};
    struct policy *policy;
    struct verdict verdict = judge_bytes(&options, BROKEN, strlen(BROKEN), &policy);
    const char *wanted = "good \uFFFD\uFFFD bad \uFFFD cut \uFFFD\uFFFD\uFFFD \uFFFD";
    assert_true(verdict.kept && verdict.replaced == 7 && verdict.bytes == strlen(wanted));
    assert_memory_equal(verdict.text, wanted, verdict.bytes);
    assert_int_equal(policy_judge(policy, &verdict, "well\0formed \u20ac", 15), 0);
    assert_true(verdict.kept && verdict.replaced == 0 && verdict.bytes == 15);
    policy_close(policy);
}

static void ill_formed_text_is_left_out_or_refused_with_its_place(void **state) {
    (void)state;
    struct policy_options options = {.invalid_utf8 = UTF8_DROP};
    struct policy *policy;
    struct verdict verdict = judge_bytes(&options, BROKEN, strlen(BROKEN), &policy);
    assert_false(verdict.kept);
    assert_string_equal(verdict.reason, "invalid_utf8");
    assert_string_equal(verdict.detail, "byte 5 (0xFF) is not UTF-8");
    policy_close(policy);
    assert_string_equal(reason_of(&options, "\U0001F3F3 whole"), "");

    options.invalid_utf8 = UTF8_REFUSE;
    assert_int_equal(policy_open(&policy, &options), 0);
    assert_int_equal(policy_judge(policy, &verdict, "caf\xe9", 4), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "byte 3 of a document (0xE9) is not UTF-8"));
    assert_int_equal(policy_judge(policy, &verdict, "cut \xe2\x82", 6), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "byte 4 of"));
    assert_int_equal(policy_judge(policy, &verdict, "", 0), 0);
    assert_true(verdict.kept && verdict.bytes == 0);
    policy_close(policy);
}

static void text_may_go_in_parts_only_where_nothing_needs_the_whole(void **state) {
    (void)state;
    const struct policy_options all[] = {
        {.invalid_utf8 = UTF8_DROP}, {.invalid_utf8 = UTF8_REFUSE}, {.normalization = NORMALIZE_NFC}, {.min_characters = 1},
        {.max_characters = 1}, {.filter[FILTER_GOPHER_QUALITY] = true}, {.filter[FILTER_GOPHER_REPETITION] = true},
        {.filter[FILTER_C4] = true}, {.minhash_bands = 1, .minhash_rows = 1, .minhash_words = 1}, {.invalid_utf8 = UTF8_REPLACE},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct policy *policy;
        assert_int_equal(policy_open(&policy, &all[i]), 0);
        assert_true(policy_sees_whole(policy) == (i + 1 < sizeof all / sizeof *all));
        policy_close(policy);
    }
}

/* ---- Normalization and lengths ---- */

static void normalization_is_of_the_form_asked_for_and_nothing_else(void **state) {
    (void)state;
    const char *text = "e\u0301 \u212B \uFB01 \uAC01 \u1E9B\u0323 \u00AD\u200B\r\n\t\u0958 \u2126";
    const char *const wanted[] = {text,
                                  "\u00E9 \u00C5 \uFB01 \uAC01 \u1E9B\u0323 \u00AD\u200B\r\n\t\u0915\u093C \u03A9",
                                  "e\u0301 A\u030A \uFB01 \u1100\u1161\u11A8 \u017F\u0323\u0307 \u00AD\u200B\r\n\t\u0915\u093C \u03A9",
                                  "\u00E9 \u00C5 fi \uAC01 \u1E69 \u00AD\u200B\r\n\t\u0915\u093C \u03A9",
                                  "e\u0301 A\u030A fi \u1100\u1161\u11A8 s\u0323\u0307 \u00AD\u200B\r\n\t\u0915\u093C \u03A9"};
    for (int form = NORMALIZE_NONE; form <= NORMALIZE_NFKD; form++) {
        struct policy_options options = {.normalization = (enum normalization)form};
        assert_text(&options, text, wanted[form]);
        assert_text(&options, "", "");
    }
}

static void a_text_that_grows_beyond_the_limit_is_left_out(void **state) {
    (void)state;
    size_t bytes = POLICY_DOCUMENT_BYTES_MAX / 11 / 3 * 3; /* U+FDFA becomes 33 bytes: eleven times as much */
    char *text = mem_alloc(bytes + 3);
    for (size_t i = 0; i < bytes + 3; i++) text[i] = "\uFDFA"[i % 3];
    struct policy_options options = {.normalization = NORMALIZE_NFKC};
    struct policy *policy;
    struct verdict verdict = judge_bytes(&options, text, bytes, &policy);
    assert_true(verdict.kept && verdict.bytes == 11 * bytes);
    assert_int_equal(policy_judge(policy, &verdict, text, bytes + 3), 0);
    assert_false(verdict.kept);
    assert_string_equal(verdict.reason, "too_long");
    policy_close(policy);
    free(text);
}

/* The limit is one of what comes out, to the byte, whatever room is wanted on the way. */
static void a_text_that_is_replaced_up_to_the_limit_is_kept(void **state) {
    (void)state;
    enum { MAX = POLICY_DOCUMENT_BYTES_MAX };
    static const struct {
        size_t bytes, ill_formed_at; /* one byte of it becomes three */
    } cases[] = {{MAX - 6, 0}, {MAX - 2, 0}, {MAX - 2, MAX - 3}, {MAX - 1, 0}, {MAX - 1, MAX - 2}, {MAX, 0}};
    char *text = mem_alloc(MAX);
    struct policy_options options = {0};
    struct policy *policy;
    assert_int_equal(policy_open(&policy, &options), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct verdict verdict;
        bool fits = cases[i].bytes + 2 <= MAX;
        memset(text, 'a', MAX);
        text[cases[i].ill_formed_at] = (char)0xE6; /* begins a character, which the text's end may cut off */
        assert_int_equal(policy_judge(policy, &verdict, text, cases[i].bytes), 0);
        if (verdict.kept != fits) fail_msg("case %zu: %s", i, verdict.reason);
        if (fits) assert_true(verdict.bytes == cases[i].bytes + 2 && verdict.replaced == 1);
        else assert_string_equal(verdict.reason, "too_long");
    }
    policy_close(policy);
    free(text);
}

/* Marks in a row, those of two classes in turn: what makes a plain sort quadratic. */
static void a_megabyte_of_marks_is_put_in_order(void **state) {
    (void)state;
    size_t pairs = 1 << 18;
    char *text = mem_alloc(4 * pairs + 1), *wanted = mem_alloc(4 * pairs + 1);
    for (size_t i = 0; i < pairs; i++) memcpy(text + 4 * i, "\u0301\u0323", 4);
    for (size_t i = 0; i < 2 * pairs; i++) memcpy(wanted + 2 * i, i < pairs ? "\u0323" : "\u0301", 2);
    struct policy_options options = {.normalization = NORMALIZE_NFD};
    assert_text(&options, text, wanted);
    free(text);
    free(wanted);
}

static void lengths_are_counted_in_characters_after_normalization(void **state) {
    (void)state;
    struct policy_options options = {.min_characters = 3, .max_characters = 4};
    assert_string_equal(reason_of(&options, "\u00e4\U0001F3F3"), "min_characters");
    assert_string_equal(reason_of(&options, "\u00e4\U0001F3F3x"), "");
    assert_string_equal(reason_of(&options, "\u00e4\U0001F3F3xy"), "");
    assert_string_equal(reason_of(&options, "\u00e4\U0001F3F3xyz"), "max_characters");
    assert_string_equal(reason_of(&options, ""), "min_characters");
    options.normalization = NORMALIZE_NFD;
    assert_string_equal(reason_of(&options, "\u00e4\U0001F3F3xy"), "max_characters");
}

/* ---- Filters at their borders ---- */

static struct buf made;
static const char *repeated(const char *text, int times) {
    for (int i = 0; i < times; i++) assert_int_equal(buf_print(&made, "%s", text), 0);
    return (const char *)made.data;
}
static const char *only(const char *text, int times) {
    buf_clear(&made);
    return repeated(text, times);
}

static void gopher_s_quality_rules_hold_at_their_borders(void **state) {
    (void)state;
    struct policy_options options = {.filter[FILTER_GOPHER_QUALITY] = true};
    only("that with ", 24);
    assert_string_equal(reason_of(&options, repeated("end", 1)), "gopher_quality: words");
    assert_string_equal(reason_of(&options, repeated(" it", 1)), "");
    assert_string_equal(reason_of(&options, only("to of that ", 33334)), "gopher_quality: words");
    assert_string_equal(reason_of(&options, only("with that ", 50000)), ""); /* 100,000 words */
    assert_string_equal(reason_of(&options, only("to that of ", 33333)), "gopher_quality: word_length"); /* 8 characters in 3 words */
    assert_string_equal(reason_of(&options, only("the and ", 30)), "");
    assert_string_equal(reason_of(&options, (repeated("to ", 1))), "gopher_quality: word_length");
    only("with have ", 5);
    assert_string_equal(reason_of(&options, repeated("elevenchars", 1)), "gopher_quality: words");
    only("the and ", 1);
    assert_string_equal(reason_of(&options, repeated("tencharact ", 48)), "");
    only("that have ", 10);
    assert_string_equal(reason_of(&options, repeated("elevenchars ", 1000)), "gopher_quality: word_length");
    only("with have ", 40);
    assert_string_equal(reason_of(&options, repeated("1234 ", 20)), "");
    assert_string_equal(reason_of(&options, repeated("1234 ", 1)), "gopher_quality: letters");
    only("words ", 60);
    assert_string_equal(reason_of(&options, repeated("have ", 5)), "gopher_quality: stop_words");
    assert_string_equal(reason_of(&options, repeated("The that, ", 1)), "gopher_quality: stop_words");
    assert_string_equal(reason_of(&options, repeated("that", 1)), "");
    only("with have ", 45);
    assert_string_equal(reason_of(&options, repeated("###x ", 3)), "");
    assert_string_equal(reason_of(&options, repeated("##x", 1)), "gopher_quality: hashes");
    only("with have ", 45);
    assert_string_equal(reason_of(&options, repeated("....... \u2026 end ", 3)), "");
    assert_string_equal(reason_of(&options, repeated("....... \u2026 end ", 1)), "gopher_quality: ellipses");
    only("with that have\n", 2);
    assert_string_equal(reason_of(&options, repeated("  -with that have\n", 18)), "");
    assert_string_equal(reason_of(&options, repeated("\u2022with that have", 1)), "gopher_quality: bullets");
    only("with that have of\n", 14);
    assert_string_equal(reason_of(&options, repeated("with that have of...\n", 6)), "");
    assert_string_equal(reason_of(&options, repeated("with that have of\u2026\r\n", 1)), "gopher_quality: ellipsis_lines");
    buf_free(&made);
}

static void gopher_s_repetition_rules_hold_at_their_borders(void **state) {
    (void)state;
    struct policy_options options = {.filter[FILTER_GOPHER_REPETITION] = true};
    assert_string_equal(reason_of(&options, ""), "");
    assert_string_equal(reason_of(&options, "two words"), "");
    assert_string_equal(reason_of(&options, "once\n\ntwice\n\nonce\n\n"), "gopher_repetition: paragraphs");
    assert_string_equal(reason_of(&options, "once\ntwice\nonce\n"), "gopher_repetition: lines");
    assert_string_equal(reason_of(&options, "a\nb\nc\nd\ne\nf\ng\nc\na\ne\n"), ""); /* 3 of 10 */
    assert_string_equal(reason_of(&options, "a\nb\nc\nd\ne\nf\ng\nc\r\n\n \na\ne\n b\n"), "gopher_repetition: lines");
    assert_string_equal(reason_of(&options, "a long line of words\nb\nc\nd\ne\nf\na long line of words\n"),
                        "gopher_repetition: line_characters");
    assert_string_equal(reason_of(&options, "a b c d e f g h i j k l a b m n o"), ""); /* 6 of 33 characters are "a b" */
    assert_string_equal(reason_of(&options, "a b c d e f g h i j k l a b"), "gopher_repetition: top_2_gram"); /* 6 of 27 */
    assert_string_equal(reason_of(&options, "a b c d e f g h i j k l m a b c"), "gopher_repetition: top_3_gram"); /* 10 of 31 */
    assert_string_equal(reason_of(&options, "a b c d lengthy words e f a b g h lengthy words"), ""); /* of two as often the first counts */
    assert_string_equal(reason_of(&options, "c d lengthy words a b e f lengthy words g h a b"), "gopher_repetition: top_2_gram");
    buf_free(&made);
}

static int count_tick(void *arg) { return --*(int *)arg == 0; }

/* Words of one letter are the slowest that there is. */
static void a_long_document_ticks_and_can_be_stopped_anywhere(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    const size_t bytes = 2 << 20;
    uint8_t *text = mem_alloc(bytes);
    for (size_t i = 0; i < bytes; i += 2) text[i] = (uint8_t)random_in(&random, '!', '~'), text[i + 1] = ' ';
    int left = INT_MAX;
    struct policy_options options = {.filter[FILTER_GOPHER_REPETITION] = true, .tick = count_tick, .tick_arg = &left};
    struct policy *policy;
    struct verdict verdict = judge_bytes(&options, text, bytes, &policy);
    assert_true(verdict.kept);
    const int ticks = INT_MAX - left;
    print_message("%d ticks\n", ticks);
    assert_true(ticks >= 12);
    for (int stop = 1; stop <= ticks; stop++) {
        left = stop;
        assert_int_equal(policy_judge(policy, &verdict, text, bytes), ERR_INTERRUPTED);
        assert_int_equal(left, 0);
    }
    left = ticks + 1;
    assert_int_equal(policy_judge(policy, &verdict, text, bytes), 0);
    assert_true(verdict.kept);
    policy_close(policy);
    free(text);
}

static void c_4_keeps_the_lines_that_are_sentences(void **state) {
    (void)state;
    struct policy_options options = {.filter[FILTER_C4] = true};
    assert_text(&options,
                "A title without a mark\n  This line has got five words.  \r\nOnly four words here.\n"
                "Is this one kept too[12], now?[edit] \nPlease turn JavaScript on for this.\nWe have a Privacy Policy for you.\n"
                "The end of it is open...\n"
                "She said \"it is enough for me\"\nOne. Two! Three four five (six).\n",
                "This line has got five words.\nIs this one kept too, now?\nShe said \"it is enough for me\"\n"
                "One. Two! Three four five (six).");
    assert_string_equal(reason_of(&options, "This is the one sentence here. And this is the second."), "c4: sentences");
    assert_string_equal(reason_of(&options, "This is the one sentence here. And this is the second. A third."), "");
    assert_string_equal(reason_of(&options, "The U.S. Army of J. Smith, e.g. this one. And a second."), "c4: sentences");
    assert_string_equal(reason_of(&options, "Five words are in it. And here. And there. {"), "c4: curly_bracket");
    assert_string_equal(reason_of(&options, "Five words are in it. And here. And there.\nLorem Ipsum"), "c4: lorem_ipsum");
    assert_string_equal(reason_of(&options, ""), "c4: sentences");
}

/* ---- Beside a plain reading of the rules ---- */

enum { RANDOM_DOCUMENTS = 3000, MODES = 7 };

static uint32_t random_character(struct random *random) {
    static const uint32_t ranges[][2] = {{0x20, 0x7E},     {0xA0, 0x17F},     {0x300, 0x36F},   {0x591, 0x5C7},   {0x900, 0x94D},
                                         {0x1100, 0x11FF}, {0x1E00, 0x1FFF},  {0x3040, 0x30FF}, {0xAC00, 0xD7A3}, {0xF900, 0xFDFF},
                                         {0xFE20, 0xFFEF}, {0x1D157, 0x1D1E8}, {0x2F800, 0x2FA1D}, {1, 0xD7FF},   {0x300, 0x330}};
    for (;;) {
        size_t r = random_in(random, 0, sizeof ranges / sizeof *ranges - 1);
        uint32_t c = (uint32_t)random_in(random, ranges[r][0], ranges[r][1]);
        if (c != 0xCF3 && c != 0xECE) return c; /* Unicode 15; Python 3.11 has 14 */
    }
}

static void put_character(struct buf *out, uint32_t c) {
    uint8_t bytes[4];
    size_t size = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t first[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = size; i-- > 1; c >>= 6) bytes[i] = 0x80 | (c & 0x3F);
    bytes[0] = (uint8_t)(first[size] | c);
    assert_int_equal(buf_append(out, bytes, size), 0);
}

/* Words from few to many, so that all rules have something to find. */
static void put_random_document(struct buf *out, struct random *random) {
    static const char *const parts[] = {"the", "be", "to", "of", "and", "that", "have", "with", "The", "that,", "#", "##tag", "...",
                                        "more...", "\u2026", "-", "\u2022", "* x", "1999", "word", "Words", "antidisestablishment",
                                        "\u00e9t\u00e9", "\u6f22\u5b57", "end.", "so!", "(why?)", "\u201cyes.\u201d", "[1]",
                                        "[edit]", "e.g.", "U.S.", "J.",
                                        "JavaScript", "use cookies", "\u00a0", "x\u3000y", "[12", "said.\"", "...\""};
    size_t kinds = random_in(random, 2, sizeof parts / sizeof *parts), words = random_in(random, 0, 300);
    uint64_t breaks = random_in(random, 3, 30), fresh = random_in(random, 0, 9), ends = random_in(random, 0, 1);
    for (size_t w = 0; w < words; w++) {
        if (random_in(random, 0, 9) < fresh)
            assert_int_equal(buf_print(out, "w%llx%s", (unsigned long long)random_in(random, 0, 9999), ends ? "." : ""), 0);
        else assert_int_equal(buf_print(out, "%s", parts[random_in(random, 0, kinds - 1)]), 0);
        if (random_in(random, 0, breaks) == 0) assert_int_equal(buf_print(out, "%s", ends ? "." : ""), 0);
        static const char *const line_ends[] = {"\n", "\n\n", "\r\n", "\n\n\n", " \n", "\n \n"};
        if (random_in(random, 0, breaks) == 0) assert_int_equal(buf_print(out, "%s", line_ends[random_in(random, 0, 5)]), 0);
        else assert_int_equal(buf_append(out, " ", 1), 0);
    }
}

static void put_random_characters(struct buf *out, struct random *random) {
    size_t length = random_in(random, 0, 300);
    for (size_t i = 0; i < length; i++) put_character(out, random_character(random));
}

/* Leading consonants, vowels, finals and syllables of Hangul, each of them the first, the last, or one beside those, in threes. */
static void put_hangul(struct buf *out) {
    static const uint32_t letters[] = {0x10FF, 0x1100, 0x1112, 0x1113, 0x1160, 0x1161, 0x1175, 0x1176, 0x11A6, 0x11A7, 0x11A8, 0x11C2,
                                       0x11C3, 0xABFF, 0xAC00, 0xAC01, 0xAC1B, 0xAC1C, 0xD788, 0xD789, 0xD7A3, 0xD7A4, 0x301};
    enum { LETTERS = sizeof letters / sizeof *letters };
    for (size_t i = 0; i < LETTERS * LETTERS * LETTERS; i++) {
        put_character(out, letters[i / LETTERS / LETTERS]);
        put_character(out, letters[i / LETTERS % LETTERS]);
        put_character(out, letters[i % LETTERS]);
        assert_int_equal(buf_append(out, "x", i % 2), 0); /* and runs of six */
    }
    assert_int_equal(buf_append(out, "", 1), 0);
}

static size_t put_documents(struct buf *out, struct random *random) {
    static const char *const real[] = {"README.md", "CONTRIBUTING.md", "docs/ARCHITECTURE.md", "docs/FORMATS.md", "docs/PROTOCOL.md",
                                       "docs/CONFIG.md", "LICENSE"};
    size_t documents = 0;
    for (size_t i = 0; i < sizeof real / sizeof *real; i++, documents++) {
        assert_int_equal(file_read(out, real[i], 1 << 20), 0);
        assert_int_equal(buf_append(out, "", 1), 0);
    }
    put_hangul(out), documents++;
    for (; documents < RANDOM_DOCUMENTS; documents++) {
        if (documents % 3 == 0) put_random_characters(out, random);
        else put_random_document(out, random);
        assert_int_equal(buf_append(out, "", 1), 0);
    }
    return documents;
}

static void rules_and_forms_agree_with_a_plain_reading(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    struct buf given = {0}, wanted = {0};
    size_t documents = put_documents(&given, &random);
    char folder[] = "/tmp/millrace-policy-XXXXXX", command[512];
    assert_non_null(mkdtemp(folder));
    char *in = mem_format("%s/in", folder), *out = mem_format("%s/out", folder);
    assert_int_equal(file_publish(in, given.data, given.size), 0);
    snprintf(command, sizeof command, "/usr/bin/python3 -B tests/unit/dataset/policy_oracle.py %s %s", in, out);
    assert_int_equal(system(command), 0);
    assert_int_equal(file_read(&wanted, out, 1 << 30), 0);
    assert_int_equal(folder_remove(folder), 0);

    struct policy *policy[MODES];
    for (int m = 0; m < MODES; m++) {
        struct policy_options options = {.normalization = m < 4 ? (enum normalization)(NORMALIZE_NFC + m) : NORMALIZE_NONE};
        if (m >= 4) options.filter[FILTER_GOPHER_QUALITY + m - 4] = true;
        assert_int_equal(policy_open(&policy[m], &options), 0);
    }
    const char *text = (const char *)given.data, *answer = (const char *)wanted.data;
    size_t left_out = 0;
    for (size_t d = 0; d < documents; d++, text += strlen(text) + 1) {
        for (int m = 0; m < MODES; m++) {
            struct verdict verdict;
            assert_int_equal(policy_judge(policy[m], &verdict, text, strlen(text)), 0);
            const char *reason = answer, *kept = reason + strlen(reason) + 1;
            answer = kept + strlen(kept) + 1;
            if (strcmp(verdict.reason, reason) != 0)
                fail_msg("seed %llu document %zu mode %d: '%s' (%s) instead of '%s'", (unsigned long long)random.seed, d, m, verdict.reason,
                         verdict.detail, reason);
            left_out += !verdict.kept;
            if (verdict.kept && (verdict.bytes != strlen(kept) || memcmp(verdict.text, kept, verdict.bytes) != 0))
                fail_msg("seed %llu document %zu mode %d: another text", (unsigned long long)random.seed, d, m);
        }
    }
    assert_ptr_equal(answer, wanted.data + wanted.size);
    assert_true(left_out > documents / 2 && left_out < 2 * documents);
    for (int m = 0; m < MODES; m++) policy_close(policy[m]);
    buf_free(&given);
    buf_free(&wanted);
    free(in);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ill_formed_text_is_replaced_and_counted),
        cmocka_unit_test(ill_formed_text_is_left_out_or_refused_with_its_place),
        cmocka_unit_test(text_may_go_in_parts_only_where_nothing_needs_the_whole),
        cmocka_unit_test(normalization_is_of_the_form_asked_for_and_nothing_else),
        cmocka_unit_test(a_text_that_grows_beyond_the_limit_is_left_out),
        cmocka_unit_test(a_text_that_is_replaced_up_to_the_limit_is_kept),
        cmocka_unit_test(a_megabyte_of_marks_is_put_in_order),
        cmocka_unit_test(lengths_are_counted_in_characters_after_normalization),
        cmocka_unit_test(gopher_s_quality_rules_hold_at_their_borders),
        cmocka_unit_test(gopher_s_repetition_rules_hold_at_their_borders),
        cmocka_unit_test(a_long_document_ticks_and_can_be_stopped_anywhere),
        cmocka_unit_test(c_4_keeps_the_lines_that_are_sentences),
        cmocka_unit_test(rules_and_forms_agree_with_a_plain_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
