/* Which files the dataset's sources are: found (sourcing_find()), compared with those on record (sourcing_compare()), recorded
 * (sourcing_record()), or taken from the record (sourcing_recall()) when what is there now does not count. The loop's thread alone changes
 * the list, and not while tasks for files read it. */
#ifndef MILLRACE_COORDINATOR_SOURCING_H
#define MILLRACE_COORDINATOR_SOURCING_H

#include "base/buf.h"
#include "dataset/source/sources.h"

struct context;

void sourcing_open(struct context *c);
void sourcing_close(struct context *c);

int sourcing_find(struct context *c);    /* fills c->sources */
int sourcing_recall(struct context *c);  /* the sources as they are on record, whatever is there now */
/* Lists the sources as they are now; *out_difference (malloc) names what changed, came or went since the record, NULL: nothing. */
int sourcing_compare(struct context *c, struct buf *out_listing, char **out_difference);
int sourcing_record(struct context *c, char **out_difference); /* 1: as recorded; 0: not, and recorded now */
/* A source's name on record: below the pipeline's folder without it, so that a project that moved is the same. */
const char *sourcing_name(const struct context *c, const char *path);

#endif
