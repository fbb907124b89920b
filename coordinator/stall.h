/* Is anything finished, and what is waited for when nothing is? Pure: what is done and the time go in as arguments, and the trainer is only
 * read. waiting.c asks in each turn of the loop and puts the answer into words; docs/PROTOCOL.md, "What a step waits for", has all of them
 * with what ends each. */
#ifndef MILLRACE_COORDINATOR_STALL_H
#define MILLRACE_COORDINATOR_STALL_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/trainer.h"

enum {
    WAIT_OTHERS_MAX = 3,   /* more names than that do not help who reads them */
    STALL_USUAL = 5,       /* so many times the usual interval between two things that are finished, */
    STALL_MS = 10000,      /* and that much more, may pass before it is called a stall */
};

struct stall {             /* zeros: not begun */
    uint64_t stage, done;
    int64_t moved_ms;      /* when something was finished last */
    int64_t usual_ms;      /* between two such times in this stage; 0: nothing was finished in it yet */
};

/* Whether nothing was finished for too long. `done` is any number that changes with each job, step, evaluation and checkpoint. */
bool stall_look(struct stall *stall, uint64_t stage, uint64_t done, int64_t now_ms);

enum wait_kind { WAIT_WORKERS, WAIT_SLICE, WAIT_SUM, WAIT_JOIN, WAIT_APPLY, WAIT_SAVE, WAIT_EVALUATION, WAIT_NOTHING };

struct wait {              /* what the next step waits for */
    enum wait_kind kind;
    uint64_t step;
    uint32_t worker, slice;  /* where the kind has them */
    size_t members;          /* SUM: of the view, */
    size_t others;           /* those that lack it beside `worker`, */
    uint32_t other[WAIT_OTHERS_MAX]; /* and the first of these, as workers */
};
struct wait stall_wait(const struct trainer *trainer);

#endif
