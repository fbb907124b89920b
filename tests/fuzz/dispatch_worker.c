/* A worker as a whole behind an in-memory link: the input's bytes choose what its coordinator and others say, in any order and with fields
 * near the truth. It may end with an error that says why; it never crashes, and never hangs when it is sent home.
 *
 * The link's functions are defined here, so those of the product are not linked. The work thread is real, so what it meets when differs a
 * little from run to run. */
#include <pthread.h>
#include <zstd.h>

#include "base/clock.h"
#include "base/log.h"
#include "config/config.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "proto/steps.h"
#include "tests/fuzz/fuzz.h"
#include "workers/worker.h"

enum {
    COORDINATOR = 1,
    STRANGER = 1000,     /* and those after it came to the ROUTER */
    CONNECTIONS_MAX = 64,
    OPEN_MAX = 128,
    MESSAGES_MAX = 400,  /* of one input */
    SEQUENCE = 4, SLICES = 4,
    FRAME_TOKENS = 64,
};

static struct fuzz_input input;
static struct buf pipeline;
static char *connected[CONNECTIONS_MAX];
static size_t connections;
static struct message asked[OPEN_MAX]; /* READs of the worker, and whom */
static uint64_t asked_of[OPEN_MAX];
static size_t asked_count;
static uint64_t view, messages;
static struct envelope leased;         /* the last job */
static bool home;
static link_wants *wants;
static void *wants_arg;
static struct frame next;              /* to the worker; header.data NULL: none */
static uint64_t next_from;

static void say_with(uint64_t from, struct envelope envelope, const ProtobufCMessage *body, const void *chunk, size_t chunk_bytes) {
    envelope.run = 1;
    if (strncmp(kind_name(envelope.kind), "kind ", 5) == 0) return; /* there is none of that number */
    if (frame_pack(&next, &envelope, body, chunk, chunk_bytes, FRAME_ZSTD) < 0) next = (struct frame){0};
    next_from = from;
}

static void say(uint32_t kind, const ProtobufCMessage *body) { say_with(COORDINATOR, (struct envelope){.kind = kind}, body, NULL, 0); }

/* ---- what a coordinator says ---- */

static void welcome(void) {
    Millrace__Welcome welcome = MILLRACE__WELCOME__INIT;
    welcome.config = (char *)pipeline.data;
    welcome.generation = 1 + (fuzz_number(&input, 1) > 250);
    say(MILLRACE__KIND__WELCOME, &welcome.base);
}

static Millrace__Geometry geometry_near(uint32_t lie) {
    Millrace__Geometry geometry = MILLRACE__GEOMETRY__INIT;
    geometry.split = "train";
    geometry.tokens = lie == 1 ? UINT64_MAX : 4096;
    geometry.shard_tokens = lie == 2 ? 0 : 65536;
    geometry.frame_tokens = lie == 3 ? 0 : FRAME_TOKENS;
    geometry.token_bytes = lie == 4 ? 3 : 2;
    geometry.sequence_length = lie == 5 ? 1 << 30 : SEQUENCE;
    return geometry;
}

static void join(void) {
    uint32_t lie = fuzz_number(&input, 1) % 10, number = fuzz_number(&input, 1);
    static char *peers[] = {"tcp://127.0.0.1:2", "tcp://127.0.0.1:3", "nonsense"};
    uint8_t digest[XXH128_BYTES] = {0};
    Millrace__Join join = MILLRACE__JOIN__INIT;
    Millrace__Geometry geometry = geometry_near(lie);
    join.step = number % 3;
    join.peers = peers, join.n_peers = number / 4 % 4;
    if (lie == 6) join.digest = (ProtobufCBinaryData){sizeof digest, digest};
    if (lie != 7) join.geometry = &geometry;
    say_with(COORDINATOR, (struct envelope){.kind = MILLRACE__KIND__JOIN, .step = join.step}, &join.base, NULL, 0);
}

static void step(void) {
    uint32_t lie = fuzz_number(&input, 1) % 10, number = fuzz_number(&input, 1), n = lie ? number % 4 : 1;
    static char *endpoints[] = {"tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "tcp://127.0.0.1:3", ""};
    Millrace__Member member[4], *members[4];
    uint32_t slices[4][2 * SLICES];
    Millrace__Step step = MILLRACE__STEP__INIT;
    for (uint32_t i = 0; i < 4; i++) {
        millrace__member__init(&member[i]);
        members[i] = &member[i];
        member[i].endpoint = endpoints[i];
        member[i].slices = slices[i];
    }
    for (uint32_t s = 0; s < SLICES && n; s++) { /* each slice to somebody; or to nobody, to two, or one that there is not */
        Millrace__Member *whose = &member[s % n];
        if (lie == 2 && fuzz_number(&input, 1) & 1) continue;
        whose->slices[whose->n_slices++] = lie == 3 ? fuzz_number(&input, 2) : s;
        if (lie == 4) member[0].slices[member[0].n_slices++] = s;
    }
    step.members = members, step.n_members = n;
    step.self = lie == 5 ? number : 0;
    if (lie != 6) view++;
    struct envelope envelope = {.kind = MILLRACE__KIND__STEP, .step = lie == 7 ? number % 5 : 1 + number / 128};
    envelope.attempt = (uint64_t)1 << 32 | view;
    say_with(COORDINATOR, envelope, &step.base, NULL, 0);
}

static void commit(void) {
    uint32_t lie = fuzz_number(&input, 1) % 5, number = fuzz_number(&input, 1);
    Millrace__Commit commit = MILLRACE__COMMIT__INIT;
    commit.tokens = lie == 1 ? 0 : 16, commit.skip = lie == 3;
    struct envelope envelope = {.kind = MILLRACE__KIND__COMMIT, .step = lie == 4 ? number : 1 + number / 128};
    envelope.attempt = (uint64_t)1 << 32 | view;
    say_with(COORDINATOR, envelope, &commit.base, NULL, 0);
}

static void lease(void) {
    uint32_t what = fuzz_number(&input, 1) % 8, lie = fuzz_number(&input, 1);
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    Millrace__SourcePart part = MILLRACE__SOURCE_PART__INIT, *parts[] = {&part, &part};
    Millrace__Place from = MILLRACE__PLACE__INIT;
    Millrace__TokenizeJob tokenize = MILLRACE__TOKENIZE_JOB__INIT;
    Millrace__PackJob pack = MILLRACE__PACK_JOB__INIT;
    Millrace__EvaluateJob evaluate = MILLRACE__EVALUATE_JOB__INIT;
    Millrace__Geometry geometry = geometry_near(lie % 12);
    uint32_t zero = 0, one = 1;
    uint64_t zeros[1] = {0}, count[1] = {10 + lie % 7};
    part.name = "/nowhere/text.txt", part.size = lie % 3 ? 100 : UINT64_MAX, part.end = lie % 5 ? part.size : lie;
    part.begin = lie % 7 == 6 ? lie : 0, part.group = lie % 11 == 10, part.stream = lie % 13 == 12;
    tokenize.parts = parts, tokenize.n_parts = lie % 4 == 3 ? 0 : 1 + lie % 2;
    from.part = lie % 6, from.text = lie;
    if (lie % 9 == 8) tokenize.from = &from;
    pack.split = lie % 3 ? "train" : "", pack.tokens = lie % 8 == 7 ? UINT64_MAX : count[0], pack.frame_tokens = lie % 5 ? 64 : 0;
    pack.token_bytes = lie % 10 == 9 ? 3 : 2;
    pack.run = &zero, pack.n_run = 1, pack.first = zeros, pack.n_first = lie % 6 != 5, pack.count = count, pack.n_count = 1;
    pack.ends = &one, pack.n_ends = 1, pack.document = zeros, pack.n_document = 1, pack.source = &zero, pack.n_source = 1;
    pack.offset = zeros, pack.n_offset = 1, pack.bytes = zeros, pack.n_bytes = 1;
    evaluate.step = lie % 3, evaluate.count = 1 + lie % 4, evaluate.first = lie % 5 == 4 ? UINT64_MAX - 2 : 0;
    if (lie % 7 != 5) evaluate.geometry = &geometry;
    lease.stage = "anything";
    if (what < 3) lease.work_case = MILLRACE__LEASE__WORK_TOKENIZE, lease.tokenize = &tokenize;
    else if (what < 5) lease.work_case = MILLRACE__LEASE__WORK_PACK, lease.pack = &pack;
    else if (what < 7) lease.work_case = MILLRACE__LEASE__WORK_EVALUATE, lease.evaluate = &evaluate;
    leased = (struct envelope){.kind = MILLRACE__KIND__LEASE, .job = 1 + lie % 20, .attempt = lie};
    say_with(COORDINATOR, leased, &lease.base, NULL, 0);
}

/* ---- answers and questions ---- */

static void answer(uint32_t lie) {
    static uint8_t bytes[SEGMENT_ELEMENTS * sizeof(float)];
    uint8_t packed[FRAME_TOKENS * 4];
    if (!asked_count) { /* the work thread may be at something */
        clock_sleep_ms(1);
        return;
    }
    size_t at = lie ? fuzz_number(&input, 1) % asked_count : 0;
    const Millrace__Read *read = (const Millrace__Read *)asked[at].body;
    Millrace__Data data = MILLRACE__DATA__INIT;
    struct envelope envelope = asked[at].envelope;
    uint64_t from = asked_of[at];
    const void *chunk = bytes;
    size_t size = read->size < sizeof bytes ? (size_t)read->size : sizeof bytes;
    envelope.kind = MILLRACE__KIND__DATA;
    if (read->what == MILLRACE__READ__WHAT__SOURCE) size = size < 100 ? size : 100;
    if (read->what == MILLRACE__READ__WHAT__FRAME) {
        size = ZSTD_compress(packed, sizeof packed, bytes, FRAME_TOKENS * 2, 1);
        chunk = packed;
    }
    if (read->what >= MILLRACE__READ__WHAT__PARTIAL) size = fuzz_number(&input, 1) % 4 ? 0 : sizeof bytes;
    if (lie == 1) chunk = bytes, size = fuzz_number(&input, 2);
    if (lie == 2) data.status = (Millrace__Data__Status)(fuzz_number(&input, 1) % 5);
    if (lie == 3) from = STRANGER + fuzz_number(&input, 1) % 3;
    if (lie == 4) envelope.job += fuzz_number(&input, 1);
    say_with(from, envelope, &data.base, chunk, size);
    if (lie && lie != 2) return;
    message_free(&asked[at]);
    asked_of[at] = asked_of[--asked_count];
    asked[at] = asked[asked_count];
    asked[asked_count] = (struct message){0};
}

static void question(void) {
    Millrace__Read read = MILLRACE__READ__INIT;
    uint32_t number = fuzz_number(&input, 1);
    read.what = (Millrace__Read__What)(number % 10);
    read.a = fuzz_number(&input, 1) % 6, read.b = fuzz_number(&input, 1) % 6, read.c = fuzz_number(&input, 1) % 3;
    read.offset = number % 5 ? fuzz_number(&input, 1) : UINT64_MAX;
    read.size = number % 3 ? fuzz_number(&input, 2) : UINT64_MAX;
    struct envelope envelope = {.kind = MILLRACE__KIND__READ, .job = messages, .step = number % 4};
    envelope.attempt = (uint64_t)1 << 32 | (view + number % 3);
    say_with(number & 1 ? STRANGER + number % 3 : COORDINATOR, envelope, &read.base, NULL, 0);
}

/* Of the last job: as it is, in an earlier or later attempt, in none, or of another job. */
static void settled(uint32_t lie) {
    struct envelope envelope = {.kind = MILLRACE__KIND__SETTLED, .job = leased.job, .attempt = leased.attempt};
    switch (lie % 8) {
    case 0: envelope.attempt--; break;
    case 1: envelope.attempt++; break;
    case 2: envelope.attempt = 0; break;
    case 3: envelope.job++; break;
    default: break;
    }
    say_with(COORDINATOR, envelope, NULL, NULL, 0);
}

static void one_thing(void) {
    Millrace__Refused refused = MILLRACE__REFUSED__INIT;
    uint32_t byte = fuzz_number(&input, 1);
    switch (byte % 20) {
    case 0: welcome(); break;
    case 1: join(); break;
    case 2:
    case 3: step(); break;
    case 4: commit(); break;
    case 5:
    case 6: lease(); break;
    case 7: question(); break;
    case 8: say(MILLRACE__KIND__SELF_TEST, NULL); break;
    case 9: say(MILLRACE__KIND__WHO, NULL); break;
    case 10: settled(byte / 20); break;
    case 11:
        refused.reason = "no reason";
        say(MILLRACE__KIND__REFUSED, &refused.base);
        break;
    case 12: say_with(byte & 1 ? COORDINATOR : STRANGER, (struct envelope){.kind = fuzz_number(&input, 1) % 42}, NULL, NULL, 0); break;
    case 13: answer(1 + fuzz_number(&input, 1) % 4); break;
    default: answer(0);
    }
}

/* ---- the link ---- */

struct link {
    int nothing;
};
static struct link the_link;

int link_open(struct link **out, const struct link_options *options) {
    (void)options;
    *out = &the_link;
    return 0;
}
void link_filter(struct link *link, link_wants *function, void *arg) {
    (void)link;
    wants = function, wants_arg = arg;
}
const char *link_endpoint(const struct link *link) {
    (void)link;
    return "tcp://127.0.0.1:1";
}
int link_connect(struct link *link, uint64_t *out_peer, const char *endpoint) {
    (void)link;
    for (size_t i = 0; i < connections; i++)
        if (strcmp(connected[i], endpoint) == 0) {
            *out_peer = i + 1;
            return 0;
        }
    if (connections == CONNECTIONS_MAX || (connections && strncmp(endpoint, "tcp:", 4) != 0)) return err_set(ERR_CONFIG, "no endpoint");
    connected[connections++] = mem_text(endpoint);
    *out_peer = connections;
    return 0;
}
void link_disconnect(struct link *link, uint64_t peer) { (void)link, (void)peer; }
size_t link_disconnect_idle(struct link *link, int64_t idle_ms, uint64_t keep) {
    (void)link, (void)idle_ms, (void)keep;
    return 0;
}
bool link_has_room(struct link *link, uint64_t peer, size_t bytes) {
    (void)link, (void)peer, (void)bytes;
    return true;
}
void link_wake(struct link *link) { (void)link; }
struct link_counts link_counts(const struct link *link) {
    (void)link;
    return (struct link_counts){0};
}
void link_close(struct link *link) { (void)link; }

int link_send(struct link *link, uint64_t peer, struct frame *frame) {
    (void)link;
    struct message message = {0};
    CHECK(frame_unpack(&message, frame->header.data, frame->header.size, frame->body.data, frame->body.size) == 0);
    frame_free(frame);
    if (message.envelope.kind == MILLRACE__KIND__READ && asked_count < OPEN_MAX) {
        asked_of[asked_count] = peer;
        asked[asked_count++] = message;
        message = (struct message){0};
    }
    message_free(&message);
    return 0;
}

int link_receive(struct link *link, uint64_t *out_peer, struct message *out, int timeout_ms) {
    struct envelope envelope;
    (void)link, (void)timeout_ms;
    clock_sleep_ms(input.left ? 0 : 1);
    sched_yield();
    if (!input.left || messages++ >= MESSAGES_MAX) {
        if (home) return 0;
        home = true;
        say(MILLRACE__KIND__GOODBYE, NULL);
    } else one_thing();
    if (!next.header.data) return 0;
    CHECK(frame_peek(&envelope, next.header.data, next.header.size));
    bool wanted = !wants || wants(wants_arg, next_from, &envelope);
    int code = wanted ? frame_unpack(out, next.header.data, next.header.size, next.body.data, next.body.size) : ERR_PEER;
    frame_free(&next);
    next = (struct frame){0};
    *out_peer = next_from;
    return code == 0;
}

/* ---- inputs ---- */

static void prepare(void) {
    static const char text[] =
        "run_name: fuzz\n"
        "dataset: {sources: [{path: text.txt}], sequence_length: 4}\n"
        "cluster: {threads_per_worker: 1}\n"
        "model: {n_layer: 1, n_head: 1, n_embd: 4, n_positions: 4}\n"
        "training: {global_batch: 4, slices: 4, max_steps: 6}\n";
    struct config config;
    log_setup("fuzz", getenv("MILLRACE_FUZZ_LOG") ? LOG_INFO : LOG_ERROR + 1);
    if (config_parse(&config, "fuzz", text, sizeof text - 1, "/", NULL, 0) < 0) fuzz_fail("%s", err_text());
    CHECK(config_print(&pipeline, &config) == 0);
    config_free(&config);
}

void fuzz(const uint8_t *data, size_t size) {
    if (!pipeline.size) prepare();
    struct worker_options options = {.connect = "tcp://127.0.0.1:5555", .grace_ms = 100, .threads = 1};
    input = (struct fuzz_input){data, size};
    view = messages = 0;
    leased = (struct envelope){0};
    home = false;
    worker_run(&options); /* an error is fine */
    frame_free(&next);
    next = (struct frame){0};
    while (asked_count) message_free(&asked[--asked_count]);
    while (connections) free(connected[--connections]);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size)) {
    for (uint8_t what = 0; what < 16; what++) {
        uint8_t bytes[900];
        size_t size = 0;
        bytes[size++] = 0, bytes[size++] = 0;                      /* WELCOME */
        for (int i = 0; i < 4; i++) bytes[size++] = 19;            /* time to take it in */
        bytes[size++] = 1, bytes[size++] = 0, bytes[size++] = 0;   /* JOIN: the first state */
        while (size + 16 < sizeof bytes) {
            bytes[size++] = what;
            bytes[size] = (uint8_t)(size / 16 * (what % 2 + 1)), size++;
            bytes[size] = (uint8_t)(size * 7), size++;
            bytes[size++] = 2, bytes[size++] = 0, bytes[size++] = 0; /* STEP: alone with all slices */
            for (int i = 0; i < 7; i++) bytes[size++] = 19;          /* answers */
            bytes[size++] = 4, bytes[size++] = 0, bytes[size++] = 0; /* COMMIT */
        }
        add(bytes, size);
    }
}
