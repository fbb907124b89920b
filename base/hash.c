/* SHA-256 through libcrypto, the XXH3 digests through libxxhash. The only file that includes their headers. */
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

struct sha256 {
    EVP_MD_CTX *context;
};

struct sha256 *sha256_open(void) {
    struct sha256 *sha = mem_alloc(sizeof *sha);
    sha->context = EVP_MD_CTX_new();
    CHECK(sha->context != NULL);
    CHECK(EVP_DigestInit_ex(sha->context, EVP_sha256(), NULL) == 1);
    return sha;
}

void sha256_add(struct sha256 *sha, const void *bytes, size_t size_bytes) {
    CHECK(EVP_DigestUpdate(sha->context, bytes, size_bytes) == 1);
}

void sha256_finish(struct sha256 *sha, uint8_t out[SHA256_BYTES]) {
    CHECK(EVP_DigestFinal_ex(sha->context, out, NULL) == 1);
}

void sha256_close(struct sha256 *sha) {
    if (!sha) return;
    EVP_MD_CTX_free(sha->context);
    free(sha);
}

void sha256_of(uint8_t out[SHA256_BYTES], const void *bytes, size_t size_bytes) {
    CHECK(EVP_Digest(bytes, size_bytes, out, NULL, EVP_sha256(), NULL) == 1);
}

int sha256_of_file(uint8_t out[SHA256_BYTES], const char *path) {
    int fd;
    TRY(file_open(&fd, path));
    enum { CHUNK_BYTES = 1 << 18 };
    uint8_t *chunk = mem_alloc(CHUNK_BYTES);
    struct sha256 *sha = sha256_open();
    int code = 0;
    for (;;) {
        ssize_t n = read(fd, chunk, CHUNK_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) code = err_errno("read %s", path);
        if (n <= 0) break;
        sha256_add(sha, chunk, (size_t)n);
    }
    if (code == 0) sha256_finish(sha, out);
    sha256_close(sha);
    free(chunk);
    close(fd);
    return code;
}

static void put_canonical(uint8_t out[XXH128_BYTES], XXH128_hash_t hash) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    for (int i = 0; i < XXH128_BYTES; i++) out[i] = canonical.digest[i];
}

void xxh128_of(uint8_t out[XXH128_BYTES], const void *bytes, size_t size_bytes) { put_canonical(out, XXH3_128bits(bytes, size_bytes)); }

_Static_assert(sizeof(XXH3_state_t) <= sizeof(struct xxh128), "XXH3's state has grown");
_Static_assert(_Alignof(XXH3_state_t) <= _Alignof(struct xxh128), "XXH3's state is aligned more strictly");

void xxh128_begin(struct xxh128 *xxh) { XXH3_128bits_reset((XXH3_state_t *)xxh->state); }

void xxh128_add(struct xxh128 *xxh, const void *bytes, size_t size_bytes) {
    XXH3_128bits_update((XXH3_state_t *)xxh->state, bytes, size_bytes);
}

void xxh128_end(const struct xxh128 *xxh, uint8_t out[XXH128_BYTES]) {
    put_canonical(out, XXH3_128bits_digest((const XXH3_state_t *)xxh->state));
}

uint64_t xxh64_of(const void *bytes, size_t size_bytes, uint64_t seed) { return XXH3_64bits_withSeed(bytes, size_bytes, seed); }

void hex_of(char *out_hex, const uint8_t *bytes, size_t size_bytes) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size_bytes; i++) {
        out_hex[2 * i] = digits[bytes[i] >> 4];
        out_hex[2 * i + 1] = digits[bytes[i] & 15];
    }
    out_hex[2 * size_bytes] = 0;
}
