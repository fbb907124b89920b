/* The step protocol's decisions. Owns the membership and the progress of one step; never waits, sends or stores.
 *
 * Each call notes what happened, then go_on() does what can be done now, in this order: back to GATHER or out of it, agreement on the
 * state, tasks (evaluation, checkpoint), joins, the next view, the commit. The tick finds what did not happen in time. */
#include "coordinator/trainer.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "coordinator/majority.h"

enum {
    JOIN_PAUSE_MS = 1000,  /* before a joiner that ran out of patience is asked again: a step may commit meanwhile */
    JOIN_LONG = 64,        /* times the patience: so long a joiner may hold up the commits while it moves, and no longer */
    PAUSES_DOUBLED = 6,    /* after each join in vain the pause is longer: up to 64 times as long as that one held up the commits */
    RENEWALS_DOUBLED = 6,  /* a view in which nothing moves is renewed later and later: up to 64 times the patience */
    RENEWALS_WITH_ALL = 2, /* of a step; from then on each renewal leaves some member out, or more than one */
};

static struct action *emit(struct trainer *t, enum action_kind kind, uint32_t worker, uint64_t step) {
    CHECK(t->actions < sizeof t->action / sizeof *t->action);
    t->action[t->actions] = (struct action){.kind = kind, .worker = worker, .step = step};
    return &t->action[t->actions++];
}

bool trainer_action(struct trainer *t, struct action *out) {
    if (t->actions_taken == t->actions) {
        t->actions = t->actions_taken = 0;
        return false;
    }
    *out = t->action[t->actions_taken++];
    return true;
}

void trainer_open(struct trainer *t, const struct trainer_options *options, uint64_t committed, uint64_t checkpoint, uint64_t evaluated) {
    CHECK(options->slices >= 1 && options->slices <= SLICES_MAX);
    memset(t, 0, sizeof *t);
    t->options = *options;
    t->phase = TRAINER_GATHER;
    t->committed = t->ledger = committed;
    t->checkpoint = checkpoint;
    t->evaluated = evaluated;
    t->gather_since_ms = t->unheard_ms = -1;
    tries_open(&t->tries);
}

static struct member *find(struct trainer *t, uint32_t worker) {
    for (size_t i = 0; i < t->members; i++)
        if (t->member[i].state != MEMBER_ABSENT && t->member[i].worker == worker) return &t->member[i];
    return NULL;
}

const struct member *trainer_member(const struct trainer *t, uint32_t worker) { return find((struct trainer *)t, worker); }

bool trainer_holds_state(const struct trainer *t, uint32_t worker) {
    const struct member *m = trainer_member(t, worker);
    return m && t->phase == TRAINER_RUN && t->has_state_digest && member_holds_state(t, m);
}

static size_t count_state(const struct trainer *t, enum member_state state) {
    size_t n = 0;
    for (size_t i = 0; i < t->members; i++) n += t->member[i].state == state;
    return n;
}

/* Every member that is ready was asked to leave. */
static bool all_leaving(const struct trainer *t) {
    size_t leaving = 0;
    for (size_t i = 0; i < t->members; i++) leaving += t->member[i].state == MEMBER_READY && t->member[i].leaving;
    return leaving > 0 && leaving == count_state(t, MEMBER_READY);
}

static void fail(struct trainer *t, const char *reason) {
    snprintf(t->reason, sizeof t->reason, "%s", reason);
    t->phase = TRAINER_FAILED;
    emit(t, ACTION_FAILED, 0, t->committed);
}

static bool evaluation_missing(const struct trainer *t) {
    uint64_t s = t->committed;
    if (!t->options.validation || s == 0 || s <= t->evaluated) return false;
    return s == t->options.max_steps || (t->options.eval_steps && s % t->options.eval_steps == 0);
}

/* Not when all leave: it would keep them, and whoever comes after them does it. */
static bool evaluation_due(const struct trainer *t) { return evaluation_missing(t) && !t->stopping && !all_leaving(t); }

static bool save_due(const struct trainer *t) {
    uint64_t s = t->committed;
    if (s == 0 || s <= t->checkpoint || (s == t->save_skipped && !t->stopping)) return false;
    return t->stopping || t->save_asked || all_leaving(t) || s == t->options.max_steps ||
           (t->options.save_steps && s % t->options.save_steps == 0);
}

/* A new step: nothing of it is known yet. */
static void clear_step(struct trainer *t) {
    memset(&t->counted, 0, sizeof t->counted);
    for (size_t i = 0; i < t->members; i++) {
        struct member *m = &t->member[i];
        m->in_view = m->reduced = false;
        memset(&m->assigned, 0, sizeof m->assigned);
        memset(&m->held, 0, sizeof m->held);
        m->left_out = m->decides = false;
    }
    t->view_sent = false;
    t->renewals = 0;
    t->rest_ms = 0;
}

static void note_progress(struct trainer *t, int64_t now_ms) {
    if (now_ms - t->progress_ms > t->rest_ms) t->rest_ms = now_ms - t->progress_ms;
    t->progress_ms = now_ms;
}

/* ---- views ---- */

static void send_view(struct trainer *t, int64_t now_ms) {
    static _Thread_local struct slice_set assigned[MEMBERS_MAX], held[MEMBERS_MAX];
    size_t place[MEMBERS_MAX], n = 0;
    bool begins = slice_count(&t->counted) == 0; /* who was asked to leave has part in the step under way, and in none that begins */
    for (size_t i = 0; i < t->members; i++) {
        struct member *m = &t->member[i];
        m->reduced = false;
        m->in_view = m->state == MEMBER_READY && !(m->leaving && begins);
        if (!m->in_view) continue;
        held[n] = m->held;
        place[n++] = i;
    }
    slices_assign(assigned, held, n, t->options.slices);
    for (size_t k = 0; k < n; k++) {
        struct member *m = &t->member[place[k]];
        m->assigned = assigned[k];
        for (size_t i = 0; i < SLICES_MAX / 64; i++) m->held.bits[i] &= assigned[k].bits[i]; /* what is assigned to others now it drops */
    }
    t->view++;
    t->view_sent = true;
    t->progress_ms = now_ms;
    emit(t, ACTION_VIEW, 0, t->committed + 1);
}

/* Begins the next step, or goes on with it among other members, unless something has to come first. */
static void start_step(struct trainer *t, int64_t now_ms) {
    if (t->phase != TRAINER_RUN || t->view_sent || t->stopping || all_leaving(t) || t->committed >= t->options.max_steps) return;
    if (t->evaluating || evaluation_due(t) || count_state(t, MEMBER_READY) == 0) return;
    send_view(t, now_ms);
}

/* Out of the step until it joins again, not before until_ms. Its state, as far as known, stays noted: it may be asked for it. */
static void suspend(struct trainer *t, struct member *m, int64_t until_ms) {
    if (m->in_view) t->view_sent = false;
    m->state = MEMBER_PRESENT;
    m->since_ms = until_ms;
    m->in_view = m->reduced = false;
    memset(&m->assigned, 0, sizeof m->assigned);
    memset(&m->held, 0, sizeof m->held);
}

/* It has the whole sum, so its slices are computed, but nobody knows the loss of one of them. */
static bool owes_loss(const struct trainer *t, const struct member *m) {
    for (uint32_t s = 0; m->in_view && m->reduced && s < t->options.slices; s++)
        if (slice_in(&m->assigned, s) && !slice_in(&t->counted, s)) return true;
    return false;
}

/* One that lives and answers, and does not give the others what it holds (it takes each STEP for one that does not follow, say), cannot be
 * told from those that wait for it. So members are left out, try by try, until the step ends: after_commit(). Who is out stays out until
 * the next try, however long the others compute. The patience stays as it is within a round of tries. */
static void leave_out(struct trainer *t, int64_t now_ms) {
    static _Thread_local struct tried tried[MEMBERS_MAX];
    size_t n = 0, k = 0;
    for (size_t i = 0; i < t->members; i++) {
        const struct member *m = &t->member[i];
        if (m->in_view || m->left_out) tried[n++] = (struct tried){.order = m->order, .out = m->left_out};
    }
    bool again = n < 2 || (tries_next(&t->tries, tried, n) && t->renewals > RENEWALS_WITH_ALL + 1);
    if (again && t->doubled < RENEWALS_DOUBLED) t->doubled++;
    for (size_t i = 0; i < t->members && n >= 2; i++) {
        struct member *m = &t->member[i];
        if (!m->in_view && !m->left_out) continue;
        bool moves = m->left_out || tried[k].out;
        if (!m->left_out && tried[k].out) emit(t, ACTION_LEFT_OUT, m->worker, t->committed + 1);
        m->left_out = tried[k].out;
        m->decides = tried[k++].decides;
        if (moves) suspend(t, m, now_ms);
    }
}

/* A view in which nothing moves for too long: a new one makes all of them exchange again what they hold, and who owes a loss joins anew.
 * The time doubles, so that slices or links that are merely slow come to an end; the next steps begin with what one needed. */
static void renew_stuck_view(struct trainer *t, int64_t now_ms) {
    bool waiting = false;
    for (size_t i = 0; i < t->members; i++)
        waiting |= t->member[i].in_view && (!t->member[i].reduced || owes_loss(t, &t->member[i]));
    if (!t->view_sent || !waiting || now_ms - t->progress_ms < t->options.patience_ms << t->doubled) return;
    if (t->renewals++ >= RENEWALS_WITH_ALL) leave_out(t, now_ms);
    else if (t->doubled < RENEWALS_DOUBLED) t->doubled++;
    t->view_sent = false;
    for (size_t i = 0; i < t->members; i++)
        if (owes_loss(t, &t->member[i])) suspend(t, &t->member[i], now_ms);
}

/* ---- who does not reach whom ---- */

static bool hears(const struct member *m, uint32_t other) {
    for (size_t i = 0; i < m->unheard_count; i++)
        if (m->unheard[i] == other) return false;
    return true;
}

bool trainer_reaches(const struct trainer *t, uint32_t worker, uint32_t other) {
    const struct member *m = trainer_member(t, worker);
    return !m || hears(m, other);
}

/* Of the members that could be in a view, the one with most others that it does not reach or that do not reach it; among equals the one
 * that most others do not reach, because its address is the one that is wrong; then the one that came last. NULL: all reach each other. */
static struct member *least_reachable(struct trainer *t, const struct member **out_other) {
    enum { PAIR = MEMBERS_MAX }; /* one pair more weighs more than what all others say of a member */
    struct member *worst = NULL;
    size_t most = 0;
    for (size_t i = 0; i < t->members; i++) {
        struct member *m = &t->member[i];
        const struct member *other = NULL;
        size_t weight = 0;
        for (size_t k = 0; k < t->members && m->state == MEMBER_READY; k++) {
            const struct member *o = &t->member[k];
            if (o == m || o->state != MEMBER_READY) continue;
            bool heard = hears(o, m->worker), hearing = hears(m, o->worker);
            if (heard && hearing) continue;
            weight += PAIR + !heard;
            other = o;
        }
        if (weight == 0 || weight < most || (weight == most && m->order < worst->order)) continue;
        worst = m;
        most = weight;
        *out_other = other;
    }
    return worst;
}

static void bar(struct trainer *t, struct member *m, const struct member *other, int64_t now_ms) {
    enum { DOUBLED_MAX = 20 }; /* some months */
    int64_t last_ms = m->bars ? (int64_t)TRAINER_BAR_MS << (m->bars - 1) : 0;
    if (now_ms - m->bar_ends_ms > 2 * last_ms) m->bars = 0; /* it took part for twice as long as the bar before had lasted */
    m->bar_ends_ms = now_ms + ((int64_t)TRAINER_BAR_MS << m->bars);
    if (m->bars < DOUBLED_MAX) m->bars++;
    suspend(t, m, m->bar_ends_ms);
    m->barred = true;
    emit(t, ACTION_BAR, m->worker, t->committed)->other = other->worker;
}

/* The step goes on without one of each pair. A joiner that does not reach a giver is told to join anew, from those that it reaches. */
static void look_for_unreachable(struct trainer *t, int64_t now_ms) {
    const struct member *other;
    if (t->phase != TRAINER_RUN) return;
    for (size_t i = 0; i < t->members; i++) {
        struct member *m = &t->member[i];
        bool held_up = false;
        for (size_t k = 0; k < t->members && m->state == MEMBER_JOINING && m->unheard_count; k++)
            held_up |= member_holds_state(t, &t->member[k]) && !hears(m, t->member[k].worker);
        if (held_up) suspend(t, m, now_ms);
    }
    struct member *worst = least_reachable(t, &other);
    if (!worst) t->unheard_ms = -1;
    else if (t->unheard_ms < 0) t->unheard_ms = now_ms;
    for (; worst && now_ms - t->unheard_ms >= TRAINER_SETTLE_MS; worst = least_reachable(t, &other)) bar(t, worst, other, now_ms);
}

/* ---- joining ---- */

/* By what is known it holds the committed state; its answer to JOIN shows whether it does. Such a member joins without a giver. */
static bool may_hold_state(const struct trainer *t, const struct member *m) {
    return m->told_commit || (m->has_digest && m->step == t->committed);
}

/* Is there a giver for this joiner? Only a state that is agreed on is read: a wrong one must not multiply. */
static bool can_be_read(const struct trainer *t, const struct member *by) {
    if (t->committed == t->checkpoint) return true;
    for (size_t i = 0; i < t->members && t->has_state_digest; i++)
        if (member_holds_state(t, &t->member[i]) && hears(by, t->member[i].worker)) return true;
    return false;
}

/* Whoever rests joins at once when nobody else has part or joins. */
static void start_joins(struct trainer *t, int64_t now_ms) {
    if (t->phase != TRAINER_RUN) return;
    for (int rests = 0; rests < 2; rests++) {
        if (rests && count_state(t, MEMBER_READY) + count_state(t, MEMBER_JOINING)) return;
        for (size_t i = 0; i < t->members; i++) {
            struct member *m = &t->member[i];
            if (m->state != MEMBER_PRESENT || (m->left_out || now_ms < m->since_ms) != rests) continue;
            if (rests && !m->barred && !m->left_out && !m->joins_late) continue;
            if (!may_hold_state(t, m) && (m->leaving || !can_be_read(t, m))) continue;
            m->state = MEMBER_JOINING;
            m->barred = m->left_out = false;
            m->since_ms = m->moved_ms = now_ms;
            emit(t, ACTION_JOIN, m->worker, t->committed);
        }
    }
}

/* A large state on a slow link takes its time, and one that never comes holds up the commits: so who moves is waited for, and who was
 * waited for in vain is asked again later and later, or at once when nobody is held up. */
static void look_at_join(struct trainer *t, struct member *m, int64_t now_ms) {
    int64_t held_ms = now_ms - m->since_ms, patience_ms = t->options.patience_ms;
    if (now_ms - m->moved_ms < patience_ms && held_ms < JOIN_LONG * patience_ms) return;
    suspend(t, m, now_ms + (m->joins_late ? held_ms << (m->joins_late - 1) : JOIN_PAUSE_MS));
    if (m->joins_late <= PAUSES_DOUBLED) m->joins_late++;
    emit(t, ACTION_LATE, m->worker, t->committed);
}

static void look_for_silence(struct trainer *t, int64_t now_ms) {
    if (t->phase != TRAINER_RUN) return;
    for (size_t i = 0; i < t->members; i++) {
        struct member *m = &t->member[i];
        if (m->state == MEMBER_JOINING) look_at_join(t, m, now_ms);
        else if (m->state == MEMBER_READY && !m->has_digest && now_ms - m->since_ms >= t->options.patience_ms) {
            suspend(t, m, now_ms); /* APPLIED never came */
            emit(t, ACTION_LATE, m->worker, t->committed);
        }
    }
}

/* ---- where the state comes from ---- */

static void go_on_from(struct trainer *t, uint64_t base) {
    CHECK(!t->publishing);
    if (base < t->ledger) emit(t, ACTION_ROLLBACK, 0, base);
    if (base < t->committed) {
        t->has_state_digest = false;
        for (size_t i = 0; i < t->members; i++) t->member[i].told_commit = false;
    }
    if (base == t->checkpoint && t->has_checkpoint_digest) {
        memcpy(t->state_digest, t->checkpoint_digest, XXH128_BYTES);
        t->has_state_digest = true;
    }
    t->committed = t->ledger = base;
    if (t->evaluated > base) t->evaluated = base;
    t->evaluating = t->saving = false;
    t->save_tries = 0;
    if (t->save_skipped > base) t->save_skipped = 0; /* it is done anew, and so is its checkpoint */
    t->phase = TRAINER_RUN;
    clear_step(t);
}

/* Back to GATHER when nobody is left who has the state, or will have it. */
static void gather(struct trainer *t, int64_t now_ms) {
    if (t->phase != TRAINER_RUN || t->committed == t->checkpoint || t->publishing) return;
    for (size_t i = 0; i < t->members; i++) {
        const struct member *m = &t->member[i];
        if (m->state != MEMBER_ABSENT && (m->state == MEMBER_READY || may_hold_state(t, m))) return;
    }
    for (size_t i = 0; i < t->members; i++)
        if (t->member[i].state == MEMBER_JOINING) suspend(t, &t->member[i], now_ms);
    t->phase = TRAINER_GATHER;
    t->evaluating = t->saving = false;
    t->gather_since_ms = -1;
    clear_step(t);
}

/* A restarted coordinator waits for all workers before it believes one: of several states only the majority's is known to be right. */
static void leave_gather(struct trainer *t, int64_t now_ms) {
    if (t->phase != TRAINER_GATHER) return;
    if (count_state(t, MEMBER_PRESENT) == 0) t->gather_since_ms = -1; /* whoever was the first is gone */
    else if (t->gather_since_ms < 0) t->gather_since_ms = now_ms;
    if (t->gather_since_ms < 0) return;
    uint64_t base = t->checkpoint;
    for (size_t i = 0; i < t->members; i++) {
        const struct member *m = &t->member[i];
        if (m->state == MEMBER_PRESENT && m->has_digest && m->step > base && m->step <= t->ledger) base = m->step;
    }
    bool certain = base == t->ledger && (base == t->checkpoint || t->has_state_digest);
    if (certain || now_ms - t->gather_since_ms >= TRAINER_GATHER_MS) go_on_from(t, base);
}

/* ---- agreeing on the state ---- */

static void evict(struct trainer *t, struct member *m, int64_t until_ms) {
    suspend(t, m, until_ms);
    m->has_digest = m->told_commit = false;
    emit(t, ACTION_EVICT, m->worker, t->committed);
}

static void note_said(struct trainer *t, const struct member *m, const uint8_t *digest) {
    if (t->saids == TRAINER_SAID_MAX) return;
    struct said *said = &t->said[t->saids++];
    *said = (struct said){.worker = m->worker, .square_sum = m->square_sum, .finite = m->finite};
    memcpy(said->digest, digest, XXH128_BYTES);
}

void trainer_doubted(struct trainer *t, uint64_t step) {
    if (t->doubts < TRAINER_DOUBTS_MAX) t->doubted[t->doubts++] = step;
}

/* No majority about this step: only the checkpoint is beyond doubt, and what followed it is done again. */
static void doubt(struct trainer *t, uint64_t step, bool sum, int64_t now_ms) {
    bool again = false;
    for (size_t i = 0; i < t->doubts; i++) again |= t->doubted[i] == step;
    t->sum_in_doubt = sum;
    emit(t, ACTION_DOUBT, 0, step);
    if (again || t->doubts == TRAINER_DOUBTS_MAX) {
        char many[100];
        snprintf(many, sizeof many, "members differed about %d steps before, and none was in the majority", (int)TRAINER_DOUBTS_MAX);
        t->disagreed = true;
        fail(t, again ? "the members differ about it again after it was done anew, and none is in the majority" : many);
        return;
    }
    trainer_doubted(t, step);
    for (size_t i = 0; i < t->members; i++) {
        struct member *m = &t->member[i];
        if (m->state == MEMBER_READY || m->state == MEMBER_JOINING) suspend(t, m, now_ms);
        m->has_digest = m->told_commit = false;
    }
    go_on_from(t, t->checkpoint);
    start_joins(t, now_ms);
}

static void give_up_state(struct trainer *t, int64_t now_ms) {
    t->saids = 0;
    for (size_t i = 0; i < t->members; i++)
        if (t->member[i].state == MEMBER_READY) note_said(t, &t->member[i], t->member[i].digest);
    doubt(t, t->committed, false, now_ms);
}

static void settle_tasks(struct trainer *t) {
    if (evaluation_due(t) && !t->evaluating) {
        t->evaluating = true;
        emit(t, ACTION_EVALUATE, 0, t->committed);
    }
    if (save_due(t) && !t->saving) {
        t->saving = true;
        emit(t, ACTION_SAVE, 0, t->committed);
    }
    if (t->stopping && !t->stopped && !t->evaluating && !t->saving) {
        t->stopped = true;
        emit(t, ACTION_STOPPED, 0, t->committed);
    }
    if (t->committed >= t->options.max_steps && !evaluation_missing(t) && !t->saving && !t->stopping) {
        t->phase = TRAINER_FINISHED;
        emit(t, ACTION_FINISHED, 0, t->committed);
    }
}

static void agree(struct trainer *t, const uint8_t *digest, int64_t now_ms) {
    memcpy(t->state_digest, digest, XXH128_BYTES);
    t->has_state_digest = true;
    for (size_t i = 0; i < t->members; i++) {
        struct member *m = &t->member[i];
        if (m->state == MEMBER_READY && memcmp(m->digest, t->state_digest, XXH128_BYTES) != 0) evict(t, m, now_ms + JOIN_PAUSE_MS);
    }
}

static void settle(struct trainer *t, int64_t now_ms) {
    const uint8_t *winner;
    if (t->phase != TRAINER_RUN) return;
    if (!t->has_state_digest && majority_state(t, &winner)) {
        if (winner) agree(t, winner, now_ms);
        else give_up_state(t, now_ms);
    }
    if (t->phase != TRAINER_RUN || !t->has_state_digest) return;
    if (t->committed == t->checkpoint) {
        memcpy(t->checkpoint_digest, t->state_digest, XXH128_BYTES);
        t->has_checkpoint_digest = true;
    }
    settle_tasks(t);
}

/* ---- committing ---- */

/* The step ended without those who were left out. Certain is only who was the last to be: without the others alone it did not end. Where
 * one member ended it alone, it may as well be that one which gives nothing. */
static void blame(struct trainer *t) {
    const struct member *decides = NULL, *ended = NULL;
    size_t view = 0;
    for (size_t i = 0; i < t->members; i++) {
        const struct member *m = &t->member[i];
        if (m->in_view) view++, ended = m;
        if (m->decides) decides = m;
    }
    if (decides) emit(t, view == 1 ? ACTION_NO_END : ACTION_WITHHELD, decides->worker, t->committed)->other = ended->worker;
}

/* Told are the members of the view alone. Who is to leave had no part in it and has not its sum: it stays at the state before. */
static void after_commit(struct trainer *t, int64_t now_ms) {
    t->committed++;
    t->ledger = t->committed;
    t->has_state_digest = false;
    uint64_t out_order = 0;
    size_t outside = 0;
    blame(t);
    for (size_t i = 0; i < t->members; i++) {
        struct member *m = &t->member[i];
        if (m->state == MEMBER_READY && !m->in_view) suspend(t, m, now_ms);
        if (m->left_out) m->since_ms = now_ms + JOIN_PAUSE_MS, out_order = m->order, outside++;
        m->told_commit = m->in_view;
        if (!m->in_view) continue;
        m->has_digest = false;
        m->since_ms = now_ms;
    }
    while (t->doubled && t->rest_ms < t->options.patience_ms << (t->doubled - 1) >> 1) {
        t->doubled--;
        if (!outside) break; /* else it was not the patience that helped */
    }
    tries_ended(&t->tries, outside, out_order);
    clear_step(t);
    start_step(t, now_ms);
}

/* The members' sums differ. The odd ones take the others' state again, and their slices go to others; without a majority: doubt(). */
static void resolve(struct trainer *t, const struct member *winner, int64_t now_ms) {
    t->saids = 0;
    for (size_t i = 0; i < t->members; i++)
        if (t->member[i].in_view) note_said(t, &t->member[i], t->member[i].gradient);
    if (!winner) {
        doubt(t, t->committed + 1, true, now_ms);
        return;
    }
    struct member right = *winner;
    for (size_t i = 0; i < t->members; i++) {
        struct member *m = &t->member[i];
        if (!m->in_view || majority_same_sum(m, &right)) continue;
        suspend(t, m, now_ms + JOIN_PAUSE_MS);
        m->has_digest = m->told_commit = false;
        emit(t, ACTION_ODD, m->worker, t->committed + 1);
    }
    start_step(t, now_ms);
}

static void try_commit(struct trainer *t, int64_t now_ms) {
    if (t->phase != TRAINER_RUN || !t->view_sent || !t->has_state_digest || t->saving || save_due(t)) return;
    for (size_t i = 0; i < t->members; i++) {
        const struct member *m = &t->member[i];
        if (m->state == MEMBER_JOINING) return; /* it reads the state, which a commit would change */
        if (m->in_view && !m->reduced) return;
    }
    bool all;
    const struct member *first = majority_sum(t, &all);
    if (slice_count(&t->counted) != t->options.slices) return;
    if (!first || !all) {
        resolve(t, first, now_ms);
        return;
    }
    t->step_loss_sum = tree_sum(t->loss, t->options.slices);
    t->step_square_sum = first->square_sum;
    memcpy(t->step_gradient, first->gradient, XXH128_BYTES);
    t->step_tokens = 0;
    for (uint32_t s = 0; s < t->options.slices; s++) t->step_tokens += t->tokens[s];
    t->step_skipped = !first->finite || t->step_tokens == 0; /* or no target counts: there is no mean */
    if (!first->finite && t->step_tokens && t->committed + 1 > t->newest_bad_step) { /* done again after a roll-back it counts once */
        t->newest_bad_step = t->committed + 1;
        t->bad_steps++;
    }
    if (t->bad_steps > t->options.max_bad_steps) {
        fail(t, "more steps than training.max_bad_steps had no finite gradient; lower training.learning_rate or look at the data");
        return;
    }
    t->step_view = t->view;
    emit(t, ACTION_COMMIT, 0, t->committed + 1);
    after_commit(t, now_ms);
}

/* Does what can be done now, whatever happened. */
static void go_on(struct trainer *t, int64_t now_ms) {
    if (all_leaving(t)) t->view_sent = t->evaluating = false;
    gather(t, now_ms);
    leave_gather(t, now_ms);
    settle(t, now_ms);
    start_joins(t, now_ms);
    start_step(t, now_ms);
    try_commit(t, now_ms);
}

/* ---- what happened ---- */

void trainer_present(struct trainer *t, uint32_t worker, uint64_t step, const uint8_t *digest_or_null, int64_t now_ms) {
    struct member *m = find(t, worker);
    if (m) return;
    for (size_t i = 0; i < t->members && !m; i++)
        if (t->member[i].state == MEMBER_ABSENT) m = &t->member[i];
    if (!m) {
        if (t->members == MEMBERS_MAX) return; /* it does jobs, and has no part in training */
        m = &t->member[t->members++];
    }
    *m = (struct member){.worker = worker, .state = MEMBER_PRESENT, .order = ++t->newest_order, .step = step, .since_ms = now_ms};
    if (digest_or_null) {
        m->has_digest = true;
        memcpy(m->digest, digest_or_null, XXH128_BYTES);
    }
    go_on(t, now_ms);
}

void trainer_absent(struct trainer *t, uint32_t worker, int64_t now_ms) {
    struct member *m = find(t, worker);
    if (!m) return;
    bool was_read = trainer_holds_state(t, worker);
    if (m->in_view) t->view_sent = false;
    *m = (struct member){.state = MEMBER_ABSENT};
    for (size_t i = 0; i < t->members && was_read; i++) /* a joiner that may have read from it is told to join anew, from others */
        if (t->member[i].state == MEMBER_JOINING) suspend(t, &t->member[i], now_ms);
    go_on(t, now_ms);
}

void trainer_could_not_join(struct trainer *t, uint32_t worker, int64_t until_ms, int64_t now_ms) {
    struct member *m = find(t, worker);
    if (!m || m->state != MEMBER_JOINING) return;
    suspend(t, m, until_ms);
    m->has_digest = m->told_commit = false;
    go_on(t, now_ms);
}

void trainer_slice(struct trainer *t, uint32_t worker, uint64_t step, uint32_t slice, double loss_sum, uint64_t tokens,
                   uint32_t compute_ms, int64_t now_ms) {
    struct member *m = find(t, worker);
    if (!m || t->phase != TRAINER_RUN || step != t->committed + 1 || slice >= t->options.slices) return;
    if (!m->in_view || !slice_in(&m->assigned, slice)) return; /* of an earlier view: the slice is another member's now */
    slice_add(&m->held, slice);
    slice_add(&t->counted, slice);
    t->loss[slice] = loss_sum;
    t->tokens[slice] = tokens;
    m->compute_ms = compute_ms;
    note_progress(t, now_ms);
}

void trainer_reduced(struct trainer *t, uint32_t worker, uint64_t step, uint64_t view, const uint8_t *gradient, double square_sum,
                     bool finite, int64_t now_ms) {
    struct member *m = find(t, worker);
    if (!m || t->phase != TRAINER_RUN || step != t->committed + 1 || view != t->view || !m->in_view) return;
    m->reduced = true;
    memcpy(m->gradient, gradient, XXH128_BYTES);
    m->square_sum = square_sum;
    m->finite = finite;
    note_progress(t, now_ms);
    try_commit(t, now_ms);
}

void trainer_applied(struct trainer *t, uint32_t worker, uint64_t step, const uint8_t *digest, int64_t now_ms) {
    struct member *m = find(t, worker);
    if (!m || t->phase >= TRAINER_FINISHED || step > t->ledger) return;
    if (m->state != MEMBER_PRESENT && step != t->committed) {
        if (member_holds_state(t, m)) suspend(t, m, now_ms); /* by its APPLIED it holds an earlier state now: it joins anew */
        go_on(t, now_ms);
        return;
    }
    m->step = step;
    m->has_digest = true;
    m->joins_late = 0;
    memcpy(m->digest, digest, XXH128_BYTES);
    if (m->state != MEMBER_PRESENT && t->has_state_digest && memcmp(digest, t->state_digest, XXH128_BYTES) != 0) {
        evict(t, m, now_ms + JOIN_PAUSE_MS);
    } else if (m->state == MEMBER_JOINING) {
        m->state = MEMBER_READY;
        t->view_sent = false;
    }
    go_on(t, now_ms);
}

bool trainer_again(struct trainer *t, uint32_t worker, int64_t now_ms) {
    struct member *m = find(t, worker);
    if (!m || !m->in_view) return false;
    suspend(t, m, now_ms + JOIN_PAUSE_MS);
    go_on(t, now_ms);
    return true;
}

void trainer_moved(struct trainer *t, uint32_t worker, int64_t when_ms) {
    struct member *m = find(t, worker);
    if (m && when_ms > m->moved_ms) m->moved_ms = when_ms;
}

void trainer_unheard(struct trainer *t, uint32_t worker, const uint32_t *others, size_t count, int64_t now_ms) {
    struct member *m = find(t, worker);
    if (!m) return;
    m->unheard_count = count < TRAINER_UNHEARD_MAX ? count : TRAINER_UNHEARD_MAX;
    if (count) memcpy(m->unheard, others, m->unheard_count * sizeof *others);
    look_for_unreachable(t, now_ms);
    go_on(t, now_ms);
}

void trainer_evaluated(struct trainer *t, uint64_t step, int64_t now_ms) {
    if (t->phase != TRAINER_RUN || !t->evaluating || step != t->committed) return;
    t->evaluating = false;
    t->evaluated = step;
    go_on(t, now_ms);
}

bool trainer_saves(const struct trainer *t, uint64_t step) { return t->phase == TRAINER_RUN && t->saving && step == t->committed; }

void trainer_publishing(struct trainer *t, uint64_t step) {
    if (trainer_saves(t, step)) t->publishing = true;
}

void trainer_saved(struct trainer *t, uint64_t step, bool done, int64_t now_ms) {
    if (!trainer_saves(t, step)) return;
    t->saving = t->publishing = false;
    if (done) t->checkpoint = step;
    if (done) t->save_asked = false;
    t->save_tries = done ? 0 : t->save_tries + 1;
    if (step >= t->options.max_steps && t->save_tries >= TRAINER_LAST_SAVE_TRIES_MAX) {
        fail(t, "the last checkpoint cannot be written (the log says why); put that right and run the same command: it goes on from the "
                "checkpoint before");
        return;
    }
    if (step < t->options.max_steps && t->save_tries >= TRAINER_SAVE_TRIES_MAX) {
        t->save_skipped = step;
        t->save_tries = 0;
        t->save_asked = false;
    }
    go_on(t, now_ms);
}

void trainer_stop(struct trainer *t, int64_t now_ms) {
    t->stopping = true;
    t->view_sent = t->evaluating = false;
    go_on(t, now_ms);
}

void trainer_save(struct trainer *t, int64_t now_ms) {
    t->save_asked = trainer_unsaved(t);
    go_on(t, now_ms);
}

void trainer_leaving(struct trainer *t, uint32_t worker, int64_t now_ms) {
    struct member *m = find(t, worker);
    if (!m || m->leaving) return;
    m->leaving = true;
    if (m->state == MEMBER_JOINING && !may_hold_state(t, m)) suspend(t, m, now_ms);
    go_on(t, now_ms);
}

bool trainer_unsaved(const struct trainer *t) { return t->phase < TRAINER_FINISHED && t->committed > t->checkpoint; }

bool trainer_may_leave(const struct trainer *t, uint32_t worker) {
    const struct member *m = trainer_member(t, worker);
    if (!m || !trainer_unsaved(t)) return !m || !m->in_view || !t->view_sent || t->phase >= TRAINER_FINISHED;
    if (t->phase == TRAINER_GATHER) return !m->has_digest || m->step <= t->checkpoint || m->step > t->ledger;
    if (t->view_sent && m->in_view) return false;
    if (!may_hold_state(t, m)) return true;
    for (size_t i = 0; i < t->members && t->has_state_digest; i++)
        if (!t->member[i].leaving && member_holds_state(t, &t->member[i])) return true;
    return false;
}

void trainer_pause(struct trainer *t, int64_t pause_ms, int64_t now_ms) {
    int64_t *const since_ms[] = {&t->progress_ms, &t->unheard_ms, &t->gather_since_ms};
    for (size_t i = 0; i < sizeof since_ms / sizeof *since_ms; i++)
        if (*since_ms[i] >= 0) *since_ms[i] = clock_since(*since_ms[i], pause_ms, now_ms);
    for (size_t i = 0; i < t->members; i++) {
        struct member *m = &t->member[i];
        if (m->state != MEMBER_JOINING && m->state != MEMBER_READY) continue;
        m->since_ms = clock_since(m->since_ms, pause_ms, now_ms);
        m->moved_ms = clock_since(m->moved_ms, pause_ms, now_ms);
    }
}

void trainer_tick(struct trainer *t, int64_t now_ms) {
    look_for_silence(t, now_ms);
    renew_stuck_view(t, now_ms);
    look_for_unreachable(t, now_ms);
    go_on(t, now_ms);
}
