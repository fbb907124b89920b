/* The per-thread error text. Owns nothing else; never prints, except for a broken assertion. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char text[ERR_TEXT_BYTES];

int (err_set)(int code, const char *format, ...) {
    char fresh[ERR_TEXT_BYTES]; /* arguments may point into the old text */
    va_list args;
    va_start(args, format);
    vsnprintf(fresh, sizeof fresh, format, args);
    va_end(args);
    memcpy(text, fresh, sizeof text);
    return code;
}

int (err_add)(int code, const char *format, ...) {
    char fresh[ERR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(fresh, sizeof fresh, format, args);
    va_end(args);
    return err_set(code, "%s: %s", fresh, text);
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
    case EXDEV: return ERR_DENIED;
    default: return ERR_IO;
    }
}

int (err_errno)(const char *format, ...) {
    int saved = errno;
    char fresh[ERR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(fresh, sizeof fresh, format, args);
    va_end(args);
    return err_set(code_of(saved), "%s: %s", fresh, strerror(saved));
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

const char *err_text(void) { return text[0] ? text : "no error was recorded"; }

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
