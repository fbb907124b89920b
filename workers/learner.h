/* Training, carried out: the vectors of state and sums, the model, and what membership.c says is to be done with them. learner_join(),
 * learner_step() and learner_commit() with the coordinator's messages, learner_data() with answers, learner_work() in between, which does
 * what can be done now, a slice at most. All of it belongs to the work thread, but for what struct shared offers to the network thread. */
#ifndef MILLRACE_WORKERS_LEARNER_H
#define MILLRACE_WORKERS_LEARNER_H

#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"
#include "workers/membership.h"
#include "workers/shared.h"
#include "workers/summing.h"

struct learner {
    struct gpt2_config model;
    struct optimizer optimizer;
    struct gpt2 *gpt2;
    size_t elements, segments;
    int slice_sequences, T;
    bool dropout;
    uint64_t max_steps;
    Millrace__Geometry geometry;
    int32_t *tokens, *targets; /* one slice's worth */
    float *vector[NODES_MAX];  /* of N floats, for partial sums; made when they are used first */
    struct membership membership;
    struct summing summing;
    struct slice_set slices[MEMBERS_MAX]; /* who computes which, of the view that was told last */
    double square_sum;         /* of the whole sum */
};

void learner_close(struct worker *worker);
void learner_join(struct worker *worker, const struct message *message);
void learner_step(struct worker *worker, const struct message *message);
void learner_commit(struct worker *worker, const struct message *message);
void learner_data(struct worker *worker, const struct read *read, struct message *message); /* may take its memory */
bool learner_work(struct worker *worker);  /* does one piece of work; false: nothing to do until a message comes */
int learner_evaluate(struct worker *worker, double *out_loss, uint64_t *out_tokens, const Millrace__EvaluateJob *job);

#endif
