/* Who was set aside stays so: for the worker that says hello again, and for the coordinator that is started again. So does all else that
 * counts against a worker, in one coordinator's life. */
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
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/parts.h"
#include "coordinator/roster.h"
#include "coordinator/self_tests.h"
#include "coordinator/store.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "proto/reads.h"

static char folder[64];

/* A coordinator over what an earlier one left in the folder. */
static struct context *begin(void) {
    static struct config config;
    struct context *c = mem_alloc(sizeof *c);
    c->config = &config;
    parts_open(c);
    assert_int_equal(store_open(&c->store, folder), 0);
    assert_int_equal(link_open(&c->link, &(struct link_options){.bind = "tcp://127.0.0.1:*", .frame_max = 1 << 20}), 0);
    return c;
}

static void end(struct context *c) {
    link_close(c->link);
    store_close(c->store);
    parts_close(c);
    free(c);
}

static const struct worker_entry *hello(struct context *c, uint64_t peer, const char *id) {
    Millrace__Hello hello = MILLRACE__HELLO__INIT;
    hello.worker = (char *)id, hello.host = "host", hello.endpoint = "tcp://127.0.0.1:1", hello.build = "build";
    roster_message(c, peer, &(struct message){.envelope = {.kind = MILLRACE__KIND__HELLO}, .body = &hello.base});
    int64_t number = roster_find(c, peer);
    assert_true(number >= 0);
    return &c->worker[number];
}

static void who_was_set_aside_stays_so_for_the_next_coordinator(void **state) {
    (void)state;
    const char why[] = "it told of more tokens than a slice has";
    struct context *c = begin();
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

/* It lives and works, as its heartbeats say, and yet is not waited for without end. */
static void a_self_test_that_never_comes_is_not_waited_for(void **state) {
    (void)state;
    struct context *c = begin();
    struct worker_entry *w = &c->worker[hello(c, 1, "w-1") - c->worker];
    w->state = WORKER_READY;
    self_tests_ask(c, 0);
    const int64_t minutes[] = {1, 9, 11}, began = w->asked_ms;
    for (size_t i = 0; i < 3; i++) {
        int64_t now = began + minutes[i] * 60000;
        w->heard_ms = w->moved_ms = now;
        w->peer = 0; /* there is nobody behind that connection: nothing is sent */
        w->unreachable = false;
        roster_tick(c, now);
        assert_int_equal(w->state, minutes[i] < 10 ? WORKER_READY : WORKER_LOST);
    }
    end(c);
}

/* Messages of that time are not read yet. What lies in a pause's middle, or after it, does not become later than now. */
static void time_in_which_nobody_was_heard_is_nobody_s_silence(void **state) {
    (void)state;
    enum { LEASE_MS = 10000, PAUSE_MS = 20 * LEASE_MS };
    for (int admitted = 0; admitted < 2; admitted++) {
        struct context *c = begin();
        ((struct config *)c->config)->cluster.lease_seconds = LEASE_MS / 1000;
        struct worker_entry *w = &c->worker[hello(c, 1, "w-1") - c->worker];
        if (admitted) w->state = WORKER_READY;
        if (admitted) self_tests_ask(c, 0);
        w->peer = 0; /* there is nobody behind that connection: nothing is sent */
        w->unreachable = false;
        int64_t now = w->heard_ms + PAUSE_MS;
        roster_pause(c, PAUSE_MS, now);
        roster_tick(c, now + LEASE_MS);
        assert_int_equal(w->state, admitted ? WORKER_READY : WORKER_WELCOMED);
        roster_pause(c, PAUSE_MS, now + 1);
        assert_int_equal(w->heard_ms, now + 1);
        assert_true(w->moved_ms == now + 1 && w->hello_ms == now + 1 && (!admitted || w->asked_ms <= now + 1));
        roster_tick(c, now + LEASE_MS + 2);
        assert_int_equal(w->state, WORKER_LOST);
        end(c);
    }
}

/* The same of one that took part in nothing yet: its entry is another one's before the table is full. */
static void who_is_never_ready_is_not_waited_for(void **state) {
    (void)state;
    struct context *c = begin();
    struct worker_entry *w = &c->worker[hello(c, 1, "w-1") - c->worker];
    const int64_t minutes[] = {1, 9, 11}, began = w->hello_ms;
    for (size_t i = 0; i < 3; i++) {
        int64_t now = began + minutes[i] * 60000;
        Millrace__Heartbeat beat = MILLRACE__HEARTBEAT__INIT;
        w->peer = 1;
        roster_message(c, 1, &(struct message){.envelope = {.kind = MILLRACE__KIND__HEARTBEAT}, .body = &beat.base});
        w->peer = 0; /* there is nobody behind that connection: nothing is sent */
        w->unreachable = false;
        w->heard_ms = now;
        roster_tick(c, now);
        assert_int_equal(w->state, minutes[i] < 10 ? WORKER_WELCOMED : WORKER_LOST);
    }
    assert_int_equal(hello(c, 2, "w-1")->state, WORKER_WELCOMED); /* it begins anew */
    end(c);
}

/* A joiner is waited for as long as its work moves. */
static void when_work_moved_is_known(void **state) {
    (void)state;
    struct context *c = begin();
    const struct worker_entry *w = hello(c, 1, "w-1");
    Millrace__Heartbeat beat = MILLRACE__HEARTBEAT__INIT;
    beat.busy = true;
    for (beat.progress = 7; beat.progress < 9; beat.progress++) {
        c->worker[0].progress_ms = 0;
        for (int times = 0; times < 2; times++) { /* the second one tells nothing new */
            roster_message(c, 1, &(struct message){.envelope = {.kind = MILLRACE__KIND__HEARTBEAT}, .body = &beat.base});
            assert_int_equal(w->progress_ms != 0, times == 0);
            c->worker[0].progress_ms = 0;
        }
    }
    end(c);
}

/* Steps were made with other bits than the only worker's that is there: it goes, and the run waits for others. */
static void one_alone_that_gives_other_bits_than_those_on_record_is_refused(void **state) {
    (void)state;
    uint8_t digest[SHA256_BYTES] = "the bits of this run";
    struct context *c = begin();
    assert_int_equal(store_set(c->store, "answer", digest, sizeof digest), 0);
    assert_int_equal(self_tests_load(c, 1), 0);
    c->stage = STAGE_TRAIN;
    for (int right = 0; right < 2; right++) {
        struct worker_entry *w = &c->worker[hello(c, (uint64_t)right + 1, right ? "w-2" : "w-1") - c->worker];
        w->state = WORKER_READY;
        self_tests_ask(c, (uint32_t)right);
        Millrace__SelfTestResult answer = MILLRACE__SELF_TEST_RESULT__INIT;
        uint8_t other[SHA256_BYTES] = "other bits";
        answer.digest = (ProtobufCBinaryData){SHA256_BYTES, right ? digest : other};
        self_tests_take(c, (uint32_t)right, &answer);
        assert_false(c->ended);
        assert_int_equal(w->proved, right);
        assert_int_equal(w->state, right ? WORKER_READY : WORKER_LEFT);
    }
    end(c);
}

/* An answer to the self-test, from a worker that was asked. */
static struct worker_entry *answer(struct context *c, uint64_t peer, const char *id, const char *bits) {
    uint8_t digest[SHA256_BYTES] = {0};
    memcpy(digest, bits, strlen(bits));
    Millrace__SelfTestResult result = MILLRACE__SELF_TEST_RESULT__INIT;
    result.digest = (ProtobufCBinaryData){SHA256_BYTES, digest};
    struct worker_entry *w = &c->worker[hello(c, peer, id) - c->worker];
    w->state = WORKER_READY;
    self_tests_ask(c, (uint32_t)(w - c->worker));
    self_tests_take(c, (uint32_t)(w - c->worker), &result);
    assert_true(w->answered && !w->asked); /* else it would be taken for one that never answers */
    return w;
}

static void who_was_set_aside_for_another_reason_stays_so_when_others_agree_with_it(void **state) {
    (void)state;
    struct context *c = begin();
    c->stage = STAGE_TRAIN;
    const struct worker_entry *one = answer(c, 1, "w-1", "these bits"), *two = hello(c, 2, "w-2");
    roster_set_aside(c, (uint32_t)(two - c->worker), "three jobs failed on it");
    two = answer(c, 2, "w-2", "other bits");
    assert_true(one->proved && !two->proved);
    answer(c, 3, "w-3", "other bits");
    assert_true(two->proved);
    assert_string_equal(two->aside, "three jobs failed on it");
    end(c);
}

/* What a run that made no step left says nothing of the bits of the next one. */
static void bits_are_on_record_from_the_first_step_on(void **state) {
    (void)state;
    uint8_t digest[SHA256_BYTES] = "bits of a run without a step";
    struct context *c = begin();
    assert_int_equal(store_set(c->store, "answer", digest, sizeof digest), 0);
    assert_int_equal(self_tests_load(c, 0), 0);
    c->stage = STAGE_TRAIN;
    assert_true(answer(c, 1, "w-1", "other bits")->proved);
    end(c);
}

static void who_was_in_question_and_is_right_gets_work_again(void **state) {
    (void)state;
    struct context *c = begin();
    c->stage = STAGE_TRAIN;
    const struct worker_entry *one = answer(c, 1, "w-1", "these bits"), *two = answer(c, 2, "w-2", "other bits");
    assert_true(one->proved && !two->proved && two->in_question && *two->aside);
    const struct worker_entry *three = answer(c, 3, "w-3", "other bits");
    assert_true(two->proved && three->proved && !two->in_question);
    assert_string_equal(two->aside, "");
    assert_int_equal(one->state, WORKER_LEFT);
    end(c);
}

/* The others that were asked are waited for a lease long, from the first answer on. */
static void the_first_answer_begins_the_wait_for_the_others(void **state) {
    (void)state;
    static struct config config = {.cluster.lease_seconds = 60};
    struct context *c = begin();
    c->config = &config;
    c->stage = STAGE_TRAIN;
    c->worker[hello(c, 9, "w-9") - c->worker].state = WORKER_READY;
    self_tests_ask(c, 0); /* it does not answer */
    struct worker_entry *first = answer(c, 1, "w-1", "these bits"), *second = answer(c, 2, "w-2", "these bits");
    first->answered_ms = 1000, second->answered_ms = 50000;
    self_tests_tick(c, 60999);
    assert_false(first->proved || second->proved);
    self_tests_tick(c, 61000);
    assert_true(first->proved && second->proved);
    end(c);
}

/* Its words are shown on terminals. */
static void what_a_worker_says_of_its_host_is_made_plain(void **state) {
    (void)state;
    struct context *c = begin();
    Millrace__Hello hello = MILLRACE__HELLO__INIT;
    hello.worker = "w-1", hello.endpoint = "tcp://127.0.0.1:1", hello.host = "a\x1B[31mb", hello.build = "c\nd";
    roster_message(c, 1, &(struct message){.envelope = {.kind = MILLRACE__KIND__HELLO}, .body = &hello.base});
    assert_string_equal(c->worker[0].host, "a\\x1B[31mb");
    assert_string_equal(c->worker[0].build, "c\\nd");
    end(c);
}

/* The others may come again. */
static void who_comes_to_a_full_table_gets_the_place_of_who_is_gone_for_longest(void **state) {
    (void)state;
    struct context *c = begin();
    c->workers = WORKERS_MAX;
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        snprintf(c->worker[i].id, sizeof c->worker[i].id, "gone-%zu", i);
        c->worker[i].state = i % 2 ? WORKER_LOST : WORKER_LEFT;
        c->worker[i].heard_ms = 1000 + (int64_t)((i + 7) % WORKERS_MAX);
    }
    assert_ptr_equal(hello(c, 1, "w-1"), &c->worker[WORKERS_MAX - 7]);
    end(c);
}

/* Else whoever is at fault three times could say hello after each. */
static void to_come_again_changes_nothing_of_what_a_worker_did(void **state) {
    (void)state;
    struct context *c = begin();
    struct worker_entry *w = &c->worker[hello(c, 1, "w-1") - c->worker];
    w->blamed = 1, w->odd = 2, w->false_states = 3, w->false_counts = 2, w->rests_until_ms = INT64_MAX, w->in_question = true;
    w->unreachable = true; /* so that another connection is taken at once */
    const struct worker_entry *again = hello(c, 2, "w-1");
    assert_ptr_equal(again, w);
    assert_true(again->blamed == 1 && again->odd == 2 && again->false_states == 3 && again->false_counts == 2);
    assert_true(again->rests_until_ms == INT64_MAX);
    assert_true(again->in_question && again->peer == 2);
    end(c);
}

/* Nobody would answer them, and there is room for so many only. */
static void questions_to_a_worker_end_with_it(void **state) {
    (void)state;
    for (int ends = 0; ends < 3; ends++) {
        struct context *c = begin();
        hello(c, 1, "w-1"), hello(c, 2, "w-2");
        for (uint64_t peer = 1; peer <= 2; peer++) reads_add(&c->reads, peer, 0);
        if (ends == 0) roster_lost(c, 0, WORKER_LOST, "its connection is gone");
        if (ends == 1) roster_lost(c, 0, WORKER_LEFT, "said goodbye");
        if (ends == 2) c->worker[0].unreachable = true, hello(c, 3, "w-1");
        assert_int_equal(reads_open_at(&c->reads, 1), 0);
        assert_int_equal(reads_open_at(&c->reads, 2), 1);
        end(c);
    }
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
        cmocka_unit_test_setup_teardown(a_self_test_that_never_comes_is_not_waited_for, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(time_in_which_nobody_was_heard_is_nobody_s_silence, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(who_is_never_ready_is_not_waited_for, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(when_work_moved_is_known, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(one_alone_that_gives_other_bits_than_those_on_record_is_refused, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(bits_are_on_record_from_the_first_step_on, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(who_was_in_question_and_is_right_gets_work_again, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(who_was_set_aside_for_another_reason_stays_so_when_others_agree_with_it, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(the_first_answer_begins_the_wait_for_the_others, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(what_a_worker_says_of_its_host_is_made_plain, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(who_comes_to_a_full_table_gets_the_place_of_who_is_gone_for_longest, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(to_come_again_changes_nothing_of_what_a_worker_did, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(questions_to_a_worker_end_with_it, fresh_folder, remove_it),
        cmocka_unit_test_setup_teardown(who_was_set_aside_stays_so_for_the_next_coordinator, fresh_folder, remove_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
