/* A daemon as `run` starts it: this program once more, with words behind its name. */
#include "cli/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/random.h"

static volatile sig_atomic_t heard;
static int sent;

static void on_signal(int number) { heard = number; }

/* In the child, in place of libc's: where the parent's wish to stop may come. */
int setpgid(pid_t pid, pid_t group) {
    (void)pid, (void)group;
    return sent ? kill(getpid(), sent) : 0;
}

static int start_and_wait(int number) {
    char *arguments[] = {"millrace", "child", NULL};
    int status = -1, log = open("/dev/null", O_WRONLY | O_CLOEXEC);
    pid_t pid;
    sent = number;
    assert_true(log >= 0);
    assert_int_equal(spawn(&pid, arguments, log, -1), 0);
    close(log);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void a_daemon_that_is_asked_to_stop_as_it_is_started_ends(void **state) {
    (void)state;
    static const int ends[] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        signal(ends[i], on_signal);
        int status = start_and_wait(ends[i]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == ends[i]);
        signal(ends[i], SIG_DFL);
    }
    assert_int_equal(heard, 0);
}

static void a_daemon_begins_without_a_blocked_signal_and_nohup_stays(void **state) {
    (void)state;
    sigset_t mask;
    signal(SIGHUP, SIG_IGN);
    int status = start_and_wait(SIGHUP);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    signal(SIGHUP, SIG_DFL);
    assert_int_equal(sigprocmask(SIG_BLOCK, NULL, &mask), 0);
    assert_int_equal(sigismember(&mask, SIGTERM), 0);
}

int main(int argc, char **argv) {
    (void)argv;
    sigset_t mask;
    if (argc > 1) return sigprocmask(SIG_BLOCK, NULL, &mask) == 0 && sigismember(&mask, SIGTERM);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_daemon_that_is_asked_to_stop_as_it_is_started_ends),
        cmocka_unit_test(a_daemon_begins_without_a_blocked_signal_and_nohup_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
