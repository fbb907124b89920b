/* Counting of equals among the members. */
#include "coordinator/majority.h"

#include <string.h>

static bool same(const uint8_t *a, const uint8_t *b) { return memcmp(a, b, XXH128_BYTES) == 0; }

bool member_holds_state(const struct trainer *t, const struct member *m) {
    return m->state == MEMBER_READY && m->has_digest && m->step == t->committed;
}

bool majority_state(const struct trainer *t, const uint8_t **out) {
    size_t ready = 0, joining = 0, spoken = 0, best = 0;
    *out = NULL;
    for (size_t i = 0; i < t->members; i++) {
        ready += t->member[i].state == MEMBER_READY;
        joining += t->member[i].state == MEMBER_JOINING;
        spoken += member_holds_state(t, &t->member[i]);
    }
    if (spoken < ready || joining) return false;
    for (size_t i = 0; i < t->members && best * 2 <= ready; i++) {
        const struct member *m = &t->member[i];
        if (m->state != MEMBER_READY) continue;
        size_t votes = 0;
        for (size_t k = 0; k < t->members; k++) votes += member_holds_state(t, &t->member[k]) && same(t->member[k].digest, m->digest);
        if (votes > best) {
            best = votes;
            *out = m->digest;
        }
    }
    if (best * 2 <= ready) *out = NULL;
    return ready > 0;
}

/* Compared bit for bit, so that NaN equals NaN. */
static uint64_t bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

bool majority_same_sum(const struct member *a, const struct member *b) {
    return same(a->gradient, b->gradient) && bits_of(a->square_sum) == bits_of(b->square_sum) && a->finite == b->finite;
}

const struct member *majority_sum(const struct trainer *t, bool *out_all) {
    const struct member *winner = NULL;
    size_t view = 0, best = 0;
    for (size_t i = 0; i < t->members; i++) {
        const struct member *m = &t->member[i];
        if (!m->in_view) continue;
        size_t votes = 0;
        for (size_t k = 0; k < t->members; k++) votes += t->member[k].in_view && majority_same_sum(&t->member[k], m);
        if (votes > best) best = votes, winner = m;
        view++;
    }
    *out_all = best == view;
    return best * 2 > view ? winner : NULL;
}
