/* The one growing byte buffer. Capacity doubles; one byte more than asked for is always there, for the NUL that buf_append() and
 * buf_print() write behind the bytes. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

int buf_reserve(struct buf *buf, size_t more_bytes) {
    size_t need;
    if (__builtin_add_overflow(buf->size, more_bytes, &need) || need == SIZE_MAX)
        return err_set(ERR_LIMIT, "a buffer of more than %zu bytes was wanted", SIZE_MAX);
    if (buf->max_bytes && need > buf->max_bytes)
        return err_set(ERR_LIMIT, "%zu bytes do not fit into a buffer limited to %zu", need, buf->max_bytes);
    if (need < buf->capacity) return 0;
    size_t capacity = buf->capacity ? buf->capacity : 64;
    while (capacity <= need) capacity = capacity > SIZE_MAX / 2 ? need + 1 : capacity * 2;
    uint8_t *data = realloc(buf->data, capacity);
    if (!data) return mem_wanted(capacity, "");
    buf->data = data;
    buf->capacity = capacity;
    return 0;
}

int buf_append(struct buf *buf, const void *bytes, size_t size_bytes) {
    TRY(buf_reserve(buf, size_bytes));
    if (size_bytes) memcpy(buf->data + buf->size, bytes, size_bytes);
    buf->size += size_bytes;
    buf->data[buf->size] = 0;
    return 0;
}

int buf_print(struct buf *buf, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(n >= 0);
    int code = buf_reserve(buf, (size_t)n);
    if (code == 0) {
        vsnprintf((char *)buf->data + buf->size, (size_t)n + 1, format, again);
        buf->size += (size_t)n;
    }
    va_end(again);
    return code;
}

void buf_clear(struct buf *buf) {
    buf->size = 0;
    if (buf->data) buf->data[0] = 0;
}

void buf_free(struct buf *buf) {
    free(buf->data);
    *buf = (struct buf){.max_bytes = buf->max_bytes};
}
