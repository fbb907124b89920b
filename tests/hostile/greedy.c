/* Somebody who takes or gives too much, for tests/e2e/test_greedy.py: it sends one kind of message as fast as it can and reads nothing.
 *
 *     greedy reads COORDINATOR     joins, then asks for 4 MiB of a source file again and again
 *     greedy hellos COORDINATOR    says hello by another name each time
 *     greedy impostor COORDINATOR WORKER    says hello by that worker's name
 *     greedy questions COORDINATOR asks for the status
 *     greedy data ENDPOINT         gives what nobody asked for: 4 MiB that are hundred bytes on the wire
 *     greedy state ENDPOINT        asks a worker for its state, which may be there or not yet
 *     greedy frames ENDPOINT       sends messages that are much too large
 *
 * Knows ZeroMQ itself: it must be able to not read. Prints how many messages it got rid of, now and then,
 * and has enough at some time, but stays. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/err.h"
#include "proto/frame.h"
#include "proto/reads.h"

enum { MESSAGES_MAX = 16384, FRAMES_MAX = 16 };

static void *context, *sock;
static uint64_t run;

/* false: nothing goes at the moment. */
static bool send_one(const struct envelope *envelope, const ProtobufCMessage *body, const void *chunk, size_t chunk_bytes) {
    struct frame frame;
    struct envelope stamped = *envelope;
    stamped.run = run;
    if (frame_pack(&frame, &stamped, body, chunk, chunk_bytes, FRAME_ZSTD) < 0) {
        fprintf(stderr, "%s\n", err_text());
        exit(2);
    }
    bool sent = zmq_send(sock, frame.header.data, frame.header.size, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0;
    if (sent) zmq_send(sock, frame.body.data, frame.body.size, 0);
    frame_free(&frame);
    return sent;
}

static bool say_hello(const char *name) {
    Millrace__Hello hello = MILLRACE__HELLO__INIT;
    hello.worker = (char *)name;
    hello.host = "nowhere";
    hello.endpoint = "tcp://127.0.0.1:9";
    hello.build = "greedy";
    return send_one(&(struct envelope){.kind = MILLRACE__KIND__HELLO}, &hello.base, NULL, 0);
}

/* Reads the two frames of the WELCOME, the last that it reads. */
static void join(void) {
    while (!say_hello("greedy")) usleep(1000);
    zmq_msg_t header, body;
    struct message message;
    zmq_msg_init(&header);
    zmq_msg_init(&body);
    if (zmq_msg_recv(&header, sock, 0) < 0 || zmq_msg_recv(&body, sock, 0) < 0 ||
        frame_unpack(&message, zmq_msg_data(&header), zmq_msg_size(&header), zmq_msg_data(&body), zmq_msg_size(&body)) < 0) exit(3);
    run = message.envelope.run;
    message_free(&message);
    zmq_msg_close(&header);
    zmq_msg_close(&body);
    send_one(&(struct envelope){.kind = MILLRACE__KIND__READY}, NULL, NULL, 0);
}

static bool ask(uint64_t n, Millrace__Read__What what) {
    Millrace__Read read = MILLRACE__READ__INIT;
    read.what = what;
    read.size = READ_BYTES_MAX;
    read.a = what == MILLRACE__READ__WHAT__STATE ? n % 3 : 0;
    struct envelope envelope = {.kind = MILLRACE__KIND__READ, .job = n, .step = n % 20, .attempt = (uint64_t)1 << 32 | n % 40};
    return send_one(&envelope, &read.base, NULL, 0);
}

static bool send_frame(void) {
    static uint8_t zeros[90 << 20];
    bool sent = zmq_send(sock, "much", 4, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0;
    if (sent) zmq_send(sock, zeros, sizeof zeros, 0);
    return sent;
}

static bool misbehave(const char *what, const char *name, uint64_t n) {
    static uint8_t zeros[READ_BYTES_MAX];
    char other[48];
    snprintf(other, sizeof other, "greedy-%llu", (unsigned long long)n);
    if (strcmp(what, "reads") == 0) return ask(n, MILLRACE__READ__WHAT__SOURCE);
    if (strcmp(what, "hellos") == 0) return say_hello(other);
    if (strcmp(what, "impostor") == 0) return say_hello(name);
    if (strcmp(what, "state") == 0) return ask(n, n % 2 ? MILLRACE__READ__WHAT__STATE : MILLRACE__READ__WHAT__SUM);
    if (strcmp(what, "frames") == 0) return send_frame();
    if (strcmp(what, "questions") == 0) {
        Millrace__Ask status = MILLRACE__ASK__INIT;
        status.what = "status";
        return send_one(&(struct envelope){.kind = MILLRACE__KIND__ASK, .job = n}, &status.base, NULL, 0);
    }
    return send_one(&(struct envelope){.kind = MILLRACE__KIND__DATA, .job = n % 64}, NULL, zeros, sizeof zeros);
}

int main(int argc, char **argv) {
    int few = 1, none = 0;
    if (argc < 3) return 2;
    context = zmq_ctx_new();
    sock = zmq_socket(context, ZMQ_DEALER);
    zmq_setsockopt(sock, ZMQ_RCVHWM, &few, sizeof few);
    zmq_setsockopt(sock, ZMQ_LINGER, &none, sizeof none);
    if (zmq_connect(sock, argv[2]) != 0) return 2;
    if (strcmp(argv[1], "reads") == 0) join();
    uint64_t most = strcmp(argv[1], "frames") == 0 ? FRAMES_MAX : MESSAGES_MAX;
    for (uint64_t n = 1; n <= most && getppid() != 1;) {
        if (!misbehave(argv[1], argc > 3 ? argv[3] : "", n)) {
            usleep(1000);
            continue;
        }
        if (n++ % (most / 16)) continue;
        printf("%llu\n", (unsigned long long)n);
        fflush(stdout);
    }
    while (getppid() != 1) usleep(100000); /* what it did not read stays unread */
    return 0;
}
