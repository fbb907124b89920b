/* Jobs and leases: each story by hand, then random ones against a plain table. */
#include "coordinator/queue.h"

#include "tests/unit/random.h"

static void jobs_are_leased_in_order_and_end_one_by_one(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 3, 2);
    for (int64_t i = 0; i < 3; i++) assert_int_equal(queue_lease(&queue, 7), i);
    assert_int_equal(queue_lease(&queue, 7), -1);
    for (size_t i = 0; i < 3; i++) {
        assert_false(queue_finished(&queue));
        queue_done(&queue, i);
    }
    assert_true(queue_finished(&queue));
    assert_int_equal(queue.done, 3);
    queue_close(&queue);
}

static void an_empty_queue_is_finished(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 0, 2);
    assert_true(queue_finished(&queue));
    assert_int_equal(queue_lease(&queue, 1), -1);
    queue_close(&queue);
}

static void a_lost_workers_jobs_are_pending_again_and_its_result_is_refused(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 3, 1);
    queue_lease(&queue, 7);
    queue_lease(&queue, 8);
    queue_lease(&queue, 7);
    uint32_t attempt = queue.job[0].attempt;
    assert_true(queue_holds(&queue, 0, attempt, 7));
    queue_release(&queue, 7);
    assert_false(queue_holds(&queue, 0, attempt, 7));
    assert_int_equal(queue.pending, 2);
    assert_int_equal(queue.job[0].failures, 0);
    assert_int_equal(queue_lease(&queue, 9), 0);
    assert_int_equal(queue_lease(&queue, 7), 2);
    assert_int_equal(queue_lease(&queue, 9), -1);
    assert_false(queue_holds(&queue, 0, attempt, 7));               /* late */
    assert_false(queue_holds(&queue, 0, attempt, 9));               /* with the number of the other's lease */
    assert_false(queue_holds(&queue, 0, queue.job[0].attempt, 7));  /* with a number that is not its own */
    assert_true(queue_holds(&queue, 0, queue.job[0].attempt, 9));
    assert_false(queue_holds(&queue, 3, 1, 7));                     /* no such job */
    queue_close(&queue);
}

static void a_job_goes_to_who_has_its_beginning_while_that_worker_is_here(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 2, 1);
    assert_int_equal(queue_lease(&queue, 7), 0);
    queue_done(&queue, 0);
    assert_int_equal(queue_add(&queue, 7), 2);
    assert_false(queue_finished(&queue));
    assert_int_equal(queue_lease(&queue, 8), 1);
    assert_int_equal(queue_lease(&queue, 8), -1);  /* 7 has job 2's beginning */
    assert_int_equal(queue_add(&queue, QUEUE_ANYONE), 3);
    assert_int_equal(queue_lease(&queue, 7), 2);   /* its own before what anyone can do */
    assert_int_equal(queue_lease(&queue, 8), 3);
    queue_release(&queue, 7);
    assert_int_equal(queue_lease(&queue, 8), 2);
    queue_close(&queue);
}

static void a_job_that_fails_too_often_is_set_aside(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 2, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(queue_lease(&queue, (uint32_t)i), 0);
        queue_fail(&queue, 0, false);
        assert_int_equal(queue.job[0].state, i < 2 ? JOB_PENDING : JOB_FAILED);
    }
    assert_int_equal(queue_lease(&queue, 1), 1);
    queue_done(&queue, 1);
    assert_false(queue_finished(&queue));
    assert_int_equal(queue.failed, 1);
    queue_close(&queue);
}

static void what_failed_at_one_worker_goes_to_another(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 1, 3);
    queue_here(&queue, 2);
    for (int i = 0; i < 10; i++) { /* 1 alone can never end it, and gets it once */
        assert_int_equal(queue_lease(&queue, 1), i == 0 ? 0 : -1);
        if (i == 0) queue_fail(&queue, 0, true);
        assert_int_equal(queue.job[0].state, JOB_PENDING);
    }
    assert_int_equal(queue_lease(&queue, 2), 0);
    queue_return(&queue, 0);
    queue_release(&queue, 2); /* now nobody else could do it */
    assert_int_equal(queue_lease(&queue, 1), 0);
    queue_fail(&queue, 0, false);
    assert_int_equal(queue.job[0].state, JOB_FAILED);
    queue_close(&queue);
}

static void two_workers_that_both_call_it_final_are_believed(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 1, 3);
    for (uint32_t w = 0; w < 3; w++) queue_here(&queue, w);
    queue_lease(&queue, 0);
    queue_fail(&queue, 0, true);
    assert_int_equal(queue.job[0].state, JOB_PENDING);
    queue_lease(&queue, 1);
    queue_fail(&queue, 0, true);
    assert_int_equal(queue.job[0].state, JOB_FAILED);
    queue_close(&queue);
}

static void a_final_failure_sets_aside_at_once_and_a_return_counts_for_nothing(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 1, 3);
    for (int i = 0; i < 10; i++) {
        queue_lease(&queue, 1);
        queue_return(&queue, 0);
    }
    assert_int_equal(queue.job[0].failures, 0);
    queue_lease(&queue, 1);
    queue_fail(&queue, 0, true);
    assert_int_equal(queue.job[0].state, JOB_FAILED);
    assert_int_equal(queue_lease(&queue, 1), -1);
    queue_close(&queue);
}

static void what_an_earlier_life_knew_is_not_done_again(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 3, 3);
    queue_restore_done(&queue, 0);
    queue_restore_done(&queue, 2);
    assert_int_equal(queue_lease(&queue, 1), 1);
    assert_int_equal(queue_lease(&queue, 1), -1);
    queue_done(&queue, 1);
    assert_true(queue_finished(&queue));
    queue_close(&queue);
}

static void no_lease_of_a_later_queue_has_the_number_of_an_earlier_one(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 2, 3);
    queue_lease(&queue, 1);
    queue_lease(&queue, 1);
    uint32_t first = queue.job[0].attempt, second = queue.job[1].attempt;
    queue_close(&queue);
    queue_open(&queue, 2, 3);
    queue_lease(&queue, 1);
    queue_lease(&queue, 1);
    for (size_t i = 0; i < 2; i++) {
        assert_false(queue_holds(&queue, i, first, 1));
        assert_false(queue_holds(&queue, i, second, 1));
    }
    queue_close(&queue);
}

/* The same rules on a table without counters or shortcuts. */
enum { JOBS = 12, FAILURES_MAX = 3, WORKERS = 4 };
struct plain {
    enum job_state state[JOBS];
    uint32_t worker[JOBS], times[JOBS][WORKERS];
    bool final[JOBS][WORKERS], here[WORKERS];
};

/* Did everybody who is here fail at it? */
static bool nobody_is_left(const struct plain *plain, size_t job) {
    for (size_t w = 0; w < WORKERS; w++)
        if (plain->here[w] && !plain->times[job][w]) return false;
    return true;
}

static bool goes_to(const struct plain *plain, size_t job, uint32_t worker) {
    return plain->state[job] == JOB_PENDING && (!plain->times[job][worker] || nobody_is_left(plain, job));
}

static bool is_lost(const struct plain *plain, size_t job) {
    unsigned failures = 0, workers = 0, finals = 0;
    for (size_t w = 0; w < WORKERS; w++) {
        failures += plain->times[job][w];
        workers += plain->times[job][w] > 0;
        finals += plain->final[job][w];
    }
    bool all = nobody_is_left(plain, job);
    return workers >= FAILURES_MAX || (all && failures >= FAILURES_MAX) || finals >= QUEUE_FINAL_MAX || (all && finals);
}

static size_t count_state(const struct plain *plain, enum job_state state) {
    size_t n = 0;
    for (size_t i = 0; i < JOBS; i++) n += plain->state[i] == state;
    return n;
}

static void one_event(struct queue *queue, struct plain *plain, struct random *random) {
    uint32_t worker = (uint32_t)random_in(random, 0, WORKERS - 1);
    size_t job = random_in(random, 0, JOBS - 1), first = 0;
    bool final = random_in(random, 0, 9) == 0;
    switch (random_in(random, 0, 5)) {
    case 0:
    case 1:
        plain->here[worker] = true;
        while (first < JOBS && !goes_to(plain, first, worker)) first++;
        assert_int_equal(queue_lease(queue, worker), first < JOBS ? (int64_t)first : -1);
        if (first == JOBS) return;
        plain->state[first] = JOB_LEASED;
        plain->worker[first] = worker;
        return;
    case 2:
        queue_release(queue, worker);
        plain->here[worker] = false;
        for (size_t i = 0; i < JOBS; i++)
            if (plain->state[i] == JOB_LEASED && plain->worker[i] == worker) plain->state[i] = JOB_PENDING;
        return;
    default: break;
    }
    if (plain->state[job] != JOB_LEASED) return;
    switch (random_in(random, 0, 3)) {
    case 0:
        queue_done(queue, job);
        plain->state[job] = JOB_DONE;
        break;
    case 1:
        queue_return(queue, job);
        plain->state[job] = JOB_PENDING;
        break;
    default:
        queue_fail(queue, job, final);
        plain->times[job][plain->worker[job]]++;
        plain->final[job][plain->worker[job]] |= final;
        plain->state[job] = is_lost(plain, job) ? JOB_FAILED : JOB_PENDING;
    }
}

static void random_events_leave_the_queue_as_the_plain_table(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    for (int round = 0; round < 500; round++) {
        struct queue queue = {0};
        struct plain plain = {0};
        queue_open(&queue, JOBS, FAILURES_MAX);
        for (int i = 0; i < 200; i++) {
            one_event(&queue, &plain, &random);
            for (size_t k = 0; k < JOBS; k++) {
                assert_int_equal(queue.job[k].state, plain.state[k]);
                if (plain.state[k] == JOB_LEASED) assert_true(queue_holds(&queue, k, queue.job[k].attempt, plain.worker[k]));
            }
            assert_int_equal(queue.pending, count_state(&plain, JOB_PENDING));
            assert_int_equal(queue.leased, count_state(&plain, JOB_LEASED));
            assert_int_equal(queue.done, count_state(&plain, JOB_DONE));
            assert_int_equal(queue.failed, count_state(&plain, JOB_FAILED));
            assert_int_equal(queue_finished(&queue), count_state(&plain, JOB_DONE) == JOBS);
        }
        queue_close(&queue);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_leased_in_order_and_end_one_by_one),
        cmocka_unit_test(an_empty_queue_is_finished),
        cmocka_unit_test(a_lost_workers_jobs_are_pending_again_and_its_result_is_refused),
        cmocka_unit_test(a_job_goes_to_who_has_its_beginning_while_that_worker_is_here),
        cmocka_unit_test(a_job_that_fails_too_often_is_set_aside),
        cmocka_unit_test(what_failed_at_one_worker_goes_to_another),
        cmocka_unit_test(two_workers_that_both_call_it_final_are_believed),
        cmocka_unit_test(a_final_failure_sets_aside_at_once_and_a_return_counts_for_nothing),
        cmocka_unit_test(what_an_earlier_life_knew_is_not_done_again),
        cmocka_unit_test(no_lease_of_a_later_queue_has_the_number_of_an_earlier_one),
        cmocka_unit_test(random_events_leave_the_queue_as_the_plain_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
