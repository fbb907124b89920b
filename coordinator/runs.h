/* Runs of token ids: what they follow from, where they lie, their order.
 *
 * A run follows from the file's identity, the part and place in it, and the settings of text and tokenizer; the SHA-256 of all these is its
 * key. Runs lie in state/runs under their keys, their results are memos in the store: whatever changes, a job whose key is known is not
 * done again. */
#ifndef MILLRACE_COORDINATOR_RUNS_H
#define MILLRACE_COORDINATOR_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"
#include "dataset/ingest/token_run.h"
#include "proto/frame.h"

struct context;

enum { RUN_PLACE_NUMBERS = 7 }; /* where in the sources a run begins, to sort by */

struct run_entry {
    uint64_t place[RUN_PLACE_NUMBERS], size;
    uint8_t key[SHA256_BYTES], digest[SHA256_BYTES];
    size_t job, parts;
    uint32_t *file;             /* of each part */
};

void runs_open(struct context *c);
void runs_close(struct context *c);
void runs_note_settings(struct context *c);          /* what runs follow from beside their files */

int runs_unpack(Millrace__Lease **out, const struct buf *spec);  /* of a tokenize job */
void runs_key(uint8_t out[SHA256_BYTES], const struct context *c, const Millrace__TokenizeJob *job);
char *runs_key_path(const struct context *c, const uint8_t key[SHA256_BYTES]);
bool runs_has(const struct context *c, const Millrace__Done *done, const uint8_t key[SHA256_BYTES]); /* its file is there */

/* The runs of the finished jobs in the order of the sources. A run's number (READ RUN, PackJob.run) is its place here: call this before
 * jobs that name runs are handed out; before it no run is served. The list stays as it is while the thread for files reads it. */
int runs_list(struct context *c);
void runs_forget(struct context *c);
size_t runs_count(const struct context *c);
const struct run_entry *runs_entry(const struct context *c, size_t run);
char *runs_path(const struct context *c, size_t run);
/* With sources as numbers of source files. Reads the whole run: one that is not what came any more is ERR_CORRUPT, and removed. */
int runs_table(struct context *c, Millrace__RunTable **out, size_t run);
/* Removes all memos, whoever put them, and the runs under their keys, but key[keys] and, with dataset.keep_runs, those of the list. */
int runs_sweep(struct context *c, const uint8_t (*key)[SHA256_BYTES], size_t keys);

#endif
