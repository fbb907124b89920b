/* Links between threads, and among peers that are silent, broken, greedy or gone. Real sockets on loopback. */
#include "proto/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "base/err.h"
#include "base/mem.h"
#include "proto/endpoint.h"
#include "tests/unit/proto/link_contract.h"
#include "tests/unit/random.h"

/* In this thread nothing of that size or more is had; 0: all is. ZeroMQ's own memory always is. */
static _Thread_local size_t too_large;

void *__real_malloc(size_t size_bytes);
void *__wrap_malloc(size_t size_bytes);
void *__wrap_malloc(size_t size_bytes) { return too_large && size_bytes >= too_large ? NULL : __real_malloc(size_bytes); }

struct caller {
    pthread_t thread;
    char endpoint[100];
    uint64_t id;
};

enum { CALLERS = 6, CALLS = 200 };

static void *call_often(void *arg) {
    struct caller *caller = arg;
    struct link *link = open_unbound();
    uint64_t to = connect_to(link, caller->endpoint), from;
    for (uint64_t i = 0; i < CALLS; i++) assert_int_equal(send_data(link, to, caller->id * CALLS + i, 10), 0);
    for (uint64_t i = 0; i < CALLS; i++) assert_int_equal(receive_data(link, &from, 10), caller->id * CALLS + i);
    link_close(link);
    return NULL;
}

static void many_threads_talk_to_one_link(void **state) {
    (void)state;
    struct link *server = open_bound("tcp://127.0.0.1:*");
    struct caller callers[CALLERS];
    for (uint64_t i = 0; i < CALLERS; i++) {
        callers[i].id = i;
        snprintf(callers[i].endpoint, sizeof callers[i].endpoint, "%s", link_endpoint(server));
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
    }
    uint64_t peers[CALLERS] = {0}, next[CALLERS] = {0};
    for (int i = 0; i < CALLERS * CALLS; i++) {
        uint64_t peer, sequence = receive_data(server, &peer, 10), who = sequence / CALLS;
        if (peers[who] == 0) peers[who] = peer;
        assert_int_equal(peers[who], peer);               /* one peer, one number */
        assert_int_equal(next[who]++, sequence % CALLS);  /* in order */
        assert_int_equal(send_data(server, peer, sequence, 10), 0);
    }
    for (int i = 0; i < CALLERS; i++) pthread_join(callers[i].thread, NULL);
    for (int i = 1; i < CALLERS; i++) assert_true(peers[i] != peers[i - 1]);
    link_close(server);
}

static void *wake_soon(void *arg) {
    clock_sleep_ms(100);
    link_wake(arg);
    return NULL;
}

static struct link *alarmed;
static void on_alarm(int signal) {
    (void)signal;
    link_wake(alarmed);
}

static void waiting_ends_in_time_or_when_woken(void **state) {
    (void)state;
    struct link *link = open_bound("tcp://127.0.0.1:*");
    int64_t start_ms = clock_ms();
    assert_true(nothing_comes(link, 0));
    assert_true(clock_ms() - start_ms < 50);
    assert_true(nothing_comes(link, 80));
    assert_true(clock_ms() - start_ms >= 79);
    /* by another thread, in the middle of a wait without end */
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wake_soon, link), 0);
    assert_true(nothing_comes(link, -1));
    pthread_join(thread, NULL);
    /* before the wait, several times at once: it ends one wait only */
    for (int i = 0; i < 10; i++) link_wake(link);
    start_ms = clock_ms();
    assert_true(nothing_comes(link, 5000));
    assert_true(clock_ms() - start_ms < 1000);
    start_ms = clock_ms();
    assert_true(nothing_comes(link, 60));
    assert_true(clock_ms() - start_ms >= 59);
    /* by a signal */
    alarmed = link;
    struct sigaction act = {.sa_handler = on_alarm}, old;
    sigaction(SIGALRM, &act, &old);
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {.tv_usec = 50000}}, NULL);
    assert_true(nothing_comes(link, -1));
    sigaction(SIGALRM, &old, NULL);
    link_close(link);
}

static void endpoints_that_leave_the_machine_need_a_word(void **state) {
    (void)state;
    static const char *const refused[] = {
        "tcp://0.0.0.0:*", "tcp://*:5555", "tcp://192.168.1.1:5555", "tcp://example.org:80", "tcp://1270.0.0.1:5555",
        "tcp://127.0.0.1.example.org:1", "tcp://[::]:5555", "inproc://x", "pgm://lo;239.0.0.1:5555", "tcp://", "tcp://:5555",
        "tcp://127.0.0.1", "tcp://127.0.0.1:", "tcp://127.0.0.1:port", "tcp://127.0.0.1:65536", "tcp://127.0.0.1:123456",
        "tcp://127.0.0.1:5;127.0.0.1:6", "ipc://", "ipc://@abstract", "ipc://*", "", "127.0.0.1:5555",
        "ipc:///tmp/a-path-that-is-longer-than-a-socket-address-can-hold/a-path-that-is-longer-than-a-socket-address-can-hold/x",
    };
    struct link *link = NULL, *client = open_unbound();
    uint64_t peer = 77;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        int code = link_open(&link, &(struct link_options){.bind = refused[i]});
        if (code != ERR_CONFIG) fail_msg("bind %s: %d", refused[i], code);
        code = link_connect(client, &peer, refused[i]);
        if (code != ERR_CONFIG) fail_msg("connect %s: %d", refused[i], code);
    }
    assert_null(link);
    assert_int_equal(peer, 77);
    assert_int_equal(link_connect(client, &peer, "tcp://127.0.0.1:*"), ERR_CONFIG);
    assert_int_equal(link_connect(client, &peer, "tcp://127.0.0.1:0"), ERR_CONFIG);
    link_close(client);
    static const char *const allowed[] = {"tcp://127.0.0.1:*", "tcp://127.1.2.3:*", "tcp://localhost:*"};
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        assert_true(endpoint_is_local(allowed[i]));
        link_close(open_bound(allowed[i]));
    }
    assert_true(endpoint_is_local("ipc:///tmp/x") && endpoint_is_local("tcp://[::1]:5555"));
    for (size_t i = 0; i < 7; i++) assert_false(endpoint_is_local(refused[i]));
    assert_int_equal(link_open(&link, &(struct link_options){.bind = "tcp://0.0.0.0:*", .insecure = true}), 0);
    link_close(link);
}

static void a_socket_s_path_is_as_long_as_its_address_has_room(void **state) {
    (void)state;
    enum { PATH_MAX_BYTES = sizeof ((struct sockaddr_un *)0)->sun_path - 1 };
    char endpoint[sizeof "ipc://" + PATH_MAX_BYTES + 1];
    for (int size = PATH_MAX_BYTES; size <= PATH_MAX_BYTES + 1; size++) {
        snprintf(endpoint, sizeof endpoint, "ipc:///%0*d", size - 1, 0);
        assert_int_equal(endpoint_check(endpoint, true, false), size == PATH_MAX_BYTES ? 0 : ERR_CONFIG);
    }
}

static void taken_endpoints_are_named(void **state) {
    (void)state;
    struct link *first = open_bound("tcp://127.0.0.1:*"), *second = NULL;
    assert_int_equal(link_open(&second, &(struct link_options){.bind = link_endpoint(first)}), ERR_IO);
    assert_non_null(strstr(err_text(), link_endpoint(first)));
    assert_non_null(strstr(err_text(), "in use"));
    link_close(first);
    assert_int_equal(link_open(&second, &(struct link_options){.bind = "tcp://203.0.113.7:5555", .insecure = true}), ERR_IO);
    assert_non_null(strstr(err_text(), "no address of this machine"));
    assert_null(second);
}

static void socket_files_are_taken_over_only_from_the_dead(void **state) {
    (void)state;
    char folder[] = "/tmp/millrace-link-XXXXXX", endpoint[100], path[80];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/s", folder);
    snprintf(endpoint, sizeof endpoint, "ipc://%s", path);
    struct link *first = open_bound(endpoint), *second = NULL, *client = open_unbound();
    assert_int_equal(link_open(&second, &(struct link_options){.bind = endpoint}), ERR_IO);
    assert_non_null(strstr(err_text(), "in use"));
    uint64_t to = connect_to(client, endpoint), from;  /* the first still has it */
    assert_int_equal(send_data(client, to, 5, 100), 0);
    assert_int_equal(receive_data(first, &from, 100), 5);
    link_close(client);
    link_close(first);

    /* A socket file that nobody listens at: what kill -9 leaves behind. */
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    unlink(path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    second = open_bound(endpoint);
    link_close(second);

    /* One who is too busy to take callers in lives. */
    int caller[2], why = 0;
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    unlink(path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 0), 0);
    for (int i = 0; i < 2; i++) {
        caller[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        why = connect(caller[i], (struct sockaddr *)&address, sizeof address) == 0 ? 0 : errno;
    }
    assert_int_equal(why, EAGAIN);
    assert_int_equal(link_open(&second, &(struct link_options){.bind = endpoint}), ERR_IO);
    assert_non_null(strstr(err_text(), "in use"));
    assert_int_equal(access(path, F_OK), 0);
    for (int i = 0; i < 2; i++) close(caller[i]);
    close(fd);

    unlink(path);
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    close(fd);
    assert_int_equal(link_open(&second, &(struct link_options){.bind = endpoint}), ERR_IO);
    assert_int_equal(access(path, F_OK), 0);  /* somebody's file, untouched */
    unlink(path);
    rmdir(folder);
}

static void full_queues_are_errors(void **state) {
    (void)state;
    struct link *client = open_unbound();
    char endpoint[100];
    snprintf(endpoint, sizeof endpoint, "ipc:///tmp/millrace-nobody-%d", (int)getpid()); /* a TCP port might get an owner meanwhile */
    uint64_t to = connect_to(client, endpoint), other = connect_to(client, "tcp://127.0.0.1:1");
    int sent = 0, code = 0;
    while (sent <= LINK_QUEUE_MAX && (code = send_data(client, to, 1, 0)) == 0) sent++;
    assert_int_equal(code, ERR_LIMIT);
    assert_true(sent >= LINK_QUEUE_MAX / 2);
    assert_int_equal(send_data(client, other, 1, 0), 0);  /* the other's queue is its own */
    assert_int_equal(link_counts(client).dropped, 1);
    int64_t start_ms = clock_ms();
    link_close(client);
    assert_true(clock_ms() - start_ms < LINK_LINGER_MS + 1000);
}

static void links_come_back_after_a_break(void **state) {
    (void)state;
    struct link *server = open_bound("tcp://127.0.0.1:*"), *client = open_unbound();
    char endpoint[100];
    snprintf(endpoint, sizeof endpoint, "%s", link_endpoint(server));
    uint64_t to = connect_to(client, endpoint), from, back;
    assert_int_equal(send_data(client, to, 1, 10), 0);
    assert_int_equal(receive_data(server, &from, 10), 1);
    link_close(server);
    clock_sleep_ms(50);
    server = open_bound(endpoint);
    /* What is sent around the break may be lost: that is the contract. Repeating it gets through. */
    struct message message = {0};
    int got = 0;
    for (int64_t deadline_ms = clock_ms() + PATIENCE_MS; got != 1 && clock_ms() < deadline_ms;) {
        assert_int_equal(send_data(client, to, 2, 10), 0);
        got = link_receive(server, &from, &message, 100);
    }
    assert_int_equal(got, 1);
    message_free(&message);
    assert_int_equal(send_data(server, from, 3, 10), 0);
    assert_int_equal(receive_data(client, &back, 10), 3);
    assert_int_equal(back, to);
    link_close(client);
    link_close(server);
}

/* Peers that are not ours. */

static int dial(const char *endpoint) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port_of(endpoint))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void hang_up(int fd) {
    if (fd >= 0) close(fd);
}

static void strangers_do_no_harm(void **state) {
    (void)state;
    struct random random = random_open("strangers");
    struct link *server = open_bound("tcp://127.0.0.1:*"), *client = open_unbound();
    uint64_t to = connect_to(client, link_endpoint(server)), from;
    static const uint8_t greeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    int silent = dial(link_endpoint(server)), half = dial(link_endpoint(server)), greeted = dial(link_endpoint(server)), noisy = -1;
    assert_int_equal(write(half, greeting, 10), 10);
    assert_int_equal(write(greeted, greeting, 64), 64);
    int64_t start_ms = clock_ms();
    for (uint64_t i = 0; i < 100; i++) {
        uint8_t noise[500];
        for (size_t n = 0; n < sizeof noise; n++) noise[n] = (uint8_t)random_next(&random);
        if (i % 3 == 0) memcpy(noise, greeting, 12);
        hang_up(noisy);
        noisy = dial(link_endpoint(server));
        ssize_t written = send(noisy, noise, random_in(&random, 1, sizeof noise), MSG_NOSIGNAL);
        assert_true(written != 0);
        assert_int_equal(send_data(client, to, i, 50), 0);
        assert_int_equal(receive_data(server, &from, 50), i);
    }
    assert_true(clock_ms() - start_ms < PATIENCE_MS);
    /* Those who never finish the handshake are cut off. */
    int waiting[] = {silent, half, greeted};
    for (size_t i = 0; i < 3; i++) {
        uint8_t byte[256];
        struct pollfd polled = {.fd = waiting[i], .events = POLLIN};
        for (;;) {
            int64_t left_ms = start_ms + LINK_HANDSHAKE_MS + 3000 - clock_ms();
            if (left_ms <= 0 || poll(&polled, 1, (int)left_ms) != 1) fail_msg("connection %zu is still open", i);
            if (read(waiting[i], byte, sizeof byte) <= 0) break;
        }
        close(waiting[i]);
    }
    hang_up(noisy);
    assert_int_equal(send_data(client, to, 1000, 50), 0);
    assert_int_equal(receive_data(server, &from, 50), 1000);
    link_close(client);
    link_close(server);
}

/* ZeroMQ without our rules. */
struct raw {
    void *context, *socket;
};

static struct raw raw_open(const char *endpoint) {
    struct raw raw = {.context = zmq_ctx_new()};
    raw.socket = zmq_socket(raw.context, ZMQ_DEALER);
    int linger = 0, patience = PATIENCE_MS;
    zmq_setsockopt(raw.socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(raw.socket, ZMQ_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(zmq_connect(raw.socket, endpoint), 0);
    return raw;
}

static void raw_close(struct raw *raw) {
    zmq_close(raw->socket);
    zmq_ctx_term(raw->context);
}

static void raw_send(struct raw *raw, const void *bytes, size_t size, bool more) {
    assert_int_equal(zmq_send(raw->socket, bytes, size, more ? ZMQ_SNDMORE : 0), size);
}

static void raw_send_data(struct raw *raw, uint64_t sequence) {
    struct frame frame = {0};
    struct envelope envelope = {.kind = MILLRACE__KIND__DATA, .sequence = sequence};
    assert_int_equal(frame_pack(&frame, &envelope, NULL, NULL, 0, FRAME_NONE), 0);
    raw_send(raw, frame.header.data, frame.header.size, true);
    raw_send(raw, frame.body.data, frame.body.size, false);
    frame_free(&frame);
}

static void messages_of_other_than_two_frames_are_dropped(void **state) {
    (void)state;
    struct link *server = open_bound("tcp://127.0.0.1:*");
    struct raw raw = raw_open(link_endpoint(server));
    uint64_t from, first;
    raw_send_data(&raw, 1);
    assert_int_equal(receive_data(server, &first, 0), 1);
    raw_send(&raw, "alone", 5, false);
    raw_send(&raw, "", 0, false);
    for (int i = 0; i < 3; i++) raw_send(&raw, "one of three", 12, i < 2);
    for (int i = 0; i < 20000; i++) raw_send(&raw, "one of many", 11, i < 19999);
    raw_send(&raw, "neither header", 14, true);
    raw_send(&raw, "nor body", 8, false);
    raw_send_data(&raw, 2);
    assert_int_equal(receive_data(server, &from, 0), 2);
    assert_int_equal(from, first);  /* the peer itself is well */
    assert_int_equal(link_counts(server).dropped, 5);
    assert_int_equal(link_counts(server).received, 2);
    raw_close(&raw);
    link_close(server);
}

static void frames_beyond_the_cap_are_dropped(void **state) {
    (void)state;
    struct link *server = open_bound("tcp://127.0.0.1:*"), *client = open_unbound();
    uint64_t to = connect_to(client, link_endpoint(server)), from;
    struct raw raw = raw_open(link_endpoint(server));
    size_t size = (size_t)FRAME_BODY_MAX + FRAME_CHUNK_MAX + 1;
    uint8_t *huge = calloc(1, size);
    raw_send(&raw, "header", 6, true);
    raw_send(&raw, huge, size, false);
    free(huge);
    for (uint64_t i = 0; i < 20; i++) {
        assert_int_equal(send_data(client, to, i, 0), 0);
        assert_int_equal(receive_data(server, &from, 0), i);
        clock_sleep_ms(10);
    }
    assert_int_equal(link_counts(server).received, 20);
    raw_close(&raw);
    link_close(client);
    link_close(server);
}

static bool wants_all(void *arg, uint64_t peer, const struct envelope *envelope) { return (void)arg, (void)peer, (void)envelope, true; }

/* Whoever receives learns of it, and whose message it was; what comes after that is received. */
static void a_message_without_memory_for_it_is_an_error(void **state) {
    (void)state;
    enum { SMALL = 100, LARGE = 1 << 20 };
    struct link *server = open_bound("tcp://127.0.0.1:*"), *client = open_unbound();
    uint64_t to = connect_to(client, link_endpoint(server)), from, whose = 0;
    struct message message = {0};
    link_filter(server, wants_all, NULL);
    assert_int_equal(send_data(client, to, 1, SMALL), 0);
    assert_int_equal(receive_data(server, &from, SMALL), 1);
    assert_int_equal(send_data(client, to, 2, LARGE), 0);
    assert_int_equal(send_data(client, to, 3, SMALL), 0);
    too_large = LARGE;
    int code = link_receive(server, &whose, &message, PATIENCE_MS);
    too_large = 0;
    assert_int_equal(code, ERR_MEMORY);
    assert_non_null(strstr(err_text(), MEM_EXHAUSTED));
    assert_int_equal(whose, from);
    assert_null(message.memory);
    assert_int_equal(message.envelope.kind, MILLRACE__KIND__DATA);
    assert_int_equal(message.envelope.sequence, 2);
    assert_int_equal(receive_data(server, &whose, SMALL), 3);
    assert_int_equal(whose, from);
    link_close(client);
    link_close(server);
}

static void flooders_do_not_starve_others(void **state) {
    (void)state;
    struct link *server = open_bound("tcp://127.0.0.1:*"), *client = open_unbound();
    struct raw raw = raw_open(link_endpoint(server));
    uint64_t to = connect_to(client, link_endpoint(server)), from;
    assert_int_equal(send_data(client, to, 0, 0), 0);
    assert_int_equal(receive_data(server, &from, 0), 0);
    for (int i = 0; i < 900; i++) {  /* what the queue of one peer holds */
        raw_send(&raw, "not a header", 12, true);
        raw_send(&raw, "", 0, false);
    }
    clock_sleep_ms(200);
    for (uint64_t i = 1; i <= 50; i++) assert_int_equal(send_data(client, to, i, 0), 0);
    clock_sleep_ms(200);
    for (uint64_t i = 1; i <= 50; i++) assert_int_equal(receive_data(server, &from, 0), i);
    assert_true(link_counts(server).dropped < 900);  /* they took turns */
    /* And a wait with an end ends among rubbish. */
    int64_t start_ms = clock_ms();
    assert_true(nothing_comes(server, 100));
    assert_true(clock_ms() - start_ms < 1000);
    raw_close(&raw);
    link_close(client);
    link_close(server);
}

/* A message of protocol version 2, or one of version 1 in which a bit flipped on the way. */
static void raw_send_version_2(struct raw *raw, uint32_t kind, bool flipped) {
    struct frame frame = {0};
    assert_int_equal(frame_pack(&frame, &(struct envelope){.kind = kind}, NULL, NULL, 0, FRAME_NONE), 0);
    assert_int_equal(frame.header.data[0], 1 << 3);
    frame.header.data[1] = 2;
    if (!flipped) assert_int_equal(frame_number(&frame, 0), 0); /* the digest fits again */
    raw_send(raw, frame.header.data, frame.header.size, true);
    raw_send(raw, frame.body.data, frame.body.size, false);
    frame_free(&frame);
}

static void a_flipped_bit_is_no_other_version(void **state) {
    (void)state;
    struct link *server = open_bound("tcp://127.0.0.1:*");
    struct raw raw = raw_open(link_endpoint(server));
    raw_send_version_2(&raw, MILLRACE__KIND__HELLO, true);
    assert_true(nothing_comes(server, 300));
    assert_int_equal(link_counts(server).dropped, 1);
    uint8_t header[300];
    assert_int_equal(zmq_recv(raw.socket, header, sizeof header, ZMQ_DONTWAIT), -1);
    raw_close(&raw);
    link_close(server);
}

static void other_versions_are_told_why(void **state) {
    (void)state;
    struct link *server = open_bound("tcp://127.0.0.1:*");
    struct raw raw = raw_open(link_endpoint(server));
    raw_send_version_2(&raw, MILLRACE__KIND__HELLO, false);
    raw_send_version_2(&raw, MILLRACE__KIND__HELLO, false);  /* so soon after, it is not answered again */
    assert_true(nothing_comes(server, 300));
    assert_int_equal(link_counts(server).dropped, 2);
    uint8_t header[300], body[1000];
    int header_size = zmq_recv(raw.socket, header, sizeof header, 0), body_size = zmq_recv(raw.socket, body, sizeof body, 0);
    assert_true(header_size > 0 && body_size > 0);
    struct message message = {0};
    assert_int_equal(frame_unpack(&message, header, (size_t)header_size, body, (size_t)body_size), 0);
    assert_int_equal(message.envelope.kind, MILLRACE__KIND__REFUSED);
    const Millrace__Refused *refused = (const Millrace__Refused *)message.body;
    assert_true(refused->final);
    assert_non_null(strstr(refused->reason, "version 2"));
    assert_non_null(strstr(refused->reason, "version 1"));
    message_free(&message);
    assert_int_equal(zmq_recv(raw.socket, header, sizeof header, ZMQ_DONTWAIT), -1);
    raw_close(&raw);
    link_close(server);
}

static void one_link_has_many_connections(void **state) {
    (void)state;
    enum { COUNT = 40 };
    struct link *servers[COUNT], *client = open_bound("tcp://127.0.0.1:*");
    uint64_t to[COUNT], from;
    for (uint64_t i = 0; i < COUNT; i++) {
        servers[i] = open_bound("tcp://127.0.0.1:*");
        to[i] = connect_to(client, link_endpoint(servers[i]));
    }
    for (uint64_t i = 0; i < COUNT; i += 3) {
        link_disconnect(client, to[i]);
        assert_int_equal(send_data(client, to[i], i, 0), ERR_NOTFOUND);
    }
    for (uint64_t i = 0; i < COUNT; i++) {
        if (i % 3 == 0) continue;
        assert_int_equal(send_data(client, to[i], i, 0), 0);
        assert_int_equal(receive_data(servers[i], &from, 0), i);
        assert_int_equal(send_data(servers[i], from, i, 0), 0);
    }
    bool heard[COUNT] = {0};
    for (uint64_t i = 0; i < COUNT - (COUNT + 2) / 3; i++) {
        uint64_t sequence = receive_data(client, &from, 0);
        assert_int_equal(from, to[sequence]);
        assert_false(heard[sequence]);
        heard[sequence] = true;
    }
    for (int i = 0; i < COUNT; i++) link_close(servers[i]);
    link_close(client);
}

/* More peers come and go in a worker's life than it may have connections. */
static void connections_that_nobody_uses_make_room(void **state) {
    (void)state;
    enum { PEERS = 1100 };
    struct link *server = open_bound("tcp://127.0.0.1:*"), *client = open_bound("tcp://127.0.0.1:*");
    uint64_t keep = connect_to(client, link_endpoint(server)), other, from;
    int full = 0;
    for (int i = 0; i < PEERS; i++) {
        char endpoint[64];
        snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", 1 + i); /* nobody has to be there */
        int code = link_connect(client, &other, endpoint);
        if (code == 0) continue;
        assert_int_equal(code, ERR_LIMIT);
        full++;
        assert_int_equal(link_disconnect_idle(client, 1000 * 1000, keep), 0);
        assert_true(link_disconnect_idle(client, 0, keep) > 1000);
        assert_int_equal(link_connect(client, &other, endpoint), 0);
    }
    assert_int_equal(full, 1);
    assert_int_equal(send_data(client, keep, 7, 0), 0);
    assert_int_equal(receive_data(server, &from, 0), 7);
    assert_true(link_disconnect_idle(client, 0, keep) > 0);
    assert_int_equal(send_data(client, other, 8, 0), ERR_NOTFOUND);
    assert_int_equal(send_data(server, from, 9, 0), 0);
    assert_int_equal(receive_data(client, &from, 0), 9);
    assert_int_equal(link_disconnect_idle(server, 0, 0), 0); /* whoever came to us is not ours to leave */
    link_close(client);
    link_close(server);
}

static void a_connection_in_use_is_not_idle(void **state) {
    (void)state;
    struct link *server = open_bound("tcp://127.0.0.1:*"), *client = open_unbound();
    uint64_t to = connect_to(client, link_endpoint(server)), from;
    assert_int_equal(send_data(client, to, 1, 0), 0);
    receive_data(server, &from, 0);
    clock_sleep_ms(300);
    assert_int_equal(send_data(server, from, 2, 0), 0);
    receive_data(client, &from, 0); /* what comes counts as well as what goes */
    int64_t before_ms = clock_ms();
    size_t closed = link_disconnect_idle(client, 250, 0);
    if (clock_ms() - before_ms < 200) assert_int_equal(closed, 0);
    clock_sleep_ms(300);
    before_ms = clock_ms();
    assert_int_equal(send_data(client, to, 3, 0), 0); /* and what goes as well as what comes */
    closed = link_disconnect_idle(client, 250, 0);
    if (clock_ms() - before_ms < 200) assert_int_equal(closed, 0);
    clock_sleep_ms(300);
    assert_int_equal(link_disconnect_idle(client, 250, 0), 1);
    link_close(client);
    link_close(server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_are_answered),
        cmocka_unit_test(many_threads_talk_to_one_link),
        cmocka_unit_test(waiting_ends_in_time_or_when_woken),
        cmocka_unit_test(endpoints_that_leave_the_machine_need_a_word),
        cmocka_unit_test(a_socket_s_path_is_as_long_as_its_address_has_room),
        cmocka_unit_test(taken_endpoints_are_named),
        cmocka_unit_test(socket_files_are_taken_over_only_from_the_dead),
        cmocka_unit_test(peers_that_left_are_not_found),
        cmocka_unit_test(full_queues_are_errors),
        cmocka_unit_test(links_come_back_after_a_break),
        cmocka_unit_test(strangers_do_no_harm),
        cmocka_unit_test(messages_of_other_than_two_frames_are_dropped),
        cmocka_unit_test(frames_beyond_the_cap_are_dropped),
        cmocka_unit_test(a_message_without_memory_for_it_is_an_error),
        cmocka_unit_test(flooders_do_not_starve_others),
        cmocka_unit_test(other_versions_are_told_why),
        cmocka_unit_test(a_flipped_bit_is_no_other_version),
        cmocka_unit_test(one_link_has_many_connections),
        cmocka_unit_test(connections_that_nobody_uses_make_room),
        cmocka_unit_test(a_connection_in_use_is_not_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
