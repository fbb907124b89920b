/* The safetensors container: the header parsed into a table sorted by name, which is never changed afterwards. docs/FORMATS.md draws the
 * bytes. */
#include "model/checkpoint/safetensors.h"

#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are read and written as they lie in memory");

enum { LENGTH_BYTES = 8, ALIGNMENT = 8 };

/* Bytes of one element; 0 for a type that this code does not know, whose size is then not checked. */
static uint64_t element_bytes(const char *dtype) {
    static const struct {
        const char *name;
        uint64_t bytes;
    } types[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},  {"U64", 8},     {"I32", 4},    {"U32", 4},
                 {"I16", 2}, {"U16", 2}, {"I8", 1},  {"U8", 1},   {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, dtype) == 0) return types[i].bytes;
    return 0;
}

static int bad(const struct safetensors *file, const char *tensor, const char *what) {
    return err_set(ERR_CORRUPT, "%s: tensor %.100s: %s", file->path, tensor, what);
}

/* Fills shape and rank from the JSON array and checks that they make up size_bytes. */
static int take_shape(const struct safetensors *file, struct safetensors_entry *entry, const json_t *shape) {
    if (!json_is_array(shape)) return bad(file, entry->name, "has no shape");
    if (json_array_size(shape) > SAFETENSORS_RANK_MAX) return bad(file, entry->name, "has too many dimensions");
    uint64_t bytes = element_bytes(entry->dtype);
    bool sized = bytes > 0;
    entry->rank = (int)json_array_size(shape);
    for (int i = 0; i < entry->rank; i++) {
        const json_t *extent = json_array_get(shape, (size_t)i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            return bad(file, entry->name, "has a dimension that is not a whole number");
        entry->shape[i] = (uint64_t)json_integer_value(extent);
        if (__builtin_mul_overflow(bytes, entry->shape[i], &bytes)) return bad(file, entry->name, "is larger than any memory");
    }
    if (sized && bytes != entry->size_bytes) return bad(file, entry->name, "has a shape that does not fit its data offsets");
    return 0;
}

static int take_entry(const struct safetensors *file, struct safetensors_entry *entry, const char *name, const json_t *value,
                      uint64_t data_bytes) {
    if (strlen(name) >= sizeof entry->name) return bad(file, name, "has a name that is too long");
    memcpy(entry->name, name, strlen(name) + 1);
    const char *dtype = json_string_value(json_object_get(value, "dtype"));
    if (!dtype || strlen(dtype) >= sizeof entry->dtype) return bad(file, name, "has no known dtype");
    memcpy(entry->dtype, dtype, strlen(dtype) + 1);
    const json_t *offsets = json_object_get(value, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end)) return bad(file, name, "has no data_offsets");
    json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || (uint64_t)to > data_bytes) return bad(file, name, "lies outside the file");
    entry->offset = (uint64_t)from;
    entry->size_bytes = (uint64_t)(to - from);
    return take_shape(file, entry, json_object_get(value, "shape"));
}

static int by_offset(const void *a, const void *b) {
    const struct safetensors_entry *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->size_bytes > y->size_bytes) - (x->size_bytes < y->size_bytes);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct safetensors_entry *)a)->name, ((const struct safetensors_entry *)b)->name);
}

static int check_layout(struct safetensors *file, uint64_t data_bytes) {
    uint64_t at = 0;
    qsort(file->entry, file->count, sizeof *file->entry, by_offset);
    for (size_t i = 0; i < file->count; i++) {
        if (file->entry[i].offset < at) return bad(file, file->entry[i].name, "overlaps another one");
        if (file->entry[i].offset > at) return bad(file, file->entry[i].name, "has a hole before it");
        at += file->entry[i].size_bytes;
    }
    if (at != data_bytes)
        return err_set(ERR_CORRUPT, "%s: %" PRIu64 " bytes of data, the tensors take %" PRIu64 "; the file is cut off or has a tail",
                       file->path, data_bytes, at);
    qsort(file->entry, file->count, sizeof *file->entry, by_name);
    return 0;
}

static int take_header(struct safetensors *file, json_t *header, uint64_t data_bytes) {
    TRY(mem_try(&file->entry, json_object_size(header), sizeof *file->entry));
    const char *name;
    json_t *value;
    json_object_foreach(header, name, value) {
        if (strcmp(name, "__metadata__") == 0) continue;
        TRY(take_entry(file, &file->entry[file->count], name, value, data_bytes));
        file->count++;
    }
    return check_layout(file, data_bytes);
}

static int read_header(struct safetensors *file) {
    uint64_t file_bytes, header_bytes = 0;
    size_t got;
    TRY(file_size(&file_bytes, file->path));
    TRY(file_read_at(file->fd, &header_bytes, &got, LENGTH_BYTES, 0));
    if (got != LENGTH_BYTES || header_bytes > file_bytes - LENGTH_BYTES)
        return err_set(ERR_CORRUPT, "%s is not a safetensors file, or it is cut off", file->path);
    if (header_bytes > SAFETENSORS_HEADER_MAX)
        return err_set(ERR_LIMIT, "%s: a header of %" PRIu64 " bytes; the limit is %d", file->path, header_bytes, SAFETENSORS_HEADER_MAX);
    file->data_offset = LENGTH_BYTES + header_bytes;
    char *text = NULL;
    TRY(mem_try(&text, header_bytes + 1, 1));
    int code = file_read_at(file->fd, text, &got, header_bytes, LENGTH_BYTES);
    if (code == 0 && got != header_bytes) code = err_set(ERR_CORRUPT, "%s is cut off inside its header", file->path);
    if (code == 0) {
        json_error_t error;
        json_t *header = json_loadb(text, header_bytes, JSON_REJECT_DUPLICATES, &error);
        if (!json_is_object(header))
            code = err_set(ERR_CORRUPT, "%s: header is not a JSON object: %s", file->path, header ? "another type" : error.text);
        else code = take_header(file, header, file_bytes - file->data_offset);
        json_decref(header);
    }
    free(text);
    return code;
}

int safetensors_open(struct safetensors **out, const char *path) {
    int fd;
    TRY(file_open(&fd, path));
    struct safetensors *file = mem_alloc(sizeof *file);
    file->fd = fd;
    file->path = mem_text(path);
    int code = read_header(file);
    if (code < 0) safetensors_close(file);
    else *out = file;
    return code;
}

void safetensors_close(struct safetensors *file) {
    if (!file) return;
    close(file->fd);
    free(file->path);
    free(file->entry);
    free(file);
}

const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name) {
    struct safetensors_entry key;
    if (strlen(name) >= sizeof key.name) return NULL;
    memcpy(key.name, name, strlen(name) + 1);
    return bsearch(&key, file->entry, file->count, sizeof key, by_name);
}

int safetensors_print_header(struct buf *out, const struct safetensors_entry *entries, size_t count) {
    struct buf json = {0};
    int code = buf_print(&json, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count && code == 0; i++) {
        const struct safetensors_entry *entry = &entries[i];
        code = buf_print(&json, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", entry->name, entry->dtype);
        for (int d = 0; d < entry->rank && code == 0; d++) code = buf_print(&json, d ? ",%" PRIu64 : "%" PRIu64, entry->shape[d]);
        if (code == 0)
            code = buf_print(&json, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", entry->offset, entry->offset + entry->size_bytes);
    }
    if (code == 0) code = buf_print(&json, "}");
    while (code == 0 && json.size % ALIGNMENT != 0) code = buf_append(&json, " ", 1);
    uint64_t length = json.size;
    if (code == 0) code = buf_append(out, &length, sizeof length);
    if (code == 0) code = buf_append(out, json.data, json.size);
    buf_free(&json);
    return code;
}
