/* What is told of the newest step and evaluation: the same as they come, after a restart, and after going back. */
#include "coordinator/metrics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "coordinator/context.h"
#include "coordinator/store.h"
#include "model/optim/optimizer.h"
#include "tests/unit/config/parse.h"

static char folder[64];
static struct context *c;
static struct config config;

static int begin(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/millrace-metrics-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    char *text = mem_format("output_dir: '%s'\ntraining: {max_steps: 10}\ndataset: {sources: [a.txt]}\n", folder);
    config = accepted(text);
    free(text);
    c = mem_alloc(sizeof *c);
    c->config = &config;
    c->max_steps = 10;
    c->train_sequences = 100;
    metrics_open(c);
    return store_open(&c->store, folder);
}

static int end(void **state) {
    (void)state;
    metrics_close(c);
    store_close(c->store);
    free(c);
    config_free(&config);
    return folder_remove(folder);
}

static void add_step(uint64_t step, double loss) {
    struct step_row row = {.step = step, .loss = loss, .learning_rate = learning_rate(&config, step, 10), .skipped = isnan(loss)};
    assert_int_equal(store_step_add(c->store, &row), 0);
    metrics_step(c, &row);
}

static void the_loss_of_a_step_that_was_skipped_is_not_told(void **state) {
    (void)state;
    add_step(1, 2.5);
    add_step(2, NAN);
    for (int i = 0; i < 2; i++) {
        assert_true(metrics_newest(c)->loss == 2.5);
        assert_int_equal(metrics_rewrite(c), 0);
    }
}

static void an_evaluation_that_is_gone_back_over_is_not_told_any_more(void **state) {
    (void)state;
    const struct evaluation_row row = {.step = 2, .loss = 1.5, .tokens = 9};
    add_step(1, 2.5);
    add_step(2, 2);
    assert_int_equal(store_evaluation_add(c->store, &row), 0);
    metrics_evaluation(c, &row);
    assert_int_equal(metrics_newest(c)->eval_step, 2);
    assert_int_equal(store_steps_supersede(c->store, 1), 0);
    assert_int_equal(metrics_rewrite(c), 0);
    assert_int_equal(metrics_newest(c)->eval_step, 0);
    assert_true(isnan(metrics_newest(c)->eval_loss) && metrics_newest(c)->loss == 2.5);
}

int main(void) {
    log_setup("test", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_loss_of_a_step_that_was_skipped_is_not_told, begin, end),
        cmocka_unit_test_setup_teardown(an_evaluation_that_is_gone_back_over_is_not_told_any_more, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
