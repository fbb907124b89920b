/* What follows from rows that are gone: what is made again, what is kept, and how far the ledger is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/ledger_behind.h"
#include "coordinator/lost_rows.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"
#include "model/checkpoint/checkpoint.h"
#include "tests/unit/config/parse.h"

static char folder[64];
static struct context *c;
static struct config config;

static int begin(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/millrace-damage-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    config = accepted("training: {max_steps: 10}\ndataset: {sources: [a.txt]}\n");
    c = mem_alloc(sizeof *c);
    c->config = &config;
    c->max_steps = 10;
    c->state_folder = folder;
    return store_open(&c->store, folder);
}

static int end(void **state) {
    (void)state;
    store_close(c->store);
    buf_free(&c->lost);
    free(c);
    config_free(&config);
    return folder_remove(folder);
}

static void set(const char *name, uint64_t number) { assert_int_equal(store_set_number(c->store, name, number), 0); }

static uint64_t get(const char *name) {
    uint64_t number = 0;
    assert_true(store_get_number(c->store, name, &number) >= 0);
    return number;
}

static void add_steps(const uint64_t *steps, size_t count) {
    for (size_t i = 0; i < count; i++)
        assert_int_equal(store_step_add(c->store, &(struct step_row){.step = steps[i], .loss = 1, .learning_rate = 1}), 0);
}

static uint64_t newest_step(void) {
    uint64_t step = 0;
    assert_true(store_step_newest(c->store, &step) >= 0);
    return step;
}

/* As a store is left that lost rows of this table. */
static void damage(const char *table) {
    char name[40];
    snprintf(name, sizeof name, "damaged %s", table);
    set("damaged file", 1);
    set(name, 2);
}

static bool is_settled(void) {
    struct store_damage found;
    assert_int_equal(lost_rows_settle(c), 0);
    assert_int_equal(store_damage(c->store, &found), 0);
    return !found.found;
}

/* ---- what is planned again ---- */

static uint64_t tokenize_jobs(void) {
    uint64_t count = 0;
    assert_true(store_job_count(c->store, stage_name(STAGE_TOKENIZE), &count) >= 0);
    return count;
}

static size_t sources_bytes(void) {
    struct buf sources = {0};
    assert_true(store_get(c->store, "sources", &sources) >= 0);
    size_t size = sources.size;
    buf_free(&sources);
    return size;
}

static void a_store_with_jobs(void) {
    assert_int_equal(store_set(c->store, "config", "x", 1), 0);
    assert_int_equal(store_set(c->store, "sources", "a.txt", 5), 0);
    assert_int_equal(store_job_add(c->store, stage_name(STAGE_TOKENIZE), 0, "spec", 4), 0);
    set("generation", 7);
}

static void without_damage_nothing_changes(void **state) {
    (void)state;
    a_store_with_jobs();
    assert_true(is_settled());
    assert_int_equal(tokenize_jobs(), 1);
    assert_int_equal(sources_bytes(), 5);
    assert_int_equal(get("generation"), 7);
}

static void lost_jobs_are_planned_anew(void **state) {
    (void)state;
    a_store_with_jobs();
    damage("jobs");
    assert_true(is_settled());
    assert_int_equal(tokenize_jobs(), 0);
    assert_int_equal(sources_bytes(), 0);
    assert_int_equal(get("generation"), 7);
}

/* The sources of a dataset that is made are what it is compared with. */
static void lost_jobs_of_a_made_dataset_leave_its_sources(void **state) {
    (void)state;
    a_store_with_jobs();
    set("dataset_made", 1);
    damage("jobs");
    assert_true(is_settled());
    assert_int_equal(tokenize_jobs(), 0);
    assert_int_equal(sources_bytes(), 5);
}

/* No fence of an earlier coordinator may come again. */
static void a_lost_generation_is_followed_by_a_larger_one(void **state) {
    (void)state;
    a_store_with_jobs();
    set("generation", 0);
    damage("named");
    assert_true(is_settled());
    assert_true(get("generation") > 1000 * 1000 * 1000 && get("generation") <= INT32_MAX);
    assert_int_equal(tokenize_jobs(), 1);
}

static void records_of_nobody_knows_which_pipeline_are_begun_anew(void **state) {
    (void)state;
    const uint64_t steps[] = {1, 2};
    add_steps(steps, 2);
    set("generation", 7);
    damage("named");
    assert_true(is_settled());
    assert_int_equal(newest_step(), 0);
    assert_true(get("generation") > 1000 * 1000 * 1000);
}

/* ---- the ledger ---- */

static uint64_t repaired(uint64_t checkpoint, uint64_t ledger) {
    const struct checkpoint_facts facts = {.train_loss = 3};
    assert_int_equal(lost_rows_repair_ledger(c, checkpoint, &facts, &ledger), 0);
    return ledger;
}

static void a_whole_ledger_is_believed(void **state) {
    (void)state;
    const uint64_t steps[] = {1, 2, 4};
    add_steps(steps, 3);
    assert_int_equal(repaired(1, 4), 4);
    assert_int_equal(newest_step(), 4);
}

static void a_torn_ledger_is_believed_up_to_the_first_row_that_is_gone(void **state) {
    (void)state;
    const uint64_t steps[] = {1, 3, 4, 6, 7};
    a_store_with_jobs();
    add_steps(steps, 5);
    damage("steps");
    assert_true(is_settled());
    assert_int_equal(repaired(2, 7), 4); /* what is missing before the checkpoint is settled */
    assert_int_equal(newest_step(), 4);
    assert_int_equal(repaired(2, 9), 9); /* once is enough */
}

static void a_torn_ledger_goes_at_least_to_the_checkpoint(void **state) {
    (void)state;
    const uint64_t steps[] = {1, 2};
    a_store_with_jobs();
    add_steps(steps, 2);
    damage("steps");
    assert_true(is_settled());
    assert_int_equal(repaired(5, 2), 5);
    assert_int_equal(newest_step(), 5);
}

/* A norm that is no number is left out of the log. */
static void a_bad_step_that_the_checkpoint_tells_of_counts_as_one(void **state) {
    (void)state;
    static const char log[] = "{\"log_history\": [{\"step\": 4, \"loss\": 3.0, \"learning_rate\": 1.0, \"grad_norm\": 1.0}, "
                              "{\"step\": 5, \"loss\": 3.0, \"learning_rate\": 1.0}]}";
    uint64_t bad, newest;
    char *path = mem_format("%s/trainer_state.json", folder);
    assert_int_equal(file_publish(path, log, sizeof log - 1), 0);
    c->newest_path = folder;
    assert_int_equal(ledger_behind_catch_up(c, 5, &(struct checkpoint_facts){.train_loss = 3}, &(uint64_t){3}), 0);
    assert_int_equal(newest_step(), 5);
    assert_int_equal(store_steps_bad(c->store, &bad, &newest), 0);
    assert_true(bad == 1 && newest == 5);
    free(path);
}

static int take_evaluation(void *arg, const struct evaluation_row *row) {
    assert_int_equal(row->step, 3);
    assert_int_equal(((struct evaluation_row *)arg)->step, 0);
    *(struct evaluation_row *)arg = *row;
    return 0;
}

/* The store ends between a step and its evaluation. */
static void the_evaluation_of_the_last_step_that_is_left_comes_back_too(void **state) {
    (void)state;
    static const char log[] = "{\"log_history\": [{\"step\": 3, \"eval_loss\": 2.5}, "
                              "{\"step\": 5, \"loss\": 3.0, \"learning_rate\": 1.0}]}";
    char *path = mem_format("%s/trainer_state.json", folder);
    assert_int_equal(file_publish(path, log, sizeof log - 1), 0);
    c->newest_path = folder;
    for (int there = 0; there < 2; there++) { /* the second time there is one, with more in it than in the log */
        struct evaluation_row row = {0};
        assert_int_equal(store_steps_drop(c->store, 0), 0);
        add_steps((const uint64_t[]){1, 2, 3}, 3);
        if (there) assert_int_equal(store_evaluation_add(c->store, &(struct evaluation_row){3, 99, 2.25}), 0);
        assert_int_equal(ledger_behind_catch_up(c, 5, &(struct checkpoint_facts){.train_loss = 3}, &(uint64_t){3}), 0);
        assert_int_equal(newest_step(), 5);
        assert_int_equal(store_evaluations(c->store, take_evaluation, &row), 0);
        assert_true(row.step == 3 && row.tokens == (there ? 99 : 0) && row.loss == (there ? 2.25 : 2.5));
    }
    free(path);
}

int main(void) {
    log_setup("test", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_damage_nothing_changes, begin, end),
        cmocka_unit_test_setup_teardown(lost_jobs_are_planned_anew, begin, end),
        cmocka_unit_test_setup_teardown(lost_jobs_of_a_made_dataset_leave_its_sources, begin, end),
        cmocka_unit_test_setup_teardown(a_lost_generation_is_followed_by_a_larger_one, begin, end),
        cmocka_unit_test_setup_teardown(records_of_nobody_knows_which_pipeline_are_begun_anew, begin, end),
        cmocka_unit_test_setup_teardown(a_whole_ledger_is_believed, begin, end),
        cmocka_unit_test_setup_teardown(a_torn_ledger_is_believed_up_to_the_first_row_that_is_gone, begin, end),
        cmocka_unit_test_setup_teardown(a_torn_ledger_goes_at_least_to_the_checkpoint, begin, end),
        cmocka_unit_test_setup_teardown(a_bad_step_that_the_checkpoint_tells_of_counts_as_one, begin, end),
        cmocka_unit_test_setup_teardown(the_evaluation_of_the_last_step_that_is_left_comes_back_too, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
