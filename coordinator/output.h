/* What output_dir must be before anything is begun in it. */
#ifndef MILLRACE_COORDINATOR_OUTPUT_H
#define MILLRACE_COORDINATOR_OUTPUT_H

#include "config/config.h"

int output_check(const struct config *config);  /* makes output_dir; ERR_DENIED: what stands in the way of a run there */

#endif
