/* What became of the text that a dataset was made from, in lines for people. */
#ifndef MILLRACE_CLI_ACCOUNT_H
#define MILLRACE_CLI_ACCOUNT_H

#include <jansson.h>

/* Calls say() for each line: what was left out for each reason, what was changed, what was passed over. account: that of a status or a
 * result (dataset/ingest/left_out.h); NULL says nothing. A line may be as long as a path, and has no control characters. */
void account_show(const json_t *account, void (*say)(void *arg, const char *line), void *arg);

#endif
