/* Makes a shard again: the same job over the same token runs gives the same bytes. A run that is gone or broken is made again from its
 * sources. One shard at a time, on the thread for files (remake_task()); what it needs of the store it is given. Owns which shard that is,
 * and how often in a row. */
#include "coordinator/repair.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/files.h"
#include "coordinator/runs.h"
#include "coordinator/store.h"
#include "dataset/filter/policy.h"
#include "dataset/ingest/ingest.h"
#include "dataset/shard/shard.h"
#include "dataset/source/local.h"
#include "dataset/source/sources.h"
#include "dataset/tokenizer/tokenizer.h"
#include "proto/body.h"
#include "proto/frame.h"

enum { REPAIRED_NAMES_MAX = 8 }; /* in status */
enum { REPAIRS_MAX = 3 }; /* of one shard, without another in between: then it is the disk */

struct repair {
    bool active;
    size_t number;         /* the shard that is made again, or was last */
    unsigned times;        /* it was, one soon after the other */
};

/* A file under way and its digest. */
struct output {
    struct draft draft;
    struct sha256 *sha;
    uint64_t size;
};

static int output_write(void *arg, const void *bytes, size_t size_bytes) {
    struct output *output = arg;
    TRY(draft_write_at(&output->draft, bytes, size_bytes, output->size));
    sha256_add(output->sha, bytes, size_bytes);
    output->size += size_bytes;
    return 0;
}

/* Publishes the file when it is the one that is missing. */
static int output_end(struct output *output, int code, const uint8_t digest[SHA256_BYTES]) {
    uint8_t made[SHA256_BYTES];
    sha256_finish(output->sha, made);
    sha256_close(output->sha);
    if (code == 0 && memcmp(made, digest, SHA256_BYTES) != 0)
        code = err_set(ERR_CORRUPT, "%s: made again it is another one: a source changed, or this is another build", output->draft.path);
    if (code == 0) return draft_publish(&output->draft);
    draft_discard(&output->draft);
    return code;
}

/* ---- the job ---- */

/* What the thread for files gets: the coordinator's lists of runs, sources and shards stay as they are meanwhile. */
struct remake {
    struct context *c;
    size_t number;                /* of the shard, and of the job that made it */
    char what[ERR_TEXT_BYTES];             /* how it broke */
    Millrace__Lease *pack;
    Millrace__Lease **tokenize;   /* of the run with that number, where the shard has tokens of it */
    const atomic_bool *stop;      /* the coordinator ends, and waits for the thread */
};

static int find_pack(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes) {
    struct remake *remake = arg;
    (void)result, (void)result_bytes;
    return number == remake->number ? body_unpack(&remake->pack, &millrace__lease__descriptor, spec, spec_bytes) : 0;
}

static int find_tokenize(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes) {
    struct remake *remake = arg;
    const Millrace__PackJob *job = remake->pack->pack;
    (void)result, (void)result_bytes;
    for (size_t i = 0; i < job->n_run; i++) {
        uint32_t run = job->run[i];
        if (run >= runs_count(remake->c) || remake->tokenize[run] || runs_entry(remake->c, run)->job != number) continue;
        TRY(body_unpack(&remake->tokenize[run], &millrace__lease__descriptor, spec, spec_bytes));
    }
    return 0;
}

static int find_jobs(struct remake *remake) {
    struct context *c = remake->c;
    if (!runs_count(c)) TRY(runs_list(c));
    remake->tokenize = mem_alloc((runs_count(c) + 1) * sizeof(Millrace__Lease *));
    TRY(store_jobs(c->store, stage_name(STAGE_PACK), find_pack, remake));
    if (!remake->pack) return err_set(ERR_NOTFOUND, "the job that made it is not on record");
    if (remake->pack->work_case != MILLRACE__LEASE__WORK_PACK) return err_set(ERR_CORRUPT, "its job is of another kind");
    return store_jobs(c->store, stage_name(STAGE_TOKENIZE), find_tokenize, remake);
}

static void remake_free(struct remake *remake) {
    for (size_t i = 0; remake->tokenize && i < runs_count(remake->c); i++)
        if (remake->tokenize[i]) millrace__lease__free_unpacked(remake->tokenize[i], NULL);
    if (remake->pack) millrace__lease__free_unpacked(remake->pack, NULL);
    free(remake->tokenize);
    free(remake);
}

static int stops(void *arg) {
    const struct remake *remake = arg;
    return atomic_load(remake->stop);
}

/* ---- runs ---- */

static int open_part(void *arg, struct byte_reader *out, const Millrace__SourcePart *part) {
    struct local *local;
    TRY(local_open(&local, part, stops, arg));
    *out = local_reader(local);
    return 0;
}

static int check_part(void *arg, struct byte_reader *reader) {
    (void)arg;
    return local_check(reader->arg);
}

static int make_run(struct remake *remake, size_t run, const char *path) {
    const struct context *c = remake->c;
    const struct run_entry *entry = runs_entry(c, run);
    struct ingest_options options = {.tokenizer = c->tokenizer, .token_bytes = c->token_bytes, .text_bytes = INGEST_TEXT_BYTES};
    options.groups = c->config->dataset.sources.item, options.group_count = c->config->dataset.sources.count;
    options.policy = policy_options_of(c->config);
    options.max_left_out = c->config->dataset.max_left_out;
    options.open = open_part, options.close = local_close_part, options.check = check_part, options.tick = stops, options.arg = remake;
    Millrace__Lease *lease = remake->tokenize[run];
    if (!lease || lease->work_case != MILLRACE__LEASE__WORK_TOKENIZE) return err_set(ERR_NOTFOUND, "the job of %s is not on record", path);
    for (size_t i = 0; i < lease->tokenize->n_parts; i++) { /* the project may have moved since */
        Millrace__SourcePart *part = lease->tokenize->parts[i];
        if (part->file >= c->sources->count) continue;
        free(part->name);
        part->name = mem_text(c->sources->source[part->file].path);
    }
    Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
    struct ingest *ingest = NULL;
    struct encoder *encoder = NULL;
    struct output output = {.sha = sha256_open()};
    int code = draft_open(&output.draft, path);
    if (code == 0) code = ingest_open(&ingest, &options, lease->tokenize);
    if (code == 0) code = encoder_open(&encoder, c->tokenizer);
    if (code == 0) code = ingest_run(ingest, &result, encoder, output_write, &output);
    code = output_end(&output, code, entry->digest);
    ingest_close(ingest);
    encoder_close(encoder);
    return code;
}

/* The runs of a shard, there and of the right size; `anew`: they are not to be trusted. */
static int need_runs(struct remake *remake, bool anew) {
    const struct context *c = remake->c;
    const Millrace__PackJob *job = remake->pack->pack;
    uint32_t before = UINT32_MAX;
    for (size_t i = 0; i < job->n_run; i++) {
        uint32_t run = job->run[i];
        if (run == before) continue;
        before = run;
        if (run >= runs_count(c)) return err_set(ERR_CORRUPT, "there is no run %u", run);
        char *path = runs_path(c, run);
        uint64_t size = 0;
        bool there = file_exists(path) && file_size(&size, path) == 0 && size == runs_entry(c, run)->size;
        int code = there && !anew ? 0 : make_run(remake, run, path);
        free(path);
        TRY(code);
    }
    return 0;
}

static int read_run(void *arg, uint32_t run, void *out, size_t size_bytes, uint64_t offset) {
    char *path = runs_path(arg, run);
    size_t got = 0;
    int fd = -1, code = file_open(&fd, path);
    if (code == 0) code = file_read_at(fd, out, &got, size_bytes, offset);
    if (code == 0 && got < size_bytes) code = err_set(ERR_CORRUPT, "%s ends early", path);
    if (fd >= 0) close(fd);
    free(path);
    return code;
}

/* ---- shards ---- */

static int make_shard(struct remake *remake) {
    struct context *c = remake->c;
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    struct token_run_reader reader = {.read = read_run, .arg = c};
    struct output output = {.sha = sha256_open()};
    char *path = mem_format("%s/%s", c->dataset_folder, c->dataset->manifest.shard[remake->number].name);
    int code = draft_open(&output.draft, path);
    free(path);
    if (code == 0) code = shard_build(&result, remake->pack->pack, &reader, output_write, &output, stops, remake);
    return output_end(&output, code, c->dataset->manifest.shard[remake->number].file_digest);
}

static int remake_task(void *arg, const atomic_bool *stop) {
    struct remake *remake = arg;
    int code = 0;
    remake->stop = stop;
    for (int anew = 0; anew < 2 && !atomic_load(stop); anew++) {
        code = need_runs(remake, anew);
        if (code == 0) code = make_shard(remake);
        if (code != ERR_CORRUPT) break; /* else a run is not to be trusted: all of them are made again */
    }
    return code;
}

/* What is refused, in the way of the file say, would be refused with --restart, too. */
static int cannot(const char *what, int code) {
    if (code == ERR_DENIED) return err_set(code, "%s; making it again failed: %s", what, err_text());
    if (code == ERR_NOSPACE || code == ERR_LIMIT || code == ERR_IO || code == ERR_MEMORY)
        return err_set(code, "%s; making it again failed: %s; put that right, then the same command goes on", what, err_text());
    return err_set(code, "%s; making it again failed: %s; put the file back as it was, or run with --restart to make the dataset again",
                   what, err_text());
}

static void remake_done(void *owner, void *arg, int code) {
    struct context *c = owner;
    struct remake *remake = arg;
    c->repair->active = false;
    const char *name = c->dataset->manifest.shard[remake->number].name;
    if (code == 0 && c->dataset->repairs++ < REPAIRED_NAMES_MAX)
        code = buf_print(&c->dataset->repaired, "%s%s", c->dataset->repaired.size ? ", " : "", name);
    if (code == 0) note_event(c, "shard-repaired", "%s was made again: %s", name, remake->what);
    if (code < 0 && code != ERR_INTERRUPTED) fail_pipeline(c, cannot(remake->what, code));
    remake_free(remake);
}

int repair_shard(struct context *c, size_t number) {
    struct repair *repair = c->repair;
    if (repair->active) return 0; /* this shard or another one: the caller comes again */
    struct remake *remake = mem_alloc(sizeof *remake);
    remake->c = c;
    remake->number = number;
    snprintf(remake->what, sizeof remake->what, "%s", err_text());
    unsigned times = repair->number == number ? repair->times : 0;
    int code = 0;
    if (c->prepared)
        code = err_set(ERR_CORRUPT, "%s; it belongs to a dataset that was made elsewhere: make that one again", remake->what);
    else if (times >= REPAIRS_MAX)
        code = err_set(ERR_CORRUPT, "%s; it was made again %d times; look at the disk", remake->what, REPAIRS_MAX);
    else if ((code = find_jobs(remake)) < 0) code = cannot(remake->what, code);
    if (code == 0 && !files_post(c->files, &(struct file_task){.run = remake_task, .done = remake_done, .arg = remake})) {
        remake_free(remake); /* the thread's queue is full: the caller comes again */
        return 0;
    }
    if (code < 0) remake_free(remake);
    else *repair = (struct repair){.active = true, .number = number, .times = times + 1};
    return code;
}

bool repair_goes_on(const struct context *c) { return c->repair->active; }

void repair_not_needed(struct context *c, size_t number) {
    if (!c->repair->active && c->repair->number == number) c->repair->times = 0;
}

void repair_open(struct context *c) { c->repair = mem_alloc(sizeof *c->repair); }

void repair_close(struct context *c) {
    free(c->repair);
    c->repair = NULL;
}
