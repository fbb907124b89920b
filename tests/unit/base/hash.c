/* Digests and random numbers against published answers: FIPS 180-2, xxHash's own test vectors, and the Random123 library's
 * kat_vectors for philox4x32 with 10 rounds. */
#include "base/hash.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/random.h"

static void check_sha256(const uint8_t digest[SHA256_BYTES], const char *expected) {
    char hex[SHA256_HEX];
    hex_of(hex, digest, SHA256_BYTES);
    assert_string_equal(hex, expected);
}

static void sha256_gives_the_published_answers(void **state) {
    (void)state;
    uint8_t digest[SHA256_BYTES];
    sha256_of(digest, "", 0);
    check_sha256(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_of(digest, "abc", 3);
    check_sha256(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct sha256 *sha = sha256_open();
    for (int i = 0; i < 1000; i++) {
        char thousand[1000];
        memset(thousand, 'a', sizeof thousand);
        sha256_add(sha, thousand, sizeof thousand);
    }
    sha256_finish(sha, digest);
    sha256_close(sha);
    sha256_close(NULL);
    check_sha256(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void files_have_the_digest_of_their_bytes(void **state) {
    (void)state;
    char path[] = "/tmp/millrace-hash-XXXXXX";
    int fd = mkstemp(path);
    static uint8_t bytes[3000001];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * i >> 3);
    assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
    close(fd);
    uint8_t got[SHA256_BYTES], expected[SHA256_BYTES];
    sha256_of(expected, bytes, sizeof bytes);
    assert_int_equal(sha256_of_file(got, path), 0);
    assert_memory_equal(got, expected, sizeof got);
    unlink(path);
    memset(got, 7, sizeof got);
    assert_int_equal(sha256_of_file(got, path), ERR_NOTFOUND);
    assert_int_equal(got[0], 7);  /* untouched on failure */
    assert_true(sha256_of_file(got, "/tmp") < 0);
}

static void xxh128_gives_the_published_answers(void **state) {
    (void)state;
    uint8_t digest[XXH128_BYTES];
    char hex[XXH128_HEX];
    xxh128_of(digest, "", 0);
    hex_of(hex, digest, sizeof digest);
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
    uint8_t other[XXH128_BYTES], bytes[1000] = {0};
    for (size_t size = 0; size < sizeof bytes; size += 37) {  /* one bit changes it, one byte less too */
        xxh128_of(digest, bytes, size + 1);
        bytes[size / 2] ^= 4;
        xxh128_of(other, bytes, size + 1);
        assert_memory_not_equal(digest, other, sizeof digest);
        bytes[size / 2] ^= 4;
        xxh128_of(other, bytes, size);
        assert_memory_not_equal(digest, other, sizeof digest);
    }
}

static void pieces_have_the_digest_of_the_whole(void **state) {
    (void)state;
    uint8_t whole[XXH128_BYTES], pieces[XXH128_BYTES], bytes[3000];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t size = 0; size <= sizeof bytes; size += 250)
        for (size_t piece = 1; piece < 1000; piece += 111) {
            struct xxh128 xxh;
            xxh128_of(whole, bytes, size);
            xxh128_begin(&xxh);
            for (size_t at = 0, n; at < size; at += n) {
                n = size - at < piece ? size - at : piece;
                xxh128_add(&xxh, bytes + at, n);
            }
            xxh128_end(&xxh, pieces);
            assert_memory_equal(whole, pieces, sizeof whole);
        }
}

static void hex_is_lower_case_and_ends_with_nul(void **state) {
    (void)state;
    char hex[9] = "xxxxxxxx";
    hex_of(hex, (const uint8_t[]){0x00, 0x9f, 0xab, 0xff}, 4);
    assert_string_equal(hex, "009fabff");
    hex_of(hex, NULL, 0);
    assert_string_equal(hex, "");
}

static void check_philox(uint64_t key, uint64_t high, uint64_t low, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    struct philox_block got = philox(key, high, low), expected = {{a, b, c, d}};
    assert_memory_equal(&got, &expected, sizeof got);
}

static void philox_gives_the_published_answers(void **state) {
    (void)state;
    check_philox(0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
    check_philox(UINT64_MAX, UINT64_MAX, UINT64_MAX, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd);
    /* The digits of pi: counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0, first word lowest. */
    check_philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_gives_the_published_answers),
        cmocka_unit_test(files_have_the_digest_of_their_bytes),
        cmocka_unit_test(xxh128_gives_the_published_answers),
        cmocka_unit_test(pieces_have_the_digest_of_the_whole),
        cmocka_unit_test(hex_is_lower_case_and_ends_with_nul),
        cmocka_unit_test(philox_gives_the_published_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
