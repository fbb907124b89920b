/* A worker that does not keep to the protocol, for tests/e2e/test_hostile.py: it says hello as any other and then does what its first
 * argument names. Everything that it sends is well formed; a coordinator or worker must live through all of it.
 *
 *     impostor BEHAVIOUR COORDINATOR [FILE]
 *
 * With FILE it keeps what it was given and does nothing before the file is there. It ends when it is refused, when the coordinator goes, or
 * by a signal, and prints a line for each thing that a test may wait for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/hash.h"
#include "proto/frame.h"
#include "proto/link.h"

enum { TICK_MS = 50, HEARTBEAT_MS = 300 };

struct impostor {
    const char *behaviour;
    struct link *link;
    uint64_t coordinator, run;
    int64_t heartbeat_ms;
};

static void send_as(struct impostor *me, struct envelope envelope, const ProtobufCMessage *body, const void *chunk, size_t chunk_bytes) {
    struct frame frame;
    envelope.run = me->run;
    if (frame_pack(&frame, &envelope, body, chunk, chunk_bytes, FRAME_NONE) == 0) link_send(me->link, me->coordinator, &frame);
}

static void say(struct impostor *me, uint32_t kind, const ProtobufCMessage *body) {
    send_as(me, (struct envelope){.kind = kind}, body, NULL, 0);
}

static bool is(const struct impostor *me, const char *behaviour) { return strcmp(me->behaviour, behaviour) == 0; }

static void tell(const char *what) {
    printf("%s\n", what);
    fflush(stdout);
}

static void say_hello(struct impostor *me) {
    Millrace__Hello hello = MILLRACE__HELLO__INIT;
    hello.worker = "impostor";
    hello.pid = 1;
    hello.host = "no\x1b[2Jwhere";
    hello.endpoint = (char *)link_endpoint(me->link);
    hello.build = "impostor";
    say(me, MILLRACE__KIND__HELLO, &hello.base);
}

/* ---- what it does with a job ---- */

static void on_lease(struct impostor *me, const struct message *message) {
    struct envelope reply = message->envelope;
    reply.sequence = 0; /* it does not number what it says */
    Millrace__Done done = MILLRACE__DONE__INIT;
    Millrace__Failed failed = MILLRACE__FAILED__INIT;
    Millrace__TokenizeResult tokenized = MILLRACE__TOKENIZE_RESULT__INIT;
    Millrace__PackResult packed = MILLRACE__PACK_RESULT__INIT;
    Millrace__EvaluateResult evaluated = MILLRACE__EVALUATE_RESULT__INIT;
    const Millrace__Lease *lease = (const Millrace__Lease *)message->body;
    uint8_t digest[SHA256_BYTES] = {1};
    reply.kind = MILLRACE__KIND__DONE;
    done.digest = (ProtobufCBinaryData){sizeof digest, digest};
    done.size = 1000;
    if (is(me, "done-without-result")) {
        send_as(me, reply, &done.base, NULL, 0);
    } else if (is(me, "done-of-another-kind")) {
        done.result_case = lease->work_case == MILLRACE__LEASE__WORK_TOKENIZE ? MILLRACE__DONE__RESULT_PACK
                                                                                : MILLRACE__DONE__RESULT_TOKENIZE;
        if (lease->work_case == MILLRACE__LEASE__WORK_TOKENIZE) done.pack = &packed;
        else done.tokenize = &tokenized;
        send_as(me, reply, &done.base, NULL, 0);
        done.result_case = MILLRACE__DONE__RESULT_EVALUATE;
        done.evaluate = &evaluated;
        send_as(me, reply, &done.base, NULL, 0);
    } else if (is(me, "done-of-an-earlier-generation")) { /* the same job, the same attempt: only the generation tells */
        reply.attempt -= (uint64_t)1 << 32;
        done.result_case = MILLRACE__DONE__RESULT_TOKENIZE;
        done.tokenize = &tokenized;
        send_as(me, reply, &done.base, NULL, 0);
        reply.kind = MILLRACE__KIND__FAILED;
        failed.reason = "of an earlier generation";
        send_as(me, reply, &failed.base, NULL, 0);
    } else if (is(me, "fails") || is(me, "fails-finally")) {
        failed.final = is(me, "fails-finally");
        reply.kind = MILLRACE__KIND__FAILED;
        failed.reason = "no mood for it\x1b[31m\x1b]0;owned\x07\n2030 error: a line of its own\xc2\x9b\xff\xe2\x80\xae";
        send_as(me, reply, &failed.base, NULL, 0);
    }
}

/* Letters that wait for the file. */
enum { KEPT_MAX = 64 };
static struct message kept[KEPT_MAX];
static size_t kept_count;

static bool is_told_to_wait(const char *file) { return file && access(file, F_OK) != 0; }

static void act(struct impostor *me, const struct message *message) {
    if (message->envelope.kind == MILLRACE__KIND__LEASE) on_lease(me, message);
    if (message->envelope.kind == MILLRACE__KIND__SELF_TEST) say(me, MILLRACE__KIND__GOODBYE, NULL); /* that is beyond it */
}

static bool on_message(struct impostor *me, struct message *message) {
    switch (message->envelope.kind) {
    case MILLRACE__KIND__WELCOME:
        me->run = message->envelope.run;
        if (!is(me, "stays")) say(me, MILLRACE__KIND__READY, NULL);
        tell("welcome");
        break;
    case MILLRACE__KIND__WHO: say_hello(me); break;
    case MILLRACE__KIND__REFUSED: tell("refused"); return !((const Millrace__Refused *)message->body)->final;
    case MILLRACE__KIND__GOODBYE: tell("goodbye"); return is(me, "stays");
    default:
        if (message->envelope.kind == MILLRACE__KIND__LEASE) tell("lease");
        if (message->envelope.kind == MILLRACE__KIND__READ) tell("read");
        if (message->envelope.kind == MILLRACE__KIND__SETTLED) tell("settled");
        if (kept_count < KEPT_MAX) {
            kept[kept_count++] = *message;
            *message = (struct message){0};
        }
    }
    return true;
}

int main(int argc, char **argv) {
    struct impostor me = {.behaviour = argc > 1 ? argv[1] : ""};
    const char *file = argc > 3 ? argv[3] : NULL;
    if (argc < 3 || link_open(&me.link, &(struct link_options){.bind = "tcp://127.0.0.1:*"}) < 0 ||
        link_connect(me.link, &me.coordinator, argv[2]) < 0) {
        fprintf(stderr, "impostor BEHAVIOUR COORDINATOR [FILE]: %s\n", err_text());
        return 2;
    }
    say_hello(&me);
    for (bool more = true; more;) {
        struct message message;
        uint64_t peer;
        int got = link_receive(me.link, &peer, &message, TICK_MS);
        if (got < 0) return 1;
        if (got) more = on_message(&me, &message);
        if (got) message_free(&message);
        if (!is_told_to_wait(file)) {
            for (size_t i = 0; i < kept_count; i++) {
                act(&me, &kept[i]);
                message_free(&kept[i]);
            }
            kept_count = 0;
        }
        int64_t now = clock_ms();
        if (now - me.heartbeat_ms < HEARTBEAT_MS) continue;
        me.heartbeat_ms = now;
        Millrace__Heartbeat beat = MILLRACE__HEARTBEAT__INIT;
        say(&me, MILLRACE__KIND__HEARTBEAT, &beat.base);
    }
    link_close(me.link);
    return 0;
}
