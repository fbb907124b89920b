/* Owns the vectors, the model and the buffers of a slice's tokens; opened with the first JOIN. A function for each duty of membership.h.
 * Nothing that takes long is done under the lock: what is offered is withdrawn first, then changed, then offered again. */
#include "workers/learner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "dataset/plan/plan.h"
#include "dataset/shard/manifest.h"

/* ---- opening ---- */

/* Memory for the state and the sum; neither is offered yet. */
static int open_state(struct worker *worker, struct learner *t) {
    struct shared *shared = &worker->shared;
    shared->parts = optimizer_parts(&t->optimizer);
    TRY(state_open(shared->state, &shared->parts, t->elements));
    TRY(mem_try(&shared->sum, t->elements, sizeof(float)));
    shared->offer.sum = mem_alloc(t->segments * sizeof *shared->offer.sum);
    pthread_mutex_lock(&worker->lock);
    shared->offer.segments = t->segments;
    shared->elements = t->elements;
    pthread_mutex_unlock(&worker->lock);
    return 0;
}

static int learner_open(struct worker *worker) {
    if (worker->learner) return 0;
    struct learner *t = worker->learner = mem_alloc(sizeof *t);
    const struct config *config = &worker->config;
    t->model = gpt2_config_of(config);
    t->optimizer = optimizer_of(config);
    t->elements = gpt2_parameters(&t->model);
    t->segments = segment_count(t->elements);
    t->T = (int)config->dataset.sequence_length;
    t->slice_sequences = (int)(config->training.global_batch / config->training.slices);
    t->dropout = t->model.attn_pdrop > 0 || t->model.embd_pdrop > 0 || t->model.resid_pdrop > 0;
    size_t slice_tokens = (size_t)t->slice_sequences * (size_t)t->T;
    TRY(mem_try(&t->tokens, slice_tokens, sizeof *t->tokens));
    TRY(mem_try(&t->targets, slice_tokens, sizeof *t->targets));
    TRY(open_state(worker, t));
    uint64_t part[STATE_PARTS];
    for (size_t i = 0; i < worker->shared.parts.count; i++) part[i] = worker->shared.parts.part[i];
    membership_open(&t->membership, (uint32_t)config->training.slices, t->segments, part, worker->shared.parts.count);
    TRY(gpt2_open(&t->gpt2, &t->model, gpt2_batch_for(&t->model, t->slice_sequences, t->T), t->T, true, worker->pool));
    gpt2_on_tick(t->gpt2, worker_tick, worker);
    return 0;
}

void learner_close(struct worker *worker) {
    struct learner *t = worker->learner;
    if (!t) return;
    summing_forget(&t->summing, &t->membership.exchange);
    exchange_end(&t->membership.exchange, &worker->reads);
    join_end(&t->membership.join, &worker->reads);
    gpt2_close(t->gpt2);
    struct shared *shared = &worker->shared;
    pthread_mutex_lock(&worker->lock);
    shared->offer.segments = 0; /* the network thread may still answer reads */
    pthread_mutex_unlock(&worker->lock);
    for (size_t i = 0; i < NODES_MAX; i++) free(t->vector[i]);
    state_close(shared->state);
    free(shared->sum);
    free(shared->offer.sum);
    free(t->tokens);
    free(t->targets);
    free(t);
    worker->learner = NULL;
}

/* ---- sequences ---- */

static uint64_t ordered_sequence(const struct worker *worker, const Millrace__Geometry *geometry, uint64_t position) {
    return order_sequence(worker->config.training.seed, position, geometry, (uint64_t)worker->config.dataset.shuffle_window);
}

/* Asks for the frames of a later slice, so that they come while this one is computed. */
static void expect_sequences(struct worker *worker, const Millrace__Geometry *geometry, uint64_t first, int count) {
    for (int i = 0; i < count; i++) feed_expect(worker->feed, geometry, ordered_sequence(worker, geometry, first + (uint64_t)i));
}

static int read_sequences(struct worker *worker, const Millrace__Geometry *geometry, uint64_t first, int count, bool ordered) {
    struct learner *t = worker->learner;
    for (int i = 0; i < count; i++) {
        uint64_t sequence = first + (uint64_t)i;
        if (ordered)
            sequence = ordered_sequence(worker, geometry, sequence);
        TRY(feed_sequence(worker->feed, t->tokens + (size_t)i * (size_t)t->T, t->targets + (size_t)i * (size_t)t->T, geometry, sequence));
    }
    return 0;
}

/* ---- what is to be done ---- */

static struct envelope envelope_of(const struct learner *t, uint32_t kind) {
    return (struct envelope){.kind = kind, .step = t->membership.step, .attempt = t->membership.fence};
}

static int vector_of(struct learner *t, float **out, uint32_t vector) {
    if (!t->vector[vector]) TRY(mem_try(&t->vector[vector], t->elements, sizeof(float)));
    *out = t->vector[vector];
    return 0;
}

static int compute_slice(struct worker *worker, uint32_t slice) {
    struct learner *t = worker->learner;
    struct membership *m = &t->membership;
    const struct config *config = &worker->config;
    double began = clock_seconds();
    uint64_t position = (m->step - 1) * (uint64_t)config->training.global_batch + (uint64_t)slice * (uint64_t)t->slice_sequences;
    TRY(read_sequences(worker, &t->geometry, position, t->slice_sequences, true));
    expect_sequences(worker, &t->geometry, position + (uint64_t)config->training.global_batch, t->slice_sequences);
    float *gradient;
    uint32_t vector, left, right;
    if (!partials_room(&m->partials, &vector, slice))
        return err_set(ERR_PEER, "a view gives this worker slices of more than %d partial sums; use one build for all", NODES_MAX);
    TRY(vector_of(t, &gradient, vector));
    struct gpt2_random random = {config->training.seed, m->step, slice};
    Millrace__Slice done = MILLRACE__SLICE__INIT;
    gpt2_gradient(t->gpt2, gradient, &done.loss_sum, &done.tokens, worker->shared.state[STATE_WEIGHTS], t->tokens, t->targets,
                  t->slice_sequences, t->T, t->dropout ? &random : NULL);
    done.slice = slice;
    done.compute_ms = (uint32_t)((clock_seconds() - began) * 1000);
    partials_put(&m->partials, slice, vector);
    while (partials_add(&m->partials, &left, &right)) {
        vector_add(t->vector[left], t->vector[left], t->vector[right], t->elements);
        worker_tick(worker);
    }
    struct envelope envelope = envelope_of(t, MILLRACE__KIND__SLICE);
    worker_send(worker, NULL, &envelope, &done.base, NULL, 0);
    return 0;
}

static void do_slice(struct worker *worker, uint32_t slice) {
    int code = compute_slice(worker, slice);
    if (code >= 0 || code == ERR_INTERRUPTED) return;
    err_add(code, "step %llu, slice %u", (unsigned long long)worker->learner->membership.step, slice);
    worker_fatal(worker, code);
}

/* Our slices are computed: the nodes that cover them are offered to the owners of their segments. */
static void show_partials(struct worker *worker) {
    struct learner *t = worker->learner;
    struct membership *m = &t->membership;
    struct shared *shared = &worker->shared;
    struct node node[NODES_MAX];
    const float *values[NODES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < m->exchange.partials; i++) {
        const struct exchange_partial *partial = &m->exchange.partial[i];
        uint32_t vector;
        t->summing.own[i] = NULL;
        if (partial->member != m->exchange.self) continue;
        CHECK(count < NODES_MAX && partials_name(&m->partials, &vector, partial->node));
        t->summing.own[i] = values[count] = t->vector[vector];
        node[count++] = partial->node;
    }
    pthread_mutex_lock(&worker->lock);
    for (size_t k = 0; k < count; k++) shared->partial[k] = values[k];
    offer_partials(&shared->offer, node, count);
    pthread_mutex_unlock(&worker->lock);
    exchange_begin(&m->exchange);
    worker_news(worker);
}

static void sum_segment(struct worker *worker, size_t slot) {
    struct learner *t = worker->learner;
    struct exchange *exchange = &t->membership.exchange;
    size_t segment = exchange->slot[slot].segment, offset = segment * SEGMENT_ELEMENTS;
    summing_slot(&t->summing, worker->shared.sum + offset, exchange, slot, offset, segment_size(t->elements, segment), worker->pool);
    worker_tick(worker);
    pthread_mutex_lock(&worker->lock);
    worker->shared.offer.sum[segment] = true;
    pthread_mutex_unlock(&worker->lock);
    exchange_summed(exchange, slot);
    worker_news(worker);
}

static void tell_reduced(struct worker *worker) {
    struct learner *t = worker->learner;
    const float *sum = worker->shared.sum;
    uint8_t digest[XXH128_BYTES] = {0};
    Millrace__Reduced reduced = MILLRACE__REDUCED__INIT;
    t->square_sum = square_sum_of_segments(sum, t->elements, worker->pool);
    reduced.finite = isfinite(t->square_sum);
    if (reduced.finite) vectors_digest(digest, &sum, 1, t->elements, worker->pool);
    else t->square_sum = NAN; /* which NaN an addition gives depends on the processor; the step is skipped, so its bits change nothing */
    membership_reduced(&t->membership);
    reduced.digest = (ProtobufCBinaryData){sizeof digest, digest};
    reduced.square_sum = t->square_sum;
    struct envelope envelope = envelope_of(t, MILLRACE__KIND__REDUCED);
    worker_send(worker, NULL, &envelope, &reduced.base, NULL, 0);
}

static void tell_applied(struct worker *worker, const uint8_t *digest_or_null) {
    Millrace__Applied applied = MILLRACE__APPLIED__INIT;
    if (digest_or_null) applied.digest = (ProtobufCBinaryData){XXH128_BYTES, (uint8_t *)digest_or_null};
    struct envelope envelope = {.kind = MILLRACE__KIND__APPLIED, .step = worker->shared.offer.state_step};
    worker_send(worker, NULL, &envelope, &applied.base, NULL, 0);
}

/* Offers the state, which stays as it is until the next commit. digest NULL: there is none to offer. */
static void show_state(struct worker *worker, uint64_t step, const uint8_t *digest) {
    struct shared *shared = &worker->shared;
    pthread_mutex_lock(&worker->lock);
    shared->offer.state = digest != NULL;
    shared->offer.state_changes = false;
    shared->offer.state_step = step;
    if (digest) memcpy(shared->state_digest, digest, sizeof shared->state_digest);
    pthread_mutex_unlock(&worker->lock);
    worker_news(worker);
}

/* The whole state is here: is it the right one? */
static void believe_state(struct worker *worker) {
    struct learner *t = worker->learner;
    struct shared *shared = &worker->shared;
    uint64_t step = t->membership.join.step;
    uint8_t digest[XXH128_BYTES];
    state_digest(digest, shared->state, &shared->parts, t->elements, worker->pool);
    bool right = join_believes(&t->membership.join, digest);
    if (!right) log_warn("the state of step %llu came with another digest than announced", (unsigned long long)step);
    show_state(worker, step, right ? digest : NULL);
    membership_joined(&t->membership, &worker->reads);
    tell_applied(worker, right ? digest : NULL);
}

static void make_first_state(struct worker *worker) {
    struct learner *t = worker->learner;
    optimizer_begin(worker->shared.state, &t->model, &t->optimizer, worker->pool);
    worker_tick(worker);
    believe_state(worker);
}

/* Does all duties up to the next slice; true: a slice is next. */
static bool do_duties(struct worker *worker, struct duty *duty) {
    while (membership_next(&worker->learner->membership, duty, &worker->reads)) {
        switch (duty->kind) {
        case DUTY_SLICE: return true;
        case DUTY_FIRST_STATE: make_first_state(worker); break;
        case DUTY_BELIEVE: believe_state(worker); break;
        case DUTY_SHOW: show_partials(worker); break;
        case DUTY_SUM: sum_segment(worker, duty->slot); break;
        case DUTY_REDUCED: tell_reduced(worker); break;
        }
    }
    return false;
}

bool learner_work(struct worker *worker) {
    struct duty duty;
    if (!worker->learner || !do_duties(worker, &duty)) return false;
    do_slice(worker, duty.slice);
    return true;
}

/* ---- answers ---- */

/* A frame that was asked for ahead. One that does not come this way is fetched when it is needed. */
static void frame_data(struct worker *worker, const struct read *read, const struct message *message) {
    const Millrace__Data *data = (const Millrace__Data *)message->body;
    if (data->status != MILLRACE__DATA__STATUS__OK) return;
    int code = feed_put(worker->feed, message->chunk, message->chunk_bytes, data->next_token, &worker->learner->geometry,
                        (uint32_t)read->body.a, (uint32_t)read->body.b);
    if (code < 0) log_warn("%s", err_text());
}

static bool is_good(const struct message *message, size_t size) {
    return ((const Millrace__Data *)message->body)->status == MILLRACE__DATA__STATUS__OK && message->chunk_bytes == size;
}

static void state_data(struct worker *worker, const struct read *read, const struct message *message) {
    struct learner *t = worker->learner;
    struct shared *shared = &worker->shared;
    const Millrace__Data *data = (const Millrace__Data *)message->body;
    enum state_part part = (enum state_part)read->body.a;
    size_t size = segment_size(t->elements, read->body.c) * state_element_bytes(&shared->parts, part);
    uint64_t step = t->membership.join.step;
    enum join_taken taken = join_take(&t->membership.join, &worker->reads, read, is_good(message, size));
    if (taken == JOIN_NOT) return;
    if (taken == JOIN_ITEM) {
        memcpy(state_at(shared->state, &shared->parts, part, read->body.c * SEGMENT_ELEMENTS), message->chunk, size);
        return;
    }
    const char *giver = read->peer ? addresses_find(&worker->addresses, read->peer) : "the coordinator", *why = data->reason;
    if (data->status == MILLRACE__DATA__STATUS__OK) why = "it has the wrong size";
    if (data->status == MILLRACE__DATA__STATUS__STALE) why = "it is gone";
    log_warn("state of step %llu, from %s: %s", (unsigned long long)step, giver, why);
    if (taken == JOIN_FAILED) tell_applied(worker, NULL); /* the coordinator answers with another JOIN */
}

static void sum_data(struct worker *worker, const struct read *read, struct message *message) {
    struct learner *t = worker->learner;
    const Millrace__Data *data = (const Millrace__Data *)message->body;
    size_t segment = read->body.c, size = segment_size(t->elements, segment) * sizeof(float), slot, partial;
    switch (exchange_take(&t->membership.exchange, &worker->reads, &slot, &partial, read, is_good(message, size), clock_ms())) {
    case TAKEN_NOT: break;
    case TAKEN_AGAIN:
        if (data->status == MILLRACE__DATA__STATUS__STALE) break; /* the member is in a later view: ours is on its way */
        log_warn("segment %zu of a sum, from %s: %s; asking again", segment, addresses_find(&worker->addresses, read->peer),
                 data->status == MILLRACE__DATA__STATUS__OK ? "it has the wrong size" : data->reason);
        break;
    case TAKEN_PARTIAL:
        t->summing.theirs[slot][partial] = *message; /* its bytes are ours now */
        *message = (struct message){0};
        break;
    case TAKEN_SUM: memcpy(worker->shared.sum + segment * SEGMENT_ELEMENTS, message->chunk, size); break;
    }
}

void learner_data(struct worker *worker, const struct read *read, struct message *message) {
    struct duty duty;
    if (!worker->learner) return;
    if (read->body.what == MILLRACE__READ__WHAT__FRAME) {
        frame_data(worker, read, message);
        return;
    }
    if (read->body.what == MILLRACE__READ__WHAT__STATE) state_data(worker, read, message);
    else sum_data(worker, read, message);
    do_duties(worker, &duty);
}

/* ---- messages ---- */

/* Who has which slices. */
static int take_view(struct worker *worker, const struct envelope *envelope, const Millrace__Step *step) {
    struct learner *t = worker->learner;
    uint32_t slices = t->membership.partials.slices;
    uint64_t peer[MEMBERS_MAX];
    memset(t->slices, 0, step->n_members * sizeof *t->slices);
    for (size_t i = 0; i < step->n_members; i++) {
        const Millrace__Member *member = step->members[i];
        peer[i] = addresses_number(&worker->addresses, member->endpoint);
        for (size_t k = 0; k < member->n_slices; k++)
            if (member->slices[k] < slices) slice_add(&t->slices[i], member->slices[k]);
    }
    summing_forget(&t->summing, &t->membership.exchange);
    int code = membership_view(&t->membership, &worker->reads, envelope->step, envelope->attempt, step->n_members, step->self, t->slices,
                               peer);
    addresses_keep(&worker->addresses, peer, step->n_members);
    return code;
}

void learner_step(struct worker *worker, const struct message *message) {
    struct learner *t = worker->learner;
    const Millrace__Step *step = (const Millrace__Step *)message->body;
    const struct envelope *envelope = &message->envelope;
    if (!t || !membership_follows(&t->membership, &worker->shared.offer, envelope->step, envelope->attempt)) {
        log_info("step %llu does not follow what is here", (unsigned long long)envelope->step);
        return;
    }
    if (step->n_members == 0 || step->n_members > MEMBERS_MAX || step->self >= step->n_members) {
        log_warn("step %llu cannot be taken: this is member %u of %zu, and there are %d at most", (unsigned long long)envelope->step,
                 step->self, step->n_members, MEMBERS_MAX);
        return;
    }
    pthread_mutex_lock(&worker->lock);
    offer_view(&worker->shared.offer, envelope->attempt); /* withdrawn first: take_view() uses the vectors that it shows again */
    pthread_mutex_unlock(&worker->lock);
    int code = take_view(worker, envelope, step);
    if (code < 0) worker_fatal(worker, code);
}

static void apply(struct worker *worker, const Millrace__Commit *commit) {
    struct learner *t = worker->learner;
    const struct config *config = &worker->config;
    if (commit->skip) return;
    t->optimizer.learning_rate = learning_rate(config, t->membership.step, t->max_steps);
    t->optimizer.step = t->membership.step;
    t->optimizer.scale = gradient_scale(t->square_sum, commit->tokens, config->training.max_grad_norm);
    optimizer_apply(worker->shared.state, worker->shared.sum, &t->model, &t->optimizer, worker->pool);
}

void learner_commit(struct worker *worker, const struct message *message) {
    struct learner *t = worker->learner;
    const Millrace__Commit *commit = (const Millrace__Commit *)message->body;
    if (!t || !membership_commits(&t->membership, message->envelope.step, message->envelope.attempt)) {
        log_warn("a commit of step %llu does not fit what is here", (unsigned long long)message->envelope.step);
        return;
    }
    struct shared *shared = &worker->shared;
    uint64_t step = t->membership.step;
    pthread_mutex_lock(&worker->lock);
    offer_partials(&shared->offer, NULL, 0);
    shared->offer.state_step = step;
    shared->offer.state_changes = true;
    pthread_mutex_unlock(&worker->lock);
    apply(worker, commit);
    worker_tick(worker);
    uint8_t digest[XXH128_BYTES];
    state_digest(digest, shared->state, &shared->parts, t->elements, worker->pool);
    show_state(worker, step, digest);
    summing_forget(&t->summing, &t->membership.exchange);
    membership_committed(&t->membership, &worker->reads);
    tell_applied(worker, digest);
}

/* Sequences of such a split can be found and read. */
static int check_geometry(const struct learner *t, const Millrace__Geometry *geometry) {
    const uint64_t tokens_max = (uint64_t)1 << 48; /* so that no position overflows */
    if (!geometry || (int)geometry->sequence_length != t->T || (geometry->token_bytes != 2 && geometry->token_bytes != 4) ||
        geometry->frame_tokens == 0 || geometry->shard_tokens == 0 || geometry->shard_tokens > tokens_max ||
        geometry->tokens > tokens_max)
        return err_set(ERR_PEER, "a split was announced that this pipeline cannot have");
    return 0;
}

static void copy_geometry(Millrace__Geometry *out, const Millrace__Geometry *from) {
    *out = *from;
    out->split = "train"; /* constant text: the message goes away */
}

void learner_join(struct worker *worker, const struct message *message) {
    const Millrace__Join *join = (const Millrace__Join *)message->body;
    int code = learner_open(worker);
    if (code < 0) {
        worker_fatal(worker, code);
        return;
    }
    struct learner *t = worker->learner;
    struct shared *shared = &worker->shared;
    if (check_geometry(t, join->geometry) < 0) {
        log_warn("a state to take over: %s", err_text());
        tell_applied(worker, NULL);
        return;
    }
    copy_geometry(&t->geometry, join->geometry);
    t->max_steps = steps_total(worker->config.training.max_steps, worker->config.training.num_train_epochs,
                               geometry_sequences(&t->geometry), worker->config.training.global_batch);
    const uint8_t *digest = join->digest.len == XXH128_BYTES ? join->digest.data : NULL;
    uint64_t peer[MEMBERS_MAX];
    size_t peers = 0;
    for (; peers < join->n_peers && peers < MEMBERS_MAX; peers++)
        peer[peers] = addresses_number(&worker->addresses, join->peers[peers]);
    summing_forget(&t->summing, &t->membership.exchange);
    bool takes = membership_join(&t->membership, &worker->reads, &shared->offer, shared->state_digest, message->envelope.step, digest,
                                 peer, peers);
    addresses_keep(&worker->addresses, peer, peers);
    if (!takes) {
        tell_applied(worker, shared->state_digest);
        return;
    }
    pthread_mutex_lock(&worker->lock);
    shared->offer.state = false;
    offer_view(&shared->offer, shared->offer.fence);
    pthread_mutex_unlock(&worker->lock);
    struct duty duty;
    do_duties(worker, &duty);
}

/* ---- evaluation ---- */

int learner_evaluate(struct worker *worker, double *out_loss, uint64_t *out_tokens, const Millrace__EvaluateJob *job) {
    struct learner *t = worker->learner;
    if (!t || !worker->shared.offer.state || worker->shared.offer.state_step != job->step)
        return err_set(ERR_STALE, "state %llu is not here", (unsigned long long)job->step);
    TRY(check_geometry(t, job->geometry));
    Millrace__Geometry geometry = *job->geometry;
    geometry.split = "validation";
    const float *weights = worker->shared.state[worker->config.training.eval_ema ? STATE_EMA : STATE_WEIGHTS];
    double loss = 0;
    uint64_t tokens = 0;
    for (uint64_t done = 0; done < job->count;) {
        int n = job->count - done < (uint64_t)t->slice_sequences ? (int)(job->count - done) : t->slice_sequences;
        TRY(read_sequences(worker, &geometry, job->first + done, n, false));
        for (int i = 0; i < n; i++) { /* one by one: the sum must not depend on how many fit at once */
            double part;
            uint64_t counted;
            size_t at = (size_t)i * (size_t)t->T;
            gpt2_loss(t->gpt2, &part, &counted, weights, t->tokens + at, t->targets + at, 1, t->T);
            loss += part;
            tokens += counted;
            worker_tick(worker);
        }
        done += (uint64_t)n;
    }
    *out_loss = loss;
    *out_tokens = tokens;
    return 0;
}

