/* The log of a run and trainer_state.json: bounded, and the same however the run was interrupted. tests/e2e and `make outside` look at the
 * file as transformers does. */
#include "model/checkpoint/trainer_state.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/model/small_model.h"

static void add_step(struct train_log *log, uint64_t step, uint64_t eval_every) {
    train_log_add(log, &(struct train_log_row){step, (double)step, 0.5, 1, NAN, false});
    if (step % eval_every == 0) train_log_add(log, &(struct train_log_row){step, NAN, NAN, NAN, (double)step / 2, true});
}

static void assert_in_order(const struct train_log *log) {
    size_t steps = 0;
    for (size_t i = 0; i < log->count; i++) {
        steps += !log->row[i].evaluation;
        if (i == 0) continue;
        const struct train_log_row *a = &log->row[i - 1], *b = &log->row[i];
        assert_true(a->step < b->step || (a->step == b->step && !a->evaluation && b->evaluation));
    }
    assert_int_equal(steps, log->steps);
    assert_true(steps <= TRAIN_LOG_STEPS_MAX && log->count - steps <= TRAIN_LOG_STEPS_MAX);
}

static void a_long_run_keeps_a_bounded_log(void **unused) {
    (void)unused;
    struct train_log log = {0};
    enum { STEPS = 100003 };
    train_log_begin(&log, 3, STEPS);
    for (uint64_t step = 1; step <= STEPS; step++) add_step(&log, step, 7);
    assert_in_order(&log);
    assert_true(log.steps > TRAIN_LOG_STEPS_MAX / 2 && log.count - log.steps > TRAIN_LOG_STEPS_MAX / 2);
    assert_int_equal(log.row[0].step, 1);
    assert_int_equal(log.row[log.count - 1].step, STEPS); /* the last step is always there */
    bool last_evaluation = false;
    for (size_t i = 0; i < log.count; i++) last_evaluation |= log.row[i].evaluation && log.row[i].step == STEPS / 7 * 7;
    assert_true(last_evaluation);
    train_log_free(&log);
}

static void small_logs_keep_all_that_is_due(void **unused) {
    (void)unused;
    static const struct {
        uint64_t every, last;
        size_t steps;
    } cases[] = {{1, 10, 10}, {4, 10, 4}, {0, 10, 0}, {100, 10, 2}, {3, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct train_log log = {0};
        train_log_begin(&log, cases[i].every, cases[i].last);
        for (uint64_t step = 1; step <= cases[i].last; step++) add_step(&log, step, 5);
        assert_in_order(&log);
        assert_int_equal(log.steps, cases[i].steps);
        assert_int_equal(log.count - log.steps, cases[i].last / 5);
        train_log_free(&log);
    }
}

static void what_is_after_the_step_or_not_a_number_is_left_out(void **unused) {
    (void)unused;
    struct train_log log = {0};
    struct buf text = {0};
    struct trainer_facts facts = {.step = 4, .max_steps = 8, .epochs_per_step = 0.25, .num_train_epochs = 2, .global_batch = 3};
    train_log_begin(&log, 1, 8);
    for (uint64_t step = 1; step <= 6; step++) add_step(&log, step, 2);
    log.row[0].loss = NAN;
    assert_int_equal(trainer_state_print(&text, &facts, &log), 0);
    json_t *root = json_loadb((char *)text.data, text.size, JSON_REJECT_DUPLICATES, NULL);
    const json_t *history = json_object_get(root, "log_history");
    assert_int_equal(json_array_size(history), 6);
    assert_null(json_object_get(json_array_get(history, 0), "loss"));
    assert_true(json_real_value(json_object_get(json_array_get(history, 5), "eval_loss")) == 2.0);
    assert_true(json_real_value(json_object_get(json_array_get(history, 5), "epoch")) == 1.0);
    assert_true(json_real_value(json_object_get(root, "epoch")) == 1.0);
    assert_int_equal(json_integer_value(json_object_get(root, "global_step")), 4);
    json_decref(root);
    buf_free(&text);
    train_log_free(&log);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_run_keeps_a_bounded_log),
        cmocka_unit_test(small_logs_keep_all_that_is_due),
        cmocka_unit_test(what_is_after_the_step_or_not_a_number_is_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
