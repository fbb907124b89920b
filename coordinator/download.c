/* A slot for each output that is being read (struct transfer); the tag of a read is its slot. A transfer goes through: reading, posted to
 * the thread for files (struct arrival, which that thread alone touches then), event. All functions but arrival_task() are the loop's. */
#include "coordinator/download.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "coordinator/arrivals.h"
#include "coordinator/context.h"
#include "coordinator/files.h"
#include "coordinator/roster.h"
#include "proto/body.h"
#include "proto/frame.h"
#include "proto/reads.h"

enum {
    TRANSFERS_MAX = 256,  /* outputs that are being taken at once */
    PIECES_OPEN_MAX = 2,  /* of one output */
    ASKED_FOR_MS = 3 * READ_AGAIN_MS, /* at least, also with a short lease: a question may be lost, or its answer, and is asked again */
};

/* A whole output on its way to its name: what the thread for files gets. */
struct arrival {
    struct draft draft;
    Millrace__Lease *lease;
    Millrace__Done *done;
    struct arrival_terms terms;
    arrival_check *check;
    bool checked;          /* and found to be right; what fails after that is the disk's fault */
    atomic_bool dropped;   /* the transfer ended meanwhile: it gets no name, and nobody asks what came of it */
};

struct transfer {
    bool used;
    size_t job;
    uint32_t attempt, worker;
    uint64_t wire_number, size, asked, got;
    int64_t moved_ms;      /* when something came, or was first asked for */
    struct sha256 *sha;
    struct arrival *arrival;
    bool posted;           /* the thread for files has it */
};

struct download {
    struct transfer transfer[TRANSFERS_MAX];
    struct download_event *event;
    size_t events, events_taken;
};

static void free_arrival(struct arrival *arrival) {
    draft_discard(&arrival->draft);
    if (arrival->lease) millrace__lease__free_unpacked(arrival->lease, NULL);
    if (arrival->done) millrace__done__free_unpacked(arrival->done, NULL);
    free(arrival);
}

static void end_transfer(struct transfer *t) {
    sha256_close(t->sha);
    if (t->posted) atomic_store(&t->arrival->dropped, true); /* who polls frees it */
    else if (t->arrival) free_arrival(t->arrival);
    *t = (struct transfer){0};
}

/* ---- events ---- */

static struct download_event *add_event(struct context *c, struct transfer *t, enum download_news news) {
    struct download *d = c->download;
    d->event = mem_resize(d->event, (d->events + 1) * sizeof *d->event);
    struct download_event *event = &d->event[d->events++];
    *event = (struct download_event){.news = news, .job = t->job, .attempt = t->attempt, .worker = t->worker};
    return event;
}

bool download_event(struct context *c, struct download_event *out) {
    struct download *d = c->download;
    if (d->events_taken == d->events) {
        d->events = d->events_taken = 0;
        return false;
    }
    *out = d->event[d->events_taken++];
    return true;
}

static void put_off(struct context *c, struct transfer *t, int code) {
    struct download_event *event = add_event(c, t, DOWNLOAD_PUT_OFF);
    event->code = code;
    snprintf(event->why, sizeof event->why, "%s", err_text());
    end_transfer(t);
}

static void give_up(struct context *c, struct transfer *t, const char *before, const char *why) {
    struct download_event *event = add_event(c, t, DOWNLOAD_BROKEN);
    snprintf(event->why, sizeof event->why, "%s%s", before, why);
    end_transfer(t);
}

/* ---- what is whole ---- */

static int arrival_task(void *arg, const atomic_bool *stop) {
    struct arrival *a = arg;
    (void)stop;
    if (atomic_load(&a->dropped)) return 0;
    TRY(a->check(&a->terms, a->lease, a->done, a->draft.draft_path));
    a->checked = true;
    return atomic_load(&a->dropped) ? 0 : draft_publish(&a->draft);
}

static void judge(struct context *c, struct transfer *t, int code) {
    if (code == 0) {
        add_event(c, t, DOWNLOAD_ARRIVED)->done = t->arrival->done;
        t->arrival->done = NULL;
        end_transfer(t);
    } else if (t->arrival->checked || code == ERR_IO || code == ERR_MEMORY || code == ERR_DENIED) put_off(c, t, code);
    else give_up(c, t, "its output is not what it must be: ", err_text());
}

static void arrival_done(void *owner, void *arg, int code) {
    struct context *c = owner;
    struct arrival *a = arg;
    struct transfer *t = c->download->transfer, *end = t + TRANSFERS_MAX;
    while (t < end && t->arrival != a) t++;
    if (t == end) { /* it was dropped */
        free_arrival(a);
        return;
    }
    t->posted = false;
    if (code == ERR_INTERRUPTED || c->ended) end_transfer(t);
    else judge(c, t, code);
}

/* When the thread's queue is full, a later tick posts it. */
static void post(struct context *c, struct transfer *t) {
    t->posted = files_post(c->files, &(struct file_task){.run = arrival_task, .done = arrival_done, .arg = t->arrival});
}

static void finish(struct context *c, struct transfer *t) {
    uint8_t digest[SHA256_BYTES];
    sha256_finish(t->sha, digest);
    if (memcmp(digest, t->arrival->done->digest.data, sizeof digest) != 0)
        give_up(c, t, "its output does not have the digest that it told", "");
    else post(c, t);
}

/* ---- what comes ---- */

static void ask(struct context *c, size_t slot) {
    struct transfer *t = &c->download->transfer[slot];
    while (t->asked < t->size && t->asked - t->got < PIECES_OPEN_MAX * (uint64_t)READ_BYTES_MAX) {
        struct read *read = reads_add(&c->reads, c->worker[t->worker].peer, slot);
        if (!read) return;
        read->body.what = MILLRACE__READ__WHAT__OUTPUT;
        read->body.a = t->wire_number;
        read->body.offset = t->asked;
        read->body.size = t->size - t->asked < READ_BYTES_MAX ? t->size - t->asked : READ_BYTES_MAX;
        read->envelope.attempt = fence_of(c, t->attempt);
        if (t->asked == t->got) t->moved_ms = clock_ms();
        t->asked += read->body.size;
    }
}

static int open_arrival(struct arrival **out, const struct download_order *order) {
    struct arrival *a = mem_alloc(sizeof *a);
    a->terms = order->terms;
    a->check = order->check;
    int code = draft_open(&a->draft, order->path);
    if (code < 0) {
        free(a);
        return code;
    }
    code = body_unpack(&a->lease, &millrace__lease__descriptor, order->spec->data, order->spec->size);
    if (code == 0) code = body_copy(&a->done, &order->done->base);
    if (code < 0) free_arrival(a);
    else *out = a;
    return code;
}

int download_begin(struct context *c, const struct download_order *order) {
    struct download *d = c->download;
    size_t slot = TRANSFERS_MAX;
    for (size_t i = 0; i < TRANSFERS_MAX; i++) {
        struct transfer *other = &d->transfer[i];
        bool same = other->used && other->job == order->job;
        if (same && other->attempt == order->attempt) return 0; /* the same DONE again */
        if (same) end_transfer(other);                          /* of a lease that is over */
        if (!d->transfer[i].used && slot == TRANSFERS_MAX) slot = i;
    }
    if (slot == TRANSFERS_MAX) return err_set(ERR_LIMIT, "too many outputs are being taken at once");
    struct transfer *t = &d->transfer[slot];
    *t = (struct transfer){.job = order->job, .attempt = order->attempt, .worker = order->worker, .wire_number = order->wire_number};
    TRY(open_arrival(&t->arrival, order));
    t->size = order->done->size;
    t->sha = sha256_open();
    t->used = true;
    if (t->size == 0) finish(c, t);
    else ask(c, slot);
    return 0;
}

void download_data(struct context *c, const struct read *read, const struct message *message) {
    struct transfer *t = &c->download->transfer[read->tag];
    const Millrace__Data *data = (const Millrace__Data *)message->body;
    if (!t->used || read->envelope.attempt != fence_of(c, t->attempt)) return;
    if (data->status != MILLRACE__DATA__STATUS__OK || message->chunk_bytes != read->body.size) {
        give_up(c, t, "it does not give its output: ", *data->reason ? data->reason : "no reason"); /* as the worker has it */
        return;
    }
    if (read->body.offset != t->got) { /* an earlier piece is still under way: this one is asked for again after it */
        t->asked = read->body.offset;
        return;
    }
    int code = draft_write_at(&t->arrival->draft, message->chunk, message->chunk_bytes, t->got);
    if (code < 0) {
        put_off(c, t, code);
        return;
    }
    sha256_add(t->sha, message->chunk, message->chunk_bytes);
    t->got += message->chunk_bytes;
    t->moved_ms = clock_ms();
    if (t->got == t->size) finish(c, t);
    else ask(c, read->tag);
}

void download_drop_worker(struct context *c, uint32_t worker) {
    for (size_t i = 0; i < TRANSFERS_MAX; i++) {
        struct transfer *t = &c->download->transfer[i];
        if (t->used && t->worker == worker) end_transfer(t);
    }
}

void download_pause(struct context *c, int64_t pause_ms, int64_t now_ms) {
    for (size_t i = 0; i < TRANSFERS_MAX; i++) {
        struct transfer *t = &c->download->transfer[i];
        t->moved_ms = clock_since(t->moved_ms, pause_ms, now_ms);
    }
}

void download_tick(struct context *c, int64_t now_ms) {
    int64_t lease_ms = (int64_t)(c->config->cluster.lease_seconds * 1000);
    int64_t patience_ms = lease_ms > ASKED_FOR_MS ? lease_ms : ASKED_FOR_MS;
    for (size_t i = 0; i < TRANSFERS_MAX; i++) {
        struct transfer *t = &c->download->transfer[i];
        if (t->used && t->asked > t->got && now_ms - t->moved_ms > patience_ms)
            give_up(c, t, "it does not give its output, though it was asked for cluster.lease_seconds", "");
        if (t->used && t->got < t->size) ask(c, i);
        else if (t->used && !t->posted) post(c, t);
    }
}

void download_open(struct context *c) { c->download = mem_alloc(sizeof *c->download); }

bool download_is_publishing(const struct context *c) {
    for (size_t i = 0; i < TRANSFERS_MAX; i++)
        if (c->download->transfer[i].used && c->download->transfer[i].posted) return true;
    return false;
}

void download_close(struct context *c) {
    struct download_event event;
    if (!c->download) return;
    for (size_t i = 0; i < TRANSFERS_MAX; i++) end_transfer(&c->download->transfer[i]);
    while (download_event(c, &event))
        if (event.done) millrace__done__free_unpacked(event.done, NULL);
    free(c->download->event);
    free(c->download);
    c->download = NULL;
}
