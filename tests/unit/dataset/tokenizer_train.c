/* The trainer: against Hugging Face's, against a naive one, and against itself with other threads and portions. */
#include "dataset/tokenizer/train.h"

#include <jansson.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "dataset/tokenizer/hf_tokenizer.h"
#include "dataset/tokenizer/pretokenize.h"
#include "tests/unit/random.h"

enum { SPECIAL_MAX = 4 };
static const char *const end_of_text[] = {"<|endoftext|>"};

static struct buf trained(const struct train_options *options, const struct buf *texts, size_t count, struct random *random) {
    struct bpe_trainer *trainer;
    struct tokenizer *tokenizer;
    struct buf out = {0};
    if (bpe_trainer_open(&trainer, options) < 0) fail_msg("%s", err_text());
    for (size_t i = 0; i < count; i++) {
        for (size_t at = 0, n; at < texts[i].size; at += n) {
            n = random ? random_in(random, 1, 3 << 20) : texts[i].size;
            if (n > texts[i].size - at) n = texts[i].size - at;
            assert_int_equal(bpe_trainer_feed(trainer, texts[i].data + at, n), 0);
        }
        assert_int_equal(bpe_trainer_end(trainer), 0);
    }
    if (bpe_trainer_finish(trainer, &tokenizer) < 0) fail_msg("%s", err_text());
    assert_int_equal(tokenizer_print(tokenizer, &out), 0);
    tokenizer_close(tokenizer);
    bpe_trainer_close(trainer);
    return out;
}

static struct hf_tokenizer *files_of(const struct buf *printed) {
    struct hf_tokenizer *hf;
    if (hf_parse(&hf, "trained", printed->data, printed->size) < 0) fail_msg("%s", err_text());
    return hf;
}

static void merges_are_those_of_hugging_face(void **state) {
    (void)state;
    json_error_t error;
    json_t *golden = json_load_file("tests/oracle/tokenizers.json", JSON_ALLOW_NUL, &error), *one, *text;
    size_t i, k;
    assert_non_null(golden);
    json_array_foreach(json_object_get(golden, "trainings"), i, one) {
        const char *special[SPECIAL_MAX];
        struct buf texts[256] = {{0}};
        struct train_options options = {.vocab_size = json_integer_value(json_object_get(one, "vocab_size")),
                                        .min_frequency = (uint64_t)json_integer_value(json_object_get(one, "min_frequency")),
                                        .special = special,
                                        .special_count = json_array_size(json_object_get(one, "special")),
                                        .threads = 2};
        json_array_foreach(json_object_get(one, "special"), k, text) special[k] = json_string_value(text);
        json_array_foreach(json_object_get(one, "texts"), k, text)
            buf_append(&texts[k], json_string_value(text), json_string_length(text));
        struct buf printed = trained(&options, texts, k, NULL);
        json_t *all = json_loadb((const char *)printed.data, printed.size, 0, NULL), *got = json_object_get(all, "model");
        if (!json_equal(json_object_get(got, "merges"), json_object_get(one, "merges"))) fail_msg("training %zu: other merges", i);
        if (!json_equal(json_object_get(got, "vocab"), json_object_get(one, "vocab"))) fail_msg("training %zu: other ids", i);
        print_message("%zu merges\n", json_array_size(json_object_get(got, "merges")));
        while (k-- > 0) buf_free(&texts[k]);
        buf_free(&printed);
        json_decref(all);
    }
    json_decref(golden);
}

/* ---- against a naive trainer: every pair counted again for every merge ---- */

enum { IDS = 256 };
struct naive {
    uint32_t word[4000][12];
    size_t size[4000], words;
    uint64_t count[IDS][IDS];
};

static void naive_add(struct naive *naive, const struct hf_tokenizer *hf, const uint8_t *word, size_t size) {
    for (size_t i = 0; i < size; i++) naive->word[naive->words][i] = hf->byte_id[word[i]];
    naive->size[naive->words++] = size;
}

/* The pair that occurs most often, of equals the one with the lower ids; ids are counted from the first letter's on. */
static bool naive_best(struct naive *naive, uint32_t base, uint32_t *left, uint32_t *right) {
    uint64_t best = 0;
    memset(naive->count, 0, sizeof naive->count);
    for (size_t w = 0; w < naive->words; w++)
        for (size_t i = 0; i + 1 < naive->size[w]; i++) naive->count[naive->word[w][i] - base][naive->word[w][i + 1] - base]++;
    for (uint32_t l = 0; l < IDS; l++)
        for (uint32_t r = 0; r < IDS; r++)
            if (naive->count[l][r] > best) best = naive->count[l][r], *left = base + l, *right = base + r;
    return best > 0;
}

static void naive_merge(struct naive *naive, const struct hf_merge *m) {
    for (size_t w = 0; w < naive->words; w++) {
        size_t to = 0;
        for (size_t i = 0; i < naive->size[w]; to++) {
            bool here = i + 1 < naive->size[w] && naive->word[w][i] == m->left && naive->word[w][i + 1] == m->right;
            naive->word[w][to] = here ? m->merged : naive->word[w][i];
            i += here ? 2 : 1;
        }
        naive->size[w] = to;
    }
}

static bool made_before(const struct hf_tokenizer *hf, uint32_t merge) {
    for (uint32_t i = 0; i < merge; i++)
        if (hf->merge[i].merged == hf->merge[merge].merged) return true;
    return false;
}

static void merges_are_those_of_a_naive_trainer(void **state) {
    (void)state;
    struct random random = random_open("merges_are_those_of_a_naive_trainer");
    struct naive *naive = malloc(sizeof *naive);
    uint32_t compared = 0;
    for (int round = 0; round < 25; round++) {
        struct buf text = {0};
        struct train_options options = {.vocab_size = 290, .special = end_of_text, .special_count = 1, .threads = 1};
        naive->words = 0;
        size_t words = random_in(&random, 1, 2000), begin[2001] = {0};
        for (size_t w = 0; w < words; w++) { /* words that are pieces: letters w to z, whose ids are the last of ASCII's letters */
            size_t size = random_in(&random, 1, 10);
            begin[w] = text.size;
            for (size_t i = 0; i < size; i++) buf_append(&text, &"wxyz"[random_in(&random, 0, 3)], 1);
            buf_append(&text, "\n", 1);
        }
        begin[words] = text.size;
        struct buf printed = trained(&options, &text, 1, NULL);
        struct hf_tokenizer *hf = files_of(&printed);
        for (size_t w = 0; w < words; w++) naive_add(naive, hf, text.data + begin[w], begin[w + 1] - begin[w] - 1);
        uint32_t base = hf->byte_id['w'], left, right;
        for (uint32_t i = 0; i < hf->merges && hf->merge[i].merged < base + IDS && !made_before(hf, i); i++, compared++) {
            assert_true(naive_best(naive, base, &left, &right));
            if (left != hf->merge[i].left || right != hf->merge[i].right)
                fail_msg("seed %llu: merge %u of %u and %u, expected %u and %u", (unsigned long long)random.seed, i, hf->merge[i].left,
                         hf->merge[i].right, left, right);
            naive_merge(naive, &hf->merge[i]);
        }
        hf_close(hf), buf_free(&printed), buf_free(&text);
    }
    assert_true(compared > 100);
    free(naive);
}

/* ---- against itself ---- */

static struct buf random_text(struct random *random, size_t size) {
    static const char *const words[] = {"the", " mill", " turns", "\n", "\n\n  ", " wheel's", "!", " 1234", " \xD0\xBC\xD0\xB8\xD1\x80",
                                        "\xE6\xB0\xB4\xE8\xBD\xA6", "\xFF", " ", " a", "b", "abc", " x", "y"};
    struct buf text = {0};
    while (text.size < size) {
        const char *word = words[random_in(random, 0, random_in(random, 0, sizeof words / sizeof *words - 1))];
        buf_append(&text, word, strlen(word));
    }
    return text;
}

static void threads_portions_and_order_make_no_difference(void **state) {
    (void)state;
    struct random random = random_open("threads_portions_and_order_make_no_difference");
    enum { TEXTS = 5 };
    struct buf text[TEXTS], first = {0};
    static const size_t sizes[TEXTS] = {3 << 20, 0, 1000, 5 << 20, 1 << 20};
    for (int i = 0; i < TEXTS; i++) text[i] = random_text(&random, sizes[i]);
    memset(text[3].data + (1 << 19), 'z', 3 << 20); /* no place to cut for longer than a batch */
    for (int threads = 1; threads <= 5; threads += 2) {
        struct train_options options = {.vocab_size = 400, .min_frequency = 2, .special = end_of_text, .special_count = 1};
        options.threads = threads;
        struct buf printed = trained(&options, text, TEXTS, threads > 1 ? &random : NULL), swapped = text[0];
        if (threads == 1) first = printed;
        assert_int_equal(printed.size, first.size);
        assert_memory_equal(printed.data, first.data, first.size);
        if (threads > 1) buf_free(&printed);
        text[0] = text[TEXTS - 1], text[TEXTS - 1] = swapped;
    }
    for (int i = 0; i < TEXTS; i++) buf_free(&text[i]);
    buf_free(&first);
}

/* A long text without a place to cut ends at a character border that its portions do not move. Which pairs of this unit, all equally many,
 * lose one there is seen in the order of the merges, and a character that is torn in the merges of U+FFFD. */
static void a_text_that_cannot_be_cut_ends_at_the_same_place_however_it_comes(void **state) {
    (void)state;
    struct random random = random_open("a_text_that_cannot_be_cut_ends_at_the_same_place_however_it_comes");
    static const char unit[] = "a\xC3\xA4\xE6\xB0\xB4" "bc!";
    enum { LIMIT = 2 * PRETOKEN_BYTES_MAX, UNIT = sizeof unit - 1 };
    struct train_options options = {.vocab_size = 300, .special = end_of_text, .special_count = 1, .threads = 1};
    for (int round = 0; round < 3; round++) {
        struct buf text = {0}, part[2] = {{0}};
        size_t border = LIMIT, shift = random_in(&random, 0, UNIT - 1), blank = round % 2 ? random_in(&random, 1, 1 << 20) : 0;
        buf_append(&text, "?????????", shift);
        while (text.size < LIMIT + blank) buf_append(&text, unit, UNIT);
        if (blank) buf_append(&text, " ", 1); /* a place to cut, soon after */
        while (text.size < 2 * LIMIT - (1 << 20)) buf_append(&text, unit, UNIT);
        while ((text.data[border] & 0xC0) == 0x80) border--;
        buf_append(&part[0], text.data, border);
        buf_append(&part[1], text.data + border, text.size - border);
        struct buf expected = trained(&options, part, 2, NULL);
        for (int feeding = 0; feeding < 3; feeding++) {
            options.threads = feeding == 2 ? 3 : 1;
            struct buf printed = trained(&options, &text, 1, feeding ? &random : NULL);
            if (printed.size != expected.size || memcmp(printed.data, expected.data, expected.size) != 0)
                fail_msg("seed %llu, round %d, feeding %d: other merges", (unsigned long long)random.seed, round, feeding);
            buf_free(&printed);
        }
        buf_free(&expected), buf_free(&part[0]), buf_free(&part[1]), buf_free(&text);
    }
}

static void empty_texts_take_no_memory(void **state) {
    (void)state;
    struct train_options options = {.vocab_size = 300, .special = end_of_text, .special_count = 1, .threads = 1};
    struct bpe_trainer *trainer;
    assert_int_equal(bpe_trainer_open(&trainer, &options), 0);
    assert_int_equal(bpe_trainer_feed(trainer, "text", 4), 0);
    assert_int_equal(bpe_trainer_end(trainer), 0);
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < 1 << 20; i++) assert_int_equal(bpe_trainer_end(trainer), 0);
    struct mallinfo2 after = mallinfo2();
    assert_int_equal(after.uordblks + after.hblkhd, before.uordblks + before.hblkhd);
    bpe_trainer_close(trainer);
}

static void what_was_trained_encodes_and_decodes(void **state) {
    (void)state;
    struct random random = random_open("what_was_trained_encodes_and_decodes");
    struct buf text = random_text(&random, 20000), back = {0};
    struct train_options options = {.vocab_size = 330, .special = end_of_text, .special_count = 1, .threads = 1};
    struct buf printed = trained(&options, &text, 1, NULL);
    struct tokenizer *tokenizer;
    struct ids ids = {0};
    assert_int_equal(tokenizer_parse(&tokenizer, printed.data, printed.size), 0);
    assert_int_equal(tokenizer_eos(tokenizer), 0);
    assert_int_equal(tokenizer_encode(tokenizer, &ids, "the wheel's<|endoftext|> mill\n", 30, true), 0);
    assert_int_equal(tokenizer_decode(tokenizer, &back, ids.id, ids.count), 0);
    assert_string_equal((const char *)back.data, "the wheel's<|endoftext|> mill\n");
    assert_true(ids.count < 10);
    ids_free(&ids), buf_free(&back), buf_free(&printed), buf_free(&text);
    tokenizer_close(tokenizer);
}

static int stop(void *arg, const struct train_progress *progress) {
    int64_t *tokens = arg;
    if (progress->tokens) *tokens = progress->tokens;
    return progress->tokens >= 262;
}

static void training_can_be_stopped(void **state) {
    (void)state;
    struct random random = random_open("training_can_be_stopped");
    struct buf text = random_text(&random, 20000);
    int64_t tokens = 0;
    struct train_options options = {.vocab_size = 330, .threads = 1, .progress = stop, .progress_arg = &tokens};
    struct bpe_trainer *trainer;
    struct tokenizer *tokenizer;
    assert_int_equal(bpe_trainer_open(&trainer, &options), 0);
    assert_int_equal(bpe_trainer_feed(trainer, text.data, text.size), 0);
    assert_int_equal(bpe_trainer_end(trainer), 0);
    assert_int_equal(bpe_trainer_finish(trainer, &tokenizer), ERR_INTERRUPTED);
    assert_int_equal(tokens, 262);
    bpe_trainer_close(trainer);
    buf_free(&text);
}

static void options_that_cannot_be_are_refused(void **state) {
    (void)state;
    static const char *const twice[] = {"<s>", "<s>"}, *const empty[] = {""};
    static const char *const latin_1[] = {"<s>", "caf\xE9"}, *const cut_off[] = {"\xE2\x82"}, *const euro[] = {"caf\u00E9 \u20AC"};
    static const struct {
        struct train_options options;
        int code;
    } cases[] = {
        {{.vocab_size = 256, .special = end_of_text, .special_count = 1, .threads = 1}, ERR_USAGE},
        {{.vocab_size = 257, .special = end_of_text, .special_count = 1, .threads = 1}, 0},
        {{.vocab_size = HF_IDS_MAX + 1, .threads = 1}, ERR_USAGE},
        {{.vocab_size = 300, .special = twice, .special_count = 2, .threads = 1}, ERR_USAGE},
        {{.vocab_size = 300, .special = empty, .special_count = 1, .threads = 1}, ERR_USAGE},
        {{.vocab_size = 300, .special = latin_1, .special_count = 2, .threads = 1}, ERR_USAGE},
        {{.vocab_size = 300, .special = cut_off, .special_count = 1, .threads = 1}, ERR_USAGE},
        {{.vocab_size = 300, .special = euro, .special_count = 1, .threads = 1}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bpe_trainer *trainer;
        int code = bpe_trainer_open(&trainer, &cases[i].options);
        assert_int_equal(code, cases[i].code);
        if (code == 0) bpe_trainer_close(trainer);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_are_those_of_hugging_face),
        cmocka_unit_test(merges_are_those_of_a_naive_trainer),
        cmocka_unit_test(threads_portions_and_order_make_no_difference),
        cmocka_unit_test(a_text_that_cannot_be_cut_ends_at_the_same_place_however_it_comes),
        cmocka_unit_test(empty_texts_take_no_memory),
        cmocka_unit_test(what_was_trained_encodes_and_decodes),
        cmocka_unit_test(training_can_be_stopped),
        cmocka_unit_test(options_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
