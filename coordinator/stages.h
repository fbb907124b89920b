/* The dataset's way: text -> token runs -> shards -> manifest, and on to training. */
#ifndef MILLRACE_COORDINATOR_STAGES_H
#define MILLRACE_COORDINATOR_STAGES_H

struct context;

enum dataset_found {
    DATASET_NONE,                  /* to be made */
    DATASET_OF_OTHER_SOURCES,      /* the same; the sources are found */
    DATASET_DAMAGED, DATASET_OUTDATED, /* the same, and err_text() says why */
    DATASET_THERE,                 /* the manifest is read */
};
int stages_decide(struct context *c, enum dataset_found *out);      /* what of a dataset is there; makes nothing */
int stages_begin(struct context *c);
void stages_open(struct context *c);
void stages_close(struct context *c);
void stages_tick(struct context *c);

#endif
