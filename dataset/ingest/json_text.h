/* The text in one JSON record: a reader that builds nothing, so that a record costs one pass over it and no memory. It checks all of the
 * grammar (RFC 8259) and takes, beside that, what Python's json writes and reads: NaN, Infinity and -Infinity, and surrogates that stand
 * alone. Control characters and ill-formed UTF-8 in strings are taken as they are; what becomes of text that is not UTF-8 is for others
 * to say (dataset.invalid_utf8). */
#ifndef MILLRACE_DATASET_JSON_TEXT_H
#define MILLRACE_DATASET_JSON_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum {
    JSON_DEPTH_MAX = 2048,     /* values within values: more than Python writes, and a bound for the stack */
    JSON_WHY_BYTES = 160,
    JSON_LONE_SURROGATE = 0xFF /* the byte that stands for one: ill-formed, and one U+FFFD when it is replaced */
};

/* Finds the string that a record is, or the one in the field of the object that it is: the field of that name, else with "a.b" the field
 * b of the object in a. Of fields of one name the last counts. 1: *out_text holds it, in the record or, when it had escapes, in room. 0:
 * there is none, and why[JSON_WHY_BYTES] says so; of an object without the field it names those that it has, behind "; it has". */
int json_text(const uint8_t **out_text, size_t *out_bytes, struct buf *room, char *why, const uint8_t *record, size_t size,
              const char *field);

#endif
