/* A run's table while its tokens are written: pieces, and what is left out. */
#ifndef MILLRACE_DATASET_RUN_BUILD_H
#define MILLRACE_DATASET_RUN_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataset/ingest/run.h"

struct run_builder {
    Millrace__RunTable table;   /* columns with room for `capacity` pieces */
    size_t capacity;
    struct buf digests, bands;
    bool changed;               /* some piece's text was */
};

void run_builder_open(struct run_builder *builder, uint32_t token_bytes);
void run_builder_close(struct run_builder *builder);

/* Begins a piece; its bytes, tokens, flags, replaced, changed and blocks are added to afterwards, until the next one begins. */
void run_builder_piece(struct run_builder *builder, uint32_t source, uint32_t member, uint64_t offset);
int run_builder_block(struct run_builder *builder, const uint8_t digest[SHA256_BYTES]);  /* of the last piece */
void run_builder_changed(struct run_builder *builder, uint64_t bytes);  /* the last piece's text had so many before it was changed */
int run_builder_bands(struct run_builder *builder, const uint64_t *band, size_t count);

/* The number of the last member's name; the same name again is the same number. "": 0. */
uint32_t run_builder_member(struct run_builder *builder, const char *name);

/* A document left out. source and name: the file's and the member's name; bytes: as they lie there; line: 0: not told; text: how the
 * document begins. */
struct run_left_out {
    const char *reason, *detail, *source, *member;
    uint64_t offset, line, bytes;
    const uint8_t *text;
    size_t text_bytes;
};
void run_builder_drop(struct run_builder *builder, const struct run_left_out *document);

int run_builder_seal(struct run_builder *builder, struct buf *out);  /* appends the sealed table */

#endif
