/* Shares sources out to tokenize jobs, in the order of the sources, with a struct planner that has the job being filled. Names, sizes and
 * indexes of archives decide; only source_look() at the end opens a file. */
#include "dataset/ingest/tokenize_jobs.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "dataset/ingest/records.h"
#include "dataset/ingest/token_run.h"
#include "dataset/source/content.h"
#include "dataset/source/http.h"
#include "dataset/source/unpack.h"

enum {
    JOB_BLOCKS_MAX = 16, /* of one part of a large file */
    FILE_JOBS = 16,      /* into which smaller ones are divided, if a block is not more */
    BATCH_FILES = 16,    /* small files of a job, on average */
    PACKED_WEIGHT = 8,   /* what a byte of a compressed file counts for: text unpacks to about that */
};

struct planner {
    const struct source_group *groups;
    bool whole_documents;
    uint64_t block_bytes;
    int (*emit)(void *arg, const Millrace__TokenizeJob *job);
    void *arg;
    Millrace__SourcePart part[JOB_PARTS_MAX], *pointer[JOB_PARTS_MAX];
    size_t count;
    uint64_t weight;
};

static int plan_emit(struct planner *p) {
    Millrace__TokenizeJob job = MILLRACE__TOKENIZE_JOB__INIT;
    job.parts = p->pointer, job.n_parts = p->count;
    p->count = 0, p->weight = 0;
    return job.n_parts > 0 ? p->emit(p->arg, &job) : 0;
}

static Millrace__SourcePart *plan_add(struct planner *p, const struct job_source *source, bool stream) {
    Millrace__SourcePart *part = p->pointer[p->count] = &p->part[p->count];
    millrace__source_part__init(part);
    part->source = (uint32_t)p->count++;
    part->name = (char *)source->name;
    part->end = part->size = source->size;
    part->group = source->group, part->file = source->file, part->version = source->version;
    part->stream = stream;
    return part;
}

/* Does a job end with this file, if it is a small one? Its name and size alone decide. */
static bool ends_batch(const struct job_source *source) {
    uint8_t digest[XXH128_BYTES];
    const char *slash = strrchr(source->name, '/');
    char *text = mem_format("%s %llu", slash ? slash + 1 : source->name, (unsigned long long)source->size);
    xxh128_of(digest, text, strlen(text));
    free(text);
    return digest[0] % BATCH_FILES == 0;
}

static int plan_small(struct planner *p, const struct job_source *source, bool stream, uint64_t weight) {
    if (p->count == JOB_PARTS_MAX || p->weight + weight > p->block_bytes) TRY(plan_emit(p));
    plan_add(p, source, stream);
    p->weight += weight;
    return ends_batch(source) ? plan_emit(p) : 0;
}

static int plan_ranges(struct planner *p, const struct job_source *source) {
    uint64_t blocks = (source->size / FILE_JOBS + p->block_bytes - 1) / p->block_bytes;
    uint64_t bytes = (blocks < 1 ? 1 : blocks > JOB_BLOCKS_MAX ? JOB_BLOCKS_MAX : blocks) * p->block_bytes;
    for (uint64_t begin = 0; begin < source->size; begin += bytes) {
        Millrace__SourcePart *part = plan_add(p, source, false);
        part->begin = begin;
        if (source->size - begin > bytes) part->end = begin + bytes;
        TRY(plan_emit(p));
    }
    return 0;
}

static int plan_members(struct planner *p, const struct job_source *source) {
    uint64_t bytes = 0, begin = 0;
    for (size_t first = 0, i = 0; i < source->members; i++) {
        bool last = i + 1 == source->members;
        uint64_t left = source->size - bytes;
        bytes += source->member_bytes[i] < left ? source->member_bytes[i] : left;
        if (!last && bytes - begin < JOB_BLOCKS_MAX * p->block_bytes) continue;
        Millrace__SourcePart *part = plan_add(p, source, true);
        part->first_member = first, part->members = i + 1 - first;
        part->begin = begin, part->end = last ? source->size : bytes;
        TRY(plan_emit(p));
        first = i + 1, begin = bytes;
    }
    return 0;
}

bool source_is_stream(const char *name, const struct source_group *group) {
    enum source_format format = records_format(name, group);
    return unpack_needed(name) || format == FORMAT_JSON || format == FORMAT_CSV || format == FORMAT_TSV;
}

static int plan_source(struct planner *p, const struct job_source *source) {
    const struct source_group *group = &p->groups[source->group];
    bool separated = group->separator && *group->separator;
    bool text = records_format(source->name, group) == FORMAT_TEXT && !separated;
    bool stream = source_is_stream(source->name, group) || content_is_stream(source->content, text);
    bool packed = unpack_needed(source->name) || source->content == CONTENT_PACKED;
    bool whole = stream || (p->whole_documents && text) || source->content == CONTENT_OTHER;
    uint64_t weight = source->size;
    if (packed) weight = source->size > p->block_bytes ? source->size : source->size * PACKED_WEIGHT;
    if (weight <= p->block_bytes) return plan_small(p, source, stream, weight);
    TRY(plan_emit(p));
    if (stream && source->members > 0) return plan_members(p, source);
    if (!whole) return plan_ranges(p, source);
    plan_add(p, source, stream);
    return plan_emit(p);
}

int tokenize_jobs_plan_sized(const struct job_source *sources, size_t count, const struct source_group *groups, bool whole_documents,
                             uint64_t block_bytes, int (*emit)(void *arg, const Millrace__TokenizeJob *job), void *arg) {
    CHECK(block_bytes > 0);
    if (count > UINT32_MAX) return err_set(ERR_LIMIT, "%zu source files are more than %u", count, UINT32_MAX);
    struct planner *p = mem_alloc(sizeof *p);
    *p = (struct planner){.groups = groups, .whole_documents = whole_documents, .block_bytes = block_bytes, .emit = emit, .arg = arg};
    int code = 0;
    for (size_t i = 0; i < count && code == 0; i++) code = plan_source(p, &sources[i]);
    if (code == 0) code = plan_emit(p);
    free(p);
    return code;
}

int tokenize_jobs_plan(const struct job_source *sources, size_t count, const struct source_group *groups, bool whole_documents,
                       int (*emit)(void *arg, const Millrace__TokenizeJob *job), void *arg) {
    return tokenize_jobs_plan_sized(sources, count, groups, whole_documents, RUN_BLOCK_BYTES, emit, arg);
}

/* ---- What a source is by its first bytes ----
 *
 * Reads the first bytes of a source file. Decides nothing itself: dataset/source/content.h does. */

static int read_head(uint8_t *head, size_t *out_got, const struct source *source) {
    size_t want = source->size < CONTENT_HEAD_BYTES ? (size_t)source->size : CONTENT_HEAD_BYTES;
    if (source->is_url) {
        struct http *http;
        TRY(http_open(&http, source->path, NULL, NULL));
        int code = http_read(http, head, out_got, want, 0);
        http_close(http);
        return code;
    }
    int fd = -1, code = file_open(&fd, source->path);
    if (code < 0) return err_add(code, "dataset.sources");
    code = file_read_at(fd, head, out_got, want, 0);
    close(fd);
    return code;
}

int source_look(struct job_source *out, const struct source *source) {
    uint8_t head[CONTENT_HEAD_BYTES];
    size_t got;
    if (!source->named && source->size <= RUN_BLOCK_BYTES) return 0;
    TRY(read_head(head, &got, source));
    struct content content = content_of(head, got);
    out->content = content.kind;
    int code = source->named ? content_refuse(&content, source->path) : 0;
    return code < 0 ? err_add(code, "dataset.sources") : 0;
}
