/* Packing: the plan, its kind of job, and the manifest. Owns the plan and the dataset's digest as far as it is known. A shard whose job
 * and token runs are those of an earlier dataset in the same folder is not made again.
 *
 * Planning, looking through shards that are there and hashing are tasks for files: NAME_task() is on that thread, NAME_done() on the
 * loop's. */
#include "coordinator/packing.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/plain.h"
#include "config/config.h"
#include "coordinator/arrivals.h"
#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/dispatch.h"
#include "coordinator/files.h"
#include "coordinator/queue.h"
#include "coordinator/roster.h"
#include "coordinator/runs.h"
#include "coordinator/store.h"
#include "coordinator/trained.h"
#include "dataset/filter/policy.h"
#include "dataset/plan/plan.h"
#include "dataset/shard/manifest.h"
#include "dataset/source/sources.h"
#include "proto/body.h"
#include "proto/frame.h"

enum {
    HASHINGS_MAX = 8, /* shards that the thread for files has at once for the dataset's digest: outputs that arrive want their turn */
    ROUNDS_MAX = 3,   /* of looking which shards are there, because one was not what its job made: then it is the disk */
};

struct packing_stage {
    struct dataset_plan *plan;
    bool planning;         /* the thread for files plans the dataset, or compares the shards that are there */
    struct sha256 *sha;    /* of the shards 0 .. hashed - 1 */
    size_t hashed, hashing; /* hashing: those that the thread for files has, or is through with */
    struct shard_entry *entry;       /* of the shard that each finished job made; has_index_digest: of those 0 .. hashed - 1 */
    char broken[ERR_TEXT_BYTES];     /* the first shard that is not that file; empty: none */
    unsigned rounds;
};

/* ---- the plan ---- */

/* On the thread for files, because it reads the tables of all runs and goes through every document. */
struct planning {
    struct context *c;         /* its list of runs and its configuration stay as they are meanwhile */
    struct plan_options options;
    struct dataset_plan *plan;
    const atomic_bool *stop;
};

static int load_table(void *arg, size_t run, Millrace__RunTable **out) {
    const struct planning *planning = arg;
    if (atomic_load(planning->stop)) return err_set(ERR_INTERRUPTED, "the coordinator ends");
    return runs_table(planning->c, out, run);
}

static int plan_task(void *arg, const atomic_bool *stop) {
    struct planning *planning = arg;
    planning->stop = stop;
    return dataset_plan_from_runs(&planning->plan, &planning->options);
}

static int planned(struct context *c);

static void plan_done(void *owner, void *arg, int code) {
    struct planning *planning = arg;
    struct context *c = owner;
    c->packing->planning = false;
    c->packing->plan = planning->plan;
    free((void *)planning->options.source_group);
    free((void *)planning->options.source_path);
    free(planning);
    if (code == ERR_INTERRUPTED || c->ended) return;
    if (code == 0) code = planned(c);
    if (code < 0) fail_pipeline(c, code);
}

static int begin_plan(struct context *c) {
    const struct config *config = c->config;
    TRY(runs_list(c));
    uint32_t *group = mem_alloc((c->sources->count + 1) * sizeof *group);
    const char **path = mem_alloc((c->sources->count + 1) * sizeof *path);
    for (size_t i = 0; i < c->sources->count; i++) {
        group[i] = c->sources->source[i].group;
        path[i] = c->sources->source[i].path;
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
    options->source_path = path, options->source_group = group, options->sources = c->sources->count;
    options->runs = runs_count(c), options->load = load_table, options->arg = planning;
    c->packing->planning = files_post(c->files, &(struct file_task){.run = plan_task, .done = plan_done, .arg = planning});
    CHECK(c->packing->planning); /* the queue has room: between two stages nothing else is posted */
    return 0;
}

/* ---- jobs ---- */

/* SHA-256 of all that a shard follows from: its job, and the digests of the runs that the job knows by number. */
static void pack_key(uint8_t out[SHA256_BYTES], const struct context *c, const struct buf *spec, const Millrace__PackJob *job) {
    struct sha256 *sha = sha256_open();
    sha256_add(sha, spec->data, spec->size);
    uint32_t before = UINT32_MAX;
    for (size_t i = 0; i < job->n_run; i++) {
        if (job->run[i] != before) sha256_add(sha, runs_entry(c, job->run[i])->digest, SHA256_BYTES);
        before = job->run[i];
    }
    sha256_finish(sha, out);
    sha256_close(sha);
}

static void name_shard(char out[48], const struct packing_stage *packing, size_t job) {
    size_t train = dataset_plan_totals(packing->plan, false).shards;
    shard_name(out, job >= train, (uint32_t)(job >= train ? job - train : job));
}

static char *shard_path(const struct context *c, size_t job) {
    char name[48];
    name_shard(name, c->packing, job);
    return mem_format("%s/%s", c->dataset_folder, name);
}

/* ---- the kind of job ---- */

static bool fits(const Millrace__Done *done) {
    return done->result_case == MILLRACE__DONE__RESULT_PACK && done->digest.len == SHA256_BYTES;
}

static uint64_t weight(const Millrace__Lease *lease) { return lease->pack->tokens; }
static uint64_t done_weight(const Millrace__Done *done) { return done->pack->tokens; }

/* The manifest's entry of a shard that is made. Its first_document follows from all of them. */
static void enter_shard(struct packing_stage *packing, size_t job, const Millrace__Done *done) {
    struct shard_entry *entry = &packing->entry[job];
    *entry = (struct shard_entry){.tokens = done->pack->tokens, .documents = done->pack->documents, .file_bytes = done->size};
    name_shard(entry->name, packing, job);
    memcpy(entry->file_digest, done->digest.data, SHA256_BYTES);
}

static int job_done(struct context *c, size_t job, const Millrace__Done *result, const struct buf *done, uint32_t worker) {
    uint8_t key[SHA256_BYTES];
    enter_shard(c->packing, job, result);
    Millrace__Lease *lease;
    TRY(dispatch_lease_of(&lease, c, job));
    CHECK(lease->work_case == MILLRACE__LEASE__WORK_PACK);
    pack_key(key, c, dispatch_spec(c, job), lease->pack);
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

/* ---- shards that are there ---- */

/* A shard of an earlier dataset in this folder that has the key of this job. */
struct remembered {
    size_t job;
    char *path;
    struct buf result;     /* its packed DONE */
    uint8_t digest[SHA256_BYTES];
    bool same;             /* the file has the digest that is on record with the key */
};

/* The thread for files reads them all. */
struct recalling {
    struct remembered *shard;
    size_t count;
};

static void recalling_free(struct recalling *r) {
    for (size_t i = 0; i < r->count; i++) {
        free(r->shard[i].path);
        buf_free(&r->shard[i].result);
    }
    free(r->shard);
    free(r);
}

static int pack_spec(struct buf *out, Millrace__PackJob *job) {
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    lease.stage = (char *)stage_name(STAGE_PACK);
    lease.work_case = MILLRACE__LEASE__WORK_PACK;
    lease.pack = job;
    return body_pack(out, &lease.base);
}

static int remember(const struct context *c, struct recalling *r, size_t number, Millrace__PackJob *job) {
    struct buf spec = {0};
    struct remembered shard = {.job = number};
    uint8_t key[SHA256_BYTES];
    int code = pack_spec(&spec, job);
    if (code == 0) pack_key(key, c, &spec, job);
    buf_free(&spec);
    if (code == 0) code = store_memo_get(c->store, key, &shard.result);
    if (code != 1) return code;
    shard.path = shard_path(c, number);
    Millrace__Done *done = NULL;
    code = body_unpack(&done, &millrace__done__descriptor, shard.result.data, shard.result.size);
    bool may_be = done && fits(done) && file_exists(shard.path);
    if (may_be) memcpy(shard.digest, done->digest.data, SHA256_BYTES);
    if (done) millrace__done__free_unpacked(done, NULL);
    if (may_be) {
        if ((r->count & (r->count - 1)) == 0) r->shard = mem_resize(r->shard, (r->count ? 2 * r->count : 1) * sizeof *r->shard);
        r->shard[r->count++] = shard;
    } else {
        free(shard.path);
        buf_free(&shard.result);
    }
    return code == ERR_MEMORY ? code : 0;
}

static int recall_task(void *arg, const atomic_bool *stop) {
    struct recalling *r = arg;
    uint8_t digest[SHA256_BYTES];
    for (size_t i = 0; i < r->count; i++) {
        if (atomic_load(stop)) return err_set(ERR_INTERRUPTED, "the coordinator ends");
        r->shard[i].same = sha256_of_file(digest, r->shard[i].path) == 0 && memcmp(digest, r->shard[i].digest, SHA256_BYTES) == 0;
    }
    return 0;
}

static int add_pack_job(struct context *c, size_t number, Millrace__PackJob *job, const struct buf *result_or_null) {
    const char *stage = stage_name(STAGE_PACK);
    struct buf spec = {0};
    int code = pack_spec(&spec, job);
    if (code == 0) code = store_job_add(c->store, stage, number, spec.data, spec.size);
    if (code == 0 && result_or_null)
        code = store_job_done(c->store, stage, number, "an earlier run", result_or_null->data, result_or_null->size);
    if (result_or_null) c->remade.shards_kept++;
    buf_free(&spec);
    return code;
}

static int add_pack_jobs(struct context *c, const struct recalling *r) {
    for (size_t i = 0, next = 0; i < dataset_plan_jobs(c->packing->plan); i++) {
        Millrace__PackJob *job;
        TRY(dataset_plan_job(&job, c->packing->plan, i));
        const struct remembered *shard = next < r->count && r->shard[next].job == i ? &r->shard[next++] : NULL;
        int code = add_pack_job(c, i, job, shard && shard->same ? &shard->result : NULL);
        millrace__pack_job__free_unpacked(job, NULL);
        TRY(code);
    }
    return 0;
}

static int load_shard(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes) {
    struct packing_stage *packing = arg;
    (void)spec, (void)spec_bytes;
    Millrace__Done *done;
    if (!result) return 0;
    TRY(body_unpack(&done, &millrace__done__descriptor, result, result_bytes));
    bool whole = fits(done);
    if (whole) enter_shard(packing, number, done);
    millrace__done__free_unpacked(done, NULL);
    return whole ? 0 : err_set(ERR_CORRUPT, "state database: pack job %" PRIu64 " is of another kind", number);
}

static int begin_jobs(struct context *c) {
    struct packing_stage *packing = c->packing;
    TRY(dispatch_load(c, &pack_jobs));
    sha256_close(packing->sha);
    packing->sha = sha256_open();
    packing->hashed = packing->hashing = 0;
    packing->broken[0] = 0;
    free(packing->entry);
    packing->entry = mem_alloc((dispatch_queue(c)->count + 1) * sizeof *packing->entry);
    return store_jobs(c->store, stage_name(STAGE_PACK), load_shard, packing);
}

static int recalled(struct context *c, const struct recalling *r) {
    TRY(store_begin(c->store));
    int code = add_pack_jobs(c, r);
    if (code < 0) {
        store_cancel(c->store);
        return code;
    }
    TRY(store_commit(c->store));
    return begin_jobs(c);
}

static void recall_done(void *owner, void *arg, int code) {
    struct context *c = owner;
    c->packing->planning = false;
    if (code == 0 && !c->ended) code = recalled(c, arg);
    recalling_free(arg);
    if (code < 0 && code != ERR_INTERRUPTED) fail_pipeline(c, code);
}

static int find_remembered(const struct context *c, struct recalling *r) {
    for (size_t i = 0; i < dataset_plan_jobs(c->packing->plan); i++) {
        Millrace__PackJob *job;
        TRY(dataset_plan_job(&job, c->packing->plan, i));
        int code = remember(c, r, i, job);
        millrace__pack_job__free_unpacked(job, NULL);
        TRY(code);
    }
    return 0;
}

/* Finds out which shards are there before any job is recorded, so that after a crash it is found out again. */
static int recall(struct context *c) {
    struct recalling *r = mem_alloc(sizeof *r);
    int code = find_remembered(c, r);
    if (code == 0) {
        c->packing->planning = files_post(c->files, &(struct file_task){.run = recall_task, .done = recall_done, .arg = r});
        if (c->packing->planning) return 0;
        code = err_set(ERR_LIMIT, "too much is to be read at once"); /* nothing else is between two stages */
    }
    recalling_free(r);
    return code;
}

int packing_begin(struct context *c) { return begin_plan(c); }

static int planned(struct context *c) {
    TRY(folder_make(c->dataset_folder));
    uint64_t known;
    TRY(store_job_count(c->store, stage_name(STAGE_PACK), &known));
    if (known) return begin_jobs(c);
    TRY(manifest_remove(c->dataset_folder)); /* its shards are about to change */
    return recall(c);
}

/* ---- the dataset ---- */

struct hashing {
    char *path;
    struct sha256 *sha;        /* of all shards before this one */
    struct shard_entry *entry; /* of the shard that the job made; the digest of its index goes there */
};

static int hash_task(void *arg, const atomic_bool *stop) {
    struct hashing *hashing = arg;
    (void)stop;
    int code = shard_entry_verify(hashing->entry, hashing->entry->index_digest, hashing->path, hashing->sha);
    hashing->entry->has_index_digest = code == 0;
    return code == ERR_CORRUPT ? err_add(code, "%s is not the file that its job made", hashing->path) : code;
}

static void hash_done(void *owner, void *arg, int code) {
    struct context *c = owner;
    struct hashing *hashing = arg;
    free(hashing->path);
    free(hashing);
    c->packing->hashed++;
    if (code == ERR_CORRUPT || code == ERR_NOTFOUND) {
        if (!c->packing->broken[0]) snprintf(c->packing->broken, sizeof c->packing->broken, "%s", err_text());
    } else if (code < 0 && code != ERR_INTERRUPTED) fail_pipeline(c, code);
}

/* The dataset's digest grows with the shards that are there, in their order, which is that of the thread for files. */
int packing_advance(struct context *c) {
    while (c->packing->hashing < dispatch_queue(c)->count && c->packing->hashing - c->packing->hashed < HASHINGS_MAX &&
           dispatch_queue(c)->job[c->packing->hashing].state == JOB_DONE) {
        struct hashing *hashing = mem_alloc(sizeof *hashing);
        *hashing = (struct hashing){.path = shard_path(c, c->packing->hashing), .sha = c->packing->sha};
        hashing->entry = &c->packing->entry[c->packing->hashing];
        if (!files_post(c->files, &(struct file_task){.run = hash_task, .done = hash_done, .arg = hashing})) {
            free(hashing->path);
            free(hashing);
            return 0;
        }
        c->packing->hashing++;
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
    hex_of(old, c->dataset->trained.digest, SHA256_BYTES);
    hex_of(fresh, c->dataset->manifest.digest, SHA256_BYTES);
    return err_set(ERR_CORRUPT,
                   "the dataset in %s was made again and is another one than %" PRIu64
                   " steps were trained on: digest %s, theirs %s; a source changed, or this is another build; put the sources back as they "
                   "were, or run with --restart",
                   c->dataset_folder, c->dataset->trained.steps, fresh, old);
}

static int make_manifest(struct context *c) {
    struct manifest *m = &c->dataset->manifest;
    *m = (struct manifest){0};
    dataset_plan_describe(c->packing->plan, m);
    m->document_mask = c->config->dataset.document_mask;
    m->tokenizer = mem_text(c->config->dataset.tokenizer);
    memcpy(m->tokenizer_digest, c->tokenizer_digest, sizeof m->tokenizer_digest);
    m->policy = policy_text(c->config);
    m->shard = mem_alloc((m->shards + 1) * sizeof *m->shard);
    size_t jobs = dispatch_queue(c)->count;
    int code = jobs == m->shards ? 0 : err_set(ERR_CORRUPT, "state database: %zu pack jobs for %zu shards", jobs, m->shards);
    if (code == 0) memcpy(m->shard, c->packing->entry, jobs * sizeof *m->shard);
    m->sources = c->sources->count;
    m->source = mem_alloc((m->sources + 1) * sizeof *m->source);
    for (size_t i = 0; i < m->sources; i++) m->source[i] = mem_text(c->sources->source[i].path);
    sha256_finish(c->packing->sha, m->digest);
    if (code == 0) code = compare_with_trained(c);
    if (code == 0) code = manifest_write(m, c->dataset_folder);
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
    int code = 0;
    for (size_t i = 0; i < dispatch_queue(c)->count; i++) {
        Millrace__Lease *lease;
        code = dispatch_lease_of(&lease, c, i);
        if (code < 0) break;
        pack_key(key[i], c, dispatch_spec(c, i), lease->pack);
        millrace__lease__free_unpacked(lease, NULL);
    }
    if (code == 0) code = runs_sweep(c, (const uint8_t (*)[SHA256_BYTES])key, dispatch_queue(c)->count);
    free(key);
    TRY(code);
    TRY(remove_shards_after(c, false, c->dataset->manifest.train_shards));
    return remove_shards_after(c, true, c->dataset->manifest.shards - c->dataset->manifest.train_shards);
}

/* Shards went, broke or changed places since their jobs were done, while nobody was here: those that are what their jobs made stay, and
 * the others are made again. */
static int pack_again(struct context *c) {
    if (++c->packing->rounds >= ROUNDS_MAX)
        return err_set(ERR_CORRUPT, "%s; shards were made again %d times; look at the disk", c->packing->broken, ROUNDS_MAX - 1);
    note_event(c, "shards-again", "%s; what is not as it was made is made again", c->packing->broken);
    c->remade.shards_kept = 0;
    TRY(store_jobs_drop(c->store, stage_name(STAGE_PACK)));
    return recall(c);
}

int packing_finish(struct context *c) {
    if (c->packing->broken[0]) {
        TRY(pack_again(c));
        return 1;
    }
    TRY(make_manifest(c));
    c->dataset->has_manifest = true;
    uint8_t layout[SHA256_BYTES];
    trained_layout(layout, &c->dataset->manifest);
    TRY(store_begin(c->store));
    int code = store_set_number(c->store, "dataset_made", 1);
    if (code == 0) code = store_set(c->store, "dataset_digest", c->dataset->manifest.digest, SHA256_BYTES);
    if (code == 0) code = store_set(c->store, "dataset_layout", layout, SHA256_BYTES);
    if (code < 0) {
        store_cancel(c->store);
        return code;
    }
    TRY(store_commit(c->store));
    char hex[SHA256_HEX];
    hex_of(hex, c->dataset->manifest.digest, SHA256_BYTES);
    note_event(c, "dataset-made", "%" PRIu64 " document%s, %" PRIu64 " token%s, digest %s", c->dataset->manifest.documents,
               plural(c->dataset->manifest.documents), c->dataset->manifest.tokens, plural(c->dataset->manifest.tokens), hex);
    if (sweep(c) < 0) log_warn("%s", err_text()); /* only costs room */
    dispatch_clear(c);
    return 0;
}

bool packing_plans(const struct context *c) { return c->packing->planning; }

bool packing_has_digest(const struct context *c) { return c->packing->hashed == dispatch_queue(c)->count; }

void packing_open(struct context *c) { c->packing = mem_alloc(sizeof *c->packing); }

void packing_close(struct context *c) {
    if (!c->packing) return;
    dataset_plan_free(c->packing->plan);
    sha256_close(c->packing->sha);
    free(c->packing->entry);
    free(c->packing);
    c->packing = NULL;
}
