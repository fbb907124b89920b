/* What all need who touch a dataset that is there: a shard opened, what a person should look at. */
#include "coordinator/dataset.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "coordinator/context.h"
#include "coordinator/spool.h"
#include "dataset/plan/advice.h"
#include "dataset/shard/manifest.h"
#include "dataset/shard/shard.h"

int dataset_open_shard(struct context *c, struct shard **out, size_t number) {
    int code = manifest_open_shard(out, &c->dataset->manifest, c->dataset_folder, number);
    return code == ERR_NOTFOUND ? ERR_CORRUPT : code; /* the manifest says it is there */
}

void dataset_warnings(const struct context *c, struct buf *out) {
    if (!c->dataset->has_manifest || c->prepared || c->dataset->trained_on_other) return;
    if (dataset_advice(out, &c->dataset->manifest, c->config) < 0) log_warn("%s", err_text());
    spool_warning(out, c->config);
}

void dataset_open(struct context *c) { c->dataset = mem_alloc(sizeof *c->dataset); }

void dataset_close(struct context *c) {
    if (!c->dataset) return;
    manifest_free(&c->dataset->manifest);
    buf_free(&c->dataset->repaired);
    free(c->dataset);
    c->dataset = NULL;
}
