/* Owns one struct err for each thread, the last one that was set there. err_set(), err_add() and err_errno() write it; err_take() and
 * err_give() copy it out and back. At the level debug each writing is also a line of the log. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static _Thread_local struct err last;

static int set(const char *file, int line, int code, const char *text) {
    last.code = code;
    last.file = file;
    last.line = line;
    snprintf(last.text, sizeof last.text, "%.*s", ERR_TEXT_BYTES - 1, text);
    int number = errno; /* the caller's still */
    log_debug("error %d at %s:%d: %s", code, file, line, text);
    errno = number;
    return code;
}

int err_set_at(const char *file, int line, int code, const char *format, ...) {
    char fresh[ERR_TEXT_BYTES]; /* arguments may point into the old text */
    va_list args;
    va_start(args, format);
    vsnprintf(fresh, sizeof fresh, format, args);
    va_end(args);
    return set(file, line, code, fresh);
}

int err_add_at(const char *file, int line, int code, const char *format, ...) {
    char context[ERR_TEXT_BYTES], fresh[2 * ERR_TEXT_BYTES + 2];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    snprintf(fresh, sizeof fresh, "%s: %s", context, last.text);
    return set(file, line, code, fresh);
}

static int code_of(int number) {
    switch (number) {
    case ENOSPC:
    case EDQUOT: return ERR_NOSPACE;
    case ENOENT: return ERR_NOTFOUND;
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
    case EEXIST:
    case ENOTEMPTY:
    case ENAMETOOLONG:
    case EXDEV:
    case EFBIG: return ERR_DENIED;
    default: return ERR_IO;
    }
}

int err_errno_at(const char *file, int line, const char *format, ...) {
    int number = errno;
    char context[ERR_TEXT_BYTES], fresh[ERR_TEXT_BYTES + 128];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    const char *advice = number == EMFILE ? "; it passes when others are closed, or see ulimit -n"
                         : number == ENFILE ? "; it passes when others are closed, or see sysctl fs.file-max"
                         : number == EFBIG ? "; see ulimit -f, or the file system's longest file" : "";
    snprintf(fresh, sizeof fresh, "%s: %s%s", context, strerror(number), advice);
    return set(file, line, code_of(number), fresh);
}

struct err err_take(void) { return last; }

int err_give(const struct err *err) {
    last = *err;
    return last.code;
}

bool err_passes(int code) {
    switch (code) {
    case ERR_IO:
    case ERR_NOSPACE:
    case ERR_LIMIT:
    case ERR_PEER:
    case ERR_STALE:
    case ERR_MEMORY:
    case ERR_TIMEOUT: return true;
    default: return false;
    }
}

const char *err_text(void) { return last.text[0] ? last.text : "no error was recorded"; }

int err_exit_code(int code) {
    switch (code) {
    case ERR_NONE: return 0;
    case ERR_USAGE:
    case ERR_CONFIG: return 2;
    case ERR_INTERRUPTED: return 130;
    default: return 1;
    }
}

_Noreturn void err_check_failed(const char *condition, const char *file, int line) {
    fprintf(stderr, "millrace: %s:%d: this should always hold: %s\n", file, line, condition);
    abort();
}
