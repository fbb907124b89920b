/* How fast training's sequences come out of a dataset folder: tokens a second in the order in which they lie, and in the order of training,
 * through the cache that a worker has. The frames come from the files instead of from a coordinator. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "dataset/shard/manifest.h"
#include "dataset/shard/shard.h"
#include "workers/feed.h"

enum { CACHE_BYTES = 64 << 20, SHARDS_MAX = 4096, SEED = 42, WINDOW = 16 };

struct folder {
    const char *path;
    const struct manifest *manifest;
    struct shard *shard[SHARDS_MAX];
};

static int fetch(void *arg, struct buf *out, int64_t *out_next, const char *split, uint32_t shard, uint32_t frame) {
    struct folder *folder = arg;
    (void)split;
    CHECK(shard < SHARDS_MAX);
    if (!folder->shard[shard]) {
        char *path = mem_format("%s/%s", folder->path, folder->manifest->shard[shard].name);
        int code = shard_open(&folder->shard[shard], path);
        free(path);
        TRY(code);
    }
    return shard_read_frame(folder->shard[shard], out, out_next, frame);
}

static int measure(double *out, struct folder *folder, const Millrace__Geometry *geometry, uint64_t sequences, int shuffled) {
    size_t T = geometry->sequence_length;
    int32_t *tokens = mem_alloc(2 * T * sizeof *tokens);
    struct feed *feed = feed_open(
        &(struct feed_options){.cache_bytes = CACHE_BYTES, .vocab_size = UINT32_MAX, .fetch = fetch, .arg = folder});
    int64_t began = clock_ms();
    int code = 0;
    for (uint64_t i = 0; i < sequences && code == 0; i++)
        code = feed_sequence(feed, tokens, tokens + T, geometry, shuffled ? order_sequence(SEED, i, geometry, WINDOW) : i);
    int64_t took = clock_ms() - began;
    *out = (double)(sequences * T) / ((double)(took ? took : 1) / 1000);
    feed_close(feed);
    free(tokens);
    return code;
}

static int run(const char *path) {
    struct manifest manifest;
    TRY(manifest_read(&manifest, path));
    static struct folder folder;
    folder = (struct folder){.path = path, .manifest = &manifest};
    Millrace__Geometry geometry = manifest_geometry(&manifest, false);
    double sequential = 0, shuffled = 0;
    int code = measure(&sequential, &folder, &geometry, manifest.train_sequences, 0);
    if (code == 0) code = measure(&shuffled, &folder, &geometry, manifest.train_sequences, 1);
    uint64_t bytes = 0;
    for (size_t i = 0; i < manifest.train_shards; i++) bytes += manifest.shard[i].file_bytes;
    if (code == 0)
        printf("{\"sequential\": %.0f, \"shuffled\": %.0f, \"bytes\": %" PRIu64 ", \"tokens\": %" PRIu64 "}\n", sequential, shuffled, bytes,
               manifest.train_tokens);
    for (size_t i = 0; i < SHARDS_MAX; i++) shard_close(folder.shard[i]);
    manifest_free(&manifest);
    return code;
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: read_shards DATASET_FOLDER\n"), 2;
    if (run(argv[1]) == 0) return 0;
    fprintf(stderr, "%s\n", err_text());
    return 1;
}
