/* A fixed set of threads that share out numbered items of one task at a time.
 *
 * pool_run() calls work(arg, item) once for each item in [0, items), on any thread in any order, and returns when all are
 * done; the caller's thread takes part. Results must depend on the item number alone, never on the thread: that is what
 * keeps bits the same for any thread count. Each thread sets the floating-point state (no flush-to-zero) when it starts.
 * As many items as threads may wait for each other: each is then on a thread of its own (base/team.h does so).
 * One pool_run() at a time; not from inside work(). pool_open(1) starts no threads. */
#ifndef MILLRACE_BASE_POOL_H
#define MILLRACE_BASE_POOL_H

#include <stddef.h>

struct pool;

enum { POOL_THREADS_MAX = 256 };

/* ERR_LIMIT when a thread cannot be started; the text ends with what to lower: the option or key that the number came from. */
int pool_open_from(struct pool **out, int threads, const char *option);
int pool_open(struct pool **out, int threads);  /* from nowhere that a person could change */
void pool_run(struct pool *pool, size_t items, void (*work)(void *arg, size_t item), void *arg);
/* tick(arg) is called by whoever calls pool_run(), after each item that it did itself: all that is computed long shows that it moves.
 * NULL: nobody wants to know. */
void pool_on_tick(struct pool *pool, void (*tick)(void *arg), void *arg);
int pool_threads(const struct pool *pool);
void pool_close(struct pool *pool);  /* NULL is fine */

#endif
