/* liblzma's decoders of one stream each, and what their errors mean for a person. A struct unxz is one lzma_stream and where it is: before,
 * inside or after a stream, or in the padding. */
#include "dataset/source/unxz.h"

#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

#define MEMORY_BYTES_MAX (UINT64_C(1) << 30) /* as much as libarchive gives it: xz -9 asks for 65 MiB */

struct unxz {
    lzma_stream stream;
    enum unxz_format format;
    bool inside;    /* a stream */
    bool begun;     /* the first stream */
    size_t padding; /* zeros since the last stream of xz */
};

static uint32_t little_endian(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* An .lzma stream has no magic number: the properties that every packer writes (5D), a size of the dictionary that is 2^n or 2^n + 2^(n-1)
 * from 4 KiB to 64 MiB, and the size of what is packed, which is all ones when it was not known, and here below 256 GiB. */
static bool begins_lzma(const uint8_t *bytes) {
    uint32_t dictionary = little_endian(bytes + 1), high = little_endian(bytes + 9);
    uint32_t rest = dictionary & (dictionary - 1); /* without the lowest bit that is set */
    bool plausible = dictionary >= 1 << 12 && dictionary <= 1 << 26 && (rest == 0 || rest == 2 * (dictionary - rest));
    bool unknown = high == UINT32_MAX && little_endian(bytes + 5) == UINT32_MAX;
    return bytes[0] == 0x5D && plausible && (unknown || high < 64);
}

enum unxz_format unxz_knows(const uint8_t *bytes, size_t size_bytes) {
    static const uint8_t magic[] = {0xFD, '7', 'z', 'X', 'Z', 0};
    if (size_bytes >= sizeof magic && memcmp(bytes, magic, sizeof magic) == 0) return UNXZ_XZ;
    return size_bytes >= 13 && begins_lzma(bytes) ? UNXZ_LZMA : UNXZ_NEITHER;
}

/* Begins a stream, with the memory of the one before. */
static void begin(struct unxz *unxz) {
    lzma_ret answer = unxz->format == UNXZ_XZ ? lzma_stream_decoder(&unxz->stream, MEMORY_BYTES_MAX, 0)
                                              : lzma_alone_decoder(&unxz->stream, MEMORY_BYTES_MAX);
    CHECK(answer == LZMA_OK);
}

struct unxz *unxz_open(enum unxz_format format) {
    CHECK(format != UNXZ_NEITHER);
    struct unxz *unxz = mem_alloc(sizeof *unxz);
    *unxz = (struct unxz){.stream = LZMA_STREAM_INIT, .format = format};
    begin(unxz);
    return unxz;
}

void unxz_close(struct unxz *unxz) {
    if (unxz) lzma_end(&unxz->stream);
    free(unxz);
}

static int refuse(const struct unxz *unxz, lzma_ret answer) {
    const char *name = unxz->format == UNXZ_XZ ? "xz" : "lzma";
    switch (answer) {
    case LZMA_MEM_ERROR: return err_set(ERR_MEMORY, "no memory to unpack %s", name);
    case LZMA_MEMLIMIT_ERROR:
        return err_set(ERR_UNSUPPORTED, "%s: was packed with a dictionary of more than %d MiB; unpack it first", name,
                       (int)(MEMORY_BYTES_MAX >> 20));
    case LZMA_OPTIONS_ERROR: return err_set(ERR_UNSUPPORTED, "%s: was packed by a method that is not known here; unpack it first", name);
    case LZMA_FORMAT_ERROR:
        return err_set(ERR_CORRUPT, "after the end of the %s data comes something else; is it damaged? Get it again", name);
    default: /* liblzma has one word for that and for a check value that does not fit */
        return err_set(ERR_CORRUPT, "%s: its data have no sense, and text before may be wrong, too; the file is damaged: get it again",
                       name);
    }
}

/* Between streams: the next one begins, or there is padding. Behind an .lzma stream there are zeros at most. */
static int between(struct unxz *unxz, uint8_t byte) {
    bool single = unxz->format == UNXZ_LZMA;
    if (unxz->begun && byte == 0) {
        unxz->padding += !single, unxz->stream.next_in++, unxz->stream.avail_in--;
        return 0;
    }
    if (unxz->padding % 4 != 0 || (unxz->begun && single)) return refuse(unxz, LZMA_FORMAT_ERROR);
    if (unxz->begun) begin(unxz);
    unxz->inside = unxz->begun = true, unxz->padding = 0;
    return 0;
}

int unxz_step(struct unxz *unxz, uint8_t *out, size_t *out_got, size_t size_bytes, const uint8_t *in, size_t *in_taken, size_t in_bytes) {
    lzma_stream *stream = &unxz->stream;
    lzma_ret answer = LZMA_OK;
    int code = 0;
    stream->next_in = in, stream->avail_in = in_bytes;
    stream->next_out = out, stream->avail_out = size_bytes;
    while (code == 0 && stream->avail_out > 0 && (stream->avail_in > 0 || unxz->inside)) {
        size_t in_before = stream->avail_in, out_before = stream->avail_out;
        if (!unxz->inside) {
            code = between(unxz, *stream->next_in);
            continue;
        }
        answer = lzma_code(stream, LZMA_RUN);
        if (answer == LZMA_STREAM_END) unxz->inside = false;
        else if (answer != LZMA_OK && answer != LZMA_BUF_ERROR) code = refuse(unxz, answer);
        else if (stream->avail_in == in_before && stream->avail_out == out_before) break;
    }
    *out_got = size_bytes - stream->avail_out;
    *in_taken = in_bytes - stream->avail_in;
    return code;
}

bool unxz_whole(const struct unxz *unxz) { return !unxz->inside && unxz->begun && unxz->padding % 4 == 0; }
