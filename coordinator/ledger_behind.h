/* A checkpoint that is newer than the ledger. ledger_behind_name_run() computes the digest by which a checkpoint is known to be this
 * run's; ledger_behind_check() refuses any other; ledger_behind_catch_up() fills the ledger up to the checkpoint. */
#ifndef MILLRACE_COORDINATOR_LEDGER_BEHIND_H
#define MILLRACE_COORDINATOR_LEDGER_BEHIND_H

#include <stdint.h>

#include "model/checkpoint/checkpoint.h"

struct context;

int ledger_behind_name_run(struct context *c);                              /* fills run_digest; the manifest is known */
/* The checkpoint is newer than the ledger. ERR_CONFIG: it is not this run's. Writes nothing. */
int ledger_behind_check(const struct context *c, uint64_t checkpoint, const struct checkpoint_facts *facts);
/* The steps between get the rows that can be known. */
int ledger_behind_catch_up(struct context *c, uint64_t checkpoint, const struct checkpoint_facts *facts, uint64_t *ledger);

#endif
