/* Names and files. See the header. */
#include "model/checkpoint/tensor_map.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

enum {
    INDEX_BYTES_MAX = 16 << 20, /* 100 bytes for each of more tensors than any GPT-2 has */
    FILES_MAX = 1024,           /* files are kept open: what ulimit -n commonly allows. Whoever writes one a layer stays below */
};

static const char *bare(const char *name) {
    static const char *const prefixes[] = {"module.", "_orig_mod.", "_fsdp_wrapped_module.", "transformer."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes;) {
        size_t length = strlen(prefixes[i]);
        bool there = strncmp(name, prefixes[i], length) == 0;
        name += there ? length : 0;
        i = there ? 0 : i + 1;
    }
    return name;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct mapped_tensor *)a)->name, ((const struct mapped_tensor *)b)->name);
}

static void add(struct tensor_map *map, const struct safetensors *file, const struct safetensors_entry *entry) {
    map->tensor[map->tensors++] = (struct mapped_tensor){bare(entry->name), file, entry};
}

static int sort(struct tensor_map *map) {
    qsort(map->tensor, map->tensors, sizeof *map->tensor, by_name);
    for (size_t i = 1; i < map->tensors; i++)
        if (strcmp(map->tensor[i - 1].name, map->tensor[i].name) == 0)
            return err_set(ERR_CORRUPT, "%s: tensors %s and %s are the same one", map->path, map->tensor[i - 1].entry->name,
                           map->tensor[i].entry->name);
    return 0;
}

static int open_one(struct tensor_map *map) {
    TRY(mem_try(&map->file, 1, sizeof *map->file));
    TRY(safetensors_open(&map->file[0], map->path));
    map->files = 1;
    TRY(mem_try(&map->tensor, map->file[0]->count, sizeof *map->tensor));
    for (size_t i = 0; i < map->file[0]->count; i++) add(map, map->file[0], &map->file[0]->entry[i]);
    return sort(map);
}

/* ---- several files ---- */

/* A file beside the index; opened once, however many tensors are in it. */
static int file_at(size_t *out, struct tensor_map *map, const char *path) {
    for (*out = 0; *out < map->files; ++*out)
        if (strcmp(map->file[*out]->path, path) == 0) return 0;
    if (map->files == FILES_MAX) return err_set(ERR_LIMIT, "%s: more than %d files", map->path, FILES_MAX);
    TRY(safetensors_open(&map->file[map->files], path));
    map->files++;
    return 0;
}

static int file_named(const struct safetensors **out, struct tensor_map *map, const char *name) {
    const char *slash = strrchr(map->path, '/');
    char *path = mem_format("%.*s%s", slash ? (int)(slash - map->path) + 1 : 0, map->path, name);
    size_t i;
    int code = file_at(&i, map, path);
    if (code == 0) *out = map->file[i];
    free(path);
    return code;
}

static int add_listed(struct tensor_map *map, const char *name, const json_t *value) {
    const char *file_name = json_string_value(value);
    const struct safetensors *file;
    if (!file_name || !*file_name || strchr(file_name, '/') || strcmp(file_name, "..") == 0)
        return err_set(ERR_CORRUPT, "%s: tensor %.100s does not lie in a file beside it", map->path, name);
    TRY(file_named(&file, map, file_name));
    const struct safetensors_entry *entry = safetensors_find(file, name);
    if (!entry) return err_set(ERR_CORRUPT, "%s: tensor %.100s is not in %s", map->path, name, file->path);
    add(map, file, entry);
    return 0;
}

static int add_all(struct tensor_map *map, const json_t *weight_map) {
    const char *name;
    json_t *value;
    TRY(mem_try(&map->file, FILES_MAX, sizeof *map->file));
    TRY(mem_try(&map->tensor, json_object_size(weight_map), sizeof *map->tensor));
    json_object_foreach((json_t *)weight_map, name, value) TRY(add_listed(map, name, value));
    return sort(map);
}

static int open_index(struct tensor_map *map) {
    struct buf text = {0};
    TRY(file_read(&text, map->path, INDEX_BYTES_MAX));
    json_error_t error;
    json_t *root = json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES, &error);
    const json_t *weight_map = json_object_get(root, "weight_map");
    int code = json_is_object(weight_map) ? add_all(map, weight_map)
                                          : err_set(ERR_CORRUPT, "%s has no weight_map: %s", map->path, root ? "another form" : error.text);
    json_decref(root);
    buf_free(&text);
    return code;
}

int tensor_map_open(struct tensor_map **out, const char *path) {
    struct tensor_map *map = mem_alloc(sizeof *map);
    size_t length = strlen(path);
    map->path = mem_text(path);
    int code = length > 5 && strcmp(path + length - 5, ".json") == 0 ? open_index(map) : open_one(map);
    if (code < 0) tensor_map_close(map);
    else *out = map;
    return code;
}

void tensor_map_close(struct tensor_map *map) {
    if (!map) return;
    for (size_t i = 0; i < map->files; i++) safetensors_close(map->file[i]);
    free(map->file);
    free(map->tensor);
    free(map->path);
    free(map);
}

const struct mapped_tensor *tensor_map_find(const struct tensor_map *map, const char *name) {
    struct mapped_tensor key = {.name = bare(name)};
    return map->tensors ? bsearch(&key, map->tensor, map->tensors, sizeof key, by_name) : NULL;
}
