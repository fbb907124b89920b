/* A checkpoint folder: config.json, generation_config.json and millrace_state.json, each with a NUL behind it, the size of
 * optimizer.safetensors (4 bytes), that file, and model.safetensors. */
#include "model/checkpoint/checkpoint.h"

#include "model/checkpoint/hf_config.h"
#include "model/checkpoint/safetensors.h"
#include "model/gpt2/layout.h"
#include "tests/fuzz/fuzz.h"

enum { VALUES_MAX = 1 << 16, TEXTS = 3 };
static const char *const names[TEXTS] = {"config.json", "generation_config.json", "millrace_state.json"};

/* The part of data up to NUL or the end. */
static size_t part(const uint8_t *data, size_t size) {
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    return end ? (size_t)(end - data) : size;
}

void fuzz(const uint8_t *data, size_t size) {
    for (size_t i = 0; i < TEXTS; i++) {
        size_t bytes = part(data, size), next = bytes < size ? bytes + 1 : bytes;
        fuzz_file(names[i], data, bytes);
        data += next, size -= next;
    }
    uint32_t bytes = 0;
    if (size >= sizeof bytes) {
        memcpy(&bytes, data, sizeof bytes);
        data += sizeof bytes, size -= sizeof bytes;
    }
    if (bytes > size) bytes = (uint32_t)size;
    fuzz_file("optimizer.safetensors", data, bytes);
    fuzz_file("model.safetensors", data + bytes, size - bytes);
    struct checkpoint *checkpoint;
    struct checkpoint_facts facts;
    if (checkpoint_open(&checkpoint, fuzz_folder()) < 0) return;
    const struct gpt2_config *config = checkpoint_config(checkpoint);
    CHECK(config != NULL);
    size_t count = gpt2_parameters(config);
    float *values = malloc(VALUES_MAX * sizeof *values);
    for (int i = 0; i < 4; i++) {
        struct state_parts parts = {.moments_type = i % 2 ? MOMENTS_BF16 : MOMENTS_FP32};
        enum state_part read = i < 2 ? STATE_MOMENT1 : i == 2 ? STATE_WEIGHTS : STATE_MOMENT2;
        for (size_t first = 0, n; first < count; first += n) {
            n = count - first < VALUES_MAX ? count - first : VALUES_MAX;
            if (checkpoint_read_state(checkpoint, values, &parts, read, first, n) < 0) break;
        }
    }
    checkpoint_facts(checkpoint, &facts);
    checkpoint_verify(checkpoint);
    free(values);
    checkpoint_close(checkpoint);
}

static void add_file(struct buf *out, const char *folder, const char *name) {
    char *path = mem_format("%s/%s", folder, name);
    CHECK(file_read(out, path, 1 << 20) == 0);
    free(path);
}

static void add_seed(void (*add)(const void *bytes, size_t size_bytes), enum moments_type type) {
    struct gpt2_config config = {.vocab_size = 3, .n_positions = 2, .n_embd = 2, .n_layer = 1, .n_head = 1, .n_inner = 3,
                                 .bos_token_id = -1, .eos_token_id = 2, .layer_norm_epsilon = 1e-5f, .initializer_range = 0.02f,
                                 .scale_attn_weights = true};
    size_t count = gpt2_parameters(&config);
    float *values = mem_alloc(count * sizeof *values);
    char *path = mem_format("%s/seed", fuzz_folder());
    struct checkpoint_draft *draft;
    struct checkpoint_facts facts = {.step = 5, .max_steps = 10};
    struct state_parts parts = optimizer_parts(&(struct optimizer){.kind = OPTIM_ADAMW, .moments_type = type});
    CHECK(checkpoint_begin(&draft, path, &config, &parts, NULL, 0) == 0);
    for (size_t i = 0; i < parts.count; i++) CHECK(checkpoint_put(draft, parts.part[i], values, 0, count) == 0);
    CHECK(checkpoint_seal(draft, &facts, NULL) == 0 && checkpoint_publish(draft) == 0);
    struct buf seed = {0};
    for (size_t i = 0; i < TEXTS; i++) {
        add_file(&seed, path, names[i]);
        CHECK(buf_append(&seed, "", 1) == 0);
    }
    struct buf optimizer = {0};
    add_file(&optimizer, path, "optimizer.safetensors");
    uint32_t bytes = (uint32_t)optimizer.size;
    CHECK(buf_append(&seed, &bytes, sizeof bytes) == 0 && buf_append(&seed, optimizer.data, optimizer.size) == 0);
    buf_free(&optimizer);
    add_file(&seed, path, "model.safetensors");
    CHECK(folder_remove(path) == 0);
    add(seed.data, seed.size);
    buf_free(&seed);
    free(path);
    free(values);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    add_seed(add, MOMENTS_FP32);
    add_seed(add, MOMENTS_BF16);
}
