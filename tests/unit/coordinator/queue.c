/* Jobs and leases: each story by hand, then random ones against a plain table. */
#include "coordinator/queue.h"

#include "tests/unit/random.h"

static void jobs_are_leased_in_order_and_end_one_by_one(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 3, 2);
    for (int64_t i = 0; i < 3; i++) assert_int_equal(queue_lease(&queue, 7, 0), i);
    assert_int_equal(queue_lease(&queue, 7, 0), -1);
    for (size_t i = 0; i < 3; i++) {
        assert_false(queue_finished(&queue));
        queue_done(&queue, i, 0);
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
    assert_int_equal(queue_lease(&queue, 1, 0), -1);
    queue_close(&queue);
}

static void a_lost_workers_jobs_are_pending_again_and_its_result_is_refused(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 3, 1);
    queue_lease(&queue, 7, 0);
    queue_lease(&queue, 8, 0);
    queue_lease(&queue, 7, 0);
    uint32_t attempt = queue.job[0].attempt;
    assert_true(queue_holds(&queue, 0, attempt, 7));
    queue_release(&queue, 7, true, 0);
    assert_false(queue_holds(&queue, 0, attempt, 7));
    assert_int_equal(queue.pending, 2);
    assert_int_equal(queue.job[0].failures, 0);
    assert_int_equal(queue_lease(&queue, 9, 0), 0);
    assert_int_equal(queue_lease(&queue, 7, 0), 2);
    assert_int_equal(queue_lease(&queue, 9, 0), -1);
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
    assert_int_equal(queue_lease(&queue, 7, 0), 0);
    queue_done(&queue, 0, 0);
    assert_int_equal(queue_add(&queue, 7), 2);
    assert_false(queue_finished(&queue));
    assert_int_equal(queue_lease(&queue, 8, 0), 1);
    assert_int_equal(queue_lease(&queue, 8, 0), -1);  /* 7 has job 2's beginning */
    assert_int_equal(queue_add(&queue, QUEUE_ANYONE), 3);
    assert_int_equal(queue_lease(&queue, 7, 0), 2);   /* its own before what anyone can do */
    assert_int_equal(queue_lease(&queue, 8, 0), 3);
    queue_release(&queue, 7, true, 0);
    assert_int_equal(queue_lease(&queue, 8, 0), 2);
    queue_close(&queue);
}

static void a_job_that_fails_too_often_is_set_aside(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 2, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(queue_lease(&queue, (uint32_t)i, 0), 0);
        queue_fail(&queue, 0, FAILURE_HERE, 0);
        assert_int_equal(queue.job[0].state, i < 2 ? JOB_PENDING : JOB_FAILED);
    }
    assert_int_equal(queue_lease(&queue, 1, 0), 1);
    queue_done(&queue, 1, 0);
    assert_false(queue_finished(&queue));
    assert_int_equal(queue.failed, 1);
    queue_close(&queue);
}

static void what_failed_at_one_worker_goes_to_another(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 1, 3);
    queue_here(&queue, 2, 0);
    for (int i = 0; i < 10; i++) { /* 1 alone can never end it, and gets it once */
        assert_int_equal(queue_lease(&queue, 1, 0), i == 0 ? 0 : -1);
        if (i == 0) queue_fail(&queue, 0, FAILURE_FINAL, 0);
        assert_int_equal(queue.job[0].state, JOB_PENDING);
    }
    assert_int_equal(queue_lease(&queue, 2, 0), 0);
    queue_return(&queue, 0, 0);
    queue_release(&queue, 2, true, 0); /* now nobody else could do it */
    assert_int_equal(queue_lease(&queue, 1, 0), 0);
    queue_fail(&queue, 0, FAILURE_HERE, 0);
    assert_int_equal(queue.job[0].state, JOB_FAILED);
    queue_close(&queue);
}

static void two_workers_that_both_call_it_final_are_believed(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 1, 3);
    for (uint32_t w = 0; w < 3; w++) queue_here(&queue, w, 0);
    queue_lease(&queue, 0, 0);
    queue_fail(&queue, 0, FAILURE_FINAL, 0);
    assert_int_equal(queue.job[0].state, JOB_PENDING);
    queue_lease(&queue, 1, 0);
    queue_fail(&queue, 0, FAILURE_FINAL, 0);
    assert_int_equal(queue.job[0].state, JOB_FAILED);
    queue_close(&queue);
}

/* Workers of an older build: as many as may fail, before one comes that knows the work, and beside it. */
static void who_does_not_know_the_work_is_no_failure_while_others_may(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 1, 3);
    for (uint32_t w = 0; w < 5; w++) queue_here(&queue, w, 0);
    for (int round = 0; round < 3; round++) {
        for (uint32_t w = 0; w < 4; w++) {
            int64_t job = queue_lease(&queue, w, 0);
            assert_int_equal(job, 0);
            queue_fail(&queue, 0, FAILURE_UNKNOWN, 0);
            assert_int_equal(queue.job[0].state, JOB_PENDING);
        }
        assert_int_equal(queue_lease(&queue, 4, 0), 0);
        queue_fail(&queue, 0, FAILURE_HERE, 0); /* all have failed: anybody may try again */
        assert_int_equal(queue.job[0].state, round < 2 ? JOB_PENDING : JOB_FAILED);
    }
    queue_close(&queue);
}

static void a_job_whose_work_nobody_knows_fails(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 1, 3);
    queue_here(&queue, 0, 0);
    queue_here(&queue, 1, 0);
    for (int i = 0; i < 4; i++) { /* of the first one it is not known that the other knows it no better */
        assert_int_equal(queue.job[0].state, JOB_PENDING);
        assert_int_equal(queue.job[0].failures, i > 1 ? i - 1 : 0);
        assert_int_equal(queue_lease(&queue, (uint32_t)i % 2, 0), 0);
        queue_fail(&queue, 0, FAILURE_UNKNOWN, 0);
    }
    assert_int_equal(queue.job[0].state, JOB_FAILED);
    queue_close(&queue);
}

static void a_final_failure_sets_aside_at_once_and_a_return_counts_for_nothing(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 1, 3);
    for (int i = 0; i < 10; i++) {
        queue_lease(&queue, 1, 0);
        queue_return(&queue, 0, 0);
    }
    assert_int_equal(queue.job[0].failures, 0);
    queue_lease(&queue, 1, 0);
    queue_fail(&queue, 0, FAILURE_FINAL, 0);
    assert_int_equal(queue.job[0].state, JOB_FAILED);
    assert_int_equal(queue_lease(&queue, 1, 0), -1);
    queue_close(&queue);
}

static void what_an_earlier_life_knew_is_not_done_again(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 3, 3);
    queue_restore_done(&queue, 0);
    queue_restore_done(&queue, 2);
    assert_int_equal(queue_lease(&queue, 1, 0), 1);
    assert_int_equal(queue_lease(&queue, 1, 0), -1);
    queue_done(&queue, 1, 0);
    assert_true(queue_finished(&queue));
    queue_close(&queue);
}

static void no_lease_of_a_later_queue_has_the_number_of_an_earlier_one(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 2, 3);
    queue_lease(&queue, 1, 0);
    queue_lease(&queue, 1, 0);
    uint32_t first = queue.job[0].attempt, second = queue.job[1].attempt;
    queue_close(&queue);
    queue_open(&queue, 2, 3);
    queue_lease(&queue, 1, 0);
    queue_lease(&queue, 1, 0);
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
    uint32_t worker[JOBS], times[JOBS][WORKERS], order[JOBS], losses[JOBS], counted[JOBS], leases;
    bool final[JOBS][WORKERS], unknown[JOBS][WORKERS], here[WORKERS];
};

/* Did everybody who is here fail at it? */
static bool nobody_is_left(const struct plain *plain, size_t job) {
    for (size_t w = 0; w < WORKERS; w++)
        if (plain->here[w] && !plain->times[job][w]) return false;
    return true;
}

static bool nobody_knows_it(const struct plain *plain, size_t job) {
    for (size_t w = 0; w < WORKERS; w++)
        if (plain->here[w] && !plain->unknown[job][w]) return false;
    return true;
}

static bool goes_to(const struct plain *plain, size_t job, uint32_t worker) {
    return plain->state[job] == JOB_PENDING && (!plain->times[job][worker] || nobody_is_left(plain, job));
}

/* The first one for this worker, those at which workers were lost last; JOBS: none. */
static size_t next_for(const struct plain *plain, uint32_t worker) {
    size_t last = JOBS;
    for (size_t i = 0; i < JOBS; i++) {
        if (!goes_to(plain, i, worker)) continue;
        if (plain->losses[i] < QUEUE_SUSPECT) return i;
        if (last == JOBS || plain->losses[i] < plain->losses[last]) last = i;
    }
    return last;
}

static void lose(struct plain *plain, uint32_t worker) {
    size_t oldest = JOBS;
    for (size_t i = 0; i < JOBS; i++) {
        if (plain->state[i] != JOB_LEASED || plain->worker[i] != worker) continue;
        plain->state[i] = JOB_PENDING;
        if (oldest == JOBS || plain->order[i] < plain->order[oldest]) oldest = i;
    }
    if (oldest < JOBS) plain->losses[oldest]++;
    plain->here[worker] = false;
}

static bool is_lost(const struct plain *plain, size_t job) {
    unsigned workers = 0, finals = 0;
    for (size_t w = 0; w < WORKERS; w++) {
        workers += plain->times[job][w] > 0 && !plain->unknown[job][w];
        finals += plain->final[job][w];
    }
    bool all = nobody_is_left(plain, job);
    return workers >= FAILURES_MAX || (all && plain->counted[job] >= FAILURES_MAX) || finals >= QUEUE_FINAL_MAX || (all && finals);
}

static size_t count_state(const struct plain *plain, enum job_state state) {
    size_t n = 0;
    for (size_t i = 0; i < JOBS; i++) n += plain->state[i] == state;
    return n;
}

static void one_event(struct queue *queue, struct plain *plain, struct random *random) {
    uint32_t worker = (uint32_t)random_in(random, 0, WORKERS - 1);
    size_t job = random_in(random, 0, JOBS - 1), first;
    uint64_t drawn = random_in(random, 0, 9);
    enum failure how = drawn == 0 ? FAILURE_FINAL : drawn < 4 ? FAILURE_UNKNOWN : FAILURE_HERE;
    switch (random_in(random, 0, 5)) {
    case 0:
    case 1:
        plain->here[worker] = true;
        first = next_for(plain, worker);
        assert_int_equal(queue_lease(queue, worker, 0), first < JOBS ? (int64_t)first : -1);
        if (first == JOBS) return;
        plain->state[first] = JOB_LEASED;
        plain->worker[first] = worker;
        plain->order[first] = ++plain->leases;
        return;
    case 2:
        queue_release(queue, worker, true, 0);
        lose(plain, worker);
        return;
    default: break;
    }
    if (plain->state[job] != JOB_LEASED) return;
    switch (random_in(random, 0, 3)) {
    case 0:
        queue_done(queue, job, 0);
        plain->state[job] = JOB_DONE;
        break;
    case 1:
        queue_return(queue, job, 0);
        plain->state[job] = JOB_PENDING;
        break;
    default:
        queue_fail(queue, job, how, 0);
        plain->times[job][plain->worker[job]]++;
        plain->final[job][plain->worker[job]] |= how == FAILURE_FINAL;
        plain->unknown[job][plain->worker[job]] = how == FAILURE_UNKNOWN;
        plain->counted[job] += how != FAILURE_UNKNOWN || nobody_knows_it(plain, job);
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

/* ---- workers that go ---- */

enum { TICK_MS = 100, RESTART_MS = 100, CROWD_MAX = 4, CROWD_JOBS_MAX = 60 };

/* Workers at their jobs, two leases at most for each, which are lost by somebody's hand, or by the jobs that kill. */
struct crowd {
    struct queue queue;
    struct random *random;
    size_t workers, jobs;
    int64_t job_ms[CROWD_JOBS_MAX];
    bool killer[CROWD_JOBS_MAX];
    int64_t killer_ms;         /* such a job ends its worker after that */
    int64_t life_ms;           /* of a worker, on average; 0: nobody kills */
    int64_t every_ms;          /* or they are killed in turn; 0: not so */
    struct seat {
        uint32_t number;       /* another one for each that is started */
        int64_t begins_ms, done_ms;
        size_t job[2], count;
    } seat[CROWD_MAX];
    int64_t now_ms;
    size_t turn;
    uint32_t numbers;
    int64_t failed;            /* the job that ended the run; -1: none did */
};

static void lose_seat(struct crowd *crowd, struct seat *seat) {
    int64_t failed = queue_release(&crowd->queue, seat->number, true, crowd->now_ms);
    if (failed >= 0) crowd->failed = failed;
    *seat = (struct seat){.number = crowd->numbers++ % QUEUE_WORKERS_MAX, .begins_ms = crowd->now_ms + RESTART_MS};
}

static void work(struct crowd *crowd, struct seat *seat) {
    queue_here(&crowd->queue, seat->number, crowd->now_ms);
    while (seat->count < 2) {
        int64_t job = queue_lease(&crowd->queue, seat->number, crowd->now_ms);
        if (job < 0) break;
        if (seat->count == 0) seat->done_ms = 0;
        seat->job[seat->count++] = (size_t)job;
    }
    if (!seat->count) return;
    seat->done_ms += TICK_MS;
    if (crowd->killer[seat->job[0]]) {
        if (seat->done_ms >= crowd->killer_ms) lose_seat(crowd, seat);
    } else if (seat->done_ms >= crowd->job_ms[seat->job[0]]) {
        queue_told(&crowd->queue, seat->job[0], crowd->now_ms);
        queue_done(&crowd->queue, seat->job[0], crowd->now_ms);
        seat->job[0] = seat->job[1], seat->count--, seat->done_ms = 0;
    }
}

/* Until all is done, a job has failed, or that time is over. */
static void live(struct crowd *crowd, int64_t until_ms) {
    size_t workers = crowd->workers;
    CHECK(workers > 0);
    queue_open(&crowd->queue, crowd->jobs, 3);
    crowd->failed = -1;
    for (size_t i = 0; i < workers; i++) crowd->seat[i].number = crowd->numbers++;
    for (; crowd->now_ms < until_ms && crowd->failed < 0 && !queue_finished(&crowd->queue); crowd->now_ms += TICK_MS) {
        for (size_t i = 0; i < workers && crowd->failed < 0; i++) {
            struct seat *seat = &crowd->seat[i];
            if (crowd->now_ms < seat->begins_ms) continue;
            if (crowd->life_ms && random_in(crowd->random, 0, (uint64_t)(crowd->life_ms / TICK_MS) - 1) == 0) lose_seat(crowd, seat);
            else work(crowd, seat);
        }
        if (crowd->every_ms && crowd->now_ms % crowd->every_ms == 0 && crowd->failed < 0)
            lose_seat(crowd, &crowd->seat[crowd->turn++ % workers]);
    }
}

static void a_job_that_kills_each_worker_that_takes_it_ends_the_run(void **state) {
    (void)state;
    static const int64_t after[] = {100, 500, 1000, 5000, 30000};
    struct random random = random_open(__func__);
    for (size_t workers = 1; workers <= CROWD_MAX; workers *= 2)
        for (size_t jobs = 1; jobs <= 17; jobs += 16)
            for (size_t i = 0; i < sizeof after / sizeof *after; i++)
                for (size_t killers = 1; killers <= 2 && killers <= jobs; killers++) {
                    struct crowd crowd = {.random = &random, .workers = workers, .jobs = jobs, .killer_ms = after[i]};
                    int64_t others_ms = QUEUE_LIFE_MS; /* that workers live otherwise */
                    for (size_t k = 0; k < jobs; k++) crowd.job_ms[k] = (int64_t)random_in(&random, 500, 5000);
                    for (size_t k = 0; k < killers; k++) crowd.killer[k * jobs / killers] = true;
                    for (size_t k = 0; k < jobs; k++) others_ms += crowd.killer[k] ? 0 : crowd.job_ms[k] - TICK_MS;
                    bool soon = 64 * (after[i] + TICK_MS) < others_ms; /* (1 / 3)^32 is as rare as QUEUE_SURPRISE says */
                    live(&crowd, 24 * 3600 * 1000);
                    assert_true(crowd.failed >= 0 && crowd.killer[crowd.failed]);
                    assert_true(crowd.queue.done + 2 * workers >= jobs - killers); /* it held nobody up */
                    if (soon) assert_true(crowd.queue.job[crowd.failed].losses <= 2 * QUEUE_LOSSES_MAX);
                    queue_close(&crowd.queue);
                }
}

static void a_job_that_kills_is_found_among_kills_from_outside(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    for (int round = 0; round < 20; round++) {
        struct crowd crowd = {.random = &random, .jobs = 40, .killer_ms = 200, .life_ms = 10000};
        crowd.workers = random_in(&random, 1, CROWD_MAX);
        for (size_t k = 0; k < crowd.jobs; k++) crowd.job_ms[k] = (int64_t)random_in(&random, 500, 5000);
        crowd.killer[random_in(&random, 0, 39)] = true;
        live(&crowd, 24 * 3600 * 1000);
        assert_true(crowd.failed >= 0 && crowd.killer[crowd.failed]);
        queue_close(&crowd.queue);
    }
}

/* However often, however long a job takes, as long as it can be done at all. */
static void kills_from_outside_never_end_a_run(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    for (int round = 0; round < 2000; round++) {
        struct crowd crowd = {.random = &random, .workers = random_in(&random, 1, CROWD_MAX)};
        crowd.jobs = random_in(&random, 1, CROWD_JOBS_MAX);
        int64_t kill_ms = (int64_t)random_in(&random, 10, 100) * TICK_MS, longest_ms = kill_ms * 2;
        if (round % 2) crowd.life_ms = kill_ms;
        else crowd.every_ms = kill_ms, longest_ms = kill_ms * (int64_t)crowd.workers / 2;
        for (size_t k = 0; k < crowd.jobs; k++) crowd.job_ms[k] = (int64_t)random_in(&random, 2 * TICK_MS, (uint64_t)longest_ms);
        if (random_in(&random, 0, 1)) crowd.job_ms[crowd.jobs - 1] = longest_ms;
        live(&crowd, 24 * 3600 * 1000);
        if (crowd.failed >= 0)
            fail_msg("round %d: %zu workers, a kill every %lld ms: job of %lld ms after %u losses", round, crowd.workers,
                     (long long)kill_ms, (long long)crowd.job_ms[crowd.failed], crowd.queue.job[crowd.failed].losses);
        assert_true(queue_finished(&crowd.queue));
        queue_close(&crowd.queue);
    }
}

/* The second lease of a worker had no part in its end, nor had the one that waits to be read. */
static void only_the_job_at_work_is_suspected(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 3, 3);
    for (size_t i = 0; i < 3; i++) assert_int_equal(queue_lease(&queue, 1, 10), i);
    queue_told(&queue, 0, 20);
    queue_release(&queue, 1, true, 25);
    assert_int_equal(queue.job[0].losses, 0);
    assert_int_equal(queue.job[1].losses, 1);
    assert_int_equal(queue.job[1].at_work_ms, 5);
    assert_int_equal(queue.job[2].losses, 0);
    queue_lease(&queue, 2, 30);
    queue_release(&queue, 2, false, 40); /* it said goodbye */
    assert_int_equal(queue.job[0].losses, 0);
    assert_int_equal(queue.pending, 3);
    queue_close(&queue);
}

/* The worker says so with DONE; then its output comes, or does not. */
static void that_a_worker_is_through_with_a_job_counts_once(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 3, 2);
    for (int i = 0; i < 3; i++) queue_lease(&queue, 1, 0);
    queue_told(&queue, 0, 10);
    queue_told(&queue, 0, 15);
    queue_done(&queue, 0, 20);
    queue_told(&queue, 1, 25);
    queue_return(&queue, 1, 30);
    assert_int_equal(queue.worker[1].jobs, 1);
    queue_release(&queue, 1, true, 40);
    assert_int_equal(queue.job[0].at_work_ms, 10);
    assert_int_equal(queue.job[1].at_work_ms, 15);
    assert_int_equal(queue.job[2].at_work_ms, 15);
    assert_int_equal(queue.job[2].losses, 1);
    queue_close(&queue);
}

/* By then it may look like one that kills: others lived long meanwhile. */
static void who_says_goodbye_at_a_job_does_not_end_a_run(void **state) {
    (void)state;
    struct queue queue = {0};
    int64_t now_ms = 0;
    queue_open(&queue, 1, 2);
    for (uint32_t w = 0; w < QUEUE_LOSSES_MAX; w++) {
        queue_lease(&queue, w, now_ms);
        assert_int_equal(queue_release(&queue, w, true, now_ms += QUEUE_LIFE_MS), -1);
    }
    queue_here(&queue, 100, now_ms);
    now_ms += 1000 * QUEUE_LIFE_MS;
    queue_lease(&queue, 101, now_ms);
    assert_int_equal(queue_release(&queue, 101, false, now_ms), -1);
    assert_int_equal(queue.job[0].state, JOB_PENDING);
    queue_lease(&queue, 102, now_ms);
    assert_int_equal(queue_release(&queue, 102, true, now_ms), 0);
    queue_close(&queue);
}

static void what_fails_at_who_has_its_beginning_goes_to_others(void **state) {
    (void)state;
    struct queue queue = {0};
    queue_open(&queue, 0, 3);
    queue_here(&queue, 7, 0);
    queue_here(&queue, 8, 0);
    queue_add(&queue, 7);
    assert_int_equal(queue_lease(&queue, 8, 0), -1);
    assert_int_equal(queue_lease(&queue, 7, 0), 0);
    queue_fail(&queue, 0, FAILURE_HERE, 0);
    assert_int_equal(queue_lease(&queue, 7, 0), -1);
    assert_int_equal(queue_lease(&queue, 8, 0), 0);
    queue_close(&queue);
}

/* It was set aside, say, and lives: nothing ends it. */
static void a_job_does_not_wait_for_who_gets_no_jobs(void **state) {
    (void)state;
    for (int before = 0; before < 2; before++) {
        struct queue queue = {0};
        queue_open(&queue, 0, 3);
        queue_here(&queue, 7, 0);
        if (before) queue_not_here(&queue, 7);
        queue_add(&queue, 7);
        assert_int_equal(queue_lease(&queue, 8, 0), before ? 0 : -1);
        queue_not_here(&queue, 7);
        assert_int_equal(queue_lease(&queue, 8, 0), before ? -1 : 0);
        queue_close(&queue);
    }
}

/* Somebody kills each worker after some time at work; how often is known from the stage before. */
static void how_long_workers_lived_in_an_earlier_stage_is_not_forgotten(void **state) {
    (void)state;
    struct queue queue = {0};
    int64_t now_ms = 0;
    for (int stage = 0; stage < 2; stage++) {
        queue_open(&queue, 1, 2);
        for (int i = 0; i < QUEUE_LOSSES_MAX - 1 + stage; i++) {
            queue_lease(&queue, 1, now_ms);
            assert_int_equal(queue_release(&queue, 1, true, now_ms += QUEUE_LIFE_MS / 50), -1);
        }
        queue_lease(&queue, 1, now_ms);
        queue_done(&queue, 0, now_ms);
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
        cmocka_unit_test(who_does_not_know_the_work_is_no_failure_while_others_may),
        cmocka_unit_test(a_job_whose_work_nobody_knows_fails),
        cmocka_unit_test(a_final_failure_sets_aside_at_once_and_a_return_counts_for_nothing),
        cmocka_unit_test(what_an_earlier_life_knew_is_not_done_again),
        cmocka_unit_test(no_lease_of_a_later_queue_has_the_number_of_an_earlier_one),
        cmocka_unit_test(only_the_job_at_work_is_suspected),
        cmocka_unit_test(what_fails_at_who_has_its_beginning_goes_to_others),
        cmocka_unit_test(a_job_does_not_wait_for_who_gets_no_jobs),
        cmocka_unit_test(how_long_workers_lived_in_an_earlier_stage_is_not_forgotten),
        cmocka_unit_test(that_a_worker_is_through_with_a_job_counts_once),
        cmocka_unit_test(who_says_goodbye_at_a_job_does_not_end_a_run),
        cmocka_unit_test(a_job_that_kills_each_worker_that_takes_it_ends_the_run),
        cmocka_unit_test(a_job_that_kills_is_found_among_kills_from_outside),
        cmocka_unit_test(kills_from_outside_never_end_a_run),
        cmocka_unit_test(random_events_leave_the_queue_as_the_plain_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
