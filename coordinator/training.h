/* Carries out what trainer.c decides. */
#ifndef MILLRACE_COORDINATOR_TRAINING_H
#define MILLRACE_COORDINATOR_TRAINING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "proto/frame.h"

struct context;

void training_let_go(struct context *c);   /* who was asked to leave, and has nothing that is needed, goes home */
int training_begin(struct context *c);
void training_open(struct context *c);
void training_message(struct context *c, uint32_t worker, const struct message *message);
void training_unheard(struct context *c, uint32_t worker, char **endpoints, size_t count);  /* that do not answer it */
bool training_stands(const struct context *c);  /* no step goes on, because nobody is there who holds the state */
bool training_barred(const struct context *c, uint32_t worker);  /* out of the step for .unreached */
void training_worker(struct context *c, uint32_t worker, bool here);
void training_leaving(struct context *c, uint32_t worker);
/* What a person should look at before a run goes on for hours; empty: nothing. Lines. */
void training_warnings(const struct context *c, struct buf *out);
void training_saves(struct context *c);        /* takes what became of a checkpoint */
void training_evaluations(struct context *c);  /* takes the result of one that is finished */
void training_tick(struct context *c, int64_t now_ms);
void training_close(struct context *c);

#endif
