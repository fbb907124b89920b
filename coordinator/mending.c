/* Makes a shard again that broke or went: the same job over the same runs gives the same bytes. A run that is gone or broken is made again
 * from its sources. Done here and now, in the loop: a shard of usual size takes a tenth of a second, a run some tenths. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "coordinator/internal.h"
#include "dataset/ingest.h"
#include "dataset/local.h"

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

struct search {
    uint64_t number;
    Millrace__Lease *lease;
};

static int look(void *arg, uint64_t number, const void *spec, size_t spec_bytes, const void *result, size_t result_bytes) {
    struct search *search = arg;
    (void)result, (void)result_bytes;
    if (number == search->number) search->lease = millrace__lease__unpack(NULL, spec_bytes, spec);
    return 0;
}

static int find_job(struct coordinator *c, Millrace__Lease **out, enum stage stage, uint64_t number) {
    struct search search = {.number = number};
    TRY(store_jobs(c->store, stage_name(stage), look, &search));
    *out = search.lease;
    return search.lease ? 0 : err_set(ERR_NOTFOUND, "the job that made it is not on record");
}

/* ---- runs ---- */

static int open_part(void *arg, struct byte_reader *out, const Millrace__SourcePart *part) {
    struct local *local;
    (void)arg;
    TRY(local_open(&local, part, NULL, NULL));
    *out = local_reader(local);
    return 0;
}

static void close_part(void *arg, struct byte_reader *reader) {
    (void)arg;
    local_close(reader->arg);
}

static int check_part(void *arg, struct byte_reader *reader) {
    (void)arg;
    return local_check(reader->arg);
}

static int go_on(void *arg) {
    (void)arg;
    return 0;
}

static int make_run(struct coordinator *c, size_t run, const char *path) {
    const struct run_entry *entry = &c->run_list[run];
    struct ingest_options options = {.tokenizer = c->tokenizer, .token_bytes = c->token_bytes, .text_bytes = INGEST_TEXT_BYTES};
    options.groups = c->config->dataset.sources.item, options.group_count = c->config->dataset.sources.count;
    options.policy = policy_options_of(c->config);
    options.max_left_out = c->config->dataset.max_left_out;
    options.open = open_part, options.close = close_part, options.check = check_part, options.tick = go_on;
    Millrace__Lease *lease;
    TRY(find_job(c, &lease, STAGE_TOKENIZE, entry->job));
    for (size_t i = 0; i < lease->tokenize->n_parts; i++) { /* the project may have moved since */
        Millrace__SourcePart *part = lease->tokenize->parts[i];
        if (part->file >= c->sources.count) continue;
        free(part->name);
        part->name = mem_text(c->sources.source[part->file].path);
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
    millrace__lease__free_unpacked(lease, NULL);
    return code;
}

/* The runs of a shard, there and of the right size; `anew`: they are not to be trusted. */
static int need_runs(struct coordinator *c, const Millrace__PackJob *job, bool anew) {
    uint32_t before = UINT32_MAX;
    for (size_t i = 0; i < job->n_run; i++) {
        uint32_t run = job->run[i];
        if (run == before) continue;
        before = run;
        if (run >= c->runs) return err_set(ERR_CORRUPT, "there is no run %u", run);
        char *path = tokenizing_run_path(c, run);
        uint64_t size = 0;
        bool there = file_exists(path) && file_size(&size, path) == 0 && size == c->run_list[run].size;
        int code = there && !anew ? 0 : make_run(c, run, path);
        free(path);
        TRY(code);
    }
    return 0;
}

static int read_run(void *arg, uint32_t run, void *out, size_t size_bytes, uint64_t offset) {
    char *path = tokenizing_run_path(arg, run);
    size_t got = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int code = fd < 0 ? err_errno("%s", path) : file_read_at(fd, out, &got, size_bytes, offset);
    if (code == 0 && got < size_bytes) code = err_set(ERR_CORRUPT, "%s ends early", path);
    if (fd >= 0) close(fd);
    free(path);
    return code;
}

/* ---- shards ---- */

static int make_shard(struct coordinator *c, const Millrace__PackJob *job, size_t number) {
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    struct run_reader reader = {.read = read_run, .arg = c};
    struct output output = {.sha = sha256_open()};
    char *path = mem_format("%s/%s", c->dataset_folder, c->manifest.shard[number].name);
    int code = draft_open(&output.draft, path);
    free(path);
    if (code == 0) code = shard_build(&result, job, &reader, output_write, &output, NULL, NULL);
    return output_end(&output, code, c->manifest.shard[number].file_digest);
}

int mending_shard(struct coordinator *c, size_t number) {
    Millrace__Lease *lease = NULL;
    char what[512];
    snprintf(what, sizeof what, "%s", err_text());
    if (c->prepared) return err_set(ERR_CORRUPT, "%s; it belongs to a dataset that was made elsewhere: make that one again", what);
    int code = c->runs ? 0 : tokenizing_list_runs(c);
    if (code == 0) code = find_job(c, &lease, STAGE_PACK, number);
    if (code == 0 && lease->work_case != MILLRACE__LEASE__WORK_PACK) code = err_set(ERR_CORRUPT, "its job is of another kind");
    for (int anew = 0; code == 0 && anew < 2; anew++) {
        code = need_runs(c, lease->pack, anew);
        if (code == 0) code = make_shard(c, lease->pack, number);
        if (code == 0) break;
        if (code == ERR_CORRUPT && !anew) code = 0;
    }
    if (lease) millrace__lease__free_unpacked(lease, NULL);
    if (code == 0) {
        note_event(c, "shard-mended", "%s was made again: %s", c->manifest.shard[number].name, what);
        return 0;
    }
    char why[512];
    snprintf(why, sizeof why, "%s", err_text());
    return err_set(code, "%s; making it again failed: %s; put the file back as it was, or run with --restart to make the dataset again",
                   what, why);
}
