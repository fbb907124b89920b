/* A small table, searched from end to end. */
#include "workers/asked.h"

#include "proto/steps.h"

size_t asked_bytes(const Millrace__Read *read) {
    switch (read->what) {
    case MILLRACE__READ__WHAT__PARTIAL:
    case MILLRACE__READ__WHAT__SUM:
    case MILLRACE__READ__WHAT__STATE: return SEGMENT_ELEMENTS * sizeof(float);
    case MILLRACE__READ__WHAT__FRAME: return FRAME_CHUNK_MAX;
    default: return read->size < READ_BYTES_MAX ? (size_t)read->size : READ_BYTES_MAX;
    }
}

static struct question *find(const struct asked *asked, uint64_t peer, uint64_t id) {
    for (size_t i = 0; i < ASKED_MAX && id; i++)
        if (asked->question[i].id == id && asked->question[i].peer == peer) return (struct question *)&asked->question[i];
    return NULL;
}

void asked_note(struct asked *asked, uint64_t peer, uint64_t id, size_t bytes_max) {
    struct question *question = find(asked, peer, id);
    if (!question) {
        question = &asked->question[0];
        for (size_t i = 1; i < ASKED_MAX && question->id; i++)
            if (!asked->question[i].id || asked->question[i].age < question->age) question = &asked->question[i];
    }
    *question = (struct question){peer, id, bytes_max, ++asked->newest};
}

bool asked_open(const struct asked *asked, uint64_t peer, uint64_t id) { return find(asked, peer, id) != NULL; }

bool asked_take(struct asked *asked, uint64_t peer, uint64_t id, size_t bytes) {
    struct question *question = find(asked, peer, id);
    if (!question || bytes > question->bytes_max) return false;
    *question = (struct question){0};
    return true;
}
