/* A copy is packed and unpacked again: protobuf-c has no other way. It does not say either why it gave no message, so that its allocator
 * has to remember that there was no memory; what it takes is malloc()'s, as protobuf-c's own. */
#include "proto/body.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

int body_pack(struct buf *out, const ProtobufCMessage *message) {
    TRY(buf_reserve(out, protobuf_c_message_get_packed_size(message)));
    out->size += protobuf_c_message_pack(message, out->data + out->size);
    out->data[out->size] = 0; /* as buf_append() leaves it */
    return 0;
}

static void *take(void *wanted_bytes, size_t size_bytes) {
    void *memory = malloc(size_bytes);
    if (!memory) *(size_t *)wanted_bytes = size_bytes;
    return memory;
}

static void give(void *wanted_bytes, void *memory) {
    (void)wanted_bytes;
    free(memory);
}

int body_unpack(void *out_pointer, const ProtobufCMessageDescriptor *type, const void *bytes, size_t size_bytes) {
    size_t wanted_bytes = 0;
    ProtobufCAllocator allocator = {take, give, &wanted_bytes};
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, size_bytes, bytes);
    if (!message && wanted_bytes) return mem_wanted(wanted_bytes, " for unpacking a message");
    if (!message) return err_set(ERR_CORRUPT, "it cannot be read");
    memcpy(out_pointer, &message, sizeof message);
    return 0;
}

int body_copy(void *out_pointer, const ProtobufCMessage *message) {
    struct buf packed = {0};
    int code = body_pack(&packed, message);
    if (code == 0) code = body_unpack(out_pointer, message->descriptor, packed.data, packed.size);
    buf_free(&packed);
    return code;
}
