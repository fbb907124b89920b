/* One pass over one JSON value, which checks its grammar and remembers where the wanted string is. A struct scan is the position; strings
 * and objects found are spans of the record. Nothing is allocated but for a string with escapes. */
#include "dataset/ingest/json_text.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/plain.h"

enum { LONE = 0x110000 /* a surrogate without its other half, among characters */ };

struct scan {
    const uint8_t *at, *end;
    bool too_deep;
};
struct string {
    const uint8_t *text; /* behind the quote */
    size_t bytes;
    bool escapes;
};
struct found {
    enum { FOUND_NOTHING, FOUND_OTHER, FOUND_STRING } kind;
    struct string string;
};

static void skip_space(struct scan *scan) {
    while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t')) scan->at++;
}

static bool take(struct scan *scan, uint8_t c) {
    bool there = scan->at < scan->end && *scan->at == c;
    scan->at += there;
    return there;
}

/* ---- strings ------------------------------------------------------------------------------------------------------------------------- */

/* Goes to the next quote or backslash. Eight bytes at a time; the lowest flagged byte is the right one, as borrows only go up. */
static void skip_plain(struct scan *scan) {
    const uint64_t ones = 0x0101010101010101u, high = 0x80 * ones;
    for (uint64_t word; scan->end - scan->at >= 8; scan->at += 8) {
        memcpy(&word, scan->at, sizeof word);
        uint64_t quote = word ^ '"' * ones, slash = word ^ '\\' * ones;
        uint64_t found = (((quote - ones) & ~quote) | ((slash - ones) & ~slash)) & high;
        if (found == 0) continue;
        scan->at += __builtin_ctzll(found) / 8;
        return;
    }
    while (scan->at < scan->end && *scan->at != '"' && *scan->at != '\\') scan->at++;
}

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Four hexadecimal digits, or -1. */
static int32_t take_unit(struct scan *scan) {
    int32_t unit = 0;
    if (scan->end - scan->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*scan->at++);
        if (digit < 0) return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* Behind "\u": a character, from two units if need be, LONE, or -1. */
static int32_t take_character(struct scan *scan) {
    int32_t first = take_unit(scan);
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first > 0xDBFF) return LONE;
    struct scan ahead = *scan;
    int32_t second = take(&ahead, '\\') && take(&ahead, 'u') ? take_unit(&ahead) : -1;
    if (second < 0xDC00 || second > 0xDFFF) return LONE;
    *scan = ahead;
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
}

/* Behind a backslash: the character, LONE, or -1. */
static int32_t take_escape(struct scan *scan) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (scan->at == scan->end) return -1;
    uint8_t c = *scan->at;
    const char *known = c ? strchr(names, c) : NULL;
    scan->at += known || c == 'u';
    if (c == 'u') return take_character(scan);
    return known ? values[known - names] : -1;
}

/* A string whose quote was taken. */
static bool take_string(struct scan *scan, struct string *out) {
    *out = (struct string){.text = scan->at};
    for (;;) {
        skip_plain(scan);
        if (scan->at == scan->end) return false;
        if (*scan->at == '"') break;
        scan->at++;
        out->escapes = true;
        if (take_escape(scan) < 0) return false;
    }
    out->bytes = (size_t)(scan->at++ - out->text);
    return true;
}

static size_t put_character(uint8_t bytes[4], uint32_t c) {
    size_t n = c < 0x80 || c == LONE ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    bytes[0] = c == LONE ? JSON_LONE_SURROGATE : (uint8_t)c;
    for (size_t i = n; n > 1 && i-- > 0; c >>= 6) bytes[i] = (uint8_t)(0x80 | (c & 0x3F));
    if (n > 1) bytes[0] = (uint8_t)(0xF0u << (4 - n) | (bytes[0] & (0x7F >> n)));
    return n;
}

/* The next bytes of a string that was taken, without its escapes: as they lie there, or a character in room. 0: it is at its end. */
static size_t next_bytes(struct scan *scan, const uint8_t **out, uint8_t room[4]) {
    const uint8_t *from = scan->at;
    if (from == scan->end) return 0;
    if (*from == '\\') {
        scan->at++;
        int32_t c = take_escape(scan);
        CHECK(c >= 0);
        *out = room;
        return put_character(room, (uint32_t)c);
    }
    const uint8_t *slash = memchr(from, '\\', (size_t)(scan->end - from));
    *out = from, scan->at = slash ? slash : scan->end;
    return (size_t)(scan->at - from);
}

static int unescape(struct buf *out, const struct string *string) {
    struct scan scan = {.at = string->text, .end = string->text + string->bytes};
    const uint8_t *bytes;
    uint8_t room[4];
    buf_clear(out);
    TRY(buf_reserve(out, string->bytes));
    for (size_t n; (n = next_bytes(&scan, &bytes, room)) > 0;) TRY(buf_append(out, bytes, n));
    return 0;
}

static bool string_is(const struct string *string, const char *text, size_t size) {
    if (!string->escapes) return string->bytes == size && memcmp(string->text, text, size) == 0;
    struct scan scan = {.at = string->text, .end = string->text + string->bytes};
    const uint8_t *bytes;
    uint8_t room[4];
    for (size_t n; (n = next_bytes(&scan, &bytes, room)) > 0; text += n, size -= n)
        if (n > size || memcmp(bytes, text, n) != 0) return false;
    return size == 0;
}

/* ---- values -------------------------------------------------------------------------------------------------------------------------- */

static bool take_word(struct scan *scan, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(scan->end - scan->at) < n || memcmp(scan->at, word, n) != 0) return false;
    scan->at += n;
    return true;
}

static bool take_digits(struct scan *scan) {
    const uint8_t *from = scan->at;
    while (scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9') scan->at++;
    return scan->at > from;
}

static bool take_number(struct scan *scan) {
    if (take(scan, '-') && take_word(scan, "Infinity")) return true;
    if (!take(scan, '0') && !take_digits(scan)) return false;
    if (take(scan, '.') && !take_digits(scan)) return false;
    if (!take(scan, 'e') && !take(scan, 'E')) return true;
    if (!take(scan, '+')) take(scan, '-');
    return take_digits(scan);
}

static bool take_value(struct scan *scan, int depth);

/* A value that the wanted string would be. */
static bool take_wanted(struct scan *scan, int depth, struct found *found) {
    bool string = take(scan, '"');
    found->kind = string ? FOUND_STRING : FOUND_OTHER;
    return string ? take_string(scan, &found->string) : take_value(scan, depth);
}

/* What is looked for: whole, a field of the record of that very name, which goes before nested: what its dots lead to. */
struct search {
    const char *field;
    struct found whole, nested;
};

static bool take_members(struct scan *scan, int depth, struct search *search, const char *path);

/* The value of one of an object's fields; path: what of search->field leads on from this object, NULL: nothing does. */
static bool take_field(struct scan *scan, int depth, struct search *search, const char *path, const struct string *name) {
    if (!path) return take_value(scan, depth);
    if (depth == 1 && string_is(name, path, strlen(path))) return take_wanted(scan, depth, &search->whole);
    size_t step = strcspn(path, ".");
    bool last = path[step] == 0;
    if ((depth == 1 && last) || !string_is(name, path, step)) return take_value(scan, depth);
    search->nested.kind = FOUND_NOTHING;
    if (last) return take_wanted(scan, depth, &search->nested);
    return take(scan, '{') ? take_members(scan, depth + 1, search, path + step + 1) : take_value(scan, depth);
}

/* An object whose bracket was taken, `depth` of them around what is in it. */
static bool take_members(struct scan *scan, int depth, struct search *search, const char *path) {
    struct string name;
    scan->too_deep = depth > JSON_DEPTH_MAX;
    if (scan->too_deep) return false;
    skip_space(scan);
    if (take(scan, '}')) return true;
    do {
        skip_space(scan);
        if (!take(scan, '"') || !take_string(scan, &name)) return false;
        skip_space(scan);
        if (!take(scan, ':')) return false;
        skip_space(scan);
        if (!take_field(scan, depth, search, path, &name)) return false;
        skip_space(scan);
    } while (take(scan, ','));
    return take(scan, '}');
}

static bool take_elements(struct scan *scan, int depth) {
    scan->too_deep = depth > JSON_DEPTH_MAX;
    if (scan->too_deep) return false;
    skip_space(scan);
    if (take(scan, ']')) return true;
    do {
        skip_space(scan);
        if (!take_value(scan, depth)) return false;
        skip_space(scan);
    } while (take(scan, ','));
    return take(scan, ']');
}

static bool take_value(struct scan *scan, int depth) {
    struct string string;
    if (scan->at == scan->end) return false;
    switch (*scan->at) {
    case '"': scan->at++; return take_string(scan, &string);
    case '{': scan->at++; return take_members(scan, depth + 1, NULL, NULL);
    case '[': scan->at++; return take_elements(scan, depth + 1);
    case 't': return take_word(scan, "true");
    case 'f': return take_word(scan, "false");
    case 'n': return take_word(scan, "null");
    case 'N': return take_word(scan, "NaN");
    case 'I': return take_word(scan, "Infinity");
    default: return take_number(scan);
    }
}

/* ---- the record ---------------------------------------------------------------------------------------------------------------------- */

static int not_json(char *why, const struct scan *scan, const uint8_t *record) {
    unsigned long long at = (unsigned long long)(scan->at - record);
    if (scan->too_deep) snprintf(why, JSON_WHY_BYTES, "not JSON that can be read: nested deeper than %d", JSON_DEPTH_MAX);
    else if (scan->at == scan->end) snprintf(why, JSON_WHY_BYTES, "not JSON: ends too early");
    else if (*scan->at > ' ' && *scan->at < 0x7F) snprintf(why, JSON_WHY_BYTES, "not JSON: %c at its byte %llu", *scan->at, at);
    else snprintf(why, JSON_WHY_BYTES, "not JSON: 0x%02X at its byte %llu", *scan->at, at);
    return 0;
}

/* A field's name as it is written, escapes and all. 0: there is no room for more. */
static size_t add_name(char *why, size_t used, const struct string *name, bool first) {
    enum { NAME_SHOWN_BYTES = 32, QUOTES_BYTES = 12 };
    char written[NAME_SHOWN_BYTES + 1], plain[NAME_SHOWN_BYTES + 1];
    if (name->bytes > NAME_SHOWN_BYTES) return 0;
    memcpy(written, name->text, name->bytes);
    written[name->bytes] = 0;
    plain_text(plain, sizeof plain, written, false);
    if (used + strlen(plain) + QUOTES_BYTES > JSON_WHY_BYTES) return 0;
    return (size_t)snprintf(why + used, JSON_WHY_BYTES - used, "%s\"%s\"", first ? "; it has " : ", ", plain);
}

/* The record is an object, all of whose grammar is good. */
static int no_field(char *why, const uint8_t *record, size_t size, const char *field) {
    struct scan scan = {.at = record, .end = record + size};
    size_t used = (size_t)snprintf(why, JSON_WHY_BYTES, "no field \"%.100s\"", field), more = 1;
    skip_space(&scan);
    take(&scan, '{');
    for (bool first = true; more > 0; first = false) {
        struct string name;
        skip_space(&scan);
        if (!take(&scan, '"') || !take_string(&scan, &name)) break;
        used += more = add_name(why, used, &name, first);
        skip_space(&scan);
        take(&scan, ':');
        skip_space(&scan);
        if (!take_value(&scan, 1)) break;
        skip_space(&scan);
        if (!take(&scan, ',')) break;
    }
    return 0;
}

int json_text(const uint8_t **out_text, size_t *out_bytes, struct buf *room, char *why, const uint8_t *record, size_t size,
              const char *field) {
    struct scan scan = {.at = record, .end = record + size};
    struct search search = {.field = field};
    bool good;
    skip_space(&scan);
    bool object = take(&scan, '{');
    good = object ? take_members(&scan, 1, &search, field) : take_wanted(&scan, 0, &search.whole);
    if (good) skip_space(&scan);
    if (!good || scan.at < scan.end) return not_json(why, &scan, record);
    const struct found *found = search.whole.kind != FOUND_NOTHING ? &search.whole : &search.nested;
    if (found->kind != FOUND_STRING) {
        if (!object) snprintf(why, JSON_WHY_BYTES, "neither an object nor a string");
        else if (found->kind != FOUND_OTHER) no_field(why, record, size, field);
        else snprintf(why, JSON_WHY_BYTES, "field \"%.100s\" is not a string", field);
        return 0;
    }
    *out_text = found->string.text, *out_bytes = found->string.bytes;
    if (!found->string.escapes) return 1;
    TRY(unescape(room, &found->string));
    *out_text = room->data, *out_bytes = room->size;
    return 1;
}
