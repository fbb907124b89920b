/* libzstd's streaming decoder, and what its errors mean for a person. A struct unzstd is one decoder and whether a frame is under way. */
#include "dataset/source/unzstd.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/source/decompressor.h"

struct unzstd {
    ZSTD_DStream *stream;
    int window_log;
    bool inside; /* a frame */
    bool begun;  /* the first frame */
};

bool unzstd_knows(const uint8_t *bytes, size_t size_bytes) {
    static const uint8_t frame[] = {0x28, 0xB5, 0x2F, 0xFD}, skippable[] = {0x2A, 0x4D, 0x18};
    if (size_bytes < 4) return false;
    return memcmp(bytes, frame, sizeof frame) == 0 || (bytes[0] >> 4 == 5 && memcmp(bytes + 1, skippable, sizeof skippable) == 0);
}

int unzstd_window_log(uint64_t available_bytes) {
    int log = UNZSTD_WINDOW_LOG;
    while (log < UNZSTD_WINDOW_LOG_MAX && available_bytes / 4 * 3 >= UINT64_C(1) << (log + 1)) log++;
    return log;
}

struct unzstd *unzstd_open(int window_log) {
    struct unzstd *unzstd = mem_alloc(sizeof *unzstd);
    *unzstd = (struct unzstd){.stream = ZSTD_createDStream(), .window_log = window_log};
    CHECK(unzstd->stream && !ZSTD_isError(ZSTD_DCtx_setParameter(unzstd->stream, ZSTD_d_windowLogMax, window_log)));
    return unzstd;
}

void unzstd_close(struct unzstd *unzstd) {
    if (unzstd) ZSTD_freeDStream(unzstd->stream);
    free(unzstd);
}

static int refuse(const struct unzstd *unzstd, size_t answer) {
    switch (ZSTD_getErrorCode(answer)) {
    case ZSTD_error_memory_allocation: return err_set(ERR_MEMORY, "no memory to unpack zstd");
    case ZSTD_error_frameParameter_windowTooLarge:
        if (unzstd->window_log == UNZSTD_WINDOW_LOG_MAX) /* a turned bit asks for any window */
            return err_set(ERR_UNSUPPORTED, "zstd: asks for a window of more than 2 GiB, which nobody reads; is it damaged? Get it again");
        return err_set(ERR_MEMORY,
                       "zstd: was packed with a window of more than %d MiB, which takes as much memory, and so much is not free here; "
                       "use a machine with more, or pack it again: zstd -dc --long=31 FILE | zstd",
                       1 << (unzstd->window_log - 20));
    case ZSTD_error_dictionary_wrong:
        return err_set(ERR_UNSUPPORTED, "zstd: was packed with a dictionary, which is not here; unpack it with that first");
    case ZSTD_error_version_unsupported:
    case ZSTD_error_frameParameter_unsupported:
        return err_set(ERR_UNSUPPORTED, "zstd: %s; unpack it first", ZSTD_getErrorName(answer));
    case ZSTD_error_checksum_wrong: return err_set(ERR_CORRUPT, "zstd: " DECOMPRESSOR_UNFIT);
    case ZSTD_error_prefix_unknown:
        if (unzstd->begun && !unzstd->inside)
            return err_set(ERR_CORRUPT, "after the end of the zstd data comes something else; is it damaged? Get it again");
        /* fall through */
    default: return err_set(ERR_CORRUPT, "zstd: %s; the file is damaged: get it again", ZSTD_getErrorName(answer));
    }
}

int unzstd_step(struct unzstd *unzstd, uint8_t *out, size_t *out_got, size_t size_bytes, const uint8_t *in, size_t *in_taken,
                size_t in_bytes) {
    ZSTD_outBuffer to = {out, size_bytes, 0};
    ZSTD_inBuffer from = {in, in_bytes, 0};
    for (bool some = true; some && to.pos < to.size && (from.pos < from.size || unzstd->inside);) {
        ZSTD_outBuffer before = to;
        some = from.pos < from.size;
        size_t answer = ZSTD_decompressStream(unzstd->stream, &to, &from);
        *out_got = to.pos, *in_taken = from.pos;
        if (ZSTD_isError(answer)) return refuse(unzstd, answer);
        some |= to.pos > before.pos;
        unzstd->inside = answer != 0;
        unzstd->begun |= answer == 0;
    }
    *out_got = to.pos, *in_taken = from.pos;
    return 0;
}

bool unzstd_whole(const struct unzstd *unzstd) { return !unzstd->inside && unzstd->begun; }
