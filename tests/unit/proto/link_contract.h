/* What a link does whatever carries its messages: ZeroMQ (link.c), nothing but memory (world.c), or
 * the simulation (tests/unit/workers/simulation.c). */
#ifndef MILLRACE_TESTS_UNIT_PROTO_LINK_CONTRACT_H
#define MILLRACE_TESTS_UNIT_PROTO_LINK_CONTRACT_H

#include <string.h>

#include "base/err.h"
#include "proto/link.h"
#include "tests/unit/random.h"

enum { PATIENCE_MS = 8000 };

static struct link *open_bound(const char *endpoint) {
    struct link *link = NULL;
    if (link_open(&link, &(struct link_options){.bind = endpoint}) != 0) fail_msg("%s", err_text());
    return link;
}

static struct link *open_unbound(void) { return open_bound(NULL); }

static uint64_t connect_to(struct link *link, const char *endpoint) {
    uint64_t peer = 0;
    if (link_connect(link, &peer, endpoint) != 0) fail_msg("%s", err_text());
    return peer;
}

static int port_of(const char *endpoint) { return atoi(strrchr(endpoint, ':') + 1); }

/* A DATA message with a chunk of size_bytes, told apart by its sequence number. */
static int send_data(struct link *link, uint64_t peer, uint64_t sequence, size_t size_bytes) {
    uint8_t *chunk = malloc(size_bytes + 1);
    for (size_t i = 0; i < size_bytes; i++) chunk[i] = (uint8_t)(sequence + i * 7);
    struct frame frame = {0};
    struct envelope envelope = {.kind = MILLRACE__KIND__DATA, .sequence = sequence};
    assert_int_equal(frame_pack(&frame, &envelope, NULL, chunk, size_bytes, FRAME_NONE), 0);
    free(chunk);
    int code = link_send(link, peer, &frame);
    assert_null(frame.body.data);
    return code;
}

/* Receives one DATA message and returns its sequence number. */
static uint64_t receive_data(struct link *link, uint64_t *out_peer, size_t size_bytes) {
    struct message message = {0};
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    int got = 0;
    while (got == 0 && clock_ms() < deadline_ms) got = link_receive(link, out_peer, &message, 100);
    if (got != 1) fail_msg("no message: %d %s", got, err_text());
    assert_int_equal(message.chunk_bytes, size_bytes);
    for (size_t i = 0; i < size_bytes; i++)
        if (message.chunk[i] != (uint8_t)(message.envelope.sequence + i * 7)) fail_msg("byte %zu differs", i);
    uint64_t sequence = message.envelope.sequence;
    message_free(&message);
    return sequence;
}

static bool nothing_comes(struct link *link, int timeout_ms) {
    uint64_t peer;
    struct message message = {0};
    int got = link_receive(link, &peer, &message, timeout_ms);
    message_free(&message);
    return got == 0;
}

static void questions_are_answered(void **state) {
    (void)state;
    struct link *server = open_bound("tcp://127.0.0.1:*"), *client = open_unbound();
    assert_null(link_endpoint(client));
    assert_true(port_of(link_endpoint(server)) > 0);
    uint64_t to = connect_to(client, link_endpoint(server)), from = 0, back = 0;
    assert_int_equal(connect_to(client, link_endpoint(server)), to); /* the same again */
    for (uint64_t i = 0; i < 50; i++) {
        size_t size = i % 10 == 9 ? 4 << 20 : i * 100;
        assert_int_equal(send_data(client, to, i, size), 0);
        assert_int_equal(receive_data(server, &from, size), i);
        assert_int_equal(send_data(server, from, i + 1000, size), 0);
        assert_int_equal(receive_data(client, &back, size), i + 1000);
        assert_int_equal(back, to);
    }
    assert_int_equal(link_counts(client).sent, 50);
    assert_int_equal(link_counts(client).received, 50);
    assert_int_equal(link_counts(client).sent_bytes, link_counts(server).received_bytes);
    assert_int_equal(link_counts(server).dropped, 0);
    link_close(client);
    link_close(server);
}

static void peers_that_left_are_not_found(void **state) {
    (void)state;
    struct link *server = open_bound("tcp://127.0.0.1:*"), *client = open_unbound();
    uint64_t to = connect_to(client, link_endpoint(server)), from;
    assert_int_equal(send_data(client, to, 1, 0), 0);
    receive_data(server, &from, 0);
    link_close(client);
    int code = 0;
    for (int64_t deadline_ms = clock_ms() + PATIENCE_MS; code == 0 && clock_ms() < deadline_ms; clock_sleep_ms(5)) {
        nothing_comes(server, 0);
        code = send_data(server, from, 2, 0);
    }
    assert_int_equal(code, ERR_NOTFOUND);
    assert_int_equal(send_data(server, from, 2, 0), ERR_NOTFOUND);
    assert_int_equal(send_data(server, 12345, 2, 0), ERR_NOTFOUND);
    assert_int_equal(send_data(server, 0, 2, 0), ERR_NOTFOUND);
    /* Who comes next gets a number of its own. */
    client = open_unbound();
    uint64_t again;
    assert_int_equal(send_data(client, connect_to(client, link_endpoint(server)), 3, 0), 0);
    receive_data(server, &again, 0);
    assert_true(again != from);
    link_disconnect(client, 999);
    to = connect_to(client, link_endpoint(server));
    link_disconnect(client, to);
    assert_int_equal(send_data(client, to, 4, 0), ERR_NOTFOUND);
    assert_true(connect_to(client, link_endpoint(server)) != to);
    link_close(client);
    link_close(server);
}

#endif
