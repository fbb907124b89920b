/* Regular expressions of tokenizers, through PCRE2: the only file that knows it. Patterns are written for Oniguruma in Ruby's syntax, which
 * Hugging Face's library uses; where PCRE2 reads the same text otherwise it is translated (\s is Unicode's White_Space, \w has marks,
 * \p{Han} is a script, ...), and what cannot be read exactly is ERR_UNSUPPORTED. */
#ifndef MILLRACE_DATASET_PATTERN_H
#define MILLRACE_DATASET_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PATTERN_BYTES_MAX = 1 << 16 };

struct pattern;   /* immutable once open; shared by threads */
int pattern_open(struct pattern **out, const char *regex, bool literal);  /* literal: plain text; the errors name the place */
void pattern_close(struct pattern *pattern);

struct matcher;   /* what one thread needs to match */
int matcher_open(struct matcher **out, const struct pattern *pattern);
void matcher_close(struct matcher *matcher);

/* The first match in text[0, size), well-formed UTF-8, at or after `from`: 1 and [*begin, *end), or 0. ERR_LIMIT: the pattern needs more
 * steps or memory than it is given; only patterns that go back and forth over long texts do. */
int matcher_next(struct matcher *matcher, size_t *begin, size_t *end, const uint8_t *text, size_t size, size_t from);

#endif
