/* Between struct gpt2_config and Hugging Face's JSON. Written as text, not through a JSON library: the bytes of a checkpoint must not
 * depend on a library's version, and floats are printed in the fewest digits that are read back as the same float. */
#include "model/checkpoint/hf_config.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

struct number {
    char text[24];
};

static struct number id_or_null(int id) {
    struct number number;
    snprintf(number.text, sizeof number.text, id < 0 ? "null" : "%d", id);
    return number;
}

static struct number shortest(float value) {
    struct number number;
    for (int digits = 1; digits <= 9; digits++) { /* nine always suffice for a float */
        snprintf(number.text, sizeof number.text, "%.*g", digits, (double)value);
        if (strtof(number.text, NULL) == value) break;
    }
    return number;
}

int hf_print_config(struct buf *out, const struct gpt2_config *config) {
    TRY(buf_print(out, "{\n  \"activation_function\": \"gelu_new\",\n  \"architectures\": [\n    \"GPT2LMHeadModel\"\n  ],\n"));
    TRY(buf_print(out, "  \"attn_pdrop\": %s,\n  \"bos_token_id\": %s,\n", shortest(config->attn_pdrop).text,
                  id_or_null(config->bos_token_id).text));
    TRY(buf_print(out, "  \"embd_pdrop\": %s,\n  \"eos_token_id\": %s,\n", shortest(config->embd_pdrop).text,
                  id_or_null(config->eos_token_id).text));
    TRY(buf_print(out, "  \"initializer_range\": %s,\n", shortest(config->initializer_range).text));
    TRY(buf_print(out, "  \"layer_norm_epsilon\": %s,\n  \"model_type\": \"gpt2\",\n", shortest(config->layer_norm_epsilon).text));
    TRY(buf_print(out, "  \"n_ctx\": %d,\n  \"n_embd\": %d,\n  \"n_head\": %d,\n", config->n_positions, config->n_embd, config->n_head));
    if (config->n_inner == 4 * config->n_embd) TRY(buf_print(out, "  \"n_inner\": null,\n"));
    else TRY(buf_print(out, "  \"n_inner\": %d,\n", config->n_inner));
    TRY(buf_print(out, "  \"n_layer\": %d,\n  \"n_positions\": %d,\n", config->n_layer, config->n_positions));
    TRY(buf_print(out, "  \"resid_pdrop\": %s,\n  \"scale_attn_weights\": %s,\n", shortest(config->resid_pdrop).text,
                  config->scale_attn_weights ? "true" : "false"));
    /* What GPT-2's own has: transformers' pipeline("text-generation") then samples instead of repeating itself. */
    TRY(buf_print(out, "  \"task_specific_params\": {\n    \"text-generation\": {\n      \"do_sample\": true,\n      \"max_length\": 50\n"
                       "    }\n  },\n"));
    return buf_print(out,
                     "  \"tie_word_embeddings\": true,\n  \"torch_dtype\": \"float32\",\n  \"use_cache\": true,\n  \"vocab_size\": %d\n}\n",
                     config->vocab_size);
}

int hf_print_generation_config(struct buf *out, const struct gpt2_config *config) {
    return buf_print(out, "{\n  \"_from_model_config\": true,\n  \"bos_token_id\": %s,\n  \"eos_token_id\": %s\n}\n",
                     id_or_null(config->bos_token_id).text, id_or_null(config->eos_token_id).text);
}

/* A JSON object under inspection, and the first fault. */
struct reading {
    const char *path;
    const json_t *object;
    int code;
};

static void fault(struct reading *r, int code, const char *key, const char *what) {
    if (r->code == 0) r->code = err_set(code, "%s: %s %s", r->path, key, what);
}

static int whole(struct reading *r, const char *key, int fallback, int max) {
    const json_t *value = json_object_get(r->object, key);
    if (!value) return fallback;
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > max) {
        char what[64];
        snprintf(what, sizeof what, "must be a whole number from 1 to %d", max);
        fault(r, ERR_CORRUPT, key, what);
        return fallback;
    }
    return (int)json_integer_value(value);
}

static float real(struct reading *r, const char *key, double fallback, double max) {
    const json_t *value = json_object_get(r->object, key);
    if (!value) return (float)fallback;
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= 0 && number <= max)) {
        char what[64];
        snprintf(what, sizeof what, "must be a number from 0 to %g", max);
        fault(r, ERR_CORRUPT, key, what);
        return (float)fallback;
    }
    return (float)fabs(number); /* -0.0 is 0.0 */
}

static bool flag(struct reading *r, const char *key, bool fallback) {
    const json_t *value = json_object_get(r->object, key);
    if (!value) return fallback;
    if (!json_is_boolean(value)) fault(r, ERR_CORRUPT, key, "must be true or false");
    return json_is_true(value);
}

/* A token id, the first one of a list, or -1: null, or outside the vocabulary, as in models whose tokenizer has no such token. */
static int token(struct reading *r, const char *key, int vocab_size) {
    const json_t *value = json_object_get(r->object, key);
    if (json_is_array(value)) value = json_array_get(value, 0);
    json_int_t id = value ? json_is_integer(value) ? json_integer_value(value) : -1 : 50256;
    return id >= 0 && id < vocab_size ? (int)id : -1;
}

static void text(struct reading *r, const char *key, const char *only, const char *also) {
    const json_t *value = json_object_get(r->object, key);
    if (!value) return;
    const char *got = json_string_value(value);
    if (got && (strcmp(got, only) == 0 || (also && strcmp(got, also) == 0))) return;
    char what[160];
    snprintf(what, sizeof what, "\"%.60s\" is not supported; this program knows \"%s\"", got ? got : "(not a text)", only);
    fault(r, ERR_UNSUPPORTED, key, what);
}

static void read_fields(struct reading *r, struct gpt2_config *c) {
    enum { EXTENT_MAX = 1 << 24, FOREIGN_LAYERS_MAX = 4 * LAYERS_MAX }; /* far above any GPT-2; keeps products within 64 bits */
    text(r, "model_type", "gpt2", NULL);
    text(r, "activation_function", "gelu_new", "gelu_pytorch_tanh"); /* two names of one function */
    if (flag(r, "scale_attn_by_inverse_layer_idx", false)) fault(r, ERR_UNSUPPORTED, "scale_attn_by_inverse_layer_idx", "is not supported");
    if (flag(r, "add_cross_attention", false)) fault(r, ERR_UNSUPPORTED, "add_cross_attention", "is not supported");
    if (!flag(r, "tie_word_embeddings", true)) fault(r, ERR_UNSUPPORTED, "tie_word_embeddings", "false is not supported");
    c->vocab_size = whole(r, "vocab_size", 50257, EXTENT_MAX);
    c->n_positions = whole(r, "n_positions", whole(r, "n_ctx", 1024, EXTENT_MAX), EXTENT_MAX);
    c->n_embd = whole(r, "n_embd", 768, 1 << 20);
    c->n_layer = whole(r, "n_layer", 12, FOREIGN_LAYERS_MAX);
    c->n_head = whole(r, "n_head", 12, 1 << 16);
    c->n_inner = json_is_null(json_object_get(r->object, "n_inner")) ? 4 * c->n_embd : whole(r, "n_inner", 4 * c->n_embd, EXTENT_MAX);
    if (c->n_embd % c->n_head != 0) fault(r, ERR_CORRUPT, "n_head", "does not divide n_embd");
    c->attn_pdrop = real(r, "attn_pdrop", 0.1, 1);
    c->embd_pdrop = real(r, "embd_pdrop", 0.1, 1);
    c->resid_pdrop = real(r, "resid_pdrop", 0.1, 1);
    c->layer_norm_epsilon = real(r, "layer_norm_epsilon", 1e-5, 1);
    c->initializer_range = real(r, "initializer_range", 0.02, 1e3);
    c->scale_attn_weights = flag(r, "scale_attn_weights", true);
    c->bos_token_id = token(r, "bos_token_id", c->vocab_size);
    c->eos_token_id = token(r, "eos_token_id", c->vocab_size);
}

int hf_parse_config(struct gpt2_config *out, const char *path, const char *json, size_t text_bytes) {
    json_error_t error;
    json_t *root = json_loadb(json, text_bytes, JSON_REJECT_DUPLICATES, &error);
    struct gpt2_config config = {0};
    struct reading reading = {.path = path, .object = root};
    if (!json_is_object(root)) reading.code = err_set(ERR_CORRUPT, "%s is not a JSON object: %s", path, root ? "another type" : error.text);
    else read_fields(&reading, &config);
    json_decref(root);
    if (reading.code == 0) *out = config;
    return reading.code;
}

/* ---- how to generate ---- */

/* Keys that would change the text and are not known here, with the value at which they change nothing. */
static const struct {
    const char *key;
    double without; /* a number; NaN: any value but null, false and an empty list counts */
} unknown_here[] = {
    {"num_beams", 1}, {"num_beam_groups", 1}, {"repetition_penalty", 1}, {"encoder_repetition_penalty", 1}, {"no_repeat_ngram_size", 0},
    {"encoder_no_repeat_ngram_size", 0}, {"typical_p", 1}, {"epsilon_cutoff", 0}, {"eta_cutoff", 0}, {"min_p", 0}, {"penalty_alpha", 0},
    {"diversity_penalty", 0}, {"guidance_scale", 1}, {"top_h", NAN}, {"bad_words_ids", NAN}, {"force_words_ids", NAN},
    {"suppress_tokens", NAN}, {"begin_suppress_tokens", NAN}, {"sequence_bias", NAN}, {"forced_bos_token_id", NAN},
    {"forced_eos_token_id", NAN}, {"forced_decoder_ids", NAN}, {"stop_strings", NAN}, {"exponential_decay_length_penalty", NAN},
    {"constraints", NAN}, {"watermarking_config", NAN},
};

static bool says_nothing(const json_t *value, double without) {
    if (!value || json_is_null(value) || json_is_false(value)) return true;
    if ((json_is_array(value) && json_array_size(value) == 0) || (json_is_object(value) && json_object_size(value) == 0)) return true;
    return json_is_number(value) && json_number_value(value) == without;
}

static void note_unknown(struct reading *r, struct hf_generation *g) {
    size_t used = 0;
    for (size_t i = 0; i < sizeof unknown_here / sizeof *unknown_here; i++) {
        if (says_nothing(json_object_get(r->object, unknown_here[i].key), unknown_here[i].without)) continue;
        int n = snprintf(g->unknown + used, sizeof g->unknown - used, "%s%s", used ? ", " : "", unknown_here[i].key);
        if (n < 0 || (size_t)n >= sizeof g->unknown - used) return; /* enough of them are named */
        used += (size_t)n;
    }
}

static double number_or(struct reading *r, const char *key, double fallback, double min, double max) {
    const json_t *value = json_object_get(r->object, key);
    if (!value || json_is_null(value)) return fallback;
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= min && number <= max)) {
        char what[80];
        snprintf(what, sizeof what, "must be a number from %g to %g", min, max);
        fault(r, ERR_CORRUPT, key, what);
    }
    return number;
}

static int count_or(struct reading *r, const char *key, int fallback) {
    const json_t *value = json_object_get(r->object, key);
    double number = number_or(r, key, fallback, 0, HF_COUNT_MAX);
    if (json_is_number(value) && number != floor(number)) fault(r, ERR_CORRUPT, key, "must be a whole number");
    return r->code == 0 ? (int)number : fallback;
}

/* Ids outside the vocabulary never come, so they end nothing. */
static void add_end(struct reading *r, struct hf_generation *g, const json_t *value, int vocab_size) {
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value)) fault(r, ERR_CORRUPT, "eos_token_id", "must be a token id or a list of them");
    else if (g->ends == HF_ENDS_MAX) fault(r, ERR_LIMIT, "eos_token_id", "has more ids than there is room for");
    else if (id >= 0 && id < vocab_size) g->end[g->ends++] = (int32_t)id;
}

static void read_ends(struct reading *r, struct hf_generation *g, int vocab_size) {
    const json_t *value = json_object_get(r->object, "eos_token_id");
    if (!value || json_is_null(value)) return;
    g->ends = 0;
    if (!json_is_array(value)) add_end(r, g, value, vocab_size);
    for (size_t i = 0; i < json_array_size(value); i++) add_end(r, g, json_array_get(value, i), vocab_size);
}

static void read_generation(struct reading *r, struct hf_generation *g) {
    const json_t *sample = json_object_get(r->object, "do_sample");
    if (sample && !json_is_null(sample)) g->do_sample = flag(r, "do_sample", false);
    g->temperature = number_or(r, "temperature", -1, 0, 100);
    g->top_p = number_or(r, "top_p", -1, 0, 1);
    g->top_k = count_or(r, "top_k", -1);
    g->max_new_tokens = count_or(r, "max_new_tokens", -1);
    g->min_new_tokens = count_or(r, "min_new_tokens", -1);
    g->max_length = count_or(r, "max_length", -1);
    g->min_length = count_or(r, "min_length", -1);
    note_unknown(r, g);
}

int hf_parse_generation(struct hf_generation *generation, const char *path, const char *json, size_t text_bytes, int vocab_size,
                        bool ends_only) {
    json_error_t error;
    json_t *root = json_loadb(json, text_bytes, JSON_REJECT_DUPLICATES, &error);
    struct hf_generation fresh = *generation;
    struct reading reading = {.path = path, .object = root};
    if (!json_is_object(root)) reading.code = err_set(ERR_CORRUPT, "%s is not a JSON object: %s", path, root ? "another type" : error.text);
    else read_ends(&reading, &fresh, vocab_size);
    if (reading.code == 0 && !ends_only) read_generation(&reading, &fresh);
    json_decref(root);
    if (reading.code == 0) *generation = fresh;
    return reading.code;
}
