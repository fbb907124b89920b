/* Generation's kernels against sums in float64, and the instruction sets against each other, over shapes that fit no vector. */
#include "model/kernels/stripes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/kernels/kernels.h"
#include "tests/unit/model/small_model.h"

enum { K_MAX = 700, N_MAX = 200, ROWS_MAX = 19 };
static const enum weights_type TYPES[] = {WEIGHTS_FP32, WEIGHTS_BF16, WEIGHTS_INT8};

static struct stripes laid_out(enum weights_type type, const float *w, int K, int N, bool transposed, bool *finite) {
    struct stripes m = {type, K, N, NULL};
    assert_int_equal(mem_try(&m.data, stripes_bytes(&m), 1), 0);
    *finite = true;
    for (size_t s = 0; s < stripes_count(&m); s++) {
        size_t k_step = transposed ? 1 : (size_t)N, j_step = transposed ? (size_t)K : 1;
        *finite &= stripes_fill(&m, s, w + s * STRIPE * j_step, k_step, j_step);
    }
    return m;
}

/* out (rows, N). */
static void multiply(float *out, const struct stripe_kernels *kernels, const struct stripes *m, const float *x, int rows) {
    size_t blocks = ((size_t)m->K + INT8_BLOCK - 1) / INT8_BLOCK, pitch = stripes_count(m) * STRIPE;
    struct int8_block *q = mem_alloc((size_t)rows * blocks * sizeof *q);
    for (int r = 0; r < rows; r++) kernels->quantize(q + (size_t)r * blocks, x + (size_t)r * (size_t)m->K, m->K);
    bool int8 = m->type == WEIGHTS_INT8;
    for (size_t s = 0; s < stripes_count(m); s++)
        stripes_product(kernels, m->type)(out + s * STRIPE, pitch, int8 ? (const void *)q : x, int8 ? blocks : (size_t)m->K,
                                          stripes_at(m, s), rows, m->K);
    free(q);
}

/* How far a weight may be from what it was: half a step of the last digit. */
static double rounding(enum weights_type type, const float *w, int K, int N, bool transposed, int k, int j) {
    double value = fabs((double)w[transposed ? j * K + k : k * N + j]), most = 0;
    if (type == WEIGHTS_FP32) return 0;
    if (type == WEIGHTS_BF16) return value / 256;
    int first = k / INT8_BLOCK * INT8_BLOCK, end = first + INT8_BLOCK < K ? first + INT8_BLOCK : K;
    for (int i = first; i < end; i++) most = fmax(most, fabs((double)w[transposed ? j * K + i : i * N + j]));
    return most / 127 * (0.5 + 1.0 / 128); /* the scale is rounded up */
}

static void columns_are_the_weights_within_their_rounding(void **state) {
    (void)state;
    struct random random = random_open("columns_are_the_weights_within_their_rounding");
    float *w = mem_alloc(sizeof(float) * K_MAX * N_MAX), column[K_MAX];
    for (int round = 0; round < 24; round++) {
        enum weights_type type = TYPES[round % 3];
        bool transposed = random_in(&random, 0, 1), finite;
        int K = (int)random_in(&random, 1, K_MAX), N = round < 3 ? 131 : (int)random_in(&random, 1, N_MAX);
        float size = powf(10, random_float(&random, 6)); /* tiny ones too */
        for (int i = 0; i < K * N; i++) w[i] = random_float(&random, size);
        struct stripes m = laid_out(type, w, K, N, transposed, &finite);
        assert_true(finite);
        for (int j = 0; j < N; j++) {
            stripes_column(column, &m, j);
            for (int k = 0; k < K; k++) {
                double value = (double)w[transposed ? j * K + k : k * N + j];
                if (fabs((double)column[k] - value) > rounding(type, w, K, N, transposed, k, j))
                    fail_msg("seed %llu: type %d (%d, %d): element %d %d is %g instead of %g", (unsigned long long)random.seed, type, K, N,
                             k, j, (double)column[k], value);
            }
        }
        free(m.data);
    }
    free(w);
}

/* The product of what the stripes and the quantized rows hold, in float64. */
static double twin(double *size, const float *column, const float *x, const struct int8_block *q, int K) {
    double sum = 0;
    *size = 0;
    for (int k = 0; k < K; k++) {
        const struct int8_block *block = q ? &q[k / INT8_BLOCK] : NULL;
        double value = block ? (double)block->scale * block->q[k % INT8_BLOCK] : (double)x[k];
        sum += value * (double)column[k];
        *size += fabs(value * (double)column[k]);
    }
    return sum;
}

static void products_are_those_of_float64_and_the_same_in_every_set(void **state) {
    (void)state;
    struct random random = random_open("products_are_those_of_float64_and_the_same_in_every_set");
    float *w = mem_alloc(sizeof(float) * K_MAX * N_MAX), *x = mem_alloc(sizeof(float) * K_MAX * ROWS_MAX);
    size_t out_bytes = sizeof(float) * ROWS_MAX * (N_MAX + STRIPE);
    float *first = mem_alloc(out_bytes), *other = mem_alloc(out_bytes), column[K_MAX];
    struct int8_block q[K_MAX / INT8_BLOCK + 1];
    for (int round = 0; round < 60; round++) {
        enum weights_type type = TYPES[round % 3];
        int K = (int)random_in(&random, 1, K_MAX), N = (int)random_in(&random, 1, N_MAX), rows = (int)random_in(&random, 1, ROWS_MAX);
        bool finite;
        for (int i = 0; i < K * N; i++) w[i] = random_float(&random, 2);
        for (int i = 0; i < K * rows; i++) x[i] = random_float(&random, i % 17 == 3 ? 100 : 1);
        struct stripes m = laid_out(type, w, K, N, false, &finite);
        size_t pitch = stripes_count(&m) * STRIPE;
        const struct stripe_kernels *set;
        for (int s = 0; (set = stripe_kernels_at(s)); s++) {
            memset(other, 0, out_bytes);
            multiply(other, set, &m, x, rows);
            if (s == 0) memcpy(first, other, out_bytes);
            if (memcmp(first, other, out_bytes) != 0)
                fail_msg("seed %llu: type %d (%d, %d, %d): %s differs from %s", (unsigned long long)random.seed, type, rows, K, N,
                         set->name, stripe_kernels_at(0)->name);
            memset(other, 0, out_bytes);
            for (int r = 0; r < rows; r++) multiply(other + (size_t)r * pitch, set, &m, x + (size_t)r * (size_t)K, 1);
            assert_memory_equal(first, other, out_bytes); /* row by row */
        }
        for (int j = 0; j < N; j++) {
            stripes_column(column, &m, j);
            for (int r = 0; r < rows; r++) {
                stripe_kernels()->quantize(q, x + r * K, K);
                double size, exact = twin(&size, column, x + r * K, type == WEIGHTS_INT8 ? q : NULL, K);
                if (!(fabs((double)first[(size_t)r * pitch + (size_t)j] - exact) <= 2e-6 * size + 1e-30))
                    fail_msg("seed %llu: type %d (%d, %d, %d): row %d column %d is %.9g instead of %.9g", (unsigned long long)random.seed,
                             type, rows, K, N, r, j, (double)first[(size_t)r * pitch + (size_t)j], exact);
            }
        }
        free(m.data);
    }
    free(w), free(x), free(first), free(other);
}

static void quantized_rows_are_within_half_a_step_and_keep_nan(void **state) {
    (void)state;
    struct random random = random_open("quantized_rows_are_within_half_a_step_and_keep_nan");
    float x[K_MAX];
    struct int8_block q[K_MAX / INT8_BLOCK + 1], other[K_MAX / INT8_BLOCK + 1];
    const struct stripe_kernels *set;
    for (int round = 0; round < 200; round++) {
        int K = (int)random_in(&random, 1, K_MAX), blocks = (K + INT8_BLOCK - 1) / INT8_BLOCK;
        float size = powf(10, random_float(&random, 20));
        for (int k = 0; k < K; k++) x[k] = round % 9 == 0 ? 0 : random_float(&random, size);
        stripe_kernels_at(0)->quantize(q, x, K);
        for (int s = 1; (set = stripe_kernels_at(s)); s++) {
            set->quantize(other, x, K);
            assert_memory_equal(q, other, (size_t)blocks * sizeof *q);
        }
        for (int b = 0; b < blocks; b++) {
            int sum = 0;
            for (int i = 0; i < INT8_BLOCK; i++) {
                double value = b * INT8_BLOCK + i < K ? (double)x[b * INT8_BLOCK + i] : 0, scale = (double)q[b].scale;
                sum += q[b].q[i];
                assert_in_range(q[b].q[i] + 127, 0, 254);
                if (fabs(q[b].q[i] * scale - value) > 0.50001 * scale + 1e-30)
                    fail_msg("seed %llu: %g became %g", (unsigned long long)random.seed, value, q[b].q[i] * scale);
            }
            assert_int_equal(q[b].offset, -128 * sum);
        }
        x[random_in(&random, 0, (uint64_t)K - 1)] = round % 2 ? NAN : INFINITY;
        stripe_kernels()->quantize(q, x, K);
        int bad = 0;
        for (int b = 0; b < blocks; b++) bad += !isfinite(q[b].scale);
        assert_int_equal(bad, 1);
    }
}

static void weights_that_are_no_numbers_do_not_fit_int8(void **state) {
    (void)state;
    float w[3 * 70] = {0};
    bool finite;
    w[140] = NAN;
    for (int i = 0; i < 3; i++) {
        struct stripes m = laid_out(TYPES[i], w, 70, 3, false, &finite);
        float column[70];
        assert_false(finite);
        stripes_column(column, &m, 140 % 3);
        if (TYPES[i] != WEIGHTS_INT8) assert_true(isnan(column[140 / 3]));
        free(m.data);
    }
    enum weights_type type = WEIGHTS_FP32;
    assert_int_equal(weights_type_of(&type, "int8"), 0);
    assert_int_equal(type, WEIGHTS_INT8);
    assert_int_equal(weights_type_of(&type, "int4"), ERR_USAGE);
    assert_int_equal(type, WEIGHTS_INT8);
}

static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    static const struct {
        float x;
        uint16_t bits;
    } known[] = {{1.0f, 0x3f80},
                 {-2.5f, 0xc020},
                 {1.00390625f, 0x3f80} /* a tie: even is below */,
                 {1.01171875f, 0x3f82} /* a tie: even is above */,
                 {3.4e38f, 0x7f80},
                 {1e-40f, 0x0001}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) assert_int_equal(bf16_of(known[i].x), known[i].bits);
    assert_true(isnan(bf16_widen(bf16_of(NAN))));
    for (uint32_t bits = 0; bits < 0x7f80; bits++) assert_int_equal(bf16_of(bf16_widen((uint16_t)bits)), bits);
}

static void trainings_kernels_choose_generations(void **state) {
    (void)state;
    const struct stripe_kernels *set;
    for (int i = 0; (set = stripe_kernels_at(i)); i++) {
        if (kernels_choose(set->name) == 0) assert_ptr_equal(stripe_kernels(), set);
    }
    assert_int_equal(kernels_choose(NULL), 0);
    assert_ptr_equal(stripe_kernels(), stripe_kernels_at(0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_the_weights_within_their_rounding),
        cmocka_unit_test(products_are_those_of_float64_and_the_same_in_every_set),
        cmocka_unit_test(quantized_rows_are_within_half_a_step_and_keep_nan),
        cmocka_unit_test(weights_that_are_no_numbers_do_not_fit_int8),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(trainings_kernels_choose_generations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
