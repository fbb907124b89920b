/* Who was set aside stays so: for the worker that says hello again, and for the coordinator that is started again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "coordinator/internal.h"

static char folder[64];

/* A coordinator over what an earlier one left in the folder. */
static struct coordinator *begin(void) {
    static struct config config;
    struct coordinator *c = mem_alloc(sizeof *c);
    c->config = &config;
    assert_int_equal(store_open(&c->store, folder), 0);
    assert_int_equal(link_open(&c->link, &(struct link_options){.bind = "tcp://127.0.0.1:*", .frame_max = 1 << 20}), 0);
    assert_int_equal(buf_append(&c->config_text, "", 1), 0);
    return c;
}

static void end(struct coordinator *c) {
    link_close(c->link);
    store_close(c->store);
    buf_free(&c->config_text);
    free(c);
}

static const struct worker_entry *hello(struct coordinator *c, uint64_t peer, const char *id) {
    Millrace__Hello hello = MILLRACE__HELLO__INIT;
    hello.worker = (char *)id, hello.host = "host", hello.endpoint = "tcp://127.0.0.1:1", hello.build = "build", hello.threads = 1;
    roster_message(c, peer, &(struct message){.envelope = {.kind = MILLRACE__KIND__HELLO}, .body = &hello.base});
    int64_t number = roster_find(c, peer);
    assert_true(number >= 0);
    return &c->worker[number];
}

static void who_was_set_aside_stays_so_for_the_next_coordinator(void **state) {
    (void)state;
    const char why[] = "it told of more tokens than a slice has";
    struct coordinator *c = begin();
    assert_string_equal(hello(c, 1, "w-1")->aside, "");
    assert_string_equal(hello(c, 2, "w-2")->aside, "");
    assert_string_equal(hello(c, 3, "w-3")->aside, "");
    roster_set_aside(c, 1, why);
    c->worker[2].in_question = true; /* only until somebody decides */
    roster_set_aside(c, 2, "neither is in the majority");
    assert_string_equal(hello(c, 2, "w-2")->aside, why);
    end(c);
    for (int restarts = 0; restarts < 2; restarts++) {
        c = begin();
        assert_string_equal(hello(c, 7, "w-2")->aside, why);
        assert_string_equal(hello(c, 8, "w-1")->aside, "");
        assert_string_equal(hello(c, 9, "w-3")->aside, "");
        assert_string_equal(hello(c, 10, "w-22")->aside, "");
        end(c);
    }
    c = begin();
    assert_int_equal(store_forget_all(c->store), 0); /* run --restart */
    assert_string_equal(hello(c, 1, "w-2")->aside, "");
    end(c);
}

static int fresh_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/millrace-roster-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_it(void **state) {
    (void)state;
    return folder_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_was_set_aside_stays_so_for_the_next_coordinator, fresh_folder, remove_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
