/* `millrace evaluate`: loss and perplexity of a checkpoint on a text file. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/options.h"
#include "cli/output.h"
#include "dataset/source/text_file.h"
#include "model/generate/generate.h"

enum { CHUNK_BYTES = 1 << 18 };

static int encode_file(struct ids *out, const struct tokenizer *tokenizer, const char *path) {
    struct text_file *file;
    TRY(text_file_open(&file, path, &(struct text_file_options){0}));
    struct encoder *encoder = NULL;
    char *chunk = mem_alloc(CHUNK_BYTES);
    int code = encoder_open(&encoder, tokenizer);
    for (size_t got = 1; code == 0 && got > 0;) {
        code = text_file_read(file, chunk, &got, CHUNK_BYTES);
        if (code == 0 && got > 0) code = encoder_feed(encoder, out, chunk, got);
    }
    if (code == 0) code = encoder_finish(encoder, out);
    if (code == 0) output_warn(text_file_left_out(file));
    if (code == 0) output_warn(text_file_warning(file));
    if (code == 0) output_warn(text_file_json_warning(file));
    encoder_close(encoder);
    free(chunk);
    text_file_close(file);
    return code;
}

/* Progress for a person who looks on. */
struct progress {
    uint64_t total;
    int64_t shown_ms;
    bool shown;
};

static void show_progress(void *arg, uint64_t done) {
    enum { EVERY_MS = 500 };
    struct progress *progress = arg;
    int64_t now = clock_ms();
    if (now - progress->shown_ms < EVERY_MS) return;
    progress->shown_ms = now;
    progress->shown = true;
    fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " token%s", done, progress->total, plural(progress->total));
}

static int report(double loss_sum, uint64_t tokens, bool json) {
    double loss = loss_sum / (double)tokens;
    if (!isfinite(loss))
        return err_set(ERR_CORRUPT, "the model's loss is not a number; its weights are damaged or its training diverged");
    if (!json) {
        printf("loss %.6f  perplexity %s  (%s token%s)\n", loss, text_perplexity(loss, 4), text_count(tokens), plural(tokens));
        return 0;
    }
    json_t *object = json_object();
    json_object_set_new(object, "tokens", json_integer((json_int_t)tokens));
    json_object_set_new(object, "loss", output_json_real(loss));
    json_object_set_new(object, "perplexity", output_json_real(exp(loss)));
    return output_json(object);
}

/* float32 goes through the model of training, all else through generation's. */
static int measure(double *loss_sum, uint64_t *tokens, const struct loaded *model, const struct ids *ids) {
    const int32_t *id = (const int32_t *)ids->id;
    struct progress progress = {.total = ids->count, .shown_ms = clock_ms()};
    void (*tick)(void *, uint64_t) = isatty(STDERR_FILENO) ? show_progress : NULL;
    int code;
    if (model->weights) code = gpt2_evaluate_from(loss_sum, tokens, model->weights, id, ids->count, model->pool, tick, &progress);
    else code = gpt2_evaluate(loss_sum, tokens, &model->config, model->params, id, ids->count, model->pool, tick, &progress);
    if (progress.shown) fprintf(stderr, "\r\033[K");
    return code;
}

static int evaluate(const char *checkpoint, const char *text, const char *dtype, int64_t threads, bool json) {
    struct loaded model = {0};
    struct ids ids = {0};
    enum weights_type type;
    double loss_sum;
    uint64_t tokens;
    int code = weights_type_of(&type, dtype);
    if (code == 0)
        code = type == WEIGHTS_FP32 ? loaded_open(&model, checkpoint, threads) : loaded_open_weights(&model, checkpoint, threads, type);
    if (code == 0) code = encode_file(&ids, model.tokenizer, text);
    if (code == 0) {
        code = measure(&loss_sum, &tokens, &model, &ids);
        if (code < 0) err_add(code, "%s", strcmp(text, "-") == 0 ? "standard input" : text);
    }
    if (code == 0) code = report(loss_sum, tokens, json);
    ids_free(&ids);
    loaded_close(&model);
    return code;
}

int cmd_evaluate(int argc, char **argv) {
    const char *text = NULL, *dtype = "fp32";
    bool json = false;
    int64_t threads = 0;
    const struct option_spec options[] = {
        {"text", 0, OPTION_TEXT, &text, 0, 0, "FILE", "the text; - is standard input"},
        OPTION_DTYPE(&dtype),
        OPTION_THREADS(&threads),
        OPTION_JSON(&json),
        {0},
    };
    static const struct usage usage = {
        "evaluate",
        "CHECKPOINT --text FILE [OPTIONS]",
        "Loss (nats a token) and perplexity of a model on a text, which may be compressed or in UTF-16; nothing is added to it. With\n"
        "P = n_positions, window k has the inputs kP .. kP+P-1, each predicting its successor; the last window is shorter. CHECKPOINT as\n"
        "in 'millrace generate'.\n"
        "With --dtype bf16 or int8: as 'millrace generate' computes with such weights, which shows what rounding them costs.",
        "millrace evaluate runs/example --text held-out.txt --json\n"
        "millrace evaluate runs/example --text held-out.txt --dtype int8",
        1,
        1};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    if (!text) return err_set(ERR_USAGE, "evaluate: --text FILE is missing; see 'millrace evaluate --help'");
    return evaluate(arguments[0], text, dtype, threads, json);
}
