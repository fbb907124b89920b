/* Builds a shard file from a pack job: tokens are read from token runs (struct token_run_windows) into one frame's memory (struct builder),
 * compressed and written. Only the index grows: some 100 bytes for a frame, 80 for a document. The job comes from outside and is checked as
 * it is used. The output is never read back: it may be a socket. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/shard/shard.h"
#include "dataset/shard/shard_index.h"

/* ---- Reading token runs ----
 *
 * A few windows of token runs, the least recently used goes first: documents that sources take turns in come from several token runs at
 * once. A window reaches no further than the next extents need, so that documents from all over a dataset (best_fit) cost no bytes in
 * vain. */

#ifndef RUN_WINDOW_BYTES /* the simulation builds the same code with small ones */
enum { RUN_WINDOW_BYTES = 256 << 10 };
#endif
enum {
    WINDOWS = 8,                /* as many sources can take turns without reading anything twice */
    LOOK_AHEAD = 4096,          /* extents: of one token each, a part of a window */
    GAP_BYTES = 4 << 10,        /* what lies between two extents (a document left out) and is read with them */
};

struct window {
    uint32_t run;
    uint64_t begin, end;        /* tokens in the token run; equal: nothing */
    uint64_t used;              /* grows with each use */
    uint8_t *bytes;             /* RUN_WINDOW_BYTES */
};

struct token_run_windows {
    const Millrace__PackJob *job;
    const struct token_run_reader *reader;
    uint64_t uses;
    struct window window[WINDOWS];
};

static void token_run_windows_close(struct token_run_windows *windows) {
    if (!windows) return;
    for (int i = 0; i < WINDOWS; i++) free(windows->window[i].bytes);
    free(windows);
}

/* The job's columns have been checked; job and reader must stay. */
static int token_run_windows_open(struct token_run_windows **out, const Millrace__PackJob *job, const struct token_run_reader *reader) {
    struct token_run_windows *windows = mem_alloc(sizeof *windows);
    windows->job = job;
    windows->reader = reader;
    int code = 0;
    for (int i = 0; i < WINDOWS && code == 0; i++) code = mem_try(&windows->window[i].bytes, RUN_WINDOW_BYTES, 1);
    if (code < 0) token_run_windows_close(windows);
    else *out = windows;
    return code;
}

static int read_run(const struct token_run_windows *windows, uint8_t *out, uint32_t run, uint64_t first, uint64_t count) {
    uint32_t token_bytes = windows->job->token_bytes;
    int code = windows->reader->read(windows->reader->arg, run, out, (size_t)count * token_bytes, first * token_bytes);
    return code < 0 ? err_add(code, "run %u", run) : 0;
}

static struct window *window_with(struct token_run_windows *windows, uint32_t run, uint64_t token) {
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
static uint64_t reach(const struct token_run_windows *windows, size_t extent, uint64_t first) {
    const Millrace__PackJob *job = windows->job;
    uint64_t most = first + RUN_WINDOW_BYTES / job->token_bytes, gap = GAP_BYTES / job->token_bytes;
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
static void expect_next(const struct token_run_windows *windows, size_t extent, uint64_t token) {
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

/* Tokens [done, done + count) of an extent. */
static int token_run_windows_read(struct token_run_windows *windows, uint8_t *out, size_t extent, uint64_t done, uint64_t count) {
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

/* ---- Writing the shard ---- */

enum { SHARD_LEVEL = 3 }; /* a constant: another level is another file. 19 saves a tenth of the bytes at some 25 times the time */

struct builder {
    const Millrace__PackJob *job;
    struct token_run_windows *windows;
    int (*write)(void *arg, const void *bytes, size_t size_bytes);
    void *write_arg;
    int (*tick)(void *arg);
    void *tick_arg;
    ZSTD_CCtx *zstd;
    uint8_t *tokens;          /* the frame being filled: job->frame_tokens * token_bytes */
    uint8_t *packed;          /* the same, compressed */
    size_t packed_max;
    uint64_t filled;          /* tokens in the frame being filled */
    uint64_t taken;           /* tokens taken from the job, the one after the shard included */
    uint64_t offset;          /* bytes written */
    Millrace__ShardIndex index;
    size_t frames_max;
    uint64_t begun;           /* documents */
};

#define JOB_COLUMN(type_, column_)                                                               \
    static type_ job_##column_(const Millrace__PackJob *job, size_t i) { return job->n_##column_ ? job->column_[i] : 0; }
JOB_COLUMN(uint64_t, document_token)
JOB_COLUMN(uint64_t, skipped)
JOB_COLUMN(uint32_t, padding)
JOB_COLUMN(uint32_t, member)

static int check_columns(const Millrace__PackJob *job) {
    size_t n = job->n_run;
    if (n == 0 || n > SHARD_EXTENTS_MAX) return err_set(ERR_CORRUPT, "%zu extents", n);
    const size_t whole[] = {job->n_first, job->n_count, job->n_ends, job->n_document, job->n_source, job->n_offset, job->n_bytes};
    const size_t optional[] = {job->n_document_token, job->n_skipped, job->n_padding, job->n_member};
    bool fits = true;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) fits = fits && whole[i] == n;
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) fits = fits && (optional[i] == n || optional[i] == 0);
    return fits ? 0 : err_set(ERR_CORRUPT, "columns of different lengths");
}

static int check_job(const Millrace__PackJob *job) {
    bool known = strcmp(job->split, "train") == 0 || strcmp(job->split, "validation") == 0;
    if (!known) return err_set(ERR_CORRUPT, "split \"%s\" is not known", job->split);
    if (job->token_bytes != 2 && job->token_bytes != 4) return err_set(ERR_CORRUPT, "tokens of %u bytes", job->token_bytes);
    if (job->frame_tokens == 0 || job->frame_tokens > SHARD_FRAME_TOKENS_MAX)
        return err_set(ERR_CORRUPT, "frames of %" PRIu64 " tokens", job->frame_tokens);
    if (job->tokens == 0) return err_set(ERR_CORRUPT, "no tokens");
    if (job->token_bytes == 2 && job->eos > UINT16_MAX) return err_set(ERR_CORRUPT, "end-of-text token %u in 2 bytes", job->eos);
    TRY(check_columns(job));
    uint64_t sum = 0;
    for (size_t i = 0; i < job->n_run; i++) {
        uint64_t tokens = job->count[i], more = job->ends[i] + (uint64_t)job_padding(job, i);
        bool possible = tokens <= UINT64_MAX / 4 && job->first[i] <= UINT64_MAX / 8 && sum <= UINT64_MAX / 4 && job->ends[i] <= 1 &&
                        tokens + more > 0 && job_member(job, i) <= job->n_member_name;
        if (!possible) return err_set(ERR_CORRUPT, "extent %zu: %" PRIu64 " tokens at %" PRIu64, i, tokens, job->first[i]);
        sum += tokens + more;
    }
    if (sum != job->tokens && sum - 1 != job->tokens)
        return err_set(ERR_CORRUPT, "extents of %" PRIu64 " tokens for a shard of %" PRIu64, sum, job->tokens);
    return 0;
}

/* Room for an entry of each extent; what is zero throughout is left out when the index is written. */
static int make_columns(Millrace__ShardIndex *index, size_t entries) {
    TRY(mem_try(&index->document, entries, sizeof *index->document));
    TRY(mem_try(&index->document_first, entries, sizeof *index->document_first));
    TRY(mem_try(&index->document_tokens, entries, sizeof *index->document_tokens));
    TRY(mem_try(&index->ends, entries, sizeof *index->ends));
    TRY(mem_try(&index->document_token, entries, sizeof *index->document_token));
    TRY(mem_try(&index->skipped, entries, sizeof *index->skipped));
    TRY(mem_try(&index->source, entries, sizeof *index->source));
    TRY(mem_try(&index->member, entries, sizeof *index->member));
    TRY(mem_try(&index->offset, entries, sizeof *index->offset));
    return mem_try(&index->bytes, entries, sizeof *index->bytes);
}

static void free_columns(Millrace__ShardIndex *index) {
    free(index->document);
    free(index->document_first);
    free(index->document_tokens);
    free(index->ends);
    free(index->document_token);
    free(index->skipped);
    free(index->source);
    free(index->member);
    free(index->offset);
    free(index->bytes);
}

static int builder_open(struct builder *b, const struct token_run_reader *reader) {
    size_t frame_bytes = (size_t)b->job->frame_tokens * b->job->token_bytes;
    b->packed_max = ZSTD_compressBound(frame_bytes);
    TRY(mem_try(&b->tokens, frame_bytes, 1));
    TRY(mem_try(&b->packed, b->packed_max, 1));
    TRY(token_run_windows_open(&b->windows, b->job, reader));
    TRY(make_columns(&b->index, b->job->n_run));
    b->zstd = ZSTD_createCCtx();
    if (!b->zstd) return err_set(ERR_MEMORY, "out of memory: zstd");
    CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(b->zstd, ZSTD_c_compressionLevel, SHARD_LEVEL)));
    CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(b->zstd, ZSTD_c_contentSizeFlag, 1)));
    CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(b->zstd, ZSTD_c_checksumFlag, 1)));
    return 0;
}

static void builder_close(struct builder *b) {
    Millrace__ShardIndex *index = &b->index;
    for (size_t i = 0; i < index->n_frames; i++) {
        free(index->frames[i]->digest.data);
        free(index->frames[i]);
    }
    free(index->frames);
    free_columns(index);
    token_run_windows_close(b->windows);
    ZSTD_freeCCtx(b->zstd);
    free(b->tokens);
    free(b->packed);
}

/* Doubles the room of an array that is full. */
static size_t grown(size_t count, size_t max) { return count < max ? max : max ? 2 * max : 16; }

static void index_add_frame(struct builder *b, size_t size_bytes) {
    Millrace__ShardIndex *index = &b->index;
    size_t max = grown(index->n_frames, b->frames_max);
    if (max != b->frames_max) index->frames = mem_resize(index->frames, (b->frames_max = max) * sizeof *index->frames);
    Millrace__ShardFrame *frame = mem_alloc(sizeof *frame);
    millrace__shard_frame__init(frame);
    frame->offset = b->offset;
    frame->size = size_bytes;
    frame->tokens = b->filled;
    frame->digest = (ProtobufCBinaryData){XXH128_BYTES, mem_alloc(XXH128_BYTES)};
    xxh128_of(frame->digest.data, b->packed, size_bytes);
    frame->next_token = -1; /* until it is seen */
    index->frames[index->n_frames++] = frame;
}

/* The extent's next `tokens` are part of the shard. */
static void index_add_tokens(struct builder *b, size_t extent, uint64_t done, uint64_t tokens) {
    Millrace__ShardIndex *index = &b->index;
    const Millrace__PackJob *job = b->job;
    size_t i = index->n_document;
    if (done > 0) {
        index->document_tokens[i - 1] += tokens;
        return;
    }
    index->document[i] = job->document[extent];
    index->document_first[i] = b->taken;
    index->document_tokens[i] = tokens;
    index->document_token[i] = job_document_token(job, extent);
    index->skipped[i] = job_skipped(job, extent);
    index->source[i] = job->source[extent];
    index->member[i] = job_member(job, extent);
    index->offset[i] = job->offset[extent];
    index->bytes[i] = job->bytes[extent];
    b->begun += index->document_token[i] == 0;
    index->n_document++;
}

static int put(struct builder *b, const void *bytes, size_t size_bytes) {
    TRY(b->write(b->write_arg, bytes, size_bytes));
    b->offset += size_bytes;
    return 0;
}

static int flush_frame(struct builder *b) {
    size_t size = ZSTD_compress2(b->zstd, b->packed, b->packed_max, b->tokens, (size_t)b->filled * b->job->token_bytes);
    if (ZSTD_isError(size)) return err_set(ERR_MEMORY, "zstd: %s", ZSTD_getErrorName(size));
    index_add_frame(b, size);
    b->filled = 0;
    TRY(put(b, b->packed, size));
    if (b->tick && b->tick(b->tick_arg) != 0) return err_set(ERR_INTERRUPTED, "stopped");
    return 0;
}

/* `count` tokens have been put behind the filled ones. */
static int tokens_added(struct builder *b, uint64_t count) {
    if (b->filled == 0 && b->index.n_frames > 0)
        b->index.frames[b->index.n_frames - 1]->next_token = token_get(b->tokens, b->job->token_bytes);
    b->taken += count;
    if (b->taken > b->job->tokens) return 0; /* the token after the shard: known now, and not part of it */
    b->filled += count;
    bool full = b->filled == b->job->frame_tokens || b->taken == b->job->tokens;
    return full ? flush_frame(b) : 0;
}

static uint8_t *next_token(struct builder *b) { return b->tokens + b->filled * b->job->token_bytes; }

static int take_tokens(struct builder *b, size_t extent) {
    const Millrace__PackJob *job = b->job;
    for (uint64_t done = 0; done < job->count[extent];) {
        uint64_t room = job->frame_tokens - b->filled, left = job->tokens - b->taken, count = job->count[extent] - done;
        if (count > room) count = room;
        if (left > 0 && count > left) count = left;
        TRY(token_run_windows_read(b->windows, next_token(b), extent, done, count));
        if (left > 0) index_add_tokens(b, extent, done, count);
        TRY(tokens_added(b, count));
        done += count;
    }
    return 0;
}

/* End-of-text tokens: the one that ends a document, and padding. */
static int take_eos(struct builder *b, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        token_put(next_token(b), b->job->eos, b->job->token_bytes);
        TRY(tokens_added(b, 1));
    }
    return 0;
}

static int take_extents(struct builder *b) {
    const Millrace__PackJob *job = b->job;
    for (size_t i = 0; i < job->n_run; i++) {
        TRY(take_tokens(b, i));
        bool here = b->taken < job->tokens, entered = job->count[i] > 0 && here;
        if (entered && job->ends[i]) b->index.ends[b->index.n_document - 1] = 1;
        TRY(take_eos(b, job->ends[i] + (uint64_t)job_padding(job, i)));
    }
    return 0;
}

/* The columns as the message has them. */
static void set_columns(Millrace__ShardIndex *index) {
    size_t n = index->n_document;
    size_t *const whole[] = {&index->n_document_first, &index->n_document_tokens, &index->n_ends, &index->n_source, &index->n_offset,
                             &index->n_bytes};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) *whole[i] = n;
    for (size_t i = 0; i < n; i++) {
        if (index->document_token[i]) index->n_document_token = n;
        if (index->skipped[i]) index->n_skipped = n;
        if (index->member[i]) index->n_member = n;
    }
}

static int write_index(struct builder *b) {
    Millrace__ShardIndex *index = &b->index;
    index->token_bytes = b->job->token_bytes;
    index->tokens = b->job->tokens;
    index->first_token = b->job->first_token;
    index->frame_tokens = b->job->frame_tokens;
    index->first_document = b->job->first_document;
    index->separate = b->job->separate;
    index->eos = b->job->eos;
    index->member_name = b->job->member_name; /* borrowed */
    index->n_member_name = b->job->n_member_name;
    set_columns(index);
    TRY(shard_index_check(index, b->offset)); /* a job whose extents do not make a shard ends here */
    struct buf sealed = {0};
    int code = seal_append(&sealed, &index->base, &shard_seal);
    uint8_t head[SKIPPABLE_BYTES];
    skippable_head(head, (uint32_t)sealed.size);
    if (code == 0) code = put(b, head, sizeof head);
    if (code == 0) code = put(b, sealed.data, sealed.size);
    buf_free(&sealed);
    return code;
}

int shard_build(Millrace__PackResult *result, const Millrace__PackJob *job, const struct token_run_reader *reader,
                int (*write)(void *arg, const void *bytes, size_t size_bytes), void *write_arg, int (*tick)(void *), void *tick_arg) {
    struct builder b = {.job = job, .write = write, .write_arg = write_arg, .tick = tick, .tick_arg = tick_arg};
    millrace__shard_index__init(&b.index);
    int code = check_job(job);
    if (code == 0) code = builder_open(&b, reader);
    if (code == 0) code = take_extents(&b);
    if (code == 0) code = write_index(&b);
    if (code == 0) {
        result->tokens = job->tokens;
        result->documents = b.begun;
    } else {
        err_add(code, "pack job %s/%u", job->split, job->shard);
    }
    builder_close(&b);
    return code;
}
