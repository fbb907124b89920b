/* The bounded arena. Small things fill blocks and are released only with the whole; large things are allocations of their
 * own, because protobuf-c takes and returns scratch arrays of many MiB while it unpacks long repeated fields. */
#include "proto/arena.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/err.h"

enum {
    ARENA_ALIGN = 16,
    ARENA_BLOCK_BYTES = 4000,      /* of the first block; most messages need no other */
    ARENA_BLOCK_MAX = 256 << 10,   /* blocks double up to this */
    ARENA_LARGE = 64 << 10,        /* from here on an allocation stands alone */
};

struct arena_block {
    struct arena_block *next;
    size_t size_bytes, filled_bytes;  /* of `bytes` */
    _Alignas(ARENA_ALIGN) uint8_t bytes[];
};

static struct arena_block *block_open(struct arena *arena, size_t size_bytes) {
    if (size_bytes > arena->max_bytes - arena->used_bytes) {
        arena->refused = true;
        return NULL;
    }
    struct arena_block *block = malloc(sizeof *block + size_bytes);
    if (!block) {
        arena->wanted_bytes = size_bytes;
        return NULL;
    }
    arena->used_bytes += size_bytes;
    *block = (struct arena_block){.size_bytes = size_bytes};
    return block;
}

static void *take_large(struct arena *arena, size_t size_bytes) {
    struct arena_block *block = block_open(arena, size_bytes);
    if (!block) return NULL;
    block->next = arena->large;
    arena->large = block;
    return block->bytes;
}

static void *take_small(struct arena *arena, size_t size_bytes) {
    struct arena_block *block = arena->small;
    if (!block || block->size_bytes - block->filled_bytes < size_bytes) {
        size_t want = block ? block->size_bytes * 2 : ARENA_BLOCK_BYTES;
        if (want > ARENA_BLOCK_MAX) want = ARENA_BLOCK_MAX;
        if (want > arena->max_bytes - arena->used_bytes || want < size_bytes) want = size_bytes;
        block = block_open(arena, want);
        if (!block) return NULL;
        block->next = arena->small;
        arena->small = block;
    }
    void *p = block->bytes + block->filled_bytes;
    block->filled_bytes += size_bytes;
    return p;
}

void *arena_take(struct arena *arena, size_t size_bytes) {
    if (size_bytes > arena->max_bytes) {
        arena->refused = true;
        return NULL;
    }
    size_t rounded = (size_bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    return rounded >= ARENA_LARGE ? take_large(arena, rounded) : take_small(arena, rounded);
}

static void *allocator_alloc(void *data, size_t size_bytes) { return arena_take(data, size_bytes); }

/* Large things are really released; small ones wait for arena_close(). */
static void allocator_free(void *data, void *pointer) {
    struct arena *arena = data;
    for (struct arena_block **at = &arena->large; *at; at = &(*at)->next) {
        struct arena_block *block = *at;
        if (block->bytes != pointer) continue;
        *at = block->next;
        arena->used_bytes -= block->size_bytes;
        free(block);
        return;
    }
}

struct arena *arena_open(size_t max_bytes) {
    struct arena *arena = malloc(sizeof *arena);
    if (!arena) return NULL;
    *arena = (struct arena){.max_bytes = max_bytes};
    arena->allocator = (ProtobufCAllocator){allocator_alloc, allocator_free, arena};
    return arena;
}

static void blocks_free(struct arena_block *block) {
    while (block) {
        struct arena_block *next = block->next;
        free(block);
        block = next;
    }
}

void arena_close(struct arena *arena) {
    if (!arena) return;
    CHECK(arena->used_bytes <= arena->max_bytes);
    blocks_free(arena->small);
    blocks_free(arena->large);
    free(arena);
}
