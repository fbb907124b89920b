/* The thread for files: everything posted is answered exactly once, in order, by the thread that polls. */
#include "coordinator/files.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "tests/unit/random.h"

static atomic_int wakes;
static void wake(void *arg) {
    assert_ptr_equal(arg, &wakes);
    atomic_fetch_add(&wakes, 1);
}

struct owner {
    pthread_t thread;
    int done, interrupted, failed;
};

struct work {
    int number;
    atomic_bool *gate;       /* waits for it; NULL: does not */
    bool fails, looks_at_stop;
};

static int work_task(void *arg, const atomic_bool *stop) {
    struct work *work = arg;
    while (work->gate && !atomic_load(work->gate) && !(work->looks_at_stop && atomic_load(stop))) clock_sleep_ms(1);
    if (work->looks_at_stop && atomic_load(stop)) return err_set(ERR_INTERRUPTED, "stopped");
    return work->fails ? err_set(ERR_CORRUPT, "number %d is broken", work->number) : 0;
}

static void work_done(void *arg, void *given, int code) {
    struct owner *owner = arg;
    struct work *work = given;
    assert_true(pthread_equal(owner->thread, pthread_self()));
    if (code == ERR_INTERRUPTED) owner->interrupted++;
    else assert_int_equal(work->number, owner->done++);
    if (code == ERR_CORRUPT) {
        char text[64];
        snprintf(text, sizeof text, "number %d is broken", work->number);
        assert_string_equal(err_text(), text); /* the task's, though another thread set it */
        owner->failed++;
    }
    free(work);
}

static bool post(struct files *files, struct work work) {
    struct work *copy = malloc(sizeof work);
    *copy = work;
    bool posted = files_post(files, &(struct file_task){.run = work_task, .done = work_done, .arg = copy});
    if (!posted) free(copy);
    return posted;
}

static void everything_is_done_once_in_order(void **state) {
    (void)state;
    struct owner owner = {.thread = pthread_self()};
    struct files *files;
    enum { TASKS = 5000 };
    assert_int_equal(files_open(&files, wake, &wakes), 0);
    for (int i = 0; i < TASKS;) {
        if (post(files, (struct work){.number = i, .fails = i % 7 == 3})) i++;
        else files_poll(files, &owner);
    }
    files_drain(files, &owner);
    assert_int_equal(owner.done, TASKS);
    assert_int_equal(owner.failed, (TASKS + 3) / 7);
    assert_int_equal(atomic_load(&wakes), TASKS);
    files_close(files, &owner);
    assert_int_equal(owner.interrupted, 0);
}

static void a_full_queue_says_so(void **state) {
    (void)state;
    struct owner owner = {.thread = pthread_self()};
    struct files *files;
    atomic_bool gate = false;
    int posted = 0;
    assert_int_equal(files_open(&files, wake, &wakes), 0);
    while (post(files, (struct work){.number = posted, .gate = &gate})) posted++;
    assert_int_equal(posted, FILES_QUEUE_MAX);
    files_poll(files, &owner); /* nothing is through, and nobody waits for it */
    assert_int_equal(owner.done, 0);
    atomic_store(&gate, true);
    files_drain(files, &owner);
    assert_int_equal(owner.done, FILES_QUEUE_MAX);
    assert_true(post(files, (struct work){.number = posted}));
    files_close(files, &owner);
    files_close(NULL, NULL);
}

static void what_waits_is_given_back_when_it_is_closed(void **state) {
    (void)state;
    struct owner owner = {.thread = pthread_self()};
    struct files *files;
    atomic_bool gate = false; /* never opens: the one under way looks at the stop */
    assert_int_equal(files_open(&files, wake, &wakes), 0);
    for (int i = 0; i < 10; i++) assert_true(post(files, (struct work){.number = i, .gate = &gate, .looks_at_stop = true}));
    files_close(files, &owner);
    assert_int_equal(owner.interrupted, 10);
    assert_int_equal(owner.done, 0);
}

static void what_only_reads_is_not_waited_for(void **state) {
    (void)state;
    static atomic_bool gate; /* outlives the test, as the task does */
    static struct work reads;
    static struct files *files; /* the task's thread has it for ever */
    struct owner owner = {.thread = pthread_self()};
    reads = (struct work){.gate = &gate};
    assert_int_equal(files_open(&files, wake, &wakes), 0);
    assert_true(files_post(files, &(struct file_task){.run = work_task, .done = work_done, .arg = &reads, .may_be_left = true}));
    assert_true(post(files, (struct work){.number = 1}));
    files_close(files, &owner);
    assert_int_equal(owner.interrupted, 1);
    atomic_store(&gate, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_done_once_in_order),
        cmocka_unit_test(a_full_queue_says_so),
        cmocka_unit_test(what_waits_is_given_back_when_it_is_closed),
        cmocka_unit_test(what_only_reads_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
