/* The dataset that the run is trained on: made here, or dataset.prepared. The struct is filled by those who make, find or compare it
 * (packing.c, stages.c, trained.c, changes.c, repair.c). */
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
    bool known, whole;             /* known: the dataset's digest is on record; whole: so is the rest (0.1 had the digest alone) */
    uint64_t steps;                /* in the ledger; 0: none yet, the rest is what training was about to begin with */
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
    bool trained_on_other;                 /* the run is finished, and its steps were made with another dataset than the manifest's */
    char sources_changed[2048];    /* sources that changed, came or went since it was made, and the run goes on with it; empty: none did */
};

void dataset_open(struct context *c);
void dataset_close(struct context *c);

/* What a person should look at in a dataset that was made here with this configuration: lines. */
void dataset_warnings(const struct context *c, struct buf *out);

int dataset_open_shard(struct context *c, struct shard **out, size_t number);  /* number: in the manifest */

#endif
