/* The text policy under any options: the answer is the same twice, what is kept is well-formed, and stays as it is when judged again. */
#include "dataset/filter/policy.h"

#include "dataset/unicode/utf8.h"
#include "tests/fuzz/fuzz.h"

static struct policy_options options_of(struct fuzz_input *input) {
    uint32_t bits = fuzz_number(input, 2), lengths = fuzz_number(input, 1);
    struct policy_options options = {
        .invalid_utf8 = (enum utf8_policy)(bits % 3),
        .normalization = (enum normalization)(bits / 3 % 5),
        .min_characters = lengths & 15,
        .max_characters = lengths >> 4 ? 1u << (lengths >> 4) : 0,
    };
    for (int f = 0; f < FILTER_COUNT; f++) options.filter[f] = bits >> (8 + f) & 1;
    if (bits >> 11 & 1) {
        options.minhash_bands = 1 + (bits >> 12 & 3) * 21;
        options.minhash_rows = 1 + (bits >> 14);
        options.minhash_words = 1 + (bits >> 12 & 7);
    }
    return options;
}

void fuzz(const uint8_t *data, size_t size) {
    struct fuzz_input input = {data, size};
    struct policy_options options = options_of(&input);
    struct policy *policy, *other;
    struct verdict verdict, again;
    CHECK(policy_open(&policy, &options) == 0 && policy_open(&other, &options) == 0);
    int code = policy_judge(policy, &verdict, input.at, input.left);
    CHECK(code == 0 || (code == ERR_CONFIG && options.invalid_utf8 == UTF8_REFUSE));
    if (code == 0) {
        CHECK(verdict.kept == (verdict.reason[0] == 0) && strlen(verdict.reason) < sizeof verdict.reason);
        CHECK(policy_judge(other, &again, input.at, input.left) == 0);
        CHECK(verdict.kept == again.kept && strcmp(verdict.detail, again.detail) == 0);
        CHECK(memcmp(verdict.band, again.band, sizeof again.band) == 0);
    }
    if (code == 0 && verdict.kept) {
        bool is_settled = !options.filter[FILTER_C4]; /* "[[1]2]" without its citation marker holds another one */
        for (size_t at = 0; at < verdict.bytes;) {
            int length = utf8_measure(verdict.text + at, verdict.bytes - at);
            CHECK(length > 0);
            at += (size_t)length;
        }
        uint8_t *kept = fuzz_copy(verdict.text, verdict.bytes);
        CHECK(policy_judge(other, &again, kept, verdict.bytes) == 0);
        CHECK(again.replaced == 0);
        CHECK(!is_settled || (again.kept && again.bytes == verdict.bytes && memcmp(again.text, kept, verdict.bytes) == 0));
        CHECK(!is_settled || memcmp(verdict.band, again.band, sizeof again.band) == 0);
        free(kept);
    }
    policy_close(policy);
    policy_close(other);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    static const char prose[] =
        "The river had been rising since the morning, and by the evening the people of the village were standing on the bridge.\n"
        "Nobody had seen the water so high, and the older men said that it would be higher[1] before the night was over...\n\n"
        "They brought the boats up to the church; tied them to the trees that have stood there for centuries,\n"
        "and waited with \u201ccare.\u201d\n"
        "- one\n- two\nPlease turn on JavaScript to read the terms of use.\nIt was the end of it. And so on! Was it? Yes.\n";
    static const char marks[] = "e\u0301\u0323 \uAC00\u11A8 \u1100\u1161 \uFDFA\uFB01 \u212B \u0958 \xff\xe2\x82 \u3000\u00a0{ lorem ipsum";
    for (uint32_t bits = 0; bits < 1u << 16; bits += 1223) {
        char seed[3 + sizeof prose] = {(char)(bits >> 8), (char)bits, 0};
        size_t text = bits % 2 ? sizeof marks : sizeof prose;
        memcpy(seed + 3, bits % 2 ? marks : prose, text);
        add(seed, 3 + text - 1);
    }
}
