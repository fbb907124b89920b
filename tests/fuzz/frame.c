/* Messages: a byte with the header's length, the header without its digest and sent size, which are put in to fit, and the body. */
#include "proto/frame.h"

#include "tests/fuzz/fuzz.h"

enum { DIGEST_FIELD_BYTES = 2 + XXH128_BYTES };

/* What a peer that means harm would send: a header as it likes, with the digest that fits. False: no such header can be. */
static bool forge(struct buf *out, const uint8_t *header, size_t size, const uint8_t *body, size_t body_size) {
    Millrace__Header *forged = millrace__header__unpack(NULL, size, header);
    if (!forged) return false;
    uint8_t none[XXH128_BYTES] = {0};
    free(forged->digest.data);
    forged->digest = (ProtobufCBinaryData){sizeof none, none};
    forged->sent_size = body_size;
    size_t packed = millrace__header__get_packed_size(forged);
    bool fits = packed >= DIGEST_FIELD_BYTES && forged->base.n_unknown_fields == 0;
    if (fits) {
        struct buf all = {0};
        CHECK(buf_reserve(out, packed) == 0);
        out->size = millrace__header__pack(forged, out->data);
        CHECK(buf_append(&all, out->data, packed - DIGEST_FIELD_BYTES) == 0 && buf_append(&all, body, body_size) == 0);
        xxh128_of(out->data + packed - XXH128_BYTES, all.data, all.size);
        buf_free(&all);
    }
    forged->digest = (ProtobufCBinaryData){0, NULL};
    millrace__header__free_unpacked(forged, NULL);
    return fits;
}

static void unpack(const uint8_t *header, size_t header_size, const uint8_t *body, size_t body_size) {
    struct message message = {0};
    if (frame_unpack(&message, header, header_size, body, body_size) < 0) return;
    CHECK((uintptr_t)message.chunk % 64 == 0 && protobuf_c_message_check(message.body));
    uint8_t sum = 0;
    for (size_t i = 0; i < message.chunk_bytes; i++) sum ^= message.chunk[i];
    struct frame frame = {0};
    enum frame_encoding encoding = sum % 2 && message.chunk_bytes % 4 == 0 ? FRAME_PLANES_ZSTD : FRAME_ZSTD;
    if (frame_pack(&frame, &message.envelope, message.body, message.chunk, message.chunk_bytes, encoding) == 0) {
        struct message again = {0};
        /* protobuf-c takes an unknown field with number 0 in a long form, and refuses the short one in which it writes it. */
        int code = frame_unpack(&again, frame.header.data, frame.header.size, frame.body.data, frame.body.size);
        CHECK(code == 0 || code == ERR_PEER);
        CHECK(code < 0 || again.chunk_bytes == message.chunk_bytes);
        CHECK(code < 0 || memcmp(again.chunk, message.chunk, again.chunk_bytes) == 0);
        message_free(&again);
    }
    frame_free(&frame);
    message_free(&message);
}

void fuzz(const uint8_t *data, size_t size) {
    if (size == 0) return;
    size_t header_size = data[0] < size - 1 ? data[0] : size - 1;
    const uint8_t *body = data + 1 + header_size;
    size_t body_size = size - 1 - header_size;
    frame_version(data + 1, header_size, body, body_size);
    unpack(data + 1, header_size, body, body_size);
    struct buf forged = {0};
    if (forge(&forged, data + 1, header_size, body, body_size)) unpack(forged.data, forged.size, body, body_size);
    buf_free(&forged);
}

static void add_frame(void (*add)(const void *, size_t), uint32_t kind, const ProtobufCMessage *body, size_t chunk_bytes,
                      enum frame_encoding encoding) {
    uint8_t chunk[4096];
    for (size_t i = 0; i < sizeof chunk; i++) chunk[i] = (uint8_t)(i % 4 == 3 ? 0x3F : i * i);
    struct envelope envelope = {.kind = kind, .run = 7, .job = 300, .attempt = 1ull << 32 | 2, .step = 5, .sequence = 9};
    struct frame frame = {0};
    struct buf seed = {0};
    CHECK(frame_pack(&frame, &envelope, body, chunk, chunk_bytes, encoding) == 0);
    uint8_t length = (uint8_t)(frame.header.size - DIGEST_FIELD_BYTES);
    CHECK(buf_append(&seed, &length, 1) == 0 && buf_append(&seed, frame.header.data, length) == 0);
    CHECK(buf_append(&seed, frame.body.data, frame.body.size) == 0);
    add(seed.data, seed.size);
    buf_free(&seed);
    frame_free(&frame);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    Millrace__Data data = MILLRACE__DATA__INIT;
    data.reason = "for a reason";
    data.next_token = -1;
    for (int encoding = FRAME_NONE; encoding <= FRAME_PLANES_ZSTD; encoding++)
        add_frame(add, MILLRACE__KIND__DATA, &data.base, 4096, (enum frame_encoding)encoding);
    add_frame(add, MILLRACE__KIND__DATA, &data.base, 0, FRAME_NONE);
    uint32_t numbers[] = {1, 2, 300, 70000};
    uint64_t longs[] = {5, 6, 7, 1ull << 40};
    Millrace__PackJob pack = MILLRACE__PACK_JOB__INIT;
    pack.split = "train";
    pack.n_run = pack.n_first = pack.n_count = pack.n_ends = 4;
    pack.run = pack.ends = numbers;
    pack.first = pack.count = longs;
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    lease.work_case = MILLRACE__LEASE__WORK_PACK;
    lease.pack = &pack;
    add_frame(add, MILLRACE__KIND__LEASE, &lease.base, 0, FRAME_ZSTD);
    for (uint32_t kind = 0; kind < 64; kind++) /* each with nothing in it */
        if (kind_name(kind)[0] != 'k') add_frame(add, kind, NULL, 0, FRAME_NONE); /* "kind 63": there is none */
}
