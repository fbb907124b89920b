/* The coordinator as a whole behind an in-memory link: the input's bytes choose who says what, when, and how far from the truth. Peers are
 * workers that can do everything honestly and mix that with messages of any kind whose fields are nearly right; time passes when the input
 * says so; the coordinator is killed and started again on the same folder. Whatever happens, it lives, and a dataset that it finishes is
 * the one that honest workers make.
 *
 * The link's and the clock's functions are defined here, so those of the product are not linked. */
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "config/config.h"
#include "coordinator/coordinator.h"
#include "coordinator/files.h"
#include "dataset/ingest/ingest.h"
#include "dataset/shard/manifest.h"
#include "dataset/shard/shard.h"
#include "dataset/source/local.h"
#include "dataset/tokenizer/tokenizer.h"
#include "dataset/tokenizer/train.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "proto/session.h"
#include "proto/steps.h"
#include "tests/fuzz/fuzz.h"

enum {
    PEERS = 4,
    OPEN_MAX = 32,          /* questions to a peer that it remembers */
    RESULTS_MAX = 64,
    MESSAGES_MAX = 4000,    /* of one input */
    ROUNDS_MAX = 40,        /* honest rounds of one input: each may be a step */
};

/* ---- time ---- */

static int64_t now_ms = 1000000;
int64_t clock_ms(void) { return now_ms; }
int64_t clock_wall_ms(void) { /* the driver's seed */
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    return (int64_t)at.tv_sec * 1000 + at.tv_nsec / 1000000;
}
void clock_sleep_ms(int64_t ms) { now_ms += ms; }
double clock_seconds(void) { /* of speeds, on which nothing rests */
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}
void clock_stamp(char out[32]) { strcpy(out, "2026-01-01T00:00:00.000Z"); }

/* ---- what honest workers make ---- */

static struct config config;
static struct tokenizer *tokenizer;
static size_t elements;
static struct state_parts parts;
static uint8_t state_digest_of_zeros[XXH128_BYTES];
static struct result {
    struct buf lease, bytes, done; /* packed; the output; packed */
} results[RESULTS_MAX];
static size_t result_count;
static const struct buf *last_run; /* there is one source file, and so one run */

static int sink(void *arg, const void *bytes, size_t size) { return buf_append(arg, bytes, size); }
static int tick(void *arg) {
    (void)arg;
    return 0;
}
static int read_run(void *arg, uint32_t run, void *out, size_t size, uint64_t offset) {
    (void)arg, (void)run;
    if (!last_run || offset + size > last_run->size) return err_set(ERR_IO, "no such run");
    memcpy(out, last_run->data + offset, size);
    return 0;
}

static int tokenize(struct buf *out, Millrace__Done *done, const Millrace__TokenizeJob *job) {
    static Millrace__TokenizeResult result;
    struct ingest_options options = {.tokenizer = tokenizer, .text_bytes = INGEST_TEXT_BYTES};
    options.token_bytes = tokenizer_token_bytes(tokenizer);
    struct ingest *ingest;
    struct encoder *encoder;
    options.groups = config.dataset.sources.item, options.group_count = config.dataset.sources.count;
    options.policy = policy_options_of(&config);
    options.max_left_out = config.dataset.max_left_out;
    options.open = local_open_part, options.close = local_close_part, options.tick = tick;
    millrace__tokenize_result__init(&result);
    TRY(ingest_open(&ingest, &options, job));
    CHECK(encoder_open(&encoder, tokenizer) == 0);
    int code = ingest_run(ingest, &result, encoder, sink, out);
    CHECK(code < 0 || !result.next);
    encoder_close(encoder);
    ingest_close(ingest);
    done->result_case = MILLRACE__DONE__RESULT_TOKENIZE;
    done->tokenize = &result;
    return code;
}

static int pack(struct buf *out, Millrace__Done *done, const Millrace__PackJob *job) {
    static Millrace__PackResult result;
    struct token_run_reader reader = {.read = read_run};
    millrace__pack_result__init(&result);
    done->result_case = MILLRACE__DONE__RESULT_PACK;
    done->pack = &result;
    return shard_build(&result, job, &reader, sink, out, NULL, NULL);
}

/* The honest result of a lease, made once; NULL: it cannot be done. */
static struct result *result_of(const Millrace__Lease *lease) {
    static Millrace__EvaluateResult evaluated;
    struct buf packed = {0};
    CHECK(buf_reserve(&packed, millrace__lease__get_packed_size(lease) + 1) == 0);
    packed.size = millrace__lease__pack(lease, packed.data);
    for (size_t i = 0; i < result_count; i++)
        if (results[i].lease.size == packed.size && memcmp(results[i].lease.data, packed.data, packed.size) == 0) {
            buf_free(&packed);
            return &results[i];
        }
    if (result_count == RESULTS_MAX) {
        buf_free(&packed);
        return NULL;
    }
    struct result *result = &results[result_count];
    Millrace__Done done = MILLRACE__DONE__INIT;
    uint8_t digest[SHA256_BYTES];
    int code = 0;
    millrace__evaluate_result__init(&evaluated);
    *result = (struct result){.lease = packed};
    switch (lease->work_case) {
    case MILLRACE__LEASE__WORK_TOKENIZE: code = tokenize(&result->bytes, &done, lease->tokenize); break;
    case MILLRACE__LEASE__WORK_PACK: code = pack(&result->bytes, &done, lease->pack); break;
    case MILLRACE__LEASE__WORK_EVALUATE:
        evaluated.loss_sum = 1, evaluated.tokens = 2;
        done.result_case = MILLRACE__DONE__RESULT_EVALUATE;
        done.evaluate = &evaluated;
        break;
    default: CHECK(!"a kind of job that this worker has not learned");
    }
    if (code < 0) {
        buf_free(&result->lease);
        buf_free(&result->bytes);
        return NULL;
    }
    struct sha256 *sha = sha256_open();
    sha256_add(sha, result->bytes.data, result->bytes.size);
    sha256_finish(sha, digest);
    sha256_close(sha);
    done.digest = (ProtobufCBinaryData){sizeof digest, digest};
    done.size = result->bytes.size;
    CHECK(buf_reserve(&result->done, millrace__done__get_packed_size(&done) + 1) == 0);
    result->done.size = millrace__done__pack(&done, result->done.data);
    if (lease->work_case == MILLRACE__LEASE__WORK_TOKENIZE) last_run = &result->bytes;
    result_count++;
    return result;
}

/* ---- peers ---- */

struct peer {
    uint64_t number;                     /* at the link; another one after a break */
    bool welcome, who, prove;
    struct message lease[2], open[OPEN_MAX], join, step, commit; /* the newest of each; no body: none */
    size_t open_count;
    uint64_t asked;
    struct session session;              /* what it said since its last HELLO */
};

static struct fuzz_input input;
static struct peer peers[PEERS];
static uint64_t numbers, run, generation;
static unsigned messages, rounds;
static struct frame queue[256];      /* what is on its way to the coordinator */
static uint64_t queue_from[256];
static size_t queue_begin, queue_end;
static link_wants *wants;
static void *wants_arg;
static bool ended;

static void forget(struct message *message) { message_free(message); }

static void break_connection(struct peer *peer) {
    forget(&peer->lease[0]), forget(&peer->lease[1]), forget(&peer->join), forget(&peer->step), forget(&peer->commit);
    while (peer->open_count) forget(&peer->open[--peer->open_count]);
    *peer = (struct peer){.number = ++numbers};
}

/* Keeps what a worker has to answer. */
static void hear(struct peer *peer, struct message *message) {
    struct message *keep = NULL;
    run = message->envelope.run ? message->envelope.run : run;
    switch (message->envelope.kind) {
    case MILLRACE__KIND__WELCOME:
        peer->welcome = true;
        generation = ((const Millrace__Welcome *)message->body)->generation;
        break;
    case MILLRACE__KIND__WHO: peer->who = true; break;
    case MILLRACE__KIND__SELF_TEST: peer->prove = true; break;
    case MILLRACE__KIND__LEASE: keep = peer->lease[0].body ? &peer->lease[1] : &peer->lease[0]; break;
    case MILLRACE__KIND__READ:
        if (peer->open_count < OPEN_MAX) keep = &peer->open[peer->open_count++];
        break;
    case MILLRACE__KIND__JOIN: keep = &peer->join; break;
    case MILLRACE__KIND__STEP: keep = &peer->step; break;
    case MILLRACE__KIND__COMMIT: keep = &peer->commit; break;
    default: break;
    }
    if (!keep) return;
    message_free(keep);
    *keep = *message;
    *message = (struct message){0};
}

static void say_with(struct peer *peer, struct envelope envelope, const ProtobufCMessage *body, const void *chunk, size_t chunk_bytes) {
    bool counts = session_counts(envelope.kind);
    envelope.sequence = 0; /* who does not number */
    if ((peer - peers) % 2) {
        envelope.sequence = session_number(&peer->session, counts);
        session_sent(&peer->session, counts);
    }
    if (queue_end == sizeof queue / sizeof *queue || messages++ >= MESSAGES_MAX) return;
    envelope.run = run;
    if (frame_pack(&queue[queue_end], &envelope, body, chunk, chunk_bytes, FRAME_ZSTD) == 0) queue_from[queue_end++] = peer->number;
}

static void say(struct peer *peer, uint32_t kind, const ProtobufCMessage *body) {
    if (strncmp(kind_name(kind), "kind ", 5) == 0) return; /* there is none of that number */
    say_with(peer, (struct envelope){.kind = kind}, body, NULL, 0);
}

/* ---- honest words ---- */

static const char *const names[] = {"w-0", "w-1", "w-2", "w-3", "", "a name that is much too long for anybody, whatever it may be"};

static void hello(struct peer *peer, size_t name, bool state) {
    Millrace__Hello hello = MILLRACE__HELLO__INIT;
    hello.worker = (char *)names[name % (sizeof names / sizeof *names)];
    hello.host = "host", hello.endpoint = "tcp://127.0.0.1:1", hello.build = "build";
    hello.state_step = fuzz_number(&input, 1) % 8;
    peer->session = (struct session){0};
    if (state) hello.state_digest = (ProtobufCBinaryData){XXH128_BYTES, state_digest_of_zeros};
    say(peer, MILLRACE__KIND__HELLO, &hello.base);
}

static void answer(struct peer *peer, uint8_t which, size_t size) {
    uint8_t digest[SHA256_BYTES] = {which};
    Millrace__SelfTestResult answer = MILLRACE__SELF_TEST_RESULT__INIT;
    answer.digest = (ProtobufCBinaryData){size, digest};
    say(peer, MILLRACE__KIND__SELF_TEST_RESULT, &answer.base);
}

static Millrace__Done *done_of(const struct result *result) {
    if (!result) return millrace__done__unpack(NULL, 0, (const uint8_t *)"");
    return millrace__done__unpack(NULL, result->done.size, result->done.data);
}

/* lie: 0 is the truth. */
static void done(struct peer *peer, struct message *lease, unsigned lie) {
    if (!lease->body) return;
    struct result *result = result_of((const Millrace__Lease *)lease->body);
    Millrace__Done *done = done_of(result);
    struct envelope envelope = lease->envelope;
    envelope.kind = MILLRACE__KIND__DONE;
    int kind = (int)done->result_case;
    switch (lie) {
    case 1: done->result_case = MILLRACE__DONE__RESULT__NOT_SET; break;
    case 2: done->size += fuzz_number(&input, 1); break;
    case 3: done->size = UINT64_MAX; break;
    case 4: done->digest.len /= 2; break;
    case 5: envelope.attempt ^= (uint64_t)1 << (fuzz_number(&input, 1) & 63); break;
    case 6: envelope.job ^= (uint64_t)1 << (fuzz_number(&input, 1) & 63); break;
    case 7:
        if (done->result_case == MILLRACE__DONE__RESULT_TOKENIZE) done->tokenize->tokens++;
        if (done->result_case == MILLRACE__DONE__RESULT_PACK) done->pack->documents += fuzz_number(&input, 1);
        if (done->result_case == MILLRACE__DONE__RESULT_EVALUATE) done->evaluate->loss_sum = 0.0 / 0.0, done->evaluate->tokens = 0;
        break;
    case 8: { /* of another job */
        millrace__done__free_unpacked(done, NULL);
        done = done_of(result_count ? &results[fuzz_number(&input, 1) % result_count] : NULL);
        kind = (int)done->result_case;
        break;
    }
    case 9:
        if (done->result_case == MILLRACE__DONE__RESULT_TOKENIZE && !done->tokenize->next) {
            done->tokenize->next = mem_alloc(sizeof *done->tokenize->next);
            millrace__place__init(done->tokenize->next);
            done->tokenize->next->part = fuzz_number(&input, 1) % 3; /* the beginning, or no part of the job: others would be believed */
        }
        break;
    default: break;
    }
    say_with(peer, envelope, &done->base, NULL, 0);
    done->result_case = (Millrace__Done__ResultCase)kind;
    millrace__done__free_unpacked(done, NULL);
    if (!lie) forget(lease);
}

static void failed(struct peer *peer, struct message *lease, uint64_t how) {
    if (!lease->body) return;
    Millrace__Failed failed = MILLRACE__FAILED__INIT;
    failed.reason = "\x1b[31m%s\n", failed.final = how & 1, failed.unknown = how >> 1 & 1;
    struct envelope envelope = lease->envelope;
    envelope.kind = MILLRACE__KIND__FAILED;
    say_with(peer, envelope, &failed.base, NULL, 0);
}

static void give(struct peer *peer, size_t question, unsigned lie) {
    static uint8_t zeros[SEGMENT_ELEMENTS * sizeof(float)];
    if (question >= peer->open_count) return;
    struct message *open = &peer->open[question];
    const Millrace__Read *read = (const Millrace__Read *)open->body;
    Millrace__Data data = MILLRACE__DATA__INIT;
    struct envelope envelope = open->envelope;
    const uint8_t *bytes = zeros;
    size_t size = read->size <= sizeof zeros ? (size_t)read->size : sizeof zeros;
    envelope.kind = MILLRACE__KIND__DATA;
    if (read->what == MILLRACE__READ__WHAT__STATE)
        size = segment_size(elements, read->c) * state_element_bytes(&parts, (enum state_part)read->a);
    for (size_t i = 0; i < result_count && read->what == MILLRACE__READ__WHAT__OUTPUT; i++) /* of the size that is asked for */
        if (read->offset + read->size == results[i].bytes.size) bytes = results[i].bytes.data + read->offset;
    if (lie == 1) bytes = zeros, size = fuzz_number(&input, 2);
    if (lie == 2) data.status = (Millrace__Data__Status)(fuzz_number(&input, 1) % 5);
    if (lie == 3) envelope.job += fuzz_number(&input, 1);
    if (lie == 4) bytes = zeros;
    say_with(peer, envelope, &data.base, bytes, size);
    if (lie) return;
    forget(open);
    *open = peer->open[--peer->open_count];
    peer->open[peer->open_count] = (struct message){0};
}

static void applied(struct peer *peer, uint64_t step, unsigned lie) {
    uint8_t digest[XXH128_BYTES];
    Millrace__Applied applied = MILLRACE__APPLIED__INIT;
    memcpy(digest, state_digest_of_zeros, sizeof digest);
    if (lie == 1) digest[0] ^= (uint8_t)fuzz_number(&input, 1);
    if (lie == 2) step += fuzz_number(&input, 1);
    applied.digest = (ProtobufCBinaryData){lie == 3 ? 0 : sizeof digest, digest};
    say_with(peer, (struct envelope){.kind = MILLRACE__KIND__APPLIED, .step = step}, &applied.base, NULL, 0);
}

static void slices(struct peer *peer, unsigned lie) {
    if (!peer->step.body) return;
    const Millrace__Step *step = (const Millrace__Step *)peer->step.body;
    const Millrace__Member *self = step->members[step->self];
    for (size_t i = 0; i < self->n_slices; i++) {
        Millrace__Slice slice = MILLRACE__SLICE__INIT;
        slice.slice = self->slices[i] + (lie == 1 ? fuzz_number(&input, 1) : 0);
        slice.tokens = lie == 2 ? UINT64_MAX : lie == 3 ? 0 : 4;
        slice.loss_sum = lie == 4 ? 0.0 / 0.0 : 2;
        struct envelope envelope = peer->step.envelope;
        envelope.kind = MILLRACE__KIND__SLICE;
        if (lie == 5) envelope.step += fuzz_number(&input, 1);
        say_with(peer, envelope, &slice.base, NULL, 0);
    }
}

static void reduced(struct peer *peer, unsigned lie) {
    if (!peer->step.body) return;
    uint8_t digest[XXH128_BYTES] = {7};
    Millrace__Reduced reduced = MILLRACE__REDUCED__INIT;
    struct envelope envelope = peer->step.envelope;
    if (lie == 1) digest[0] = (uint8_t)fuzz_number(&input, 1);
    reduced.digest = (ProtobufCBinaryData){lie == 2 ? 3 : sizeof digest, digest};
    reduced.square_sum = lie == 3 ? 0.0 / 0.0 : 1;
    reduced.finite = lie != 4;
    envelope.kind = MILLRACE__KIND__REDUCED;
    if (lie == 5) envelope.attempt += fuzz_number(&input, 1);
    say_with(peer, envelope, &reduced.base, NULL, 0);
}

static void ask(struct peer *peer) {
    Millrace__Read read = MILLRACE__READ__INIT;
    read.what = (Millrace__Read__What)(fuzz_number(&input, 1) % 10);
    read.split = fuzz_number(&input, 1) % 2 ? "train" : "validation";
    read.a = fuzz_number(&input, 1) % 6, read.b = fuzz_number(&input, 1) % 6, read.c = fuzz_number(&input, 1) % 3;
    read.offset = fuzz_number(&input, 1) % 4 ? fuzz_number(&input, 2) : UINT64_MAX - 5;
    read.size = fuzz_number(&input, 1) % 4 ? fuzz_number(&input, 2) : (uint64_t)1 << 40;
    struct envelope envelope = {.kind = MILLRACE__KIND__READ, .job = ++peer->asked, .step = fuzz_number(&input, 1) % 12};
    say_with(peer, envelope, &read.base, NULL, 0);
}

static void ask_status(struct peer *peer) {
    static char *const what[] = {"status", "", "nonsense"};
    Millrace__Ask ask = MILLRACE__ASK__INIT;
    ask.what = what[fuzz_number(&input, 1) % 3];
    say(peer, MILLRACE__KIND__ASK, &ask.base);
}

/* Everything that an honest worker would answer by now. */
static void be_honest(struct peer *peer) {
    Millrace__Heartbeat beat = MILLRACE__HEARTBEAT__INIT;
    if (rounds++ > ROUNDS_MAX * PEERS) return;
    if (!peer->welcome || peer->who) hello(peer, (size_t)(peer - peers), false);
    else say(peer, MILLRACE__KIND__READY, NULL);
    peer->who = false;
    beat.progress = messages;
    say(peer, MILLRACE__KIND__HEARTBEAT, &beat.base);
    if (peer->prove) answer(peer, 1, SHA256_BYTES);
    peer->prove = false;
    for (int i = 0; i < 2; i++) done(peer, &peer->lease[i], 0);
    while (peer->open_count) give(peer, 0, 0);
    if (peer->join.body) applied(peer, peer->join.envelope.step, 0);
    forget(&peer->join);
    if (peer->step.body) slices(peer, 0), reduced(peer, 0);
    forget(&peer->step);
    if (peer->commit.body) applied(peer, peer->commit.envelope.step, 0);
    forget(&peer->commit);
}

/* One byte says who and what; more of them how. false: time passes. */
static bool one_thing(void) {
    uint32_t byte = fuzz_number(&input, 1);
    struct peer *peer = &peers[byte % PEERS];
    struct message *lease = &peer->lease[byte / 4 % 2];
    switch (byte / PEERS % 20) {
    case 0: hello(peer, fuzz_number(&input, 1), fuzz_number(&input, 1) & 1); break;
    case 1: say(peer, MILLRACE__KIND__READY, NULL); break;
    case 2: say(peer, MILLRACE__KIND__GOODBYE, NULL); break;
    case 3: answer(peer, (uint8_t)(fuzz_number(&input, 1) % 3), SHA256_BYTES >> (fuzz_number(&input, 1) & 1)); break;
    case 4: done(peer, lease, fuzz_number(&input, 1) % 10); break;
    case 5: failed(peer, lease, fuzz_number(&input, 1)); break;
    case 6: give(peer, fuzz_number(&input, 1) % OPEN_MAX, fuzz_number(&input, 1) % 5); break;
    case 7: ask(peer); break;
    case 8: slices(peer, fuzz_number(&input, 1) % 6); break;
    case 9: reduced(peer, fuzz_number(&input, 1) % 6); break;
    case 10: applied(peer, peer->commit.body ? peer->commit.envelope.step : peer->join.envelope.step, fuzz_number(&input, 1) % 4); break;
    case 11: ask_status(peer); break;
    case 12: break_connection(peer); break;
    case 13: now_ms += fuzz_number(&input, 1) * 100; return false;
    case 14: now_ms += 60; return false;
    case 15: say(peer, fuzz_number(&input, 1) % 42, NULL); break;
    case 16: ended = fuzz_number(&input, 1) < 64; return false; /* the coordinator dies */
    default: be_honest(peer);
    }
    return true;
}

/* ---- the thread for files ---- */

/* There is none here, or a case would not be the same when it is run again: what is posted is done at once, and told at the next poll. */
struct files {
    struct file_task task[FILES_QUEUE_MAX];
    int code[FILES_QUEUE_MAX];
    char text[FILES_QUEUE_MAX][256];
    size_t posted, polled;
};

int files_open(struct files **out, void (*wake)(void *arg), void *wake_arg) {
    (void)wake, (void)wake_arg;
    *out = mem_alloc(sizeof **out);
    return 0;
}
bool files_post(struct files *files, const struct file_task *task) {
    static const atomic_bool never;
    if (files->posted - files->polled == FILES_QUEUE_MAX) return false;
    size_t at = files->posted++ % FILES_QUEUE_MAX;
    files->task[at] = *task;
    files->code[at] = task->run(task->arg, &never);
    snprintf(files->text[at], sizeof files->text[at], "%s", err_text());
    return true;
}
void files_poll(struct files *files, void *owner) {
    while (files->polled < files->posted) {
        size_t at = files->polled++ % FILES_QUEUE_MAX;
        if (files->code[at] < 0) err_set(files->code[at], "%s", files->text[at]);
        files->task[at].done(owner, files->task[at].arg, files->code[at]);
    }
}
void files_drain(struct files *files, void *owner) { files_poll(files, owner); }
void files_close(struct files *files, void *owner) {
    while (files && files->polled < files->posted) {
        const struct file_task *task = &files->task[files->polled++ % FILES_QUEUE_MAX];
        task->done(owner, task->arg, ERR_INTERRUPTED);
    }
    free(files);
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
    return "tcp://127.0.0.1:5555";
}
int link_connect(struct link *link, uint64_t *out_peer, const char *endpoint) {
    (void)link, (void)out_peer, (void)endpoint;
    return err_set(ERR_UNSUPPORTED, "a coordinator connects to nobody");
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

int link_send(struct link *link, uint64_t number, struct frame *frame) {
    (void)link;
    struct message message = {0};
    int code = ERR_NOTFOUND;
    for (size_t i = 0; i < PEERS; i++) {
        if (peers[i].number != number) continue;
        code = frame_unpack(&message, frame->header.data, frame->header.size, frame->body.data, frame->body.size);
        CHECK(code == 0);
        hear(&peers[i], &message);
        message_free(&message);
    }
    frame_free(frame);
    return code < 0 ? err_set(ERR_NOTFOUND, "gone") : 0;
}

int link_receive(struct link *link, uint64_t *out_peer, struct message *out, int timeout_ms) {
    (void)link, (void)timeout_ms;
    for (;;) {
        while (queue_begin == queue_end) {
            queue_begin = queue_end = 0;
            if (ended || !input.left) return err_set(ERR_INTERRUPTED, "the end of this life");
            if (!one_thing()) {
                if (ended) continue;
                return 0;
            }
        }
        size_t at = queue_begin++;
        struct frame frame = queue[at];
        struct envelope envelope;
        CHECK(frame_peek(&envelope, frame.header.data, frame.header.size));
        bool wanted = !wants || wants(wants_arg, queue_from[at], &envelope);
        int code = wanted ? frame_unpack(out, frame.header.data, frame.header.size, frame.body.data, frame.body.size) : ERR_PEER;
        frame_free(&frame);
        if (code < 0) continue;
        *out_peer = queue_from[at];
        return 1;
    }
}

/* ---- inputs ---- */

static char *folder;

/* GPT-2's own takes longer to open than most inputs take. */
static void make_tokenizer(const struct buf *text) {
    static const char *const special[] = {"<|endoftext|>"};
    struct train_options options = {.vocab_size = 300, .min_frequency = 2, .special = special, .special_count = 1, .threads = 1};
    struct bpe_trainer *trainer;
    struct tokenizer *made;
    struct tokenizer_file file[TOKENIZER_FILES_MAX];
    size_t count;
    if (bpe_trainer_open(&trainer, &options) < 0) fuzz_fail("%s", err_text());
    CHECK(bpe_trainer_feed(trainer, text->data, text->size) == 0 && bpe_trainer_end(trainer) == 0);
    if (bpe_trainer_finish(trainer, &made) < 0 || tokenizer_print_files(made, file, &count, 0) < 0) fuzz_fail("%s", err_text());
    char *path = mem_format("%s/tokenizer", fuzz_folder());
    CHECK(folder_make(path) == 0);
    free(path);
    for (size_t i = 0; i < count; i++) {
        char *name = mem_format("tokenizer/%s", file[i].name);
        fuzz_file(name, file[i].text.data, file[i].text.size);
        free(name);
    }
    tokenizer_files_free(file);
    tokenizer_close(made);
    bpe_trainer_close(trainer);
}

static void prepare(void) {
    static const char pipeline[] =
        "run_name: fuzz\noutput_dir: out\n"
        "cluster: {workers: 2, lease_seconds: 10}\n"
        "dataset: {sources: [{path: text.jsonl, field: text}], sequence_length: 4, validation_fraction: 0.3, shard_tokens: 65536,\n"
        "  tokenizer: tokenizer}\n"
        "model: {n_layer: 1, n_head: 1, n_embd: 4, n_positions: 4}\n"
        "training: {global_batch: 4, slices: 4, max_steps: 6, eval_steps: 2, eval_sequences: 20, save_steps: 3}\n";
    struct buf text = {0};
    log_setup("fuzz", getenv("MILLRACE_FUZZ_LOG") ? LOG_INFO : LOG_ERROR + 1);
    for (int i = 0; i < 40; i++) CHECK(buf_print(&text, "{\"text\": \"document %d says something else than the others\"}\n", i) == 0);
    fuzz_file("text.jsonl", text.data, text.size);
    make_tokenizer(&text);
    buf_free(&text);
    folder = mem_format("%s/out", fuzz_folder());
    if (config_parse(&config, "fuzz", pipeline, sizeof pipeline - 1, fuzz_folder(), NULL, 0) < 0) fuzz_fail("%s", err_text());
    free(config.output_dir);
    config.output_dir = mem_text(folder);
    CHECK(tokenizer_open_for(&tokenizer, &config) == 0);
    struct gpt2_config model = gpt2_config_of(&config);
    struct optimizer optimizer = optimizer_of(&config);
    elements = gpt2_parameters(&model);
    parts = optimizer_parts(&optimizer);
    void *state[STATE_PARTS] = {0};
    struct pool *pool;
    CHECK(state_open(state, &parts, elements) == 0 && pool_open(&pool, 1) == 0);
    for (size_t i = 0; i < parts.count; i++) memset(state[parts.part[i]], 0, elements * state_element_bytes(&parts, parts.part[i]));
    state_digest(state_digest_of_zeros, state, &parts, elements, pool);
    pool_close(pool);
    state_close(state);
}

/* The dataset follows from the text, whoever made it. */
static void check_dataset(void) {
    static uint8_t first[SHA256_BYTES];
    static bool known;
    char *path = mem_format("%s/dataset", folder);
    struct manifest manifest;
    if (manifest_read(&manifest, path) == 0) {
        if (known && memcmp(first, manifest.digest, sizeof first) != 0) fuzz_fail("another dataset came out");
        memcpy(first, manifest.digest, sizeof first);
        known = true;
        manifest_free(&manifest);
    }
    free(path);
}

void fuzz(const uint8_t *data, size_t size) {
    if (!folder) prepare();
    folder_remove(folder);
    input = (struct fuzz_input){data, size};
    messages = rounds = 0;
    run = generation = 0;
    for (size_t i = 0; i < PEERS; i++) break_connection(&peers[i]);
    for (int life = 0; life < 8 && (input.left || life == 0); life++) {
        struct coordinator_options options = {.config = &config, .grace_ms = 1000};
        ended = false;
        int code = coordinator_run(&options);
        while (queue_begin < queue_end) frame_free(&queue[queue_begin++]);
        queue_begin = queue_end = 0;
        for (size_t i = 0; i < PEERS; i++) break_connection(&peers[i]);
        check_dataset();
        if (code != ERR_INTERRUPTED) break; /* done, or failed for a reason that it names */
    }
    for (size_t i = 0; i < PEERS; i++) break_connection(&peers[i]);
}

enum { HONEST = 19 * PEERS, WAIT = 14 * PEERS };

void fuzz_seeds(void (*add)(const void *bytes, size_t size)) {
    uint8_t honest[400];
    for (size_t i = 0; i < sizeof honest; i++) honest[i] = i % 5 == 4 ? WAIT : (uint8_t)(HONEST + i % 5);
    add(honest, sizeof honest);
    for (uint8_t what = 0; what < 19; what++) /* each thing, and each way to do it, from some time of a run on */
        for (int how = 0; how < (what == 4 ? 10 : what == 6 || (what >= 8 && what <= 10) ? 6 : 1); how++)
            for (size_t from = 0; from <= 20; from += 10) {
                uint8_t mixed[40 * 17];
                size_t size = 0;
                for (uint8_t block = 0; block < 40; block++) {
                    for (size_t i = 0; i < 5; i++) mixed[size++] = honest[i];
                    for (uint8_t who = 0; who < PEERS && block >= from && what != 16; who++) { /* when there is something to answer */
                        mixed[size++] = (uint8_t)(what * PEERS + who);
                        mixed[size++] = (uint8_t)how;
                        mixed[size++] = (uint8_t)(1 + block);
                    }
                }
                add(mixed, size);
            }
    uint8_t lives[400];
    memcpy(lives, honest, sizeof lives);
    for (size_t i = 20; i + 1 < sizeof lives; i += 50) lives[i] = 16 * PEERS, lives[i + 1] = 0;
    add(lives, sizeof lives);
}
