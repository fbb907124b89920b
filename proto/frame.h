/* Messages to bytes and back: a protobuf header, and a body that is a protobuf message followed by a raw chunk, compressed
 * together. docs/PROTOCOL.md draws the two frames.
 *
 * Nothing from a peer is trusted: sizes are checked against the caps of the message's kind before anything is allocated,
 * the digest before anything is decompressed, and protobuf unpacks into memory that is bounded. Pure: no sockets, no
 * clock. Thread-safe: a frame or message belongs to one thread at a time. */
#ifndef MILLRACE_PROTO_FRAME_H
#define MILLRACE_PROTO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "proto/millrace.pb-c.h"

enum {
    PROTOCOL_VERSION = 1,
    FRAME_HEADER_MAX = 256,          /* bytes of a packed header */
    FRAME_CHUNK_MAX = 16 << 20,      /* bytes of a chunk: four segments' worth; larger things travel in several reads */
    FRAME_BODY_MAX = 64 << 20,       /* bytes of the protobuf part of any kind (a pack job's extents are the largest) */
    FRAME_BODY_MEMORY_MAX = 256 << 20 /* bytes that unpacking one body may take: protobuf-c's structs are larger than the wire */
};

enum frame_encoding {
    FRAME_NONE,         /* as it is */
    FRAME_ZSTD,         /* one zstd frame */
    FRAME_PLANES_ZSTD,  /* the chunk, an array of values of 4 or 2 bytes, regrouped into four byte planes, then one zstd frame */
};

/* The fields of the header that its user sets and reads.
 *
 * `attempt` is the fence: the coordinator's generation << 32 | a number that grows. For a job (LEASE, DONE, FAILED, SETTLED, and READ of
 * its output) that number is the job's attempt (coordinator/queue.h), for a step (STEP, SLICE, REDUCED, COMMIT, and READ of partial sums
 * and sums) it is the view (coordinator/trainer.h). So one number has three names: `attempt` on the wire; attempt or view in the
 * coordinator, where it is the low half and fence_of() puts the whole together; `fence` in workers, which only compare it as a whole. */
struct envelope {
    uint32_t kind;      /* MILLRACE__KIND__... */
    uint64_t run;       /* 0 before a worker knows it */
    uint64_t job;       /* of a job; of a READ and its DATA: the number of the question */
    uint64_t attempt, step;
    uint64_t sequence;  /* in the session between coordinator and worker (session.h); 0: not numbered */
};

/* Two packed frames, ready to send. frame_free() releases them. */
struct frame {
    struct buf header, body;
};

/* A received message. `body` has the type of envelope.kind; `chunk` points into memory that the message owns, aligned to 64
 * bytes. Strings in `body` end with NUL, but nothing else about them is checked. */
struct message {
    struct envelope envelope;
    ProtobufCMessage *body;
    const uint8_t *chunk;
    size_t chunk_bytes;
    void *memory;        /* what message_free() releases */
};

/* Packs `body` (a message of the type that envelope->kind asks for; NULL or an Empty where all its fields have their
 * defaults) and the chunk (may be NULL with 0 bytes). A chunk whose size is no multiple of 4 has no planes: it is sent as
 * FRAME_ZSTD instead. What is small, or does not shrink, is sent as FRAME_NONE whatever was asked for. ERR_LIMIT when a cap
 * is crossed; ERR_MEMORY. */
int frame_pack(struct frame *out, const struct envelope *envelope, const ProtobufCMessage *body, const void *chunk,
               size_t chunk_bytes, enum frame_encoding encoding);
void frame_free(struct frame *frame);

/* Gives a packed message another envelope.sequence, which its sender knows only when it goes. */
int frame_number(struct frame *frame, uint64_t sequence);

/* Checks and unpacks two received frames. ERR_PEER: malformed, unknown kind, or another protocol version (the text names
 * both; only a REFUSED is understood in every version); ERR_LIMIT: over a cap; ERR_CORRUPT: the digest, size or compressed
 * bytes do not fit; ERR_MEMORY: it is within all caps, and there is no memory for it. */
int frame_unpack(struct message *out, const void *header, size_t header_bytes, const void *body, size_t body_bytes);
void message_free(struct message *message);  /* an all-zero message is fine */

/* The envelope of a header of this version and of a known kind, before its body is looked at: false for any other. */
bool frame_peek(struct envelope *out, const void *header, size_t header_bytes);

/* The protocol version that a message of whatever version names; 0 when it is none, or its digest does not fit. */
uint32_t frame_version(const void *header, size_t header_bytes, const void *body, size_t body_bytes);

/* "STEP", or "kind 99" (in a buffer of the calling thread that the next call reuses). */
const char *kind_name(uint32_t kind);

#endif
