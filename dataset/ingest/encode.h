/* The text of documents to token ids and digests: what a token run holds of them. A document's text may come in chunks of any size, begin
 * behind one of its block borders (dataset/ingest/token_run.h) and end at one; the tokens and digests are the same. */
#ifndef MILLRACE_DATASET_ENCODE_H
#define MILLRACE_DATASET_ENCODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataset/ingest/token_run_build.h"
#include "dataset/tokenizer/tokenizer.h"

struct encode_options {
    const struct tokenizer *tokenizer;
    uint32_t token_bytes;
    uint64_t block_bytes;
    int (*tick)(void *arg);
    void *tick_arg;
};
struct encode;
struct encode *encode_open(const struct encode_options *options);
void encode_close(struct encode *encode);

/* From now on text goes through the encoder, which stands between two texts, pieces to the builder's last one, and ids to write(). */
void encode_into(struct encode *encode, struct encoder *encoder, struct token_run_builder *builder,
                 int (*write)(void *arg, const void *bytes, size_t size_bytes), void *write_arg);
/* Another document: nothing comes before. */
void encode_reset(struct encode *encode);
/* Text of the document that belongs to no piece of this token run; encode_seek(): up to the first safe cut, if there is one (true). */
void encode_pass(struct encode *encode, const uint8_t *text, size_t bytes);
bool encode_seek(struct encode *encode, size_t *out_took, const uint8_t *text, size_t bytes);
/* A piece begins, `at` bytes into its document. */
void encode_begin(struct encode *encode, uint64_t at);
/* Takes text, at most up to a block border: then *out_border is true, and the piece may end. */
int encode_text(struct encode *encode, size_t *out_took, bool *out_border, const uint8_t *text, size_t bytes);
/* The piece ends: at a block border, or (ends) with its document. */
int encode_end(struct encode *encode, bool ends);
uint64_t encode_at(const struct encode *encode);  /* bytes of the document that are done */
int encode_flush(struct encode *encode);          /* writes the ids that are left */

#endif
