/* The state of a step, read from its members for a checkpoint. saving_begin() when the trainer wants one (ACTION_SAVE), saving_data() with
 * each answer, saving_tick() once a turn, which also tries again. The trainer is told with trainer_publishing() and trainer_saved();
 * training.c takes saving_event(). */
#ifndef MILLRACE_COORDINATOR_SAVING_H
#define MILLRACE_COORDINATOR_SAVING_H

#include <stdbool.h>
#include <stdint.h>

#include "model/checkpoint/checkpoint.h"
#include "proto/frame.h"
#include "proto/reads.h"

struct context;

#define SAVING_TAG ((uint64_t)1 << 63) /* of reads of a state, beside the item's number */

enum saving_news {
    SAVING_NOTHING,
    SAVING_DONE,        /* the checkpoint is there, and is the newest one */
    SAVING_FALSE_STATE, /* the worker gave another state than the one whose digest it had sent */
};
struct saving_event {
    enum saving_news news;
    struct checkpoint_facts facts;
    uint32_t worker;
};

void saving_open(struct context *c);
void saving_close(struct context *c);

void saving_begin(struct context *c, uint64_t step);
void saving_data(struct context *c, const struct read *read, const struct message *message); /* which answers that question */
void saving_drop_worker(struct context *c);
void saving_pause(struct context *c, int64_t pause_ms, int64_t now_ms); /* so long up to now no answer was taken: nobody's silence */
void saving_tick(struct context *c, int64_t now_ms);
bool saving_event(struct context *c, struct saving_event *out);  /* to be taken before the next tick */
bool saving_publishes(const struct context *c);                  /* all of the state is here */
void saving_end(struct context *c);
void saving_leave(struct context *c);  /* the coordinator ends: what is not yet published is not going to be */

#endif
