/* Where somebody is reached: up to four addresses, "tcp://HOST:PORT" or "ipc://PATH", with commas between them, and then, when there is
 * one, '#' and the key that whoever answers there has to have: "tcp://10.0.0.3:5555,tcp://node3:5555#9f3a...". To be bound it is one
 * address alone. Pure, but for the last three functions. */
#ifndef MILLRACE_PROTO_ENDPOINT_H
#define MILLRACE_PROTO_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/key.h"

enum {
    ENDPOINT_MAX = 280,         /* characters of one address: a host name of 253, the rest, and some air */
    ENDPOINT_ADDRESSES_MAX = 4,
    ENDPOINT_TEXT_MAX = 1200,   /* of all of it */
};

struct endpoint {
    char address[ENDPOINT_ADDRESSES_MAX][ENDPOINT_MAX];
    size_t addresses;
    bool has_key;
    uint8_t key[KEY_BYTES];
};

/* ERR_CONFIG, with what to do, when it is malformed, or when others on the network could reach it, it has no key, and !safe (the network is
 * trusted, or whoever binds has a key). `bind` allows "*" as port, and as host if `safe`. */
int endpoint_parse(struct endpoint *out, const char *endpoint, bool bind, bool safe);
int endpoint_check(const char *endpoint, bool bind, bool safe);  /* the same, and nobody wants it in parts */
int endpoint_write(char out[ENDPOINT_TEXT_MAX], const char *addresses, const uint8_t *key);  /* key: NULL for none. ERR_LIMIT: too long */
void endpoint_to_bind(char out[ENDPOINT_MAX], const char *endpoint);  /* as ZeroMQ wants it: it does not bind "localhost" */
bool endpoint_is_local(const char *endpoint);  /* nobody on the network can reach it: each of its addresses is of this machine alone */
int endpoint_shown(const char *endpoint);  /* for people: how many of its characters are the first address, 160 at most ("%.*s") */
bool endpoint_is_ipc(const char *address);
bool endpoint_is_ipv6(const char *address);  /* "tcp://[..." */

/* What others are told who are to reach a ROUTER bound at `bound`: a list of addresses with commas between them, each "HOST" or "HOST:PORT"
 * (a name, an address of IPv4 or IPv6; the port of `bound` where there is none), as an endpoint. ERR_CONFIG: it is no such list. */
int endpoint_announce(char out[ENDPOINT_TEXT_MAX], const char *advertise, const char *bound);

/* Can others be told of it when it is bound? Not of one of this machine alone, nor of one of IPv6 that counts on its link alone (fe80::),
 * nor of all addresses at once ("*", 0.0.0.0, [::]). */
bool endpoint_is_for_others(const char *address);

/* To be bound by one who goes to `endpoint`: "tcp://ADDRESS:*" with the address of this machine's interface from which packets go there,
 * the first that others can be told of, if any of its addresses, or of those that their names have, leads to one: a machine may know its
 * own name as 127.0.1.1. Names are looked up, which may take seconds. ERR_NOTFOUND: no way there, or no such name. */
int endpoint_toward(char out[ENDPOINT_MAX], const char *endpoint);

/* Before binding an ipc endpoint: removes the socket file of a process that is gone. ERR_IO when somebody listens there, or
 * when the path is something else than a socket: ZeroMQ would remove it without asking. */
int endpoint_clear(const char *endpoint);

/* Before a question to a tcp endpoint with an IP address: is the answer there, within timeout_ms, that nobody listens? ZeroMQ would not
 * report that and go on trying to connect. False: somebody listens, there is no answer, or it is not known. */
bool endpoint_refuses(const char *endpoint, int timeout_ms);

#endif
