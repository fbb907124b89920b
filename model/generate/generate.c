/* The loop of generation (gpt2_generate_from()), the choice of a token (sample_...()), and the loss of a text (gpt2_evaluate...()). Which
 * tokens a prediction sees is a function of how many there are, so a long prompt and a text generated up to the same place continue alike.
 * Each call opens what it needs and keeps nothing; the caller's thread runs the loop, the pool's threads the decoder. */
#include "model/generate/generate.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/philox.h"
#include "base/plain.h"
#include "model/generate/decoder.h"
#include "model/kernels/fmath.h"
#include "model/kernels/kernels.h"

/* ---- Choosing the next token ----
 *
 * Greedy choice, and sampling by temperature, top-k (Fan et al. 2018) and top-p (Holtzman et al. 2020). */

/* Four lanes: what every processor's registers hold. */
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t v4i __attribute__((vector_size(16)));
typedef int64_t v2i __attribute__((vector_size(16)));

static v4 v4_load(const float *p) {
    v4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static bool any(v4i lanes) { return (((v2i)lanes)[0] | ((v2i)lanes)[1]) != 0; }

/* The highest of all, NaN where one of them is. */
static float highest(const float *logits, int count) {
    enum { CHAINS = 4 };
    v4 best[CHAINS];
    v4i nans = {0};
    float most = -INFINITY;
    int i = 0;
    for (int c = 0; c < CHAINS; c++) best[c] = (v4){-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    for (; i + 4 * CHAINS <= count; i += 4 * CHAINS)
        for (int c = 0; c < CHAINS; c++) {
            v4 v = v4_load(logits + i + 4 * c);
            v4i above = v > best[c];
            best[c] = (v4)(((v4i)v & above) | ((v4i)best[c] & ~above));
            nans |= v != v; /* as NaN alone is. NOLINT(misc-redundant-expression) */
        }
    for (int c = 0; c < CHAINS; c++)
        for (int lane = 0; lane < 4; lane++) most = best[c][lane] > most ? best[c][lane] : most;
    if (any(nans)) return NAN;
    for (; i < count && !isnan(most); i++) most = logits[i] > most || isnan(logits[i]) ? logits[i] : most;
    return most;
}

int32_t sample_greedy(const float *logits, int count) {
    float most = highest(logits, count);
    int32_t id = 0;
    if (!isfinite(most)) return -1;
    while (logits[id] != most) id++;
    return id;
}

/* a comes after b in the order of choice: highest logit first, then lowest id. */
static bool after(const float *logits, int32_t a, int32_t b) { return logits[a] < logits[b] || (logits[a] == logits[b] && a > b); }

/* Heap with the last in order on top. */
static void sift_down(int32_t *heap, int count, int at, const float *logits) {
    for (;;) {
        int child = 2 * at + 1;
        if (child >= count) return;
        if (child + 1 < count && after(logits, heap[child + 1], heap[child])) child++;
        if (!after(logits, heap[child], heap[at])) return;
        int32_t swap = heap[at];
        heap[at] = heap[child], heap[child] = swap;
        at = child;
    }
}

/* Leaves the first `keep` ids of the order in order[], sorted: a heap of those kept, then heap sort. */
static void take_first(int32_t *order, int keep, const float *logits, int count) {
    for (int i = 0; i < keep; i++) order[i] = i;
    for (int at = keep / 2 - 1; at >= 0; at--) sift_down(order, keep, at, logits);
    for (int32_t id = keep; id < count; id++) {
        float least = logits[order[0]];
        while (id + 4 <= count && !any(v4_load(logits + id) > least)) id += 4; /* nearly all */
        if (id >= count || !after(logits, order[0], id)) continue;
        order[0] = id;
        sift_down(order, keep, 0, logits);
    }
    for (int left = keep - 1; left > 0; left--) {
        int32_t swap = order[0];
        order[0] = order[left], order[left] = swap;
        sift_down(order, left, 0, logits);
    }
}

/* Chooses by the weights of the first `count` ids of the order; NULL: 0, 1, 2 ... */
static int32_t draw(const float *weight, const int32_t *order, int count, double uniform) {
    double total = 0, sum = 0;
    int32_t last = order ? order[0] : 0;
    for (int i = 0; i < count; i++) total += (double)weight[order ? order[i] : i];
    for (int i = 0; i < count; i++) {
        int32_t id = order ? order[i] : i;
        if (!(weight[id] > 0)) continue;
        sum += (double)weight[id];
        last = id;
        if (sum > uniform * total) break;
    }
    return last;
}

/* How many of the first `count` in order make up at least top_p of their sum. */
static int nucleus(const float *weight, const int32_t *order, int count, double top_p) {
    double total = 0, sum = 0;
    for (int i = 0; i < count; i++) total += (double)weight[order[i]];
    for (int i = 0; i < count; i++) {
        sum += (double)weight[order[i]];
        if (sum >= top_p * total) return i + 1;
    }
    return count;
}

/* logits[id] becomes its weight e^(logit / temperature - the highest), for the ids of the order alone. */
static void weigh(float *logits, const int32_t *order, int count, double temperature) {
    float highest = (float)((double)logits[order[0]] / temperature);
    for (int first = 0; first < count; first += 8) {
        float x[8] = {0};
        int some = count - first < 8 ? count - first : 8;
        for (int i = 0; i < some; i++) x[i] = (float)((double)logits[order[first + i]] / temperature);
        v8_store(x, v8_exp(v8_load(x) - v8_all(highest)));
        for (int i = 0; i < some; i++) logits[order[first + i]] = x[i];
    }
}

static void weigh_all(float *logits, int count, double temperature) {
    float max, sum;
    for (int i = 0; i < count; i++) logits[i] = (float)((double)logits[i] / temperature);
    softmax_exp(logits, count, &max, &sum);
}

int32_t sample_draw(float *logits, int32_t *order, int count, const struct generate_options *options, double uniform) {
    if (sample_greedy(logits, count) < 0) return -1;
    int kept = options->top_k > 0 && options->top_k < count ? options->top_k : count;
    bool sorted = kept < count || options->top_p < 1;
    if (sorted) take_first(order, kept, logits, count);
    if (sorted) weigh(logits, order, kept, options->temperature);
    else weigh_all(logits, count, options->temperature);
    if (options->top_p < 1) kept = nucleus(logits, order, kept, options->top_p);
    return draw(logits, sorted ? order : NULL, kept, uniform);
}

/* ---- The loop ---- */

int generate_window(int count, int P) {
    int kept = P / 2 > 0 ? P / 2 : 1, stride = P + 1 - kept;
    return count <= P ? 0 : (count - P + stride - 1) / stride * stride;
}

static int check_ids(const int32_t *ids, size_t count, const struct gpt2_config *config) {
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= config->vocab_size)
            return err_set(ERR_CORRUPT, "token %zu has id %d; the model's vocabulary ends at %d", i, ids[i], config->vocab_size - 1);
    return 0;
}

/* [0, 1) from 53 bits: a function of (seed, sequence, place). */
static double uniform(uint64_t seed, uint32_t sequence, int place) {
    enum { SITE_SAMPLE = 0x73616d70 }; /* apart from dropout and initialization */
    struct philox_block block = philox(seed, (uint64_t)SITE_SAMPLE << 32 | sequence, (uint64_t)place);
    return (double)(((uint64_t)block.word[1] << 32 | block.word[0]) >> 11) * 0x1p-53;
}

struct generation {
    struct decoder *decoder;
    const struct gpt2_config *config;
    const struct generate_options *options;
    int32_t *ids, *order; /* ids: all so far, with bos where the prompt was empty; order: (V) scratch */
    int count, seen_from;
};

/* Brings the decoder to ids[generate_window .. count). */
static void catch_up(struct generation *g) {
    int start = generate_window(g->count, g->config->n_positions);
    if (start != g->seen_from) {
        decoder_clear(g->decoder);
        g->seen_from = start;
    }
    int from = start + decoder_length(g->decoder);
    decoder_take(g->decoder, g->ids + from, g->count - from);
}

bool generate_ends(const struct generate_options *options, const struct gpt2_config *config, int32_t id) {
    for (int i = 0; options->end && i < options->ends; i++)
        if (options->end[i] == id) return true;
    return !options->end && id == config->eos_token_id;
}

static void forbid_ends(float *logits, const struct generate_options *options, const struct gpt2_config *config) {
    for (int i = 0; options->end && i < options->ends; i++) logits[options->end[i]] = -__builtin_inff();
    if (!options->end && config->eos_token_id >= 0) logits[config->eos_token_id] = -__builtin_inff();
}

static int32_t next_id(struct generation *g, uint32_t sequence, int fresh) {
    const struct generate_options *options = g->options;
    catch_up(g);
    float *logits = decoder_logits(g->decoder);
    int V = g->config->vocab_size;
    for (int i = 0; i < options->tokenless_count; i++) logits[options->tokenless[i]] = -__builtin_inff();
    if (fresh < options->min_new_tokens) forbid_ends(logits, options, g->config);
    if (options->greedy) return sample_greedy(logits, V);
    return sample_draw(logits, g->order, V, options, uniform(options->seed, sequence, fresh));
}

static int run(struct generation *g, int *out_fresh, uint32_t sequence, int (*on_token)(void *, int32_t), void *arg) {
    int fresh = 0;
    while (fresh < g->options->max_new_tokens) {
        int32_t id = next_id(g, sequence, fresh);
        if (id < 0) return err_set(ERR_CORRUPT, "the model's output is not a number; its weights are damaged or its training diverged");
        g->ids[g->count++] = id;
        fresh++;
        if ((on_token && on_token(arg, id) != 0) || generate_ends(g->options, g->config, id)) break;
    }
    *out_fresh = fresh;
    return 0;
}

static int generation_open(struct generation *g, const struct decoder_weights *weights, const int32_t *prompt, int prompt_count,
                           const struct generate_options *options, struct pool *pool) {
    const struct gpt2_config *config = &weights->config;
    *g = (struct generation){.config = config, .options = options};
    TRY(check_ids(prompt, (size_t)prompt_count, config));
    if (prompt_count == 0 && config->bos_token_id < 0)
        return err_set(ERR_UNSUPPORTED, "the prompt is empty and this model has no token to start from; give a prompt");
    int first = prompt_count > 0 ? prompt_count : 1;
    int64_t room = (int64_t)first + options->max_new_tokens;
    if (room > INT32_MAX) return err_set(ERR_LIMIT, "%lld tokens are too many", (long long)room);
    TRY(mem_try(&g->ids, (size_t)room, sizeof *g->ids));
    TRY(mem_try(&g->order, (size_t)config->vocab_size, sizeof *g->order));
    TRY(decoder_open_weights(&g->decoder, weights, (int)(room < config->n_positions ? room : config->n_positions), pool));
    g->count = first;
    if (prompt_count > 0) memcpy(g->ids, prompt, (size_t)prompt_count * sizeof *prompt);
    else g->ids[0] = config->bos_token_id;
    return 0;
}

static void generation_close(struct generation *g) {
    decoder_close(g->decoder);
    free(g->ids);
    free(g->order);
}

int gpt2_generate_from(int32_t *out, int *out_count, const struct decoder_weights *weights, const int32_t *prompt, int prompt_count,
                       const struct generate_options *options, uint32_t sequence, struct pool *pool, int (*on_token)(void *, int32_t),
                       void *arg) {
    CHECK(prompt_count >= 0 && options->max_new_tokens >= 0 && (options->greedy || options->temperature > 0));
    struct generation g;
    int fresh = 0;
    int code = generation_open(&g, weights, prompt, prompt_count, options, pool);
    if (code == 0) code = run(&g, &fresh, sequence, on_token, arg);
    if (code == 0) {
        CHECK(g.ids != NULL);
        *out_count = prompt_count + fresh; /* without the bos before an empty prompt */
        memcpy(out, g.ids + (g.count - *out_count), (size_t)*out_count * sizeof *out);
    }
    generation_close(&g);
    return code;
}

int gpt2_generate(int32_t *out, int *out_count, const struct gpt2_config *config, const float *params, const int32_t *prompt,
                  int prompt_count, const struct generate_options *options, uint32_t sequence, struct pool *pool,
                  int (*on_token)(void *, int32_t), void *arg) {
    struct decoder_weights *weights;
    struct weights_source source = weights_in_memory(params);
    TRY(decoder_weights_open(&weights, config, WEIGHTS_FP32, &source, pool));
    int code = gpt2_generate_from(out, out_count, weights, prompt, prompt_count, options, sequence, pool, on_token, arg);
    decoder_weights_close(weights);
    return code;
}

/* ---- loss of a text ---- */

struct evaluation {
    struct gpt2 *model;
    const float *params;
    double loss_sum;
    uint64_t tokens;
};

/* B windows of T inputs; the targets are the same run, one further. */
static void evaluate_windows(struct evaluation *e, const int32_t *tokens, int B, int T) {
    double loss;
    uint64_t counted;
    gpt2_loss(e->model, &loss, &counted, e->params, tokens, tokens + 1, B, T);
    e->loss_sum += loss;
    e->tokens += counted;
}

int gpt2_evaluate(double *out_loss_sum, uint64_t *out_tokens, const struct gpt2_config *config, const float *params, const int32_t *tokens,
                  size_t count, struct pool *pool, void (*tick)(void *, uint64_t done), void *arg) {
    if (count < 2) return err_set(ERR_CONFIG, "the text has %zu token%s; a prediction needs at least two", count, plural(count));
    TRY(check_ids(tokens, count, config));
    size_t left = count - 1, P = (size_t)config->n_positions, windows = left / P;
    int T = (int)(left < P ? left : P), batch = gpt2_batch_for(config, windows > 1 ? (windows < 64 ? (int)windows : 64) : 1, T);
    struct evaluation e = {.params = params};
    TRY(gpt2_open(&e.model, config, batch, T, false, pool));
    while (left > 0) {
        size_t full = left / P;
        int B = full == 0 ? 1 : full < (size_t)batch ? (int)full : batch, length = full == 0 ? (int)left : (int)P;
        evaluate_windows(&e, tokens, B, length);
        tokens += (size_t)B * (size_t)length;
        left -= (size_t)B * (size_t)length;
        if (tick) tick(arg, e.tokens);
    }
    gpt2_close(e.model);
    *out_loss_sum = e.loss_sum;
    *out_tokens = e.tokens;
    return 0;
}

/* The decoder's logits and losses of one block of a window. */
struct decoded_block {
    float *logits; /* (DECODER_BLOCK, V), overwritten */
    const int32_t *targets;
    double loss[DECODER_BLOCK];
    int V;
};

static void block_loss(void *arg, size_t row) {
    struct decoded_block *block = arg;
    float *logits = block->logits + row * (size_t)block->V, of_target = logits[block->targets[row]], max, sum;
    softmax_exp(logits, block->V, &max, &sum);
    block->loss[row] = fmath_log((double)sum) + (double)max - (double)of_target;
}

int gpt2_evaluate_from(double *out_loss_sum, uint64_t *out_tokens, const struct decoder_weights *weights, const int32_t *tokens,
                       size_t count, struct pool *pool, void (*tick)(void *, uint64_t done), void *arg) {
    if (count < 2) return err_set(ERR_CONFIG, "the text has %zu token%s; a prediction needs at least two", count, plural(count));
    TRY(check_ids(tokens, count, &weights->config));
    size_t P = (size_t)weights->config.n_positions, left = count - 1;
    struct decoded_block block = {.V = weights->config.vocab_size};
    struct decoder *decoder;
    double sum = 0.0;
    TRY(mem_try(&block.logits, (size_t)DECODER_BLOCK * (size_t)block.V, sizeof(float)));
    int code = decoder_open_weights(&decoder, weights, (int)(left < P ? left : P), pool);
    for (size_t at = 0; code == 0 && at < left;) {
        if (at % P == 0) decoder_clear(decoder);
        size_t in_window = P - at % P < left - at ? P - at % P : left - at, rows = in_window < DECODER_BLOCK ? in_window : DECODER_BLOCK;
        block.targets = tokens + at + 1;
        decoder_take(decoder, tokens + at, (int)rows);
        decoder_logits_of_last(decoder, block.logits, (int)rows);
        pool_run(pool, rows, block_loss, &block);
        for (size_t i = 0; i < rows; i++) sum += block.loss[i];
        at += rows;
        if (tick) tick(arg, at);
    }
    if (code == 0) {
        decoder_close(decoder);
        *out_loss_sum = sum, *out_tokens = left;
    }
    free(block.logits);
    return code;
}
