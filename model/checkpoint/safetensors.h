/* safetensors files (github.com/huggingface/safetensors): 8 bytes little-endian length of a JSON header, the header, then the tensors'
 * bytes. Reading trusts nothing: the header is capped, and the tensors must follow each other without hole or overlap from the first
 * data byte to the end of the file. Knows nothing of models. */
#ifndef MILLRACE_MODEL_SAFETENSORS_H
#define MILLRACE_MODEL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum {
    SAFETENSORS_HEADER_MAX = 100 * 1000 * 1000,  /* as the reference implementation */
    SAFETENSORS_NAME_MAX = 160,
    SAFETENSORS_RANK_MAX = 8,
};

struct safetensors_entry {
    char name[SAFETENSORS_NAME_MAX];
    char dtype[12];                      /* "F32" */
    int rank;
    uint64_t shape[SAFETENSORS_RANK_MAX];
    uint64_t offset, size_bytes;         /* within the data, which starts after the header */
};

struct safetensors {
    char *path;
    int fd;
    uint64_t data_offset;                /* of the first data byte in the file */
    size_t count;
    struct safetensors_entry *entry;     /* by name */
};

/* ERR_NOTFOUND, ERR_IO, ERR_CORRUPT, ERR_LIMIT; texts name the file and the tensor. Reading through fd is thread-safe. */
int safetensors_open(struct safetensors **out, const char *path);
void safetensors_close(struct safetensors *file);  /* NULL is fine */

/* NULL when there is none of that name. */
const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name);

/* Appends all that comes before the data: length, header with metadata {"format":"pt"} and the entries in the given order, padded with
 * spaces so that the data starts at a multiple of 8. Names must need no escaping in JSON. */
int safetensors_print_header(struct buf *out, const struct safetensors_entry *entries, size_t count);

#endif
