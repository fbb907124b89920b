/* Tables of suffixes, and one pass over a name's characters. */
#include "dataset/source/packed_name.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "dataset/source/http.h"
#include "dataset/source/unpack.h"
#include "dataset/unicode/utf8.h"

static const char *const compressed[] = {".gz", ".bz2", ".xz", ".zst", ".lz4", ".lzma", ".lz", ".z"};
static const char *const archived[] = {".tar", ".zip", ".7z", ".deb", ".rpm", ".cpio", ".ar",
                                       ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".tlz", ".taz"};

/* The longest of the suffixes that the first size bytes of the name end in; 0: none. */
static size_t suffix_bytes(const char *name, size_t size, const char *const *suffixes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(suffixes[i]);
        if (size > n && strncasecmp(name + size - n, suffixes[i], n) == 0) return n;
    }
    return 0;
}

size_t packed_name_bytes(const char *name) { return http_is_url(name) ? strcspn(name, "?#") : strlen(name); }

bool unpack_needed(const char *name) {
    size_t size = packed_name_bytes(name);
    return suffix_bytes(name, size, compressed, sizeof compressed / sizeof *compressed) ||
           suffix_bytes(name, size, archived, sizeof archived / sizeof *archived);
}

size_t unpack_stem(const char *name) {
    size_t size = packed_name_bytes(name), n;
    while ((n = suffix_bytes(name, size, compressed, sizeof compressed / sizeof *compressed))) size -= n;
    return size;
}

bool packed_name_wraps_directory(const char *name, size_t size) {
    static const char *const suffixes[] = {".7z", ".zip"};
    size_t whole = size, n;
    while ((n = suffix_bytes(name, size, compressed, sizeof compressed / sizeof *compressed))) size -= n;
    return size < whole && suffix_bytes(name, size, suffixes, sizeof suffixes / sizeof *suffixes);
}

size_t packed_name_put(char *name, size_t at, const char *text) {
    const uint8_t *from = (const uint8_t *)text;
    for (size_t left = strlen(text); left > 0;) {
        int n = utf8_measure(from, left);
        size_t taken = n == 0 ? left : (size_t)abs(n);
        uint32_t character = n > 0 ? utf8_character(from) : 0xFFFD;
        bool control = character < 0x20 || (character >= 0x7F && character < 0xA0);
        const char *bytes = n > 0 && !control ? (const char *)from : "\xEF\xBF\xBD";
        size_t size = n > 0 && !control ? taken : 3;
        if (at + size > UNPACK_NAME_BYTES) break;
        memcpy(name + at, bytes, size);
        at += size, from += taken, left -= taken;
    }
    name[at] = 0;
    return at;
}
