/* From the argument CHECKPOINT (a folder, or a run's output_dir) to weights in memory, their tokenizer and a pool of threads. */
#include "cli/load.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/options.h"
#include "cli/output.h"
#include "model/checkpoint/checkpoint.h"
#include "model/kernels/kernels.h"
#include "model/kernels/product.h"

static bool has(const char *folder, const char *name) {
    char *path = mem_format("%s/%s", folder, name);
    bool there = file_exists(path);
    free(path);
    return there;
}

static int choose(char **out, const char *path) {
    struct stat st;
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    if (!folder || has(path, "config.json") || has(path, "model.safetensors") || has(path, "pytorch_model.bin")) {
        *out = mem_text(path);
        return 0;
    }
    uint64_t step;
    struct buf passed = {0};
    int code = checkpoint_newest(out, &step, &passed, path);
    char *lines = passed.size ? (char *)passed.data : NULL, *rest = NULL;
    for (char *line = lines ? strtok_r(lines, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest)) output_warn(mem_text(line));
    buf_free(&passed);
    TRY(code);
    if (*out) return 0;
    return err_set(ERR_NOTFOUND, "%s holds no checkpoint; give a folder like runs/example/checkpoint-100, or a run's output_dir", path);
}

static int read_params(struct loaded *loaded, struct checkpoint *checkpoint) {
    size_t count = gpt2_parameters(&loaded->config);
    TRY(mem_try(&loaded->params, count, sizeof *loaded->params));
    return checkpoint_read(checkpoint, loaded->params, STATE_WEIGHTS, 0, count);
}

/* type NULL: all parameters as they are. */
static int read_weights(struct loaded *loaded, const enum weights_type *type) {
    struct checkpoint *checkpoint;
    TRY(checkpoint_open(&checkpoint, loaded->path));
    loaded->config = *checkpoint_config(checkpoint);
    struct weights_source source = weights_in_checkpoint(checkpoint);
    int code = checkpoint_verify_model(checkpoint);
    if (code == 0 && type) code = checkpoint_generation(checkpoint, &loaded->generation);
    if (code < 0) {
        checkpoint_close(checkpoint);
        return code;
    }
    code = type ? decoder_weights_open(&loaded->weights, &loaded->config, *type, &source, loaded->pool)
                    : read_params(loaded, checkpoint);
    checkpoint_close(checkpoint);
    return code < 0 ? err_add(code, "weights of %s", loaded->path) : 0;
}

/* The tokenizer in the folder of the weights; GPT-2's where there is none. */
static int open_tokenizer(struct tokenizer **out, const char *path) {
    struct stat st;
    char *folder = mem_text(path), *slash = strrchr(folder, '/');
    bool file = stat(path, &st) != 0 || !S_ISDIR(st.st_mode);
    if (file && slash) slash[slash == folder] = 0;
    const char *place = file && !slash ? "." : folder;
    int code = tokenizer_open(out, has(place, "tokenizer.json") || has(place, "vocab.json") ? place : "gpt2");
    free(folder);
    return code;
}

/* A vocabulary may be padded to a round number, and a tokenizer may have holes. */
static int find_tokenless(struct loaded *loaded) {
    struct buf text = {0};
    TRY(mem_try(&loaded->tokenless, (size_t)loaded->config.vocab_size, sizeof *loaded->tokenless));
    for (int32_t id = 0; id < loaded->config.vocab_size; id++) {
        buf_clear(&text);
        int code = tokenizer_decode(loaded->tokenizer, &text, &(uint32_t){(uint32_t)id}, 1);
        if (code == ERR_CORRUPT) loaded->tokenless[loaded->tokenless_count++] = id;
    }
    buf_free(&text);
    return 0;
}

static int open_all(struct loaded *out, const char *path, int64_t threads, const enum weights_type *type) {
    struct loaded loaded = {0};
    char kernels[128];
    int code = type ? kernels_choose_wanted() : kernels_setup(kernels); /* refuses an OpenBLAS that races; generation needs none */
    if (code == 0) code = choose(&loaded.path, path);
    if (code == 0) code = pool_open_from(&loaded.pool, (int)(threads > 0 ? threads : cores_available()), "--threads");
    if (code == 0) code = read_weights(&loaded, type);
    if (code == 0) code = open_tokenizer(&loaded.tokenizer, loaded.path);
    if (code == 0 && type) code = find_tokenless(&loaded);
    if (code < 0) loaded_close(&loaded);
    else *out = loaded;
    return code;
}

int loaded_open(struct loaded *out, const char *path, int64_t threads) { return open_all(out, path, threads, NULL); }

int loaded_open_weights(struct loaded *out, const char *path, int64_t threads, enum weights_type type) {
    return open_all(out, path, threads, &type);
}

void loaded_close(struct loaded *loaded) {
    pool_close(loaded->pool);
    tokenizer_close(loaded->tokenizer);
    decoder_weights_close(loaded->weights);
    free(loaded->params);
    free(loaded->tokenless);
    free(loaded->path);
    *loaded = (struct loaded){0};
}
