/* CURVE keys (RFC 26/ZMQ): by its key a process proves at each connection who it is, and all that goes over the connection is encrypted.
 * A pair is made from the system's random numbers; the public half follows from the secret one. As text both are 64 hexadecimal digits. */
#ifndef MILLRACE_PROTO_KEY_H
#define MILLRACE_PROTO_KEY_H

#include <stdbool.h>
#include <stdint.h>

enum { KEY_BYTES = 32, KEY_HEX = 65 };

struct key_pair {
    uint8_t public[KEY_BYTES], secret[KEY_BYTES];
};

int key_make(struct key_pair *out);  /* ERR_UNSUPPORTED: this libzmq was built without CURVE */
int key_of_secret(struct key_pair *out, const uint8_t secret[KEY_BYTES]);
bool key_parse(uint8_t out[KEY_BYTES], const char *text);  /* exactly 64 digits, then the text's end or anything that is no digit */

/* The pair whose secret half the file holds. ERR_NOTFOUND: there is none. ERR_DENIED: others than its owner may read it, so it is a
 * secret no more. ERR_CORRUPT: it holds no key. */
int key_load(struct key_pair *out, const char *path);
/* The same; where there is none, one is made and kept there, for its owner alone. */
int key_load_or_make(struct key_pair *out, const char *path);

#endif
