/* Packed documents do not see each other: attention against a naive twin in float64 over random shapes and by every set of kernels, a
 * packed sequence against its documents one by one, and the same bits for any number of threads and whatever the neighbours say. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/gpt2/attention.h"
#include "model/gpt2/gpt2.h"
#include "model/kernels/kernels.h"
#include "model/kernels/openblas.h"
#include "model/optim/optimizer.h"
#include "model/trial/self_test.h"
#include "tests/unit/model/sets.h"
#include "tests/unit/model/small_model.h"
#include "tests/unit/random.h"

enum { POSITIONS = 200, HEAD_MAX = 96, VOCABULARY = 41, EOS = 17, KEY = 99 };

/* ---- attention ---- */

static void random_floats(float *out, size_t count, struct random *random) {
    for (size_t i = 0; i < count; i++) out[i] = random_float(random, 2.0f);
}

/* The first positions of documents of random lengths: short ones, long ones, and runs of single tokens. */
static void random_documents(int *first, int T, struct random *random) {
    int begin = 0, longest = (int)random_in(random, 1, (uint64_t)T);
    for (int t = 0; t < T; t++) {
        if (random_in(random, 1, (uint64_t)longest) == 1 || (t > T - 10 && longest % 2)) begin = t;
        first[t] = t == 0 ? 0 : begin;
    }
}

/* What dropout does to probability (row, column) of this head: 0 or 1 / (1 - p). */
static double kept(const struct attention *a, size_t item, int row, int column) {
    float one = 1.0f;
    uint64_t T = (uint64_t)a->T, element = (((uint64_t)a->first_sequence * (uint64_t)a->NH + item) * T + (uint64_t)row) * T;
    if (a->dropout > 0.0f) dropout_apply(&one, a->dropout_key, element + (uint64_t)column, 1, a->dropout);
    return (double)one;
}

static double *doubles(size_t count) {
    double *values = mem_alloc(count * sizeof *values);
    memset(values, 0, count * sizeof *values);
    return values;
}

/* One row of one head: its output, and what its gradient adds to dq, dk and dv; all in float64, straight from the definition. */
static void naive_row(double *out, double *dqkv, const struct attention *a, int b, int h, int row) {
    int C = a->C, HS = C / a->NH, T = a->T, from = a->first ? a->first[b * T + row] : 0;
    size_t item = (size_t)b * (size_t)a->NH + (size_t)h;
    const float *at = a->qkv + (size_t)b * (size_t)T * 3 * (size_t)C + h * HS,
                *dout = a->dout + ((size_t)b * (size_t)T + (size_t)row) * (size_t)C + h * HS;
    double *gradient = dqkv + (at - a->qkv), p[POSITIONS] = {0}, dp[POSITIONS] = {0}, sum = 0.0, mean = 0.0;
    for (int t = from; t <= row; t++) {
        for (int i = 0; i < HS; i++) p[t] += (double)a->scale * (double)at[row * 3 * C + i] * (double)at[t * 3 * C + C + i];
        sum += p[t] = exp(p[t]);
    }
    for (int t = from; t <= row; t++) {
        double keep = kept(a, item, row, t);
        p[t] /= sum;
        for (int i = 0; i < HS; i++) {
            double v = (double)at[t * 3 * C + 2 * C + i];
            out[((size_t)b * (size_t)T + (size_t)row) * (size_t)C + (size_t)(h * HS + i)] += p[t] * keep * v;
            dp[t] += keep * (double)dout[i] * v;
            gradient[t * 3 * C + 2 * C + i] += p[t] * keep * (double)dout[i];
        }
        mean += p[t] * dp[t];
    }
    for (int t = from; t <= row; t++)
        for (int i = 0; i < HS; i++) {
            double ds = p[t] * (dp[t] - mean) * (double)a->scale;
            gradient[row * 3 * C + i] += ds * (double)at[t * 3 * C + C + i];
            gradient[t * 3 * C + C + i] += ds * (double)at[row * 3 * C + i];
        }
}

static double relative_error(const float *got, const double *wanted, size_t count) {
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)got[i] - wanted[i]) * ((double)got[i] - wanted[i]);
        size += wanted[i] * wanted[i];
    }
    return sqrt(difference) / (sqrt(size) + 1e-30);
}

static void assert_close(const float *got, const double *wanted, size_t count) {
    for (size_t i = 0; i < count; i++) assert_true(fabs((double)got[i] - wanted[i]) < 1e-4 * (1.0 + fabs(wanted[i])));
}

static void run_attention(struct pool *pool, struct attention *a, bool bf16) {
    size_t size = (size_t)a->B * (size_t)a->T * (size_t)a->C;
    for (size_t i = 0; i < size; i++) a->out[i] = NAN; /* must be overwritten, not added to */
    for (size_t i = 0; i < 3 * size; i++) a->dqkv[i] = NAN;
    a->bf16 = bf16;
    assert_int_equal(attention_scratch_open(&a->scratch, pool_threads(pool), a->T, a->C / a->NH, bf16), 0);
    attention_forward(pool, a);
    attention_backward(pool, a);
    attention_scratch_close(a->scratch);
}

/* By every set; those of one family give the same bits. In bfloat16 every element of a matrix is off by up to 2^-9 of itself. */
static void compare_sets(struct attention *a, const double *out, const double *dqkv, struct pool *const pools[2], bool bf16) {
    size_t size = (size_t)a->B * (size_t)a->T * (size_t)a->C;
    struct sets sets = sets_here();
    float *first[FAMILIES] = {NULL};
    for (size_t s = 0; s < 2 * sets.count; s++) {
        kernel_set_use(sets.set[s / 2]);
        run_attention(pools[s % 2], a, bf16);
        if (bf16) assert_true(relative_error(a->out, out, size) < 0.01 && relative_error(a->dqkv, dqkv, 3 * size) < 0.02);
        else assert_close(a->out, out, size), assert_close(a->dqkv, dqkv, 3 * size);
        float **kept = &first[family_of(sets.set[s / 2], bf16)];
        if (*kept) {
            assert_memory_equal(*kept, a->out, size * sizeof(float));
            assert_memory_equal(*kept + size, a->dqkv, 3 * size * sizeof(float));
            continue;
        }
        *kept = mem_alloc(4 * size * sizeof(float));
        memcpy(*kept, a->out, size * sizeof(float)), memcpy(*kept + size, a->dqkv, 3 * size * sizeof(float));
    }
    kernel_set_use(NULL);
    for (int i = 0; i < FAMILIES; i++) free(first[i]);
}

static void compare_attention(struct random *random, struct pool *const pools[2], bool large) {
    int HS = (int)random_in(random, 1, large ? HEAD_MAX : 20), NH = (int)random_in(random, 1, large ? 1 : 3),
        T = (int)random_in(random, 1, POSITIONS);
    struct attention a = {.B = (int)random_in(random, 1, large ? 1 : 3),
                          .T = T,
                          .C = NH * HS,
                          .NH = NH,
                          .scale = 1.0f / sqrtf((float)HS),
                          .first_sequence = 2};
    size_t rows = (size_t)a.B * (size_t)T, C = (size_t)a.C;
    if (random_in(random, 0, 1)) a.dropout = 0.3f, a.dropout_key = random_next(random);
    float *qkv = mem_alloc(rows * 3 * C * sizeof(float)), *dout = mem_alloc(rows * C * sizeof(float));
    int *first = mem_alloc(rows * sizeof(int));
    random_floats(qkv, rows * 3 * C, random), random_floats(dout, rows * C, random);
    for (int b = 0; b < a.B; b++) random_documents(first + b * T, T, random);
    a.qkv = qkv, a.dout = dout, a.first = random_in(random, 0, 4) ? first : NULL;
    a.out = mem_alloc(rows * C * sizeof(float)), a.dqkv = mem_alloc(rows * 3 * C * sizeof(float));
    a.max = mem_alloc(rows * (size_t)NH * sizeof(float)), a.factor = mem_alloc(rows * (size_t)NH * sizeof(float));
    double *out = doubles(rows * C), *dqkv = doubles(rows * 3 * C);
    for (int b = 0; b < a.B; b++)
        for (int h = 0; h < NH; h++)
            for (int row = 0; row < T; row++) naive_row(out, dqkv, &a, b, h, row);
    compare_sets(&a, out, dqkv, pools, false);
    compare_sets(&a, out, dqkv, pools, true);
    free(qkv), free(dout), free(first), free(a.out), free(a.dqkv), free(a.max), free(a.factor), free(out), free(dqkv);
}

static void attention_agrees_with_its_naive_twin_over_random_shapes_and_documents(void **state) {
    (void)state;
    struct random random = random_open("attention");
    struct pool *pools[2];
    assert_int_equal(pool_open(&pools[0], 1), 0);
    assert_int_equal(pool_open(&pools[1], 3), 0);
    assert_int_equal(openblas_setup(), 0);
    for (int round = 0; round < 75; round++) compare_attention(&random, pools, round % 3 == 0);
    pool_close(pools[0]), pool_close(pools[1]);
}

/* ---- the model ---- */

static struct gpt2_config shape(bool mask) {
    struct gpt2_config config = small_config();
    config.n_positions = POSITIONS, config.vocab_size = VOCABULARY, config.n_layer = 2, config.eos_token_id = EOS;
    config.document_mask = mask;
    return config;
}

/* B sequences of documents in which EOS is the last token alone, and targets of which some do not count. */
struct packed {
    int B, T;
    int32_t tokens[3 * POSITIONS], targets[3 * POSITIONS];
};

static struct packed random_packed(struct random *random, uint64_t longest) {
    struct packed packed = {.B = (int)random_in(random, 1, 3), .T = (int)random_in(random, 1, POSITIONS)};
    for (int i = 0; i < packed.B * packed.T; i++) {
        bool ends = random_in(random, 1, longest) == 1 || (i % packed.T > packed.T - 9 && longest % 2); /* the latter: padding */
        packed.tokens[i] = ends ? EOS : (int32_t)random_in(random, EOS + 1, VOCABULARY - 1);
        packed.targets[i] = random_in(random, 0, 5) ? (int32_t)random_in(random, 0, VOCABULARY - 1) : -1;
    }
    return packed;
}

struct answer {
    double loss;
    uint64_t counted;
    float *grads;
};

static struct answer answer_of(const struct gpt2_config *config, const float *params, const int32_t *tokens, const int32_t *targets, int B,
                               int T, int threads, bool dropout) {
    struct answer answer = {.grads = mem_alloc(gpt2_parameters(config) * sizeof(float))};
    struct gpt2_random random = {.seed = KEY, .step = 1, .slice = 2};
    struct pool *pool;
    struct gpt2 *model;
    assert_int_equal(pool_open(&pool, threads), 0);
    assert_int_equal(gpt2_open(&model, config, B > 1 ? B - 1 : 1, T, true, pool), 0); /* several sequences: in two parts */
    gpt2_gradient(model, answer.grads, &answer.loss, &answer.counted, params, tokens, targets, B, T, dropout ? &random : NULL);
    gpt2_close(model);
    pool_close(pool);
    return answer;
}

/* The sum over the documents, each as a sequence of its own that a model without a mask reads. */
static double alone(double *grads, uint64_t *counted, const struct packed *packed, const float *params) {
    struct gpt2_config config = shape(false);
    size_t N = gpt2_parameters(&config);
    double loss = 0.0;
    for (int begin = 0, i = 0; i < packed->B * packed->T; i++) {
        if (packed->tokens[i] != EOS && (i + 1) % packed->T != 0) continue;
        struct answer one = answer_of(&config, params, packed->tokens + begin, packed->targets + begin, 1, i + 1 - begin, 1, false);
        for (size_t k = 0; k < N; k++) grads[k] += (double)one.grads[k];
        loss += one.loss, *counted += one.counted;
        free(one.grads);
        begin = i + 1;
    }
    return loss;
}

static void a_packed_sequence_has_the_gradient_of_its_documents_alone(void **state) {
    (void)state;
    struct random random = random_open("alone");
    struct gpt2_config config = shape(true), blind = shape(false);
    size_t N = gpt2_parameters(&config);
    float *params = small_params(&config, &random);
    for (int round = 0; round < 12; round++) {
        struct packed packed = random_packed(&random, (uint64_t[]){3, 20, 90, 1000}[round % 4]);
        double *grads = doubles(N);
        uint64_t counted = 0;
        double loss = alone(grads, &counted, &packed, params);
        struct answer together = answer_of(&config, params, packed.tokens, packed.targets, packed.B, packed.T, 2, false);
        assert_int_equal(together.counted, counted);
        assert_true(fabs(together.loss - loss) < 1e-5 * (1.0 + (double)counted));
        assert_true(counted == 0 || relative_error(together.grads, grads, N) < 1e-4);
        struct answer unmasked = answer_of(&blind, params, packed.tokens, packed.targets, packed.B, packed.T, 2, false);
        if (round % 4 == 1 && packed.T > 90) assert_true(relative_error(unmasked.grads, grads, N) > 1e-2); /* the comparison can fail */
        free(grads), free(together.grads), free(unmasked.grads);
    }
    free(params);
}

static void masked_documents_have_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    struct random random = random_open("threads");
    struct gpt2_config config = shape(true);
    size_t N = gpt2_parameters(&config);
    float *params = small_params(&config, &random);
    for (int round = 0; round < 6; round++) {
        struct packed packed = random_packed(&random, (uint64_t[]){3, 40, 120}[round % 3]);
        struct answer one = answer_of(&config, params, packed.tokens, packed.targets, packed.B, packed.T, 1, round > 2);
        for (int threads = 2; threads <= 4; threads++) {
            struct answer many = answer_of(&config, params, packed.tokens, packed.targets, packed.B, packed.T, threads, round > 2);
            assert_true(one.loss == many.loss);
            assert_memory_equal(one.grads, many.grads, N * sizeof(float));
            free(many.grads);
        }
        free(one.grads);
    }
    free(params);
}

static void without_an_end_of_text_the_mask_changes_no_bit(void **state) {
    (void)state;
    struct random random = random_open("no documents");
    struct gpt2_config with = shape(true), without = shape(false);
    size_t N = gpt2_parameters(&with);
    float *params = small_params(&with, &random);
    struct packed packed = random_packed(&random, 50);
    for (int i = 0; i < packed.B * packed.T; i++) packed.tokens[i] = (int32_t)random_in(&random, 0, EOS - 1);
    for (int dropout = 0; dropout < 2; dropout++) {
        struct answer one = answer_of(&with, params, packed.tokens, packed.targets, packed.B, packed.T, 2, dropout);
        struct answer two = answer_of(&without, params, packed.tokens, packed.targets, packed.B, packed.T, 2, dropout);
        assert_true(one.loss == two.loss);
        assert_memory_equal(one.grads, two.grads, N * sizeof(float));
        free(one.grads), free(two.grads);
    }
    free(params);
}

/* Other words before and after a document, in documents of the same lengths: not one bit of its logits differs. */
static void a_document_does_not_notice_its_neighbours(void **state) {
    (void)state;
    enum { T = 150, BEGIN = 37, END = 121 };
    struct random random = random_open("neighbours");
    struct pool *pool;
    struct gpt2 *model;
    float *logits[2];
    for (int masked = 1; masked >= 0; masked--) {
        struct gpt2_config config = shape(masked);
        float *params = small_params(&config, &random);
        int32_t tokens[T];
        for (int i = 0; i < T; i++) tokens[i] = i == BEGIN - 1 || i == END - 1 ? EOS : (int32_t)random_in(&random, EOS + 1, VOCABULARY - 1);
        assert_int_equal(pool_open(&pool, 2), 0);
        assert_int_equal(gpt2_open(&model, &config, 1, T, false, pool), 0);
        for (int i = 0; i < 2; i++) {
            logits[i] = mem_alloc(T * VOCABULARY * sizeof(float));
            gpt2_logits(model, logits[i], params, tokens, 1, T);
            for (int t = 0; t < T; t++)
                if ((t < BEGIN || t >= END) && tokens[t] != EOS) tokens[t] = EOS - 1;
        }
        int differs = memcmp(logits[0] + BEGIN * VOCABULARY, logits[1] + BEGIN * VOCABULARY, (END - BEGIN) * VOCABULARY * sizeof(float));
        assert_true(masked ? differs == 0 : differs != 0);
        free(logits[0]), free(logits[1]), free(params);
        gpt2_close(model);
        pool_close(pool);
    }
}

static void the_self_test_of_a_masked_model_is_its_own(void **state) {
    (void)state;
    uint8_t digest[2][SHA256_BYTES];
    for (int masked = 0; masked < 2; masked++) {
        struct gpt2_config config = shape(masked);
        struct pool *pool;
        assert_int_equal(pool_open(&pool, 2), 0);
        assert_int_equal(self_test(digest[masked], &config, &(struct optimizer){.kind = OPTIM_ADAMW}, POSITIONS, pool), 0);
        pool_close(pool);
    }
    assert_memory_not_equal(digest[0], digest[1], SHA256_BYTES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_agrees_with_its_naive_twin_over_random_shapes_and_documents),
        cmocka_unit_test(a_packed_sequence_has_the_gradient_of_its_documents_alone),
        cmocka_unit_test(masked_documents_have_the_same_bits_with_any_number_of_threads),
        cmocka_unit_test(without_an_end_of_text_the_mask_changes_no_bit),
        cmocka_unit_test(a_document_does_not_notice_its_neighbours),
        cmocka_unit_test(the_self_test_of_a_masked_model_is_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
