/* Is an output what its job must make? Looked at when all of it came, before it gets its name: a worker's DONE proves nothing. What
 * only doing the job again would show (other tokens of the same count) is not found here. Pure, but for the file that is read. */
#ifndef MILLRACE_COORDINATOR_ARRIVALS_H
#define MILLRACE_COORDINATOR_ARRIVALS_H

#include <stdint.h>

#include "config/config.h"
#include "dataset/tokenizer/tokenizer.h"
#include "proto/frame.h"

struct arrival_terms {
    uint32_t token_bytes;
    uint64_t vocabulary; /* ids of the tokenizer */
    uint64_t band_bytes; /* of each document in a run's table */
};

struct arrival_terms arrival_terms_of(const struct config *config, const struct tokenizer *tokenizer);

/* Bytes that can come of such a job. */
uint64_t arrival_run_bytes_max(const Millrace__Lease *lease);
uint64_t arrival_shard_bytes_max(const Millrace__Lease *lease);

/* The whole output, at `path`: a draft in the folder where it will get its name. ERR_PEER, ERR_CORRUPT: it is not what the job asks for, or
 * not what `done` has of it, and the worker is at fault. So it is by any other error but ERR_IO, ERR_MEMORY and ERR_DENIED, which are ours
 * or the disk's: the job is done again (judge() of download.c). */
typedef int arrival_check(const struct arrival_terms *terms, const Millrace__Lease *lease, const Millrace__Done *done, const char *path);
arrival_check arrival_check_run, arrival_check_shard;

#endif
