/* A decompressor of what is unpacked here and not by libarchive: gzip, zstd, xz, lzma and bzip2, each in a file of its own that says why.
 * All give every byte that comes before damage.
 *
 * Order of calls: decompressor_open() with the first bytes of the stream; decompressor_step() until they are all unpacked, then with no
 * input until nothing comes any more; decompressor_whole() then says whether the stream is at its end. */
#ifndef MILLRACE_DATASET_DECOMPRESSOR_H
#define MILLRACE_DATASET_DECOMPRESSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A check value is looked at behind all that it is of. */
#define DECOMPRESSOR_UNFIT "its check value does not fit: text anywhere before may be wrong; the file is damaged: get it again"

struct decompressor;
struct decompressor *decompressor_open(const uint8_t *bytes, size_t size_bytes); /* NULL: they begin none of these streams */
void decompressor_close(struct decompressor *decompressor);                      /* NULL is fine */
const char *decompressor_name(const struct decompressor *decompressor);          /* "gzip" */

/* Unpacks from in to out until either is used up. ERR_CORRUPT, ERR_UNSUPPORTED or ERR_MEMORY says what is wrong, not where; *out_got bytes
 * came before it. */
int decompressor_step(struct decompressor *decompressor, uint8_t *out, size_t *out_got, size_t size_bytes, const uint8_t *in,
                      size_t *in_taken, size_t in_bytes);
bool decompressor_whole(const struct decompressor *decompressor); /* the stream may end here */

#endif
