/* Files at URLs, from a server on this machine that does everything wrong that servers do. */
#include <dlfcn.h>
#include <netdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/source/http.h"
#include "dataset/source/reader.h"
#include "tests/unit/dataset/web.h"
#include "tests/unit/random.h"

enum { DATA_BYTES = 12345678 };

static const struct http_patience quick = {.tries = 4, .pause_ms = 10, .pause_max_ms = 40, .connect_ms = 5000, .silence_ms = 300};
static char folder[] = "/tmp/millrace-http-XXXXXX";
static struct web web;
static uint8_t *data;

static int put(const char *name, const void *bytes, size_t size_bytes) {
    char *path = mem_format("%s/%s", folder, name);
    int code = file_publish(path, bytes, size_bytes);
    free(path);
    return code;
}

static int set_up(void **state) {
    (void)state;
    struct random random = random_open("http");
    data = mem_alloc(DATA_BYTES);
    for (size_t i = 0; i + 8 <= DATA_BYTES; i += 8) {
        uint64_t number = random_next(&random);
        memcpy(data + i, &number, 8);
    }
    if (!mkdtemp(folder) || put("data", data, DATA_BYTES) < 0 || put("small", data, 1000) < 0 || put("empty", data, 0) < 0) return -1;
    return web_start(&web, folder);
}

static int tear_down(void **state) {
    (void)state;
    web_stop(&web);
    free(data);
    return folder_remove(folder);
}

/* ticks_max 0: nobody stops it. */
static int ticks, ticks_max;
static int tick(void *arg) { return ++*(int *)arg > ticks_max && ticks_max; }

static int open_at(struct http **out, const char *mode, const char *name) {
    char *url = web_url(&web, mode, name);
    int code = http_open_patiently(out, url, tick, &ticks, &quick);
    if (code < 0 && code != ERR_INTERRUPTED) assert_non_null(strstr(err_text(), url));
    free(url);
    return code;
}

static int requests(void) {
    struct http *http;
    char text[9] = "";
    size_t got;
    assert_int_equal(open_at(&http, "count", ""), 0);
    assert_int_equal(http_read(http, text, &got, 8, 0), 0);
    http_close(http);
    return atoi(text);
}

static void read_and_compare(struct http *http, uint64_t offset, size_t size_bytes) {
    static uint8_t bytes[READER_BYTES_MAX];
    size_t got, want = offset >= DATA_BYTES ? 0 : size_bytes < DATA_BYTES - offset ? size_bytes : (size_t)(DATA_BYTES - offset);
    if (http_read(http, bytes, &got, size_bytes, offset) < 0) fail_msg("%s", err_text());
    assert_int_equal(got, want);
    assert_memory_equal(bytes, data + offset, got);
}

static void a_url_is_told_from_a_path(void **state) {
    (void)state;
    assert_true(http_is_url("http://example.org/a") && http_is_url("HTTPS://example.org"));
    assert_false(http_is_url("/http://a") || http_is_url("ftp://a/b") || http_is_url("https:/a") || http_is_url(""));
}

static void a_file_is_read_in_any_order(void **state) {
    (void)state;
    static const char *const modes[] = {"plain", "etag", "noranges", "drop", "busy", "hop"};
    struct random random = random_open("order");
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        struct http *http;
        assert_int_equal(open_at(&http, modes[m], "data"), 0);
        assert_int_equal(http_size(http), DATA_BYTES);
        int jumps = strcmp(modes[m], "noranges") == 0 ? 4 : 40; /* each may be the whole file again */
        uint64_t offset = 0;
        for (int i = 0; i < 2 * jumps; i++) {
            size_t size = (size_t)random_in(&random, 1, i % 3 ? READER_BYTES_MAX : 5000);
            read_and_compare(http, offset, size);
            uint64_t next = offset + size;
            switch (random_in(&random, 0, i % 2 ? 2 : 0)) {
            case 0: offset = next; break;                                        /* goes on */
            case 1: offset = next + random_in(&random, 0, 3 << 20); break;       /* skips */
            default: offset = random_in(&random, 0, DATA_BYTES); break;          /* jumps */
            }
            if (offset > DATA_BYTES) offset = 0;
        }
        http_close(http);
    }
}

static void a_coding_that_cannot_be_seen_is_refused(void **state) {
    (void)state;
    static const char *const modes[] = {"coding-gzip", "coding-x-gzip", "coding-zstd", "coding-identity", "coding-br", "coding-deflate"};
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        struct http *http = NULL;
        int code = open_at(&http, modes[m], "data");
        assert_int_equal(code, m < 4 ? 0 : ERR_UNSUPPORTED);
        if (code < 0) assert_non_null(strstr(err_text(), "Content-Encoding"));
        else read_and_compare(http, 0, 1000);
        http_close(http);
    }
}

static void ends_and_empty_files_are_what_they_are(void **state) {
    (void)state;
    static const char *const modes[] = {"plain", "noranges"};
    for (int m = 0; m < 2; m++) {
        struct http *http;
        uint8_t byte;
        size_t got = 9;
        assert_int_equal(open_at(&http, modes[m], "empty"), 0);
        assert_int_equal(http_size(http), 0);
        assert_int_equal(http_read(http, &byte, &got, 1, 0), 0);
        assert_int_equal(got, 0);
        http_close(http);
        assert_int_equal(open_at(&http, modes[m], "data"), 0);
        read_and_compare(http, DATA_BYTES - 1, 2);
        read_and_compare(http, DATA_BYTES, 1);
        read_and_compare(http, (uint64_t)DATA_BYTES + 99, 1);
        read_and_compare(http, 0, 1);
        http_close(http);
    }
    http_close(NULL);
}

static void reading_in_sequence_costs_few_requests(void **state) {
    (void)state;
    static const char *const modes[] = {"plain", "noranges"};
    static const int most[] = {8, 1};
    for (int m = 0; m < 2; m++) {
        struct http *http;
        int before = requests();
        assert_int_equal(open_at(&http, modes[m], "data"), 0);
        for (uint64_t offset = 0; offset < DATA_BYTES; offset += 100000) read_and_compare(http, offset, 100000);
        http_close(http);
        assert_true(requests() - before <= most[m]);
    }
}

static void the_version_is_another_for_another_file(void **state) {
    (void)state;
    struct http *a, *b, *c, *d;
    assert_int_equal(open_at(&a, "plain", "data"), 0);
    assert_int_equal(open_at(&b, "plain", "data"), 0);
    assert_int_equal(open_at(&c, "plain", "small"), 0); /* another size */
    assert_int_equal(open_at(&d, "etag", "data"), 0);   /* an ETag */
    assert_true(http_version(a) == http_version(b) && http_version(a) != http_version(c) && http_version(a) != http_version(d));
    http_close(a), http_close(b), http_close(c), http_close(d);
}

static void a_file_that_changes_is_noticed(void **state) {
    (void)state;
    struct http *http;
    uint8_t byte;
    size_t got;
    assert_int_equal(open_at(&http, "changed", "data"), 0);
    assert_int_equal(http_read(http, &byte, &got, 1, 0), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "changed on the server"));
    http_close(http);
    assert_int_equal(put("shrinks", data, 5000000), 0);
    assert_int_equal(open_at(&http, "plain", "shrinks"), 0);
    read_and_compare(http, 0, 1000);
    assert_int_equal(put("shrinks", data, 1000), 0);
    assert_int_equal(http_read(http, &byte, &got, 1, 4000000), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "changed on the server"));
    http_close(http);
}

static void what_the_server_refuses_is_told_at_once(void **state) {
    (void)state;
    static const struct {
        const char *mode;
        int code;
        const char *word;
    } cases[] = {{"missing", ERR_NOTFOUND, "404"}, {"gone", ERR_NOTFOUND, "410"},       {"forbidden", ERR_IO, "403"},
                 {"loop", ERR_IO, "redirects"},    {"nolength", ERR_UNSUPPORTED, "size"}, {"ftp", ERR_IO, "ftp"}, {"file", ERR_IO, "file"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http *http;
        int before = requests();
        assert_int_equal(open_at(&http, cases[i].mode, "small"), cases[i].code);
        if (!strstr(err_text(), cases[i].word)) fail_msg("%s: \"%s\" lacks %s", cases[i].mode, err_text(), cases[i].word);
        assert_int_equal(requests() - before, strcmp(cases[i].mode, "loop") == 0 ? 11 : 1);
    }
}

static void what_may_pass_is_tried_again_and_then_told(void **state) {
    (void)state;
    struct http *http;
    int before = requests();
    assert_int_equal(open_at(&http, "away", "small"), ERR_IO);
    assert_non_null(strstr(err_text(), "503"));
    assert_int_equal(requests() - before, quick.tries);
    assert_int_equal(open_at(&http, "broken", "small"), ERR_IO);
    assert_int_equal(http_open_patiently(&http, "http://127.0.0.1:1/a", NULL, NULL, &quick), ERR_IO);
    assert_non_null(strstr(err_text(), "4 times"));
}

/* Without waiting: time stands still, but for who sleeps. */
static bool stands;
static int64_t slept_ms;

int64_t __real_clock_ms(void);
int64_t __wrap_clock_ms(void);
int64_t __wrap_clock_ms(void) { return stands ? slept_ms : __real_clock_ms(); }

void __real_clock_sleep_ms(int64_t ms);
void __wrap_clock_sleep_ms(int64_t ms);
void __wrap_clock_sleep_ms(int64_t ms) {
    if (stands) slept_ms += ms;
    else __real_clock_sleep_ms(ms);
}

static void a_server_that_says_when_is_asked_again_then_and_soon_enough(void **state) {
    (void)state;
    static const struct {
        const char *mode;
        int64_t waits_ms;
    } cases[] = {{"later-1", 1000}, {"later-30", 30000}, {"later-86400", 30000}, {"later-0", 10}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http *http;
        slept_ms = 0, stands = true;
        int code = open_at(&http, cases[i].mode, "small");
        stands = false;
        assert_int_equal(code, 0);
        http_close(http);
        assert_int_equal(slept_ms, cases[i].waits_ms);
    }
}

/* A range that ends before what is read next is read to its end, and then comes the next one, at once. */
static void a_jump_past_the_range_under_way_is_no_failure(void **state) {
    (void)state;
    struct http *http;
    assert_int_equal(open_at(&http, "halves", "data"), 0);
    slept_ms = 0, stands = true;
    for (uint64_t offset = 0; offset < 3000000; offset += 900000) read_and_compare(http, offset, 1000);
    stands = false;
    assert_int_equal(slept_ms, 0);
    http_close(http);
}

static void read_fails(const char *mode, const char *name, uint64_t offset, const char *word) {
    struct http *http;
    static uint8_t bytes[60000];
    size_t got = 77;
    assert_int_equal(open_at(&http, mode, name), 0);
    int64_t before = clock_ms();
    assert_int_equal(http_read(http, bytes, &got, sizeof bytes, offset), ERR_IO);
    if (!strstr(err_text(), word)) fail_msg("%s: \"%s\" lacks %s", mode, err_text(), word);
    assert_true(clock_ms() - before < 4000 && got == 77);
    http_close(http);
}

static void a_server_that_never_gets_there_is_given_up(void **state) {
    (void)state;
    read_fails("silent", "data", 5000000, "says nothing");
    read_fails("dropall", "data", 5000000, "4 times");
    read_fails("nothing", "data", 5000000, "");
    read_fails("other", "data", 0, "other bytes");
    read_fails("other", "small", 100, "other bytes than were asked for, 4 times in a row"); /* as a cache that does not look at the range */
}

static void a_server_that_is_silent_from_the_beginning_is_ticked_for_and_given_up(void **state) {
    (void)state;
    struct http *http;
    ticks = 0;
    assert_int_equal(open_at(&http, "mute", "data"), ERR_IO);
    assert_non_null(strstr(err_text(), "says nothing for 0 s, 4 times in a row"));
    assert_true(ticks >= quick.tries * 2);
}

/* libcurl finds this one before the C library's: a name server that says nothing, until it is let go. */
static atomic_bool name_server_is_silent, somebody_waited_for_it;

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out);
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    for (int i = 0; i < 400 && atomic_load(&name_server_is_silent); i++) usleep(50000);
    if (atomic_load(&name_server_is_silent)) atomic_store(&somebody_waited_for_it, true);
    return real(node, service, hints, out);
}

static void a_name_server_that_is_silent_is_waited_for_no_longer_than_a_server(void **state) {
    (void)state;
    struct http_patience patience = quick;
    struct http *http;
    patience.connect_ms = 100, patience.tries = 2;
    atomic_store(&name_server_is_silent, true);
    assert_int_equal(http_open_patiently(&http, "http://millrace.invalid/data", tick, &ticks, &patience), ERR_IO);
    assert_false(atomic_load(&somebody_waited_for_it));
    atomic_store(&name_server_is_silent, false);
}

static void a_transfer_is_stopped_from_outside(void **state) {
    (void)state;
    static const char *const modes[] = {"silent", "dropall", "mute", "away"}; /* while it waits for bytes, between tries; as it is opened */
    for (int m = 0; m < 4; m++) {
        struct http *http = NULL;
        static uint8_t bytes[60000];
        size_t got;
        bool opens = m < 2;
        if (opens) assert_int_equal(open_at(&http, modes[m], "data"), 0);
        ticks = 0, ticks_max = 2;
        int code = opens ? http_read(http, bytes, &got, sizeof bytes, 5000000) : open_at(&http, modes[m], "data");
        ticks_max = 0;
        assert_int_equal(code, ERR_INTERRUPTED);
        assert_int_equal(ticks, 3);
        http_close(http);
    }
}

static void the_proxy_of_the_environment_is_used(void **state) {
    (void)state;
    struct http *http;
    char *proxy = mem_format("http://127.0.0.1:%d", web.port);
    setenv("http_proxy", proxy, 1);
    assert_int_equal(http_open_patiently(&http, "http://nowhere.invalid/plain/data", NULL, NULL, &quick), 0);
    read_and_compare(http, 77, 1000);
    unsetenv("http_proxy");
    http_close(http);
    free(proxy);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_url_is_told_from_a_path),
        cmocka_unit_test(a_file_is_read_in_any_order),
        cmocka_unit_test(a_coding_that_cannot_be_seen_is_refused),
        cmocka_unit_test(ends_and_empty_files_are_what_they_are),
        cmocka_unit_test(reading_in_sequence_costs_few_requests),
        cmocka_unit_test(the_version_is_another_for_another_file),
        cmocka_unit_test(a_file_that_changes_is_noticed),
        cmocka_unit_test(what_the_server_refuses_is_told_at_once),
        cmocka_unit_test(what_may_pass_is_tried_again_and_then_told),
        cmocka_unit_test(a_server_that_says_when_is_asked_again_then_and_soon_enough),
        cmocka_unit_test(a_jump_past_the_range_under_way_is_no_failure),
        cmocka_unit_test(a_server_that_never_gets_there_is_given_up),
        cmocka_unit_test(a_server_that_is_silent_from_the_beginning_is_ticked_for_and_given_up),
        cmocka_unit_test(a_name_server_that_is_silent_is_waited_for_no_longer_than_a_server),
        cmocka_unit_test(a_transfer_is_stopped_from_outside),
        cmocka_unit_test(the_proxy_of_the_environment_is_used),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
