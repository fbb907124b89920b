/* Shards: independent zstd frames of little-endian token ids, then a skippable frame with the index (docs/FORMATS.md draws
 * the bytes). `zstd -dc FILE` gives the plain array; any frame is read alone; each is checked against its digest before a token is
 * used. The index knows, for each frame, the token that follows it, so that a sequence's last target needs no second read. */
#ifndef MILLRACE_DATASET_SHARD_H
#define MILLRACE_DATASET_SHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"
#include "proto/millrace.pb-c.h"

/* Reads bytes of a token run. */
enum { RUN_READS_EXPECTED = 4 }; /* at once: 1 MiB, which keeps a network busy */
struct token_run_reader {
    int (*read)(void *arg, uint32_t run, void *out, size_t size_bytes, uint64_t offset);  /* all of it or an error */
    /* The same read will probably come soon: where bytes come from afar, they can be on their way. NULL is fine. */
    void (*expect)(void *arg, uint32_t run, size_t size_bytes, uint64_t offset);
    void *arg;
};

/* Builds the shard of a pack job and writes its file's bytes in order through write(). Memory: one frame, whatever the shard. The bytes
 * follow from the job and the token runs alone (zstd's parameters are constants). Fills *result. `tick`, which may be NULL,
 * is called often with tick_arg; when it returns not 0, the call stops with ERR_INTERRUPTED. */
int shard_build(Millrace__PackResult *result, const Millrace__PackJob *job, const struct token_run_reader *reader,
                int (*write)(void *arg, const void *bytes, size_t size_bytes), void *write_arg, int (*tick)(void *), void *tick_arg);

struct shard;   /* an open shard file; reading is thread-safe */
int shard_open(struct shard **out, const char *path);  /* ERR_CORRUPT: torn, truncated, not a shard; the text names file and place */
size_t shard_frames(const struct shard *shard);
uint64_t shard_tokens(const struct shard *shard);
uint32_t shard_token_bytes(const struct shard *shard);
const uint8_t *shard_index_digest(const struct shard *shard); /* XXH128_BYTES; the index has the digest of each frame, so of all tokens */

/* One frame as it lies in the file, checked against its digest. *out_next: the token after it, -1 at the end of the split. */
int shard_read_frame(const struct shard *shard, struct buf *out, int64_t *out_next, size_t frame);

/* Decompresses what shard_read_frame() gave, wherever it came from. Appends token_bytes * tokens bytes; more than max_bytes is
 * ERR_CORRUPT. */
int frame_expand(struct buf *out, const void *bytes, size_t size_bytes, size_t max_bytes);

/* All of it: every frame's digest and size. Adds the token bytes to `sha` when it is not NULL. */
int shard_verify(const struct shard *shard, struct sha256 *sha);

/* Is it what the job must make, as far as that can be told without the token runs? Its place and lengths, its documents' number, every
 * frame, and every token below `vocabulary`. ERR_CORRUPT says what is not. */
int shard_fits(const struct shard *shard, const Millrace__PackJob *job, uint64_t documents, uint64_t vocabulary);

/* What a shard holds of a document, in order of the tokens: of a long document one entry for each piece that it was tokenized in. */
struct shard_document {
    uint64_t document;       /* its number in the dataset */
    uint64_t first, tokens;  /* where in this shard, without its <|endoftext|> */
    bool ends;               /* its <|endoftext|> follows, here */
    uint64_t document_token; /* which of the document's tokens is the first here; 0: it begins here */
    uint32_t source;         /* number of the source file in the manifest */
    const char *member;      /* of an archive: its name, until shard_close(); NULL: the file itself */
    uint64_t offset, bytes;  /* the piece of text that the tokens are of: where it, or the record that holds it, begins in the (unpacked)
                              * file; bytes of text in it */
    uint64_t skipped;        /* tokens of the piece before these */
};
size_t shard_documents(const struct shard *shard);
struct shard_document shard_document(const struct shard *shard, size_t i);

/* The entry with which a document begins; ERR_NOTFOUND: it begins in another shard. */
int shard_find_document(const struct shard *shard, size_t *out, uint64_t document);

/* The entry that holds a token of the shard or ends before it: then the token is an <|endoftext|>. ERR_NOTFOUND: behind the
 * shard, or the end of a document in the shard before. */
int shard_find_token(const struct shard *shard, size_t *out, uint64_t token);
void shard_close(struct shard *shard);

#endif
