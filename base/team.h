/* All threads of a pool inside one task, going through its phases together. For work whose phases are so short (tens of microseconds) that
 * waking the pool for each would cost more than the phase.
 *
 * team_run() calls work(team, member, arg) on every thread of the pool, member 0 .. members - 1, and returns when all have returned. All
 * members make the same calls of team_share() in the same order, with the same number of items. As with pool_run(), results must depend
 * on the item number alone. */
#ifndef MILLRACE_BASE_TEAM_H
#define MILLRACE_BASE_TEAM_H

#include "base/pool.h"

struct team;

/* One for a pool, used by one team_run() at a time. */
int team_open(struct team **out, struct pool *pool);
void team_close(struct team *team); /* NULL is fine */

void team_run(struct team *team, void (*work)(struct team *team, int member, void *arg), void *arg);
int team_members(const struct team *team);

/* Calls work(arg, member, item) once for each item, on any member. Each begins with a run of neighbouring items of its own, from
 * team_first() on, and then helps the others. Returns when all items are done; what they wrote is seen by all. */
void team_share(struct team *team, int member, size_t items, void (*work)(void *arg, int member, size_t item), void *arg);
size_t team_first(const struct team *team, int member, size_t items);

/* team_share() in two. Between them a member has no items left and does what needs nobody else's. */
void team_work(struct team *team, int member, size_t items, void (*work)(void *arg, int member, size_t item), void *arg);
void team_wait(struct team *team, int member);

#endif
