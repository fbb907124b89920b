/* A few windows of runs, the least recently used goes first: documents that sources take turns in come from several runs at once. A window
 * reaches no further than the next extents need, so that documents from all over a dataset (best_fit) cost no bytes in vain. */
#include "dataset/shard/run_window.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

enum {
    WINDOWS = 8,                /* as many sources can take turns without reading anything twice */
    WINDOW_BYTES = 256 << 10,
    LOOK_AHEAD = 4096,          /* extents: of one token each, a part of a window */
    GAP_BYTES = 4 << 10,        /* what lies between two extents (a document left out) and is read with them */
};

struct window {
    uint32_t run;
    uint64_t begin, end;        /* tokens in the run; equal: nothing */
    uint64_t used;              /* grows with each use */
    uint8_t *bytes;             /* WINDOW_BYTES */
};

struct run_windows {
    const Millrace__PackJob *job;
    const struct run_reader *reader;
    uint64_t uses;
    struct window window[WINDOWS];
};

int run_windows_open(struct run_windows **out, const Millrace__PackJob *job, const struct run_reader *reader) {
    struct run_windows *windows = mem_alloc(sizeof *windows);
    windows->job = job;
    windows->reader = reader;
    int code = 0;
    for (int i = 0; i < WINDOWS && code == 0; i++) code = mem_try(&windows->window[i].bytes, WINDOW_BYTES, 1);
    if (code < 0) run_windows_close(windows);
    else *out = windows;
    return code;
}

void run_windows_close(struct run_windows *windows) {
    if (!windows) return;
    for (int i = 0; i < WINDOWS; i++) free(windows->window[i].bytes);
    free(windows);
}

static int read_run(const struct run_windows *windows, uint8_t *out, uint32_t run, uint64_t first, uint64_t count) {
    uint32_t token_bytes = windows->job->token_bytes;
    int code = windows->reader->read(windows->reader->arg, run, out, (size_t)count * token_bytes, first * token_bytes);
    return code < 0 ? err_add(code, "run %u", run) : 0;
}

static struct window *window_with(struct run_windows *windows, uint32_t run, uint64_t token) {
    struct window *oldest = &windows->window[0];
    for (int i = 0; i < WINDOWS; i++) {
        struct window *window = &windows->window[i];
        if (window->run == run && window->begin <= token && token < window->end) return window;
        if (window->used < oldest->used) oldest = window;
    }
    oldest->begin = oldest->end = 0;
    return oldest;
}

/* How far a window from `first` on should reach: over what the extent and the next ones need. */
static uint64_t reach(const struct run_windows *windows, size_t extent, uint64_t first) {
    const Millrace__PackJob *job = windows->job;
    uint64_t most = first + WINDOW_BYTES / job->token_bytes, gap = GAP_BYTES / job->token_bytes;
    uint64_t end = job->first[extent] + job->count[extent];
    for (size_t i = extent + 1; i < job->n_run && i - extent <= LOOK_AHEAD && end < most; i++) {
        bool next = job->run[i] == job->run[extent] && job->first[i] >= end && job->first[i] - end <= gap;
        if (next) end = job->first[i] + job->count[i];
    }
    return end < most ? end : most;
}

/* Where what holds the token ends; the token itself: nothing does. */
static uint64_t held_until(const struct window *window, size_t windows, uint32_t run, uint64_t token) {
    for (size_t i = 0; i < windows; i++)
        if (window[i].run == run && window[i].begin <= token && token < window[i].end) return window[i].end;
    return token;
}

/* Tells the reader which windows the extents will want next, as if none were dropped until then: mostly true, and else a few bytes that
 * come in vain. */
static void expect_next(const struct run_windows *windows, size_t extent, uint64_t token) {
    const Millrace__PackJob *job = windows->job;
    struct window next[RUN_READS_EXPECTED];
    size_t found = 0;
    if (!windows->reader->expect) return;
    for (size_t i = extent; i < job->n_run && i - extent <= LOOK_AHEAD; i++) {
        uint32_t run = job->run[i];
        uint64_t at = i == extent ? token : job->first[i], end = job->first[i] + job->count[i];
        while (at < end) {
            uint64_t until = held_until(windows->window, WINDOWS, run, at);
            if (until == at) until = held_until(next, found, run, at);
            if (until == at) {
                if (found == RUN_READS_EXPECTED) return;
                until = reach(windows, i, at);
                next[found++] = (struct window){.run = run, .begin = at, .end = until};
                windows->reader->expect(windows->reader->arg, run, (size_t)(until - at) * job->token_bytes, at * job->token_bytes);
            }
            at = until;
        }
    }
}

int run_windows_read(struct run_windows *windows, uint8_t *out, size_t extent, uint64_t done, uint64_t count) {
    const Millrace__PackJob *job = windows->job;
    uint64_t first = job->first[extent] + done;
    uint32_t run = job->run[extent], token_bytes = job->token_bytes;
    while (count > 0) {
        struct window *window = window_with(windows, run, first);
        if (window->end == 0) {
            uint64_t end = reach(windows, extent, first);
            TRY(read_run(windows, window->bytes, run, first, end - first));
            window->run = run, window->begin = first, window->end = end;
            expect_next(windows, extent, first);
        }
        window->used = ++windows->uses;
        uint64_t here = window->end - first < count ? window->end - first : count;
        memcpy(out, window->bytes + (first - window->begin) * token_bytes, (size_t)here * token_bytes);
        out += here * token_bytes, first += here, count -= here;
    }
    return 0;
}
