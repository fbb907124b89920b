/* Where a step's time goes: each operation of the model calls profile_lap() when it is done, and the time since the one before is its. Off,
 * and then one branch an operation, unless profile_start() was called. For the one thread that runs a model. */
#ifndef MILLRACE_MODEL_PROFILE_H
#define MILLRACE_MODEL_PROFILE_H

#include <stddef.h>

enum { PROFILE_LINES = 48 };

struct profile_line {
    const char *name;
    size_t calls;
    double seconds, cpu_seconds; /* of the clock; of all threads */
    double flop, bytes;          /* floating point operations done, bytes read and written at least; 0: not known */
};

void profile_start(void); /* forgets what was counted */
void profile_lap(const char *name, double flop, double bytes);

/* Stops; the lines in order of time, longest first. Returns how many there are. */
size_t profile_stop(struct profile_line out[PROFILE_LINES]);

#endif
