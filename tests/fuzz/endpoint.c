/* Addresses as people write them. */
#include "proto/endpoint.h"

#include "tests/fuzz/fuzz.h"

void fuzz(const uint8_t *data, size_t size) {
    char *endpoint = mem_format("%.*s", (int)size, (const char *)data);
    for (int options = 0; options < 4; options++) {
        bool bind = options & 1, insecure = options & 2;
        struct endpoint parsed;
        if (endpoint_parse(&parsed, endpoint, bind, insecure) < 0) continue;
        CHECK(parsed.addresses >= 1 && parsed.addresses <= (bind ? 1 : ENDPOINT_ADDRESSES_MAX));
        CHECK(strlen(endpoint) < ENDPOINT_TEXT_MAX);
        char bound[ENDPOINT_MAX], again[ENDPOINT_TEXT_MAX];
        for (size_t i = 0; i < parsed.addresses; i++) {
            CHECK(endpoint_check(parsed.address[i], bind, insecure || parsed.has_key) == 0);
            endpoint_to_bind(bound, parsed.address[i]);
            CHECK(strlen(bound) < ENDPOINT_MAX);
            endpoint_is_ipv6(parsed.address[i]);
        }
        bool local = endpoint_is_local(endpoint);
        CHECK(bind || local || insecure || parsed.has_key);
        if (parsed.addresses == 1 && parsed.has_key) { /* it can be written as it was read */
            CHECK(endpoint_write(again, parsed.address[0], parsed.key) == 0);
            CHECK(strcmp(again, endpoint) == 0);
        }
        CHECK(insecure || endpoint_check(endpoint, bind, true) == 0); /* what is safe is allowed when more is */
    }
    free(endpoint);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    static const char *const texts[] = {"tcp://127.0.0.1:5555", "tcp://*:*", "tcp://localhost:1", "tcp://[::1]:65535",
                                        "tcp://[fe80::1%eth0]:9", "ipc:///tmp/socket", "ipc://@abstract", "tcp://host.example.org:5555",
                                        "tcp://0.0.0.0:0", "inproc://x", "tcp://127.0.0.1:65536", "tcp://127.1:80",
                                        "tcp://10.0.0.3:1,tcp://node:2,tcp://[::1]:3", "ipc:///tmp/a,b#c",
                                        "tcp://h:1#0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", NULL};
    fuzz_add_texts(add, texts);
}
