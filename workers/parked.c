/* An array without order; the last one fills a gap. */
#include "workers/parked.h"

void parking_drop(struct parking *parking, size_t i) { parking->parked[i] = parking->parked[--parking->count]; }

static size_t count_of(const struct parking *parking, uint64_t peer) {
    size_t n = 0;
    for (size_t i = 0; i < parking->count; i++) n += parking->parked[i].peer == peer;
    return n;
}

static void drop_oldest_of(struct parking *parking, uint64_t peer) {
    size_t oldest = PARKED_MAX;
    for (size_t i = 0; i < parking->count; i++)
        if (parking->parked[i].peer == peer && (oldest == PARKED_MAX || parking->parked[i].since_ms < parking->parked[oldest].since_ms))
            oldest = i;
    if (oldest < PARKED_MAX) parking_drop(parking, oldest);
}

static uint64_t who_has_most(const struct parking *parking) {
    size_t most = 0;
    uint64_t peer = 0;
    for (size_t i = 0; i < parking->count; i++) {
        size_t n = parking->parked[i].peer == peer ? 0 : count_of(parking, parking->parked[i].peer);
        if (n > most) most = n, peer = parking->parked[i].peer;
    }
    return peer;
}

void parking_add(struct parking *parking, const struct parked *parked) {
    for (size_t i = 0; i < parking->count; i++)
        if (parking->parked[i].peer == parked->peer && parking->parked[i].envelope.job == parked->envelope.job) {
            parking->parked[i] = *parked;
            return;
        }
    if (count_of(parking, parked->peer) >= READS_MAX) drop_oldest_of(parking, parked->peer);
    if (parking->count == PARKED_MAX) drop_oldest_of(parking, who_has_most(parking));
    parking->parked[parking->count++] = *parked;
}
