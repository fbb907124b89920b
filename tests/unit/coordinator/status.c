/* What is told of a step that waits; and a flood of questions costs the loop no more than a few. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/parts.h"
#include "coordinator/roster.h"
#include "coordinator/status.h"
#include "coordinator/trainer.h"
#include "proto/link.h"
#include "tests/unit/config/parse.h"
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

static bool is_true(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_boolean(value));
    return json_is_true(value);
}

/* Of three members one has the sum, one lacks it, one is left out; a fourth takes the state over. */
static void who_has_part_in_a_step_and_how_long_it_rests_is_told(void **state) {
    (void)state;
    struct context *c = begin();
    struct config parsed = accepted("training: {max_steps: 10}\ndataset: {sources: [a.txt]}\n");
    c->config = &parsed;
    struct trainer *t = c->trainer = mem_alloc(sizeof *t);
    trainer_open(t, &(struct trainer_options){.slices = 4, .max_steps = 10, .patience_ms = 60000}, 0, 0, 0);
    c->stage = STAGE_TRAIN;
    t->phase = TRAINER_RUN;
    t->view_sent = true;
    t->renewals = 5;
    t->progress_ms = world.now_ms - 7000;
    t->members = c->workers = 4;
    for (uint32_t i = 0; i < 4; i++)
        t->member[i] = (struct member){.worker = i, .state = MEMBER_READY, .in_view = i < 2, .reduced = i == 0};
    slice_add(&t->member[0].assigned, 0), slice_add(&t->member[0].held, 0);
    slice_add(&t->member[1].assigned, 1), slice_add(&t->member[1].held, 1);
    slice_add(&t->member[1].assigned, 3);
    t->doubled = 6; /* by what the steps before needed */
    t->member[2].state = MEMBER_PRESENT;
    t->member[2].left_out = true;
    t->member[3].state = MEMBER_JOINING;
    t->member[3].moved_ms = world.now_ms - 3000;
    json_t *status = json_loads(status_answer(c), 0, NULL), *workers = json_object_get(status, "workers"), *worker;
    assert_non_null(status);
    const json_t *training = json_object_get(status, "training");
    assert_int_equal(json_integer_value(json_object_get(training, "renewals")), 5);
    assert_int_equal(json_integer_value(json_object_get(training, "step_rests_ms")), 7000);
    assert_int_equal(json_integer_value(json_object_get(training, "patience_ms")), 64 * 60000);
    size_t i;
    assert_int_equal(json_array_size(workers), 4);
    json_array_foreach(workers, i, worker) {
        assert_int_equal(is_true(worker, "in_view"), i < 2);
        assert_int_equal(is_true(worker, "reduced"), i == 0);
        assert_int_equal(is_true(worker, "left_out"), i == 2);
        const json_t *missing = json_object_get(worker, "slices_missing");
        assert_int_equal(json_array_size(json_object_get(worker, "slices")), i < 2 ? i + 1 : 0);
        assert_true(json_is_array(missing));
        assert_int_equal(json_array_size(missing), i == 1);
        if (i == 1) assert_int_equal(json_integer_value(json_array_get(missing, 0)), 3);
        const json_t *rests = json_object_get(worker, "join_rests_ms");
        assert_true(i == 3 ? json_integer_value(rests) == 3000 : json_is_null(rests));
    }
    json_decref(status);
    free(t);
    c->trainer = NULL;
    end(c);
    config_free(&parsed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_part_in_a_step_and_how_long_it_rests_is_told),
        cmocka_unit_test(a_flood_of_questions_prints_the_status_once_in_a_while),
        cmocka_unit_test(a_turn_of_the_loop_answers_only_some),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
