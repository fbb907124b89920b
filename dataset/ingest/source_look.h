/* What a source is by its first bytes, which decides how it is divided into jobs (dataset/ingest/split.h). */
#ifndef MILLRACE_DATASET_SOURCE_LOOK_H
#define MILLRACE_DATASET_SOURCE_LOOK_H

#include "dataset/ingest/split.h"
#include "dataset/source/sources.h"

/* Fills out->content. ERR_CONFIG, naming the file: its path is in dataset.sources and it is no text. Of a small file that was found in a
 * folder or by a glob it opens nothing: whoever reads it sees by the same rule what it is. */
int source_look(struct split_source *out, const struct source *source);

#endif
