/* Compressed files and archives: the same members in small reads as in large ones, bounded in what is unpacked. A byte for the size of
 * reads, then the file. */
#include "dataset/source/unpack.h"

#include <archive.h>
#include <archive_entry.h>

#include "dataset/unicode/utf8.h"
#include "tests/fuzz/fuzz.h"

enum { OUTPUT_MAX = 1 << 20, MEMBERS_MAX = 100, RANGES_MAX = 4 };

struct memory {
    const uint8_t *bytes;
    size_t size;
};
static int read_memory(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    const struct memory *memory = arg;
    CHECK(size_bytes <= READER_BYTES_MAX);
    size_t left = offset < memory->size ? memory->size - (size_t)offset : 0;
    *out_got = size_bytes < left ? size_bytes : left;
    if (*out_got) memcpy(out, memory->bytes + offset, *out_got);
    return 0;
}

static void check_name(const char *name) {
    size_t size = strlen(name);
    CHECK(size <= UNPACK_NAME_BYTES && unpack_stem(name) <= size);
    for (size_t at = 0; at < size;) {
        int length = utf8_measure((const uint8_t *)name + at, size - at);
        CHECK(length > 0 && (uint8_t)name[at] >= 0x20);
        at += (size_t)length;
    }
}

/* Appends names and bytes. Returns the error that ends it. */
static int list(struct buf *out, struct unpack *unpack, size_t read_bytes) {
    const char *name;
    uint8_t bytes[4096];
    int code = 0;
    for (int members = 0; members < MEMBERS_MAX && out->size < OUTPUT_MAX && code >= 0; members++) {
        size_t got = 1, given = 0;
        if ((code = unpack_next(unpack, &name)) == 0) break;
        if (code > 0) {
            check_name(name);
            CHECK(buf_print(out, "\n%s:", name) == 0);
        }
        while (code >= 0 && out->size < OUTPUT_MAX && got && (code = unpack_read(unpack, bytes, &got, read_bytes)) >= 0) {
            CHECK(got <= read_bytes);
            CHECK(buf_append(out, bytes, got) == 0);
            given += got;
        }
        CHECK((unpack_fault(unpack) == UNPACK_SOUND) || code < 0);
        bool around = unpack_fault(unpack) == UNPACK_AROUND;
        if (code >= 0 || (!around && unpack_fault(unpack) != UNPACK_PASSABLE)) continue;
        CHECK(code == (around ? ERR_CORRUPT : ERR_UNSUPPORTED) && given == 0);
        CHECK(buf_print(out, "\n%s passed: %llu", unpack_name(unpack), (unsigned long long)unpack_pass(unpack)) == 0);
        code = 0;
    }
    return code < 0 ? code : 0;
}

static void check_ranges(const struct byte_reader *reader) {
    uint64_t *bytes, place = 0;
    size_t count;
    if (unpack_index(&bytes, &count, reader) < 0) return;
    for (size_t i = 0; i < count && i < RANGES_MAX; i++) {
        CHECK(bytes[i] <= reader->size - place);
        for (int told = 0; told < 2; told++) {
            struct unpack *unpack;
            struct buf out = {0};
            enum unpack_fault fault;
            int code = told ? unpack_open_at(&unpack, &fault, reader, i, 1, place) : unpack_open(&unpack, reader, i, 1);
            if (code == 0) list(&out, unpack, 4096);
            if (code == 0) unpack_close(unpack);
            buf_free(&out);
        }
        place += bytes[i];
    }
    if (count) free(bytes);
}

void fuzz(const uint8_t *data, size_t size) {
    struct fuzz_input input = {data, size};
    size_t small = 1 + fuzz_number(&input, 1);
    struct memory memory = {input.at, input.left};
    struct byte_reader reader = {read_memory, &memory, "file", input.left};
    struct buf out[2] = {{0}, {0}};
    int code[2] = {0};
    for (int i = 0; i < 2; i++) {
        struct unpack *unpack;
        code[i] = unpack_open(&unpack, &reader, 0, 0);
        if (code[i] < 0) continue;
        code[i] = list(&out[i], unpack, i ? small : 4096);
        CHECK(unpack_used(unpack) <= reader.size);
        unpack_close(unpack);
    }
    if (out[0].size < OUTPUT_MAX && out[1].size < OUTPUT_MAX) {
        CHECK(code[0] == code[1]);
        CHECK(code[0] < 0 || out[0].size == out[1].size); /* what comes before an error is not used */
        CHECK(code[0] < 0 || out[0].size == 0 || memcmp(out[0].data, out[1].data, out[0].size) == 0);
    }
    check_ranges(&reader);
    buf_free(&out[0]);
    buf_free(&out[1]);
}

static la_ssize_t collect(struct archive *archive, void *arg, const void *bytes, size_t size) {
    (void)archive;
    CHECK(buf_append(arg, bytes, size) == 0);
    return (la_ssize_t)size;
}

/* An archive of the two texts; an archive itself may be the second. */
static struct buf pack(int (*set_format)(struct archive *), int filter, const struct buf *inside) {
    struct buf out = {0};
    CHECK(buf_append(&out, "\x40", 1) == 0);
    struct archive *archive = archive_write_new();
    bool made = set_format(archive) == ARCHIVE_OK && archive_write_add_filter(archive, filter) == ARCHIVE_OK &&
                archive_write_set_bytes_in_last_block(archive, 1) == ARCHIVE_OK &&
                archive_write_open(archive, &out, NULL, collect, NULL) == ARCHIVE_OK;
    for (int i = 0; made && i < (set_format == archive_write_set_format_raw ? 1 : 3); i++) {
        static const char text[] = "Text that is packed, and packed again, and again packed.\n";
        struct archive_entry *entry = archive_entry_new();
        archive_entry_set_pathname(entry, i == 0 ? "a.txt" : i == 1 ? "./b/c.tar.gz" : "d/");
        archive_entry_set_filetype(entry, i == 2 ? AE_IFDIR : AE_IFREG);
        archive_entry_set_perm(entry, 0644);
        size_t size = i == 2 ? 0 : i == 1 && inside ? inside->size - 1 : sizeof text;
        archive_entry_set_size(entry, (la_int64_t)size);
        made = archive_write_header(archive, entry) == ARCHIVE_OK || i == 2;
        if (made && size) archive_write_data(archive, i == 1 && inside ? (const void *)(inside->data + 1) : text, size);
        archive_entry_free(entry);
    }
    if (!made) fuzz_fail("seed: %s", archive_error_string(archive));
    archive_write_close(archive);
    archive_write_free(archive);
    return out;
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    static int (*const formats[])(struct archive *) = {
        archive_write_set_format_ustar, archive_write_set_format_pax,  archive_write_set_format_gnutar,
        archive_write_set_format_zip,   archive_write_set_format_7zip, archive_write_set_format_ar_svr4};
    static const int filters[] = {ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_BZIP2, ARCHIVE_FILTER_XZ, ARCHIVE_FILTER_ZSTD, ARCHIVE_FILTER_LZ4};
    struct buf nested = {0};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        struct buf seed = pack(formats[i], ARCHIVE_FILTER_NONE, i ? &nested : NULL);
        add(seed.data, seed.size);
        if (i == 0) nested = seed;
        else buf_free(&seed);
    }
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        struct buf seed = pack(archive_write_set_format_raw, filters[i], NULL);
        struct buf tar = pack(archive_write_set_format_ustar, filters[i], &nested);
        add(seed.data, seed.size);
        add(tar.data, tar.size);
        buf_free(&seed);
        buf_free(&tar);
    }
    buf_free(&nested);
    static const char *const texts[] = {"\1plain text\n", "\1", "\3\x1f\x8b", "\3PK\3\4", "\3!<arch>\n", NULL};
    fuzz_add_texts(add, texts);
}
