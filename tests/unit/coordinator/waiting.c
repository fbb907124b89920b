/* What is waited for, in words, where no trainer can tell it: who is here and takes no part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

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

/* A step under way; the first `lacking` members have not told REDUCED. */
static const char *told_of_sum(size_t lacking) {
    struct trainer *t = c->trainer;
    t->phase = TRAINER_RUN;
    t->committed = 8;
    t->view_sent = true;
    t->members = c->workers = 6;
    for (uint32_t i = 0; i < 6; i++) {
        t->member[i] = (struct member){.worker = i, .state = MEMBER_READY, .has_digest = true, .in_view = true, .reduced = i >= lacking};
        snprintf(c->worker[i].id, sizeof c->worker[i].id, "w-%u", i);
    }
    return told();
}

static void who_lacks_the_sum_is_named_but_for_a_crowd(void **state) {
    (void)state;
    assert_non_null(strstr(told_of_sum(1), "the sum of step 9: 1 of 6 members lacks it: w-0 (pid 0 on , ); nothing"));
    assert_non_null(strstr(told_of_sum(2), "the sum of step 9: 2 of 6 members lack it: w-0 (pid 0 on , ) and w-1; nothing"));
    assert_non_null(strstr(told_of_sum(4), "the sum of step 9: 4 of 6 members lack it: w-0 (pid 0 on , ), w-1, w-2 and w-3; nothing"));
    assert_non_null(strstr(told_of_sum(5),
                           "the sum of step 9: 5 of 6 members lack it: w-0 (pid 0 on , ), w-1, w-2, w-3 and 1 other; nothing"));
    assert_non_null(strstr(told_of_sum(6),
                           "the sum of step 9: 6 of 6 members lack it: w-0 (pid 0 on , ), w-1, w-2, w-3 and 2 others; nothing"));
}

static void who_does_not_work_at_its_slice_is_told_as_idle(void **state) {
    (void)state;
    struct trainer *t = c->trainer;
    t->phase = TRAINER_RUN;
    t->committed = 8;
    t->view_sent = true;
    t->members = c->workers = 1;
    t->member[0] = (struct member){.state = MEMBER_READY, .has_digest = true, .in_view = true};
    slice_add(&t->member[0].assigned, 0);
    assert_non_null(strstr(told(), "slice 0 of step 9 from w-0 (pid 0 on , ), which is idle; nothing"));
    c->worker[0].told_busy = true;
    assert_non_null(strstr(told(), "slice 0 of step 9 from w-0 (pid 0 on , ); nothing"));
}

/* Here the one clock goes on by 7 s and the wall clock stands still. */
static void since_when_is_the_same_text_for_the_whole_stall(void **state) {
    (void)state;
    char *first = mem_text(told());
    waiting_tick(c, 107000);
    assert_string_equal(waiting_for(c), first);
    c->progress.done++; /* something is finished, and then nothing */
    waiting_tick(c, 108000);
    waiting_tick(c, 2000000);
    assert_string_not_equal(waiting_for(c), first);
    free(first);
}

/* How often a stall was put down. */
static int noted(void) {
    char *path = mem_format("%s/millrace.db", folder);
    sqlite3 *db;
    sqlite3_stmt *query;
    store_close(c->store); /* it lets nobody else read */
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM events WHERE kind = 'waiting'", -1, &query, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(query), SQLITE_ROW);
    int count = sqlite3_column_int(query, 0);
    sqlite3_finalize(query);
    sqlite3_close(db);
    free(path);
    assert_int_equal(store_open(&c->store, folder), 0);
    return count;
}

static void a_stall_is_put_down_once_a_minute_and_another_one_at_once(void **state) {
    (void)state;
    int64_t now_ms = 1000;
    for (int i = 0; i < 30; i++) c->progress.done++, waiting_tick(c, now_ms += 1000);
    while (!*waiting_for(c)) waiting_tick(c, now_ms += 1000);
    waiting_tick(c, now_ms += 59000);
    assert_int_equal(noted(), 1);
    waiting_tick(c, now_ms += 2000);
    assert_int_equal(noted(), 2);
    int64_t before_ms = now_ms;
    for (int i = 0; i < 30; i++) c->progress.done++, waiting_tick(c, now_ms += 100); /* it goes on, and comes to a halt soon after */
    while (!*waiting_for(c)) waiting_tick(c, now_ms += 1000);
    assert_true(now_ms - before_ms < 60000);
    assert_int_equal(noted(), 3);
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
        cmocka_unit_test_setup_teardown(who_lacks_the_sum_is_named_but_for_a_crowd, begin, end),
        cmocka_unit_test_setup_teardown(who_does_not_work_at_its_slice_is_told_as_idle, begin, end),
        cmocka_unit_test_setup_teardown(since_when_is_the_same_text_for_the_whole_stall, begin, end),
        cmocka_unit_test_setup_teardown(a_stall_is_put_down_once_a_minute_and_another_one_at_once, begin, end),
        cmocka_unit_test_setup_teardown(a_stop_is_not_waited_for, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
