/* Memory for one received message: everything is taken from one place, up to a limit, and released at once. It plugs into
 * protobuf-c as an allocator, which makes unpacking of hostile bytes bounded: past the limit the allocator answers NULL and
 * protobuf-c gives up. Belongs to one thread at a time. */
#ifndef MILLRACE_PROTO_ARENA_H
#define MILLRACE_PROTO_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

struct arena_block;

struct arena {
    ProtobufCAllocator allocator;  /* hand &arena->allocator to protobuf-c */
    struct arena_block *small;     /* the one being filled is first */
    struct arena_block *large;     /* one allocation each, latest first */
    size_t used_bytes, max_bytes;
    bool refused;                  /* the limit was not enough for something, */
    size_t wanted_bytes;           /* or memory was not: for so many bytes; 0: it always was */
};

struct arena *arena_open(size_t max_bytes);  /* NULL: out of memory */
void *arena_take(struct arena *arena, size_t size_bytes);  /* aligned to 16; not zeroed; NULL past the limit */
void arena_close(struct arena *arena);  /* NULL is fine */

#endif
