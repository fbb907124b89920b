/* A world of links in one process: proto/link.h once more, without sockets, with a clock of its own, and with all that a network may do:
 * delay, lose, repeat, and deliver in any order. A test that includes this gets it instead of ZeroMQ's (the linker takes these functions
 * before the library's), and base/clock.h's time with it; what is above cannot tell the difference.
 *
 * Messages are packed and unpacked as on a wire. Time passes only in link_receive() that has to wait, and in world_wait(); before it does,
 * `idle` is called, in which a test can play the other processes. Links belong to one thread of the test; link_wake() and the clock to
 * all. */
#ifndef MILLRACE_TESTS_UNIT_WORLD_H
#define MILLRACE_TESTS_UNIT_WORLD_H

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/mem.h"
#include "proto/link.h"
#include "tests/unit/random.h"

enum { WORLD_START_MS = 1000, WORLD_LINKS_MAX = 64 };
#define WORLD_NEVER INT64_MAX

/* A peer of a link: connected to an endpoint, or somebody who came to ours. */
struct world_peer {
    uint64_t number;
    char *endpoint; /* NULL: came to us */
    uint64_t far_link, far_number;
    struct world_peer *next;
};

struct link {
    uint64_t serial; /* of links; never used again */
    char *endpoint;
    struct world_peer *peers;
    uint64_t newest;
    link_wants *wants;
    void *wants_arg;
    atomic_bool woken;
    struct link_counts counts;
};

struct world_message {
    int64_t due_ms;
    uint64_t order;                                      /* of sending */
    uint64_t from_link, from_number, to_link, to_number; /* to_number 0: to the one who is bound at the endpoint */
    struct frame frame;
};

struct world {
    struct random random;
    unsigned lose_permille, repeat_permille;
    unsigned delay_max_ms; /* each message takes up to that long: with more than 0 they come in any order */
    bool full; /* nobody reads what was sent before: link_has_room() says no */
    void (*idle)(void *arg);
    void *arg;
    atomic_llong now_ms;
    struct link *links[WORLD_LINKS_MAX];
    struct world_message *messages;
    size_t count, room;
    uint64_t serial, order, lost;
};
/* One for the test, one thing at a time. */
static struct world world;

/* A new one without links, in which nothing goes wrong until somebody sets what may. */
static inline void world_begin(struct random random) {
    for (size_t i = 0; i < world.count; i++) frame_free(&world.messages[i].frame);
    struct world_message *messages = world.messages;
    size_t room = world.room;
    for (size_t i = 0; i < WORLD_LINKS_MAX; i++) link_close(world.links[i]); /* of a test that failed */
    memset(&world, 0, sizeof world);
    world.messages = messages, world.room = room;
    world.random = random;
    world.now_ms = WORLD_START_MS;
}

/* ---- base/clock.h ---- */

int64_t clock_ms(void) { return world.now_ms; }
double clock_seconds(void) { return (double)world.now_ms / 1000; }
int64_t clock_wall_ms(void) { /* seeds come from it */
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
void clock_sleep_ms(int64_t ms) { world.now_ms += ms; }
void clock_stamp(char out[32]) { memcpy(out, "2000-01-01T00:00:00.000Z", 25); }

/* ---- messages under way ---- */

static inline struct link *world_link(uint64_t serial) {
    for (size_t i = 0; i < WORLD_LINKS_MAX; i++)
        if (world.links[i] && world.links[i]->serial == serial) return world.links[i];
    return NULL;
}

static inline struct link *world_bound(const char *endpoint) {
    for (size_t i = 0; i < WORLD_LINKS_MAX; i++)
        if (world.links[i] && world.links[i]->endpoint && strcmp(world.links[i]->endpoint, endpoint) == 0) return world.links[i];
    return NULL;
}

static inline void world_copy(struct buf *out, const struct buf *from) {
    *out = (struct buf){.max_bytes = from->size + 1};
    assert_int_equal(buf_append(out, from->data, from->size), 0);
}

static inline void world_post(struct world_message sent, const struct frame *frame) {
    if (world.count == world.room) world.messages = mem_resize(world.messages, (world.room = 2 * world.room + 64) * sizeof sent);
    sent.order = world.order++;
    sent.due_ms = world.now_ms + (int64_t)random_in(&world.random, 0, world.delay_max_ms);
    world_copy(&sent.frame.header, &frame->header);
    world_copy(&sent.frame.body, &frame->body);
    world.messages[world.count++] = sent;
}

/* When the next message arrives, for this link or for anybody (NULL). */
static inline int64_t world_next_ms(const struct link *link) {
    int64_t next_ms = WORLD_NEVER;
    for (size_t i = 0; i < world.count; i++)
        if ((!link || world.messages[i].to_link == link->serial) && world.messages[i].due_ms < next_ms) next_ms = world.messages[i].due_ms;
    return next_ms;
}

static inline void world_wait(int64_t until_ms) {
    if (until_ms > world.now_ms) world.now_ms = until_ms;
}

static inline bool world_dice(unsigned permille) { return permille && random_in(&world.random, 0, 999) < permille; }

/* ---- proto/link.h ---- */

int link_open(struct link **out, const struct link_options *options) {
    if (options->bind && world_bound(options->bind)) return err_set(ERR_IO, "%s is in use by another process", options->bind);
    for (size_t i = 0; i < WORLD_LINKS_MAX; i++) {
        if (world.links[i]) continue;
        *out = world.links[i] = mem_alloc(sizeof **out);
        (*out)->serial = ++world.serial;
        if (options->bind && strstr(options->bind, ":*")) (*out)->endpoint = mem_format("world:%llu", (unsigned long long)world.serial);
        else if (options->bind) (*out)->endpoint = mem_text(options->bind);
        return 0;
    }
    return err_set(ERR_LIMIT, "a world has %d links", WORLD_LINKS_MAX);
}

void link_filter(struct link *link, link_wants *wants, void *arg) {
    link->wants = wants;
    link->wants_arg = arg;
}

const char *link_endpoint(const struct link *link) { return link->endpoint; }

static inline struct world_peer *world_peer_add(struct link *link, const char *endpoint) {
    struct world_peer *peer = mem_alloc(sizeof *peer);
    peer->number = ++link->newest;
    if (endpoint) peer->endpoint = mem_text(endpoint);
    peer->next = link->peers;
    return link->peers = peer;
}

int link_connect(struct link *link, uint64_t *out_peer, const char *endpoint) {
    for (struct world_peer *peer = link->peers; peer; peer = peer->next) {
        if (!peer->endpoint || strcmp(peer->endpoint, endpoint) != 0) continue;
        *out_peer = peer->number;
        return 0;
    }
    *out_peer = world_peer_add(link, endpoint)->number;
    return 0;
}

void link_disconnect(struct link *link, uint64_t number) {
    for (struct world_peer **at = &link->peers; *at; at = &(*at)->next) {
        struct world_peer *peer = *at;
        if (peer->number != number) continue;
        *at = peer->next;
        free(peer->endpoint);
        free(peer);
        return;
    }
}

size_t link_disconnect_idle(struct link *link, int64_t idle_ms, uint64_t except) {
    (void)link, (void)idle_ms, (void)except; /* connections cost nothing here */
    return 0;
}

int link_send(struct link *link, uint64_t number, struct frame *frame) {
    struct world_peer *peer = link->peers;
    while (peer && peer->number != number) peer = peer->next;
    struct link *far = !peer ? NULL : peer->endpoint ? world_bound(peer->endpoint) : world_link(peer->far_link);
    if (!peer || (!far && !peer->endpoint)) {
        frame_free(frame);
        link->counts.dropped++;
        return err_set(ERR_NOTFOUND, "peer %llu has left", (unsigned long long)number);
    }
    link->counts.sent++;
    link->counts.sent_bytes += frame->header.size + frame->body.size;
    struct world_message sent = {.from_link = link->serial, .from_number = number, .to_number = peer->far_number};
    if (far) sent.to_link = far->serial;
    if (!far || world_dice(world.lose_permille)) world.lost++;
    else {
        world_post(sent, frame);
        while (world_dice(world.repeat_permille)) world_post(sent, frame);
    }
    frame_free(frame);
    return 0;
}

bool link_has_room(struct link *link, uint64_t number, size_t bytes) {
    (void)link, (void)number, (void)bytes;
    return !world.full;
}

/* The number by which the receiver knows the sender; 0: it has forgotten it. */
static inline uint64_t world_sender(struct link *link, const struct world_message *sent) {
    struct world_peer *peer = link->peers;
    if (sent->to_number) {
        while (peer && peer->number != sent->to_number) peer = peer->next;
        return peer ? peer->number : 0;
    }
    for (; peer; peer = peer->next)
        if (!peer->endpoint && peer->far_link == sent->from_link && peer->far_number == sent->from_number) break;
    if (!peer) {
        peer = world_peer_add(link, NULL);
        peer->far_link = sent->from_link;
        peer->far_number = sent->from_number;
    }
    return peer->number;
}

/* Takes the next message that is due; false: none is. */
static inline bool world_take(struct link *link, uint64_t *out_peer, struct message *out) {
    for (;;) {
        struct world_message *next = NULL;
        for (size_t i = 0; i < world.count; i++) {
            struct world_message *other = &world.messages[i];
            if (other->to_link != link->serial || other->due_ms > world.now_ms) continue;
            if (!next || other->due_ms < next->due_ms || (other->due_ms == next->due_ms && other->order < next->order)) next = other;
        }
        if (!next) return false;
        struct world_message sent = *next;
        *next = world.messages[--world.count];
        const struct buf *header = &sent.frame.header, *body = &sent.frame.body;
        *out_peer = world_sender(link, &sent);
        bool good = *out_peer && frame_unpack(out, header->data, header->size, body->data, body->size) == 0;
        if (good && link->wants && !link->wants(link->wants_arg, *out_peer, &out->envelope)) {
            message_free(out);
            good = false;
        }
        if (good) link->counts.received++, link->counts.received_bytes += header->size + body->size;
        else link->counts.dropped++;
        frame_free(&sent.frame);
        if (good) return true;
    }
}

int link_receive(struct link *link, uint64_t *out_peer, struct message *out, int timeout_ms) {
    int64_t deadline_ms = timeout_ms < 0 ? WORLD_NEVER : world.now_ms + timeout_ms;
    for (;;) {
        if (world_take(link, out_peer, out)) return 1;
        if (atomic_exchange(&link->woken, false) || world.now_ms >= deadline_ms) return 0;
        if (world.idle) world.idle(world.arg);
        int64_t next_ms = world_next_ms(link);
        world_wait(next_ms < deadline_ms ? next_ms : deadline_ms);
    }
}

void link_wake(struct link *link) { atomic_store(&link->woken, true); }

struct link_counts link_counts(const struct link *link) {
    return link->counts;
}

void link_close(struct link *link) {
    if (!link) return;
    while (link->peers) link_disconnect(link, link->peers->number);
    for (size_t i = world.count; i-- > 0;) {
        if (world.messages[i].to_link != link->serial) continue;
        frame_free(&world.messages[i].frame);
        world.messages[i] = world.messages[--world.count];
    }
    for (size_t i = 0; i < WORLD_LINKS_MAX; i++)
        if (world.links[i] == link) world.links[i] = NULL;
    free(link->endpoint);
    free(link);
}

#endif
