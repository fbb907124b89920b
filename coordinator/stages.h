/* The way of the dataset: text, token runs, shards, manifest, and on to training.
 *
 * stages_begin() looks what of it is there and begins with the rest, stages_tick() goes on to the next stage when one is done.
 * stages_decide() is the first half of stages_begin() for who only wants to know (preview.c). */
#ifndef MILLRACE_COORDINATOR_STAGES_H
#define MILLRACE_COORDINATOR_STAGES_H

struct context;

enum dataset_found {
    DATASET_NONE,                  /* to be made; its sources are not yet found */
    DATASET_OF_OTHER_SOURCES,      /* to be made; its sources are found */
    DATASET_DAMAGED, DATASET_OUTDATED, /* to be made again, err_text() says why */
    DATASET_THERE,                 /* the manifest is read */
};
int stages_decide(struct context *c, enum dataset_found *out);      /* what of a dataset is there; makes nothing */
int stages_begin(struct context *c);
void stages_open(struct context *c);
void stages_close(struct context *c);
void stages_tick(struct context *c);

#endif
