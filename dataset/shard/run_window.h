/* Reads the tokens of a pack job's extents from runs, many small ones at a time: where the next extents follow each other in a run they
 * come with one read, which may be a question over the network. Bounded memory. Internal to shard_build.c. */
#ifndef MILLRACE_DATASET_RUN_WINDOW_H
#define MILLRACE_DATASET_RUN_WINDOW_H

#include <stdint.h>

#include "dataset/shard/shard.h"

struct run_windows;

/* The job's columns have been checked; job and reader must stay. */
int run_windows_open(struct run_windows **out, const Millrace__PackJob *job, const struct run_reader *reader);

/* Tokens [done, done + count) of an extent. */
int run_windows_read(struct run_windows *windows, uint8_t *out, size_t extent, uint64_t done, uint64_t count);
void run_windows_close(struct run_windows *windows);  /* NULL is fine */

#endif
