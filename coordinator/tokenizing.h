/* The kind of job that makes token runs of text. tokenizing_begin() plans its jobs, or loads them; tokenizing_check_file() is asked by
 * whoever has read a source file, tokenizing_check_sources() at the end of the stage. */
#ifndef MILLRACE_COORDINATOR_TOKENIZING_H
#define MILLRACE_COORDINATOR_TOKENIZING_H

#include <stdint.h>

struct context;

int tokenizing_begin(struct context *c);
/* Is the source file, and what is open as fd (-1: nothing), the one that was found? ERR_CORRUPT names it; what was made of it is
 * forgotten. */
int tokenizing_check_file(struct context *c, uint32_t file, int fd);
int tokenizing_check_sources(struct context *c);                    /* are all of them? */

#endif
