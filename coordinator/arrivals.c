/* Checks of token runs and shards, each a function of the job, the DONE and the file. Runs on the thread for files; keeps nothing. */
#include "coordinator/arrivals.h"

#include <inttypes.h>
#include <string.h>

#include "base/err.h"
#include "dataset/filter/policy.h"
#include "dataset/ingest/token_run.h"
#include "dataset/shard/shard.h"

enum {
    SHARD_SPARE = 1 << 20,      /* of a small shard */
    EXTENT_BYTES = 256,         /* of a shard's index, for each extent of its job, and its names */
};

struct arrival_terms arrival_terms_of(const struct config *config, const struct tokenizer *tokenizer) {
    bool near = config->dataset.deduplicate == DEDUPLICATE_NEAR;
    return (struct arrival_terms){.token_bytes = tokenizer_token_bytes(tokenizer),
                                  .vocabulary = (uint64_t)tokenizer_vocabulary(tokenizer),
                                  .band_bytes = near ? policy_options_of(config).minhash_bands * sizeof(uint64_t) : 0};
}

/* ---- how large ---- */

uint64_t arrival_run_bytes_max(const Millrace__Lease *lease) {
    (void)lease;
    return TOKEN_RUN_BYTES_MAX;
}

uint64_t arrival_shard_bytes_max(const Millrace__Lease *lease) {
    const Millrace__PackJob *job = lease->pack;
    uint64_t names = 0;
    for (size_t i = 0; i < job->n_member_name; i++) names += strlen(job->member_name[i]);
    return 2 * job->tokens * job->token_bytes + job->n_run * (uint64_t)EXTENT_BYTES + names + SHARD_SPARE;
}

/* ---- runs ---- */

static int compare_places(const Millrace__Place *a, const Millrace__Place *b) {
    const uint64_t x[] = {a->part, a->member, a->documents, a->text}, y[] = {b->part, b->member, b->documents, b->text};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
}

/* A chain of jobs must come to an end. */
static int check_next(const Millrace__TokenizeJob *job, const Millrace__Place *next) {
    Millrace__Place beginning = MILLRACE__PLACE__INIT;
    const Millrace__Place *from = job->from ? job->from : &beginning;
    if (!next) return 0;
    if (next->part >= job->n_parts) return err_set(ERR_PEER, "it goes on in part %u of %zu", next->part, job->n_parts);
    if (compare_places(next, from) <= 0) return err_set(ERR_PEER, "the next job would not begin after this one");
    return 0;
}

static int check_table(const struct arrival_terms *terms, const Millrace__TokenizeJob *job, const Millrace__TokenizeResult *result,
                       const Millrace__RunTable *table) {
    size_t bands = table->n_source * terms->band_bytes;
    if (table->token_bytes != terms->token_bytes) return err_set(ERR_PEER, "its tokens have %u bytes", table->token_bytes);
    if (table->tokens != result->tokens)
        return err_set(ERR_PEER, "it has %" PRIu64 " tokens, but %" PRIu64 " were told", table->tokens, result->tokens);
    if (table->bands.len != bands) return err_set(ERR_PEER, "it has %zu bytes of bands where %zu are expected", table->bands.len, bands);
    for (size_t i = 0; i < table->n_source; i++)
        if (table->source[i] >= job->n_parts) return err_set(ERR_PEER, "there is no part %u in its job", table->source[i]);
    return 0;
}

static int refuse_kind(void) { return err_set(ERR_PEER, "its result is that of another kind of job"); }

int arrival_check_run(const struct arrival_terms *terms, const Millrace__Lease *lease, const Millrace__Done *done, const char *path) {
    const Millrace__TokenizeJob *job = lease->tokenize;
    const Millrace__TokenizeResult *result = done->tokenize;
    Millrace__RunTable *table;
    if (lease->work_case != MILLRACE__LEASE__WORK_TOKENIZE || done->result_case != MILLRACE__DONE__RESULT_TOKENIZE) return refuse_kind();
    TRY(check_next(job, result->next));
    TRY(token_run_table_read(&table, path));
    int code = check_table(terms, job, result, table);
    if (code == 0) code = token_run_ids_check(table, path, terms->vocabulary);
    millrace__run_table__free_unpacked(table, NULL);
    return code;
}

/* ---- shards ---- */

int arrival_check_shard(const struct arrival_terms *terms, const Millrace__Lease *lease, const Millrace__Done *done, const char *path) {
    const Millrace__PackJob *job = lease->pack;
    const Millrace__PackResult *result = done->pack;
    struct shard *shard;
    if (lease->work_case != MILLRACE__LEASE__WORK_PACK || done->result_case != MILLRACE__DONE__RESULT_PACK) return refuse_kind();
    if (result->tokens != job->tokens)
        return err_set(ERR_PEER, "%" PRIu64 " tokens were told of a shard of %" PRIu64, result->tokens, job->tokens);
    TRY(shard_open(&shard, path));
    uint64_t vocabulary = terms->vocabulary;
    if (job->eos >= vocabulary) vocabulary = (uint64_t)job->eos + 1; /* the token that ends documents need not be the tokenizer's */
    int code = shard_fits(shard, job, result->documents, vocabulary);
    shard_close(shard);
    return code;
}
