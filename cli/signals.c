/* Signal handlers, and how signals that belong together are counted once. One wish to stop may come as several signals: to every process of
 * a job and once more from a parent that passes it on; to a process and then to its group, as timeout(1) does; when a terminal is closed
 * and when its shell ends. Ctrl-C is different: the kernel sends one SIGINT for each, and each counts, however fast they come. */
#include "cli/signals.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"

enum { SAME_WISH_MS = 40 }; /* between two calls of kill() in a row, also where the sender has to share its core */

static void (*ask_to_stop)(void), (*ask_to_save)(void);
static atomic_llong heard_ms[2];  /* of each sender, the parent and anybody else: when its last wish to stop came; 0: none came */
static atomic_int wishes[2], told;
static atomic_bool hung_up;

static long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* may be called by signal handlers */
    return 1 + now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Whether this signal repeats a wish that was counted already. */
static bool is_repeated(int number, bool kernel, bool parent) {
    if (kernel && number == SIGHUP) return atomic_exchange(&hung_up, true); /* a terminal is closed once */
    if (kernel) return false;
    long long now = now_ms(), before = atomic_exchange(&heard_ms[parent], now);
    return before && now - before < SAME_WISH_MS;
}

static void on_stop(int number, siginfo_t *info, void *context) {
    (void)context;
    bool kernel = info->si_code > 0, parent = !kernel && info->si_pid == getppid();
    if (is_repeated(number, kernel, parent)) return;
    if (atomic_fetch_add(&wishes[parent], 1) + 1 <= atomic_load(&told)) return; /* the other sender said so before */
    atomic_fetch_add(&told, 1);
    ask_to_stop();
}

static void on_save(int number) {
    (void)number;
    if (ask_to_save) ask_to_save();
}

void signals_take(void (*stop)(void), void (*save)(void)) {
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
    ask_to_stop = stop;
    ask_to_save = save;
    struct sigaction ending = {.sa_sigaction = on_stop, .sa_flags = SA_SIGINFO}, saving = {.sa_handler = on_save}, before;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) sigaddset(&ending.sa_mask, ends[i]);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        sigaction(ends[i], NULL, &before);
        if (before.sa_handler == SIG_IGN) continue; /* SIGHUP under nohup, SIGINT in the background of a shell: process_begin() */
        sigaction(ends[i], &ending, NULL);
    }
    sigaction(SIGUSR1, &saving, NULL);
}

int signals_anew(int code) { return err_set(code, "%s; leave --restart out then: it would begin from nothing again", err_text()); }

int signals_home(int code) {
    return err_set(code, "%s; any workers were sent home: start them again, too", err_text());
}
