/* Which self-test digest is right when workers give different ones? Pure.
 *
 * The one that most workers gave. Where none has more than half of the votes, the one that was given first, among those with the most:
 * with one worker its digest counts until others disagree, and of two that disagree the first one's does until a third decides. */
#ifndef MILLRACE_COORDINATOR_SELF_TEST_VOTES_H
#define MILLRACE_COORDINATOR_SELF_TEST_VOTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"

struct self_test_vote {
    uint8_t digest[SHA256_BYTES];
    uint64_t order;  /* of giving it */
};

/* The winner's place; votes > 0. *out_majority: more than half of all gave it. */
size_t self_test_votes_choose(bool *out_majority, const struct self_test_vote *vote, size_t votes);

size_t self_test_votes_for(const struct self_test_vote *vote, size_t votes, const uint8_t digest[SHA256_BYTES]);

#endif
