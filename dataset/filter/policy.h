/* What becomes of a document's text before it is tokenized: kept as it is, changed, or left out, each for a reason that is counted.
 * Pure: the answer follows from the text and the options alone.
 *
 * The steps, in this order; the first that leaves the document out is its reason:
 *
 *   invalid_utf8     replaced by U+FFFD (dataset/unicode/utf8.h), or left out, or the end of the run
 *   normalization    NFC, NFD, NFKC, NFKD (dataset/unicode/unicode.h)
 *   c4               lines that it removes are gone for all that follows (dataset/filter/quality.h)
 *   min_characters, max_characters   code points of what is left
 *   gopher_quality, gopher_repetition  (dataset/filter/quality.h)
 *   bands            MinHash of the final text (dataset/filter/minhash.h)
 *
 * Reasons are "invalid_utf8", "min_characters", "max_characters", "FILTER: RULE" ("c4: sentences"), and "too_long" when replacing or
 * normalizing makes a text longer than POLICY_DOCUMENT_BYTES_MAX. Time is linear in the text. Memory: up to one text of that size for
 * each of the first three steps that changes it; 12 times the text while one of nothing but combining marks is normalized; 12 times the
 * text for gopher_repetition, 4 times where it is English. Nothing is given back before policy_close(). */
#ifndef MILLRACE_DATASET_POLICY_H
#define MILLRACE_DATASET_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"

enum {
    POLICY_DOCUMENT_BYTES_MAX = 16 << 20,  /* a longer document is left out ("too_long") where the policy has to see the whole of it */
    MINHASH_BANDS_MAX = 64, MINHASH_ROWS_MAX = 64,
    POLICY_REASON_BYTES = 64, POLICY_DETAIL_BYTES = 128,
};

struct policy_options {
    enum utf8_policy invalid_utf8;
    enum normalization normalization;
    uint64_t min_characters, max_characters;  /* 0: no limit */
    bool filter[FILTER_COUNT];
    uint32_t minhash_bands, minhash_rows, minhash_words;  /* 0 bands: no near-duplicate removal; words of a shingle */
    int (*tick)(void *arg);                   /* called some times for a long document; not 0: ERR_INTERRUPTED. NULL is fine */
    void *tick_arg;
};

static inline struct policy_options policy_options_of(const struct config *config) {
    struct policy_options options = {.invalid_utf8 = config->dataset.invalid_utf8, .normalization = config->dataset.normalization};
    options.min_characters = (uint64_t)config->dataset.min_characters;
    options.max_characters = (uint64_t)config->dataset.max_characters;
    for (int i = 0; i < FILTER_COUNT; i++) options.filter[i] = config->dataset.filters[i];
    if (config->dataset.deduplicate != DEDUPLICATE_NEAR) return options;
    options.minhash_bands = (uint32_t)config->dataset.minhash_bands;
    options.minhash_rows = (uint32_t)config->dataset.minhash_rows;
    options.minhash_words = (uint32_t)config->dataset.minhash_words;
    return options;
}

struct verdict {
    bool kept;
    char reason[POLICY_REASON_BYTES];    /* of a document left out: "c4: sentences" */
    char detail[POLICY_DETAIL_BYTES];    /* "2 sentences; at least 3 are wanted" */
    const uint8_t *text;                 /* what is tokenized; valid as the text given is, and until the next call or policy_close() */
    size_t bytes;
    uint64_t replaced;                   /* ill-formed UTF-8 parts */
    uint64_t band[MINHASH_BANDS_MAX];    /* two documents that share one are near duplicates */
};

struct policy;
int policy_open(struct policy **out, const struct policy_options *options);
/* Must it see whole documents? If not, text may go straight to the tokenizer, in parts of any size. */
bool policy_sees_whole(const struct policy *policy);
/* ERR_CONFIG only with UTF8_REFUSE, naming the byte; ERR_INTERRUPTED by the tick. bytes <= POLICY_DOCUMENT_BYTES_MAX. */
int policy_judge(struct policy *policy, struct verdict *out, const void *text, size_t bytes);
void policy_close(struct policy *policy);

int policy_tick(const struct policy_options *options);  /* for its steps */

#endif
