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

/* Those who have not told REDUCED. They may all wait for one, which need not be among them: the owner of a segment that it does not give
 * may have the whole sum itself. */
static void note_others_without_sum(struct wait *wait, const struct trainer *t) {
    for (size_t i = 0; i < t->members; i++) {
        const struct member *m = &t->member[i];
        wait->members += m->in_view;
        if (!m->in_view || m->reduced || m->worker == wait->worker) continue;
        if (wait->others < WAIT_OTHERS_MAX) wait->other[wait->others] = m->worker;
        wait->others++;
    }
}

struct wait stall_wait(const struct trainer *t) {
    struct wait wait = {.kind = WAIT_WORKERS, .step = t->committed + 1};
    if (t->phase >= TRAINER_FINISHED) wait.kind = WAIT_NOTHING;
    if (t->phase != TRAINER_RUN) return wait;
    /* In the order of a step: a member computes once it has applied the last one itself, and all sums wait while one slice is missing. */
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
            if (wait.kind == WAIT_SUM) note_others_without_sum(&wait, t);
            return wait;
        }
    wait.kind = t->saving ? WAIT_SAVE : t->evaluating ? WAIT_EVALUATION : WAIT_WORKERS;
    if (wait.kind != WAIT_WORKERS) wait.step = t->committed;
    return wait;
}
