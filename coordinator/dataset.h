/* The dataset that the run is trained on: made here, or dataset.prepared. */
#ifndef MILLRACE_COORDINATOR_DATASET_H
#define MILLRACE_COORDINATOR_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"
#include "dataset/shard/manifest.h"
#include "dataset/shard/shard.h"

struct context;

/* What the steps on record were trained on (trained.c). */
struct trained {
    bool known, whole;             /* known: the digest; whole: all of it, which earlier versions did not record */
    uint64_t steps;                /* on record; 0: none, and the rest tells what was about to be trained on */
    uint8_t digest[SHA256_BYTES], layout[SHA256_BYTES];  /* of the dataset */
    uint8_t tokenizer[SHA256_BYTES];
    uint64_t train_sequences, sequences;
};

struct dataset {
    struct manifest manifest;
    bool has_manifest;
    struct trained trained;
    struct buf repaired;             /* names of shards that were made again, with a comma between them */
    size_t repairs;
    bool trained_on_other;                 /* the run is finished, and was trained on another one than the manifest tells of */
    char sources_changed[2048];    /* what changed, came or went since it was made, which is gone on with; empty: nothing */
};

void dataset_open(struct context *c);
void dataset_close(struct context *c);

int dataset_check_size(const struct shard_entry *entry, const char *path);
/* What a person should look at in a dataset that was made here with this configuration: lines. */
void dataset_warnings(const struct context *c, struct buf *out);

int dataset_open_shard(struct context *c, struct shard **out, size_t number);  /* number: in the manifest */

#endif
