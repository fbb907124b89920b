/* Softmax of panels of attention scores against naive twins in float64, with random masks, dropout factors and scores that are infinite or
 * not numbers; the same bits by every set of kernels. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tests/unit/model/sets.h"
#include "tests/unit/random.h"

enum { KEYS_MAX = 150, LANES = TILE_COLUMNS, CELLS = KEYS_MAX * LANES };

static struct random rng;

static float uniform(float low, float high) { return low + (high - low) * (float)(random_next(&rng) >> 40) * 0x1p-24f; }

/* One panel: what goes in, and what comes out of both kernels. */
struct panel {
    int keys;
    int32_t low[LANES], high[LANES]; /* low > high: no query */
    float scale, scores[CELLS], dp[CELLS], product[LANES];
    float mask[CELLS]; /* dropout's factors, 1 where there is none */
    bool masked;
    float probabilities[CELLS], max[LANES], factor[LANES]; /* forward */
    float again[CELLS], ds[CELLS];                         /* backward */
};

static struct panel *random_panel(void) {
    struct panel *p = mem_alloc(sizeof *p);
    p->keys = (int)random_in(&rng, 1, KEYS_MAX), p->scale = uniform(0.05f, 1.5f), p->masked = random_in(&rng, 0, 1);
    bool causal = random_in(&rng, 0, 1);
    for (int i = 0; i < LANES; i++) {
        uint64_t last = (uint64_t)p->keys - 1;
        p->low[i] = causal ? 0 : (int32_t)random_in(&rng, 0, last);
        p->high[i] = !causal ? (int32_t)random_in(&rng, (uint64_t)p->low[i], last) : p->keys > LANES ? p->keys - LANES + i : i % p->keys;
        if (random_in(&rng, 0, 9) == 0) p->low[i] = 1, p->high[i] = 0;
        p->product[i] = uniform(-1, 1);
    }
    for (int i = 0; i < p->keys * LANES; i++) {
        p->scores[i] = uniform(-30, 30), p->dp[i] = uniform(-2, 2);
        p->mask[i] = !p->masked ? 1.0f : random_in(&rng, 0, 3) ? 1.0f / 0.75f : 0.0f;
    }
    return p;
}

static void run(struct panel *p, const struct kernel_set *k) {
    const float *mask = p->masked ? p->mask : NULL;
    memcpy(p->probabilities, p->scores, sizeof p->scores);
    memcpy(p->again, p->scores, sizeof p->scores), memcpy(p->ds, p->dp, sizeof p->dp);
    k->panel_softmax(p->probabilities, p->max, p->factor, p->keys, p->low, p->high, p->scale, mask);
    k->panel_softmax_backward(p->again, p->ds, p->max, p->factor, p->product, p->keys, p->low, p->high, p->scale, mask);
}

static void assert_near(float got, double wanted, double tolerance) {
    if (!(fabs((double)got - wanted) <= tolerance * (1.0 + fabs(wanted)))) fail_msg("%.9g instead of %.9g", (double)got, wanted);
}

static void compare_query(const struct panel *p, int query) {
    double max = -INFINITY, sum = 0.0;
    for (int key = p->low[query]; key <= p->high[query]; key++) max = fmax(max, (double)p->scores[key * LANES + query] * (double)p->scale);
    for (int key = p->low[query]; key <= p->high[query]; key++) sum += exp((double)p->scores[key * LANES + query] * (double)p->scale - max);
    bool there = p->low[query] <= p->high[query];
    if (there) assert_near(p->max[query], max, 1e-6), assert_near(p->factor[query], 1.0 / sum, 1e-5);
    for (int key = 0; key < p->keys; key++) {
        int at = key * LANES + query;
        bool seen = key >= p->low[query] && key <= p->high[query];
        double e = seen ? exp((double)p->scores[at] * (double)p->scale - max) : 0.0, mask = (double)p->mask[at],
               ds = seen ? e / sum * (mask * (double)p->dp[at] - (double)p->product[query]) * (double)p->scale : 0.0;
        assert_near(p->probabilities[at], e * mask, 1e-5);
        assert_near(p->again[at], seen ? e / sum * mask : 0.0, 1e-5);
        assert_near(p->ds[at], ds, 1e-5);
        if (!seen) assert_true(p->probabilities[at] == 0.0f && p->again[at] == 0.0f && p->ds[at] == 0.0f);
    }
}

static void panels_agree_with_their_twin_by_every_set_with_the_same_bits(void **state) {
    (void)state;
    struct sets sets = sets_here();
    for (int round = 0; round < 100; round++) {
        struct panel *first = random_panel(), *other = mem_alloc(sizeof *other);
        memcpy(other, first, sizeof *other);
        run(first, sets.set[0]);
        for (int query = 0; query < LANES; query++) compare_query(first, query);
        for (size_t s = 1; s < sets.count; s++) {
            run(other, sets.set[s]);
            assert_memory_equal(first, other, sizeof *first);
        }
        free(first), free(other);
    }
}

/* Puts `value` in one score of one query: seen or not. */
static struct panel *with_one(float value, bool seen, int *query, int *key) {
    struct panel *p = random_panel();
    *query = (int)random_in(&rng, 0, LANES - 1);
    p->keys = p->keys > 1 ? p->keys : 2;
    p->low[*query] = 0, p->high[*query] = p->keys - 2;
    *key = seen ? (int)random_in(&rng, 0, (uint64_t)p->keys - 2) : p->keys - 1;
    p->scores[*key * LANES + *query] = value;
    p->mask[*key * LANES + *query] = 1.0f;
    return p;
}

static void a_score_that_is_no_number_is_seen_by_its_query_alone(void **state) {
    (void)state;
    struct sets sets = sets_here();
    const float bad[] = {NAN, INFINITY};
    for (int round = 0; round < 40; round++)
        for (size_t s = 0; s < sets.count; s++) {
            int query, key;
            struct panel *p = with_one(bad[round % 2], true, &query, &key);
            run(p, sets.set[s]);
            int at = key * LANES + query;
            assert_true(isnan(p->factor[query]) && isnan(p->probabilities[at]) && isnan(p->again[at]) && isnan(p->ds[at]));
            for (int i = 0; i < LANES; i++)
                if (i != query) compare_query(p, i);
            free(p);
        }
}

static void a_score_that_is_not_seen_may_be_anything_and_minus_infinity_is_no_weight(void **state) {
    (void)state;
    struct sets sets = sets_here();
    const float any[] = {NAN, INFINITY, -INFINITY};
    for (int round = 0; round < 30; round++)
        for (size_t s = 0; s < sets.count; s++) {
            int query, key;
            struct panel *p = with_one(any[round % 3], false, &query, &key);
            run(p, sets.set[s]);
            for (int i = 0; i < LANES; i++) compare_query(p, i);
            free(p);
            p = with_one(-INFINITY, true, &query, &key);
            if (p->high[query] > 0) {
                run(p, sets.set[s]);
                int at = key * LANES + query;
                assert_true(p->probabilities[at] == 0.0f && p->again[at] == 0.0f && p->ds[at] == 0.0f);
                assert_true(isfinite(p->factor[query]) && isfinite(p->max[query]));
            }
            for (int i = 0; i < p->keys; i++) p->scores[i * LANES + query] = -INFINITY; /* nothing to share out */
            run(p, sets.set[s]);
            assert_true(isnan(p->factor[query]));
            free(p);
        }
}

static int start(void **state) {
    (void)state;
    rng = random_open("panels");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(panels_agree_with_their_twin_by_every_set_with_the_same_bits),
        cmocka_unit_test(a_score_that_is_no_number_is_seen_by_its_query_alone),
        cmocka_unit_test(a_score_that_is_not_seen_may_be_anything_and_minus_infinity_is_no_weight),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
