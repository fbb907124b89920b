/* bzip2, through libbz2: libarchive's own filter gives whole blocks of 64 KiB only, so that up to that much before damage would be lost.
 * Streams that follow one another are one; zeros behind the last one are padding, anything else there is damage. The only file that knows
 * libbz2. */
#ifndef MILLRACE_DATASET_UNBZIP2_H
#define MILLRACE_DATASET_UNBZIP2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool unbzip2_knows(const uint8_t *bytes, size_t size_bytes); /* do these begin a bzip2 stream? */

struct unbzip2;
struct unbzip2 *unbzip2_open(void);
void unbzip2_close(struct unbzip2 *unbzip2); /* NULL is fine */

/* Unpacks from in to out until either is used up; without input, what is left in the decoder. ERR_CORRUPT or ERR_MEMORY says what is wrong,
 * not where; *out_got bytes came before it. */
int unbzip2_step(struct unbzip2 *unbzip2, uint8_t *out, size_t *out_got, size_t size_bytes, const uint8_t *in, size_t *in_taken,
                 size_t in_bytes);
bool unbzip2_whole(const struct unbzip2 *unbzip2); /* the stream may end here */

#endif
