/* The simulation's network: proto/link.h once more, between processes of one program, with all that a network may do to a connection:
 * delay, loss, repetition, breaks, and pairs that never reach each other. Messages are packed and unpacked as on a wire. */
#ifndef MILLRACE_TESTS_SIM_NETWORK_H
#define MILLRACE_TESTS_SIM_NETWORK_H

#include "proto/link.h"
#include "tests/sim/process.h"

#define COORDINATOR_ADDRESS "tcp://10.0.0.7:5555"

enum { ENDPOINT_BYTES = 32, LINK_PEERS_MAX = 512, INBOX_MAX = 4096, PORT_FIRST = 1000, PORT_STEP = 4 };

/* A peer of a link: connected to an endpoint, or somebody who came to ours over one connection. */
struct link_peer {
    uint64_t number;
    char endpoint[ENDPOINT_BYTES]; /* "": came to us */
    int place;
    uint64_t far_link, far_number;
    uint32_t connection;           /* of those who came: a later one has another number */
};

struct link {
    uint64_t serial; /* of links; never used again */
    struct process *process;
    char endpoint[ENDPOINT_BYTES]; /* "": not bound */
    struct link_peer peer[LINK_PEERS_MAX];
    size_t peers;
    uint64_t newest;
    struct sent_message *inbox[INBOX_MAX]; /* a ring */
    size_t first, count;
    link_wants *wants;
    void *wants_arg;
    bool woken;
    struct link_counts counts;
};

struct sent_message {
    struct frame frame;
    struct envelope envelope;
    uint64_t from_link, from_number, to_link, to_number; /* to_number 0: to the one who is bound there */
    int from, to;
    uint32_t connection;
};

/* ---- places ---- */

static int place_of(const char *endpoint) {
    int place = -1;
    return sscanf(endpoint, "tcp://10.0.0.%d:", &place) == 1 && place > 0 && place <= PLACES ? place - 1 : -1;
}

static struct link *link_at(const char *endpoint) {
    for (size_t i = 0; i < LINKS_CAP; i++)
        if (world->link[i] && strcmp(world->link[i]->endpoint, endpoint) == 0) return world->link[i];
    return NULL;
}

static struct link *link_of(uint64_t serial) {
    for (size_t i = 0; i < LINKS_CAP; i++)
        if (world->link[i] && world->link[i]->serial == serial) return world->link[i];
    return NULL;
}

/* The life of the worker that is bound there. */
static uint32_t life_of(const char *endpoint) {
    const char *port = strrchr(endpoint, ':');
    unsigned number = 0;
    return port && sscanf(port + 1, "%u", &number) == 1 ? (number - PORT_FIRST) / PORT_STEP : 0;
}

/* Which way a connection is made matters: a firewall lets the other one through. */
static bool is_walled(int from, int to) {
    const struct plan *p = &world->plan;
    return p->walled && ((from == p->wall_from && to == p->wall_to) || (p->wall_both && from == p->wall_to && to == p->wall_from));
}

static struct sent_message *sent_copy(const struct sent_message *sent) {
    struct sent_message *copy = mem_alloc(sizeof *copy);
    const struct frame *from = &sent->frame;
    *copy = *sent;
    copy->frame = (struct frame){.header = {.max_bytes = from->header.size + 1}, .body = {.max_bytes = from->body.size + 1}};
    CHECK(buf_append(&copy->frame.header, from->header.data, from->header.size) == 0);
    CHECK(buf_append(&copy->frame.body, from->body.data, from->body.size) == 0);
    return copy;
}

static void sent_drop(struct sent_message *sent) {
    frame_free(&sent->frame);
    free(sent);
}

/* ---- under way ---- */

static void post_at(struct sim *s, struct sent_message *sent, int64_t time_ms) {
    struct event *event = event_at(s, time_ms, EVENT_MESSAGE, sent->to);
    event->sent = sent;
    heap_push(s, event);
}

/* Bulk bytes and questions for them ask for themselves again: nothing rests on their order. */
static bool any_order(uint32_t kind) { return kind == MILLRACE__KIND__READ || kind == MILLRACE__KIND__DATA; }

/* Takes the message. */
static void post(struct sim *s, struct sent_message *sent) {
    struct line *line = line_between(s, sent->from, sent->to);
    int64_t time_ms = s->now_ms + draw_in(s, 1, s->plan.delay_ms), *last = &line->last_ms[sent->from > sent->to];
    sent->connection = line->connection;
    if (chance(s, 1)) time_ms += draw_in(s, 0, 400);
    if (s->plan.harsh && !s->calm && chance(s, 3)) {
        s->faults[FAULT_REPEATED]++;
        post_at(s, sent_copy(sent), (time_ms > *last ? time_ms : *last) + draw_in(s, 1, 300));
    }
    if (s->plan.harsh && !s->calm && any_order(sent->envelope.kind) && chance(s, 5)) {
        s->faults[FAULT_REORDERED]++;
    } else {
        if (time_ms < *last) time_ms = *last;
        *last = time_ms;
    }
    post_at(s, sent, time_ms);
}

/* What becomes of a message that is handed to a link. Takes it. */
static void hand_over(struct sim *s, struct sent_message *sent, bool walled) {
    bool lost = s->plan.lossy && chance(s, s->calm ? 1 : 3);
    if (walled) s->faults[FAULT_WALL]++;
    if (lost) {
        s->faults[FAULT_LOST]++;
        trace(s, "%s -> %s: %s is lost", place_name(sent->from), place_name(sent->to), kind_name(sent->envelope.kind));
    }
    if (walled || lost || s->now_ms < line_between(s, sent->from, sent->to)->down_until_ms) sent_drop(sent);
    else post(s, sent);
}

static bool is_deaf(const struct sim *s, const struct sent_message *sent) {
    return s->defect == DEFECT_DEAF && sent->envelope.kind == MILLRACE__KIND__JOIN;
}

/* A message's time has come. Takes it. */
static void deliver(struct sim *s, struct sent_message *sent) {
    struct link *link = link_of(sent->to_link);
    const struct envelope *e = &sent->envelope;
    if (sent->connection != line_between(s, sent->from, sent->to)->connection || !link || link->count == INBOX_MAX ||
        is_deaf(s, sent)) {
        sent_drop(sent);
        return;
    }
    if (e->kind != MILLRACE__KIND__HEARTBEAT)
        trace(s, "%s -> %s: %s, step %llu, view %llx, job %llx", place_name(sent->from), place_name(sent->to), kind_name(e->kind),
              (unsigned long long)e->step, (unsigned long long)e->attempt, (unsigned long long)e->job);
    s->digest = mix(mix(s->digest, (uint64_t)s->now_ms), mix(mix(e->kind << 8 | (uint64_t)(sent->from << 4 | sent->to), e->step), e->job));
    if (e->kind == MILLRACE__KIND__JOIN) s->process[sent->to].shown_step = UINT64_MAX; /* until it says so again */
    link->inbox[(link->first + link->count++) % INBOX_MAX] = sent;
    wake(link);
}

/* ---- proto/link.h ---- */

static void choose_endpoint(char out[ENDPOINT_BYTES], const struct process *process, const char *bind) {
    if (process->place == COORDINATOR) snprintf(out, ENDPOINT_BYTES, "%s", strchr(bind, '*') ? COORDINATOR_ADDRESS : bind);
    for (unsigned k = 0; !*out; k++) {
        char endpoint[ENDPOINT_BYTES];
        snprintf(endpoint, sizeof endpoint, "tcp://10.0.0.%d:%u", process->place + 1, PORT_FIRST + PORT_STEP * process->life + k);
        if (!link_at(endpoint)) memcpy(out, endpoint, sizeof endpoint);
    }
}

int link_open(struct link **out, const struct link_options *options) {
    size_t i = 0;
    while (i < LINKS_CAP && world->link[i]) i++;
    CHECK(i < LINKS_CAP);
    if (options->bind && link_at(options->bind)) return err_set(ERR_IO, "%s is in use by another process", options->bind);
    struct link *link = *out = world->link[i] = mem_alloc(sizeof *link);
    link->serial = ++world->links;
    link->process = running->process;
    if (options->bind) choose_endpoint(link->endpoint, link->process, options->bind);
    return 0;
}

void link_filter(struct link *link, link_wants *wants, void *arg) {
    link->wants = wants;
    link->wants_arg = arg;
}

const char *link_endpoint(const struct link *link) { return *link->endpoint ? link->endpoint : NULL; }

static struct link_peer *peer_add(struct link *link, int place) {
    if (link->peers == LINK_PEERS_MAX) { /* the oldest one that came is forgotten */
        size_t i = 0;
        while (link->peer[i].endpoint[0]) i++;
        memmove(&link->peer[i], &link->peer[i + 1], (--link->peers - i) * sizeof *link->peer);
    }
    struct link_peer *peer = &link->peer[link->peers++];
    *peer = (struct link_peer){.number = ++link->newest, .place = place};
    return peer;
}

static struct link_peer *peer_find(struct link *link, uint64_t number) {
    for (size_t i = 0; i < link->peers; i++)
        if (link->peer[i].number == number) return &link->peer[i];
    return NULL;
}

int link_connect(struct link *link, uint64_t *out_peer, const char *endpoint) {
    if (place_of(endpoint) < 0) return err_set(ERR_CONFIG, "%s is no endpoint", endpoint);
    for (size_t i = 0; i < link->peers; i++) {
        if (strcmp(link->peer[i].endpoint, endpoint) != 0) continue;
        *out_peer = link->peer[i].number;
        return 0;
    }
    struct link_peer *peer = peer_add(link, place_of(endpoint));
    snprintf(peer->endpoint, sizeof peer->endpoint, "%s", endpoint);
    *out_peer = peer->number;
    return 0;
}

void link_disconnect(struct link *link, uint64_t number) {
    struct link_peer *peer = peer_find(link, number);
    if (peer) memmove(peer, peer + 1, (size_t)(link->peer + --link->peers - peer) * sizeof *peer);
}

size_t link_disconnect_idle(struct link *link, int64_t idle_ms, uint64_t keep) {
    (void)link, (void)idle_ms, (void)keep; /* connections cost nothing here */
    return 0;
}

/* Somebody who came and is gone: sooner or later that shows. */
static bool is_gone(const struct link *link, const struct link_peer *peer) {
    bool broken_off = peer->connection != line_between(world, link->process->place, peer->place)->connection;
    return !peer->endpoint[0] && (broken_off || !link_of(peer->far_link));
}

int link_send(struct link *link, uint64_t number, struct frame *frame) {
    struct sim *s = world;
    struct link_peer *peer = peer_find(link, number);
    bool came = peer && !peer->endpoint[0], gone = peer && is_gone(link, peer), dead = !may_say(link->process);
    if (!peer || dead || (gone && chance(s, 50))) {
        frame_free(frame);
        link->counts.dropped++;
        if (gone) link_disconnect(link, number);
        return err_set(ERR_NOTFOUND, "peer %llu has left", (unsigned long long)number);
    }
    link->counts.sent++;
    link->counts.sent_bytes += frame->header.size + frame->body.size;
    struct link *far = came ? link_of(peer->far_link) : link_at(peer->endpoint);
    if (!far || gone) {
        frame_free(frame);
        return 0;
    }
    int from = link->process->place;
    struct sent_message *sent = mem_alloc(sizeof *sent);
    *sent = (struct sent_message){.frame = *frame, .from_link = link->serial, .from_number = number, .to_link = far->serial,
                              .to_number = came ? peer->far_number : 0, .from = from, .to = peer->place};
    *frame = (struct frame){0};
    CHECK(frame_peek(&sent->envelope, sent->frame.header.data, sent->frame.header.size));
    bool beat = sent->envelope.kind == MILLRACE__KIND__HEARTBEAT;
    hand_over(s, sent, !(beat && s->defect == DEFECT_UNTOLD) && (came ? is_walled(sent->to, from) : is_walled(from, sent->to)));
    return 0;
}

bool link_has_room(struct link *link, uint64_t number, size_t bytes) {
    (void)link, (void)number, (void)bytes; /* everybody reads */
    return true;
}

/* The number by which the receiver knows the sender; 0: it has forgotten it. */
static uint64_t sender_of(struct link *link, const struct sent_message *sent) {
    if (sent->to_number) return peer_find(link, sent->to_number) ? sent->to_number : 0;
    for (size_t i = 0; i < link->peers; i++) {
        const struct link_peer *peer = &link->peer[i];
        if (!peer->endpoint[0] && peer->far_link == sent->from_link && peer->far_number == sent->from_number &&
            peer->connection == sent->connection)
            return peer->number;
    }
    struct link_peer *peer = peer_add(link, sent->from);
    peer->far_link = sent->from_link;
    peer->far_number = sent->from_number;
    peer->connection = sent->connection;
    return peer->number;
}

static bool take_message(struct link *link, uint64_t *out_peer, struct message *out) {
    while (link->count > 0) {
        struct sent_message *sent = link->inbox[link->first];
        const struct buf *header = &sent->frame.header, *body = &sent->frame.body;
        link->first = (link->first + 1) % INBOX_MAX;
        link->count--;
        *out_peer = sender_of(link, sent);
        bool good = *out_peer && (!link->wants || link->wants(link->wants_arg, *out_peer, &sent->envelope)) &&
                    frame_unpack(out, header->data, header->size, body->data, body->size) == 0;
        if (good) link->counts.received++, link->counts.received_bytes += header->size + body->size;
        else link->counts.dropped++;
        sent_drop(sent);
        if (good) return true;
    }
    return false;
}

int link_receive(struct link *link, uint64_t *out_peer, struct message *out, int timeout_ms) {
    int64_t until_ms = world->now_ms + (timeout_ms < 0 ? CALM_MS : timeout_ms);
    for (;;) {
        if (link->process->dying) return link->process->place == COORDINATOR ? err_set(ERR_INTERRUPTED, "it is dead") : 0;
        if (take_message(link, out_peer, out)) return 1;
        if (link->woken || world->now_ms >= until_ms) break;
        wait_until(link, until_ms);
    }
    link->woken = false;
    return 0;
}

void link_wake(struct link *link) {
    link->woken = true;
    wake(link);
}

struct link_counts link_counts(const struct link *link) {
    return link->counts;
}

void link_close(struct link *link) {
    if (!link) return;
    for (; link->count > 0; link->count--, link->first = (link->first + 1) % INBOX_MAX) sent_drop(link->inbox[link->first]);
    for (size_t i = 0; i < LINKS_CAP; i++)
        if (world->link[i] == link) world->link[i] = NULL;
    free(link);
}

/* ---- numbered messages ---- */

bool __real_session_counts(uint32_t kind);
bool __wrap_session_counts(uint32_t kind);
bool __wrap_session_counts(uint32_t kind) {
    return (!world || world->defect != DEFECT_UNNUMBERED) && __real_session_counts(kind);
}

#endif
