/* A minute of the simulation in tests/sim: the shipped coordinator and workers, with everything going wrong that can. `make sim` does it
 * for longer, and shows one run again. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sim/scenario.h"
#include "tests/unit/proto/link_contract.h"

static uint64_t seed;
static enum wish wish; /* of all seeds */

static void on_abort(int signal_number) {
    (void)signal_number;
    fprintf(stderr, "an assertion failed: WISH=%d make sim SEED=%llu TRACE=1\n", (int)wish, (unsigned long long)seed);
    _exit(1);
}

#ifdef __SANITIZE_THREAD__ /* twenty times slower, and one thread has most of the work */
enum { KNOWN = 60, FRESH = 30 };
#else
enum { KNOWN = 700, FRESH = 300 };
#endif

static void run_scenarios(uint64_t first, uint64_t count) {
    struct sim *s = sim_open();
    s->wish = wish;
    signal(SIGABRT, on_abort);
    for (seed = first; seed < first + count; seed++)
        if (!scenario(s, seed)) fail_msg("WISH=%d make sim SEED=%llu TRACE=1: %s", (int)wish, (unsigned long long)seed, s->failure);
    signal(SIGABRT, SIG_DFL);
    sim_close(s);
}

static void any_disaster_ends_like_the_undisturbed_run(void **state) {
    (void)state;
    const char *given = getenv("MILLRACE_TEST_SEED");
    if (given) run_scenarios(strtoull(given, NULL, 10), 1);
    else run_scenarios(1, KNOWN);
}

/* It named whom it could not reach for ever, and was asked to begin anew at every tick. */
static void a_joiner_that_does_not_reach_everybody_comes_in_all_the_same(void **state) {
    (void)state;
    wish = WISH_WALLED;
    run_scenarios(1, 30);
    wish = WISH_NONE;
}

static void and_so_do_disasters_that_nobody_has_seen_yet(void **state) {
    (void)state;
    run_scenarios((uint64_t)clock_wall_ms(), FRESH);
}

/* Whatever came before, in this process or another. */
static void scenarios_are_the_same_each_time(void **state) {
    (void)state;
    enum { SEEDS = 5, FIRST = 4711 };
    uint64_t digest[SEEDS], events[SEEDS], drawn[SEEDS];
    int64_t now_ms[SEEDS];
    struct sim *s = sim_open();
    for (uint64_t i = 0; i < SEEDS; i++) {
        assert_true(scenario(s, FIRST + i));
        digest[i] = s->digest, events[i] = s->events, drawn[i] = s->drawn, now_ms[i] = s->now_ms;
    }
    sim_close(s);
    s = sim_open();
    for (uint64_t i = SEEDS; i-- > 0;) {
        assert_true(scenario(s, FIRST + i));
        assert_true(s->digest == digest[i] && s->events == events[i] && s->drawn == drawn[i] && s->now_ms == now_ms[i]);
    }
    sim_close(s);
}

/* How many of some runs the simulation calls broken when all workers have this defect. */
static int runs_broken_by(enum defect defect, enum wish wanted, const char *why, uint64_t runs) {
    struct sim *s = sim_open();
    int found = 0;
    s->defect = defect;
    s->wish = wanted;
    for (seed = 1; seed <= runs; seed++) found += !scenario(s, seed) && strstr(s->failure, why);
    sim_close(s);
    return found;
}

static void the_simulation_notices_what_it_must(void **state) {
    (void)state;
    assert_true(runs_broken_by(DEFECT_WRONG_SUM, WISH_NONE, "another gradient", 20) > 5);
    assert_true(runs_broken_by(DEFECT_FORGOTTEN_SLICE, WISH_NONE, "another gradient", 20) > 5);
    assert_true(runs_broken_by(DEFECT_DEAF, WISH_NONE, "not finished", 6) > 1);
    assert_true(runs_broken_by(DEFECT_UNNUMBERED, WISH_LOSSY, "not finished", 24) > 0);
    assert_true(runs_broken_by(DEFECT_UNTOLD, WISH_WALLED, "is said to give nothing", 12) > 1);
    assert_true(runs_broken_by(DEFECT_HASTY, WISH_GENTLE, "only asked to leave", 48) > 0);
}

/* ---- its links are links ---- */

static void (*test)(void **state);

static void *test_main(void *arg) {
    (void)arg;
    test(NULL);
    return NULL;
}

static void in_a_process(void (*function)(void **state)) {
    struct sim *s = sim_open();
    sim_reset(s, 1);
    s->plan = (struct plan){.delay_ms = 5};
    s->finished = true; /* the world ends with its processes */
    test = function;
    process_begin(&s->process[0], test_main);
    assert_true(run_events(s));
    sim_clear(s);
    sim_close(s);
}

static void simulated_links_answer_questions(void **state) {
    (void)state;
    in_a_process(questions_are_answered);
}

static void simulated_peers_that_left_are_not_found(void **state) {
    (void)state;
    in_a_process(peers_that_left_are_not_found);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(simulated_links_answer_questions),
        cmocka_unit_test(simulated_peers_that_left_are_not_found),
        cmocka_unit_test(scenarios_are_the_same_each_time),
        cmocka_unit_test(the_simulation_notices_what_it_must),
        cmocka_unit_test(any_disaster_ends_like_the_undisturbed_run),
        cmocka_unit_test(a_joiner_that_does_not_reach_everybody_comes_in_all_the_same),
        cmocka_unit_test(and_so_do_disasters_that_nobody_has_seen_yet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
