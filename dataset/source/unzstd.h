/* zstd, with windows up to 2 GiB (`zstd --long=31`, as dumps of Reddit have): libarchive's own filter ends at 128 MiB. Frames that follow
 * one another are one stream, with skippable ones among them; anything else behind the last one is damage.
 *
 * Memory: the window of a frame, in full. Up to 128 MiB always; a larger one only where the machine has that much and a third more free,
 * so that it does not push a worker out of memory. */
#ifndef MILLRACE_DATASET_UNZSTD_H
#define MILLRACE_DATASET_UNZSTD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UNZSTD_WINDOW_LOG = 27, UNZSTD_WINDOW_LOG_MAX = 31 };

bool unzstd_knows(const uint8_t *bytes, size_t size_bytes);  /* do these begin a zstd stream? */
int unzstd_window_log(uint64_t available_bytes);             /* of the largest window where so much memory is free */

struct unzstd;
struct unzstd *unzstd_open(int window_log);
void unzstd_close(struct unzstd *unzstd);  /* NULL is fine */

/* Unpacks from in to out until either is used up; without input, what is left in the decoder. ERR_CORRUPT, ERR_UNSUPPORTED or ERR_MEMORY
 * says what is wrong, not where. */
int unzstd_step(struct unzstd *unzstd, uint8_t *out, size_t *out_got, size_t size_bytes, const uint8_t *in, size_t *in_taken,
                size_t in_bytes);
bool unzstd_whole(const struct unzstd *unzstd);  /* the stream may end here */

#endif
