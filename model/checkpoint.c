/* Reading a checkpoint folder, our own or a foreign one: finds every tensor of the configured shape by its name and reads the flat
 * vector through that map. Nothing is kept in memory but the map. */
#include "model/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "model/hf_config.h"
#include "model/safetensors.h"
#include "model/trainer_state.h"

enum { CONFIG_BYTES_MAX = 1 << 20 };

/* A file beside the weights, which are of use without it: what is wrong with it waits until somebody asks for what it holds. */
struct side {
    struct safetensors *file; /* NULL when absent or damaged; fault says which */
    int code;
    char *fault;
};

struct checkpoint {
    char *folder;
    const char *weights_name; /* of the file that the weights are taken from */
    struct gpt2_config config;
    size_t tensors, elements;
    struct gpt2_tensor *tensor;
    struct safetensors *weights;
    struct side optimizer, ema;
    uint64_t *place[STATE_PARTS];   /* byte offset of each tensor in its file; NULL for a part that is not there */
    const char *dtype[STATE_PARTS]; /* of all its tensors */
};

static const char PREFIX[] = "transformer.";

static char *inside(const struct checkpoint *checkpoint, const char *name) { return mem_format("%s/%s", checkpoint->folder, name); }

static int read_config(struct checkpoint *checkpoint) {
    struct buf text = {0};
    char *path = inside(checkpoint, "config.json");
    int code = file_read(&text, path, CONFIG_BYTES_MAX);
    if (code == ERR_NOTFOUND)
        code = err_set(ERR_NOTFOUND,
                       "%s is not a checkpoint: it has no config.json; give a folder like checkpoint-500, or its model.safetensors",
                       checkpoint->folder);
    if (code == 0) code = hf_parse_config(&checkpoint->config, path, (const char *)text.data, text.size);
    buf_free(&text);
    free(path);
    return code;
}

/* The entry named `before` NAME, where NAME may lack its "transformer.". */
static const struct safetensors_entry *find(const struct safetensors *file, const char *before, const char *name) {
    char full[SAFETENSORS_NAME_MAX];
    snprintf(full, sizeof full, "%s%s", before, name);
    const struct safetensors_entry *entry = safetensors_find(file, full);
    if (entry || strncmp(name, PREFIX, strlen(PREFIX)) != 0) return entry;
    snprintf(full, sizeof full, "%s%s", before, name + strlen(PREFIX));
    return safetensors_find(file, full);
}

static int check_tensor(const struct safetensors *file, const struct safetensors_entry *entry, const struct gpt2_tensor *tensor,
                        const char *dtype) {
    if (!entry) return err_set(ERR_CORRUPT, "%s: tensor %s is missing; config.json speaks of another model", file->path, tensor->name);
    if (strcmp(entry->dtype, dtype) != 0)
        return err_set(ERR_UNSUPPORTED, "%s: tensor %s is %s; only %s can be read%s", file->path, entry->name, entry->dtype, dtype,
                       strcmp(dtype, "F32") == 0 ? ": save the model as float32" : "");
    bool same = entry->rank == tensor->rank;
    for (int d = 0; same && d < entry->rank; d++) same = entry->shape[d] == tensor->shape[d];
    if (!same) return err_set(ERR_CORRUPT, "%s: tensor %s has another shape than config.json says", file->path, entry->name);
    return 0;
}

static int map_part(struct checkpoint *checkpoint, enum state_part part, const struct safetensors *file, const char *before,
                    const char *dtype) {
    TRY(mem_try(&checkpoint->place[part], checkpoint->tensors, sizeof(uint64_t)));
    for (size_t i = 0; i < checkpoint->tensors; i++) {
        const struct safetensors_entry *entry = find(file, before, checkpoint->tensor[i].name);
        TRY(check_tensor(file, entry, &checkpoint->tensor[i], dtype));
        checkpoint->place[part][i] = file->data_offset + entry->offset;
    }
    checkpoint->dtype[part] = dtype;
    return 0;
}

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* A tensor that GPT2LMHeadModel does not have would silently not be computed. Mask buffers and the tied head say nothing new. */
static int refuse_others(const struct checkpoint *checkpoint) {
    for (size_t i = 0; i < checkpoint->weights->count; i++) {
        const char *name = checkpoint->weights->entry[i].name;
        if (strcmp(name, "lm_head.weight") == 0 || ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias")) continue;
        const char *bare = strncmp(name, PREFIX, strlen(PREFIX)) == 0 ? name + strlen(PREFIX) : name;
        bool known = false;
        for (size_t t = 0; t < checkpoint->tensors && !known; t++) {
            const char *ours = checkpoint->tensor[t].name;
            if (strncmp(ours, PREFIX, strlen(PREFIX)) == 0) ours += strlen(PREFIX);
            known = strcmp(ours, bare) == 0;
        }
        if (!known)
            return err_set(ERR_UNSUPPORTED, "%s: tensor %s is not part of the GPT-2 of config.json", checkpoint->weights->path, name);
    }
    return 0;
}

static int open_weights(struct checkpoint *checkpoint) {
    char *path = inside(checkpoint, checkpoint->weights_name);
    int code = safetensors_open(&checkpoint->weights, path);
    free(path);
    TRY(code);
    checkpoint->tensors = gpt2_tensor_count(&checkpoint->config);
    TRY(mem_try(&checkpoint->tensor, checkpoint->tensors, sizeof *checkpoint->tensor));
    checkpoint->tensors = gpt2_tensors(checkpoint->tensor, &checkpoint->config);
    checkpoint->elements = gpt2_parameters(&checkpoint->config);
    TRY(map_part(checkpoint, STATE_WEIGHTS, checkpoint->weights, "", "F32"));
    return refuse_others(checkpoint);
}

static int map_moments(struct checkpoint *checkpoint, const struct safetensors *file) {
    bool sgd = find(file, "momentum_buffer.", checkpoint->tensor[0].name) != NULL;
    const char *first = sgd ? "momentum_buffer." : "exp_avg.";
    const struct safetensors_entry *entry = find(file, first, checkpoint->tensor[0].name);
    const char *dtype = entry && strcmp(entry->dtype, "BF16") == 0 ? "BF16" : "F32"; /* of all moments */
    TRY(map_part(checkpoint, STATE_MOMENT1, file, first, dtype));
    return sgd ? 0 : map_part(checkpoint, STATE_MOMENT2, file, "exp_avg_sq.", dtype);
}

static int map_ema(struct checkpoint *checkpoint, const struct safetensors *file) {
    return map_part(checkpoint, STATE_EMA, file, "", "F32");
}

static void open_side(struct side *side, struct checkpoint *checkpoint, const char *name,
                      int (*map)(struct checkpoint *, const struct safetensors *)) {
    char *path = inside(checkpoint, name);
    side->code = safetensors_open(&side->file, path);
    if (side->code == 0) side->code = map(checkpoint, side->file);
    side->fault = mem_text(side->code < 0 ? err_text() : "");
    free(path);
}

static int check_side(const struct side *side) { return side->code < 0 ? err_set(side->code, "%s", side->fault) : 0; }

static int split_path(struct checkpoint *checkpoint, const char *path) {
    static const char *const names[] = {"model.safetensors", "model.ema.safetensors"};
    struct stat st;
    if (stat(path, &st) != 0) return err_errno("checkpoint %s", path);
    const char *slash = strrchr(path, '/');
    checkpoint->weights_name = names[0];
    if (S_ISDIR(st.st_mode)) {
        checkpoint->folder = mem_text(path);
        return 0;
    }
    if (strcmp(slash ? slash + 1 : path, names[1]) == 0) checkpoint->weights_name = names[1];
    else if (strcmp(slash ? slash + 1 : path, names[0]) != 0)
        return err_set(ERR_UNSUPPORTED, "%s: a checkpoint is a folder, or the %s or %s in it", path, names[0], names[1]);
    checkpoint->folder = slash ? mem_format("%.*s", (int)(slash - path) + (slash == path), path) : mem_text(".");
    return 0;
}

int checkpoint_open(struct checkpoint **out, const char *path) {
    struct checkpoint *checkpoint = mem_alloc(sizeof *checkpoint);
    int code = split_path(checkpoint, path);
    if (code == 0) code = read_config(checkpoint);
    if (code == 0) code = open_weights(checkpoint);
    if (code < 0) {
        checkpoint_close(checkpoint);
        return code;
    }
    open_side(&checkpoint->optimizer, checkpoint, "optimizer.safetensors", map_moments);
    open_side(&checkpoint->ema, checkpoint, "model.ema.safetensors", map_ema);
    *out = checkpoint;
    return 0;
}

const struct gpt2_config *checkpoint_config(const struct checkpoint *checkpoint) { return &checkpoint->config; }

static int read_record(struct trainer_record *out, const struct checkpoint *checkpoint) {
    struct buf text = {0};
    char *path = inside(checkpoint, "trainer_state.json");
    int code = file_read(&text, path, TRAINER_STATE_BYTES_MAX);
    if (code == 0) code = trainer_state_parse(out, path, (const char *)text.data, text.size);
    buf_free(&text);
    free(path);
    return code;
}

int checkpoint_trainer_state(const struct checkpoint *checkpoint, struct trainer_state *out) {
    struct trainer_record record;
    TRY(read_record(&record, checkpoint));
    *out = record.state;
    return 0;
}

static int read_bytes(const struct safetensors *file, void *out, size_t size_bytes, uint64_t offset) {
    size_t got;
    int code = file_read_at(file->fd, out, &got, size_bytes, offset);
    if (code < 0) return err_add(code, "%s", file->path);
    if (got != size_bytes) return err_set(ERR_CORRUPT, "%s became shorter while it was read", file->path);
    return 0;
}

int checkpoint_read(const struct checkpoint *checkpoint, float *out, enum state_part part, size_t first, size_t count) {
    return checkpoint_read_state(checkpoint, out, &(struct state_parts){0}, part, first, count);
}

int checkpoint_read_state(const struct checkpoint *checkpoint, void *out, const struct state_parts *parts, enum state_part part,
                          size_t first, size_t count) {
    CHECK((int)part >= 0 && part < STATE_PARTS);
    CHECK(first <= checkpoint->elements && count <= checkpoint->elements - first);
    const struct side *side = part == STATE_EMA ? &checkpoint->ema : &checkpoint->optimizer;
    if (part != STATE_WEIGHTS) TRY(check_side(side));
    if (!checkpoint->place[part]) return err_set(ERR_NOTFOUND, "%s does not hold all that the optimizer keeps", checkpoint->folder);
    const struct safetensors *file = part == STATE_WEIGHTS ? checkpoint->weights : side->file;
    const char *dtype = checkpoint->dtype[part], *wanted = state_dtype(parts, part);
    if (strcmp(dtype, wanted) != 0)
        return err_set(ERR_UNSUPPORTED, "%s holds %s where training.optim_state asks for %s: set it to %s, or choose another output_dir",
                       file->path, dtype, wanted, strcmp(dtype, "F32") == 0 ? "fp32" : "bf16");
    size_t bytes = state_element_bytes(parts, part);
    for (size_t i = 0; i < checkpoint->tensors && count > 0; i++) {
        const struct gpt2_tensor *tensor = &checkpoint->tensor[i];
        if (first >= tensor->offset + tensor->size) continue;
        size_t skip = first - tensor->offset, take = tensor->size - skip < count ? tensor->size - skip : count;
        TRY(read_bytes(file, out, bytes * take, checkpoint->place[part][i] + bytes * skip));
        out = (char *)out + bytes * take, first += take, count -= take;
    }
    CHECK(count == 0);
    return 0;
}

static int verify_file(const struct checkpoint *checkpoint, const char *name, const uint8_t told[SHA256_BYTES]) {
    uint8_t real[SHA256_BYTES];
    char *path = inside(checkpoint, name);
    int code = sha256_of_file(real, path);
    if (code == 0 && memcmp(real, told, SHA256_BYTES) != 0)
        code = err_set(ERR_CORRUPT, "%s: digest differs from trainer_state.json; the file is damaged: use the checkpoint before it", path);
    free(path);
    return code;
}

int checkpoint_verify(const struct checkpoint *checkpoint) {
    struct trainer_record record = {0};
    TRY(read_record(&record, checkpoint));
    for (size_t i = 0; i < record.small_files; i++) TRY(verify_file(checkpoint, record.small_file[i].name, record.small_file[i].sha256));
    TRY(verify_file(checkpoint, "model.safetensors", record.state.weights_sha256));
    if (record.state.has_optimizer) {
        TRY(verify_file(checkpoint, "optimizer.safetensors", record.state.optimizer_sha256));
        TRY(check_side(&checkpoint->optimizer));
    }
    if (record.state.has_ema) {
        TRY(verify_file(checkpoint, "model.ema.safetensors", record.state.ema_sha256));
        TRY(check_side(&checkpoint->ema));
    }
    return 0;
}

void checkpoint_close(struct checkpoint *checkpoint) {
    if (!checkpoint) return;
    safetensors_close(checkpoint->weights);
    safetensors_close(checkpoint->optimizer.file);
    safetensors_close(checkpoint->ema.file);
    for (int part = 0; part < STATE_PARTS; part++) free(checkpoint->place[part]);
    free(checkpoint->tensor);
    free(checkpoint->optimizer.fault);
    free(checkpoint->ema.fault);
    free(checkpoint->folder);
    free(checkpoint);
}
