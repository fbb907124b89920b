/* Made-up source files of every format, with the documents that they hold: what ingest must find in them. */
#ifndef MILLRACE_TESTS_UNIT_DATASET_SOURCES_MADE_H
#define MILLRACE_TESTS_UNIT_DATASET_SOURCES_MADE_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <zstd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "config/config.h"
#include "tests/unit/random.h"

struct made_document {
    struct buf text;
    uint64_t offset;
    uint32_t file;
    char member[40];
};
struct made_file {
    struct buf bytes;
    char name[40];
    uint32_t group;
};
enum { MADE_DOCUMENTS_MAX = 2000, MADE_FILES_MAX = 12 };
struct made {
    struct made_document document[MADE_DOCUMENTS_MAX];
    struct made_file file[MADE_FILES_MAX];
    size_t documents, files;
    uint64_t bad, binary; /* records and members that must be left out */
    uint64_t read_bytes, bad_bytes, binary_bytes, other_members; /* of all (unpacked) text that is wanted; members that are not */
};

enum { MADE_AUTO, MADE_LINES, MADE_SEPARATED, MADE_SOME_MEMBERS, MADE_GROUPS };
static char *made_globs[] = {(char *)"*.jsonl", (char *)"a/*"};
static const struct source_group made_groups[MADE_GROUPS] = {
    [MADE_AUTO] = {.name = (char *)"auto", .format = FORMAT_AUTO, .field = (char *)"text", .separator = (char *)""},
    [MADE_LINES] = {.name = (char *)"lines", .format = FORMAT_LINES, .field = (char *)"text", .separator = (char *)""},
    [MADE_SEPARATED] = {.name = (char *)"separated", .format = FORMAT_TEXT, .field = (char *)"text", .separator = (char *)"<|>"},
    [MADE_SOME_MEMBERS] = {.name = (char *)"members", .format = FORMAT_AUTO, .field = (char *)"text", .separator = (char *)"",
                           .members = {made_globs, 2}},
};

static inline struct buf made_text(struct random *random, size_t size, bool lines, bool broken) {
    static const char *const words[] = {"a",  "word", " ",  " ",   " the", "z", "'s", "17", ".", "\xC3\xA9", "\xE6\x97\xA5", "\xE3\x80\x80",
                                        "\"", ",",    "\\", "\t",  "\n",   "\n", "\r", "\x80", "\xE6\x97"};
    struct buf text = {0};
    buf_append(&text, "", 0);
    while (text.size < size) {
        const char *word = words[random_in(random, 0, broken && random_in(random, 0, 4) == 0 ? 20 : 18)];
        if (lines || (*word != '\n' && *word != '\r')) buf_append(&text, word, strlen(word));
    }
    return text;
}

static inline void made_quoted(struct buf *out, const struct buf *text, char quote) {
    buf_append(out, "\"", 1);
    for (size_t i = 0; i < text->size; i++) {
        uint8_t c = text->data[i];
        if (quote == '"' && c == '"') buf_append(out, "\"\"", 2);
        else if (quote == '\\' && (c < 0x20 || c == '"' || c == '\\')) buf_print(out, "\\u%04x", c);
        else buf_append(out, &c, 1);
    }
    buf_append(out, "\"", 1);
}

/* Appends one member's bytes and their documents. kind: "txt", "lines", "sep", or a suffix. */
static inline void made_member(struct made *made, struct buf *out, const char *kind, const char *member, uint32_t file,
                               struct random *random) {
    bool text = strcmp(kind, "txt") == 0, lines = strcmp(kind, "lines") == 0, separated = strcmp(kind, "sep") == 0;
    bool jsonl = strcmp(kind, "jsonl") == 0, json = strcmp(kind, "json") == 0, array = json && random_in(random, 0, 1);
    char comma = strcmp(kind, "tsv") == 0 ? '\t' : ',';
    bool tsv = comma == '\t'; /* without quotes, so without tabs and lines in a text */
    bool table = !text && !lines && !separated && !jsonl && !json;
    size_t count = text ? 1 : (size_t)random_in(random, 0, 15);
    if (table) buf_print(out, "id%ctext%cother\n", comma, comma);
    if (array) buf_append(out, "[", 1);
    for (size_t i = 0; i < count; i++) {
        CHECK(made->documents < MADE_DOCUMENTS_MAX);
        struct made_document *document = &made->document[made->documents++];
        *document = (struct made_document){.file = file};
        snprintf(document->member, sizeof document->member, "%s", member);
        size_t size = (size_t)random_in(random, 0, random_in(random, 0, 9) ? 40 : text ? 2000 : 600);
        document->text = made_text(random, size, !lines && !tsv, !json && !jsonl);
        for (size_t k = 0; tsv && k < document->text.size; k++)
            if (document->text.data[k] == '\t') document->text.data[k] = '"';
        if (array && i > 0) buf_append(out, ", ", 2);
        document->offset = out->size;
        bool last = i + 1 == count;
        if (text) buf_append(out, document->text.data, document->text.size);
        if (lines || separated) buf_append(out, document->text.data, document->text.size);
        if (lines && (!last || size == 0 || random_in(random, 0, 1))) buf_append(out, "\r\n", random_in(random, 0, 1) ? 2 : 1);
        if (lines && out->data[out->size - 1] == '\r') out->data[out->size - 1] = '\n';
        if (separated && (!last || size == 0 || random_in(random, 0, 1))) buf_append(out, "<|>", 3);
        if (jsonl || json) {
            bool object = random_in(random, 0, 3) > 0;
            if (object) buf_print(out, "{\"n\": [%zu, \"}\"], \"text\":", i);
            made_quoted(out, &document->text, '\\');
            if (object) buf_append(out, "}", 1);
            if (!array) buf_append(out, "\n", 1);
        }
        if (table) {
            buf_print(out, "%zu%c", i, comma);
            if (tsv) buf_append(out, document->text.data, document->text.size);
            else made_quoted(out, &document->text, '"');
            buf_print(out, tsv ? "\tx\"y\n" : ",\"x\n\"\n");
        }
        if (jsonl && random_in(random, 0, 9) == 0) buf_print(out, "{\"text\"\n\n"), made->bad++, made->bad_bytes += 8;
    }
    if (array) buf_append(out, "]", 1);
    made->read_bytes += out->size;
}

static inline void made_tar_member(struct buf *out, const char *name, const struct buf *bytes) {
    char header[512] = "", zeros[512] = "";
    snprintf(header, 100, "%s", name);
    memcpy(header + 100, "0000644", 7), memcpy(header + 108, "0000000", 7), memcpy(header + 116, "0000000", 7);
    snprintf(header + 124, 12, "%011zo", bytes->size);
    memcpy(header + 136, "00000000000", 11), memset(header + 148, ' ', 8);
    header[156] = '0';
    memcpy(header + 257, "ustar\00000", 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++) sum += (uint8_t)header[i];
    snprintf(header + 148, 8, "%06o", sum);
    buf_append(out, header, sizeof header);
    buf_append(out, bytes->data, bytes->size);
    buf_append(out, zeros, (512 - bytes->size % 512) % 512);
}

static inline void made_tar(struct made *made, struct made_file *file, struct random *random) {
    static const char *const kinds[] = {"txt", "jsonl", "json", "csv", "tsv", "bin"};
    for (size_t n = (size_t)random_in(random, 0, 6), i = 0; i < n; i++) {
        const char *kind = kinds[random_in(random, 0, 5)];
        char name[32];
        snprintf(name, sizeof name, "%s%zu.%s", random_in(random, 0, 1) ? "a/" : "b/", i, kind);
        bool wanted = file->group != MADE_SOME_MEMBERS || name[0] == 'a' || strcmp(kind, "jsonl") == 0;
        struct buf bytes = {0};
        size_t documents = made->documents;
        struct made before = {.bad = made->bad, .bad_bytes = made->bad_bytes, .read_bytes = made->read_bytes};
        if (strcmp(kind, "bin") == 0) {
            buf_append(&bytes, "\x7F" "ELF\2\1\1", 7);
            made->binary += wanted, made->binary_bytes += 7 * wanted, made->read_bytes += 7;
        }
        else made_member(made, &bytes, kind, name, (uint32_t)(file - made->file), random);
        if (!wanted) {
            while (made->documents > documents) buf_free(&made->document[--made->documents].text);
            made->bad = before.bad, made->bad_bytes = before.bad_bytes, made->read_bytes = before.read_bytes;
            made->other_members++;
        }
        made_tar_member(&file->bytes, name, &bytes);
        buf_free(&bytes);
    }
    char zeros[1024] = "";
    buf_append(&file->bytes, zeros, sizeof zeros);
}

static inline void made_compress(struct made_file *file) {
    struct buf packed = {0};
    size_t room = ZSTD_compressBound(file->bytes.size);
    buf_reserve(&packed, room);
    packed.size = ZSTD_compress(packed.data, room, file->bytes.data, file->bytes.size, 1);
    CHECK(!ZSTD_isError(packed.size));
    buf_free(&file->bytes);
    file->bytes = packed;
}

static inline struct made *made_open(struct random *random) {
    static const char *const kinds[] = {"txt", "txt", "txt", "lines", "sep", "jsonl", "json", "csv", "tsv", "tar"};
    struct made *made = mem_alloc(sizeof *made);
    made->files = (size_t)random_in(random, 1, MADE_FILES_MAX);
    for (size_t i = 0; i < made->files; i++) {
        struct made_file *file = &made->file[i];
        const char *kind = kinds[random_in(random, 0, 9)];
        bool packed = random_in(random, 0, 3) == 0, tar = strcmp(kind, "tar") == 0;
        file->group = strcmp(kind, "lines") == 0 ? MADE_LINES : strcmp(kind, "sep") == 0 ? MADE_SEPARATED : MADE_AUTO;
        if (tar && random_in(random, 0, 1)) file->group = MADE_SOME_MEMBERS;
        snprintf(file->name, sizeof file->name, "/made/%zu.%s%s", i, kind, packed ? ".zst" : "");
        buf_append(&file->bytes, "", 0);
        if (tar) made_tar(made, file, random);
        else made_member(made, &file->bytes, kind, "", (uint32_t)i, random);
        if (packed) made_compress(file);
    }
    return made;
}

static inline void made_close(struct made *made) {
    for (size_t i = 0; i < made->documents; i++) buf_free(&made->document[i].text);
    for (size_t i = 0; i < made->files; i++) buf_free(&made->file[i].bytes);
    free(made);
}

#endif
