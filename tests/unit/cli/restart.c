/* How long a daemon that ended is waited for: by what ended it, not by how often. */
#include "cli/restart.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/random.h"

static void killed_again_and_again_it_comes_back_at_once(void **state) {
    (void)state;
    struct restart restart = {0};
    for (int i = 0; i < 100; i++) assert_int_equal(restart_delay(&restart, 2500, false), RESTART_FIRST_MS);
    assert_int_equal(restart.ends, 100); /* whoever shows them may count */
    assert_int_equal(restart.failures, 0); /* nobody gives up on it */
}

static void failing_by_itself_at_once_it_waits_ever_longer(void **state) {
    (void)state;
    struct restart restart = {0};
    int64_t before = 0;
    for (int i = 0; i < 20; i++) {
        int64_t delay = restart_delay(&restart, 50, true);
        assert_true(delay >= before && (delay >= before * 2 || delay == RESTART_LAST_MS));
        before = delay;
    }
    assert_int_equal(before, RESTART_LAST_MS);
    assert_int_equal(restart_delay(&restart, RESTART_HEALTHY_MS + 1, true), RESTART_FIRST_MS);
    assert_int_equal(restart.failures, 1);
}

static void killed_before_it_did_anything_it_waits_as_one_that_fails(void **state) {
    (void)state;
    struct restart restart = {0};
    assert_int_equal(restart_delay(&restart, RESTART_AT_ONCE_MS - 1, false), RESTART_FIRST_MS);
    assert_int_equal(restart_delay(&restart, RESTART_AT_ONCE_MS - 1, false), RESTART_FIRST_MS * 2);
    assert_int_equal(restart_delay(&restart, RESTART_AT_ONCE_MS, false), RESTART_FIRST_MS);
}

static int status_of(int number, int exit_code);

static void crashed_three_times_at_its_very_start_it_is_given_up(void **state) {
    (void)state;
    struct restart restart = {0};
    int crash = status_of(SIGABRT, 0), killed = status_of(SIGKILL, 0), failed = status_of(0, 1);
    for (int i = 0; i < 10; i++) {
        assert_false(restart_is_hopeless(&restart, 50, crash));
        assert_false(restart_is_hopeless(&restart, 50, crash));
        int other = i % 3 == 0 ? crash : i % 3 == 1 ? killed : failed;
        assert_false(restart_is_hopeless(&restart, i % 3 == 0 ? RESTART_AT_ONCE_MS : 50, other));
    }
    assert_false(restart_is_hopeless(&restart, 50, crash));
    assert_false(restart_is_hopeless(&restart, 50, crash));
    assert_true(restart_is_hopeless(&restart, 50, crash));
}

static int status_of(int number, int exit_code) {
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct sigaction action = {.sa_handler = SIG_DFL};
        sigaction(number ? number : SIGUSR1, &action, NULL);
        if (number) raise(number);
        _exit(exit_code);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void whose_fault_an_end_was_is_told_by_its_status(void **state) {
    (void)state;
    assert_true(restart_own_fault(status_of(0, 1)));
    assert_true(restart_own_fault(status_of(0, 0)));
    assert_true(restart_own_fault(status_of(SIGABRT, 0)));
    assert_true(restart_own_fault(status_of(SIGSEGV, 0)));
    assert_false(restart_own_fault(status_of(SIGKILL, 0)));
    assert_false(restart_own_fault(status_of(SIGTERM, 0)));
    assert_false(restart_own_fault(status_of(SIGHUP, 0)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_again_and_again_it_comes_back_at_once),
        cmocka_unit_test(failing_by_itself_at_once_it_waits_ever_longer),
        cmocka_unit_test(killed_before_it_did_anything_it_waits_as_one_that_fails),
        cmocka_unit_test(crashed_three_times_at_its_very_start_it_is_given_up),
        cmocka_unit_test(whose_fault_an_end_was_is_told_by_its_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
