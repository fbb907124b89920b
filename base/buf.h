/* A growing array of bytes with an upper limit. The owner calls buf_free(); an all-zero struct is an empty buffer without a limit. Crossing
 * max_bytes is ERR_LIMIT and leaves the buffer as it was. */
#ifndef MILLRACE_BASE_BUF_H
#define MILLRACE_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data;      /* size bytes, then a NUL that does not count */
    size_t size;
    size_t capacity;
    size_t max_bytes;   /* 0: no ceiling */
};

int buf_reserve(struct buf *buf, size_t more_bytes);  /* room for that many more */
int buf_append(struct buf *buf, const void *bytes, size_t size_bytes);
int buf_print(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_clear(struct buf *buf);                      /* keeps the memory */
void buf_free(struct buf *buf);

#endif
