/* What a file is: every magic number, the shares at their borders, and that no text is refused, whatever language it is in. UTF-16 beside
 * iconv. */
#include "dataset/source/content.h"

#include <iconv.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/unicode/utf16.h"
#include "tests/unit/random.h"

static enum content_kind kind_of(const void *head, size_t size) { return content_of(head, size).kind; }

static void what_is_no_text_has_a_name(void **state) {
    (void)state;
    static const struct {
        const char *head;
        size_t size;
        enum content_kind kind;
        const char *name;
    } known[] = {
        {"PAR1\x15\x04\x15\x10\x15\x14L\x15\x02\x15\0", 15, CONTENT_OTHER, "Apache Parquet"},
        {"ARROW1\0\0\xFF\xFF\xFF\xFF", 12, CONTENT_OTHER, "Apache Arrow"},
        {"\xFF\xFF\xFF\xFF\x70\1\0\0", 8, CONTENT_OTHER, "an Apache Arrow stream"},
        {"%PDF-1.7\n", 9, CONTENT_OTHER, "a PDF document"},
        {"\x7F" "ELF\2\1\1", 7, CONTENT_OTHER, "a program (ELF)"},
        {"\x89PNG\r\n\x1A\n\0\0\0\rIHDR", 16, CONTENT_OTHER, "an image (PNG)"},
        {"\xFF\xD8\xFF\xE0", 4, CONTENT_OTHER, "an image (JPEG)"},
        {"GIF89a\1\0\1\0", 10, CONTENT_OTHER, "an image (GIF)"},
        {"RIFF\x24\0\0\0WEBPVP8 ", 16, CONTENT_OTHER, "an image (WebP)"},
        {"PK\3\4\x14\0\6\0\10\0\0\0!\0................[Content_Types].xml", 49, CONTENT_OTHER, "an Office document"},
        {"PK\3\4\x14\0\0\0\0\0", 10, CONTENT_PACKED, "zip"},
        {"\x1F\x8B\x08\0", 4, CONTENT_PACKED, "gzip"},
        {"\x28\xB5\x2F\xFD\x24", 5, CONTENT_PACKED, "zstd"},
        {"BZh91AY&SY", 10, CONTENT_PACKED, "bzip2"},
        {"\x5D\0\0\x80\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\x33", 15, CONTENT_PACKED, "lzma"}, /* as xz writes it */
        {"\x5D\0\0\0\1\x0A\x09\3\0\0\0\0\0\0\x18", 15, CONTENT_PACKED, "lzma"},          /* as 7-Zip and the LZMA SDK do */
        {"\x5D\0\x10\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\x33", 15, CONTENT_PACKED, "lzma"}, /* a dictionary of 4 KiB */
        {"\x5D\0\0\0\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\x33", 15, CONTENT_PACKED, "lzma"}, /* of 128 MiB */
        {"\xFF\xFEh\0", 4, CONTENT_UTF16_LE, "UTF-16"},
        {"\xFE\xFF\0h", 4, CONTENT_UTF16_BE, "UTF-16"},
        {"\xEF\xBB\xBFh", 4, CONTENT_UTF8_MARK, "UTF-8"},
        {"\xFF\xFE\0\0h\0\0\0", 8, CONTENT_OTHER, "UTF-32"},
        {"\x80\4\x95\x10\0\0\0\0\0\0\0", 11, CONTENT_OTHER, "a Python pickle"},
        {"\x10\2\0\0\0\0\0\0{\"a\":", 13, CONTENT_OTHER, "safetensors"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct content content = content_of((const uint8_t *)known[i].head, known[i].size);
        if (content.kind != known[i].kind || strcmp(content.name, known[i].name) != 0) fail_msg("case %zu: %s", i, content.name);
        assert_int_equal(content_refuse(&content, "a.dat"), content.kind == CONTENT_OTHER ? ERR_CONFIG : 0);
        if (content.kind == CONTENT_OTHER) assert_non_null(strstr(err_text(), known[i].name));
    }
}

static void texts_that_begin_like_files_are_texts(void **state) {
    (void)state;
    static const char *const texts[] = {"", "a", "PAR1 is a golfer's dream", "BM is short for Bitmap", "MZ", "GIF89a, as it is called",
                                        "ID3 tags", "RIFF WAVE", "070701", "BZh is no bzip2", "LZIP", "!<arch>\nno ar", "ftyp",
                                        "\x1B[31mred\x1B[0m", "%PDF is a format", "PK and others"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) assert_int_equal(kind_of(texts[i], strlen(texts[i])), CONTENT_TEXT);
    char digits[160] = "";
    snprintf(digits, sizeof digits, "070701%088d%08X%08d and no name", 0, 2, 0); /* a whole header */
    assert_int_equal(kind_of(digits, strlen(digits)), CONTENT_TEXT);
    static const char latin[] = "BM ist \xFC" "bergro\xDF und MZ voller \xC4rger, beides schon immer"; /* in Latin-1 */
    assert_int_equal(kind_of(latin, strlen(latin)), CONTENT_TEXT);
}

/* A character of which the head has only a part is no byte that is no text's. */
static void a_head_that_ends_within_a_character_is_text(void **state) {
    (void)state;
    char text[CONTENT_HEAD_BYTES + 8];
    for (size_t ahead = 0; ahead < 4; ahead++) {
        for (size_t at = 0; at < sizeof text; at += 4) memcpy(text + at, "\xF0\x9F\x8C\xBE", 4);
        memcpy(text, "GIF89a, told", 12);
        memset(text + 12, '.', 4);
        memmove(text + 12 + ahead, text + 16, sizeof text - 16);
        assert_int_equal(kind_of(text, CONTENT_HEAD_BYTES + 4), CONTENT_TEXT);
    }
}

static void put(struct buf *out, uint32_t c) {
    uint8_t bytes[4] = {(uint8_t)c};
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; n > 1 && i-- > 0; c >>= 6) bytes[i] = (uint8_t)(0x80 | (c & 0x3F));
    if (n > 1) bytes[0] = (uint8_t)(0xF0u << (4 - n) | (bytes[0] & (0x7F >> n)));
    buf_append(out, bytes, n);
}

/* A character of any block, but for a surrogate and what a byte order mark is made of. */
static uint32_t some_character(struct random *random, uint32_t block) {
    static const struct {
        uint32_t from, to;
    } more[] = {{' ', '~'}, {'\t', '\r'}, {0x1B, 0x1B}, {0x7F, 0x7F}};
    size_t kind = (size_t)random_in(random, 0, 7);
    uint32_t c = kind < 4 ? (uint32_t)random_in(random, more[kind].from, more[kind].to) : block + (uint32_t)random_in(random, 0, 0xFF);
    return (c >= 0xD800 && c < 0xE000) || c == 0xFEFF || c < 9 || (c > 0xD && c < 0x1B) || (c > 0x1B && c < 0x20) ? ' ' : c;
}

static void no_text_is_refused_in_whatever_language(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    static const char *const begins[] = {"",     "",    "",     "PAR1",         "GIF89a", "MZ", "BM", "RIFF",
                                         "OggS", "ID3", "%PDF", "#!/bin/sh\n", "GGUF",   "BZh"};
    for (uint32_t round = 0; round < 6000; round++) {
        struct buf text = {0};
        uint32_t block = (round * 0x100 + 0x80) % 0x10FF00; /* each once and more */
        const char *begin = begins[random_in(&random, 0, sizeof begins / sizeof *begins - 1)];
        buf_append(&text, begin, strlen(begin));
        size_t size = (size_t)random_in(&random, 0, round % 8 ? 300 : CONTENT_HEAD_BYTES + 10), since = 0;
        while (text.size < size) {
            since++;
            if (*begin == 0 && since > 12 && random_in(&random, 0, 4) == 0) buf_append(&text, "", 1), since = 0; /* NUL */
            else put(&text, some_character(&random, block));
        }
        buf_append(&text, "", 0);
        if (kind_of(text.data, text.size) != CONTENT_TEXT)
            fail_msg("MILLRACE_SEED=%llu round %u: %s: %.100s", (unsigned long long)random.seed, round,
                     content_of(text.data, text.size).name, text.data);
        buf_free(&text);
    }
}

static void numbers_and_other_encodings_are_refused(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    for (int round = 0; round < 300; round++) {
        uint8_t bytes[4096];
        size_t size = (size_t)random_in(&random, 200, sizeof bytes);
        for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)random_next(&random);
        bytes[0] = 0x81; /* no byte order mark, and no beginning of what is packed */
        assert_int_equal(kind_of(bytes, size), CONTENT_OTHER);
        for (size_t i = 1; i < size; i += 2) bytes[i] = (uint8_t)(bytes[i] % 0xC5); /* ids of GPT-2 */
        assert_int_equal(kind_of(bytes, size), CONTENT_OTHER);
        for (size_t i = 0; i < size; i++) bytes[i] = i % 4 == 3 ? 0x3C : (uint8_t)random_next(&random); /* float32 */
        bytes[0] = 0x81;
        assert_int_equal(kind_of(bytes, size), CONTENT_OTHER);
        for (size_t i = 0; i < size; i++) /* KOI8-R */
            bytes[i] = random_in(&random, 0, 5) ? (uint8_t)(0xE0 + random_in(&random, 0, 31)) : ' ';
        bytes[0] = 0xE1;
        assert_int_equal(kind_of(bytes, size), CONTENT_OTHER);
        for (size_t i = 0; i < size; i++) bytes[i] = i % 2 ? 0 : (uint8_t)('a' + i % 26);
        assert_non_null(strstr(content_of(bytes, size).advice, "UTF-16LE"));
        memset(bytes, 0, size);
        assert_int_equal(kind_of(bytes, size), CONTENT_OTHER);
    }
}

static void the_shares_have_borders(void **state) {
    (void)state;
    uint8_t head[1000];
    for (int share = 8; share <= 12; share++) {
        memset(head, 'a', sizeof head);
        memset(head + 500, 0, (size_t)share * 10);
        assert_int_equal(kind_of(head, sizeof head), share > CONTENT_CONTROL_PERCENT ? CONTENT_OTHER : CONTENT_TEXT);
    }
    for (int share = 18; share <= 22; share++) {
        memset(head, 'a', sizeof head);
        memset(head + 500, 0xE9, (size_t)share * 10);
        assert_int_equal(kind_of(head, sizeof head), share > CONTENT_ILL_FORMED_PERCENT ? CONTENT_OTHER : CONTENT_TEXT);
    }
}

static void utf16_is_read_as_iconv_reads_it(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    iconv_t converter[2] = {iconv_open("UTF-8", "UTF-16LE"), iconv_open("UTF-8", "UTF-16BE")};
    for (int round = 0; round < 3000; round++) {
        bool big = round % 2;
        uint8_t in[600], wanted[2000], got[2000];
        size_t size = 0, got_size = 0;
        for (size_t n = (size_t)random_in(&random, 0, 100); n > 0; n--) {
            uint32_t c = some_character(&random, (uint32_t)random_in(&random, 0, 0x10FE) << 8);
            uint32_t unit[2] = {c, 0};
            if (c > 0xFFFF) unit[0] = 0xD800 + ((c - 0x10000) >> 10), unit[1] = 0xDC00 + ((c - 0x10000) & 0x3FF);
            for (int i = 0; i < 1 + (c > 0xFFFF); i++, size += 2)
                in[size + big] = (uint8_t)unit[i], in[size + !big] = (uint8_t)(unit[i] >> 8);
        }
        char *from = (char *)in, *to = (char *)wanted;
        size_t left = size, room = sizeof wanted;
        assert_int_equal(iconv(converter[big], &from, &left, &to, &room), 0);
        struct utf16 utf16 = {.big_endian = big};
        for (size_t at = 0, n; at < size; at += n) {
            n = (size_t)random_in(&random, 1, 7);
            if (n > size - at) n = size - at;
            size_t wrote = utf16_to_utf8(&utf16, got + got_size, in + at, n);
            assert_true(wrote <= utf16_room(n));
            got_size += wrote;
        }
        got_size += utf16_end(&utf16, got + got_size);
        assert_int_equal(got_size, sizeof wanted - room);
        assert_memory_equal(got, wanted, got_size);
    }
    iconv_close(converter[0]), iconv_close(converter[1]);
}

static void halves_of_pairs_are_ill_formed(void **state) {
    (void)state;
    static const struct {
        const char *in;
        size_t size;
        const char *out;
    } known[] = {{"\xD8\x3D", 2, "\xFF"}, {"\0a\xD8\x3D\0b", 6, "a\xFF" "b"}, {"\xDC\0\xD8\0\xD8\0\xDC\0", 8, "\xFF\xFF\xF0\x90\x80\x80"},
                 {"\0a\0", 3, "a\xFF"}, {"", 0, ""}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct utf16 utf16 = {.big_endian = true};
        uint8_t out[40];
        size_t size = utf16_to_utf8(&utf16, out, (const uint8_t *)known[i].in, known[i].size);
        size += utf16_end(&utf16, out + size);
        assert_int_equal(size, strlen(known[i].out));
        assert_memory_equal(out, known[i].out, size);
    }
}

static void first_lines_that_are_objects_look_like_json_lines(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool are;
    } cases[] = {
        {"{\"text\": \"a\"}\n{\"text\": \"b\"}\n", true}, {"{\"text\": \"a\"}\r\n{\"text\"", true},
        {"{\"text\" : \"a line that is longer", true}, {" {\"a\": {\"b\": 1}}\n", true},
        {"", false}, {"{\n  \"text\": 1\n}\n", false}, {"[1, 2]\n", false}, {"{\"text\": \"a\"}\nand a line\n", false},
        {"{text: 1}", false}, {"{\"a\", he said", false}, {"text\n", false}, {"{", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (content_is_json_lines((const uint8_t *)cases[i].text, strlen(cases[i].text)) != cases[i].are) fail_msg("%s", cases[i].text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_text_has_a_name),
        cmocka_unit_test(texts_that_begin_like_files_are_texts),
        cmocka_unit_test(a_head_that_ends_within_a_character_is_text),
        cmocka_unit_test(no_text_is_refused_in_whatever_language),
        cmocka_unit_test(numbers_and_other_encodings_are_refused),
        cmocka_unit_test(the_shares_have_borders),
        cmocka_unit_test(utf16_is_read_as_iconv_reads_it),
        cmocka_unit_test(first_lines_that_are_objects_look_like_json_lines),
        cmocka_unit_test(halves_of_pairs_are_ill_formed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
