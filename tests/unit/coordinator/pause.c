/* The whole loop, on a link without sockets and with a clock of its own: while it waits for its disk, or stands still, nobody is lost for
 * what was not heard meanwhile; who says nothing however often it looks is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/coordinator.h"
#include "coordinator/store.h"
#include "proto/frame.h"
#include "proto/session.h"
#include "tests/unit/world.h"

enum {
    LEASE_MS = 10000,
    LONG_MS = 5 * LEASE_MS,
    BEAT_MS = 500,
    LOOKS = 20,  /* at its files, one a second; then it is asked to stop */
    FLOOD = 300, /* messages: more than the loop takes in one turn */
};

/* Two that say who they are and that they live, and do no work. */
struct speaker {
    const char *id;
    struct link *link;
    uint64_t peer;
    struct session session;
    bool silent;
    int64_t beat_ms;
};
static struct speaker first, second;
static char folder[64];
static unsigned joined, lost, looks;

enum disturbance { SLOW_COMMIT, STANDS_STILL, SLOW_TURNS };
static enum disturbance disturbance;

static void say(struct speaker *s, uint32_t kind, const ProtobufCMessage *body) {
    struct frame frame;
    bool counts = session_counts(kind);
    struct envelope envelope = {.kind = kind, .sequence = session_number(&s->session, counts)};
    assert_int_equal(frame_pack(&frame, &envelope, body, NULL, 0, FRAME_NONE), 0);
    session_sent(&s->session, counts);
    assert_int_equal(link_send(s->link, s->peer, &frame), 0);
}

static void beat(struct speaker *s) {
    Millrace__Heartbeat heartbeat = MILLRACE__HEARTBEAT__INIT;
    heartbeat.busy = true, heartbeat.progress = (uint64_t)world.now_ms;
    say(s, MILLRACE__KIND__HEARTBEAT, &heartbeat.base);
}

static void come(struct speaker *s, const char *id) {
    struct buf endpoint = {0};
    char *path = mem_format("%s/out/state/endpoint", folder);
    Millrace__Hello hello = MILLRACE__HELLO__INIT;
    *s = (struct speaker){.id = id};
    assert_int_equal(file_read(&endpoint, path, 100), 0);
    assert_int_equal(buf_append(&endpoint, "", 1), 0);
    assert_int_equal(link_open(&s->link, &(struct link_options){0}), 0);
    assert_int_equal(link_connect(s->link, &s->peer, (const char *)endpoint.data), 0);
    hello.worker = (char *)id, hello.host = "host", hello.endpoint = "tcp://127.0.0.1:1", hello.build = "build";
    say(s, MILLRACE__KIND__HELLO, &hello.base);
    buf_free(&endpoint);
    free(path);
}

static void hear(struct speaker *s) {
    struct message message;
    uint64_t peer;
    while (s->link && link_receive(s->link, &peer, &message, 0) == 1) {
        const Millrace__Empty empty = MILLRACE__EMPTY__INIT;
        if (message.envelope.kind == MILLRACE__KIND__WELCOME) say(s, MILLRACE__KIND__READY, &empty.base);
        message_free(&message);
    }
    if (!s->link || s->silent || world.now_ms < s->beat_ms + BEAT_MS) return;
    s->beat_ms = world.now_ms;
    beat(s);
}

static void live(void *arg) {
    (void)arg;
    if (!first.link) come(&first, "w-first");
    else if (joined == 1 && !second.link) come(&second, "w-second");
    hear(&first);
    hear(&second);
}

int __real_store_event(struct store *store, const char *kind, const char *text);
int __wrap_store_event(struct store *store, const char *kind, const char *text);
int __wrap_store_event(struct store *store, const char *kind, const char *text) {
    joined += strcmp(kind, "worker-joined") == 0;
    if (strcmp(kind, "worker-lost") == 0) {
        if (disturbance != SLOW_TURNS || !strstr(text, first.id)) print_message("%s\n", text);
        lost++;
    }
    if (disturbance == SLOW_COMMIT && strcmp(kind, "worker-joined") == 0 && joined == 2) world.now_ms += LONG_MS;
    return __real_store_event(store, kind, text);
}

int __wrap_store_in_place(struct store *store);
int __wrap_store_in_place(struct store *store) {
    (void)store;
    looks += joined == 2;
    if (looks == LOOKS) coordinator_stop();
    if (disturbance == STANDS_STILL && looks == 2) {
        world.now_ms += LONG_MS;
        for (int i = 0; i < FLOOD; i++) beat(&second);
        beat(&first);
    }
    if (disturbance == SLOW_TURNS && looks > 1) {
        first.silent = true;
        world.now_ms += LONG_MS;
        beat(&second);
    }
    return 0;
}

static void run(enum disturbance what) {
    static const char pipeline[] = "output_dir: out\ndataset: { sources: [a.txt], sequence_length: 8 }\n"
                                   "model: { n_layer: 1, n_head: 1, n_embd: 16, n_positions: 8 }\ncluster: { lease_seconds: 10 }\n";
    struct config config;
    snprintf(folder, sizeof folder, "/tmp/millrace-pause-XXXXXX");
    assert_non_null(mkdtemp(folder));
    char *source = mem_format("%s/a.txt", folder);
    assert_int_equal(file_publish(source, "a text", 6), 0);
    if (config_parse(&config, "p.yaml", pipeline, sizeof pipeline - 1, folder, NULL, 0) < 0) fail_msg("%s", err_text());
    world_begin(random_open("pause"));
    world.idle = live;
    first = second = (struct speaker){0};
    joined = lost = looks = 0;
    disturbance = what;
    assert_int_equal(coordinator_run(&(struct coordinator_options){.config = &config, .grace_ms = 1000}), ERR_INTERRUPTED);
    assert_int_equal(joined, 2);
    link_close(first.link);
    link_close(second.link);
    config_free(&config);
    free(source);
    assert_int_equal(folder_remove(folder), 0);
}

static void a_commit_that_takes_longer_than_the_lease_loses_nobody(void **state) {
    (void)state;
    run(SLOW_COMMIT);
    assert_int_equal(lost, 0);
}

/* Of the messages that wait then the loop takes some before it counts silence again. */
static void who_was_not_heard_while_the_coordinator_was_stopped_is_not_lost(void **state) {
    (void)state;
    run(STANDS_STILL);
    assert_int_equal(lost, 0);
}

static void who_says_nothing_turn_after_turn_is_lost_however_long_they_are(void **state) {
    (void)state;
    run(SLOW_TURNS);
    assert_int_equal(lost, 1);
    assert_true(looks > 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_commit_that_takes_longer_than_the_lease_loses_nobody),
        cmocka_unit_test(who_was_not_heard_while_the_coordinator_was_stopped_is_not_lost),
        cmocka_unit_test(who_says_nothing_turn_after_turn_is_lost_however_long_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
