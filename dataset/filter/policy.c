/* The steps in their order. Done here: well-formed text, one normalization form, limits of length. A struct policy keeps a buffer for each
 * step that can change text, and the rooms of repetition and minhash, from one document to the next; one thread at a time. */
#include "dataset/filter/policy.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "dataset/filter/minhash.h"
#include "dataset/filter/quality.h"
#include "dataset/filter/words.h"
#include "dataset/unicode/doubtful.h"
#include "dataset/unicode/unicode.h"
#include "dataset/unicode/utf8.h"

enum { TICK_BYTES = 1 << 20 }; /* of a document, from which on a step may take a while */

struct policy {
    struct policy_options options;
    struct repetition *repetition; /* NULL: not asked for */
    struct minhash *minhash;       /* NULL: not asked for */
    struct buf valid, normalized, lines;
};

int policy_open(struct policy **out, const struct policy_options *options) {
    struct policy *policy = mem_alloc(sizeof *policy);
    policy->options = *options;
    policy->normalized.max_bytes = policy->lines.max_bytes = POLICY_DOCUMENT_BYTES_MAX;
    policy->valid.max_bytes = POLICY_DOCUMENT_BYTES_MAX + UTF8_REPLACE_ROOM;
    if (options->filter[FILTER_GOPHER_REPETITION]) policy->repetition = repetition_open();
    if (options->minhash_bands) policy->minhash = minhash_open(options->minhash_bands, options->minhash_rows, options->minhash_words);
    *out = policy;
    return 0;
}

void policy_close(struct policy *policy) {
    if (!policy) return;
    repetition_close(policy->repetition);
    minhash_close(policy->minhash);
    buf_free(&policy->valid);
    buf_free(&policy->normalized);
    buf_free(&policy->lines);
    free(policy);
}

bool policy_sees_whole(const struct policy *policy) {
    const struct policy_options *o = &policy->options;
    bool filters = false;
    for (int f = 0; f < FILTER_COUNT; f++) filters |= o->filter[f];
    return filters || o->invalid_utf8 != UTF8_REPLACE || o->normalization != NORMALIZE_NONE || o->min_characters || o->max_characters ||
           o->minhash_bands;
}

/* Bytes of text before the first that is not UTF-8. */
static size_t well_formed(const uint8_t *text, size_t bytes) {
    size_t at = 0;
    while (at < bytes) {
        uint64_t word;
        if (bytes - at >= sizeof word) {
            memcpy(&word, text + at, sizeof word);
            if (!(word & 0x8080808080808080u)) {
                at += sizeof word;
                continue;
            }
        }
        int length = utf8_measure(text + at, bytes - at);
        if (length <= 0) break;
        at += (size_t)length;
    }
    return at;
}

/* The text, well-formed. */
static int replace_ill_formed(struct policy *policy, struct verdict *out) {
    struct utf8_replacer replacer = {0};
    struct buf *valid = &policy->valid;
    buf_clear(valid);
    for (size_t at = 0, got; at < out->bytes; valid->size += got) {
        size_t more = out->bytes - at < (1 << 16) ? out->bytes - at : 1 << 16;
        TRY(buf_reserve(valid, more + UTF8_REPLACE_ROOM));
        at += utf8_replace(&replacer, valid->data + valid->size, &got, valid->capacity - valid->size, out->text + at, more);
    }
    TRY(buf_reserve(valid, UTF8_REPLACE_ROOM));
    valid->size += utf8_replace_end(&replacer, valid->data + valid->size);
    if (valid->size > POLICY_DOCUMENT_BYTES_MAX) return err_set(ERR_LIMIT, "%zu bytes", valid->size); /* some are in the room to work in */
    out->text = valid->data;
    out->bytes = valid->size;
    out->replaced = replacer.replaced;
    return 1;
}

static int step_utf8(struct policy *policy, struct verdict *out) {
    size_t good = well_formed(out->text, out->bytes);
    if (good == out->bytes) return 1;
    switch (policy->options.invalid_utf8) {
    case UTF8_DROP: return quality_left_out(out, "invalid_utf8", "byte %zu (0x%02X) is not UTF-8", good, out->text[good]);
    case UTF8_REFUSE:
        return err_set(ERR_CONFIG, "byte %zu of a document (0x%02X) is not UTF-8; convert it (" UTF8_CONVERT ", if it is " UTF8_ELSE
                       "), or set dataset.invalid_utf8: replace or drop",
                       good, out->text[good]);
    default: return replace_ill_formed(policy, out);
    }
}

static int step_normalize(struct policy *policy, struct verdict *out) {
    if (policy->options.normalization == NORMALIZE_NONE) return 1;
    buf_clear(&policy->normalized);
    TRY(unicode_normalize(&policy->normalized, policy->options.normalization, out->text, out->bytes));
    out->text = policy->normalized.data;
    out->bytes = policy->normalized.size;
    return 1;
}

static int step_c4(struct policy *policy, struct verdict *out) {
    if (!policy->options.filter[FILTER_C4]) return 1;
    int code = quality_c4(out, &policy->lines, out->text, out->bytes);
    if (code <= 0) return code;
    out->text = policy->lines.data;
    out->bytes = policy->lines.size;
    return 1;
}

static int step_length(struct policy *policy, struct verdict *out) {
    unsigned long long least = policy->options.min_characters, most = policy->options.max_characters;
    if (!least && !most) return 1;
    unsigned long long characters = characters_in(out->text, out->bytes);
    if (characters < least) return quality_left_out(out, "min_characters", "%llu characters; at least %llu are wanted", characters, least);
    if (most == 0 || characters <= most) return 1;
    return quality_left_out(out, "max_characters", "%llu characters; at most %llu are wanted", characters, most);
}

static int step_quality(struct policy *policy, struct verdict *out) {
    if (policy->options.filter[FILTER_GOPHER_QUALITY] && quality_gopher(out, out->text, out->bytes) == 0) return 0;
    if (!policy->repetition) return 1;
    return quality_repetition(policy->repetition, out, out->text, out->bytes, &policy->options);
}

static int step_minhash(struct policy *policy, struct verdict *out) {
    if (policy->minhash) minhash_of(policy->minhash, out->band, out->text, out->bytes);
    return 1;
}

int policy_judge(struct policy *policy, struct verdict *out, const void *text, size_t bytes) {
    static int (*const steps[])(struct policy *, struct verdict *) = {step_utf8, step_normalize, step_c4, step_length, step_quality,
                                                                      step_minhash};
    CHECK(bytes <= POLICY_DOCUMENT_BYTES_MAX);
    *out = (struct verdict){.text = bytes ? text : (const void *)"", .bytes = bytes};
    int code = 1;
    for (size_t s = 0; s < sizeof steps / sizeof *steps && code > 0; s++) {
        TRY(bytes >= TICK_BYTES ? policy_tick(&policy->options) : 0);
        code = steps[s](policy, out);
    }
    if (code == ERR_LIMIT) /* only replacing and normalizing make a text longer */
        code = quality_left_out(out, "too_long", "more than %d bytes as it would be tokenized", POLICY_DOCUMENT_BYTES_MAX);
    if (code < 0) return code;
    out->kept = code;
    return 0;
}
