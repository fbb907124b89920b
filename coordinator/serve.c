/* READs: text of source files, token runs, frames of shards, the state of the newest checkpoint. Owns what it holds open (a source file,
 * some shards, a checkpoint) and the questions that wait for a shard under repair. Reads from disk in the loop: a few MiB take less than a
 * heartbeat. */
#include "coordinator/serve.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/plain.h"
#include "base/process.h"
#include "config/config.h"
#include "coordinator/context.h"
#include "coordinator/dataset.h"
#include "coordinator/repair.h"
#include "coordinator/roster.h"
#include "coordinator/runs.h"
#include "coordinator/tokenizing.h"
#include "coordinator/trainer.h"
#include "dataset/shard/shard.h"
#include "dataset/source/sources.h"
#include "model/checkpoint/checkpoint.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/state.h"
#include "proto/endpoint.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "proto/reads.h"
#include "proto/steps.h"

enum {
    LATER = 1,            /* no answer now: its shard is being repaired, and the question is parked */
    SHARDS_OPEN_MAX = 32, /* an index in memory for each: some MiB where documents are short */
    OTHERS_OPEN = 36,     /* 20 of log, store, link and metrics, 7 of a checkpoint that is written and one that is read, others briefly */
    PARKED_MAX = 256,     /* questions for frames of shards under repair; more of them are asked again by their workers */
};

_Static_assert(SHARDS_OPEN_MAX + OTHERS_OPEN <= (int)PROCESS_FILES_LEAST, "a coordinator has too few files where it may have the least");

struct open_shard {
    struct shard *shard;  /* NULL: free */
    size_t number;        /* in the manifest */
    uint64_t used;        /* grows with each use */
};

/* A question for a frame that cannot be read before its shard is repaired. Its worker waits and does nothing else, through no fault of
 * its own, so it is answered as soon as the shard is whole, and does not lose its lease meanwhile. */
struct parked {
    uint64_t peer;
    struct envelope envelope;
    uint64_t shard, frame;
    bool validation;
};

struct serving {
    struct parked parked[PARKED_MAX];
    size_t parked_count;
    int source_fd;        /* the source file that was read last; -1: none */
    uint32_t source_open; /* its number */
    struct open_shard open_shard[SHARDS_OPEN_MAX];
    uint64_t shard_uses;
    struct checkpoint *checkpoint; /* the newest one, once its state was asked for */
    uint64_t checkpoint_step;
    int64_t complained_ms; /* when the log had a read that could not be served last; 0: never */
    unsigned long long quiet; /* such reads since then */
};

struct answer {
    Millrace__Data data;
    struct buf chunk;
    enum frame_encoding encoding;
};

static int read_range(struct answer *answer, int fd, const Millrace__Read *read) {
    if (read->size > READ_BYTES_MAX) return err_set(ERR_PEER, "a read of %llu bytes is over the limit", (unsigned long long)read->size);
    TRY(buf_reserve(&answer->chunk, read->size));
    return file_read_at(fd, answer->chunk.data, &answer->chunk.size, read->size, read->offset);
}

/* Serves bytes of the file that was found when the run began; when it is another one by now the run ends, no later try can succeed. */
static int serve_source(struct context *c, struct answer *answer, const Millrace__Read *read) {
    struct serving *s = c->serving;
    if (c->stage != STAGE_TOKENIZE) { /* of a worker that slept: the text is read, and may be anything by now */
        answer->data.status = MILLRACE__DATA__STATUS__STALE;
        return 0;
    }
    if (read->a >= c->sources->count) return err_set(ERR_NOTFOUND, "there is no source %llu", (unsigned long long)read->a);
    const struct source *source = &c->sources->source[read->a];
    if (source->is_url) return err_set(ERR_PEER, "%s is for workers to read themselves", source->path);
    if (s->source_fd < 0 || s->source_open != read->a) {
        if (s->source_fd >= 0) close(s->source_fd);
        s->source_open = (uint32_t)read->a;
        s->source_fd = open(source->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }
    int code = s->source_fd < 0 ? err_errno("%s", source->path) : read_range(answer, s->source_fd, read);
    if (code < 0 && s->source_fd >= 0) err_add(code, "%s", source->path);
    if (code == 0 || code == ERR_NOTFOUND) code = tokenizing_check_file(c, s->source_open, s->source_fd);
    if (code == ERR_CORRUPT) fail_pipeline(c, code);
    return code;
}

static int serve_run(struct context *c, struct answer *answer, const Millrace__Read *read) {
    if (read->a >= runs_count(c)) return err_set(ERR_NOTFOUND, "there is no run %llu", (unsigned long long)read->a);
    char *path = runs_path(c, (size_t)read->a);
    int fd = -1, code = file_open(&fd, path);
    if (code == 0) code = read_range(answer, fd, read);
    if (fd >= 0) close(fd);
    free(path);
    return code;
}

/* The shard, open. The one that was not used for the longest makes room; a dataset may have more shards than a process may have files. */
static int take_shard(struct context *c, struct open_shard **out, size_t number) {
    struct serving *s = c->serving;
    struct open_shard *oldest = &s->open_shard[0];
    for (size_t i = 0; i < SHARDS_OPEN_MAX; i++) {
        struct open_shard *open = &s->open_shard[i];
        if (open->shard && open->number == number) {
            oldest = open;
            break;
        }
        if (open->used < oldest->used) oldest = open;
    }
    if (!oldest->shard || oldest->number != number) {
        struct shard *shard;
        TRY(dataset_open_shard(c, &shard, number));
        shard_close(oldest->shard);
        *oldest = (struct open_shard){.shard = shard, .number = number};
    }
    oldest->used = ++s->shard_uses;
    *out = oldest;
    return 0;
}

static int read_frame(struct context *c, struct answer *answer, size_t number, size_t frame) {
    struct open_shard *open;
    TRY(take_shard(c, &open, number));
    if (frame >= shard_frames(open->shard)) /* the asker's fault: the shard was compared with the manifest */
        return err_set(ERR_PEER, "there is no frame %zu in shard %zu", frame, number);
    int code = shard_read_frame(open->shard, &answer->chunk, &answer->data.next_token, frame);
    if (code == 0) return 0;
    shard_close(open->shard);
    *open = (struct open_shard){0};
    answer->chunk.size = 0;
    return code;
}

static int serve_frame(struct context *c, struct answer *answer, const Millrace__Read *read) {
    if (!c->dataset->has_manifest) return err_set(ERR_NOTFOUND, "the dataset is not there yet");
    size_t train = c->dataset->manifest.train_shards;
    bool validation = strcmp(read->split, "validation") == 0;
    size_t number = validation ? train + read->a : read->a;
    if (number >= (validation ? c->dataset->manifest.shards : train))
        return err_set(ERR_NOTFOUND, "there is no %s shard %llu", read->split, (unsigned long long)read->a);
    answer->encoding = FRAME_NONE; /* compressed already */
    int code = read_frame(c, answer, number, read->b);
    if (code == 0) repair_not_needed(c, number);
    if (code == ERR_DENIED) fail_pipeline(c, code);
    if (code == 0 || code == ERR_DENIED || code == ERR_PEER || code == ERR_MEMORY) return code;
    if (c->prepared && err_passes(code)) return code; /* nobody here can make it again: it may be there for the next who asks */
    code = repair_shard(c, number); /* also of what the disk does not give: who asked would end, and the next one, and the next */
    if (code < 0) fail_pipeline(c, code); /* no worker that asks again will fare better */
    return code < 0 ? code : LATER;
}

static void forget_checkpoint(struct serving *s) {
    checkpoint_close(s->checkpoint);
    s->checkpoint = NULL;
}

static int serve_state(struct context *c, struct answer *answer, const struct envelope *envelope, const Millrace__Read *read) {
    struct serving *s = c->serving;
    size_t elements = gpt2_parameters(&c->model);
    if (!c->trainer || envelope->step != c->trainer->checkpoint || !c->newest_path) {
        answer->data.status = MILLRACE__DATA__STATUS__STALE;
        return 0;
    }
    if (read->a >= STATE_PARTS || read->c >= segment_count(elements)) return err_set(ERR_PEER, "state has no such part");
    if (!s->checkpoint) TRY(checkpoint_open(&s->checkpoint, c->newest_path));
    s->checkpoint_step = envelope->step;
    enum state_part part = (enum state_part)read->a;
    size_t count = segment_size(elements, read->c), size = count * state_element_bytes(&c->parts, part);
    TRY(buf_reserve(&answer->chunk, size));
    int code = checkpoint_read_state(s->checkpoint, answer->chunk.data, &c->parts, part, read->c * SEGMENT_ELEMENTS, count);
    if (code < 0) forget_checkpoint(s); /* it may have been opened while another folder took its name: the next question opens it again */
    if (code < 0) return code;
    answer->chunk.size = size;
    answer->encoding = c->config->cluster.compression == COMPRESSION_NONE ? FRAME_NONE : FRAME_PLANES_ZSTD;
    return 0;
}

static int serve(struct context *c, struct answer *answer, const struct message *message) {
    const Millrace__Read *read = (const Millrace__Read *)message->body;
    switch (read->what) {
    case MILLRACE__READ__WHAT__SOURCE: return serve_source(c, answer, read);
    case MILLRACE__READ__WHAT__RUN: return serve_run(c, answer, read);
    case MILLRACE__READ__WHAT__FRAME: return serve_frame(c, answer, read);
    case MILLRACE__READ__WHAT__STATE: return serve_state(c, answer, &message->envelope, read);
    default: return err_set(ERR_PEER, "the coordinator does not serve reads of kind %d", (int)read->what);
    }
}

/* Whoever asks for what is not there must not fill the disk with our log. */
static void complain(struct serving *s, const char *why) {
    enum { COMPLAINT_MS = 1000 };
    int64_t now = clock_ms();
    if (s->complained_ms && now - s->complained_ms < COMPLAINT_MS) {
        s->quiet++;
        return;
    }
    log_warn("read: %s (and %llu other%s since the last such line)", why, s->quiet, plural(s->quiet));
    s->complained_ms = now;
    s->quiet = 0;
}

static void park(struct serving *s, uint64_t peer, const struct message *message) {
    const Millrace__Read *read = (const Millrace__Read *)message->body;
    for (size_t i = 0; i < s->parked_count; i++)
        if (s->parked[i].peer == peer && s->parked[i].envelope.job == message->envelope.job) return;
    if (s->parked_count == PARKED_MAX) return;
    s->parked[s->parked_count++] = (struct parked){.peer = peer, .envelope = message->envelope, .shard = read->a, .frame = read->b,
                                                   .validation = strcmp(read->split, "validation") == 0};
}

static void answer_parked(struct context *c) {
    static struct parked parked[PARKED_MAX];
    size_t count = c->serving->parked_count;
    memcpy(parked, c->serving->parked, count * sizeof *parked);
    c->serving->parked_count = 0;
    for (size_t i = 0; i < count; i++) {
        Millrace__Read read = MILLRACE__READ__INIT;
        read.what = MILLRACE__READ__WHAT__FRAME;
        read.a = parked[i].shard, read.b = parked[i].frame;
        read.split = parked[i].validation ? "validation" : "train";
        if (roster_find(c, parked[i].peer) >= 0)
            serve_message(c, parked[i].peer, &(struct message){.envelope = parked[i].envelope, .body = &read.base});
    }
}

static void refuse_for_room(struct context *c, uint64_t peer) {
    int64_t worker = roster_find(c, peer);
    char why[160];
    snprintf(why, sizeof why, "no room for an answer to %s: it has not taken the ones before, or all workers together have not",
             worker < 0 ? "somebody" : c->worker[worker].id);
    complain(c->serving, why);
}

void serve_message(struct context *c, uint64_t peer, const struct message *message) {
    if (!link_has_room(c->link, peer, READ_BYTES_MAX)) { /* it may ask again */
        refuse_for_room(c, peer);
        return;
    }
    struct answer answer = {.data = MILLRACE__DATA__INIT, .encoding = endpoint_is_local(link_endpoint(c->link)) ? FRAME_NONE : FRAME_ZSTD};
    int code = serve(c, &answer, message);
    if (code == LATER) {
        park(c->serving, peer, message);
        buf_free(&answer.chunk);
        return;
    }
    if (code == ERR_MEMORY) fail_pipeline(c, code); /* whoever asks again fares no better */
    if (code < 0) {
        answer.data.status = MILLRACE__DATA__STATUS__FAULT;
        answer.data.reason = (char *)err_text();
        answer.chunk.size = 0;
        complain(c->serving, err_text());
    }
    struct envelope envelope = message->envelope;
    envelope.kind = MILLRACE__KIND__DATA;
    send_unnumbered(c, peer, &envelope, &answer.data.base, &answer.chunk, answer.encoding);
    buf_free(&answer.chunk);
}

void serve_tick(struct context *c, int64_t now_ms) {
    struct serving *s = c->serving;
    for (size_t i = 0; i < s->parked_count; i++) {
        int64_t worker = roster_find(c, s->parked[i].peer);
        if (worker >= 0) c->worker[worker].moved_ms = now_ms;
    }
    if (s->parked_count && !repair_goes_on(c)) answer_parked(c);
    if (s->checkpoint && s->checkpoint_step != c->trainer->checkpoint) forget_checkpoint(s);
}

void serve_open(struct context *c) {
    c->serving = mem_alloc(sizeof *c->serving);
    c->serving->source_fd = -1;
}

void serve_close(struct context *c) {
    struct serving *s = c->serving;
    if (!s) return;
    for (size_t i = 0; i < SHARDS_OPEN_MAX; i++) shard_close(s->open_shard[i].shard);
    if (s->source_fd >= 0) close(s->source_fd);
    checkpoint_close(s->checkpoint);
    free(s);
    c->serving = NULL;
}
