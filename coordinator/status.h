/* What goes on, as JSON: for `millrace status`, the screen of `run`, and state/status.json. The loop's thread: status_answer() for each
 * question, status_write() once a second, status_turn() with each turn. */
#ifndef MILLRACE_COORDINATOR_STATUS_H
#define MILLRACE_COORDINATOR_STATUS_H

#include <stdint.h>

#include "base/buf.h"

struct context;

enum {
    STATUS_FRESH_MS = 50,          /* for which a printed status is given to whoever asks; people do not read faster */
    STATUS_ANSWERS_MAX = 16,       /* in one turn of the loop: each packs a text of some 100 KiB, with many workers */
};

#define STATUS_RESERVE ".reserve"   /* behind the name of status.json: a file that keeps room for the last one, until it is written */

int status_print(struct context *c, struct buf *out);
const char *status_answer(struct context *c);  /* to one who asks; its text is that of a moment ago. NULL: not now, ask again */
void status_write(struct context *c);
/* At the end. A run that is done leaves it for the process that started this one, too: process_last_words(). */
void status_write_last(struct context *c);
/* A run's last status.json, at `path`: also with the room that was reserved for it, which is given back. Best effort. */
void status_put_last(const char *path, const char *text, size_t size_bytes);
void status_turn(struct context *c, int64_t pause_ms);  /* one more turn of the loop, which took so long */
int64_t status_longest_pause_ms(const struct context *c);
void status_open(struct context *c);
void status_close(struct context *c);

#endif
