/* Compares two listings of source files. There may be millions of files, so both are sorted by name and gone through once. Keeps nothing.
 */
#include "coordinator/listing.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/plain.h"

enum {
    NAMES_MAX = 3,       /* of a kind: a person who sees them knows what happened */
    NAME_BYTES_MAX = 160, /* of each: three kinds of three names, and what to do, are less than an error's text */
};

struct line {
    const char *at;
    size_t name_bytes, bytes;
};

struct lines {
    struct line *line;
    size_t count;
};

/* What happened to some of the files. */
struct kind {
    const struct line *first[NAMES_MAX];
    size_t count;
};

static int by_name(const void *a, const void *b) {
    const struct line *x = a, *y = b;
    size_t shorter = x->name_bytes < y->name_bytes ? x->name_bytes : y->name_bytes;
    int order = memcmp(x->at, y->at, shorter);
    return order ? order : (x->name_bytes > y->name_bytes) - (x->name_bytes < y->name_bytes);
}

static struct lines lines_of(const struct buf *listing) {
    const char *text = listing->size ? (const char *)listing->data : "", *end = text + listing->size;
    struct lines lines = {0};
    for (const char *at = text; at < end; at++) lines.count += *at == '\n';
    lines.line = mem_alloc((lines.count + 1) * sizeof *lines.line);
    for (size_t i = 0; i < lines.count; i++) {
        size_t bytes = (size_t)((const char *)memchr(text, '\n', (size_t)(end - text)) - text);
        const char *tab = memchr(text, '\t', bytes);
        lines.line[i] = (struct line){text, tab ? (size_t)(tab - text) : bytes, bytes};
        text += bytes + 1;
    }
    qsort(lines.line, lines.count, sizeof *lines.line, by_name);
    return lines;
}

static void add(struct kind *kind, const struct line *line) {
    if (kind->count < NAMES_MAX) kind->first[kind->count] = line;
    kind->count++;
}

static bool is_same(const struct line *a, const struct line *b) { return a->bytes == b->bytes && memcmp(a->at, b->at, a->bytes) == 0; }

/* ---- in words ---- */

/* Where the text may be cut: not within a character. */
static size_t border(const char *text, size_t at) {
    while (at && ((uint8_t)text[at] & 0xC0) == 0x80) at--;
    return at;
}

static int print_name(struct buf *out, const struct line *line) {
    enum { HALF = NAME_BYTES_MAX / 2 };
    if (line->name_bytes <= NAME_BYTES_MAX) return buf_append(out, line->at, line->name_bytes);
    size_t begin = border(line->at, HALF), end = border(line->at, line->name_bytes - HALF);
    return buf_print(out, "%.*s...%.*s", (int)begin, line->at, (int)(line->name_bytes - end), line->at + end);
}

static int print_kind(struct buf *out, const struct kind *kind, const char *what) {
    size_t names = kind->count <= NAMES_MAX ? kind->count : NAMES_MAX - 1, others = kind->count - names, parts = names + (others > 0);
    int code = kind->count && out->size ? buf_print(out, ", ") : 0;
    for (size_t i = 0; i < parts && code == 0; i++) {
        if (i) code = buf_print(out, i + 1 == parts ? " and " : ", ");
        if (code == 0) code = i < names ? print_name(out, kind->first[i]) : buf_print(out, "%zu other%s", others, plural(others));
    }
    return code == 0 && kind->count ? buf_print(out, " %s", what) : code;
}

char *listing_difference(const struct buf *old, const struct buf *fresh) {
    struct lines before = lines_of(old), now = lines_of(fresh);
    struct kind changed = {0}, came = {0}, went = {0};
    size_t a = 0, b = 0;
    while (a < before.count || b < now.count) {
        int order = a == before.count ? 1 : b == now.count ? -1 : by_name(&before.line[a], &now.line[b]);
        if (order == 0 && !is_same(&before.line[a], &now.line[b])) add(&changed, &now.line[b]);
        if (order < 0) add(&went, &before.line[a]);
        if (order > 0) add(&came, &now.line[b]);
        a += order <= 0, b += order >= 0;
    }
    struct buf out = {0};
    int code = print_kind(&out, &changed, "changed");
    if (code == 0) code = print_kind(&out, &came, "came");
    if (code == 0) code = print_kind(&out, &went, "went");
    bool other_order = !out.size && (old->size != fresh->size || (old->size && memcmp(old->data, fresh->data, old->size) != 0));
    if (code == 0 && other_order) code = buf_print(&out, "the order of the source files changed");
    char *text = code == 0 && out.size ? mem_format("%.*s", (int)out.size, (const char *)out.data) : NULL;
    if (code < 0) text = mem_text("source files changed, came or went"); /* there is no memory for more */
    buf_free(&out);
    free(before.line);
    free(now.line);
    return text;
}
