/* A doubt goes on record together with the roll-back that follows from it: between the two a crash would leave a step that counts as done
 * anew and was not. */
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
#include "coordinator/doubts.h"
#include "coordinator/parts.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"

static struct store *store_with_steps(const char *folder, uint64_t count) {
    struct store *store;
    assert_int_equal(store_open(&store, folder), 0);
    for (uint64_t step = 1; step <= count; step++) {
        assert_int_equal(store_step_add(store, &(struct step_row){.step = step, .loss = 1, .learning_rate = 1}), 0);
        assert_int_equal(store_evaluation_add(store, &(struct evaluation_row){.step = step, .tokens = 1, .loss = 1}), 0);
    }
    return store;
}

/* What the next coordinator finds, if this one gets no further than the record of the doubt. */
static uint64_t ledger_after(bool again) {
    char folder[] = "/tmp/millrace-doubts-XXXXXX";
    uint64_t newest = 0;
    assert_non_null(mkdtemp(folder));
    struct trainer said = {.checkpoint = 1, .disagreed = again}, next = {0};
    struct context *c = mem_alloc(sizeof *c);
    c->store = store_with_steps(folder, 3);
    parts_open(c);
    c->trainer = &said;
    doubts_note(c, 3);
    store_close(c->store);
    assert_int_equal(store_open(&c->store, folder), 0);
    assert_int_equal(store_step_newest(c->store, &newest), 0);
    c->trainer = &next;
    assert_int_equal(doubts_load(c), 0);
    assert_int_equal(next.doubts, 1);
    assert_int_equal(next.doubted[0], 3);
    store_close(c->store);
    folder_remove(folder);
    c->trainer = NULL;
    parts_close(c);
    free(c);
    return newest;
}

static void a_doubt_that_is_on_record_is_rolled_back(void **state) {
    (void)state;
    assert_int_equal(ledger_after(false), 1);
}

/* The run ends: its ledger tells what was done. */
static void a_doubt_that_comes_again_changes_no_record_of_steps(void **state) {
    (void)state;
    assert_int_equal(ledger_after(true), 3);
}

int main(void) {
    log_setup("test", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_doubt_that_is_on_record_is_rolled_back),
        cmocka_unit_test(a_doubt_that_comes_again_changes_no_record_of_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
