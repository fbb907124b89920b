/* The kind of job that evaluates. Owns the losses by job, which are summed in the order of jobs when the last one is done. Results are
 * small and not on record: a coordinator that starts again evaluates again. The stage and its progress are training's (it counts steps):
 * evaluating_progress() has that of the evaluation. */
#include "coordinator/evaluating.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "coordinator/context.h"
#include "coordinator/dispatch.h"
#include "coordinator/queue.h"
#include "coordinator/store.h"
#include "coordinator/trainer.h"
#include "proto/body.h"
#include "proto/frame.h"

struct evaluating {
    uint64_t step, sequences;
    int64_t began_ms;
    struct loss {
        double sum;
        uint64_t tokens;
    } *loss;                       /* by job */
    bool finished;
    struct evaluation_row row;     /* then */
};

static bool may_do(const struct context *c, uint32_t worker) { return trainer_holds_state(c->trainer, worker); }

static bool fits(const Millrace__Done *done) { return done->result_case == MILLRACE__DONE__RESULT_EVALUATE; }

static uint64_t done_weight(const Millrace__Done *done) {
    (void)done;
    return 0; /* the stage counts steps */
}

static int job_done(struct context *c, size_t job, const Millrace__Done *done, const struct buf *done_bytes, uint32_t worker) {
    struct evaluating *e = c->evaluating;
    size_t jobs = dispatch_queue(c)->count;
    double loss = 0;
    (void)done_bytes, (void)worker;
    e->loss[job] = (struct loss){done->evaluate->loss_sum, done->evaluate->tokens};
    if (!queue_finished(dispatch_queue(c))) return 0;
    e->row = (struct evaluation_row){.step = e->step};
    for (size_t i = 0; i < jobs; i++) {
        loss += e->loss[i].sum;
        e->row.tokens += e->loss[i].tokens;
    }
    e->row.loss = loss / (double)e->row.tokens;
    e->finished = true;
    dispatch_clear(c);
    return 0;
}

static const struct job_kind evaluate_jobs = {
    .stage = STAGE_TRAIN,
    .work = MILLRACE__LEASE__WORK_EVALUATE,
    .may_do = may_do,
    .fits = fits,
    .done_weight = done_weight,
    .done = job_done,
};

void evaluating_begin(struct context *c, uint64_t step, uint64_t sequences, const Millrace__Geometry *geometry) {
    struct evaluating *e = c->evaluating;
    size_t jobs = (size_t)((sequences + EVALUATE_SEQUENCES - 1) / EVALUATE_SEQUENCES);
    dispatch_begin(c, &evaluate_jobs, jobs);
    free(e->loss);
    *e = (struct evaluating){.step = step, .sequences = sequences, .began_ms = clock_ms()};
    e->loss = mem_alloc((jobs + 1) * sizeof *e->loss);
    for (size_t i = 0; i < jobs; i++) {
        Millrace__Lease lease = MILLRACE__LEASE__INIT;
        Millrace__EvaluateJob job = MILLRACE__EVALUATE_JOB__INIT;
        job.step = step;
        job.first = i * EVALUATE_SEQUENCES;
        job.count = sequences - job.first < EVALUATE_SEQUENCES ? sequences - job.first : EVALUATE_SEQUENCES;
        job.geometry = (Millrace__Geometry *)geometry;
        lease.stage = "evaluate";
        lease.work_case = MILLRACE__LEASE__WORK_EVALUATE;
        lease.evaluate = &job;
        CHECK(body_pack(dispatch_spec(c, i), &lease.base) == 0);
    }
}

bool evaluating_result(struct context *c, struct evaluation_row *out) {
    if (!c->evaluating->finished) return false;
    c->evaluating->finished = false;
    *out = c->evaluating->row;
    return true;
}

struct evaluating_progress evaluating_progress(const struct context *c) {
    const struct evaluating *e = c->evaluating;
    struct evaluating_progress p = {.step = e->step, .total = e->sequences, .began_ms = e->began_ms};
    const struct queue *queue = dispatch_queue(c);
    p.done = queue ? (uint64_t)queue->done * EVALUATE_SEQUENCES : p.total;
    if (p.done > p.total) p.done = p.total;
    return p;
}

void evaluating_open(struct context *c) { c->evaluating = mem_alloc(sizeof *c->evaluating); }

void evaluating_close(struct context *c) {
    if (!c->evaluating) return;
    free(c->evaluating->loss);
    free(c->evaluating);
    c->evaluating = NULL;
}
