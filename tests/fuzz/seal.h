/* Sealed messages for fuzzers: the footer that fits any bytes, so that mutations get past the digest. */
#ifndef MILLRACE_TESTS_FUZZ_SEAL_H
#define MILLRACE_TESTS_FUZZ_SEAL_H

#include "dataset/shard/seal.h"
#include "tests/fuzz/fuzz.h"

/* Appends bytes and the footer. */
static inline void fuzz_seal(struct buf *out, const void *bytes, size_t size, const char *magic) {
    uint8_t footer[SEAL_BYTES];
    xxh128_of(footer, bytes, size);
    const uint32_t numbers[] = {(uint32_t)size, SEAL_VERSION};
    for (int i = 0; i < 8; i++) footer[XXH128_BYTES + i] = (uint8_t)(numbers[i / 4] >> 8 * (i % 4));
    memcpy(footer + XXH128_BYTES + 8, magic, SEAL_MAGIC_BYTES);
    CHECK(buf_append(out, bytes, size) == 0 && buf_append(out, footer, sizeof footer) == 0);
}

#endif
