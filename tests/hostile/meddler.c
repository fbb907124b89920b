/* A worker that lies, for tests/e2e/test_liars.py: stands between an honest worker and the coordinator, and changes what the worker says.
 *
 *     meddler LIE COORDINATOR [STEP]    prints the address at which the worker finds it
 *
 * LIE is one of those in lie() below; with STEP it lies about that step alone. Nothing that it sends is malformed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "proto/frame.h"
#include "proto/link.h"

static bool is(const char *lie, const char *name) { return strcmp(lie, name) == 0; }

static void flip(ProtobufCBinaryData *bytes) {
    if (bytes->len) bytes->data[0] ^= 1;
}

/* What the worker says, changed in place. chunk: a copy. */
static void change(const char *lie, struct message *message, uint8_t *chunk) {
    static Millrace__Place beginning = MILLRACE__PLACE__INIT;
    switch (message->envelope.kind) {
    case MILLRACE__KIND__DONE: {
        Millrace__Done *done = (Millrace__Done *)message->body;
        bool run = done->result_case == MILLRACE__DONE__RESULT_TOKENIZE, shard = done->result_case == MILLRACE__DONE__RESULT_PACK;
        if (is(lie, "digest")) flip(&done->digest);
        if (is(lie, "size") && done->size > 8) done->size -= 8;
        if (is(lie, "huge")) done->size = UINT64_MAX / 2;
        if (is(lie, "tokens") && run) done->tokenize->tokens++;
        if (is(lie, "tokens") && shard) done->pack->tokens++;
        if (is(lie, "documents") && shard) done->pack->documents++;
        if (is(lie, "next") && run) done->tokenize->next = &beginning; /* the chain would never end */
        break;
    }
    case MILLRACE__KIND__REDUCED: {
        Millrace__Reduced *reduced = (Millrace__Reduced *)message->body;
        if (is(lie, "gradient")) flip(&reduced->digest);
        if (is(lie, "norm")) reduced->square_sum *= 2;
        if (is(lie, "infinite")) reduced->finite = false;
        break;
    }
    case MILLRACE__KIND__APPLIED:
        if (is(lie, "state")) flip(&((Millrace__Applied *)message->body)->digest);
        break;
    case MILLRACE__KIND__SELF_TEST_RESULT:
        if (is(lie, "answer")) flip(&((Millrace__SelfTestResult *)message->body)->digest);
        break;
    case MILLRACE__KIND__SLICE:
        if (is(lie, "count")) ((Millrace__Slice *)message->body)->tokens = (uint64_t)1 << 60;
        break;
    case MILLRACE__KIND__DATA:
        if (is(lie, "bytes") && message->chunk_bytes) chunk[0] ^= 1;
        if (is(lie, "refuses")) ((Millrace__Data *)message->body)->status = MILLRACE__DATA__STATUS__FAULT, message->chunk_bytes = 0;
        break;
    default: break;
    }
}

static void pass_on(struct link *link, uint64_t to, const struct message *message, const uint8_t *chunk) {
    struct frame frame;
    if (frame_pack(&frame, &message->envelope, message->body, chunk, message->chunk_bytes, FRAME_NONE) == 0) link_send(link, to, &frame);
}

int main(int argc, char **argv) {
    struct link *link;
    uint64_t coordinator, worker = 0;
    if (argc < 3 || link_open(&link, &(struct link_options){.bind = "tcp://127.0.0.1:*"}) < 0 ||
        link_connect(link, &coordinator, argv[2]) < 0) {
        fprintf(stderr, "meddler LIE COORDINATOR [STEP]: %s\n", err_text());
        return 2;
    }
    printf("%s\n", link_endpoint(link));
    fflush(stdout);
    while (getppid() != 1) {
        struct message message;
        uint64_t peer;
        if (link_receive(link, &peer, &message, 200) != 1) continue;
        uint8_t *chunk = malloc(message.chunk_bytes + 1);
        if (message.chunk_bytes) memcpy(chunk, message.chunk, message.chunk_bytes);
        if (peer != coordinator) {
            worker = peer;
            if (argc < 4 || message.envelope.step == strtoull(argv[3], NULL, 10)) change(argv[1], &message, chunk);
        }
        if (peer != coordinator || worker) pass_on(link, peer == coordinator ? worker : coordinator, &message, chunk);
        free(chunk);
        message_free(&message);
    }
    link_close(link);
    return 0;
}
