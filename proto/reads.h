/* Reads under way: numbers them, bounds them, says which to send again, and pairs answers with questions. Pure; a table belongs to one
 * thread.
 *
 * All bulk bytes move because somebody asked for them with READ; whoever asks keeps at most READS_MAX questions open, which is the credit
 * that bounds what is under way. reads_add() for a question, reads_due() until it gives none in each turn of a loop, reads_take() with an
 * answer: one that nobody waits for any more is dropped there; reads_put_back() when the answer was no good. */
#ifndef MILLRACE_PROTO_READS_H
#define MILLRACE_PROTO_READS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/frame.h"

enum {
    READS_MAX = 64,
    READS_AT_PEER_MAX = 4,               /* of one kind: enough to keep its link busy. A join: so many for each giver, anywhere */
    EXCHANGE_READS_MAX = READS_MAX - 16, /* for segments: frames and jobs must find room for theirs while an exchange waits */
    READ_AGAIN_MS = 3000,      /* in which the one asked answers nothing; then a question is sent again: it may be lost, or its answer */
    READ_AGAIN_DOUBLED = 3,    /* then twice as much, up to eight times: a slow link must not carry everything again and again */
};
#ifndef READ_BYTES_MAX /* the simulation builds the same code with small ones */
enum { READ_BYTES_MAX = 4 << 20 };  /* bytes asked for at once */
#endif

struct read {
    uint64_t id;               /* envelope.job of READ and DATA */
    uint64_t peer;
    struct envelope envelope;
    Millrace__Read body;       /* its split, if any, is a constant text */
    uint64_t tag;              /* the asker's own */
    int64_t sent_ms;           /* when it was sent, or when the peer answered another question after that; 0: not sent yet */
    unsigned times;            /* it was sent */
};

struct reads {
    struct read read[READS_MAX];
    size_t count;
    uint64_t newest;
    int64_t now_ms;            /* of the last reads_due() */
};

/* Adds a question; NULL when READS_MAX are open. The caller fills body, step and attempt of the result. */
struct read *reads_add(struct reads *reads, uint64_t peer, uint64_t tag);
/* The next question that must be sent now, for the first time or again; it is marked as sent. NULL: none. */
struct read *reads_due(struct reads *reads, int64_t now_ms);
bool reads_asked(const struct reads *reads, uint64_t id, uint64_t peer);  /* is this question open, and was this peer asked? */
int64_t reads_due_ms(const struct read *read);  /* when it is sent again, if its peer answers no question before */
/* Takes the question that `id` answers; false: nobody waits for it. */
bool reads_take(struct reads *reads, struct read *out, uint64_t id);
/* A question whose answer was no good goes back, to be asked again in READ_AGAIN_MS: as if it had been sent now for the first time. */
void reads_put_back(struct reads *reads, const struct read *read, int64_t now_ms);
void reads_drop_peer(struct reads *reads, uint64_t peer);
void reads_drop_what(struct reads *reads, Millrace__Read__What what);
size_t reads_open_at(const struct reads *reads, uint64_t peer);

#endif
