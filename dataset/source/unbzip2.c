/* libbz2's decoder of one stream, and what its errors mean for a person. A struct unbzip2 is one bz_stream and where it is: before, inside
 * or after a stream, or in the padding. */
#include "dataset/source/unbzip2.h"

#include <bzlib.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

struct unbzip2 {
    bz_stream stream;
    bool open;    /* the stream has libbz2's memory */
    bool inside;  /* a stream */
    bool begun;   /* the first stream */
    bool padding; /* zeros after the last stream */
};

bool unbzip2_knows(const uint8_t *bytes, size_t size_bytes) {
    static const uint8_t block[] = {0x31, 0x41, 0x59, 0x26, 0x53, 0x59}, end[] = {0x17, 0x72, 0x45, 0x38, 0x50, 0x90};
    if (size_bytes < 10 || memcmp(bytes, "BZh", 3) != 0 || bytes[3] < '1' || bytes[3] > '9') return false;
    return memcmp(bytes + 4, block, sizeof block) == 0 || memcmp(bytes + 4, end, sizeof end) == 0;
}

struct unbzip2 *unbzip2_open(void) {
    return mem_alloc(sizeof(struct unbzip2));
}

static void end(struct unbzip2 *unbzip2) {
    if (unbzip2->open) BZ2_bzDecompressEnd(&unbzip2->stream);
    unbzip2->open = unbzip2->inside = false;
}

void unbzip2_close(struct unbzip2 *unbzip2) {
    if (unbzip2) end(unbzip2);
    free(unbzip2);
}

static int refuse(int answer) {
    switch (answer) {
    case BZ_MEM_ERROR: return err_set(ERR_MEMORY, "no memory to unpack bzip2");
    case BZ_DATA_ERROR_MAGIC:
        return err_set(ERR_CORRUPT, "after the end of the bzip2 data comes something else; is it damaged? Get it again");
    default: /* libbz2 has one word for that and for a check value that does not fit */
        return err_set(ERR_CORRUPT, "bzip2: its data have no sense, and text before may be wrong, too; the file is damaged: get it again");
    }
}

/* Between streams: the next one begins, or there is padding. */
static int between(struct unbzip2 *unbzip2, uint8_t byte) {
    if (unbzip2->begun && byte == 0) {
        unbzip2->padding = true;
        unbzip2->stream.next_in++, unbzip2->stream.avail_in--;
        return 0;
    }
    if (unbzip2->padding) return refuse(BZ_DATA_ERROR_MAGIC);
    int answer = BZ2_bzDecompressInit(&unbzip2->stream, 0, 0); /* does not touch where input and output are */
    if (answer != BZ_OK) return refuse(answer);
    unbzip2->open = unbzip2->inside = unbzip2->begun = true;
    return 0;
}

int unbzip2_step(struct unbzip2 *unbzip2, uint8_t *out, size_t *out_got, size_t size_bytes, const uint8_t *in, size_t *in_taken,
                 size_t in_bytes) {
    CHECK(size_bytes < UINT_MAX && in_bytes < UINT_MAX);
    bz_stream *stream = &unbzip2->stream;
    int code = 0;
    stream->next_in = (char *)in, stream->avail_in = (unsigned)in_bytes;
    stream->next_out = (char *)out, stream->avail_out = (unsigned)size_bytes;
    while (code == 0 && stream->avail_out > 0 && (stream->avail_in > 0 || unbzip2->inside)) {
        unsigned in_before = stream->avail_in, out_before = stream->avail_out;
        if (!unbzip2->inside) {
            code = between(unbzip2, (uint8_t)*stream->next_in);
            continue;
        }
        int answer = BZ2_bzDecompress(stream);
        if (answer == BZ_STREAM_END) end(unbzip2);
        else if (answer != BZ_OK) code = refuse(answer);
        else if (stream->avail_in == in_before && stream->avail_out == out_before) break;
    }
    *out_got = size_bytes - stream->avail_out;
    *in_taken = in_bytes - stream->avail_in;
    return code;
}

bool unbzip2_whole(const struct unbzip2 *unbzip2) { return !unbzip2->inside && unbzip2->begun; }
