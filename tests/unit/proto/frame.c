/* Frames: what goes in comes out, and nothing that a peer sends does harm. Run it under ASan too. */
#include "proto/frame.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zstd.h>

#include "base/err.h"
#include "base/mem.h"
#include "proto/arena.h"
#include "proto/codec.h"
#include "tests/unit/random.h"

/* So many are had, and then one is not; 0: all are had. */
static size_t allocations;

static bool is_had(void) { return !allocations || --allocations; }

void *__real_malloc(size_t size_bytes);
void *__wrap_malloc(size_t size_bytes);
void *__wrap_malloc(size_t size_bytes) { return is_had() ? __real_malloc(size_bytes) : NULL; }

void *__real_realloc(void *old, size_t size_bytes);
void *__wrap_realloc(void *old, size_t size_bytes);
void *__wrap_realloc(void *old, size_t size_bytes) { return is_had() ? __real_realloc(old, size_bytes) : NULL; }

static const struct envelope data_envelope = {
    .kind = MILLRACE__KIND__DATA, .run = UINT64_MAX, .job = 5, .attempt = 1ull << 32 | 7, .step = 9, .sequence = 3};

static struct frame pack_data(const void *chunk, size_t chunk_bytes, enum frame_encoding encoding) {
    Millrace__Data data = MILLRACE__DATA__INIT;
    data.reason = "for a reason";
    data.next_token = -1;
    struct frame frame = {0};
    assert_int_equal(frame_pack(&frame, &data_envelope, &data.base, chunk, chunk_bytes, encoding), 0);
    return frame;
}

static int unpack(struct message *out, const struct frame *frame) {
    return frame_unpack(out, frame->header.data, frame->header.size, frame->body.data, frame->body.size);
}

static int try_unpack(const struct frame *frame) {
    struct message message = {0};
    int code = unpack(&message, frame);
    message_free(&message);
    return code;
}

static void put(struct buf *out, const void *bytes, size_t size) {
    buf_clear(out);
    assert_int_equal(buf_append(out, bytes, size), 0);
}

/* Packs a header whose fields lie, with the digest that fits. NULL body: leave as it is. */
static void forge(struct frame *frame, const Millrace__Header *header) {
    uint8_t bytes[1024], zero[16] = {0};
    Millrace__Header forged = *header;
    forged.digest = (ProtobufCBinaryData){16, zero};
    assert_true(millrace__header__get_packed_size(&forged) <= sizeof bytes);
    size_t size = millrace__header__pack(&forged, bytes);
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, bytes, size - 18);
    if (frame->body.size) XXH3_128bits_update(&state, frame->body.data, frame->body.size);
    XXH128_canonicalFromHash((XXH128_canonical_t *)(void *)(bytes + size - 16), XXH3_128bits_digest(&state));
    put(&frame->header, bytes, size);
}

/* A header that tells the truth about `frame->body`, to start lying from. */
static Millrace__Header truth(const struct frame *frame, uint32_t kind, size_t raw_size, size_t body_size, uint32_t encoding) {
    Millrace__Header header = MILLRACE__HEADER__INIT;
    header.version = PROTOCOL_VERSION;
    header.kind = kind;
    header.encoding = encoding;
    header.raw_size = raw_size;
    header.sent_size = frame->body.size;
    header.body_size = body_size;
    return header;
}

static void fill(struct random *random, uint8_t *bytes, size_t size, unsigned how) {
    for (size_t i = 0; i < size; i++) {
        if (how == 0)
            bytes[i] = (uint8_t)random_next(random);
        else if (how == 1)
            bytes[i] = 0;
        else
            bytes[i] = (uint8_t)(i % 4 == 3 ? 0x38 + random_next(random) % 3 : random_next(random));
    }
}

/* A gradient such as training makes: normal with deviation 1e-4. */
static void fill_gradient(struct random *random, float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        double u = ldexp((double)(random_next(random) >> 11) + 0.5, -53), v = ldexp((double)(random_next(random) >> 11), -53);
        values[i] = (float)(1e-4 * sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
    }
}

static void chunks_of_any_size_come_back(void **state) {
    (void)state;
    struct random random = random_open("chunks");
    uint8_t *chunk = malloc(70000);
    for (int round = 0; round < 1500; round++) {
        enum frame_encoding encoding = (enum frame_encoding)random_in(&random, 0, 2);
        size_t size = random_in(&random, 0, round % 2 ? 300 : 70000);
        fill(&random, chunk, size, (unsigned)random_in(&random, 0, 2));
        struct frame frame = pack_data(chunk, size, encoding);
        assert_true(frame.header.size <= FRAME_HEADER_MAX);
        struct message message = {0};
        if (unpack(&message, &frame) != 0) fail_msg("%s", err_text());
        assert_memory_equal(&message.envelope, &data_envelope, sizeof data_envelope);
        Millrace__Data *data = (Millrace__Data *)message.body;
        assert_string_equal(data->reason, "for a reason");
        assert_int_equal(data->next_token, -1);
        assert_int_equal(message.chunk_bytes, size);
        assert_true((uintptr_t)message.chunk % 64 == 0);
        if (size) assert_memory_equal(message.chunk, chunk, size);
        message_free(&message);
        frame_free(&frame);
    }
    free(chunk);
}

static void every_kind_of_body_comes_back(void **state) {
    (void)state;
    struct message message = {0};
    struct frame frame = {0};
    uint32_t slices[500];
    for (uint32_t i = 0; i < 500; i++) slices[i] = i * 7;
    Millrace__Member member = MILLRACE__MEMBER__INIT, *members[20];
    member.endpoint = "tcp://127.0.0.1:1234", member.n_slices = 500, member.slices = slices;
    for (int i = 0; i < 20; i++) members[i] = &member;
    Millrace__Step step = MILLRACE__STEP__INIT;
    step.n_members = 20, step.members = members, step.self = 3;
    struct envelope envelope = {.kind = MILLRACE__KIND__STEP};
    assert_int_equal(frame_pack(&frame, &envelope, &step.base, NULL, 0, FRAME_ZSTD), 0);
    assert_true(frame.body.size < 5000);  /* it was compressed */
    assert_int_equal(unpack(&message, &frame), 0);
    Millrace__Step *got = (Millrace__Step *)message.body;
    assert_int_equal(got->n_members, 20);
    assert_string_equal(got->members[19]->endpoint, member.endpoint);
    assert_memory_equal(got->members[19]->slices, slices, sizeof slices);
    message_free(&message);
    frame_free(&frame);

    /* One without a body, and one where either body will do. */
    envelope.kind = MILLRACE__KIND__GOODBYE;
    assert_int_equal(frame_pack(&frame, &envelope, NULL, NULL, 0, FRAME_ZSTD), 0);
    assert_int_equal(frame.body.size, 0);
    assert_int_equal(unpack(&message, &frame), 0);
    assert_ptr_equal(message.body->descriptor, &millrace__empty__descriptor);
    message_free(&message);
    frame_free(&frame);
    Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    envelope.kind = MILLRACE__KIND__HEARTBEAT;
    assert_int_equal(frame_pack(&frame, &envelope, &empty.base, NULL, 0, FRAME_ZSTD), 0);
    assert_int_equal(unpack(&message, &frame), 0);
    assert_ptr_equal(message.body->descriptor, &millrace__heartbeat__descriptor);
    message_free(&message);
    frame_free(&frame);
}

static void every_kind_has_a_name_and_a_body(void **state) {
    (void)state;
    const ProtobufCEnumDescriptor *kinds = &millrace__kind__descriptor;
    for (unsigned i = 0; i < kinds->n_values; i++) {
        if (kinds->values[i].value == MILLRACE__KIND__NOTHING) continue;
        assert_string_equal(kind_name((uint32_t)kinds->values[i].value), kinds->values[i].name);
        struct frame frame = {0};
        struct envelope envelope = {.kind = (uint32_t)kinds->values[i].value};
        assert_int_equal(frame_pack(&frame, &envelope, NULL, NULL, 0, FRAME_NONE), 0);
        assert_int_equal(try_unpack(&frame), 0);
        frame_free(&frame);
    }
    assert_string_equal(kind_name(99), "kind 99");
    assert_string_equal(kind_name(UINT32_MAX), "kind 4294967295");
}

static void what_does_not_shrink_is_sent_as_it_is(void **state) {
    (void)state;
    struct random random = random_open("shrink");
    uint8_t chunk[4096];
    fill(&random, chunk, sizeof chunk, 0);
    for (int encoding = FRAME_NONE; encoding <= FRAME_PLANES_ZSTD; encoding++) {
        struct frame frame = pack_data(chunk, sizeof chunk, (enum frame_encoding)encoding);
        assert_true(frame.body.size < sizeof chunk + 40);
        assert_memory_equal(frame.body.data + frame.body.size - sizeof chunk, chunk, sizeof chunk);
        frame_free(&frame);
    }
    struct frame frame = pack_data(memset(chunk, 0, 100), 100, FRAME_ZSTD);  /* small: not worth it */
    assert_true(frame.body.size > 100);
    frame_free(&frame);
    frame = pack_data(memset(chunk, 0, sizeof chunk), sizeof chunk, FRAME_ZSTD);
    assert_true(frame.body.size < 100);
    frame_free(&frame);
}

static void gradients_shrink_in_planes(void **state) {
    (void)state;
    struct random random = random_open("gradient");
    enum { COUNT = 1 << 18 };
    float *values = malloc(COUNT * sizeof *values);
    fill_gradient(&random, values, COUNT);
    struct frame plain = pack_data(values, COUNT * sizeof *values, FRAME_ZSTD);
    struct frame planes = pack_data(values, COUNT * sizeof *values, FRAME_PLANES_ZSTD);
    assert_true(planes.body.size < COUNT * sizeof *values * 86 / 100);
    assert_true(planes.body.size < plain.body.size);
    struct message message = {0};
    assert_int_equal(unpack(&message, &planes), 0);
    assert_memory_equal(message.chunk, values, COUNT * sizeof *values);
    message_free(&message);
    frame_free(&plain);
    frame_free(&planes);
    free(values);
}

static void planes_are_the_bytes_by_significance(void **state) {
    (void)state;
    const uint8_t values[12] = {0x44, 0x33, 0x22, 0x11, 0x48, 0x37, 0x26, 0x15, 0x4c, 0x3b, 0x2a, 0x19};
    const uint8_t expected[12] = {0x11, 0x15, 0x19, 0x22, 0x26, 0x2a, 0x33, 0x37, 0x3b, 0x44, 0x48, 0x4c};
    uint8_t planes[12], back[12];
    planes_split(planes, values, 3);
    assert_memory_equal(planes, expected, 12);
    planes_join(back, planes, 3);
    assert_memory_equal(back, values, 12);
}

static void every_flipped_bit_is_noticed(void **state) {
    (void)state;
    uint8_t chunk[600];
    for (size_t i = 0; i < sizeof chunk; i++) chunk[i] = (uint8_t)(i / 9 * (i % 4 == 3));
    for (int encoding = FRAME_NONE; encoding <= FRAME_PLANES_ZSTD; encoding++) {
        struct frame frame = pack_data(chunk, sizeof chunk, (enum frame_encoding)encoding);
        assert_int_equal(try_unpack(&frame), 0);
        for (int part = 0; part < 2; part++) {
            struct buf *bytes = part ? &frame.body : &frame.header;
            for (size_t bit = 0; bit < bytes->size * 8; bit++) {
                bytes->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
                if (try_unpack(&frame) >= 0) fail_msg("encoding %d, part %d, bit %zu passed", encoding, part, bit);
                bytes->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            }
            for (size_t size = bytes->size; size-- > 0;) {  /* and every cut */
                struct frame cut = frame;
                (part ? &cut.body : &cut.header)->size = size;
                assert_true(try_unpack(&cut) < 0);
            }
        }
        assert_int_equal(try_unpack(&frame), 0);
        frame_free(&frame);
    }
}

static void rubbish_is_refused(void **state) {
    (void)state;
    struct random random = random_open("rubbish");
    uint8_t header[300], body[300];
    for (int round = 0; round < 50000; round++) {
        size_t header_size = random_in(&random, 0, sizeof header), body_size = random_in(&random, 0, sizeof body);
        fill(&random, header, header_size, 0);
        fill(&random, body, body_size, 0);
        struct message message = {0};
        assert_true(frame_unpack(&message, header, header_size, body, body_size) < 0);
        assert_null(message.memory);
        frame_version(header, header_size, body, body_size);
    }
    struct message message = {0};
    assert_int_equal(frame_unpack(&message, "", 0, "", 0), ERR_PEER);
    memset(header, 0, sizeof header);
    assert_int_equal(frame_unpack(&message, header, FRAME_HEADER_MAX + 1, body, 0), ERR_PEER);
}

/* The digest is right, the bytes are not: a peer that means harm, not a faulty wire. */
static void forged_bodies_never_crash(void **state) {
    (void)state;
    struct random random = random_open("forged");
    uint8_t chunk[900];
    for (size_t i = 0; i < sizeof chunk; i++) chunk[i] = (uint8_t)(i / 9 * (i % 4 == 3));
    size_t passed = 0;
    for (int round = 0; round < 20000; round++) {
        enum frame_encoding encoding = (enum frame_encoding)random_in(&random, 0, 2);
        struct frame frame = pack_data(chunk, sizeof chunk, encoding);
        struct message message = {0};
        assert_int_equal(unpack(&message, &frame), 0);
        size_t raw_size = protobuf_c_message_get_packed_size(message.body) + sizeof chunk;
        message_free(&message);
        for (uint64_t flips = random_in(&random, 1, 4); flips > 0; flips--)
            frame.body.data[random_in(&random, 0, frame.body.size - 1)] ^= (uint8_t)(1 << random_in(&random, 0, 7));
        Millrace__Header header = truth(&frame, MILLRACE__KIND__DATA, raw_size, raw_size - sizeof chunk, encoding);
        forge(&frame, &header);
        int code = unpack(&message, &frame);
        passed += code == 0;
        message_free(&message);
        frame_free(&frame);
    }
    assert_true(passed > 1000);  /* those whose flips lie in the chunk: the forgery itself is right */
}

static int forged(const Millrace__Header *header, struct buf *body) {
    struct frame frame = {.body = *body};
    forge(&frame, header);
    int code = try_unpack(&frame);
    buf_free(&frame.header);
    return code;
}

static void lying_sizes_are_refused(void **state) {
    (void)state;
    struct frame frame = {0};
    static uint8_t zeros[1 << 20];
    assert_int_equal(codec_compress(&frame.body, zeros, sizeof zeros, false), 1);
    const Millrace__Header good = truth(&frame, MILLRACE__KIND__DATA, sizeof zeros, 0, FRAME_ZSTD);
    assert_int_equal(forged(&good, &frame.body), 0);

    Millrace__Header bad = good;
    bad.raw_size--;  /* zstd's own content size says otherwise */
    assert_int_equal(forged(&bad, &frame.body), ERR_CORRUPT);
    bad.raw_size += 2;
    assert_int_equal(forged(&bad, &frame.body), ERR_CORRUPT);
    bad = good, bad.raw_size = UINT64_MAX;
    assert_int_equal(forged(&bad, &frame.body), ERR_LIMIT);
    bad = good, bad.raw_size = UINT64_MAX, bad.body_size = UINT64_MAX;
    assert_int_equal(forged(&bad, &frame.body), ERR_LIMIT);
    bad = good, bad.raw_size = FRAME_CHUNK_MAX + 1;
    assert_int_equal(forged(&bad, &frame.body), ERR_LIMIT);
    bad = good, bad.body_size = bad.raw_size + 1;
    assert_int_equal(forged(&bad, &frame.body), ERR_CORRUPT);
    bad = good, bad.body_size = 70000;
    assert_int_equal(forged(&bad, &frame.body), ERR_LIMIT);
    bad = good, bad.sent_size++;
    assert_int_equal(forged(&bad, &frame.body), ERR_CORRUPT);
    bad = good, bad.encoding = 3;
    assert_int_equal(forged(&bad, &frame.body), ERR_PEER);
    bad = good, bad.encoding = FRAME_NONE;
    assert_int_equal(forged(&bad, &frame.body), ERR_CORRUPT);
    bad = good, bad.encoding = FRAME_PLANES_ZSTD, bad.body_size = 1;
    assert_int_equal(forged(&bad, &frame.body), ERR_CORRUPT);
    bad = good, bad.kind = MILLRACE__KIND__GOODBYE;  /* a kind that has no chunk */
    assert_int_equal(forged(&bad, &frame.body), ERR_LIMIT);
    bad = good, bad.kind = 99;
    assert_int_equal(forged(&bad, &frame.body), ERR_PEER);
    bad = good, bad.kind = MILLRACE__KIND__NOTHING;
    assert_int_equal(forged(&bad, &frame.body), ERR_PEER);
    buf_free(&frame.body);
}

static void zstd_bombs_are_refused(void **state) {
    (void)state;
    /* 1 GiB of zeros in some 32 KiB, its true size in the zstd frame, a harmless one in the header. */
    struct buf bomb = {0};
    size_t room = 1 << 20, huge = (size_t)1 << 30;
    assert_int_equal(buf_reserve(&bomb, room), 0);
    static uint8_t zeros[1 << 20];
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setPledgedSrcSize(context, huge);
    ZSTD_outBuffer out = {bomb.data, room, 0};
    for (size_t i = 0; i < huge >> 20; i++) {
        ZSTD_inBuffer in = {zeros, sizeof zeros, 0};
        bool last = i + 1 == huge >> 20;
        size_t left = ZSTD_compressStream2(context, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
        assert_false(ZSTD_isError(left));
    }
    ZSTD_freeCCtx(context);
    bomb.size = out.pos;
    struct frame frame = {.body = bomb};
    Millrace__Header header = truth(&frame, MILLRACE__KIND__DATA, 1 << 20, 0, FRAME_ZSTD);
    assert_int_equal(forged(&header, &bomb), ERR_CORRUPT);
    header.raw_size = huge;
    assert_int_equal(forged(&header, &bomb), ERR_LIMIT);
    buf_free(&bomb);

    /* Two frames, of which the first fits: more bytes than were promised. */
    struct buf two = {0}, one = {0};
    assert_int_equal(codec_compress(&one, zeros, 4096, false), 1);
    buf_append(&two, one.data, one.size);
    buf_append(&two, one.data, one.size);
    frame.body = two;
    header = truth(&frame, MILLRACE__KIND__DATA, 4096, 0, FRAME_ZSTD);
    assert_int_equal(forged(&header, &two), ERR_CORRUPT);
    /* A frame that does not say how much it holds, and one that is skipped. */
    two.size = 0;
    const uint8_t skipped[] = {0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9};
    context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
    two.size = ZSTD_compress2(context, two.data, two.capacity, zeros, 4096);
    ZSTD_freeCCtx(context);
    assert_false(ZSTD_isError(two.size));
    frame.body = two;
    header = truth(&frame, MILLRACE__KIND__DATA, 4096, 0, FRAME_ZSTD);
    assert_int_equal(forged(&header, &two), ERR_CORRUPT);
    put(&two, one.data, one.size);  /* a good one with something behind it */
    buf_append(&two, skipped, sizeof skipped);
    frame.body = two;
    header = truth(&frame, MILLRACE__KIND__DATA, 4096, 0, FRAME_ZSTD);
    assert_int_equal(forged(&header, &two), ERR_CORRUPT);
    put(&two, skipped, sizeof skipped);
    frame.body = two;
    header = truth(&frame, MILLRACE__KIND__DATA, 10, 0, FRAME_ZSTD);
    assert_int_equal(forged(&header, &two), ERR_CORRUPT);
    buf_free(&two);
    buf_free(&one);
}

/* `count` times the same few bytes, as the body of a message. */
static int forged_body(uint32_t kind, const void *piece, size_t piece_bytes, size_t count) {
    struct buf body = {0};
    for (size_t i = 0; i < count; i++) assert_int_equal(buf_append(&body, piece, piece_bytes), 0);
    struct frame frame = {.body = body};
    Millrace__Header header = truth(&frame, kind, body.size, body.size, FRAME_NONE);
    int code = forged(&header, &body);
    buf_free(&body);
    return code;
}

static void protobuf_bombs_stay_within_their_memory(void **state) {
    (void)state;
    const uint8_t member[] = {2 << 3 | 2, 0}, unknown[] = {15 << 3, 0};
    assert_int_equal(forged_body(MILLRACE__KIND__STEP, member, 2, 1000), 0);
    assert_int_equal(forged_body(MILLRACE__KIND__STEP, member, 2, 2000000), ERR_LIMIT);  /* empty submessages */
    assert_int_equal(forged_body(MILLRACE__KIND__TOLD, unknown, 2, 1000), 0);
    assert_int_equal(forged_body(MILLRACE__KIND__TOLD, unknown, 2, 6000000), ERR_LIMIT); /* fields that nobody knows */
    assert_int_equal(forged_body(MILLRACE__KIND__TOLD, unknown, 1, 3), ERR_PEER);        /* cut in the middle */
    assert_int_equal(forged_body(MILLRACE__KIND__GOODBYE, unknown, 2, 100), 0);
    assert_int_equal(forged_body(MILLRACE__KIND__GOODBYE, unknown, 2, 40000), ERR_LIMIT);
}

static void senders_learn_what_receivers_would_refuse(void **state) {
    (void)state;
    enum { COUNT = 3000000 };
    Millrace__SourcePart part = MILLRACE__SOURCE_PART__INIT, **parts = malloc(COUNT * sizeof *parts);
    for (size_t i = 0; i < COUNT; i++) parts[i] = &part;
    Millrace__TokenizeJob job = MILLRACE__TOKENIZE_JOB__INIT;
    job.parts = parts;
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    lease.stage = "tokenize", lease.work_case = MILLRACE__LEASE__WORK_TOKENIZE, lease.tokenize = &job;
    struct envelope envelope = {.kind = MILLRACE__KIND__LEASE};
    for (size_t i = 0, count = 2500; count <= COUNT; count *= i % 2 ? 5 : 1, i++) {
        struct frame frame = {0};
        job.n_parts = count;
        int code = frame_pack(&frame, &envelope, &lease.base, NULL, 0, i % 2 ? FRAME_NONE : FRAME_ZSTD);
        if (code == 0) assert_int_equal(try_unpack(&frame), 0);
        assert_true(code == 0 || (code == ERR_LIMIT && count > 1000000));
        frame_free(&frame);
    }
    job.n_parts = COUNT;
    struct frame frame = {0};
    assert_int_equal(frame_pack(&frame, &envelope, &lease.base, NULL, 0, FRAME_ZSTD), ERR_LIMIT);
    assert_int_equal(frame_pack(&frame, &envelope, &lease.base, NULL, 0, FRAME_NONE), ERR_LIMIT);
    assert_null(frame.body.data);
    free(parts);
}

/* Each allocation of packing and unpacking fails once: that is told as a want of memory, and never as a fault of the message. */
static void assert_told_as_want_of_memory(const struct envelope *envelope, const ProtobufCMessage *body, const void *chunk,
                                          size_t chunk_bytes, enum frame_encoding encoding) {
    size_t wants = 0, left = 0;
    for (size_t at = 1; !left; at++) {
        struct frame frame = {0};
        allocations = at;
        int code = frame_pack(&frame, envelope, body, chunk, chunk_bytes, encoding);
        left = allocations;
        allocations = 0;
        assert_true(code == 0 || (code == ERR_MEMORY && strstr(err_text(), MEM_EXHAUSTED)));
        wants += code == ERR_MEMORY;
        frame_free(&frame);
    }
    assert_true(wants >= 2);
    struct frame frame = {0};
    assert_int_equal(frame_pack(&frame, envelope, body, chunk, chunk_bytes, encoding), 0);
    for (size_t at = 1; wants; at++) {
        struct message message = {0};
        allocations = at;
        int code = unpack(&message, &frame);
        if (allocations) wants = 0;
        allocations = 0;
        assert_true(code == (wants ? ERR_MEMORY : 0) && (code == 0 || strstr(err_text(), MEM_EXHAUSTED)));
        message_free(&message);
    }
    frame_free(&frame);
}

static void a_want_of_memory_is_told_as_one(void **state) {
    (void)state;
    enum { COUNT = 100000, TEXT = 1200000 };
    float *values = calloc(COUNT, sizeof *values);
    for (int encoding = FRAME_NONE; encoding <= FRAME_PLANES_ZSTD; encoding++)
        assert_told_as_want_of_memory(&data_envelope, NULL, values, COUNT * sizeof *values, (enum frame_encoding)encoding);
    free(values);
    Millrace__Told told = MILLRACE__TOLD__INIT; /* so large that its sender tries to unpack it */
    told.json = calloc(TEXT + 1, 1);
    memset(told.json, 'a', TEXT);
    for (int encoding = FRAME_NONE; encoding <= FRAME_ZSTD; encoding++)
        assert_told_as_want_of_memory(&(struct envelope){.kind = MILLRACE__KIND__TOLD}, &told.base, NULL, 0, (enum frame_encoding)encoding);
    free(told.json);
}

static void caps_hold_for_senders(void **state) {
    (void)state;
    struct frame frame = {0};
    char *reason = malloc(70001);
    memset(reason, 'a', 70000);
    reason[70000] = 0;
    Millrace__Failed failed = MILLRACE__FAILED__INIT;
    failed.reason = reason;
    struct envelope envelope = {.kind = MILLRACE__KIND__FAILED};
    assert_int_equal(frame_pack(&frame, &envelope, &failed.base, NULL, 0, FRAME_ZSTD), ERR_LIMIT);
    assert_int_equal(frame_pack(&frame, &envelope, NULL, reason, 1, FRAME_ZSTD), ERR_LIMIT);
    reason[60000] = 0;
    assert_int_equal(frame_pack(&frame, &envelope, &failed.base, NULL, 0, FRAME_ZSTD), 0);
    frame_free(&frame);
    free(reason);
    uint8_t *chunk = calloc(1, FRAME_CHUNK_MAX + 4);
    envelope.kind = MILLRACE__KIND__DATA;
    assert_int_equal(frame_pack(&frame, &envelope, NULL, chunk, FRAME_CHUNK_MAX + 4, FRAME_PLANES_ZSTD), ERR_LIMIT);
    assert_int_equal(frame_pack(&frame, &envelope, NULL, chunk, FRAME_CHUNK_MAX, FRAME_PLANES_ZSTD), 0);
    assert_int_equal(try_unpack(&frame), 0);
    frame_free(&frame);
    free(chunk);
}

static void other_versions_are_named_and_only_their_refusal_is_read(void **state) {
    (void)state;
    struct frame frame = {0};
    Millrace__Header header = truth(&frame, MILLRACE__KIND__HELLO, 0, 0, FRAME_NONE);
    header.version = 2;
    forge(&frame, &header);
    assert_int_equal(try_unpack(&frame), ERR_PEER);
    assert_non_null(strstr(err_text(), "version 2"));
    assert_non_null(strstr(err_text(), "version 1"));
    assert_int_equal(frame_version(frame.header.data, frame.header.size, NULL, 0), 2);
    assert_int_equal(frame_version(frame.header.data, frame.header.size, "x", 1), 0);
    struct envelope envelope;
    assert_false(frame_peek(&envelope, frame.header.data, frame.header.size)); /* nobody says of it that it is not wanted */
    header.kind = MILLRACE__KIND__REFUSED;
    forge(&frame, &header);
    assert_int_equal(try_unpack(&frame), 0);
    buf_free(&frame.header);
    assert_int_equal(frame_version("\xff\xff", 2, NULL, 0), 0);
    assert_int_equal(frame_version("", 0, NULL, 0), 0);
}

static void a_packed_message_can_be_numbered(void **state) {
    (void)state;
    Millrace__Slice slice = MILLRACE__SLICE__INIT;
    slice.slice = 3;
    struct frame frame;
    assert_int_equal(frame_pack(&frame, &(struct envelope){.kind = MILLRACE__KIND__SLICE, .step = 8}, &slice.base, NULL, 0, FRAME_ZSTD), 0);
    for (uint64_t number = UINT64_MAX; number > 0; number >>= 9) {
        assert_int_equal(frame_number(&frame, number), 0);
        struct message message;
        assert_int_equal(frame_unpack(&message, frame.header.data, frame.header.size, frame.body.data, frame.body.size), 0);
        assert_true(message.envelope.sequence == number && message.envelope.step == 8);
        assert_int_equal(((Millrace__Slice *)message.body)->slice, 3);
        message_free(&message);
    }
    frame_free(&frame);
}

/* "An example" in docs/PROTOCOL.md. */
static void the_example_of_the_page_is_what_is_sent(void **state) {
    static const uint8_t header[] = {0x08, 0x01, 0x10, 0x20, 0x19, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x28, 0x87, 0x80,
                                     0x80, 0x80, 0x20, 0x30, 0xac, 0x02, 0x48, 0x11, 0x50, 0x11, 0x58, 0x11, 0x62, 0x10, 0x94, 0x01,
                                     0xf0, 0xbe, 0xa1, 0x35, 0x95, 0x5c, 0x7a, 0x8c, 0xe0, 0xf6, 0x8f, 0xb1, 0xde, 0xf0};
    static const uint8_t body[] = {0x10, 0x03, 0x19, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f, 0x20, 0x80, 0x20, 0x28, 0x96, 0x01};
    (void)state;
    Millrace__Slice slice = MILLRACE__SLICE__INIT;
    slice.slice = 3, slice.loss_sum = 0.5, slice.tokens = 4096, slice.compute_ms = 150;
    struct envelope envelope = {.kind = MILLRACE__KIND__SLICE, .run = 0x1122334455667788, .attempt = (uint64_t)2 << 32 | 7, .step = 300};
    struct frame frame;
    assert_int_equal(frame_pack(&frame, &envelope, &slice.base, NULL, 0, FRAME_ZSTD), 0);
    assert_int_equal(frame.header.size, sizeof header);
    assert_memory_equal(frame.header.data, header, sizeof header);
    assert_int_equal(frame.body.size, sizeof body);
    assert_memory_equal(frame.body.data, body, sizeof body);
    frame_free(&frame);
}

static void refusals_are_never_compressed(void **state) {
    (void)state;
    char reason[2000];
    memset(reason, 'r', sizeof reason - 1);
    reason[sizeof reason - 1] = 0;
    Millrace__Refused refused = MILLRACE__REFUSED__INIT;
    refused.reason = reason;
    struct frame frame = {0};
    assert_int_equal(frame_pack(&frame, &(struct envelope){.kind = MILLRACE__KIND__REFUSED}, &refused.base, NULL, 0, FRAME_ZSTD), 0);
    assert_true(frame.body.size > sizeof reason - 1);
    assert_int_equal(try_unpack(&frame), 0);
    frame_free(&frame);
}

static bool have(const char *tool) {
    char command[200];
    snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1", tool);
    return system(command) == 0;
}

/* An outside opinion: the second frame is what the zstd tool reads. */
static void the_zstd_tool_reads_the_body(void **state) {
    (void)state;
    if (!have("zstd")) {
        print_message("no zstd tool here\n");
        skip();
    }
    enum { COUNT = 10000 };
    struct random random = random_open("tool");
    static float values[COUNT];
    static uint8_t planes[sizeof values], got[sizeof values + 100];
    fill_gradient(&random, values, COUNT);
    planes_split(planes, (const uint8_t *)values, COUNT);
    for (int encoding = FRAME_ZSTD; encoding <= FRAME_PLANES_ZSTD; encoding++) {
        struct frame frame = pack_data(values, sizeof values, (enum frame_encoding)encoding);
        char path[] = "/tmp/millrace-frame-XXXXXX", command[100];
        int fd = mkstemp(path);
        assert_int_equal(write(fd, frame.body.data, frame.body.size), frame.body.size);
        snprintf(command, sizeof command, "zstd -dcq %s", path);
        FILE *pipe = popen(command, "r");
        size_t size = fread(got, 1, sizeof got, pipe);
        assert_int_equal(pclose(pipe), 0);
        assert_true(size > sizeof values && size < sizeof got);
        assert_memory_equal(got + size - sizeof values, encoding == FRAME_ZSTD ? (void *)values : (void *)planes, sizeof values);
        close(fd);
        unlink(path);
        frame_free(&frame);
    }
}

static void *pack_many(void *arg) {
    struct random random = {.seed = (uint64_t)(uintptr_t)arg};
    uint8_t chunk[5000];
    for (int round = 0; round < 50; round++) {
        fill(&random, chunk, sizeof chunk, 2);
        struct frame frame = pack_data(chunk, sizeof chunk, (enum frame_encoding)(round % 3));
        struct message message = {0};
        assert_int_equal(unpack(&message, &frame), 0);
        assert_memory_equal(message.chunk, chunk, sizeof chunk);
        message_free(&message);
        frame_free(&frame);
    }
    return NULL;
}

static void threads_come_and_go(void **state) {
    (void)state;
    for (int round = 0; round < 5; round++) {
        pthread_t threads[4];
        for (uintptr_t i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, pack_many, (void *)i), 0);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    }
}

static void arenas_stop_at_their_limit(void **state) {
    (void)state;
    struct arena *arena = arena_open(100000);
    assert_non_null(arena_take(arena, 0));
    uint8_t *a = arena_take(arena, 10), *b = arena_take(arena, 20);
    assert_true((uintptr_t)a % 16 == 0 && (uintptr_t)b % 16 == 0 && b >= a + 10);
    assert_null(arena_take(arena, 100001));
    assert_null(arena_take(arena, SIZE_MAX));
    assert_true(arena->refused);
    void *large = arena->allocator.alloc(arena, 70000);
    assert_non_null(large);
    assert_null(arena_take(arena, 70000));
    arena->allocator.free(arena, large);  /* large things do come back */
    assert_non_null(arena_take(arena, 70000));
    size_t taken = 0;
    while (arena_take(arena, 1000)) taken++;
    assert_true(taken >= 20 && taken <= 30);
    assert_true(arena->used_bytes <= arena->max_bytes);
    arena_close(arena);
}

/* One large message must not cost each thread its memory for good. */
static void room_for_a_large_message_is_given_back(void **state) {
    (void)state;
    assert_non_null(codec_scratch((size_t)30 << 20));
    allocations = 1; /* none is had: what there is is used, or was given back */
    bool given_back = !codec_scratch(1000);
    allocations = 0;
    assert_true(given_back);
    assert_non_null(codec_scratch((size_t)18 << 20));
    allocations = 1;
    bool kept = codec_scratch(1000);
    allocations = 0;
    assert_true(kept);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_of_any_size_come_back),
        cmocka_unit_test(every_kind_of_body_comes_back),
        cmocka_unit_test(every_kind_has_a_name_and_a_body),
        cmocka_unit_test(what_does_not_shrink_is_sent_as_it_is),
        cmocka_unit_test(gradients_shrink_in_planes),
        cmocka_unit_test(planes_are_the_bytes_by_significance),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(rubbish_is_refused),
        cmocka_unit_test(forged_bodies_never_crash),
        cmocka_unit_test(lying_sizes_are_refused),
        cmocka_unit_test(zstd_bombs_are_refused),
        cmocka_unit_test(protobuf_bombs_stay_within_their_memory),
        cmocka_unit_test(senders_learn_what_receivers_would_refuse),
        cmocka_unit_test(a_want_of_memory_is_told_as_one),
        cmocka_unit_test(caps_hold_for_senders),
        cmocka_unit_test(other_versions_are_named_and_only_their_refusal_is_read),
        cmocka_unit_test(a_packed_message_can_be_numbered),
        cmocka_unit_test(the_example_of_the_page_is_what_is_sent),
        cmocka_unit_test(refusals_are_never_compressed),
        cmocka_unit_test(the_zstd_tool_reads_the_body),
        cmocka_unit_test(threads_come_and_go),
        cmocka_unit_test(arenas_stop_at_their_limit),
        cmocka_unit_test(room_for_a_large_message_is_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
