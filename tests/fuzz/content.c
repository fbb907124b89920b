/* The beginning of a file: whatever it is, it has a kind, and one that is no text has a name and an advice. The rest as UTF-16: the same in
 * portions as at once. A byte for the portions, then the file. */
#include "dataset/source/content.h"

#include "dataset/unicode/utf16.h"
#include "tests/fuzz/fuzz.h"

void fuzz(const uint8_t *data, size_t size) {
    struct fuzz_input input = {data, size};
    size_t portion = 1 + fuzz_number(&input, 1) % 13;
    uint8_t *head = fuzz_copy(input.at, input.left), *out[2];
    struct content content = content_of(head, input.left);
    if (content.kind == CONTENT_OTHER) CHECK(content.name && content.advice && content_refuse(&content, "file") == ERR_CONFIG);
    else CHECK(content_refuse(&content, "file") == 0);
    size_t got[2];
    for (int i = 0; i < 2; i++) {
        struct utf16 utf16 = {.big_endian = portion % 2};
        out[i] = mem_alloc(utf16_room(input.left) + input.left + 8);
        got[i] = 0;
        for (size_t at = 0, n; at < input.left; at += n) {
            n = i == 0 || portion > input.left - at ? input.left - at : portion;
            size_t wrote = utf16_to_utf8(&utf16, out[i] + got[i], head + at, n);
            CHECK(wrote <= utf16_room(n));
            got[i] += wrote;
        }
        got[i] += utf16_end(&utf16, out[i] + got[i]);
    }
    CHECK(got[0] == got[1] && got[0] <= utf16_room(input.left) && memcmp(out[0], out[1], got[0]) == 0);
    free(out[0]), free(out[1]), free(head);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    static const char *const texts[] = {"\1plain text\n", "\2PAR1\x15\4", "\3%PDF-1.4", "\4\xFF\xFEh\1", "\5\x1F\x8B\x08", "\6PK\3\4",
                                        ("\7\x7F" "ELF"), "\1BZh91AY&SY", "\2\xD8\x3D\xDE\x42", "\3RIFF1234WEBP\1", NULL};
    fuzz_add_texts(add, texts);
}
