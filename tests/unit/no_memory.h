/* A frame_pack() without memory for messages of one kind, in programs that are linked with --wrap=frame_pack. */
#ifndef MILLRACE_TESTS_NO_MEMORY_H
#define MILLRACE_TESTS_NO_MEMORY_H

#include "base/mem.h"
#include "proto/frame.h"

static uint32_t too_large; /* that kind; 0: there is memory for all */

int __real_frame_pack(struct frame *out, const struct envelope *envelope, const ProtobufCMessage *body, const void *chunk,
                      size_t chunk_bytes, enum frame_encoding encoding);
int __wrap_frame_pack(struct frame *out, const struct envelope *envelope, const ProtobufCMessage *body, const void *chunk,
                      size_t chunk_bytes, enum frame_encoding encoding);
int __wrap_frame_pack(struct frame *out, const struct envelope *envelope, const ProtobufCMessage *body, const void *chunk,
                      size_t chunk_bytes, enum frame_encoding encoding) {
    if (too_large && envelope->kind == too_large) return mem_wanted(5, " for a message");
    return __real_frame_pack(out, envelope, body, chunk, chunk_bytes, encoding);
}

#endif
