/* A small table, searched from end to end: it never holds more than READS_MAX rows. */
#include "proto/reads.h"

#include "base/err.h"

struct read *reads_add(struct reads *reads, uint64_t peer, uint64_t tag) {
    if (reads->count == READS_MAX) return NULL;
    struct read *read = &reads->read[reads->count++];
    *read = (struct read){.id = ++reads->newest, .peer = peer, .tag = tag};
    read->envelope = (struct envelope){.kind = MILLRACE__KIND__READ, .job = read->id};
    millrace__read__init(&read->body);
    return read;
}

int64_t reads_due_ms(const struct read *read) {
    unsigned again = read->times ? read->times - 1 : 0;
    return read->sent_ms + ((int64_t)READ_AGAIN_MS << (again < READ_AGAIN_DOUBLED ? again : READ_AGAIN_DOUBLED));
}

struct read *reads_due(struct reads *reads, int64_t now_ms) {
    reads->now_ms = now_ms ? now_ms : 1; /* 0 is for those that were never sent */
    for (size_t i = 0; i < reads->count; i++) {
        struct read *read = &reads->read[i];
        if (read->sent_ms && now_ms < reads_due_ms(read)) continue;
        read->sent_ms = reads->now_ms;
        read->times++;
        return read;
    }
    return NULL;
}

bool reads_asked(const struct reads *reads, uint64_t id, uint64_t peer) {
    for (size_t i = 0; i < reads->count; i++)
        if (reads->read[i].id == id) return reads->read[i].peer == peer;
    return false;
}

static void drop(struct reads *reads, size_t i) { reads->read[i] = reads->read[--reads->count]; }

bool reads_take(struct reads *reads, struct read *out, uint64_t id) {
    for (size_t i = 0; i < reads->count; i++) {
        if (reads->read[i].id != id) continue;
        *out = reads->read[i];
        drop(reads, i);
        for (size_t k = 0; k < reads->count; k++) /* the peer lives and answers: its other questions get time anew */
            if (reads->read[k].peer == out->peer && reads->read[k].sent_ms) reads->read[k].sent_ms = reads->now_ms;
        return true;
    }
    return false;
}

void reads_put_back(struct reads *reads, const struct read *read, int64_t now_ms) {
    CHECK(reads->count < READS_MAX); /* it was just taken out */
    struct read *back = &reads->read[reads->count++];
    *back = *read;
    back->sent_ms = now_ms ? now_ms : 1;
    back->times = 1; /* the peer answers: as if sent for the first time */
}

void reads_drop_peer(struct reads *reads, uint64_t peer) {
    for (size_t i = reads->count; i-- > 0;)
        if (reads->read[i].peer == peer) drop(reads, i);
}

void reads_drop_what(struct reads *reads, Millrace__Read__What what) {
    for (size_t i = reads->count; i-- > 0;)
        if (reads->read[i].body.what == what) drop(reads, i);
}

size_t reads_open_at(const struct reads *reads, uint64_t peer) {
    size_t n = 0;
    for (size_t i = 0; i < reads->count; i++) n += reads->read[i].peer == peer;
    return n;
}
