/* A token run's table while its tokens are written: pieces, and what is left out. */
#ifndef MILLRACE_DATASET_TOKEN_RUN_BUILD_H
#define MILLRACE_DATASET_TOKEN_RUN_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataset/ingest/token_run.h"

struct token_run_builder {
    Millrace__RunTable table; /* columns with room for `capacity` pieces */
    size_t capacity;
    struct buf digests, bands;
    bool changed; /* some piece's text was */
};

void token_run_builder_open(struct token_run_builder *builder, uint32_t token_bytes);
void token_run_builder_close(struct token_run_builder *builder);

/* Begins a piece; its bytes, tokens, flags, replaced, changed and blocks are added to afterwards, until the next one begins. */
void token_run_builder_piece(struct token_run_builder *builder, uint32_t source, uint32_t member, uint64_t offset);
int token_run_builder_block(struct token_run_builder *builder, const uint8_t digest[SHA256_BYTES]); /* of the last piece */
void token_run_builder_changed(struct token_run_builder *builder,
                               uint64_t bytes); /* the last piece's text had so many before it was changed */
int token_run_builder_bands(struct token_run_builder *builder, const uint64_t *band, size_t count);

/* The number of the last member's name; the same name again is the same number. "": 0. */
uint32_t token_run_builder_member(struct token_run_builder *builder, const char *name);

/* A document left out. source and name: the file's and the member's name; bytes: as they lie there; line: 0: not told; text: how the
 * document begins. */
struct token_run_left_out {
    const char *reason, *detail, *source, *member;
    uint64_t offset, line, bytes;
    const uint8_t *text;
    size_t text_bytes;
};
void token_run_builder_drop(struct token_run_builder *builder, const struct token_run_left_out *document);

int token_run_builder_seal(struct token_run_builder *builder, struct buf *out); /* appends the sealed table */

#endif
