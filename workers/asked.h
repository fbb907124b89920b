/* What this worker asked whom, so that only answers to that, and no larger ones, come to the work thread. asked_note() when a READ is
 * sent, asked_open() before an answer is unpacked, asked_take() when it is. The network thread's alone. Pure. */
#ifndef MILLRACE_WORKERS_ASKED_H
#define MILLRACE_WORKERS_ASKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/reads.h"

/* Questions that nobody waits for any more stay until their answer comes, or newer ones need the room. */
enum { ASKED_MAX = 4 * READS_MAX };

struct question {
    uint64_t peer, id;   /* id 0: free */
    size_t bytes_max;    /* of the answer's chunk */
    uint64_t age;
};

struct asked {
    struct question question[ASKED_MAX];
    uint64_t newest;
};

size_t asked_bytes(const Millrace__Read *read);  /* the most that its answer may have */
void asked_note(struct asked *asked, uint64_t peer, uint64_t id, size_t bytes_max);  /* again is fine */
bool asked_open(const struct asked *asked, uint64_t peer, uint64_t id);
/* The answer came: false when nobody asked this peer, or for less. */
bool asked_take(struct asked *asked, uint64_t peer, uint64_t id, size_t bytes);

#endif
