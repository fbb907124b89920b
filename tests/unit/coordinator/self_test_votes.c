/* Which self-test is right. */
#include "coordinator/self_test_votes.h"

#include <string.h>

#include "tests/unit/random.h"

/* Votes as text: each letter an answer, in the order in which they lie; `order` says in which they were given. */
static char chosen(const char *answers, const char *order, bool *out_majority) {
    struct self_test_vote vote[16] = {0};
    size_t n = strlen(answers);
    for (size_t i = 0; i < n; i++) {
        vote[i].digest[0] = (uint8_t)answers[i];
        vote[i].order = (uint64_t)order[i];
    }
    return (char)vote[self_test_votes_choose(out_majority, vote, n)].digest[0];
}

static void most_voices_win(void **state) {
    (void)state;
    bool majority;
    assert_int_equal(chosen("a", "1", &majority), 'a');
    assert_true(majority);
    assert_int_equal(chosen("abb", "123", &majority), 'b'); /* the first does not decide for all */
    assert_true(majority);
    assert_int_equal(chosen("aab", "231", &majority), 'a');
    assert_true(majority);
    assert_int_equal(chosen("aabbc", "23145", &majority), 'b');
    assert_false(majority);
}

static void without_a_majority_the_first_stands(void **state) {
    (void)state;
    bool majority;
    assert_int_equal(chosen("ab", "12", &majority), 'a');
    assert_false(majority);
    assert_int_equal(chosen("ab", "21", &majority), 'b');
    assert_false(majority);
    assert_int_equal(chosen("abc", "321", &majority), 'c');
    assert_false(majority);
    assert_int_equal(chosen("aabb", "1423", &majority), 'a');
    assert_false(majority);
}

static void the_choice_does_not_depend_on_where_votes_lie(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    for (int i = 0; i < 20000; i++) {
        struct self_test_vote vote[12] = {0}, shuffled[12];
        size_t n = random_in(&random, 1, 12), most = 0, voices = 0;
        bool majority, again;
        for (size_t k = 0; k < n; k++) {
            vote[k].digest[0] = (uint8_t)random_in(&random, 0, 3);
            vote[k].order = k;
            shuffled[k] = vote[k];
        }
        for (size_t k = n; k > 1; k--) {
            size_t other = random_in(&random, 0, k - 1);
            struct self_test_vote kept = shuffled[k - 1];
            shuffled[k - 1] = shuffled[other];
            shuffled[other] = kept;
        }
        size_t winner = self_test_votes_choose(&majority, vote, n);
        assert_memory_equal(vote[winner].digest, shuffled[self_test_votes_choose(&again, shuffled, n)].digest, SHA256_BYTES);
        assert_int_equal(majority, again);
        for (size_t k = 0; k < n; k++) {
            size_t same = 0;
            for (size_t j = 0; j < n; j++) same += vote[j].digest[0] == vote[k].digest[0];
            if (same > most) most = same;
            if (k == winner) voices = same;
        }
        assert_int_equal(voices, most);
        assert_int_equal(majority, most * 2 > n);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(most_voices_win),
        cmocka_unit_test(without_a_majority_the_first_stands),
        cmocka_unit_test(the_choice_does_not_depend_on_where_votes_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
