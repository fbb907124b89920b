/* A model worker: takes letters one by one, computes slices in between, exchanges sums with the other members, serves what others ask for
 * even while it computes. Follows workers/member.c, join.c, exchange.c, serve.c and agent.c; hashes stand for vectors. */
#ifndef MILLRACE_TESTS_SIM_WORKER_H
#define MILLRACE_TESTS_SIM_WORKER_H

#include "tests/sim/world.h"

static uint64_t peer_number(const struct peer *peer) { return (uint64_t)peer->life << 8 | (uint64_t)(peer->slot + 1); }
static void worker_run(struct sim *s, int slot);
static void on_commit(struct sim *s, int slot, const struct letter *commit);

static bool post_home(struct sim *s, int slot, const struct letter *letter) {
    struct letter numbered = *letter;
    letter_number(s, &s->worker[slot].session, &numbered);
    return post(s, slot, COORDINATOR, &numbered);
}

static void worker_busy(struct sim *s, int slot, enum work work, int64_t ms) {
    s->worker[slot].work = work;
    after(s, ms, EVENT_WORK, slot);
}

static void tell_applied(struct sim *s, int slot, bool right) {
    struct worker_model *w = &s->worker[slot];
    struct letter letter = {.kind = APPLIED, .step = w->state_step, .has_digest = right};
    memcpy(letter.digest, w->state_digest, XXH128_BYTES);
    post_home(s, slot, &letter);
}

/* ---- serving ---- */

static int serve_partial(const struct worker_model *w, struct letter *data) {
    if (w->shown_fence > data->fence) return -1;
    if (w->shown_fence < data->fence || !w->partials_done) return 0;
    for (size_t i = 0; i < w->partials; i++) {
        if (!node_same(w->partial[i].node, data->node)) continue;
        data->value = w->partial[i].sum.v[data->segment];
        return 1;
    }
    return -1;
}

static int serve_one(const struct worker_model *w, struct letter *data) {
    if (data->what == MILLRACE__READ__WHAT__PARTIAL) return serve_partial(w, data);
    if (data->what == MILLRACE__READ__WHAT__SUM) {
        if (w->shown_fence > data->fence) return -1;
        if (w->shown_fence < data->fence || !w->sum_ready[data->segment]) return 0;
        data->value = w->sum.v[data->segment];
        return 1;
    }
    if (!w->has_state || w->state_step > data->step) return -1;
    if (w->state_step < data->step) return 0;
    data->value = w->state.v[data->segment];
    return 1;
}

static bool worker_answer(struct sim *s, int slot, int from, const struct letter *read) {
    struct letter data = *read;
    int code = serve_one(&s->worker[slot], &data);
    if (code == 0) return false;
    data.kind = DATA;
    data.good = code > 0;
    post(s, slot, from, &data);
    return true;
}

static void answer_parked(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    for (size_t i = 0; i < w->parked_count;) {
        bool gone = w->parked[i].connection != line_between(s, slot, w->parked[i].from)->connection;
        if (gone || worker_answer(s, slot, w->parked[i].from, &w->parked[i].letter)) w->parked[i] = w->parked[--w->parked_count];
        else i++;
    }
}

static void worker_on_read(struct sim *s, int slot, int from, const struct letter *read) {
    struct worker_model *w = &s->worker[slot];
    if (worker_answer(s, slot, from, read)) return;
    for (size_t i = 0; i < w->parked_count; i++)
        if (w->parked[i].from == from && w->parked[i].letter.job == read->job) return;
    if (w->parked_count < LETTERS_CAP) {
        w->parked[w->parked_count].from = from;
        w->parked[w->parked_count].connection = line_between(s, slot, from)->connection;
        w->parked[w->parked_count++].letter = *read;
    }
}

/* ---- slices ---- */

static struct sum add_sums(const struct sim *s, struct sum left, const struct sum *right) {
    bool swapped = s->defect == DEFECT_SWAPPED_SUM;
    for (size_t g = 0; g < SEGMENTS; g++) left.v[g] = swapped ? mix(right->v[g], left.v[g]) : mix(left.v[g], right->v[g]);
    return left;
}

static void merge_partials(const struct sim *s, struct worker_model *w) {
    uint32_t slices = s->plan.options.slices;
    struct node root = node_root(slices);
    for (bool again = true; again;) {
        again = false;
        for (size_t i = 0; i < w->partials && !again; i++) {
            struct partial_model *p = &w->partial[i];
            if (node_same(p->node, root)) continue;
            struct node sibling = node_sibling(p->node);
            if (!node_exists(sibling, slices)) {
                p->node = node_parent(p->node);
                again = true;
                continue;
            }
            for (size_t k = 0; k < w->partials && !again; k++) {
                struct partial_model *q = &w->partial[k];
                if (!node_same(q->node, sibling)) continue;
                struct partial_model *left = p->node.index & 1 ? q : p, *right = left == p ? q : p;
                left->sum = add_sums(s, left->sum, &right->sum);
                left->node = node_parent(left->node);
                *right = w->partial[--w->partials];
                again = true;
            }
        }
    }
}

static void keep_partials(struct worker_model *w, bool same_step, uint32_t slices) {
    for (size_t i = w->partials; i-- > 0;)
        if (!same_step || !node_complete(w->partial[i].node, &w->mine, slices)) w->partial[i] = w->partial[--w->partials];
    memset(&w->held, 0, sizeof w->held);
    for (size_t i = 0; i < w->partials; i++)
        for (uint32_t slice = 0; slice < slices; slice++)
            if (slice >> w->partial[i].node.level == w->partial[i].node.index) slice_add(&w->held, slice);
}

static bool next_slice(const struct worker_model *w, uint32_t slices, uint32_t *out) {
    for (*out = 0; *out < slices; ++*out)
        if (slice_in(&w->mine, *out) && !slice_in(&w->held, *out)) return true;
    return false;
}

static void slice_computed(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    struct letter letter = {.kind = SLICE, .step = w->step, .fence = w->fence, .slice = w->slice};
    letter.loss = slice_loss(&w->state, w->step, w->slice);
    letter.tokens = slice_tokens(w->slice);
    w->partial[w->partials++] = (struct partial_model){{0, w->slice}, slice_gradient(&w->state, w->step, w->slice)};
    if (s->defect == DEFECT_FORGOTTEN_SLICE && w->slice == 1) w->partial[w->partials - 1].sum = (struct sum){{0}};
    merge_partials(s, w);
    slice_add(&w->held, w->slice);
    post_home(s, slot, &letter);
}

/* ---- the exchange ---- */

static void exchange_end(struct worker_model *w) {
    w->reads.count = 0;
    w->exchanging = w->reduced = false;
    w->sums = 0;
}

static uint64_t sum_node(const struct worker_model *w, size_t segment, struct node node, uint32_t slices) {
    for (size_t i = 0; i < w->parts; i++)
        if (node_same(w->part[i].node, node)) return w->values[segment][i];
    CHECK(node.level > 0);
    struct node left = {node.level - 1, node.index * 2}, right = {node.level - 1, node.index * 2 + 1};
    uint64_t sum = sum_node(w, segment, left, slices);
    return node_exists(right, slices) ? mix(sum, sum_node(w, segment, right, slices)) : sum;
}

static void segment_here(struct sim *s, int slot, size_t segment, uint64_t value) {
    struct worker_model *w = &s->worker[slot];
    w->sum.v[segment] = value;
    w->sum_ready[segment] = true;
    w->sums++;
    answer_parked(s, slot);
}

static void ask(struct worker_model *w, size_t member, int what, struct node node, size_t segment, uint64_t tag) {
    struct read *read = reads_add(&w->reads, peer_number(&w->member[member]), tag);
    CHECK(read != NULL);
    read->envelope.step = w->step;
    read->envelope.attempt = w->fence;
    read->body.what = (Millrace__Read__What)what;
    read->body.a = node.level;
    read->body.b = node.index;
    read->body.c = segment;
}

static void exchange_begin(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    for (size_t i = 0; i < w->parts; i++) {
        if (w->part[i].member != w->self) continue;
        bool found = false;
        for (size_t k = 0; k < w->partials; k++) {
            struct partial_model *p = &w->partial[k];
            if (p->node.index << p->node.level != w->part[i].node.index << w->part[i].node.level) continue;
            p->node = w->part[i].node;
            for (size_t g = 0; g < SEGMENTS; g++) w->values[g][i] = p->sum.v[g];
            found = true;
        }
        if (!found) broken(s, "worker %d misses a part of its own cover", slot);
    }
    w->partials_done = w->exchanging = true;
    for (size_t g = 0; g < SEGMENTS; g++) {
        w->missing[g] = 0;
        if (g % w->members != w->self) {
            ask(w, g % w->members, MILLRACE__READ__WHAT__SUM, (struct node){0, 0}, g, 0);
            continue;
        }
        for (size_t i = 0; i < w->parts; i++) {
            if (w->part[i].member == w->self) continue;
            ask(w, w->part[i].member, MILLRACE__READ__WHAT__PARTIAL, w->part[i].node, g, i);
            w->missing[g]++;
        }
        if (w->missing[g] == 0) segment_here(s, slot, g, sum_node(w, g, node_root(s->plan.options.slices), s->plan.options.slices));
    }
    answer_parked(s, slot);
}

static void exchange_pump(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    if (!w->exchanging || w->reduced || w->sums < SEGMENTS) return;
    w->reduced = true;
    struct letter letter = {.kind = REDUCED, .step = w->step, .fence = w->fence, .good = is_finite_step(s, w->step)};
    digest_of(letter.digest, &w->sum);
    post_home(s, slot, &letter);
    if (s->defect == DEFECT_UNASKED_APPLY) on_commit(s, slot, &(struct letter){.kind = COMMIT, .step = w->step, .fence = w->fence});
}

static void exchange_data(struct sim *s, int slot, const struct read *read, const struct letter *data) {
    struct worker_model *w = &s->worker[slot];
    if (!w->exchanging || read->envelope.attempt != w->fence || !data->good) return;
    size_t g = read->body.c;
    if (read->body.what == MILLRACE__READ__WHAT__SUM) {
        segment_here(s, slot, g, data->value);
    } else {
        w->values[g][read->tag] = data->value;
        if (--w->missing[g] == 0) segment_here(s, slot, g, sum_node(w, g, node_root(s->plan.options.slices), s->plan.options.slices));
    }
    exchange_pump(s, slot);
}

/* ---- state ---- */

static void check_state(struct sim *s, int slot) {
    const struct worker_model *w = &s->worker[slot];
    if (!w->bad && !same_sum(&w->state, &s->true_state[w->state_step]))
        broken(s, "worker %d holds a wrong state of step %llu", slot, (unsigned long long)w->state_step);
}

static void join_end(struct worker_model *w) {
    w->reads.count = 0;
    w->joining = false;
}

static void join_finish(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    digest_of(w->state_digest, &w->state);
    bool right = !w->join_has_digest || same_digest(w->state_digest, w->join_digest);
    w->has_state = right;
    w->state_step = w->join_step;
    w->state_since_ms = s->now_ms;
    w->bad = false;
    if (right) check_state(s, slot);
    answer_parked(s, slot);
    join_end(w);
    tell_applied(s, slot, right);
}

static void on_join(struct sim *s, int slot, const struct letter *join) {
    struct worker_model *w = &s->worker[slot];
    exchange_end(w);
    w->step = 0;
    join_end(w);
    w->fence = 0;
    if (w->has_state && w->state_step == join->step && (!join->has_digest || same_digest(w->state_digest, join->digest))) {
        tell_applied(s, slot, true);
        return;
    }
    w->has_state = false;
    w->partials = 0;
    w->joining = true;
    w->join_step = join->step;
    w->join_has_digest = join->has_digest;
    memcpy(w->join_digest, join->digest, XXH128_BYTES);
    if (join->step == 0 && join->peers == 0) {
        w->state = first_state(s);
        worker_busy(s, slot, WORK_FIRST_STATE, s->plan.slice_ms);
        return;
    }
    w->join_missing = SEGMENTS;
    for (size_t g = 0; g < SEGMENTS; g++) {
        struct read *read = reads_add(&w->reads, join->peers ? peer_number(&join->peer[g % join->peers]) : 0, g);
        read->envelope.step = join->step;
        read->body.what = MILLRACE__READ__WHAT__STATE;
        read->body.c = g;
    }
}

static void join_data(struct sim *s, int slot, const struct read *read, const struct letter *data) {
    struct worker_model *w = &s->worker[slot];
    if (!w->joining || read->envelope.step != w->join_step) return;
    if (!data->good) {
        join_end(w);
        tell_applied(s, slot, false);
        return;
    }
    w->state.v[read->body.c] = data->value;
    if (--w->join_missing == 0) join_finish(s, slot);
}

static void on_step(struct sim *s, int slot, const struct letter *step) {
    struct worker_model *w = &s->worker[slot];
    uint32_t slices = s->plan.options.slices;
    if (w->joining || !w->has_state || w->state_step + 1 != step->step || step->fence <= w->fence) return;
    exchange_end(w);
    w->members = step->peers;
    w->self = step->self;
    w->parts = 0;
    for (size_t i = 0; i < w->members; i++) {
        w->member[i] = step->peer[i];
        struct slice_set set = {{step->peer[i].slices}};
        if (i == w->self) w->mine = set;
        struct node cover[SLICES_CAP];
        size_t n = nodes_cover(cover, &set, slices);
        for (size_t k = 0; k < n; k++) w->part[w->parts++] = (struct part_model){cover[k], i};
    }
    for (int i = 0; i < SLOTS; i++) { /* only members matter */
        bool member = false;
        for (size_t k = 0; k < w->members; k++) member |= w->member[k].slot == i;
        if (!member) w->asked_ms[i] = 0;
    }
    bool same_step = w->step == step->step;
    w->step = step->step;
    w->fence = w->shown_fence = step->fence;
    keep_partials(w, same_step, slices);
    w->partials_done = false;
    memset(w->sum_ready, 0, sizeof w->sum_ready);
}

static void on_commit(struct sim *s, int slot, const struct letter *commit) {
    struct worker_model *w = &s->worker[slot];
    if (w->step == 0 || w->step != commit->step || w->fence != commit->fence || !w->reduced) return;
    if (!s->durable.committed_once[w->step])
        broken(s, "worker %d applies step %llu, which is not in the ledger", slot, (unsigned long long)w->step);
    w->partials = 0;
    w->state = next_state(&w->state, &w->sum, w->step, commit->good);
    w->state_step = w->step;
    w->state_since_ms = s->now_ms;
    if (w->spoil) {
        trace(s, "worker %d: its state of step %llu is bad", slot, (unsigned long long)w->step);
        w->spoil = false;
        w->bad = true;
        w->state.v[0] ^= 4;
    }
    check_state(s, slot);
    w->step = 0;
    exchange_end(w);
    answer_parked(s, slot);
    worker_busy(s, slot, WORK_APPLY, draw_in(s, 1, s->plan.slice_ms / 2 + 1)); /* the digest is known later than the state */
}

/* ---- its loop ---- */

static void worker_data(struct sim *s, int slot, const struct letter *data) {
    struct worker_model *w = &s->worker[slot];
    struct read read;
    if (!reads_take(&w->reads, &read, data->job)) return;
    if (read.body.what == MILLRACE__READ__WHAT__STATE) join_data(s, slot, &read, data);
    else exchange_data(s, slot, &read, data);
}

static void on_lease(struct sim *s, int slot, const struct letter *lease) {
    struct worker_model *w = &s->worker[slot];
    w->lease = *lease;
    if (w->has_state && w->state_step == lease->step) {
        worker_busy(s, slot, WORK_EVALUATE, draw_in(s, 1, s->plan.slice_ms));
        return;
    }
    w->lease.kind = FAILED;
    post_home(s, slot, &w->lease);
}

static void worker_letter(struct sim *s, int slot, const struct letter *letter) {
    switch (letter->kind) {
    case WELCOME: {
        struct worker_model *w = &s->worker[slot];
        for (size_t i = 0; i < w->reads.count; i++) w->reads.read[i].sent_ms = 0;
        post_home(s, slot, &(struct letter){.kind = ANSWER});
        break;
    }
    case JOIN:
        if (s->defect != DEFECT_DEAF) on_join(s, slot, letter);
        break;
    case STEP: on_step(s, slot, letter); break;
    case COMMIT: on_commit(s, slot, letter); break;
    case DATA: worker_data(s, slot, letter); break;
    case LEASE: on_lease(s, slot, letter); break;
    default: break;
    }
}

/* Would a HEARTBEAT come back from there? */
static bool is_silent(struct sim *s, int slot, int to) {
    const struct worker_model *w = &s->worker[to];
    return walled(s, slot, to) || !w->alive || w->paused_until_ms > s->now_ms || line_between(s, slot, to)->down_until_ms > s->now_ms;
}

static uint32_t unheard(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    uint32_t places = 0;
    for (int i = 0; i < SLOTS; i++) {
        if (!is_silent(s, slot, i)) w->asked_ms[i] = 0;
        if (w->asked_ms[i] && s->now_ms - w->asked_ms[i] >= UNHEARD_MS) places |= UINT32_C(1) << i;
    }
    return places;
}

static void send_due_reads(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    struct read *read;
    while ((read = reads_due(&w->reads, s->now_ms + 1))) {
        struct letter letter = {.kind = READ, .step = read->envelope.step, .fence = read->envelope.attempt, .job = read->id};
        letter.what = read->body.what;
        letter.node = (struct node){(uint32_t)read->body.a, (uint32_t)read->body.b};
        letter.segment = read->body.c;
        int to = read->peer ? (int)(read->peer & 255) - 1 : COORDINATOR;
        if (read->peer && !w->asked_ms[to] && is_silent(s, slot, to)) w->asked_ms[to] = s->now_ms + 1;
        if (read->peer && s->worker[to].life != read->peer >> 8) continue; /* that process is gone: nobody answers */
        post(s, slot, to, &letter);
    }
}

static void worker_run(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    if (!w->alive || s->now_ms < w->paused_until_ms) return;
    while (w->work == IDLE && w->inbox_count > 0) {
        struct letter letter = w->inbox[w->inbox_first];
        w->inbox_first = (w->inbox_first + 1) % LETTERS_CAP;
        w->inbox_count--;
        worker_letter(s, slot, &letter);
    }
    if (w->work == IDLE && w->step) {
        if (next_slice(w, s->plan.options.slices, &w->slice)) {
            worker_busy(s, slot, WORK_SLICE, draw_in(s, 1, s->plan.slice_ms));
        } else {
            if (!w->exchanging) exchange_begin(s, slot);
            exchange_pump(s, slot);
        }
    }
    if (w->work == IDLE) send_due_reads(s, slot);
}

/* What it was busy with is done. */
static void worker_done(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    enum work work = w->work;
    w->work = IDLE;
    if (work == WORK_SLICE) slice_computed(s, slot);
    if (work == WORK_FIRST_STATE) join_finish(s, slot);
    if (work == WORK_APPLY) {
        digest_of(w->state_digest, &w->state);
        tell_applied(s, slot, true);
    }
    if (work == WORK_EVALUATE) {
        w->lease.kind = DONE;
        w->lease.value = mix(w->state.v[0], w->state.v[1]);
        post_home(s, slot, &w->lease);
    }
    worker_run(s, slot);
}

static void say_hello(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    struct letter hello = {.kind = HELLO, .step = w->state_step, .has_digest = w->has_state};
    w->session = (struct session){0};
    memcpy(hello.digest, w->state_digest, XXH128_BYTES);
    post_home(s, slot, &hello);
}

static void worker_heartbeat(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    uint32_t places = s->defect == DEFECT_UNTOLD ? 0 : unheard(s, slot);
    if (w->welcomed) post_home(s, slot, &(struct letter){.kind = HEARTBEAT, .unheard = places, .leaving = w->leaving});
    else say_hello(s, slot);
    worker_run(s, slot);
    after(s, HEARTBEAT_MS, EVENT_HEARTBEAT, slot);
}

static void worker_gone(struct sim *s, int slot) {
    s->worker[slot].alive = false;
    after(s, draw_in(s, 500, 3000), EVENT_SPAWN, slot); /* the same command is given again */
}

/* It says goodbye and ends, whatever it holds. */
static void worker_leave_now(struct sim *s, int slot) {
    trace(s, "worker %d leaves: its grace is over", slot);
    if (s->plan.gentle && s->defect == DEFECT_NONE) broken(s, "worker %d was not let go", slot);
    post_home(s, slot, &(struct letter){.kind = GOODBYE});
    worker_gone(s, slot);
}

static void worker_leave(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    if (w->leaving) return;
    trace(s, "worker %d is asked to leave", slot);
    w->leaving = true;
    s->leaves++;
    after(s, s->plan.gentle ? CALM_MS / 2 : draw_in(s, 10, 20000), EVENT_GRACE, slot);
    if (s->defect == DEFECT_HASTY) worker_leave_now(s, slot);
}

static void worker_receive(struct sim *s, int slot, int from, const struct letter *letter) {
    struct worker_model *w = &s->worker[slot];
    if (letter->kind == WELCOME) w->session.taken = 0;
    bool before_welcome = !w->welcomed && letter->kind != WELCOME && (letter_counts(s, letter) || letter->kind == HEARTBEAT);
    if (before_welcome) return;
    enum session_news news = letter_take(s, &w->session, letter);
    if (news == SESSION_GAP) w->welcomed = false;
    if (news != SESSION_NEXT) return;
    switch (letter->kind) {
    case READ: worker_on_read(s, slot, from, letter); return;
    case HEARTBEAT: return;
    case WHO:
        if (w->welcomed) say_hello(s, slot);
        w->welcomed = false;
        return;
    case GOODBYE:
        post_home(s, slot, letter);
        worker_gone(s, slot);
        return;
    case WELCOME: w->welcomed = true; break;
    default: break;
    }
    if (w->inbox_count < LETTERS_CAP) w->inbox[(w->inbox_first + w->inbox_count++) % LETTERS_CAP] = *letter;
    worker_run(s, slot);
}

static void worker_spawn(struct sim *s, int slot) {
    struct worker_model *w = &s->worker[slot];
    uint32_t life = w->life + 1;
    memset(w, 0, sizeof *w);
    w->life = life;
    w->alive = true;
    for (int i = 0; i <= SLOTS; i++)
        if (i != slot) line_break(s, slot, i, 0);
    trace(s, "worker %d begins, life %u", slot, life);
    after(s, draw_in(s, 0, 50), EVENT_HEARTBEAT, slot);
}

#endif
