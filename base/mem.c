/* mem_alloc() and its like end the process when there is no memory, with the words and the exit code of whoever ends for an ERR_MEMORY;
 * mem_try() returns it. Large arrays are aligned to huge pages. */
#include "base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/err.h"
#include "base/process.h"

enum { HUGE_PAGE = 2 << 20, HUGE_FROM = 16 << 20 }; /* rounding up to huge pages costs an eighth at most */

/* What this process may have, where that is less than the machine's. */
static void limits_text(char *out, size_t size) {
    static const struct {
        int resource;
        const char *name;
    } limits[] = {{RLIMIT_AS, "ulimit -v"}, {RLIMIT_DATA, "ulimit -d"}};
    out[0] = 0;
    for (size_t i = 0, at = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit limit;
        if (getrlimit(limits[i].resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) continue;
        at += (size_t)snprintf(out + at, size - at, "; %s is %llu KiB", limits[i].name, (unsigned long long)limit.rlim_cur >> 10);
    }
}

int mem_wanted(size_t size_bytes, const char *what_for) {
    char limits[100];
    limits_text(limits, sizeof limits);
    return err_set(ERR_MEMORY, MEM_EXHAUSTED "%zu bytes%s were wanted%s", size_bytes, what_for, limits);
}

/* Not abort(): whoever started this process must see the want of memory, not a crash. */
static void *there(void *p, size_t size_bytes) {
    if (p) return p;
    mem_wanted(size_bytes, "");
    process_last_words(err_text());
    fprintf(stderr, "millrace: %s\n", err_text());
    _exit(err_exit_code(ERR_MEMORY));
}

void *mem_alloc(size_t size_bytes) { return there(calloc(1, size_bytes ? size_bytes : 1), size_bytes); }

void *mem_resize(void *old, size_t size_bytes) { return there(realloc(old, size_bytes ? size_bytes : 1), size_bytes); }

char *mem_text(const char *text) {
    size_t n = strlen(text) + 1;
    return memcpy(mem_alloc(n), text, n);
}

char *mem_format(const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(n >= 0);
    char *text = mem_alloc((size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

int mem_try(void *out_pointer, size_t count, size_t element_bytes) {
    size_t size;
    if (__builtin_mul_overflow(count, element_bytes, &size) || size > SIZE_MAX - 64)
        return err_set(ERR_MEMORY, MEM_EXHAUSTED "%zu elements of %zu bytes were wanted", count, element_bytes);
    size_t page = size >= HUGE_FROM ? HUGE_PAGE : 64;
    size = (size + page) & ~(page - 1);
    void *p = aligned_alloc(page, size);
    if (!p) return mem_wanted(size, "");
    if (page == HUGE_PAGE) madvise(p, size, MADV_HUGEPAGE); /* a wish: what it does to speed alone is all it does */
    memset(p, 0, size);
    memcpy(out_pointer, &p, sizeof p);
    return 0;
}
