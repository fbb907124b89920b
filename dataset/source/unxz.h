/* xz and the older .lzma, through liblzma: libarchive's own filter gives whole blocks of 64 KiB only, so that up to that much before damage
 * would be lost. Streams of xz that follow one another are one; between and behind them there may be zeros, a multiple of four, and
 * anything else is damage. Behind an .lzma stream there may be any number of zeros, and anything else is damage, as it is to xz: another
 * stream, too, for the format has no way to go on. The only file that knows liblzma. */
#ifndef MILLRACE_DATASET_UNXZ_H
#define MILLRACE_DATASET_UNXZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum unxz_format { UNXZ_NEITHER, UNXZ_XZ, UNXZ_LZMA };
enum unxz_format unxz_knows(const uint8_t *bytes, size_t size_bytes); /* which of them do these bytes begin? */

struct unxz;
struct unxz *unxz_open(enum unxz_format format);
void unxz_close(struct unxz *unxz); /* NULL is fine */

/* Unpacks from in to out until either is used up; without input, what is left in the decoder. ERR_CORRUPT, ERR_UNSUPPORTED or ERR_MEMORY
 * says what is wrong, not where; *out_got bytes came before it. */
int unxz_step(struct unxz *unxz, uint8_t *out, size_t *out_got, size_t size_bytes, const uint8_t *in, size_t *in_taken, size_t in_bytes);
bool unxz_whole(const struct unxz *unxz); /* the stream may end here */

#endif
