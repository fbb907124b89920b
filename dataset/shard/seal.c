/* The footer behind a stored protobuf message, by which it is found from the end of its file and its damage is noticed. Nothing is
 * allocated before the size has been compared with the kind's limit, nothing unpacked before the digest has been compared, and unpacking
 * runs on an allocator that stops at the kind's limit. Touches no file. */
#include "dataset/shard/seal.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

enum { AT_SIZE = XXH128_BYTES, AT_VERSION = AT_SIZE + 4, AT_MAGIC = AT_VERSION + 4 };
_Static_assert(AT_MAGIC + SEAL_MAGIC_BYTES == SEAL_BYTES, "the footer's fields fill it");

static void put_u32(uint8_t *out, uint32_t value) {
    for (int i = 0; i < 4; i++) out[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t *in) {
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

int seal_append(struct buf *out, const ProtobufCMessage *message, const struct seal_kind *kind) {
    CHECK(message->descriptor == kind->message);
    size_t size = protobuf_c_message_get_packed_size(message);
    if (size > kind->bytes_max)
        return err_set(ERR_LIMIT, "%s: %zu bytes; at most %zu can be stored", kind->message->short_name, size, kind->bytes_max);
    TRY(buf_reserve(out, size + SEAL_BYTES));
    uint8_t *at = out->data + out->size;
    CHECK(protobuf_c_message_pack(message, at) == size);
    uint8_t *footer = at + size;
    xxh128_of(footer, at, size);
    put_u32(footer + AT_SIZE, (uint32_t)size);
    put_u32(footer + AT_VERSION, SEAL_VERSION);
    memcpy(footer + AT_MAGIC, kind->magic, SEAL_MAGIC_BYTES);
    out->size += size + SEAL_BYTES;
    out->data[out->size] = 0;
    return 0;
}

int seal_read(struct seal *out, const uint8_t footer[SEAL_BYTES], const struct seal_kind *kind) {
    if (memcmp(footer + AT_MAGIC, kind->magic, SEAL_MAGIC_BYTES) != 0)
        return err_set(ERR_CORRUPT, "does not end with %s: truncated, or another kind of file", kind->magic);
    /* A flipped bit looks the same as a file from the future; damage is by far the likelier. */
    uint32_t version = get_u32(footer + AT_VERSION);
    if (version != SEAL_VERSION)
        return err_set(ERR_CORRUPT, "format version %u where this program knows %d: damaged, or written by a later version", version,
                       SEAL_VERSION);
    size_t size = get_u32(footer + AT_SIZE);
    if (size > kind->bytes_max)
        return err_set(ERR_CORRUPT, "%s of %zu bytes; at most %zu are allowed", kind->message->short_name, size, kind->bytes_max);
    memcpy(out->digest, footer, XXH128_BYTES);
    out->size_bytes = size;
    return 0;
}

/* protobuf-c's structs can be far larger than their bytes (unknown fields, empty strings): unpacking draws on an allowance. */
struct allowance {
    size_t left_bytes;
};

static void *allowance_alloc(void *arg, size_t size) {
    enum { BLOCK_BYTES = 16 }; /* what malloc() itself needs for a block */
    struct allowance *allowance = arg;
    if (size > allowance->left_bytes || allowance->left_bytes - size < BLOCK_BYTES) return NULL;
    allowance->left_bytes -= size + BLOCK_BYTES;
    return malloc(size ? size : 1);
}

static void allowance_free(void *arg, void *block) {
    (void)arg;
    free(block);
}

int seal_unpack(ProtobufCMessage **out, const struct seal *seal, const void *bytes, const struct seal_kind *kind) {
    uint8_t digest[XXH128_BYTES];
    xxh128_of(digest, bytes, seal->size_bytes);
    if (memcmp(digest, seal->digest, sizeof digest) != 0)
        return err_set(ERR_CORRUPT, "%s: digest differs", kind->message->short_name);
    struct allowance allowance = {kind->memory_max};
    ProtobufCAllocator allocator = {.alloc = allowance_alloc, .free = allowance_free, .allocator_data = &allowance};
    ProtobufCMessage *message = protobuf_c_message_unpack(kind->message, &allocator, seal->size_bytes, bytes);
    if (!message) return err_set(ERR_CORRUPT, "%s: not such a message, or too large in memory", kind->message->short_name);
    *out = message;
    return 0;
}
