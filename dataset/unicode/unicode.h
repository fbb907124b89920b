/* What Unicode says about whole texts and single characters, through utf8proc: normalization, lower case, what makes up words. The only
 * file of the project that knows utf8proc. Unicode 15.0, whatever the machine's locale. */
#ifndef MILLRACE_DATASET_UNICODE_H
#define MILLRACE_DATASET_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "config/config.h"

/* Appends text, well-formed, in a normalization form (UAX #15) and nothing else: no character is dropped, folded or added beyond what the
 * form asks for. Linear time. Takes 12 bytes for each byte of the longest run of combining marks, besides out. ERR_LIMIT when out's
 * ceiling is reached. */
int unicode_normalize(struct buf *out, enum normalization form, const uint8_t *text, size_t bytes);

/* A character as it is in words that are compared: writes its simple lower case and returns the bytes; 0 when it is no letter, mark or
 * number. */
size_t unicode_fold(uint8_t out[4], uint32_t character);

/* Of a script that puts no spaces between words (Han, Kana, Thai, Lao, Khmer, Myanmar): where a character has to do for a word. */
bool unicode_is_word(uint32_t character);

#endif
