/* A member's way through a run, with its real model, in one thread: what the network thread may do meanwhile, and which states it believes.
 * The linker puts functions of this file before those that compute long (the Makefile names them). */
#include "workers/learner.h"

#include <math.h>

#include "tests/unit/config/parse.h"
#include "tests/unit/stderr.h"
#include "workers/serve.h"

#include "base/mem.h"
#include "proto/link.h"

#define PIPELINE \
    "model: {n_layer: 1, n_head: 2, n_embd: 24, n_positions: 16}\n" \
    "training: {global_batch: 5, slices: 5, max_steps: 10, optim_state: bf16}\n" \
    "dataset: {sources: [a.txt], sequence_length: 8}\n"

#define MANY "model: {n_layer: 1, n_head: 2, n_embd: 8, n_positions: 4}\n" \
    "training: {global_batch: 64, slices: 64, max_steps: 10}\n" \
    "dataset: {sources: [a.txt], sequence_length: 4}\n"

enum { FENCE = 7, SLICES = 5, MANY_SLICES = 64 };

/* ---- looking over the shoulder ---- */

static struct worker *watched; /* by the probe; NULL: nobody */
static size_t probes, held;    /* long computations; those under the lock */
static void (*at_probe)(struct worker *worker);

static void probe(void) {
    if (!watched) return;
    probes++;
    if (pthread_mutex_trylock(&watched->lock) != 0) {
        held++;
        return;
    }
    pthread_mutex_unlock(&watched->lock);
    if (at_probe) at_probe(watched);
}

void __real_pool_run(struct pool *pool, size_t items, void (*work)(void *arg, size_t item), void *arg);
void __wrap_pool_run(struct pool *pool, size_t items, void (*work)(void *arg, size_t item), void *arg);
void __wrap_pool_run(struct pool *pool, size_t items, void (*work)(void *arg, size_t item), void *arg) {
    probe();
    __real_pool_run(pool, items, work, arg);
}

void __real_vector_add(float *out, const float *left, const float *right, size_t count);
void __wrap_vector_add(float *out, const float *left, const float *right, size_t count);
void __wrap_vector_add(float *out, const float *left, const float *right, size_t count) {
    probe();
    __real_vector_add(out, left, right, count);
}

void __real_optimizer_begin(void *const state[STATE_PARTS], const struct gpt2_config *config, const struct optimizer *optimizer,
                            struct pool *pool);
void __wrap_optimizer_begin(void *const state[STATE_PARTS], const struct gpt2_config *config, const struct optimizer *optimizer,
                            struct pool *pool);
void __wrap_optimizer_begin(void *const state[STATE_PARTS], const struct gpt2_config *config, const struct optimizer *optimizer,
                            struct pool *pool) {
    probe();
    __real_optimizer_begin(state, config, optimizer, pool);
}

int __real_mem_try(void *out_pointer, size_t count, size_t element_bytes);
int __wrap_mem_try(void *out_pointer, size_t count, size_t element_bytes);
int __wrap_mem_try(void *out_pointer, size_t count, size_t element_bytes) {
    probe();
    return __real_mem_try(out_pointer, count, element_bytes);
}

/* No dataset: a sequence is its number. */
int __wrap_feed_sequence(struct feed *feed, int32_t *tokens, int32_t *targets, const Millrace__Geometry *geometry, uint64_t sequence);
int __wrap_feed_sequence(struct feed *feed, int32_t *tokens, int32_t *targets, const Millrace__Geometry *geometry, uint64_t sequence) {
    (void)feed;
    for (uint64_t i = 0; i < geometry->sequence_length; i++) tokens[i] = targets[i] = (int32_t)((sequence * 31 + i * i) % 50000);
    return 0;
}

/* ---- a worker without its threads ---- */

static int fetch_nothing(void *arg, struct buf *out, int64_t *out_next, const char *split, uint32_t shard, uint32_t frame) {
    (void)arg, (void)out, (void)out_next, (void)split, (void)shard, (void)frame;
    return err_set(ERR_NOTFOUND, "there is no dataset");
}

static void ask_nothing(void *arg, const char *split, uint32_t shard, uint32_t frame) { (void)arg, (void)split, (void)shard, (void)frame; }

static struct worker *worker_open_with(const char *pipeline) {
    struct worker *worker = mem_alloc(sizeof *worker);
    pthread_mutex_init(&worker->lock, NULL);
    mailbox_open(&worker->inbox);
    mailbox_open(&worker->outbox);
    worker->deferred_last = &worker->deferred;
    worker->config = accepted(pipeline);
    worker->configured = true;
    assert_int_equal(pool_open(&worker->pool, 1), 0);
    assert_int_equal(link_open(&worker->link, &(struct link_options){0}), 0);
    worker->feed = feed_open(&(struct feed_options){.vocab_size = 50257, .fetch = fetch_nothing, .ask = ask_nothing});
    return worker;
}

static struct worker *worker_open(void) { return worker_open_with(PIPELINE); }

static void worker_close(struct worker *worker) {
    learner_close(worker);
    feed_close(worker->feed);
    addresses_close(&worker->addresses);
    mailbox_close(&worker->inbox);
    mailbox_close(&worker->outbox);
    pthread_mutex_destroy(&worker->lock);
    pool_close(worker->pool);
    link_close(worker->link);
    config_free(&worker->config);
    free(worker);
}

/* The newest message of that kind that it sent, and forgets all others. false: none. */
static bool sent(struct worker *worker, struct message *out, uint32_t kind) {
    bool found = false;
    for (struct queued_message *queued; (queued = mailbox_take(&worker->outbox, 0)); queued_message_free(queued)) {
        const struct frame *f = &queued->frame;
        struct message message;
        assert_int_equal(frame_unpack(&message, f->header.data, f->header.size, f->body.data, f->body.size), 0);
        if (message.envelope.kind != kind) {
            message_free(&message);
            continue;
        }
        if (found) message_free(out);
        *out = message;
        found = true;
    }
    return found;
}

static Millrace__Geometry geometry = {.base = PROTOBUF_C_MESSAGE_INIT(&millrace__geometry__descriptor),
                                      .split = (char *)"train",
                                      .tokens = 9000,
                                      .shard_tokens = 9000,
                                      .frame_tokens = 900,
                                      .token_bytes = 2,
                                      .sequence_length = 8};

static void join(struct worker *worker, uint64_t step, const uint8_t *digest, size_t givers) {
    Millrace__Join body = MILLRACE__JOIN__INIT;
    char *peers[] = {(char *)"giver 0", (char *)"giver 1"};
    body.geometry = &geometry;
    if (digest) body.digest = (ProtobufCBinaryData){XXH128_BYTES, (uint8_t *)digest};
    body.peers = peers;
    body.n_peers = givers;
    learner_join(worker, &(struct message){.envelope = {.kind = MILLRACE__KIND__JOIN, .step = step}, .body = &body.base});
}

/* Alone in the view. */
static void begin_step(struct worker *worker, uint64_t step) {
    uint32_t slices[SLICES] = {0, 1, 2, 3, 4};
    Millrace__Member self = MILLRACE__MEMBER__INIT, *members[] = {&self};
    self.endpoint = (char *)"self";
    self.slices = slices;
    self.n_slices = SLICES;
    Millrace__Step body = MILLRACE__STEP__INIT;
    body.members = members;
    body.n_members = 1;
    learner_step(worker, &(struct message){.envelope = {.step = step, .attempt = FENCE + step}, .body = &body.base});
}

static void compute(struct worker *worker) {
    struct message reduced;
    while (learner_work(worker)) continue;
    if (!sent(worker, &reduced, MILLRACE__KIND__REDUCED)) fail_msg("nothing was summed: %s", worker->outcome_text);
    message_free(&reduced);
}

static void commit(struct worker *worker, uint64_t step) {
    Millrace__Commit body = MILLRACE__COMMIT__INIT;
    body.tokens = 40;
    learner_commit(worker, &(struct message){.envelope = {.step = step, .attempt = FENCE + step}, .body = &body.base});
}

/* A step from beginning to end; the digest of the state after it. */
static void whole_step(struct worker *worker, uint64_t step, uint8_t digest[XXH128_BYTES]) {
    struct message applied = {0};
    begin_step(worker, step);
    compute(worker);
    commit(worker, step);
    assert_true(sent(worker, &applied, MILLRACE__KIND__APPLIED));
    const Millrace__Applied *body = (const Millrace__Applied *)applied.body;
    assert_int_equal(applied.envelope.step, step);
    assert_int_equal(body->digest.len, XXH128_BYTES);
    memcpy(digest, body->digest.data, XXH128_BYTES);
    message_free(&applied);
}

/* Of the many slices each `every`th is ours, from `first` on; the others are somebody else's, who says nothing. */
static void begin_many(struct worker *worker, uint64_t attempt, uint32_t first, uint32_t every) {
    uint32_t ours[MANY_SLICES], theirs[MANY_SLICES];
    Millrace__Member self = MILLRACE__MEMBER__INIT, other = MILLRACE__MEMBER__INIT, *members[] = {&self, &other};
    self.endpoint = (char *)"self";
    other.endpoint = (char *)"other";
    self.slices = ours;
    other.slices = theirs;
    for (uint32_t s = 0; s < MANY_SLICES; s++)
        if (s >= first && (s - first) % every == 0) ours[self.n_slices++] = s;
        else theirs[other.n_slices++] = s;
    Millrace__Step body = MILLRACE__STEP__INIT;
    body.members = members;
    body.n_members = other.n_slices ? 2 : 1;
    learner_step(worker, &(struct message){.envelope = {.step = 1, .attempt = attempt}, .body = &body.base});
    while (learner_work(worker)) assert_true(worker->learner->membership.partials.count <= NODES_MAX);
    assert_string_equal(worker->outcome_text, "");
}

static void summed_digest(struct worker *worker, uint8_t digest[XXH128_BYTES]) {
    struct message reduced;
    assert_true(sent(worker, &reduced, MILLRACE__KIND__REDUCED));
    memcpy(digest, ((const Millrace__Reduced *)reduced.body)->digest.data, XXH128_BYTES);
    message_free(&reduced);
}

/* What a question for the weights of that step gets: 0 later, 1 them, -1 no more. */
static int ask_state(struct worker *worker, uint64_t step) {
    Millrace__Data data = MILLRACE__DATA__INIT;
    Millrace__Read read = MILLRACE__READ__INIT;
    struct buf chunk = {.max_bytes = FRAME_CHUNK_MAX};
    struct envelope envelope = {.step = step};
    enum frame_encoding encoding;
    read.what = MILLRACE__READ__WHAT__STATE;
    int code = serve_read(worker, &data, &chunk, &encoding, &envelope, &read);
    assert_true(code >= 0);
    buf_free(&chunk);
    return data.status == MILLRACE__DATA__STATUS__STALE ? -1 : code;
}

/* ---- the lock ---- */

static void nothing_that_takes_long_is_done_under_the_lock(void **state) {
    (void)state;
    uint8_t digest[XXH128_BYTES];
    struct worker *worker = watched = worker_open();
    probes = held = 0;
    join(worker, 0, NULL, 0); /* allocates, makes the first state, digests it */
    assert_true(probes >= 5);
    assert_int_equal(held, 0);
    begin_step(worker, 1);
    size_t before = probes;
    compute(worker); /* slices, sums of slices, of segments */
    assert_true(probes >= before + 2 * SLICES);
    assert_int_equal(held, 0);
    before = probes;
    commit(worker, 1); /* the optimizer, the state's digest */
    assert_true(probes >= before + 2);
    assert_int_equal(held, 0);
    whole_step(worker, 2, digest);
    assert_int_equal(held, 0);
    watched = NULL;
    worker_close(worker);
}

static size_t asked;
static void ask_during_commit(struct worker *worker) {
    asked++;
    assert_int_equal(ask_state(worker, 0), -1);
    assert_int_equal(ask_state(worker, 1), 0);
    assert_true(worker->shared.offer.state && worker->shared.offer.state_changes); /* so that no hello goes out */
}

static void a_state_that_changes_is_not_served_and_its_askers_wait(void **state) {
    (void)state;
    struct worker *worker = worker_open();
    join(worker, 0, NULL, 0);
    begin_step(worker, 1);
    compute(worker);
    assert_int_equal(ask_state(worker, 0), 1);
    assert_int_equal(ask_state(worker, 1), 0);
    asked = 0;
    watched = worker;
    at_probe = ask_during_commit;
    commit(worker, 1);
    watched = NULL;
    at_probe = NULL;
    assert_true(asked >= 2); /* in the optimizer, and in the digest */
    assert_int_equal(ask_state(worker, 1), 1);
    assert_int_equal(ask_state(worker, 0), -1);
    assert_true(atomic_load(&worker->news)); /* those who wait are looked at now */
    worker_close(worker);
}

/* Messages come late and twice, and peers ask for anything. */
static void what_does_not_fit_what_is_here_changes_nothing(void **state) {
    (void)state;
    struct message message;
    struct worker *worker = worker_open();
    join(worker, 0, NULL, 0);
    begin_step(worker, 2); /* the state of step 1 is not here */
    assert_int_equal(worker->learner->membership.step, 0);
    begin_step(worker, 1);
    uint64_t fence = worker->learner->membership.fence;
    Millrace__Member self = MILLRACE__MEMBER__INIT, *members[] = {&self};
    Millrace__Step older = MILLRACE__STEP__INIT;
    self.endpoint = (char *)"self";
    older.members = members, older.n_members = 1;
    for (uint64_t attempt = fence - 1; attempt <= fence; attempt++)
        learner_step(worker, &(struct message){.envelope = {.step = 1, .attempt = attempt}, .body = &older.base});
    assert_int_equal(worker->learner->membership.fence, fence);
    while (sent(worker, &message, MILLRACE__KIND__APPLIED)) message_free(&message);
    commit(worker, 1); /* nothing was summed */
    assert_false(sent(worker, &message, MILLRACE__KIND__APPLIED));
    compute(worker);
    Millrace__Commit body = MILLRACE__COMMIT__INIT;
    body.tokens = 40;
    learner_commit(worker, &(struct message){.envelope = {.step = 1, .attempt = fence - 1}, .body = &body.base}); /* of another view */
    assert_false(sent(worker, &message, MILLRACE__KIND__APPLIED));
    commit(worker, 1);
    assert_true(sent(worker, &message, MILLRACE__KIND__APPLIED));
    assert_int_equal(message.envelope.step, 1);
    message_free(&message);
    worker_close(worker);
}

static void a_question_for_a_segment_that_is_none_is_never_answered(void **state) {
    (void)state;
    struct worker *worker = worker_open();
    join(worker, 0, NULL, 0);
    begin_step(worker, 1);
    const Millrace__Read__What what[] = {MILLRACE__READ__WHAT__PARTIAL, MILLRACE__READ__WHAT__SUM, MILLRACE__READ__WHAT__STATE};
    for (size_t i = 0; i < 3; i++)
        for (uint64_t past = 0; past < 2; past++) {
            size_t which;
            struct envelope envelope = {.step = 0, .attempt = worker->learner->membership.fence};
            Millrace__Read read = MILLRACE__READ__INIT;
            read.what = what[i];
            read.c = past ? UINT64_MAX : worker->shared.offer.segments;
            assert_int_equal(offer_find(&worker->shared.offer, &which, &envelope, &read), OFFER_NEVER);
        }
    worker_close(worker);
}

/* Nor is one for a node that is not among those that are offered in this view: who asks would be parked for a minute, again and again. */
static void a_question_for_a_node_that_is_none_is_never_answered(void **state) {
    (void)state;
    static bool sum[1];
    struct offer offer = {.segments = 1, .sum = sum};
    const struct node offered[] = {{1, 0}, {0, 5}};
    struct envelope envelope = {.attempt = 8};
    Millrace__Read read = MILLRACE__READ__INIT;
    size_t which;
    read.what = MILLRACE__READ__WHAT__PARTIAL;
    offer_view(&offer, 8);
    for (read.a = 0; read.a < 3; read.a++)
        for (read.b = 0; read.b < 8; read.b++) assert_int_equal(offer_find(&offer, &which, &envelope, &read), OFFER_LATER);
    offer_partials(&offer, offered, 2);
    for (read.a = 0; read.a < 3; read.a++)
        for (read.b = 0; read.b < 8; read.b++) {
            bool there = (read.a == 1 && read.b == 0) || (read.a == 0 && read.b == 5);
            assert_int_equal(offer_find(&offer, &which, &envelope, &read), there ? OFFER_THIS : OFFER_NEVER);
            if (there) assert_int_equal(which, read.a == 0);
        }
    offer_view(&offer, 9);
    assert_int_equal(offer_find(&offer, &which, &envelope, &read), OFFER_NO_MORE);
}

/* ---- partial sums ---- */

static void a_member_that_holds_too_many_sums_computes_some_again_and_has_the_same_sum(void **state) {
    (void)state;
    uint8_t undisturbed[XXH128_BYTES], digest[XXH128_BYTES];
    struct worker *worker = worker_open_with(MANY);
    geometry.sequence_length = 4;
    join(worker, 0, NULL, 0);
    begin_many(worker, FENCE, 0, 1);
    summed_digest(worker, undisturbed);
    begin_many(worker, FENCE + 1, MANY_SLICES, 1); /* gives back what it has */
    assert_int_equal(worker->learner->membership.partials.count, 0);
    begin_many(worker, FENCE + 2, 1, 2); /* every other one, each a sum of its own: no more would go */
    assert_int_equal(worker->learner->membership.partials.count, NODES_MAX);
    begin_many(worker, FENCE + 3, 0, 1); /* the other one died */
    assert_int_equal(worker->learner->membership.partials.count, 1);
    summed_digest(worker, digest);
    assert_memory_equal(digest, undisturbed, XXH128_BYTES);
    geometry.sequence_length = 8;
    worker_close(worker);
}

/* ---- what is not finite ---- */

/* Of two NaN the processor takes one, and which of them is not the same in all instruction sets. */
static void members_agree_about_a_sum_that_is_not_finite_whatever_its_bits(void **state) {
    (void)state;
    const uint32_t nan[] = {0x7fc00001u, 0xffc00002u, 0x7f800000u}; /* and an infinity, which becomes NaN on the way or stays */
    uint8_t digest[3][XXH128_BYTES];
    for (size_t i = 0; i < 3; i++) {
        struct worker *worker = worker_open();
        struct message reduced;
        join(worker, 0, NULL, 0);
        for (size_t k = 0; k < worker->learner->elements; k++) memcpy((float *)worker->shared.state[STATE_WEIGHTS] + k, &nan[i], 4);
        begin_step(worker, 1);
        while (learner_work(worker)) continue;
        assert_true(sent(worker, &reduced, MILLRACE__KIND__REDUCED));
        const Millrace__Reduced *body = (const Millrace__Reduced *)reduced.body;
        assert_false(body->finite);
        assert_true(isnan(body->square_sum) && !signbit(body->square_sum));
        memcpy(digest[i], body->digest.data, XXH128_BYTES);
        message_free(&reduced);
        worker_close(worker);
    }
    assert_memory_equal(digest[0], digest[1], XXH128_BYTES);
    assert_memory_equal(digest[0], digest[2], XXH128_BYTES);
}

/* ---- joining ---- */

enum { NOTHING, FLIP, SHORT, FAULT };

/* Answers what `worker` asks until it asks no more; the answer number `at` is spoilt, or all of giver `bad_giver`. */
static size_t givers = 1;
static uint64_t bad_giver;
static bool all_bad;
static void give_state(struct worker *worker, struct worker *giver, int how, size_t at) {
    for (size_t n = 0; worker->reads.count > 0; n++) {
        assert_true(n < 1000); /* it comes to an end */
        struct read read;
        const char *name = addresses_find(&worker->addresses, worker->reads.read[0].peer);
        assert_non_null(strstr(name, "giver "));
        bool spoil = n == at || all_bad || (bad_giver && name[6] == '0' + (char)bad_giver);
        assert_true(reads_take(&worker->reads, &read, worker->reads.read[0].id));
        Millrace__Data data = MILLRACE__DATA__INIT;
        struct buf chunk = {.max_bytes = FRAME_CHUNK_MAX};
        enum frame_encoding encoding;
        assert_int_equal(serve_read(giver, &data, &chunk, &encoding, &read.envelope, &read.body), 1);
        if (spoil && how == FLIP) ((uint8_t *)chunk.data)[chunk.size / 2] ^= 4;
        if (spoil && how == SHORT) chunk.size -= 2;
        if (spoil && how == FAULT) data.status = MILLRACE__DATA__STATUS__FAULT, chunk.size = 0;
        struct message message = {.envelope = read.envelope, .body = &data.base, .chunk = chunk.data, .chunk_bytes = chunk.size};
        learner_data(worker, &read, &message);
        buf_free(&chunk);
    }
}

/* Whether the state was taken; the coordinator must have been told so. */
static bool joins(struct worker *worker, struct worker *giver, const uint8_t *digest, int how, size_t at) {
    struct message applied = {0};
    join(worker, 1, digest, givers);
    give_state(worker, giver, how, at);
    assert_true(sent(worker, &applied, MILLRACE__KIND__APPLIED));
    const Millrace__Applied *body = (const Millrace__Applied *)applied.body;
    bool taken = body->digest.len == XXH128_BYTES;
    if (taken) assert_memory_equal(body->digest.data, digest, XXH128_BYTES);
    message_free(&applied);
    assert_int_equal(worker->shared.offer.state, taken);
    assert_int_equal(ask_state(worker, 1), taken ? 1 : -1);
    return taken;
}

static void a_joined_state_is_believed_when_its_digest_fits(void **state) {
    (void)state;
    uint8_t digest[XXH128_BYTES], other[XXH128_BYTES] = {1};
    struct worker *giver = worker_open();
    join(giver, 0, NULL, 0);
    whole_step(giver, 1, digest);
    size_t answers = giver->shared.parts.count * segment_count(giver->shared.elements);
    assert_true(answers >= 3);
    for (int how = FLIP; how <= FAULT; how++)
        for (size_t at = 0; at < answers; at++) {
            struct worker *worker = worker_open();
            assert_false(joins(worker, giver, digest, how, at));
            assert_true(joins(worker, giver, digest, NOTHING, 0)); /* asked once more it can */
            worker_close(worker);
        }
    struct worker *worker = worker_open();
    assert_false(joins(worker, giver, other, NOTHING, 0));
    assert_true(joins(worker, giver, digest, NOTHING, 0));
    uint8_t next[XXH128_BYTES], same[XXH128_BYTES];
    whole_step(giver, 2, next);
    whole_step(worker, 2, same);
    assert_memory_equal(next, same, XXH128_BYTES);
    worker_close(worker);
    worker_close(giver);
}

static void a_giver_that_gives_nothing_good_is_passed_over(void **state) {
    (void)state;
    uint8_t digest[XXH128_BYTES];
    struct worker *giver = worker_open(), *worker = worker_open();
    join(giver, 0, NULL, 0);
    whole_step(giver, 1, digest);
    givers = 2;
    bad_giver = 1;
    assert_true(joins(worker, giver, digest, SHORT, SIZE_MAX));
    worker_close(worker);
    worker = worker_open();
    assert_true(joins(worker, giver, digest, FAULT, SIZE_MAX));
    worker_close(worker);
    worker = worker_open();
    uint8_t other[XXH128_BYTES] = {1};
    for (int i = 0; i < 20; i++) assert_false(joins(worker, giver, other, SHORT, SIZE_MAX)); /* each has so many bad answers anew */
    assert_true(joins(worker, giver, digest, SHORT, SIZE_MAX));
    givers = 1, bad_giver = 0;
    worker_close(worker);
    worker_close(giver);
}

static void givers_are_asked_in_turn_and_not_without_end(void **state) {
    (void)state;
    uint8_t digest[XXH128_BYTES];
    size_t asked_of[2] = {0};
    struct worker *giver = worker_open(), *worker = worker_open();
    join(giver, 0, NULL, 0);
    whole_step(giver, 1, digest);
    join(worker, 1, digest, 2);
    for (size_t i = 0; i < worker->reads.count; i++)
        asked_of[addresses_find(&worker->addresses, worker->reads.read[i].peer)[6] - '0']++;
    assert_true(asked_of[0] > 0 && asked_of[1] > 0);
    give_state(worker, giver, NOTHING, 0);
    assert_int_equal(ask_state(worker, 1), 1);
    worker_close(worker);
    worker = worker_open();
    givers = 2, all_bad = true;
    assert_false(joins(worker, giver, digest, FAULT, SIZE_MAX));
    givers = 1, all_bad = false;
    worker_close(worker);
    worker_close(giver);
}

/* The coordinator would wait for its word a minute, and ask again. */
static void who_cannot_take_a_state_over_for_its_split_says_so(void **state) {
    (void)state;
    struct message message;
    struct worker *worker = worker_open();
    geometry.token_bytes = 3;
    join(worker, 0, NULL, 0);
    geometry.token_bytes = 2;
    assert_true(sent(worker, &message, MILLRACE__KIND__APPLIED));
    assert_int_equal(((const Millrace__Applied *)message.body)->digest.len, 0);
    message_free(&message);
    join(worker, 0, NULL, 0);
    assert_true(sent(worker, &message, MILLRACE__KIND__APPLIED));
    assert_int_equal(((const Millrace__Applied *)message.body)->digest.len, XXH128_BYTES);
    message_free(&message);
    worker_close(worker);
}

static void a_step_that_does_not_follow_is_told(void **state) {
    (void)state;
    char text[4096];
    struct worker *worker = worker_open();
    join(worker, 0, NULL, 0);
    struct stderr_kept kept = stderr_keep();
    begin_step(worker, 2);
    stderr_back(text, sizeof text, &kept);
    assert_non_null(strstr(text, "step 2 does not follow what is here"));
    worker_close(worker);
}

static void a_step_that_cannot_be_is_told_and_changes_nothing(void **state) {
    (void)state;
    char text[4096];
    Millrace__Member self = MILLRACE__MEMBER__INIT, *members[] = {&self};
    Millrace__Step body = MILLRACE__STEP__INIT;
    self.endpoint = (char *)"self";
    struct worker *worker = worker_open();
    join(worker, 0, NULL, 0);
    uint64_t fence = worker->learner->membership.fence;
    body.members = members, body.n_members = 1, body.self = 1;
    struct stderr_kept kept = stderr_keep();
    learner_step(worker, &(struct message){.envelope = {.step = 1, .attempt = FENCE + 1}, .body = &body.base});
    stderr_back(text, sizeof text, &kept);
    assert_non_null(strstr(text, "step 1 cannot be taken: this is member 1 of 1, and there are 1024 at most"));
    assert_int_equal(worker->learner->membership.fence, fence);
    worker_close(worker);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_that_takes_long_is_done_under_the_lock),
        cmocka_unit_test(a_state_that_changes_is_not_served_and_its_askers_wait),
        cmocka_unit_test(a_member_that_holds_too_many_sums_computes_some_again_and_has_the_same_sum),
        cmocka_unit_test(members_agree_about_a_sum_that_is_not_finite_whatever_its_bits),
        cmocka_unit_test(a_joined_state_is_believed_when_its_digest_fits),
        cmocka_unit_test(a_giver_that_gives_nothing_good_is_passed_over),
        cmocka_unit_test(givers_are_asked_in_turn_and_not_without_end),
        cmocka_unit_test(who_cannot_take_a_state_over_for_its_split_says_so),
        cmocka_unit_test(a_step_that_does_not_follow_is_told),
        cmocka_unit_test(a_step_that_cannot_be_is_told_and_changes_nothing),
        cmocka_unit_test(what_does_not_fit_what_is_here_changes_nothing),
        cmocka_unit_test(a_question_for_a_segment_that_is_none_is_never_answered),
        cmocka_unit_test(a_question_for_a_node_that_is_none_is_never_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
