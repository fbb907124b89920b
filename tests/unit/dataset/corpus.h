/* Made-up documents, cut into pieces and runs as tokenize jobs would, and what a dataset of them must be, told in the plainest way. Shared
 * by the tests of plan and shard. */
#ifndef MILLRACE_TESTS_DATASET_CORPUS_H
#define MILLRACE_TESTS_DATASET_CORPUS_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/philox.h"
#include "dataset/ingest/token_run.h"
#include "dataset/plan/plan.h"
#include "proto/millrace.pb-c.h"

#define HOLDS(seed, condition) \
    do { \
        if (!(condition)) fail_msg("seed %" PRIu64 ": %s (%s)", (uint64_t)(seed), #condition, err_text()); \
    } while (0)
#define SUCCEEDS(expression) \
    do { \
        if ((expression) < 0) fail_msg("%s: %s", #expression, err_text()); \
    } while (0)

enum { END_OF_TEXT = 50256 };

struct dice {
    uint64_t seed, thrown;
};
static inline uint64_t dice_throw(struct dice *dice, uint64_t below) {
    struct philox_block block = philox(dice->seed, 0, dice->thrown++);
    return (((uint64_t)block.word[0] << 32) | block.word[1]) % below;
}

struct document_made {
    uint32_t *token;
    size_t tokens;
    uint64_t band[4];         /* corpus.bands of them */
};
struct piece_made {
    size_t document, first, tokens;
    bool begins, ends;
};
struct run_made {             /* the output of a tokenize job */
    struct piece_made *piece;
    size_t pieces;
    struct buf bytes;
};
struct corpus {
    uint64_t seed;
    uint32_t token_bytes, bands;
    size_t documents;
    struct document_made *document;
    uint32_t *group;          /* of each document, which is a source file of its own */
    const char **path;
    size_t runs, runs_max;
    struct run_made *run;
    size_t reads, loads;
};

static inline void corpus_document(struct corpus *corpus, size_t d, size_t tokens) {
    free(corpus->document[d].token);
    corpus->document[d].tokens = tokens;
    corpus->document[d].token = mem_alloc(tokens * sizeof(uint32_t));
}

/* Documents of up to tokens_max tokens; one of eight is empty. */
static inline struct corpus corpus_make(uint64_t seed, size_t documents, size_t tokens_max, uint32_t token_bytes) {
    struct corpus corpus = {.seed = seed, .token_bytes = token_bytes, .documents = documents};
    struct dice dice = {seed, 0};
    corpus.document = mem_alloc(documents * sizeof *corpus.document);
    corpus.group = mem_alloc(documents * sizeof *corpus.group);
    corpus.path = mem_alloc(documents * sizeof *corpus.path);
    for (size_t d = 0; d < documents; d++) {
        corpus_document(&corpus, d, dice_throw(&dice, 8) == 0 ? 0 : 1 + dice_throw(&dice, tokens_max));
        for (size_t t = 0; t < corpus.document[d].tokens; t++) corpus.document[d].token[t] = (uint32_t)dice_throw(&dice, 50256);
        corpus.path[d] = mem_format("/text/%zu", d);
    }
    return corpus;
}

/* Documents of the given sizes, not cut yet. */
static inline struct corpus corpus_of(const size_t *tokens, size_t documents, uint32_t token_bytes) {
    struct corpus corpus = corpus_make(7, documents, 1, token_bytes);
    for (size_t d = 0; d < documents; d++) {
        corpus_document(&corpus, d, tokens[d]);
        for (size_t t = 0; t < tokens[d]; t++) corpus.document[d].token[t] = (uint32_t)(1000 * d + t) % 50000;
    }
    return corpus;
}

/* Document d gets the text of another one. */
static inline void corpus_copy(struct corpus *corpus, size_t d, size_t from) {
    corpus_document(corpus, d, corpus->document[from].tokens);
    memcpy(corpus->document[d].token, corpus->document[from].token, corpus->document[d].tokens * sizeof(uint32_t));
}

static inline void corpus_uncut(struct corpus *corpus) {
    for (size_t r = 0; r < corpus->runs; r++) {
        free(corpus->run[r].piece);
        buf_free(&corpus->run[r].bytes);
    }
    free(corpus->run);
    corpus->run = NULL;
    corpus->runs = corpus->runs_max = 0;
}

static inline void corpus_free(struct corpus *corpus) {
    corpus_uncut(corpus);
    for (size_t d = 0; d < corpus->documents; d++) {
        free(corpus->document[d].token);
        free((char *)corpus->path[d]);
    }
    free(corpus->document);
    free(corpus->group);
    free(corpus->path);
}

static inline void corpus_new_run(struct corpus *corpus) {
    if (corpus->runs == corpus->runs_max) {
        corpus->runs_max = corpus->runs_max ? 2 * corpus->runs_max : 8;
        corpus->run = mem_resize(corpus->run, corpus->runs_max * sizeof *corpus->run);
    }
    corpus->run[corpus->runs++] = (struct run_made){0};
}

/* Adds tokens [first, first + tokens) of a document to the last run. */
static inline void corpus_add_piece(struct corpus *corpus, size_t d, size_t first, size_t tokens, bool begins) {
    struct run_made *run = &corpus->run[corpus->runs - 1];
    for (size_t t = 0; t < tokens; t++) {
        uint8_t bytes[4];
        for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(corpus->document[d].token[first + t] >> (8 * i));
        CHECK(buf_append(&run->bytes, bytes, corpus->token_bytes) == 0);
    }
    run->piece = mem_resize(run->piece, (run->pieces + 1) * sizeof *run->piece);
    run->piece[run->pieces++] = (struct piece_made){d, first, tokens, begins, false};
}

static inline void corpus_end_document(struct corpus *corpus) {
    struct run_made *run = &corpus->run[corpus->runs - 1];
    run->piece[run->pieces - 1].ends = true;
}

/* Each document one piece, all in one run. */
static inline void corpus_whole(struct corpus *corpus) {
    corpus_uncut(corpus);
    corpus_new_run(corpus);
    for (size_t d = 0; d < corpus->documents; d++) {
        corpus_add_piece(corpus, d, 0, corpus->document[d].tokens, true);
        corpus_end_document(corpus);
    }
}

/* Cuts the documents into pieces and runs by chance. `pieces_seed` decides the pieces, `runs_seed` which runs they share. */
static inline void corpus_cut(struct corpus *corpus, uint64_t pieces_seed, uint64_t runs_seed, size_t piece_max) {
    corpus_uncut(corpus);
    struct dice pieces = {pieces_seed, 0}, runs = {runs_seed, 0};
    corpus_new_run(corpus);
    for (size_t d = 0; d < corpus->documents; d++) {
        size_t first = 0;
        bool begins = true;
        do {
            size_t left = corpus->document[d].tokens - first;
            size_t tokens = dice_throw(&pieces, 6) == 0 ? 0 : 1 + dice_throw(&pieces, piece_max);
            if (tokens > left) tokens = left;
            if (dice_throw(&runs, 4) == 0) corpus_new_run(corpus);
            corpus_add_piece(corpus, d, first, tokens, begins);
            first += tokens;
            begins = false;
        } while (first < corpus->document[d].tokens || dice_throw(&pieces, 10) == 0);
        corpus_end_document(corpus);
    }
}

/* ---- Tables ---- */

enum { BLOCK_TOKENS = 7 };    /* a text block's tokens, in this corpus */

static inline size_t corpus_blocks(const struct document_made *document) {
    return document->tokens ? (document->tokens - 1) / BLOCK_TOKENS + 1 : 1;
}

static inline void corpus_block(uint8_t out[SHA256_BYTES], const struct document_made *document, size_t block) {
    size_t first = block * BLOCK_TOKENS, left = document->tokens - first;
    sha256_of(out, document->token + first, (left < BLOCK_TOKENS ? left : BLOCK_TOKENS) * sizeof(uint32_t));
}

/* What the tests know of a document's place: every third one is a member of an archive. */
static inline char *corpus_member(size_t d) { return d % 3 == 1 ? mem_format("member-%zu", d / 6) : NULL; }
static inline uint64_t corpus_offset(size_t d, size_t first) { return 1000000 * d + 5 * first; }
static inline uint64_t corpus_bytes(size_t tokens) { return 3 * tokens + 1; }

static inline void corpus_fill_piece(const struct corpus *corpus, Millrace__RunTable *table, struct buf *digests, struct buf *bands,
                                     size_t i, const struct piece_made *piece) {
    const struct document_made *document = &corpus->document[piece->document];
    char *member = corpus_member(piece->document);
    table->source[i] = (uint32_t)piece->document;
    if (member) {
        table->member_name = mem_resize(table->member_name, (table->n_member_name + 1) * sizeof(char *));
        table->member_name[table->n_member_name++] = member;
        table->member[i] = (uint32_t)table->n_member_name;
    }
    table->offset[i] = corpus_offset(piece->document, piece->first);
    table->bytes[i] = corpus_bytes(piece->tokens);
    table->piece_tokens[i] = piece->tokens;
    table->tokens += piece->tokens;
    table->flags[i] = (piece->begins ? TOKEN_RUN_BEGINS : 0) | (piece->ends ? TOKEN_RUN_ENDS : 0);
    table->replaced[i] = 1;
    size_t block = (piece->first + BLOCK_TOKENS - 1) / BLOCK_TOKENS, end = piece->first + piece->tokens; /* those that begin in the piece */
    if (document->tokens == 0) end = piece->begins;
    for (; block * BLOCK_TOKENS < end; block++, table->blocks[i]++) {
        uint8_t digest[SHA256_BYTES];
        corpus_block(digest, document, block);
        CHECK(buf_append(digests, digest, sizeof digest) == 0);
    }
    for (uint32_t b = 0; b < corpus->bands; b++) {
        uint64_t value = piece->begins ? document->band[b] : 0;
        CHECK(buf_append(bands, &value, sizeof value) == 0); /* this machine is little-endian */
    }
}

static inline int corpus_load(void *arg, size_t r, Millrace__RunTable **out) {
    struct corpus *corpus = arg;
    const struct run_made *run = &corpus->run[r];
    size_t n = run->pieces;
    Millrace__RunTable *table = mem_alloc(sizeof *table);
    struct buf digests = {0}, bands = {0};
    millrace__run_table__init(table);
    table->token_bytes = corpus->token_bytes;
    table->source = mem_alloc(n * sizeof *table->source);
    table->member = mem_alloc(n * sizeof *table->member);
    table->offset = mem_alloc(n * sizeof *table->offset);
    table->bytes = mem_alloc(n * sizeof *table->bytes);
    table->piece_tokens = mem_alloc(n * sizeof *table->piece_tokens);
    table->flags = mem_alloc(n * sizeof *table->flags);
    table->blocks = mem_alloc(n * sizeof *table->blocks);
    table->replaced = mem_alloc(n * sizeof *table->replaced);
    table->n_source = table->n_member = table->n_offset = table->n_bytes = table->n_piece_tokens = table->n_flags = table->n_blocks =
        table->n_replaced = n;
    for (size_t i = 0; i < n; i++) corpus_fill_piece(corpus, table, &digests, &bands, i, &run->piece[i]);
    table->digests = (ProtobufCBinaryData){digests.size, digests.data};
    table->bands = (ProtobufCBinaryData){bands.size, bands.data};
    corpus->loads++;
    *out = table;
    return 0;
}

/* A token_run_reader's function over the runs in memory. */
static inline int corpus_read(void *arg, uint32_t r, void *out, size_t size_bytes, uint64_t offset) {
    struct corpus *corpus = arg;
    corpus->reads++;
    if (r >= corpus->runs || offset > corpus->run[r].bytes.size || size_bytes > corpus->run[r].bytes.size - offset)
        return err_set(ERR_IO, "run %u has no bytes [%" PRIu64 ", + %zu)", r, offset, size_bytes);
    memcpy(out, corpus->run[r].bytes.data + offset, size_bytes);
    return 0;
}

/* One entry of dataset.sources, whatever the documents. */
static struct source_group corpus_one_group[1] = {{.name = (char *)"text"}};

static inline struct plan_options corpus_options(struct corpus *corpus, double fraction, uint64_t sequence_length, uint64_t shard_tokens) {
    return (struct plan_options){
        .token_bytes = corpus->token_bytes,
        .eos = END_OF_TEXT,
        .sequence_length = sequence_length,
        .shard_tokens = shard_tokens,
        .validation_fraction = fraction,
        .groups = corpus_one_group,
        .group_count = 1,
        .source_path = corpus->path,
        .source_group = corpus->group,
        .sources = corpus->documents,
        .runs = corpus->runs,
        .load = corpus_load,
        .arg = corpus,
    };
}

static inline int corpus_plan(struct dataset_plan **out, struct corpus *corpus, double fraction, uint64_t sequence_length,
                              uint64_t shard_tokens) {
    struct plan_options options = corpus_options(corpus, fraction, sequence_length, shard_tokens);
    return dataset_plan_from_runs(out, &options);
}

static inline void corpus_digest(const struct corpus *corpus, uint8_t out[SHA256_BYTES], size_t d) {
    struct sha256 *sha = sha256_open();
    for (size_t block = 0; block < corpus_blocks(&corpus->document[d]); block++) {
        uint8_t digest[SHA256_BYTES];
        corpus_block(digest, &corpus->document[d], block);
        sha256_add(sha, digest, sizeof digest);
    }
    sha256_finish(sha, out);
    sha256_close(sha);
}

#endif
