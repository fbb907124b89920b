/* `millrace bench`: how fast this machine trains, generates and tokenizes. */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "model/kernels/kernels.h"
#include "model/kernels/product.h"
#include "model/trial/bench.h"

/* The shape of the example pipeline, so that `millrace bench train` without options measures that one. */
struct shape {
    int64_t layers, heads, channels, inner, vocabulary, batch, sequence, steps, threads, prompt, fresh;
    bool bf16, gradient_checkpointing, profile, moments_bf16;
};

static json_t *phase_json(const struct profile_line *line, int64_t steps) {
    json_t *object = json_object();
    json_object_set_new(object, "name", json_string(line->name));
    json_object_set_new(object, "seconds", output_json_measured(line->seconds / (double)steps));
    json_object_set_new(object, "cpu_seconds", output_json_measured(line->cpu_seconds / (double)steps));
    if (line->flop > 0) json_object_set_new(object, "gflops", output_json_measured(line->flop / line->seconds / 1e9));
    if (line->bytes > 0) json_object_set_new(object, "gbytes_per_second", output_json_measured(line->bytes / line->seconds / 1e9));
    return object;
}

static json_t *result_json(const struct bench_result *r, const char *kernels, const struct shape *s) {
    json_t *object = json_object(), *phases = json_array();
    for (size_t i = 0; i < r->phases; i++) json_array_append_new(phases, phase_json(&r->phase[i], s->steps));
    json_object_set_new(object, "phases", phases);
    json_object_set_new(object, "kernels", json_string(kernels));
    json_object_set_new(object, "parameters", json_integer((json_int_t)r->parameters));
    json_object_set_new(object, "tokens_per_second_best", output_json_measured(r->tokens_per_second_best));
    json_object_set_new(object, "tokens_per_second_median", output_json_measured(r->tokens_per_second_median));
    json_object_set_new(object, "gflop_per_step", output_json_measured(r->gflop_per_step));
    json_object_set_new(object, "gflops", output_json_measured(r->gflops_median));
    json_object_set_new(object, "gradient_seconds", output_json_measured(r->gradient_seconds));
    json_object_set_new(object, "optimizer_seconds", output_json_measured(r->optimizer_seconds));
    json_object_set_new(object, "loss_first", output_json_real(r->loss_first));
    json_object_set_new(object, "loss_last", output_json_real(r->loss_last));
    json_object_set_new(object, "peak_rss_bytes", json_integer((json_int_t)r->peak_rss_bytes));
    return object;
}

/* One line an operation: its part of a step's time, what it did in it, and in processor time what all threads together did. */
static void profile_text(const struct bench_result *r, const struct shape *s) {
    double total = 0;
    for (size_t i = 0; i < r->phases; i++) total += r->phase[i].seconds;
    printf("%-22s %9s %6s %9s %9s %9s\n", "operation", "ms/step", "share", "cpu ms", "GFLOP/s", "GB/s");
    for (size_t i = 0; i < r->phases; i++) {
        const struct profile_line *line = &r->phase[i];
        printf("%-22s %9.2f %5.1f%% %9.2f %9.1f %9.1f\n", line->name, line->seconds * 1e3 / (double)s->steps, 100 * line->seconds / total,
               line->cpu_seconds * 1e3 / (double)s->steps, line->flop / line->seconds / 1e9, line->bytes / line->seconds / 1e9);
    }
}

static void result_text(const struct bench_result *r, const char *kernels) {
    printf("%s\n%zu parameters, %.2f GFLOP a step\n", kernels, r->parameters, r->gflop_per_step);
    printf("%.0f tokens/s (median), %.0f (best), %.1f GFLOP/s\n", r->tokens_per_second_median, r->tokens_per_second_best, r->gflops_median);
    printf("gradient %.4f s, optimizer %.4f s a step; loss %.4f -> %.4f; peak memory %.0f MiB\n", r->gradient_seconds, r->optimizer_seconds,
           r->loss_first, r->loss_last, (double)r->peak_rss_bytes / 1048576.0);
}

#define EXAMPLE_SHAPE .layers = 4, .heads = 4, .channels = 256, .vocabulary = 50257
#define OPTIONS_SHAPE(s) \
    {"n-layer", 0, OPTION_INT, &(s)->layers, 1, 1024, "N", "layers (default: 4)"}, \
        {"n-head", 0, OPTION_INT, &(s)->heads, 1, 1024, "N", "heads (default: 4)"}, \
        {"n-embd", 0, OPTION_INT, &(s)->channels, 1, 65536, "N", "width (default: 256)"}, \
        {"n-inner", 0, OPTION_INT, &(s)->inner, 0, 1 << 20, "N", "inner width; 0: 4 * n_embd (default: 0)"}, \
        {"vocab-size", 0, OPTION_INT, &(s)->vocabulary, 2, 1 << 20, "N", "vocabulary (default: 50257)"}

static int model_of(struct gpt2_config *out, const struct shape *s, int64_t positions, const char *command) {
    if (s->channels % s->heads != 0)
        return err_set(ERR_USAGE, "%s: --n-head %lld does not divide --n-embd %lld", command, (long long)s->heads, (long long)s->channels);
    *out = (struct gpt2_config){.vocab_size = (int)s->vocabulary,
                                .n_positions = (int)positions,
                                .n_embd = (int)s->channels,
                                .n_layer = (int)s->layers,
                                .n_head = (int)s->heads,
                                .n_inner = (int)(s->inner ? s->inner : 4 * s->channels),
                                .layer_norm_epsilon = 1e-5f,
                                .initializer_range = 0.02f,
                                .scale_attn_weights = true,
                                .bos_token_id = (int)s->vocabulary - 1,
                                .eos_token_id = (int)s->vocabulary - 1,
                                .bf16 = s->bf16,
                                .gradient_checkpointing = s->gradient_checkpointing};
    return 0;
}

static int run_train(const struct shape *s, bool json) {
    char kernels[128];
    struct bench_result result;
    struct bench_options bench = {
        .batch = (int)s->batch, .sequence_length = (int)s->sequence, .threads = (int)s->threads, .steps = (int)s->steps};
    TRY(model_of(&bench.model, s, s->sequence, "bench train"));
    bench.model.bf16 = s->bf16, bench.model.gradient_checkpointing = s->gradient_checkpointing;
    bench.moments_type = s->moments_bf16 ? MOMENTS_BF16 : MOMENTS_FP32;
    TRY(kernels_setup(kernels));
    TRY(bench_train(&result, &bench));
    if (json) return output_json(result_json(&result, kernels, s));
    result_text(&result, kernels);
    if (s->profile) profile_text(&result, s);
    return 0;
}

static int take_type(bool *out_bf16, const char *option, const char *name) {
    *out_bf16 = strcmp(name, "bf16") == 0;
    if (*out_bf16 || strcmp(name, "fp32") == 0) return 0;
    return err_set(ERR_USAGE, "bench train: --%s %s: fp32 or bf16", option, name);
}

static int train(int argc, char **argv) {
    struct shape s = {EXAMPLE_SHAPE, .batch = 8, .sequence = 256, .steps = 10, .threads = cores_available()};
    const char *dtype = "fp32", *optim_state = "fp32";
    bool json = false;
    const struct option_spec options[] = {
        OPTIONS_SHAPE(&s),
        {"batch", 0, OPTION_INT, &s.batch, 1, 65536, "N", "sequences a step (default: 8)"},
        {"sequence", 0, OPTION_INT, &s.sequence, 1, 65536, "N", "tokens of a sequence (default: 256)"},
        {"steps", 0, OPTION_INT, &s.steps, 1, BENCH_STEPS_MAX, "N", "steps measured, after one that is not (default: 10)"},
        {"dtype", 0, OPTION_TEXT, &dtype, 0, 0, "NAME", "fp32 or bf16: what matrix products are of (default: fp32)"},
        {"optim-state", 0, OPTION_TEXT, &optim_state, 0, 0, "NAME", "fp32 or bf16: what AdamW keeps (default: fp32)"},
        {"gradient-checkpointing", 0, OPTION_FLAG, &s.gradient_checkpointing, 0, 0, NULL, "keep less and compute it again"},
        {"profile", 0, OPTION_FLAG, &s.profile, 0, 0, NULL, "where the time goes, operation by operation"},
        OPTION_THREADS(&s.threads),
        OPTION_JSON(&json),
        {0},
    };
    static const struct usage usage = {
        "bench train",
        "[OPTIONS]",
        "Measures training steps on random tokens: gradient, clipping and AdamW, nothing else.",
        "millrace bench train --n-layer 12 --n-head 12 --n-embd 768 --sequence 512 --batch 4 --threads 2 --json",
        0,
        0};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    TRY(take_type(&s.bf16, "dtype", dtype));
    TRY(take_type(&s.moments_bf16, "optim-state", optim_state));
    return run_train(&s, json);
}

static json_t *generate_json(const struct bench_generate_result *r) {
    json_t *object = json_object();
    json_object_set_new(object, "kernels", json_string(r->kernels));
    json_object_set_new(object, "parameters", json_integer((json_int_t)r->parameters));
    json_object_set_new(object, "tokens_per_second_best", output_json_measured(r->tokens_per_second_best));
    json_object_set_new(object, "tokens_per_second_median", output_json_measured(r->tokens_per_second_median));
    json_object_set_new(object, "prefill_tokens_per_second", output_json_measured(r->prefill_tokens_per_second));
    json_object_set_new(object, "bytes_of_weights", json_integer((json_int_t)r->bytes_of_weights));
    json_object_set_new(object, "gbytes_per_second", output_json_measured(r->gbytes_per_second));
    json_object_set_new(object, "peak_rss_bytes", json_integer((json_int_t)r->peak_rss_bytes));
    return object;
}

static int run_generate(const struct shape *s, const char *dtype, bool json) {
    struct bench_generate_result r;
    struct bench_generate_options bench = {.prompt_tokens = (int)s->prompt, .new_tokens = (int)s->fresh, .threads = (int)s->threads};
    TRY(weights_type_of(&bench.type, dtype));
    TRY(model_of(&bench.model, s, s->prompt + s->fresh, "bench generate"));
    TRY(kernels_choose_wanted()); /* not kernels_setup(): generation needs no OpenBLAS */
    TRY(bench_generate(&r, &bench));
    if (json) return output_json(generate_json(&r));
    printf("%s\n%zu parameters, %.1f MB of weights read for each token\n", r.kernels, r.parameters, (double)r.bytes_of_weights / 1e6);
    printf("%.1f tokens/s (median), %.1f (best), %.1f GB/s; prompt %.0f tokens/s; peak memory %.0f MiB\n", r.tokens_per_second_median,
           r.tokens_per_second_best, r.gbytes_per_second, r.prefill_tokens_per_second, (double)r.peak_rss_bytes / 1048576.0);
    return 0;
}

static int generate(int argc, char **argv) {
    struct shape s = {EXAMPLE_SHAPE, .prompt = 64, .fresh = 128, .threads = cores_available()};
    const char *dtype = "fp32";
    bool json = false;
    const struct option_spec options[] = {
        OPTIONS_SHAPE(&s),
        {"prompt-tokens", 0, OPTION_INT, &s.prompt, 1, 1 << 20, "N", "tokens of the prompt (default: 64)"},
        {"new-tokens", 0, OPTION_INT, &s.fresh, 1, 1 << 20, "N", "tokens generated and measured (default: 128)"},
        OPTION_DTYPE(&dtype),
        OPTION_THREADS(&s.threads),
        OPTION_JSON(&json),
        {0},
    };
    static const struct usage usage = {
        "bench generate",
        "[OPTIONS]",
        "Measures generation from random weights, one sequence: new tokens one by one, and before them a prompt.",
        "millrace bench generate --n-layer 12 --n-head 12 --n-embd 768 --dtype int8 --threads 2 --json",
        0,
        0};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    return code != 0 ? code : run_generate(&s, dtype, json);
}

int cmd_bench(int argc, char **argv) {
    static const struct command commands[] = {{"train", "training steps on random tokens", train},
                                           {"generate", "tokens of text from random weights", generate},
                                           {"tokenize", "a file's text to token ids", bench_tokenize},
                                           {"machine", "the most that arithmetic and memory give", bench_machine}};
    return commands_run("bench", "Measures this machine.", commands, sizeof commands / sizeof *commands, argc, argv);
}
