/* Links: ZeroMQ's sockets, which no other file of the project knows.
 *
 * A link is one thread's way to the world: at most one bound ROUTER, at which any number of peers arrive, and any number of
 * DEALERs, each connected to one endpoint. Both kinds of peer have a number; numbers are never used again. ZeroMQ
 * connects again by itself after a break; a peer that arrives anew at the ROUTER gets a new number. Delivery may drop,
 * repeat and reorder around a break: those who decide expect it.
 *
 * Defences: messages over the size caps, messages of more or fewer than two frames, and frames that do not unpack are dropped and
 * counted, and do no harm to other peers; connections that do not finish ZeroMQ's handshake in 3 s are closed; a dead TCP
 * peer is noticed by TCP itself. What a peer has not read yet is bounded in messages and bytes, and so is what it has sent and nobody
 * has taken. What nobody waits for is dropped by its header, before its body costs anything.
 *
 * A link can have keys (proto/key.h), and needs no `insecure` then to leave the machine: a ROUTER with a key lets in those whom its
 * admission names, and nobody without a key; a DEALER goes on only with one that has the key of its endpoint. No daemon gives its link any
 * yet. An ipc endpoint needs none: its file has an owner.
 * An endpoint may have several addresses (proto/endpoint.h). They are tried in turn until one answers, and again when it falls silent.
 * A link belongs to the thread that opened it; only link_wake() may be called from others. */
#ifndef MILLRACE_PROTO_LINK_H
#define MILLRACE_PROTO_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/admission.h"
#include "proto/frame.h"
#include "proto/key.h"

struct link;

struct link_options {
    const char *bind;    /* NULL: no ROUTER; "tcp://127.0.0.1:*" takes a free port; "ipc:///path" */
    const struct key_pair *key;  /* our own, copied; NULL: none */
    struct admission *admission; /* who may come to the ROUTER; NULL: anybody. It needs a key, and must outlive the link */
    bool insecure;       /* allow endpoints without a key that others on the network can reach */
    size_t frame_max;    /* bytes of a frame that comes to the ROUTER: the connection of whoever sends more is closed. 0: the largest */
};

/* Is this worth unpacking? Asked before the body of a message is looked at, so nothing in the envelope is checked by its digest yet. */
typedef bool link_wants(void *arg, uint64_t peer, const struct envelope *envelope);

struct link_counts {
    uint64_t sent, received, sent_bytes, received_bytes, dropped;  /* dropped: malformed or over a cap, and unsent */
};

/* ERR_IO when the address is in use (the text says so and what to do), ERR_CONFIG when it is not allowed or malformed. */
int link_open(struct link **out, const struct link_options *options);
void link_filter(struct link *link, link_wants *wants, void *arg);  /* NULL: everything is */
const char *link_endpoint(const struct link *link);  /* the bound one, with its real port; NULL without a ROUTER */

/* Starts connecting; succeeds at once. The same endpoint twice gives the same number. */
int link_connect(struct link *link, uint64_t *out_peer, const char *endpoint);
/* The same to one that may know nothing of our key: link_refused() tells of it. Where it was connected without that question and has said
 * nothing yet, it connects anew, and what is unsent is dropped. */
int link_connect_asking(struct link *link, uint64_t *out_peer, const char *endpoint);
/* True: it was reached, and turns us away: our key is not let in there. ZeroMQ does not try again. (Where it has another key than its
 * endpoint says, it only hangs up, as a machine that goes down does, and ZeroMQ tries again.) */
bool link_refused(struct link *link, uint64_t peer);
/* The key by which somebody who came to the ROUTER was let in. False: it came without one, or left. */
bool link_peer_key(const struct link *link, uint8_t out[KEY_BYTES], uint64_t peer);
void link_disconnect(struct link *link, uint64_t peer);  /* drops what is unsent; unknown numbers are fine */
/* Disconnects the DEALERs over which nothing went either way for idle_ms, but for `keep`: each of those costs a file and tries for ever to
 * reach somebody who may have left. Returns how many; connecting again later is cheap. */
size_t link_disconnect_idle(struct link *link, int64_t idle_ms, uint64_t keep);

/* Sends and frees `frame` (also on failure). Never blocks. ERR_NOTFOUND: the peer is gone (a peer that came to our ROUTER
 * and left, or a number that was disconnected). ERR_LIMIT: its queue is full (LINK_QUEUE_MAX messages or LINK_UNSENT_MAX bytes), or that
 * of all together (LINK_UNSENT_ALL_MAX, and LINK_UNSENT_SMALL_MAX for a small message) and something waits for this one. */
int link_send(struct link *link, uint64_t peer, struct frame *frame);

/* Would a message of that many bytes be taken, as far as its peer's reading goes? For who would make it only to have it refused. */
bool link_has_room(struct link *link, uint64_t peer, size_t bytes);

/* Waits up to timeout_ms (-1: without end) for one message. Returns 1 with a message (the caller frees it), 0 when the time
 * passed, link_wake() was called or a signal came, or a negative error. ERR_MEMORY: there was none for a message of *out_peer, which is
 * dropped; of it *out has what link_wants was asked about (all zero without a filter). More can be received. */
int link_receive(struct link *link, uint64_t *out_peer, struct message *out, int timeout_ms);

/* Makes a running or the next link_receive() return at once; from any thread, and from signal handlers. */
void link_wake(struct link *link);

struct link_counts link_counts(const struct link *link);
void link_close(struct link *link);  /* gives unsent messages LINK_LINGER_MS to go; NULL is fine */

enum {
    LINK_QUEUE_MAX = 10000,
    LINK_UNSENT_MAX = 40 << 20,       /* eight segments and some: what an honest asker has open at one peer */
    LINK_UNSENT_ALL_MAX = 256 << 20,  /* of all who came to the ROUTER */
    LINK_SMALL_MAX = 64 << 10,        /* messages up to that size, which are no bulk data, */
    LINK_UNSENT_SMALL_MAX = 32 << 20, /* have that much more in all */
    LINK_LINGER_MS = 500,
    LINK_HANDSHAKE_MS = 3000,
    LINK_TRY_MS = 1000,               /* for an answer, before another address of the same endpoint is tried */
    LINK_TRY_AGAIN_MS = 10000,        /* the same of an address that has answered before: it may be busy */
};

#endif
