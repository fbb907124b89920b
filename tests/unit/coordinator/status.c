/* A flood of questions costs the loop no more than a few. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/parts.h"
#include "coordinator/status.h"
#include "proto/link.h"
#include "tests/unit/world.h"

static struct config config;

static struct context *begin(void) {
    struct context *c = mem_alloc(sizeof *c);
    world_begin(random_open("status"));
    c->config = &config;
    parts_open(c);
    assert_int_equal(link_open(&c->link, &(struct link_options){.bind = "tcp://127.0.0.1:*"}), 0);
    return c;
}

static void end(struct context *c) {
    link_close(c->link);
    parts_close(c);
    free(c);
}

/* Each question in a turn of its own; what is told changes all the time. */
static void a_flood_of_questions_prints_the_status_once_in_a_while(void **state) {
    (void)state;
    struct context *c = begin();
    char before[4096] = "";
    size_t printed = 0;
    for (int i = 0; i < 10000; i++) {
        status_turn(c, 0);
        c->generation++;
        world.now_ms = WORLD_START_MS + i / 10;
        const char *text = status_answer(c);
        assert_non_null(text);
        assert_true(strlen(text) < sizeof before);
        printed += strcmp(text, before) != 0;
        strcpy(before, text);
    }
    assert_int_equal(printed, 1000 / STATUS_FRESH_MS);
    world.now_ms += STATUS_FRESH_MS;
    assert_string_not_equal(status_answer(c), before);
    end(c);
}

static void a_turn_of_the_loop_answers_only_some(void **state) {
    (void)state;
    struct context *c = begin();
    for (int turn = 0; turn < 3; turn++, status_turn(c, 0))
        for (int i = 0; i < 100; i++) assert_int_equal(status_answer(c) != NULL, i < STATUS_ANSWERS_MAX);
    end(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flood_of_questions_prints_the_status_once_in_a_while),
        cmocka_unit_test(a_turn_of_the_loop_answers_only_some),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
