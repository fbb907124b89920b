/* A stack of libarchive readers (struct layer): the first reads the file, each further one reads a member of the layer below that is itself
 * packed. libarchive finds by the bytes what a file or member is; a member is only looked into when its name has a suffix of something
 * packed, so that no text is taken for an archive. Memory is a block of input for each layer and what the decoders need. Never starts a
 * program.
 *
 * How bytes flow: libarchive asks for input by feed(), skip() and seek(). feed() gets it from fill(), which reads the file (feed_file()), a
 * member of the layer below (member_read()) or a temporary file; for what dataset/source/decompressor.h unpacks, a decoder comes between
 * (unzip()). Upwards, next_member() goes to the next member over all layers, and pushes and closes layers as it goes; read_data() gives the
 * bytes of a member.
 *
 * Errors: the first one is kept in unpack->error, with whose fault it is, and is what every later call returns. Damage that our own
 * decoders find, or a method that they do not know, waits in layer->late until all bytes before it have been given on.
 *
 * A 7z and a zip have their directory at the end. One that is a member, or packed itself, is first unpacked to a temporary file without a
 * name; nothing else is ever written.
 *
 * libarchive converts names to the charset of the current locale. Every call into it is made under C.UTF-8, whatever the process has: names
 * that are declared as UTF-8 or UTF-16 come as UTF-8, others as the bytes that they are. */
#include "dataset/source/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "dataset/source/content.h"
#include "dataset/source/decompressor.h"
#include "dataset/source/extent.h"
#include "dataset/source/packed_name.h"

enum {
    /* The file is read up to multiples of this, and given to libarchive from one to the next: what a decoder gives before damage and what
     * it has taken of the file then follow from the offset in the file, not from what was read or passed over before. After a jump that is
     * all that is read: a header, and little of what follows; sequential reads grow to READER_BYTES_MAX. */
    STEP_BYTES = 16 << 10,
    BLOCK_BYTES = 64 << 10, /* read from a member, or given by a decoder */
};

struct layer {
    struct unpack *unpack;
    struct layer *outer; /* whose member this reads; NULL: the file */
    struct archive *archive;
    struct archive_entry *entry; /* of the current member; libarchive's */
    bool plain;                  /* no archive: its bytes (unpacked) are one member without a name */
    bool begun;                  /* it is an archive, and had an entry */
    bool is_cpio;                /* by its first bytes */
    bool empty;                  /* plain, without a byte: libarchive has no entry to read */
    size_t prefix_bytes;         /* of the name: the members that lead here */
    uint8_t *block;              /* what was read last */
    const uint8_t *pending;      /* of that, what was not given on */
    size_t pending_bytes;
    bool wraps;            /* by its name it is a packed 7z or zip: its one member is opened in its turn */
    int spool;             /* a temporary file with all of its bytes; -1: none */
    uint64_t spool_bytes, spool_at;
    struct decompressor *decompressor; /* NULL: libarchive unpacks what is read, if there is anything to unpack */
    uint8_t *unzipped;                 /* BLOCK_BYTES of what the decoder gave; NULL without one */
    bool unzipped_some;                /* it gave any */
    struct err late;     /* the decoder found damage, or what it does not know: returned when all that came before was given on; code 0:
                            it did not */
    const uint8_t *data; /* of the current member: what was not given on, and where in the member that is */
    size_t data_bytes;
    uint64_t data_at, given;
    uint64_t members;    /* met so far, and before it where reading began in the middle */
    char made_name[32];  /* of the current member, which has none */
    bool told_around;    /* it has ended, and what lies around it was told */
};

struct unpack {
    struct byte_reader reader;
    uint64_t begin;  /* where the outermost layer begins in the file */
    uint64_t offset; /* of the next byte that the outermost layer is fed with */
    uint64_t held_at; /* its block holds the file's bytes from here on */
    size_t held_bytes, read_bytes;
    uint64_t first, count; /* of the outermost members; count 0: all */
    uint64_t members;      /* outermost ones met so far */
    bool to_end;           /* those asked for are all up to the last one */
    uint64_t around_bytes; /* of UNPACK_AROUND */
    struct layer layer[UNPACK_DEPTH_MAX];
    int depth;
    char name[UNPACK_NAME_BYTES + 1];
    uint64_t spool_bytes, spool_bytes_max; /* of all layers */
    int (*tick)(void *arg);
    void *tick_arg;
    struct err error; /* the first one, which every later call returns; code 0: none */
    enum unpack_fault fault;
    struct layer *refuses; /* of UNPACK_PASSABLE: the archive whose member it is; of UNPACK_AROUND: the archive */
    locale_t locale;
};

/* ---- Errors ------------------------------------------------------------------------------------------------------------------ */

#define ENCRYPTED "encrypted; unpack it first, millrace asks for no passwords"
#define DAMAGED "; the file is damaged or cut off: get it again"
#define CUT_OFF "; the file is cut off: get it again"

/* Some of libarchive's messages are not about damage of the file. */
static bool says(const char *words, const char *const *known) {
    for (; *known; known++)
        if (strcasestr(words, *known)) return true;
    return false;
}
static const char *const no_memory[] = {"allocate", "memory", NULL};
static const char *const no_password[] = {"passphrase", "encrypt", NULL};
static const char *const no_word_for_it[] = {"unknown error", NULL}; /* of a decoder, for damaged data */
static const char *const not_known[] = {"unsupported", "not supported", "not implemented", "unknown", "unrecognized", NULL};
static const char *const unfit[] = {"data crc", "file crc", "bad crc", "crc32 error", "checksum error", "wrong size", NULL};
static const char *const cut_off[] = {"truncated", "premature end", "end of file", "unexpected eof", NULL};

static int fail(struct unpack *unpack, int code) {
    if (unpack->error.code == 0) unpack->error = err_take(), unpack->error.code = code;
    return unpack->error.code;
}

/* Callers get the first error, whichever call returns it. */
static int told(const struct unpack *unpack, int code) { return code < 0 && unpack->error.code ? err_give(&unpack->error) : code; }

static int fail_with(struct unpack *unpack, int code, const char *words, const char *advice) {
    if (unpack->error.code) return unpack->error.code;
    return fail(unpack, err_set(code, "%s%s%s: %s%s", unpack->reader.name, *unpack->name ? ": " : "", unpack->name, words, advice));
}

/* What cannot be read here, whatever the machine. `at_member`: the layer is at its member, nothing of it was given, and libarchive
 * can go on after it. What is refused before its first member is a member of the archive outside it that cannot be read. */
static void set_refused(struct layer *layer, bool at_member) {
    struct unpack *unpack = layer->unpack;
    struct layer *archive = at_member ? layer : layer->entry || layer->begun ? NULL : layer->outer;
    if (unpack->error.code) return;
    while (archive && archive->plain) archive = archive->outer;
    unpack->fault = archive ? UNPACK_PASSABLE : UNPACK_REFUSED;
    unpack->refuses = archive;
}

static int fail_late(struct layer *layer) {
    struct unpack *unpack = layer->unpack;
    if (unpack->error.code) return unpack->error.code;
    if (layer->late.code == ERR_UNSUPPORTED) set_refused(layer, false);
    else unpack->fault = UNPACK_DAMAGED;
    return fail_with(unpack, layer->late.code, layer->late.text, "");
}

static int refuse(struct layer *layer, bool at_member, const char *words, const char *advice) {
    set_refused(layer, at_member);
    return fail_with(layer->unpack, ERR_UNSUPPORTED, words, advice);
}

/* Is what libarchive reads the file itself, or a spool? */
static bool can_seek(const struct layer *layer) {
    return (!layer->outer || layer->spool >= 0) && !layer->unzipped && archive_filter_code(layer->archive, 0) == ARCHIVE_FILTER_NONE;
}

/* The error that libarchive reports for a layer, unless one of our callbacks has failed before it. */
static int fail_archive(struct layer *layer, int code) {
    struct unpack *unpack = layer->unpack;
    if (layer->late.code < 0) return fail_late(layer);
    const char *words = archive_error_string(layer->archive);
    if (!words) words = "cannot be unpacked";
    if (archive_errno(layer->archive) == ENOMEM || says(words, no_memory)) return fail_with(unpack, ERR_MEMORY, "no memory to unpack", "");
    if (!layer->entry && archive_format(layer->archive) == ARCHIVE_FORMAT_7ZIP && !can_seek(layer))
        return refuse(layer, false, "a 7z under a name that does not say so; end it in .7z, and .7z.xz or the like", "");
    if ((!layer->entry && archive_read_has_encrypted_entries(layer->archive) > 0) || says(words, no_password))
        return refuse(layer, false, ENCRYPTED, "");
    /* A zip is read from header to header, so a member in between can be passed over. */
    bool passable = code == ARCHIVE_FAILED && layer->given == 0 && archive_format(layer->archive) == ARCHIVE_FORMAT_ZIP;
    if (says(words, not_known) && !says(words, no_word_for_it))
        return refuse(layer, passable, words, "; unpack it first, with the program that packed it");
    if (unpack->error.code == 0) unpack->fault = UNPACK_DAMAGED;
    if (says(words, unfit)) return fail_with(unpack, ERR_CORRUPT, DECOMPRESSOR_UNFIT, "");
    return fail_with(unpack, ERR_CORRUPT, words, says(words, cut_off) ? CUT_OFF : DAMAGED);
}

/* ---- What libarchive calls --------------------------------------------------------------------------------------------------- */

static uint64_t step_end(uint64_t offset, uint64_t step_bytes) { return (offset / step_bytes + 1) * step_bytes; }

static int read_file(struct layer *layer) {
    struct unpack *unpack = layer->unpack;
    uint64_t end = step_end(unpack->offset, STEP_BYTES) - STEP_BYTES + unpack->read_bytes;
    size_t want = (size_t)((end < unpack->reader.size ? end : unpack->reader.size) - unpack->offset), got = 0;
    unpack->held_bytes = 0;
    if (want > 0) {
        int code = unpack->reader.read(unpack->reader.arg, layer->block, &got, want, unpack->offset);
        if (code < 0) return fail(unpack, code);
        if (got < want) return fail_with(unpack, ERR_CORRUPT, "is shorter than before", "; it changed");
    }
    unpack->held_at = unpack->offset, unpack->held_bytes = got;
    if (unpack->read_bytes < READER_BYTES_MAX) unpack->read_bytes *= 2;
    return 0;
}

static bool holds(const struct unpack *unpack, uint64_t offset) {
    return offset >= unpack->held_at && offset - unpack->held_at < unpack->held_bytes;
}

/* The file's bytes from here to the next step. */
static size_t feed_file(struct layer *layer) {
    struct unpack *unpack = layer->unpack;
    if (!holds(unpack, unpack->offset) && read_file(layer) < 0) return 0;
    uint64_t held_end = unpack->held_at + unpack->held_bytes, end = step_end(unpack->offset, STEP_BYTES);
    size_t got = (size_t)((end < held_end ? end : held_end) - unpack->offset);
    layer->pending = layer->block + (unpack->offset - unpack->held_at);
    unpack->offset += got;
    return got;
}

static int next_block(struct layer *layer);
static int member_read(struct layer *layer, void *out, size_t *out_got, size_t size_bytes);

static la_ssize_t read_spool(struct layer *layer) {
    size_t got;
    size_t want = (size_t)(step_end(layer->spool_at, BLOCK_BYTES) - layer->spool_at);
    int code = file_read_at(layer->spool, layer->block, &got, want, layer->spool_at);
    if (code < 0) return fail(layer->unpack, err_add(code, "temporary file"));
    layer->spool_at += got;
    return (la_ssize_t)got;
}

/* Is it a cpio, of which the layer below undoes the compression? */
static bool reads_unpacked(const struct layer *layer) { return layer->outer && layer->outer->plain && !layer->outer->wraps; }

/* Block by block as they come: damage of the compression waits until libarchive has given what came before it. */
static size_t feed_unpacked(struct layer *layer) {
    struct unpack *unpack = layer->unpack;
    struct layer *outer = layer->outer;
    if (next_block(outer) < 0 && outer->late.code < 0) {
        layer->late = outer->late;
        unpack->error = (struct err){0}, unpack->fault = UNPACK_SOUND;
    }
    size_t got = outer->data_bytes;
    layer->pending = outer->data;
    outer->data_bytes = 0;
    return got;
}

/* The next bytes that a layer is fed with, still compressed. */
static la_ssize_t fill(struct layer *layer) {
    struct unpack *unpack = layer->unpack;
    size_t got = 0;
    if (unpack->tick && unpack->tick(unpack->tick_arg) != 0) return fail(unpack, err_set(ERR_INTERRUPTED, "unpacking was stopped"));
    layer->pending = layer->block;
    if (layer->spool >= 0)
        got = (size_t)read_spool(layer);
    else if (!layer->outer)
        got = feed_file(layer);
    else if (reads_unpacked(layer))
        got = feed_unpacked(layer);
    else
        (void)member_read(layer->outer, layer->block, &got, BLOCK_BYTES);
    if (unpack->error.code) return ARCHIVE_FATAL;
    layer->pending_bytes = got;
    return (la_ssize_t)got;
}

static la_ssize_t unzip(struct layer *layer) {
    struct unpack *unpack = layer->unpack;
    bool ended = false;
    if (layer->late.code < 0) return 0; /* to libarchive an end, which would lose what it has read ahead with an error */
    for (size_t got = 0, taken;;) {
        if (layer->pending_bytes == 0) {
            la_ssize_t more = fill(layer);
            if (more < 0) return more;
            if (more == 0 && decompressor_whole(layer->decompressor)) return 0;
            ended = more == 0;
        }
        int code = decompressor_step(layer->decompressor, layer->unzipped, &got, BLOCK_BYTES, layer->pending, &taken, layer->pending_bytes);
        if (ended && code == 0 && got == 0 && !decompressor_whole(layer->decompressor))
            code = err_set(ERR_CORRUPT, "%s: ends in the middle" CUT_OFF, decompressor_name(layer->decompressor));
        layer->unzipped_some |= got > 0;
        if (code == ERR_CORRUPT || (code == ERR_UNSUPPORTED && layer->unzipped_some)) {
            layer->late = err_take();
            return (la_ssize_t)got;
        }
        if (code == ERR_UNSUPPORTED) set_refused(layer, false);
        if (code < 0) return fail_with(unpack, code, err_text(), "");
        layer->pending += taken, layer->pending_bytes -= taken;
        if (got) return (la_ssize_t)got;
    }
}

static la_ssize_t feed(struct archive *archive, void *arg, const void **out) {
    struct layer *layer = arg;
    la_ssize_t got;
    if (layer->unzipped) {
        got = unzip(layer);
        *out = layer->unzipped;
    } else {
        got = layer->pending_bytes ? (la_ssize_t)layer->pending_bytes : fill(layer);
        *out = layer->pending;
        layer->pending_bytes = 0;
    }
    if (got >= 0) return got;
    archive_set_error(archive, EIO, "%s", err_text());
    return ARCHIVE_FATAL;
}

static void jump(struct unpack *unpack, uint64_t offset) {
    bool near = offset >= unpack->offset && offset - unpack->offset <= unpack->read_bytes;
    if (!near && !holds(unpack, offset)) unpack->read_bytes = STEP_BYTES;
    unpack->offset = offset;
}

static la_int64_t skip(struct archive *archive, void *arg, la_int64_t request) {
    (void)archive;
    struct layer *layer = arg;
    bool spooled = layer->spool >= 0;
    uint64_t left = spooled ? layer->spool_bytes - layer->spool_at : layer->unpack->reader.size - layer->unpack->offset;
    if (layer->pending_bytes || request <= 0) return 0;
    uint64_t skipped = (uint64_t)request < left ? (uint64_t)request : left;
    if (spooled) layer->spool_at += skipped;
    else jump(layer->unpack, layer->unpack->offset + skipped);
    return (la_int64_t)skipped;
}

static la_int64_t seek(struct archive *archive, void *arg, la_int64_t offset, int whence) {
    (void)archive;
    struct layer *layer = arg;
    struct unpack *unpack = layer->unpack;
    bool spooled = layer->spool >= 0;
    la_int64_t size = (la_int64_t)(spooled ? layer->spool_bytes : unpack->reader.size - unpack->begin);
    la_int64_t at = (la_int64_t)(spooled ? layer->spool_at : unpack->offset - unpack->begin);
    la_int64_t from = whence == SEEK_END ? size : whence == SEEK_CUR ? at : 0;
    if (offset < -from || offset > size - from) return ARCHIVE_FATAL;
    layer->pending_bytes = 0;
    if (spooled) layer->spool_at = (uint64_t)(from + offset);
    else jump(unpack, unpack->begin + (uint64_t)(from + offset));
    return from + offset;
}

/* ---- Layers ------------------------------------------------------------------------------------------------------------------ */

typedef int support(struct archive *archive);
static support *const filters[] = {
    archive_read_support_filter_gzip, archive_read_support_filter_bzip2, archive_read_support_filter_xz,
    archive_read_support_filter_lzma, archive_read_support_filter_lzip,  archive_read_support_filter_zstd,
    archive_read_support_filter_lz4,  archive_read_support_filter_rpm,   archive_read_support_filter_compress,
};
static support *const wrapped[] = {archive_read_support_format_raw, archive_read_support_format_empty};
static support *const formats[] = {
    archive_read_support_format_tar,  archive_read_support_format_zip_seekable, archive_read_support_format_7zip,
    archive_read_support_format_ar,   archive_read_support_format_raw,          archive_read_support_format_empty,
};

static void layer_close(struct layer *layer) {
    if (layer->archive) archive_read_free(layer->archive);
    decompressor_close(layer->decompressor);
    if (layer->spool >= 0) close(layer->spool);
    layer->unpack->spool_bytes -= layer->spool_bytes;
    free(layer->block);
    free(layer->unzipped);
    *layer = (struct layer){.spool = -1};
}

/* Not ARCHIVE_OK would mean that libarchive was built without that decoder and calls a program for it. A tar is read up to the end of the
 * file, and not up to its mark of the end: only then are the digests looked at that xz, zstd and lz4 have there. */
static int layer_support(struct archive *archive, bool wraps, bool streamed_zip, bool cpio) {
    int code = ARCHIVE_OK;
    size_t count = wraps ? sizeof wrapped / sizeof *wrapped : sizeof formats / sizeof *formats;
    for (size_t i = 0; i < sizeof filters / sizeof *filters && code == ARCHIVE_OK; i++) code = filters[i](archive);
    for (size_t i = 0; i < count && code == ARCHIVE_OK; i++) code = (wraps ? wrapped : formats)[i](archive);
    if (code == ARCHIVE_OK && streamed_zip && !wraps) code = archive_read_support_format_zip_streamable(archive);
    if (code == ARCHIVE_OK && cpio) code = archive_read_support_format_cpio(archive);
    if (code == ARCHIVE_OK && !wraps) code = archive_read_set_format_option(archive, "tar", "read_concatenated_archives", "1");
    return code == ARCHIVE_OK ? 0 : err_set(ERR_UNSUPPORTED, "libarchive here lacks a decoder: %s", archive_error_string(archive));
}

static bool has_directory(const uint8_t *bytes, size_t size) {
    static const char *const beginnings[] = {"7z\xBC\xAF\x27\x1C", "PK\3\4", "PK\5\6"};
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++)
        if (size >= strlen(beginnings[i]) && memcmp(bytes, beginnings[i], strlen(beginnings[i])) == 0) return true;
    return false;
}

static int spool_write(struct layer *layer, int fd) {
    struct unpack *unpack = layer->unpack;
    uint64_t size = layer->spool_bytes;
    if (layer->pending_bytes > unpack->spool_bytes_max - unpack->spool_bytes)
        return err_set(ERR_LIMIT, "an archive within an archive of more than %llu bytes; unpack it first",
                       (unsigned long long)unpack->spool_bytes_max);
    int code = file_write_unnamed(fd, layer->pending, layer->pending_bytes, size);
    if (code < 0) return err_add(code, "%llu bytes of an archive within an archive", (unsigned long long)size);
    layer->spool_bytes += layer->pending_bytes;
    unpack->spool_bytes += layer->pending_bytes;
    return 0;
}

/* Puts all that the layer is fed with into a temporary file, in which it begins anew. */
static int spool(struct layer *layer) {
    struct unpack *unpack = layer->unpack;
    int fd, code = file_open_unnamed(&fd);
    if (code < 0) return fail(unpack, code);
    for (la_ssize_t got = 1; got > 0 && code == 0;) {
        code = spool_write(layer, fd);
        got = code == 0 ? fill(layer) : 0;
    }
    if (code == ERR_LIMIT) set_refused(layer, false); /* of the file; a disk that is full is none */
    if (code < 0 && !unpack->error.code) fail(unpack, err_add(code, "%s: %s", unpack->reader.name, unpack->name));
    layer->spool = fd; /* from now on it reads there */
    return unpack->error.code ? unpack->error.code : fill(layer) < 0 ? unpack->error.code : 0;
}

/* Opens the current member of the innermost layer, or the file. */
static int layer_push(struct unpack *unpack, bool wraps) {
    if (unpack->depth == UNPACK_DEPTH_MAX) {
        set_refused(&unpack->layer[unpack->depth - 1], true);
        return fail_with(unpack, ERR_LIMIT, "too many archives within archives", "; unpack some of them first");
    }
    struct layer *layer = &unpack->layer[unpack->depth];
    *layer = (struct layer){.unpack = unpack, .outer = unpack->depth ? layer - 1 : NULL, .prefix_bytes = strlen(unpack->name)};
    layer->wraps = wraps, layer->spool = -1;
    layer->archive = archive_read_new();
    CHECK(layer->archive);
    unpack->depth++;
    layer->block = mem_alloc(layer->outer ? BLOCK_BYTES : READER_BYTES_MAX);
    if (fill(layer) < 0) return unpack->error.code;
    if (layer->outer && has_directory(layer->pending, layer->pending_bytes)) TRY(spool(layer));
    layer->is_cpio = !wraps && content_is_cpio(layer->pending, layer->pending_bytes);
    int code = layer_support(layer->archive, wraps, layer->outer || unpack->count == 0, layer->is_cpio);
    if (code < 0) return fail(unpack, code);
    layer->decompressor = decompressor_open(layer->pending, layer->pending_bytes);
    if (layer->decompressor) layer->unzipped = mem_alloc(BLOCK_BYTES);
    archive_read_set_callback_data(layer->archive, layer);
    archive_read_set_read_callback(layer->archive, feed);
    if ((!layer->outer || layer->spool >= 0) && !layer->unzipped) {
        archive_read_set_skip_callback(layer->archive, skip);
        archive_read_set_seek_callback(layer->archive, seek);
    }
    code = archive_read_open1(layer->archive);
    return code < ARCHIVE_WARN || unpack->error.code ? fail_archive(layer, code) : 0;
}

static bool is_tar(const struct layer *layer) { return (archive_format(layer->archive) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_TAR; }

/* Type 0: the archive gives none, as one of Debian's ar, whose modes are permissions alone. */
static bool is_file(struct archive_entry *entry) {
    return archive_entry_filetype(entry) == AE_IFREG || archive_entry_filetype(entry) == 0;
}

/* Is the entry a member? cpio keeps the bytes of a file with several names at the last of them. What holds bytes and is no file, as a
 * zip's folder may, is one that cannot be read; of a tar the size says nothing. */
static bool is_member(const struct layer *layer) {
    struct archive_entry *entry = layer->entry;
    bool bytes = archive_entry_size(entry) > 0;
    if (is_file(entry)) return bytes || !archive_entry_hardlink(entry);
    return bytes && archive_entry_filetype(entry) != AE_IFLNK && !is_tar(layer);
}

/* A compressed archive may have ended, and digests of the compression come after that. */
static int finish(struct layer *layer) {
    la_ssize_t got = 1;
    while (layer->unzipped && got > 0) got = unzip(layer);
    while (reads_unpacked(layer) && got > 0) got = fill(layer);
    if (layer->late.code < 0) return fail_late(layer);
    return got < 0 ? (int)got : 0;
}

/* 1: it is at its next member, 0: there are no more. */
static int layer_next(struct layer *layer) {
    while (!layer->plain) {
        int code = archive_read_next_header(layer->archive, &layer->entry);
        int format = archive_format(layer->archive);
        layer->data_bytes = 0, layer->given = 0;
        if (layer->unpack->error.code || (code != ARCHIVE_OK && code != ARCHIVE_WARN && code != ARCHIVE_EOF)) {
            layer->entry = NULL;
            return fail_archive(layer, ARCHIVE_FATAL);
        }
        layer->empty = code == ARCHIVE_EOF && format == ARCHIVE_FORMAT_EMPTY;
        layer->plain = layer->empty || (code != ARCHIVE_EOF && format == ARCHIVE_FORMAT_RAW);
        if (layer->plain) return 1;
        if (code == ARCHIVE_EOF) return finish(layer);
        layer->begun = true;
        if (!is_member(layer)) continue;
        layer->members++;
        return 1;
    }
    return 0;
}

/* The next bytes of the current member. 1: layer->data has them, 0: it is at its end. */
static int next_block(struct layer *layer) {
    const void *data;
    la_int64_t at = 0;
    while (layer->data_bytes == 0) {
        if (layer->unpack->error.code) return layer->unpack->error.code;
        int code = archive_read_data_block(layer->archive, &data, &layer->data_bytes, &at);
        if (code == ARCHIVE_OK && at < (la_int64_t)layer->given) {
            archive_set_error(layer->archive, EINVAL, "overlapping sparse blocks");
            code = ARCHIVE_FATAL;
        }
        if (code != ARCHIVE_OK) layer->data_bytes = 0;
        if (code == ARCHIVE_EOF) return layer->late.code < 0 && layer->plain ? fail_late(layer) : 0;
        if (code != ARCHIVE_OK) return fail_archive(layer, code);
        layer->data = data, layer->data_at = (uint64_t)at;
    }
    return 1;
}

/* As archive_read_data(), which drops what it has when an error follows: here the next call returns that error. */
static la_ssize_t read_data(struct layer *layer, uint8_t *out, size_t size_bytes) {
    size_t done = 0;
    while (done < size_bytes) {
        int code = next_block(layer);
        if (code < 0 && done == 0) return ARCHIVE_FATAL;
        if (code <= 0) break;
        uint64_t hole = layer->data_at - layer->given; /* of a sparse file */
        size_t room = size_bytes - done, n = layer->data_bytes < room ? layer->data_bytes : room;
        if (hole > 0) n = hole < room ? (size_t)hole : room;
        if (hole > 0) memset(out + done, 0, n);
        else {
            memcpy(out + done, layer->data, n);
            layer->data += n, layer->data_bytes -= n, layer->data_at += n;
        }
        layer->given += n, done += n;
    }
    return (la_ssize_t)done;
}

/* Zeros that read_data() would write for what the archive has no bytes of. */
static uint64_t hole_bytes(struct archive_entry *entry) {
    la_int64_t at, size;
    uint64_t end = 0, held = 0;
    if (archive_entry_sparse_count(entry) == 0) return 0; /* which frees a block without a hole: else resetting would, and go on with it */
    archive_entry_sparse_reset(entry);
    while (archive_entry_sparse_next(entry, &at, &size) == ARCHIVE_OK) {
        if (size > 0) end = (uint64_t)at + (uint64_t)size;
        held += (uint64_t)size;
    }
    return end - held;
}

static int member_read(struct layer *layer, void *out, size_t *out_got, size_t size_bytes) {
    struct unpack *unpack = layer->unpack;
    if (unpack->error.code) return unpack->error.code;
    la_ssize_t got = 0;
    if (!layer->plain && !is_file(layer->entry)) return refuse(layer, true, "no file, though it holds bytes", "");
    if (!layer->plain && archive_entry_is_data_encrypted(layer->entry))
        return refuse(layer, true, ENCRYPTED, "");
    if (!layer->plain && layer->given == 0 && hole_bytes(layer->entry) / UNPACKED_RATIO_MAX > unpack->reader.size)
        return refuse(layer, true, "a sparse file with holes of more than 1032 times the bytes of the archive", "; unpack it first");
    bool empty = layer->empty || (archive_entry_size_is_set(layer->entry) && archive_entry_size(layer->entry) == 0);
    if (!empty) got = read_data(layer, out, size_bytes); /* an empty LZMA member of a zip would be an error */
    if (got < 0 || (layer->empty && layer->late.code < 0)) return fail_archive(layer, ARCHIVE_FATAL);
    *out_got = (size_t)got;
    return 0;
}

/* Can the members of the outermost archive be reached without reading those before? */
static bool reachable(const struct layer *layer) {
    return !layer->plain && can_seek(layer) && (is_tar(layer) || archive_format(layer->archive) == ARCHIVE_FORMAT_ZIP);
}

static int read_spooled(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    return file_read_at(((struct layer *)arg)->spool, out, out_got, size_bytes, offset);
}

/* The archive has ended. Bytes before and behind it, in the file or member that it is, are an error that can be passed; 0: there are none,
 * or it is one that is not sought in (docs/FORMATS.md, "Damage"). */
static int around(struct layer *layer) {
    struct unpack *unpack = layer->unpack;
    if (layer->told_around || layer->plain || !can_seek(layer)) return 0;
    layer->told_around = true;
    int format = archive_format(layer->archive) & ARCHIVE_FORMAT_BASE_MASK;
    struct byte_reader spooled = {read_spooled, layer, unpack->reader.name, layer->spool_bytes};
    const struct byte_reader *reader = layer->spool >= 0 ? &spooled : &unpack->reader;
    uint64_t behind = (uint64_t)archive_filter_bytes(layer->archive, 0);
    struct extent extent = {0, reader->size};
    int code = format == ARCHIVE_FORMAT_ZIP    ? extent_of_zip(&extent, reader, behind)
               : format == ARCHIVE_FORMAT_7ZIP ? extent_of_7z(&extent, reader)
               : format == ARCHIVE_FORMAT_CPIO ? extent_of_filled(&extent, reader, behind)
                                               : 0;
    struct extent filled = extent; /* a tape or a disk fills up with zeros */
    if (code == 0 && extent.end < reader->size) code = extent_of_filled(&filled, reader, extent.end);
    if (code < 0) return fail(unpack, code);
    uint64_t before = extent.begin, after = reader->size - filled.end;
    if (before + after == 0) return 0;
    unpack->fault = UNPACK_AROUND, unpack->refuses = layer, unpack->around_bytes = before + after;
    char *words = mem_format("%llu bytes before%s and %llu behind the %s in it belong to none of its members", (unsigned long long)before,
                             before > 0 ? " (the program of one that extracts itself, perhaps)" : "", (unsigned long long)after,
                             format == ARCHIVE_FORMAT_ZIP ? "zip" : format == ARCHIVE_FORMAT_7ZIP ? "7z" : "cpio");
    code = fail_with(unpack, ERR_CORRUPT, words, "; give an archive among them as a file of its own");
    free(words);
    return code;
}

/* ---- What others call -------------------------------------------------------------------------------------------------------- */

/* One that has no name, or one that is not UTF-8 where a zip says so, is named by its place. */
static const char *entry_name(struct layer *layer) {
    const char *name = archive_entry_pathname(layer->entry);
    while (name && strncmp(name, "./", 2) == 0) name += 2 + strspn(name + 2, "/");
    if (name && *name) return name;
    snprintf(layer->made_name, sizeof layer->made_name, "member %llu", (unsigned long long)layer->members);
    return layer->made_name;
}

/* libarchive takes text for a cpio by its first two or six letters. So a layer reads a cpio only when the bytes that it is fed with begin
 * one; one that is compressed is plain first, and opened in its turn. Its first bytes are there: libarchive has looked at them. */
static bool begins_cpio(struct layer *layer) {
    return !layer->is_cpio && !layer->empty && next_block(layer) > 0 && content_is_cpio(layer->data, layer->data_bytes);
}

/* The next member of the outermost archive that was asked for. */
static int next_outermost(struct unpack *unpack) {
    struct layer *layer = unpack->layer;
    bool some = unpack->count > 0;
    while (!some || unpack->members < unpack->first || unpack->members - unpack->first < unpack->count) {
        int code = layer_next(layer);
        if (code >= 0 && some && !reachable(layer))
            return fail_with(unpack, ERR_CORRUPT, "is no archive that can be sought", "; it changed");
        if (code == 0 && some) return fail_with(unpack, ERR_CORRUPT, "has fewer members than before", "; it changed");
        if (code <= 0) return code;
        if (unpack->members++ >= unpack->first) return 1;
    }
    return 0;
}

static int next_member(struct unpack *unpack) {
    if (unpack->error.code) return unpack->error.code;
    for (;;) {
        struct layer *layer = &unpack->layer[unpack->depth - 1];
        unpack->name[layer->prefix_bytes] = 0; /* until the next member is known, an error names the archive */
        int code = layer->told_around ? 0 : layer->outer ? layer_next(layer) : next_outermost(unpack);
        if (code == 0 && (layer->outer || unpack->to_end)) code = around(layer);
        if (code < 0 || (code == 0 && !layer->outer)) return code;
        if (code == 0) {
            layer_close(layer);
            unpack->depth--;
            continue;
        }
        if (layer->wraps || (layer->plain && begins_cpio(layer))) {
            TRY(layer_push(unpack, false));
            continue;
        }
        if (layer->plain) return 1;
        size_t at = packed_name_put(unpack->name, layer->prefix_bytes, layer->prefix_bytes ? "!" : "");
        packed_name_put(unpack->name, at, entry_name(layer));
        if (!unpack_needed(entry_name(layer))) return 1;
        TRY(layer_push(unpack, packed_name_wraps_directory(entry_name(layer), strlen(entry_name(layer)))));
    }
}

/* A tar can be read from any header on; a zip is led by its directory. */
static int open_at(struct unpack *unpack, uint64_t begin) {
    const char *name = unpack->reader.name;
    TRY(layer_push(unpack, packed_name_wraps_directory(name, packed_name_bytes(name))));
    if (begin == 0 || unpack->count == 0) return 0;
    struct layer *layer = unpack->layer;
    int code = layer_next(layer);
    if (code != 1 || !reachable(layer) || !is_tar(layer)) begin = 0;
    layer_close(layer);
    unpack->depth = 0;
    if (code < 0) return code;
    if (begin > unpack->reader.size) return fail_with(unpack, ERR_CORRUPT, "is shorter than before", "; it changed");
    if (begin > 0) unpack->members = unpack->first;
    unpack->begin = unpack->offset = begin, unpack->held_bytes = 0, unpack->read_bytes = STEP_BYTES;
    TRY(layer_push(unpack, false));
    unpack->layer->members = unpack->members;
    return 0;
}

int unpack_open(struct unpack **out, const struct byte_reader *reader, uint64_t first, uint64_t count) {
    enum unpack_fault fault;
    return unpack_open_at(out, &fault, reader, first, count, 0);
}

int unpack_open_at(struct unpack **out, enum unpack_fault *out_fault, const struct byte_reader *reader, uint64_t first, uint64_t count,
                   uint64_t begin) {
    *out_fault = UNPACK_SOUND;
    if (count == 0 && first > 0) return err_set(ERR_CORRUPT, "%s: no members, from a later one on", reader->name);
    struct unpack *unpack = mem_alloc(sizeof *unpack);
    *unpack = (struct unpack){.reader = *reader, .read_bytes = STEP_BYTES, .first = first, .count = count,
                              .to_end = count == 0, .spool_bytes_max = UNPACK_SPOOL_BYTES_MAX};
    unpack->locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    if (!unpack->locale) {
        free(unpack);
        return err_set(ERR_UNSUPPORTED, "this system has no locale C.UTF-8, which names in archives need");
    }
    locale_t before = uselocale(unpack->locale);
    int code = told(unpack, open_at(unpack, begin));
    uselocale(before);
    *out_fault = unpack->fault;
    if (code < 0)
        unpack_close(unpack);
    else
        *out = unpack;
    return code;
}

void unpack_close(struct unpack *unpack) {
    if (!unpack) return;
    locale_t before = uselocale(unpack->locale);
    while (unpack->depth > 0) layer_close(&unpack->layer[--unpack->depth]);
    uselocale(before);
    freelocale(unpack->locale);
    free(unpack);
}

enum unpack_fault unpack_fault(const struct unpack *unpack) { return unpack->fault; }

const char *unpack_name(const struct unpack *unpack) { return unpack->name; }

uint64_t unpack_pass(struct unpack *unpack) {
    CHECK(unpack->error.code && (unpack->fault == UNPACK_PASSABLE || unpack->fault == UNPACK_AROUND));
    const bool around = unpack->fault == UNPACK_AROUND;
    locale_t before = uselocale(unpack->locale);
    while (&unpack->layer[unpack->depth - 1] != unpack->refuses) layer_close(&unpack->layer[--unpack->depth]);
    struct archive_entry *entry = unpack->refuses->entry;
    la_int64_t size = archive_entry_size_is_set(entry) ? archive_entry_size(entry) : 0;
    uselocale(before);
    unpack->error = (struct err){0}, unpack->fault = UNPACK_SOUND, unpack->refuses = NULL;
    return around ? unpack->around_bytes : size < 0 ? 0 : (uint64_t)size;
}

void unpack_to_end(struct unpack *unpack) { unpack->to_end = true; }

void unpack_tick(struct unpack *unpack, int (*tick)(void *arg), void *arg) { unpack->tick = tick, unpack->tick_arg = arg; }

void unpack_limit_spool(struct unpack *unpack, uint64_t bytes_max) { unpack->spool_bytes_max = bytes_max; }

int unpack_next(struct unpack *unpack, const char **out_name) {
    locale_t before = uselocale(unpack->locale);
    int code = next_member(unpack);
    uselocale(before);
    if (code == 1) *out_name = unpack->name;
    return told(unpack, code);
}

int unpack_read(struct unpack *unpack, void *out, size_t *out_got, size_t size_bytes) {
    locale_t before = uselocale(unpack->locale);
    int code = member_read(&unpack->layer[unpack->depth - 1], out, out_got, size_bytes);
    uselocale(before);
    return told(unpack, code);
}

/* What libarchive, or the decoder before it, has taken of what was read. */
uint64_t unpack_used(const struct unpack *unpack) {
    const struct layer *layer = unpack->layer;
    if (layer->unzipped) return unpack->offset - layer->pending_bytes;
    la_int64_t taken = archive_filter_bytes(layer->archive, -1);
    return taken < 0 ? unpack->offset : unpack->begin + (uint64_t)taken;
}

/* Where a member begins: in a tar at the first of its headers; in a zip, whose reader goes there only with the header, behind it. */
static uint64_t member_begin(struct layer *layer) {
    la_int64_t at = is_tar(layer) ? archive_read_header_position(layer->archive) : archive_filter_bytes(layer->archive, 0);
    return at < 0 ? 0 : (uint64_t)at;
}

static int index_members(struct unpack *unpack, uint64_t **out, size_t *out_count) {
    struct layer *layer = unpack->layer;
    uint64_t *sizes = NULL, before = 0;
    size_t count = 0, capacity = 0;
    int code;
    while ((code = layer_next(layer)) == 1 && reachable(layer)) {
        uint64_t at = member_begin(layer);
        if (count == capacity) sizes = mem_resize(sizes, (capacity = capacity ? capacity * 2 : 256) * sizeof *sizes);
        if (count > 0) sizes[count - 1] = at > before ? at - before : 0;
        before = count > 0 && at > before ? at : before;
        count++;
    }
    if (code < 0) {
        free(sizes);
        return code;
    }
    if (count > 0) sizes[count - 1] = unpack->reader.size - before;
    *out = sizes, *out_count = count;
    return 0;
}

int unpack_index(uint64_t **out, size_t *out_count, const struct byte_reader *reader) {
    struct unpack *unpack;
    enum unpack_fault fault;
    int code = unpack_open_at(&unpack, &fault, reader, 0, UINT64_MAX, 0); /* as when a part is opened: a zip only by its directory */
    if (code == 0) {
        locale_t before = uselocale(unpack->locale);
        code = told(unpack, index_members(unpack, out, out_count));
        uselocale(before);
        fault = unpack->fault;
        unpack_close(unpack);
    }
    if (code == 0 || fault == UNPACK_SOUND) return code;
    log_debug("without an index of its members: %s", err_text());
    *out_count = 0;
    return 0;
}
