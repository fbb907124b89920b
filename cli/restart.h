/* When a daemon that ended is started again. Pure: how it ended and how long it lived come in, the delay comes out.
 *
 * The delay grows for a daemon that fails soon after its start: starting it faster helps nobody and fills its log. One that was killed (by
 * a person, or by the kernel for its memory) was at work; the others wait for that work while it is gone, so it is started again at once,
 * however often that happens. */
#ifndef MILLRACE_CLI_RESTART_H
#define MILLRACE_CLI_RESTART_H

#include <stdbool.h>
#include <stdint.h>

enum {
    RESTART_FIRST_MS = 100,
    RESTART_LAST_MS = 10000,
    RESTART_AT_ONCE_MS = 1000,    /* it had hardly begun: started again and again it would do nothing else */
    RESTART_BORN_DEAD_MAX = 3,    /* once is bad luck, twice may be */
    RESTART_HEALTHY_MS = 20000,   /* it lived that long: what failed now has nothing to do with what failed before */
};

struct restart {
    int64_t delay_ms;             /* the last one; 0: none yet */
    unsigned born_dead;           /* crashes by itself, each at its very start, in a row */
    unsigned ends, failures;      /* one soon after the other: all of them, and those that were waited for longer and longer */
};

/* Did it end by itself: an exit code, or a signal that its own fault brought (SIGSEGV, SIGABRT, ...)? `status` is waitpid()'s. */
bool restart_own_fault(int status);

/* Notes how it ended. True: it crashed so often as soon as it was started that it always will. An exit code is no crash: it has a reason,
 * which may pass. */
bool restart_is_hopeless(struct restart *restart, int64_t lived_ms, int status);

/* Milliseconds to wait before it is started again. */
int64_t restart_delay(struct restart *restart, int64_t lived_ms, bool own_fault);

#endif
