/* GPT-2's pattern, by tables of character classes: one for bytes, one for characters (dataset/unicode/unicode_table.h). Allocates
 * nothing. */
#include "dataset/tokenizer/pretokenize.h"

#include "base/err.h"
#include "dataset/unicode/unicode_table.h"
#include "dataset/unicode/utf8.h"

enum { BYTE_MULTI = 4, BYTE_END = 5 }; /* beyond enum char_class: a byte of a longer character; the sentinel */

#define O CHAR_OTHER
#define L CHAR_LETTER
#define N CHAR_NUMBER
#define S CHAR_SPACE
#define M BYTE_MULTI
#define M16 M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M
static const uint8_t byte_class[256] = {
    O, O, O, O, O, O, O, O, O, S, S, S, S, S, O, O, /* tab, line feed, vertical tab, form feed, carriage return */
    O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, /* the separators 1C to 1F are no White_Space */
    S, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, /**/
    N, N, N, N, N, N, N, N, N, N, O, O, O, O, O, O, /**/
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, /**/
    L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O, /**/
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, /**/
    L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O, /**/
    M16, M16, M16, M16, M16, M16, M16,              /**/
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, BYTE_END,
};
#undef O
#undef L
#undef N
#undef S
#undef M
#undef M16

enum char_class char_class(uint32_t character) {
    CHECK(character < 0x110000);
    return unicode_block[unicode_index[character >> 8]][character >> 2 & 63] >> 2 * (character & 3) & 3;
}

/* The class of the character at p, or BYTE_END. */
static inline unsigned class_at(const uint8_t *p) {
    unsigned class = byte_class[*p];
    return class == BYTE_MULTI ? char_class(utf8_character(p)) : class;
}

/* Where the run of characters of that class that begins at p ends. */
static inline const uint8_t *run_end(const uint8_t *p, unsigned class) {
    for (;;) {
        while (byte_class[*p] == class) p++;
        if (byte_class[*p] != BYTE_MULTI || char_class(utf8_character(p)) != class) return p;
        p += utf8_length(*p);
    }
}

/* Bytes of the contraction at p[0] == '\'': 's 't 'm 'd 're 've 'll, else 0. -1: only what follows the end of the text decides. */
static int contraction(const uint8_t *p) {
    switch (p[1]) {
    case 's':
    case 't':
    case 'm':
    case 'd': return 2;
    case 'r':
    case 'v': return p[2] == 'e' ? 3 : p[2] == PRETOKEN_SENTINEL ? -1 : 0;
    case 'l': return p[2] == 'l' ? 3 : p[2] == PRETOKEN_SENTINEL ? -1 : 0;
    case PRETOKEN_SENTINEL: return -1;
    default: return 0;
    }
}

/* A pre-token whose text goes on beyond the limit. */
static size_t cut_long(const uint8_t *text) {
    size_t length = PRETOKEN_BYTES_MAX;
    while ((text[length] & 0xC0) == 0x80) length--;
    return length;
}

/* \s+(?!\S)|\s+ : all of the run at the end of the text, else all but the last character, which is left for the next pre-token. */
static size_t measure_space(const uint8_t *text, size_t size, bool final) {
    const uint8_t *end = run_end(text, CHAR_SPACE);
    size_t length = (size_t)(end - text);
    if (length > PRETOKEN_BYTES_MAX) return cut_long(text);
    if (length == size) return final ? length : 0;
    const uint8_t *last = end - 1;
    while ((*last & 0xC0) == 0x80) last--;
    return last == text ? length : (size_t)(last - text);
}

size_t pretoken_measure(const uint8_t *text, size_t size, bool final) {
    const uint8_t *p = text;
    unsigned class = class_at(p);
    if (class == CHAR_SPACE) {
        if (*p != ' ') return measure_space(text, size, final);
        class = class_at(++p);
        if (class == CHAR_SPACE || class == BYTE_END) return measure_space(text, size, final);
    } else if (*p == '\'') {
        int length = contraction(p);
        if (length > 0) return (size_t)length;
        if (length < 0 && !final) return 0;
    }
    size_t length = (size_t)(run_end(p, class) - text);
    if (length > PRETOKEN_BYTES_MAX) return cut_long(text);
    return length == size && !final ? 0 : length;
}
