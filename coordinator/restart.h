/* Beginning a run from nothing over an output_dir that holds results (coordinator_restart()). */
#ifndef MILLRACE_COORDINATOR_RESTART_H
#define MILLRACE_COORDINATOR_RESTART_H

#include <stdbool.h>

#include "config/config.h"
#include "coordinator/store.h"

/* For who may think that the run goes on. */
#define RESTART_FINISHED "a restart that was begun before went on: what the earlier run made is removed, and this one begins from nothing"
#define RESTART_BEGUN "restart_begun"  /* in the store: not 0 while one is under way */
int restart_is_begun(bool *out, struct store *store);
int restart_begin(struct store *store, const struct config *config);
int restart_go_on(struct store *store, const struct config *config);    /* finishes one that was begun; nothing otherwise */

#endif
