/* A descriptor, the kind of content that its first bytes show, and a struct unpack where there is something to unpack. Memory is bounded
 * whatever the file. */
#include "dataset/source/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/process.h"
#include "dataset/source/content.h"
#include "dataset/source/unpack.h"
#include "dataset/unicode/doubtful.h"
#include "dataset/unicode/utf16.h"
#include "dataset/unicode/utf8.h"

enum { RAW_BYTES = 64 << 10 /* read at a time of text in UTF-16 */ };

struct text_file {
    struct text_file_options options;
    char *name;
    int fd;
    struct unpack *unpack; /* NULL: it is not packed */
    uint8_t head[CONTENT_HEAD_BYTES];
    size_t head_at, head_bytes; /* what of the beginning was not given on yet */
    bool ended;
    bool is_utf16;
    char *json_lines; /* the first file or member that looks like them; NULL: none does */
    struct utf16 utf16;
    uint8_t *raw;
    struct utf8_replacer replacer; /* counts what is ill-formed */
    uint64_t bytes;            /* given on so far */
    uint64_t members_read, left_out;
    char *first_left_out;      /* NULL: none was */
};

/* The next bytes of the file or member behind its head; *out_got 0: it is at its end. */
static int read_more(struct text_file *file, void *out, size_t *out_got, size_t size_bytes) {
    if (file->unpack) return unpack_read(file->unpack, out, out_got, size_bytes);
    for (ssize_t got;;) {
        got = read(file->fd, out, size_bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return err_errno("read %s", file->name);
        *out_got = (size_t)got;
        return 0;
    }
}

/* Keeps the first bytes of a file or member, and the kind of content that they show. */
static int read_head(struct text_file *file, struct content *out, const char *name) {
    file->head_at = file->head_bytes = 0;
    for (size_t got = 1; got > 0 && file->head_bytes < sizeof file->head; file->head_bytes += got)
        TRY(read_more(file, file->head + file->head_bytes, &got, sizeof file->head - file->head_bytes));
    *out = (struct content){.kind = CONTENT_TEXT};
    if (file->options.raw) return 0;
    uint8_t judged[CONTENT_HEAD_BYTES];
    for (size_t i = 0; i < file->head_bytes; i++) judged[i] = file->head[i] == 0 && file->options.nul_ends ? '\n' : file->head[i];
    *out = content_of(judged, file->head_bytes);
    file->is_utf16 = out->kind == CONTENT_UTF16_LE || out->kind == CONTENT_UTF16_BE;
    file->utf16 = (struct utf16){.big_endian = out->kind == CONTENT_UTF16_BE};
    file->head_at = file->is_utf16 ? 2 : out->kind == CONTENT_UTF8_MARK ? UTF8_MARK_BYTES : 0;
    bool is_json_lines = out->kind == CONTENT_TEXT && content_is_json_lines(file->head, file->head_bytes);
    if (is_json_lines && !file->json_lines) file->json_lines = mem_text(name);
    return content_refuse(out, name);
}

static int read_at(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    const struct text_file *file = arg;
    return file_read_at(file->fd, out, out_got, size_bytes, offset);
}

/* A member that is no text is left out, as dataset.sources does; where all are, that is an error. */
static void leave_out(struct text_file *file, const char *name, const struct content *content) {
    if (!file->first_left_out) file->first_left_out = mem_format("%s is %s", name, content->name);
    file->left_out++;
    file->head_at = file->head_bytes = 0;
}

/* The same for what lies around an archive. */
static void leave_out_around(struct text_file *file) {
    const char *member = unpack_name(file->unpack);
    char *name = mem_format("%s%s%s", file->name, *member ? "!" : "", member);
    uint64_t bytes = unpack_pass(file->unpack);
    if (!file->first_left_out)
        file->first_left_out = mem_format("what lies around the archive in %s (%" PRIu64 " bytes) is none of it", name, bytes);
    file->left_out++;
    free(name);
}

static int archive_ended(struct text_file *file) {
    file->ended = true;
    if (file->members_read > 0 || file->left_out == 0) return 0;
    return err_set(ERR_CONFIG, "%s has no text in it: %s, which cannot be read as text", file->name, file->first_left_out);
}

/* 1: it is text, 0: it is left out. */
static int read_member(struct text_file *file, const char *member) {
    struct content content = {.kind = CONTENT_TEXT};
    char *name = *member ? mem_format("%s!%s", file->name, member) : mem_text(file->name);
    int code = read_head(file, &content, name);
    bool is_text = content.kind != CONTENT_OTHER && content.kind != CONTENT_PACKED;
    if (*member && !is_text) {
        leave_out(file, name, &content);
        code = 0;
    } else if (code == 0 && !is_text)
        code = err_set(ERR_CONFIG, "%s is %s under a name that does not say so; unpack it first", name, content.name);
    else if (code == 0) {
        file->members_read++;
        code = 1;
    }
    free(name);
    return code;
}

/* Goes to the next member that has text. */
static int next_member(struct text_file *file) {
    const char *member;
    int code;
    do {
        code = unpack_next(file->unpack, &member);
        if (code == 0) return archive_ended(file);
        if (code > 0) code = read_member(file, member);
        else if (unpack_fault(file->unpack) == UNPACK_AROUND) leave_out_around(file), code = 0;
    } while (code == 0);
    return code < 0 ? code : 0;
}

static int open_packed(struct text_file *file, const struct content *content) {
    struct stat st;
    if (fstat(file->fd, &st) != 0) return err_errno("stat %s", file->name);
    if (!S_ISREG(st.st_mode) || lseek(file->fd, 0, SEEK_CUR) != (off_t)file->head_bytes)
        return err_set(ERR_CONFIG, "%s is %s, which is unpacked only from a file: give its path, or unpack it on the way", file->name,
                       content->name);
    struct byte_reader reader = {read_at, file, file->name, (uint64_t)st.st_size};
    TRY(unpack_open(&file->unpack, &reader, 0, 0));
    return next_member(file);
}

static int refuse_path(const char *path) {
    int code = err_errno("open %s", path);
    return err_set(code, "%s; give the path of a text file that may be read", err_text());
}

/* open() takes a folder, and read() does not. */
static int check_kind(const struct text_file *file) {
    struct stat st;
    if (fstat(file->fd, &st) != 0) return err_errno("stat %s", file->name);
    if (!S_ISDIR(st.st_mode)) return 0;
    return err_set(ERR_CONFIG, "%s is a folder; give the path of a text file in it", file->name);
}

int text_file_open(struct text_file **out, const char *path, const struct text_file_options *options) {
    bool standard = strcmp(path, "-") == 0;
    struct text_file *file = mem_alloc(sizeof *file);
    *file = (struct text_file){.options = *options, .name = mem_text(standard ? "standard input" : path)};
    file->fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (standard) process_tell_reading();
    struct content content;
    int code = file->fd < 0 ? refuse_path(path) : check_kind(file);
    if (code == 0) code = read_head(file, &content, file->name);
    if (code == 0 && content.kind == CONTENT_PACKED) code = open_packed(file, &content);
    if (code < 0) text_file_close(file);
    else *out = file;
    return code;
}

/* As they lie there. */
static int read_raw(struct text_file *file, uint8_t *out, size_t *out_got, size_t size_bytes) {
    size_t left = file->head_bytes - file->head_at;
    if (left == 0) return read_more(file, out, out_got, size_bytes);
    *out_got = left < size_bytes ? left : size_bytes;
    memcpy(out, file->head + file->head_at, *out_got);
    file->head_at += *out_got;
    return 0;
}

static int read_utf16(struct text_file *file, uint8_t *out, size_t *out_got, size_t size_bytes) {
    size_t want = (size_bytes - utf16_room(0)) / 3 * 2, got = 0;
    if (!file->raw) file->raw = mem_alloc(RAW_BYTES);
    TRY(read_raw(file, file->raw, &got, want < RAW_BYTES ? want : RAW_BYTES));
    *out_got = utf16_to_utf8(&file->utf16, out, file->raw, got);
    if (got == 0) *out_got = utf16_end(&file->utf16, out);
    else if (*out_got == 0) return read_utf16(file, out, out_got, size_bytes); /* half a character came */
    return 0;
}

/* What the replacer makes of the text is not used: whoever tokenizes it does the same. */
static void count_ill_formed(struct text_file *file, const uint8_t *text, size_t bytes) {
    uint8_t valid[4096];
    size_t written;
    file->bytes += bytes;
    for (size_t took; bytes > 0; text += took, bytes -= took)
        took = utf8_replace(&file->replacer, valid, &written, sizeof valid, text, bytes);
}

char *text_file_warning(const struct text_file *file) {
    if (file->options.raw || !utf8_is_doubtful(file->replacer.replaced, file->bytes)) return NULL;
    return utf8_doubtful_words(file->name, file->replacer.replaced, file->bytes, 0);
}

char *text_file_json_warning(const struct text_file *file) {
    if (!file->json_lines) return NULL;
    return mem_format("%s looks like JSON lines, and is read as it is, braces and all; for the text alone %stake its field out before%s",
                      file->json_lines, file->unpack ? "unpack it, and " : "", file->unpack ? "" : ": jq -r .text FILE > NEW");
}

char *text_file_left_out(const struct text_file *file) {
    if (file->left_out == 0) return NULL;
    if (file->left_out == 1) return mem_format("%s and is left out", file->first_left_out);
    return mem_format("%" PRIu64 " members are no text and are left out: first, %s", file->left_out, file->first_left_out);
}

int text_file_read(struct text_file *file, void *out, size_t *out_got, size_t size_bytes) {
    CHECK(size_bytes >= TEXT_FILE_READ_BYTES_MIN);
    *out_got = 0;
    while (!file->ended) {
        TRY(file->is_utf16 ? read_utf16(file, out, out_got, size_bytes) : read_raw(file, out, out_got, size_bytes));
        if (*out_got > 0 && !file->options.raw) count_ill_formed(file, out, *out_got);
        if (*out_got > 0) return 0;
        if (file->unpack) TRY(next_member(file));
        else file->ended = true;
    }
    return 0;
}

void text_file_close(struct text_file *file) {
    if (!file) return;
    unpack_close(file->unpack);
    if (file->fd > STDIN_FILENO) close(file->fd);
    free(file->raw);
    free(file->name);
    free(file->first_left_out);
    free(file->json_lines);
    free(file);
}
