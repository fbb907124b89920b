/* Times generation. Measures only; decides and writes nothing. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/machine.h"
#include "base/mem.h"
#include "base/philox.h"
#include "model/generate/decoder.h"
#include "model/generate/sample.h"
#include "model/gpt2/layout.h"
#include "model/kernels/kernel_set.h"
#include "model/trial/bench.h"

enum { BENCH_SEED = 1 };

/* Weights that nobody has to hold in float32: LayerNorms' weights 1, all else random. */
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
