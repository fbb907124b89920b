/* What the writer and the reader of shards agree on: the bytes around the frames, the limits, and when an index is sound. Its
 * limits hold for whoever plans, reads or imports datasets, too; docs/FORMATS.md draws it. */
#ifndef MILLRACE_DATASET_SHARD_INDEX_H
#define MILLRACE_DATASET_SHARD_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "dataset/shard/seal.h"
#include "proto/dataset.pb-c.h"

enum {
    SKIPPABLE_BYTES = 8,                     /* of a zstd skippable frame's head: magic, size of its content */
    SHARD_EXTENTS_MAX = 2 << 20,        /* of one pack job, which is one message (proto/frame.h's body caps) */
    SHARD_FRAME_TOKENS_MAX = 4 << 20,        /* with 4 bytes each, 16 MiB: what one message carries */
    SHARD_INDEX_BYTES_MAX = 64 << 20,        /* 2 Mi documents (SHARD_EXTENTS_MAX) take some 40 MiB */
    SHARD_INDEX_MEMORY_MAX = 256 << 20,      /* a column holds 8 bytes for what may be 1 byte in the file */
};
#define SKIPPABLE_MAGIC 0x184D2A5Eu          /* zstd reserves 0x184D2A50 to 0x184D2A5F */

extern const struct seal_kind shard_seal;

/* The 8 bytes before the index: zstd's tools skip content_bytes after them. */
void skippable_head(uint8_t out[SKIPPABLE_BYTES], uint32_t content_bytes);

/* Is the index sound in itself, and do its frames fill exactly the first frames_bytes of the file? ERR_CORRUPT names what is wrong. */
int shard_index_check(const Millrace__ShardIndex *index, uint64_t frames_bytes);

/* Columns of zeros are left out. */
#define INDEX_COLUMN(type_, column_)                                                                   \
    static inline type_ index_##column_(const Millrace__ShardIndex *index, size_t i) {                 \
        return index->n_##column_ ? index->column_[i] : 0;                                             \
    }
INDEX_COLUMN(uint64_t, document_token)
INDEX_COLUMN(uint64_t, skipped)
INDEX_COLUMN(uint32_t, member)

/* Little-endian token ids of 2 or 4 bytes. */
uint32_t token_get(const uint8_t *at, uint32_t token_bytes);
void token_put(uint8_t *at, uint32_t token, uint32_t token_bytes);
uint32_t tokens_most(const uint8_t *ids, size_t size_bytes, uint32_t token_bytes);  /* the largest one; 0 where there is none */

#endif
