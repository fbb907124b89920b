/* `make sim`: runs seeds one after the other and prints each that breaks. MILLRACE_TEST_SEED is the first seed, SCENARIOS their number;
 * with MILLRACE_TEST_TRACE everything that happens is printed. */
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/sim/scenario.h"

static uint64_t seed;

static void on_abort(int signal_number) {
    (void)signal_number;
    fprintf(stderr, "MILLRACE_TEST_SEED=%llu: an assertion failed\n", (unsigned long long)seed);
    _exit(1);
}

static uint64_t number(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

int main(void) {
    enum { SHOWN_MAX = 200 };
    uint64_t count = number("SCENARIOS", getenv("MILLRACE_TEST_TRACE") ? 1 : 20000);
    uint64_t broken_ones = 0, events = 0, rollbacks = 0, evictions = 0, bars = 0, restarts = 0, commits = 0, leaves = 0, saves = 0;
    struct sim *s = sim_open();
    s->trace = getenv("MILLRACE_TEST_TRACE") != NULL;
    signal(SIGABRT, on_abort);
    seed = number("MILLRACE_TEST_SEED", (uint64_t)clock_wall_ms());
    printf("%llu scenarios from seed %llu\n", (unsigned long long)count, (unsigned long long)seed);
    double began = clock_seconds();
    for (uint64_t i = 0; i < count && broken_ones < SHOWN_MAX; i++, seed++) {
        bool fine = scenario(s, seed);
        events += s->events, rollbacks += s->rollbacks, evictions += s->evictions, bars += s->bars, restarts += s->restarts - 1,
            commits += s->commits, leaves += s->leaves, saves += s->saves;
        if (fine) continue;
        broken_ones++;
        printf("MILLRACE_TEST_SEED=%llu%s: %s\n", (unsigned long long)seed, s->plan.harsh ? " (harsh)" : "", s->failure);
    }
    sim_close(s);
    printf("%llu broken; %.0f scenarios a minute; %llu events, %llu commits, %llu coordinator restarts, %llu roll-backs, %llu evictions, "
           "%llu times a member was not reached, %llu workers asked to leave, %llu saves asked for\n",
           (unsigned long long)broken_ones, (double)count / (clock_seconds() - began) * 60, (unsigned long long)events,
           (unsigned long long)commits, (unsigned long long)restarts, (unsigned long long)rollbacks, (unsigned long long)evictions,
           (unsigned long long)bars, (unsigned long long)leaves, (unsigned long long)saves);
    return broken_ones ? 1 : 0;
}
