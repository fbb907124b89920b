/* Membership: state, slices, commit. The order of things within a step follows the coordinator's messages; this file never decides who does
 * what. */
#include "workers/member.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "dataset/plan/plan.h"
#include "dataset/shard/manifest.h"
#include "workers/feed.h"

/* ---- opening ---- */

/* Nothing of it is offered before it is whole. */
static int open_state(struct worker *worker, struct member_side *m) {
    struct shared *shared = &worker->shared;
    shared->parts = optimizer_state(&m->optimizer);
    TRY(state_open(shared->state, &shared->parts, m->elements));
    TRY(mem_try(&shared->sum, m->elements, sizeof(float)));
    shared->offer.sum = mem_alloc(m->segments * sizeof *shared->offer.sum);
    pthread_mutex_lock(&worker->lock);
    shared->offer.segments = m->segments;
    shared->elements = m->elements;
    pthread_mutex_unlock(&worker->lock);
    return 0;
}

static int member_open(struct worker *worker) {
    if (worker->member) return 0;
    struct member_side *m = worker->member = mem_alloc(sizeof *m);
    const struct config *config = &worker->config;
    m->model = gpt2_config_of(config);
    m->optimizer = optimizer_of(config);
    m->elements = gpt2_parameters(&m->model);
    m->segments = segment_count(m->elements);
    m->T = (int)config->dataset.sequence_length;
    m->slice_sequences = (int)(config->training.global_batch / config->training.slices);
    m->dropout = m->model.attn_pdrop > 0 || m->model.embd_pdrop > 0 || m->model.resid_pdrop > 0;
    size_t slice_tokens = (size_t)m->slice_sequences * (size_t)m->T;
    TRY(mem_try(&m->tokens, slice_tokens, sizeof *m->tokens));
    TRY(mem_try(&m->targets, slice_tokens, sizeof *m->targets));
    TRY(open_state(worker, m));
    TRY(gpt2_open(&m->gpt2, &m->model, gpt2_batch_for(&m->model, m->slice_sequences, m->T), m->T, true, worker->pool));
    gpt2_on_tick(m->gpt2, work_tick, worker);
    return 0;
}

void member_close(struct worker *worker) {
    struct member_side *m = worker->member;
    if (!m) return;
    summing_end(worker);
    join_end(worker);
    gpt2_close(m->gpt2);
    struct shared *shared = &worker->shared;
    pthread_mutex_lock(&worker->lock);
    shared->offer.segments = 0; /* the network thread may be there still */
    pthread_mutex_unlock(&worker->lock);
    for (size_t i = 0; i < m->partials; i++) free(m->partial[i].values);
    for (size_t i = 0; i < m->spares; i++) free(m->spare[i]);
    state_close(shared->state);
    free(shared->sum);
    free(shared->offer.sum);
    free(m->tokens);
    free(m->targets);
    free(m);
    worker->member = NULL;
}

int member_spare(struct worker *worker, float **out) {
    struct member_side *m = worker->member;
    if (m->spares) {
        *out = m->spare[--m->spares];
        return 0;
    }
    return mem_try(out, m->elements, sizeof **out);
}

void member_give_back(struct worker *worker, float *values) {
    struct member_side *m = worker->member;
    if (m->spares == sizeof m->spare / sizeof *m->spare) free(values);
    else m->spare[m->spares++] = values;
}

struct envelope member_envelope(const struct worker *worker, uint32_t kind) {
    return (struct envelope){.kind = kind, .step = worker->member->step, .attempt = worker->member->fence};
}

/* ---- slices ---- */

/* Sums what can be summed: a node and its sibling make their parent; a node without a sibling is its parent. */
static void merge_partials(struct worker *worker) {
    struct member_side *m = worker->member;
    struct node root = node_root((uint32_t)worker->config.training.slices);
    uint32_t slices = (uint32_t)worker->config.training.slices;
    for (bool again = true; again;) {
        again = false;
        for (size_t i = 0; i < m->partials && !again; i++) {
            struct partial *p = &m->partial[i];
            if (node_same(p->node, root)) continue;
            struct node sibling = node_sibling(p->node);
            if (!node_exists(sibling, slices)) {
                p->node = node_parent(p->node);
                again = true;
                continue;
            }
            for (size_t k = 0; k < m->partials && !again; k++) {
                struct partial *q = &m->partial[k];
                if (!node_same(q->node, sibling)) continue;
                struct partial *left = p->node.index & 1 ? q : p, *right = left == p ? q : p;
                vector_add(left->values, left->values, right->values, m->elements);
                left->node = node_parent(left->node);
                member_give_back(worker, right->values);
                *right = m->partial[--m->partials];
                again = true;
            }
        }
    }
}

static void drop_partial(struct worker *worker, size_t i) {
    struct member_side *m = worker->member;
    member_give_back(worker, m->partial[i].values);
    m->partial[i] = m->partial[--m->partials];
}

static void drop_partials(struct worker *worker) {
    while (worker->member->partials) drop_partial(worker, worker->member->partials - 1);
}

static void hold_node(struct worker *worker, struct node node, bool held) {
    struct member_side *m = worker->member;
    uint32_t slices = (uint32_t)worker->config.training.slices;
    uint64_t end = ((uint64_t)node.index + 1) << node.level;
    for (uint64_t s = node_first_slice(node); s < end && s < slices; s++)
        (held ? slice_add : slice_remove)(&m->held, (uint32_t)s);
}

/* Keeps the partial sums that are wholly ours in the new view; a sum with a slice that is not ours any more is of no use. */
static void keep_partials(struct worker *worker, bool same_step) {
    struct member_side *m = worker->member;
    uint32_t slices = (uint32_t)worker->config.training.slices;
    for (size_t i = m->partials; i-- > 0;)
        if (!same_step || !node_complete(m->partial[i].node, &m->mine, slices)) drop_partial(worker, i);
    memset(&m->held, 0, sizeof m->held);
    for (size_t i = 0; i < m->partials; i++) hold_node(worker, m->partial[i].node, true);
}

/* Makes room before `slice` is computed. What is given up is computed again, so this ends: up to the slice nothing is. */
static bool give_up_partial(struct worker *worker, uint32_t slice) {
    struct member_side *m = worker->member;
    struct node node[NODES_MAX];
    size_t which;
    for (size_t i = 0; i < m->partials; i++) node[i] = m->partial[i].node;
    if (!node_to_give_up(&which, node, m->partials, slice)) return false;
    hold_node(worker, node[which], false);
    drop_partial(worker, which);
    return true;
}

static uint64_t ordered_sequence(const struct worker *worker, const Millrace__Geometry *geometry, uint64_t position) {
    return order_sequence(worker->config.training.seed, position, geometry, (uint64_t)worker->config.dataset.shuffle_window);
}

/* Asks for the frames of a later slice, so that they come while this one is computed. */
static void expect_sequences(struct worker *worker, const Millrace__Geometry *geometry, uint64_t first, int count) {
    for (int i = 0; i < count; i++) feed_expect(worker->feed, geometry, ordered_sequence(worker, geometry, first + (uint64_t)i));
}

static int read_sequences(struct worker *worker, const Millrace__Geometry *geometry, uint64_t first, int count, bool ordered) {
    struct member_side *m = worker->member;
    for (int i = 0; i < count; i++) {
        uint64_t sequence = first + (uint64_t)i;
        if (ordered)
            sequence = ordered_sequence(worker, geometry, sequence);
        TRY(feed_sequence(worker->feed, m->tokens + (size_t)i * (size_t)m->T, m->targets + (size_t)i * (size_t)m->T, geometry, sequence));
    }
    return 0;
}

static int compute_slice(struct worker *worker, uint32_t slice) {
    struct member_side *m = worker->member;
    const struct config *config = &worker->config;
    double began = clock_seconds();
    uint64_t position = (m->step - 1) * (uint64_t)config->training.global_batch + (uint64_t)slice * (uint64_t)m->slice_sequences;
    TRY(read_sequences(worker, &m->geometry, position, m->slice_sequences, true));
    expect_sequences(worker, &m->geometry, position + (uint64_t)config->training.global_batch, m->slice_sequences);
    float *gradient;
    if (m->partials == NODES_MAX && !give_up_partial(worker, slice))
        return err_set(ERR_PEER, "a view gives this worker slices of more than %d partial sums; use one build for all", NODES_MAX);
    TRY(member_spare(worker, &gradient));
    struct gpt2_random random = {config->training.seed, m->step, slice};
    Millrace__Slice done = MILLRACE__SLICE__INIT;
    gpt2_gradient(m->gpt2, gradient, &done.loss_sum, &done.tokens, worker->shared.state[STATE_WEIGHTS], m->tokens, m->targets,
                  m->slice_sequences, m->T, m->dropout ? &random : NULL);
    done.slice = slice;
    done.view = m->fence & UINT32_MAX;
    done.compute_ms = (uint32_t)((clock_seconds() - began) * 1000);
    m->partial[m->partials++] = (struct partial){{0, slice}, gradient};
    merge_partials(worker);
    slice_add(&m->held, slice);
    struct envelope envelope = member_envelope(worker, MILLRACE__KIND__SLICE);
    work_send(worker, NULL, &envelope, &done.base, NULL, 0);
    return 0;
}

static bool next_slice(const struct member_side *m, uint32_t slices, uint32_t *out) {
    for (uint32_t s = 0; s < slices; s++)
        if (slice_in(&m->mine, s) && !slice_in(&m->held, s)) {
            *out = s;
            return true;
        }
    return false;
}

bool member_work(struct worker *worker) {
    struct member_side *m = worker->member;
    if (!m) return false;
    if (m->joining) join_pump(worker);
    if (!m->step) return false;
    uint32_t slice;
    if (next_slice(m, (uint32_t)worker->config.training.slices, &slice)) {
        atomic_store(&worker->busy, true); /* waiting for other members is not standing still */
        int code = compute_slice(worker, slice);
        atomic_store(&worker->busy, false);
        if (code < 0 && code != ERR_INTERRUPTED) {
            err_add(code, "step %llu, slice %u", (unsigned long long)m->step, slice);
            work_fatal(worker, code);
        }
        return true;
    }
    summing_pump(worker);
    return false;
}

/* ---- messages ---- */

static void clear_step(struct worker *worker) {
    struct member_side *m = worker->member;
    summing_end(worker);
    m->step = 0;
}

/* Who has which slices. */
static int take_view(struct worker *worker, const struct envelope *envelope, const Millrace__Step *step) {
    struct member_side *m = worker->member;
    uint32_t slices = (uint32_t)worker->config.training.slices;
    struct slice_set *sets = mem_alloc(step->n_members * sizeof *sets);
    uint64_t peer[MEMBERS_MAX];
    for (size_t i = 0; i < step->n_members; i++) {
        const Millrace__Member *member = step->members[i];
        peer[i] = addresses_number(&worker->addresses, member->endpoint);
        for (size_t k = 0; k < member->n_slices; k++)
            if (member->slices[k] < slices) slice_add(&sets[i], member->slices[k]);
    }
    addresses_keep(&worker->addresses, peer, step->n_members);
    m->mine = sets[step->self];
    int code = exchange_view(&m->exchange, envelope->step, envelope->attempt, step->n_members, step->self, sets, peer, slices, m->segments,
                             &exchange_limits);
    free(sets);
    return code;
}

void member_step(struct worker *worker, const struct message *message) {
    struct member_side *m = worker->member;
    const Millrace__Step *step = (const Millrace__Step *)message->body;
    const struct envelope *envelope = &message->envelope;
    if (!m || m->joining || !worker->shared.offer.state || worker->shared.offer.state_step + 1 != envelope->step) {
        log_debug("step %llu does not follow the state that is here", (unsigned long long)envelope->step);
        return;
    }
    if (envelope->attempt <= m->fence || step->n_members == 0 || step->n_members > MEMBERS_MAX || step->self >= step->n_members) return;
    summing_end(worker);
    int code = take_view(worker, envelope, step);
    if (code < 0) {
        work_fatal(worker, code);
        return;
    }
    bool same_step = m->step == envelope->step;
    m->step = envelope->step;
    m->fence = envelope->attempt;
    pthread_mutex_lock(&worker->lock);
    offer_view(&worker->shared.offer, m->fence);
    pthread_mutex_unlock(&worker->lock);
    keep_partials(worker, same_step);
}

void member_tell_applied(struct worker *worker, const uint8_t *digest_or_null) {
    Millrace__Applied applied = MILLRACE__APPLIED__INIT;
    if (digest_or_null) applied.digest = (ProtobufCBinaryData){XXH128_BYTES, (uint8_t *)digest_or_null};
    struct envelope envelope = {.kind = MILLRACE__KIND__APPLIED, .step = worker->shared.offer.state_step};
    work_send(worker, NULL, &envelope, &applied.base, NULL, 0);
}

/* The state is whole, and stays as it is until the next commit. digest NULL: there is none. */
void member_show_state(struct worker *worker, uint64_t step, const uint8_t *digest) {
    struct shared *shared = &worker->shared;
    pthread_mutex_lock(&worker->lock);
    shared->offer.state = digest != NULL;
    shared->offer.state_changes = false;
    shared->offer.state_step = step;
    if (digest) memcpy(shared->state_digest, digest, sizeof shared->state_digest);
    pthread_mutex_unlock(&worker->lock);
    work_news(worker);
}

static void apply(struct worker *worker, const Millrace__Commit *commit) {
    struct member_side *m = worker->member;
    const struct config *config = &worker->config;
    if (commit->skip) return;
    m->optimizer.learning_rate = learning_rate(config, m->step, m->max_steps);
    m->optimizer.step = m->step;
    m->optimizer.scale = gradient_scale(m->square_sum, commit->tokens, config->training.max_grad_norm);
    optimizer_apply(worker->shared.state, worker->shared.sum, &m->model, &m->optimizer, worker->pool);
}

void member_commit(struct worker *worker, const struct message *message) {
    struct member_side *m = worker->member;
    const Millrace__Commit *commit = (const Millrace__Commit *)message->body;
    if (!m || m->step != message->envelope.step || m->fence != message->envelope.attempt || !m->reduced) {
        log_warn("a commit of step %llu does not fit what is here", (unsigned long long)message->envelope.step);
        return;
    }
    struct shared *shared = &worker->shared;
    pthread_mutex_lock(&worker->lock);
    offer_partials(&shared->offer, NULL, 0);
    shared->offer.state_step = m->step;
    shared->offer.state_changes = true;
    pthread_mutex_unlock(&worker->lock);
    drop_partials(worker);
    apply(worker, commit);
    work_tick(worker);
    uint8_t digest[XXH128_BYTES];
    state_digest(digest, shared->state, &shared->parts, m->elements, worker->pool);
    member_show_state(worker, m->step, digest);
    clear_step(worker);
    member_tell_applied(worker, digest);
}

/* A frame that was asked for ahead. One that does not come this way is fetched when it is needed. */
static void frame_data(struct worker *worker, const struct read *read, const struct message *message) {
    const Millrace__Data *data = (const Millrace__Data *)message->body;
    if (data->status != MILLRACE__DATA__STATUS__OK) return;
    int code = feed_put(worker->feed, message->chunk, message->chunk_bytes, data->next_token, &worker->member->geometry,
                        (uint32_t)read->body.a, (uint32_t)read->body.b);
    if (code < 0) log_warn("%s", err_text());
}

void member_data(struct worker *worker, const struct read *read, struct message *message) {
    if (!worker->member) return;
    if (read->body.what == MILLRACE__READ__WHAT__STATE) join_data(worker, read, message);
    else if (read->body.what == MILLRACE__READ__WHAT__FRAME) frame_data(worker, read, message);
    else summing_data(worker, read, message);
}

/* Sequences of such a split can be found and read. */
static int check_geometry(const struct member_side *m, const Millrace__Geometry *geometry) {
    const uint64_t tokens_max = (uint64_t)1 << 48; /* so that no position overflows */
    if (!geometry || (int)geometry->sequence_length != m->T || (geometry->token_bytes != 2 && geometry->token_bytes != 4) ||
        geometry->frame_tokens == 0 || geometry->shard_tokens == 0 || geometry->shard_tokens > tokens_max ||
        geometry->tokens > tokens_max)
        return err_set(ERR_PEER, "a split was announced that this pipeline cannot have");
    return 0;
}

int member_evaluate(struct worker *worker, double *out_loss, uint64_t *out_tokens, const Millrace__EvaluateJob *job) {
    struct member_side *m = worker->member;
    if (!m || !worker->shared.offer.state || worker->shared.offer.state_step != job->step)
        return err_set(ERR_STALE, "state %llu is not here", (unsigned long long)job->step);
    TRY(check_geometry(m, job->geometry));
    Millrace__Geometry geometry = *job->geometry;
    geometry.split = "validation";
    const float *weights = worker->shared.state[worker->config.training.eval_ema ? STATE_EMA : STATE_WEIGHTS];
    double loss = 0;
    uint64_t tokens = 0;
    for (uint64_t done = 0; done < job->count;) {
        int n = job->count - done < (uint64_t)m->slice_sequences ? (int)(job->count - done) : m->slice_sequences;
        TRY(read_sequences(worker, &geometry, job->first + done, n, false));
        for (int i = 0; i < n; i++) { /* one by one: the sum must not depend on how many fit at once */
            double part;
            uint64_t counted;
            size_t at = (size_t)i * (size_t)m->T;
            gpt2_loss(m->gpt2, &part, &counted, weights, m->tokens + at, m->targets + at, 1, m->T);
            loss += part;
            tokens += counted;
            work_tick(worker);
        }
        done += (uint64_t)n;
    }
    *out_loss = loss;
    *out_tokens = tokens;
    return 0;
}

/* ---- joining ---- */

static void copy_geometry(Millrace__Geometry *out, const Millrace__Geometry *from) {
    *out = *from;
    out->split = "train"; /* constant text: the message goes away */
}

void member_join(struct worker *worker, const struct message *message) {
    const Millrace__Join *join = (const Millrace__Join *)message->body;
    int code = member_open(worker);
    if (code < 0) {
        work_fatal(worker, code);
        return;
    }
    struct member_side *m = worker->member;
    struct shared *shared = &worker->shared;
    if (check_geometry(m, join->geometry) < 0) {
        log_warn("a state to take over: %s", err_text());
        return;
    }
    clear_step(worker);
    join_end(worker);
    copy_geometry(&m->geometry, join->geometry);
    m->max_steps = steps_total(worker->config.training.max_steps, worker->config.training.num_train_epochs,
                               geometry_sequences(&m->geometry), worker->config.training.global_batch);
    m->fence = 0;
    bool has_digest = join->digest.len == XXH128_BYTES;
    if (shared->offer.state && shared->offer.state_step == message->envelope.step &&
        (!has_digest || memcmp(shared->state_digest, join->digest.data, XXH128_BYTES) == 0)) {
        member_tell_applied(worker, shared->state_digest);
        return;
    }
    pthread_mutex_lock(&worker->lock);
    shared->offer.state = false;
    offer_view(&shared->offer, shared->offer.fence);
    pthread_mutex_unlock(&worker->lock);
    drop_partials(worker);
    m->joining = true;
    m->join_step = message->envelope.step;
    m->join_has_digest = has_digest;
    if (has_digest) memcpy(m->join_digest, join->digest.data, XXH128_BYTES);
    for (size_t i = 0; i < join->n_peers && i < MEMBERS_MAX; i++)
        m->join_peer[m->join_peers++] = addresses_number(&worker->addresses, join->peers[i]);
    addresses_keep(&worker->addresses, m->join_peer, m->join_peers);
    m->join_missing = shared->parts.count * m->segments;
    join_pump(worker);
}
