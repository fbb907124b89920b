/* One scanner for words and lines: a table of classes for ASCII, dataset/tokenizer/pretokenize.h for the rest. Allocates nothing. */
#include "dataset/filter/words.h"

#include "dataset/tokenizer/pretokenize.h"
#include "dataset/unicode/utf8.h"

/* The class of the character at p, and its bytes. */
static inline enum char_class class_at(const uint8_t *p, size_t *out_bytes) {
    *out_bytes = utf8_length(*p);
    return char_class(utf8_character(p));
}

/* ASCII without a call. BREAK: white space, or a byte of a longer character. */
enum { PLAIN, LETTER, BREAK };
#define P PLAIN
#define L LETTER
#define B BREAK
#define B16 B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B
static const uint8_t byte_class[256] = {
    P, P, P, P, P, P, P, P, P, B, B, B, B, B, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, /* tab to carriage return */
    B, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, /* space */
    P, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, P, P, P, P, P, /**/
    P, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, P, P, P, P, P, /**/
    B16, B16, B16, B16, B16, B16, B16, B16,
};
#undef P
#undef L
#undef B
#undef B16

bool word_next(struct word *out, const uint8_t **at, const uint8_t *end) {
    const uint8_t *p = *at;
    size_t bytes;
    while (p < end && byte_class[*p] == BREAK && class_at(p, &bytes) == CHAR_SPACE) p += bytes;
    const uint8_t *begin = p;
    size_t longer = 0; /* bytes of characters beyond their first */
    unsigned letters = 0;
    for (;;) {
        for (; p < end && byte_class[*p] != BREAK; p++) letters |= byte_class[*p];
        if (p == end || *p < 0x80) break;
        enum char_class class = class_at(p, &bytes);
        if (class == CHAR_SPACE) break;
        letters |= class == CHAR_LETTER;
        longer += bytes - 1;
        p += bytes;
    }
    *at = p;
    if (p == begin) return false;
    *out = (struct word){{begin, (size_t)(p - begin)}, (uint32_t)((size_t)(p - begin) - longer), letters != 0};
    return true;
}

/* Where the character before p begins. */
static const uint8_t *before(const uint8_t *p) {
    do p--;
    while ((*p & 0xC0) == 0x80);
    return p;
}

bool line_next(struct span *out, const uint8_t **at, const uint8_t *end) {
    if (*at == end) return false;
    const uint8_t *begin = *at, *feed = memchr(begin, '\n', (size_t)(end - begin)), *stop = feed ? feed : end;
    *at = feed ? feed + 1 : end;
    size_t bytes;
    while (begin < stop && class_at(begin, &bytes) == CHAR_SPACE) begin += bytes;
    while (begin < stop && class_at(before(stop), &bytes) == CHAR_SPACE) stop -= bytes;
    *out = (struct span){begin, (size_t)(stop - begin)};
    return true;
}

size_t characters_in(const uint8_t *text, size_t bytes) {
    size_t i = 0, longer = 0;
    for (uint64_t word; i + sizeof word <= bytes; i += sizeof word) {
        memcpy(&word, text + i, sizeof word);
        longer += ((word >> 7 & ~word >> 6) & 0x0101010101010101u) * 0x0101010101010101u >> 56; /* bytes 10xxxxxx */
    }
    for (; i < bytes; i++) longer += (text[i] & 0xC0) == 0x80;
    return bytes - longer;
}
