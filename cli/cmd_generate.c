/* `millrace generate`: continues a prompt, as running text or as JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/options.h"
#include "cli/output.h"
#include "model/generate/generate.h"

enum { SEQUENCES_MAX = 1000, LENGTH_MAX = 1 << 20, NEW_TOKENS_DEFAULT = 50, TOP_K_DEFAULT = 50 };

struct request {
    const char *prompt, *dtype;
    bool special, greedy, json;
    double temperature, top_p; /* -1: not given; so are those below */
    int64_t top_k, min_new, max_new, min_length, max_length;
    int64_t sequences, threads;
    uint64_t seed;
    struct generate_options options;
    struct ids ids; /* of the prompt */
};

static int64_t or_else(int64_t given, int64_t of_checkpoint) { return given >= 0 ? given : of_checkpoint; }

/* Lengths as in transformers: those of new tokens win over total lengths. The command line wins over generation_config.json. */
static int settle_lengths(struct request *r, const struct hf_generation *g) {
    int64_t prompt = (int64_t)r->ids.count;
    if (r->max_new < 0 && r->max_length >= 0 && r->max_length <= prompt)
        return err_set(ERR_USAGE,
                       "generate: --max-length %lld leaves nothing to generate: the prompt has %lld token%s; try --max-new-tokens",
                       (long long)r->max_length, (long long)prompt, plural((unsigned long long)prompt));
    int64_t most = r->max_new >= 0 ? r->max_new : r->max_length >= 0 ? r->max_length - prompt : -1;
    int64_t least = r->min_new >= 0 ? r->min_new : r->min_length >= 0 ? (r->min_length > prompt ? r->min_length - prompt : 0) : -1;
    if (most >= 0 && least > most)
        return err_set(ERR_USAGE, "generate: at least %lld new tokens are wanted, and at most %lld", (long long)least, (long long)most);
    if (most < 0) most = g->max_new_tokens;
    if (most < 0 && g->max_length > prompt) most = g->max_length - prompt;
    if (most < 0) most = least > NEW_TOKENS_DEFAULT ? least : NEW_TOKENS_DEFAULT;
    if (least < 0) least = g->min_new_tokens >= 0 ? g->min_new_tokens : g->min_length > prompt ? g->min_length - prompt : 0;
    r->options.max_new_tokens = (int)most;
    r->options.min_new_tokens = (int)(least < most ? least : most);
    return 0;
}

/* --temperature, --top-k and --top-p ask for sampling, whatever generation_config.json says. */
static void settle_choice(struct request *r, const struct loaded *model) {
    const struct hf_generation *g = &model->generation;
    bool asked = r->temperature >= 0 || r->top_k >= 0 || r->top_p >= 0;
    double temperature = r->temperature >= 0 ? r->temperature : g->temperature >= 0 ? g->temperature : 1;
    r->options = (struct generate_options){
        .greedy = r->greedy || temperature < GENERATE_TEMPERATURE_LEAST || (g->do_sample == 0 && !asked),
        .temperature = temperature,
        .top_k = (int)or_else(r->top_k, or_else(g->top_k, TOP_K_DEFAULT)),
        .top_p = r->top_p >= 0 ? r->top_p : g->top_p >= 0 ? g->top_p : 1,
        .seed = r->seed,
        .end = g->ends > 0 ? g->end : NULL,
        .ends = g->ends,
        .tokenless = model->tokenless,
        .tokenless_count = model->tokenless_count,
    };
    if (*g->unknown)
        output_warn(mem_format("%s's generation_config.json asks for %s, which this program does not do", model->path, g->unknown));
}

/* Text on its way to standard output; an incomplete character waits for its other bytes. */
struct stream {
    const struct loaded *model;
    const struct generate_options *options;
    struct text_decoder decoder;
    struct buf text;
};

static int stream_text(struct stream *stream) {
    output_plain(stdout, stream->text.data, stream->text.size);
    buf_clear(&stream->text);
    return output_alive() ? 0 : 1;
}

static int stream_token(void *arg, int32_t id) {
    struct stream *stream = arg;
    if (generate_ends(stream->options, &stream->model->config, id)) return 0;
    if (text_decoder_feed(&stream->decoder, &stream->text, &(uint32_t){(uint32_t)id}, 1) < 0)
        return 0; /* ids past the tokenizer's have no text */
    return stream_text(stream);
}

static int decode(struct buf *out, const struct loaded *model, const struct generate_options *options, const int32_t *ids, int count) {
    if (count > 0 && generate_ends(options, &model->config, ids[count - 1])) count--; /* the mark of the end is not text */
    return tokenizer_decode(model->tokenizer, out, (const uint32_t *)ids, (size_t)count);
}

static int as_json(json_t **out, const struct loaded *model, const struct generate_options *options, const int32_t *ids, int count) {
    struct buf text = {0};
    int code = decode(&text, model, options, ids, count);
    if (code == 0) {
        json_t *list = json_array();
        for (int i = 0; i < count; i++) json_array_append_new(list, json_integer(ids[i]));
        *out = json_object();
        json_object_set_new(*out, "ids", list);
        json_object_set_new(*out, "text", output_json_text(text.data ? (const void *)text.data : "", text.size));
    }
    buf_free(&text);
    return code;
}

static int stream_sequence(int32_t *out, int *out_count, const struct loaded *model, const struct request *r, int64_t sequence) {
    struct stream stream = {.model = model, .options = &r->options, .decoder.tokenizer = model->tokenizer};
    if (r->sequences > 1) printf("--- %lld of %lld ---\n", (long long)sequence + 1, (long long)r->sequences);
    int code = text_decoder_feed(&stream.decoder, &stream.text, r->ids.id, r->ids.count);
    if (code == 0) stream_text(&stream);
    if (code == 0)
        code = gpt2_generate_from(out, out_count, model->weights, (const int32_t *)r->ids.id, (int)r->ids.count, &r->options,
                                  (uint32_t)sequence, model->pool, stream_token, &stream);
    if (code == 0 && text_decoder_finish(&stream.decoder, &stream.text) == 0) stream_text(&stream);
    printf("\n");
    text_decoder_free(&stream.decoder);
    buf_free(&stream.text);
    return code;
}

/* All sequences of one request. `first` is the object of the first one, to which the list of all is added when there are several. */
static int generate_all(const struct loaded *model, const struct request *r, int32_t *ids) {
    json_t *first = NULL, *all = json_array();
    int code = 0;
    for (int64_t s = 0; s < r->sequences && code == 0 && output_alive(); s++) {
        int count;
        if (!r->json) {
            code = stream_sequence(ids, &count, model, r, s);
            continue;
        }
        json_t *object = NULL;
        code = gpt2_generate_from(ids, &count, model->weights, (const int32_t *)r->ids.id, (int)r->ids.count, &r->options, (uint32_t)s,
                                  model->pool, NULL, NULL);
        if (code == 0) code = as_json(&object, model, &r->options, ids, count);
        if (object && s == 0) first = json_copy(object);
        if (object) json_array_append_new(all, object);
    }
    if (first && code == 0 && r->sequences > 1) json_object_set(first, "sequences", all);
    if (first && code == 0) code = output_json(json_incref(first));
    json_decref(first);
    json_decref(all);
    return code;
}

/* A model sees no more than its context. */
static void say_window(const struct request *r, const struct loaded *model) {
    size_t count = r->ids.count, context = (size_t)model->config.n_positions;
    if (count <= context) return;
    size_t seen = count - (size_t)generate_window((int)count, (int)context);
    fprintf(stderr, "note      the prompt has %zu tokens and the model's context %zu: only the last %zu are seen, as the window "
                    "moves on by half a context at a time, to have room for new tokens\n", count, context, seen);
}

static int generate(const char *checkpoint, struct request *r) {
    struct loaded model = {0};
    int32_t *ids = NULL;
    enum weights_type type;
    int code = weights_type_of(&type, r->dtype);
    if (code == 0) code = loaded_open_weights(&model, checkpoint, r->threads, type);
    if (code == 0) code = tokenizer_encode(model.tokenizer, &r->ids, r->prompt, strlen(r->prompt), r->special);
    if (code == 0 && r->ids.count > LENGTH_MAX)
        code = err_set(ERR_LIMIT, "--prompt has %zu tokens; at most %d", r->ids.count, LENGTH_MAX);
    if (code == 0) say_window(r, &model);
    if (code == 0) settle_choice(r, &model);
    if (code == 0) code = settle_lengths(r, &model.generation);
    if (code == 0) code = mem_try(&ids, r->ids.count + (size_t)r->options.max_new_tokens, sizeof *ids);
    if (code == 0) code = generate_all(&model, r, ids);
    free(ids);
    ids_free(&r->ids);
    loaded_close(&model);
    return code;
}

/* What a command line says about the choice of tokens has to be of one kind. */
static int check_greedy(const struct request *r) {
    const char *other = r->temperature >= 0 ? "temperature" : r->top_k >= 0 ? "top-k" : r->top_p >= 0 ? "top-p"
                        : r->sequences > 1 ? "num-return-sequences" : NULL;
    if (!r->greedy || !other) return 0;
    return err_set(ERR_USAGE, "generate: --greedy and --%s exclude each other: the most probable token is always the same", other);
}

int cmd_generate(int argc, char **argv) {
    struct request r = {.prompt = "",
                        .dtype = "fp32",
                        .temperature = -1,
                        .top_p = -1,
                        .top_k = -1,
                        .sequences = 1,
                        .min_new = -1,
                        .max_new = -1,
                        .min_length = -1,
                        .max_length = -1,
                        .seed = 42};
    const struct option_spec options[] = {
        {"prompt", 'p', OPTION_TEXT, &r.prompt, 0, 0, "TEXT", "what to continue (default: start from nothing)"},
        {"max-new-tokens", 0, OPTION_INT, &r.max_new, 0, LENGTH_MAX, "N", "most tokens to add (default: 50)"},
        {"min-new-tokens", 0, OPTION_INT, &r.min_new, 0, LENGTH_MAX, "N", "fewest tokens to add (default: 0)"},
        {"max-length", 0, OPTION_INT, &r.max_length, 1, LENGTH_MAX, "N",
         "most tokens, those of the prompt included; --max-new-tokens wins over it"},
        {"min-length", 0, OPTION_INT, &r.min_length, 0, LENGTH_MAX, "N",
         "least tokens, those of the prompt included; --min-new-tokens wins over it"},
        {"greedy", 0, OPTION_FLAG, &r.greedy, 0, 0, NULL, "always the most probable token"},
        {"temperature", 0, OPTION_REAL, &r.temperature, 0, 100, "X", "lower: likelier tokens, higher: more varied, 0: greedy (default: 1)"},
        {"top-k", 0, OPTION_INT, &r.top_k, 0, 1 << 24, "N", "choose among the N most probable; 0: all (default: 50)"},
        {"top-p", 0, OPTION_REAL, &r.top_p, 0, 1, "X", "choose among those that make up this probability (default: 1)"},
        {"seed", 's', OPTION_SEED, &r.seed, 0, 0, "N", "the same seed gives the same text (default: 42)"},
        {"num-return-sequences", 0, OPTION_INT, &r.sequences, 1, SEQUENCES_MAX, "N", "how many texts (default: 1)"},
        {"special", 0, OPTION_FLAG, &r.special, 0, 0, NULL, "special tokens in the prompt, like <|endoftext|>, are tokens"},
        OPTION_DTYPE(&r.dtype),
        OPTION_THREADS(&r.threads),
        OPTION_JSON(&r.json),
        {0},
    };
    static const struct usage usage = {
        "generate",
        "CHECKPOINT [OPTIONS]",
        "Continues a text. CHECKPOINT is a checkpoint folder (also of another GPT-2 in Hugging Face's format), its model.safetensors,\n"
        "model.safetensors.index.json or model.ema.safetensors, or a run's output_dir, which means the newest checkpoint in it. Its\n"
        "generation_config.json decides where these options are not given; the defaults hold where neither has a value.\n"
        "With --json: {\"ids\": [...], \"text\": ...}.",
        "millrace generate runs/example --prompt \"The house prices\" --temperature 0.8 --max-new-tokens 100\n"
        "millrace generate runs/example/checkpoint-100 --prompt \"Once\" --greedy --json",
        1,
        2}; /* the second is refused with a hint */
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    if (count > 1)
        return err_set(ERR_USAGE, "generate: one word too many: %s; the text to continue is given as --prompt TEXT; see 'millrace "
                                  "generate --help'", arguments[1]);
    TRY(check_greedy(&r));
    return generate(arguments[0], &r);
}
