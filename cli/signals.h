/* What signals ask of a process of millrace: to end (SIGINT, SIGTERM, SIGHUP: Ctrl-C, systemd, Slurm, a closed terminal), or to save and go
 * on (SIGUSR1, which Slurm can send some time before the end). */
#ifndef MILLRACE_CLI_SIGNALS_H
#define MILLRACE_CLI_SIGNALS_H

#include <stdbool.h>

enum {
    GRACE_DEFAULT_SECONDS = 25, /* Slurm kills 30 s after it asked (KillWait) */
    GRACE_SECONDS_MAX = 86400,
    GRACE_WORKER_MS = 1000,     /* how much longer workers stay than their coordinator takes */
    GRACE_RUN_MS = 4000,        /* and `millrace run`, which waits for all of them; still less than Slurm's 30 s */
};

/* From now on stop() is called when the process is asked to end, and again when it is asked once more, which means at once; save() (NULL:
 * nothing) when it is to save. Both from a signal handler. Each Ctrl-C that is typed counts;
 * what else a sender says twice at once is said once. SIGHUP and SIGINT stay ignored where they were: under nohup,
 * and in the background of a shell without job control. */
void signals_take(void (*stop)(void), void (*save)(void));

/* The words of a stop for who started the workers by hand: adds to the error's text that they are to be started again. Returns `code`. */
int signals_home(int code);
int signals_anew(int code); /* the same for who began anew with --restart: the same command would do so again */

#endif
