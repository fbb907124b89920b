/* Evaluations: jobs over the validation sequences, each by a worker that holds the state. training.c calls evaluating_begin() and takes
 * the result with evaluating_result() once all jobs are done. */
#ifndef MILLRACE_COORDINATOR_EVALUATING_H
#define MILLRACE_COORDINATOR_EVALUATING_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/store.h"
#include "proto/frame.h"

struct context;

#ifndef EVALUATE_SEQUENCES /* the simulation builds the same code with small ones */
enum { EVALUATE_SEQUENCES = 16 }; /* of one job */
#endif

struct evaluating_progress { /* in sequences */
    uint64_t step, done, total;
    int64_t began_ms;
};

void evaluating_open(struct context *c);
void evaluating_close(struct context *c);

/* Of the state after that step, over the first `sequences` of the validation split. */
void evaluating_begin(struct context *c, uint64_t step, uint64_t sequences, const Millrace__Geometry *geometry);
bool evaluating_result(struct context *c, struct evaluation_row *out); /* of one that is finished; once */
struct evaluating_progress evaluating_progress(const struct context *c);

#endif
