/* What is written down of training for people and programs: metrics.jsonl, lines of this process's log, and the log that checkpoints carry.
 * All of it follows from the ledger. metrics_rewrite() first, then metrics_step() and metrics_evaluation() as they come. */
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

int metrics_rewrite(struct context *c);  /* anew from the ledger, after a crash or a roll-back */
void metrics_look(struct context *c, int64_t now);  /* is the file gone, cut or replaced, it is written anew, which an event tells */
void metrics_step(struct context *c, const struct step_row *row);
void metrics_evaluation(struct context *c, const struct evaluation_row *row);
const struct metrics_newest *metrics_newest(const struct context *c);
int metrics_log_print(struct context *c, struct buf *out, uint64_t step);  /* trainer_state.json of that step */

#endif
