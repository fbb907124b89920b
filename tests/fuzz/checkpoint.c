/* A checkpoint folder: config.json, trainer_state.json and model.safetensors, one after the other, with a NUL between. */
#include "model/checkpoint.h"

#include "model/hf_config.h"
#include "model/layout.h"
#include "model/safetensors.h"
#include "tests/fuzz/fuzz.h"

enum { VALUES_MAX = 1 << 16 };

/* The part of data up to NUL or the end. */
static size_t part(const uint8_t *data, size_t size) {
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    return end ? (size_t)(end - data) : size;
}

void fuzz(const uint8_t *data, size_t size) {
    static const char *const names[] = {"config.json", "trainer_state.json"};
    for (size_t i = 0; i < 2; i++) {
        size_t bytes = part(data, size), next = bytes < size ? bytes + 1 : bytes;
        fuzz_file(names[i], data, bytes);
        data += next, size -= next;
    }
    fuzz_file("model.safetensors", data, size);
    struct checkpoint *checkpoint;
    struct trainer_state state;
    if (checkpoint_open(&checkpoint, fuzz_folder()) < 0) return;
    const struct gpt2_config *config = checkpoint_config(checkpoint);
    CHECK(config != NULL);
    size_t count = gpt2_parameters(config);
    float *values = malloc(VALUES_MAX * sizeof *values);
    for (size_t first = 0; first < count; first += VALUES_MAX)
        if (checkpoint_read(checkpoint, values, STATE_WEIGHTS, first, count - first < VALUES_MAX ? count - first : VALUES_MAX) < 0) break;
    checkpoint_trainer_state(checkpoint, &state);
    checkpoint_verify(checkpoint);
    free(values);
    checkpoint_close(checkpoint);
}

static void add_file(struct buf *out, const char *folder, const char *name) {
    char *path = mem_format("%s/%s", folder, name);
    CHECK(file_read(out, path, 1 << 20) == 0);
    free(path);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    struct gpt2_config config = {.vocab_size = 3, .n_positions = 2, .n_embd = 2, .n_layer = 1, .n_head = 1, .n_inner = 3,
                                 .bos_token_id = -1, .eos_token_id = 2, .layer_norm_epsilon = 1e-5f, .initializer_range = 0.02f,
                                 .scale_attn_weights = true};
    size_t count = gpt2_parameters(&config);
    float *values = mem_alloc(count * sizeof *values);
    char *path = mem_format("%s/seed", fuzz_folder());
    struct checkpoint_draft *draft;
    struct trainer_state state = {.step = 5, .max_steps = 10};
    struct state_parts parts = optimizer_state(&(struct optimizer){.kind = OPTIM_ADAMW});
    CHECK(checkpoint_begin(&draft, path, &config, &parts, NULL, 0) == 0);
    for (size_t i = 0; i < parts.count; i++) CHECK(checkpoint_put(draft, parts.part[i], values, 0, count) == 0);
    CHECK(checkpoint_publish(draft, &state) == 0);
    struct buf seed = {0};
    add_file(&seed, path, "config.json");
    CHECK(buf_append(&seed, "", 1) == 0);
    add_file(&seed, path, "trainer_state.json");
    CHECK(buf_append(&seed, "", 1) == 0);
    add_file(&seed, path, "model.safetensors");
    CHECK(folder_remove(path) == 0);
    add(seed.data, seed.size);
    buf_free(&seed);
    free(path);
    free(values);
}
