/* Two functions: stall_look() keeps the usual time between two things that are finished, stall_wait() goes through the members. */
#include "coordinator/stall.h"

bool stall_look(struct stall *stall, uint64_t stage, uint64_t done, int64_t now_ms) {
    if (stall->moved_ms == 0 || stall->stage != stage) *stall = (struct stall){.stage = stage, .done = done, .moved_ms = now_ms};
    if (stall->done != done) {
        int64_t interval = now_ms - stall->moved_ms;
        stall->usual_ms = stall->usual_ms ? (3 * stall->usual_ms + interval) / 4 : interval;
        stall->done = done;
        stall->moved_ms = now_ms;
    }
    return now_ms - stall->moved_ms > STALL_USUAL * stall->usual_ms + STALL_MS;
}

/* All lack the sum when one of them holds it up: who is named first may wait for another one. */
static size_t count_without_sum(const struct trainer *t) {
    size_t n = 0;
    for (size_t i = 0; i < t->members; i++) n += t->member[i].in_view && !t->member[i].reduced;
    return n;
}

struct wait stall_wait(const struct trainer *t) {
    struct wait wait = {.kind = WAIT_WORKERS, .step = t->committed + 1};
    if (t->phase >= TRAINER_FINISHED) wait.kind = WAIT_NOTHING;
    if (t->phase != TRAINER_RUN) return wait;
    /* In the order of a step: no slice is computed before the last step is applied, and all sums wait while one slice is missing. */
    static const enum wait_kind rounds[] = {WAIT_APPLY, WAIT_SLICE, WAIT_SUM, WAIT_JOIN};
    for (size_t round = 0; round < sizeof rounds / sizeof *rounds; round++)
        for (size_t i = 0; i < t->members; i++) {
            const struct member *m = &t->member[i];
            bool found = false, computes = m->in_view && t->view_sent;
            wait.worker = m->worker;
            wait.kind = rounds[round];
            if (wait.kind == WAIT_SLICE)
                for (uint32_t s = 0; s < t->options.slices && computes && !found; s++) {
                    found = slice_in(&m->assigned, s) && !slice_in(&m->held, s);
                    wait.slice = s;
                }
            else if (wait.kind == WAIT_SUM) found = computes && !m->reduced;
            else if (wait.kind == WAIT_JOIN) found = m->state == MEMBER_JOINING;
            else found = m->state == MEMBER_READY && !m->has_digest;
            if (!found) continue;
            if (wait.kind == WAIT_JOIN || wait.kind == WAIT_APPLY) wait.step = t->committed;
            if (wait.kind == WAIT_SUM) wait.others = count_without_sum(t) - 1;
            return wait;
        }
    wait.kind = t->saving ? WAIT_SAVE : t->evaluating ? WAIT_EVALUATION : WAIT_WORKERS;
    if (wait.kind != WAIT_WORKERS) wait.step = t->committed;
    return wait;
}
