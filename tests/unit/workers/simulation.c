/* A few seconds of the simulation in tests/sim: the shipped worker and the shipped decisions of the coordinator, with everything going
 * wrong that can. `make sim` does it for longer, and shows one run again. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sim/scenario.h"

static uint64_t seed;

static void on_abort(int signal_number) {
    (void)signal_number;
    fprintf(stderr, "an assertion failed: make sim SEED=%llu TRACE=1\n", (unsigned long long)seed);
    _exit(1);
}

static void run_scenarios(uint64_t first, uint64_t count) {
    struct sim *s = sim_open();
    signal(SIGABRT, on_abort);
    for (seed = first; seed < first + count; seed++)
        if (!scenario(s, seed)) fail_msg("make sim SEED=%llu TRACE=1: %s", (unsigned long long)seed, s->failure);
    signal(SIGABRT, SIG_DFL);
    sim_close(s);
}

static void any_disaster_ends_like_the_undisturbed_run(void **state) {
    (void)state;
    const char *given = getenv("MILLRACE_TEST_SEED");
    if (given) run_scenarios(strtoull(given, NULL, 10), 1);
    else run_scenarios(1, 1000);
}

/* A joiner named whom it could not reach for ever, and was asked to begin anew at every tick. */
static void a_joiner_that_does_not_reach_everybody_comes_in_all_the_same(void **state) {
    (void)state;
    run_scenarios(103758, 1);
}

static void and_so_do_disasters_that_nobody_has_seen_yet(void **state) {
    (void)state;
    run_scenarios((uint64_t)clock_wall_ms(), 500);
}

static void scenarios_are_the_same_each_time(void **state) {
    (void)state;
    struct sim *s = sim_open();
    assert_true(scenario(s, 4711));
    uint64_t events = s->events, drawn = s->drawn;
    int64_t now_ms = s->now_ms;
    assert_true(scenario(s, 4712) && scenario(s, 4711));
    assert_true(s->events == events && s->drawn == drawn && s->now_ms == now_ms);
    sim_close(s);
}

/* How many of some runs the simulation calls broken when all workers have this defect. */
static int runs_broken_by(enum defect defect, const char *why, uint64_t runs) {
    struct sim *s = sim_open();
    int found = 0;
    s->defect = defect;
    for (seed = 1; seed <= runs; seed++) found += !scenario(s, seed) && strstr(s->failure, why);
    sim_close(s);
    return found;
}

static void the_simulation_notices_what_it_must(void **state) {
    (void)state;
    assert_int_equal(runs_broken_by(DEFECT_NONE, "", 50), 0);
    assert_true(runs_broken_by(DEFECT_WRONG_SUM, "another gradient", 50) > 20);
    assert_true(runs_broken_by(DEFECT_FORGOTTEN_SLICE, "another gradient", 50) > 20);
    assert_true(runs_broken_by(DEFECT_DEAF, "not finished", 20) > 10);
    assert_true(runs_broken_by(DEFECT_UNNUMBERED, "not finished", 200) > 2);
    assert_true(runs_broken_by(DEFECT_UNTOLD, "not finished", 200) > 2);
    assert_true(runs_broken_by(DEFECT_HASTY, "only asked to leave", 200) > 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_disaster_ends_like_the_undisturbed_run),
        cmocka_unit_test(a_joiner_that_does_not_reach_everybody_comes_in_all_the_same),
        cmocka_unit_test(and_so_do_disasters_that_nobody_has_seen_yet),
        cmocka_unit_test(scenarios_are_the_same_each_time),
        cmocka_unit_test(the_simulation_notices_what_it_must),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
