/* Standard input as a source: copied to state/stdin before anything else, whole or not at all; coordinator_spool() does it first. */
#ifndef MILLRACE_COORDINATOR_SPOOL_H
#define MILLRACE_COORDINATOR_SPOOL_H

#include <stdbool.h>

#include "config/config.h"

void spool_stop(bool stop);                       /* true: reading ends with ERR_INTERRUPTED; from a signal handler, too */
int spool_next(const struct config *config);      /* standard input to state/stdin.next, if it is a source */
int spool_take_next(const struct config *config); /* which becomes state/stdin, if it is there */

#endif
