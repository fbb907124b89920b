/* Which members of archives are taken: the globs of `members`. Pure. */
#ifndef MILLRACE_DATASET_MEMBERS_H
#define MILLRACE_DATASET_MEMBERS_H

#include <stdbool.h>

#include "config/config.h"

/* By its whole name, by that within the innermost archive, and by a glob without a slash also by its last part. No globs: every member. A
 * "!" parts names behind one that says that it is packed, as unpack_next() has it; elsewhere it is a letter. */
bool members_want(const struct source_group *group, const char *member);

/* "*" spans folders here, too; what stands before a name as two stars and a slash is for any number of them, none included. The work is
 * bounded by the square of the name's length for each part of the glob, whatever the name: it comes from the archive. */
bool members_match(const char *glob, const char *name);

#endif
