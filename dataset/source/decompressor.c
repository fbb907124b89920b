/* Which decoder the first bytes ask for, and each call passed on to it. */
#include "dataset/source/decompressor.h"

#include <stdlib.h>

#include "base/machine.h"
#include "base/mem.h"
#include "dataset/source/gunzip.h"
#include "dataset/source/unbzip2.h"
#include "dataset/source/unxz.h"
#include "dataset/source/unzstd.h"

struct decompressor { /* one of them is there */
    struct gunzip *gunzip;
    struct unzstd *unzstd;
    struct unxz *unxz;
    struct unbzip2 *unbzip2;
    const char *name;
};

/* Of the largest window of zstd that the memory that is free allows. */
static int window_log(void) {
    struct machine_memory memory = {0};
    return unzstd_window_log(machine_memory(&memory, "") < 0 ? 0 : memory.available_bytes);
}

struct decompressor *decompressor_open(const uint8_t *bytes, size_t size_bytes) {
    struct decompressor found = {0};
    enum unxz_format xz = unxz_knows(bytes, size_bytes);
    if (gunzip_knows(bytes, size_bytes)) found = (struct decompressor){.gunzip = gunzip_open(), .name = "gzip"};
    else if (unzstd_knows(bytes, size_bytes)) found = (struct decompressor){.unzstd = unzstd_open(window_log()), .name = "zstd"};
    else if (unbzip2_knows(bytes, size_bytes)) found = (struct decompressor){.unbzip2 = unbzip2_open(), .name = "bzip2"};
    else if (xz != UNXZ_NEITHER) found = (struct decompressor){.unxz = unxz_open(xz), .name = xz == UNXZ_XZ ? "xz" : "lzma"};
    else return NULL;
    struct decompressor *decompressor = mem_alloc(sizeof *decompressor);
    *decompressor = found;
    return decompressor;
}

void decompressor_close(struct decompressor *decompressor) {
    if (!decompressor) return;
    gunzip_close(decompressor->gunzip);
    unzstd_close(decompressor->unzstd);
    unxz_close(decompressor->unxz);
    unbzip2_close(decompressor->unbzip2);
    free(decompressor);
}

const char *decompressor_name(const struct decompressor *decompressor) { return decompressor->name; }

int decompressor_step(struct decompressor *d, uint8_t *out, size_t *out_got, size_t size_bytes, const uint8_t *in, size_t *in_taken,
                      size_t in_bytes) {
    if (d->gunzip) return gunzip_step(d->gunzip, out, out_got, size_bytes, in, in_taken, in_bytes);
    if (d->unzstd) return unzstd_step(d->unzstd, out, out_got, size_bytes, in, in_taken, in_bytes);
    if (d->unxz) return unxz_step(d->unxz, out, out_got, size_bytes, in, in_taken, in_bytes);
    return unbzip2_step(d->unbzip2, out, out_got, size_bytes, in, in_taken, in_bytes);
}

bool decompressor_whole(const struct decompressor *d) {
    if (d->gunzip) return gunzip_whole(d->gunzip);
    if (d->unzstd) return unzstd_whole(d->unzstd);
    return d->unxz ? unxz_whole(d->unxz) : unbzip2_whole(d->unbzip2);
}
