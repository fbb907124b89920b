/* A dataset folder: train-*.tok.zst, validation-*.tok.zst, and the manifest (dataset.pb, protobuf; docs/FORMATS.md), which names every
 * shard with its size and digest. The manifest is written last: a folder without it is not a dataset. */
#ifndef MILLRACE_DATASET_MANIFEST_H
#define MILLRACE_DATASET_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"
#include "dataset/shard/shard.h"
#include "dataset/source/sources.h"
#include "proto/dataset.pb-c.h"
#include "proto/millrace.pb-c.h"

struct shard_entry {
    char name[48];                 /* "train-00000.tok.zst" */
    uint64_t tokens, documents, file_bytes;            /* documents: those that begin in it */
    uint64_t first_document;       /* number of the first that begins in it or after it; manifest_read() and _write() set it */
    uint8_t file_digest[SHA256_BYTES];
    bool has_index_digest;         /* earlier versions did not write it */
    uint8_t index_digest[XXH128_BYTES];
};
/* Texts and arrays are the manifest's own. */
struct manifest {
    uint32_t token_bytes, eos;                         /* eos: the token that ends documents, and pads */
    char *packing;                                     /* "concat", "pad", "best_fit" */
    bool document_mask;
    uint64_t sequence_length, frame_tokens, shard_tokens;
    uint64_t documents, tokens, sequences;             /* both splits */
    uint64_t train_documents, train_tokens, train_sequences;
    uint64_t empty_documents, replaced;                /* documents without a token; ill-formed UTF-8 replaced */
    uint64_t truncated_documents, truncated_tokens;    /* packing pad: longer than a sequence */
    uint64_t padding;                                  /* tokens */
    uint8_t digest[SHA256_BYTES];                      /* of all token bytes, train shards then validation shards */
    char *tokenizer;                                   /* as pipeline.yaml names it; NULL: not told */
    uint8_t tokenizer_digest[SHA256_BYTES];            /* SHA-256 of what it is made of */
    char *policy;                                      /* what became of texts, for people; NULL: not told */
    size_t train_shards, shards;
    struct shard_entry *shard;                         /* train first */
    size_t sources;
    char **source;                                     /* path of each source file, by number; may be left out */
    size_t groups;
    Millrace__ManifestGroup **group;                   /* the entries of dataset.sources */
    Millrace__Account *account;                        /* where every byte of the sources went; NULL: not told */
    Millrace__IllFormed *ill_formed;                   /* NULL: there are no such files */
    size_t drops;
    Millrace__Dropped **dropped;                       /* what was left out, by reason */
};
/* What a manifest names, at most: with all of it it can be written, and read again. Whoever begins a dataset asks before. */
enum {
    MANIFEST_SOURCES_MAX = 4 << 20,
    MANIFEST_SOURCES_BYTES_MAX = 64 << 20,   /* of their paths, with MANIFEST_SOURCE_BYTES for each: 800,000 of 80 bytes */
    MANIFEST_SOURCE_BYTES = 4,
    MANIFEST_SHARDS_MAX = 1 << 20,           /* of 32 Ki tokens or more */
};
int manifest_check_sources(const struct sources *sources);                 /* ERR_CONFIG: these are more */

/* The files of a dataset folder, by name. */
#define MANIFEST_NAME "dataset.pb"
void shard_name(char out[48], bool validation, uint32_t number);
bool is_dataset_file(const char *name);                                    /* one of them, or a draft of one */

int manifest_write(struct manifest *manifest, const char *folder);        /* atomically */
int manifest_read(struct manifest *out, const char *folder);              /* ERR_NOTFOUND, ERR_CORRUPT */
int manifest_remove(const char *folder);                                   /* fine if it is absent */
void manifest_free(struct manifest *manifest);

/* Whether a shard is as long as its entry says: ERR_CORRUPT, or ERR_NOTFOUND where it is gone. */
int shard_entry_check_size(const struct shard_entry *entry, const char *path);

/* Every byte of the file against its entry: frames, their tokens (added to `sha` when it is not NULL), their number, the index where its
 * digest is on record, and the file's digest. *out_index: the digest of the index. ERR_CORRUPT: broken, or another one, the text names
 * the file and the place; ERR_NOTFOUND: it is gone. */
int shard_entry_verify(const struct shard_entry *entry, uint8_t out_index[XXH128_BYTES], const char *path, struct sha256 *sha);

/* Opens a shard that the manifest names, and looks whether it is that one: ERR_CORRUPT where its size, its number of tokens or its index is
 * another one's, ERR_NOTFOUND where it is gone. */
int manifest_open_shard(struct shard **out, const struct manifest *manifest, const char *folder, size_t number);

/* shard_entry_verify() of one of its shards. Where that fails, packing the shard again makes it whole. */
int manifest_verify_shard(const struct manifest *manifest, const char *folder, size_t number, struct sha256 *sha);

/* The shard (its number in the manifest) in which a document begins. ERR_NOTFOUND: there is no such document. What follows of it is in the
 * shards behind; with best_fit, its last part may be in any. */
int manifest_find_document(const struct manifest *manifest, size_t *out_shard, uint64_t document);

/* The geometry of one split, as workers get it. Points into nothing; `split` is a constant text. */
Millrace__Geometry manifest_geometry(const struct manifest *manifest, bool validation);

uint64_t geometry_sequences(const Millrace__Geometry *geometry);

/* Where sequence i lies. */
struct sequence_place {
    uint32_t shard, frame;
    uint64_t first;    /* token within the frame */
};
struct sequence_place sequence_place(const Millrace__Geometry *geometry, uint64_t sequence);

/* The order of training: position p, counted over all epochs, -> sequence number; each epoch has every sequence once, and there must be
 * one at least. The sequences of a frame are a block. An epoch permutes the blocks, takes `window` of them at a time (0: all), and permutes
 * the sequences of those. So a run of positions touches few frames, and any position is found without a table. Which order a seed gives
 * never changes. */
uint64_t order_sequence(uint64_t seed, uint64_t position, const Millrace__Geometry *geometry, uint64_t window);

/* Effective sizes: frames hold whole sequences, shards whole frames. */
uint64_t frame_tokens_for(uint64_t sequence_length);                         /* about 64 Ki tokens */
uint64_t shard_tokens_for(uint64_t shard_tokens, uint64_t sequence_length);  /* rounded down to whole frames, at least one */
uint64_t sequences_in(uint64_t tokens, uint64_t sequence_length, bool separate);  /* tokens / T; else (tokens - 1) / T, 0 when short */

#endif
