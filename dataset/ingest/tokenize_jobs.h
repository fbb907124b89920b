/* Cutting sources into the parts of tokenize jobs, as dataset/ingest/ingest.h does them.
 *
 * A plain file's parts are byte ranges with borders at multiples of RUN_BLOCK_BYTES; their sizes follow from the file's size alone.
 * The real borders are the first places at or after these where ingest may cut, so they follow from the bytes of the file. Small files are
 * put together, and which ones follows from their names and their neighbours': a file that comes or goes changes the jobs around it and no
 * others. Of an archive whose members can be reached the parts are ranges of members; any other stream is one part. */
#ifndef MILLRACE_DATASET_TOKENIZE_JOBS_H
#define MILLRACE_DATASET_TOKENIZE_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "dataset/source/content.h"
#include "dataset/source/sources.h"
#include "proto/millrace.pb-c.h"

enum { JOB_PARTS_MAX = 1024 }; /* of one tokenize job */

struct job_source {
    const char *name;       /* path or URL */
    uint64_t size, version; /* as SourcePart has them */
    uint32_t file, group;
    const uint64_t *member_bytes; /* of an archive: what unpack_index() says */
    size_t members;               /* 0: not such an archive */
    enum content_kind content;    /* by its beginning; may be CONTENT_TEXT, whatever it is, for files of at most RUN_BLOCK_BYTES */
};

/* Must the file be read from its beginning, by its name (compressed, an archive, or a format whose records cannot be found from the
 * middle)? Its content may ask for the same. */
bool source_is_stream(const char *name, const struct source_group *group);

/* Calls emit() once for each job, in the order of the sources; the job is valid during the call. whole_documents: the policy sees whole
 * documents (policy_sees_whole()) or the tokenizer cannot be cut, so a document that is a file is never divided. ERR_LIMIT: too many. */
int tokenize_jobs_plan(const struct job_source *sources, size_t count, const struct source_group *groups, bool whole_documents,
                       int (*emit)(void *arg, const Millrace__TokenizeJob *job), void *arg);

/* The same with another size than RUN_BLOCK_BYTES, for tests. */
int tokenize_jobs_plan_sized(const struct job_source *sources, size_t count, const struct source_group *groups, bool whole_documents,
                             uint64_t block_bytes, int (*emit)(void *arg, const Millrace__TokenizeJob *job), void *arg);

/* Fills out->content with what the source is by its first bytes, which decides how it is divided. ERR_CONFIG, naming the file: its path is
 * in dataset.sources and it is no text. Of a small file that was found in a folder or by a glob it opens nothing: whoever reads it sees by
 * the same rule what it is. */
int source_look(struct job_source *out, const struct source *source);

#endif
