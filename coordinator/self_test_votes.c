/* Two loops over an array of votes; keeps nothing. */
#include "coordinator/self_test_votes.h"

#include <string.h>

#include "base/err.h"

size_t self_test_votes_for(const struct self_test_vote *vote, size_t votes, const uint8_t digest[SHA256_BYTES]) {
    size_t n = 0;
    for (size_t i = 0; i < votes; i++) n += memcmp(vote[i].digest, digest, SHA256_BYTES) == 0;
    return n;
}

size_t self_test_votes_choose(bool *out_majority, const struct self_test_vote *vote, size_t votes) {
    CHECK(votes > 0);
    size_t winner = 0, most = 0;
    for (size_t i = 0; i < votes; i++) {
        size_t n = self_test_votes_for(vote, votes, vote[i].digest);
        if (n < most || (n == most && vote[i].order > vote[winner].order)) continue;
        winner = i, most = n;
    }
    *out_majority = most * 2 > votes;
    return winner;
}
