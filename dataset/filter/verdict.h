/* What the steps of a text policy share: its options, and its answer about one document. */
#ifndef MILLRACE_DATASET_VERDICT_H
#define MILLRACE_DATASET_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
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

/* For steps that take long: was somebody asked to stop? */
static inline int policy_tick(const struct policy_options *options) {
    if (options->tick && options->tick(options->tick_arg) != 0) return err_set(ERR_INTERRUPTED, "judging a document was stopped");
    return 0;
}

#endif
