/* The team: every item of every phase once, and what a phase wrote is there in the next. Run it under ThreadSanitizer too. */
#include "base/team.h"

#include <stdatomic.h>
#include <string.h>

#include "tests/unit/random.h"

enum { PHASES = 400, ITEMS_MAX = 97 };

struct phases {
    size_t items[PHASES];
    uint64_t number[ITEMS_MAX]; /* plain memory, written by one member and read by another a phase later */
    atomic_size_t done;
    int phase_of[64]; /* [member] */
};

static void add_neighbour(void *arg, int member, size_t item) {
    struct phases *p = arg;
    (void)member;
    p->number[item] = p->number[item] * 3 + item;
    atomic_fetch_add(&p->done, 1);
}

static void reverse(void *arg, int member, size_t item) { /* item reads and writes what others had in the phase before */
    struct phases *p = arg;
    (void)member;
    size_t other = ITEMS_MAX - 1 - item;
    if (item >= other) return;
    uint64_t swap = p->number[item];
    p->number[item] = p->number[other], p->number[other] = swap;
}

static void go_through(struct team *team, int member, void *arg) {
    struct phases *p = arg;
    for (int i = 0; i < PHASES; i++) {
        team_share(team, member, p->items[i], add_neighbour, p);
        team_share(team, member, ITEMS_MAX, reverse, p);
        p->phase_of[member]++;
    }
}

static void every_phase_is_done_before_the_next(void **state) {
    (void)state;
    struct random random = random_open("every_phase_is_done_before_the_next");
    static struct phases p, one;
    for (int threads = 1; threads <= 5; threads++) {
        struct pool *pool;
        struct team *team;
        assert_int_equal(pool_open(&pool, threads), 0);
        assert_int_equal(team_open(&team, pool), 0);
        assert_int_equal(team_members(team), threads);
        for (int round = 0; round < 3; round++) {
            size_t total = 0;
            memset(&p, 0, sizeof p);
            for (int i = 0; i < PHASES; i++) {
                p.items[i] = threads == 1 ? (size_t)random_in(&random, 0, ITEMS_MAX) : one.items[i];
                total += p.items[i];
            }
            team_run(team, go_through, &p);
            if (threads == 1) one = p;
            assert_int_equal(atomic_load(&p.done), total);
            for (int member = 0; member < threads; member++) assert_int_equal(p.phase_of[member], PHASES);
            assert_memory_equal(p.number, one.number, sizeof p.number);
        }
        team_close(team);
        pool_close(pool);
    }
    team_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_phase_is_done_before_the_next)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
