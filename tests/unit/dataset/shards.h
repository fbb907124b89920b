/* Shard files for tests: from a corpus by way of a hand-made job with frames as small as one likes. */
#ifndef MILLRACE_TESTS_DATASET_SHARDS_H
#define MILLRACE_TESTS_DATASET_SHARDS_H

#include "tests/unit/dataset/corpus.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/file.h"
#include "dataset/shard/seal.h"
#include "dataset/shard/shard.h"
#include "dataset/shard/shard_index.h"

static char test_folder[64];

static inline int make_test_folder(void **state) {
    (void)state;
    strcpy(test_folder, "/tmp/millrace-shard-XXXXXX");
    return mkdtemp(test_folder) ? 0 : -1;
}

static inline int remove_test_folder(void **state) {
    (void)state;
    return folder_remove(test_folder);
}

static inline int collect(void *arg, const void *bytes, size_t size_bytes) { return buf_append(arg, bytes, size_bytes); }

static inline int build(struct buf *out, Millrace__PackResult *result, const Millrace__PackJob *job, struct corpus *corpus) {
    struct token_run_reader reader = {.read = corpus_read, .arg = corpus};
    millrace__pack_result__init(result);
    return shard_build(result, job, &reader, collect, out, NULL, NULL);
}

/* Cut to its length at the end, not to nothing first: ext4 flushes a file that was, and that thousands of times takes a minute. */
static inline void write_file(const char *path, const void *bytes, size_t size_bytes) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    assert_true(fd >= 0);
    assert_int_equal(file_write_at(fd, bytes, size_bytes, 0), 0);
    assert_int_equal(ftruncate(fd, (off_t)size_bytes), 0);
    assert_int_equal(close(fd), 0);
}

/* Where each of a corpus' tokens comes from. All documents are in the training split; they are numbered without the empty ones. */
struct place {
    uint32_t run, source, document;
    uint64_t first, document_token, skipped, offset, bytes;
    bool eot;
};

static inline struct place *corpus_places(size_t *out_tokens, const struct corpus *corpus) {
    size_t tokens = 0, at = 0;
    for (size_t d = 0; d < corpus->documents; d++) tokens += corpus->document[d].tokens + (corpus->document[d].tokens > 0);
    struct place *place = mem_alloc(tokens * sizeof *place);
    uint32_t number = 0;
    for (uint32_t r = 0; r < corpus->runs; r++) {
        uint64_t first = 0;
        for (size_t p = 0; p < corpus->run[r].pieces; p++) {
            const struct piece_made *piece = &corpus->run[r].piece[p];
            size_t all = corpus->document[piece->document].tokens;
            for (uint64_t t = 0; t < piece->tokens; t++) {
                struct place here = {r, (uint32_t)piece->document, number, first++, piece->first + t, t,
                                     corpus_offset(piece->document, piece->first), corpus_bytes(piece->tokens), false};
                place[at++] = here;
                if (here.document_token + 1 < all) continue;
                here.document_token++, here.first++, here.skipped++, here.eot = true;
                place[at++] = here;
                number++;
            }
        }
    }
    assert_int_equal(at, tokens);
    *out_tokens = tokens;
    return place;
}

static inline void job_columns(Millrace__PackJob *job, size_t count) {
    job->run = mem_alloc(count * sizeof *job->run);
    job->first = mem_alloc(count * sizeof *job->first);
    job->count = mem_alloc(count * sizeof *job->count);
    job->ends = mem_alloc(count * sizeof *job->ends);
    job->padding = mem_alloc(count * sizeof *job->padding);
    job->document = mem_alloc(count * sizeof *job->document);
    job->document_token = mem_alloc(count * sizeof *job->document_token);
    job->skipped = mem_alloc(count * sizeof *job->skipped);
    job->source = mem_alloc(count * sizeof *job->source);
    job->offset = mem_alloc(count * sizeof *job->offset);
    job->bytes = mem_alloc(count * sizeof *job->bytes);
}

static inline void job_count(Millrace__PackJob *job, size_t count) {
    job->n_run = job->n_first = job->n_count = job->n_ends = job->n_padding = job->n_document = job->n_document_token = job->n_skipped =
        job->n_source = job->n_offset = job->n_bytes = count;
}

/* The job for tokens [begin, begin + tokens) of the corpus, put together token by token. */
static inline Millrace__PackJob *small_job(const struct corpus *corpus, uint64_t begin, uint64_t tokens, uint64_t frame_tokens) {
    size_t total, k = 0;
    struct place *place = corpus_places(&total, corpus);
    uint64_t end = begin + tokens < total ? begin + tokens + 1 : total;
    Millrace__PackJob *job = mem_alloc(sizeof *job);
    millrace__pack_job__init(job);
    job->split = mem_text("train");
    job->first_token = begin;
    job->tokens = begin + tokens < total ? tokens : total - begin;
    job->frame_tokens = frame_tokens;
    job->token_bytes = corpus->token_bytes;
    job->eos = END_OF_TEXT;
    job->first_document = place[begin].document + (place[begin].document_token > 0);
    job_columns(job, (size_t)(end - begin));
    for (uint64_t i = begin; i < end; i++) {
        const struct place *here = &place[i];
        bool goes_on = k > 0 && !job->ends[k - 1] && job->document[k - 1] == here->document && job->offset[k - 1] == here->offset;
        if (!goes_on) {
            job->run[k] = here->run;
            job->first[k] = here->first;
            job->document[k] = here->document;
            job->document_token[k] = here->document_token;
            job->skipped[k] = here->skipped;
            job->source[k] = here->source;
            job->offset[k] = here->offset;
            job->bytes[k++] = here->bytes;
        }
        if (here->eot) job->ends[k - 1] = 1;
        else job->count[k - 1]++;
    }
    job_count(job, k);
    free(place);
    return job;
}

/* Documents cut into several pieces and runs, in a shard of several frames that begins and ends inside a document. */
static inline void small_shard(struct buf *out, struct corpus *corpus, uint64_t begin, uint64_t tokens, uint64_t frame_tokens) {
    Millrace__PackJob *job = small_job(corpus, begin, tokens, frame_tokens);
    Millrace__PackResult result;
    SUCCEEDS(build(out, &result, job, corpus));
    assert_int_equal(result.tokens, job->tokens);
    millrace__pack_job__free_unpacked(job, NULL);
}

#endif
