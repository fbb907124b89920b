/* Bytes of one source file, from wherever they are read: the coordinator, a URL, this disk. */
#ifndef MILLRACE_DATASET_READER_H
#define MILLRACE_DATASET_READER_H

#include <stddef.h>
#include <stdint.h>

#ifndef READER_BYTES_MAX /* the simulation builds the same code with small ones */
enum { READER_BYTES_MAX = 1 << 20 };  /* that one call asks for */
#endif

struct byte_reader {
    /* Up to size_bytes (at most READER_BYTES_MAX) at offset; *out_got is smaller only at the end of the file. Any order of offsets. */
    int (*read)(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset);
    void *arg;
    const char *name;   /* path or URL: for messages, and for its suffix */
    uint64_t size;      /* bytes of the file */
};

#endif
