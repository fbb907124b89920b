/* Text that is UTF-8 by name only: in another encoding, most likely, for real UTF-8 has hardly an ill-formed sequence. It is read all the
 * same, and people are told. Pure. */
#ifndef MILLRACE_DATASET_DOUBTFUL_H
#define MILLRACE_DATASET_DOUBTFUL_H

#include <stdbool.h>
#include <stdint.h>

/* For other messages about such text: what it is, most likely, and what makes UTF-8 of it. */
#define UTF8_ELSE "an 8-bit encoding such as ISO-8859-1 or Windows-1252"
#define UTF8_CONVERT "iconv -f WINDOWS-1252 -t UTF-8"

/* More than one ill-formed sequence in a thousand bytes, and at least ten? */
bool utf8_is_doubtful(uint64_t sequences, uint64_t bytes);

/* What to say of such a text, and what to do. `place` may hold anything; "standard input" gets advice of its own. `others`: how many more
 * files are such. The caller frees it. */
char *utf8_doubtful_words(const char *place, uint64_t sequences, uint64_t bytes, uint64_t others);

#endif
