/* A safetensors file. */
#include "model/checkpoint/safetensors.h"

#include "tests/fuzz/fuzz.h"

void fuzz(const uint8_t *data, size_t size) {
    struct safetensors *file;
    if (safetensors_open(&file, fuzz_path(data, size)) < 0) return;
    uint64_t bytes = 0;
    for (size_t i = 0; i < file->count; i++) {
        const struct safetensors_entry *entry = &file->entry[i];
        CHECK(safetensors_find(file, entry->name) == entry && entry->rank <= SAFETENSORS_RANK_MAX);
        CHECK(entry->offset + entry->size_bytes <= size - file->data_offset);
        bytes += entry->size_bytes;
    }
    CHECK(file->data_offset + bytes == size);
    safetensors_close(file);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    static const struct safetensors_entry entries[] = {
        {"a.weight", "F32", 2, {2, 3}, 0, 24}, {"b", "F32", 1, {1}, 24, 4}, {"c", "I64", 0, {0}, 28, 8}};
    for (size_t count = 0; count <= 3; count++) {
        struct buf out = {0};
        CHECK(safetensors_print_header(&out, entries, count) == 0);
        CHECK(buf_append(&out, "0123456789abcdef0123456789abcdefXXXX", count == 3 ? 36 : count == 2 ? 28 : count == 1 ? 24 : 0) == 0);
        add(out.data, out.size);
        buf_free(&out);
    }
    static const char odd[] = "\x60\0\0\0\0\0\0\0{\"x\\u0041\":{\"dtype\":\"F32\",\"shape\":[0,1e3],\"data_offsets\":[0,0]},"
                              "\"__metadata__\":{\"format\":\"pt\"}}    ";
    add(odd, sizeof odd - 1);
}
