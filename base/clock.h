/* Time. Deciding uses the monotonic clock alone and gets it as an argument; wall time is for people. */
#ifndef MILLRACE_BASE_CLOCK_H
#define MILLRACE_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_ms(void);             /* monotonic milliseconds; never goes back */
double clock_seconds(void);         /* monotonic seconds, for measuring */
int64_t clock_wall_ms(void);        /* since 1970; may jump */
void clock_sleep_ms(int64_t ms);
void clock_stamp(char out[32]);     /* "2026-01-31T12:00:00.123Z" of now */

/* A time since when something is waited for, when for pause_ms up to now nobody looked whether it came: that long was no waiting. */
static inline int64_t clock_since(int64_t since_ms, int64_t pause_ms, int64_t now_ms) {
    if (since_ms >= now_ms) return since_ms;
    return since_ms + pause_ms < now_ms ? since_ms + pause_ms : now_ms;
}

#endif
