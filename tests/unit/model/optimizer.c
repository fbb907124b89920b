/* Optimizers, clipping, sums, digests and schedules against formulas written out again; the shape of GPT-2 and its first values. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"
#include "model/trial/self_test.h"
#include "proto/steps.h"

static const struct gpt2_config gpt2_small = {.vocab_size = 50257,
                                              .n_positions = 1024,
                                              .n_embd = 768,
                                              .n_layer = 12,
                                              .n_head = 12,
                                              .n_inner = 3072,
                                              .layer_norm_epsilon = 1e-5f,
                                              .initializer_range = 0.02f,
                                              .scale_attn_weights = true};
static const struct gpt2_config tiny = {.vocab_size = 600,
                                        .n_positions = 20,
                                        .n_embd = 32,
                                        .n_layer = 3,
                                        .n_head = 2,
                                        .n_inner = 128,
                                        .layer_norm_epsilon = 1e-5f,
                                        .initializer_range = 0.02f,
                                        .scale_attn_weights = true};

static void parameters_are_counted_without_allocating_them(void **state) {
    (void)state;
    struct gpt2_config large = gpt2_small;
    large.n_layer = 32, large.n_embd = 1600, large.n_head = 32, large.n_positions = 512, large.n_inner = 6400;
    assert_int_equal(gpt2_parameters(&gpt2_small), 124439808);
    assert_int_equal(gpt2_parameters(&large), 50257ULL * 1600 + 512 * 1600 + 32ULL * (12ULL * 1600 * 1600 + 13 * 1600) + 2 * 1600);
    assert_int_equal(gpt2_parameters(&large), 1064939200);
    large.n_positions = 1024;
    assert_int_equal(gpt2_parameters(&large), 1065758400);
}

static void tensors_follow_each_other_under_hugging_faces_names(void **state) {
    (void)state;
    struct gpt2_tensor tensors[40];
    size_t count = gpt2_tensors(tensors, &tiny), end = 0;
    assert_int_equal(count, gpt2_tensor_count(&tiny));
    assert_int_equal(count, 4 + 3 * 12);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(tensors[i].offset, end);
        assert_int_equal(tensors[i].size, tensors[i].shape[0] * (tensors[i].rank == 2 ? tensors[i].shape[1] : 1));
        assert_int_equal(tensors[i].decayed, tensors[i].rank == 2);
        for (size_t k = 0, stop; k < 3; k++) {
            size_t element = end + (k == 0 ? 0 : k == 1 ? tensors[i].size / 2 : tensors[i].size - 1);
            assert_int_equal(gpt2_decayed(&stop, &tiny, element), tensors[i].decayed);
            assert_int_equal(stop, end + tensors[i].size);
        }
        end += tensors[i].size;
    }
    assert_int_equal(end, gpt2_parameters(&tiny));
    assert_string_equal(tensors[0].name, "transformer.wte.weight");
    assert_string_equal(tensors[16].name, "transformer.h.1.attn.c_attn.weight");
    assert_int_equal(tensors[16].shape[0], 32);
    assert_int_equal(tensors[16].shape[1], 96);
    assert_string_equal(tensors[39].name, "transformer.ln_f.bias");
    assert_int_equal(gpt2_tensors(NULL, &gpt2_small), 148);
}

static double deviation(const float *x, const struct gpt2_tensor *t) {
    double squares = 0.0;
    for (size_t i = 0; i < t->size; i++) squares += (double)x[t->offset + i] * (double)x[t->offset + i];
    return sqrt(squares / (double)t->size);
}

static void first_values_are_those_of_gpt2_and_a_function_of_the_seed(void **state) {
    (void)state;
    size_t N = gpt2_parameters(&tiny);
    float *a = mem_alloc(N * sizeof(float)), *b = mem_alloc(N * sizeof(float));
    struct gpt2_tensor tensors[40];
    gpt2_tensors(tensors, &tiny);
    for (size_t i = 0; i < N; i++) a[i] = 9.0f;
    gpt2_init(a, &tiny, 1);
    gpt2_init(b, &tiny, 1);
    assert_memory_equal(a, b, N * sizeof(float));
    gpt2_init(b, &tiny, 2);
    assert_memory_not_equal(a, b, N * sizeof(float));
    for (size_t i = 0; i < 40; i++) {
        double wanted = tensors[i].rank == 2 ? 0.02 : 0.0;
        if (strstr(tensors[i].name, "c_proj.weight")) wanted = 0.02 / sqrt(6.0);
        if (strstr(tensors[i].name, "ln_") && strstr(tensors[i].name, ".weight")) wanted = 1.0;
        if (fabs(deviation(a, &tensors[i]) - wanted) > 0.1 * wanted)
            fail_msg("%s: %g, not %g", tensors[i].name, deviation(a, &tensors[i]), wanted);
    }
    free(a), free(b);
}

static struct config schedule(enum scheduler type, int64_t warmup) {
    return (struct config){.training = {.learning_rate = 2e-3, .warmup_steps = warmup, .lr_scheduler_type = type}};
}

static void learning_rates_are_those_of_transformers(void **state) {
    (void)state;
    for (int64_t warmup = 0; warmup <= 10; warmup += 5) {
        struct config cosine = schedule(SCHEDULER_COSINE, warmup), linear = schedule(SCHEDULER_LINEAR, warmup),
                      constant = schedule(SCHEDULER_CONSTANT, warmup);
        for (uint64_t step = 1; step <= 100; step++) {
            double s = (double)step - 1.0, w = (double)warmup, up = s / fmax(1.0, w), progress = (s - w) / fmax(1.0, 100.0 - w);
            bool warming = s < w;
            assert_true(fabs(learning_rate(&constant, step, 100) - 2e-3) < 1e-17); /* it has no warm-up */
            assert_true(fabs(learning_rate(&linear, step, 100) - 2e-3 * (warming ? up : fmax(0.0, (100.0 - s) / fmax(1.0, 100.0 - w)))) <
                        1e-17);
            assert_true(fabs(learning_rate(&cosine, step, 100) -
                             2e-3 * (warming ? up : fmax(0.0, 0.5 * (1.0 + cos(acos(-1.0) * progress))))) < 1e-17);
        }
        assert_true(learning_rate(&cosine, 1, 100) == (warmup ? 0.0 : 2e-3)); /* with warm-up the first step moves nothing, as there */
        assert_true(learning_rate(&cosine, 101, 100) == 0.0 && learning_rate(&linear, 500, 100) == 0.0);
    }
    struct config all_warmup = schedule(SCHEDULER_COSINE, 100);
    assert_true(learning_rate(&all_warmup, 10, 10) == 2e-3 * 0.09);
}

static int index_of(const char *name, const char *const *names) {
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], name) == 0) return i;
    fail_msg("the oracle speaks of %s", name);
    return -1;
}

static void every_schedule_is_transformers_own(void **state) {
    (void)state;
    static const char *const types[] = {"cosine", "linear", "constant", "constant_with_warmup", "cosine_with_min_lr",
                                        "warmup_stable_decay", "inverse_sqrt", "polynomial", NULL};
    static const char *const decays[] = {"cosine", "linear", "1-sqrt", NULL};
    FILE *file = fopen("tests/oracle/schedules.txt", "r");
    assert_non_null(file);
    char name[32], decay[16];
    long long warmup, steps, decay_steps;
    double least, power, wanted;
    bool seen[SCHEDULER_POLYNOMIAL + 1] = {false};
    while (fscanf(file, "%31s %lld %lld %lf %lld %15s %lf", name, &warmup, &steps, &least, &decay_steps, decay, &power) == 7) {
        struct config config = schedule((enum scheduler)index_of(name, types), warmup);
        config.training.min_lr_rate = least, config.training.num_decay_steps = decay_steps, config.training.power = power;
        if (decay[0] != '-') config.training.decay_type = (enum decay)index_of(decay, decays);
        seen[config.training.lr_scheduler_type] = true;
        for (int step = 1; step <= steps; step++) {
            assert_int_equal(fscanf(file, "%lf", &wanted), 1);
            double got = learning_rate(&config, (uint64_t)step, (uint64_t)steps) / 2e-3;
            if (!(fabs(got - wanted) < 1e-14))
                fail_msg("%s, warm-up %lld, minimum %g, decay %s, power %g: step %d has %.17g, not %.17g", name, warmup, least, decay,
                         power, step, got, wanted);
        }
    }
    assert_true(feof(file));
    fclose(file);
    for (int type = 0; type <= SCHEDULER_POLYNOMIAL; type++) assert_true(seen[type]);
}

static void a_decay_without_a_length_is_a_tenth_of_the_run(void **state) {
    (void)state;
    struct config without = schedule(SCHEDULER_WARMUP_STABLE_DECAY, 5), with = without;
    with.training.num_decay_steps = 20;
    for (uint64_t step = 1; step <= 200; step++) assert_true(learning_rate(&without, step, 200) == learning_rate(&with, step, 200));
    assert_true(learning_rate(&without, 181, 200) == 2e-3 && learning_rate(&without, 182, 200) < 2e-3);
    assert_true(learning_rate(&without, 6, 6) == 2e-3); /* a run too short for a tenth */
}

static void gradients_are_clipped_as_pytorch_clips_them(void **state) {
    (void)state;
    assert_true(gradient_scale(400.0, 10, 0.0) == 0.1f);                                /* no clipping */
    assert_true(gradient_scale(400.0, 10, 3.0) == 0.1f);                                /* norm 2 is below 3 */
    assert_true(gradient_scale(400.0, 10, 1.0) == (float)(0.1 * (1.0 / (2.0 + 1e-6)))); /* norm 2 becomes 1 */
    assert_true(gradient_scale(100.0, 10, 1.0) == (float)(0.1 * (1.0 / (1.0 + 1e-6)))); /* in between: norm 1, as torch's 1e-6 has it */
    assert_true(gradient_scale(0.0, 10, 1.0) == 0.1f);
}

/* One element in float64: torch.optim's formulas, written out again. */
struct twin {
    double p, m, v, average;
};

static void twin_move(struct twin *t, const struct optimizer *o, double gradient, bool decay) {
    double wd = decay ? o->weight_decay : 0.0, step = (double)o->step;
    gradient *= (double)o->scale;
    if (o->kind == OPTIM_ADAMW) t->p *= 1.0 - o->learning_rate * wd;
    else gradient += wd * t->p;
    if (o->kind == OPTIM_SGD) {
        t->m = o->momentum * t->m + gradient;
        t->p -= o->learning_rate * (o->nesterov ? gradient + o->momentum * t->m : t->m);
        return;
    }
    t->m = o->beta1 * t->m + (1.0 - o->beta1) * gradient, t->v = o->beta2 * t->v + (1.0 - o->beta2) * gradient * gradient;
    t->p -= o->learning_rate * t->m / (1.0 - pow(o->beta1, step)) / (sqrt(t->v / (1.0 - pow(o->beta2, step))) + o->epsilon);
}

static void twin_step(struct twin *t, const struct optimizer *o, double gradient, bool decay) {
    twin_move(t, o, gradient, decay);
    t->average = o->ema_decay * t->average + (1.0 - o->ema_decay) * t->p;
}

static const struct optimizer kinds[] = {
    {.kind = OPTIM_ADAMW},
    {.kind = OPTIM_ADAM},
    {.kind = OPTIM_SGD},
    {.kind = OPTIM_SGD, .momentum = 0.8},
    {.kind = OPTIM_SGD, .momentum = 0.8, .nesterov = true},
    {.kind = OPTIM_ADAMW, .ema_decay = 0.7},
    {.kind = OPTIM_SGD, .ema_decay = 0.7},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static struct optimizer with_rates(struct optimizer o, uint64_t step) {
    o.beta1 = 0.9, o.beta2 = 0.99, o.epsilon = 1e-8, o.weight_decay = 0.1;
    o.learning_rate = 1e-2, o.step = step, o.scale = 0.25f;
    return o;
}

static void check_formula(const struct optimizer *kind) {
    size_t N = gpt2_parameters(&tiny);
    struct state_parts parts = optimizer_parts(kind);
    void *state[STATE_PARTS] = {NULL};
    float *g = mem_alloc(N * sizeof(float));
    struct twin *twin = mem_alloc(N * sizeof *twin);
    struct gpt2_tensor tensors[40];
    struct pool *pool;
    gpt2_tensors(tensors, &tiny);
    assert_int_equal(state_open(state, &parts, N), 0);
    const float *weights = state[STATE_WEIGHTS], *average = state[STATE_EMA];
    struct optimizer first = *kind;
    first.seed = 3;
    assert_int_equal(pool_open(&pool, 2), 0);
    optimizer_begin(state, &tiny, &first, pool);
    for (size_t i = 0; i < N; i++) twin[i].p = twin[i].average = (double)weights[i];
    for (uint64_t step = 1; step <= 3; step++) {
        struct optimizer o = with_rates(*kind, step);
        gpt2_init(g, &tiny, 100 + step);
        optimizer_apply(state, g, &tiny, &o, pool);
        for (int t = 0; t < 40; t++)
            for (size_t i = tensors[t].offset; i < tensors[t].offset + tensors[t].size; i++) {
                twin_step(&twin[i], &o, (double)g[i], tensors[t].decayed);
                if (!(fabs((double)weights[i] - twin[i].p) < 1e-6))
                    fail_msg("optimizer %d, step %d, %s: %g, not %g", (int)kind->kind, (int)step, tensors[t].name,
                             (double)weights[i], twin[i].p);
                assert_true(!average || fabs((double)average[i] - twin[i].average) < 1e-6);
            }
    }
    pool_close(pool);
    state_close(state);
    free(g), free(twin);
}

static void every_optimizer_moves_weights_as_its_formula_says(void **state) {
    (void)state;
    for (int i = 0; i < KINDS; i++) check_formula(&kinds[i]);
}

static void an_optimizer_keeps_the_vectors_that_it_uses(void **state) {
    (void)state;
    static const size_t counts[KINDS] = {3, 3, 1, 2, 2, 4, 2};
    for (int i = 0; i < KINDS; i++) {
        struct state_parts parts = optimizer_parts(&kinds[i]);
        assert_int_equal(parts.count, counts[i]);
        for (size_t k = 0; k < parts.count; k++) {
            bool average = kinds[i].ema_decay > 0 && k + 1 == parts.count;
            assert_int_equal(parts.part[k], average ? STATE_EMA : k);
        }
    }
}

static void every_optimizer_has_a_self_test_of_its_own(void **state) {
    (void)state;
    uint8_t digest[2 * KINDS][SHA256_BYTES];
    struct pool *pool;
    int count = 0;
    assert_int_equal(pool_open(&pool, 2), 0);
    for (int i = 0; i < 2 * KINDS; i++) {
        struct optimizer kind = kinds[i / 2];
        kind.moments_type = i % 2 ? MOMENTS_BF16 : MOMENTS_FP32;
        if (i % 2 && optimizer_moments(&kind) == 0) continue;
        assert_int_equal(self_test(digest[count], &tiny, &kind, 20, pool), 0);
        for (int k = 0; k < count; k++) assert_memory_not_equal(digest[count], digest[k], SHA256_BYTES);
        count++;
    }
    assert_int_equal(count, 2 * KINDS - 2);
    pool_close(pool);
}

static void a_digest_covers_every_element_and_its_place(void **state) {
    (void)state;
    enum { N = SEGMENT_ELEMENTS + 1001 };
    float *x = mem_alloc(N * sizeof(float)), *y = mem_alloc(N * sizeof(float));
    uint8_t one[XXH128_BYTES], two[XXH128_BYTES], parts[2][XXH128_BYTES];
    struct pool *pool;
    assert_int_equal(pool_open(&pool, 2), 0);
    for (int i = 0; i < N; i++) x[i] = (float)i, y[i] = (float)-i;
    vectors_digest(one, (const float *const[]){x}, 1, N, pool);
    xxh128_of(parts[0], x, (size_t)SEGMENT_ELEMENTS * sizeof(float));
    xxh128_of(parts[1], x + SEGMENT_ELEMENTS, 1001 * sizeof(float));
    xxh128_of(two, parts, sizeof parts);
    assert_memory_equal(one, two, sizeof one);
    vectors_digest(one, (const float *const[]){x, y}, 2, N, pool);
    vectors_digest(two, (const float *const[]){y, x}, 2, N, pool);
    assert_memory_not_equal(one, two, sizeof one);
    y[N - 1] += 1.0f;
    vectors_digest(two, (const float *const[]){x, y}, 2, N, pool);
    assert_memory_not_equal(one, two, sizeof one);
    pool_close(pool);
    free(x), free(y);
}

static void sums_are_elementwise_and_squares_in_float64(void **state) {
    (void)state;
    float x[5] = {1, 2, 3, 4, 1e7f}, y[5] = {10, 20, 30, 40, 1.0f};
    assert_true(square_sum(x, 4) == 30.0);
    assert_true(square_sum(x, 5) == 1e14 + 30.0);
    assert_true(square_sum(x, 0) == 0.0);
    vector_add(x, x, y, 4);
    assert_true(x[0] == 11.0f && x[3] == 44.0f && x[4] == 1e7f);
}

static void parts_of_a_slice_are_even_and_about_two_thousand_tokens(void **state) {
    (void)state;
    assert_int_equal(gpt2_batch_for(&gpt2_small, 2, 256), 2);
    assert_int_equal(gpt2_batch_for(&gpt2_small, 8, 256), 8);
    assert_int_equal(gpt2_batch_for(&gpt2_small, 12, 256), 6);
    assert_int_equal(gpt2_batch_for(&gpt2_small, 13, 256), 7); /* a prime: two uneven parts, not thirteen */
    assert_int_equal(gpt2_batch_for(&gpt2_small, 4, 1024), 2);
    assert_int_equal(gpt2_batch_for(&gpt2_small, 4, 4096), 1);
    struct gpt2_config bounded = gpt2_small;
    bounded.micro_batch = 3; /* as pipeline.yaml says, whatever a sequence's length */
    assert_int_equal(gpt2_batch_for(&bounded, 2, 256), 2);
    assert_int_equal(gpt2_batch_for(&bounded, 12, 256), 3);
    assert_int_equal(gpt2_batch_for(&bounded, 12, 4096), 3);
    assert_int_equal(gpt2_batch_for(&bounded, 8, 256), 2); /* four even parts; as many as the memory of three allows */
}

/* Zeros, which take no memory, but for one element of the first segment and one of the last: more segments than are done at once. */
static void sums_and_digests_go_over_any_number_of_segments(void **state) {
    (void)state;
    const size_t elements = (size_t)SEGMENT_ELEMENTS * (SEGMENTS_AT_ONCE + 1) + 5, bytes = elements * sizeof(float);
    float *x = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(x != MAP_FAILED);
    x[3] = 2, x[elements - 1] = 3;
    uint8_t got[XXH128_BYTES], wanted[XXH128_BYTES], parts[SEGMENTS_AT_ONCE + 2][XXH128_BYTES];
    struct pool *pool;
    assert_int_equal(pool_open(&pool, 2), 0);
    assert_true(square_sum_of_segments(x, elements, pool) == 13);
    vectors_digest(got, (const float *const[]){x}, 1, elements, pool);
    xxh128_of(parts[0], x, SEGMENT_ELEMENTS * sizeof(float));
    xxh128_of(parts[1], x + SEGMENT_ELEMENTS, SEGMENT_ELEMENTS * sizeof(float));
    for (int i = 2; i <= SEGMENTS_AT_ONCE; i++) memcpy(parts[i], parts[1], XXH128_BYTES);
    xxh128_of(parts[SEGMENTS_AT_ONCE + 1], x + elements - 5, 5 * sizeof(float));
    xxh128_of(wanted, parts, sizeof parts);
    assert_memory_equal(got, wanted, sizeof got);
    pool_close(pool);
    munmap(x, bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_are_counted_without_allocating_them),
        cmocka_unit_test(tensors_follow_each_other_under_hugging_faces_names),
        cmocka_unit_test(first_values_are_those_of_gpt2_and_a_function_of_the_seed),
        cmocka_unit_test(learning_rates_are_those_of_transformers),
        cmocka_unit_test(every_schedule_is_transformers_own),
        cmocka_unit_test(a_decay_without_a_length_is_a_tenth_of_the_run),
        cmocka_unit_test(gradients_are_clipped_as_pytorch_clips_them),
        cmocka_unit_test(every_optimizer_moves_weights_as_its_formula_says),
        cmocka_unit_test(an_optimizer_keeps_the_vectors_that_it_uses),
        cmocka_unit_test(every_optimizer_has_a_self_test_of_its_own),
        cmocka_unit_test(a_digest_covers_every_element_and_its_place),
        cmocka_unit_test(sums_and_digests_go_over_any_number_of_segments),
        cmocka_unit_test(sums_are_elementwise_and_squares_in_float64),
        cmocka_unit_test(parts_of_a_slice_are_even_and_about_two_thousand_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
