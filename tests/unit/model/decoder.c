/* The decoder over shapes that fit no vector: against its twin in float64, and its bits against themselves; what bfloat16 and int8
 * weights cost. */
#include "model/generate/decoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "model/generate/generate.h"
#include "tests/unit/model/small_model.h"

enum { TOKENS_MAX = 170, V_MAX = 200 };
static const enum weights_type TYPES[] = {WEIGHTS_FP32, WEIGHTS_BF16, WEIGHTS_INT8};

static struct gpt2_config random_config(struct random *random) {
    struct gpt2_config config = small_config();
    config.n_head = (int)random_in(random, 1, 5);
    config.n_embd = config.n_head * (int)random_in(random, 1, 40);
    config.n_inner = (int)random_in(random, 1, 300);
    config.n_layer = (int)random_in(random, 1, 3);
    config.vocab_size = random_in(random, 0, 2) ? 131 : (int)random_in(random, 2, V_MAX);
    config.n_positions = (int)random_in(random, 2, TOKENS_MAX);
    config.scale_attn_weights = random_in(random, 0, 3) != 0;
    return config;
}

static struct decoder_weights *weights_of(const struct gpt2_config *config, enum weights_type type, const float *params, int threads) {
    struct decoder_weights *weights;
    struct pool *pool;
    struct weights_source source = weights_in_memory(params);
    assert_int_equal(pool_open(&pool, threads), 0);
    assert_int_equal(decoder_weights_open(&weights, config, type, &source, pool), 0);
    pool_close(pool);
    return weights;
}

/* Logits after each token of ids, taken in pieces of at most `piece`. */
static void all_logits(float *out, const struct decoder_weights *weights, const int32_t *ids, int count, int piece, int threads) {
    struct pool *pool;
    struct decoder *decoder;
    assert_int_equal(pool_open(&pool, threads), 0);
    assert_int_equal(decoder_open_weights(&decoder, weights, count, pool), 0);
    for (int at = 0; at < count;) {
        int n = piece < count - at ? piece : count - at;
        decoder_take(decoder, ids + at, n);
        decoder_logits_of_last(decoder, out + (size_t)at * (size_t)weights->config.vocab_size, n);
        at += n;
    }
    decoder_close(decoder);
    pool_close(pool);
}

static void random_ids(int32_t *out, int count, const struct gpt2_config *config, struct random *random) {
    for (int i = 0; i < count; i++) out[i] = (int32_t)random_in(random, 0, (uint64_t)config->vocab_size - 1);
}

/* ---- the forward pass in float64, as the papers write it ---- */

static const float *tensor(const struct gpt2_config *config, const float *params, int l, const char *name) {
    struct gpt2_tensor list[64];
    char full[64];
    size_t count = gpt2_tensors(list, config);
    if (l < 0) snprintf(full, sizeof full, "transformer.%s", name);
    else snprintf(full, sizeof full, "transformer.h.%d.%s", l, name);
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].name, full) == 0) return params + list[i].offset;
    fail_msg("no tensor %s", full);
    return NULL;
}

static void twin_norm(double *out, const double *x, const float *weight, const float *bias, int C) {
    double mean = 0, variance = 0;
    for (int c = 0; c < C; c++) mean += x[c] / C;
    for (int c = 0; c < C; c++) variance += (x[c] - mean) * (x[c] - mean) / C;
    for (int c = 0; c < C; c++) out[c] = (x[c] - mean) / sqrt(variance + 1e-5) * (double)weight[c] + (double)bias[c];
}

static void twin_linear(double *out, const double *x, const float *weight, const float *bias, int K, int N) {
    for (int j = 0; j < N; j++) {
        out[j] = (double)bias[j];
        for (int k = 0; k < K; k++) out[j] += x[k] * (double)weight[k * N + j];
    }
}

/* One layer for the token at `now`; kv (T, 3C) holds the queries, keys and values so far. */
static void twin_layer(double *x, double *kv, const struct gpt2_config *config, const float *params, int l, int now) {
    int C = config->n_embd, F = config->n_inner, HS = C / config->n_head;
    double norm[200], atty[200] = {0}, inner[300], p[TOKENS_MAX];
#define OF(name) tensor(config, params, l, name)
    twin_norm(norm, x, OF("ln_1.weight"), OF("ln_1.bias"), C);
    twin_linear(kv + now * 3 * C, norm, OF("attn.c_attn.weight"), OF("attn.c_attn.bias"), C, 3 * C);
    for (int h = 0; h < config->n_head; h++) {
        const double *q = kv + now * 3 * C + h * HS;
        double most = -INFINITY, sum = 0;
        for (int t = 0; t <= now; t++) {
            p[t] = 0;
            for (int i = 0; i < HS; i++) p[t] += q[i] * kv[t * 3 * C + C + h * HS + i];
            if (config->scale_attn_weights) p[t] /= sqrt(HS);
            most = fmax(most, p[t]);
        }
        for (int t = 0; t <= now; t++) sum += p[t] = exp(p[t] - most);
        for (int t = 0; t <= now; t++)
            for (int i = 0; i < HS; i++) atty[h * HS + i] += p[t] / sum * kv[t * 3 * C + 2 * C + h * HS + i];
    }
    twin_linear(norm, atty, OF("attn.c_proj.weight"), OF("attn.c_proj.bias"), C, C);
    for (int c = 0; c < C; c++) x[c] += norm[c];
    twin_norm(norm, x, OF("ln_2.weight"), OF("ln_2.bias"), C);
    twin_linear(inner, norm, OF("mlp.c_fc.weight"), OF("mlp.c_fc.bias"), C, F);
    for (int f = 0; f < F; f++) inner[f] *= 0.5 * (1 + tanh(sqrt(2 / acos(-1)) * (inner[f] + 0.044715 * pow(inner[f], 3))));
    twin_linear(norm, inner, OF("mlp.c_proj.weight"), OF("mlp.c_proj.bias"), F, C);
    for (int c = 0; c < C; c++) x[c] += norm[c];
#undef OF
}

/* out (T, V). */
static void twin_logits(double *out, const struct gpt2_config *config, const float *params, const int32_t *ids, int T) {
    int C = config->n_embd, V = config->vocab_size;
    const float *wte = tensor(config, params, -1, "wte.weight"), *wpe = tensor(config, params, -1, "wpe.weight");
    double *kv = mem_alloc(sizeof(double) * (size_t)config->n_layer * (size_t)T * 3 * (size_t)C), x[200] = {0}, norm[200];
    for (int t = 0; t < T; t++) {
        for (int c = 0; c < C; c++) x[c] = (double)wte[ids[t] * C + c] + (double)wpe[t * C + c];
        for (int l = 0; l < config->n_layer; l++) twin_layer(x, kv + (size_t)l * (size_t)T * 3 * (size_t)C, config, params, l, t);
        twin_norm(norm, x, tensor(config, params, -1, "ln_f.weight"), tensor(config, params, -1, "ln_f.bias"), C);
        for (int v = 0; v < V; v++) {
            out[t * V + v] = 0;
            for (int c = 0; c < C; c++) out[t * V + v] += norm[c] * (double)wte[v * C + c];
        }
    }
    free(kv);
}

static void odd_shapes_give_the_logits_of_float64(void **state) {
    (void)state;
    struct random random = random_open("odd_shapes_give_the_logits_of_float64");
    double *twin = mem_alloc(sizeof(double) * TOKENS_MAX * V_MAX);
    float *logits = mem_alloc(sizeof(float) * TOKENS_MAX * V_MAX);
    int32_t ids[TOKENS_MAX];
    for (int round = 0; round < 15; round++) {
        struct gpt2_config config = random_config(&random);
        float *params = small_params(&config, &random);
        int T = config.n_positions, V = config.vocab_size;
        for (size_t i = 0; i < gpt2_parameters(&config); i++) params[i] *= 0.5f; /* unscaled attention is chaotic with larger ones */
        random_ids(ids, T, &config, &random);
        twin_logits(twin, &config, params, ids, T);
        struct decoder_weights *weights = weights_of(&config, WEIGHTS_FP32, params, 1);
        all_logits(logits, weights, ids, T, (int)random_in(&random, 1, DECODER_BLOCK), 2);
        for (int i = 0; i < T * V; i++)
            if (!(fabs((double)logits[i] - twin[i]) < 1e-4))
                fail_msg("seed %llu, C %d, NH %d, F %d, V %d: token %d: logit %d is %g instead of %g", (unsigned long long)random.seed,
                         config.n_embd, config.n_head, config.n_inner, V, i / V, i % V, (double)logits[i], twin[i]);
        decoder_weights_close(weights);
        free(params);
    }
    free(twin), free(logits);
}

/* ---- bits ---- */

static void threads_pieces_and_instruction_sets_change_no_bit(void **state) {
    (void)state;
    struct random random = random_open("threads_pieces_and_instruction_sets_change_no_bit");
    size_t bytes = sizeof(float) * TOKENS_MAX * V_MAX;
    float *first = mem_alloc(bytes), *other = mem_alloc(bytes);
    int32_t ids[TOKENS_MAX];
    for (int round = 0; round < 18; round++) {
        struct gpt2_config config = random_config(&random);
        float *params = small_params(&config, &random);
        struct decoder_weights *weights = weights_of(&config, TYPES[round % 3], params, 1);
        int T = config.n_positions;
        random_ids(ids, T, &config, &random);
        memset(first, 0, bytes), memset(other, 0, bytes);
        all_logits(first, weights, ids, T, 1, 1);
        const struct stripe_kernels *set;
        for (int s = 0; (set = stripe_kernels_at(s)); s++) {
            int threads = (int)random_in(&random, 1, 4), piece = s == 0 ? DECODER_BLOCK : (int)random_in(&random, 1, DECODER_BLOCK);
            setenv("MILLRACE_KERNELS", set->name, 1);
            all_logits(other, weights, ids, T, piece, threads);
            unsetenv("MILLRACE_KERNELS");
            if (memcmp(first, other, bytes) != 0)
                fail_msg("seed %llu, round %d: %s, %d threads, pieces of %d differ", (unsigned long long)random.seed, round, set->name,
                         threads, piece);
        }
        decoder_weights_close(weights);
        free(params);
    }
    free(first), free(other);
}

static void laying_out_with_more_threads_changes_no_byte(void **state) {
    (void)state;
    struct random random = random_open("laying_out_with_more_threads_changes_no_byte");
    struct gpt2_config config = random_config(&random);
    float *params = small_params(&config, &random);
    for (int i = 0; i < 3; i++) {
        struct decoder_weights *one = weights_of(&config, TYPES[i], params, 1), *three = weights_of(&config, TYPES[i], params, 3);
        size_t bytes = (size_t)(one->wte.data - one->memory) + stripes_bytes(&one->wte);
        assert_memory_equal(one->memory, three->memory, bytes);
        decoder_weights_close(one), decoder_weights_close(three);
    }
    free(params);
}

/* ---- quality ---- */

/* Loss of each type of weights on the tokens that the model itself says, where it has opinions to lose. */
static void rounded_weights_cost_little(void **state) {
    (void)state;
    struct random random = random_open("rounded_weights_cost_little");
    static const double most[] = {1e-5, 0.004, 0.01}, most_apart[] = {0, 0.03, 0.06}; /* seen: a third of these */
    static const int least_agreeing[] = {96, 86, 82};
    enum { COUNT = 2000 };
    struct gpt2_config config = small_config();
    config.n_embd = 160, config.n_inner = 640, config.n_positions = 96, config.vocab_size = 131;
    float *params = small_params(&config, &random), *of_fp32 = mem_alloc(sizeof(float) * 96 * 131),
          *of_type = mem_alloc(sizeof(float) * 96 * 131);
    for (size_t i = 0; i < gpt2_parameters(&config); i++) params[i] *= 0.7f;
    struct decoder_weights *fp32 = weights_of(&config, WEIGHTS_FP32, params, 2);
    struct generate_options options = {.temperature = 1, .top_p = 1, .seed = random.seed, .max_new_tokens = COUNT - 1};
    int32_t ids[COUNT] = {5};
    struct pool *pool;
    int count;
    config.eos_token_id = fp32->config.eos_token_id = -1;
    assert_int_equal(pool_open(&pool, 2), 0);
    assert_int_equal(gpt2_generate_from(ids, &count, fp32, ids, 1, &options, 0, pool, NULL, NULL), 0);
    double reference, loss;
    uint64_t tokens;
    assert_int_equal(gpt2_evaluate(&reference, &tokens, &config, params, ids, COUNT, pool, NULL, NULL), 0);
    all_logits(of_fp32, fp32, ids, 96, 64, 1);
    for (int t = 0; t < 3; t++) {
        struct decoder_weights *weights = weights_of(&config, TYPES[t], params, 2);
        assert_int_equal(gpt2_evaluate_from(&loss, &tokens, weights, ids, COUNT, pool, NULL, NULL), 0);
        assert_int_equal(tokens, COUNT - 1);
        all_logits(of_type, weights, ids, 96, 64, 1);
        int agree = 0;
        double apart = 0, size = 0;
        for (int i = 0; i < 96 * 131; i++) apart += pow((double)(of_type[i] - of_fp32[i]), 2), size += pow((double)of_fp32[i], 2);
        apart = sqrt(apart / size);
        for (int i = 0; i < 96; i++) agree += sample_greedy(of_fp32 + i * 131, 131) == sample_greedy(of_type + i * 131, 131);
        double change = exp((loss - reference) / (COUNT - 1)) - 1;
        print_message("type %d: perplexity %.4f, %+.4f %%; logits %.2g apart; %d of 96 greedy tokens agree\n", t, exp(loss / (COUNT - 1)),
                      change * 100, apart, agree);
        if (!(fabs(change) <= most[t]) || !(apart <= most_apart[t]) || agree < least_agreeing[t])
            fail_msg("seed %llu", (unsigned long long)random.seed);
        decoder_weights_close(weights);
    }
    assert_int_equal(gpt2_evaluate_from(&loss, &tokens, fp32, ids, 1, pool, NULL, NULL), ERR_CONFIG);
    ids[7] = 131;
    assert_int_equal(gpt2_evaluate_from(&loss, &tokens, fp32, ids, COUNT, pool, NULL, NULL), ERR_CORRUPT);
    decoder_weights_close(fp32);
    pool_close(pool);
    free(params), free(of_fp32), free(of_type);
}

static int unreadable(void *arg, float *out, size_t first, size_t count) {
    (void)out, (void)count;
    return first >= *(size_t *)arg ? err_set(ERR_IO, "the disk is gone") : 0;
}

static void a_source_that_fails_and_weights_that_are_no_numbers_are_errors(void **state) {
    (void)state;
    struct random random = random_open("a_source_that_fails_and_weights_that_are_no_numbers_are_errors");
    struct gpt2_config config = small_config();
    float *params = small_params(&config, &random);
    struct decoder_weights *weights = NULL;
    struct pool *pool;
    assert_int_equal(pool_open(&pool, 2), 0);
    size_t place = random_in(&random, 0, gpt2_parameters(&config) / 2);
    assert_int_equal(decoder_weights_open(&weights, &config, WEIGHTS_INT8, &(struct weights_source){unreadable, &place}, pool), ERR_IO);
    assert_null(weights);
    params[3 * 32 + 1] = NAN;
    struct weights_source source = weights_in_memory(params);
    assert_int_equal(decoder_weights_open(&weights, &config, WEIGHTS_INT8, &source, pool), ERR_CORRUPT);
    assert_null(weights);
    pool_close(pool);
    free(params);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_shapes_give_the_logits_of_float64),
        cmocka_unit_test(threads_pieces_and_instruction_sets_change_no_bit),
        cmocka_unit_test(laying_out_with_more_threads_changes_no_byte),
        cmocka_unit_test(rounded_weights_cost_little),
        cmocka_unit_test(a_source_that_fails_and_weights_that_are_no_numbers_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
