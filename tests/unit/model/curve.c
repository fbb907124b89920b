/* Training with products in bfloat16, by one set of kernels of each family, and training with moments in bfloat16 go the way of training in
 * float32: step by step the same loss within a hundredth. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/philox.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"
#include "tests/unit/model/sets.h"

enum { B = 8, T = 32, STEPS = 200, FIRST = 5, VOCABULARY = 97 };

static const struct gpt2_config shape = {.vocab_size = VOCABULARY,
                                         .n_positions = T,
                                         .n_embd = 48,
                                         .n_layer = 2,
                                         .n_head = 3,
                                         .n_inner = 192,
                                         .layer_norm_epsilon = 1e-5f,
                                         .initializer_range = 0.02f,
                                         .scale_attn_weights = true};

/* A language with something to learn: each token is one of three that follow from the one before. */
static void make_batch(int32_t tokens[B * T], int32_t targets[B * T], uint64_t step) {
    for (int b = 0; b < B; b++) {
        int32_t token = (int32_t)(philox(1, step, (uint64_t)b).word[0] % VOCABULARY);
        for (int t = 0; t < T; t++) {
            tokens[b * T + t] = token;
            token = (token * 5 + (int32_t)(philox(2, step, (uint64_t)b * T + (uint64_t)t).word[0] % 3) * 7 + 1) % VOCABULARY;
            targets[b * T + t] = token;
        }
    }
}

static void train(double losses[STEPS], bool bf16, enum moments_type type) {
    struct gpt2_config config = shape;
    size_t N = gpt2_parameters(&config);
    struct state_parts parts = optimizer_parts(&(struct optimizer){.kind = OPTIM_ADAMW, .moments_type = type});
    void *part[STATE_PARTS] = {NULL};
    float *grads = mem_alloc(N * sizeof(float));
    int32_t tokens[B * T], targets[B * T];
    struct pool *pool;
    struct gpt2 *model;
    config.bf16 = bf16;
    assert_int_equal(state_open(part, &parts, N), 0);
    assert_int_equal(pool_open(&pool, 2), 0);
    assert_int_equal(gpt2_open(&model, &config, B, T, true, pool), 0);
    gpt2_init(part[0], &config, 5);
    for (int s = 0; s < STEPS; s++) {
        double loss;
        uint64_t counted;
        make_batch(tokens, targets, (uint64_t)s);
        gpt2_gradient(model, grads, &loss, &counted, part[0], tokens, targets, B, T, NULL);
        losses[s] = loss / (double)counted;
        struct optimizer optimizer = {.learning_rate = 3e-3,
                                      .beta1 = 0.9,
                                      .beta2 = 0.999,
                                      .epsilon = 1e-8,
                                      .weight_decay = 0.1,
                                      .moments_type = type,
                                      .seed = 5,
                                      .step = (uint64_t)s + 1,
                                      .scale = gradient_scale(square_sum(grads, N), counted, 1.0)};
        optimizer_apply(part, grads, &config, &optimizer, pool);
    }
    gpt2_close(model);
    pool_close(pool);
    state_close(part);
    free(grads);
}

/* The furthest that a step's loss is from float32's. */
static double furthest(const char *what, const double got[STEPS], const double wanted[STEPS]) {
    double worst = 0.0;
    for (int i = FIRST; i < STEPS; i++) worst = fmax(worst, fabs(got[i] / wanted[i] - 1.0));
    print_message("%s: %.5f; at the end %.4f, float32 %.4f\n", what, worst, got[STEPS - 1], wanted[STEPS - 1]);
    return worst;
}

static void bfloat16_learns_as_float32_does(void **state) {
    (void)state;
    struct sets sets = sets_here();
    double wanted[STEPS], got[STEPS], worst;
    kernel_set_use(sets.set[0]);
    train(wanted, false, MOMENTS_FP32);
    assert_true(wanted[0] > 4.4 && wanted[STEPS - 1] < 1.6); /* from ln 97 to near ln 3 */
    for (size_t s = 0; s < sets.count; s++) {
        if (s > 0 && family_of(sets.set[s], true) == family_of(sets.set[s - 1], true)) continue; /* the same bits */
        kernel_set_use(sets.set[s]);
        train(got, true, MOMENTS_FP32);
        worst = furthest(sets.set[s]->name, got, wanted);
        assert_true(worst > 0.0 && worst < 0.01);
    }
    kernel_set_use(sets.set[0]);
    train(got, false, MOMENTS_BF16);
    worst = furthest("moments in bfloat16", got, wanted);
    assert_true(worst > 0.0 && worst < 0.01);
    kernel_set_use(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bfloat16_learns_as_float32_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
