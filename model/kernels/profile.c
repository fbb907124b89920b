/* Laps between operations, added up by name. */
#include "model/kernels/profile.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/err.h"

static struct {
    bool on;
    double last, last_cpu;
    struct profile_line line[PROFILE_LINES];
    size_t lines;
} profile;

static double cpu_seconds(void) {
    struct timespec t;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void profile_start(void) {
    memset(&profile, 0, sizeof profile);
    profile.on = true, profile.last = clock_seconds(), profile.last_cpu = cpu_seconds();
}

void profile_lap(const char *name, double flop, double bytes) {
    if (!profile.on) return;
    size_t i = 0;
    while (i < profile.lines && strcmp(profile.line[i].name, name) != 0) i++;
    if (i == profile.lines) {
        CHECK(profile.lines < PROFILE_LINES);
        profile.line[profile.lines++].name = name;
    }
    struct profile_line *line = &profile.line[i];
    double now = clock_seconds(), cpu = cpu_seconds();
    line->calls++, line->flop += flop, line->bytes += bytes;
    line->seconds += now - profile.last, line->cpu_seconds += cpu - profile.last_cpu;
    profile.last = now, profile.last_cpu = cpu;
}

static int longest_first(const void *left, const void *right) {
    double l = ((const struct profile_line *)left)->seconds, r = ((const struct profile_line *)right)->seconds;
    return (l < r) - (l > r);
}

size_t profile_stop(struct profile_line out[PROFILE_LINES]) {
    profile.on = false;
    qsort(profile.line, profile.lines, sizeof *profile.line, longest_first);
    memcpy(out, profile.line, sizeof profile.line);
    return profile.lines;
}
