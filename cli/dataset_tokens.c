/* Tokens of a split in order, from whichever shards hold them: one shard is open at a time, one frame in memory. */
#include <inttypes.h>
#include <string.h>

#include "base/err.h"
#include "cli/dataset_commands.h"
#include "cli/output.h"

enum { USE_TOKENS = 8192 }; /* handed on at once */

struct reading {
    const struct manifest *manifest;
    int (*use)(void *arg, const uint32_t *id, size_t count);
    void *arg;
    struct buf packed, frame;
};

static int hand_on(struct reading *r, const uint8_t *bytes, uint64_t count) {
    uint32_t ids[USE_TOKENS], token_bytes = r->manifest->token_bytes;
    for (uint64_t done = 0; done < count && output_alive();) {
        size_t n = count - done < USE_TOKENS ? (size_t)(count - done) : USE_TOKENS;
        memset(ids, 0, n * sizeof *ids);
        for (size_t i = 0; i < n; i++) memcpy(&ids[i], bytes + (done + i) * token_bytes, token_bytes);
        TRY(r->use(r->arg, ids, n));
        done += n;
    }
    return 0;
}

/* Tokens [first, first + count) of an open shard. */
static int read_shard(struct reading *r, const struct shard *shard, uint64_t first, uint64_t count) {
    const struct manifest *m = r->manifest;
    while (count > 0 && output_alive()) {
        uint64_t frame = first / m->frame_tokens, skip = first % m->frame_tokens;
        int64_t next;
        buf_clear(&r->packed), buf_clear(&r->frame);
        TRY(shard_read_frame(shard, &r->packed, &next, (size_t)frame));
        TRY(frame_expand(&r->frame, r->packed.data, r->packed.size, m->frame_tokens * m->token_bytes));
        uint64_t there = r->frame.size / m->token_bytes;
        if (there <= skip) return err_set(ERR_CORRUPT, "frame %" PRIu64 " is too short; 'millrace dataset verify' tells more", frame);
        uint64_t take = there - skip < count ? there - skip : count;
        TRY(hand_on(r, r->frame.data + skip * m->token_bytes, take));
        first += take, count -= take;
    }
    return 0;
}

int opened_tokens(const struct opened *opened, bool validation, uint64_t first, uint64_t count,
                  int (*use)(void *arg, const uint32_t *id, size_t count), void *arg) {
    const struct manifest *m = &opened->manifest;
    struct reading reading = {.manifest = m, .use = use, .arg = arg};
    int code = 0;
    while (count > 0 && code == 0 && output_alive()) {
        size_t number = (size_t)(first / m->shard_tokens);
        uint64_t within = first % m->shard_tokens, take = m->shard_tokens - within < count ? m->shard_tokens - within : count;
        struct shard *shard = NULL;
        code = opened_shard(&shard, opened, validation, number);
        if (code == 0) code = read_shard(&reading, shard, within, take);
        shard_close(shard);
        first += take, count -= take;
    }
    buf_free(&reading.packed);
    buf_free(&reading.frame);
    return code;
}
