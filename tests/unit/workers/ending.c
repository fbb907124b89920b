/* Why a worker ends: two threads may find a reason at the same moment, and the outcome and its words are those of one of them. */
#include "workers/shared.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "tests/unit/world.h"

enum { RACES_S = 3, FATAL = ERR_MEMORY, LEFT = ERR_INTERRUPTED };

static struct worker *_Atomic racing;
static atomic_uint begun, done; /* races; the last one is without a worker */
static char long_reason[ERR_TEXT_BYTES - 1];

/* The work thread, which cannot go on. */
static void *fail_in_each(void *unused) {
    for (unsigned race = 1;; race++) {
        err_set(FATAL, "%s", long_reason);
        while (atomic_load(&begun) < race) sched_yield();
        struct worker *worker = atomic_load(&racing);
        if (!worker) return unused;
        worker_fatal(worker, FATAL);
        atomic_store(&done, race);
    }
}

static void one_reason_is_told_whole_when_two_threads_end_a_worker(void **state) {
    (void)state;
    pthread_t thread;
    struct link *link;
    unsigned race = 0, fatal = 0;
    world_begin(random_open("ending"));
    assert_int_equal(link_open(&link, &(struct link_options){0}), 0);
    memset(long_reason, 'f', sizeof long_reason - 1);
    assert_int_equal(pthread_create(&thread, NULL, fail_in_each, NULL), 0);
    for (time_t until = time(NULL) + RACES_S; time(NULL) < until;) {
        struct worker *worker = mem_alloc(sizeof *worker);
        worker->link = link;
        mailbox_open(&worker->inbox);
        atomic_store(&racing, worker);
        atomic_store(&begun, ++race);
        for (volatile unsigned spin = 0; spin < race % 64; spin++) {}
        worker_end(worker, LEFT, "asked to leave");
        while (atomic_load(&done) < race) sched_yield();
        assert_true(atomic_load(&worker->stopping));
        bool is_fatal = atomic_load(&worker->outcome) == FATAL;
        assert_string_equal(worker->outcome_text, is_fatal ? long_reason : "asked to leave");
        if (!is_fatal) assert_int_equal(atomic_load(&worker->outcome), LEFT);
        fatal += is_fatal;
        mailbox_close(&worker->inbox);
        free(worker);
    }
    atomic_store(&racing, NULL);
    atomic_store(&begun, race + 1);
    pthread_join(thread, NULL);
    link_close(link);
    print_message("the fatal error was first in %u of %u races\n", fatal, race);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_reason_is_told_whole_when_two_threads_end_a_worker)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
