/* Digests. SHA-256 (OpenSSL's libcrypto) names blobs, datasets and weights; XXH3-128 (libxxhash) covers what moves or
 * changes at the speed of memory: messages, segments, state. Neither is a signature. */
#ifndef MILLRACE_BASE_HASH_H
#define MILLRACE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32, SHA256_HEX = 65, XXH128_BYTES = 16, XXH128_HEX = 33 };

struct sha256;                                       /* a digest under way */
struct sha256 *sha256_open(void);
void sha256_add(struct sha256 *sha, const void *bytes, size_t size_bytes);
void sha256_finish(struct sha256 *sha, uint8_t out[SHA256_BYTES]);  /* once, then only close */
void sha256_close(struct sha256 *sha);               /* NULL is fine */

void sha256_of(uint8_t out[SHA256_BYTES], const void *bytes, size_t size_bytes);
int sha256_of_file(uint8_t out[SHA256_BYTES], const char *path);

void xxh128_of(uint8_t out[XXH128_BYTES], const void *bytes, size_t size_bytes);  /* canonical (big-endian) form */

/* The same of bytes that come in pieces. On the caller's stack: nothing is allocated. */
struct xxh128 {
    _Alignas(64) uint8_t state[576];
};
void xxh128_begin(struct xxh128 *xxh);
void xxh128_add(struct xxh128 *xxh, const void *bytes, size_t size_bytes);
void xxh128_end(const struct xxh128 *xxh, uint8_t out[XXH128_BYTES]);

uint64_t xxh64_of(const void *bytes, size_t size_bytes, uint64_t seed);  /* XXH3's 64 bits, for tables and sketches */

void hex_of(char *out_hex, const uint8_t *bytes, size_t size_bytes);  /* writes 2 * size_bytes + 1 characters */

#endif
