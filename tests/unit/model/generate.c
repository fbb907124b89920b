/* Generation against the full forward pass, sampling against its definition, evaluation against windows done by hand. */
#include "model/generate/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "model/generate/decoder.h"
#include "model/generate/generate.h"
#include "tests/unit/model/small_model.h"

enum { PROMPT_MAX = 64, NEW_MAX = 64 };

static const struct generate_options GREEDY = {.greedy = true, .temperature = 1, .top_p = 1, .max_new_tokens = NEW_MAX};

/* Logits after ids[0 .. count), from the model of training. */
static void full_logits(float *out, const struct gpt2_config *config, const float *params, const int32_t *ids, int count) {
    struct pool *pool;
    struct gpt2 *model;
    size_t V = (size_t)config->vocab_size;
    float *all = mem_alloc((size_t)count * V * sizeof *all);
    assert_int_equal(pool_open(&pool, 1), 0);
    assert_int_equal(gpt2_open(&model, config, 1, count, false, pool), 0);
    gpt2_logits(model, all, params, ids, 1, count);
    memcpy(out, all + (size_t)(count - 1) * V, V * sizeof *all);
    gpt2_close(model);
    pool_close(pool);
    free(all);
}

static int generate(int32_t *out, int *out_count, const struct gpt2_config *config, const float *params, const int32_t *prompt,
                    int prompt_count, const struct generate_options *options, uint32_t sequence, int threads) {
    struct pool *pool;
    assert_int_equal(pool_open(&pool, threads), 0);
    int code = gpt2_generate(out, out_count, config, params, prompt, prompt_count, options, sequence, pool, NULL, NULL);
    pool_close(pool);
    return code;
}

static void random_prompt(int32_t *out, int count, const struct gpt2_config *config, struct random *random) {
    for (int i = 0; i < count; i++) out[i] = (int32_t)random_in(random, 0, (uint64_t)config->vocab_size - 2);
}

static void each_greedy_token_is_the_argmax_of_the_full_forward(void **state) {
    (void)state;
    struct random random = random_open("each_greedy_token_is_the_argmax_of_the_full_forward");
    struct gpt2_config config = small_config();
    float *params = small_params(&config, &random), logits[64];
    int32_t ids[PROMPT_MAX + NEW_MAX];
    config.eos_token_id = -1;
    for (int round = 0; round < 12; round++) {
        int prompt = round == 0 ? 1 : (int)random_in(&random, 1, PROMPT_MAX), count; /* longer ones than n_positions, too */
        random_prompt(ids, prompt, &config, &random);
        assert_int_equal(generate(ids, &count, &config, params, ids, prompt, &GREEDY, 0, 1), 0);
        assert_int_equal(count, prompt + NEW_MAX);
        int start = 0, P = config.n_positions;
        for (int n = 1; n < count; n++) {
            if (n - start > P) start = n - P / 2; /* full: the last half is taken up again */
            if (n < prompt) continue;
            full_logits(logits, &config, params, ids + start, n - start);
            int32_t best = sample_greedy(logits, config.vocab_size);
            if (best != ids[n] && fabsf(logits[best] - logits[ids[n]]) > 1e-4f)
                fail_msg("seed %llu: prompt of %d, token %d is %d, the full forward says %d", (unsigned long long)random.seed, prompt, n,
                         ids[n], best);
        }
    }
    free(params);
}

static void tokens_one_by_one_and_in_blocks_give_the_same_logits(void **state) {
    (void)state;
    struct random random = random_open("tokens_one_by_one_and_in_blocks_give_the_same_logits");
    struct gpt2_config config = small_config();
    config.n_positions = 150; /* more than two blocks */
    float *params = small_params(&config, &random), full[64];
    int32_t ids[150];
    struct pool *pool;
    struct decoder *decoder;
    random_prompt(ids, 150, &config, &random);
    full_logits(full, &config, params, ids, 150);
    assert_int_equal(pool_open(&pool, 2), 0);
    assert_int_equal(decoder_open(&decoder, &config, params, 150, pool), 0);
    for (int piece = 1; piece <= 150; piece += piece < 5 ? 1 : 29) {
        decoder_clear(decoder);
        for (int at = 0; at < 150; at += piece) decoder_take(decoder, ids + at, piece < 150 - at ? piece : 150 - at);
        assert_int_equal(decoder_length(decoder), 150);
        const float *logits = decoder_logits(decoder);
        for (int v = 0; v < config.vocab_size; v++)
            if (!(fabsf(logits[v] - full[v]) < 2e-4f))
                fail_msg("seed %llu: pieces of %d: logit %d is %g instead of %g", (unsigned long long)random.seed, piece, v,
                         (double)logits[v], (double)full[v]);
    }
    decoder_close(decoder);
    pool_close(pool);
    free(params);
}

static void samples_are_the_same_for_any_number_of_threads(void **state) {
    (void)state;
    struct random random = random_open("samples_are_the_same_for_any_number_of_threads");
    struct gpt2_config config = small_config();
    config.eos_token_id = -1;
    float *params = small_params(&config, &random);
    int32_t one[8 + NEW_MAX], three[8 + NEW_MAX], other[8 + NEW_MAX];
    int count;
    struct generate_options options = {.temperature = 1.5, .top_k = 40, .top_p = 0.95, .seed = random.seed, .max_new_tokens = NEW_MAX};
    random_prompt(one, 8, &config, &random);
    memcpy(three, one, sizeof one), memcpy(other, one, sizeof one);
    assert_int_equal(generate(one, &count, &config, params, one, 8, &options, 5, 1), 0);
    assert_int_equal(generate(three, &count, &config, params, three, 8, &options, 5, 3), 0);
    assert_memory_equal(one, three, sizeof one);
    assert_int_equal(generate(other, &count, &config, params, other, 8, &options, 6, 1), 0);
    assert_memory_not_equal(one, other, sizeof one); /* another sequence of the same seed */
    free(params);
}

static void the_end_token_stops_and_is_kept(void **state) {
    (void)state;
    struct random random = random_open("the_end_token_stops_and_is_kept");
    struct gpt2_config config = small_config();
    float *params = small_params(&config, &random);
    int32_t ids[4 + NEW_MAX], again[4 + NEW_MAX];
    int count, short_count;
    config.eos_token_id = -1;
    random_prompt(ids, 4, &config, &random);
    memcpy(again, ids, sizeof ids);
    assert_int_equal(generate(ids, &count, &config, params, ids, 4, &GREEDY, 0, 1), 0);
    int first = 4;
    config.eos_token_id = ids[4 + 5]; /* what the model says as its sixth word; it may say it before */
    while (ids[first] != config.eos_token_id) first++;
    assert_int_equal(generate(again, &short_count, &config, params, again, 4, &GREEDY, 0, 1), 0);
    assert_int_equal(short_count, first + 1);
    assert_memory_equal(again, ids, (size_t)short_count * sizeof *ids);

    struct generate_options options = GREEDY;
    options.min_new_tokens = options.max_new_tokens = 30;
    assert_int_equal(generate(again, &short_count, &config, params, again, 4, &options, 0, 1), 0);
    assert_int_equal(short_count, 4 + 30);
    for (int i = 4; i < short_count; i++) assert_int_not_equal(again[i], config.eos_token_id);
    options.greedy = false, options.temperature = 2;
    assert_int_equal(generate(again, &short_count, &config, params, again, 4, &options, 0, 1), 0);
    for (int i = 4; i < short_count; i++) assert_int_not_equal(again[i], config.eos_token_id);
    free(params);
}

static void an_empty_prompt_starts_from_bos_which_is_not_shown(void **state) {
    (void)state;
    struct random random = random_open("an_empty_prompt_starts_from_bos_which_is_not_shown");
    struct gpt2_config config = small_config();
    float *params = small_params(&config, &random);
    int32_t ids[1 + NEW_MAX], bos[1 + NEW_MAX] = {config.bos_token_id};
    int count, bos_count;
    assert_int_equal(generate(ids, &count, &config, params, NULL, 0, &GREEDY, 0, 1), 0);
    assert_int_equal(generate(bos, &bos_count, &config, params, bos, 1, &GREEDY, 0, 1), 0);
    assert_int_equal(bos_count, count + 1);
    assert_memory_equal(ids, bos + 1, (size_t)count * sizeof *ids);
    config.bos_token_id = -1;
    assert_int_equal(generate(ids, &count, &config, params, NULL, 0, &GREEDY, 0, 1), ERR_UNSUPPORTED);
    free(params);
}

static void ties_go_to_the_lowest_id(void **state) {
    (void)state;
    struct gpt2_config config = small_config();
    float *params = mem_alloc(gpt2_parameters(&config) * sizeof *params);
    int32_t ids[1 + 3] = {7};
    int count;
    struct generate_options options = GREEDY;
    options.max_new_tokens = 3;
    assert_int_equal(generate(ids, &count, &config, params, ids, 1, &options, 0, 1), 0);
    for (int i = 1; i < count; i++) assert_int_equal(ids[i], 0);
    const float logits[5] = {-1, 3, 2, 3, 3};
    assert_int_equal(sample_greedy(logits, 5), 1);
    free(params);
}

static void weights_that_are_no_numbers_and_foreign_ids_are_errors(void **state) {
    (void)state;
    struct random random = random_open("weights_that_are_no_numbers_and_foreign_ids_are_errors");
    struct gpt2_config config = small_config();
    float *params = small_params(&config, &random);
    int32_t ids[2 + NEW_MAX] = {3, 61};
    int count = -7;
    uint64_t tokens;
    double loss;
    struct pool *pool;
    assert_int_equal(generate(ids, &count, &config, params, ids, 2, &GREEDY, 0, 1), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "61"));
    assert_int_equal(count, -7);
    assert_int_equal(pool_open(&pool, 1), 0);
    assert_int_equal(gpt2_evaluate(&loss, &tokens, &config, params, ids, 2, pool, NULL, NULL), ERR_CORRUPT);
    pool_close(pool);
    params[3 * 32 + 1] = NAN; /* in the row of token 3 */
    assert_int_equal(generate(ids, &count, &config, params, ids, 1, &GREEDY, 0, 1), ERR_CORRUPT);
    struct generate_options options = {.temperature = 1, .top_p = 1, .max_new_tokens = 2};
    assert_int_equal(generate(ids, &count, &config, params, ids, 1, &options, 0, 1), ERR_CORRUPT);
    free(params);
}

enum { CHOICES = 9 };
static const float CHOICE_LOGITS[CHOICES] = {0.5f, 2, -1, 2, 1, -INFINITY, 0, 1.5f, -3};

static int32_t choose(double temperature, int top_k, double top_p, double uniform) {
    float logits[CHOICES];
    int32_t order[CHOICES];
    memcpy(logits, CHOICE_LOGITS, sizeof logits);
    struct generate_options options = {.temperature = temperature, .top_k = top_k, .top_p = top_p};
    return sample_draw(logits, order, CHOICES, &options, uniform);
}

/* The share of [0, 1) that leads to each id must be its probability among those that temperature, top-k and top-p leave. */
static void check_shares(double temperature, int top_k, double top_p, const int32_t *left, int left_count) {
    enum { DRAWS = 20000 };
    int seen[CHOICES] = {0};
    double sum = 0, p[CHOICES] = {0};
    for (int i = 0; i < DRAWS; i++) seen[choose(temperature, top_k, top_p, (i + 0.5) / DRAWS)]++;
    for (int i = 0; i < left_count; i++) sum += p[left[i]] = exp((double)CHOICE_LOGITS[left[i]] / temperature);
    for (int id = 0; id < CHOICES; id++)
        if (fabs(seen[id] / (double)DRAWS - p[id] / sum) > 2e-4)
            fail_msg("temperature %g, top_k %d, top_p %g: id %d has %g, should have %g", temperature, top_k, top_p, id,
                     seen[id] / (double)DRAWS, p[id] / sum);
}

static void draws_follow_temperature_top_k_and_top_p(void **state) {
    (void)state;
    static const int32_t all[] = {0, 1, 2, 3, 4, 6, 7, 8}, best[] = {1, 3, 7, 4}, one[] = {1};
    check_shares(1, 0, 1, all, 8);
    check_shares(0.7, 0, 1, all, 8);
    check_shares(1.3, 4, 1, best, 4);
    check_shares(1, CHOICES + 5, 1, all, 8);
    check_shares(1, 1, 1, one, 1); /* as greedy */
    check_shares(1, 0, 1e-9, one, 1);
    /* At temperature 1 the probabilities in order are .30 .30 .18 .11 ...: 0.7 is reached by three, 0.8 by four. */
    check_shares(1, 0, 0.7, best, 3);
    check_shares(1, 0, 0.8, best, 4);
    check_shares(1, 4, 0.8, best, 3); /* of what top-k leaves, .34 .34 .20 .12: three reach 0.8 */
    assert_int_equal(choose(1, 0, 1, 0.0), 0);
    assert_int_equal(choose(1, 0, 1, nextafter(1.0, 0.0)), 8);
}

static void top_k_takes_the_highest_of_many(void **state) {
    (void)state;
    struct random random = random_open("top_k_takes_the_highest_of_many");
    enum { MANY = 500 };
    float logits[MANY], copy[MANY];
    int32_t order[MANY];
    for (int round = 0; round < 200; round++) {
        int k = (int)random_in(&random, 1, 40);
        for (int i = 0; i < MANY; i++) logits[i] = (float)(int)random_in(&random, 0, 60); /* many ties */
        memcpy(copy, logits, sizeof copy);
        struct generate_options options = {.temperature = 20, .top_k = k, .top_p = 1};
        int32_t id = sample_draw(copy, order, MANY, &options, random_float(&random, 0.5f) + 0.5);
        int before = 0; /* how many come first */
        for (int i = 0; i < MANY; i++) before += logits[i] > logits[id] || (logits[i] == logits[id] && i < id);
        if (before >= k) fail_msg("seed %llu: id %d is number %d of top %d", (unsigned long long)random.seed, id, before + 1, k);
    }
}

static void evaluation_is_the_sum_over_windows(void **state) {
    (void)state;
    struct random random = random_open("evaluation_is_the_sum_over_windows");
    struct gpt2_config config = small_config();
    float *params = small_params(&config, &random), logits[64];
    int32_t ids[400];
    struct pool *pool;
    assert_int_equal(pool_open(&pool, 2), 0);
    static const int counts[] = {2, 3, 24, 25, 26, 48, 49, 50, 111};
    random_prompt(ids, 400, &config, &random);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        double sum = 0, loss;
        uint64_t tokens;
        for (int i = 1; i < counts[c]; i++) { /* token i is predicted from its window's tokens before it */
            int start = (i - 1) / config.n_positions * config.n_positions;
            full_logits(logits, &config, params, ids + start, i - start);
            double total = 0;
            for (int v = 0; v < config.vocab_size; v++) total += exp((double)logits[v]);
            sum += log(total) - (double)logits[ids[i]];
        }
        assert_int_equal(gpt2_evaluate(&loss, &tokens, &config, params, ids, (size_t)counts[c], pool, NULL, NULL), 0);
        assert_int_equal(tokens, counts[c] - 1);
        if (fabs(loss - sum) > 1e-4 * sum)
            fail_msg("seed %llu: %d tokens: %.9g instead of %.9g", (unsigned long long)random.seed, counts[c], loss, sum);
    }
    double loss;
    uint64_t tokens;
    assert_int_equal(gpt2_evaluate(&loss, &tokens, &config, params, ids, 1, pool, NULL, NULL), ERR_CONFIG);
    assert_int_equal(gpt2_evaluate(&loss, &tokens, &config, params, ids, 0, pool, NULL, NULL), ERR_CONFIG);
    pool_close(pool);
    free(params);
}

static int stop_after_three(void *arg, int32_t id) {
    (void)id;
    return ++*(int *)arg == 3;
}

static void the_listener_may_stop(void **state) {
    (void)state;
    struct random random = random_open("the_listener_may_stop");
    struct gpt2_config config = small_config();
    config.eos_token_id = -1;
    float *params = small_params(&config, &random);
    struct pool *pool;
    int32_t ids[1 + NEW_MAX] = {9};
    int count, heard = 0;
    assert_int_equal(pool_open(&pool, 1), 0);
    assert_int_equal(gpt2_generate(ids, &count, &config, params, ids, 1, &GREEDY, 0, pool, stop_after_three, &heard), 0);
    assert_int_equal(count, 4);
    assert_int_equal(heard, 3);
    pool_close(pool);
    free(params);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_greedy_token_is_the_argmax_of_the_full_forward),
        cmocka_unit_test(tokens_one_by_one_and_in_blocks_give_the_same_logits),
        cmocka_unit_test(samples_are_the_same_for_any_number_of_threads),
        cmocka_unit_test(the_end_token_stops_and_is_kept),
        cmocka_unit_test(an_empty_prompt_starts_from_bos_which_is_not_shown),
        cmocka_unit_test(ties_go_to_the_lowest_id),
        cmocka_unit_test(weights_that_are_no_numbers_and_foreign_ids_are_errors),
        cmocka_unit_test(draws_follow_temperature_top_k_and_top_p),
        cmocka_unit_test(top_k_takes_the_highest_of_many),
        cmocka_unit_test(evaluation_is_the_sum_over_windows),
        cmocka_unit_test(the_listener_may_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
