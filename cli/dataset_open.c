/* Opens a dataset folder, and what all commands of `millrace dataset` do alike. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "cli/dataset_commands.h"
#include "cli/follow.h"
#include "cli/output.h"
#include "cli/status_file.h"
#include "dataset/shard/manifest.h"

/* The dataset that was made before, of a run that takes one (dataset.prepared). The caller frees it; NULL: it is no such run. */
static char *prepared_of(const char *output_dir) {
    json_t *status;
    if (status_read(&status, output_dir) < 0) return NULL;
    const char *prepared = json_string_value(json_object_get(json_object_get(status, "dataset"), "prepared"));
    char *folder = prepared ? mem_text(prepared) : NULL;
    json_decref(status);
    return folder;
}

int opened_open(struct opened *out, const char *path) {
    char *inner = mem_format("%s/dataset", path), *manifest = mem_format("%s/dataset/" MANIFEST_NAME, path);
    struct opened opened = {.folder = mem_text(file_exists(manifest) ? inner : path)};
    free(inner);
    free(manifest);
    int code = manifest_read(&opened.manifest, opened.folder);
    char *prepared = code == ERR_NOTFOUND ? prepared_of(path) : NULL;
    if (prepared) {
        free(opened.folder);
        path = opened.folder = prepared;
        code = manifest_read(&opened.manifest, prepared);
    }
    if (code == ERR_NOTFOUND)
        code = err_set(ERR_NOTFOUND, "%s holds no finished dataset (no dataset.pb in it or in its dataset/); 'millrace run' makes one",
                       path);
    if (code == ERR_DENIED) code = err_set(code, "%s; a run's dataset is in its output_dir: give that", err_text());
    if (code < 0) free(opened.folder);
    else *out = opened;
    return code;
}

void opened_close(struct opened *opened) {
    manifest_free(&opened->manifest);
    free(opened->folder);
}

int opened_shard(struct shard **out, const struct opened *opened, bool validation, size_t number) {
    const struct manifest *m = &opened->manifest;
    size_t i = number + (validation ? m->train_shards : 0);
    CHECK(i < (validation ? m->shards : m->train_shards));
    return manifest_open_shard(out, m, opened->folder, i);
}

int opened_tokenizer(struct tokenizer **out, const struct opened *opened, const char *name) {
    static const uint8_t not_told[SHA256_BYTES] = {0};
    const struct manifest *m = &opened->manifest;
    uint8_t digest[SHA256_BYTES];
    if (!name) name = m->tokenizer;
    if (!name) return err_set(ERR_CONFIG, "the dataset does not tell whose ids these are; --tokenizer NAME does");
    struct tokenizer *tokenizer;
    int code = tokenizer_open(&tokenizer, name);
    if (code < 0) return err_add(code, "the dataset's tokenizer (--tokenizer says where it is, --tokens prints ids without one)");
    tokenizer_digest(tokenizer, digest);
    if (memcmp(m->tokenizer_digest, not_told, SHA256_BYTES) != 0 && memcmp(m->tokenizer_digest, digest, SHA256_BYTES) != 0) {
        tokenizer_close(tokenizer);
        return err_set(ERR_CONFIG, "tokenizer %s is not the one that made this dataset; --tokenizer NAME says where that one is", name);
    }
    *out = tokenizer;
    return 0;
}

int opened_check_sequence(const struct opened *opened, bool validation, uint64_t sequence) {
    uint64_t count = split_counts(&opened->manifest, validation).sequences;
    if (sequence < count) return 0;
    return err_set(ERR_NOTFOUND, "there is no sequence %" PRIu64 ": the %s split has %" PRIu64 ", counted from 0", sequence,
                   validation ? "validation" : "train", count);
}

struct split_counts split_counts(const struct manifest *m, bool validation) {
    if (!validation) return (struct split_counts){m->train_documents, m->train_tokens, m->train_sequences, m->train_shards};
    return (struct split_counts){m->documents - m->train_documents, m->tokens - m->train_tokens, m->sequences - m->train_sequences,
                                 m->shards - m->train_shards};
}

void json_set_count(json_t *object, const char *key, uint64_t value) { json_object_set_new(object, key, json_integer((json_int_t)value)); }

void json_set_digest(json_t *object, const char *key, const uint8_t digest[SHA256_BYTES]) {
    char hex[SHA256_HEX];
    hex_of(hex, digest, SHA256_BYTES);
    json_object_set_new(object, key, json_string(hex));
}

void json_set_text(json_t *object, const char *key, const char *text) {
    json_object_set_new(object, key, text ? output_json_text(text, strlen(text)) : json_null());
}

json_t *opened_groups_json(const struct opened *opened) {
    const struct manifest *m = &opened->manifest;
    json_t *list = json_array();
    for (size_t i = 0; i < m->groups; i++) {
        const Millrace__ManifestGroup *group = m->group[i];
        json_t *object = json_object();
        json_set_text(object, "name", group->name);
        json_object_set_new(object, "weight", group->weight > 0 ? output_json_real(group->weight) : json_null());
        json_set_text(object, "split", group->split[0] ? group->split : NULL);
        json_set_count(object, "train_documents", group->train_documents);
        json_set_count(object, "train_tokens", group->train_tokens);
        json_set_count(object, "validation_documents", group->validation_documents);
        json_set_count(object, "validation_tokens", group->validation_tokens);
        json_array_append_new(list, object);
    }
    return list;
}

void opened_print_groups(const struct opened *opened) {
    const struct manifest *m = &opened->manifest;
    uint64_t tokens = 0;
    for (size_t i = 0; i < m->groups; i++) tokens += m->group[i]->train_tokens;
    printf("  %-20s %12s %14s %7s %12s %14s\n", "source", "documents", "tokens", "", "validation", "tokens");
    for (size_t i = 0; i < m->groups && output_alive(); i++) {
        const Millrace__ManifestGroup *g = m->group[i];
        printf("  %-20s %12s %14s %5.1f %% %12s %14s\n", g->name, text_count(g->train_documents), text_count(g->train_tokens),
               tokens ? 100 * (double)g->train_tokens / (double)tokens : 0, text_count(g->validation_documents),
               text_count(g->validation_tokens));
    }
}

int split_option(bool *out_validation, const char *value, const char *command) {
    bool validation = value && strcmp(value, "validation") == 0;
    if (value && !validation && strcmp(value, "train") != 0)
        return err_set(ERR_USAGE, "%s: --split %s: expected train or validation", command, value);
    *out_validation = validation;
    return 0;
}
