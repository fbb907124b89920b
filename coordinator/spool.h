/* Standard input as a source: copied to state/stdin before anything else, whole or not at all; coordinator_spool() does it first. */
#ifndef MILLRACE_COORDINATOR_SPOOL_H
#define MILLRACE_COORDINATOR_SPOOL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "config/config.h"

void spool_stop(bool stop);                       /* true: reading ends with ERR_INTERRUPTED; from a signal handler, too */
int spool_next(const struct config *config);      /* standard input to state/stdin.next, if it is a source */
int spool_take_next(const struct config *config); /* which becomes state/stdin, if it is there */
int spool_forget(const struct config *config);    /* removes what earlier pipelines read, if standard input is no source of this one */

/* The run is refused before it has a dataset: its text is put aside, as state/stdin.refused. coordinator_spool() then reads standard input
 * anew, and takes what is aside again only where that is empty. */
int spool_refuse(const struct config *config);

/* Appends a line when standard input is read as text though its first lines look like JSON lines: it has no name that says so. */
void spool_warning(struct buf *out, const struct config *config);

/* In a text of size_bytes, for people: "standard input" in place of the path of its copy. */
void spool_name(char *text, size_t size_bytes, const struct config *config);

#endif
