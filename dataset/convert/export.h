/* The tokens of a dataset's split as the files that other programs read. Every frame is checked against its digest on the way. */
#ifndef MILLRACE_DATASET_EXPORT_H
#define MILLRACE_DATASET_EXPORT_H

#include <stdbool.h>

#include "dataset/shard/manifest.h"

enum token_format {
    TOKENS_RAW,    /* the ids alone, little-endian, 2 or 4 bytes each: nanoGPT's .bin */
    TOKENS_LLMC,   /* llm.c's .bin: 256 int32 (magic, version, tokens), then the ids; fewer than 2^31 of them in a file */
    TOKENS_NPY,    /* numpy's .npy, version 1.0: one axis, or rows of one sequence each where sequences are separate */
};

/* Writes all tokens of the split, in order, to a file that appears whole or not at all. ERR_NOTFOUND: the split is empty; ERR_DENIED: path
 * is a folder, device, pipe or socket; ERR_LIMIT: too many tokens for the format; ERR_CORRUPT names the broken shard. tick (may be NULL) is
 * called often; not 0: ERR_INTERRUPTED. */
int dataset_export(const struct manifest *manifest, const char *folder, bool validation, enum token_format format, const char *path,
                   int (*tick)(void *), void *tick_arg);

#endif
