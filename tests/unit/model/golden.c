/* The model against PyTorch: tests/oracle/make_golden.py wrote golden.bin with float64 arithmetic; logits, loss, every gradient (without
 * and with dropout) and ten AdamW steps must agree; two of the four cases have a document mask and ignored targets. make_options.py
 * wrote options.bin: the same cases with other options of training. Also, that the comparison can fail. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"
#include "tests/unit/model/sets.h"

#define GRADIENT_ERROR_MAX  1e-4
#define LOSS_ERROR_MAX      1e-4
#define BF16_ERROR_MAX      0.02
#define BF16_LOSS_ERROR_MAX 1e-3 /* nats a token */

#define SMOOTHING           0.1
#define Z_LOSS              0.01
#define DECAY               0.9

enum { CASES = 4, MASKED = 2 /* the first with a document mask */ };

/* Those that PyTorch gave losses for beside AdamW; the rate is a multiple of the case's. */
static const struct {
    struct optimizer optimizer;
    double rate;
} others[] = {
    {{.kind = OPTIM_ADAM}, 1},
    {{.kind = OPTIM_SGD}, 10},
    {{.kind = OPTIM_SGD, .momentum = 0.9}, 10},
    {{.kind = OPTIM_SGD, .momentum = 0.9, .nesterov = true}, 10},
};
enum { OTHERS = sizeof others / sizeof others[0], AVERAGED = 2 };

struct golden {
    struct gpt2_config config;
    int B, T, counted, steps, warmup, slice, step, seed;
    double rate, clip; /* not in golden.bin: tests/oracle/make_golden.py has the same for the case of this number */
    int32_t *inputs, *targets;
    float *params, *logits, *grads, *dropped_grads;
    double loss, dropped_loss, *losses;
    double *other_losses[OTHERS]; /* of other optimizers */
    double smoothed_loss; /* with SMOOTHING and Z_LOSS */
    float *smoothed_grads, *average; /* of the weights, with DECAY, after the steps of others[AVERAGED] */
    size_t N;
};

static void take(void *out, const uint8_t **at, size_t size) {
    memcpy(out, *at, size);
    *at += size;
}

static float *take_floats(const uint8_t **at, size_t count) {
    float *values = mem_alloc(count * sizeof *values);
    take(values, at, count * sizeof *values);
    return values;
}

static void take_tokens(struct golden *g, const uint8_t **at) {
    size_t count = (size_t)g->B * (size_t)g->T;
    g->inputs = mem_alloc(count * sizeof(int32_t)), g->targets = mem_alloc(count * sizeof(int32_t));
    for (int b = 0; b < g->B; b++)
        for (int t = 0; t <= g->T; t++) {
            int32_t token;
            take(&token, at, sizeof token);
            if (t < g->T) g->inputs[b * g->T + t] = token;
        }
    take(g->targets, at, count * sizeof(int32_t));
    for (size_t i = 0; i < count; i++) g->counted += g->targets[i] >= 0;
}

static void take_case(struct golden *g, const uint8_t **at, int number) {
    int32_t h[16];
    take(h, at, sizeof h);
    float dropout = (float)(h[14] / 1000.0);
    g->config = (struct gpt2_config){.vocab_size = h[0],
                                     .n_positions = h[1],
                                     .n_embd = h[2],
                                     .n_layer = h[3],
                                     .n_head = h[4],
                                     .n_inner = h[5],
                                     .attn_pdrop = dropout,
                                     .embd_pdrop = dropout,
                                     .resid_pdrop = dropout,
                                     .layer_norm_epsilon = 1e-5f,
                                     .initializer_range = 0.02f,
                                     .scale_attn_weights = true,
                                     .eos_token_id = h[15],
                                     .document_mask = h[15] >= 0};
    g->B = h[6], g->T = h[7], g->steps = h[8], g->warmup = h[9], g->slice = h[10], g->step = h[11], g->seed = h[12];
    g->rate = number % 2 == 0 ? 1e-2 : 3e-3, g->clip = number % 2 == 0 ? 1.0 : 0.5;
    g->N = gpt2_parameters(&g->config);
    take_tokens(g, at);
    g->params = take_floats(at, g->N);
    g->logits = take_floats(at, (size_t)g->B * (size_t)g->T * (size_t)g->config.vocab_size);
    take(&g->loss, at, sizeof g->loss);
    g->grads = take_floats(at, g->N);
    take(&g->dropped_loss, at, sizeof g->dropped_loss);
    g->dropped_grads = take_floats(at, g->N);
    g->losses = mem_alloc((size_t)g->steps * sizeof(double));
    take(g->losses, at, (size_t)g->steps * sizeof(double));
}

static void take_options(struct golden *g, const uint8_t **at) {
    take(&g->smoothed_loss, at, sizeof g->smoothed_loss);
    g->smoothed_grads = take_floats(at, g->N);
    for (int i = 0; i < OTHERS; i++) {
        g->other_losses[i] = mem_alloc((size_t)g->steps * sizeof(double));
        take(g->other_losses[i], at, (size_t)g->steps * sizeof(double));
    }
    g->average = take_floats(at, g->N);
}

static void golden_free(struct golden *g) {
    free(g->smoothed_grads), free(g->average);
    for (int i = 0; i < OTHERS; i++) free(g->other_losses[i]);
    free(g->inputs), free(g->targets), free(g->params), free(g->logits), free(g->grads), free(g->dropped_grads), free(g->losses);
}

static struct golden cases[CASES];

static int load(void **state) {
    (void)state;
    struct buf file = {0};
    assert_int_equal(file_read(&file, "tests/oracle/golden.bin", 1 << 20), 0);
    const uint8_t *at = file.data;
    for (int i = 0; i < CASES; i++) take_case(&cases[i], &at, i);
    assert_true(at == file.data + file.size);
    buf_free(&file);
    assert_int_equal(file_read(&file, "tests/oracle/options.bin", 1 << 20), 0);
    at = file.data;
    for (int i = 0; i < CASES; i++) take_options(&cases[i], &at);
    assert_true(at == file.data + file.size);
    buf_free(&file);
    return 0;
}

static int unload(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) golden_free(&cases[i]);
    return 0;
}

static double relative_error(const float *got, const float *wanted, size_t count) {
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)got[i] - (double)wanted[i]) * ((double)got[i] - (double)wanted[i]);
        size += (double)wanted[i] * (double)wanted[i];
    }
    return sqrt(difference) / (sqrt(size) + 1e-30);
}

static int quiet; /* while an error is what a test wants to see */

/* The worst tensor's error, its name printed when it is too large. */
static double worst_tensor(const struct golden *g, const float *got, const float *wanted) {
    size_t count = gpt2_tensor_count(&g->config);
    struct gpt2_tensor *tensors = mem_alloc(count * sizeof *tensors);
    gpt2_tensors(tensors, &g->config);
    double worst = 0.0;
    for (size_t i = 0; i < count; i++) {
        double error = relative_error(got + tensors[i].offset, wanted + tensors[i].offset, tensors[i].size);
        if (!quiet && !(error < GRADIENT_ERROR_MAX)) print_message("%s: relative error %g\n", tensors[i].name, error);
        if (!(error <= worst)) worst = error;
    }
    free(tensors);
    return worst;
}

static void logits_agree_with_pytorch(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        const struct golden *g = &cases[i];
        size_t count = (size_t)g->B * (size_t)g->T * (size_t)g->config.vocab_size;
        float *logits = mem_alloc(count * sizeof *logits);
        struct pool *pool;
        struct gpt2 *model;
        assert_int_equal(pool_open(&pool, 1), 0);
        assert_int_equal(gpt2_open(&model, &g->config, g->B, g->T, false, pool), 0);
        gpt2_logits(model, logits, g->params, g->inputs, g->B, g->T);
        assert_true(relative_error(logits, g->logits, count) < 1e-5);
        gpt2_close(model);
        pool_close(pool);
        free(logits);
    }
}

static double gradient_error(const struct golden *g, int batch_max, int threads, bool dropout, double *loss_error) {
    float *grads = mem_alloc(g->N * sizeof *grads);
    struct pool *pool;
    struct gpt2 *model;
    struct gpt2_random random = {.seed = (uint64_t)g->seed, .step = (uint64_t)g->step, .slice = (uint32_t)g->slice};
    double loss;
    uint64_t tokens;
    assert_int_equal(pool_open(&pool, threads), 0);
    assert_int_equal(gpt2_open(&model, &g->config, batch_max, g->T, true, pool), 0);
    for (size_t i = 0; i < g->N; i++) grads[i] = 7.0f; /* must be overwritten, not added to */
    gpt2_gradient(model, grads, &loss, &tokens, g->params, g->inputs, g->targets, g->B, g->T, dropout ? &random : NULL);
    assert_int_equal(tokens, g->counted);
    *loss_error = fabs(loss - (dropout ? g->dropped_loss : g->loss)) / (double)tokens;
    double error = worst_tensor(g, grads, dropout ? g->dropped_grads : g->grads);
    gpt2_close(model);
    pool_close(pool);
    free(grads);
    return error;
}

static void every_gradient_agrees_with_pytorch(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        double loss_error;
        assert_true(gradient_error(&cases[i], cases[i].B, 1, false, &loss_error) < GRADIENT_ERROR_MAX);
        assert_true(loss_error < 1e-5);
    }
}

/* Operands are off by up to 2^-9 of themselves: of each tensor, the L2 norm of the error is within BF16_ERROR_MAX of the gradient's. */
static void bfloat16_has_pytorchs_gradients_within_its_precision_by_every_set(void **state) {
    (void)state;
    struct sets sets = sets_here();
    quiet = 1;
    for (size_t s = 0; s < sets.count; s++)
        for (int i = 0; i < 2 * CASES; i++) {
            struct golden g = cases[i % CASES];
            double loss_error, error;
            kernel_set_use(sets.set[s]);
            g.config.bf16 = true;
            error = gradient_error(&g, g.B, 2, i >= CASES, &loss_error);
            assert_true(error < BF16_ERROR_MAX && error > 10 * GRADIENT_ERROR_MAX); /* the latter: it is bfloat16 */
            assert_true(loss_error < BF16_LOSS_ERROR_MAX);
        }
    quiet = 0;
    kernel_set_use(NULL);
}

static void dropout_drops_what_pytorch_drops_with_the_same_masks(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        double loss_error;
        assert_true(gradient_error(&cases[i], cases[i].B, 1, true, &loss_error) < GRADIENT_ERROR_MAX);
        assert_true(loss_error < 1e-5);
    }
}

static void a_slice_done_in_parts_has_the_same_gradient_and_masks(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int batch = 1; batch < cases[i].B; batch++) {
            double loss_error;
            assert_true(gradient_error(&cases[i], batch, 2, true, &loss_error) < GRADIENT_ERROR_MAX);
            assert_true(loss_error < 1e-5);
        }
}

/* The case with the loss to learn from changed, so that its own gradient is what PyTorch says of that loss. */
static struct golden smoothed(const struct golden *g, double smoothing, double z_loss) {
    struct golden other = *g;
    other.config.label_smoothing = smoothing, other.config.z_loss = z_loss;
    other.loss = g->smoothed_loss, other.grads = g->smoothed_grads;
    return other;
}

static void label_smoothing_and_z_loss_have_pytorchs_gradients(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int batch = 1; batch <= cases[i].B; batch++) {
            struct golden g = smoothed(&cases[i], SMOOTHING, Z_LOSS);
            double loss_error;
            assert_true(gradient_error(&g, batch, 2, false, &loss_error) < GRADIENT_ERROR_MAX);
            assert_true(loss_error < 1e-5);
        }
    quiet = 1;
    for (int i = 0; i < CASES; i++) {
        struct golden unsmoothed = smoothed(&cases[i], 0.0, Z_LOSS), without_z = smoothed(&cases[i], SMOOTHING, 0.0);
        double loss_error;
        assert_true(gradient_error(&unsmoothed, unsmoothed.B, 1, false, &loss_error) > 0.01 && loss_error > 1e-3);
        assert_true(gradient_error(&without_z, without_z.B, 1, false, &loss_error) > 0.01 && loss_error > 1e-3);
    }
    quiet = 0;
}

static void the_loss_of_an_evaluation_stays_plain(void **state) {
    (void)state;
    struct golden g = smoothed(&cases[MASKED], SMOOTHING, Z_LOSS);
    struct pool *pool;
    struct gpt2 *model;
    double loss;
    uint64_t tokens;
    assert_int_equal(pool_open(&pool, 1), 0);
    assert_int_equal(gpt2_open(&model, &g.config, g.B, g.T, true, pool), 0);
    gpt2_loss(model, &loss, &tokens, g.params, g.inputs, g.targets, g.B, g.T);
    assert_true(fabs(loss - cases[MASKED].loss) / (double)tokens < 1e-5);
    gpt2_close(model);
    pool_close(pool);
}

static void a_model_without_the_document_mask_is_told_apart(void **state) {
    (void)state;
    for (int i = MASKED; i < CASES; i++) {
        struct golden other = cases[i];
        double loss_error;
        assert_true(other.config.document_mask && other.counted < other.B * other.T);
        other.config.document_mask = false;
        quiet = 1;
        assert_true(gradient_error(&other, other.B, 1, false, &loss_error) > 0.1);
        quiet = 0;
        assert_true(loss_error > 1e-4);
    }
}

static void a_target_that_was_not_to_count_is_told_apart(void **state) {
    (void)state;
    struct golden other = cases[MASKED];
    double loss_error;
    int ignored = 0;
    while (other.targets[ignored] >= 0) ignored++;
    other.targets[ignored] = 0, other.counted++;
    quiet = 1;
    assert_true(gradient_error(&other, other.B, 1, false, &loss_error) > 10 * GRADIENT_ERROR_MAX);
    quiet = 0;
    other.targets[ignored] = -1;
}

static void another_step_has_other_masks_and_is_told_apart(void **state) {
    (void)state;
    struct golden other = cases[0];
    double loss_error;
    other.step++;
    quiet = 1;
    assert_true(gradient_error(&other, other.B, 1, true, &loss_error) > 0.1);
    quiet = 0;
    assert_true(loss_error > 1e-4);
}

/* average (N) may be NULL. */
static void train(const struct golden *g, const struct optimizer *like, double *losses, float *average) {
    float *params = mem_alloc(g->N * sizeof(float)), *grads = mem_alloc(g->N * sizeof(float)), *m = mem_alloc(g->N * sizeof(float)),
          *v = mem_alloc(g->N * sizeof(float));
    struct config config = {.training = {.learning_rate = g->rate, .warmup_steps = g->warmup, .lr_scheduler_type = SCHEDULER_COSINE}};
    struct pool *pool;
    struct gpt2 *model;
    memcpy(params, g->params, g->N * sizeof(float));
    if (average) memcpy(average, g->params, g->N * sizeof(float));
    assert_int_equal(pool_open(&pool, 2), 0);
    assert_int_equal(gpt2_open(&model, &g->config, g->B, g->T, true, pool), 0);
    for (int s = 1; s <= g->steps; s++) {
        uint64_t tokens;
        double loss;
        gpt2_gradient(model, grads, &loss, &tokens, params, g->inputs, g->targets, g->B, g->T, NULL);
        losses[s - 1] = loss / (double)tokens;
        struct optimizer optimizer = *like;
        optimizer.beta1 = 0.9, optimizer.beta2 = 0.999, optimizer.epsilon = 1e-8, optimizer.weight_decay = 0.1;
        optimizer.learning_rate = learning_rate(&config, (uint64_t)s, (uint64_t)g->steps), optimizer.step = (uint64_t)s;
        optimizer.scale = gradient_scale(square_sum(grads, g->N), tokens, g->clip);
        optimizer_apply((void *[STATE_PARTS]){params, m, v, average}, grads, &g->config, &optimizer, pool);
    }
    gpt2_close(model);
    pool_close(pool);
    free(params), free(grads), free(m), free(v);
}

static double worst_loss(const struct golden *g, const struct optimizer *like, const double *wanted) {
    double losses[64], worst = 0.0;
    assert_true(g->steps == 10);
    train(g, like, losses, NULL);
    for (int s = 0; s < g->steps; s++) {
        if (!quiet && !(fabs(losses[s] - wanted[s]) < LOSS_ERROR_MAX))
            print_message("step %d: %.9f, PyTorch %.9f\n", s + 1, losses[s], wanted[s]);
        if (!(fabs(losses[s] - wanted[s]) <= worst)) worst = fabs(losses[s] - wanted[s]);
    }
    return worst;
}

static void ten_adamw_steps_have_pytorchs_losses(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++)
        assert_true(worst_loss(&cases[i], &(struct optimizer){.kind = OPTIM_ADAMW}, cases[i].losses) < LOSS_ERROR_MAX);
}

static void ten_steps_of_other_optimizers_have_pytorchs_losses(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int k = 0; k < OTHERS; k++) {
            struct golden g = cases[i];
            g.rate *= others[k].rate;
            assert_true(worst_loss(&g, &others[k].optimizer, g.other_losses[k]) < LOSS_ERROR_MAX);
            quiet = 1;
            for (int other = 0; other < OTHERS; other++) /* one is told apart from the others */
                if (other != k) assert_true(worst_loss(&g, &others[k].optimizer, g.other_losses[other]) > LOSS_ERROR_MAX);
            quiet = 0;
        }
}

static void the_average_of_the_weights_is_pytorchs(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        struct golden g = cases[i];
        struct optimizer optimizer = others[AVERAGED].optimizer;
        float *average = mem_alloc(g.N * sizeof *average);
        double losses[64];
        g.rate *= others[AVERAGED].rate, optimizer.ema_decay = DECAY;
        train(&g, &optimizer, losses, average);
        assert_true(worst_tensor(&g, average, g.average) < GRADIENT_ERROR_MAX);
        quiet = 1;
        optimizer.ema_decay = DECAY + 0.01;
        train(&g, &optimizer, losses, average);
        assert_true(worst_tensor(&g, average, g.average) > GRADIENT_ERROR_MAX);
        quiet = 0;
        free(average);
    }
}

static void a_wrong_learning_rate_is_told_apart(void **state) {
    (void)state;
    struct golden other = cases[0];
    other.rate *= 1.01;
    quiet = 1;
    assert_true(worst_loss(&other, &(struct optimizer){.kind = OPTIM_ADAMW}, other.losses) > LOSS_ERROR_MAX);
    quiet = 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_agree_with_pytorch),
        cmocka_unit_test(every_gradient_agrees_with_pytorch),
        cmocka_unit_test(bfloat16_has_pytorchs_gradients_within_its_precision_by_every_set),
        cmocka_unit_test(dropout_drops_what_pytorch_drops_with_the_same_masks),
        cmocka_unit_test(a_slice_done_in_parts_has_the_same_gradient_and_masks),
        cmocka_unit_test(label_smoothing_and_z_loss_have_pytorchs_gradients),
        cmocka_unit_test(the_loss_of_an_evaluation_stays_plain),
        cmocka_unit_test(a_model_without_the_document_mask_is_told_apart),
        cmocka_unit_test(a_target_that_was_not_to_count_is_told_apart),
        cmocka_unit_test(another_step_has_other_masks_and_is_told_apart),
        cmocka_unit_test(ten_adamw_steps_have_pytorchs_losses),
        cmocka_unit_test(ten_steps_of_other_optimizers_have_pytorchs_losses),
        cmocka_unit_test(the_average_of_the_weights_is_pytorchs),
        cmocka_unit_test(a_wrong_learning_rate_is_told_apart),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
