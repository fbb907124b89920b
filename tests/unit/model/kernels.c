/* Every kernel against a naive twin in float64 over random, mostly odd shapes; all instruction sets bit for bit; exp, log and cos against
 * the C library. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/kernels/fmath.h"
#include "model/kernels/kernel_set.h"
#include "model/kernels/kernels.h"
#include "tests/unit/model/sets.h"
#include "tests/unit/random.h"

static struct random rng;

static float uniform(float low, float high) { return low + (high - low) * (float)(random_next(&rng) >> 40) * 0x1p-24f; }

static float *random_floats(size_t count, float low, float high) {
    float *x = mem_alloc((count + 1) * sizeof *x);
    for (size_t i = 0; i < count; i++) x[i] = uniform(low, high);
    return x;
}

static void assert_near(float got, double wanted, double tolerance) {
    if (!(fabs((double)got - wanted) <= tolerance * (1.0 + fabs(wanted)))) fail_msg("%.9g instead of %.9g", (double)got, wanted);
}

static int open_random(void **state) {
    (void)state;
    rng = random_open("kernels");
    return 0;
}

static void exp_log_and_cos_agree_with_the_c_library(void **state) {
    (void)state;
    for (int i = 0; i < 200000; i++) {
        float x = uniform(-90.0f, 90.0f), y = uniform(1e-6f, 2.0f);
        if (x >= -87.3f && x <= 88.0f) assert_true(fabs((double)v8_exp(v8_all(x))[3] / exp((double)x) - 1.0) < 2.5e-7);
        if (x < -87.3f) assert_true(v8_exp(v8_all(x))[0] == 0.0f);
        assert_true(fabs((double)v8_log(v8_all(y))[5] - log((double)y)) < 2e-7 * (1.0 + fabs(log((double)y))));
        assert_true(fabs(fmath_exp(x * 7.0) / exp(x * 7.0) - 1.0) < 1e-14);
        assert_true(fabs(fmath_log(y * 1e100) - log(y * 1e100)) < 1e-13);
        assert_true(fabs(fmath_cos(fabs((double)x) / 90.0 * 3.14159265358979) - cos(fabs((double)x) / 90.0 * 3.14159265358979)) < 2e-15);
    }
}

static void not_a_number_stays_one(void **state) {
    (void)state;
    float x[3] = {1.0f, NAN, 2.0f}, max, sum, weight[3] = {1, 1, 1}, bias[3] = {0}, out[3];
    assert_true(isnan(v8_exp(v8_all(NAN))[0]));
    assert_true(isnan(fmath_exp((double)NAN)) && isnan(fmath_log((double)NAN)));
    gelu_forward(out, x, 3);
    assert_true(isnan(out[1]) && !isnan(out[0]));
    gelu_backward(out, weight, x, 3);
    assert_true(isnan(out[1]) && !isnan(out[2]));
    layernorm_forward(out, NULL, NULL, x, weight, bias, 1, 3, 1e-5f);
    assert_true(isnan(out[0]));
    softmax_exp(x, 3, &max, &sum);
    assert_true(isnan(sum));
}

static void layernorm_agrees_with_its_twin(void **state) {
    (void)state;
    for (int round = 0; round < 60; round++) {
        int rows = (int)random_in(&rng, 1, 9), C = (int)random_in(&rng, 1, 83);
        size_t n = (size_t)rows * (size_t)C;
        float *x = random_floats(n, -3, 3), *w = random_floats((size_t)C, -2, 2), *b = random_floats((size_t)C, -1, 1),
              *d = random_floats(n, -1, 1);
        float *out = mem_alloc(n * sizeof(float)), *dx = random_floats(n, -1, 1), *was = mem_alloc(n * sizeof(float)), mean[9], rstd[9];
        float *dw = random_floats((size_t)C, -1, 1), *db = random_floats((size_t)C, -1, 1);
        memcpy(was, dx, n * sizeof(float));
        layernorm_forward(out, mean, rstd, x, w, b, rows, C, 1e-5f);
        layernorm_backward(dx, d, x, w, mean, rstd, rows, C);
        float w_before = dw[C / 2], b_before = db[C / 2];
        layernorm_backward_weight(dw, db, d, x, mean, rstd, rows, C, C / 2, C - C / 2, round % 2);
        double wanted_w = round % 2 ? (double)w_before : 0.0, wanted_b = round % 2 ? (double)b_before : 0.0;
        for (int r = 0; r < rows; r++) {
            const float *y = x + r * C, *g = d + r * C;
            double m = 0, v = 0, dn = 0, dnn = 0;
            for (int c = 0; c < C; c++) m += (double)y[c] / C;
            for (int c = 0; c < C; c++) v += ((double)y[c] - m) * ((double)y[c] - m) / C;
            double s = 1.0 / sqrt(v + 1e-5);
            for (int c = 0; c < C; c++)
                dn += (double)g[c] * (double)w[c] / C, dnn += (double)g[c] * (double)w[c] * ((double)y[c] - m) * s / C;
            for (int c = 0; c < C; c++) {
                double norm = ((double)y[c] - m) * s;
                if (C < 4) continue; /* the variance of few numbers may be near 0: float32 has no digits there */
                assert_near(out[r * C + c], norm * (double)w[c] + (double)b[c], 1e-4);
                assert_near(dx[r * C + c], (double)was[r * C + c] + s * ((double)g[c] * (double)w[c] - dn - norm * dnn), 1e-3);
            }
            wanted_w += (double)g[C / 2] * ((double)y[C / 2] - m) * s, wanted_b += (double)g[C / 2];
        }
        if (C >= 4) assert_near(dw[C / 2], wanted_w, 1e-3);
        assert_near(db[C / 2], wanted_b, 1e-5);
        free(x), free(w), free(b), free(d), free(out), free(dx), free(was), free(dw), free(db);
    }
}

static double gelu(double x) { return 0.5 * x * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x))); }

/* GELU with its slope gives GELU's bits, and times that slope what gelu_backward() gives, but for the slope's own rounding. */
static void assert_slope(const float *out, const float *dx, const float *d, const float *x, size_t n) {
    float *again = mem_alloc(n * sizeof *again);
    uint16_t *slope = mem_alloc((n + 1) * sizeof *slope);
    slope[n] = 4711;
    gelu_forward_slope(again, slope, x, n);
    assert_memory_equal(again, out, n * sizeof *again);
    assert_int_equal(slope[n], 4711);
    memcpy(again, d, n * sizeof *again);
    vector_scale_bf16(again, slope, n);
    for (size_t i = 0; i < n; i++) assert_true(fabs((double)again[i] - (double)dx[i]) <= fabs((double)dx[i]) * 0x1p-8 + 1e-30);
    free(again), free(slope);
}

static void gelu_agrees_with_its_twin(void **state) {
    (void)state;
    for (int round = 0; round < 100; round++) {
        size_t n = random_in(&rng, 1, 200);
        float *x = random_floats(n, -12, 12), *d = random_floats(n, -2, 2), *out = mem_alloc(n * sizeof(float)),
              *dx = mem_alloc(n * sizeof(float));
        x[0] = -50.0f;
        gelu_forward(out, x, n);
        gelu_backward(dx, d, x, n);
        assert_slope(out, dx, d, x, n);
        for (size_t i = 0; i < n; i++) {
            double h = 1e-5, slope = (gelu((double)x[i] + h) - gelu((double)x[i] - h)) / (2.0 * h);
            assert_near(out[i], gelu((double)x[i]), 1e-6);
            assert_near(dx[i], (double)d[i] * slope, 3e-6);
        }
        free(x), free(d), free(out), free(dx);
    }
}

static void softmax_agrees_with_its_twin(void **state) {
    (void)state;
    for (int round = 0; round < 200; round++) {
        int n = (int)random_in(&rng, 1, 150);
        float *x = random_floats((size_t)n, -30, 30), *p = mem_alloc((size_t)n * sizeof(float)), max, sum;
        double top = -INFINITY, total = 0;
        memcpy(p, x, (size_t)n * sizeof(float));
        softmax_exp(p, n, &max, &sum);
        vector_scale(p, 1.0f / sum, (size_t)n);
        for (int i = 0; i < n; i++) top = fmax(top, (double)x[i]);
        for (int i = 0; i < n; i++) total += exp((double)x[i] - top);
        for (int i = 0; i < n; i++) assert_near(p[i], exp((double)x[i] - top) / total, 1e-6);
        assert_true((double)max == top);
        free(x), free(p);
    }
}

static void sums_of_columns_agree_with_their_twin(void **state) {
    (void)state;
    for (int round = 0; round < 100; round++) {
        int rows = (int)random_in(&rng, 1, 30), N = (int)random_in(&rng, 1, 150), column = (int)random_in(&rng, 0, (uint64_t)N - 1),
            columns = N - column;
        float *x = random_floats((size_t)rows * (size_t)N, -1, 1), *sum = random_floats((size_t)N, -1, 1),
              *was = mem_alloc((size_t)N * sizeof(float));
        memcpy(was, sum, (size_t)N * sizeof(float));
        column_sums(sum, x, rows, N, column, columns, round % 2);
        for (int c = column; c < N; c++) {
            double wanted = round % 2 ? (double)was[c] : 0.0;
            for (int r = 0; r < rows; r++) wanted += (double)x[r * N + c];
            assert_near(sum[c], wanted, 1e-5);
        }
        assert_memory_equal(sum, was, (size_t)column * sizeof(float));
        free(x), free(sum), free(was);
    }
}

static void vectors_agree_with_their_twins(void **state) {
    (void)state;
    for (int round = 0; round < 100; round++) {
        size_t n = random_in(&rng, 1, 100);
        float *x = random_floats(n, -1, 1), *y = random_floats(n, -1, 1), *out = mem_alloc(n * sizeof(float));
        double dot = 0, squares = 0;
        for (size_t i = 0; i < n; i++) dot += (double)x[i] * (double)y[i], squares += (double)x[i] * (double)x[i];
        assert_near(vector_dot(x, y, n), dot, 1e-5);
        assert_true(fabs(kernel_set()->square_sum(x, n) - squares) <= 1e-12 * squares);
        vector_sum_of(out, x, y, n);
        for (size_t i = 0; i < n; i++) assert_true(out[i] == x[i] + y[i]);
        free(x), free(y), free(out);
    }
}

static void a_dropout_mask_is_a_function_of_key_and_element(void **state) {
    (void)state;
    enum { N = 40000 };
    float *whole = mem_alloc(N * sizeof(float)), *parts = mem_alloc(N * sizeof(float));
    for (int i = 0; i < N; i++) whole[i] = parts[i] = 1.0f;
    dropout_apply(whole, 42, 1000, N, 0.3f);
    for (size_t at = 0; at < N;) {
        size_t n = random_in(&rng, 1, 13);
        n = n > N - at ? N - at : n;
        dropout_apply(parts + at, 42, 1000 + at, n, 0.3f);
        at += n;
    }
    assert_memory_equal(whole, parts, N * sizeof(float));
    int dropped = 0;
    for (int i = 0; i < N; i++) dropped += whole[i] == 0.0f;
    assert_in_range(dropped, N * 0.29, N * 0.31);
    dropout_apply(parts, 43, 1000, N, 0.3f);
    assert_memory_not_equal(whole, parts, N * sizeof(float));
    assert_true(dropout_key(1, 2, 3, 4, DROPOUT_EMBEDDING) != dropout_key(1, 2, 3, 4, DROPOUT_ATTENTION));
    assert_true(dropout_key(1, 2, 3, 4, DROPOUT_EMBEDDING) != dropout_key(1, 2, 4, 4, DROPOUT_EMBEDDING));
    free(whole), free(parts);
}

/* Word by word, as the contract says; also where the numbers of blocks pass 32 bits. */
static void every_set_drops_what_philox_says(void **state) {
    (void)state;
    struct sets sets = sets_here();
    for (int round = 0; round < 300; round++) {
        size_t n = random_in(&rng, 1, 150);
        uint64_t key = random_next(&rng), first = random_next(&rng) >> random_in(&rng, 1, 63);
        if (round % 3 == 0) first = (4ull << 32) - random_in(&rng, 0, 150);
        float p = round % 10 ? uniform(0.0f, 0.999f) : 0.0f, *x = random_floats(n, -3, 3), *got = mem_alloc((n + 1) * sizeof(float));
        x[random_in(&rng, 0, n - 1)] = round % 2 ? INFINITY : NAN; /* dropped, they are gone */
        for (size_t s = 0; s < sets.count; s++) {
            memcpy(got, x, (n + 1) * sizeof(float));
            sets.set[s]->dropout_apply(got, key, first, n, p);
            for (size_t i = 0; i < n; i++) {
                uint64_t element = first + i, block = element / 4;
                bool dropped = (double)philox(key, 0, block).word[element % 4] < floor((double)p * 0x1p32);
                float wanted = dropped ? 0.0f : x[i] * (1.0f / (1.0f - p));
                if (isnan(wanted)) assert_true(isnan(got[i]));
                else assert_memory_equal(&got[i], &wanted, sizeof wanted);
            }
            assert_true(got[n] == x[n]);
        }
        free(x), free(got);
    }
}

/* Runs every kernel of one set over the same numbers into one array of results. */
static size_t run_set(const struct kernel_set *k, float *out, const float *in, int rows, int C) {
    size_t n = (size_t)rows * (size_t)C, at = 0;
    float mean[16] = {0}, rstd[16] = {0};
    uint16_t slope[9 * 70];
    struct adam_factors f = {.scale = 0.5f,
                             .shrink = 0.999f,
                             .l2 = 0.2f,
                             .beta1 = 0.9f,
                             .one_minus_beta1 = 0.1f,
                             .beta2 = 0.999f,
                             .one_minus_beta2 = 0.001f,
                             .epsilon = 1e-8f,
                             .step_size = 0.01f,
                             .bias_correction2_sqrt = 0.3f};
    k->layernorm_forward(out, mean, rstd, in, in + 1, in + 2, rows, C, 1e-5f);
    k->layernorm_backward(out + (at += n), in + 5, in, in + 3, mean, rstd, rows, C);
    at += n;
    k->layernorm_backward_weight(out + at, out + at + n, in + 1, in, mean, rstd, rows, C, 0, C, 0);
    k->gelu_forward(out + (at += 2 * n), in, n);
    k->gelu_backward(out + (at += n), in + 7, in, n);
    k->gelu_forward_slope(out + (at += n), slope, in, n);
    k->vector_scale_bf16(out + at, slope, n);
    memcpy(out + (at += n), in, n * sizeof(float));
    k->softmax_exp(out + at, (int)n, &mean[0], &rstd[0]);
    memcpy(out + (at += n), mean, sizeof mean), memcpy(out + (at += 16), rstd, sizeof rstd);
    out[at += 16] = k->vector_dot(in, in + 3, n);
    k->column_sums(out + ++at, in, rows, C, 0, C, 0);
    memcpy(out + (at += n), in, n * sizeof(float));
    k->dropout_apply(out + at, 7, 3, n, 0.2f);
    double squares = k->square_sum(in, n);
    memcpy(out + (at += n), &squares, sizeof squares);
    float *p = out + (at += 2), *m = out + (at += n), *v = out + (at += n);
    memcpy(p, in, n * sizeof(float));
    k->adamw_update(p, m, v, in + 4, n, &f);
    k->adam_update(p, m, v, in + 5, n, &f);
    k->sgd_update(p, m, in + 6, n, &(struct sgd_factors){0.5f, 0.2f, 0.9f, 0.01f, 0});
    k->sgd_update(p, m, in + 2, n, &(struct sgd_factors){0.5f, 0.2f, 0.9f, 0.01f, 1});
    k->sgd_update(p, NULL, in + 3, n, &(struct sgd_factors){.scale = 0.5f, .l2 = 0.2f, .step_size = 0.01f});
    k->ema_update(v, p, 0.1f, n);
    k->normal_fill(out + (at += n), 5, 11, n, 0.02f);
    return at + n;
}

/* Packing has no rounding but that to bfloat16, in one way: every set packs the same words. Pairs are only of sets that multiply them. */
static size_t pack_with_set(const struct kernel_set *k, float *out, const float *in, int rows, int C) {
    size_t at = 0;
    for (int mode = PACK_FLOAT; mode <= PACK_ROUNDED; mode++) {
        float *place[PACK_COLUMNS / 8];
        int lanes = (C + 7) / 8 * 8;
        for (int row = 0; row < rows; row += 8, at += 8 * (size_t)C)
            k->pack_rows(out + at, 8, in + row * C, (size_t)C, rows - row < 8 ? rows - row : 8, C, (enum pack_mode)mode);
        for (int i = 0; i < lanes; i += 8) place[i / 8] = out + at + i;
        k->pack_columns(place, lanes, in, (size_t)C, C, rows, (enum pack_mode)mode);
        at += (size_t)rows * (size_t)lanes;
    }
    return at;
}

static void all_instruction_sets_give_the_same_bits(void **state) {
    (void)state;
    struct sets sets = sets_here();
    for (int round = 0; round < 200; round++) {
        int rows = (int)random_in(&rng, 1, 9), C = (int)random_in(&rng, 1, 70);
        size_t room = (size_t)rows * (size_t)C * 21 + 200, packed = 2 * (16 + 16) * 72;
        float *in = random_floats(room, -4, 4), *a = mem_alloc((room + packed) * sizeof(float)),
              *b = mem_alloc((room + packed) * sizeof(float));
        size_t size = run_set(&kernel_set_portable, a, in, rows, C);
        assert_true(size <= room && pack_with_set(&kernel_set_portable, a + room, in, rows, C) <= packed);
        for (size_t s = 0; s < sets.count; s++) {
            memset(b, 0, (room + packed) * sizeof(float));
            assert_int_equal(run_set(sets.set[s], b, in, rows, C), size);
            pack_with_set(sets.set[s], b + room, in, rows, C);
            assert_memory_equal(a, b, (room + packed) * sizeof(float));
        }
        free(in), free(a), free(b);
    }
}

static void normal_numbers_have_the_moments_of_the_normal_distribution(void **state) {
    (void)state;
    enum { N = 1000000 };
    float *x = mem_alloc(N * sizeof(float)), some[37];
    double moment[5] = {0}, neighbours = 0;
    int beyond = 0;
    kernel_set()->normal_fill(x, 77, 0, N, 1.0f);
    for (int i = 0; i < N; i++) {
        double y = (double)x[i], power = 1.0;
        for (int k = 1; k <= 4; k++) moment[k] += (power *= y) / N;
        if (i % 2) neighbours += y * (double)x[i - 1] / (N / 2.0);
        beyond += fabs(y) > 1.959964;
    }
    assert_true(fabs(moment[1]) < 0.005 && fabs(moment[2] - 1.0) < 0.007 && fabs(moment[3]) < 0.02 && fabs(moment[4] - 3.0) < 0.05);
    assert_true(fabs(neighbours) < 0.007);
    assert_in_range(beyond, 0.049 * N, 0.051 * N);
    kernel_set()->normal_fill(some, 77, 101, 37, 1.0f); /* a function of the element, not of where a call begins */
    assert_memory_equal(some, x + 101, sizeof some);
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_log_and_cos_agree_with_the_c_library),
        cmocka_unit_test(not_a_number_stays_one),
        cmocka_unit_test(layernorm_agrees_with_its_twin),
        cmocka_unit_test(gelu_agrees_with_its_twin),
        cmocka_unit_test(softmax_agrees_with_its_twin),
        cmocka_unit_test(sums_of_columns_agree_with_their_twin),
        cmocka_unit_test(vectors_agree_with_their_twins),
        cmocka_unit_test(a_dropout_mask_is_a_function_of_key_and_element),
        cmocka_unit_test(every_set_drops_what_philox_says),
        cmocka_unit_test(all_instruction_sets_give_the_same_bits),
        cmocka_unit_test(normal_numbers_have_the_moments_of_the_normal_distribution),
    };
    return cmocka_run_group_tests(tests, open_random, NULL);
}
