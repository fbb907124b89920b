/* Words and lines of well-formed UTF-8, as the quality filters count them. White space is Unicode's White_Space. */
#ifndef MILLRACE_DATASET_WORDS_H
#define MILLRACE_DATASET_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span {
    const uint8_t *begin;
    size_t bytes;
};
struct word {
    struct span span;
    uint32_t characters;
    bool has_letter;   /* general category L* */
};

/* The next word of [*at, end). False: there is none. */
bool word_next(struct word *out, const uint8_t **at, const uint8_t *end);

/* The next line of [*at, end), without its line feed, without the white space around it; nothing behind a last line feed is no line. */
bool line_next(struct span *out, const uint8_t **at, const uint8_t *end);

size_t characters_in(const uint8_t *text, size_t bytes);

/* Inline: what is asked for is nearly always a literal. */
static inline bool span_begins(struct span span, const char *beginning) {
    size_t bytes = strlen(beginning);
    return span.bytes >= bytes && memcmp(span.begin, beginning, bytes) == 0;
}
static inline bool span_ends(struct span span, const char *ending) {
    size_t bytes = strlen(ending);
    return span.bytes >= bytes && memcmp(span.begin + span.bytes - bytes, ending, bytes) == 0;
}

#endif
