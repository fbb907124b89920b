/* Training sequences for the model: finds the frame of each, keeps frames in a bounded cache, asks ahead for those that will be needed
 * soon, and fetches what is missing from the coordinator. A frame is used only after its checks passed; the coordinator keeps the only
 * copy, so dropping one here loses nothing. The work thread's alone. */
#ifndef MILLRACE_WORKERS_FEED_H
#define MILLRACE_WORKERS_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "proto/millrace.pb-c.h"

enum { FEED_IGNORED = -1 };  /* a target that does not count in the loss */

struct feed_options {
    size_t cache_bytes;
    uint32_t vocab_size;     /* token ids are below it */
    bool pad_in_loss;        /* padding counts */
    /* Appends one compressed frame; *out_next: the token after its last (-1: none). */
    int (*fetch)(void *arg, struct buf *out, int64_t *out_next, const char *split, uint32_t shard, uint32_t frame);
    /* Asks for a frame without waiting; it comes to feed_put(), or not at all. Asking twice is harmless. */
    void (*ask)(void *arg, const char *split, uint32_t shard, uint32_t frame);
    void *arg;
};

struct feed;
struct feed *feed_open(const struct feed_options *options);
void feed_close(struct feed *feed);  /* NULL is fine */

/* Fills tokens[T] and targets[T] (T = geometry->sequence_length) with sequence number `sequence`. Where sequences are separate, the last
 * target is FEED_IGNORED, and so is padding. geometry->split must be a constant text. The geometry is believed: who has it from a message
 * checks it first (learner.c, check_geometry()). */
int feed_sequence(struct feed *feed, int32_t *tokens, int32_t *targets, const Millrace__Geometry *geometry, uint64_t sequence);

/* The sequence will be needed soon: asks for its frame if that is not here. */
void feed_expect(struct feed *feed, const Millrace__Geometry *geometry, uint64_t sequence);

/* A frame that was asked for. A broken one is refused (ERR_CORRUPT) and will be fetched when it is needed. */
int feed_put(struct feed *feed, const void *compressed, size_t compressed_bytes, int64_t next_token, const Millrace__Geometry *geometry,
             uint32_t shard, uint32_t frame);

#endif
