/* What is told of training: metrics.jsonl, lines of this process' log, and the log that checkpoints carry. All follows from the ledger. */
#ifndef MILLRACE_COORDINATOR_METRICS_H
#define MILLRACE_COORDINATOR_METRICS_H

#include <stdint.h>

#include "base/buf.h"
#include "coordinator/store.h"

struct context;

struct metrics_newest {   /* of the newest step and evaluation: NaN where there is none */
    double loss, eval_loss, rate, tokens_rate;
    uint64_t eval_step;
};

void metrics_open(struct context *c);
void metrics_close(struct context *c);

int metrics_rewrite(struct context *c);  /* metrics.jsonl says what the ledger says: after a crash or a roll-back it is written anew */
void metrics_step(struct context *c, const struct step_row *row);
void metrics_evaluation(struct context *c, const struct evaluation_row *row);
const struct metrics_newest *metrics_newest(const struct context *c);
int metrics_log_print(struct context *c, struct buf *out, uint64_t step);  /* trainer_state.json of that step */

#endif
