/* Packing and unpacking of messages. It owns the table of kinds (which body each has, and how large it may be) and the order
 * of checks: header, caps, digest, compression, protobuf. It never sends anything, and it never believes a size. */
#include "proto/frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "proto/arena.h"
#include "proto/codec.h"

enum {
    BODY_SMALL = 64 << 10,          /* what people or single jobs say */
    BODY_MEDIUM = 4 << 20,          /* a pipeline, or all members of a step */
    BODY_LARGE = 16 << 20,          /* a status with all workers; a DONE, whose job has an output for what is large, or no more */
    COMPRESS_MIN = 200,             /* bytes; below, zstd costs more than the wire */
    PROVE_MIN = 1 << 20,            /* bytes of a body from which the sender tries whether the receiver could unpack it */
    MEMORY_PER_BYTE = 16,           /* unpacked bytes per byte of body: a packed number takes 8, an empty message 65 */
    HEADER_MEMORY_MAX = 64 << 10,   /* a header of FRAME_HEADER_MAX bytes, all of them unknown fields, takes a few KiB */
    CHUNK_ALIGN = 64,
    DIGEST_TAG_BYTES = 2,
    DIGEST_FIELD_BYTES = DIGEST_TAG_BYTES + XXH128_BYTES,  /* tag, length and digest end every header */
};

/* Field 12, length-delimited, 16 bytes. */
static const uint8_t digest_tag[DIGEST_TAG_BYTES] = {12 << 3 | 2, XXH128_BYTES};

struct kind {
    const char *name;
    const ProtobufCMessageDescriptor *body;
    size_t body_max, chunk_max;
};

#define KIND(NAME, body, body_max, chunk_max) \
    [MILLRACE__KIND__##NAME] = {#NAME, &millrace__##body##__descriptor, body_max, chunk_max}

static const struct kind kinds[] = {
    KIND(HELLO, hello, BODY_MEDIUM, 0),
    KIND(WELCOME, welcome, FRAME_BODY_MAX, 0),
    KIND(REFUSED, refused, BODY_SMALL, 0),
    KIND(READY, empty, BODY_SMALL, 0),
    KIND(SELF_TEST, empty, BODY_SMALL, 0),
    KIND(SELF_TEST_RESULT, self_test_result, BODY_SMALL, 0),
    KIND(WHO, empty, BODY_SMALL, 0),
    KIND(HEARTBEAT, heartbeat, BODY_SMALL, 0),
    KIND(GOODBYE, empty, BODY_SMALL, 0),
    KIND(LEASE, lease, FRAME_BODY_MAX, 0),
    KIND(DONE, done, BODY_LARGE, 0),
    KIND(FAILED, failed, BODY_SMALL, 0),
    KIND(SETTLED, empty, BODY_SMALL, 0),
    KIND(READ, read, BODY_SMALL, 0),
    KIND(DATA, data, BODY_SMALL, FRAME_CHUNK_MAX),
    KIND(JOIN, join, BODY_MEDIUM, 0),
    KIND(STEP, step, BODY_MEDIUM, 0),
    KIND(SLICE, slice, BODY_SMALL, 0),
    KIND(REDUCED, reduced, BODY_SMALL, 0),
    KIND(COMMIT, commit, BODY_SMALL, 0),
    KIND(APPLIED, applied, BODY_SMALL, 0),
    KIND(ASK, ask, BODY_SMALL, 0),
    KIND(TOLD, told, BODY_LARGE, 0),
};

static const struct kind *kind_of(uint32_t kind) {
    return kind < sizeof kinds / sizeof *kinds && kinds[kind].body ? &kinds[kind] : NULL;
}

const char *kind_name(uint32_t kind) {
    static _Thread_local char unknown[24];
    const struct kind *known = kind_of(kind);
    if (known) return known->name;
    snprintf(unknown, sizeof unknown, "kind %u", kind);
    return unknown;
}

static const char for_message[] = " for a message";

static size_t memory_max(const struct kind *kind) {
    size_t most = kind->body_max * MEMORY_PER_BYTE;
    return most < FRAME_BODY_MEMORY_MAX ? most : FRAME_BODY_MEMORY_MAX;
}

/* Covers the header too, so that a flipped job or step number is found like a flipped byte of the body. */
static void frame_digest(uint8_t out[XXH128_BYTES], const void *header_before, size_t header_bytes, const void *body,
                         size_t body_bytes) {
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, header_before, header_bytes);
    if (body_bytes) XXH3_128bits_update(&state, body, body_bytes);
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state));
    memcpy(out, canonical.digest, XXH128_BYTES);
}

static int check_caps(const struct kind *kind, uint64_t body_bytes, uint64_t chunk_bytes) {
    if (body_bytes > kind->body_max)
        return err_set(ERR_LIMIT, "%s: a body of %llu bytes; at most %zu are allowed", kind->name, (unsigned long long)body_bytes,
                       kind->body_max);
    if (chunk_bytes > kind->chunk_max)
        return err_set(ERR_LIMIT, "%s: a chunk of %llu bytes; at most %zu are allowed", kind->name, (unsigned long long)chunk_bytes,
                       kind->chunk_max);
    return 0;
}

/* Packing. */

/* The uncompressed second frame: the body's bytes, then the chunk, as it is or in planes. */
static void lay_out(uint8_t *raw, const ProtobufCMessage *body, size_t body_bytes, const void *chunk, size_t chunk_bytes,
                    bool planes) {
    if (body_bytes) CHECK(protobuf_c_message_pack(body, raw) == body_bytes);
    if (planes)
        planes_split(raw + body_bytes, chunk, chunk_bytes / 4);
    else if (chunk_bytes)
        memcpy(raw + body_bytes, chunk, chunk_bytes);
}

/* A small body can unpack into much memory. Who sends it learns that here, at once and every time, not the receiver. */
static int prove_memory(const struct kind *kind, const uint8_t *bytes, size_t body_bytes) {
    if (body_bytes < PROVE_MIN) return 0;
    struct arena *arena = arena_open(memory_max(kind));
    if (!arena) return mem_wanted(sizeof *arena, for_message);
    bool fits = protobuf_c_message_unpack(kind->body, &arena->allocator, body_bytes, bytes);
    size_t wanted_bytes = arena->wanted_bytes;
    arena_close(arena);
    if (fits) return 0;
    if (wanted_bytes) return mem_wanted(wanted_bytes, for_message);
    return err_set(ERR_LIMIT, "%s: a body of %zu bytes would take the receiver more than %zu bytes of memory; send less in one message",
                   kind->name, body_bytes, memory_max(kind));
}

/* Fills out->body and returns the encoding that was used, or an error. */
static int pack_body(struct buf *out, const struct kind *kind, const ProtobufCMessage *body, size_t body_bytes, const void *chunk,
                     size_t chunk_bytes, enum frame_encoding encoding) {
    size_t raw_bytes = body_bytes + chunk_bytes;
    if (encoding != FRAME_NONE && raw_bytes >= COMPRESS_MIN) {
        uint8_t *raw = codec_scratch(raw_bytes);
        if (!raw) return ERR_MEMORY;
        lay_out(raw, body, body_bytes, chunk, chunk_bytes, encoding == FRAME_PLANES_ZSTD);
        int smaller = codec_compress(out, raw, raw_bytes, encoding == FRAME_PLANES_ZSTD);
        if (smaller < 0) return smaller;
        if (smaller) {
            TRY(prove_memory(kind, raw, body_bytes));
            return (int)encoding;
        }
    }
    TRY(buf_reserve(out, raw_bytes));
    lay_out(out->data, body, body_bytes, chunk, chunk_bytes, false);
    out->size = raw_bytes;
    out->data[raw_bytes] = 0;
    TRY(prove_memory(kind, out->data, body_bytes));
    return FRAME_NONE;
}

/* The digest is the last field, which is what lets it cover everything before itself. */
static int pack_header(struct buf *out, Millrace__Header *header, const struct buf *body) {
    uint8_t digest[XXH128_BYTES] = {0};
    header->digest = (ProtobufCBinaryData){XXH128_BYTES, digest};
    size_t size = millrace__header__get_packed_size(header);
    CHECK(size <= FRAME_HEADER_MAX && size >= DIGEST_FIELD_BYTES);
    TRY(buf_reserve(out, size));
    CHECK(millrace__header__pack(header, out->data) == size);
    size_t before = size - DIGEST_FIELD_BYTES;
    CHECK(memcmp(out->data + before, digest_tag, DIGEST_TAG_BYTES) == 0);
    frame_digest(out->data + before + DIGEST_TAG_BYTES, out->data, before, body->data, body->size);
    out->size = size;
    return 0;
}

int frame_pack(struct frame *out, const struct envelope *envelope, const ProtobufCMessage *body, const void *chunk,
               size_t chunk_bytes, enum frame_encoding encoding) {
    const struct kind *kind = kind_of(envelope->kind);
    CHECK(kind != NULL);
    CHECK(!body || body->descriptor == kind->body || body->descriptor == &millrace__empty__descriptor);
    if (envelope->kind == MILLRACE__KIND__REFUSED) encoding = FRAME_NONE;  /* what every version of the protocol can read */
    CHECK(encoding <= FRAME_PLANES_ZSTD);
    if (encoding == FRAME_PLANES_ZSTD && chunk_bytes % 4 != 0) encoding = FRAME_ZSTD;  /* an odd number of 2-byte values */
    size_t body_bytes = body ? protobuf_c_message_get_packed_size(body) : 0;
    TRY(check_caps(kind, body_bytes, chunk_bytes));

    struct frame frame = {0};
    int code = pack_body(&frame.body, kind, body, body_bytes, chunk, chunk_bytes, encoding);
    if (code >= 0) {
        Millrace__Header header = MILLRACE__HEADER__INIT;
        header.version = PROTOCOL_VERSION;
        header.kind = envelope->kind;
        header.run = envelope->run;
        header.job = envelope->job;
        header.attempt = envelope->attempt;
        header.step = envelope->step;
        header.sequence = envelope->sequence;
        header.encoding = (uint32_t)code;
        header.raw_size = body_bytes + chunk_bytes;
        header.sent_size = frame.body.size;
        header.body_size = body_bytes;
        code = pack_header(&frame.header, &header, &frame.body);
    }
    if (code < 0) {
        frame_free(&frame);
        return code;
    }
    *out = frame;
    return 0;
}

void frame_free(struct frame *frame) {
    buf_free(&frame->header);
    buf_free(&frame->body);
}

int frame_number(struct frame *frame, uint64_t sequence) {
    struct buf numbered = {0};
    struct arena *arena = arena_open(HEADER_MEMORY_MAX);
    Millrace__Header *header = arena ? millrace__header__unpack(&arena->allocator, frame->header.size, frame->header.data) : NULL;
    int code = header ? 0 : mem_wanted(HEADER_MEMORY_MAX, for_message);
    if (code == 0) {
        header->sequence = sequence;
        code = pack_header(&numbered, header, &frame->body);
    }
    arena_close(arena);
    if (code < 0) {
        buf_free(&numbered);
        return code;
    }
    buf_free(&frame->header);
    frame->header = numbered;
    return 0;
}

/* Unpacking. */

/* Everything that the header alone can tell. */
static int check_header(const Millrace__Header *header, const uint8_t *bytes, size_t header_bytes, size_t sent_bytes) {
    if (header->version != PROTOCOL_VERSION && header->kind != MILLRACE__KIND__REFUSED)
        return err_set(ERR_PEER, "protocol version %u; this is version %d; run the same build everywhere", header->version,
                       PROTOCOL_VERSION);
    const struct kind *kind = kind_of(header->kind);
    if (!kind) return err_set(ERR_PEER, "a message of unknown %s", kind_name(header->kind));
    if (header_bytes < DIGEST_FIELD_BYTES || header->digest.len != XXH128_BYTES ||
        memcmp(bytes + header_bytes - DIGEST_FIELD_BYTES, digest_tag, DIGEST_TAG_BYTES) != 0)
        return err_set(ERR_PEER, "%s: the header does not end with a digest", kind->name);
    if (header->encoding > FRAME_PLANES_ZSTD)
        return err_set(ERR_PEER, "%s: unknown encoding %u", kind->name, header->encoding);
    if (header->body_size > header->raw_size)
        return err_set(ERR_CORRUPT, "%s: a body of %llu bytes in %llu", kind->name, (unsigned long long)header->body_size,
                       (unsigned long long)header->raw_size);
    TRY(check_caps(kind, header->body_size, header->raw_size - header->body_size));
    bool sizes_fit = header->encoding == FRAME_NONE ? header->raw_size == sent_bytes : header->raw_size > sent_bytes;
    if (header->sent_size != sent_bytes || !sizes_fit)
        return err_set(ERR_CORRUPT, "%s: %zu bytes came; the header says %llu, and %llu before encoding %u", kind->name, sent_bytes,
                       (unsigned long long)header->sent_size, (unsigned long long)header->raw_size, header->encoding);
    if (header->encoding == FRAME_PLANES_ZSTD && (header->raw_size - header->body_size) % 4 != 0)
        return err_set(ERR_CORRUPT, "%s: planes of %llu bytes", kind->name, (unsigned long long)(header->raw_size - header->body_size));
    return 0;
}

/* Decodes the second frame into the arena, so that the chunk is aligned; *out points at the body, and the chunk follows. */
static int decode(uint8_t **out, struct arena *arena, const Millrace__Header *header, const uint8_t *sent, size_t sent_bytes) {
    size_t raw_bytes = header->raw_size, body_bytes = header->body_size;
    uint8_t *memory = arena_take(arena, raw_bytes + CHUNK_ALIGN);
    if (!memory) return mem_wanted(raw_bytes, for_message);
    uint8_t *raw = memory + (CHUNK_ALIGN - ((uintptr_t)memory + body_bytes) % CHUNK_ALIGN) % CHUNK_ALIGN;
    if (header->encoding == FRAME_NONE) {
        if (raw_bytes) memcpy(raw, sent, raw_bytes);
    } else if (header->encoding == FRAME_ZSTD) {
        TRY(codec_decompress(raw, raw_bytes, sent, sent_bytes));
    } else {
        uint8_t *planes = codec_scratch(raw_bytes);
        if (!planes) return ERR_MEMORY;
        TRY(codec_decompress(planes, raw_bytes, sent, sent_bytes));
        memcpy(raw, planes, body_bytes);
        planes_join(raw + body_bytes, planes + body_bytes, (raw_bytes - body_bytes) / 4);
    }
    *out = raw;
    return 0;
}

/* A header of at least DIGEST_FIELD_BYTES. */
static bool digest_fits(const uint8_t *header, size_t header_bytes, const void *sent, size_t sent_bytes) {
    uint8_t digest[XXH128_BYTES];
    frame_digest(digest, header, header_bytes - DIGEST_FIELD_BYTES, sent, sent_bytes);
    return memcmp(digest, header + header_bytes - XXH128_BYTES, XXH128_BYTES) == 0;
}

static int unpack_into(struct message *out, struct arena *arena, const uint8_t *header_bytes, size_t header_size,
                       const uint8_t *sent, size_t sent_bytes) {
    const Millrace__Header *header = millrace__header__unpack(&arena->allocator, header_size, header_bytes);
    if (arena->wanted_bytes) return mem_wanted(arena->wanted_bytes, for_message);
    if (!header) return err_set(ERR_PEER, "the first frame is not a header");
    TRY(check_header(header, header_bytes, header_size, sent_bytes));

    const struct kind *kind = kind_of(header->kind);
    if (!digest_fits(header_bytes, header_size, sent, sent_bytes)) return err_set(ERR_CORRUPT, "%s: digest differs", kind->name);

    uint8_t *raw = NULL;
    arena->max_bytes = arena->used_bytes + memory_max(kind) + header->raw_size + 2 * CHUNK_ALIGN;
    int code = decode(&raw, arena, header, sent, sent_bytes);
    if (code < 0) return err_add(code, "%s", kind->name);
    ProtobufCMessage *body = protobuf_c_message_unpack(kind->body, &arena->allocator, header->body_size, raw);
    if (arena->wanted_bytes) return err_add(mem_wanted(arena->wanted_bytes, for_message), "%s", kind->name);
    if (!body && arena->refused)
        return err_set(ERR_LIMIT, "%s: unpacking takes more than %zu bytes of memory", kind->name, memory_max(kind));
    if (!body) return err_set(ERR_PEER, "%s: the body is not a %s", kind->name, kind->body->short_name);
    *out = (struct message){
        .envelope = {.kind = header->kind, .run = header->run, .job = header->job, .attempt = header->attempt,
                     .step = header->step, .sequence = header->sequence},
        .body = body,
        .chunk = raw + header->body_size,
        .chunk_bytes = header->raw_size - header->body_size,
        .memory = arena,
    };
    return 0;
}

int frame_unpack(struct message *out, const void *header, size_t header_bytes, const void *body, size_t body_bytes) {
    if (header_bytes > FRAME_HEADER_MAX)
        return err_set(ERR_PEER, "a header of %zu bytes; at most %d are allowed", header_bytes, FRAME_HEADER_MAX);
    struct arena *arena = arena_open(HEADER_MEMORY_MAX);
    if (!arena) return mem_wanted(sizeof *arena, for_message);
    int code = unpack_into(out, arena, header, header_bytes, body, body_bytes);
    if (code < 0) arena_close(arena);
    return code;
}

void message_free(struct message *message) {
    arena_close(message->memory);
    *message = (struct message){0};
}

bool frame_peek(struct envelope *out, const void *header, size_t header_bytes) {
    if (header_bytes > FRAME_HEADER_MAX) return false;
    struct arena *arena = arena_open(HEADER_MEMORY_MAX);
    if (!arena) return false;
    const Millrace__Header *known = millrace__header__unpack(&arena->allocator, header_bytes, header);
    bool good = known && known->version == PROTOCOL_VERSION && kind_of(known->kind);
    if (good)
        *out = (struct envelope){.kind = known->kind, .run = known->run, .job = known->job, .attempt = known->attempt,
                                 .step = known->step, .sequence = known->sequence};
    arena_close(arena);
    return good;
}

uint32_t frame_version(const void *header, size_t header_bytes, const void *body, size_t body_bytes) {
    if (header_bytes > FRAME_HEADER_MAX || header_bytes < DIGEST_FIELD_BYTES) return 0;
    if (!digest_fits(header, header_bytes, body, body_bytes)) return 0; /* a flipped bit makes no other version */
    struct arena *arena = arena_open(HEADER_MEMORY_MAX);
    if (!arena) return 0;
    const Millrace__Header *known = millrace__header__unpack(&arena->allocator, header_bytes, header);
    uint32_t version = known ? known->version : 0;
    arena_close(arena);
    return version;
}
