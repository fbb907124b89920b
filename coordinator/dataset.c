/* What all need who touch a dataset that is there: is a shard as long as the manifest says, a shard opened, what a person should look at.
 */
#include "coordinator/dataset.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "coordinator/context.h"
#include "dataset/plan/advice.h"
#include "dataset/shard/manifest.h"
#include "dataset/shard/shard.h"

int dataset_check_size(const struct shard_entry *entry, const char *path) {
    uint64_t size;
    TRY(file_size(&size, path));
    if (size == entry->file_bytes) return 0;
    return err_set(ERR_CORRUPT, "shard %s: %" PRIu64 " bytes, but the manifest says %" PRIu64, path, size, entry->file_bytes);
}

int dataset_open_shard(struct context *c, struct shard **out, size_t number) {
    const struct shard_entry *entry = &c->dataset->manifest.shard[number];
    struct shard *shard = NULL;
    char *path = mem_format("%s/%s", c->dataset_folder, entry->name);
    int code = dataset_check_size(entry, path); /* or it is of another dataset, put there since it was looked at */
    if (code == 0) code = manifest_open_shard(&shard, &c->dataset->manifest, c->dataset_folder, number);
    if (code == ERR_NOTFOUND) code = ERR_CORRUPT; /* the manifest says it is there */
    free(path);
    TRY(code);
    *out = shard;
    return 0;
}

void dataset_warnings(const struct context *c, struct buf *out) {
    if (!c->dataset->has_manifest || c->prepared || c->dataset->trained_on_other) return;
    if (dataset_advice(out, &c->dataset->manifest, c->config) < 0) log_warn("%s", err_text());
}

void dataset_open(struct context *c) { c->dataset = mem_alloc(sizeof *c->dataset); }

void dataset_close(struct context *c) {
    if (!c->dataset) return;
    manifest_free(&c->dataset->manifest);
    buf_free(&c->dataset->repaired);
    free(c->dataset);
    c->dataset = NULL;
}
