/* When a daemon is started again: the delay doubles while it ends soon after each start. */
#include "cli/restart.h"

#include <signal.h>
#include <sys/wait.h>

bool restart_own_fault(int status) {
    if (!WIFSIGNALED(status)) return true;
    switch (WTERMSIG(status)) {
    case SIGSEGV:
    case SIGABRT:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGSYS:
    case SIGTRAP: return true;
    default: return false;
    }
}

bool restart_is_hopeless(struct restart *restart, int64_t lived_ms, int status) {
    bool born_dead = WIFSIGNALED(status) && restart_own_fault(status) && lived_ms < RESTART_AT_ONCE_MS;
    restart->born_dead = born_dead ? restart->born_dead + 1 : 0;
    return restart->born_dead >= RESTART_BORN_DEAD_MAX;
}

int64_t restart_delay(struct restart *restart, int64_t lived_ms, bool own_fault) {
    if (lived_ms > RESTART_HEALTHY_MS) *restart = (struct restart){0};
    bool back_off = own_fault || lived_ms < RESTART_AT_ONCE_MS;
    restart->ends++;
    restart->failures += back_off;
    if (!back_off || restart->delay_ms == 0) restart->delay_ms = RESTART_FIRST_MS;
    else restart->delay_ms = restart->delay_ms * 2 < RESTART_LAST_MS ? restart->delay_ms * 2 : RESTART_LAST_MS;
    return restart->delay_ms;
}
