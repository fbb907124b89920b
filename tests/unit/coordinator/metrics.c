/* What is told of the newest step and evaluation: the same as they come, after a restart, and after going back. */
#include "coordinator/metrics.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
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

/* How many lines of metrics.jsonl hold that. */
static size_t lines_with(const char *what) {
    char *path = mem_format("%s/metrics.jsonl", folder), line[1000];
    FILE *file = fopen(path, "r");
    size_t count = 0;
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) count += strstr(line, what) != NULL;
    fclose(file);
    free(path);
    return count;
}

static void the_evaluation_of_the_newest_step_is_in_the_file_that_is_written_anew(void **state) {
    (void)state;
    for (uint64_t step = 1; step <= 2; step++) {
        add_step(step, 2);
        assert_int_equal(store_evaluation_add(c->store, &(struct evaluation_row){.step = step, .loss = 1.5, .tokens = 9}), 0);
    }
    assert_int_equal(metrics_rewrite(c), 0);
    assert_int_equal(lines_with("eval_loss"), 2);
}

/* 0: there is none of that name. A new one has another number as long as the old one is open. */
static ino_t file_number(void) {
    char *path = mem_format("%s/metrics.jsonl", folder);
    struct stat st;
    ino_t number = stat(path, &st) == 0 ? st.st_ino : 0;
    free(path);
    return number;
}

/* Each line with the time that it had, where the file that is open still has it. */
static void a_file_that_somebody_removed_cut_or_replaced_is_written_again(void **state) {
    (void)state;
    static const char *const damages[] = {"rm", "truncate -s 0", "truncate -s -1", "cp /dev/null x; mv x", "rm -f x; touch x; mv x"};
    metrics_look(c, 0); /* before training there is none */
    assert_int_equal(metrics_rewrite(c), 0);
    add_step(1, 2.5);
    add_step(2, 2);
    ino_t first = file_number();
    metrics_look(c, 0);
    assert_int_equal(file_number(), first);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        char *command = mem_format("cd %s && %s metrics.jsonl", folder, damages[i]);
        assert_int_equal(system(command), 0);
        free(command);
        metrics_look(c, 0);
        assert_int_equal(lines_with("grad_norm"), 2);
        if (i == 0) assert_int_equal(lines_with("\"time\": null"), 0);
        ino_t again = file_number();
        metrics_look(c, 0);
        assert_int_equal(file_number(), again);
    }
    add_step(3, 2);
    assert_int_equal(lines_with("grad_norm"), 3);
    assert_true(metrics_newest(c)->loss == 2);
}

static void a_file_that_cannot_be_written_again_is_tried_again_later(void **state) {
    (void)state;
    assert_int_equal(metrics_rewrite(c), 0);
    add_step(1, 2.5);
    char *path = mem_format("%s/metrics.jsonl", folder);
    assert_int_equal(remove(path), 0);
    assert_int_equal(folder_make(path), 0);
    metrics_look(c, 1000);
    add_step(2, 2);
    assert_int_equal(remove(path), 0);
    metrics_look(c, 2000);
    assert_int_equal(file_number(), 0); /* the whole ledger is not read every second */
    metrics_look(c, 60000);
    assert_int_equal(lines_with("grad_norm"), 2);
    free(path);
}

/* Training needs no such file, and there may be room later. */
static void a_full_disk_puts_the_file_off(void **state) {
    (void)state;
    add_step(1, 2.5);
    if (mount("tmpfs", folder, "tmpfs", 0, "nr_inodes=1") != 0) { /* over the folder: not one file more */
        print_message("skipped: no file system can be mounted here: %s\n", strerror(errno));
        skip();
    }
    int code = metrics_rewrite(c);
    assert_int_equal(umount2(folder, MNT_DETACH), 0);
    assert_int_equal(code, 0);
    assert_int_equal(file_number(), 0);
    metrics_look(c, clock_ms() + 60000);
    assert_int_equal(lines_with("\"loss\": 2.5"), 1);
}

static void a_run_does_not_go_on_with_other_rates_than_it_began_with(void **state) {
    (void)state;
    struct step_row row = {.step = 1, .loss = 2, .learning_rate = nextafter(learning_rate(&config, 1, 10), 1)};
    assert_int_equal(store_step_add(c->store, &row), 0);
    assert_int_equal(metrics_rewrite(c), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "step 1 was made at a learning rate of"));
}

int main(void) {
    log_setup("test", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_loss_of_a_step_that_was_skipped_is_not_told, begin, end),
        cmocka_unit_test_setup_teardown(an_evaluation_that_is_gone_back_over_is_not_told_any_more, begin, end),
        cmocka_unit_test_setup_teardown(the_evaluation_of_the_newest_step_is_in_the_file_that_is_written_anew, begin, end),
        cmocka_unit_test_setup_teardown(a_file_that_somebody_removed_cut_or_replaced_is_written_again, begin, end),
        cmocka_unit_test_setup_teardown(a_file_that_cannot_be_written_again_is_tried_again_later, begin, end),
        cmocka_unit_test_setup_teardown(a_full_disk_puts_the_file_off, begin, end),
        cmocka_unit_test_setup_teardown(a_run_does_not_go_on_with_other_rates_than_it_began_with, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
