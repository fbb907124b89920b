/* Errors: one small vocabulary of codes, and a text for people that travels beside the code.
 *
 * A function that can fail returns 0 or a negative ERR_*. Whoever finds the fault calls err_set() with what, where and
 * what to do; whoever forwards it may prepend context with err_add(); whoever handles it reads err_text(). The text is
 * per thread and holds until that thread's next err_set(). Whoever keeps an error for later, or hands it to another thread, takes it
 * as a value (struct err). At the level debug the log has a line for each place that sets or forwards one. Outputs stay untouched
 * on failure. */
#ifndef MILLRACE_BASE_ERR_H
#define MILLRACE_BASE_ERR_H

#include <stdbool.h>

enum {
    ERR_NONE = 0,
    ERR_USAGE = -1,       /* the command line is wrong */
    ERR_CONFIG = -2,      /* pipeline.yaml is wrong, or does not fit what is there */
    ERR_IO = -3,          /* the operating system refused a file or socket operation */
    ERR_NOSPACE = -4,     /* disk or quota full */
    ERR_CORRUPT = -5,     /* bytes do not fit their digest, format or length */
    ERR_LIMIT = -6,       /* a named limit was crossed */
    ERR_PEER = -7,        /* a peer broke the protocol or refused us */
    ERR_STALE = -8,       /* fenced: belongs to an earlier generation, attempt, view or step */
    ERR_NOTFOUND = -9,    /* no such thing */
    ERR_MEMORY = -10,     /* allocation failed */
    ERR_INTERRUPTED = -11,/* a person asked to stop */
    ERR_TIMEOUT = -12,    /* no answer in time */
    ERR_UNSUPPORTED = -13,/* known, and not available here */
    ERR_DENIED = -14,     /* the operating system refuses it and will again: permissions, a read-only disk, something else of that name */
};

/* Of an error's text, with its NUL: a longer one is cut. It is for people, and this is a screen of lines. Who keeps a text keeps all of
 * it: what to do stands at its end. */
enum { ERR_TEXT_BYTES = 4096 };

/* Stores the formatted text for this thread and returns `code`, so that `return err_set(ERR_IO, ...)` reads well. */
#define err_set(...) err_negative(err_set_at(__FILE__, __LINE__, __VA_ARGS__))

/* Prepends "context: " to the stored text and returns `code`. */
#define err_add(...) err_negative(err_add_at(__FILE__, __LINE__, __VA_ARGS__))

/* As err_set(), with ": strerror(errno)" appended; ENOSPC and EDQUOT become ERR_NOSPACE, ENOENT ERR_NOTFOUND, what stands in
 * the way until somebody takes it away (EACCES, EROFS, ENOTDIR, ELOOP, EFBIG ...) ERR_DENIED, others ERR_IO. */
#define err_errno(...) err_negative(err_errno_at(__FILE__, __LINE__, __VA_ARGS__))

/* An error as a value: code, text, and where it was set. */
struct err {
    int code;                  /* 0: none */
    int line;
    const char *file;          /* a constant */
    char text[ERR_TEXT_BYTES];
};
struct err err_take(void);              /* this thread's last one */
int err_give(const struct err *err);    /* makes it this thread's last one, and returns its code */

/* May the same work later, though nobody does anything about it? A full disk gets room; a folder that may not be written stays so. */
bool err_passes(int code);

/* The text of this thread's last error; never NULL. */
const char *err_text(void);

/* The process exit code for an ERR_*: 0 done, 1 failed, 2 usage or config, 130 interrupted. */
int err_exit_code(int code);

/* Forwards a failure to the caller. */
#define TRY(expression)                        \
    do {                                       \
        int try_code_ = (expression);          \
        if (try_code_ < 0) return try_code_;   \
    } while (0)

/* An assertion about our own code; stays on in release builds. */
#define CHECK(condition) ((condition) ? (void)0 : err_check_failed(#condition, __FILE__, __LINE__))
_Noreturn void err_check_failed(const char *condition, const char *file, int line);

/* An error is negative: asserted, and so known to the compiler and to analyzers wherever one is set and forwarded. */
static inline int err_negative(int code) {
    CHECK(code < 0);
    return code;
}

/* Behind the macros above. */
int err_set_at(const char *file, int line, int code, const char *format, ...) __attribute__((format(printf, 4, 5)));
int err_add_at(const char *file, int line, int code, const char *format, ...) __attribute__((format(printf, 4, 5)));
int err_errno_at(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
