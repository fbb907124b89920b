/* A dataset folder from token files that other programs wrote (dataset/convert/token_file.h), built here and now. A document ends before
 * the first <eos> that is not its first token; so all tokens stay as they are, however <eos> is used, but that a file's last document gets
 * an <eos> if it has none. Nothing is left out: equal documents stay. */
#ifndef MILLRACE_DATASET_IMPORT_H
#define MILLRACE_DATASET_IMPORT_H

#include "config/config.h"
#include "dataset/shard/manifest.h"

struct import_options {
    const char *const *train, *const *validation;  /* paths of files */
    size_t train_files, validation_files;
    uint32_t plain_bytes;         /* of an id in files without a header: 2 or 4 */
    uint32_t eos;
    uint32_t vocabulary;          /* ids are below it; 0: not known, but that they fit an int32 */
    double validation_fraction;   /* without validation files: of documents, by chance of their place */
    uint64_t sequence_length, shard_tokens;
    enum packing packing;
    bool document_mask;           /* noted in the manifest */
    const char *tokenizer;        /* the same; NULL: not known */
    const uint8_t *tokenizer_digest;  /* [SHA256_BYTES], with a tokenizer */
    int (*tick)(void *arg);       /* may be NULL; called often; not 0: ERR_INTERRUPTED */
    void *tick_arg;
};

/* Makes shards and manifest in the folder, which must not hold a dataset yet, nor shards without a manifest (ERR_USAGE), and tells what was
 * made. What it made goes again when it fails. All files have ids of the same size. ERR_CORRUPT: an id beyond the vocabulary, a file that
 * is none; ERR_CONFIG: too little for one sequence. */
int dataset_import(struct manifest *out, const struct import_options *options, const char *folder);

#endif
