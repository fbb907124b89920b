/* Sealed messages: a protobuf message followed by a footer of 32 bytes that tells its size and digest, so that it is found from the end of
 * a file and any changed bit is noticed (docs/FORMATS.md, "Seal"). Shard index, manifest and the tables of token runs are stored so. Pure
 * and thread-safe. */
#ifndef MILLRACE_DATASET_SEAL_H
#define MILLRACE_DATASET_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"
#include "proto/dataset.pb-c.h"

enum { SEAL_BYTES = 32, SEAL_MAGIC_BYTES = 8, SEAL_VERSION = 1 };

/* What one kind of sealed message may be. */
struct seal_kind {
    const char *magic;                           /* SEAL_MAGIC_BYTES characters */
    const ProtobufCMessageDescriptor *message;
    size_t bytes_max;                            /* of the packed message */
    size_t memory_max;                           /* that unpacking it may take */
};

struct seal {
    uint8_t digest[XXH128_BYTES];
    size_t size_bytes;                           /* of the packed message that lies before the footer */
};

/* Appends message and footer. ERR_LIMIT when the message is longer than bytes_max. */
int seal_append(struct buf *out, const ProtobufCMessage *message, const struct seal_kind *kind);

/* Reads a footer. ERR_CORRUPT: not a footer of this kind, of another version, or a message over bytes_max. */
int seal_read(struct seal *out, const uint8_t footer[SEAL_BYTES], const struct seal_kind *kind);

/* Checks the digest, then unpacks within memory_max. bytes[seal->size_bytes]. The caller releases *out with
 * protobuf_c_message_free_unpacked(*out, NULL). ERR_CORRUPT: digest differs, or not such a message. */
int seal_unpack(ProtobufCMessage **out, const struct seal *seal, const void *bytes, const struct seal_kind *kind);

#endif
