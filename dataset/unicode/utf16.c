/* A struct utf16 keeps half a unit or half a surrogate pair from one call to the next. */
#include "dataset/unicode/utf16.h"

static size_t put(uint8_t *out, uint32_t c) {
    if (c < 0x80) return out[0] = (uint8_t)c, 1;
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (uint8_t)(0x80 | (c & 0x3F));
    out[0] = (uint8_t)((0xF00u >> n) | c);
    return n;
}

static size_t put_unit(struct utf16 *state, uint8_t *out, uint32_t unit) {
    size_t size = 0;
    bool low = unit >= 0xDC00 && unit <= 0xDFFF, high = unit >= 0xD800 && unit < 0xDC00;
    if (state->high && low) {
        size = put(out, 0x10000 + ((uint32_t)(state->high - 0xD800) << 10) + (unit - 0xDC00));
        state->high = 0;
        return size;
    }
    if (state->high) out[size++] = UTF16_LONE;
    state->high = high ? (uint16_t)unit : 0;
    if (high) return size;
    if (low) out[size++] = UTF16_LONE;
    else size += put(out + size, unit);
    return size;
}

size_t utf16_to_utf8(struct utf16 *state, uint8_t *out, const uint8_t *in, size_t size_bytes) {
    size_t size = 0;
    for (size_t i = 0; i < size_bytes; i++) {
        if (state->has_byte) {
            uint32_t first = state->byte, second = in[i];
            size += put_unit(state, out + size, state->big_endian ? first << 8 | second : second << 8 | first);
        }
        state->has_byte = !state->has_byte;
        state->byte = in[i];
    }
    return size;
}

size_t utf16_end(struct utf16 *state, uint8_t *out) {
    size_t size = 0;
    if (state->high) out[size++] = UTF16_LONE;
    if (state->has_byte) out[size++] = UTF16_LONE;
    state->high = 0, state->has_byte = false;
    return size;
}
