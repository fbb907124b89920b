/* What a file is by its first bytes: first a table of magic numbers (packed, other), then, for what has none, two shares: of control
 * characters and of ill-formed UTF-8. Constant tables; keeps nothing. */
#include "dataset/source/content.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "dataset/source/unxz.h"
#include "dataset/unicode/utf8.h"

/* What bytes of a head are no text's. */
struct shares {
    size_t control, ill_formed;
};

static struct shares shares_of(const uint8_t *head, size_t size, bool cut) {
    struct shares shares = {0};
    for (size_t at = 0; at < size;) {
        int length = utf8_measure(head + at, size - at);
        if (length == 0 && cut) break; /* a character that goes on behind the head */
        size_t taken = length > 0 ? (size_t)length : length < 0 ? (size_t)-length : size - at;
        bool control = length == 1 && head[at] < 0x20 && !((head[at] >= '\b' && head[at] <= '\r') || head[at] == 0x1B);
        shares.control += control;
        if (length <= 0) shares.ill_formed += taken;
        at += taken;
    }
    return shares;
}

/* ---- magic numbers ------------------------------------------------------------------------------------------------------------------- */

static const char EXPORT_ROWS[] = "write its column of text as JSON Lines first, as pandas does with "
                                  "read_parquet(FILE).to_json(\"FILE.jsonl\", orient=\"records\", lines=True)";
static const char EXPORT[] = "write its text as JSON Lines first";
static const char ALONE[] = "give text alone";
static const char CONVERT[] = "take the text out of it first";
static const char UNPACK[] = "unpack it first";

/* Letters alone prove nothing: WEAK ones count where the head has bytes that are no text's. */
enum { STRONG, WEAK };
#define BYTES(text) text, sizeof(text) - 1

static const struct magic {
    uint32_t at;
    const char *bytes;
    uint8_t size, strength;
    enum content_kind kind;
    const char *name, *advice;
    uint32_t more_at; /* more_size 0: nothing more */
    const char *more;
    uint8_t more_size;
} magics[] = {
    /* packed, and opened */
    {0, BYTES("\x1F\x8B\x08"), STRONG, CONTENT_PACKED, "gzip", NULL, 0, NULL, 0},
    {0, BYTES("\xFD" "7zXZ\0"), STRONG, CONTENT_PACKED, "xz", NULL, 0, NULL, 0},
    {0, BYTES("\x28\xB5\x2F\xFD"), STRONG, CONTENT_PACKED, "zstd", NULL, 0, NULL, 0},
    {1, BYTES("\x2A\x4D\x18"), WEAK, CONTENT_PACKED, "zstd", NULL, 0, NULL, 0}, /* behind 0x50 to 0x5F: a skippable frame */
    {0, BYTES("\x04\x22\x4D\x18"), STRONG, CONTENT_PACKED, "lz4", NULL, 0, NULL, 0},
    {0, BYTES("BZh"), STRONG, CONTENT_PACKED, "bzip2", NULL, 4, BYTES("1AY&SY")},
    {0, BYTES("BZh"), WEAK, CONTENT_PACKED, "bzip2", NULL, 4, BYTES("\x17\x72\x45\x38\x50\x90")},
    {0, BYTES("LZIP\1"), WEAK, CONTENT_PACKED, "lzip", NULL, 0, NULL, 0},
    /* lzma with a dictionary of a size that libarchive alone knows; of others unxz_knows() says so */
    {0, BYTES("\x5D\0\0"), STRONG, CONTENT_PACKED, "lzma", NULL, 5, BYTES("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF")},
    {0, BYTES("\x1F\x9D\x90"), STRONG, CONTENT_PACKED, "compress", NULL, 0, NULL, 0},
    {0, BYTES("7z\xBC\xAF\x27\x1C"), STRONG, CONTENT_PACKED, "7z", NULL, 0, NULL, 0},
    {257, BYTES("ustar"), WEAK, CONTENT_PACKED, "tar", NULL, 0, NULL, 0},
    {0, BYTES("!<arch>\n"), STRONG, CONTENT_PACKED, "ar", NULL, 66, BYTES("`\n")},
    {0, BYTES("\xED\xAB\xEE\xDB"), STRONG, CONTENT_PACKED, "rpm", NULL, 0, NULL, 0},
    /* zips of which the members are no texts */
    {0, BYTES("PK\3\4"), STRONG, CONTENT_OTHER, "an Office document", "save it as text", 30, BYTES("[Content_Types].xml")},
    {0, BYTES("PK\3\4"), STRONG, CONTENT_OTHER, "an OpenDocument or EPUB file", "save it as text", 30, BYTES("mimetype")},
    {0, BYTES("PK\3\4"), STRONG, CONTENT_PACKED, "zip", NULL, 0, NULL, 0},
    {0, BYTES("PK\5\6"), STRONG, CONTENT_PACKED, "zip", NULL, 0, NULL, 0},
    /* packed, and not opened */
    {0, BYTES("Rar!\x1A\7"), STRONG, CONTENT_OTHER, "a RAR archive", UNPACK, 0, NULL, 0},
    {0, BYTES("\x89LZO\0"), STRONG, CONTENT_OTHER, "lzop", UNPACK, 0, NULL, 0},
    {0, BYTES("\xFF\x06\0\0sNaPpY"), STRONG, CONTENT_OTHER, "Snappy", UNPACK, 0, NULL, 0},
    {0, BYTES("\x02\x21\x4C\x18"), STRONG, CONTENT_OTHER, "lz4 in its old form", UNPACK, 0, NULL, 0},
    /* tables and tensors */
    {0, BYTES("PAR1"), WEAK, CONTENT_OTHER, "Apache Parquet", EXPORT_ROWS, 0, NULL, 0},
    {0, BYTES("ARROW1\0\0"), STRONG, CONTENT_OTHER, "Apache Arrow", EXPORT_ROWS, 0, NULL, 0},
    {0, BYTES("\xFF\xFF\xFF\xFF"), STRONG, CONTENT_OTHER, "an Apache Arrow stream", EXPORT_ROWS, 6, BYTES("\0\0")},
    {0, BYTES("FEA1"), WEAK, CONTENT_OTHER, "Feather", EXPORT_ROWS, 0, NULL, 0},
    {0, BYTES("Obj\1"), STRONG, CONTENT_OTHER, "Apache Avro", EXPORT, 0, NULL, 0},
    {0, BYTES("SQLite format 3\0"), STRONG, CONTENT_OTHER, "an SQLite database", EXPORT, 0, NULL, 0},
    {0, BYTES("\x89HDF\r\n\x1A\n"), STRONG, CONTENT_OTHER, "HDF5", EXPORT, 0, NULL, 0},
    {0, BYTES("\x93NUMPY"), STRONG, CONTENT_OTHER, "an array of numpy", "`millrace dataset import` takes token ids", 0, NULL, 0},
    {0, BYTES("\x80\2"), STRONG, CONTENT_OTHER, "a Python pickle", EXPORT, 0, NULL, 0},
    {0, BYTES("\x80\3"), STRONG, CONTENT_OTHER, "a Python pickle", EXPORT, 0, NULL, 0},
    {0, BYTES("\x80\4\x95"), STRONG, CONTENT_OTHER, "a Python pickle", EXPORT, 0, NULL, 0},
    {0, BYTES("\x80\5\x95"), STRONG, CONTENT_OTHER, "a Python pickle", EXPORT, 0, NULL, 0},
    {0, BYTES("GGUF"), WEAK, CONTENT_OTHER, "a GGUF model", ALONE, 0, NULL, 0},
    {5, BYTES("\0\0\0{\""), STRONG, CONTENT_OTHER, "safetensors", ALONE, 0, NULL, 0},
    {8, BYTES("MLRSHARD"), STRONG, CONTENT_OTHER, "a shard of millrace", ALONE, 0, NULL, 0},
    /* documents */
    {0, BYTES("\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"), STRONG, CONTENT_OTHER, "an old Office document", "save it as text", 0, NULL, 0},
    {0, BYTES("\x1A\x45\xDF\xA3"), STRONG, CONTENT_OTHER, "a Matroska video", ALONE, 0, NULL, 0},
    {0, BYTES("AT&TFORM"), WEAK, CONTENT_OTHER, "a DjVu document", CONVERT, 0, NULL, 0},
    /* programs */
    {0, BYTES("\x7F" "ELF"), STRONG, CONTENT_OTHER, "a program (ELF)", ALONE, 0, NULL, 0},
    {0, BYTES("MZ"), WEAK, CONTENT_OTHER, "a program for Windows", ALONE, 56, BYTES("\0\0\0\0")},
    {0, BYTES("\xCF\xFA\xED\xFE"), STRONG, CONTENT_OTHER, "a program for macOS", ALONE, 0, NULL, 0},
    {0, BYTES("\xCA\xFE\xBA\xBE"), STRONG, CONTENT_OTHER, "a Java class or a program for macOS", ALONE, 0, NULL, 0},
    {0, BYTES("\0asm"), STRONG, CONTENT_OTHER, "a WebAssembly program", ALONE, 0, NULL, 0},
    /* images, sound, fonts */
    {0, BYTES("\x89PNG\r\n\x1A\n"), STRONG, CONTENT_OTHER, "an image (PNG)", ALONE, 0, NULL, 0},
    {0, BYTES("\xFF\xD8\xFF"), STRONG, CONTENT_OTHER, "an image (JPEG)", ALONE, 0, NULL, 0},
    {0, BYTES("GIF87a"), WEAK, CONTENT_OTHER, "an image (GIF)", ALONE, 0, NULL, 0},
    {0, BYTES("GIF89a"), WEAK, CONTENT_OTHER, "an image (GIF)", ALONE, 0, NULL, 0},
    {0, BYTES("RIFF"), WEAK, CONTENT_OTHER, "an image (WebP)", ALONE, 8, BYTES("WEBP")},
    {0, BYTES("RIFF"), WEAK, CONTENT_OTHER, "a sound (WAVE)", ALONE, 8, BYTES("WAVE")},
    {0, BYTES("RIFF"), WEAK, CONTENT_OTHER, "a video (AVI)", ALONE, 8, BYTES("AVI ")},
    {0, BYTES("BM"), WEAK, CONTENT_OTHER, "an image (BMP)", ALONE, 6, BYTES("\0\0\0\0")},
    {0, BYTES("II*\0"), STRONG, CONTENT_OTHER, "an image (TIFF)", ALONE, 0, NULL, 0},
    {0, BYTES("MM\0*"), STRONG, CONTENT_OTHER, "an image (TIFF)", ALONE, 0, NULL, 0},
    {0, BYTES("8BPS\0\1"), STRONG, CONTENT_OTHER, "an image (PSD)", ALONE, 0, NULL, 0},
    {0, BYTES("\0\0\1\0"), STRONG, CONTENT_OTHER, "an image (ICO)", ALONE, 0, NULL, 0},
    {4, BYTES("ftyp"), WEAK, CONTENT_OTHER, "a video or image (MP4, HEIF)", ALONE, 0, BYTES("\0\0")},
    {0, BYTES("OggS\0"), STRONG, CONTENT_OTHER, "a sound or video (Ogg)", ALONE, 0, NULL, 0},
    {0, BYTES("fLaC\0\0\0"), STRONG, CONTENT_OTHER, "a sound (FLAC)", ALONE, 0, NULL, 0},
    {0, BYTES("ID3"), WEAK, CONTENT_OTHER, "a sound (MP3)", ALONE, 4, BYTES("\0")},
    {0, BYTES("wOFF"), WEAK, CONTENT_OTHER, "a font", ALONE, 0, NULL, 0},
    {0, BYTES("wOF2"), WEAK, CONTENT_OTHER, "a font", ALONE, 0, NULL, 0},
    {0, BYTES("OTTO\0"), STRONG, CONTENT_OTHER, "a font", ALONE, 0, NULL, 0},
    {0, BYTES("\0\1\0\0\0"), STRONG, CONTENT_OTHER, "a font", ALONE, 0, NULL, 0},
    /* other encodings */
    {0, BYTES("\xFF\xFE\0\0"), STRONG, CONTENT_OTHER, "UTF-32", "convert it: iconv -f UTF-32 -t UTF-8", 0, NULL, 0},
    {0, BYTES("\0\0\xFE\xFF"), STRONG, CONTENT_OTHER, "UTF-32", "convert it: iconv -f UTF-32 -t UTF-8", 0, NULL, 0},
    {0, BYTES("\xFF\xFE"), STRONG, CONTENT_UTF16_LE, "UTF-16", NULL, 0, NULL, 0},
    {0, BYTES("\xFE\xFF"), STRONG, CONTENT_UTF16_BE, "UTF-16", NULL, 0, NULL, 0},
    {0, BYTES("\xEF\xBB\xBF"), STRONG, CONTENT_UTF8_MARK, "UTF-8", NULL, 0, NULL, 0},
};

enum { LZMA_HEADER_BYTES = 13 };

static bool lies_at(const uint8_t *head, size_t size, size_t at, const char *bytes, size_t count) {
    return count <= size && at <= size - count && memcmp(head + at, bytes, count) == 0;
}

static bool is_magic(const struct magic *magic, const uint8_t *head, size_t size) {
    return lies_at(head, size, magic->at, magic->bytes, magic->size) &&
           (!magic->more || lies_at(head, size, magic->more_at, magic->more, magic->more_size));
}

static bool is_pdf(const uint8_t *head, size_t size) {
    return lies_at(head, size, 0, "%PDF-", 5) && size > 7 && head[5] >= '0' && head[5] <= '9' && head[6] == '.';
}

/* ---- cpio: its magic numbers begin texts as well. All of its first header has to be one, and a name stand behind it. --------- */

enum { CPIO_NAME_BYTES_MAX = 4096 }; /* a path's; as text, the two bytes of the binary form that say it begin with a control character */

static bool is_name(const uint8_t *head, size_t size, size_t at, size_t count) {
    return count > 1 && count <= CPIO_NAME_BYTES_MAX && at + count <= size && memchr(head + at, 0, count) == head + at + count - 1;
}

bool content_is_cpio(const uint8_t *head, size_t size) {
    static const struct {
        const char *magic, *digits;
        uint8_t base, header_bytes, name_at, name_digits; /* the length of the name, with its NUL */
    } forms[] = {
        {"070701", "0123456789abcdefABCDEF", 16, 110, 94, 8},
        {"070702", "0123456789abcdefABCDEF", 16, 110, 94, 8},
        {"070707", "01234567", 8, 76, 59, 6},
        {"070727", "0123456789abcdefABCDEFmns:", 16, 116, 86, 4},
    };
    enum { BINARY_BYTES = 26, BINARY_NAME_AT = 20 };
    bool little = lies_at(head, size, 0, "\xC7\x71", 2), big = lies_at(head, size, 0, "\x71\xC7", 2);
    if (little || big) {
        if (size < BINARY_BYTES) return false;
        uint8_t one = head[BINARY_NAME_AT], two = head[BINARY_NAME_AT + 1];
        return is_name(head, size, BINARY_BYTES, (size_t)(big ? one << 8 | two : two << 8 | one));
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        size_t bytes = forms[i].header_bytes;
        char header[UINT8_MAX + 1] = "", length[9] = "";
        if (size < bytes || memcmp(head, forms[i].magic, strlen(forms[i].magic)) != 0) continue;
        memcpy(header, head, bytes);
        memcpy(length, head + forms[i].name_at, forms[i].name_digits);
        return strspn(header, forms[i].digits) == bytes && is_name(head, size, bytes, strtoul(length, NULL, forms[i].base));
    }
    return false;
}

/* ---- what has none ------------------------------------------------------------------------------------------------------------------- */

/* Text whose every other byte is 0: -1 none, 0 the second of each two, 1 the first. */
static int zeros_alternate(const uint8_t *head, size_t size) {
    size_t zeros[2] = {0};
    for (size_t i = 0; i < size; i++) zeros[i % 2] += head[i] == 0;
    for (int first = 0; first < 2; first++)
        if (zeros[!first] * 10 >= size / 2 * 7 && zeros[first] * 10 < size) return first;
    return -1;
}

static struct content judge(const uint8_t *head, size_t size, const struct shares *shares) {
    if (size < CONTENT_JUDGED_BYTES) return (struct content){.kind = CONTENT_TEXT};
    if (shares->control * 100 > size * CONTENT_CONTROL_PERCENT) {
        int first = zeros_alternate(head, size);
        static const char name[] = "UTF-16 without a byte order mark, or numbers";
        if (first == 0) return (struct content){CONTENT_OTHER, name, "if it is text, convert it: iconv -f UTF-16LE -t UTF-8", 0};
        if (first == 1) return (struct content){CONTENT_OTHER, name, "if it is text, convert it: iconv -f UTF-16BE -t UTF-8", 0};
        return (struct content){CONTENT_OTHER, "binary (more than 10 % of its first bytes are control characters)", ALONE, 0};
    }
    if (shares->ill_formed * 100 > size * CONTENT_ILL_FORMED_PERCENT)
        return (struct content){CONTENT_OTHER, "binary or in another encoding (more than 20 % of its first bytes are not UTF-8)",
                                "if it is text, convert it: iconv -f ENCODING -t UTF-8", 0};
    return (struct content){.kind = CONTENT_TEXT};
}

struct content content_of(const uint8_t *head, size_t size) {
    bool cut = size >= CONTENT_HEAD_BYTES;
    if (cut) size = CONTENT_HEAD_BYTES;
    struct shares shares = shares_of(head, size, cut);
    bool clean = shares.control + shares.ill_formed == 0;
    if (is_pdf(head, size)) return (struct content){CONTENT_OTHER, "a PDF document", "take the text out of it first, as pdftotext does", 5};
    if (content_is_cpio(head, size)) return (struct content){CONTENT_PACKED, "cpio", NULL, 6};
    if (unxz_knows(head, size) == UNXZ_LZMA) return (struct content){CONTENT_PACKED, "lzma", NULL, LZMA_HEADER_BYTES};
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        const struct magic *magic = &magics[i];
        if ((magic->strength == STRONG || !clean) && is_magic(magic, head, size))
            return (struct content){magic->kind, magic->name, magic->advice, magic->size};
    }
    return judge(head, size, &shares);
}

static bool is_blank(char sign) { return sign == ' ' || sign == '\t' || sign == '\r'; }

/* An object's beginning: a brace, a key, a colon. */
static bool begins_object(const char *at, const char *end) {
    while (at < end && is_blank(*at)) at++;
    if (at == end || *at++ != '{') return false;
    while (at < end && is_blank(*at)) at++;
    if (at == end || *at++ != '"') return false;
    const char *quote = memchr(at, '"', (size_t)(end - at));
    if (!quote) return false;
    for (at = quote + 1; at < end && is_blank(*at);) at++;
    return at < end && *at == ':';
}

bool content_is_json_lines(const uint8_t *head, size_t size_bytes) {
    const char *at = (const char *)head, *end = at + size_bytes;
    size_t lines = 0;
    for (const char *feed; at < end && (feed = memchr(at, '\n', (size_t)(end - at))); at = feed + 1) {
        json_t *value = json_loadb(at, (size_t)(feed - at), 0, NULL);
        bool object = json_is_object(value);
        json_decref(value);
        if (!object) return false;
        lines++;
    }
    return lines > 0 || begins_object(at, end);
}

int content_refuse(const struct content *content, const char *file) {
    if (content->kind != CONTENT_OTHER) return 0;
    return err_set(ERR_CONFIG, "%s is %s, which cannot be read as text; %s", file, content->name, content->advice);
}
