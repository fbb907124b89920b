/* struct checkpoint_record to JSON (checkpoint_record_print(), by checkpoint_write.c) and back (checkpoint_record_parse(), by checkpoint.c
 * and checkpoint_folder.c). Opens no files. */
#include "model/checkpoint/checkpoint_record.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

/* The version of the format. FORMATS begins every version, also one to come, and no file of Hugging Face's: the first release's record
 * has the name of one, trainer_state.json. */
#define FORMATS "millrace checkpoint "
static const char FORMAT[] = FORMATS "1";

static json_t *hex_json(const uint8_t *bytes, size_t size_bytes) {
    char hex[SHA256_HEX];
    CHECK(size_bytes <= SHA256_BYTES);
    hex_of(hex, bytes, size_bytes);
    return json_string(hex);
}

static json_t *real_json(double value) { return isfinite(value) ? json_real(value) : json_null(); }

static json_t *whole_json(uint64_t value) {
    CHECK(value <= INT64_MAX);
    return json_integer((json_int_t)value);
}

/* SHA-256 of the object's compact text with sorted keys. */
static int digest_of(uint8_t out[SHA256_BYTES], const json_t *object) {
    char *text = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    if (!text) return err_set(ERR_CORRUPT, "a checkpoint's record cannot be written as JSON");
    sha256_of(out, text, strlen(text));
    free(text);
    return 0;
}

int checkpoint_record_print(struct buf *out, const struct checkpoint_record *record) {
    const struct checkpoint_facts *facts = &record->facts;
    json_t *files = json_object(), *root = json_object();
    json_object_set_new(files, "model.safetensors", hex_json(facts->weights_sha256, SHA256_BYTES));
    if (facts->has_optimizer) json_object_set_new(files, "optimizer.safetensors", hex_json(facts->optimizer_sha256, SHA256_BYTES));
    if (facts->has_ema) json_object_set_new(files, "model.ema.safetensors", hex_json(facts->ema_sha256, SHA256_BYTES));
    for (size_t i = 0; i < record->small_files; i++)
        json_object_set_new(files, record->small_file[i].name, hex_json(record->small_file[i].sha256, SHA256_BYTES));
    json_object_set_new(root, "format", json_string(FORMAT));
    json_object_set_new(root, "global_step", whole_json(facts->step));
    json_object_set_new(root, "max_steps", whole_json(facts->max_steps));
    json_object_set_new(root, "epoch", real_json(facts->epoch));
    json_object_set_new(root, "tokens_seen", whole_json(facts->tokens_seen));
    json_object_set_new(root, "train_loss", real_json(facts->train_loss));
    json_object_set_new(root, "eval_loss", real_json(facts->eval_loss));
    json_object_set_new(root, "eval_step", whole_json(facts->eval_step));
    json_object_set_new(root, "build", json_string(facts->build));
    if (facts->has_run) {
        json_object_set_new(root, "run_sha256", hex_json(facts->run, SHA256_BYTES));
        json_object_set_new(root, "self_test", hex_json(facts->self_test, SHA256_BYTES));
    }
    json_object_set_new(root, "state_xxh128", hex_json(facts->state_digest, XXH128_BYTES));
    json_object_set_new(root, "files_sha256", files);
    uint8_t digest[SHA256_BYTES];
    int code = digest_of(digest, root);
    if (code == 0) {
        json_object_set_new(root, "sha256", hex_json(digest, SHA256_BYTES));
        char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
        code = text ? buf_print(out, "%s\n", text) : err_set(ERR_MEMORY, "%s: out of memory", CHECKPOINT_RECORD_NAME);
        free(text);
    }
    json_decref(root);
    return code;
}

static bool take_hex(uint8_t *out, size_t size_bytes, const json_t *value) {
    const char *text = json_string_value(value);
    if (!text || strlen(text) != 2 * size_bytes || strspn(text, "0123456789abcdef") != 2 * size_bytes) return false;
    for (size_t i = 0; i < size_bytes; i++) {
        char pair[3] = {text[2 * i], text[2 * i + 1], 0};
        out[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return true;
}

static bool take_whole(uint64_t *out, const json_t *root, const char *key) {
    const json_t *value = json_object_get(root, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static bool take_real(double *out, const json_t *root, const char *key) {
    const json_t *value = json_object_get(root, key);
    *out = json_is_number(value) ? json_number_value(value) : NAN;
    return json_is_number(value) || json_is_null(value);
}

/* A large file that some checkpoints have. */
static bool take_large(bool *out_there, uint8_t sha256[SHA256_BYTES], const json_t *files, const char *name) {
    const json_t *value = json_object_get(files, name);
    *out_there = value != NULL;
    return !value || take_hex(sha256, SHA256_BYTES, value);
}

static bool take_files(struct checkpoint_record *record, json_t *files) {
    const char *name;
    json_t *value;
    struct checkpoint_facts *facts = &record->facts;
    if (!take_hex(facts->weights_sha256, SHA256_BYTES, json_object_get(files, "model.safetensors"))) return false;
    if (!take_large(&facts->has_optimizer, facts->optimizer_sha256, files, "optimizer.safetensors")) return false;
    if (!take_large(&facts->has_ema, facts->ema_sha256, files, "model.ema.safetensors")) return false;
    json_object_foreach(files, name, value) {
        if (strcmp(name, "model.safetensors") == 0 || strcmp(name, "optimizer.safetensors") == 0) continue;
        if (strcmp(name, "model.ema.safetensors") == 0) continue;
        if (record->small_files == CHECKPOINT_SMALL_FILES_MAX) return false;
        struct small_file *file = &record->small_file[record->small_files++];
        if (strlen(name) >= sizeof file->name || strchr(name, '/')) return false;
        memcpy(file->name, name, strlen(name) + 1);
        if (!take_hex(file->sha256, SHA256_BYTES, value)) return false;
    }
    return true;
}

static int take_record(struct checkpoint_record *record, const char *path, json_t *root) {
    uint8_t told[SHA256_BYTES], real[SHA256_BYTES];
    const char *format = json_string_value(json_object_get(root, "format"));
    if (!format || strcmp(format, FORMAT) != 0)
        return format && strncmp(format, FORMATS, strlen(FORMATS)) == 0
                   ? err_set(ERR_UNSUPPORTED, "%s was written by another version of this program (no \"%s\"); use that one", path, FORMAT)
                   : err_set(ERR_NOTFOUND, "%s was not written by this program (no \"%s\")", path, FORMAT);
    bool whole = take_hex(told, SHA256_BYTES, json_object_get(root, "sha256"));
    json_object_del(root, "sha256");
    TRY(digest_of(real, root));
    if (!whole || memcmp(told, real, SHA256_BYTES) != 0) return err_set(ERR_CORRUPT, "%s: its digest differs; the file is damaged", path);
    struct checkpoint_facts *facts = &record->facts;
    if (!take_whole(&facts->step, root, "global_step") || !take_whole(&facts->max_steps, root, "max_steps") ||
        !take_whole(&facts->tokens_seen, root, "tokens_seen") || !take_real(&facts->epoch, root, "epoch") ||
        !take_real(&facts->train_loss, root, "train_loss") || !take_real(&facts->eval_loss, root, "eval_loss") ||
        !take_hex(facts->state_digest, XXH128_BYTES, json_object_get(root, "state_xxh128")) ||
        !take_files(record, json_object_get(root, "files_sha256")))
        return err_set(ERR_CORRUPT, "%s: a key is missing or of another type", path);
    if (!take_whole(&facts->eval_step, root, "eval_step")) facts->eval_step = 0; /* not recorded by the first release */
    facts->has_run = take_hex(facts->run, SHA256_BYTES, json_object_get(root, "run_sha256")) &&
                     take_hex(facts->self_test, SHA256_BYTES, json_object_get(root, "self_test"));
    const char *build = json_string_value(json_object_get(root, "build"));
    snprintf(facts->build, sizeof facts->build, "%s", build ? build : "");
    return 0;
}

int checkpoint_record_parse(struct checkpoint_record *out, const char *path, const char *text, size_t text_bytes) {
    json_error_t error;
    json_t *root = json_loadb(text, text_bytes, JSON_REJECT_DUPLICATES, &error);
    struct checkpoint_record record = {0};
    int code = json_is_object(root) ? take_record(&record, path, root)
                                    : err_set(ERR_CORRUPT, "%s is not a JSON object: %s", path, root ? "another type" : error.text);
    json_decref(root);
    if (code == 0) *out = record;
    return code;
}
