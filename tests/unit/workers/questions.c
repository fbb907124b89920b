/* A question that nobody answers is asked again, and told. */
#include "workers/questions.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "proto/link.h"
#include "tests/unit/stderr.h"
#include "tests/unit/world.h"

static size_t count(const char *text, const char *what) {
    size_t n = 0;
    for (; (text = strstr(text, what)); text++) n++;
    return n;
}

static void a_question_without_an_answer_for_long_is_told_once_with_whom_it_is_asked_of(void **state) {
    (void)state;
    char text[4096];
    struct worker *worker = mem_alloc(sizeof *worker);
    world_begin(random_open("questions"));
    mailbox_open(&worker->outbox);
    assert_int_equal(link_open(&worker->link, &(struct link_options){0}), 0);
    struct read *sum = reads_add(&worker->reads, addresses_number(&worker->addresses, "tcp://10.0.0.7:5"), 0);
    sum->envelope.step = 812;
    sum->body.what = MILLRACE__READ__WHAT__SUM;
    sum->body.c = 3;
    struct read *frame = reads_add(&worker->reads, 0, 0);
    frame->body.what = MILLRACE__READ__WHAT__FRAME;
    frame->body.a = 1, frame->body.b = 2;
    for (int times = 1; times <= 8; times++, world.now_ms += 60000) {
        struct stderr_kept kept = stderr_keep();
        questions_send(worker);
        stderr_back(text, sizeof text, &kept);
        assert_int_equal(count(text, "segment 3 of a sum of step 812, from tcp://10.0.0.7:5: no answer for long"), times == 5);
        assert_int_equal(count(text, "frame 2 of shard 1, from the coordinator: no answer for long"), times == 3);
    }
    addresses_close(&worker->addresses);
    mailbox_close(&worker->outbox);
    link_close(worker->link);
    free(worker);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_question_without_an_answer_for_long_is_told_once_with_whom_it_is_asked_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
