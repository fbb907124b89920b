/* A table of slots with two hash chains (by id, by number) and one list from the most to the least recently heard. */
#include "proto/peers.h"

#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/err.h"
#include "base/mem.h"

enum { BUCKETS = 2 * PEERS_MAX };

struct peer {
    uint64_t number;                        /* 0: this slot is free */
    struct peer *next_by_id, *next_by_number;
    struct peer *newer, *older;             /* older also chains the free slots */
    uint8_t id_bytes;
    uint8_t id[PEER_ID_MAX];
};

struct peers {
    struct peer *by_id[BUCKETS], *by_number[BUCKETS];
    struct peer *newest, *oldest, *unused;
    struct peer slots[PEERS_MAX];
};

struct peers *peers_open(void) {
    struct peers *peers = mem_alloc(sizeof *peers);
    for (size_t i = 0; i < PEERS_MAX; i++) {
        peers->slots[i].older = peers->unused;
        peers->unused = &peers->slots[i];
    }
    return peers;
}

static struct peer **id_bucket(struct peers *peers, const void *id, size_t size_bytes) {
    return &peers->by_id[XXH3_64bits(id, size_bytes) % BUCKETS];
}

static void list_remove(struct peers *peers, struct peer *peer) {
    *(peer->newer ? &peer->newer->older : &peers->newest) = peer->older;
    *(peer->older ? &peer->older->newer : &peers->oldest) = peer->newer;
}

static void list_push(struct peers *peers, struct peer *peer) {
    peer->newer = NULL;
    peer->older = peers->newest;
    *(peers->newest ? &peers->newest->newer : &peers->oldest) = peer;
    peers->newest = peer;
}

static void forget(struct peers *peers, struct peer *peer) {
    struct peer **at = id_bucket(peers, peer->id, peer->id_bytes);
    while (*at != peer) at = &(*at)->next_by_id;
    *at = peer->next_by_id;
    at = &peers->by_number[peer->number % BUCKETS];
    while (*at != peer) at = &(*at)->next_by_number;
    *at = peer->next_by_number;
    list_remove(peers, peer);
    peer->number = 0;
    peer->older = peers->unused;
    peers->unused = peer;
}

static struct peer *add(struct peers *peers, uint64_t number, const void *id, size_t size_bytes) {
    if (!peers->unused) forget(peers, peers->oldest);
    struct peer *peer = peers->unused, **bucket = id_bucket(peers, id, size_bytes);
    peers->unused = peer->older;
    peer->number = number;
    peer->id_bytes = (uint8_t)size_bytes;
    memcpy(peer->id, id, size_bytes);
    peer->next_by_id = *bucket;
    *bucket = peer;
    bucket = &peers->by_number[number % BUCKETS];
    peer->next_by_number = *bucket;
    *bucket = peer;
    return peer;
}

uint64_t peers_heard(struct peers *peers, uint64_t *serial, const void *id, size_t size_bytes) {
    CHECK(size_bytes >= 1 && size_bytes <= PEER_ID_MAX);
    struct peer *peer = *id_bucket(peers, id, size_bytes);
    while (peer && (peer->id_bytes != size_bytes || memcmp(peer->id, id, size_bytes) != 0)) peer = peer->next_by_id;
    if (peer)
        list_remove(peers, peer);
    else
        peer = add(peers, ++*serial, id, size_bytes);
    list_push(peers, peer);
    return peer->number;
}

static struct peer *find(const struct peers *peers, uint64_t number) {
    struct peer *peer = peers->by_number[number % BUCKETS];
    while (peer && peer->number != number) peer = peer->next_by_number;
    return peer;
}

const void *peers_id(const struct peers *peers, size_t *out_size, uint64_t number) {
    const struct peer *peer = find(peers, number);
    if (!peer) return NULL;
    *out_size = peer->id_bytes;
    return peer->id;
}

size_t peers_place(const struct peers *peers, uint64_t number) {
    const struct peer *peer = find(peers, number);
    return peer ? (size_t)(peer - peers->slots) : PEERS_MAX;
}

void peers_forget(struct peers *peers, uint64_t number) {
    struct peer *peer = find(peers, number);
    if (peer) forget(peers, peer);
}

void peers_close(struct peers *peers) { free(peers); }
