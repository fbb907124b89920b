/* A protobuf message as bytes, to store it, the message of stored bytes, and a copy of one, to keep it when the message that it came with
 * is freed. What goes over a link is packed by proto/frame.h. Thread-safe. */
#ifndef MILLRACE_PROTO_BODY_H
#define MILLRACE_PROTO_BODY_H

#include <protobuf-c/protobuf-c.h>

#include "base/buf.h"

int body_pack(struct buf *out, const ProtobufCMessage *message);  /* appends */

/* *out_pointer is set to a message of that type, which the caller frees with its free_unpacked(). ERR_CORRUPT: the bytes are none;
 * ERR_MEMORY: there was no memory for it, which says nothing of the bytes. */
int body_unpack(void *out_pointer, const ProtobufCMessageDescriptor *type, const void *bytes, size_t size_bytes);

/* *out_pointer is set to a message of the same type, which the caller frees with its free_unpacked(). ERR_MEMORY. */
int body_copy(void *out_pointer, const ProtobufCMessage *message);

#endif
