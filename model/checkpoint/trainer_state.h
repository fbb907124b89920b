/* trainer_state.json in Hugging Face's form: TrainerState.load_from_json() of transformers loads it, so Trainer.train() can go on from
 * one of our checkpoints. Its log_history is kept here while a run goes on. Everything in it follows from the run's ledger up to the
 * checkpoint's step: no time, place or number of workers. */
#ifndef MILLRACE_MODEL_TRAINER_STATE_H
#define MILLRACE_MODEL_TRAINER_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* Steps in a log. Of longer runs it keeps every 2nd, 4th ... of the steps that are logged, so that neither memory nor file grows on. */
enum { TRAIN_LOG_STEPS_MAX = 10000 };

struct train_log_row {
    uint64_t step;
    double loss, learning_rate, grad_norm;
    double eval_loss;
    bool evaluation;          /* only eval_loss counts; else only the others. NaN: left out */
};
struct train_log {
    uint64_t every, last;     /* training.logging_steps, the run's length */
    uint64_t stride;          /* of `every`; a power of 2 */
    struct train_log_row *row;
    size_t count, steps, capacity;
};

/* Whether a step is one of those that are logged: every so many, the first and the last; every 0: none. */
bool train_log_due(uint64_t every, uint64_t last, uint64_t step);

/* Rows come in the order of steps, a step before its evaluation. Steps that are not logged are passed over; evaluations all stay, but
 * for those beyond the same limit. The result is the same however the run was interrupted. */
void train_log_begin(struct train_log *log, uint64_t every, uint64_t last);
void train_log_add(struct train_log *log, const struct train_log_row *row);
void train_log_free(struct train_log *log);

/* What TrainerState has beside the log, as of `step`. */
struct trainer_facts {
    uint64_t step, max_steps;
    double epochs_per_step;
    uint64_t num_train_epochs, global_batch, logging_steps, eval_steps, save_steps;
    uint64_t tokens_seen;
    double total_flos;
};

/* Appends the file. Rows after `facts->step` are left out. */
int trainer_state_print(struct buf *out, const struct trainer_facts *facts, const struct train_log *log);

/* Calls each() for every row of the log in such a file, in its order. ERR_CORRUPT: it is none. */
int trainer_state_rows(const char *text, size_t text_bytes, void (*each)(void *arg, const struct train_log_row *row), void *arg);

#endif
