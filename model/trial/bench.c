/* Times training steps (bench_train) and generation (bench_generate). Measures only; decides and writes nothing. */
#include "model/trial/bench.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/machine.h"
#include "base/mem.h"
#include "base/philox.h"
#include "model/generate/decoder.h"
#include "model/generate/generate.h"
#include "model/gpt2/layout.h"
#include "model/kernels/kernel_set.h"
#include "model/optim/optimizer.h"
#include "model/trial/trial.h"

enum { BENCH_SEED = 1 };

static struct optimizer adamw(const struct bench_options *o) {
    return (struct optimizer){.kind = OPTIM_ADAMW,
                              .learning_rate = 1e-4,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .epsilon = 1e-8,
                              .weight_decay = 0.1,
                              .moments_type = o->moments_type,
                              .seed = BENCH_SEED};
}

static double gradient_squares(struct trial *t) {
    double sum = square_sum_of_segments(t->grads, t->N, t->pool);
    profile_lap("norm", 0, 4.0 * (double)t->N);
    return sum;
}

struct step_times {
    double gradient, optimizer;
};

/* Returns the mean loss of a token. */
static double bench_step(struct trial *t, struct step_times *times, uint64_t step) {
    double start = clock_seconds();
    trial_gradient(t, step);
    times->gradient = clock_seconds() - start;
    t->optimizer.step = step, t->optimizer.scale = gradient_scale(gradient_squares(t), t->counted, 1.0);
    optimizer_apply(t->state, t->grads, &t->config, &t->optimizer, t->pool);
    profile_lap("AdamW", 0, (double)(sizeof(float) + 2 * state_bytes_per_element(&t->parts)) * (double)t->N);
    times->optimizer = clock_seconds() - start - times->gradient;
    return t->loss / (double)t->counted;
}

static int by_total(const void *left, const void *right) {
    const struct step_times *l = left, *r = right;
    double a = l->gradient + l->optimizer, b = r->gradient + r->optimizer;
    return (a > b) - (a < b);
}

static void bench_report(struct bench_result *out, const struct bench_options *o, struct step_times *times) {
    double tokens = (double)o->batch * (double)o->sequence_length;
    qsort(times, (size_t)o->steps, sizeof *times, by_total);
    struct step_times best = times[0], median = times[o->steps / 2];
    out->parameters = gpt2_parameters(&o->model);
    out->tokens_per_second_best = tokens / (best.gradient + best.optimizer);
    out->tokens_per_second_median = tokens / (median.gradient + median.optimizer);
    out->gflop_per_step = gpt2_flop(&o->model, tokens, o->sequence_length) / 1e9;
    out->gflops_median = out->gflop_per_step / (median.gradient + median.optimizer);
    out->gradient_seconds = median.gradient, out->optimizer_seconds = median.optimizer;
    out->peak_rss_bytes = machine_peak_rss_bytes();
}

int bench_train(struct bench_result *out, const struct bench_options *options) {
    struct optimizer optimizer = adamw(options);
    struct trial trial;
    struct pool *pool;
    if (options->steps < 1 || options->steps > BENCH_STEPS_MAX || options->batch < 1)
        return err_set(ERR_USAGE, "benchmark: %d steps of %d sequences; steps must be 1 to %d, sequences 1 or more", options->steps,
                       options->batch, BENCH_STEPS_MAX);
    TRY(pool_open_from(&pool, options->threads, "--threads"));
    int code = trial_open(&trial, &options->model, &optimizer, options->batch, options->sequence_length, pool);
    if (code == 0) {
        struct bench_result result = {0};
        gpt2_init(trial.state[STATE_WEIGHTS], &options->model, BENCH_SEED);
        struct step_times *times = mem_alloc((size_t)options->steps * sizeof *times), unused;
        result.loss_first = bench_step(&trial, &unused, 1);
        profile_start();
        for (int i = 0; i < options->steps; i++) result.loss_last = bench_step(&trial, &times[i], (uint64_t)i + 2);
        result.phases = profile_stop(result.phase);
        bench_report(&result, options, times);
        free(times);
        *out = result;
    }
    trial_close(&trial);
    pool_close(pool);
    return code;
}

/* ---- generation ---- */

/* Weights that are made piece by piece, so that they are never all there in float32: LayerNorms' weights 1, all else random. */
static int random_weights(void *arg, float *out, size_t first, size_t count) {
    const struct gpt2_config *config = arg;
    struct layout at = layout_of(config);
    size_t within = first >= at.block && first < at.lnf_weight ? (first - at.block) % at.block_size : 0;
    bool norm = first == at.lnf_weight || (first >= at.block && (within == at.ln1_weight || within == at.ln2_weight));
    kernel_set()->normal_fill(out, BENCH_SEED, first, count, config->initializer_range);
    for (size_t i = 0; norm && i < count; i++) out[i] = 1.0f;
    return 0;
}

static int32_t random_token(const struct gpt2_config *config, int place) {
    return (int32_t)(philox(BENCH_SEED, 2, (uint64_t)place).word[0] % (uint32_t)config->vocab_size);
}

static int by_value(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Takes the prompt and chooses the first token. Returns the seconds. */
static double prefill(struct decoder *decoder, int32_t *next, const int32_t *prompt, int count, int V) {
    double start = clock_seconds();
    decoder_clear(decoder);
    decoder_take(decoder, prompt, count);
    *next = sample_greedy(decoder_logits(decoder), V);
    return clock_seconds() - start;
}

static void measure(struct bench_generate_result *out, struct decoder *decoder, const struct bench_generate_options *o, int32_t *prompt,
                    double *seconds) {
    int V = o->model.vocab_size;
    int32_t next;
    for (int i = 0; i < o->prompt_tokens; i++) prompt[i] = random_token(&o->model, i);
    prefill(decoder, &next, prompt, o->prompt_tokens, V);
    out->prefill_tokens_per_second = o->prompt_tokens / prefill(decoder, &next, prompt, o->prompt_tokens, V);
    for (int i = 0; i < o->new_tokens; i++) {
        double start = clock_seconds();
        decoder_take(decoder, &next, 1);
        next = sample_greedy(decoder_logits(decoder), V);
        seconds[i] = clock_seconds() - start;
        CHECK(next >= 0);
    }
    qsort(seconds, (size_t)o->new_tokens, sizeof *seconds, by_value);
    out->tokens_per_second_best = 1.0 / seconds[0];
    out->tokens_per_second_median = 1.0 / seconds[o->new_tokens / 2];
}

int bench_generate(struct bench_generate_result *out, const struct bench_generate_options *o) {
    if (o->prompt_tokens < 1 || o->new_tokens < 1 || o->prompt_tokens + o->new_tokens > o->model.n_positions)
        return err_set(ERR_USAGE, "bench generate: --prompt-tokens %d and --new-tokens %d: at least one each, and together at most %d",
                       o->prompt_tokens, o->new_tokens, o->model.n_positions);
    struct bench_generate_result result = {.parameters = gpt2_parameters(&o->model), .kernels = stripe_kernels()->name};
    struct weights_source source = {random_weights, (void *)&o->model};
    struct decoder_weights *weights = NULL;
    struct decoder *decoder = NULL;
    struct pool *pool = NULL;
    int code = pool_open_from(&pool, o->threads, "--threads");
    if (code == 0) code = decoder_weights_open(&weights, &o->model, o->type, &source, pool);
    if (code == 0) code = decoder_open_weights(&decoder, weights, o->prompt_tokens + o->new_tokens, pool);
    if (code == 0) {
        double *seconds = mem_alloc((size_t)o->new_tokens * sizeof *seconds);
        int32_t *prompt = mem_alloc((size_t)o->prompt_tokens * sizeof *prompt);
        measure(&result, decoder, o, prompt, seconds);
        free(seconds);
        free(prompt);
        result.peak_rss_bytes = machine_peak_rss_bytes();
        result.bytes_of_weights = weights->bytes_per_token;
        result.gbytes_per_second = (double)result.bytes_of_weights * result.tokens_per_second_median / 1e9;
        *out = result;
    }
    decoder_close(decoder);
    decoder_weights_close(weights);
    pool_close(pool);
    return code;
}
