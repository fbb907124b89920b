/* Entries of workers: hello, ready, heartbeats, silence, goodbye. Owns the table of workers, the pipeline's text that newcomers get, and
 * the events for those who build on it.
 *
 * The loop's thread calls roster_take() and roster_message() with each message, roster_event() until it is empty, roster_tick() once a
 * turn. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/plain.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/roster.h"
#include "coordinator/store.h"
#include "dataset/tokenizer/tokenizer.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "proto/reads.h"
#include "proto/session.h"

enum {
    HEARTBEAT_MS = 500,
    WELCOME_AGAIN_MS = 200,  /* a pipeline with its tokenizer may be large */
    TAKE_OVER_MS = 3 * HEARTBEAT_MS,
    UNREADY_MS = 5000,       /* from HELLO to READY, when others need the place */
    PATIENT_LEASES = 10,     /* times cluster.lease_seconds to be READY, and for a self-test, the work of one sequence: */
    PATIENT_MS = 600000,     /* a slice may take one; and no less than that */
    HELLOS_AT_ONCE = WORKERS_MAX, /* newcomers: a whole cluster may start together, */
    HELLOS_PER_SECOND = 20,       /* and then a few; the others say it again a second later */
};

struct roster {
    struct worker_entry worker[WORKERS_MAX];
    struct buf config_text;        /* what workers get */
    struct buf tokenizer_text;     /* the same; empty: gpt2, which they have */
    double hellos;                 /* how many newcomers are taken in at once now; grows with time */
    int64_t hellos_ms;             /* when that was reckoned */
    int64_t heartbeat_ms;          /* our last one */
    int64_t who_ms;                /* when somebody was asked last to say hello */
    struct roster_event *event;
    size_t events, events_taken;
};

/* ---- events ---- */

static void add_event(struct context *c, struct roster_event event) {
    struct roster *r = c->roster;
    r->event = mem_resize(r->event, (r->events + 1) * sizeof *r->event);
    r->event[r->events++] = event;
}

void roster_note(struct context *c, enum roster_news news, uint32_t worker) {
    add_event(c, (struct roster_event){.news = news, .worker = worker});
}

bool roster_event(struct context *c, struct roster_event *out) {
    struct roster *r = c->roster;
    if (r->events_taken == r->events) {
        r->events = r->events_taken = 0;
        return false;
    }
    *out = r->event[r->events_taken++];
    return true;
}

/* ---- entries ---- */

bool roster_admitted(const struct worker_entry *w) { return w->state == WORKER_READY || w->state == WORKER_BUSY; }

int64_t roster_find(const struct context *c, uint64_t peer) {
    for (size_t i = 0; i < c->workers; i++)
        if (c->worker[i].peer == peer && c->worker[i].state != WORKER_LOST && c->worker[i].state != WORKER_LEFT) return (int64_t)i;
    return -1;
}

int send_to(struct context *c, uint32_t worker, const struct envelope *envelope, const ProtobufCMessage *body) {
    struct worker_entry *w = &c->worker[worker];
    struct envelope stamped = *envelope;
    struct frame frame;
    bool counts = session_counts(envelope->kind);
    stamped.run = c->run;
    stamped.sequence = session_number(&w->session, counts);
    if (!w->peer) return ERR_NOTFOUND;
    int code = frame_pack(&frame, &stamped, body, NULL, 0, FRAME_ZSTD);
    if (code < 0) {
        log_error("%s to %s: %s", kind_name(envelope->kind), w->id, err_text());
        if (code == ERR_MEMORY) fail_pipeline(c, code);
        return code;
    }
    session_sent(&w->session, counts);
    code = link_send(c->link, w->peer, &frame);
    if (code < 0) log_debug("%s to %s: %s", kind_name(envelope->kind), w->id, err_text());
    if (code == ERR_NOTFOUND) w->unreachable = true; /* lost at the next tick */
    return code < 0 ? ERR_PEER : 0;
}

void send_unnumbered(struct context *c, uint64_t peer, const struct envelope *envelope, const ProtobufCMessage *body,
                     const struct buf *chunk, enum frame_encoding encoding) {
    struct frame frame;
    int code = frame_pack(&frame, envelope, body, chunk->data, chunk->size, encoding);
    if (code == ERR_MEMORY) fail_pipeline(c, code);
    if (code == 0) code = link_send(c->link, peer, &frame);
    if (code < 0) log_debug("%s not sent: %s", kind_name(envelope->kind), err_text());
}

void roster_lost(struct context *c, uint32_t number, enum worker_state state, const char *why) {
    struct worker_entry *w = &c->worker[number];
    if (w->state == WORKER_LOST || w->state == WORKER_LEFT) return;
    bool was_admitted = roster_admitted(w);
    const char *what = state == WORKER_LOST ? "worker-lost" : "worker-left";
    if (was_admitted) note_event(c, what, "%s (pid %u on %s): %s", w->id, w->pid, w->host, why);
    else log_debug("%s: %s (pid %u on %s): %s", what, w->id, w->pid, w->host, why); /* its coming was no event either */
    w->state = state;
    reads_drop_peer(&c->reads, w->peer);
    w->peer = 0;
    w->leases = 0;
    if (!was_admitted) return;
    add_event(c, (struct roster_event){.news = ROSTER_GONE, .worker = number, .lost = state == WORKER_LOST});
}

/* Under the worker's id in the store: it is the same worker for the next coordinator. One that is in question is judged anew. */
static char *aside_name(const struct worker_entry *w) { return mem_format("aside %s", w->id); }

static void record_aside(struct context *c, const struct worker_entry *w) {
    char *name = aside_name(w);
    if (store_set(c->store, name, w->aside, strlen(w->aside)) < 0) log_warn("%s", err_text());
    free(name);
}

static void recall_aside(struct context *c, struct worker_entry *w) {
    struct buf why = {0};
    char *name = aside_name(w);
    int code = store_get(c->store, name, &why);
    if (code < 0) log_warn("%s", err_text());
    if (code == 1) snprintf(w->aside, sizeof w->aside, "%.*s", (int)why.size, (const char *)why.data);
    buf_free(&why);
    free(name);
}

void roster_set_aside(struct context *c, uint32_t number, const char *why) {
    struct worker_entry *w = &c->worker[number];
    if (w->aside[0]) return;
    snprintf(w->aside, sizeof w->aside, "%s", why);
    if (!w->in_question) record_aside(c, w);
    note_event(c, "worker-set-aside", "%s (pid %u on %s): %s", w->id, w->pid, w->host, w->aside);
}

void roster_refuse(struct context *c, uint64_t peer, bool final, const char *reason) {
    Millrace__Refused refused = MILLRACE__REFUSED__INIT;
    refused.reason = (char *)reason;
    refused.final = final;
    struct frame frame;
    if (frame_pack(&frame, &(struct envelope){.kind = MILLRACE__KIND__REFUSED, .run = c->run}, &refused.base, NULL, 0, FRAME_ZSTD) == 0)
        link_send(c->link, peer, &frame);
}

/* Every newcomer costs rows in the store and a copy of the pipeline. A flood of them is shed. */
static bool may_take_another(struct context *c, int64_t now_ms) {
    if (!c->roster->hellos_ms) c->roster->hellos = HELLOS_AT_ONCE;
    else c->roster->hellos += (double)(now_ms - c->roster->hellos_ms) / 1000 * HELLOS_PER_SECOND;
    c->roster->hellos_ms = now_ms;
    if (c->roster->hellos > HELLOS_AT_ONCE) c->roster->hellos = HELLOS_AT_ONCE;
    if (c->roster->hellos < 1) return false;
    c->roster->hellos--;
    return true;
}

/* The entry for this id: its old one, a free one, that of the longest gone, or of who said hello and nothing more. */
static int64_t entry_for(struct context *c, const char *id, int64_t now_ms) {
    int64_t oldest = -1, stuck = -1;
    for (size_t i = 0; i < c->workers; i++) {
        struct worker_entry *w = &c->worker[i];
        if (strcmp(w->id, id) == 0) return (int64_t)i;
        if ((w->state == WORKER_LOST || w->state == WORKER_LEFT) && (oldest < 0 || w->heard_ms < c->worker[oldest].heard_ms))
            oldest = (int64_t)i;
        if (w->state == WORKER_WELCOMED && now_ms - w->hello_ms > UNREADY_MS) stuck = (int64_t)i;
    }
    if (c->workers < WORKERS_MAX) return (int64_t)c->workers++;
    return oldest >= 0 ? oldest : stuck;
}

static void send_welcome(struct context *c, uint32_t number) {
    c->worker[number].welcomed_ms = clock_ms();
    Millrace__Welcome welcome = MILLRACE__WELCOME__INIT;
    welcome.config = (char *)c->roster->config_text.data;
    welcome.generation = c->generation;
    welcome.tokenizer = (ProtobufCBinaryData){c->roster->tokenizer_text.size, c->roster->tokenizer_text.data};
    send_to(c, number, &(struct envelope){.kind = MILLRACE__KIND__WELCOME}, &welcome.base);
}

static void note_state(struct worker_entry *w, const Millrace__Hello *hello) {
    w->has_state = hello->state_digest.len == XXH128_BYTES;
    if (!w->has_state) return;
    w->state_step = hello->state_step;
    memcpy(w->state_digest, hello->state_digest.data, XXH128_BYTES);
}

/* Was this worker heard a moment ago over another connection? Then this HELLO may be somebody else's with its name, and is not answered. If
 * that connection broke, the worker says HELLO again, and is taken when the old one has been silent for a while. */
static bool is_elsewhere(const struct context *c, uint64_t peer, const char *id, int64_t now_ms) {
    for (size_t i = 0; i < c->workers; i++) {
        const struct worker_entry *w = &c->worker[i];
        if (w->peer && w->peer != peer && strcmp(w->id, id) == 0) return !w->unreachable && now_ms - w->heard_ms < TAKE_OVER_MS;
    }
    return false;
}

static void on_hello(struct context *c, uint64_t peer, const Millrace__Hello *hello) {
    if (!*hello->worker || strlen(hello->worker) >= sizeof c->worker[0].id || strlen(hello->endpoint) >= sizeof c->worker[0].endpoint) {
        roster_refuse(c, peer, true, "the hello has no usable worker id or endpoint");
        return;
    }
    if (!plain_is(hello->worker) || !plain_is(hello->endpoint)) {
        roster_refuse(c, peer, true, "the hello's worker id or endpoint is no plain text");
        return;
    }
    int64_t now = clock_ms(), known = roster_find(c, peer);
    bool same = known >= 0 && strcmp(c->worker[known].id, hello->worker) == 0;
    if (same && c->worker[known].state == WORKER_WELCOMED) { /* it asked twice, or was asked twice: it lost nothing */
        struct worker_entry *w = &c->worker[known];
        note_state(w, hello);
        w->session.taken = 0;
        if (now - w->welcomed_ms < WELCOME_AGAIN_MS) return;
        w->session.sent = 0;
        send_welcome(c, (uint32_t)known);
        return;
    }
    if (is_elsewhere(c, peer, hello->worker, now) || !may_take_another(c, now)) return;
    if (known >= 0 && !same) roster_lost(c, (uint32_t)known, WORKER_LEFT, "said hello by another name"); /* one for each connection */
    int64_t number = entry_for(c, hello->worker, now);
    if (number < 0) {
        roster_refuse(c, peer, false, "the coordinator has as many workers as it can handle");
        return;
    }
    struct worker_entry *w = &c->worker[number];
    if (w->id[0]) roster_lost(c, (uint32_t)number, WORKER_LEFT, same ? "said hello again: it missed a message" : "said hello again");
    struct worker_entry before = *w;
    *w = (struct worker_entry){.peer = peer, .pid = hello->pid, .state = WORKER_WELCOMED};
    w->heard_ms = w->moved_ms = w->hello_ms = now;
    if (before.id[0] && strcmp(before.id, hello->worker) != 0) roster_note(c, ROSTER_OTHER, (uint32_t)number);
    if (strcmp(before.id, hello->worker) == 0) { /* to come again changes nothing of what it did */
        w->blamed = before.blamed;
        w->rests_until_ms = before.rests_until_ms;
        w->odd = before.odd;
        w->false_counts = before.false_counts;
        w->false_states = before.false_states;
        w->in_question = before.in_question; /* and so it stays set aside until another result decides */
        memcpy(w->aside, before.aside, sizeof w->aside);
    }
    snprintf(w->id, sizeof w->id, "%s", hello->worker);
    if (!w->aside[0]) recall_aside(c, w); /* an earlier coordinator did it */
    plain_text(w->host, sizeof w->host, hello->host, false);
    snprintf(w->endpoint, sizeof w->endpoint, "%s", hello->endpoint);
    plain_text(w->build, sizeof w->build, hello->build, false);
    note_state(w, hello);
    send_welcome(c, (uint32_t)number);
}

static void on_ready(struct context *c, uint32_t number) {
    struct worker_entry *w = &c->worker[number];
    if (w->state != WORKER_WELCOMED) return;
    w->state = WORKER_READY;
    w->moved_ms = clock_ms();
    note_event(c, "worker-joined", "%s (pid %u on %s; %s)", w->id, w->pid, w->host, w->build);
    roster_note(c, ROSTER_CAME, number);
}

static void on_heartbeat(struct context *c, uint32_t number, const Millrace__Heartbeat *beat) {
    struct worker_entry *w = &c->worker[number];
    bool rests = !beat->busy && !w->owed; /* who says that it is idle and has a job is waited for like one that hangs */
    if (beat->progress != w->progress || rests || !roster_admitted(w)) w->moved_ms = clock_ms();
    if (beat->progress != w->progress) w->progress_ms = clock_ms();
    w->progress = beat->progress;
    w->told_busy = beat->busy;
    w->rss_bytes = beat->rss_bytes;
    if (beat->leaving && !w->leaving) {
        w->leaving = true;
        note_event(c, "worker-leaving", "%s (pid %u on %s) was asked to leave", w->id, w->pid, w->host);
        roster_note(c, ROSTER_LEAVING, number);
    }
}

void roster_send_home(struct context *c, uint32_t number) {
    Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    send_to(c, number, &(struct envelope){.kind = MILLRACE__KIND__GOODBYE}, &empty.base);
    roster_lost(c, number, WORKER_LEFT, "was asked to leave, and had nothing that is needed");
}

static void ask_who(struct context *c, uint64_t peer) {
    Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    struct frame frame;
    c->roster->who_ms = clock_ms();
    if (frame_pack(&frame, &(struct envelope){.kind = MILLRACE__KIND__WHO, .run = c->run}, &empty.base, NULL, 0, FRAME_NONE) == 0)
        link_send(c->link, peer, &frame);
}

bool roster_expects_hello(const struct context *c, int64_t now_ms) {
    return c->roster->who_ms && now_ms - c->roster->who_ms < 2 * HEARTBEAT_MS;
}

bool roster_take(struct context *c, uint32_t number, const struct message *message) {
    struct worker_entry *w = &c->worker[number];
    bool counts = session_counts(message->envelope.kind);
    if (!counts && message->envelope.kind != MILLRACE__KIND__HEARTBEAT) return true;
    enum session_news news = session_take(&w->session, counts, message->envelope.sequence);
    if (news == SESSION_GAP) {
        uint64_t peer = w->peer;
        roster_lost(c, number, WORKER_LOST, "a message of it was lost on the way; it is asked to say hello again");
        ask_who(c, peer);
    }
    return news == SESSION_NEXT;
}

void roster_message(struct context *c, uint64_t peer, const struct message *message) {
    if (message->envelope.kind == MILLRACE__KIND__HELLO) {
        on_hello(c, peer, (const Millrace__Hello *)message->body);
        return;
    }
    int64_t number = roster_find(c, peer);
    if (number < 0) {
        ask_who(c, peer);
        return;
    }
    if (message->envelope.kind == MILLRACE__KIND__READY) on_ready(c, (uint32_t)number);
    if (message->envelope.kind == MILLRACE__KIND__HEARTBEAT) on_heartbeat(c, (uint32_t)number, (const Millrace__Heartbeat *)message->body);
    if (message->envelope.kind == MILLRACE__KIND__GOODBYE) roster_lost(c, (uint32_t)number, WORKER_LEFT, "said goodbye");
}

/* Workers learn that we live, and we learn at once whose connection is gone. */
static void send_heartbeats(struct context *c, int64_t now_ms) {
    if (now_ms - c->roster->heartbeat_ms < HEARTBEAT_MS) return;
    c->roster->heartbeat_ms = now_ms;
    Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    for (uint32_t i = 0; i < c->workers; i++) send_to(c, i, &(struct envelope){.kind = MILLRACE__KIND__HEARTBEAT}, &empty.base);
}

/* Its heartbeats come, and what it was asked for does not: is it too late by now? */
static bool patience_ends(int64_t since_ms, int64_t lease_ms, int64_t now_ms) {
    int64_t most_ms = PATIENT_LEASES * lease_ms;
    return now_ms - since_ms > (most_ms > PATIENT_MS ? most_ms : PATIENT_MS);
}

void roster_pause(struct context *c, int64_t pause_ms, int64_t now_ms) {
    for (size_t i = 0; i < c->workers; i++) {
        struct worker_entry *w = &c->worker[i];
        if (w->state == WORKER_LOST || w->state == WORKER_LEFT) continue;
        int64_t *const since_ms[] = {&w->heard_ms, &w->hello_ms, &w->moved_ms, &w->asked_ms, &w->answered_ms};
        for (size_t k = 0; k < sizeof since_ms / sizeof *since_ms; k++) *since_ms[k] = clock_since(*since_ms[k], pause_ms, now_ms);
    }
}

void roster_tick(struct context *c, int64_t now_ms) {
    int64_t lease_ms = (int64_t)(c->config->cluster.lease_seconds * 1000);
    send_heartbeats(c, now_ms);
    for (size_t i = 0; i < c->workers; i++) {
        struct worker_entry *w = &c->worker[i];
        if (w->state == WORKER_LOST || w->state == WORKER_LEFT) continue;
        if (w->unreachable) roster_lost(c, (uint32_t)i, WORKER_LOST, "its connection is gone");
        else if (now_ms - w->heard_ms > lease_ms) roster_lost(c, (uint32_t)i, WORKER_LOST, "nothing heard for cluster.lease_seconds");
        else if (roster_admitted(w) && now_ms - w->moved_ms > lease_ms)
            roster_lost(c, (uint32_t)i, WORKER_LOST, "its work stood still for cluster.lease_seconds");
        else if (w->state == WORKER_WELCOMED && patience_ends(w->hello_ms, lease_ms, now_ms))
            roster_lost(c, (uint32_t)i, WORKER_LOST, "it does not take the pipeline in");
        else if (roster_admitted(w) && w->asked && patience_ends(w->asked_ms, lease_ms, now_ms))
            roster_lost(c, (uint32_t)i, WORKER_LOST, "it was asked for its self-test, and gives no result");
        else if (w->state == WORKER_READY || w->state == WORKER_BUSY) w->state = w->told_busy || w->leases ? WORKER_BUSY : WORKER_READY;
    }
}

int roster_prepare(struct context *c) {
    TRY(config_print(&c->roster->config_text, c->config));
    return config_tokenizer_is_path(c->config) ? tokenizer_print(c->tokenizer, &c->roster->tokenizer_text) : 0;
}

void roster_open(struct context *c) {
    c->roster = mem_alloc(sizeof *c->roster);
    c->worker = c->roster->worker;
}

void roster_close(struct context *c) {
    if (!c->roster) return;
    buf_free(&c->roster->config_text);
    buf_free(&c->roster->tokenizer_text);
    free(c->roster->event);
    free(c->roster);
    c->roster = NULL;
}
