/* The cache of frames: some hundreds of entries, the least recently used goes first. Searched from end to end, which costs microseconds
 * where a sequence takes the model milliseconds. */
#include "workers/feed.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/shard/manifest.h"
#include "dataset/shard/shard.h"

enum { ENTRIES_MAX = 4096 };

struct entry {
    const char *split;
    uint32_t shard, frame;
    uint64_t used;         /* grows with each use of the cache */
    int64_t next_token;
    struct buf tokens;
};

struct feed {
    struct feed_options options;
    size_t held_bytes, count;
    uint64_t uses;
    struct entry entry[ENTRIES_MAX];
};

struct feed *feed_open(const struct feed_options *options) {
    struct feed *feed = mem_alloc(sizeof *feed);
    feed->options = *options;
    return feed;
}

void feed_close(struct feed *feed) {
    if (!feed) return;
    for (size_t i = 0; i < feed->count; i++) buf_free(&feed->entry[i].tokens);
    free(feed);
}

static void make_room(struct feed *feed, size_t size) {
    while (feed->count && (feed->held_bytes + size > feed->options.cache_bytes || feed->count == ENTRIES_MAX)) {
        size_t oldest = 0;
        for (size_t i = 1; i < feed->count; i++)
            if (feed->entry[i].used < feed->entry[oldest].used) oldest = i;
        feed->held_bytes -= feed->entry[oldest].tokens.size;
        buf_free(&feed->entry[oldest].tokens);
        feed->entry[oldest] = feed->entry[--feed->count];
    }
}

/* NULL: not here. */
static struct entry *find(struct feed *feed, const Millrace__Geometry *geometry, uint32_t shard, uint32_t frame) {
    for (size_t i = 0; i < feed->count; i++) {
        struct entry *entry = &feed->entry[i];
        if (entry->frame == frame && entry->shard == shard && strcmp(entry->split, geometry->split) == 0) return entry;
    }
    return NULL;
}

/* How many tokens the frame has by its geometry. */
static uint64_t frame_size(const Millrace__Geometry *geometry, uint32_t shard, uint32_t frame) {
    uint64_t begin = shard * geometry->shard_tokens + frame * geometry->frame_tokens, left = geometry->tokens - begin;
    return begin >= geometry->tokens ? 0 : left < geometry->frame_tokens ? left : geometry->frame_tokens;
}

/* The entry stays valid until the next call. */
static int put(struct feed *feed, struct entry **out, const void *compressed, size_t compressed_bytes, int64_t next_token,
               const Millrace__Geometry *geometry, uint32_t shard, uint32_t frame) {
    struct entry fresh = {.split = geometry->split, .shard = shard, .frame = frame, .used = ++feed->uses, .next_token = next_token};
    size_t want = (size_t)frame_size(geometry, shard, frame) * geometry->token_bytes;
    int code = frame_expand(&fresh.tokens, compressed, compressed_bytes, want);
    if (code == 0 && fresh.tokens.size != want)
        code = err_set(ERR_CORRUPT, "%zu bytes of tokens where %zu are expected", fresh.tokens.size, want);
    if (code < 0) {
        buf_free(&fresh.tokens);
        return err_add(code, "%s shard %u, frame %u", geometry->split, shard, frame);
    }
    make_room(feed, fresh.tokens.size);
    feed->held_bytes += fresh.tokens.size;
    feed->entry[feed->count] = fresh;
    *out = &feed->entry[feed->count++];
    return 0;
}

int feed_put(struct feed *feed, const void *compressed, size_t compressed_bytes, int64_t next_token, const Millrace__Geometry *geometry,
             uint32_t shard, uint32_t frame) {
    struct entry *entry;
    if (find(feed, geometry, shard, frame)) return 0;
    return put(feed, &entry, compressed, compressed_bytes, next_token, geometry, shard, frame);
}

void feed_expect(struct feed *feed, const Millrace__Geometry *geometry, uint64_t sequence) {
    struct sequence_place place = sequence_place(geometry, sequence);
    if (!find(feed, geometry, place.shard, place.frame)) feed->options.ask(feed->options.arg, geometry->split, place.shard, place.frame);
}

static int get(struct feed *feed, struct entry **out, const Millrace__Geometry *geometry, uint32_t shard, uint32_t frame) {
    *out = find(feed, geometry, shard, frame);
    if (*out) {
        (*out)->used = ++feed->uses;
        return 0;
    }
    struct buf compressed = {0};
    int64_t next_token;
    int code = feed->options.fetch(feed->options.arg, &compressed, &next_token, geometry->split, shard, frame);
    if (code < 0) err_add(code, "%s shard %u, frame %u", geometry->split, shard, frame);
    else code = put(feed, out, compressed.data, compressed.size, next_token, geometry, shard, frame);
    buf_free(&compressed);
    return code;
}

static uint32_t token_at(const struct entry *entry, uint32_t token_bytes, size_t i) {
    const uint8_t *p = entry->tokens.data + i * token_bytes;
    uint32_t id = (uint32_t)p[0] | (uint32_t)p[1] << 8;
    return token_bytes == 2 ? id : id | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* In separate sequences the last target, which is not in it, does not count, nor does padding: an end-of-text token after another. */
static void ignore(const struct feed *feed, int32_t *targets, const int32_t *tokens, const Millrace__Geometry *geometry) {
    size_t T = geometry->sequence_length;
    int32_t eos = (int32_t)geometry->eos;
    targets[T - 1] = FEED_IGNORED;
    if (feed->options.pad_in_loss) return;
    for (size_t t = 0; t + 1 < T; t++)
        if (tokens[t] == eos && tokens[t + 1] == eos) targets[t] = FEED_IGNORED;
}

int feed_sequence(struct feed *feed, int32_t *tokens, int32_t *targets, const Millrace__Geometry *geometry, uint64_t sequence) {
    struct sequence_place place = sequence_place(geometry, sequence);
    struct entry *entry;
    size_t T = geometry->sequence_length;
    TRY(get(feed, &entry, geometry, place.shard, place.frame));
    size_t held = entry->tokens.size / geometry->token_bytes, more = geometry->separate ? 0 : 1;
    if (place.first + T > held || (more && place.first + T == held && entry->next_token < 0))
        return err_set(ERR_CORRUPT, "%s shard %u, frame %u: too short for sequence %llu", geometry->split, place.shard, place.frame,
                       (unsigned long long)sequence);
    uint32_t largest = 0;
    for (size_t t = 0; t < T; t++) {
        uint32_t token = token_at(entry, geometry->token_bytes, place.first + t);
        if (token > largest) largest = token;
        tokens[t] = (int32_t)token;
    }
    uint64_t next = place.first + T < held ? token_at(entry, geometry->token_bytes, place.first + T) : (uint64_t)entry->next_token;
    if (largest >= feed->options.vocab_size || (more && next >= feed->options.vocab_size))
        return err_set(ERR_CORRUPT, "%s shard %u, frame %u: token %llu in a vocabulary of %u", geometry->split, place.shard, place.frame,
                       (unsigned long long)(largest >= feed->options.vocab_size ? largest : next), feed->options.vocab_size);
    memcpy(targets, tokens + 1, (T - 1) * sizeof *targets);
    targets[T - 1] = (int32_t)next;
    if (geometry->separate) ignore(feed, targets, tokens, geometry);
    return 0;
}
