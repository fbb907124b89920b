/* Who may come to a ROUTER: the public keys that are let in. Everybody else is turned away while ZeroMQ shakes hands, before a message of
 * theirs is looked at.
 *
 * ZeroMQ asks about each connection through ZAP (RFC 27), over a socket inside the process that one thread answers here. It lives from
 * before the first ROUTER with keys is bound until after the last is closed: without an answerer ZeroMQ would let in any key, so the
 * process ends when that thread does. A link looks up its peers' keys again with each message, so a key that is taken back is shut out at
 * once, also over a connection that is there. All functions may be called from any thread. */
#ifndef MILLRACE_PROTO_ADMISSION_H
#define MILLRACE_PROTO_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/key.h"

struct admission;

/* Lets in nobody yet. `later`: who is turned away may be let in soon, so its ZeroMQ tries again by itself, for ever; else it is told, and
 * does not. */
struct admission *admission_open(bool later);
void admission_close(struct admission *admission);  /* after every link that has it; NULL is fine */

/* From now on these keys are let in, and no others. Both arrays are copied; marks[i] >= 1 is the caller's own and comes back from
 * admission_mark(). */
void admission_set(struct admission *admission, const uint8_t (*keys)[KEY_BYTES], const uint32_t *marks, size_t count);
uint32_t admission_mark(struct admission *admission, const uint8_t key[KEY_BYTES]);  /* 0: it is not let in */

const char *admission_domain(const struct admission *admission);  /* its name in ZeroMQ's questions */

/* For link.c, which calls them with its context: starts and ends the thread that answers. */
int admission_serve(void *context);  /* ERR_LIMIT: no thread could be started */
void admission_served(void);         /* after zmq_ctx_shutdown() of that context, before zmq_ctx_term() */

#endif
