/* Makes a shard again that broke or went: the same job over the same runs gives the same bytes. A run that is gone or broken is made again
 * from its sources. The thread for files does it, one shard at a time; what it needs of the store it is given. */
#include "coordinator/mending.h"

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
#include "proto/frame.h"

enum { MENDED_NAMES_MAX = 8 }; /* that are told */
enum { MENDINGS_MAX = 3 }; /* of one shard, without another in between: then it is the disk */

struct mending {
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
    TRY(file_write_at(output->draft.fd, bytes, size_bytes, output->size));
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
struct mend {
    struct context *c;
    size_t number;                /* of the shard, and of the job that made it */
    char what[ERR_TEXT_BYTES];             /* how it broke */
    Millrace__Lease *pack;
    Millrace__Lease **tokenize;   /* of the run with that number, where the shard has tokens of it */
};

static int find_pack(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes) {
    struct mend *mend = arg;
    (void)result, (void)result_bytes;
    if (number == mend->number) mend->pack = millrace__lease__unpack(NULL, spec_bytes, spec);
    return 0;
}

static int find_tokenize(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes) {
    struct mend *mend = arg;
    const Millrace__PackJob *job = mend->pack->pack;
    (void)result, (void)result_bytes;
    for (size_t i = 0; i < job->n_run; i++) {
        uint32_t run = job->run[i];
        if (run >= runs_count(mend->c) || mend->tokenize[run] || runs_entry(mend->c, run)->job != number) continue;
        mend->tokenize[run] = millrace__lease__unpack(NULL, spec_bytes, spec);
    }
    return 0;
}

static int find_jobs(struct mend *mend) {
    struct context *c = mend->c;
    if (!runs_count(c)) TRY(runs_list(c));
    mend->tokenize = mem_alloc((runs_count(c) + 1) * sizeof(Millrace__Lease *));
    TRY(store_jobs(c->store, stage_name(STAGE_PACK), find_pack, mend));
    if (!mend->pack) return err_set(ERR_NOTFOUND, "the job that made it is not on record");
    if (mend->pack->work_case != MILLRACE__LEASE__WORK_PACK) return err_set(ERR_CORRUPT, "its job is of another kind");
    return store_jobs(c->store, stage_name(STAGE_TOKENIZE), find_tokenize, mend);
}

static void mend_free(struct mend *mend) {
    for (size_t i = 0; mend->tokenize && i < runs_count(mend->c); i++)
        if (mend->tokenize[i]) millrace__lease__free_unpacked(mend->tokenize[i], NULL);
    if (mend->pack) millrace__lease__free_unpacked(mend->pack, NULL);
    free(mend->tokenize);
    free(mend);
}

/* ---- runs ---- */

static int check_part(void *arg, struct byte_reader *reader) {
    (void)arg;
    return local_check(reader->arg);
}

static int go_on(void *arg) {
    (void)arg;
    return 0;
}

static int make_run(const struct mend *mend, size_t run, const char *path) {
    const struct context *c = mend->c;
    const struct run_entry *entry = runs_entry(c, run);
    struct ingest_options options = {.tokenizer = c->tokenizer, .token_bytes = c->token_bytes, .text_bytes = INGEST_TEXT_BYTES};
    options.groups = c->config->dataset.sources.item, options.group_count = c->config->dataset.sources.count;
    options.policy = policy_options_of(c->config);
    options.max_left_out = c->config->dataset.max_left_out;
    options.open = local_open_part, options.close = local_close_part, options.check = check_part, options.tick = go_on;
    Millrace__Lease *lease = mend->tokenize[run];
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
static int need_runs(const struct mend *mend, bool anew) {
    const struct context *c = mend->c;
    const Millrace__PackJob *job = mend->pack->pack;
    uint32_t before = UINT32_MAX;
    for (size_t i = 0; i < job->n_run; i++) {
        uint32_t run = job->run[i];
        if (run == before) continue;
        before = run;
        if (run >= runs_count(c)) return err_set(ERR_CORRUPT, "there is no run %u", run);
        char *path = runs_path(c, run);
        uint64_t size = 0;
        bool there = file_exists(path) && file_size(&size, path) == 0 && size == runs_entry(c, run)->size;
        int code = there && !anew ? 0 : make_run(mend, run, path);
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

static int make_shard(const struct mend *mend) {
    struct context *c = mend->c;
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    struct run_reader reader = {.read = read_run, .arg = c};
    struct output output = {.sha = sha256_open()};
    char *path = mem_format("%s/%s", c->dataset_folder, c->dataset->manifest.shard[mend->number].name);
    int code = draft_open(&output.draft, path);
    free(path);
    if (code == 0) code = shard_build(&result, mend->pack->pack, &reader, output_write, &output, NULL, NULL);
    return output_end(&output, code, c->dataset->manifest.shard[mend->number].file_digest);
}

static int mend_run(void *arg, const atomic_bool *stop) {
    const struct mend *mend = arg;
    int code = 0;
    for (int anew = 0; anew < 2 && !atomic_load(stop); anew++) {
        code = need_runs(mend, anew);
        if (code == 0) code = make_shard(mend);
        if (code != ERR_CORRUPT) break; /* else a run is not to be trusted: all of them are made again */
    }
    return code;
}

static int cannot(const char *what, int code) {
    return err_set(code, "%s; making it again failed: %s; put the file back as it was, or run with --restart to make the dataset again",
                   what, err_text());
}

static void mend_done(void *owner, void *arg, int code) {
    struct context *c = owner;
    struct mend *mend = arg;
    c->mending->active = false;
    const char *name = c->dataset->manifest.shard[mend->number].name;
    if (code == 0 && c->dataset->mendings++ < MENDED_NAMES_MAX)
        code = buf_print(&c->dataset->mended, "%s%s", c->dataset->mended.size ? ", " : "", name);
    if (code == 0) note_event(c, "shard-mended", "%s was made again: %s", name, mend->what);
    if (code < 0 && code != ERR_INTERRUPTED) fail_pipeline(c, cannot(mend->what, code));
    mend_free(mend);
}

int mending_shard(struct context *c, size_t number) {
    struct mending *mending = c->mending;
    if (mending->active) return 0; /* this one, or another one: whoever needs it comes again */
    struct mend *mend = mem_alloc(sizeof *mend);
    mend->c = c;
    mend->number = number;
    snprintf(mend->what, sizeof mend->what, "%s", err_text());
    unsigned times = mending->number == number ? mending->times : 0;
    int code = 0;
    if (c->prepared)
        code = err_set(ERR_CORRUPT, "%s; it belongs to a dataset that was made elsewhere: make that one again", mend->what);
    else if (times >= MENDINGS_MAX)
        code = err_set(ERR_CORRUPT, "%s; it was made again %d times; look at the disk", mend->what, MENDINGS_MAX);
    else if ((code = find_jobs(mend)) < 0) code = cannot(mend->what, code);
    if (code == 0 && !files_post(c->files, &(struct file_task){.run = mend_run, .done = mend_done, .arg = mend})) {
        mend_free(mend); /* the thread is busy: whoever needs it comes again */
        return 0;
    }
    if (code < 0) mend_free(mend);
    else *mending = (struct mending){.active = true, .number = number, .times = times + 1};
    return code;
}

bool mending_goes_on(const struct context *c) { return c->mending->active; }

void mending_not_needed(struct context *c, size_t number) {
    if (!c->mending->active && c->mending->number == number) c->mending->times = 0;
}

void mending_open(struct context *c) { c->mending = mem_alloc(sizeof *c->mending); }

void mending_close(struct context *c) {
    free(c->mending);
    c->mending = NULL;
}
