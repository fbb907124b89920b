/* A session: what coordinator and worker tell each other from one HELLO to the next. Its messages are numbered in each direction, so that
 * one that was lost while the connection lives is missed when the next one comes, at the latest with the next heartbeat, which has the
 * number of the last one before it. Whoever misses one ends the session: the worker says HELLO again, and both sides begin anew, as after
 * a break. So no other part has to know that messages can be lost in the middle.
 *
 * session_number() and session_sent() when a message goes, session_take() when one comes. What is asked again by itself is not numbered:
 * HELLO, WHO and READ with their answers; REFUSED and GOODBYE. Pure. */
#ifndef MILLRACE_PROTO_SESSION_H
#define MILLRACE_PROTO_SESSION_H

#include <stdbool.h>
#include <stdint.h>

struct session {        /* one side of it; zeros: begins */
    uint64_t sent;      /* numbered messages that were sent */
    uint64_t taken;     /* that came: all up to this number */
};

enum session_news {
    SESSION_NEXT,       /* as it should be */
    SESSION_AGAIN,      /* it came before: nothing is to be done */
    SESSION_GAP,        /* another one before it is lost */
};

bool session_counts(uint32_t kind);  /* are messages of this kind numbered? */

/* Envelope.sequence of the next message: its own number, or that of the last one before it for those that are not numbered. */
uint64_t session_number(const struct session *session, bool counts);
void session_sent(struct session *session, bool counts);  /* it was handed to the link, or should have been */

/* What came with that number; 0: its sender does not number, or has sent nothing yet. A gap is for the caller to repair: the session is not
 * changed then. */
enum session_news session_take(struct session *session, bool counts, uint64_t number);

#endif
