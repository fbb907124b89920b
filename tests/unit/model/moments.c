/* Moments kept as bfloat16: every set's rounding against a twin in float64 and Philox word by word, whole optimizers against the ones that
 * keep float32, and what random rounding is for: means that are right and sums that go on. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/philox.h"
#include "model/kernels/kernels.h"
#include "model/optim/optimizer.h"
#include "tests/unit/model/sets.h"
#include "tests/unit/random.h"

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float widened(uint16_t x) { return float_of((uint32_t)x << 16); }

/* By what bfloat16 is: eight bits of significand, exponents as float32 has them. A distance of f places from the neighbour towards 0 rounds
 * away from it when f and the random number of 16 bits make up a whole place. */
static float twin_round(float x, uint32_t random) {
    int exponent;
    double size = fabs((double)x);
    if (!isfinite(x)) return x;
    frexp(size, &exponent);
    double place = ldexp(1.0, exponent - 8 < -133 ? -133 : exponent - 8), below = floor(size / place) * place;
    double rounded = (size - below) / place * 65536.0 + random >= 65536.0 ? below + place : below;
    if (rounded > (double)FLT_MAX) rounded = below;
    return (float)copysign(rounded, (double)x);
}

static uint32_t word_of(uint64_t key, uint64_t element) { return philox(key, 0, element / 4).word[element % 4]; }

static void assert_same_float(uint16_t got, float wanted, const struct random *random) {
    float value = widened(got);
    if (isnan(wanted) ? !isnan(value) : memcmp(&value, &wanted, sizeof value) != 0)
        fail_msg("seed %llu: %.9g instead of %.9g", (unsigned long long)random->seed, (double)value, (double)wanted);
}

/* Any bits, more often ordinary numbers, at times the ends of the range. */
static float some_float(struct random *random) {
    static const uint32_t ends[] = {0, 0x80000000, 1, 0x0000ffff, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff, 0x7f7f0001, 0x7f7f0000,
                                    0x7f800000, 0xff800000, 0x7f800001, 0xffffffff, 0x7fc00000, 0xff80ffff};
    uint64_t choice = random_in(random, 0, 9);
    if (choice == 0) return float_of(ends[random_in(random, 0, sizeof ends / sizeof *ends - 1)]);
    if (choice < 3) return float_of((uint32_t)random_next(random));
    return ldexpf((float)((int32_t)random_next(random)), (int)random_in(random, 0, 40) - 60);
}

static void every_set_rounds_as_philox_says(void **state) {
    (void)state;
    enum { MOST = 300 };
    struct random random = random_open("every_set_rounds_as_philox_says");
    struct sets sets = sets_here();
    for (int round = 0; round < 600; round++) {
        size_t n = random_in(&random, 1, MOST);
        uint64_t key = random_next(&random), first = random_next(&random) >> random_in(&random, 1, 63);
        float m[MOST], v[MOST];
        uint16_t got_m[MOST + 1], got_v[MOST + 1];
        bool both = random_in(&random, 0, 3) > 0;
        if (round % 3 == 0) first = (4ull << 32) - random_in(&random, 0, MOST); /* where the numbers of blocks pass 32 bits */
        for (size_t i = 0; i < n; i++) m[i] = some_float(&random), v[i] = some_float(&random);
        for (size_t s = 0; s < sets.count; s++) {
            memset(got_m, 0x77, sizeof got_m), memset(got_v, 0x77, sizeof got_v);
            sets.set[s]->moments_round(got_m, both ? got_v : NULL, m, both ? v : NULL, key, first, n);
            for (size_t i = 0; i < n; i++) {
                uint32_t word = word_of(key, first + i);
                assert_same_float(got_m[i], twin_round(m[i], word & 0xffff), &random);
                if (both) assert_same_float(got_v[i], twin_round(v[i], word >> 16), &random);
            }
            assert_true(got_m[n] == 0x7777 && got_v[both ? n : 0] == 0x7777);
        }
    }
}

static void every_set_has_the_same_bits_in_any_division(void **state) {
    (void)state;
    enum { N = 5000 };
    struct random random = random_open("every_set_has_the_same_bits_in_any_division");
    struct sets sets = sets_here();
    float *x = mem_alloc(N * sizeof *x), *y = mem_alloc(N * sizeof *y);
    uint16_t *whole = mem_alloc(2 * N * sizeof *whole), *parts = mem_alloc(2 * N * sizeof *parts);
    for (size_t i = 0; i < N; i++) x[i] = some_float(&random), y[i] = some_float(&random); /* also what a NaN becomes */
    sets.set[0]->moments_round(whole, whole + N, x, y, 9, 1001, N);
    for (size_t s = 0; s < sets.count; s++) {
        for (size_t at = 0, n; at < N; at += n) {
            n = random_in(&random, 1, 150);
            n = n < N - at ? n : N - at;
            sets.set[s]->moments_round(parts + at, parts + N + at, x + at, y + at, 9, 1001 + at, n);
        }
        assert_memory_equal(whole, parts, 2 * N * sizeof *whole);
    }
    free(x), free(y), free(whole), free(parts);
}

static void widening_is_exact(void **state) {
    (void)state;
    enum { ALL = 1 << 16 };
    struct sets sets = sets_here();
    uint16_t *x = mem_alloc(ALL * sizeof *x);
    float *out = mem_alloc(ALL * sizeof *out);
    for (int i = 0; i < ALL; i++) x[i] = (uint16_t)i;
    for (size_t s = 0; s < sets.count; s++)
        for (size_t first = 0; first < 3; first++) {
            memset(out, 0, ALL * sizeof *out);
            sets.set[s]->moments_widen(out, x + first, ALL - 7);
            for (size_t i = 0; i < ALL; i++) {
                uint32_t bits, wanted = i < ALL - 7 ? (uint32_t)(first + i) << 16 : 0;
                memcpy(&bits, &out[i], sizeof bits);
                assert_int_equal(bits, wanted);
            }
        }
    free(x), free(out);
}

static void the_mean_of_what_is_rounded_is_the_value(void **state) {
    (void)state;
    enum { N = 1 << 16 };
    static const float values[] = {1.001f, -1.2345f, 3e-9f, 0.9999f, 1.00390625f, 7.7e20f, 1e-40f};
    float *x = mem_alloc(N * sizeof *x);
    uint16_t *m = mem_alloc(N * sizeof *m), *v = mem_alloc(N * sizeof *v);
    for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
        double value = (double)values[k], mean[2] = {0, 0}, product = 0, low = INFINITY, high = -INFINITY;
        for (int i = 0; i < N; i++) x[i] = values[k];
        kernel_set()->moments_round(m, v, x, x, moments_key(k, 3), 0, N);
        for (int i = 0; i < N; i++) {
            double a = (double)widened(m[i]), b = (double)widened(v[i]);
            mean[0] += a / N, mean[1] += b / N, product += (a - value) * (b - value) / N;
            low = fmin(low, a), high = fmax(high, a);
        }
        double place = high - low, share = place > 0 ? (value - low) / place : 0, deviation = sqrt(share * (1 - share)) * place;
        assert_true(low < value && value < high); /* both neighbours occur */
        for (int i = 0; i < 2; i++)
            if (!(fabs(mean[i] - value) < 4 * deviation / sqrt(N))) fail_msg("%g has the mean %.9g", value, mean[i]);
        assert_true(fabs(product) < 4 * deviation * deviation / sqrt(N)); /* one moment's rounding says nothing of the other's */
    }
    free(x), free(m), free(v);
}

/* ---- whole optimizers ---- */

static const struct gpt2_config tiny = {.vocab_size = 38,
                                        .n_positions = 5,
                                        .n_embd = 9, /* odd, so that tensors begin anywhere */
                                        .n_layer = 1,
                                        .n_head = 3,
                                        .n_inner = 35,
                                        .layer_norm_epsilon = 1e-5f,
                                        .initializer_range = 0.02f,
                                        .scale_attn_weights = true};

static const struct optimizer kinds[] = {
    {.kind = OPTIM_ADAMW, .ema_decay = 0.7},
    {.kind = OPTIM_ADAM},
    {.kind = OPTIM_SGD, .momentum = 0.8},
    {.kind = OPTIM_SGD, .momentum = 0.8, .nesterov = true},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct side {
    struct optimizer optimizer;
    struct state_parts parts;
    void *state[STATE_PARTS];
};

static void side_open(struct side *side, const struct optimizer *kind, enum moments_type type, uint64_t seed, struct pool *pool) {
    *side = (struct side){.optimizer = *kind};
    struct optimizer *o = &side->optimizer;
    o->moments_type = type, o->seed = 5, o->scale = 0.25f, o->learning_rate = 1e-2;
    o->beta1 = 0.9, o->beta2 = 0.999, o->epsilon = 1e-8, o->weight_decay = 0.1;
    side->parts = optimizer_parts(o);
    assert_int_equal(state_open(side->state, &side->parts, gpt2_parameters(&tiny)), 0);
    optimizer_begin(side->state, &tiny, o, pool);
    o->seed = seed;
}

static void side_step(struct side *side, uint64_t step, struct pool *pool) {
    float *grads = mem_alloc(gpt2_parameters(&tiny) * sizeof(float));
    gpt2_init(grads, &tiny, 100 + step);
    side->optimizer.step = step;
    optimizer_apply(side->state, grads, &tiny, &side->optimizer, pool);
    free(grads);
}

/* Moments of float32, rounded one by one after each step: so is the next step's start the same. */
static void round_twin(struct side *twin) {
    uint64_t key = moments_key(twin->optimizer.seed, twin->optimizer.step);
    float *m = twin->state[STATE_MOMENT1], *v = twin->state[STATE_MOMENT2];
    for (size_t i = 0; i < gpt2_parameters(&tiny); i++) {
        uint32_t word = word_of(key, i);
        m[i] = twin_round(m[i], word & 0xffff);
        if (v) v[i] = twin_round(v[i], word >> 16);
    }
}

static void assert_same_state(const struct side *narrow, const struct side *twin) {
    size_t N = gpt2_parameters(&tiny);
    for (size_t k = 0; k < narrow->parts.count; k++) {
        enum state_part part = narrow->parts.part[k];
        bool moment = part == STATE_MOMENT1 || part == STATE_MOMENT2;
        const float *wanted = twin->state[part];
        assert_int_equal(state_element_bytes(&narrow->parts, part), moment ? 2 : 4);
        if (!moment) assert_memory_equal(narrow->state[part], wanted, N * sizeof(float));
        for (size_t i = 0; i < N && moment; i++) assert_true(widened(((const uint16_t *)narrow->state[part])[i]) == wanted[i]);
    }
}

static void every_optimizer_computes_in_float32_and_rounds_what_it_keeps(void **state) {
    (void)state;
    struct sets sets = sets_here();
    struct pool *pool;
    assert_true(gpt2_parameters(&tiny) % 2 == 1);
    assert_int_equal(pool_open(&pool, 2), 0);
    for (size_t s = 0; s < sets.count; s++)
        for (int i = 0; i < KINDS; i++) {
            struct side narrow, twin;
            kernel_set_use(sets.set[s]);
            side_open(&narrow, &kinds[i], MOMENTS_BF16, 11, pool);
            side_open(&twin, &kinds[i], MOMENTS_FP32, 11, pool);
            for (uint64_t step = 1; step <= 4; step++) {
                side_step(&narrow, step, pool), side_step(&twin, step, pool);
                round_twin(&twin);
                assert_same_state(&narrow, &twin);
            }
            state_close(narrow.state), state_close(twin.state);
        }
    kernel_set_use(NULL);
    pool_close(pool);
}

static void rounding_is_a_function_of_seed_and_step(void **state) {
    (void)state;
    struct side one, again, other;
    struct pool *pool;
    uint8_t digest[3][XXH128_BYTES];
    struct side *sides[] = {&one, &again, &other};
    size_t N = gpt2_parameters(&tiny);
    assert_int_equal(pool_open(&pool, 1), 0);
    for (int i = 0; i < 3; i++) {
        side_open(sides[i], &kinds[0], MOMENTS_BF16, i == 2 ? 12 : 11, pool);
        side_step(sides[i], 1, pool);
        state_digest(digest[i], sides[i]->state, &sides[i]->parts, N, pool);
    }
    assert_memory_equal(digest[0], digest[1], XXH128_BYTES);
    assert_memory_not_equal(digest[0], digest[2], XXH128_BYTES);
    assert_memory_equal(one.state[STATE_WEIGHTS], other.state[STATE_WEIGHTS], N * sizeof(float)); /* not yet */
    side_step(&one, 2, pool), side_step(&other, 2, pool);
    assert_memory_not_equal(one.state[STATE_WEIGHTS], other.state[STATE_WEIGHTS], N * sizeof(float));
    assert_true(moments_key(11, 1) != moments_key(11, 2) && moments_key(11, 1) != moments_key(12, 1));
    for (int i = 0; i < 3; i++) state_close(sides[i]->state);
    pool_close(pool);
}

static float to_nearest(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return float_of((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000);
}

/* Gradients of which each step adds a thousandth of what the second moment becomes. */
static void a_second_moment_goes_on_where_rounding_to_the_nearest_stands_still(void **state) {
    (void)state;
    enum { STEPS = 3000 };
    const float gradient = 3e-6f, scale = 0.25f;
    struct side narrow;
    struct pool *pool;
    size_t N = gpt2_parameters(&tiny);
    float *grads = mem_alloc(N * sizeof(float)), exact = 0, nearest = 0;
    double mean = 0;
    assert_int_equal(pool_open(&pool, 1), 0);
    side_open(&narrow, &kinds[0], MOMENTS_BF16, 11, pool);
    for (size_t i = 0; i < N; i++) grads[i] = gradient;
    for (uint64_t step = 1; step <= STEPS; step++) {
        float square = gradient * scale * (gradient * scale) * (float)(1.0 - 0.999);
        narrow.optimizer.step = step;
        optimizer_apply(narrow.state, grads, &tiny, &narrow.optimizer, pool);
        exact = exact * 0.999f + square, nearest = to_nearest(nearest * 0.999f + square);
    }
    for (size_t i = 0; i < N; i++) mean += (double)widened(((const uint16_t *)narrow.state[STATE_MOMENT2])[i]) / (double)N;
    print_message("after %d steps: exact %.4g, at random %.4g, to the nearest %.4g\n", STEPS, (double)exact, mean, (double)nearest);
    assert_true(fabs(mean / (double)exact - 1.0) < 0.01);
    assert_true((double)nearest < 0.5 * (double)exact);
    free(grads);
    state_close(narrow.state);
    pool_close(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_set_rounds_as_philox_says),
        cmocka_unit_test(every_set_has_the_same_bits_in_any_division),
        cmocka_unit_test(widening_is_exact),
        cmocka_unit_test(the_mean_of_what_is_rounded_is_the_value),
        cmocka_unit_test(every_optimizer_computes_in_float32_and_rounds_what_it_keeps),
        cmocka_unit_test(rounding_is_a_function_of_seed_and_step),
        cmocka_unit_test(a_second_moment_goes_on_where_rounding_to_the_nearest_stands_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
