/* `make sim`: runs seeds one after the other and prints each that breaks. MILLRACE_TEST_SEED is the first seed, SCENARIOS their number;
 * with MILLRACE_TEST_TRACE everything that happens is printed. */
#include <unistd.h>

#include "tests/sim/scenario.h"

static uint64_t seed;

static void on_abort(int signal_number) {
    (void)signal_number;
    fprintf(stderr, "an assertion failed: make sim SEED=%llu TRACE=1\n", (unsigned long long)seed);
    _exit(1);
}

static uint64_t number(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

int main(void) {
    enum { SHOWN_MAX = 200 };
    uint64_t count = number("SCENARIOS", getenv("MILLRACE_TEST_TRACE") ? 1 : 10000), done = 0;
    uint64_t broken_ones = 0, events = 0, rollbacks = 0, evictions = 0, bars = 0, restarts = 0, commits = 0, joins = 0, segments = 0;
    uint64_t faults[FAULTS] = {0}, hit[FAULTS] = {0};
    struct sim *s = sim_open();
    s->wish = (enum wish)number("WISH", WISH_NONE);
    s->trace = getenv("MILLRACE_TEST_TRACE") != NULL;
    signal(SIGABRT, on_abort);
    seed = number("MILLRACE_TEST_SEED", (uint64_t)clock_wall_ms());
    printf("%llu scenarios from seed %llu\n", (unsigned long long)count, (unsigned long long)seed);
    fflush(stdout);
    int64_t began_ms = clock_wall_ms();
    for (; done < count && broken_ones < SHOWN_MAX; done++, seed++) {
        bool fine = scenario(s, seed);
        events += s->events, rollbacks += s->rollbacks, evictions += s->evictions, bars += s->bars, restarts += s->restarts - 1,
            commits += s->commits, joins += s->joins, segments += s->segments;
        for (int i = 0; i < FAULTS; i++) faults[i] += s->faults[i], hit[i] += s->faults[i] > 0;
        if (fine) continue;
        broken_ones++;
        printf("make sim SEED=%llu TRACE=1: %s\n", (unsigned long long)seed, s->failure);
        fflush(stdout);
    }
    sim_close(s);
    for (int i = 0; i < FAULTS; i++)
        printf("  %8llu times in %llu scenarios: %s\n", (unsigned long long)faults[i], (unsigned long long)hit[i], fault_names[i]);
    printf("%llu broken; %.1f scenarios a second; %llu events, %llu steps of %llu segments committed, %llu joins, "
           "%llu coordinator restarts, %llu roll-backs, %llu evictions, %llu times a member was not reached\n",
           (unsigned long long)broken_ones, (double)done * 1000 / (double)(clock_wall_ms() - began_ms + 1), (unsigned long long)events,
           (unsigned long long)commits, (unsigned long long)segments, (unsigned long long)joins, (unsigned long long)restarts,
           (unsigned long long)rollbacks, (unsigned long long)evictions, (unsigned long long)bars);
    return broken_ones ? 1 : 0;
}
