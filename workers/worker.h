/* The worker daemon, as the command line sees it: takes jobs from a coordinator and takes part in training. It needs nothing but the
 * coordinator's address, and its own where others are on other machines: text, tokens, gradients and checkpoints come and go as messages,
 * and what it keeps meanwhile is in memory or in unnamed temporary files.
 *
 * Two threads: the network thread (agent.c) moves messages, says that the worker lives and answers reads of what the work thread has made;
 * the work thread (work.c) does jobs and steps, one thing at a time, and spreads computing over a pool. struct worker, which both share,
 * and the functions on it (worker_send() and the like) are in shared.h. */
#ifndef MILLRACE_WORKERS_WORKER_H
#define MILLRACE_WORKERS_WORKER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct worker_options {
    const char *connect;     /* the coordinator's endpoint */
    const char *bind;        /* where others come in; NULL: a free port of 127.0.0.1. endpoint_toward() knows a better one */
    const char *advertise;   /* what they are told (endpoint_announce()); NULL: where `bind` is */
    int64_t grace_ms;        /* how long it stays after worker_stop() while its coordinator needs it */
    int64_t later_ms;        /* and how much longer than that, silently: the coordinator may take as long as its own grace */
    const volatile sig_atomic_t *stops; /* how often this worker was asked to leave; NULL: as often as worker_stop() was called */
    int threads;             /* 0: as pipeline.yaml says (threads_per_worker) */
    bool insecure;           /* allow addresses beyond loopback */
};

/* Serves until the coordinator sends it home (0), worker_stop() is called (ERR_INTERRUPTED), it is refused for good (ERR_PEER), or the
 * coordinator comes with another pipeline than before (WORKER_AGAIN: call it again, nothing that was here fits any more). After
 * ERR_INTERRUPTED a thread may still compute, with memory that stays: the process ends with _exit(). */
enum { WORKER_AGAIN = 1 };
#define WORKER_REFUSED "refused by the coordinator: " /* how the text of ERR_PEER begins */
int worker_run(const struct worker_options *options);

/* From a signal handler. Once: the coordinator is told, and sends it home when nothing that is needed is here alone, at the latest when
 * the grace is over. Twice: leaves at once. */
void worker_stop(void);

#endif
