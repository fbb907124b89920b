/* Random numbers for tests: a stream from one seed, which is printed, and can be given by MILLRACE_SEED to see a failure again. */
#ifndef MILLRACE_TESTS_UNIT_RANDOM_H
#define MILLRACE_TESTS_UNIT_RANDOM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/philox.h"

struct random {
    uint64_t seed, count;
};

static inline struct random random_open(const char *test) {
    const char *given = getenv("MILLRACE_SEED");
    struct random random = {.seed = given ? strtoull(given, NULL, 10) : (uint64_t)clock_wall_ms()};
    print_message("%s: MILLRACE_SEED=%llu\n", test, (unsigned long long)random.seed);
    return random;
}

static inline uint64_t random_next(struct random *random) {
    struct philox_block block = philox(random->seed, 0, random->count++);
    return (uint64_t)block.word[0] << 32 | block.word[1];
}

/* In [low, high]. */
static inline uint64_t random_in(struct random *random, uint64_t low, uint64_t high) {
    CHECK(low <= high && high - low < UINT64_MAX);
    return low + random_next(random) % (high - low + 1);
}

#endif
