/* Carries out what trainer.c decides: sends, records, evaluates, saves. The loop's thread calls training_begin() when the dataset is
 * ready; then training_message(), training_unheard(), training_worker() and training_leaving() with what happened, training_saves() and
 * training_evaluations() for what became of those, training_tick() in each turn. */
#ifndef MILLRACE_COORDINATOR_TRAINING_H
#define MILLRACE_COORDINATOR_TRAINING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "proto/frame.h"

struct context;

void training_let_go(struct context *c);   /* GOODBYE to those who were asked to leave and have nothing that is needed */
int training_begin(struct context *c);
void training_open(struct context *c);
void training_message(struct context *c, uint32_t worker, const struct message *message);
void training_unheard(struct context *c, uint32_t worker, char **endpoints, size_t count);  /* that do not answer it */
/* Is it known which step this coordinator begins after? Before it is, some worker may come that holds a newer state than the checkpoint. */
bool training_began(const struct context *c);
struct rolled_back {
    uint64_t number;         /* how often so far; 0: never, the rest is nothing */
    uint64_t first, last;    /* the steps that were taken back, the last time */
};
struct rolled_back training_rolled_back(const struct context *c);
bool training_stands(const struct context *c);  /* no step can go on: no member holds the state */
bool training_barred(const struct context *c, uint32_t worker);  /* worker_entry.unreached says why */
void training_worker(struct context *c, uint32_t worker, bool here);  /* it may train from now on, or not any more */
void training_leaving(struct context *c, uint32_t worker);
/* What a person should look at before a run goes on for hours; empty: nothing. Lines. */
void training_warnings(const struct context *c, struct buf *out);
void training_saves(struct context *c);        /* takes what became of a checkpoint */
void training_evaluations(struct context *c);  /* takes the result of one that is finished */
bool training_tells(const struct context *c);  /* an evaluation that ended after its checkpoint was published is on its way into that */
void training_tick(struct context *c, int64_t now_ms);
void training_close(struct context *c);

#endif
