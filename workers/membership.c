/* Owns the step under way: its partial sums (partials.h), the exchange of them (exchange.h), or a state that is taken over (join.h). Never
 * two of the last: a JOIN ends the step. */
#include "workers/membership.h"

#include <string.h>

#include "base/err.h"

void membership_open(struct membership *m, uint32_t slices, size_t segments, const uint64_t *state_parts, size_t state_part_count) {
    m->segments = segments;
    m->partials.slices = slices;
    join_shape(&m->join, state_parts, state_part_count, segments);
}

/* ---- the state ---- */

static void end_step(struct membership *m, struct reads *reads) {
    exchange_end(&m->exchange, reads);
    m->reduced = false;
    m->step = 0;
}

bool membership_join(struct membership *m, struct reads *reads, const struct offer *offer, const uint8_t *offered_digest, uint64_t step,
                     const uint8_t *digest_or_null, const uint64_t *peers, size_t peer_count) {
    end_step(m, reads);
    join_end(&m->join, reads);
    m->fence = 0;
    bool same = offer->state && offer->state_step == step;
    if (same && (!digest_or_null || memcmp(offered_digest, digest_or_null, XXH128_BYTES) == 0)) return false;
    partials_drop(&m->partials);
    join_begin(&m->join, step, digest_or_null, peers, peer_count);
    return true;
}

void membership_joined(struct membership *m, struct reads *reads) { join_end(&m->join, reads); }

/* ---- the step ---- */

bool membership_follows(const struct membership *m, const struct offer *offer, uint64_t step, uint64_t fence) {
    return !m->join.active && offer->state && offer->state_step + 1 == step && fence > m->fence;
}

int membership_view(struct membership *m, struct reads *reads, uint64_t step, uint64_t fence, size_t members, size_t self,
                    const struct slice_set *sets, const uint64_t *peers) {
    bool same_step = m->step == step;
    end_step(m, reads);
    TRY(exchange_view(&m->exchange, step, fence, members, self, sets, peers, m->partials.slices, m->segments, &exchange_limits));
    m->step = step;
    m->fence = fence;
    partials_view(&m->partials, &sets[self], same_step);
    return 0;
}

bool membership_commits(const struct membership *m, uint64_t step, uint64_t fence) {
    return m->step == step && m->fence == fence && m->reduced;
}

void membership_committed(struct membership *m, struct reads *reads) {
    partials_drop(&m->partials);
    end_step(m, reads);
}

void membership_reduced(struct membership *m) { m->reduced = true; }

/* ---- what next ---- */

static bool next_of_join(struct membership *m, struct duty *out, struct reads *reads) {
    out->kind = join_makes_first(&m->join) ? DUTY_FIRST_STATE : DUTY_BELIEVE;
    if (join_makes_first(&m->join) || join_whole(&m->join)) return true;
    join_ask(&m->join, reads);
    return false;
}

static bool next_of_exchange(struct membership *m, struct duty *out, struct reads *reads) {
    if (m->reduced) return false;
    out->kind = DUTY_SHOW;
    if (!m->exchange.running) return true;
    exchange_ask(&m->exchange, reads);
    out->kind = DUTY_SUM;
    if (exchange_full(&m->exchange, &out->slot)) return true;
    out->kind = DUTY_REDUCED;
    return exchange_complete(&m->exchange);
}

bool membership_next(struct membership *m, struct duty *out, struct reads *reads) {
    if (m->join.active) return next_of_join(m, out, reads);
    if (!m->step) return false;
    out->kind = DUTY_SLICE;
    return partials_next(&m->partials, &out->slice) || next_of_exchange(m, out, reads);
}
