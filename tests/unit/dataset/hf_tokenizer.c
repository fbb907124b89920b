/* Tokenizers of Hugging Face's files: against Hugging Face's library, against the textbook, and against themselves in other portions and
 * cuts. tests/oracle/make_tokenizers.py wrote what the library says. */
#include "dataset/tokenizer/hf_tokenizer.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "dataset/tokenizer/generic_bpe.h"
#include "dataset/tokenizer/generic_encoder.h"
#include "dataset/tokenizer/pretokenize.h"
#include "dataset/tokenizer/tokenizer_inside.h"
#include "dataset/tokenizer/vocabulary.h"
#include "tests/unit/random.h"

static json_t *golden;
static int read_golden(void **state) {
    (void)state;
    json_error_t error;
    golden = json_load_file("tests/oracle/tokenizers.json", JSON_ALLOW_NUL, &error);
    return golden ? 0 : -1;
}
static int free_golden(void **state) {
    (void)state;
    json_decref(golden);
    return 0;
}

static struct tokenizer *opened(const json_t *tokenizer) {
    struct tokenizer *out;
    char *text = json_dumps(tokenizer, JSON_COMPACT);
    if (tokenizer_parse(&out, text, strlen(text)) < 0) fail_msg("%s", err_text());
    free(text);
    return out;
}
static struct ids encode(const struct tokenizer *tokenizer, const void *text, size_t size, bool special) {
    struct ids ids = {0};
    if (tokenizer_encode(tokenizer, &ids, text, size, special) < 0) fail_msg("%s", err_text());
    return ids;
}
static bool same(const struct ids *a, const struct ids *b) {
    return a->count == b->count && (a->count == 0 || memcmp(a->id, b->id, a->count * sizeof *a->id) == 0);
}
static json_t *case_named(const char *name) {
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(golden, "cases"), i, one)
        if (strcmp(json_string_value(json_object_get(one, "name")), name) == 0) return one;
    fail_msg("there is no case %s", name);
    return NULL;
}

/* ---- against the library ---- */

static void check_case(const json_t *one, bool special) {
    const json_t *texts = json_object_get(golden, "texts"), *wanted = json_object_get(one, special ? "special" : "plain"), *text;
    struct tokenizer *tokenizer = opened(json_object_get(one, "tokenizer"));
    size_t i, k;
    json_array_foreach(texts, i, text) {
        struct ids ids = encode(tokenizer, json_string_value(text), json_string_length(text), special), expected = {0};
        json_t *id;
        json_array_foreach(json_array_get(wanted, i), k, id) ids_append(&expected, &(uint32_t){(uint32_t)json_integer_value(id)}, 1);
        if (!same(&ids, &expected))
            fail_msg("%s%s: other ids for text %zu: %s", json_string_value(json_object_get(one, "name")), special ? ", special" : "", i,
                     json_string_value(text));
        ids_free(&ids), ids_free(&expected);
    }
    tokenizer_close(tokenizer);
}

static void ids_are_those_of_hugging_face(void **state) {
    (void)state;
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(golden, "cases"), i, one) {
        check_case(one, false);
        check_case(one, true);
    }
    print_message("%zu tokenizers, %zu texts\n", i, json_array_size(json_object_get(golden, "texts")));
}

/* ---- against itself ---- */

static struct buf random_text(struct random *random, size_t size_max) {
    static const char *const parts[] = {" ", "\n", "  ", "\n\n", "\r\n", "\t", "a", "mill", "The", "'s", "'LL", "12345", "/", "//", "!",
                                        "={}", "\xE2\x80\xA8",
                                        "\xC3\xA9", "\xE6\xB0\xB4\xE8\xBD\xA6", "\xE3\x80\x82", "\xE3\x80\x80", "e\xCC\x81", "\xC2\xA0",
                                        "\xC2\x85", "\xF0\x9F\x98\x80", "\xFF", "\xE6\xB0", "<|endoftext|>", "<tool>", "<pad>",
                                        "\xD0\xB6", "\xE1\x9A\x80", "\xE3\x82\xAB", "X", "\x00"};
    struct buf text = {0};
    size_t size = random_in(random, 0, size_max);
    while (text.size < size) {
        const char *part = parts[random_in(random, 0, sizeof parts / sizeof *parts - 1)];
        buf_append(&text, part, part[0] ? strlen(part) : 1);
    }
    return text;
}

static struct ids encode_in_portions(struct encoder *encoder, const struct buf *text, struct random *random) {
    struct ids ids = {0};
    for (size_t at = 0; at < text->size;) {
        size_t n = random_in(random, 1, random_in(random, 0, 3) ? 9 : 5000);
        if (n > text->size - at) n = text->size - at;
        if (encoder_feed(encoder, &ids, text->data + at, n) < 0) fail_msg("%s", err_text());
        at += n;
    }
    if (encoder_finish(encoder, &ids) < 0) fail_msg("%s", err_text());
    return ids;
}

static void any_portions_give_the_same_ids(void **state) {
    (void)state;
    struct random random = random_open("any_portions_give_the_same_ids");
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(golden, "cases"), i, one) {
        struct tokenizer *tokenizer = opened(json_object_get(one, "tokenizer"));
        for (int special = 0; special < 2; special++) {
            struct encoder *encoder;
            assert_int_equal(special ? encoder_open_special(&encoder, tokenizer) : encoder_open(&encoder, tokenizer), 0);
            for (int round = 0; round < 12; round++) {
                struct buf text = random_text(&random, round < 10 ? 300 : 200000); /* some longer than what is held at first */
                struct ids whole = encode(tokenizer, text.data, text.size, special);
                struct ids parts = encode_in_portions(encoder, &text, &random);
                if (!same(&whole, &parts))
                    fail_msg("seed %llu: case %zu, special %d", (unsigned long long)random.seed, i, special);
                ids_free(&whole), ids_free(&parts), buf_free(&text);
            }
            encoder_close(encoder);
        }
        tokenizer_close(tokenizer);
    }
}

/* Tokenizes the text cut at some of its places; returns how many were there. */
static size_t encode_cut(const struct tokenizer *tokenizer, struct ids *out, const struct buf *text, struct random *random) {
    size_t from = 0, places = 0, cut, begin = 0;
    for (; begin < text->size && tokenizer_cut(tokenizer, text->data + begin, text->size - begin, begin, &cut); begin += cut + 1) {
        size_t at = begin + cut;
        assert_true(at > 0);
        places++;
        if (at == from || random_in(random, 0, 2) == 0) continue;
        assert_int_equal(tokenizer_encode(tokenizer, out, text->data + from, at - from, false), 0);
        from = at;
    }
    assert_int_equal(tokenizer_encode(tokenizer, out, text->data + from, text->size - from, false), 0);
    return places;
}

static void text_cut_where_it_may_be_gives_the_same_ids(void **state) {
    (void)state;
    struct random random = random_open("text_cut_where_it_may_be_gives_the_same_ids");
    size_t i, cutting = 0;
    json_t *one;
    json_array_foreach(json_object_get(golden, "cases"), i, one) {
        struct tokenizer *tokenizer = opened(json_object_get(one, "tokenizer"));
        size_t places = 0;
        for (int round = 0; round < 400; round++) {
            struct buf text = random_text(&random, 200);
            struct ids whole = encode(tokenizer, text.data, text.size, false), parts = {0};
            places += encode_cut(tokenizer, &parts, &text, &random);
            if (!same(&whole, &parts))
                fail_msg("seed %llu: %s: %.*s", (unsigned long long)random.seed, json_string_value(json_object_get(one, "name")),
                         (int)text.size, (const char *)text.data);
            ids_free(&whole), ids_free(&parts), buf_free(&text);
        }
        assert_int_equal(places > 0, tokenizer_cuts(tokenizer));
        cutting += places > 0;
        tokenizer_close(tokenizer);
    }
    assert_true(cutting >= 9 && cutting < i);
}

/* Of a token with a newline in its middle: where text could be cut after one, it no longer may. */
static void text_is_not_cut_inside_of_an_added_token(void **state) {
    (void)state;
    static const uint8_t text[] = "one a\nb two a\nb";
    enum { SIZE = sizeof text - 1, ID = 60000 };
    for (int added = 0; added < 2; added++) {
        json_t *copy = json_deep_copy(json_object_get(case_named("cl100k, possessive, matches alone"), "tokenizer"));
        json_t *token = json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)ID, "content", "a\nb", "special", 0, "lstrip", 0,
                                  "rstrip", 0, "normalized", 0, "single_word", 0);
        if (added) json_array_append(json_object_get(copy, "added_tokens"), token);
        struct tokenizer *tokenizer = opened(copy);
        struct ids whole = encode(tokenizer, text, SIZE, false);
        size_t cut, after_newline = 0;
        for (size_t at = 1; at < SIZE; at++) {
            struct ids parts = {0};
            if (!tokenizer_cut(tokenizer, text + at, SIZE - at, at, &cut) || cut != 0) continue;
            after_newline += text[at - 1] == '\n';
            assert_int_equal(tokenizer_encode(tokenizer, &parts, text, at, false), 0);
            assert_int_equal(tokenizer_encode(tokenizer, &parts, text + at, SIZE - at, false), 0);
            assert_true(same(&whole, &parts));
            ids_free(&parts);
        }
        assert_int_equal(after_newline, added ? 0 : 2);
        assert_int_equal(whole.id[whole.count - 1] == ID, added);
        ids_free(&whole), tokenizer_close(tokenizer), json_decref(token), json_decref(copy);
    }
}

static void decoded_as_it_comes_it_is_the_same_text(void **state) {
    (void)state;
    struct random random = random_open("decoded_as_it_comes_it_is_the_same_text");
    struct tokenizer *tokenizer = opened(json_object_get(case_named("Qwen 2, NFC"), "tokenizer"));
    struct text_decoder decoder = {.tokenizer = tokenizer};
    for (int round = 0; round < 300; round++) {
        uint32_t id[200];
        size_t count = random_in(&random, 0, 200);
        struct buf bytes = {0}, parts = {0}, valid = {0};
        for (size_t i = 0; i < count; i++) id[i] = (uint32_t)random_in(&random, 0, (uint64_t)tokenizer_vocabulary(tokenizer) - 1);
        assert_int_equal(tokenizer_decode(tokenizer, &bytes, id, count), 0);
        for (size_t i = 0, n; i < count; i += n) {
            n = random_in(&random, 1, 3) < count - i ? 1 : count - i;
            assert_int_equal(text_decoder_feed(&decoder, &parts, id + i, n), 0);
        }
        assert_int_equal(text_decoder_finish(&decoder, &parts), 0);
        struct utf8_replacer replacer = {0};
        assert_int_equal(buf_reserve(&valid, 3 * bytes.size + 2 * UTF8_REPLACE_ROOM), 0);
        utf8_replace(&replacer, valid.data, &valid.size, 3 * bytes.size + 2 * UTF8_REPLACE_ROOM, bytes.data, bytes.size);
        valid.size += utf8_replace_end(&replacer, valid.data + valid.size);
        assert_int_equal(parts.size, valid.size);
        if (parts.size) assert_memory_equal(parts.data, valid.data, parts.size);
        buf_free(&bytes), buf_free(&parts), buf_free(&valid);
    }
    assert_int_equal(text_decoder_feed(&decoder, &(struct buf){0}, &(uint32_t){1 << 20}, 1), ERR_CORRUPT);
    text_decoder_free(&decoder);
    tokenizer_close(tokenizer);
}

static void a_cut_off_character_waits_for_its_rest(void **state) {
    (void)state;
    struct tokenizer *gpt2;
    assert_int_equal(tokenizer_open(&gpt2, "gpt2"), 0);
    struct text_decoder decoder = {.tokenizer = gpt2};
    struct buf text = {0};
    const uint32_t id[3] = {47249, 222, 11}; /* F0 9F 98, 80, a comma */
    assert_int_equal(text_decoder_feed(&decoder, &text, id, 1), 0);
    assert_int_equal(text.size, 0);
    assert_int_equal(text_decoder_feed(&decoder, &text, id + 1, 1), 0);
    assert_string_equal((const char *)text.data, "\xF0\x9F\x98\x80");
    assert_int_equal(text_decoder_feed(&decoder, &text, id, 1), 0);
    assert_int_equal(text_decoder_finish(&decoder, &text), 0);
    assert_string_equal((const char *)text.data, "\xF0\x9F\x98\x80\xEF\xBF\xBD");
    text_decoder_free(&decoder), buf_free(&text), tokenizer_close(gpt2);
}

/* ---- against the textbook ---- */

/* A vocabulary of random merges with ids in any order; several merges may lead to one token. Some tokens have the byte 0xFF, which no text
 * brings. */
static struct hf_tokenizer *random_vocabulary(struct random *random, uint32_t merges) {
    struct hf_tokenizer *hf = hf_make();
    uint32_t base = (uint32_t)random_in(random, 0, 1 << 17), step = 2 * (uint32_t)random_in(random, 0, 30000) + 1, made = 0;
    for (unsigned b = 0; b < 256; b++)
        assert_int_equal(hf_add_bytes(hf, base + made++ * step % 65536, &(uint8_t){(uint8_t)b}, 1), 0);
    uint32_t known[1024];
    size_t count = 0;
    for (const char *p = "abc\xFF"; *p; p++) known[count++] = hf->byte_id[(uint8_t)*p];
    while (hf->merges < merges && count < 1000) {
        uint32_t left = known[random_in(random, 0, count - 1)], right = known[random_in(random, 0, count - 1)];
        const struct hf_token *l = &hf->token[left], *r = &hf->token[right];
        uint8_t bytes[64];
        if (l->size + r->size > sizeof bytes) continue;
        memcpy(bytes, hf->text.data + l->first, l->size);
        memcpy(bytes + l->size, hf->text.data + r->first, r->size);
        uint32_t merged = hf_find(hf, bytes, (size_t)l->size + r->size, false);
        if (merged == HF_NONE) {
            assert_int_equal(hf_add_bytes(hf, merged = base + made++ * step % 65536, bytes, (size_t)l->size + r->size), 0);
            known[count++] = merged;
        }
        assert_int_equal(hf_add_merge_of(hf, (struct hf_merge){left, right, merged}), 0);
    }
    assert_int_equal(hf_finish(hf), 0);
    return hf;
}

/* As long as two neighbours merge: the pair of lowest rank, the leftmost of equals. */
static struct ids textbook(const struct hf_tokenizer *hf, const uint8_t *bytes, size_t size) {
    struct ids ids = {0};
    for (size_t i = 0; i < size; i++) ids_append(&ids, &hf->byte_id[bytes[i]], 1);
    for (uint32_t rank = 0; rank < hf->merges;) {
        const struct hf_merge *m = &hf->merge[rank];
        size_t at = 0;
        while (at + 1 < ids.count && (ids.id[at] != m->left || ids.id[at + 1] != m->right)) at++;
        if (at + 1 >= ids.count) {
            rank++;
            continue;
        }
        ids.id[at] = m->merged;
        memmove(ids.id + at + 1, ids.id + at + 2, (ids.count - at - 2) * sizeof *ids.id);
        ids.count--;
        rank = 0; /* what this made may merge at any rank */
    }
    return ids;
}

static void any_vocabulary_merges_as_the_textbook_says(void **state) {
    (void)state;
    struct random random = random_open("any_vocabulary_merges_as_the_textbook_says");
    for (int round = 0; round < 40; round++) {
        struct hf_tokenizer *hf = random_vocabulary(&random, (uint32_t)random_in(&random, 1, 60));
        struct merge_ranks *ranks;
        struct generic_bpe *bpe;
        assert_int_equal(merge_ranks_open(&ranks, hf), 0);
        assert_int_equal(generic_bpe_open(&bpe, ranks), 0);
        for (int k = 0; k < 60; k++) {
            uint8_t piece[400];
            size_t size = random_in(&random, 1, k % 4 ? 60 : sizeof piece);
            for (size_t i = 0; i < size; i++) piece[i] = (uint8_t)"abc"[random_in(&random, 0, 2)];
            struct ids ids = {0}, expected = textbook(hf, piece, size);
            for (int again = 0; again < 2; again++) { /* the second time from the cache */
                ids.count = 0;
                assert_int_equal(generic_bpe_encode(bpe, &ids, piece, size), 0);
                if (!same(&ids, &expected))
                    fail_msg("seed %llu: %.*s", (unsigned long long)random.seed, (int)size, (const char *)piece);
            }
            ids_free(&ids), ids_free(&expected);
        }
        generic_bpe_close(bpe), merge_ranks_close(ranks), hf_close(hf);
    }
}

/* Some whose ids can follow their ranks, some whose ids cannot; both encoders, on the same texts. */
static void vocabularies_with_gpt2s_pattern_are_encoded_as_by_the_general_encoder(void **state) {
    (void)state;
    struct random random = random_open("vocabularies_with_gpt2s_pattern");
    int fast = 0, general = 0;
    for (int round = 0; round < 60; round++) {
        struct hf_tokenizer *hf = random_vocabulary(&random, (uint32_t)random_in(&random, 1, round % 2 ? 12 : 600)), *copy;
        struct buf print = {0};
        struct tokenizer *tokenizer;
        struct generic_tokenizer *generic;
        struct encoder *encoder;
        struct generic_encoder *twin;
        hf->stages = 1;
        if (random_in(&random, 0, 1)) /* an id among the others or behind them */
            assert_int_equal(hf_add_added(hf, &(struct hf_added){.id = hf->ids, .special = true}, "<|endoftext|>", 13), 0);
        assert_int_equal(hf_finish(hf), 0);
        assert_int_equal(hf_print(hf, &print), 0);
        assert_int_equal(hf_parse(&copy, "copy", print.data, print.size), 0);
        assert_int_equal(tokenizer_of(&tokenizer, hf), 0);
        *(tokenizer->vocabulary ? &fast : &general) += 1;
        assert_int_equal(generic_tokenizer_open(&generic, copy, false), 0);
        assert_int_equal(encoder_open(&encoder, tokenizer), 0);
        for (int k = 0; k < 30; k++) {
            struct buf text = random_text(&random, k < 28 ? 400 : 100000);
            for (size_t n = k < 28 ? 300 : 30000, i = 0; i < n; i++) {
                uint8_t letter = (uint8_t)"abc abcabcabcabc"[random_in(&random, 0, 15)];
                assert_int_equal(buf_append(&text, &letter, 1), 0);
            }
            for (int special = 0; special < 2; special++) {
                struct ids whole = encode(tokenizer, text.data, text.size, special), wanted = {0};
                assert_int_equal(generic_encoder_open(&twin, generic, special, NULL), 0);
                assert_int_equal(generic_encoder_feed(twin, &wanted, text.data, text.size), 0);
                assert_int_equal(generic_encoder_finish(twin, &wanted), 0);
                generic_encoder_close(twin);
                struct ids parts = special ? (struct ids){0} : encode_in_portions(encoder, &text, &random);
                if (!same(&whole, &wanted) || (!special && !same(&parts, &wanted)))
                    fail_msg("seed %llu: round %d, text %d, special %d", (unsigned long long)random.seed, round, k, special);
                struct buf back = {0};
                assert_int_equal(tokenizer_decode(tokenizer, &back, whole.id, whole.count), 0);
                struct ids again = encode(tokenizer, back.data, back.size, special);
                assert_true(same(&again, &whole));
                ids_free(&whole), ids_free(&wanted), ids_free(&parts), ids_free(&again), buf_free(&back);
            }
            buf_free(&text);
        }
        encoder_close(encoder), generic_tokenizer_close(generic), tokenizer_close(tokenizer), buf_free(&print);
    }
    print_message("%d fast, %d general\n", fast, general);
    assert_true(fast > 10 && general > 10);
}

/* What goes on from such a token would have to go on from either of two ids of the tables, so the general encoder takes it. */
static void a_token_that_two_merges_make_is_left_to_the_general_encoder(void **state) {
    (void)state;
    static const char *const tokens[] = {"ab", "bc", "abc", "abcd"}, *const merges[][2] = {
        {"a", "b"}, {"b", "c"}, {"ab", "c"}, {"a", "bc"}, {"abc", "d"}};
    struct hf_tokenizer *hf = hf_make();
    struct vocabulary *vocabulary;
    struct tokenizer *tokenizer;
    for (unsigned b = 0; b < 256; b++) assert_int_equal(hf_add_bytes(hf, b, &(uint8_t){(uint8_t)b}, 1), 0);
    for (uint32_t i = 0; i < 4; i++) assert_int_equal(hf_add_token(hf, 256 + i, tokens[i], strlen(tokens[i])), 0);
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++)
        assert_int_equal(hf_add_merge(hf, merges[i][0], strlen(merges[i][0]), merges[i][1], strlen(merges[i][1])), 0);
    hf->stages = 1;
    assert_int_equal(hf_finish(hf), 0);
    assert_int_equal(vocabulary_of(&vocabulary, hf), ERR_UNSUPPORTED);
    assert_int_equal(tokenizer_of(&tokenizer, hf), 0);
    struct ids ids = encode(tokenizer, "abcd", 4, false);
    assert_true(ids.count == 1 && ids.id[0] == 259);
    ids_free(&ids), tokenizer_close(tokenizer);
}

/* In the tables short texts have 0xFF behind them, as such a token has at its end. */
static void a_token_that_ends_in_the_byte_0xff_is_not_the_text_before_it(void **state) {
    (void)state;
    static const char json[] =
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {%s, \"y\u00FF\": 256, \"xy\u00FF\": 257}, "
        "\"merges\": [\"y \u00FF\", \"x y\u00FF\"]}, "
        "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}}";
    struct buf bytes = {0}, text = {0};
    for (unsigned b = 0; b < 256; b++)
        assert_int_equal(buf_print(&bytes, "%s\"\\u%04x\": %u", b ? ", " : "", byte_letters()->letter[b], b), 0);
    assert_int_equal(buf_print(&text, json, (const char *)bytes.data), 0);
    struct tokenizer *tokenizer;
    if (tokenizer_parse(&tokenizer, text.data, text.size) < 0) fail_msg("%s", err_text());
    assert_non_null(tokenizer->vocabulary); /* it is one of those with tables */
    struct ids ids = encode(tokenizer, "xy", 2, false);
    assert_true(ids.count == 2 && ids.id[0] == 'x' && ids.id[1] == 'y');
    ids_free(&ids), buf_free(&bytes), buf_free(&text), tokenizer_close(tokenizer);
}

static void a_megabyte_without_a_space_is_no_matter(void **state) {
    (void)state;
    struct tokenizer *tokenizer = opened(json_object_get(case_named("o200k"), "tokenizer"));
    enum { SIZE = 1 << 20 };
    char *text = mem_alloc(SIZE);
    for (int kind = 0; kind < 4; kind++) {
        for (size_t i = 0; i < SIZE; i++) text[i] = "ttmiAA=="[2 * kind + i % 2];
        struct ids ids = encode(tokenizer, text, SIZE, false);
        struct buf back = {0};
        assert_int_equal(tokenizer_decode(tokenizer, &back, ids.id, ids.count), 0);
        assert_int_equal(back.size, SIZE);
        assert_memory_equal(back.data, text, SIZE);
        buf_free(&back), ids_free(&ids);
    }
    free(text);
    tokenizer_close(tokenizer);
}

static void text_without_places_to_cut_is_cut_at_a_limit_or_refused(void **state) {
    (void)state;
    enum { PART = 1 << 20 };
    char *part = mem_alloc(PART);
    memset(part, 'a', PART);
    static const struct {
        const char *name;
        int parts, code;
    } cases[] = {{"Llama 3", 9, 0}, {"an unknown pattern", 9, 0}, {"an unknown pattern", 65, ERR_LIMIT}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *tokenizer = opened(json_object_get(case_named(cases[i].name), "tokenizer"));
        struct encoder *encoder;
        struct ids ids = {0}, once = {0};
        int code = 0;
        assert_int_equal(encoder_open(&encoder, tokenizer), 0);
        for (int k = 0; k < cases[i].parts && code == 0; k++) code = encoder_feed(encoder, &ids, part, PART);
        if (code == 0) code = encoder_finish(encoder, &ids);
        assert_int_equal(code, cases[i].code);
        if (code < 0) assert_non_null(strstr(err_text(), "divide the document"));
        for (size_t done = 0, n; done < (size_t)cases[i].parts * PART && code == 0; done += n) { /* as pieces of the limit */
            n = (size_t)cases[i].parts * PART - done < PRETOKEN_BYTES_MAX ? (size_t)cases[i].parts * PART - done : PRETOKEN_BYTES_MAX;
            for (size_t k = 0; k < n; k += PART) assert_int_equal(encoder_feed(encoder, &once, part, n - k < PART ? n - k : PART), 0);
            assert_int_equal(encoder_finish(encoder, &once), 0);
        }
        if (code == 0) assert_true(same(&ids, &once));
        ids_free(&ids), ids_free(&once);
        encoder_close(encoder);
        tokenizer_close(tokenizer);
    }
    free(part);
}

/* ---- files ---- */

static void what_is_printed_opens_as_the_same(void **state) {
    (void)state;
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(golden, "cases"), i, one) {
        struct tokenizer *first = opened(json_object_get(one, "tokenizer")), *second;
        struct buf text = {0}, again = {0};
        uint8_t a[SHA256_BYTES], b[SHA256_BYTES];
        assert_int_equal(tokenizer_print(first, &text), 0);
        if (tokenizer_parse(&second, text.data, text.size) < 0) fail_msg("%s", err_text());
        assert_int_equal(tokenizer_print(second, &again), 0);
        assert_int_equal(text.size, again.size);
        assert_memory_equal(text.data, again.data, text.size);
        tokenizer_digest(first, a), tokenizer_digest(second, b);
        assert_memory_equal(a, b, SHA256_BYTES);
        json_t *printed = json_loadb((const char *)text.data, text.size, 0, NULL), *given = json_object_get(one, "tokenizer");
        assert_true(json_equal(json_object_get(json_object_get(printed, "model"), "vocab"),
                               json_object_get(json_object_get(given, "model"), "vocab")));
        assert_true(json_equal(json_object_get(printed, "added_tokens"), json_object_get(given, "added_tokens")));
        json_decref(printed);
        buf_free(&text), buf_free(&again);
        tokenizer_close(first), tokenizer_close(second);
    }
}

static char folder[] = "/tmp/millrace-test-XXXXXX";
static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/millrace-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}
static int remove_folder(void **state) {
    (void)state;
    return folder_remove(folder);
}
static void put_file(const char *name, const void *bytes, size_t size) {
    char *path = mem_format("%s/%s", folder, name);
    assert_int_equal(file_publish(path, bytes, size), 0);
    free(path);
}

static void a_folder_of_gpt2_is_gpt2(void **state) {
    (void)state;
    struct tokenizer *gpt2, *read;
    struct tokenizer_file file[TOKENIZER_FILES_MAX];
    uint8_t a[SHA256_BYTES], b[SHA256_BYTES];
    size_t count;
    assert_int_equal(tokenizer_open(&gpt2, "gpt2"), 0);
    assert_int_equal(tokenizer_print_files(gpt2, file, &count, 1024), 0);
    assert_int_equal(count, 5);
    tokenizer_digest(gpt2, a);
    for (int kind = 0; kind < 2; kind++) { /* first vocab.json and merges.txt alone, then tokenizer.json too */
        for (size_t i = 0; i < count; i++)
            if (kind == 1 || strcmp(file[i].name, "vocab.json") == 0 || strcmp(file[i].name, "merges.txt") == 0)
                put_file(file[i].name, file[i].text.data, file[i].text.size);
        if (tokenizer_open(&read, folder) < 0) fail_msg("%s", err_text());
        tokenizer_digest(read, b);
        assert_memory_equal(a, b, SHA256_BYTES);
        assert_int_equal(tokenizer_eos(read), GPT2_END_OF_TEXT);
        assert_int_equal(tokenizer_vocabulary(read), GPT2_VOCABULARY);
        struct ids one = encode(gpt2, "Hello <|endoftext|> world", 25, true), two = encode(read, "Hello <|endoftext|> world", 25, true);
        assert_true(same(&one, &two) && one.count == 4);
        ids_free(&one), ids_free(&two);
        tokenizer_close(read);
    }
    tokenizer_files_free(file);
    tokenizer_close(gpt2);
}

static void the_folder_says_which_tokens_end_texts(void **state) {
    (void)state;
    static const struct {
        const char *config, *special;
        int64_t bos, eos; /* -2: the id of <pad> */
    } cases[] = {
        {NULL, NULL, -1, 0},
        {"{\"eos_token\": \"<pad>\", \"model_max_length\": 1000000000000000019884624838656}", NULL, -1, -2},
        {"{\"eos_token\": {\"content\": \"<pad>\"}, \"bos_token\": \"<|endoftext|>\"}", NULL, 0, -2},
        {NULL, "{\"bos_token\": \"<pad>\", \"eos_token\": null}", -2, -1},
        {"{\"eos_token\": \"<nowhere>\"}", NULL, 0, ERR_CORRUPT},
        {"{\"eos_token\": ", NULL, 0, ERR_CORRUPT},
    };
    json_t *words = json_object_get(case_named("digits apart"), "tokenizer");
    char *text = json_dumps(words, 0), *path = mem_format("%s/tokenizer.json", folder);
    int64_t pad = json_integer_value(json_object_get(json_array_get(json_object_get(words, "added_tokens"), 1), "id"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *tokenizer;
        assert_int_equal(folder_remove(folder), 0);
        assert_int_equal(folder_make(folder), 0);
        put_file("tokenizer.json", text, strlen(text));
        if (cases[i].config) put_file("tokenizer_config.json", cases[i].config, strlen(cases[i].config));
        if (cases[i].special) put_file("special_tokens_map.json", cases[i].special, strlen(cases[i].special));
        int code = tokenizer_open(&tokenizer, i % 2 ? folder : path);
        if (cases[i].eos == ERR_CORRUPT) {
            assert_int_equal(code, ERR_CORRUPT);
            assert_non_null(strstr(err_text(), "tokenizer_config.json"));
            continue;
        }
        if (code < 0) fail_msg("case %zu: %s", i, err_text());
        assert_int_equal(tokenizer_bos(tokenizer), cases[i].bos == -2 ? pad : cases[i].bos);
        assert_int_equal(tokenizer_eos(tokenizer), cases[i].eos == -2 ? pad : cases[i].eos);
        assert_int_equal(tokenizer_vocabulary(tokenizer), pad + 1);
        tokenizer_close(tokenizer);
    }
    free(text), free(path);
}

/* The one in the binary stands in for GPT-2's own files, which may say so, too. */
static void files_of_gpt2_say_which_tokens_end_texts(void **state) {
    (void)state;
    static const struct {
        const char *config;
        int64_t bos, eos;
    } cases[] = {
        {"{\"bos_token\": \"<|endoftext|>\", \"eos_token\": \"<|endoftext|>\"}", 50256, 50256},
        {"{\"bos_token\": \"!\", \"eos_token\": \"<|endoftext|>\"}", 0, 50256},
        {"{\"bos_token\": \"<|endoftext|>\", \"eos_token\": \"!\"}", 50256, 0},
    };
    struct tokenizer *gpt2, *tokenizer;
    struct buf text[2] = {{0}};
    assert_int_equal(tokenizer_open_gpt2(&gpt2), 0);
    assert_int_equal(tokenizer_print_vocab(gpt2, &text[0]), 0);
    assert_int_equal(tokenizer_print_merges(gpt2, &text[1]), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(folder_remove(folder), 0);
        assert_int_equal(folder_make(folder), 0);
        put_file("vocab.json", (const char *)text[0].data, text[0].size);
        put_file("merges.txt", (const char *)text[1].data, text[1].size);
        put_file("tokenizer_config.json", cases[i].config, strlen(cases[i].config));
        if (tokenizer_open(&tokenizer, folder) < 0) fail_msg("case %zu: %s", i, err_text());
        assert_int_equal(tokenizer_bos(tokenizer), cases[i].bos);
        assert_int_equal(tokenizer_eos(tokenizer), cases[i].eos);
        tokenizer_close(tokenizer);
    }
    tokenizer_close(gpt2);
    buf_free(&text[0]), buf_free(&text[1]);
}

/* With tokenizer.json and without, as transformers reads it: its list in tokenizer_config.json goes before it. */
static void tokens_that_were_added_later_count(void **state) {
    (void)state;
    static const struct {
        const char *added, *config, *special;
        int code;
        bool found, found_special;
    } cases[] = {
        {"{\"<chat>\": 60000, \"<more>\": 60001}", NULL, NULL, 0, true, true},
        {"{\"<chat>\": 60000}", NULL, "{\"additional_special_tokens\": [\"<x>\", {\"content\": \"<chat>\"}]}", 0, false, true},
        {"{\"<chat>\": 60000}", NULL, "{\"pad_token\": \"<chat>\"}", 0, false, true},
        {"{\"<chat>\": 60000}", "{\"added_tokens_decoder\": {}}", NULL, 0, false, false},
        {"{\"<chat>\": \"60000\"}", NULL, NULL, ERR_CORRUPT, false, false},
        {"{\"<chat>\": 5}", NULL, NULL, ERR_CORRUPT, false, false},
        {"[]", NULL, NULL, ERR_CORRUPT, false, false},
        {"{\"<chat>\\u0000\": 60000}", NULL, NULL, ERR_CORRUPT, false, false},
        {"{\"<chat>\": 60000}", NULL, "{\"pad_token\": \"<chat>\\u0000\"}", 0, true, true},
    };
    struct tokenizer *gpt2, *read;
    struct tokenizer_file file[TOKENIZER_FILES_MAX];
    size_t count;
    assert_int_equal(tokenizer_open(&gpt2, "gpt2"), 0);
    assert_int_equal(tokenizer_print_files(gpt2, file, &count, 0), 0);
    for (size_t i = 0; i < 2 * (sizeof cases / sizeof *cases); i++) {
        const char *kept[2][2] = {{"tokenizer.json", ""}, {"vocab.json", "merges.txt"}};
        assert_int_equal(folder_remove(folder), 0);
        assert_int_equal(folder_make(folder), 0);
        for (size_t f = 0; f < count; f++)
            if (strcmp(file[f].name, kept[i % 2][0]) == 0 || strcmp(file[f].name, kept[i % 2][1]) == 0)
                put_file(file[f].name, file[f].text.data, file[f].text.size);
        put_file("added_tokens.json", cases[i / 2].added, strlen(cases[i / 2].added));
        if (cases[i / 2].config) put_file("tokenizer_config.json", cases[i / 2].config, strlen(cases[i / 2].config));
        if (cases[i / 2].special) put_file("special_tokens_map.json", cases[i / 2].special, strlen(cases[i / 2].special));
        int code = tokenizer_open(&read, folder);
        if (code != cases[i / 2].code) fail_msg("case %zu: %d, %s", i, code, err_text());
        if (code < 0) assert_non_null(strstr(err_text(), "added_tokens.json"));
        for (int special = 0; special < 2 && code == 0; special++) {
            struct ids ids = encode(read, "<chat>", 6, special);
            bool found = ids.count == 1 && ids.id[0] == 60000;
            if (found != (special ? cases[i / 2].found_special : cases[i / 2].found)) fail_msg("case %zu, special %d", i, special);
            ids_free(&ids);
        }
        if (code == 0) tokenizer_close(read);
    }
    tokenizer_files_free(file), tokenizer_close(gpt2);
}

/* Sets a value deep in a copy of a tokenizer: "model.dropout". */
static char *changed(const char *path, const char *value) {
    json_t *copy = json_deep_copy(json_object_get(case_named("Qwen 2, NFC"), "tokenizer")), *at = copy;
    char *keys = mem_text(path), *key = keys, *dot;
    for (; (dot = strchr(key, '.')); key = dot + 1) {
        *dot = 0;
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
    }
    json_object_set_new(at, key, json_loads(value, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL));
    char *text = json_dumps(copy, 0);
    free(keys);
    json_decref(copy);
    return text;
}

static void what_would_change_ids_is_refused_and_named(void **state) {
    (void)state;
    static const struct {
        const char *path, *value;
        int code;
        const char *says;
    } cases[] = {
        {"model.type", "\"WordPiece\"", ERR_UNSUPPORTED, "WordPiece"},
        {"model.dropout", "0.1", ERR_UNSUPPORTED, "dropout"},
        {"model.byte_fallback", "true", ERR_UNSUPPORTED, "byte_fallback"},
        {"model.end_of_word_suffix", "\"</w>\"", ERR_UNSUPPORTED, "</w>"},
        {"model.continuing_subword_prefix", "\"##\"", ERR_UNSUPPORTED, "##"},
        {"model.vocab", "{\"a\": 0}", ERR_CORRUPT, "vocabulary does not have"},
        {"model.vocab", "[]", ERR_CORRUPT, "not a JSON object"},
        {"model.vocab.a", "-1", ERR_CORRUPT, "\"a\""},
        {"model.vocab.a", "16777216", ERR_CORRUPT, "\"a\""},
        {"model.vocab.a", "\"1\"", ERR_CORRUPT, "\"a\""},
        {"model.vocab.zq", "5", ERR_CORRUPT, "id 5"},
        {"model.merges", "[\"a\"]", ERR_CORRUPT, "no space"},
        {"model.merges", "[[\"a\", \"b\", \"c\"]]", ERR_CORRUPT, "merge 1"},
        {"model.merges", "[\"q z\"]", ERR_CORRUPT, "q z"},
        {"model.merges", "7", ERR_CORRUPT, "not a list"},
        {"normalizer", "{\"type\": \"Lowercase\"}", ERR_UNSUPPORTED, "Lowercase"},
        {"pre_tokenizer", "null", ERR_UNSUPPORTED, "null"},
        {"pre_tokenizer", "{\"type\": \"Metaspace\"}", ERR_UNSUPPORTED, "Metaspace"},
        {"pre_tokenizer.pretokenizers.0.behavior", "\"MergedWithNext\"", ERR_UNSUPPORTED, "MergedWithNext"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"(\"}", ERR_UNSUPPORTED, "pattern ("},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"\\\\bx\"}", ERR_UNSUPPORTED, "this escape"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"[a&&b]\"}", ERR_UNSUPPORTED, "intersection"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"a{1,3}+\"}", ERR_UNSUPPORTED, "possessive"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{}", ERR_CORRUPT, "Split"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"a\\u0000b\"}", ERR_UNSUPPORTED, "NUL"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"String\": \"\\u0000\"}", ERR_UNSUPPORTED, "NUL"},
        {"pre_tokenizer.pretokenizers.0.behavior", "\"Isolated\\u0000\"", ERR_UNSUPPORTED, "NUL"},
        {"pre_tokenizer.pretokenizers.1.type", "\"ByteLevel\\u0000\"", ERR_UNSUPPORTED, "pre_tokenizer"},
        {"normalizer.type", "\"NFC\\u0000\"", ERR_UNSUPPORTED, "normalizer"},
        {"model.type", "\"BPE\\u0000\"", ERR_UNSUPPORTED, "model"},
        {"eos_token", "\"<pad>\\u0000\"", ERR_CORRUPT, "eos_token"},
        {"pre_tokenizer.pretokenizers.1.add_prefix_space", "true", ERR_UNSUPPORTED, "add_prefix_space"},
        {"added_tokens.1.single_word", "true", ERR_UNSUPPORTED, "single_word"},
        {"added_tokens.1.id", "3", ERR_CORRUPT, "id 3"},
        {"added_tokens.1.content", "\"a\"", ERR_CORRUPT, "\"a\""},
        {"added_tokens.1.content", "7", ERR_CORRUPT, "content"},
        {"added_tokens.1.lstrip", "7", ERR_CORRUPT, "lstrip"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *tokenizer;
        char *text = changed(cases[i].path, cases[i].value);
        int code = tokenizer_parse(&tokenizer, text, strlen(text));
        if (code != cases[i].code || !strstr(err_text(), cases[i].says))
            fail_msg("%s = %s: %d, %s", cases[i].path, cases[i].value, code, code < 0 ? err_text() : "");
        free(text);
    }
    struct tokenizer *tokenizer;
    assert_int_equal(tokenizer_open(&tokenizer, "/nowhere/at/all"), ERR_CONFIG);
    assert_int_equal(tokenizer_parse(&tokenizer, "[]", 2), ERR_CORRUPT);
}

static void a_missing_byte_is_refused_and_named(void **state) {
    (void)state;
    json_t *copy = json_deep_copy(json_object_get(case_named("no pattern"), "tokenizer"));
    json_object_del(json_object_get(json_object_get(copy, "model"), "vocab"), "\xC4\xA0"); /* the blank's letter */
    json_object_set_new(json_object_get(copy, "model"), "merges", json_array());
    char *text = json_dumps(copy, 0);
    struct tokenizer *tokenizer;
    assert_int_equal(tokenizer_parse(&tokenizer, text, strlen(text)), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "0x20"));
    free(text);
    json_decref(copy);
}

/* A file that is damaged anywhere is refused or opens; nothing else happens. */
static void damaged_files_do_no_harm(void **state) {
    (void)state;
    struct random random = random_open("damaged_files_do_no_harm");
    char *text = json_dumps(json_object_get(case_named("Qwen 2, NFC"), "tokenizer"), 0);
    size_t size = strlen(text);
    for (int round = 0; round < 300; round++) {
        char *copy = mem_text(text);
        struct tokenizer *tokenizer;
        size_t length = random_in(&random, 0, 3) ? size : random_in(&random, 1, size);
        for (int k = 0; k < 3; k++) copy[random_in(&random, 0, length - 1)] = "{}[]\",:019ax\\ "[random_in(&random, 0, 13)];
        if (tokenizer_parse(&tokenizer, copy, length) == 0) {
            struct ids ids = encode(tokenizer, "The mill 1234\n", 14, true);
            ids_free(&ids), tokenizer_close(tokenizer);
        }
        free(copy);
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_hugging_face),
        cmocka_unit_test(any_portions_give_the_same_ids),
        cmocka_unit_test(text_cut_where_it_may_be_gives_the_same_ids),
        cmocka_unit_test(text_is_not_cut_inside_of_an_added_token),
        cmocka_unit_test(decoded_as_it_comes_it_is_the_same_text),
        cmocka_unit_test(a_cut_off_character_waits_for_its_rest),
        cmocka_unit_test(any_vocabulary_merges_as_the_textbook_says),
        cmocka_unit_test(vocabularies_with_gpt2s_pattern_are_encoded_as_by_the_general_encoder),
        cmocka_unit_test(a_token_that_two_merges_make_is_left_to_the_general_encoder),
        cmocka_unit_test(a_token_that_ends_in_the_byte_0xff_is_not_the_text_before_it),
        cmocka_unit_test(a_megabyte_without_a_space_is_no_matter),
        cmocka_unit_test(text_without_places_to_cut_is_cut_at_a_limit_or_refused),
        cmocka_unit_test(what_is_printed_opens_as_the_same),
        cmocka_unit_test_setup_teardown(a_folder_of_gpt2_is_gpt2, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(the_folder_says_which_tokens_end_texts, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(files_of_gpt2_say_which_tokens_end_texts, make_folder, remove_folder),
        cmocka_unit_test(tokens_that_were_added_later_count),
        cmocka_unit_test(what_would_change_ids_is_refused_and_named),
        cmocka_unit_test(a_missing_byte_is_refused_and_named),
        cmocka_unit_test(damaged_files_do_no_harm),
    };
    return cmocka_run_group_tests(tests, read_golden, free_golden);
}
