/* What the work thread asks. questions_send() sends what is due, to members as well as to the coordinator. The rest is about the
 * coordinator alone: questions_read() waits for the answer, questions_ask() asks ahead of the use, questions_next() gives the next message
 * that is not such an answer. Such a question has no step: what is of one is asked with reads_add(). */
#ifndef MILLRACE_WORKERS_QUESTIONS_H
#define MILLRACE_WORKERS_QUESTIONS_H

#include "base/buf.h"
#include "workers/shared.h"

/* Asks the coordinator and waits: appends the chunk to `out`. *out_next (may be NULL) gets Data.next_token. */
int questions_read(struct worker *worker, struct buf *out, int64_t *out_next, const Millrace__Read *read);
/* Asks the coordinator without waiting: the same questions_read() later finds the answer under way, or there. Nothing happens when open_max
 * questions of this kind are open. read->split, if any, is a constant text. */
void questions_ask(struct worker *worker, const Millrace__Read *read, size_t open_max);
void questions_forget(struct worker *worker, Millrace__Read__What what);  /* answers to what was asked ahead are of no use any more */

void questions_send(struct worker *worker);     /* those that are due, of whomever */
void questions_welcome(struct worker *worker);  /* to a coordinator that has just welcomed us: READY, and all that is open once more */
/* The next message to be dealt with: of those that were put off, then of the inbox; NULL: nothing came. */
struct queued_message *questions_next(struct worker *worker, int timeout_ms);

#endif
