/* What became of the source files since a list of them was recorded. Pure. A listing has a line for each file: its name, a tab, and what
 * is another number when the file changed. No name has a tab or a line feed (sourcing.c). */
#ifndef MILLRACE_COORDINATOR_LISTING_H
#define MILLRACE_COORDINATOR_LISTING_H

#include "base/buf.h"

/* For a message: "a.txt and b.txt changed, c.txt came, d.txt, e.txt and 5 others went". A few names of each kind, in the order of their
 * bytes, long ones without their middle. The caller frees it; NULL: nothing. */
char *listing_difference(const struct buf *old, const struct buf *fresh);

#endif
