/* One fork() and what the child does until it is another program. Signals are blocked meanwhile: the child has its parent's handlers for a
 * moment, which would take a wish to stop for the parent's, and nobody would hear it. */
#include "cli/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/err.h"
#include "base/process.h"

static void hear(const sigset_t *mask) {
    struct sigaction hung_up;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    if (sigaction(SIGHUP, NULL, &hung_up) == 0 && hung_up.sa_handler != SIG_IGN) signal(SIGHUP, SIG_DFL); /* nohup's stays */
    sigprocmask(SIG_SETMASK, mask, NULL);
}

static void become_daemon(pid_t parent, const sigset_t *mask, int log, int words, char **arguments) {
    char number[16];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    setpgid(0, 0);
    hear(mask);
    int null = open("/dev/null", O_RDONLY);
    if (null < 0) _exit(1);
    dup2(null, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    snprintf(number, sizeof number, "%d", words > 0 ? dup(words) : -1); /* the copy stays open in the new program */
    setenv(PROCESS_LAST_WORDS, number, 1);
    setenv("OPENBLAS_NUM_THREADS", "1", 1); /* its own threads are not used; not to start them saves a tenth of a second */
    execv("/proc/self/exe", arguments);
    _exit(127);
}

int spawn(pid_t *out, char **arguments, int log, int words) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) become_daemon(parent, &before, log, words, arguments);
    int code = pid < 0 ? err_errno("start a process") : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code == 0) *out = pid;
    return code;
}
