/* Replacing ill-formed UTF-8: the same in parts as at once, and well-formed; what is well-formed stays. */
#include "dataset/unicode/utf8.h"

#include "tests/fuzz/fuzz.h"

static uint8_t *replace_all(size_t *out_size, uint64_t *out_replaced, const uint8_t *data, size_t size, size_t part, size_t room) {
    struct utf8_replacer replacer = {0};
    uint8_t *out = malloc(3 * size + 16);
    CHECK(out != NULL);
    size_t at = 0, got = 0, wrote;
    while (at < size) {
        size_t more = size - at < part ? size - at : part, taken = utf8_replace(&replacer, out + got, &wrote, room, data + at, more);
        CHECK(taken <= more && wrote <= room && (taken > 0 || wrote > 0));
        at += taken;
        got += wrote;
    }
    got += utf8_replace_end(&replacer, out + got);
    CHECK(got <= 3 * size);
    *out_size = got;
    *out_replaced = replacer.replaced;
    return out;
}

void fuzz(const uint8_t *data, size_t size) {
    size_t whole_size, parts_size, again_size;
    uint64_t replaced, parts_replaced, again_replaced;
    uint8_t *whole = replace_all(&whole_size, &replaced, data, size, size + 1, 3 * size + 16);
    uint8_t *parts = replace_all(&parts_size, &parts_replaced, data, size, size ? 1 + data[0] % 7 : 1, 12);
    CHECK(parts_size == whole_size && parts_replaced == replaced && memcmp(whole, parts, whole_size) == 0);
    uint8_t *again = replace_all(&again_size, &again_replaced, whole, whole_size, 5, 8);
    CHECK(again_replaced == 0 && again_size == whole_size && memcmp(again, whole, whole_size) == 0);
    CHECK(replaced > 0 || (whole_size == size && memcmp(whole, data, size) == 0));
    for (size_t at = 0; at < whole_size;) {
        int length = utf8_measure(whole + at, whole_size - at);
        CHECK(length >= 1 && (size_t)length == utf8_length(whole[at]) && utf8_character(whole + at) < 0x110000);
        at += (size_t)length;
    }
    free(whole);
    free(parts);
    free(again);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    static const char *const texts[] = {"plain text, longer than eight bytes", "\u00e9t\u00e9 \u6f22\u5b57 \U0001F3F3",
                                        "\xff\xfe cut \xe2\x82 \xed\xa0\x80 \xf0\x9f\x8f",
                                        "\xc0\xaf \xe0\x80\xaf \xf0\x80\x80\xaf \xf4\x90\x80\x80",
                                        "\xf0\x9f", NULL};
    fuzz_add_texts(add, texts);
}
