/* How `millrace run` starts its daemons: this program once more, as a process of its own. */
#ifndef MILLRACE_CLI_SPAWN_H
#define MILLRACE_CLI_SPAWN_H

#include <sys/types.h>

/* Starts this program with other arguments ("millrace", ..., NULL). It ends when its parent does, whatever happens, gets no signals from
 * the terminal, and writes to `log`. words: the file for its last words (base/process.h), which it keeps open; not above 0: none. A signal
 * that is sent to it counts from the beginning: SIGTERM ends it until it takes its signals itself. */
int spawn(pid_t *out, char **arguments, int log, int words);

#endif
