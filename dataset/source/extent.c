/* Goes from record to record through a window of the file. Nothing that a record says is believed beyond the file's end. */
#include "dataset/source/extent.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

enum {
    WINDOW_BYTES = READER_BYTES_MAX < 256 << 10 ? READER_BYTES_MAX : 256 << 10, /* the longest entry of a zip has 192 KiB */
    LOCAL_BYTES = 4, ENTRY_BYTES = 46, END_BYTES = 22, END64_BYTES = 56, LOCATOR_BYTES = 20, SEVEN_BYTES = 32,
};
#define NOT_HERE UINT32_MAX /* a field of zip that has its value elsewhere, in 64 bits */

struct window {
    const struct byte_reader *reader;
    uint8_t *bytes;
    uint64_t at;
    size_t held;
    int code; /* of the read that failed */
};

static struct window window_open(const struct byte_reader *reader) {
    return (struct window){.reader = reader, .bytes = mem_alloc(WINDOW_BYTES)};
}

static int window_close(struct window *window) {
    free(window->bytes);
    return window->code;
}

/* The file's bytes from `at` on, `size` or more; NULL: there are not so many, or they cannot be read. */
static const uint8_t *window_get(struct window *window, uint64_t at, size_t size) {
    uint64_t end = window->reader->size;
    if (window->code < 0 || size > WINDOW_BYTES || at > end || end - at < size) return NULL;
    if (at < window->at || at + size > window->at + window->held) {
        size_t want = end - at < WINDOW_BYTES ? (size_t)(end - at) : WINDOW_BYTES, got = 0;
        window->code = window->reader->read(window->reader->arg, window->bytes, &got, want, at);
        if (window->code == 0 && got < want)
            window->code = err_set(ERR_CORRUPT, "%s: is shorter than before; it changed", window->reader->name);
        window->at = at, window->held = window->code < 0 ? 0 : got;
    }
    return window->code < 0 ? NULL : window->bytes + (at - window->at);
}

static uint64_t number(const uint8_t *bytes, size_t size) {
    uint64_t value = 0;
    for (size_t i = size; i-- > 0;) value = value << 8 | bytes[i];
    return value;
}

static bool is(const uint8_t *bytes, const char *signature) { return memcmp(bytes, signature, 4) == 0; }

/* The first place from `at` on where one of the signatures stands; the file's end: nowhere. */
static uint64_t seek_any(struct window *window, uint64_t at, uint64_t last, const char *const *signatures) {
    for (const uint8_t *here; at <= last && (here = window_get(window, at, 4)); at++)
        for (size_t i = 0; signatures[i]; i++)
            if (is(here, signatures[i])) return at;
    return window->reader->size;
}

/* Where the member of a directory's entry begins, by what the entry says. The field for large ones has in turn what has no room before. */
static uint64_t entry_offset(const uint8_t *entry, size_t size) {
    uint64_t offset = number(entry + 42, 4);
    size_t before = 8 * ((number(entry + 24, 4) == NOT_HERE) + (number(entry + 20, 4) == NOT_HERE));
    size_t at = ENTRY_BYTES + (size_t)number(entry + 28, 2), end = at + (size_t)number(entry + 30, 2);
    while (offset == NOT_HERE && at + 4 <= end && end <= size) {
        size_t field = (size_t)number(entry + at + 2, 2);
        if (number(entry + at, 2) == 1 && before + 8 <= field && at + 4 + field <= end) return number(entry + at + 4 + before, 8);
        at += 4 + field;
    }
    return offset;
}

/* Where the first member begins: `directory` is where the directory lies, `told` where its end record has it. Before a zip that other
 * bytes were put in front of, both are as many bytes apart. */
static uint64_t zip_begin(struct window *window, uint64_t directory, uint64_t told, uint64_t first) {
    if (told > directory || first > told) return 0;
    uint64_t begin = directory - told + first;
    const uint8_t *member = window_get(window, begin, LOCAL_BYTES);
    if (first < told && !(member && is(member, "PK\3\4"))) return 0;
    const uint8_t *mark = begin == 4 ? window_get(window, 0, 4) : NULL; /* of one that was to be divided */
    return mark && (is(mark, "PK00") || is(mark, "PK\7\10")) ? 0 : begin;
}

/* Where the directory is that libarchive goes by: that of the last end record in the last 16 KiB. The file's end: there is none, and
 * libarchive has gone from member to member. */
static uint64_t find_directory(struct window *window) {
    enum { TAIL_BYTES = 16 << 10 };
    static const char *const ends[] = {"PK\5\6", NULL};
    const uint64_t none = window->reader->size;
    uint64_t at = none > TAIL_BYTES ? none - TAIL_BYTES : 0, end = none;
    for (at++; (at = seek_any(window, at, UINT64_MAX, ends)) < none && none - at >= END_BYTES; at++) end = at;
    const uint8_t *here = end > LOCATOR_BYTES ? window_get(window, end - LOCATOR_BYTES, LOCATOR_BYTES) : NULL;
    if (here && is(here, "PK\6\7")) {
        here = window_get(window, number(here + 8, 8), END64_BYTES);
        if (here && is(here, "PK\6\6")) return number(here + 48, 8);
    }
    if (!(here = window_get(window, end, END_BYTES))) return none;
    uint64_t size = number(here + 12, 4);
    bool one = number(here + 4, 4) == 0 && number(here + 8, 2) == number(here + 10, 2); /* and not of several files */
    return one && number(here + 16, 4) + size <= end ? end - size : none;
}

int extent_of_zip(struct extent *out, const struct byte_reader *reader, uint64_t behind) {
    static const char *const records[] = {"PK\1\2", "PK\6\6", "PK\5\6", NULL};
    struct window window = window_open(reader);
    uint64_t directory = find_directory(&window), first = UINT64_MAX, told64 = 0;
    if (directory >= reader->size) directory = seek_any(&window, behind, UINT64_MAX, records);
    const uint8_t *here;
    uint64_t at = directory;
    *out = (struct extent){0, directory == reader->size ? behind : directory};
    while ((here = window_get(&window, at, ENTRY_BYTES)) && is(here, "PK\1\2")) {
        size_t size = ENTRY_BYTES + (size_t)(number(here + 28, 2) + number(here + 30, 2) + number(here + 32, 2));
        if (!(here = window_get(&window, at, size))) break;
        uint64_t offset = entry_offset(here, size);
        if (offset < first) first = offset;
        out->end = at += size;
    }
    if ((here = window_get(&window, at, END64_BYTES)) && is(here, "PK\6\6")) {
        uint64_t size = number(here + 4, 8);
        told64 = number(here + 48, 8);
        if (size <= reader->size - at - 12) out->end = at += 12 + size;
    }
    if ((here = window_get(&window, at, LOCATOR_BYTES)) && is(here, "PK\6\7")) out->end = at += LOCATOR_BYTES;
    if ((here = window_get(&window, at, END_BYTES)) && is(here, "PK\5\6")) {
        uint64_t comment = number(here + 20, 2), told = number(here + 16, 4), left = reader->size - at - END_BYTES;
        out->end = at + END_BYTES + (comment < left ? comment : left);
        if (told == NOT_HERE) told = told64;
        out->begin = zip_begin(&window, directory, told, first < told ? first : told);
    }
    return window_close(&window);
}

int extent_of_7z(struct extent *out, const struct byte_reader *reader) {
    static const char *const signatures[] = {"7z\xBC\xAF", NULL};
    enum { STUB_BYTES_MAX = 1 << 20 }; /* libarchive looks no further */
    struct window window = window_open(reader);
    *out = (struct extent){0, reader->size};
    for (uint64_t at = 0; (at = seek_any(&window, at, STUB_BYTES_MAX, signatures)) < reader->size; at++) {
        const uint8_t *here = window_get(&window, at, SEVEN_BYTES);
        if (!here || memcmp(here + 4, "\x27\x1C\0", 3) != 0) continue;
        uint64_t left = reader->size - at - SEVEN_BYTES, offset = number(here + 12, 8), size = number(here + 20, 8);
        if (offset > left || size > left - offset) continue;
        *out = (struct extent){at, at + SEVEN_BYTES + offset + size};
        break;
    }
    return window_close(&window);
}

int extent_of_filled(struct extent *out, const struct byte_reader *reader, uint64_t behind) {
    struct window window = window_open(reader);
    const uint8_t *here;
    uint64_t at = behind;
    while ((here = window_get(&window, at, 1)) && *here == 0) at++;
    *out = (struct extent){0, at < reader->size ? behind : reader->size};
    return window_close(&window);
}
