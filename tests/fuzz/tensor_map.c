/* model.safetensors.index.json beside two files of tensors. */
#include "model/checkpoint/tensor_map.h"

#include "tests/fuzz/fuzz.h"

static void tensors_file(const char *name, const char *tensor) {
    struct safetensors_entry entry = {.dtype = "F32", .rank = 1, .shape = {1}, .size_bytes = 4};
    struct buf out = {0};
    snprintf(entry.name, sizeof entry.name, "%s", tensor);
    CHECK(safetensors_print_header(&out, &entry, 1) == 0 && buf_append(&out, "1234", 4) == 0);
    fuzz_file(name, out.data, out.size);
    buf_free(&out);
}

void fuzz(const uint8_t *data, size_t size) {
    static bool there;
    struct tensor_map *map;
    if (!there) tensors_file("a", "transformer.x"), tensors_file("b", "y");
    there = true;
    fuzz_file("index.json", data, size);
    char *path = mem_format("%s/index.json", fuzz_folder());
    if (tensor_map_open(&map, path) == 0) {
        CHECK(map->files <= 2 && map->tensors <= 2);
        for (size_t i = 0; i < map->tensors; i++) CHECK(tensor_map_find(map, map->tensor[i].entry->name) == &map->tensor[i]);
        tensor_map_close(map);
    }
    free(path);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    static const char *const texts[] = {"{\"metadata\":{},\"weight_map\":{\"transformer.x\":\"a\",\"y\":\"b\"}}",
                                        "{\"weight_map\":{\"y\":\"../b\"}}", "{\"weight_map\":{\"x\":\"a\"}}", NULL};
    fuzz_add_texts(add, texts);
}
