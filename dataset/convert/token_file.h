/* Files of token ids that other programs write: nanoGPT's and llm.c's .bin, numpy's .npy. What a file is follows from its first bytes; what
 * is neither of the two with a header is plain ids. Its size has to agree. */
#ifndef MILLRACE_DATASET_TOKEN_FILE_H
#define MILLRACE_DATASET_TOKEN_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "dataset/shard/shard_index.h"

enum {
    NPY_HEAD_BYTES = 10,       /* magic, version, length of the text that follows */
    NPY_TEXT_MAX = 65535,
    LLMC_HEAD_BYTES = 1024,
    LLMC_MAGIC_2 = 20240520, LLMC_VERSION_2 = 1,  /* uint16: GPT-2 */
    LLMC_MAGIC_4 = 20240801, LLMC_VERSION_4 = 7,  /* uint32: Llama 3 */
};

struct token_file {
    int fd;                    /* open for reading */
    uint32_t token_bytes;      /* 2 or 4 */
    uint64_t offset;           /* of the first id in the file */
    uint64_t tokens;
};

/* plain_bytes: of an id, 2 or 4, where the file does not say it. ERR_CORRUPT, ERR_UNSUPPORTED (other types of numbers) name the file. */
int token_file_open(struct token_file *out, const char *path, uint32_t plain_bytes);

/* Ids [first, first + count) as they lie in the file, little-endian. */
int token_file_read(const struct token_file *file, void *out, uint64_t first, size_t count);
void token_file_close(struct token_file *file);

#endif
