/* Following a run from outside its daemons: asking the coordinator, reading what it left, showing progress. */
#ifndef MILLRACE_CLI_FOLLOW_H
#define MILLRACE_CLI_FOLLOW_H

#include "base/plain.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* The status of the run in output_dir: the coordinator's own if it answers within timeout_ms, else what it left
 * (cli/status_file.h). ERR_NOTFOUND when there never was a run. The caller releases *out. */
int status_get(json_t **out, const char *output_dir, int timeout_ms);

/* A few lines for people. */
void status_show(const json_t *status);

/* Live progress on standard error: one line that is rewritten on a terminal, lines now and then elsewhere; each step's line from
 * metrics.jsonl. */
struct follower;
struct follower *follower_open(const char *output_dir, bool quiet);
void follower_poll(struct follower *follower, const json_t *status_or_null);
void follower_stopping(struct follower *follower);               /* from now on what is saved is told, and no progress */
uint64_t follower_step(struct follower *follower);               /* the newest one that metrics.jsonl has; shows what is new there */
void follower_say(struct follower *follower, const char *line);  /* a line of its own */
void follower_close(struct follower *follower);  /* shows what is left */

#endif
