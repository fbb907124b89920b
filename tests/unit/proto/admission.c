/* Who is let in at a ROUTER with keys, and who is not, over real sockets on loopback; and the files that keep keys. */
#include "proto/admission.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "proto/endpoint.h"
#include "proto/link.h"
#include "tests/unit/random.h"

enum { PATIENCE_MS = 20000, SHUT_OUT_MS = 600, MARK = 7 };

static struct key_pair made(void) {
    struct key_pair key;
    assert_int_equal(key_make(&key), 0);
    return key;
}

struct server {
    struct key_pair key;
    struct admission *admission;
    struct link *link;
    char endpoint[ENDPOINT_TEXT_MAX];
};

static struct server open_server(bool later) {
    struct server s = {.key = made(), .admission = admission_open(later)};
    const struct link_options options = {.bind = "tcp://127.0.0.1:*", .key = &s.key, .admission = s.admission};
    if (link_open(&s.link, &options) < 0) fail_msg("%s", err_text());
    assert_int_equal(endpoint_write(s.endpoint, link_endpoint(s.link), s.key.public), 0);
    return s;
}

static void close_server(struct server *s) {
    link_close(s->link);
    admission_close(s->admission);
}

static void let_in(struct server *s, const struct key_pair *keys, size_t count) {
    uint8_t key[8][KEY_BYTES];
    uint32_t mark[8];
    for (size_t i = 0; i < count; i++) {
        memcpy(key[i], keys[i].public, KEY_BYTES);
        mark[i] = MARK + (uint32_t)i;
    }
    admission_set(s->admission, (const uint8_t (*)[KEY_BYTES])key, mark, count);
}

static struct link *open_client(const struct key_pair *key, const char *endpoint, uint64_t *out_peer) {
    struct link *link = NULL;
    if (link_open(&link, &(struct link_options){.key = key}) < 0) fail_msg("%s", err_text());
    if (link_connect_asking(link, out_peer, endpoint) < 0) fail_msg("%s", err_text());
    return link;
}

static void say(struct link *link, uint64_t peer) {
    struct frame frame;
    assert_int_equal(frame_pack(&frame, &(struct envelope){.kind = MILLRACE__KIND__WHO}, NULL, NULL, 0, FRAME_NONE), 0);
    link_send(link, peer, &frame);
}

static bool hears(struct link *link, uint64_t *out_peer, int64_t within_ms) {
    struct message message = {0};
    int64_t until_ms = clock_ms() + within_ms;
    int got = 0;
    while (got == 0 && clock_ms() < until_ms) got = link_receive(link, out_peer, &message, 50);
    message_free(&message);
    return got == 1;
}

static bool is_refused(struct link *link, uint64_t peer) {
    for (int64_t until_ms = clock_ms() + PATIENCE_MS; clock_ms() < until_ms; clock_sleep_ms(10))
        if (link_refused(link, peer)) return true;
    return false;
}

static void who_is_named_comes_in_and_is_known_by_the_key(void **state) {
    (void)state;
    struct server s = open_server(false);
    struct key_pair keys[3] = {made(), made(), made()};
    let_in(&s, keys, 3);
    for (size_t i = 0; i < 3; i++) {
        uint64_t to, from, back;
        uint8_t key[KEY_BYTES];
        struct link *client = open_client(&keys[i], s.endpoint, &to);
        say(client, to);
        assert_true(hears(s.link, &from, PATIENCE_MS));
        assert_true(link_peer_key(s.link, key, from));
        assert_memory_equal(key, keys[i].public, KEY_BYTES);
        assert_int_equal(admission_mark(s.admission, key), MARK + i);
        say(s.link, from);
        assert_true(hears(client, &back, PATIENCE_MS));
        assert_int_equal(back, to);
        assert_false(link_refused(client, to));
        assert_false(link_peer_key(client, key, to)); /* nobody came to it */
        link_close(client);
    }
    close_server(&s);
}

static void others_are_turned_away_before_they_say_a_word(void **state) {
    (void)state;
    struct server s = open_server(false), other = open_server(false);
    struct key_pair named = made(), stranger = made();
    let_in(&s, &named, 1);
    let_in(&other, &stranger, 1); /* at one ROUTER is not at another */
    char wrong[ENDPOINT_TEXT_MAX];
    assert_int_equal(endpoint_write(wrong, link_endpoint(s.link), stranger.public), 0);
    const struct {
        const struct key_pair *key;
        const char *endpoint;
    } cases[] = {{&stranger, s.endpoint}, {&named, other.endpoint}, {&named, wrong}, {NULL, link_endpoint(s.link)}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t to, from;
        struct link *client = open_client(cases[i].key, cases[i].endpoint, &to);
        say(client, to);
        if (i == 0 || i == 1) assert_true(is_refused(client, to)); /* of the others ZeroMQ tells, or is just cut off, again and again */
        assert_false(hears(s.link, &from, SHUT_OUT_MS));
        assert_false(hears(other.link, &from, 50));
        link_close(client);
    }
    uint64_t to;
    struct link *client = open_client(NULL, link_endpoint(s.link), &to);
    assert_int_equal(link_connect(client, &to, s.endpoint), ERR_CONFIG); /* without a key of its own */
    link_close(client);
    close_server(&s);
    close_server(&other);
}

static void who_asks_only_later_learns_of_a_refusal_too(void **state) {
    (void)state;
    struct server s = open_server(false);
    struct key_pair keys[2] = {made(), made()};
    let_in(&s, keys, 1);
    for (size_t i = 0; i < 2; i++) {
        struct link *client = NULL;
        uint64_t to, from, asked;
        assert_int_equal(link_open(&client, &(struct link_options){.key = &keys[i]}), 0);
        assert_int_equal(link_connect(client, &to, s.endpoint), 0);
        say(client, to);
        if (i == 0) assert_true(hears(s.link, &from, PATIENCE_MS));
        else assert_false(hears(s.link, &from, SHUT_OUT_MS)); /* by now it was turned away */
        assert_int_equal(link_connect_asking(client, &asked, s.endpoint), 0);
        assert_int_equal(asked, to);
        if (i == 1) assert_true(is_refused(client, to));
        say(client, to);
        if (i == 0) assert_true(hears(s.link, &from, PATIENCE_MS));
        assert_int_equal(link_refused(client, to), i == 1);
        link_close(client);
    }
    close_server(&s);
}

static void a_key_that_is_taken_back_is_shut_out_at_once(void **state) {
    (void)state;
    struct server s = open_server(false);
    struct key_pair keys[2] = {made(), made()};
    let_in(&s, keys, 2);
    uint64_t to[2], from;
    struct link *client[2];
    for (int i = 0; i < 2; i++) {
        client[i] = open_client(&keys[i], s.endpoint, &to[i]);
        say(client[i], to[i]);
        assert_true(hears(s.link, &from, PATIENCE_MS));
    }
    let_in(&s, keys, 1);
    say(client[1], to[1]);
    assert_false(hears(s.link, &from, SHUT_OUT_MS)); /* over the connection that it still has */
    say(client[0], to[0]);
    assert_true(hears(s.link, &from, PATIENCE_MS));
    link_close(client[0]);
    link_close(client[1]);
    close_server(&s);
}

static void who_may_be_let_in_later_need_not_connect_anew(void **state) {
    (void)state;
    struct server s = open_server(true);
    struct key_pair key = made();
    uint64_t to, from;
    struct link *client = open_client(&key, s.endpoint, &to);
    say(client, to);
    assert_false(hears(s.link, &from, SHUT_OUT_MS));
    let_in(&s, &key, 1);
    assert_true(hears(s.link, &from, PATIENCE_MS));
    link_close(client);
    close_server(&s);
}

static void many_come_and_go_while_the_table_changes(void **state) {
    (void)state;
    struct server s = open_server(true);
    enum { KEYS = 8 };
    struct random random = random_open(__func__);
    struct key_pair keys[KEYS];
    for (int i = 0; i < KEYS; i++) keys[i] = made();
    for (int round = 0; round < 20; round++) {
        size_t count = random_in(&random, 1, KEYS);
        let_in(&s, keys, count);
        uint64_t to, from;
        size_t who = random_in(&random, 0, KEYS - 1);
        struct link *client = open_client(&keys[who], s.endpoint, &to);
        say(client, to);
        if (who < count) assert_true(hears(s.link, &from, PATIENCE_MS));
        else assert_false(hears(s.link, &from, 50));
        link_disconnect(client, to); /* at once: what it could not say must not come when its key is let in again */
        link_close(client);
        for (size_t i = 0; i < KEYS; i++) assert_int_equal(admission_mark(s.admission, keys[i].public), i < count ? MARK + i : 0);
    }
    let_in(&s, keys, 0);
    assert_int_equal(admission_mark(s.admission, keys[0].public), 0);
    close_server(&s);
}

/* The last thread that this program itself has started, and not ZeroMQ. */
static pthread_t newest;

int __real_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*start)(void *), void *arg) {
    int why = __real_pthread_create(out, attributes, start, arg);
    newest = *out;
    return why;
}

static void without_its_answerer_the_process_ends(void **state) {
    (void)state;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct server s = open_server(false);
        assert_int_equal(pthread_cancel(newest), 0);
        clock_sleep_ms(PATIENCE_MS);
        close_server(&s);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
}

static void another_address_is_tried_when_one_is_silent(void **state) {
    (void)state;
    struct server s = open_server(false);
    struct key_pair key = made();
    let_in(&s, &key, 1);
    char several[ENDPOINT_TEXT_MAX], addresses[300];
    snprintf(addresses, sizeof addresses, "tcp://127.0.0.1:1,tcp://127.0.0.2:1,%s", link_endpoint(s.link));
    assert_int_equal(endpoint_write(several, addresses, s.key.public), 0);
    uint64_t to, from, back;
    struct link *client = open_client(&key, several, &to);
    bool heard = false;
    for (int64_t until_ms = clock_ms() + PATIENCE_MS; !heard && clock_ms() < until_ms;) { /* what waited for a silent one is dropped */
        say(client, to);
        assert_false(hears(client, &back, 200));
        heard = hears(s.link, &from, 50);
    }
    assert_true(heard);
    say(s.link, from);
    assert_true(hears(client, &back, PATIENCE_MS));
    assert_int_equal(back, to);
    link_close(client);
    close_server(&s);
}

static bool wants_nothing(void *arg, uint64_t peer, const struct envelope *envelope) {
    (void)peer, (void)envelope;
    ++*(size_t *)arg;
    return false;
}

static void what_nobody_waits_for_is_an_answer_too(void **state) {
    (void)state;
    struct link *server[2], *client;
    for (int i = 0; i < 2; i++) assert_int_equal(link_open(&server[i], &(struct link_options){.bind = "tcp://127.0.0.1:*"}), 0);
    assert_int_equal(link_open(&client, &(struct link_options){0}), 0);
    size_t dropped = 0;
    link_filter(client, wants_nothing, &dropped);
    char several[ENDPOINT_TEXT_MAX];
    snprintf(several, sizeof several, "%s,%s", link_endpoint(server[0]), link_endpoint(server[1]));
    uint64_t to, from;
    assert_int_equal(link_connect(client, &to, several), 0);
    for (int64_t until_ms = clock_ms() + 2 * LINK_TRY_MS; clock_ms() < until_ms;) {
        say(client, to);
        assert_false(hears(client, &from, 50));
        if (hears(server[0], &from, 50)) say(server[0], from);
        assert_false(hears(server[1], &from, 10));
    }
    assert_true(dropped > 0);
    link_close(client);
    for (int i = 0; i < 2; i++) link_close(server[i]);
}

static void keys_are_kept_for_their_owner_alone(void **state) {
    (void)state;
    char folder[] = "/tmp/millrace-key-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.key", folder);
    struct key_pair first, again;
    assert_int_equal(key_load(&first, path), ERR_NOTFOUND);
    mode_t before = umask(0);
    assert_int_equal(key_load_or_make(&first, path), 0);
    struct draft draft;
    assert_int_equal(draft_open_private(&draft, path), 0); /* also while it is written */
    umask(before);
    struct stat made;
    assert_int_equal(fstat(draft.fd, &made), 0);
    assert_int_equal(made.st_mode & 0777, 0600);
    draft_discard(&draft);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(key_load_or_make(&again, path), 0);
    assert_memory_equal(&first, &again, sizeof first);

    for (mode_t mode = 1; mode < 0100; mode++) {
        assert_int_equal(chmod(path, 0600 | mode), 0);
        assert_int_equal(key_load_or_make(&again, path), ERR_DENIED);
    }
    assert_int_equal(chmod(path, 0600), 0);
    static const char *const bad[] = {"", "\n", "0123", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeg\n",
                                      "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123\n",
                                      "0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        FILE *file = fopen(path, "w");
        fputs(bad[i], file);
        fclose(file);
        assert_int_equal(key_load(&again, path), ERR_CORRUPT);
    }
    unlink(path);
    rmdir(folder);
}

struct maker {
    pthread_barrier_t *together;
    const char *path;
    struct key_pair key;
};

static void *make_key(void *arg) {
    struct maker *maker = arg;
    pthread_barrier_wait(maker->together);
    return key_load_or_make(&maker->key, maker->path) < 0 ? arg : NULL;
}

static void all_who_make_a_key_at_once_have_the_same(void **state) {
    (void)state;
    enum { MAKERS = 8, ROUNDS = 20 };
    char folder[] = "/tmp/millrace-key-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.key", folder);
    pthread_barrier_t together;
    pthread_barrier_init(&together, NULL, MAKERS);
    for (int round = 0; round < ROUNDS; round++) {
        struct maker makers[MAKERS];
        pthread_t threads[MAKERS];
        struct key_pair kept;
        for (int i = 0; i < MAKERS; i++) {
            makers[i] = (struct maker){.together = &together, .path = path};
            assert_int_equal(pthread_create(&threads[i], NULL, make_key, &makers[i]), 0);
        }
        for (int i = 0; i < MAKERS; i++) {
            void *failed;
            pthread_join(threads[i], &failed);
            assert_null(failed);
        }
        assert_int_equal(key_load(&kept, path), 0);
        for (int i = 0; i < MAKERS; i++) assert_memory_equal(&makers[i].key, &kept, sizeof kept);
        unlink(path);
    }
    pthread_barrier_destroy(&together);
    assert_int_equal(rmdir(folder), 0); /* and no draft is left */
}

static void a_public_key_follows_from_its_secret(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct key_pair key = made(), derived;
        uint8_t parsed[KEY_BYTES];
        char hex[KEY_HEX + 8];
        assert_int_equal(key_of_secret(&derived, key.secret), 0);
        assert_memory_equal(&key, &derived, sizeof key);
        hex_of(hex, key.public, KEY_BYTES);
        assert_true(key_parse(parsed, hex));
        assert_memory_equal(parsed, key.public, KEY_BYTES);
        snprintf(hex + KEY_HEX - 1, 8, "%s", i % 2 ? "0" : "a");
        assert_false(key_parse(parsed, hex)); /* one digit more */
        hex[KEY_HEX - 2] = 0;
        assert_false(key_parse(parsed, hex)); /* one less */
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_its_answerer_the_process_ends),
        cmocka_unit_test(who_is_named_comes_in_and_is_known_by_the_key),
        cmocka_unit_test(others_are_turned_away_before_they_say_a_word),
        cmocka_unit_test(who_asks_only_later_learns_of_a_refusal_too),
        cmocka_unit_test(a_key_that_is_taken_back_is_shut_out_at_once),
        cmocka_unit_test(who_may_be_let_in_later_need_not_connect_anew),
        cmocka_unit_test(many_come_and_go_while_the_table_changes),
        cmocka_unit_test(another_address_is_tried_when_one_is_silent),
        cmocka_unit_test(what_nobody_waits_for_is_an_answer_too),
        cmocka_unit_test(keys_are_kept_for_their_owner_alone),
        cmocka_unit_test(all_who_make_a_key_at_once_have_the_same),
        cmocka_unit_test(a_public_key_follows_from_its_secret),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
