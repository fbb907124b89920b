/* gzip, with every length and CRC checked: libarchive's own filter checks neither, and a flipped bit in a .gz would become text. Members
 * that follow one another are one stream; zeros after the last one are padding, anything else there is damage. The only file of the
 * project that knows zlib. */
#ifndef MILLRACE_DATASET_GUNZIP_H
#define MILLRACE_DATASET_GUNZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool gunzip_knows(const uint8_t *bytes, size_t size_bytes);  /* do these begin a gzip stream? */

struct gunzip;
struct gunzip *gunzip_open(void);
void gunzip_close(struct gunzip *gunzip);  /* NULL is fine */

/* Unpacks from in to out until either is used up; without input, what is left in the decoder. ERR_CORRUPT says what is wrong, not where. */
int gunzip_step(struct gunzip *gunzip, uint8_t *out, size_t *out_got, size_t size_bytes, const uint8_t *in, size_t *in_taken,
                size_t in_bytes);
bool gunzip_whole(const struct gunzip *gunzip);  /* the stream may end here */

#endif
