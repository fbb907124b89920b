/* Runs to shards and their manifest: the plan, its jobs, and mending a shard that broke. A shard whose job and runs are those of an
 * earlier dataset in the same folder is not made again. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/plain.h"
#include "coordinator/files.h"
#include "coordinator/internal.h"
#include "dataset/filter/policy.h"

struct results {
    Millrace__Done **done;
    size_t count, capacity;
};

static int load_result(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes) {
    struct results *results = arg;
    (void)spec, (void)spec_bytes;
    if (!result || number != results->count) return err_set(ERR_CORRUPT, "state database: job %" PRIu64 " has no result", number);
    if (results->count == results->capacity) {
        results->capacity = results->capacity ? results->capacity * 2 : 64;
        results->done = mem_resize(results->done, results->capacity * sizeof *results->done);
    }
    Millrace__Done *done = millrace__done__unpack(NULL, result_bytes, result);
    if (!done) return err_set(ERR_CORRUPT, "state database: the result of job %" PRIu64 " cannot be read", number);
    results->done[results->count++] = done;
    return 0;
}

static void free_results(struct results *results) {
    for (size_t i = 0; i < results->count; i++) millrace__done__free_unpacked(results->done[i], NULL);
    free(results->done);
}

/* ---- the plan ---- */

/* The thread for files makes it: the tables of all runs are read, and every document is looked at. */
struct planning {
    struct context *c;         /* its list of runs and its configuration stay as they are meanwhile */
    struct plan_options options;
    struct dataset_plan *plan;
    const atomic_bool *stop;
};

static int load_table(void *arg, size_t run, Millrace__RunTable **out) {
    const struct planning *planning = arg;
    if (atomic_load(planning->stop)) return err_set(ERR_INTERRUPTED, "the coordinator ends");
    return tokenizing_table(planning->c, out, run);
}

static int plan_run(void *arg, const atomic_bool *stop) {
    struct planning *planning = arg;
    planning->stop = stop;
    return dataset_plan_from_runs(&planning->plan, &planning->options);
}

static int planned(struct context *c);

static void plan_done(void *owner, void *arg, int code) {
    struct planning *planning = arg;
    struct context *c = owner;
    c->planning = false;
    c->plan = planning->plan;
    free((void *)planning->options.source_group);
    free((void *)planning->options.source_path);
    free(planning);
    if (code == ERR_INTERRUPTED || c->ended) return;
    if (code == 0) code = planned(c);
    if (code < 0) fail_pipeline(c, code);
}

static int begin_plan(struct context *c) {
    const struct config *config = c->config;
    TRY(tokenizing_list_runs(c));
    uint32_t *group = mem_alloc((c->sources.count + 1) * sizeof *group);
    const char **path = mem_alloc((c->sources.count + 1) * sizeof *path);
    for (size_t i = 0; i < c->sources.count; i++) {
        group[i] = c->sources.source[i].group;
        path[i] = c->sources.source[i].path;
    }
    struct planning *planning = mem_alloc(sizeof *planning);
    planning->c = c;
    struct plan_options *options = &planning->options;
    options->token_bytes = c->token_bytes, options->eos = (uint32_t)config->model.eos_token_id;
    options->sequence_length = (uint64_t)config->dataset.sequence_length;
    options->shard_tokens = (uint64_t)config->dataset.shard_tokens;
    options->validation_fraction = config->dataset.validation_fraction;
    options->max_left_out = config->dataset.max_left_out;
    options->packing = config->dataset.packing;
    options->deduplicate = config->dataset.deduplicate;
    options->minhash_bands = policy_options_of(config).minhash_bands;
    options->stopping = config->dataset.stopping_strategy;
    options->groups = config->dataset.sources.item, options->group_count = config->dataset.sources.count;
    options->source_path = path, options->source_group = group, options->sources = c->sources.count;
    options->runs = c->runs, options->load = load_table, options->arg = planning;
    c->planning = files_post(c->files, &(struct file_task){.run = plan_run, .done = plan_done, .arg = planning});
    CHECK(c->planning); /* nothing else is posted at the end of a stage */
    return 0;
}

/* ---- jobs ---- */

/* A shard follows from its job and the runs in it, which the job knows by their numbers. */
static void pack_key(uint8_t out[SHA256_BYTES], const struct context *c, const struct buf *spec, const Millrace__PackJob *job) {
    struct sha256 *sha = sha256_open();
    sha256_add(sha, spec->data, spec->size);
    uint32_t before = UINT32_MAX;
    for (size_t i = 0; i < job->n_run; i++) {
        if (job->run[i] != before) sha256_add(sha, c->run_list[job->run[i]].digest, SHA256_BYTES);
        before = job->run[i];
    }
    sha256_finish(sha, out);
    sha256_close(sha);
}

/* Is the shard of an earlier dataset in this folder the one that the job would make? 1: yes, `out` is its packed DONE. */
static int recall(struct context *c, struct buf *out, const uint8_t key[SHA256_BYTES], const char *path) {
    int known = store_memo_get(c->store, key, out);
    if (known != 1) return known;
    uint8_t digest[SHA256_BYTES];
    Millrace__Done *done = millrace__done__unpack(NULL, out->size, out->data);
    bool same = done && done->result_case == MILLRACE__DONE__RESULT_PACK && done->digest.len == SHA256_BYTES && file_exists(path) &&
                sha256_of_file(digest, path) == 0 && memcmp(digest, done->digest.data, SHA256_BYTES) == 0;
    if (done) millrace__done__free_unpacked(done, NULL);
    return same;
}

static char *shard_path(const struct context *c, size_t job) {
    size_t train = dataset_plan_totals(c->plan, false).shards;
    char name[48];
    shard_name(name, job >= train, (uint32_t)(job >= train ? job - train : job));
    return mem_format("%s/%s", c->dataset_folder, name);
}

static int add_pack_job(struct context *c, size_t number, Millrace__PackJob *job) {
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    uint8_t key[SHA256_BYTES];
    struct buf spec = {0}, result = {0};
    lease.stage = (char *)stage_name(STAGE_PACK);
    lease.work_case = MILLRACE__LEASE__WORK_PACK;
    lease.pack = job;
    char *path = shard_path(c, number);
    int code = dispatch_pack(&spec, &lease);
    if (code == 0) code = store_job_add(c->store, lease.stage, number, spec.data, spec.size);
    if (code == 0) {
        pack_key(key, c, &spec, job);
        code = recall(c, &result, key, path);
    }
    if (code == 1) code = store_job_done(c->store, lease.stage, number, "an earlier run", result.data, result.size);
    buf_free(&spec);
    buf_free(&result);
    free(path);
    return code < 0 ? code : 0;
}

static int add_pack_jobs(struct context *c) {
    for (size_t i = 0; i < dataset_plan_jobs(c->plan); i++) {
        Millrace__PackJob *job;
        TRY(dataset_plan_job(&job, c->plan, i));
        int code = add_pack_job(c, i, job);
        millrace__pack_job__free_unpacked(job, NULL);
        TRY(code);
    }
    return 0;
}

int packing_begin(struct context *c) { return begin_plan(c); }

/* ---- the kind of job ---- */

static bool fits(const Millrace__Done *done) {
    return done->result_case == MILLRACE__DONE__RESULT_PACK && done->digest.len == SHA256_BYTES;
}

static uint64_t weight(const Millrace__Lease *lease) { return lease->pack->tokens; }
static uint64_t done_weight(const Millrace__Done *done) { return done->pack->tokens; }

static int job_done(struct context *c, size_t job, const Millrace__Done *result, const struct buf *done, uint32_t worker) {
    uint8_t key[SHA256_BYTES];
    (void)result;
    const struct buf *spec = dispatch_spec(c, job);
    Millrace__Lease *lease = millrace__lease__unpack(NULL, spec->size, spec->data);
    CHECK(lease && lease->work_case == MILLRACE__LEASE__WORK_PACK);
    pack_key(key, c, spec, lease->pack);
    millrace__lease__free_unpacked(lease, NULL);
    TRY(store_begin(c->store));
    int code = store_job_done(c->store, stage_name(STAGE_PACK), job, c->worker[worker].id, done->data, done->size);
    if (code == 0) code = store_memo_put(c->store, key, done->data, done->size);
    if (code == 0) return store_commit(c->store);
    store_cancel(c->store);
    return code;
}

static const struct job_kind pack_jobs = {
    .stage = STAGE_PACK,
    .work = MILLRACE__LEASE__WORK_PACK,
    .recorded = true,
    .fits = fits,
    .weight = weight,
    .done_weight = done_weight,
    .path = shard_path,
    .bytes_max = arrival_shard_bytes_max,
    .check = arrival_check_shard,
    .done = job_done,
};

static int planned(struct context *c) {
    TRY(folder_make(c->dataset_folder));
    uint64_t known;
    TRY(store_job_count(c->store, stage_name(STAGE_PACK), &known));
    if (known == 0) {
        TRY(manifest_remove(c->dataset_folder)); /* what it tells of is about to change */
        TRY(store_begin(c->store));
        int code = add_pack_jobs(c);
        if (code < 0) {
            store_cancel(c->store);
            return code;
        }
        TRY(store_commit(c->store));
    }
    TRY(dispatch_load(c, &pack_jobs));
    sha256_close(c->dataset_sha);
    c->dataset_sha = sha256_open();
    c->dataset_hashed = c->dataset_hashing = 0;
    return 0;
}

struct hashing {
    char *path;
    struct sha256 *sha; /* of all shards before this one */
};

static int hash_run(void *arg, const atomic_bool *stop) {
    struct hashing *hashing = arg;
    struct shard *shard;
    (void)stop;
    TRY(shard_open(&shard, hashing->path));
    int code = shard_verify(shard, hashing->sha);
    shard_close(shard);
    return code;
}

static void hash_done(void *owner, void *arg, int code) {
    struct context *c = owner;
    struct hashing *hashing = arg;
    free(hashing->path);
    free(hashing);
    c->dataset_hashed++;
    if (code < 0 && code != ERR_INTERRUPTED) fail_pipeline(c, code);
}

/* The dataset's digest grows with the shards that are there, in their order, which is that of the thread for files. */
int packing_advance(struct context *c) {
    while (c->dataset_hashing < dispatch_queue(c)->count && dispatch_queue(c)->job[c->dataset_hashing].state == JOB_DONE) {
        struct hashing *hashing = mem_alloc(sizeof *hashing);
        *hashing = (struct hashing){shard_path(c, c->dataset_hashing), c->dataset_sha};
        if (!files_post(c->files, &(struct file_task){.run = hash_run, .done = hash_done, .arg = hashing})) {
            free(hashing->path);
            free(hashing);
            return 0;
        }
        c->dataset_hashing++;
    }
    return 0;
}

static int fill_shards(struct manifest *manifest, const struct results *results, size_t train_shards) {
    for (size_t i = 0; i < results->count; i++) {
        const Millrace__Done *done = results->done[i];
        if (done->result_case != MILLRACE__DONE__RESULT_PACK || done->digest.len != SHA256_BYTES)
            return err_set(ERR_CORRUPT, "state database: pack job %zu is of another kind", i);
        struct shard_entry *entry = &manifest->shard[i];
        shard_name(entry->name, i >= train_shards, (uint32_t)(i >= train_shards ? i - train_shards : i));
        entry->tokens = done->pack->tokens;
        entry->documents = done->pack->documents;
        entry->file_bytes = done->size;
        memcpy(entry->file_digest, done->digest.data, SHA256_BYTES);
    }
    return 0;
}

/* What became of texts, for people and for `dataset trace`. */
static char *policy_text(const struct config *config) {
    static const char *const utf8[] = {"replace", "drop", "refuse"}, *const forms[] = {"none", "NFC", "NFD", "NFKC", "NFKD"};
    static const char *const filters[] = {", gopher_quality", ", gopher_repetition", ", c4"};
    const bool *on = config->dataset.filters;
    char least[48] = "", most[48] = "";
    if (config->dataset.min_characters) snprintf(least, sizeof least, ", min_characters: %" PRId64, config->dataset.min_characters);
    if (config->dataset.max_characters) snprintf(most, sizeof most, ", max_characters: %" PRId64, config->dataset.max_characters);
    return mem_format("invalid_utf8: %s, normalization: %s%s%s%s%s%s", utf8[config->dataset.invalid_utf8],
                      forms[config->dataset.normalization], least, most, on[0] ? filters[0] : "", on[1] ? filters[1] : "",
                      on[2] ? filters[2] : "");
}

/* A dataset that is made again after steps were trained on it has to be the same one. */
static int compare_with_trained(const struct context *c) {
    char old[SHA256_HEX], fresh[SHA256_HEX];
    if (!trained_is_other(c)) return 0;
    hex_of(old, c->trained.digest, SHA256_BYTES);
    hex_of(fresh, c->manifest.digest, SHA256_BYTES);
    return err_set(ERR_CORRUPT,
                   "the dataset in %s was made again and is another one than %" PRIu64
                   " steps were trained on: digest %s, theirs %s; a source changed, or this is another build; put the sources back as they "
                   "were, or run with --restart",
                   c->dataset_folder, c->trained.steps, fresh, old);
}

static int make_manifest(struct context *c) {
    struct results results = {0};
    int code = store_jobs(c->store, stage_name(STAGE_PACK), load_result, &results);
    struct manifest *m = &c->manifest;
    *m = (struct manifest){0};
    dataset_plan_describe(c->plan, m);
    m->document_mask = c->config->dataset.document_mask;
    m->tokenizer = mem_text(c->config->dataset.tokenizer);
    memcpy(m->tokenizer_digest, c->tokenizer_digest, sizeof m->tokenizer_digest);
    m->policy = policy_text(c->config);
    m->shard = mem_alloc((m->shards + 1) * sizeof *m->shard);
    if (code == 0 && results.count != m->shards)
        code = err_set(ERR_CORRUPT, "state database: %zu pack jobs for %zu shards", results.count, m->shards);
    if (code == 0) code = fill_shards(m, &results, m->train_shards);
    m->sources = c->sources.count;
    m->source = mem_alloc((m->sources + 1) * sizeof *m->source);
    for (size_t i = 0; i < m->sources; i++) m->source[i] = mem_text(c->sources.source[i].path);
    sha256_finish(c->dataset_sha, m->digest);
    if (code == 0) code = compare_with_trained(c);
    if (code == 0) code = manifest_write(m, c->dataset_folder);
    free_results(&results);
    return code;
}

/* Shards of an earlier dataset that had more of them. */
static int remove_shards_after(const struct context *c, bool validation, size_t shards) {
    for (size_t i = shards;; i++) {
        char name[48];
        shard_name(name, validation, (uint32_t)i);
        char *path = mem_format("%s/%s", c->dataset_folder, name);
        bool gone = unlink(path) != 0;
        int code = gone && errno != ENOENT ? err_errno("%s", path) : 0;
        free(path);
        if (gone) return code;
    }
}

/* What the finished dataset has no use for. */
static int sweep(struct context *c) {
    uint8_t (*key)[SHA256_BYTES] = mem_alloc((dispatch_queue(c)->count + 1) * sizeof *key);
    for (size_t i = 0; i < dispatch_queue(c)->count; i++) {
        Millrace__Lease *lease = millrace__lease__unpack(NULL, dispatch_spec(c, i)->size, dispatch_spec(c, i)->data);
        if (lease) pack_key(key[i], c, dispatch_spec(c, i), lease->pack);
        if (lease) millrace__lease__free_unpacked(lease, NULL);
    }
    int code = tokenizing_sweep(c, (const uint8_t (*)[SHA256_BYTES])key, dispatch_queue(c)->count);
    free(key);
    TRY(code);
    TRY(remove_shards_after(c, false, c->manifest.train_shards));
    return remove_shards_after(c, true, c->manifest.shards - c->manifest.train_shards);
}

int packing_finish(struct context *c) {
    TRY(make_manifest(c));
    c->has_manifest = true;
    uint8_t layout[SHA256_BYTES];
    trained_layout(layout, &c->manifest);
    TRY(store_begin(c->store));
    int code = store_set_number(c->store, "dataset_made", 1);
    if (code == 0) code = store_set(c->store, "dataset_digest", c->manifest.digest, SHA256_BYTES);
    if (code == 0) code = store_set(c->store, "dataset_layout", layout, SHA256_BYTES);
    if (code < 0) {
        store_cancel(c->store);
        return code;
    }
    TRY(store_commit(c->store));
    char hex[SHA256_HEX];
    hex_of(hex, c->manifest.digest, SHA256_BYTES);
    note_event(c, "dataset-made", "%" PRIu64 " document%s, %" PRIu64 " token%s, digest %s", c->manifest.documents,
               plural(c->manifest.documents), c->manifest.tokens, plural(c->manifest.tokens), hex);
    if (sweep(c) < 0) log_warn("%s", err_text()); /* only costs room */
    dispatch_clear(c);
    return stages_dataset_ready(c);
}
