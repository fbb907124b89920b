/* The pool: every item once, whatever the threads do. Small tasks in quick succession are where such things break; run it under
 * ThreadSanitizer too (CFLAGS="-O1 -g -fsanitize=thread"). */
#include "base/pool.h"

#include <float.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "tests/unit/random.h"

enum { ITEMS_MAX = 3000 };

struct count {
    atomic_int times[ITEMS_MAX];
    size_t items;
    atomic_int outside;
};

static void count_item(void *arg, size_t item) {
    struct count *count = arg;
    if (item < count->items)
        atomic_fetch_add(&count->times[item], 1);
    else
        atomic_fetch_add(&count->outside, 1);
}

static void every_item_is_done_once(void **state) {
    (void)state;
    static struct count count;
    for (int threads = 1; threads <= 8; threads++) {
        struct pool *pool = NULL;
        assert_int_equal(pool_open(&pool, threads), 0);
        assert_int_equal(pool_threads(pool), threads);
        static const size_t sizes[] = {0, 1, 2, 3, 7, 8, 9, 100, ITEMS_MAX};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            memset(&count, 0, sizeof count);
            count.items = sizes[i];
            pool_run(pool, sizes[i], count_item, &count);
            for (size_t item = 0; item < ITEMS_MAX; item++) assert_int_equal(count.times[item], item < sizes[i]);
            assert_int_equal(count.outside, 0);
        }
        pool_close(pool);
    }
    pool_close(NULL);
}

static void count_tick(void *arg) { ++*(size_t *)arg; }

static void wait_for_the_other(void *arg, size_t item) {
    atomic_int *there = arg;
    (void)item;
    for (atomic_fetch_add(there, 1); atomic_load(there) < 2;) continue;
}

/* What one thread does shows on it alone: the other threads may go on while it hangs. */
static void the_caller_ticks_after_each_item_that_it_did(void **state) {
    (void)state;
    static struct count count;
    size_t ticks = 0;
    atomic_int there = 0;
    struct pool *pool;
    assert_int_equal(pool_open(&pool, 1), 0);
    pool_run(pool, 5, count_item, &count);
    pool_on_tick(pool, count_tick, &ticks);
    pool_run(pool, 5, count_item, &count);
    assert_int_equal(ticks, 5);
    pool_close(pool);
    assert_int_equal(pool_open(&pool, 2), 0);
    pool_on_tick(pool, count_tick, &ticks);
    pool_run(pool, 2, wait_for_the_other, &there); /* each on a thread of its own */
    assert_int_equal(ticks, 6);
    pool_run(pool, 1, count_item, &count);
    assert_int_equal(ticks, 7);
    pool_close(pool);
}

struct sums {
    const uint64_t *in;
    uint64_t *out;
};

static void square_item(void *arg, size_t item) {
    struct sums *sums = arg;
    sums->out[item] = sums->in[item] * sums->in[item] + item;
}

/* Plain memory in and out: what the caller wrote is seen by the threads, and the other way round. */
static void many_small_tasks_follow_each_other(void **state) {
    (void)state;
    struct random random = random_open("tasks");
    for (int threads = 2; threads <= 8; threads += 2) {
        struct pool *pool = NULL;
        assert_int_equal(pool_open(&pool, threads), 0);
        uint64_t in[40], out[40];
        for (int task = 0; task < 2000; task++) {
            size_t items = random_in(&random, 1, 40);
            for (size_t i = 0; i < items; i++) in[i] = (uint64_t)task * 31 + i, out[i] = 0;
            pool_run(pool, items, square_item, &(struct sums){in, out});
            for (size_t i = 0; i < items; i++) assert_true(out[i] == in[i] * in[i] + i);
            if (task % 500 == 0) clock_sleep_ms(5);  /* long enough for the threads to fall asleep */
        }
        pool_close(pool);
    }
}

static void slow_item(void *arg, size_t item) {
    if (item == 0) clock_sleep_ms(20);
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void run_waits_for_the_slowest(void **state) {
    (void)state;
    struct pool *pool = NULL;
    assert_int_equal(pool_open(&pool, 4), 0);
    for (int round = 0; round < 10; round++) {
        atomic_int done = 0;
        pool_run(pool, 10, slow_item, &done);
        assert_int_equal(done, 10);
    }
    pool_close(pool);
}

struct tiny {
    volatile float half[64];
};

static void halve_tiny(void *arg, size_t item) {
    volatile float smallest = FLT_MIN;
    ((struct tiny *)arg)->half[item] = smallest / 2;
    clock_sleep_ms(1);  /* so that each thread gets some */
}

static void threads_keep_denormal_numbers(void **state) {
    (void)state;
    struct pool *pool = NULL;
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(0x9FC0);  /* what a library built with -ffast-math does to the thread that loads it */
#endif
    assert_int_equal(pool_open(&pool, 4), 0);
    struct tiny tiny;
    for (int i = 0; i < 64; i++) tiny.half[i] = -1;
    pool_run(pool, 64, halve_tiny, &tiny);
    for (int i = 0; i < 64; i++) assert_true(tiny.half[i] > 0);
    pool_close(pool);
}

static void pools_open_and_close_at_once(void **state) {
    (void)state;
    for (int round = 0; round < 200; round++) {
        struct pool *pool = NULL;
        assert_int_equal(pool_open(&pool, 1 + round % 8), 0);
        if (round % 3 == 0) {
            atomic_int done = 1;
            pool_run(pool, 5, slow_item, &done);
            assert_int_equal(done, 6);
        }
        pool_close(pool);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_is_done_once),
        cmocka_unit_test(the_caller_ticks_after_each_item_that_it_did),
        cmocka_unit_test(many_small_tasks_follow_each_other),
        cmocka_unit_test(run_waits_for_the_slowest),
        cmocka_unit_test(threads_keep_denormal_numbers),
        cmocka_unit_test(pools_open_and_close_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
