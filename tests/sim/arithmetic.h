/* What the simulation's workers compute with. Text is tokenized and packed by the shipped code. A model is what would take too long: the
 * smallest GPT-2 over the smallest vocabulary has some thousand parameters, a hundred segments for each message that there is now, and
 * gives what the model's own tests are for. So here it has some segments of a few elements, and its gradient is a hash of weights, tokens,
 * step and slice. The vectors are floats that do not add up to the same in another order, and all that becomes of them (sums along the
 * tree, digests, the optimizer, checkpoints) is the shipped code: a wrong tree, a slice that is missing or counted twice, or a state that
 * is not the right one gives other bits, for good.
 *
 * The undisturbed run over a dataset is computed here: data and evaluations from their definitions, and truth_sum() has the tree once more,
 * for gradients. Losses are added up by the shipped tree_sum(); the optimizer, square sums and digests are the shipped ones, too. */
#ifndef MILLRACE_TESTS_SIM_ARITHMETIC_H
#define MILLRACE_TESTS_SIM_ARITHMETIC_H

#include <math.h>

#include "coordinator/evaluating.h"
#include "dataset/ingest/ingest.h"
#include "dataset/shard/manifest.h"
#include "dataset/shard/shard.h"
#include "dataset/tokenizer/tokenizer.h"
#include "model/gpt2/gpt2.h"
#include "model/trial/self_test.h"
#include "tests/sim/process.h"

/* ---- the dataset ---- */

/* Tokens and targets of a sequence, as docs/FORMATS.md has them. */
static void reference_sequence(const struct split *split, int32_t *tokens, int32_t *targets, uint64_t sequence) {
    uint64_t first = SEQUENCE * sequence;
    int32_t eos = (int32_t)split->geometry.eos;
    for (uint64_t i = 0; i < SEQUENCE; i++) {
        tokens[i] = split->token[first + i];
        targets[i] = first + i + 1 < split->tokens ? split->token[first + i + 1] : -1;
    }
    if (!split->geometry.separate) return;
    targets[SEQUENCE - 1] = -1;
    for (uint64_t i = 0; i + 1 < SEQUENCE; i++)
        if (tokens[i] == eos && tokens[i + 1] == eos) targets[i] = -1;
}

/* ---- the model ---- */

static uint64_t hash_of(const void *bytes, size_t size) {
    uint64_t hash = size, word;
    for (size_t i = 0; i + sizeof word <= size; i += sizeof word) {
        memcpy(&word, (const char *)bytes + i, sizeof word);
        hash = mix(hash, word);
    }
    return hash;
}

static bool is_finite_step(const struct sim *s, uint64_t step) { return !s->plan.not_finite || mix(s->seed, step) % 4 != 0; }

static uint64_t targets_that_count(const int32_t *targets, int count) {
    uint64_t counted = 0;
    for (int i = 0; i < count; i++) counted += targets[i] >= 0;
    return counted;
}

static void slice_gradient(const struct sim *s, float *out, double *out_loss, uint64_t *out_tokens, const float *weights,
                           const int32_t *tokens, const int32_t *targets, int count, uint64_t step, uint32_t slice) {
    size_t bytes = (size_t)count * sizeof *tokens;
    uint64_t hash = mix(mix(hash_of(weights, s->plan.elements * sizeof(float)), mix(hash_of(tokens, bytes), hash_of(targets, bytes))),
                        step << 16 | slice);
    for (size_t i = 0; i < s->plan.elements; i++) out[i] = (float)(mix(hash, i) >> 40) / (float)(1 << 23) - 1.0f;
    if (!is_finite_step(s, step)) out[0] = INFINITY;
    *out_loss = (double)(hash % 100000) / 7;
    *out_tokens = targets_that_count(targets, count);
    if (*out_tokens == 0) *out_loss = 0, memset(out, 0, s->plan.elements * sizeof *out);
}

static double validation_loss(const struct sim *s, const float *weights, const int32_t *tokens) {
    return (double)(mix(hash_of(weights, s->plan.elements * sizeof(float)), hash_of(tokens, SEQUENCE * sizeof *tokens)) % 100000) / 7;
}

struct gpt2 {
    void (*tick)(void *arg);
    void *arg;
};

int __wrap_gpt2_open(struct gpt2 **out, const struct gpt2_config *config, int batch, int T, bool training, struct pool *pool);
int __wrap_gpt2_open(struct gpt2 **out, const struct gpt2_config *config, int batch, int T, bool training, struct pool *pool) {
    (void)config, (void)batch, (void)T, (void)training, (void)pool;
    *out = mem_alloc(sizeof **out);
    return 0;
}
void __wrap_gpt2_close(struct gpt2 *model);
void __wrap_gpt2_close(struct gpt2 *model) { free(model); }
void __wrap_gpt2_on_tick(struct gpt2 *model, void (*tick)(void *), void *arg);
void __wrap_gpt2_on_tick(struct gpt2 *model, void (*tick)(void *), void *arg) { model->tick = tick, model->arg = arg; }
size_t __wrap_gpt2_parameters(const struct gpt2_config *config);
size_t __wrap_gpt2_parameters(const struct gpt2_config *config) {
    (void)config;
    return world->plan.elements;
}
size_t __wrap_gpt2_tensor_count(const struct gpt2_config *config);
size_t __wrap_gpt2_tensor_count(const struct gpt2_config *config) {
    (void)config;
    return 1;
}
size_t __wrap_gpt2_tensors(struct gpt2_tensor *out, const struct gpt2_config *config);
size_t __wrap_gpt2_tensors(struct gpt2_tensor *out, const struct gpt2_config *config) {
    (void)config;
    size_t elements = world->plan.elements;
    if (out) *out = (struct gpt2_tensor){.name = "transformer.h", .rank = 1, .shape = {elements}, .size = elements, .decayed = true};
    return 1;
}
bool __wrap_gpt2_decayed(size_t *out_end, const struct gpt2_config *config, size_t element);
bool __wrap_gpt2_decayed(size_t *out_end, const struct gpt2_config *config, size_t element) {
    (void)config, (void)element;
    *out_end = world->plan.elements;
    return true;
}
size_t __wrap_gpt2_init_parts(const struct gpt2_config *config);
size_t __wrap_gpt2_init_parts(const struct gpt2_config *config) {
    (void)config;
    return 1;
}
void __wrap_gpt2_init_part(float *params, const struct gpt2_config *config, uint64_t seed, size_t part);
void __wrap_gpt2_init_part(float *params, const struct gpt2_config *config, uint64_t seed, size_t part) {
    (void)config, (void)part;
    compute(draw_in(world, 1, world->plan.slice_ms), NULL, NULL);
    for (size_t i = 0; i < world->plan.elements; i++) params[i] = (float)(mix(seed + world->seed, i) >> 40) / (float)(1 << 24);
}

void __wrap_gpt2_gradient(struct gpt2 *model, float *grads, double *out_loss, uint64_t *out_tokens, const float *params,
                          const int32_t *tokens, const int32_t *targets, int B, int T, const struct gpt2_random *random);
void __wrap_gpt2_gradient(struct gpt2 *model, float *grads, double *out_loss, uint64_t *out_tokens, const float *params,
                          const int32_t *tokens, const int32_t *targets, int B, int T, const struct gpt2_random *random) {
    struct sim *s = world;
    compute(draw_in(s, 1, s->plan.slice_ms), model->tick, model->arg);
    slice_gradient(s, grads, out_loss, out_tokens, params, tokens, targets, B * T, random->step, random->slice);
    if (!is_finite_step(s, random->step)) s->faults[FAULT_NOT_FINITE]++;
    if (s->defect == DEFECT_FORGOTTEN_SLICE && random->slice + 1 == s->plan.options.slices)
        memset(grads, 0, s->plan.elements * sizeof *grads);
}

void __wrap_gpt2_loss(struct gpt2 *model, double *out_loss, uint64_t *out_tokens, const float *params, const int32_t *tokens,
                      const int32_t *targets, int B, int T);
void __wrap_gpt2_loss(struct gpt2 *model, double *out_loss, uint64_t *out_tokens, const float *params, const int32_t *tokens,
                      const int32_t *targets, int B, int T) {
    (void)B;
    compute(draw_in(world, 1, world->plan.slice_ms), model->tick, model->arg);
    *out_loss = validation_loss(world, params, tokens);
    *out_tokens = targets_that_count(targets, T);
}

int __wrap_self_test(uint8_t out[SHA256_BYTES], const struct gpt2_config *config, const struct optimizer *optimizer, int T,
                     struct pool *pool);
int __wrap_self_test(uint8_t out[SHA256_BYTES], const struct gpt2_config *config, const struct optimizer *optimizer, int T,
                     struct pool *pool) {
    (void)config, (void)optimizer, (void)T, (void)pool;
    compute(draw_in(world, 1, world->plan.slice_ms), NULL, NULL);
    memset(out, 7, SHA256_BYTES);
    return 0;
}

/* ---- jobs ---- */

/* The run's tokenizer is the same for all workers, and does not change once it is open: here it is opened once. */
static struct tokenizer *shared_tokenizer;
static void *shared_text;
static size_t shared_bytes;

int __real_tokenizer_parse(struct tokenizer **out, const void *bytes, size_t size);
int __wrap_tokenizer_parse(struct tokenizer **out, const void *bytes, size_t size);
int __wrap_tokenizer_parse(struct tokenizer **out, const void *bytes, size_t size) {
    if (!shared_tokenizer) {
        TRY(__real_tokenizer_parse(&shared_tokenizer, bytes, size));
        memcpy(shared_text = mem_alloc(size), bytes, shared_bytes = size);
    }
    if (size != shared_bytes || memcmp(bytes, shared_text, size) != 0) return err_set(ERR_CORRUPT, "another tokenizer");
    *out = shared_tokenizer;
    return 0;
}

void __real_tokenizer_close(struct tokenizer *tokenizer);
void __wrap_tokenizer_close(struct tokenizer *tokenizer);
void __wrap_tokenizer_close(struct tokenizer *tokenizer) {
    if (tokenizer != shared_tokenizer) __real_tokenizer_close(tokenizer);
}

static void forget_tokenizer(void) {
    if (shared_tokenizer) __real_tokenizer_close(shared_tokenizer);
    free(shared_text);
    shared_tokenizer = NULL;
    shared_text = NULL;
}

int __real_ingest_run(struct ingest *ingest, Millrace__TokenizeResult *out, struct encoder *encoder,
                      int (*write)(void *arg, const void *bytes, size_t size_bytes), void *write_arg);
int __wrap_ingest_run(struct ingest *ingest, Millrace__TokenizeResult *out, struct encoder *encoder,
                      int (*write)(void *arg, const void *bytes, size_t size_bytes), void *write_arg);
int __wrap_ingest_run(struct ingest *ingest, Millrace__TokenizeResult *out, struct encoder *encoder,
                      int (*write)(void *arg, const void *bytes, size_t size_bytes), void *write_arg) {
    compute(draw_in(world, 1, world->plan.job_ms), NULL, NULL);
    return __real_ingest_run(ingest, out, encoder, write, write_arg);
}

int __real_shard_build(Millrace__PackResult *result, const Millrace__PackJob *job, const struct token_run_reader *reader,
                       int (*write)(void *arg, const void *bytes, size_t size_bytes), void *write_arg, int (*tick)(void *),
                       void *tick_arg);
int __wrap_shard_build(Millrace__PackResult *result, const Millrace__PackJob *job, const struct token_run_reader *reader,
                       int (*write)(void *arg, const void *bytes, size_t size_bytes), void *write_arg, int (*tick)(void *),
                       void *tick_arg);
int __wrap_shard_build(Millrace__PackResult *result, const Millrace__PackJob *job, const struct token_run_reader *reader,
                       int (*write)(void *arg, const void *bytes, size_t size_bytes), void *write_arg, int (*tick)(void *),
                       void *tick_arg) {
    compute(draw_in(world, 1, world->plan.job_ms), NULL, NULL);
    return __real_shard_build(result, job, reader, write, write_arg, tick, tick_arg);
}

/* ---- sums and states ---- */

void __real_vector_add(float *out, const float *left, const float *right, size_t count);
void __wrap_vector_add(float *out, const float *left, const float *right, size_t count);
void __wrap_vector_add(float *out, const float *left, const float *right, size_t count) {
    __real_vector_add(out, left, right, count);
    if (running && world->defect == DEFECT_WRONG_SUM) out[0] = nextafterf(out[0], INFINITY);
}

void __real_optimizer_apply(void *const state[STATE_PARTS], const float *grads, const struct gpt2_config *config,
                            const struct optimizer *optimizer, struct pool *pool);
void __wrap_optimizer_apply(void *const state[STATE_PARTS], const float *grads, const struct gpt2_config *config,
                            const struct optimizer *optimizer, struct pool *pool);
void __wrap_optimizer_apply(void *const state[STATE_PARTS], const float *grads, const struct gpt2_config *config,
                            const struct optimizer *optimizer, struct pool *pool) {
    struct sim *s = world;
    if (running && !running->process->dying && (optimizer->step > STEPS_CAP || !s->record.committed_once[optimizer->step]))
        broken(s, "%s applies step %llu, which is not in the ledger", place_name(running->process->place),
               (unsigned long long)optimizer->step);
    compute(draw_in(s, 0, s->plan.slice_ms / 4), NULL, NULL);
    __real_optimizer_apply(state, grads, config, optimizer, pool);
    if (!running || !running->process->spoil) return;
    running->process->spoil = false;
    running->process->bad = true;
    s->faults[FAULT_SPOILT]++;
    trace(s, "%s: its state of step %llu is bad", place_name(running->process->place), (unsigned long long)optimizer->step);
    ((uint8_t *)state[STATE_WEIGHTS])[1] ^= 4;
}

void __real_state_digest(uint8_t out[XXH128_BYTES], void *const state[STATE_PARTS], const struct state_parts *parts, size_t elements,
                         struct pool *pool);
void __wrap_state_digest(uint8_t out[XXH128_BYTES], void *const state[STATE_PARTS], const struct state_parts *parts, size_t elements,
                         struct pool *pool);
void __wrap_state_digest(uint8_t out[XXH128_BYTES], void *const state[STATE_PARTS], const struct state_parts *parts, size_t elements,
                         struct pool *pool) {
    compute(draw_in(world, 0, world->plan.slice_ms / 4), NULL, NULL); /* the digest is known later than the state */
    __real_state_digest(out, state, parts, elements, pool);
}

/* ---- the undisturbed run ---- */

struct undisturbed {
    struct sim *s;
    const float *weights;
    uint64_t step;
    double loss[SLICES_CAP];
    uint64_t tokens;
};

static void truth_sum(struct undisturbed *u, float *out, uint32_t begin, uint32_t size) {
    struct sim *s = u->s;
    enum { TOKENS_CAP = 4 * SEQUENCE };
    if (size == 1) {
        int32_t tokens[TOKENS_CAP], targets[TOKENS_CAP];
        uint64_t per_slice = (uint64_t)s->plan.sequences, counted;
        uint64_t position = ((u->step - 1) * s->plan.options.slices + begin) * per_slice;
        const struct split *split = &s->reference[s->plan.variant].split[0];
        for (uint64_t i = 0; i < per_slice; i++) {
            uint64_t window = (uint64_t)s->config.dataset.shuffle_window;
            uint64_t sequence = order_sequence(s->config.training.seed, position + i, &split->geometry, window);
            reference_sequence(split, tokens + i * SEQUENCE, targets + i * SEQUENCE, sequence);
        }
        slice_gradient(s, out, &u->loss[begin], &counted, u->weights, tokens, targets, s->plan.sequences * SEQUENCE, u->step, begin);
        u->tokens += counted;
        return;
    }
    truth_sum(u, out, begin, size / 2);
    if (begin + size / 2 >= s->plan.options.slices) return;
    float right[ELEMENTS_CAP];
    truth_sum(u, right, begin + size / 2, size / 2);
    for (size_t i = 0; i < s->plan.elements; i++) out[i] += right[i];
}

/* A step without a finite gradient, or without a target that counts, changes nothing. */
static bool is_skipped(const struct sim *s, uint64_t step) { return s->truth[step].tokens == 0 || !is_finite_step(s, step); }

static double undisturbed_evaluation(const struct sim *s, const float *weights) {
    const struct split *split = &s->reference[s->plan.variant].split[1];
    double loss = 0, part = 0;
    uint64_t tokens = 0, count = s->evaluated_sequences;
    for (uint64_t i = 0; i < count; i++) {
        int32_t token[SEQUENCE], target[SEQUENCE];
        reference_sequence(split, token, target, i);
        part += validation_loss(s, weights, token);
        tokens += targets_that_count(target, SEQUENCE);
        if ((i + 1) % EVALUATE_SEQUENCES && i + 1 < count) continue;
        loss += part; /* as the jobs are added up */
        part = 0;
    }
    return loss / (double)tokens;
}

static void undisturbed(struct sim *s) {
    struct pool *pool;
    struct gpt2_config model = gpt2_config_of(&s->config);
    uint32_t size = 1;
    CHECK(pool_open(&pool, 1) == 0);
    while (size < s->plan.options.slices) size *= 2;
    for (uint64_t step = 0; step <= s->plan.options.max_steps; step++) {
        struct truth *t = &s->truth[step];
        void *state[STATE_PARTS];
        for (size_t i = 0; i < STATE_PARTS; i++) state[i] = NULL;
        for (size_t i = 0; i < s->parts.count; i++) state[s->parts.part[i]] = t->state[s->parts.part[i]];
        if (step == 0) optimizer_begin(state, &model, &s->optimizer, pool);
        else {
            struct undisturbed u = {.s = s, .weights = (const float *)t[-1].state[STATE_WEIGHTS], .step = step};
            const float *gradient = t->gradient;
            truth_sum(&u, t->gradient, 0, size);
            t->loss = tree_sum(u.loss, s->plan.options.slices);
            t->tokens = u.tokens;
            double square_sum = square_sum_of_segments(gradient, s->plan.elements, pool);
            memset(t->gradient_digest, 0, sizeof t->gradient_digest);
            if (isfinite(square_sum)) vectors_digest(t->gradient_digest, &gradient, 1, s->plan.elements, pool);
            memcpy(t->state, t[-1].state, sizeof t->state);
            s->optimizer.step = step;
            s->optimizer.learning_rate = learning_rate(&s->config, step, s->plan.options.max_steps);
            s->optimizer.scale = gradient_scale(square_sum, t->tokens, s->config.training.max_grad_norm);
            if (!is_skipped(s, step)) __real_optimizer_apply(state, gradient, &model, &s->optimizer, pool);
        }
        __real_state_digest(t->state_digest, state, &s->parts, s->plan.elements, pool);
        if (s->evaluated_sequences) {
            enum state_part part = s->config.training.eval_ema ? STATE_EMA : STATE_WEIGHTS;
            s->truth_evaluation[step] = undisturbed_evaluation(s, state[part]);
        }
    }
    pool_close(pool);
}

#endif
