/* Is an output what its job must make? Looked at when all of it came, before it gets its name: what a worker tells is its word alone. What
 * only doing the job again would show (other tokens of the same count) is not found here. */
#include <inttypes.h>
#include <string.h>

#include "base/err.h"
#include "coordinator/internal.h"
#include "dataset/filter/policy.h"
#include "dataset/ingest/run.h"

enum {
    RUN_BYTES_MAX = 256 << 20,  /* INGEST_TEXT_BYTES of text make at most a quarter of that, and a table */
    SHARD_SPARE = 1 << 20,      /* of a small shard */
    EXTENT_BYTES = 256,         /* of a shard's index, for each extent of its job, and its names */
};

/* ---- how large ---- */

static uint64_t shard_bytes_max(const Millrace__PackJob *job) {
    uint64_t names = 0;
    for (size_t i = 0; i < job->n_member_name; i++) names += strlen(job->member_name[i]);
    return 2 * job->tokens * job->token_bytes + job->n_run * (uint64_t)EXTENT_BYTES + names + SHARD_SPARE;
}

int arrival_check_size(const struct context *c, size_t job, uint64_t size) {
    uint64_t most = RUN_BYTES_MAX;
    Millrace__Lease *lease = millrace__lease__unpack(NULL, c->job[job].spec.size, c->job[job].spec.data);
    CHECK(lease != NULL);
    if (lease->work_case == MILLRACE__LEASE__WORK_PACK) most = shard_bytes_max(lease->pack);
    millrace__lease__free_unpacked(lease, NULL);
    return size <= most ? 0 : err_set(ERR_PEER, "its output has %" PRIu64 " bytes; at most %" PRIu64 " can come of such a job", size, most);
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

static int check_table(const struct context *c, const Millrace__TokenizeJob *job, const Millrace__TokenizeResult *result,
                       const Millrace__RunTable *table) {
    bool near = c->config->dataset.deduplicate == DEDUPLICATE_NEAR;
    size_t bands = near ? table->n_source * policy_options_of(c->config).minhash_bands * sizeof(uint64_t) : 0;
    if (table->token_bytes != c->token_bytes) return err_set(ERR_PEER, "its tokens have %u bytes", table->token_bytes);
    if (table->tokens != result->tokens)
        return err_set(ERR_PEER, "it has %" PRIu64 " tokens, but %" PRIu64 " were told", table->tokens, result->tokens);
    if (table->bands.len != bands) return err_set(ERR_PEER, "it has %zu bytes of bands where %zu are expected", table->bands.len, bands);
    for (size_t i = 0; i < table->n_source; i++)
        if (table->source[i] >= job->n_parts) return err_set(ERR_PEER, "there is no part %u in its job", table->source[i]);
    return 0;
}

static int check_run(const struct context *c, const Millrace__TokenizeJob *job, const Millrace__TokenizeResult *result,
                     const char *path) {
    Millrace__RunTable *table;
    TRY(check_next(job, result->next));
    TRY(run_table_read(&table, path));
    int code = check_table(c, job, result, table);
    if (code == 0) code = run_ids_check(table, path, (uint64_t)tokenizer_vocabulary(c->tokenizer));
    millrace__run_table__free_unpacked(table, NULL);
    return code;
}

/* ---- shards ---- */

static int check_shard(const struct context *c, const Millrace__PackJob *job, const Millrace__PackResult *result, const char *path) {
    struct shard *shard;
    if (result->tokens != job->tokens)
        return err_set(ERR_PEER, "%" PRIu64 " tokens were told of a shard of %" PRIu64, result->tokens, job->tokens);
    TRY(shard_open(&shard, path));
    uint64_t vocabulary = (uint64_t)tokenizer_vocabulary(c->tokenizer);
    if (job->eos >= vocabulary) vocabulary = (uint64_t)job->eos + 1; /* the token that ends documents need not be the tokenizer's */
    int code = shard_fits(shard, job, result->documents, vocabulary);
    shard_close(shard);
    return code;
}

int arrival_check(const struct context *c, size_t job, const Millrace__Done *done, const char *path) {
    Millrace__Lease *lease = millrace__lease__unpack(NULL, c->job[job].spec.size, c->job[job].spec.data);
    CHECK(lease != NULL);
    int code;
    if (lease->work_case == MILLRACE__LEASE__WORK_TOKENIZE && done->result_case == MILLRACE__DONE__RESULT_TOKENIZE)
        code = check_run(c, lease->tokenize, done->tokenize, path);
    else if (lease->work_case == MILLRACE__LEASE__WORK_PACK && done->result_case == MILLRACE__DONE__RESULT_PACK)
        code = check_shard(c, lease->pack, done->pack, path);
    else code = err_set(ERR_PEER, "its result is that of another kind of job");
    millrace__lease__free_unpacked(lease, NULL);
    return code;
}
