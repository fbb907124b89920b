/* Nothing is allocated in a training step: gradient, sum of squares, learning rate, optimizer and digests, once the model and the state
 * are open. The linker puts the functions below before the C library's (Makefile). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/philox.h"
#include "model/gpt2/gpt2.h"
#include "model/kernels/kernel_set.h"
#include "model/kernels/product.h"
#include "model/optim/optimizer.h"

static atomic_size_t allocations;

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes) {
    atomic_fetch_add(&allocations, 1);
    return __real_malloc(bytes);
}
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes) {
    atomic_fetch_add(&allocations, 1);
    return __real_calloc(count, bytes);
}
void *__real_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes) {
    atomic_fetch_add(&allocations, 1);
    return __real_realloc(old, bytes);
}
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    atomic_fetch_add(&allocations, 1);
    return __real_aligned_alloc(alignment, bytes);
}

enum { B = 4, T = 24, STEPS = 3, EOS = 0 };

static const struct gpt2_config shape = {.vocab_size = 700,
                                         .n_positions = T,
                                         .n_embd = 64,
                                         .n_layer = 2,
                                         .n_head = 2,
                                         .n_inner = 256,
                                         .layer_norm_epsilon = 1e-5f,
                                         .initializer_range = 0.02f,
                                         .scale_attn_weights = true,
                                         .eos_token_id = EOS,
                                         .micro_batch = 2}; /* so that a gradient is done in two parts */

struct training {
    struct gpt2_config config;
    struct config pipeline; /* of its schedule */
    struct optimizer optimizer;
    struct state_parts parts;
    struct pool *pool;
    struct gpt2 *model;
    void *state[STATE_PARTS];
    float *grads;
    int32_t tokens[B * T + 1];
    size_t N;
};

static void training_open(struct training *t, int threads) {
    t->N = gpt2_parameters(&t->config);
    t->parts = optimizer_parts(&t->optimizer);
    assert_int_equal(pool_open(&t->pool, threads), 0);
    assert_int_equal(state_open(t->state, &t->parts, t->N), 0);
    assert_int_equal(mem_try(&t->grads, t->N, sizeof(float)), 0);
    assert_int_equal(gpt2_open(&t->model, &t->config, gpt2_batch_for(&t->config, B, T), T, true, t->pool), 0);
    optimizer_begin(t->state, &t->config, &t->optimizer, t->pool);
    for (int i = 0; i <= B * T; i++) t->tokens[i] = (int32_t)(philox(5, 1, (uint64_t)i).word[0] % 100);
}

static void training_close(struct training *t) {
    gpt2_close(t->model);
    state_close(t->state);
    free(t->grads);
    pool_close(t->pool);
}

/* All that a worker computes for a step. */
static void training_step(struct training *t, uint64_t step) {
    struct gpt2_random random = {.seed = 5, .step = step};
    uint8_t digest[XXH128_BYTES];
    double loss;
    uint64_t counted;
    gpt2_gradient(t->model, t->grads, &loss, &counted, t->state[STATE_WEIGHTS], t->tokens, t->tokens + 1, B, T, &random);
    vector_add(t->grads, t->grads, t->grads, t->N);
    vectors_digest(digest, (const float *const[]){t->grads}, 1, t->N, t->pool);
    double squares = square_sum_of_segments(t->grads, t->N, t->pool);
    t->optimizer.step = step, t->optimizer.learning_rate = learning_rate(&t->pipeline, step, 100);
    t->optimizer.scale = gradient_scale(squares, 2 * counted, 1.0);
    optimizer_apply(t->state, t->grads, &t->config, &t->optimizer, t->pool);
    state_digest(digest, t->state, &t->parts, t->N, t->pool);
    gpt2_loss(t->model, &loss, &counted, t->state[STATE_WEIGHTS], t->tokens, t->tokens + 1, 1, T);
}

static size_t allocations_of_steps(struct training *t) {
    training_open(t, 2);
    size_t before = atomic_load(&allocations);
    for (uint64_t step = 1; step <= STEPS; step++) training_step(t, step);
    size_t after = atomic_load(&allocations);
    training_close(t);
    return after - before;
}

static void a_training_step_allocates_nothing(void **state) {
    (void)state;
    static const struct optimizer optimizers[] = {
        {.kind = OPTIM_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.1, .ema_decay = 0.9},
        {.kind = OPTIM_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .moments_type = MOMENTS_BF16},
        {.kind = OPTIM_SGD, .momentum = 0.9, .nesterov = true},
        {.kind = OPTIM_SGD}};
    enum { OPTIMIZERS = sizeof optimizers / sizeof *optimizers };
    const struct kernel_set *sets[KERNEL_SETS], *usual = kernel_set();
    size_t count = kernel_sets(sets);
    for (size_t s = 0; s < count; s++) {
        kernel_set_use(sets[s]);
        for (int i = 0; i < 16; i++) {
            struct training t = {.config = shape, .optimizer = optimizers[i % OPTIMIZERS], .pipeline.training.learning_rate = 1e-3};
            t.config.bf16 = i & 1, t.config.gradient_checkpointing = i & 2, t.config.document_mask = i & 4;
            if (i & 8) t.config.attn_pdrop = t.config.embd_pdrop = t.config.resid_pdrop = 0.1f;
            if (i & 4) t.config.label_smoothing = 0.1, t.config.z_loss = 1e-4;
            if (i / 4 % 2) t.optimizer = optimizers[OPTIMIZERS - 1 - i % OPTIMIZERS]; /* with other options, too */
            size_t made = allocations_of_steps(&t);
            if (made) fail_msg("%s, case %d: %zu allocations in %d steps", sets[s]->name, i, made, STEPS);
        }
    }
    kernel_set_use(usual);
}

/* Opening allocates, and the counter sees each function that base/mem.c calls. */
static void what_is_allocated_is_counted(void **state) {
    (void)state;
    struct training t = {.config = shape, .optimizer = {.kind = OPTIM_ADAMW}};
    size_t before = atomic_load(&allocations);
    training_open(&t, 1);
    assert_true(atomic_load(&allocations) > before);
    training_close(&t);
    for (int i = 0; i < 3; i++) {
        before = atomic_load(&allocations);
        void *p = NULL;
        if (i == 0) p = mem_alloc(8);
        if (i == 1) p = mem_resize(NULL, 8);
        if (i == 2) assert_int_equal(mem_try(&p, 8, 1), 0);
        assert_int_equal(atomic_load(&allocations), before + 1);
        free(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_allocated_is_counted),
        cmocka_unit_test(a_training_step_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
