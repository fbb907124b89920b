/* A counter of items, asked for from all givers in turn. */
#include "workers/join.h"

#include <string.h>

#include "base/err.h"

void join_shape(struct join *j, const uint64_t *state_parts, size_t state_part_count, size_t segments) {
    CHECK(state_part_count <= JOIN_STATE_PARTS_MAX);
    memcpy(j->state_part, state_parts, state_part_count * sizeof *state_parts);
    j->segments = segments;
    j->items = state_part_count * segments;
}

void join_begin(struct join *j, uint64_t step, const uint8_t *digest_or_null, const uint64_t *peers, size_t peer_count) {
    CHECK(peer_count <= MEMBERS_MAX);
    j->active = true;
    j->step = step;
    j->has_digest = digest_or_null != NULL;
    if (digest_or_null) memcpy(j->digest, digest_or_null, sizeof j->digest);
    if (peer_count) memcpy(j->peer, peers, peer_count * sizeof *peers);
    j->peers = peer_count;
    j->bad = j->next = 0;
    j->missing = j->items;
}

void join_end(struct join *j, struct reads *reads) {
    reads_drop_what(reads, MILLRACE__READ__WHAT__STATE);
    j->active = false;
}

bool join_makes_first(const struct join *j) { return j->step == 0 && j->peers == 0; }

static bool ask(const struct join *j, struct reads *reads, uint64_t peer, size_t item) {
    struct read *read = reads_add(reads, peer, item);
    if (!read) return false;
    read->envelope.step = j->step;
    read->body.what = MILLRACE__READ__WHAT__STATE;
    read->body.a = j->state_part[item / j->segments];
    read->body.c = item % j->segments;
    return true;
}

void join_ask(struct join *j, struct reads *reads) {
    size_t open_max = j->peers ? READS_AT_PEER_MAX * j->peers : READS_AT_PEER_MAX;
    if (open_max > READS_MAX / 2) open_max = READS_MAX / 2;
    while (j->next < j->items && reads->count < open_max) {
        uint64_t peer = j->peers ? j->peer[j->next % j->peers] : 0;
        if (!ask(j, reads, peer, j->next)) return;
        j->next++;
    }
}

/* The same of the next giver; false: it is time to give up. */
static bool ask_another(struct join *j, struct reads *reads, const struct read *read) {
    if (j->peers < 2 || ++j->bad > JOIN_BAD_MAX) return false;
    size_t i = 0;
    while (j->peer[i] != read->peer) i++;
    return ask(j, reads, j->peer[(i + 1) % j->peers], read->tag);
}

enum join_taken join_take(struct join *j, struct reads *reads, const struct read *read, bool good) {
    if (!j->active || read->envelope.step != j->step) return JOIN_NOT;
    if (good) {
        j->missing--;
        return JOIN_ITEM;
    }
    if (ask_another(j, reads, read)) return JOIN_ANOTHER;
    join_end(j, reads);
    return JOIN_FAILED;
}

bool join_whole(const struct join *j) { return j->active && j->missing == 0; }

bool join_believes(const struct join *j, const uint8_t digest[XXH128_BYTES]) {
    return !j->has_digest || memcmp(digest, j->digest, XXH128_BYTES) == 0;
}
