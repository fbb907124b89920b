/* Keys as ZeroMQ makes them, in files that only their owner may read. */
#include "proto/key.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"

enum { Z85_BYTES = 41 }; /* ZeroMQ's own text of a key, with its NUL */

static int unsupported(void) {
    return err_set(ERR_UNSUPPORTED, "this libzmq was built without CURVE, so there are no keys: %s; Debian's libzmq5 has it",
                   zmq_strerror(errno));
}

int key_make(struct key_pair *out) {
    char public[Z85_BYTES], secret[Z85_BYTES];
    if (zmq_curve_keypair(public, secret) != 0) return unsupported();
    CHECK(zmq_z85_decode(out->public, public) && zmq_z85_decode(out->secret, secret));
    explicit_bzero(secret, sizeof secret);
    return 0;
}

int key_of_secret(struct key_pair *out, const uint8_t secret[KEY_BYTES]) {
    char public[Z85_BYTES], text[Z85_BYTES];
    CHECK(zmq_z85_encode(text, secret, KEY_BYTES));
    int failed = zmq_curve_public(public, text);
    explicit_bzero(text, sizeof text);
    if (failed) return unsupported();
    CHECK(zmq_z85_decode(out->public, public));
    memmove(out->secret, secret, KEY_BYTES);
    return 0;
}

static int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool key_parse(uint8_t out[KEY_BYTES], const char *text) {
    uint8_t key[KEY_BYTES];
    for (size_t i = 0; i < KEY_BYTES; i++) {
        int high = digit_of(text[2 * i]), low = high < 0 ? -1 : digit_of(text[2 * i + 1]);
        if (low < 0) return false;
        key[i] = (uint8_t)(high << 4 | low);
    }
    if (digit_of(text[KEY_HEX - 1]) >= 0) return false;
    memcpy(out, key, KEY_BYTES);
    return true;
}

int key_load(struct key_pair *out, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return err_errno("%s", path);
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return err_set(ERR_DENIED, "%s: others than its owner may read or change this key (mode %03o), so it proves nothing; if "
                       "nobody did, 'chmod 600' it, else remove it, and a new one is made", path, (unsigned)(st.st_mode & 0777));
    struct buf text = {0};
    uint8_t secret[KEY_BYTES];
    int code = file_read(&text, path, KEY_HEX);
    bool whole = code == 0 && text.size == KEY_HEX && text.data[KEY_HEX - 1] == '\n' && key_parse(secret, (const char *)text.data);
    if (code == ERR_LIMIT || (code == 0 && !whole))
        code = err_set(ERR_CORRUPT, "%s: no key; remove it, and a new one is made, which the others have to be told of", path);
    if (text.data) explicit_bzero(text.data, text.size);
    buf_free(&text);
    if (code == 0) code = key_of_secret(out, secret);
    explicit_bzero(secret, sizeof secret);
    return code;
}

/* 1: another process has made one meanwhile. */
static int save(const struct key_pair *key, const char *path) {
    char text[KEY_HEX];
    hex_of(text, key->secret, KEY_BYTES);
    text[KEY_HEX - 1] = '\n';
    struct draft draft;
    TRY(draft_open_private(&draft, path));
    int code = draft_write_at(&draft, text, sizeof text, 0);
    explicit_bzero(text, sizeof text);
    if (code == 0) return draft_publish_first(&draft);
    draft_discard(&draft);
    return code;
}

int key_load_or_make(struct key_pair *out, const char *path) {
    int code = key_load(out, path);
    if (code != ERR_NOTFOUND) return code;
    struct key_pair made;
    TRY(key_make(&made));
    code = save(&made, path);
    if (code == 0) *out = made;
    explicit_bzero(&made, sizeof made);
    return code == 1 ? key_load(out, path) : code;
}
