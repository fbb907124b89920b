/* Tokenize jobs: which there are, which of them were done before (their keys are memos in the store), and whether their files are still
 * what they were. A job that is long ends at some place and its DONE has that place; the next job of the chain is made then, in
 * job_done(). Keeps nothing in memory. */
#include "coordinator/tokenizing.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/arrivals.h"
#include "coordinator/context.h"
#include "coordinator/dispatch.h"
#include "coordinator/queue.h"
#include "coordinator/roster.h"
#include "coordinator/runs.h"
#include "coordinator/sourcing.h"
#include "coordinator/store.h"
#include "dataset/ingest/tokenize_jobs.h"
#include "dataset/source/sources.h"
#include "dataset/source/unpack.h"
#include "proto/body.h"
#include "proto/frame.h"

/* ---- jobs ---- */

/* The result of an earlier run with this key, if its file is there, too. 1: appended to `out` and unpacked. */
static int recall(struct context *c, Millrace__Done **out_done, struct buf *out, const uint8_t key[SHA256_BYTES]) {
    int known = store_memo_get(c->store, key, out);
    if (known != 1) return known;
    Millrace__Done *done = NULL;
    if (body_unpack(&done, &millrace__done__descriptor, out->data, out->size) == ERR_MEMORY) return ERR_MEMORY;
    if (done && runs_has(c, done, key)) {
        *out_done = done;
        return 1;
    }
    if (done) millrace__done__free_unpacked(done, NULL);
    return 0;
}

struct planning {
    struct context *c;
    uint64_t count, recalled;
};

/* Adds the job, and when it was done before, what follows it in its chain. */
static int add_job(void *arg, const Millrace__TokenizeJob *planned) {
    struct planning *planning = arg;
    Millrace__TokenizeJob copy = *planned, *job = &copy;
    struct store *store = planning->c->store;
    const char *stage = stage_name(STAGE_TOKENIZE);
    Millrace__Place place = MILLRACE__PLACE__INIT;
    for (bool more = true; more;) {
        uint8_t key[SHA256_BYTES];
        struct buf spec = {0}, result = {0};
        Millrace__Lease lease = MILLRACE__LEASE__INIT;
        Millrace__Done *done = NULL;
        lease.stage = (char *)stage;
        lease.work_case = MILLRACE__LEASE__WORK_TOKENIZE;
        lease.tokenize = job;
        runs_key(key, planning->c, job);
        int code = body_pack(&spec, &lease.base);
        if (code == 0) code = store_job_add(store, stage, planning->count, spec.data, spec.size);
        int known = code == 0 ? recall(planning->c, &done, &result, key) : code;
        if (known == 1) known = store_job_done(store, stage, planning->count, "an earlier run", result.data, result.size);
        planning->count++;
        planning->recalled += done != NULL;
        more = done && done->tokenize->next;
        if (more) {
            place = *done->tokenize->next;
            job->from = &place;
        }
        if (done) millrace__done__free_unpacked(done, NULL);
        buf_free(&spec);
        buf_free(&result);
        TRY(known);
    }
    return 0;
}

struct opened {
    int fd;
    const char *path;
};

static int read_file(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    const struct opened *opened = arg;
    int code = file_read_at(opened->fd, out, out_got, size_bytes, offset);
    return code < 0 ? err_add(code, "%s", opened->path) : 0;
}

/* Members that can be reached one by one make jobs of their own. A file without an index becomes one job; one that cannot be read now is
 * none of these: what is lost with damage depends on how an archive is divided. */
static int index_members(struct job_source *out, uint64_t **out_bytes, const struct source *source) {
    if (source->is_url) return 0;
    struct opened opened = {-1, source->path};
    TRY(file_open(&opened.fd, source->path));
    struct byte_reader reader = {read_file, &opened, source->path, source->size};
    int code = unpack_index(out_bytes, &out->members, &reader);
    if (code == 0) out->member_bytes = *out_bytes;
    close(opened.fd);
    return code;
}

static int plan_tokenize(struct context *c, uint64_t *out_recalled, uint64_t *out_jobs) {
    const struct source_groups *groups = &c->config->dataset.sources;
    struct job_source *sources = mem_alloc((c->sources->count + 1) * sizeof *sources);
    uint64_t **bytes = mem_alloc((c->sources->count + 1) * sizeof *bytes);
    int code = 0;
    for (size_t i = 0; i < c->sources->count && code == 0; i++) {
        const struct source *source = &c->sources->source[i];
        sources[i] = (struct job_source){
            .name = source->path, .size = source->size, .version = source->version, .file = (uint32_t)i, .group = source->group};
        code = source_look(&sources[i], source);
        bool packed = sources[i].content == CONTENT_PACKED || source_is_stream(source->path, &groups->item[source->group]);
        if (code == 0 && packed) code = index_members(&sources[i], &bytes[i], source);
    }
    struct planning planning = {.c = c};
    if (code == 0) code = tokenize_jobs_plan(sources, c->sources->count, groups->item, c->whole_documents, add_job, &planning);
    for (size_t i = 0; i < c->sources->count; i++) free(bytes[i]);
    free(bytes);
    free(sources);
    *out_recalled = planning.recalled;
    *out_jobs = planning.count;
    return code;
}

static int replan(struct context *c, const char *difference) {
    uint64_t recalled = 0, jobs = 0;
    TRY(dispatch_drop_recorded(c));
    TRY(store_set_number(c->store, "dataset_made", 0));
    TRY(plan_tokenize(c, &recalled, &jobs));
    c->remade = (struct remade){.jobs_kept = recalled};
    snprintf(c->remade.why, sizeof c->remade.why, "%s", difference ? difference : "");
    if (difference) note_event(c, "sources-changed", "%s", difference);
    if (recalled) note_event(c, "runs-kept", "%" PRIu64 " of %" PRIu64 " tokenize job%s done before", recalled, jobs,
                           jobs == 1 ? " was" : "s were");
    return 0;
}

/* ERR_NOTFOUND at the first job that is done and whose run is not there under its key. */
static int look_for_run(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes) {
    struct context *c = arg;
    struct buf copy = {0};
    Millrace__Lease *lease;
    Millrace__Done *done = NULL;
    if (result && body_unpack(&done, &millrace__done__descriptor, result, result_bytes) == ERR_MEMORY) return ERR_MEMORY;
    if (!done) return 0; /* to be done, or said to be damaged where it is read */
    int code = buf_append(&copy, spec, spec_bytes);
    if (code == 0) code = runs_unpack(&lease, &copy);
    if (code == 0) {
        uint8_t key[SHA256_BYTES];
        runs_key(key, c, lease->tokenize);
        millrace__lease__free_unpacked(lease, NULL);
        if (!runs_has(c, done, key)) code = err_set(ERR_NOTFOUND, "the run of job tokenize/%" PRIu64, number);
    }
    millrace__done__free_unpacked(done, NULL);
    buf_free(&copy);
    return code;
}

/* Jobs that are done give runs of this version, which are there: those of an earlier one have other keys. */
static int look_for_runs(struct context *c, bool *out_all) {
    int code = store_jobs(c->store, stage_name(STAGE_TOKENIZE), look_for_run, c);
    *out_all = code == 0;
    if (code == ERR_NOTFOUND) note_event(c, "runs-gone", "%s is the first that is not there; what is missing is made again", err_text());
    return code == ERR_NOTFOUND ? 0 : code;
}

/* Runs of a file that changed while it was read may be of both versions, and its size and time need not show it: all are forgotten. */
static int forget_file(struct context *c, uint32_t file) {
    TRY(store_set(c->store, "sources", "", 0));
    for (size_t job = 0; job < dispatch_queue(c)->count; job++) {
        Millrace__Lease *lease;
        uint8_t key[SHA256_BYTES];
        bool has = false;
        TRY(runs_unpack(&lease, dispatch_spec(c, job)));
        for (size_t i = 0; i < lease->tokenize->n_parts; i++) has |= lease->tokenize->parts[i]->file == file;
        runs_key(key, c, lease->tokenize);
        millrace__lease__free_unpacked(lease, NULL);
        if (has) TRY(store_memo_drop(c->store, key)); /* the run is written again, or swept */
    }
    return 0;
}

int tokenizing_check_file(struct context *c, uint32_t file, int fd) {
    const struct source *source = &c->sources->source[file];
    int code = 0;
    if (!source->is_url && source->identity.inode == 0) /* of the record, sourcing_recall() */
        code = err_set(ERR_CORRUPT, "%s changed since the dataset was made from it, which is lost or damaged now; run the same command "
                       "again, which makes it from what is there", source->path);
    else if (!source->is_url) code = identity_check(&source->identity, source->path, fd);
    if (code != ERR_CORRUPT || c->stage != STAGE_TOKENIZE) return code;
    struct err changed = err_take();
    TRY(store_begin(c->store));
    int forgotten = forget_file(c, file);
    if (forgotten == 0) forgotten = store_commit(c->store);
    else store_cancel(c->store);
    if (forgotten < 0) return forgotten;
    err_give(&changed);
    return code;
}

int tokenizing_check_sources(struct context *c) {
    for (size_t i = 0; i < c->sources->count; i++) TRY(tokenizing_check_file(c, (uint32_t)i, -1));
    return 0;
}

/* ---- the kind of job ---- */

static bool fits(const Millrace__Done *done) {
    return done->result_case == MILLRACE__DONE__RESULT_TOKENIZE && done->digest.len == SHA256_BYTES;
}

/* A job that goes on where another ended adds nothing. */
static uint64_t weight(const Millrace__Lease *lease) {
    uint64_t weight = 0;
    for (size_t i = 0; i < lease->tokenize->n_parts && !lease->tokenize->from; i++) {
        const Millrace__SourcePart *part = lease->tokenize->parts[i];
        weight += part->end > part->begin ? part->end - part->begin : part->size;
    }
    return weight;
}

static uint64_t done_weight(const Millrace__Done *done) { return done->tokenize->source_bytes; }

/* Are its files what they were? */
static int check_job(struct context *c, size_t job) {
    Millrace__Lease *lease;
    TRY(runs_unpack(&lease, dispatch_spec(c, job)));
    int code = 0;
    for (size_t i = 0; code == 0 && i < lease->tokenize->n_parts; i++)
        if (lease->tokenize->parts[i]->file < c->sources->count) code = tokenizing_check_file(c, lease->tokenize->parts[i]->file, -1);
    millrace__lease__free_unpacked(lease, NULL);
    return code;
}

static char *run_path(const struct context *c, size_t job) {
    Millrace__Lease *lease;
    if (runs_unpack(&lease, dispatch_spec(c, job)) < 0) return NULL;
    uint8_t key[SHA256_BYTES];
    runs_key(key, c, lease->tokenize);
    millrace__lease__free_unpacked(lease, NULL);
    return runs_key_path(c, key);
}

/* Also makes the job that goes on where it ended. */
static int job_done(struct context *c, size_t job, const Millrace__Done *result, const struct buf *done, uint32_t worker) {
    Millrace__Place *next = result->tokenize->next;
    const char *stage = stage_name(STAGE_TOKENIZE);
    Millrace__Lease *lease;
    struct buf spec = {0};
    uint8_t key[SHA256_BYTES];
    TRY(runs_unpack(&lease, dispatch_spec(c, job)));
    runs_key(key, c, lease->tokenize);
    TRY(store_begin(c->store));
    int code = store_job_done(c->store, stage, job, c->worker[worker].id, done->data, done->size);
    if (code == 0) code = store_memo_put(c->store, key, done->data, done->size);
    if (code == 0 && next) {
        Millrace__Place *from = lease->tokenize->from;
        lease->tokenize->from = next;
        code = body_pack(&spec, &lease->base);
        lease->tokenize->from = from;
        if (code == 0) code = store_job_add(c->store, stage, dispatch_queue(c)->count, spec.data, spec.size);
    }
    millrace__lease__free_unpacked(lease, NULL);
    if (code == 0) code = store_commit(c->store);
    else store_cancel(c->store);
    if (code == 0 && spec.size) dispatch_add(c, &spec, worker);
    buf_free(&spec);
    return code;
}

static const struct job_kind tokenize_jobs = {
    .stage = STAGE_TOKENIZE,
    .work = MILLRACE__LEASE__WORK_TOKENIZE,
    .recorded = true,
    .fits = fits,
    .weight = weight,
    .done_weight = done_weight,
    .check_input = check_job,
    .path = run_path,
    .bytes_max = arrival_run_bytes_max,
    .check = arrival_check_run,
    .done = job_done,
};

int tokenizing_begin(struct context *c) {
    char *difference = NULL;
    bool all = true;
    TRY(folder_make(c->runs_folder));
    TRY(store_begin(c->store));
    int same = sourcing_record(c, &difference);
    int code = same == 1 ? look_for_runs(c, &all) : same;
    if (code == 0 && (same == 0 || !all)) code = replan(c, difference);
    free(difference);
    if (code < 0) {
        store_cancel(c->store);
        return code;
    }
    TRY(store_commit(c->store));
    return dispatch_load(c, &tokenize_jobs);
}
