/* Products of packed matrices against a naive twin in float64, over random and mostly odd shapes, by every set of kernels: the same bits
 * for any number of threads and for every set of a family. Whole numbers, whose sums are exact, must come out exactly. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/kernels/openblas.h"
#include "model/kernels/product.h"
#include "tests/unit/model/sets.h"
#include "tests/unit/random.h"

enum { THREADS = 4, WORK_MAX = 2000000, GUARD = 5 };

static struct random rng;
static struct pool *pools[THREADS]; /* of 1, 2, .. threads */

static int start(void **state) {
    (void)state;
    rng = random_open("products");
    for (int i = 0; i < THREADS; i++) assert_int_equal(pool_open(&pools[i], i + 1), 0);
    return openblas_setup();
}

static int end(void **state) {
    (void)state;
    for (int i = 0; i < THREADS; i++) pool_close(pools[i]);
    kernel_set_use(NULL);
    return 0;
}

/* To nearest and to even, by arithmetic: eight bits of significand are left. */
static float to_bf16(float x) {
    int exponent;
    if (!isfinite(x) || x == 0.0f) return x;
    frexp((double)x, &exponent);
    double unit = ldexp(1.0, exponent < -125 ? -133 : exponent - 8);
    return (float)(nearbyint((double)x / unit) * unit);
}

static float random_value(bool whole) {
    uint64_t bits = random_next(&rng);
    return whole ? (float)(bits % 17) - 8.0f : (float)(int32_t)bits * 0x1p-31f;
}

/* ---- packing ---- */

static float random_bits(void) {
    uint32_t bits = (uint32_t)random_next(&rng);
    float x;
    if (bits % 4 == 0) bits &= 0xffff8000u; /* halfway between two, or one itself */
    if (bits % 37 == 0) bits = (bits & 0x80000000u) | 0x7f7fffffu;
    if (bits % 41 == 0) bits = (bits & 0x80000000u) | 0x7f800000u;
    if (bits % 43 == 0) bits = 0x7f800001u | (bits & 0x8000ffffu); /* NaN whose upper half says infinity */
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* What a packed matrix holds for row or column i and element k of depth. */
static float unpacked(const struct packed_matrix *m, int i, int k) {
    uint32_t word;
    float x;
    memcpy(&word, packed_at(m, i, k) + i % m->width, sizeof word);
    if (m->mode == PACK_PAIRS) word = k % 2 ? word & 0xffff0000u : word << 16;
    memcpy(&x, &word, sizeof x);
    return x;
}

static void compare_packing(enum packed_side side, bool bf16, bool by_rows) {
    int count = (int)random_in(&rng, 1, 300), depth = (int)random_in(&rng, 1, 300), ld = (by_rows ? depth : count) + GUARD;
    float *x = mem_alloc((size_t)(by_rows ? count : depth) * (size_t)ld * sizeof *x), *words;
    for (int i = 0; i < (by_rows ? count : depth) * ld; i++) x[i] = random_bits();
    assert_int_equal(mem_try(&words, packed_words(side, count, depth, bf16), sizeof *words), 0);
    struct packed_matrix m = packed_over(words, side, count, depth, bf16);
    if (by_rows) pack_all_rows(pools[1], &m, x, (size_t)ld);
    else pack_all_columns(pools[1], &m, x, (size_t)ld);
    for (int i = 0; i < count; i++)
        for (int k = 0; k < m.steps * (m.mode == PACK_PAIRS ? 2 : 1); k++) {
            float got = unpacked(&m, i, k), wanted = k >= depth ? 0.0f : by_rows ? x[i * ld + k] : x[k * ld + i];
            if (m.mode == PACK_PAIRS && fpclassify(wanted) == FP_SUBNORMAL) wanted = copysignf(0.0f, wanted);
            if (bf16) wanted = to_bf16(wanted);
            if (isnan(wanted)) assert_true(isnan(got));
            else assert_memory_equal(&got, &wanted, sizeof got);
        }
    free(x), free(words);
}

static void packing_keeps_every_element_and_rounds_bfloat16_to_nearest_even(void **state) {
    (void)state;
    struct sets sets = sets_here();
    assert_true(to_bf16(1.00390625f) == 1.0f && to_bf16(1.01171875f) == 1.015625f && isinf(to_bf16(3.4e38f)));
    for (size_t s = 0; s < sets.count; s++)
        for (int round = 0; round < 24; round++) {
            kernel_set_use(sets.set[s]);
            compare_packing(round & 1 ? PACKED_LEFT : PACKED_RIGHT, round & 2, round & 4);
        }
}

/* ---- whole products ---- */

/* out (M, N) = a (M, K) b (K, N) + bias, on top of `before`. Matrices have rows wider than they need. */
struct task {
    int M, N, K;
    bool by_rows[2], add, with_bias, whole;
    int block_columns;
    size_t ld[2], out_ld;
    float *x[2], *bias, *before; /* x: as it lies in memory; before (M, out_ld) */
};

static int random_size(int most) {
    static const int edges[] = {1,   2,   7,   8,   9,   15,  17,  31,  32,  33,   63,   65,  127,
                                128, 129, 255, 256, 257, 500, 511, 512, 513, 1024, 1025, 1100};
    int size = random_in(&rng, 0, 2) ? edges[random_in(&rng, 0, sizeof edges / sizeof *edges - 1)] : (int)random_in(&rng, 1, 300);
    return size < most ? size : (int)random_in(&rng, 1, (uint64_t)most);
}

static float *random_values(size_t count, bool whole) {
    float *values = mem_alloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++) values[i] = random_value(whole);
    return values;
}

static struct task random_task(void) {
    struct task t = {.add = random_in(&rng, 0, 1), .with_bias = random_in(&rng, 0, 1), .whole = random_in(&rng, 0, 1)};
    int *size[] = {&t.M, &t.N, &t.K};
    int first = (int)random_in(&rng, 0, 2); /* which of them may be as large as it likes */
    for (int i = 0, left = WORK_MAX; i < 3; i++) {
        int *at = size[(first + i) % 3];
        *at = random_size(left < 1100 ? left : 1100), left /= *at;
    }
    t.block_columns = random_in(&rng, 0, 2) ? 0 : 256;
    t.out_ld = (size_t)t.N + random_in(&rng, 0, GUARD);
    for (int side = 0; side < 2; side++) {
        int count = side ? t.N : t.M;
        t.by_rows[side] = random_in(&rng, 0, 1);
        t.ld[side] = (size_t)(t.by_rows[side] ? t.K : count) + random_in(&rng, 0, GUARD);
        t.x[side] = random_values((size_t)(t.by_rows[side] ? count : t.K) * t.ld[side], t.whole);
    }
    t.bias = random_values((size_t)t.N, t.whole), t.before = random_values((size_t)t.M * t.out_ld, t.whole);
    return t;
}

static void task_free(struct task *t) { free(t->x[0]), free(t->x[1]), free(t->bias), free(t->before); }

/* Row or column i of one side, at depth k. */
static float *element(const struct task *t, int side, int i, int k) {
    return t->x[side] + (t->by_rows[side] ? (size_t)i * t->ld[side] + (size_t)k : (size_t)k * t->ld[side] + (size_t)i);
}

static double *side_in_double(const struct task *t, int side, bool bf16) { /* (count, K) */
    int count = side ? t->N : t->M;
    double *values = mem_alloc((size_t)count * (size_t)t->K * sizeof *values);
    for (int i = 0; i < count; i++)
        for (int k = 0; k < t->K; k++) {
            float x = *element(t, side, i, k);
            values[(size_t)i * (size_t)t->K + (size_t)k] = (double)(bf16 ? to_bf16(x) : x);
        }
    return values;
}

struct twin {
    double *value, *size; /* (M, N): the products, and the sum of what was added, without signs */
};

static struct twin twin_of(const struct task *t, bool bf16) {
    size_t cells = (size_t)t->M * (size_t)t->N;
    struct twin twin = {mem_alloc(cells * sizeof(double)), mem_alloc(cells * sizeof(double))};
    double *a = side_in_double(t, 0, bf16), *b = side_in_double(t, 1, bf16);
    for (int i = 0; i < t->M; i++)
        for (int j = 0; j < t->N; j++) {
            const double *x = a + (size_t)i * (size_t)t->K, *y = b + (size_t)j * (size_t)t->K;
            double before = t->add ? (double)t->before[(size_t)i * t->out_ld + (size_t)j] : 0.0,
                   bias = t->with_bias ? (double)t->bias[j] : 0.0, value = before + bias, size = fabs(before) + fabs(bias);
            for (int k = 0; k < t->K; k++) value += x[k] * y[k], size += fabs(x[k] * y[k]);
            twin.value[(size_t)i * (size_t)t->N + (size_t)j] = value, twin.size[(size_t)i * (size_t)t->N + (size_t)j] = size;
        }
    free(a), free(b);
    return twin;
}

/* What product_run() said of its blocks. */
struct seen {
    const struct task *t;
    float *out;
    int *times;  /* (M, N) */
    float *copy; /* (M, N) */
};

static void see_block(void *arg, int row, int rows, int column, int columns) {
    struct seen *s = arg;
    size_t N = (size_t)s->t->N;
    if (row % 8 || column % 32) return; /* and is found missing */
    for (int i = row; i < row + rows; i++)
        for (int j = column; j < column + columns; j++) {
            s->times[(size_t)i * N + (size_t)j]++;
            s->copy[(size_t)i * N + (size_t)j] = s->out[(size_t)i * s->t->out_ld + (size_t)j];
        }
}

/* (M, out_ld), by the set in use. */
static float *product_of(const struct task *t, bool bf16, struct pool *pool) {
    size_t cells = (size_t)t->M * (size_t)t->N;
    struct packed_matrix side[2];
    float *words[2], *out = mem_alloc((size_t)t->M * t->out_ld * sizeof *out);
    struct seen seen = {t, out, mem_alloc(cells * sizeof(int)), mem_alloc(cells * sizeof(float))};
    memset(seen.times, 0, cells * sizeof(int));
    memcpy(out, t->before, (size_t)t->M * t->out_ld * sizeof *out);
    for (int i = 0; i < 2; i++) {
        enum packed_side which = i ? PACKED_RIGHT : PACKED_LEFT;
        size_t size = packed_words(which, i ? t->N : t->M, t->K, bf16);
        assert_int_equal(mem_try(&words[i], size, sizeof(float)), 0);
        memset(words[i], 0xff, size * sizeof(float)); /* NaN: what is not packed must not matter */
        side[i] = packed_over(words[i], which, i ? t->N : t->M, t->K, bf16);
        if (t->by_rows[i]) pack_all_rows(pool, &side[i], t->x[i], t->ld[i]);
        else pack_all_columns(pool, &side[i], t->x[i], t->ld[i]);
    }
    product_run(pool, &(struct product){.name = "test",
                                        .out = out,
                                        .ld = t->out_ld,
                                        .a = &side[0],
                                        .b = &side[1],
                                        .bias = t->with_bias ? t->bias : NULL,
                                        .add = t->add,
                                        .block_columns = t->block_columns,
                                        .after = see_block,
                                        .arg = &seen});
    for (int i = 0; i < t->M; i++) {
        const float *line = out + (size_t)i * t->out_ld;
        for (int j = 0; j < t->N; j++) assert_int_equal(seen.times[(size_t)i * (size_t)t->N + (size_t)j], 1);
        assert_memory_equal(line, seen.copy + (size_t)i * (size_t)t->N, (size_t)t->N * sizeof(float));
        assert_memory_equal(line + t->N, t->before + (size_t)i * t->out_ld + t->N, (t->out_ld - (size_t)t->N) * sizeof(float));
    }
    free(words[0]), free(words[1]), free(seen.times), free(seen.copy);
    return out;
}

/* No order of K roundings, or of twice as many, can be further off than this. */
static double error_bound(const struct task *t, const struct twin *twin, size_t cell) {
    return t->whole ? 0.0 : (2 * t->K + 4) * 0x1p-24 * twin->size[cell];
}

static void assert_is_twin(const struct task *t, const float *out, const struct twin *twin, const char *set) {
    for (int i = 0; i < t->M; i++)
        for (int j = 0; j < t->N; j++) {
            size_t cell = (size_t)i * (size_t)t->N + (size_t)j;
            double got = (double)out[(size_t)i * t->out_ld + (size_t)j];
            if (!(fabs(got - twin->value[cell]) <= error_bound(t, twin, cell)))
                fail_msg("%s: (%d, %d) of M=%d N=%d K=%d is %.9g, not %.9g", set, i, j, t->M, t->N, t->K, got, twin->value[cell]);
        }
}

static void compare_product(const struct task *t, bool bf16) {
    struct sets sets = sets_here();
    struct twin twin = twin_of(t, bf16);
    size_t bytes = (size_t)t->M * t->out_ld * sizeof(float);
    float *first[FAMILIES] = {NULL};
    for (size_t s = 0; s < sets.count; s++) {
        kernel_set_use(sets.set[s]);
        enum family family = family_of(sets.set[s], bf16);
        for (int i = 0; i < THREADS; i++) {
            float *out = product_of(t, bf16, pools[i]);
            if (i == 0) assert_is_twin(t, out, &twin, sets.set[s]->name);
            if (first[family]) {
                assert_memory_equal(out, first[family], bytes);
                free(out);
            } else first[family] = out;
        }
    }
    for (int i = 0; i < FAMILIES; i++) free(first[i]);
    free(twin.value), free(twin.size);
}

static void products_agree_with_their_twin_by_every_set_on_any_number_of_threads(void **state) {
    (void)state;
    for (int round = 0; round < 40; round++) {
        struct task t = random_task();
        compare_product(&t, false);
        compare_product(&t, true);
        task_free(&t);
    }
}

/* A change of one element reaches all of its row or column, and nothing else. */
static void change_one(const struct task *t, bool bf16, int side) {
    int changed = (int)random_in(&rng, 0, (uint64_t)(side ? t->N : t->M) - 1), depth = (int)random_in(&rng, 0, (uint64_t)t->K - 1);
    float *x = element(t, side, changed, depth), was = *x, *before = product_of(t, bf16, pools[0]);
    *x = 9.0f;
    float *after = product_of(t, bf16, pools[0]);
    *x = was;
    for (int i = 0; i < t->M; i++)
        for (int j = 0; j < t->N; j++) {
            size_t at = (size_t)i * t->out_ld + (size_t)j;
            bool concerned = (side ? j : i) == changed && *element(t, !side, side ? i : j, depth) != 0.0f;
            assert_true((before[at] != after[at]) == concerned);
        }
    free(before), free(after);
}

static void one_changed_element_changes_its_row_or_column_alone(void **state) {
    (void)state;
    struct sets sets = sets_here();
    for (int round = 0; round < 12; round++) {
        struct task t = random_task();
        for (int side = 0; side < 2; side++) {
            size_t size = (size_t)((t.by_rows[side] ? (side ? t.N : t.M) : t.K)) * t.ld[side];
            for (size_t i = 0; i < size; i++) t.x[side][i] = random_value(true); /* exact, so that no change is lost */
        }
        for (size_t s = 0; s < sets.count; s++) {
            kernel_set_use(sets.set[s]);
            change_one(&t, round % 2, round % 4 / 2);
        }
        task_free(&t);
    }
}

/* ---- strips of tiles ---- */

static void assert_strip(const float *out, const struct task *t, const struct twin *twin, int column, int times) {
    for (int i = 0; i < (t->M + 1) * TILE_COLUMNS; i++) {
        int row = i / TILE_COLUMNS, at = column + i % TILE_COLUMNS;
        size_t cell = (size_t)row * (size_t)t->N + (size_t)at;
        if (row >= t->M || at >= t->N) assert_true(isnan(out[i]));
        else assert_true(fabs((double)out[i] - times * twin->value[cell]) <= times * error_bound(t, twin, cell));
    }
}

static void compare_strips(const struct task *t, bool bf16, const struct twin *twin) {
    struct packed_matrix side[2];
    float *words[2], *out = mem_alloc((size_t)(t->M + 1) * TILE_COLUMNS * sizeof(float));
    for (int i = 0; i < 2; i++) {
        enum packed_side which = i ? PACKED_RIGHT : PACKED_LEFT;
        int count = i ? t->N : t->M;
        assert_int_equal(mem_try(&words[i], packed_small_words(which, count, t->K, bf16), sizeof(float)), 0);
        side[i] = packed_small(words[i], which, count, t->K, bf16);
        if (t->by_rows[i]) pack_rows(&side[i], t->x[i], t->ld[i], 0, count, 0, t->K);
        else pack_columns(&side[i], t->x[i], t->ld[i], 0, count, 0, t->K);
    }
    for (int column = 0; column < t->N; column += TILE_COLUMNS) {
        for (int i = 0; i < (t->M + 1) * TILE_COLUMNS; i++) out[i] = NAN;
        product_strip(out, TILE_COLUMNS, &side[0], t->M, &side[1], column, t->K, false);
        assert_strip(out, t, twin, column, 1);
        product_strip(out, TILE_COLUMNS, &side[0], t->M, &side[1], column, t->K, true);
        assert_strip(out, t, twin, column, 2);
    }
    free(words[0]), free(words[1]), free(out);
}

static void strips_agree_with_their_twin_and_write_no_further(void **state) {
    (void)state;
    struct sets sets = sets_here();
    for (int round = 0; round < 40; round++) {
        struct task t = random_task();
        t.add = t.with_bias = false;
        if (t.M > 40) t.M = (int)random_in(&rng, 1, 40);
        if (t.N > 70) t.N = (int)random_in(&rng, 1, 70);
        struct twin twin = twin_of(&t, round % 2);
        for (size_t s = 0; s < sets.count; s++) {
            kernel_set_use(sets.set[s]);
            compare_strips(&t, round % 2, &twin);
        }
        free(twin.value), free(twin.size);
        task_free(&t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packing_keeps_every_element_and_rounds_bfloat16_to_nearest_even),
        cmocka_unit_test(products_agree_with_their_twin_by_every_set_on_any_number_of_threads),
        cmocka_unit_test(one_changed_element_changes_its_row_or_column_alone),
        cmocka_unit_test(strips_agree_with_their_twin_and_write_no_further),
    };
    return cmocka_run_group_tests(tests, start, end);
}
