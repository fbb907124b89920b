/* Text to runs of token ids: which files the sources are, which jobs tokenize them, and which of those were done before.
 *
 * A run follows from the file's identity, the part and place in it, and the settings of text and tokenizer; the SHA-256 of all these is its
 * key. Runs lie in state/runs under their keys, their results are memos in the store: whatever changes, a job whose key is known is not
 * done again. A job that is long ends somewhere and tells where; the next one of its chain is made then. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/paths.h"
#include "coordinator/internal.h"
#include "coordinator/listing.h"
#include "dataset/filter/policy.h"
#include "dataset/ingest/run.h"
#include "dataset/ingest/split.h"
#include "dataset/source/unpack.h"

/* ---- which files ---- */

static bool wants_standard_input(const struct config *config) {
    for (size_t i = 0; i < config->dataset.sources.count; i++)
        for (size_t p = 0; p < config->dataset.sources.item[i].paths.count; p++)
            if (strcmp(config->dataset.sources.item[i].paths.item[p], "-") == 0) return true;
    return false;
}

static int copy_standard_input(const struct draft *draft) {
    uint8_t *bytes = mem_alloc(1 << 20);
    uint64_t size = 0;
    ssize_t got;
    int code = 0;
    while (code == 0 && (got = read(STDIN_FILENO, bytes, 1 << 20)) > 0) {
        code = file_write_at(draft->fd, bytes, (size_t)got, size);
        size += (uint64_t)got;
    }
    if (code == 0 && got < 0) code = err_errno("standard input");
    if (code == 0 && size == 0)
        code = err_set(ERR_CONFIG, "dataset.sources has \"-\", but standard input is empty: pipe the text into millrace");
    free(bytes);
    return code;
}

static int spool_to(const struct config *config, const char *path) {
    char *folder = mem_format("%s/state", config->output_dir);
    struct draft draft;
    int code = folder_make_private(folder);
    free(folder);
    if (code == 0) code = draft_open(&draft, path);
    TRY(code);
    code = copy_standard_input(&draft);
    if (code == 0) return draft_publish(&draft);
    draft_discard(&draft);
    return code;
}

int coordinator_spool(const struct config *config) {
    if (!wants_standard_input(config)) return 0;
    char *path = mem_format("%s/state/stdin", config->output_dir);
    int code = file_exists(path) ? 0 : spool_take_next(config); /* a restart was killed before it began */
    if (code == 0 && !file_exists(path)) code = spool_to(config, path);
    free(path);
    return code;
}

int spool_next(const struct config *config) {
    if (!wants_standard_input(config)) return 0;
    char *path = mem_format("%s/state/stdin.next", config->output_dir);
    int code = spool_to(config, path);
    free(path);
    return code;
}

int spool_take_next(const struct config *config) {
    char *next = mem_format("%s/state/stdin.next", config->output_dir), *path = mem_format("%s/state/stdin", config->output_dir);
    int code = file_exists(next) ? file_rename(next, path) : 0;
    free(next);
    free(path);
    return code;
}

int tokenizing_find_sources(struct context *c) {
    const struct source_groups *configured = &c->config->dataset.sources;
    struct source_group *groups = mem_alloc((configured->count + 1) * sizeof *groups);
    struct buf spool = {0}; /* as a pattern that matches this file alone, whatever its folders are called */
    char **spooled = NULL;
    TRY(path_absolute(&spool, "stdin", c->state_folder, true));
    for (size_t i = 0; i < configured->count; i++) {
        groups[i] = configured->item[i];
        struct text_list *paths = &groups[i].paths;
        for (size_t p = 0; p < paths->count; p++) {
            if (strcmp(paths->item[p], "-") != 0) continue;
            spooled = mem_alloc(paths->count * sizeof *spooled);
            memcpy(spooled, paths->item, paths->count * sizeof *spooled);
            spooled[p] = (char *)spool.data;
            paths->item = spooled;
        }
    }
    const struct sources_own own = {c->config->output_dir, c->config->file, spooled ? (const char *)spool.data : NULL};
    int code = sources_find(&c->sources, groups, configured->count, &own);
    for (size_t i = 0; code == 0 && i < c->sources.passed_count; i++)
        note_event(c, "no-source", "%s%s: %s", c->sources.passed[i].path, c->sources.passed[i].others ? " and others" : "",
                   c->sources.passed[i].why);
    free(spooled);
    buf_free(&spool);
    free(groups);
    return code;
}

/* Files of the project by their place in it: a project may be moved. */
/* A source's name on record: below the pipeline's folder without it, so that a project that moved is the same. */
static const char *name_on_record(const struct context *c, const char *path) {
    const char *folder = c->config->folder;
    size_t above = strlen(folder);
    return strncmp(path, folder, above) == 0 && path[above] == '/' ? path + above + 1 : path;
}

static int print_sources(const struct context *c, struct buf *out) {
    for (size_t i = 0; i < c->sources.count; i++) {
        const struct source *source = &c->sources.source[i];
        TRY(buf_print(out, "%s\t%" PRIu64 "\t%" PRIu64 "\n", name_on_record(c, source->path), source->size, source->version));
    }
    return buf_append(out, "", 0);
}

int tokenizing_compare(struct context *c, struct buf *out_listing, char **out_difference) {
    struct buf old = {0};
    int code = store_get(c->store, "sources", &old);
    bool known = code == 1 && old.size > 0;
    if (code >= 0) code = print_sources(c, out_listing);
    bool same = known && old.size == out_listing->size && memcmp(old.data, out_listing->data, old.size) == 0;
    if (code == 0 && known && !same) *out_difference = listing_difference(&old, out_listing);
    buf_free(&old);
    return code;
}

/* 1: as recorded; 0: not, and recorded now. */
static int same_sources(struct context *c, char **out_difference) {
    struct buf old = {0}, fresh = {0};
    int code = store_get(c->store, "sources", &old);
    bool known = code == 1 && old.size > 0;
    if (code >= 0) code = tokenizing_compare(c, &fresh, out_difference);
    bool same = known && !*out_difference;
    if (code == 0 && !same) code = store_set(c->store, "sources", fresh.data, fresh.size);
    buf_free(&old);
    buf_free(&fresh);
    return code < 0 ? code : same;
}

static int recall_source(struct context *c, const char *line) {
    struct source source = {0};
    int path_bytes = (int)strcspn(line, "\t");
    if (sscanf(line + path_bytes, "\t%" SCNu64 "\t%" SCNu64 "\n", &source.size, &source.version) != 2)
        return err_set(ERR_CORRUPT, "state database: the list of sources cannot be read");
    char *name = mem_format("%.*s", path_bytes, line);
    source.is_url = path_is_remote(name);
    source.path = *name == '/' || source.is_url ? mem_text(name) : mem_format("%s/%s", c->config->folder, name);
    free(name);
    if (c->sources.count == c->sources.capacity) {
        c->sources.capacity = 2 * c->sources.capacity + 16;
        c->sources.source = mem_resize(c->sources.source, c->sources.capacity * sizeof source);
    }
    c->sources.source[c->sources.count++] = source;
    return 0;
}

int tokenizing_recall_sources(struct context *c) {
    struct buf old = {0};
    int code = store_get(c->store, "sources", &old);
    sources_free(&c->sources);
    c->sources = (struct sources){0};
    for (const char *line = code == 1 && old.size ? (const char *)old.data : ""; code >= 0 && *line; line += strcspn(line, "\n") + 1)
        code = recall_source(c, line);
    buf_free(&old);
    return code < 0 ? code : 0;
}

/* ---- keys ---- */

static void add_text(struct sha256 *sha, const char *text) { sha256_add(sha, text, strlen(text) + 1); }

static void add_number(struct sha256 *sha, uint64_t number) {
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(number >> 8 * i);
    sha256_add(sha, bytes, sizeof bytes);
}

/* Another RUN_SETTINGS says that the same settings give other runs than before. */
void tokenizing_note_settings(struct context *c) {
    enum { RUN_SETTINGS = 3 };
    const struct policy_options policy = policy_options_of(c->config);
    struct sha256 *sha = sha256_open();
    add_number(sha, RUN_SETTINGS);
    sha256_add(sha, c->tokenizer_digest, sizeof c->tokenizer_digest);
    add_number(sha, c->token_bytes);
    add_number(sha, policy.invalid_utf8);
    add_number(sha, policy.normalization);
    add_number(sha, policy.min_characters);
    add_number(sha, policy.max_characters);
    for (int i = 0; i < FILTER_COUNT; i++) add_number(sha, policy.filter[i]);
    add_number(sha, policy.minhash_bands);
    add_number(sha, policy.minhash_rows);
    add_number(sha, policy.minhash_words);
    sha256_finish(sha, c->run_settings);
    sha256_close(sha);
}

static void add_group(struct sha256 *sha, const struct source_group *group) {
    add_number(sha, group->format);
    add_text(sha, group->field ? group->field : "");
    add_text(sha, group->separator ? group->separator : "");
    add_number(sha, group->members.count);
    for (size_t i = 0; i < group->members.count; i++) add_text(sha, group->members.item[i]);
}

static void job_key(uint8_t out[SHA256_BYTES], const struct context *c, const Millrace__TokenizeJob *job) {
    struct sha256 *sha = sha256_open();
    sha256_add(sha, c->run_settings, sizeof c->run_settings);
    for (size_t i = 0; i < job->n_parts; i++) {
        const Millrace__SourcePart *part = job->parts[i];
        const char *path = part->file < c->sources.count ? c->sources.source[part->file].path : part->name;
        add_text(sha, name_on_record(c, path));
        add_group(sha, &c->config->dataset.sources.item[part->group]);
        const uint64_t numbers[] = {part->version, part->size, part->begin, part->end, part->stream, part->first_member, part->members};
        for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++) add_number(sha, numbers[n]);
    }
    const Millrace__Place *from = job->from;
    const uint64_t place[] = {from ? from->part : 0, from ? from->member : 0, from ? from->documents : 0, from ? from->text : 0};
    for (size_t n = 0; n < sizeof place / sizeof *place; n++) add_number(sha, place[n]);
    sha256_finish(sha, out);
    sha256_close(sha);
}

static char *key_path(const struct context *c, const uint8_t key[SHA256_BYTES]) {
    char hex[SHA256_HEX];
    hex_of(hex, key, SHA256_BYTES);
    return mem_format("%s/%.40s.tok", c->runs_folder, hex);
}

static int unpack_spec(Millrace__Lease **out, const struct buf *spec) {
    *out = millrace__lease__unpack(NULL, spec->size, spec->data);
    if (*out && (*out)->work_case == MILLRACE__LEASE__WORK_TOKENIZE) return 0;
    if (*out) millrace__lease__free_unpacked(*out, NULL);
    return err_set(ERR_CORRUPT, "state database: a tokenize job cannot be read");
}

/* ---- jobs ---- */

/* Is the file there that the result tells of? */
static bool has_run(const struct context *c, const Millrace__Done *done, const uint8_t key[SHA256_BYTES]) {
    char *path = key_path(c, key);
    uint64_t size = 0;
    bool has = done->result_case == MILLRACE__DONE__RESULT_TOKENIZE && file_size(&size, path) == 0 && size == done->size;
    free(path);
    return has;
}

/* The result of an earlier run with this key, if its file is there, too. 1: appended to `out` and unpacked. */
static int recall(struct context *c, Millrace__Done **out_done, struct buf *out, const uint8_t key[SHA256_BYTES]) {
    int known = store_memo_get(c->store, key, out);
    if (known != 1) return known;
    Millrace__Done *done = millrace__done__unpack(NULL, out->size, out->data);
    if (done && has_run(c, done, key)) {
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
        job_key(key, planning->c, job);
        int code = dispatch_pack(&spec, &lease);
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

static int read_file(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    return file_read_at(*(int *)arg, out, out_got, size_bytes, offset);
}

/* Members that can be reached one by one make jobs of their own. A file whose index cannot be read becomes one job, which will say why. */
static void index_members(struct split_source *out, uint64_t **out_bytes, const struct source *source) {
    if (source->is_url) return;
    int fd;
    if (file_open(&fd, source->path) < 0) return;
    struct byte_reader reader = {read_file, &fd, source->path, source->size};
    if (unpack_index(out_bytes, &out->members, &reader) < 0) log_debug("%s", err_text());
    else out->member_bytes = *out_bytes;
    close(fd);
}

static int plan_tokenize(struct context *c, uint64_t *out_recalled, uint64_t *out_jobs) {
    const struct source_groups *groups = &c->config->dataset.sources;
    struct split_source *sources = mem_alloc((c->sources.count + 1) * sizeof *sources);
    uint64_t **bytes = mem_alloc((c->sources.count + 1) * sizeof *bytes);
    int code = 0;
    for (size_t i = 0; i < c->sources.count && code == 0; i++) {
        const struct source *source = &c->sources.source[i];
        sources[i] = (struct split_source){.name = source->path, .size = source->size, .version = source->version, .file = (uint32_t)i,
                                           .group = source->group};
        code = source_look(&sources[i], source);
        bool packed = sources[i].content == CONTENT_PACKED || split_is_stream(source->path, &groups->item[source->group]);
        if (code == 0 && packed) index_members(&sources[i], &bytes[i], source);
    }
    struct planning planning = {.c = c};
    if (code == 0) code = split_plan_jobs(sources, c->sources.count, groups->item, c->whole_documents, add_job, &planning);
    for (size_t i = 0; i < c->sources.count; i++) free(bytes[i]);
    free(bytes);
    free(sources);
    *out_recalled = planning.recalled;
    *out_jobs = planning.count;
    return code;
}

static int replan(struct context *c, const char *difference) {
    uint64_t recalled = 0, jobs = 0;
    TRY(store_jobs_drop(c->store, stage_name(STAGE_TOKENIZE)));
    TRY(store_jobs_drop(c->store, stage_name(STAGE_PACK)));
    TRY(store_set_number(c->store, "dataset_made", 0));
    TRY(plan_tokenize(c, &recalled, &jobs));
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
    Millrace__Done *done = result ? millrace__done__unpack(NULL, result_bytes, result) : NULL;
    if (!done) return 0; /* to be done, or said to be damaged where it is read */
    int code = buf_append(&copy, spec, spec_bytes);
    if (code == 0) code = unpack_spec(&lease, &copy);
    if (code == 0) {
        uint8_t key[SHA256_BYTES];
        job_key(key, c, lease->tokenize);
        millrace__lease__free_unpacked(lease, NULL);
        if (!has_run(c, done, key)) code = err_set(ERR_NOTFOUND, "the run of job tokenize/%" PRIu64, number);
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

/* Runs of a file that changed under its readers' hands may be of both, and size and time need not tell: nothing of it is known any more. */
static int forget_file(struct context *c, uint32_t file) {
    TRY(store_set(c->store, "sources", "", 0));
    for (size_t job = 0; job < dispatch_queue(c)->count; job++) {
        Millrace__Lease *lease;
        uint8_t key[SHA256_BYTES];
        bool has = false;
        TRY(unpack_spec(&lease, dispatch_spec(c, job)));
        for (size_t i = 0; i < lease->tokenize->n_parts; i++) has |= lease->tokenize->parts[i]->file == file;
        job_key(key, c, lease->tokenize);
        millrace__lease__free_unpacked(lease, NULL);
        if (has) TRY(store_memo_drop(c->store, key)); /* the run is written again, or swept */
    }
    return 0;
}

int tokenizing_check_file(struct context *c, uint32_t file, int fd) {
    const struct source *source = &c->sources.source[file];
    int code = source->is_url ? 0 : identity_check(&source->identity, source->path, fd);
    if (code != ERR_CORRUPT || c->stage != STAGE_TOKENIZE) return code;
    char *why = mem_text(err_text());
    TRY(store_begin(c->store));
    int forgotten = forget_file(c, file);
    if (forgotten == 0) forgotten = store_commit(c->store);
    else store_cancel(c->store);
    if (forgotten == 0) err_set(code, "%s", why);
    free(why);
    return forgotten < 0 ? forgotten : code;
}

int tokenizing_check_sources(struct context *c) {
    for (size_t i = 0; i < c->sources.count; i++) TRY(tokenizing_check_file(c, (uint32_t)i, -1));
    return 0;
}

/* ---- the order of runs ---- */

static int by_place(const void *a, const void *b) {
    const struct run_entry *x = a, *y = b;
    for (size_t i = 0; i < RUN_PLACE_NUMBERS; i++)
        if (x->place[i] != y->place[i]) return x->place[i] < y->place[i] ? -1 : 1;
    return 0;
}

static int add_run(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes) {
    struct context *c = arg;
    struct buf copy = {0};
    Millrace__Lease *lease;
    Millrace__Done *done = result ? millrace__done__unpack(NULL, result_bytes, result) : NULL;
    if (!done || done->result_case != MILLRACE__DONE__RESULT_TOKENIZE || done->digest.len != SHA256_BYTES) {
        if (done) millrace__done__free_unpacked(done, NULL);
        return err_set(ERR_CORRUPT, "state database: tokenize job %" PRIu64 " has no result", number);
    }
    struct run_entry run = {.job = number, .size = done->size};
    memcpy(run.digest, done->digest.data, SHA256_BYTES);
    millrace__done__free_unpacked(done, NULL);
    TRY(buf_append(&copy, spec, spec_bytes));
    int code = unpack_spec(&lease, &copy);
    buf_free(&copy);
    TRY(code);
    job_key(run.key, c, lease->tokenize);
    run.parts = lease->tokenize->n_parts;
    run.file = mem_alloc((run.parts + 1) * sizeof *run.file);
    for (size_t i = 0; i < run.parts; i++) run.file[i] = lease->tokenize->parts[i]->file;
    const Millrace__SourcePart *first = run.parts ? lease->tokenize->parts[0] : NULL;
    const Millrace__Place *from = lease->tokenize->from;
    const uint64_t place[RUN_PLACE_NUMBERS] = {first ? first->file : 0, first ? first->begin : 0, first ? first->first_member : 0,
                                               from ? from->part : 0, from ? from->member : 0, from ? from->documents : 0,
                                               from ? from->text : 0};
    memcpy(run.place, place, sizeof place);
    millrace__lease__free_unpacked(lease, NULL);
    c->run_list = mem_resize(c->run_list, (c->runs + 1) * sizeof *c->run_list);
    c->run_list[c->runs++] = run;
    return 0;
}

void tokenizing_forget_runs(struct context *c) {
    for (size_t i = 0; i < c->runs; i++) free(c->run_list[i].file);
    free(c->run_list);
    c->run_list = NULL;
    c->runs = 0;
}

int tokenizing_list_runs(struct context *c) {
    tokenizing_forget_runs(c);
    int code = store_jobs(c->store, stage_name(STAGE_TOKENIZE), add_run, c);
    if (code == 0 && c->runs) qsort(c->run_list, c->runs, sizeof *c->run_list, by_place);
    return code;
}

char *tokenizing_run_path(const struct context *c, size_t run) { return key_path(c, c->run_list[run].key); }

int tokenizing_table(struct context *c, Millrace__RunTable **out, size_t run) {
    const struct run_entry *entry = &c->run_list[run];
    char *path = tokenizing_run_path(c, run);
    int code = run_table_read(out, path);
    for (size_t i = 0; code == 0 && i < (*out)->n_source; i++) {
        if ((*out)->source[i] >= entry->parts) {
            millrace__run_table__free_unpacked(*out, NULL);
            code = err_set(ERR_CORRUPT, "%s: there is no part %u", path, (*out)->source[i]);
        } else (*out)->source[i] = entry->file[(*out)->source[i]];
    }
    free(path);
    return code;
}

/* ---- what is kept ---- */

struct sweep {
    struct context *c;
    uint8_t (*key)[SHA256_BYTES];   /* sorted */
    size_t count;
};

static int by_key(const void *a, const void *b) { return memcmp(a, b, SHA256_BYTES); }

static int sweep_memo(void *arg, const uint8_t key[SHA256_BYTES]) {
    struct sweep *sweep = arg;
    if (sweep->count && bsearch(key, sweep->key, sweep->count, SHA256_BYTES, by_key)) return 0;
    char *path = key_path(sweep->c, key);
    if (unlink(path) != 0 && errno != ENOENT) log_warn("%s: %s", path, strerror(errno)); /* only costs room */
    free(path);
    return store_memo_drop(sweep->c->store, key);
}

int tokenizing_sweep(struct context *c, const uint8_t (*key)[SHA256_BYTES], size_t keys) {
    struct sweep sweep = {.c = c, .count = keys};
    sweep.key = mem_alloc((keys + c->runs + 1) * sizeof *sweep.key);
    if (keys) memcpy(sweep.key, key, keys * SHA256_BYTES);
    for (size_t i = 0; c->config->dataset.keep_runs && i < c->runs; i++) memcpy(sweep.key[sweep.count++], c->run_list[i].key, SHA256_BYTES);
    qsort(sweep.key, sweep.count, SHA256_BYTES, by_key);
    int code = store_memos(c->store, sweep_memo, &sweep);
    free(sweep.key);
    return code;
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
    TRY(unpack_spec(&lease, dispatch_spec(c, job)));
    int code = 0;
    for (size_t i = 0; code == 0 && i < lease->tokenize->n_parts; i++)
        if (lease->tokenize->parts[i]->file < c->sources.count) code = tokenizing_check_file(c, lease->tokenize->parts[i]->file, -1);
    millrace__lease__free_unpacked(lease, NULL);
    return code;
}

static char *run_path(const struct context *c, size_t job) {
    Millrace__Lease *lease;
    CHECK(unpack_spec(&lease, dispatch_spec(c, job)) == 0);
    uint8_t key[SHA256_BYTES];
    job_key(key, c, lease->tokenize);
    millrace__lease__free_unpacked(lease, NULL);
    return key_path(c, key);
}

/* Also makes the job that goes on where it ended. */
static int job_done(struct context *c, size_t job, const Millrace__Done *result, const struct buf *done, uint32_t worker) {
    Millrace__Place *next = result->tokenize->next;
    const char *stage = stage_name(STAGE_TOKENIZE);
    Millrace__Lease *lease;
    struct buf spec = {0};
    uint8_t key[SHA256_BYTES];
    TRY(unpack_spec(&lease, dispatch_spec(c, job)));
    job_key(key, c, lease->tokenize);
    TRY(store_begin(c->store));
    int code = store_job_done(c->store, stage, job, c->worker[worker].id, done->data, done->size);
    if (code == 0) code = store_memo_put(c->store, key, done->data, done->size);
    if (code == 0 && next) {
        Millrace__Place *from = lease->tokenize->from;
        lease->tokenize->from = next;
        code = dispatch_pack(&spec, lease);
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
    .look = check_job,
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
    int same = same_sources(c, &difference);
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
