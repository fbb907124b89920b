/* Small texts for people. Text of others, made harmless for a terminal, a log or JSON: what is not UTF-8, control characters (escape
 * sequences begin with one) and characters that turn the direction of writing are escaped. Also the one decoder of UTF-8 for small texts.
 */
#ifndef MILLRACE_BASE_PLAIN_H
#define MILLRACE_BASE_PLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes the UTF-8 character that begins at text; returns its bytes, 0 if it is not one. */
size_t utf8_decode(unsigned *out, const char *text, size_t size_bytes);
bool utf8_valid(const char *text);

/* What is put behind a noun: "1 step", "2 steps". */
static inline const char *plural(unsigned long long count) { return count == 1 ? "" : "s"; }

/* Texts of numbers for people, in a ring of a few texts. */
const char *text_count(uint64_t n);       /* "12,345,678" */
const char *text_bytes(double bytes);     /* "12.3 MB" */
const char *text_seconds(double seconds); /* "3 min 20 s" */

/* A number as a person would write it, with the digits that it needs to be read back as the same: "0.1", "0.9999999", "20". */
const char *text_real(double value);

/* What a mean loss in nats a token is as perplexity, with so many decimals: "12.35", "2.907e+125" where nobody reads digits, "inf" where a
 * double overflows, "nan" of a loss that is none. */
const char *text_perplexity(double loss, int decimals);

/* A share: "100 %", "12 %", "0.28 %"; two digits, never an exponent, and 100 only of all. */
const char *percent_text(double part, double all);

/* Copies as much of the text as fits and ends it; never part of a character. "\\n", "\\x1B", "\\u202E". With `lines` line feeds and
 * tabs stay. */
void plain_text(char *out, size_t room_bytes, const char *text, bool lines);

/* The same of a text of any length, piece by piece: what is printed for the character or byte that text begins with, of which *out_bytes
 * bytes are taken. Returns the bytes in out, which has no NUL. */
enum { PLAIN_ONE_BYTES = 16 };
size_t plain_one(char out[PLAIN_ONE_BYTES], const char *text, size_t size_bytes, bool lines, size_t *out_bytes);

/* Whether plain_text() would leave it as it is. */
bool plain_is(const char *text);

#endif
