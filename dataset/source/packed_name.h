/* What a name says of what is packed, and names of members as they are shown; unpack_needed() and unpack_stem() are in
 * dataset/source/unpack.h. */
#ifndef MILLRACE_DATASET_PACKED_NAME_H
#define MILLRACE_DATASET_PACKED_NAME_H

#include <stdbool.h>
#include <stddef.h>

size_t packed_name_bytes(const char *name);  /* without a URL's query */
/* Is it a 7z or a zip under compression, by the first size bytes of its name? */
bool packed_name_wraps_directory(const char *name, size_t size);
/* Appends text to a name of UNPACK_NAME_BYTES from `at` on, as far as there is room for whole characters: what is not UTF-8 and what
 * controls a terminal becomes U+FFFD. Returns where the name ends. */
size_t packed_name_put(char *name, size_t at, const char *text);

#endif
