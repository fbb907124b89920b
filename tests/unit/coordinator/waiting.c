/* What is waited for, in words, where no trainer can tell it: who is here and takes no part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/parts.h"
#include "coordinator/roster.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"
#include "coordinator/waiting.h"

static char folder[64];
static struct context *c;

/* Training waits for workers, and two are here. */
static int begin(void **state) {
    (void)state;
    static struct config config;
    struct trainer_options options = {.slices = 1, .max_steps = 10, .patience_ms = 60000};
    snprintf(folder, sizeof folder, "/tmp/millrace-waiting-XXXXXX");
    c = mem_alloc(sizeof *c);
    c->config = &config;
    parts_open(c);
    if (!mkdtemp(folder) || store_open(&c->store, folder) < 0) return -1;
    c->stage = STAGE_TRAIN;
    c->trainer = mem_alloc(sizeof *c->trainer);
    trainer_open(c->trainer, &options, 0, 0, 0);
    c->workers = 2;
    for (int i = 0; i < 2; i++) c->worker[i].state = WORKER_READY, snprintf(c->worker[i].id, sizeof c->worker[i].id, "w-%d", i);
    waiting_tick(c, 1000);
    return 0;
}

static int end(void **state) {
    (void)state;
    parts_close(c);
    store_close(c->store);
    free(c);
    return folder_remove(folder);
}

static const char *told(void) {
    waiting_tick(c, 100000);
    return waiting_for(c);
}

static void who_has_answered_is_not_waited_for_as_if_it_had_not(void **state) {
    (void)state;
    assert_non_null(strstr(told(), "a worker that can take part: 2 are here"));
    c->worker[1].asked = true;
    assert_non_null(strstr(told(), "the self-test of w-1"));
    c->worker[1].asked = false;
    c->worker[0].in_question = true;
    snprintf(c->worker[0].aside, sizeof c->worker[0].aside, "a third decides");
    assert_non_null(strstr(told(), "a worker that decides about w-0 (pid 0 on , ): a third decides"));
}

static void a_stop_is_not_waited_for(void **state) {
    (void)state;
    assert_true(*told() != 0);
    c->stopping = true;
    assert_string_equal(told(), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_has_answered_is_not_waited_for_as_if_it_had_not, begin, end),
        cmocka_unit_test_setup_teardown(a_stop_is_not_waited_for, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
