/* UTF-16 as it comes, to UTF-8: half a surrogate pair, and half a unit at the end, become the ill-formed byte UTF16_LONE, so that they are
 * what a text's other faults are: dataset.invalid_utf8 decides. */
#ifndef MILLRACE_DATASET_UTF16_H
#define MILLRACE_DATASET_UTF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UTF16_LONE = 0xFF };

struct utf16 {           /* all zero but big_endian: the beginning of a text, behind its byte order mark */
    bool big_endian;
    bool has_byte;       /* half a unit is pending */
    uint8_t byte;
    uint16_t high;       /* the first half of a pair is; 0: none */
};
/* Bytes of output for size bytes of input, and for the end. */
static inline size_t utf16_room(size_t size_bytes) { return size_bytes / 2 * 3 + 8; }

size_t utf16_to_utf8(struct utf16 *state, uint8_t *out, const uint8_t *in, size_t size_bytes); /* returns what it wrote */
size_t utf16_end(struct utf16 *state, uint8_t *out);

#endif
