/* The exchange of the product between members in one process: whatever slices each of them has, all get every segment's sum. */
#include "workers/member.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "proto/link.h"

enum { SLICES = 8, ELEMENTS = 2 * SEGMENT_ELEMENTS + 1, MEMBERS = 2 };

/* A slice's gradient is its number + 1 everywhere, so every sum is known and exact. */
static struct worker *member_with(const struct slice_set sets[MEMBERS], size_t self) {
    struct worker *worker = mem_alloc(sizeof *worker);
    struct member_side *m = worker->member = mem_alloc(sizeof *m);
    struct shared *shared = &worker->shared;
    pthread_mutex_init(&worker->lock, NULL);
    mailbox_open(&worker->inbox);
    mailbox_open(&worker->outbox);
    assert_int_equal(pool_open(&worker->pool, 1), 0);
    assert_int_equal(link_open(&worker->link, &(struct link_options){0}), 0);
    worker->config.training.slices = SLICES;
    shared->elements = m->elements = ELEMENTS;
    m->segments = segment_count(ELEMENTS);
    shared->sum = mem_alloc(ELEMENTS * sizeof *shared->sum);
    shared->sum_ready = mem_alloc(m->segments * sizeof *shared->sum_ready);
    m->members = MEMBERS;
    m->self = self;
    m->step = shared->step = 1;
    m->fence = shared->fence = 7;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        struct node cover[SLICES];
        size_t n = nodes_cover(cover, &sets[i], SLICES);
        m->peer[i] = i + 1;
        for (size_t k = 0; k < n; k++) m->part[m->parts++] = (struct peer_part){.node = cover[k], .member = i};
        for (size_t k = 0; k < n && i == self; k++) {
            float *values = mem_alloc(ELEMENTS * sizeof *values), sum = 0;
            for (uint32_t s = 0; s < 1u << cover[k].level; s++) sum += (float)(node_first_slice(cover[k]) + s + 1);
            for (size_t e = 0; e < ELEMENTS; e++) values[e] = sum;
            shared->partial[shared->partials++] = (struct partial){cover[k], values};
        }
    }
    return worker;
}

static void member_leave(struct worker *worker) {
    exchange_end(worker);
    for (size_t i = 0; i < worker->shared.partials; i++) free(worker->shared.partial[i].values);
    for (int level = 0; level < 32; level++) free(worker->member->scratch[level][0]), free(worker->member->scratch[level][1]);
    free(worker->shared.sum);
    free(worker->shared.sum_ready);
    mailbox_close(&worker->inbox);
    mailbox_close(&worker->outbox);
    pool_close(worker->pool);
    link_close(worker->link);
    free(worker->member);
    free(worker);
}

/* Answers the oldest of the open questions of `asker` that can be answered now. */
static bool answer_one(struct worker *members[MEMBERS], struct worker *asker) {
    uint64_t last = 0;
    for (;;) {
        const struct read *oldest = NULL;
        for (size_t i = 0; i < asker->reads.count; i++) {
            const struct read *other = &asker->reads.read[i];
            if (other->id > last && (!oldest || other->id < oldest->id)) oldest = other;
        }
        if (!oldest) return false;
        struct read read = *oldest;
        last = read.id;
        struct worker *asked = members[read.peer - 1];
        Millrace__Data data = MILLRACE__DATA__INIT;
        struct buf chunk = {.max_bytes = FRAME_CHUNK_MAX};
        enum frame_encoding encoding;
        int code = serve_read(asked, &data, &chunk, &encoding, &read.envelope, &read.body);
        assert_true(code >= 0);
        if (code == 0) continue;
        struct message message = {.envelope = read.envelope, .body = &data.base, .chunk = chunk.data, .chunk_bytes = chunk.size};
        assert_true(reads_take(&asker->reads, &read, read.id));
        exchange_data(asker, &read, &message);
        buf_free(&chunk);
        return true;
    }
}

static void exchange_of(const struct slice_set sets[MEMBERS]) {
    struct worker *members[MEMBERS];
    for (size_t i = 0; i < MEMBERS; i++) members[i] = member_with(sets, i);
    for (size_t i = 0; i < MEMBERS; i++) {
        exchange_begin(members[i]);
        exchange_pump(members[i]);
    }
    while (answer_one(members, members[0]) || answer_one(members, members[1])) continue;
    for (size_t i = 0; i < MEMBERS; i++) {
        assert_true(members[i]->member->reduced);
        for (size_t e = 0; e < ELEMENTS; e++) assert_true(members[i]->shared.sum[e] == SLICES * (SLICES + 1) / 2);
        member_leave(members[i]);
    }
}

static void scattered_slices_are_all_asked_for(void **state) {
    (void)state;
    struct slice_set sets[MEMBERS] = {0};
    for (uint32_t s = 0; s < SLICES; s++) slice_add(&sets[s % MEMBERS], s);
    exchange_of(sets);
}

static void runs_of_slices_are_all_asked_for(void **state) {
    (void)state;
    struct slice_set sets[MEMBERS] = {0};
    for (uint32_t s = 0; s < SLICES; s++) slice_add(&sets[s >= 3], s);
    exchange_of(sets);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scattered_slices_are_all_asked_for),
        cmocka_unit_test(runs_of_slices_are_all_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
