/* Numbers for the endpoints that the work thread asks. Reads know peers by number: an endpoint's text comes and goes with messages, and
 * the memory of one that is gone may hold another. Numbers begin at 1 (0 is the coordinator) and are never used again. The work thread's
 * alone. */
#ifndef MILLRACE_WORKERS_ADDRESSES_H
#define MILLRACE_WORKERS_ADDRESSES_H

#include <stddef.h>
#include <stdint.h>

struct address {
    uint64_t number;
    char *endpoint;
};
struct addresses {
    struct address *address;
    size_t count;
    uint64_t newest;
};

uint64_t addresses_number(struct addresses *addresses, const char *endpoint);  /* the same endpoint has the same number while it is kept */
const char *addresses_find(const struct addresses *addresses, uint64_t number); /* NULL: not kept, or 0 */
void addresses_keep(struct addresses *addresses, const uint64_t *numbers, size_t count); /* forgets all others */
void addresses_close(struct addresses *addresses);

#endif
