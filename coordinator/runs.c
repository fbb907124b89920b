/* Keys of token runs, the list of those that are finished, and which are swept. Owns the list and the digest of the settings that all runs
 * follow from. repair.c and the plan read the list on the thread for files; it does not change meanwhile. */
#include "coordinator/runs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/sourcing.h"
#include "coordinator/store.h"
#include "dataset/filter/policy.h"
#include "dataset/ingest/token_run.h"
#include "dataset/source/sources.h"
#include "proto/body.h"
#include "proto/frame.h"

struct runs {
    uint8_t settings[SHA256_BYTES];
    struct run_entry *run;
    size_t count;
};

/* ---- keys ---- */

static void add_text(struct sha256 *sha, const char *text) { sha256_add(sha, text, strlen(text) + 1); }

static void add_number(struct sha256 *sha, uint64_t number) {
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(number >> 8 * i);
    sha256_add(sha, bytes, sizeof bytes);
}

/* RUN_SETTINGS grows when the same settings give other runs than with an earlier version. */
void runs_note_settings(struct context *c) {
    enum { RUN_SETTINGS = 4 };
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
    sha256_finish(sha, c->runs->settings);
    sha256_close(sha);
}

static void add_group(struct sha256 *sha, const struct source_group *group) {
    add_number(sha, group->format);
    add_text(sha, group->field ? group->field : "");
    add_text(sha, group->separator ? group->separator : "");
    enum { MEMBERS_SETTINGS = 2 }; /* the same as RUN_SETTINGS, for entries with members alone */
    add_number(sha, group->members.count);
    if (group->members.count) add_number(sha, MEMBERS_SETTINGS);
    for (size_t i = 0; i < group->members.count; i++) add_text(sha, group->members.item[i]);
}

void runs_key(uint8_t out[SHA256_BYTES], const struct context *c, const Millrace__TokenizeJob *job) {
    struct sha256 *sha = sha256_open();
    sha256_add(sha, c->runs->settings, sizeof c->runs->settings);
    for (size_t i = 0; i < job->n_parts; i++) {
        const Millrace__SourcePart *part = job->parts[i];
        const char *path = part->file < c->sources->count ? c->sources->source[part->file].path : part->name;
        add_text(sha, sourcing_name(c, path));
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

char *runs_key_path(const struct context *c, const uint8_t key[SHA256_BYTES]) {
    char hex[SHA256_HEX];
    hex_of(hex, key, SHA256_BYTES);
    return mem_format("%s/%.40s.tok", c->runs_folder, hex);
}

int runs_unpack(Millrace__Lease **out, const struct buf *spec) {
    Millrace__Lease *lease;
    int code = body_unpack(&lease, &millrace__lease__descriptor, spec->data, spec->size);
    if (code == 0 && lease->work_case == MILLRACE__LEASE__WORK_TOKENIZE) {
        *out = lease;
        return 0;
    }
    if (code == 0) millrace__lease__free_unpacked(lease, NULL);
    return code == ERR_MEMORY ? code : err_set(ERR_CORRUPT, "state database: a tokenize job cannot be read");
}

/* Is the run of that key there, as long as its DONE has it? */
bool runs_has(const struct context *c, const Millrace__Done *done, const uint8_t key[SHA256_BYTES]) {
    char *path = runs_key_path(c, key);
    uint64_t size = 0;
    bool has = done->result_case == MILLRACE__DONE__RESULT_TOKENIZE && file_size(&size, path) == 0 && size == done->size;
    free(path);
    return has;
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
    Millrace__Done *done = NULL;
    if (result && body_unpack(&done, &millrace__done__descriptor, result, result_bytes) == ERR_MEMORY) return ERR_MEMORY;
    if (!done || done->result_case != MILLRACE__DONE__RESULT_TOKENIZE || done->digest.len != SHA256_BYTES) {
        if (done) millrace__done__free_unpacked(done, NULL);
        return err_set(ERR_CORRUPT, "state database: tokenize job %" PRIu64 " has no result", number);
    }
    struct run_entry run = {.job = number, .size = done->size};
    memcpy(run.digest, done->digest.data, SHA256_BYTES);
    millrace__done__free_unpacked(done, NULL);
    TRY(buf_append(&copy, spec, spec_bytes));
    int code = runs_unpack(&lease, &copy);
    buf_free(&copy);
    TRY(code);
    runs_key(run.key, c, lease->tokenize);
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
    c->runs->run = mem_resize(c->runs->run, (c->runs->count + 1) * sizeof *c->runs->run);
    c->runs->run[c->runs->count++] = run;
    return 0;
}

void runs_forget(struct context *c) {
    for (size_t i = 0; i < c->runs->count; i++) free(c->runs->run[i].file);
    free(c->runs->run);
    c->runs->run = NULL;
    c->runs->count = 0;
}

int runs_list(struct context *c) {
    runs_forget(c);
    int code = store_jobs(c->store, stage_name(STAGE_TOKENIZE), add_run, c);
    if (code == 0 && c->runs->count) qsort(c->runs->run, c->runs->count, sizeof *c->runs->run, by_place);
    return code;
}

char *runs_path(const struct context *c, size_t run) { return runs_key_path(c, c->runs->run[run].key); }

/* Is it what was told of it when it came? A disk may have kept it for days. */
static int read_table(Millrace__RunTable **out, const char *path, const uint8_t told[SHA256_BYTES]) {
    uint8_t real[SHA256_BYTES];
    TRY(sha256_of_file(real, path));
    if (memcmp(real, told, SHA256_BYTES) == 0) return token_run_table_read(out, path);
    if (unlink(path) != 0) return err_errno("%s is damaged; remove it, and run the same command again, which makes it anew", path);
    return err_set(ERR_CORRUPT, "%s was damaged on the disk, and is removed; run the same command again, which makes it anew", path);
}

int runs_table(struct context *c, Millrace__RunTable **out, size_t run) {
    const struct run_entry *entry = &c->runs->run[run];
    char *path = runs_path(c, run);
    int code = read_table(out, path, entry->digest);
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
    char *path = runs_key_path(sweep->c, key);
    if (unlink(path) != 0 && errno != ENOENT) log_warn("%s: %s", path, strerror(errno)); /* only costs room */
    free(path);
    return store_memo_drop(sweep->c->store, key);
}

int runs_sweep(struct context *c, const uint8_t (*key)[SHA256_BYTES], size_t keys) {
    struct sweep sweep = {.c = c, .count = keys};
    sweep.key = mem_alloc((keys + c->runs->count + 1) * sizeof *sweep.key);
    if (keys) memcpy(sweep.key, key, keys * SHA256_BYTES);
    for (size_t i = 0; c->config->dataset.keep_runs && i < c->runs->count; i++)
        memcpy(sweep.key[sweep.count++], c->runs->run[i].key, SHA256_BYTES);
    qsort(sweep.key, sweep.count, SHA256_BYTES, by_key);
    int code = store_memos(c->store, sweep_memo, &sweep);
    free(sweep.key);
    return code;
}

size_t runs_count(const struct context *c) { return c->runs->count; }

const struct run_entry *runs_entry(const struct context *c, size_t run) { return &c->runs->run[run]; }

void runs_open(struct context *c) { c->runs = mem_alloc(sizeof *c->runs); }

void runs_close(struct context *c) {
    if (!c->runs) return;
    runs_forget(c);
    free(c->runs);
    c->runs = NULL;
}
