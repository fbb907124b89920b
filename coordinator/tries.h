/* Who is left out of a step in which nothing moves, try by try, until it ends. Pure: trainer.c says who could have part, and leaves out
 * whom this chooses.
 *
 * First each member alone is left out, from the newest to the oldest; then the last of these and ever more of those that follow it, round
 * and round, until one is left; then all but one, each in turn. With n members these are 3n - 3 tries, and then they begin again. So
 * whoever is at fault, they are out together at one of the tries, as long as one is not. The next step in which nothing moves goes on
 * where this one came to its end. */
#ifndef MILLRACE_COORDINATOR_TRIES_H
#define MILLRACE_COORDINATOR_TRIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tries {
    size_t next;           /* which try comes next */
    uint64_t first_order;  /* of the member with which they begin; where that is gone, with the next older one */
};

struct tried {             /* a member that could have part */
    uint64_t order;        /* of coming */
    bool out;              /* is left out: at the try before, or with tries_next() at this one */
    bool decides;          /* is left out, and without it all others that are out were so in vain, or it alone did not end the step,
                              at the try before */
};

void tries_open(struct tries *tries);
/* members >= 2, in any order. true: a round begins, of which the first two are shorter than all. */
bool tries_next(struct tries *tries, struct tried *member, size_t members);
/* The step ended with so many left out, the last of whom has that order. What comes next is the one that was out, or, where more were, the
 * try before this one: it shows once more, in vain, who decides. */
void tries_ended(struct tries *tries, size_t outside, uint64_t order);

#endif
