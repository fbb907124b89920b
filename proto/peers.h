/* Those who arrived at a ROUTER: ZeroMQ's routing ids <-> our numbers, at most PEERS_MAX of them. When the table is full the
 * one heard least recently is forgotten; it gets a new number when it speaks again. Pure. */
#ifndef MILLRACE_PROTO_PEERS_H
#define MILLRACE_PROTO_PEERS_H

#include <stddef.h>
#include <stdint.h>

enum { PEERS_MAX = 4096, PEER_ID_MAX = 255 };

struct peers;

struct peers *peers_open(void);
/* The number of this id, 1 <= size_bytes <= PEER_ID_MAX. One not in the table gets ++*serial. */
uint64_t peers_heard(struct peers *peers, uint64_t *serial, const void *id, size_t size_bytes);
/* The id of a number; NULL when it is not in the table. Holds until the next call. */
const void *peers_id(const struct peers *peers, size_t *out_size, uint64_t number);
/* Where in 0 .. PEERS_MAX - 1 this number lies, for a table beside this one; PEERS_MAX when it does not. Others come there after it. */
size_t peers_place(const struct peers *peers, uint64_t number);
void peers_forget(struct peers *peers, uint64_t number);  /* unknown numbers are fine */
void peers_close(struct peers *peers);  /* NULL is fine */

#endif
