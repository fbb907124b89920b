/* What a ZeroMQ endpoint may look like here: "tcp://HOST:PORT" or "ipc://PATH". Pure, but for the last two. */
#ifndef MILLRACE_PROTO_ENDPOINT_H
#define MILLRACE_PROTO_ENDPOINT_H

#include <stdbool.h>

enum { ENDPOINT_MAX = 280 };  /* characters: a host name of 253, the rest, and some air */

/* ERR_CONFIG, with what to do, when it is malformed, or when others on the network could reach it and !insecure. `bind`
 * allows "*" as port, and as host if insecure. */
int endpoint_check(const char *endpoint, bool bind, bool insecure);
void endpoint_to_bind(char out[ENDPOINT_MAX], const char *endpoint);  /* as ZeroMQ wants it: it does not bind "localhost" */
bool endpoint_is_local(const char *endpoint);  /* nobody on the network can reach it */
bool endpoint_is_ipv6(const char *endpoint);  /* "tcp://[..." */

/* Before binding an ipc endpoint: removes the socket file of a process that is gone. ERR_IO when somebody listens there, or
 * when the path is something else than a socket: ZeroMQ would remove it without asking. */
int endpoint_clear(const char *endpoint);

/* Before a question to a tcp endpoint with an IP address: is the answer there, within timeout_ms, that nobody listens? ZeroMQ would not
 * report that and go on trying to connect. False: somebody listens, there is no answer, or it is not known. */
bool endpoint_refuses(const char *endpoint, int timeout_ms);

#endif
