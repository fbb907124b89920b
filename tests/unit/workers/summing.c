/* Members in one process exchange their sums: whatever slices each of them has, all get the whole, along the tree. */
#include "workers/learner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "proto/link.h"
#include "workers/serve.h"

enum { STEP = 3, FENCE = 7, SLICES = 7, ELEMENTS = 2 * SEGMENT_ELEMENTS + 1, MEMBERS = 2 };

/* Numbers that do not add up to the same in another order. */
static float node_value(struct node node, size_t element) {
    if (!node_exists(node, SLICES)) return 0;
    if (node.level == 0) return 1.0f / (float)(node.index * 7 + 3 + element % 1000);
    struct node left = {node.level - 1, node.index * 2}, right = node_sibling(left);
    float value = node_value(left, element);
    return node_exists(right, SLICES) ? value + node_value(right, element) : value;
}

static struct worker *member_with(const struct slice_set sets[MEMBERS], size_t self) {
    struct worker *worker = mem_alloc(sizeof *worker);
    struct learner *l = worker->learner = mem_alloc(sizeof *l);
    struct membership *m = &l->membership;
    struct shared *shared = &worker->shared;
    const uint64_t parts[] = {STATE_WEIGHTS};
    pthread_mutex_init(&worker->lock, NULL);
    mailbox_open(&worker->inbox);
    mailbox_open(&worker->outbox);
    assert_int_equal(pool_open(&worker->pool, 1), 0);
    assert_int_equal(link_open(&worker->link, &(struct link_options){0}), 0);
    worker->config.training.slices = SLICES;
    shared->elements = l->elements = ELEMENTS;
    l->segments = segment_count(ELEMENTS);
    shared->sum = mem_alloc(ELEMENTS * sizeof *shared->sum);
    shared->offer.sum = mem_alloc(l->segments * sizeof *shared->offer.sum);
    shared->offer.segments = l->segments;
    membership_open(m, SLICES, l->segments, parts, 1);
    offer_view(&shared->offer, FENCE);
    uint64_t peer[MEMBERS] = {1, 2};
    assert_int_equal(membership_view(m, &worker->reads, STEP, FENCE, MEMBERS, self, sets, peer), 0);
    struct node cover[SLICES_MAX];
    size_t nodes = nodes_cover(cover, &sets[self], SLICES);
    for (uint32_t i = 0; i < nodes; i++) { /* as if its slices had been computed */
        l->vector[i] = mem_alloc(ELEMENTS * sizeof(float));
        for (size_t e = 0; e < ELEMENTS; e++) l->vector[i][e] = node_value(cover[i], e);
        m->partials.node[i] = cover[i], m->partials.vector[i] = i;
    }
    m->partials.count = nodes;
    m->partials.held = m->partials.mine;
    return worker;
}

static void member_leave(struct worker *worker) {
    summing_forget(&worker->learner->summing, &worker->learner->membership.exchange);
    for (size_t i = 0; i < NODES_MAX; i++) free(worker->learner->vector[i]);
    free(worker->shared.sum);
    free(worker->shared.offer.sum);
    mailbox_close(&worker->inbox);
    mailbox_close(&worker->outbox);
    pool_close(worker->pool);
    link_close(worker->link);
    free(worker->learner);
    free(worker);
}

static unsigned spoil_every, answers; /* 0: none */

/* Every so many answers one is of no use: shorter or longer than it must be, or refused. */
static void spoil(Millrace__Data *data, struct buf *chunk) {
    if (spoil_every == 0 || ++answers % spoil_every) return;
    if (answers / spoil_every % 3 == 0) assert_int_equal(buf_append(chunk, "more", 4), 0);
    else if (answers / spoil_every % 3 == 1) chunk->size -= sizeof(float);
    else data->status = MILLRACE__DATA__STATUS__FAULT, data->reason = "for a test";
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
        spoil(&data, &chunk);
        struct frame frame;
        struct message message;
        struct envelope envelope = read.envelope;
        envelope.kind = MILLRACE__KIND__DATA;
        assert_int_equal(frame_pack(&frame, &envelope, &data.base, chunk.data, chunk.size, FRAME_NONE), 0);
        assert_int_equal(frame_unpack(&message, frame.header.data, frame.header.size, frame.body.data, frame.body.size), 0);
        assert_true(reads_take(&asker->reads, &read, read.id));
        learner_data(asker, &read, &message);
        message_free(&message);
        frame_free(&frame);
        buf_free(&chunk);
        return true;
    }
}

static void exchange_of(const struct slice_set sets[MEMBERS]) {
    struct worker *members[MEMBERS];
    for (size_t i = 0; i < MEMBERS; i++) members[i] = member_with(sets, i);
    for (size_t i = 0; i < MEMBERS; i++) assert_false(learner_work(members[i]));
    while (answer_one(members, members[0]) || answer_one(members, members[1])) continue;
    for (size_t i = 0; i < MEMBERS; i++) {
        assert_true(members[i]->learner->membership.reduced);
        for (size_t e = 0; e < ELEMENTS; e++) assert_true(members[i]->shared.sum[e] == node_value(node_root(SLICES), e));
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

static void answers_of_the_wrong_size_are_asked_for_again(void **state) {
    struct slice_set sets[MEMBERS] = {0};
    (void)state;
    for (uint32_t s = 0; s < SLICES; s++) slice_add(&sets[s % MEMBERS], s);
    for (spoil_every = 2; spoil_every <= 3; spoil_every++) exchange_of(sets);
    spoil_every = 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scattered_slices_are_all_asked_for),
        cmocka_unit_test(runs_of_slices_are_all_asked_for),
        cmocka_unit_test(answers_of_the_wrong_size_are_asked_for_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
