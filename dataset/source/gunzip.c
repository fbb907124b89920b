/* zlib's inflate in its gzip mode, which compares CRC and length at the end of each member. A struct gunzip is one z_stream and where it
 * is: before, inside or after a member, or in the padding. */
#include "dataset/source/gunzip.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/source/decompressor.h"

enum { GZIP_WINDOW_BITS = 15 + 16 }; /* 32 KiB, and the gzip wrapping and no other */

struct gunzip {
    z_stream stream;
    bool inside;  /* a member */
    bool padding; /* zeros after the last member */
    bool begun;   /* the first member */
};

bool gunzip_knows(const uint8_t *bytes, size_t size_bytes) {
    return size_bytes >= 3 && bytes[0] == 0x1F && bytes[1] == 0x8B && bytes[2] == Z_DEFLATED;
}

struct gunzip *gunzip_open(void) {
    struct gunzip *gunzip = mem_alloc(sizeof *gunzip);
    CHECK(inflateInit2(&gunzip->stream, GZIP_WINDOW_BITS) == Z_OK);
    return gunzip;
}

void gunzip_close(struct gunzip *gunzip) {
    if (gunzip) inflateEnd(&gunzip->stream);
    free(gunzip);
}

/* Between members: the next one begins, or there is padding. */
static int between(struct gunzip *gunzip, uint8_t byte) {
    if (byte == 0 && gunzip->begun) {
        gunzip->padding = true;
        gunzip->stream.next_in++, gunzip->stream.avail_in--;
        return 0;
    }
    if (byte != 0x1F || gunzip->padding)
        return err_set(ERR_CORRUPT, "after the end of the gzip data comes something else; is it damaged? Get it again");
    CHECK(inflateReset(&gunzip->stream) == Z_OK);
    gunzip->inside = gunzip->begun = true;
    return 0;
}

static int refuse(const char *words) {
    if (strstr(words, "data check") || strstr(words, "length check")) return err_set(ERR_CORRUPT, "gzip: " DECOMPRESSOR_UNFIT);
    return err_set(ERR_CORRUPT, "gzip: %s; the file is damaged: get it again", words);
}

int gunzip_step(struct gunzip *gunzip, uint8_t *out, size_t *out_got, size_t size_bytes, const uint8_t *in, size_t *in_taken,
                size_t in_bytes) {
    CHECK(size_bytes < UINT_MAX && in_bytes < UINT_MAX);
    z_stream *stream = &gunzip->stream;
    stream->next_out = out, stream->avail_out = (uInt)size_bytes;
    stream->next_in = (Bytef *)in, stream->avail_in = (uInt)in_bytes;
    int code = 0;
    while (code == 0 && stream->avail_out > 0 && (stream->avail_in > 0 || gunzip->inside)) {
        uInt in_before = stream->avail_in, out_before = stream->avail_out;
        if (!gunzip->inside) {
            code = between(gunzip, *stream->next_in);
            continue;
        }
        int answer = inflate(stream, Z_NO_FLUSH);
        if (answer == Z_STREAM_END)
            gunzip->inside = false;
        else if (answer == Z_MEM_ERROR)
            code = err_set(ERR_MEMORY, "no memory to unpack gzip");
        else if (answer != Z_OK && answer != Z_BUF_ERROR)
            code = refuse(stream->msg ? stream->msg : "a preset dictionary");
        else if (stream->avail_in == in_before && stream->avail_out == out_before)
            break;
    }
    *out_got = size_bytes - stream->avail_out;
    *in_taken = in_bytes - stream->avail_in;
    return code;
}

bool gunzip_whole(const struct gunzip *gunzip) { return !gunzip->inside && gunzip->begun; }
