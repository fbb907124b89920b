/* From the tables of token runs to documents, splits, sequences and pack jobs. Pure: nothing but the options and the tables decides.
 *
 * A document's digest is SHA-256 over the SHA-256 digests of its text blocks (dataset/ingest/token_run.h), so that it is the same however
 * token runs were cut. Documents without a token are counted and left out. Then, in this order:
 *
 * - Duplicates: of documents with one digest the first in source order stays; with near-duplicate removal, of all documents that
 *   hang together by shared MinHash bands (a shares one with b, b with c: one cluster, as in FineWeb) the first. A band of 0 is none.
 * - Splits: a source entry's documents are for training, for validation, or: validation when the digest's first 8 bytes
 *   (big-endian) / 2^64 < validation_fraction. Of these, with a fraction above 0, a split that would stay empty gets the documents of the
 *   smallest digest (validation) or the largest (training), if the other then keeps any. A text is never on both sides: what
 *   is like a validation document is left out of training.
 * - Weights: the next training document is of the entry whose tokens lack most of its share of all so far, at equal lack of the first.
 *   Ends with the first entry that is used up; or entries begin again until each was used up once. Without weights: as they come.
 * - Packing. concat: each document, then <eos>; one long array; sequence i is the tokens [iT, iT + T) with one more as its last target.
 *   pad and best_fit: a sequence is T tokens that stand for themselves. pad: a document and its <eos>, cut off after T tokens. best_fit:
 *   documents with their <eos> are cut after each T tokens, and the rests are put, the longest first, into the
 *   fullest sequence that has room (Ding et al., "Fewer truncations improve language modeling", arXiv 2404.10830); sequences then
 *   come in the order of the first document in each. An <eos> that would be alone in its piece is left out: no sequence could predict it.
 *   What stays free at a sequence's end is filled with <eos>: padding is <eos> after <eos>.
 *
 * Documents are numbered by the place at which they begin: training shards in order, then validation. A document that is repeated is
 * another one each time. */
#ifndef MILLRACE_DATASET_PLAN_H
#define MILLRACE_DATASET_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "dataset/shard/manifest.h"
#include "proto/dataset.pb-c.h"
#include "proto/millrace.pb-c.h"

enum {
    PLAN_JOB_BYTES_MAX = 60 << 20,     /* the same; the shard's index is no larger */
    PLAN_ROUNDS_MAX = 1000,            /* a source that has to be repeated more often is a mistake */
    PLAN_EXAMPLES_MAX = 5,             /* of each reason for which documents were left out */
};

struct dataset_plan;

struct split_totals {
    uint64_t documents, tokens, sequences, shards;
};

/* What the plan follows from, beside the token runs. Everything is the caller's and is used during the call alone. */
struct plan_options {
    uint32_t token_bytes, eos;             /* eos: the token id that ends documents, and pads */
    uint64_t sequence_length, shard_tokens;/* shard_tokens: as configured, or the effective value */
    double validation_fraction;
    double max_left_out;                   /* share of faults that ends it (dataset/ingest/left_out.h) */
    enum packing packing;
    enum deduplicate deduplicate;
    uint32_t minhash_bands;                /* of the tables; DEDUPLICATE_NEAR */
    enum stopping stopping;
    const struct source_group *groups;     /* config->dataset.sources.item: name, weight, split */
    size_t group_count;
    const char *const *source_path;        /* of each source file, by number: for examples */
    const uint32_t *source_group;          /* the entry that each source file belongs to */
    size_t sources;
    size_t runs;                           /* in the order of the sources */
    /* The table of a token run, with `source` holding the number of the source file (not of the part in its job). Called in order for all
     * token runs, and with near-duplicate removal again for every few bands; the plan frees it. */
    int (*load)(void *arg, size_t run, Millrace__RunTable **out);
    void *arg;
};

/* Memory: some 90 bytes for each document, 32 more for each further piece of one, 16 for one whose text was changed, and the names of
 * members. ERR_CONFIG when more was left out than max_left_out, nothing is left to train on, less than one sequence, or a shard would have
 * too many documents for one message (the text says what to do). ERR_CORRUPT: tables that cannot follow each other. */
int dataset_plan_from_runs(struct dataset_plan **out, const struct plan_options *options);
struct split_totals dataset_plan_totals(const struct dataset_plan *plan, bool validation);

/* Pack job number i of the plan: training shards first, then validation shards. The job is owned by the caller:
 * millrace__pack_job__free_unpacked(job, NULL). */
size_t dataset_plan_jobs(const struct dataset_plan *plan);
int dataset_plan_job(Millrace__PackJob **out, const struct dataset_plan *plan, size_t i);

/* Puts into the manifest what the plan knows: counts, geometry, groups, what was left out. The caller adds the shards, digest, source
 * paths, and what the plan was not told. */
void dataset_plan_describe(const struct dataset_plan *plan, struct manifest *manifest);
void dataset_plan_free(struct dataset_plan *plan);

#endif
