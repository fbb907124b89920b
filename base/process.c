/* Signals, descriptors and limits of this process. process_begin() comes first in main(), the checks before anything is opened or started.
 * Keeps nothing. */
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/err.h"

void process_begin(void) {
    static const int ours[] = {SIGCHLD, SIGTERM, SIGUSR1};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) signal(ours[i], SIG_DFL); /* with SIGCHLD ignored nobody could be waited for */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd) return; /* the lowest free number, so it is this one */
}

int process_check_stack(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur >= PROCESS_STACK_LEAST) return 0;
    return err_set(ERR_CONFIG, "the stack may have %llu KiB here (ulimit -s, RLIMIT_STACK), and %d are needed; raise the limit",
                   (unsigned long long)limit.rlim_cur >> 10, PROCESS_STACK_LEAST >> 10);
}

static int check_files(int64_t peers) {
    struct rlimit limit;
    rlim_t least = PROCESS_FILES_LEAST + PROCESS_FILES_A_PEER * (rlim_t)peers;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) getrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur >= least) return 0;
    return err_set(ERR_CONFIG,
                   PROCESS_LIMITED "a process may open %llu files here (ulimit -n, RLIMIT_NOFILE), and %llu are needed; raise the limit",
                   (unsigned long long)limit.rlim_cur, (unsigned long long)least);
}

static const char *limit_text(char *out, size_t size, int resource, unsigned shift) {
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    getrlimit(resource, &limit);
    if (limit.rlim_cur == RLIM_INFINITY) return "unlimited";
    snprintf(out, size, "%llu", (unsigned long long)limit.rlim_cur >> shift);
    return out;
}

static void *rest(void *gate) {
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

/* All of them are there at once. stack_bytes: 0 for the default. Returns how many could be started; *fault: why no more. */
static int try_threads(int *fault, int count, size_t stack_bytes) {
    pthread_t thread[PROCESS_THREADS_TRIED];
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_attr_t attributes;
    int started = 0;
    pthread_attr_init(&attributes);
    if (stack_bytes) pthread_attr_setstacksize(&attributes, stack_bytes);
    pthread_mutex_lock(&gate);
    while (started < count && (*fault = pthread_create(&thread[started], &attributes, rest, &gate)) == 0) started++;
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < started; i++) pthread_join(thread[i], NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

static int need_threads(int count, size_t stack_bytes) {
    int fault = 0, started = try_threads(&fault, count, stack_bytes);
    if (fault == 0) return 0;
    char processes[32], memory[32];
    return err_set(ERR_CONFIG,
                   PROCESS_LIMITED
                   "%d of %d threads that are needed could be started: %s; one of the limits is too small: ulimit -u (processes and "
                   "threads of the user) is %s, ulimit -v (address space, KiB) is %s, or the control group's pids.max",
                   started, count, strerror(fault), limit_text(processes, sizeof processes, RLIMIT_NPROC, 0),
                   limit_text(memory, sizeof memory, RLIMIT_AS, 10));
}

int process_check_threads(int count) { return need_threads(count, 0); }

/* Some with whole stacks, for the limit of address space; all of them with the least of a stack, for the limits of their number. */
static int check_threads(int64_t threads) {
    TRY(need_threads(PROCESS_THREADS_LEAST, 0));
    if (threads <= PROCESS_THREADS_LEAST) return 0;
    return need_threads(threads < PROCESS_THREADS_TRIED ? (int)threads : PROCESS_THREADS_TRIED, PROCESS_STACK_LEAST);
}

int process_check_limits(int64_t peers, int64_t threads) {
    TRY(check_files(peers));
    return check_threads(threads);
}

void process_tell_reading(void) {
    if (isatty(STDIN_FILENO)) fprintf(stderr, "reading standard input; Ctrl-D ends it\n");
}

void process_last_words(const char *text) {
    const char *told = getenv(PROCESS_LAST_WORDS);
    int fd = told ? atoi(told) : -1;
    if (fd <= STDERR_FILENO) return;
    size_t size = strlen(text);
    if (pwrite(fd, text, size, 0) != (ssize_t)size || ftruncate(fd, (off_t)size) != 0) return; /* the log has it, perhaps */
}
