/* Reading a checkpoint folder, our own or a foreign one. checkpoint_open() finds every tensor of the configured shape by its name and keeps
 * where it is (struct tensor_place); checkpoint_read() reads pieces of the flat vector through that map. No values are kept in memory.
 * Reading and verifying change nothing in struct checkpoint, so several threads may do so at once. */
#include "model/checkpoint/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "model/checkpoint/checkpoint_record.h"
#include "model/checkpoint/hf_config.h"
#include "model/checkpoint/tensor_map.h"

enum { CONFIG_BYTES_MAX = 1 << 20 };

/* A file beside the weights, which are of use without it: an error in it is kept, and returned when what it holds is read. */
struct side {
    struct tensor_map *file; /* NULL when absent, damaged, or not named by the record; fault says which */
    int code;
    char *fault;
};

static const char OPTIMIZER_NAME[] = "optimizer.safetensors", EMA_NAME[] = "model.ema.safetensors";
static const char OPTIMIZER_WANTED[] =
    "training.optim asks for: set it to sgd with training.sgd_momentum 0, or choose another output_dir";
static const char EMA_WANTED[] = "training.ema_decay asks for: set it to 0, or choose another output_dir";

/* Where a tensor of the model is. */
struct tensor_place {
    const struct safetensors *file;
    uint64_t offset; /* in it */
    const char *dtype;
};

struct checkpoint {
    char *folder;
    const char *weights_name; /* of the file that the weights are taken from */
    struct gpt2_config config;
    size_t tensors, elements;
    struct gpt2_tensor *tensor;
    struct tensor_map *weights;
    struct side optimizer, ema;
    struct tensor_place *place[STATE_PARTS]; /* of each tensor; NULL for a part that is not there */
};

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

/* The tensor named `before` NAME. */
static const struct mapped_tensor *find(const struct tensor_map *map, const char *before, const char *name) {
    char full[SAFETENSORS_NAME_MAX];
    snprintf(full, sizeof full, "%s%s", before, name);
    return tensor_map_find(map, full);
}

static bool is_one_of(const char *dtype, const char *const *dtypes) {
    while (*dtypes && strcmp(*dtypes, dtype) != 0) dtypes++;
    return *dtypes != NULL;
}

/* dtypes ends with NULL. */
static int check_tensor(const struct tensor_map *map, const struct mapped_tensor *found, const struct gpt2_tensor *tensor,
                        const char *const *dtypes) {
    if (!found) return err_set(ERR_CORRUPT, "%s: tensor %s is missing; config.json speaks of another model", map->path, tensor->name);
    const char *path = found->file->path;
    const struct safetensors_entry *entry = found->entry;
    if (!is_one_of(entry->dtype, dtypes))
        return err_set(ERR_UNSUPPORTED, "%s: tensor %s is %s; only %s can be read%s", path, entry->name, entry->dtype,
                       dtypes[1] ? "F32, BF16 and F16" : dtypes[0], dtypes[1] ? ": save the model as float32" : "");
    bool same = entry->rank == tensor->rank;
    for (int d = 0; same && d < entry->rank; d++) same = entry->shape[d] == tensor->shape[d];
    if (!same) return err_set(ERR_CORRUPT, "%s: tensor %s has another shape than config.json says", path, entry->name);
    return 0;
}

static int map_part(struct checkpoint *checkpoint, enum state_part part, const struct tensor_map *map, const char *before,
                    const char *const *dtypes) {
    TRY(mem_try(&checkpoint->place[part], checkpoint->tensors, sizeof(struct tensor_place)));
    for (size_t i = 0; i < checkpoint->tensors; i++) {
        const struct mapped_tensor *found = find(map, before, checkpoint->tensor[i].name);
        TRY(check_tensor(map, found, &checkpoint->tensor[i], dtypes));
        checkpoint->place[part][i] =
            (struct tensor_place){found->file, found->file->data_offset + found->entry->offset, found->entry->dtype};
    }
    return 0;
}

static const char *const weight_types[] = {"F32", "BF16", "F16", NULL};

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* Mask buffers and the tied head hold nothing new. */
static bool is_left_out(const char *name) {
    return strcmp(name, "lm_head.weight") == 0 || ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias");
}

/* A tensor that GPT2LMHeadModel does not have would silently not be computed. Those that it has are all there: map_part() was first. */
static int refuse_others(const struct checkpoint *checkpoint) {
    const struct tensor_map *map = checkpoint->weights;
    bool *known;
    TRY(mem_try(&known, map->tensors, sizeof *known));
    for (size_t t = 0; t < checkpoint->tensors; t++) known[tensor_map_find(map, checkpoint->tensor[t].name) - map->tensor] = true;
    size_t i = 0;
    while (i < map->tensors && (known[i] || is_left_out(map->tensor[i].name))) i++;
    free(known);
    if (i == map->tensors) return 0;
    return err_set(ERR_UNSUPPORTED, "%s: tensor %s is not part of the GPT-2 of config.json", map->tensor[i].file->path,
                   map->tensor[i].entry->name);
}

static int open_weights(struct checkpoint *checkpoint) {
    char *path = inside(checkpoint, checkpoint->weights_name);
    int code = tensor_map_open(&checkpoint->weights, path);
    free(path);
    TRY(code);
    checkpoint->tensors = gpt2_tensor_count(&checkpoint->config);
    TRY(mem_try(&checkpoint->tensor, checkpoint->tensors, sizeof *checkpoint->tensor));
    checkpoint->tensors = gpt2_tensors(checkpoint->tensor, &checkpoint->config);
    checkpoint->elements = gpt2_parameters(&checkpoint->config);
    TRY(map_part(checkpoint, STATE_WEIGHTS, checkpoint->weights, "", weight_types));
    return refuse_others(checkpoint);
}

/* The tensors' names depend on how many moments there are (state_prefix()). */
static int map_moments(struct checkpoint *checkpoint, const struct tensor_map *map) {
    size_t moments = find(map, state_prefix(STATE_MOMENT1, 1), checkpoint->tensor[0].name) ? 1 : 2;
    const char *first = state_prefix(STATE_MOMENT1, moments);
    const struct mapped_tensor *found = find(map, first, checkpoint->tensor[0].name);
    const char *const dtypes[] = {found && strcmp(found->entry->dtype, "BF16") == 0 ? "BF16" : "F32", NULL}; /* of all moments */
    TRY(map_part(checkpoint, STATE_MOMENT1, map, first, dtypes));
    return moments == 2 ? map_part(checkpoint, STATE_MOMENT2, map, state_prefix(STATE_MOMENT2, moments), dtypes) : 0;
}

static int map_ema(struct checkpoint *checkpoint, const struct tensor_map *map) {
    return map_part(checkpoint, STATE_EMA, map, "", weight_types);
}

/* named: by the record, or there is no record. Nothing was verified of a file that it does not name. */
static void open_side(struct side *side, struct checkpoint *checkpoint, const char *name, bool named, const char *wanted,
                      int (*map)(struct checkpoint *, const struct tensor_map *)) {
    char *path = inside(checkpoint, name);
    bool there = file_exists(path);
    if (!there) side->code = err_set(ERR_NOTFOUND, "%s has no %s, which %s", checkpoint->folder, name, wanted);
    else if (!named) side->code = err_set(ERR_NOTFOUND, "%s is not one of the checkpoint's files, and is what %s", path, wanted);
    else side->code = tensor_map_open(&side->file, path);
    if (side->code == 0) side->code = map(checkpoint, side->file);
    side->fault = mem_text(side->code < 0 ? err_text() : "");
    free(path);
}

static int check_side(const struct side *side) { return side->code < 0 ? err_set(side->code, "%s", side->fault) : 0; }

/* NULL: none, the part is in the weights' own file. */
static const struct side *side_of(const struct checkpoint *checkpoint, enum state_part part) {
    switch (part) {
    case STATE_WEIGHTS: return NULL;
    case STATE_MOMENT1:
    case STATE_MOMENT2: return &checkpoint->optimizer;
    case STATE_EMA: return &checkpoint->ema;
    case STATE_PARTS: break;
    }
    CHECK(!"no part of a state");
    return NULL;
}

/* What to do about weights in a form that only Python reads. */
static int refuse_pickle(const char *folder) {
    return err_set(ERR_UNSUPPORTED,
                   "%s holds its weights as PyTorch's pickles, which are programs and not read here; this makes a model.safetensors beside "
                   "them: python3 -c 'import sys; from transformers import GPT2LMHeadModel as M; "
                   "M.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])' '%s'",
                   folder, folder);
}

static const char *const weights_names[] = {"model.safetensors", "model.safetensors.index.json", EMA_NAME};

/* In a folder: one file, else several, else an error. */
static int choose_weights(struct checkpoint *checkpoint) {
    static const char *const pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    bool there = false, pickled = false;
    for (size_t i = 0; i < 2 && !there; i++) {
        char *path = inside(checkpoint, weights_names[i]), *other = inside(checkpoint, pickles[i]);
        if ((there = file_exists(path))) checkpoint->weights_name = weights_names[i];
        pickled = pickled || file_exists(other);
        free(path);
        free(other);
    }
    return !there && pickled ? refuse_pickle(checkpoint->folder) : 0;
}

static int split_path(struct checkpoint *checkpoint, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return err_errno("checkpoint %s", path);
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    checkpoint->weights_name = weights_names[0];
    if (S_ISDIR(st.st_mode)) {
        checkpoint->folder = mem_text(path);
        return choose_weights(checkpoint);
    }
    checkpoint->folder = slash ? mem_format("%.*s", (int)(slash - path) + (slash == path), path) : mem_text(".");
    for (size_t i = 0; i < sizeof weights_names / sizeof *weights_names; i++) {
        if (strcmp(name, weights_names[i]) != 0) continue;
        checkpoint->weights_name = weights_names[i];
        return 0;
    }
    if (ends_with(name, ".bin") || ends_with(name, ".pt") || ends_with(name, ".pth")) return refuse_pickle(checkpoint->folder);
    return err_set(ERR_UNSUPPORTED, "%s: a checkpoint is a folder, or the %s, %s or %s in it", path, weights_names[0], weights_names[1],
                   weights_names[2]);
}

static int read_record_named(struct checkpoint_record *out, const struct checkpoint *checkpoint, const char *name) {
    struct buf text = {0};
    char *path = inside(checkpoint, name);
    int code = file_read(&text, path, CHECKPOINT_RECORD_BYTES_MAX);
    if (code == 0) code = checkpoint_record_parse(out, path, (const char *)text.data, text.size);
    buf_free(&text);
    free(path);
    return code;
}

/* ERR_NOTFOUND in foreign ones. Nobody else has a file of our record's name; Hugging Face's own trainer_state.json may be longer than the
 * first release's can be. */
static int read_record(struct checkpoint_record *out, const struct checkpoint *checkpoint) {
    char *path = inside(checkpoint, CHECKPOINT_RECORD_NAME);
    bool named = file_exists(path);
    free(path);
    int code = read_record_named(out, checkpoint, named ? CHECKPOINT_RECORD_NAME : CHECKPOINT_RECORD_NAME_FIRST);
    if (named) return code == ERR_NOTFOUND || code == ERR_LIMIT ? err_add(ERR_CORRUPT, "a record that is none") : code;
    return code == ERR_LIMIT ? err_set(ERR_NOTFOUND, "%s was not written by this program", checkpoint->folder) : code;
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
    struct checkpoint_record record;
    bool recorded = read_record(&record, checkpoint) == 0; /* a damaged one verifies nothing: checkpoint_verify() says so */
    open_side(&checkpoint->optimizer, checkpoint, OPTIMIZER_NAME, !recorded || record.facts.has_optimizer, OPTIMIZER_WANTED, map_moments);
    open_side(&checkpoint->ema, checkpoint, EMA_NAME, !recorded || record.facts.has_ema, EMA_WANTED, map_ema);
    *out = checkpoint;
    return 0;
}

const struct gpt2_config *checkpoint_config(const struct checkpoint *checkpoint) { return &checkpoint->config; }

int checkpoint_generation(const struct checkpoint *checkpoint, struct hf_generation *out) {
    static const char *const names[] = {"config.json", "generation_config.json"};
    struct hf_generation generation = HF_GENERATION_NONE;
    int code = 0;
    for (int i = 0; i < 2 && code == 0; i++) {
        struct buf text = {0};
        char *path = inside(checkpoint, names[i]);
        code = file_read(&text, path, CONFIG_BYTES_MAX);
        if (code == 0)
            code = hf_parse_generation(&generation, path, (const char *)text.data, text.size, checkpoint->config.vocab_size, i == 0);
        else if (code == ERR_NOTFOUND) code = 0;
        buf_free(&text);
        free(path);
    }
    if (code == 0) *out = generation;
    return code;
}

int checkpoint_facts(const struct checkpoint *checkpoint, struct checkpoint_facts *out) {
    struct checkpoint_record record;
    TRY(read_record(&record, checkpoint));
    *out = record.facts;
    return 0;
}

static int read_bytes(const struct safetensors *file, void *out, size_t size_bytes, uint64_t offset) {
    size_t got;
    int code = file_read_at(file->fd, out, &got, size_bytes, offset);
    if (code < 0) return err_add(code, "%s", file->path);
    if (got != size_bytes) return err_set(ERR_CORRUPT, "%s became shorter while it was read", file->path);
    return 0;
}

/* IEEE 754 binary16: 1 sign, 5 exponent, 10 fraction bits. */
static float float_of_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023, bits;
    if (exponent == 0) { /* fraction * 2^-24, exactly */
        float value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    bits = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* `count` elements of a tensor from its element `skip` on, widened. */
static int read_narrow(const struct tensor_place *place, float *out, size_t skip, size_t count) {
    enum { ELEMENTS = 4096 };
    uint16_t narrow[ELEMENTS];
    bool half = strcmp(place->dtype, "F16") == 0;
    for (size_t done = 0, n; done < count; done += n) {
        n = count - done < ELEMENTS ? count - done : ELEMENTS;
        TRY(read_bytes(place->file, narrow, n * sizeof *narrow, place->offset + (skip + done) * sizeof *narrow));
        for (size_t i = 0; i < n; i++) {
            uint32_t bits = (uint32_t)narrow[i] << 16;
            if (half) out[done + i] = float_of_half(narrow[i]);
            else memcpy(&out[done + i], &bits, sizeof bits);
        }
    }
    return 0;
}

int checkpoint_read(const struct checkpoint *checkpoint, float *out, enum state_part part, size_t first, size_t count) {
    return checkpoint_read_state(checkpoint, out, &(struct state_parts){0}, part, first, count);
}

int checkpoint_read_state(const struct checkpoint *checkpoint, void *out, const struct state_parts *parts, enum state_part part,
                          size_t first, size_t count) {
    CHECK((int)part >= 0 && part < STATE_PARTS);
    CHECK(first <= checkpoint->elements && count <= checkpoint->elements - first);
    const struct side *side = side_of(checkpoint, part);
    if (side) TRY(check_side(side));
    if (!checkpoint->place[part])
        return err_set(ERR_NOTFOUND, "%s/%s does not hold all that training.optim asks for: set that to what it was, or choose another "
                       "output_dir", checkpoint->folder, OPTIMIZER_NAME);
    bool widen = !state_is_moment(part); /* a run's results follow from the moments' type, too */
    const char *dtype = checkpoint->place[part][0].dtype, *wanted = state_dtype(parts, part);
    if (!widen && strcmp(dtype, wanted) != 0)
        return err_set(ERR_UNSUPPORTED, "%s holds %s where training.optim_state asks for %s: set it to %s, or choose another output_dir",
                       checkpoint->place[part][0].file->path, dtype, wanted, strcmp(dtype, "F32") == 0 ? "fp32" : "bf16");
    size_t bytes = state_element_bytes(parts, part);
    for (size_t i = 0; i < checkpoint->tensors && count > 0; i++) {
        const struct gpt2_tensor *tensor = &checkpoint->tensor[i];
        const struct tensor_place *place = &checkpoint->place[part][i];
        if (first >= tensor->offset + tensor->size) continue;
        size_t skip = first - tensor->offset, take = tensor->size - skip < count ? tensor->size - skip : count;
        if (widen && strcmp(place->dtype, "F32") != 0) TRY(read_narrow(place, out, skip, take));
        else TRY(read_bytes(place->file, out, bytes * take, place->offset + bytes * skip));
        out = (char *)out + bytes * take, first += take, count -= take;
    }
    CHECK(count == 0);
    return 0;
}

static int verify_file(const struct checkpoint *checkpoint, const char *name, const uint8_t told[SHA256_BYTES], const char *remedy) {
    uint8_t real[SHA256_BYTES];
    char *path = inside(checkpoint, name);
    int code = sha256_of_file(real, path);
    if (code == 0 && memcmp(real, told, SHA256_BYTES) != 0)
        code = err_set(ERR_CORRUPT, "%s: digest differs from the checkpoint's record; %s", path, remedy);
    free(path);
    return code;
}

static const char DAMAGED[] = "the file is damaged: use the checkpoint before it";
static const char CHANGED[] = "it is damaged, or was changed since; to use it as it is, copy the folder without " CHECKPOINT_RECORD_NAME;

static int verify_small_files(const struct checkpoint *checkpoint, const struct checkpoint_record *record) {
    for (size_t i = 0; i < record->small_files; i++)
        TRY(verify_file(checkpoint, record->small_file[i].name, record->small_file[i].sha256, CHANGED));
    return 0;
}

/* checkpoint_add_evaluation() puts another folder under the same name. If that happened while files were verified, some were of the one and
 * some of the other folder, so an error means nothing, and they are verified again. checkpoint_open() needs none of that: the files that it
 * keeps open are the same in both. */
static int verify_as_it_is(const struct checkpoint *checkpoint, int (*verify)(const struct checkpoint *)) {
    enum { TRIES_MAX = 5 }; /* a checkpoint gets a late evaluation once, so the second try is enough */
    for (int tries = 1;; tries++) {
        struct stat before, after;
        bool there = stat(checkpoint->folder, &before) == 0;
        int code = verify(checkpoint);
        if (code == 0 || tries == TRIES_MAX || !there) return code;
        if (stat(checkpoint->folder, &after) != 0 || before.st_ino == after.st_ino) return code;
    }
}

static int verify_all(const struct checkpoint *checkpoint) {
    struct checkpoint_record record = {0};
    TRY(read_record(&record, checkpoint));
    TRY(verify_small_files(checkpoint, &record));
    TRY(verify_file(checkpoint, "model.safetensors", record.facts.weights_sha256, DAMAGED));
    if (record.facts.has_optimizer) {
        TRY(verify_file(checkpoint, OPTIMIZER_NAME, record.facts.optimizer_sha256, DAMAGED));
        TRY(check_side(&checkpoint->optimizer));
    }
    if (record.facts.has_ema) {
        TRY(verify_file(checkpoint, EMA_NAME, record.facts.ema_sha256, DAMAGED));
        TRY(check_side(&checkpoint->ema));
    }
    return 0;
}

int checkpoint_verify(const struct checkpoint *checkpoint) { return verify_as_it_is(checkpoint, verify_all); }

static int verify_model(const struct checkpoint *checkpoint) {
    struct checkpoint_record record = {0};
    int code = read_record(&record, checkpoint);
    if (code == ERR_NOTFOUND) return 0;
    if (code == 0) code = verify_small_files(checkpoint, &record);
    if (code < 0) return code;
    bool average = strcmp(checkpoint->weights_name, EMA_NAME) == 0;
    if (average && !record.facts.has_ema)
        return err_set(ERR_CORRUPT, "%s/%s is not one of the checkpoint's files", checkpoint->folder, checkpoint->weights_name);
    return verify_file(checkpoint, checkpoint->weights_name, average ? record.facts.ema_sha256 : record.facts.weights_sha256, CHANGED);
}

int checkpoint_verify_model(const struct checkpoint *checkpoint) { return verify_as_it_is(checkpoint, verify_model); }

void checkpoint_close(struct checkpoint *checkpoint) {
    if (!checkpoint) return;
    tensor_map_close(checkpoint->weights);
    tensor_map_close(checkpoint->optimizer.file);
    tensor_map_close(checkpoint->ema.file);
    for (int part = 0; part < STATE_PARTS; part++) free(checkpoint->place[part]);
    free(checkpoint->tensor);
    free(checkpoint->optimizer.fault);
    free(checkpoint->ema.fault);
    free(checkpoint->folder);
    free(checkpoint);
}
