/* What output_dir must be before anything is begun in it. */
#ifndef MILLRACE_COORDINATOR_OUTPUT_H
#define MILLRACE_COORDINATOR_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "config/config.h"

/* What is waited for because err_text(), of `code`, says so: the cause, on a full disk how much is free there and what to do, and when it
 * is tried again. */
void output_wait_words(char *out, size_t size, const struct config *config, int code, int again_s);

/* The address at which the run in that output_dir is asked, as its coordinator wrote it: a text, which may be empty, for the caller to
 * free. Fails as file_read() does. */
int output_endpoint(struct buf *out, const char *output_dir);

/* ERR_DENIED: a folder is in the place of a file of a dataset in this one, where it could be neither replaced nor removed. */
int output_check_dataset(const char *folder);

/* Makes output_dir. `anew`: what an earlier run made there is going to be removed. ERR_DENIED: what stands in the way of a run there. */
int output_check(const struct config *config, bool anew);

#endif
