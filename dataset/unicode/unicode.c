/* Normalization goes through the text in stretches that do not touch each other: from one border, a character that never combines with what
 * is before it, to another. ASCII is such a border and is the same in every form, so most text is only copied. A stretch is decomposed,
 * its marks are put in canonical order, and it is composed again. The order is made here, because utf8proc's own takes time quadratic in
 * the number of marks in a row. */
#include "dataset/unicode/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/unicode/utf8.h"

enum {
    STRETCH_CHARACTERS = 512,  /* decomposed; a stretch ends at the first border after so many */
    DECOMPOSED_MAX = 18,       /* characters that one becomes: U+FDFA */
    INSERTION_MAX = 32,        /* marks in a row that are sorted by insertion */
    HANGUL_T_BASE = 0x11A7,    /* the character before the first final of Hangul: it combines with nothing */
};

struct stretch {
    int32_t *character;
    size_t count, capacity;
    int options;
};

/* May a decomposed character be reordered, or be the second of a composition? Marks may, and the vowels and finals of Hangul; no other. */
static bool may_combine(int32_t c) {
    if (c < 0x300) return false;
    utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME ||
           (c >= 0x1160 && c <= 0x11FF);
}

static int combining_class(int32_t c) { return c < 0x300 ? 0 : utf8proc_get_property(c)->combining_class; }

static int stretch_add(struct stretch *stretch, uint32_t c) {
    if (stretch->capacity - stretch->count < DECOMPOSED_MAX) {
        size_t capacity = 2 * stretch->capacity + 2 * STRETCH_CHARACTERS;
        int32_t *grown = realloc(stretch->character, capacity * sizeof *grown);
        if (!grown) return err_set(ERR_MEMORY, "out of memory: normalizing %zu characters", capacity);
        stretch->character = grown;
        stretch->capacity = capacity;
    }
    int boundary = 0;
    utf8proc_ssize_t added =
        utf8proc_decompose_char((int32_t)c, stretch->character + stretch->count, DECOMPOSED_MAX, stretch->options, &boundary);
    CHECK(added >= 0 && added <= DECOMPOSED_MAX);
    stretch->count += (size_t)added;
    return 0;
}

/* Marks in a row by their class, those of one class as they came (Unicode 15, section 3.11, D109). */
static int sort_marks(int32_t *mark, size_t count) {
    if (count <= INSERTION_MAX) {
        for (size_t i = 1; i < count; i++) {
            int32_t moved = mark[i];
            int class = combining_class(moved);
            size_t j = i;
            for (; j > 0 && combining_class(mark[j - 1]) > class; j--) mark[j] = mark[j - 1];
            mark[j] = moved;
        }
        return 0;
    }
    int32_t *sorted = malloc(count * sizeof *sorted);
    if (!sorted) return err_set(ERR_MEMORY, "out of memory: %zu marks in a row", count);
    size_t next[257] = {0};
    for (size_t i = 0; i < count; i++) next[combining_class(mark[i]) + 1]++;
    for (int class = 0; class < 256; class++) next[class + 1] += next[class];
    for (size_t i = 0; i < count; i++) sorted[next[combining_class(mark[i])]++] = mark[i];
    memcpy(mark, sorted, count * sizeof *sorted);
    free(sorted);
    return 0;
}

static int order_marks(int32_t *character, size_t count) {
    for (size_t i = 0; i < count;) {
        if (combining_class(character[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < count && combining_class(character[end]) != 0) end++;
        if (end - i > 1) TRY(sort_marks(character + i, end - i));
        i = end;
    }
    return 0;
}

/* utf8proc (2.8) takes U+11A7 for a final of Hangul and drops it behind a syllable without one, so it is kept away from what is before it.
 * Returns how many characters are left. */
static size_t compose_all(int32_t *character, size_t count) {
    size_t composed = 0;
    for (size_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && character[end] != HANGUL_T_BASE;) end++;
        utf8proc_ssize_t left =
            utf8proc_normalize_utf32(character + begin, (utf8proc_ssize_t)(end - begin), UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        CHECK(left >= 0);
        memmove(character + composed, character + begin, (size_t)left * sizeof *character);
        composed += (size_t)left;
    }
    return composed;
}

/* Appends the first characters of the stretch and forgets them. */
static int stretch_end(struct stretch *stretch, struct buf *out, size_t characters, bool compose) {
    TRY(order_marks(stretch->character, characters));
    size_t count = compose ? compose_all(stretch->character, characters) : characters;
    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[4];
        utf8proc_ssize_t size = utf8proc_encode_char(stretch->character[i], bytes);
        CHECK(size > 0);
        TRY(buf_append(out, bytes, (size_t)size));
    }
    stretch->count -= characters;
    if (stretch->count) memmove(stretch->character, stretch->character + characters, stretch->count * sizeof *stretch->character);
    return 0;
}

/* Bytes of text that are ASCII. */
static size_t ascii_run(const uint8_t *text, size_t bytes) {
    size_t at = 0;
    for (uint64_t word; at + sizeof word <= bytes; at += sizeof word) {
        memcpy(&word, text + at, sizeof word);
        if (word & 0x8080808080808080u) break;
    }
    while (at < bytes && text[at] < 0x80) at++;
    return at;
}

static int normalize(struct stretch *stretch, struct buf *out, bool compose, const uint8_t *text, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        size_t plain = ascii_run(text + at, bytes - at);
        if (plain > 0 && at + plain < bytes) plain--; /* its last character may combine with what follows */
        TRY(buf_append(out, text + at, plain));
        at += plain;
        while (at < bytes && (stretch->count == 0 || text[at] >= 0x80)) {
            size_t before = stretch->count;
            TRY(stretch_add(stretch, utf8_character(text + at)));
            at += utf8_length(text[at]);
            if (before >= STRETCH_CHARACTERS && !may_combine(stretch->character[before])) TRY(stretch_end(stretch, out, before, compose));
        }
        TRY(stretch_end(stretch, out, stretch->count, compose));
    }
    return 0;
}

int unicode_normalize(struct buf *out, enum normalization form, const uint8_t *text, size_t bytes) {
    if (form == NORMALIZE_NONE || bytes == 0) return buf_append(out, text, bytes);
    bool compatible = form == NORMALIZE_NFKC || form == NORMALIZE_NFKD;
    struct stretch stretch = {.options = UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0)};
    int code = normalize(&stretch, out, form == NORMALIZE_NFC || form == NORMALIZE_NFKC, text, bytes);
    free(stretch.character);
    return code;
}

size_t unicode_fold(uint8_t out[4], uint32_t character) {
    const utf8proc_property_t *property = utf8proc_get_property((int32_t)character);
    switch (property->category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return (size_t)utf8proc_encode_char(utf8proc_tolower((int32_t)character), out);
    default: return 0;
    }
}

bool unicode_is_word(uint32_t c) {
    return c >= 0xE00 && ((c <= 0xEFF) || (c >= 0x1000 && c <= 0x109F) || (c >= 0x1780 && c <= 0x17FF) || (c >= 0x3040 && c <= 0x30FF) ||
                          (c >= 0x3400 && c <= 0x9FFF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x3FFFF));
}
