/* A copy is packed and unpacked again: protobuf-c has no other way. */
#include "proto/body.h"

#include <string.h>

#include "base/err.h"
#include "base/mem.h"

int body_pack(struct buf *out, const ProtobufCMessage *message) {
    TRY(buf_reserve(out, protobuf_c_message_get_packed_size(message)));
    out->size += protobuf_c_message_pack(message, out->data + out->size);
    out->data[out->size] = 0; /* as buf_append() leaves it */
    return 0;
}

int body_copy(void *out_pointer, const ProtobufCMessage *message) {
    struct buf packed = {0};
    ProtobufCMessage *copy = NULL;
    int code = body_pack(&packed, message);
    if (code == 0) copy = protobuf_c_message_unpack(message->descriptor, NULL, packed.size, packed.data);
    if (code == 0 && !copy) code = mem_wanted(packed.size, " or more for the copy of a message");
    buf_free(&packed);
    if (code == 0) memcpy(out_pointer, &copy, sizeof copy);
    return code;
}
