/* What a file is, by its first bytes: text, text in another encoding that is known, something packed, or none of these, with its name and
 * what to do. Pure: no file is opened, and the same bytes give the same answer for every worker and every part of a file.
 *
 * The rule, over the first CONTENT_HEAD_BYTES of a file or member, or all of a shorter one:
 *   1. A byte order mark says UTF-8 or UTF-16.
 *   2. Magic numbers name what is packed, and what is no text. One that consists of letters alone counts only with more of the format
 *      behind it (its version, a length, zeros), or where the head has bytes that text does not: so no text is refused for how it begins.
 *      The one exception is "%PDF-1.4" and its like. A cpio is one by all of its first header, and so is an .lzma.
 *   3. Else it is text, unless more than CONTENT_CONTROL_PERCENT of the head are control characters (NUL too; not tab, line and page ends,
 *      backspace and the escape of terminals), or more than CONTENT_ILL_FORMED_PERCENT are bytes of ill-formed UTF-8. A head of fewer than
 *      CONTENT_JUDGED_BYTES is not judged.
 * So NUL bytes in a text stay, and Latin-1 with an accent in every sixth letter is text whose bytes `invalid_utf8` decides about. */
#ifndef MILLRACE_DATASET_CONTENT_H
#define MILLRACE_DATASET_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CONTENT_HEAD_BYTES = 8 << 10,
    CONTENT_JUDGED_BYTES = 32,
    CONTENT_CONTROL_PERCENT = 10,    /* file names that end in NUL have 2 to 10 */
    CONTENT_ILL_FORMED_PERCENT = 20, /* random bytes have 45, Latin-1 and -2 up to 15, Cyrillic and Greek in 8 bits 80 */
};

enum content_kind {
    CONTENT_TEXT,
    CONTENT_UTF8_MARK,  /* text behind 3 bytes */
    CONTENT_UTF16_LE,   /* behind a mark of 2 */
    CONTENT_UTF16_BE,
    CONTENT_PACKED,     /* compressed, or an archive, that dataset/source/unpack.h opens */
    CONTENT_OTHER,
};
enum { UTF8_MARK_BYTES = 3 };

struct content {
    enum content_kind kind;
    const char *name;   /* "Apache Parquet", of CONTENT_PACKED and CONTENT_OTHER */
    const char *advice; /* what to do with it, of CONTENT_OTHER */
    size_t magic_bytes; /* of the magic number by which it was recognized; 0: there is none */
};
struct content content_of(const uint8_t *head, size_t size_bytes);
/* Do they begin a cpio? Its magic numbers alone begin texts as well. */
bool content_is_cpio(const uint8_t *head, size_t size_bytes);

/* Must such a file be read from its beginning, through dataset/source/unpack.h, whatever its name? text: it is one text, not of records. */
static inline bool content_is_stream(enum content_kind kind, bool text) {
    return kind == CONTENT_PACKED || kind == CONTENT_UTF16_LE || kind == CONTENT_UTF16_BE || (kind == CONTENT_UTF8_MARK && text);
}

/* ERR_CONFIG, when it is CONTENT_OTHER: "FILE is Apache Parquet, which is no text; ...". */
/* Do its first lines look like JSON lines: an object each? Of a line that is longer than `head` the beginning counts. For a warning alone:
 * text is what it is taken for. */
bool content_is_json_lines(const uint8_t *head, size_t size_bytes);

int content_refuse(const struct content *content, const char *file);

#endif
