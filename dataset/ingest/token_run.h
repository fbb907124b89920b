/* A token run: the output of a tokenize job. Token ids, little-endian, then the sealed RunTable (proto/dataset.proto) that says which
 * document each belongs to, where it came from, and what was left out. docs/FORMATS.md draws the bytes.
 *
 * Digests: a document's text is taken in blocks that begin at the first safe cut (dataset/tokenizer/tokenizer.h) at or after each multiple
 * of RUN_BLOCK_BYTES of it; where the next multiple lies before that cut there is one block less. An empty document is one empty
 * block. The document's digest is SHA-256 over its blocks' SHA-256 digests: the same however the document was cut into pieces, token runs
 * and jobs. */
#ifndef MILLRACE_DATASET_TOKEN_RUN_H
#define MILLRACE_DATASET_TOKEN_RUN_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "dataset/shard/seal.h"
#include "proto/dataset.pb-c.h"

#ifndef RUN_BLOCK_BYTES /* the simulation builds the same code with small ones */
enum { RUN_BLOCK_BYTES = 1 << 20 };
#endif
enum {
    TOKEN_RUN_BEGINS = 1,
    TOKEN_RUN_ENDS = 2, /* flags of a piece */
    TOKEN_RUN_BYTES_MAX = 256 << 20,  /* INGEST_TEXT_BYTES of text make at most a quarter of that, and a table */
    TOKEN_RUN_TABLE_BYTES_MAX = 256 << 20,
    TOKEN_RUN_EXAMPLES_MAX = 3,    /* of each reason, in a token run */
    TOKEN_RUN_EXAMPLE_BYTES = 400, /* of an example's text */
};
extern const struct seal_kind token_run_seal;

/* The table of the token run at path, checked: columns of equal length, sums that agree, tokens that fill the file, every byte that was
 * read in one account. The caller frees it with millrace__run_table__free_unpacked(table, NULL). ERR_CORRUPT names the file. */
int token_run_table_read(Millrace__RunTable **out, const char *path);
/* Every token id of the token run, which has this table, is below `vocabulary`. */
int token_run_ids_check(const Millrace__RunTable *table, const char *path, uint64_t vocabulary);
int token_run_table_parse(Millrace__RunTable **out, const void *bytes, size_t size_bytes); /* the same of a token run in memory */
int token_run_table_check(const Millrace__RunTable *table);

/* Bytes of a piece's text as they lie in the unpacked file: before anything was changed. */
uint64_t token_run_piece_bytes(const Millrace__RunTable *table, size_t piece);

#endif
