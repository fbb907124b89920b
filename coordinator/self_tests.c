/* Asks, collects the results, and judges them: before the first step the majority of the digests decides which bits are this run's, after
 * it the record in the store does. Owns the digest that counts; each worker's own is in its entry of the roster. self_test_votes.c
 * counts. */
#include "coordinator/self_tests.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "coordinator/context.h"
#include "coordinator/roster.h"
#include "coordinator/store.h"
#include "coordinator/self_test_votes.h"
#include "proto/frame.h"

struct self_tests {
    bool recorded;                 /* steps were made with it */
    uint8_t answer[SHA256_BYTES];  /* the digest that this run's workers give */
    char build[SELF_TESTS_BUILD_BYTES]; /* what the first of them runs: version, kernels, libraries */
    uint64_t count;                /* that came */
    bool fresh;                    /* one came that was not judged */
};

static bool same(const uint8_t *a, const uint8_t *b) { return memcmp(a, b, SHA256_BYTES) == 0; }

/* ---- asking ---- */

void self_tests_ask(struct context *c, uint32_t number) {
    Millrace__Empty empty = MILLRACE__EMPTY__INIT;
    c->worker[number].asked = true;
    c->worker[number].asked_ms = clock_ms();
    send_to(c, number, &(struct envelope){.kind = MILLRACE__KIND__SELF_TEST}, &empty.base);
}

/* ---- deciding ---- */

static bool has_answered(const struct worker_entry *w) { return roster_admitted(w) && w->answered; }

/* Before the first step all who were asked are waited for, so that the first to answer does not decide for all; one lease at most. */
static bool must_wait(const struct context *c, int64_t now_ms) {
    bool waiting = false;
    int64_t first_ms = now_ms;
    for (uint32_t i = 0; i < c->workers; i++) {
        const struct worker_entry *w = &c->worker[i];
        waiting |= roster_admitted(w) && w->asked;
        if (has_answered(w) && w->answered_ms < first_ms) first_ms = w->answered_ms;
    }
    return waiting && now_ms - first_ms < (int64_t)(c->config->cluster.lease_seconds * 1000);
}

static void take_in(struct context *c, uint32_t number) {
    struct worker_entry *w = &c->worker[number];
    if (w->proved) return;
    w->proved = true;
    w->moved_ms = clock_ms();
    if (w->in_question) w->aside[0] = 0; /* others agree with it by now */
    w->in_question = false;
    roster_note(c, ROSTER_PROVED, number);
}

static void turn_away(struct context *c, uint32_t number) {
    struct worker_entry *w = &c->worker[number];
    roster_refuse(c, w->peer, true, "its arithmetic gives other bits than this run's; run the same build on the same kind of CPU");
    note_event(c, "worker-refused", "%s (pid %u on %s; %s): its self-test gives other bits", w->id, w->pid, w->host, w->build);
    roster_lost(c, number, WORKER_LEFT, "refused");
}

/* No digest has a majority, and its own came later: it is set aside until another worker's result decides. */
static void put_in_question(struct context *c, uint32_t number, const struct worker_entry *first) {
    struct worker_entry *w = &c->worker[number];
    char why[160];
    if (w->proved) roster_note(c, ROSTER_DOUBTED, number);
    w->proved = false;
    if (w->in_question || w->aside[0]) return; /* set aside for another reason, it stays so whoever agrees with it */
    w->in_question = true;
    snprintf(why, sizeof why, "its self-test gives other bits than %s, which came first, and neither is in the majority: a third decides",
             first->id);
    roster_set_aside(c, number, why);
}

static size_t collect(const struct context *c, struct self_test_vote *vote, uint32_t *number) {
    size_t n = 0;
    for (uint32_t i = 0; i < c->workers; i++) {
        const struct worker_entry *w = &c->worker[i];
        if (!has_answered(w)) continue;
        number[n] = i;
        vote[n].order = w->answer_order;
        memcpy(vote[n++].digest, w->answer, SHA256_BYTES);
    }
    return n;
}

/* Steps were made with the recorded answer, so no other one can be this run's. That most who are here give another one ends it: either they
 * are the wrong ones here, or the steps are wrong. */
static void judge_by_record(struct context *c, const struct self_test_vote *vote, const uint32_t *number, size_t votes) {
    size_t right = self_test_votes_for(vote, votes, c->self_tests->answer);
    bool majority;
    size_t winner = self_test_votes_choose(&majority, vote, votes), others = self_test_votes_for(vote, votes, vote[winner].digest);
    if (majority && others >= 2 && others > right && !same(vote[winner].digest, c->self_tests->answer)) {
        char names[256] = "";
        for (size_t i = 0, used = 0; i < votes && used < sizeof names - 60; i++)
            if (!same(vote[i].digest, c->self_tests->answer))
                used += (size_t)snprintf(names + used, sizeof names - used, "%s%s on %.32s", used ? ", " : "", c->worker[number[i]].id,
                                         c->worker[number[i]].host);
        fail_pipeline(c, err_set(ERR_CONFIG,
                                 "the self-tests of %zu of the %zu workers here (%s) give other bits than that with which the steps "
                                 "so far were made (%s). Start again without them, or with --restart to train anew "
                                 "with theirs",
                                 others, votes, names, c->self_tests->build));
        return;
    }
    for (size_t i = 0; i < votes; i++) {
        if (same(vote[i].digest, c->self_tests->answer)) take_in(c, number[i]);
        else turn_away(c, number[i]);
    }
}

static void judge_by_majority(struct context *c, const struct self_test_vote *vote, const uint32_t *number, size_t votes) {
    bool majority;
    size_t winner = self_test_votes_choose(&majority, vote, votes);
    memcpy(c->self_tests->answer, vote[winner].digest, SHA256_BYTES);
    memcpy(c->self_tests->build, c->worker[number[winner]].build, sizeof c->self_tests->build);
    for (size_t i = 0; i < votes; i++)
        if (!same(vote[i].digest, c->self_tests->answer)) {
            if (majority) turn_away(c, number[i]);
            else put_in_question(c, number[i], &c->worker[number[winner]]);
        }
    for (size_t i = 0; i < votes; i++)
        if (same(vote[i].digest, c->self_tests->answer)) take_in(c, number[i]);
}

void self_tests_tick(struct context *c, int64_t now_ms) {
    if (c->stage != STAGE_TRAIN || c->ended || !c->self_tests->fresh) return;
    if (!c->self_tests->recorded && must_wait(c, now_ms)) return;
    static struct self_test_vote vote[WORKERS_MAX];
    static uint32_t number[WORKERS_MAX];
    size_t votes = collect(c, vote, number);
    c->self_tests->fresh = false;
    if (!votes) return;
    if (c->self_tests->recorded) judge_by_record(c, vote, number, votes);
    else judge_by_majority(c, vote, number, votes);
}

/* Only from who was asked, and once. */
void self_tests_take(struct context *c, uint32_t number, const Millrace__SelfTestResult *answer) {
    struct worker_entry *w = &c->worker[number];
    if (!roster_admitted(w) || !w->asked || answer->digest.len != SHA256_BYTES) return;
    w->asked = false;
    w->answered = c->self_tests->fresh = true;
    w->answered_ms = clock_ms();
    w->answer_order = ++c->self_tests->count;
    memcpy(w->answer, answer->digest.data, SHA256_BYTES);
    self_tests_tick(c, w->answered_ms);
}

/* ---- on record, from the first step on ---- */

int self_tests_record(struct context *c) {
    if (c->self_tests->recorded) return 0;
    TRY(store_set(c->store, "build", c->self_tests->build, strlen(c->self_tests->build)));
    TRY(store_set(c->store, "answer", c->self_tests->answer, SHA256_BYTES));
    c->self_tests->recorded = true;
    return 0;
}

int self_tests_load(struct context *c, uint64_t ledger) {
    struct buf answer = {0}, build = {0};
    int code = store_get(c->store, "answer", &answer);
    if (code == 1 && answer.size == SHA256_BYTES && ledger > 0) {
        c->self_tests->recorded = true;
        memcpy(c->self_tests->answer, answer.data, SHA256_BYTES);
    }
    if (code >= 0) code = store_get(c->store, "build", &build);
    if (code == 1) snprintf(c->self_tests->build, sizeof c->self_tests->build, "%.*s", (int)build.size, (const char *)build.data);
    buf_free(&answer);
    buf_free(&build);
    return code < 0 ? code : 0;
}

void self_tests_tell(const struct context *c, uint8_t out_answer[SHA256_BYTES], char out_build[SELF_TESTS_BUILD_BYTES]) {
    memcpy(out_answer, c->self_tests->answer, SHA256_BYTES);
    memcpy(out_build, c->self_tests->build, SELF_TESTS_BUILD_BYTES);
}

void self_tests_open(struct context *c) { c->self_tests = mem_alloc(sizeof *c->self_tests); }

void self_tests_close(struct context *c) {
    free(c->self_tests);
    c->self_tests = NULL;
}
