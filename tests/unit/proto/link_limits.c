/* What a link bears from peers that send too much, read too little, or hang up in the middle. Real sockets on loopback. */
#include "proto/link.h"

#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/err.h"
#include "tests/unit/random.h"

enum { PATIENCE_MS = 20000, MIB = 1 << 20 };

static struct link *open_bound(size_t frame_max) {
    struct link *link = NULL;
    if (link_open(&link, &(struct link_options){.bind = "tcp://127.0.0.1:*", .frame_max = frame_max}) != 0) fail_msg("%s", err_text());
    return link;
}

static struct link *open_to(const struct link *server, uint64_t *out_peer) {
    struct link *link = NULL;
    if (link_open(&link, &(struct link_options){0}) != 0) fail_msg("%s", err_text());
    if (link_connect(link, out_peer, link_endpoint(server)) != 0) fail_msg("%s", err_text());
    return link;
}

static int send_bytes(struct link *link, uint64_t peer, uint32_t kind, size_t size_bytes, enum frame_encoding encoding) {
    struct frame frame;
    uint8_t *chunk = calloc(1, size_bytes + 1);
    assert_int_equal(frame_pack(&frame, &(struct envelope){.kind = kind}, NULL, size_bytes ? chunk : NULL, size_bytes, encoding), 0);
    free(chunk);
    return link_send(link, peer, &frame);
}

/* The kind of the next message; 0: none came. */
static uint32_t receive_kind(struct link *link, uint64_t *out_peer, int timeout_ms) {
    struct message message = {0};
    uint64_t peer;
    int got = link_receive(link, out_peer ? out_peer : &peer, &message, timeout_ms);
    uint32_t kind = got == 1 ? message.envelope.kind : 0;
    message_free(&message);
    return kind;
}

/* A peer that takes a message only when it is told to, and whose queue holds one. */
struct greedy {
    void *context, *socket;
};

/* false: its queue is full. */
static bool greedy_send(struct greedy *greedy) {
    struct frame frame;
    assert_int_equal(frame_pack(&frame, &(struct envelope){.kind = MILLRACE__KIND__READY}, NULL, NULL, 0, FRAME_NONE), 0);
    bool sent = zmq_send(greedy->socket, frame.header.data, frame.header.size, ZMQ_SNDMORE | ZMQ_DONTWAIT) > 0;
    if (sent) assert_int_equal(zmq_send(greedy->socket, frame.body.data, frame.body.size, 0), 0);
    frame_free(&frame);
    return sent;
}

static struct greedy greedy_open(const struct link *server) {
    struct greedy greedy = {.context = zmq_ctx_new()};
    int one = 1, none = 0;
    greedy.socket = zmq_socket(greedy.context, ZMQ_DEALER);
    assert_int_equal(zmq_setsockopt(greedy.socket, ZMQ_RCVHWM, &one, sizeof one), 0);
    assert_int_equal(zmq_setsockopt(greedy.socket, ZMQ_LINGER, &none, sizeof none), 0);
    assert_int_equal(zmq_connect(greedy.socket, link_endpoint(server)), 0);
    assert_true(greedy_send(&greedy));
    return greedy;
}

static void greedy_close(struct greedy *greedy) {
    zmq_close(greedy->socket);
    zmq_ctx_term(greedy->context);
}

static void greedy_take(struct greedy *greedy) {
    for (int i = 0; i < 2; i++) {
        zmq_msg_t part;
        assert_int_equal(zmq_msg_init(&part), 0);
        assert_true(zmq_msg_recv(&part, greedy->socket, 0) > 0);
        zmq_msg_close(&part);
    }
}

/* ZeroMQ's own heartbeats ended the process here, a moment after the connection: out_event() after an error. */
static void who_sends_much_reads_nothing_and_hangs_up_harms_nobody(void **state) {
    (void)state;
    struct link *server = open_bound(0);
    uint64_t from, other_to;
    struct greedy greedy = greedy_open(server);
    assert_int_equal(receive_kind(server, &from, PATIENCE_MS), MILLRACE__KIND__READY);
    struct link *other = open_to(server, &other_to);
    for (int i = 0; i < 5; i++) assert_int_equal(send_bytes(server, from, MILLRACE__KIND__DATA, 4 * MIB, FRAME_NONE), 0);
    for (int i = 0; i < 20; i++) { /* until the server's queue is full, and what TCP holds */
        while (greedy_send(&greedy)) continue;
        clock_sleep_ms(20);
    }
    greedy_close(&greedy);
    clock_sleep_ms(2500);
    assert_int_equal(send_bytes(other, other_to, MILLRACE__KIND__HEARTBEAT, 0, FRAME_NONE), 0);
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    while (receive_kind(server, NULL, 100) != MILLRACE__KIND__HEARTBEAT) assert_true(clock_ms() < deadline_ms);
    link_close(other);
    link_close(server);
}

/* Sends until there is no room; how many messages of 4 MiB that were. */
static int fill(struct link *server, uint64_t peer) {
    int code = 0, sent = 0;
    for (; sent < 100 && (code = send_bytes(server, peer, MILLRACE__KIND__DATA, 4 * MIB, FRAME_NONE)) == 0; sent++) continue;
    assert_int_equal(code, ERR_LIMIT);
    return sent;
}

/* Else bulk data for many would cost everybody leases and commits, which are counted. */
static void what_all_do_not_read_leaves_room_for_small_messages(void **state) {
    (void)state;
    enum { PEERS = 20, OWN = LINK_UNSENT_MAX / (4 * MIB) - 1 }; /* so many messages at least when the limit is its own */
    struct link *server = open_bound(0);
    struct greedy greedy[PEERS];
    uint64_t from = 0;
    int peers = 0, sent = OWN;
    while (peers < PEERS && sent >= OWN) {
        greedy[peers++] = greedy_open(server);
        assert_int_equal(receive_kind(server, &from, PATIENCE_MS), MILLRACE__KIND__READY);
        sent = fill(server, from);
    }
    assert_in_range(sent, 1, OWN - 1);
    for (int more = 0; send_bytes(server, from, MILLRACE__KIND__DATA, LINK_SMALL_MAX + 1, FRAME_NONE) == 0; more++)
        assert_true(more < 4 * MIB / LINK_SMALL_MAX);
    for (int i = 0; i < 4; i++) assert_int_equal(send_bytes(server, from, MILLRACE__KIND__DATA, LINK_SMALL_MAX / 2, FRAME_NONE), 0);
    for (int i = 0; i < peers; i++) greedy_close(&greedy[i]);
    link_close(server);
}

static void what_a_peer_does_not_read_is_bounded_in_bytes(void **state) {
    (void)state;
    struct link *server = open_bound(0);
    uint64_t from, other_to, other_from;
    struct greedy greedy = greedy_open(server);
    assert_int_equal(receive_kind(server, &from, PATIENCE_MS), MILLRACE__KIND__READY);
    struct link *other = open_to(server, &other_to);
    assert_int_equal(send_bytes(other, other_to, MILLRACE__KIND__READY, 0, FRAME_NONE), 0);
    assert_int_equal(receive_kind(server, &other_from, PATIENCE_MS), MILLRACE__KIND__READY);
    int sent = fill(server, from);
    assert_non_null(strstr(err_text(), "does not read"));
    assert_true(sent <= LINK_UNSENT_MAX / (4 * MIB) + 5); /* and what the kernel and the other side hold */
    assert_int_equal(send_bytes(server, other_from, MILLRACE__KIND__DATA, 4 * MIB, FRAME_NONE), 0); /* the other's room is its own */
    assert_int_equal(receive_kind(other, NULL, PATIENCE_MS), MILLRACE__KIND__DATA);
    for (int i = 0; i < sent; i++) greedy_take(&greedy);
    int64_t deadline_ms = clock_ms() + PATIENCE_MS; /* it has read: there is room again */
    while (send_bytes(server, from, MILLRACE__KIND__DATA, 4 * MIB, FRAME_NONE) != 0) {
        assert_true(clock_ms() < deadline_ms);
        clock_sleep_ms(10);
    }
    greedy_close(&greedy);
    link_close(other);
    link_close(server);
}

static void what_was_read_takes_no_room_of_all_together(void **state) {
    (void)state;
    struct link *server = open_bound(0);
    uint64_t from, other_to, other_from;
    struct link *other = open_to(server, &other_to);
    assert_int_equal(send_bytes(other, other_to, MILLRACE__KIND__READY, 0, FRAME_NONE), 0);
    assert_int_equal(receive_kind(server, &other_from, PATIENCE_MS), MILLRACE__KIND__READY);
    for (int i = 0; i <= LINK_UNSENT_ALL_MAX / (16 * MIB); i++) {
        assert_int_equal(send_bytes(server, other_from, MILLRACE__KIND__DATA, 16 * MIB, FRAME_NONE), 0);
        assert_int_equal(receive_kind(other, NULL, PATIENCE_MS), MILLRACE__KIND__DATA);
    }
    struct greedy greedy = greedy_open(server);
    assert_int_equal(receive_kind(server, &from, PATIENCE_MS), MILLRACE__KIND__READY);
    assert_true(fill(server, from) >= LINK_UNSENT_MAX / (4 * MIB));
    greedy_close(&greedy);
    link_close(other);
    link_close(server);
}

static void who_comes_after_one_that_did_not_read_has_room_of_its_own(void **state) {
    (void)state;
    struct link *server = open_bound(0);
    uint64_t from, other_to, other_from;
    struct greedy greedy = greedy_open(server);
    assert_int_equal(receive_kind(server, &from, PATIENCE_MS), MILLRACE__KIND__READY);
    fill(server, from);
    link_disconnect(server, from);
    struct link *other = open_to(server, &other_to); /* it gets the place that is free now */
    assert_int_equal(send_bytes(other, other_to, MILLRACE__KIND__READY, 0, FRAME_NONE), 0);
    assert_int_equal(receive_kind(server, &other_from, PATIENCE_MS), MILLRACE__KIND__READY);
    assert_true(other_from != from && link_has_room(server, other_from, 4 * MIB));
    greedy_close(&greedy);
    link_close(other);
    link_close(server);
}

static bool no_data(void *arg, uint64_t peer, const struct envelope *envelope) {
    assert_true(peer > 0);
    ++*(int *)arg;
    return envelope->kind != MILLRACE__KIND__DATA;
}

static void what_nobody_waits_for_is_not_unpacked(void **state) {
    (void)state;
    struct link *server = open_bound(0);
    uint64_t to;
    struct link *client = open_to(server, &to);
    int asked = 0;
    link_filter(server, no_data, &asked);
    for (int i = 0; i < 20; i++) assert_int_equal(send_bytes(client, to, MILLRACE__KIND__DATA, 16 * MIB, FRAME_ZSTD), 0);
    assert_int_equal(send_bytes(client, to, MILLRACE__KIND__READY, 0, FRAME_NONE), 0);
    assert_int_equal(receive_kind(server, NULL, PATIENCE_MS), MILLRACE__KIND__READY);
    assert_int_equal(asked, 21);
    assert_int_equal(link_counts(server).dropped, 20);
    assert_int_equal(link_counts(server).received, 1);
    link_close(client);
    link_close(server);
}

static void a_frame_over_a_links_own_limit_ends_the_connection(void **state) {
    (void)state;
    struct link *server = open_bound(64 << 10);
    uint64_t to;
    struct link *client = open_to(server, &to);
    assert_int_equal(send_bytes(client, to, MILLRACE__KIND__DATA, 1 * MIB, FRAME_NONE), 0);
    int64_t deadline_ms = clock_ms() + PATIENCE_MS;
    do { /* the connection comes back; what was on its way is lost */
        assert_true(clock_ms() < deadline_ms);
        assert_int_equal(send_bytes(client, to, MILLRACE__KIND__READY, 0, FRAME_NONE), 0);
    } while (receive_kind(server, NULL, 100) != MILLRACE__KIND__READY);
    link_close(client);
    link_close(server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_sends_much_reads_nothing_and_hangs_up_harms_nobody),
        cmocka_unit_test(what_a_peer_does_not_read_is_bounded_in_bytes),
        cmocka_unit_test(what_all_do_not_read_leaves_room_for_small_messages),
        cmocka_unit_test(what_was_read_takes_no_room_of_all_together),
        cmocka_unit_test(who_comes_after_one_that_did_not_read_has_room_of_its_own),
        cmocka_unit_test(what_nobody_waits_for_is_not_unpacked),
        cmocka_unit_test(a_frame_over_a_links_own_limit_ends_the_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
