/* The rules of well-formed UTF-8 as a decoder of one character, and a replacer that keeps the beginning of a character from one call to the
 * next. Allocates nothing. */
#include "dataset/unicode/utf8.h"

#include <string.h>

static const uint8_t REPLACEMENT[3] = {0xEF, 0xBF, 0xBD};

int utf8_measure(const uint8_t *bytes, size_t size) {
    uint8_t first = bytes[0], low = 0x80, high = 0xBF; /* bounds of the second byte; the others have 80..BF */
    if (first < 0x80) return 1;
    if (first < 0xC2 || first > 0xF4) return -1;
    int length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (first == 0xE0) low = 0xA0;  /* shorter forms */
    if (first == 0xED) high = 0x9F; /* surrogates */
    if (first == 0xF0) low = 0x90;  /* shorter forms */
    if (first == 0xF4) high = 0x8F; /* above U+10FFFF */
    for (int i = 1; i < length; i++, low = 0x80, high = 0xBF) {
        if ((size_t)i == size) return 0;
        if (bytes[i] < low || bytes[i] > high) return -i;
    }
    return length;
}

static size_t replace(struct utf8_replacer *replacer, uint8_t *out) {
    memcpy(out, REPLACEMENT, sizeof REPLACEMENT);
    replacer->replaced++;
    return sizeof REPLACEMENT;
}

/* Copies ASCII, 32 bytes at a time while they are there, then eight. */
static size_t copy_ascii(uint8_t *out, const uint8_t *in, size_t size) {
    size_t i = 0;
    for (uint64_t words[4]; i + sizeof words <= size; i += sizeof words) {
        memcpy(words, in + i, sizeof words);
        if ((words[0] | words[1] | words[2] | words[3]) & 0x8080808080808080u) break;
        memcpy(out + i, words, sizeof words);
    }
    for (uint64_t word; i + sizeof word <= size; i += sizeof word) {
        memcpy(&word, in + i, sizeof word);
        if (word & 0x8080808080808080u) break;
        memcpy(out + i, &word, sizeof word);
    }
    for (; i < size && in[i] < 0x80; i++) out[i] = in[i];
    return i;
}

/* One byte for the character that is pending. Returns the bytes written; *took is false when the byte begins something new. */
static size_t continue_pending(struct utf8_replacer *replacer, uint8_t *out, uint8_t byte, bool *took) {
    replacer->pending[replacer->pending_bytes] = byte;
    int length = utf8_measure(replacer->pending, replacer->pending_bytes + 1u);
    *took = length >= 0;
    if (length == 0) {
        replacer->pending_bytes++;
        return 0;
    }
    replacer->pending_bytes = 0;
    if (length < 0) return replace(replacer, out);
    memcpy(out, replacer->pending, (size_t)length);
    return (size_t)length;
}

size_t utf8_replace(struct utf8_replacer *replacer, uint8_t *out, size_t *out_size, size_t out_capacity, const uint8_t *in,
                    size_t in_size) {
    size_t at = 0, size = 0;
    while (at < in_size && size + UTF8_REPLACE_ROOM <= out_capacity) {
        if (replacer->pending_bytes) {
            bool took;
            size += continue_pending(replacer, out + size, in[at], &took);
            at += took;
            continue;
        }
        size_t most = out_capacity - size < in_size - at ? out_capacity - size : in_size - at;
        size_t ascii = copy_ascii(out + size, in + at, most);
        at += ascii, size += ascii;
        while (at < in_size && in[at] >= 0x80 && size + UTF8_REPLACE_ROOM <= out_capacity) {
            int length = utf8_measure(in + at, in_size - at);
            if (length == 0) {
                replacer->pending_bytes = (uint8_t)(in_size - at);
                memcpy(replacer->pending, in + at, in_size - at);
                at = in_size;
            } else if (length < 0) {
                size += replace(replacer, out + size);
                at += (size_t)-length;
            } else {
                if (in_size - at >= 4) memcpy(out + size, in + at, 4); /* what is too much is written over; a fixed size is quicker */
                else memcpy(out + size, in + at, (size_t)length);
                at += (size_t)length, size += (size_t)length;
            }
        }
    }
    *out_size = size;
    return at;
}

size_t utf8_replace_end(struct utf8_replacer *replacer, uint8_t *out) {
    if (!replacer->pending_bytes) return 0;
    replacer->pending_bytes = 0;
    return replace(replacer, out);
}
