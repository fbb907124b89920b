/* Beginning a run from nothing over an output_dir that holds results (coordinator_restart()). */
#ifndef MILLRACE_COORDINATOR_RESTART_H
#define MILLRACE_COORDINATOR_RESTART_H

#include "config/config.h"
#include "coordinator/store.h"

#define RESTART_BEGUN "restart_begun"  /* in the store: not 0 while one is under way */
int restart_begin(struct store *store, const struct config *config);
int restart_go_on(struct store *store, const struct config *config);    /* finishes one that was begun; nothing otherwise */

#endif
