/* Bits are a function of shapes alone: the same for any number of threads, call after call, by every set of kernels of a family, with
 * layers computed again, and with several threads inside OpenBLAS at once. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/gpt2/gpt2.h"
#include "model/kernels/openblas.h"
#include "model/optim/optimizer.h"
#include "model/trial/self_test.h"
#include "proto/steps.h"
#include "tests/unit/model/sets.h"
#include "tests/unit/random.h"

static const struct gpt2_config shape = {.vocab_size = 1501,
                                         .n_positions = 160,
                                         .n_embd = 48,
                                         .n_layer = 2,
                                         .n_head = 3,
                                         .n_inner = 192,
                                         .attn_pdrop = 0.1f,
                                         .embd_pdrop = 0.1f,
                                         .resid_pdrop = 0.1f,
                                         .layer_norm_epsilon = 1e-5f,
                                         .initializer_range = 0.02f,
                                         .scale_attn_weights = true,
                                         .eos_token_id = 7};
enum { B = 5, T = 150, PART = 3, BLAS_THREADS = 8 };

struct result {
    double loss, squares;
    uint64_t tokens;
    uint8_t grads[XXH128_BYTES], state[XXH128_BYTES];
};

/* Steps from the same start; everything that a worker would compare. */
static struct result train_steps(const struct gpt2_config *config, int threads, bool dropout, uint64_t steps, enum moments_type type) {
    size_t N = gpt2_parameters(config);
    struct state_parts parts = optimizer_parts(&(struct optimizer){.moments_type = type});
    void *state[STATE_PARTS] = {NULL};
    float *params, *grads = mem_alloc(N * sizeof(float));
    int32_t *tokens = mem_alloc((B * T + 1) * sizeof(int32_t)), *targets = mem_alloc(B * T * sizeof(int32_t));
    struct pool *pool;
    struct gpt2 *model;
    struct result result;
    memset(&result, 0, sizeof result); /* also between the fields: compared as bytes */
    assert_int_equal(state_open(state, &parts, N), 0);
    params = state[STATE_WEIGHTS];
    assert_int_equal(pool_open(&pool, threads), 0);
    assert_int_equal(gpt2_open(&model, config, PART, T, true, pool), 0);
    gpt2_init(params, config, 5);
    for (int i = 0; i <= B * T; i++) tokens[i] = (int32_t)(philox(9, 0, (uint64_t)i).word[0] % (uint32_t)config->vocab_size);
    for (int i = 20; i <= B * T; i += 67) tokens[i] = config->eos_token_id; /* documents, where they are told apart */
    for (int i = 0; i < B * T; i++) targets[i] = i % 7 == 3 ? -1 : tokens[i + 1];
    for (uint64_t step = 1; step <= steps; step++) {
        struct gpt2_random random = {.seed = 3, .step = step, .slice = 2};
        gpt2_gradient(model, grads, &result.loss, &result.tokens, params, tokens, targets, B, T, dropout ? &random : NULL);
        vectors_digest(result.grads, (const float *const[]){grads}, 1, N, pool);
        result.squares = square_sum(grads, N);
        struct optimizer optimizer = {.learning_rate = 1e-3,
                                      .beta1 = 0.9,
                                      .beta2 = 0.999,
                                      .epsilon = 1e-8,
                                      .weight_decay = 0.1,
                                      .moments_type = type,
                                      .seed = 3,
                                      .step = step,
                                      .scale = gradient_scale(result.squares, result.tokens, 1.0)};
        optimizer_apply(state, grads, config, &optimizer, pool);
    }
    state_digest(result.state, state, &parts, N, pool);
    gpt2_close(model);
    pool_close(pool);
    state_close(state);
    free(grads), free(tokens), free(targets);
    return result;
}

static struct result train(int threads, bool dropout) {
    return train_steps(&shape, threads, dropout, 2, dropout ? MOMENTS_BF16 : MOMENTS_FP32);
}

static void training_has_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    for (int dropout = 0; dropout < 2; dropout++) {
        struct result one = train(1, dropout);
        assert_int_equal(one.tokens, B * T - (B * T + 3) / 7);
        assert_true(isfinite(one.loss) && fabs(one.loss / (double)one.tokens - 7.3) < 0.5); /* near ln 1501 at the start */
        for (int threads = 1; threads <= 5; threads++) {
            struct result many = train(threads, dropout);
            assert_memory_equal(&one, &many, sizeof one);
        }
    }
}

/* Documents, dropout and parts; products or else moments in bfloat16. */
static void every_set_of_a_family_has_the_same_bits_with_any_number_of_threads(void **state) {
    (void)state;
    struct sets sets = sets_here();
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct gpt2_config config = shape;
        struct result first[FAMILIES];
        bool there[FAMILIES] = {false};
        config.document_mask = true, config.bf16 = bf16;
        for (size_t s = 0; s < sets.count; s++) {
            enum family family = family_of(sets.set[s], bf16);
            kernel_set_use(sets.set[s]);
            for (int threads = 1; threads <= 4; threads++) {
                struct result result = train_steps(&config, threads, true, 1, bf16 ? MOMENTS_FP32 : MOMENTS_BF16);
                if (there[family]) assert_memory_equal(&result, &first[family], sizeof result);
                first[family] = result, there[family] = true;
            }
        }
        for (int i = 0; i < FAMILIES; i++) /* the comparison can fail */
            for (int j = 0; j < i; j++)
                if (there[i] && there[j]) assert_memory_not_equal(first[i].grads, first[j].grads, XXH128_BYTES);
    }
    kernel_set_use(NULL);
}

static void gradient_checkpointing_changes_no_bit(void **state) {
    (void)state;
    struct sets sets = sets_here();
    for (size_t s = 0; s < sets.count; s++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            struct gpt2_config config = shape;
            kernel_set_use(sets.set[s]);
            config.document_mask = true, config.bf16 = bf16;
            struct result with, without = train_steps(&config, 2, true, 1, MOMENTS_FP32);
            config.gradient_checkpointing = true, with = train_steps(&config, 3, true, 1, MOMENTS_FP32);
            assert_memory_equal(&with, &without, sizeof with);
        }
    kernel_set_use(NULL);
}

static void dropout_changes_the_bits(void **state) {
    (void)state;
    struct result with = train(2, true), without = train(2, false);
    assert_memory_not_equal(with.grads, without.grads, XXH128_BYTES);
}

static void the_self_test_is_the_same_with_any_number_of_threads(void **state) {
    (void)state;
    uint8_t one[SHA256_BYTES], many[SHA256_BYTES];
    for (int threads = 1; threads <= 4; threads++) {
        struct pool *pool;
        assert_int_equal(pool_open(&pool, threads), 0);
        assert_int_equal(self_test(threads == 1 ? one : many, &shape, &(struct optimizer){.kind = OPTIM_ADAMW}, T, pool), 0);
        if (threads > 1) assert_memory_equal(one, many, sizeof one);
        pool_close(pool);
    }
    struct gpt2_config other = shape;
    struct pool *pool;
    other.layer_norm_epsilon = 2e-5f;
    assert_int_equal(pool_open(&pool, 1), 0);
    assert_int_equal(self_test(many, &other, &(struct optimizer){.kind = OPTIM_ADAMW}, T, pool), 0);
    assert_memory_not_equal(one, many, sizeof one);
    pool_close(pool);
}

static void ignored_targets_leave_no_trace_in_the_gradient(void **state) {
    (void)state;
    size_t N = gpt2_parameters(&shape);
    float *params = mem_alloc(N * sizeof(float)), *grads = mem_alloc(N * sizeof(float));
    int32_t tokens[T], targets[T];
    double loss = 1.0;
    uint64_t counted = 1;
    struct pool *pool;
    struct gpt2 *model;
    for (int i = 0; i < T; i++) tokens[i] = i, targets[i] = -1;
    gpt2_init(params, &shape, 5);
    assert_int_equal(pool_open(&pool, 2), 0);
    assert_int_equal(gpt2_open(&model, &shape, 1, T, true, pool), 0);
    gpt2_gradient(model, grads, &loss, &counted, params, tokens, targets, 1, T, NULL);
    assert_true(loss == 0.0 && counted == 0);
    for (size_t i = 0; i < N; i++) assert_true(grads[i] == 0.0f);
    gpt2_close(model);
    pool_close(pool);
    free(params), free(grads);
}

static void an_evaluating_model_has_the_training_models_loss(void **state) {
    (void)state;
    size_t N = gpt2_parameters(&shape);
    float *params = mem_alloc(N * sizeof(float)), *grads = mem_alloc(N * sizeof(float));
    int32_t tokens[2 * T], targets[2 * T];
    double trained, evaluated;
    uint64_t counted;
    struct pool *pool;
    struct gpt2 *model;
    for (int i = 0; i < 2 * T; i++) tokens[i] = i * 5 % shape.vocab_size, targets[i] = i * 3 % shape.vocab_size;
    gpt2_init(params, &shape, 6);
    assert_int_equal(pool_open(&pool, 2), 0);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct gpt2_config config = shape;
        config.bf16 = bf16;
        assert_int_equal(gpt2_open(&model, &config, 2, T, true, pool), 0);
        gpt2_gradient(model, grads, &trained, &counted, params, tokens, targets, 2, T, NULL);
        gpt2_loss(model, &evaluated, &counted, params, tokens, targets, 2, T);
        assert_true(trained == evaluated);
        gpt2_close(model);
        assert_int_equal(gpt2_open(&model, &config, 2, T, false, pool), 0);
        gpt2_loss(model, &evaluated, &counted, params, tokens, targets, 2, T);
        assert_true(trained == evaluated);
        gpt2_loss(model, &evaluated, &counted, params, tokens, targets, 2, T - 31); /* shorter sequences are fine */
        assert_int_equal(counted, 2 * (T - 31));
        gpt2_close(model);
    }
    pool_close(pool);
    free(params), free(grads);
}

/* The gradient of three sequences of ODD positions, in parts of two, by a model that has computed something else before: NaN everywhere. */
static void gradient_digest(uint8_t out[XXH128_BYTES], const struct gpt2_config *config, const float *params, bool before,
                            struct pool *pool) {
    enum { SEQUENCES = 3, AT_ONCE = 2, ODD = 77 };
    size_t N = gpt2_parameters(config);
    float *grads = mem_alloc(N * sizeof(float)), *nan = mem_alloc(N * sizeof(float));
    int32_t tokens[SEQUENCES * T + 1];
    double loss;
    uint64_t counted;
    struct gpt2 *model;
    for (int i = 0; i <= SEQUENCES * T; i++) tokens[i] = i * 11 % config->vocab_size;
    for (size_t i = 0; i < N; i++) nan[i] = NAN;
    assert_int_equal(gpt2_open(&model, config, AT_ONCE, T, true, pool), 0);
    if (before) {
        gpt2_gradient(model, grads, &loss, &counted, nan, tokens, tokens + 1, SEQUENCES, T, NULL);
        assert_true(isnan(loss));
    }
    gpt2_gradient(model, grads, &loss, &counted, params, tokens, tokens + 1, SEQUENCES, ODD, NULL);
    assert_true(isfinite(loss));
    vectors_digest(out, (const float *const[]){grads}, 1, N, pool);
    gpt2_close(model);
    free(grads), free(nan);
}

static void what_was_computed_before_changes_no_bit(void **state) {
    (void)state;
    struct sets sets = sets_here();
    struct pool *pool;
    assert_int_equal(pool_open(&pool, 2), 0);
    for (size_t s = 0; s < sets.count; s++)
        for (int bits = 0; bits < 4; bits++) {
            struct gpt2_config config = shape;
            config.n_inner = 191, config.bf16 = bits & 1, config.gradient_checkpointing = bits & 2;
            float *params = mem_alloc(gpt2_parameters(&config) * sizeof(float));
            uint8_t fresh[XXH128_BYTES], used[XXH128_BYTES];
            kernel_set_use(sets.set[s]);
            gpt2_init(params, &config, 8);
            gradient_digest(fresh, &config, params, false, pool);
            gradient_digest(used, &config, params, true, pool);
            assert_memory_equal(fresh, used, XXH128_BYTES);
            free(params);
        }
    kernel_set_use(NULL);
    pool_close(pool);
}

/* ---- the library ---- */

struct blas_job {
    const float *x, *w;
    float *out;
};

enum { SIDE = 160 };

static void *blas_thread(void *arg) {
    struct blas_job *job = arg;
    for (int i = 0; i < 60; i++) openblas_product(job->out, SIDE, job->x, job->w, SIDE, SIDE, SIDE, i % 2);
    return NULL;
}

static void openblas_gives_equal_bits_to_eight_threads_at_once(void **state) {
    (void)state;
    enum { SIZE = SIDE * SIDE };
    float *x = mem_alloc(SIZE * sizeof(float)), *w = mem_alloc(SIZE * sizeof(float));
    struct blas_job job[BLAS_THREADS + 1];
    pthread_t thread[BLAS_THREADS];
    assert_int_equal(openblas_setup(), 0);
    for (int i = 0; i < SIZE; i++) x[i] = (float)(i * 7919 % 1000) / 1000.0f - 0.5f, w[i] = (float)(i * 6133 % 1000) / 1000.0f - 0.5f;
    for (int i = 0; i <= BLAS_THREADS; i++) job[i] = (struct blas_job){x, w, mem_alloc(SIZE * sizeof(float))};
    blas_thread(&job[BLAS_THREADS]);
    for (int i = 0; i < BLAS_THREADS; i++) assert_int_equal(pthread_create(&thread[i], NULL, blas_thread, &job[i]), 0);
    for (int i = 0; i < BLAS_THREADS; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < BLAS_THREADS; i++) assert_memory_equal(job[i].out, job[BLAS_THREADS].out, SIZE * sizeof(float));
    for (int i = 0; i <= BLAS_THREADS; i++) free(job[i].out);
    free(x), free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_has_the_same_bits_with_any_number_of_threads),
        cmocka_unit_test(every_set_of_a_family_has_the_same_bits_with_any_number_of_threads),
        cmocka_unit_test(gradient_checkpointing_changes_no_bit),
        cmocka_unit_test(dropout_changes_the_bits),
        cmocka_unit_test(the_self_test_is_the_same_with_any_number_of_threads),
        cmocka_unit_test(ignored_targets_leave_no_trace_in_the_gradient),
        cmocka_unit_test(an_evaluating_model_has_the_training_models_loss),
        cmocka_unit_test(what_was_computed_before_changes_no_bit),
        cmocka_unit_test(openblas_gives_equal_bits_to_eight_threads_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
