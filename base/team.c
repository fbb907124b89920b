/* A team adds two things to a pool's task: each member has a counter of the items of its own range that were taken, and all share one
 * barrier counter, which only grows.
 *
 * Threads: team_run() starts one task of as many items as there are threads, so each thread becomes a member. In a phase a member takes the
 * items of its own range, then those left in the others' (team_work()), and waits until all have arrived (team_wait()). The counters of
 * even and odd phases are separate, so that an owner can clear the next phase's while the others still use this one's. Waiting spins, then
 * yields: phases are short, but a member whose core another process took has to get it back. */
#include "base/team.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/err.h"
#include "base/mem.h"

enum { SPINS_MAX = 2000, LINE_BYTES = 64 };

/* Next item of a member's run, in the phases with even and with odd numbers: one is in use while its owner clears the other. */
struct member {
    _Alignas(LINE_BYTES) atomic_size_t taken[2];
    unsigned long phase; /* of this run; the owner's alone */
};

struct team {
    struct pool *pool;
    struct member *member; /* [members] */
    _Alignas(LINE_BYTES) atomic_ulong arrived;
    _Alignas(LINE_BYTES) void (*work)(struct team *, int, void *);
    void *arg;
};

int team_open(struct team **out, struct pool *pool) {
    struct team *team;
    TRY(mem_try(&team, 1, sizeof *team));
    team->pool = pool;
    int code = mem_try(&team->member, (size_t)pool_threads(pool), sizeof *team->member);
    if (code < 0) team_close(team);
    else *out = team;
    return code;
}

void team_close(struct team *team) {
    if (!team) return;
    free(team->member);
    free(team);
}

int team_members(const struct team *team) { return pool_threads(team->pool); }

static void run_member(void *arg, size_t item) {
    struct team *team = arg;
    team->work(team, (int)item, team->arg);
}

/* There are as many items as threads, and none of them ends before all have begun: each thread takes one. */
void team_run(struct team *team, void (*work)(struct team *team, int member, void *arg), void *arg) {
    team->work = work, team->arg = arg;
    atomic_store(&team->arrived, 0);
    for (int i = 0; i < team_members(team); i++) {
        team->member[i].phase = 0;
        for (int p = 0; p < 2; p++) atomic_store(&team->member[i].taken[p], 0);
    }
    pool_run(team->pool, (size_t)team_members(team), run_member, team);
}

size_t team_first(const struct team *team, int member, size_t items) { return items * (size_t)member / (size_t)team_members(team); }

void team_work(struct team *team, int member, size_t items, void (*work)(void *arg, int member, size_t item), void *arg) {
    int members = team_members(team);
    unsigned long phase = ++team->member[member].phase;
    atomic_store(&team->member[member].taken[(phase + 1) % 2], 0);
    for (int i = 0; i < members; i++) {
        int owner = (member + i) % members;
        size_t first = team_first(team, owner, items), count = team_first(team, owner + 1, items) - first;
        for (size_t n; (n = atomic_fetch_add(&team->member[owner].taken[phase % 2], 1)) < count;) work(arg, member, first + n);
    }
    atomic_fetch_add(&team->arrived, 1);
}

void team_wait(struct team *team, int member) {
    unsigned long all = team->member[member].phase * (unsigned long)team_members(team);
    for (int spins = 0; atomic_load(&team->arrived) < all; spins++) {
        if (spins >= SPINS_MAX) {
            sched_yield();
            continue;
        }
#if defined(__x86_64__)
        _mm_pause();
#endif
    }
}

void team_share(struct team *team, int member, size_t items, void (*work)(void *arg, int member, size_t item), void *arg) {
    team_work(team, member, items, work, arg);
    team_wait(team, member);
}
