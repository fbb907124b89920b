/* Owns the name of the process and the lowest level that is logged, both set once by log_setup(). Each line is one write(2), so lines of
 * several threads and processes do not mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/plain.h"

enum { LINE_MAX_BYTES = 2048 };

static char name[32] = "millrace";
static enum log_level threshold = LOG_INFO;

void log_setup(const char *who, enum log_level lowest) {
    snprintf(name, sizeof name, "%s", who);
    threshold = lowest;
}

void log_line(enum log_level level, const char *format, ...) {
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    if (level < threshold) return;
    char stamp[32], said[LINE_MAX_BYTES], line[LINE_MAX_BYTES];
    clock_stamp(stamp);
    int n = snprintf(line, sizeof line, "%s %s %s ", stamp, levels[level], name);
    va_list args;
    va_start(args, format);
    vsnprintf(said, sizeof said, format, args);
    va_end(args);
    plain_text(line + n, sizeof line - (size_t)n - 1, said, false); /* part of it may be a peer's word */
    size_t size = strlen(line);
    line[size++] = '\n';
    if (write(STDERR_FILENO, line, size) < 0) return; /* there is no other place to report it */
}
