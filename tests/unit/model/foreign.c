/* Checkpoints that others wrote: read by the names of their tensors, in one file or several, or refused by name. */
#include "model/checkpoint/checkpoint.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "model/checkpoint/hf_config.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/tensor_map.h"
#include "tests/unit/model/small_model.h"

static char folder[64];

static int enter(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/millrace-foreign-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int leave(void **state) {
    (void)state;
    return folder_remove(folder);
}

static char *path_in(const char *name) { return mem_format("%s/%s", folder, name); }

static size_t lookups; /* of a tensor by its name */

const struct mapped_tensor *__real_tensor_map_find(const struct tensor_map *map, const char *name);
const struct mapped_tensor *__wrap_tensor_map_find(const struct tensor_map *map, const char *name);
const struct mapped_tensor *__wrap_tensor_map_find(const struct tensor_map *map, const char *name) {
    lookups++;
    return __real_tensor_map_find(map, name);
}

/* ---- foreign folders ---- */

/* A folder with a config.json and a model.safetensors whose tensors stand in reverse order, named as old GPT-2 files do. */
struct foreign {
    const char *config;   /* NULL: that of small_config() */
    const char *dtype;    /* of the third tensor */
    const char *extra;    /* name of one more tensor; NULL: none */
    const char *left_out; /* name of a tensor that is missing */
    uint64_t cut, shift;  /* bytes missing at the end; bytes that the first offsets are moved by */
    bool wrong_shape;
};

static const char FOREIGN_CONFIG[] =
    "{\"model_type\": \"gpt2\", \"vocab_size\": 61, \"n_ctx\": 24, \"n_positions\": 24, \"n_embd\": 32, \"n_layer\": 3, "
    "\"n_head\": 4, \"n_inner\": 80, \"eos_token_id\": 50256}";

static int open_foreign(struct checkpoint **out, struct foreign f) {
    struct gpt2_config config = small_config();
    struct gpt2_tensor tensors[64];
    struct safetensors_entry entries[64] = {0};
    size_t count = gpt2_tensors(tensors, &config), used = 0, at = f.shift;
    float *data = mem_alloc(gpt2_parameters(&config) * sizeof *data + 64);
    for (size_t i = count; i-- > 0;) {
        const char *name = tensors[i].name + strlen("transformer.");
        if (f.left_out && strcmp(f.left_out, name) == 0) continue;
        struct safetensors_entry *e = &entries[used++];
        snprintf(e->name, sizeof e->name, "%s", name);
        snprintf(e->dtype, sizeof e->dtype, "%s", used == 3 && f.dtype ? f.dtype : "F32");
        e->rank = tensors[i].rank, e->offset = at, e->size_bytes = sizeof(float) * tensors[i].size;
        for (int d = 0; d < e->rank; d++) e->shape[d] = tensors[i].shape[d];
        if (f.wrong_shape && e->rank == 2) e->shape[0] = tensors[i].shape[1], e->shape[1] = tensors[i].shape[0];
        for (size_t j = 0; j < tensors[i].size; j++) data[(at - f.shift) / sizeof(float) + j] = (float)(tensors[i].offset + j);
        at += e->size_bytes;
    }
    if (f.extra) {
        struct safetensors_entry *e = &entries[used++];
        *e = (struct safetensors_entry){.dtype = "U8", .rank = 1, .shape = {16}, .offset = at, .size_bytes = 16};
        snprintf(e->name, sizeof e->name, "%s", f.extra);
        at += 16;
    }
    struct buf file = {0};
    assert_int_equal(safetensors_print_header(&file, entries, used), 0);
    assert_int_equal(buf_append(&file, data, at - f.shift), 0);
    char *weights = path_in("model.safetensors"), *config_path = path_in("config.json");
    const char *text = f.config ? f.config : FOREIGN_CONFIG;
    assert_int_equal(file_publish(weights, file.data, file.size - f.cut), 0);
    assert_int_equal(file_publish(config_path, text, strlen(text)), 0);
    int code = checkpoint_open(out, folder);
    buf_free(&file);
    free(weights), free(config_path), free(data);
    return code;
}

static void foreign_weights_are_read_by_name(void **unused) {
    (void)unused;
    struct gpt2_config config = small_config();
    size_t count = gpt2_parameters(&config);
    float *values = mem_alloc(count * sizeof *values);
    static const char *const extras[] = {NULL, "h.0.attn.bias", "h.1.attn.masked_bias", "lm_head.weight"};
    for (size_t e = 0; e < 4; e++) {
        struct checkpoint *checkpoint;
        struct checkpoint_facts facts;
        if (open_foreign(&checkpoint, (struct foreign){.extra = extras[e]}) < 0) fail_msg("%s", err_text());
        assert_int_equal(checkpoint_read(checkpoint, values, STATE_WEIGHTS, 0, count), 0);
        for (size_t i = 0; i < count; i++)
            if (values[i] != (float)i) fail_msg("element %zu is %g", i, (double)values[i]);
        assert_int_equal(checkpoint_config(checkpoint)->eos_token_id, -1); /* not in its vocabulary */
        assert_int_equal(checkpoint_facts(checkpoint, &facts), ERR_NOTFOUND);
        assert_int_equal(checkpoint_read(checkpoint, values, STATE_MOMENT1, 0, 1), ERR_NOTFOUND);
        char *trainer = path_in("trainer_state.json");
        static const char theirs[] = "{\"global_step\": 500, \"log_history\": []}";
        assert_int_equal(file_publish(trainer, theirs, sizeof theirs - 1), 0);
        assert_int_equal(checkpoint_facts(checkpoint, &facts), ERR_NOTFOUND);
        assert_int_equal(unlink(trainer), 0);
        free(trainer);
        checkpoint_close(checkpoint);
    }
    free(values);
}

static void foreign_weights_that_do_not_fit_are_refused_by_name(void **unused) {
    (void)unused;
    static const struct {
        struct foreign f;
        int code;
        const char *word;
    } cases[] = {
        {{.dtype = "F16"}, ERR_CORRUPT, "shape"}, /* F16 with the bytes of F32 */
        {{.dtype = "I32"}, ERR_UNSUPPORTED, "I32"},
        {{.extra = "h.0.crossattention.c_attn.bias"}, ERR_UNSUPPORTED, "crossattention"},
        {{.extra = "h.3.ln_1.bias"}, ERR_UNSUPPORTED, "h.3.ln_1.bias"},
        {{.extra = "transformer.h.1.ln_1.bias"}, ERR_CORRUPT, "are the same one"},
        {{.left_out = "h.1.mlp.c_fc.bias"}, ERR_CORRUPT, "h.1.mlp.c_fc.bias"},
        {{.wrong_shape = true}, ERR_CORRUPT, "shape"},
        {{.cut = 1}, ERR_CORRUPT, "outside the file"},
        {{.shift = 4}, ERR_CORRUPT, "outside the file"},
        {{.config = "{\"vocab_size\": 61"}, ERR_CORRUPT, "config.json"},
        {{.config = "{\"n_embd\": 0}"}, ERR_CORRUPT, "n_embd"},
        {{.config = "{\"n_embd\": 30, \"n_head\": 4}"}, ERR_CORRUPT, "n_head"},
        {{.config = "{\"activation_function\": \"relu\"}"}, ERR_UNSUPPORTED, "relu"},
        {{.config = "{\"scale_attn_by_inverse_layer_idx\": true}"}, ERR_UNSUPPORTED, "scale_attn_by_inverse_layer_idx"},
        {{.config = "{\"tie_word_embeddings\": false}"}, ERR_UNSUPPORTED, "tie_word_embeddings"},
        {{.config = "{\"model_type\": \"llama\"}"}, ERR_UNSUPPORTED, "llama"},
        {{.config = "{\"n_layer\": 2}"}, ERR_CORRUPT, ""}, /* the defaults are GPT-2 small's */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct checkpoint *checkpoint;
        int code = open_foreign(&checkpoint, cases[i].f);
        if (code != cases[i].code || !strstr(err_text(), cases[i].word)) fail_msg("case %zu: %d, %s", i, code, err_text());
    }
    struct checkpoint *checkpoint;
    assert_int_equal(checkpoint_open(&checkpoint, "/nowhere/checkpoint-1"), ERR_NOTFOUND);
    char *path = path_in("config.json");
    assert_int_equal(checkpoint_open(&checkpoint, path), ERR_UNSUPPORTED);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(checkpoint_open(&checkpoint, folder), ERR_NOTFOUND);
    free(path);
}

/* A checkpoint is what anybody can give: opening it takes no time that grows with the square of its tensors. */
static void a_tensor_is_looked_up_a_few_times_however_many_there_are(void **unused) {
    (void)unused;
    struct gpt2_config config = small_config();
    struct checkpoint *checkpoint;
    lookups = 0;
    if (open_foreign(&checkpoint, (struct foreign){.extra = "lm_head.weight"}) < 0) fail_msg("%s", err_text());
    checkpoint_close(checkpoint);
    size_t tensors = gpt2_tensor_count(&config);
    if (lookups < tensors || lookups > 3 * tensors) fail_msg("%zu times for %zu tensors", lookups, tensors);
}

static int open_header(const char *header, uint64_t told_bytes, size_t data_bytes) {
    struct buf file = {0};
    struct safetensors *st;
    char *path = path_in("x.safetensors"), zeros[64] = {0};
    assert_int_equal(buf_append(&file, &told_bytes, 8) + buf_append(&file, header, strlen(header)) + buf_append(&file, zeros, data_bytes),
                     0);
    assert_int_equal(file_publish(path, file.data, file.size), 0);
    int code = safetensors_open(&st, path);
    if (code == 0) safetensors_close(st);
    buf_free(&file);
    free(path);
    return code;
}

static void a_header_that_lies_is_refused(void **unused) {
    (void)unused;
    static const struct {
        const char *header;
        size_t data_bytes;
        int code;
    } cases[] = {
        {"{}", 0, 0},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[8,12]}}",
         12, 0},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
         12, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, ERR_CORRUPT}, /* a hole */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, ERR_CORRUPT},   /* a tail */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[8,0]}}", 8, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, ERR_CORRUPT},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,6]}}", 6, ERR_CORRUPT},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, ERR_CORRUPT},
        {"{\"a\":7}", 0, ERR_CORRUPT},
        {"[]", 0, ERR_CORRUPT},
        {"{\"a\":", 0, ERR_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = open_header(cases[i].header, strlen(cases[i].header), cases[i].data_bytes);
        if (code != cases[i].code) fail_msg("case %zu: %d, %s", i, code, code ? err_text() : "accepted");
    }
    assert_int_equal(open_header("{}", 3, 0), ERR_CORRUPT);
    assert_int_equal(open_header("{}", UINT64_MAX, 0), ERR_CORRUPT);
    assert_int_equal(open_header("{}", 1, 0), ERR_CORRUPT);
    char *path = path_in("x.safetensors");
    uint64_t told = SAFETENSORS_HEADER_MAX + 1;
    struct safetensors *st;
    assert_int_equal(file_publish(path, &told, sizeof told), 0);
    assert_int_equal(truncate(path, 200 * 1000 * 1000), 0); /* sparse */
    assert_int_equal(safetensors_open(&st, path), ERR_LIMIT);
    free(path);
}

static int ends_of(struct hf_generation *out, const char *name, const char *text) {
    assert_int_equal(hf_parse_generation(out, name, text, strlen(text), small_config().vocab_size, *name == 'c'), 0);
    return out->ends == 1 ? out->end[0] : -1;
}

static void what_ends_a_text_is_what_the_later_file_says(void **unused) {
    (void)unused;
    struct hf_generation asked = HF_GENERATION_NONE;
    assert_int_equal(ends_of(&asked, "config.json", "{\"eos_token_id\": 5}"), 5);
    assert_int_equal(ends_of(&asked, "generation_config.json", "{}"), 5);
    assert_int_equal(ends_of(&asked, "generation_config.json", "{\"eos_token_id\": [7]}"), 7);
}

/* ---- other types, several files, prefixes ---- */

/* Any float as binary16, rounded towards zero; for the test's own values that is exact. */
static uint16_t half_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000;
    int exponent = (int)(bits >> 23 & 255) - 112;
    uint32_t fraction = bits & 0x7fffff;
    if (exponent >= 31) return (uint16_t)(sign | 0x7c00 | (isnan(value) ? 1 : 0));
    if (exponent > 0) return (uint16_t)(sign | (uint32_t)exponent << 10 | fraction >> 13);
    if (exponent < -10) return (uint16_t)sign;
    return (uint16_t)(sign | (fraction | 0x800000) >> (14 - exponent));
}

/* A value that the type holds exactly; among them the smallest ones, 0, -0 and infinity. */
static float exact_value(const char *dtype, size_t i) {
    static const float special[] = {0, -0.0f, 0x1p-24f, -0x1.8p-15f, 65504, INFINITY, -INFINITY, 0x1p-14f};
    if (i < sizeof special / sizeof *special) {
        float value = special[i];
        if (strcmp(dtype, "BF16") == 0 && value == 65504) value = 65280;
        return value;
    }
    return (float)(i % 127) * (i % 2 ? -0.0625f : 1);
}

static size_t put_value(char *out, const char *dtype, float value) {
    uint16_t half = half_of(value);
    if (strcmp(dtype, "F16") == 0) return memcpy(out, &half, sizeof half), sizeof half;
    if (strcmp(dtype, "BF16") == 0) return memcpy(out, (char *)&value + 2, 2), 2;
    return memcpy(out, &value, sizeof value), sizeof value;
}

/* Tensors first, first + step, ... of the small model in one file; tensor i has type types[i % 3]. */
static void write_tensors(const char *name, const char *prefix, const char *const types[3], size_t first, size_t step) {
    struct gpt2_config config = small_config();
    struct gpt2_tensor tensors[64];
    struct safetensors_entry entries[64] = {0};
    size_t count = gpt2_tensors(tensors, &config), used = 0, at = 0;
    char *data = mem_alloc(gpt2_parameters(&config) * sizeof(float));
    for (size_t i = first; i < count; i += step) {
        struct safetensors_entry *e = &entries[used++];
        const char *dtype = types[i % 3];
        snprintf(e->name, sizeof e->name, "%s%s", prefix, tensors[i].name + (*prefix ? strlen("transformer.") : 0));
        snprintf(e->dtype, sizeof e->dtype, "%s", dtype);
        e->rank = tensors[i].rank, e->offset = at;
        for (int d = 0; d < e->rank; d++) e->shape[d] = tensors[i].shape[d];
        for (size_t j = 0; j < tensors[i].size; j++) at += put_value(data + at, dtype, exact_value(dtype, j));
        e->size_bytes = at - e->offset;
    }
    struct buf file = {0};
    char *path = path_in(name), *config_path = path_in("config.json");
    assert_int_equal(safetensors_print_header(&file, entries, used), 0);
    assert_int_equal(buf_append(&file, data, at), 0);
    assert_int_equal(file_publish(path, file.data, file.size), 0);
    assert_int_equal(file_publish(config_path, FOREIGN_CONFIG, strlen(FOREIGN_CONFIG)), 0);
    buf_free(&file);
    free(path), free(config_path), free(data);
}

/* Every element, read in pieces of random sizes. */
static void assert_values(const char *path, const char *const types[3], struct random *random) {
    struct gpt2_config config = small_config();
    struct gpt2_tensor tensors[64];
    size_t tensor_count = gpt2_tensors(tensors, &config), count = gpt2_parameters(&config);
    float *values = mem_alloc(count * sizeof *values);
    struct checkpoint *checkpoint;
    if (checkpoint_open(&checkpoint, path) < 0) fail_msg("%s", err_text());
    for (size_t first = 0, n; first < count; first += n) {
        n = random_in(random, 1, 9000);
        if (n > count - first) n = count - first;
        assert_int_equal(checkpoint_read(checkpoint, values + first, STATE_WEIGHTS, first, n), 0);
    }
    for (size_t t = 0; t < tensor_count; t++)
        for (size_t j = 0; j < tensors[t].size; j++) {
            float wanted = exact_value(types[t % 3], j);
            if (memcmp(&values[tensors[t].offset + j], &wanted, sizeof wanted) != 0)
                fail_msg("seed %llu: %s, element %zu is %a, not %a", (unsigned long long)random->seed, tensors[t].name, j,
                         (double)values[tensors[t].offset + j], (double)wanted);
        }
    assert_int_equal(checkpoint_verify_model(checkpoint), 0); /* there is nothing to compare with */
    checkpoint_close(checkpoint);
    free(values);
}

static void narrow_types_are_read_exactly(void **unused) {
    (void)unused;
    struct random random = random_open("narrow_types_are_read_exactly");
    static const char *const types[][3] = {{"F16", "F16", "F16"}, {"BF16", "BF16", "BF16"}, {"F32", "BF16", "F16"}};
    for (size_t i = 0; i < 3; i++) {
        write_tensors("model.safetensors", "", types[i], 0, 1);
        assert_values(folder, types[i], &random);
    }
}

static void prefixes_of_wrappers_do_not_matter(void **unused) {
    (void)unused;
    struct random random = random_open("prefixes_of_wrappers_do_not_matter");
    static const char *const types[3] = {"F32", "F32", "F32"};
    static const char *const prefixes[] = {"module.transformer.", "_orig_mod.transformer.", "transformer.", "module._orig_mod.",
                                           "_orig_mod.module.transformer.", "transformer._orig_mod."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        write_tensors("model.safetensors", prefixes[i], types, 0, 1);
        assert_values(folder, types, &random);
    }
    struct checkpoint *checkpoint;
    write_tensors("model.safetensors", "model.other.", types, 0, 1);
    assert_int_equal(checkpoint_open(&checkpoint, folder), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "wte.weight is missing"));
}

/* Writes model.safetensors.index.json over `files` files; the tensor `stray` is said to lie in `place`. */
static void write_index(size_t files, size_t stray, const char *place) {
    struct gpt2_config config = small_config();
    struct gpt2_tensor tensors[64];
    size_t count = gpt2_tensors(tensors, &config);
    json_t *root = json_object(), *map = json_object();
    for (size_t i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "part-%zu.safetensors", i % files);
        json_object_set_new(map, tensors[i].name, json_string(i == stray ? place : name));
    }
    json_object_set_new(root, "weight_map", map);
    char *path = path_in("model.safetensors.index.json"), *text = json_dumps(root, 0);
    assert_int_equal(file_publish(path, text, strlen(text)), 0);
    json_decref(root);
    free(text), free(path);
}

static void weights_in_several_files_are_found_by_their_index(void **unused) {
    (void)unused;
    struct random random = random_open("weights_in_several_files_are_found_by_their_index");
    static const char *const types[3] = {"F32", "F16", "F32"};
    char *index = path_in("model.safetensors.index.json");
    for (size_t files = 1; files <= 5; files += 2) {
        for (size_t i = 0; i < files; i++) {
            char name[64];
            snprintf(name, sizeof name, "part-%zu.safetensors", i);
            write_tensors(name, "", types, i, files);
        }
        write_index(files, SIZE_MAX, "");
        assert_values(folder, types, &random);
        assert_values(index, types, &random);
    }
    static const struct {
        const char *place;
        int code;
        const char *word;
    } cases[] = {{"part-9.safetensors", ERR_NOTFOUND, "part-9.safetensors"}, {"../part-0.safetensors", ERR_CORRUPT, "beside it"},
                 {"..", ERR_CORRUPT, "beside it"},   {"part-4.safetensors", ERR_CORRUPT, "is not in"}, {"", ERR_CORRUPT, "beside it"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct checkpoint *checkpoint;
        write_index(5, 1, cases[i].place);
        int code = checkpoint_open(&checkpoint, folder);
        if (code != cases[i].code || !strstr(err_text(), cases[i].word)) fail_msg("case %zu: %d, %s", i, code, err_text());
    }
    static const char *const texts[] = {"", "[]", "{}", "{\"weight_map\": []}", "{\"weight_map\": {\"a\": 1}}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct checkpoint *checkpoint;
        assert_int_equal(file_publish(index, texts[i], strlen(texts[i])), 0);
        assert_int_equal(checkpoint_open(&checkpoint, folder), ERR_CORRUPT);
    }
    free(index);
}

static void pickles_are_answered_with_the_line_that_converts_them(void **unused) {
    (void)unused;
    static const char *const names[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    struct checkpoint *checkpoint;
    char *config = path_in("config.json");
    assert_int_equal(file_publish(config, FOREIGN_CONFIG, strlen(FOREIGN_CONFIG)), 0);
    for (size_t i = 0; i < 2; i++) {
        char *path = path_in(names[i]);
        assert_int_equal(file_publish(path, "PK", 2), 0);
        assert_int_equal(checkpoint_open(&checkpoint, folder), ERR_UNSUPPORTED);
        assert_non_null(strstr(err_text(), "save_pretrained"));
        assert_non_null(strstr(err_text(), folder));
        if (i == 0) assert_int_equal(checkpoint_open(&checkpoint, path), ERR_UNSUPPORTED);
        assert_non_null(strstr(err_text(), "save_pretrained"));
        assert_int_equal(unlink(path), 0);
        free(path);
    }
    free(config);
}

static void random_damage_to_a_header_never_crashes(void **unused) {
    (void)unused;
    struct random random = random_open("random_damage_to_a_header_never_crashes");
    struct checkpoint *checkpoint;
    struct buf file = {0};
    char *path = path_in("model.safetensors");
    assert_int_equal(open_foreign(&checkpoint, (struct foreign){0}), 0);
    checkpoint_close(checkpoint);
    assert_int_equal(file_read(&file, path, SIZE_MAX - 1), 0);
    uint64_t header_bytes;
    memcpy(&header_bytes, file.data, sizeof header_bytes);
    for (int round = 0; round < 500; round++) {
        size_t at = random_in(&random, 0, 7 + header_bytes);
        uint8_t old = file.data[at];
        file.data[at] = (uint8_t)random_next(&random);
        int fd = open(path, O_WRONLY);
        assert_int_equal(file_write_at(fd, file.data, 8 + header_bytes, 0), 0);
        close(fd);
        if (checkpoint_open(&checkpoint, folder) == 0) checkpoint_close(checkpoint);
        file.data[at] = old;
    }
    buf_free(&file);
    free(path);
}

int main(void) {
    log_setup("test", LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(foreign_weights_are_read_by_name, enter, leave),
        cmocka_unit_test_setup_teardown(foreign_weights_that_do_not_fit_are_refused_by_name, enter, leave),
        cmocka_unit_test_setup_teardown(a_tensor_is_looked_up_a_few_times_however_many_there_are, enter, leave),
        cmocka_unit_test(what_ends_a_text_is_what_the_later_file_says),
        cmocka_unit_test_setup_teardown(narrow_types_are_read_exactly, enter, leave),
        cmocka_unit_test_setup_teardown(prefixes_of_wrappers_do_not_matter, enter, leave),
        cmocka_unit_test_setup_teardown(weights_in_several_files_are_found_by_their_index, enter, leave),
        cmocka_unit_test_setup_teardown(pickles_are_answered_with_the_line_that_converts_them, enter, leave),
        cmocka_unit_test_setup_teardown(a_header_that_lies_is_refused, enter, leave),
        cmocka_unit_test_setup_teardown(random_damage_to_a_header_never_crashes, enter, leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
