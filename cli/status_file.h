/* The status that a coordinator wrote last, for when it does not answer. */
#ifndef MILLRACE_CLI_STATUS_FILE_H
#define MILLRACE_CLI_STATUS_FILE_H

#include <jansson.h>
#include <stdbool.h>

enum { STATUS_MAX_BYTES = 16 << 20 };

#define STATUS_DONE_AGAIN "what was not saved by then is done again"

/* The status of a run in output_dir that does not answer. When a coordinator on this machine holds the folder, or a `run` that starts it
 * again, it lives: then this is what the coordinator wrote last, and says so. Else the run is over, whatever it was in the middle of:
 * nothing in it runs, works, waits or will be done at some time, and its paths are those of output_dir as it is called now. ERR_NOTFOUND:
 * there never was a run. The caller releases *out. */
int status_read(json_t **out, const char *output_dir);

/* For `run`, once output_dir/logs is there: until the descriptor is closed the run goes on, also while its coordinator is not there.
 * Negative: that cannot be shown. */
int status_hold(const char *output_dir);
bool status_is_held(const char *output_dir);

/* For who killed the coordinator, and knows why: else status_read() would say that it was killed. Nothing when it had ended in order. */
void status_stopped(const char *output_dir, const char *why);

/* Is that status of the run in output_dir? Not when a copy of its folder, or another run at its address, was asked. */
bool status_is_of(const json_t *status, const char *output_dir);

#endif
