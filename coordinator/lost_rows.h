/* Rows of the store are gone (store_check.c found them damaged and left them out): what that means for the run. lost_rows_settle() when
 * the store is open, lost_rows_repair_ledger() once the newest checkpoint is known. */
#ifndef MILLRACE_COORDINATOR_LOST_ROWS_H
#define MILLRACE_COORDINATOR_LOST_ROWS_H

#include <stdint.h>

#include "model/checkpoint/checkpoint.h"

struct context;

int lost_rows_settle(struct context *c);                              /* rows of the store that are gone: plans what to make again */
/* The same for the ledger, once the newest checkpoint is known (0: none). *ledger: the newest step on record, before and after. */
int lost_rows_repair_ledger(struct context *c, uint64_t checkpoint, const struct checkpoint_facts *facts, uint64_t *ledger);

#endif
