/* UTF-8 as it comes, made well-formed: each maximal subpart of an ill-formed sequence becomes one U+FFFD (Unicode 15, section 3.9, table
 * 3-7; the same as WHATWG's decoder and Python's errors="replace"). NUL and every other character passes unchanged. */
#ifndef MILLRACE_DATASET_UTF8_H
#define MILLRACE_DATASET_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What bytes[0..size), size > 0, begin with: a character of that many bytes (1 to 4), 0 when all of it is the beginning of a character,
 * or an ill-formed subpart of that many bytes, negative (-1 to -3). */
int utf8_measure(const uint8_t *bytes, size_t size);

/* The character of a well-formed sequence of 1 to 4 bytes. */
static inline uint32_t utf8_character(const uint8_t *bytes) {
    if (bytes[0] < 0x80) return bytes[0];
    if (bytes[0] < 0xE0) return (bytes[0] & 0x1Fu) << 6 | (bytes[1] & 0x3Fu);
    if (bytes[0] < 0xF0) return (bytes[0] & 0x0Fu) << 12 | (bytes[1] & 0x3Fu) << 6 | (bytes[2] & 0x3Fu);
    return (bytes[0] & 0x07u) << 18 | (bytes[1] & 0x3Fu) << 12 | (bytes[2] & 0x3Fu) << 6 | (bytes[3] & 0x3Fu);
}
static inline size_t utf8_length(uint8_t first) { /* of a well-formed sequence */
    return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

/* Replaces what is ill-formed in a stream that comes in chunks of any size. An all-zero struct is the beginning of a text. */
struct utf8_replacer {
    uint64_t replaced;   /* ill-formed subparts so far, over all texts */
    uint8_t pending[4];  /* the beginning of a character whose rest has not come yet */
    uint8_t pending_bytes;
};
enum { UTF8_REPLACE_ROOM = 8 };  /* free bytes of output that utf8_replace() wants before it takes another byte */

/* Takes bytes from in and writes whole characters to out until either has no room left (for the output: less than UTF8_REPLACE_ROOM).
 * Returns how many bytes it took and sets *out_size to how many it wrote. */
size_t utf8_replace(struct utf8_replacer *replacer, uint8_t *out, size_t *out_size, size_t out_capacity, const uint8_t *in, size_t in_size);

/* The text ends: writes what a cut-off character becomes, up to 3 bytes. Returns how many. */
size_t utf8_replace_end(struct utf8_replacer *replacer, uint8_t *out);

#endif
