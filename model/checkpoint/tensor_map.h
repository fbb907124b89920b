/* The tensors of a model by name, whether they are in one safetensors file or in several that an index names
 * (model.safetensors.index.json, as transformers writes it), and whatever wrapper put its prefix before their names: torch.compile's
 * "_orig_mod.", DataParallel's "module.", GPT2LMHeadModel's "transformer.". Knows nothing of shapes. */
#ifndef MILLRACE_MODEL_TENSOR_MAP_H
#define MILLRACE_MODEL_TENSOR_MAP_H

#include "model/checkpoint/safetensors.h"

struct mapped_tensor {
    const char *name; /* without such prefixes */
    const struct safetensors *file;
    const struct safetensors_entry *entry;
};

struct tensor_map {
    char *path; /* of the file that was opened: of the tensors, or the index */
    struct safetensors **file;
    size_t files;
    struct mapped_tensor *tensor; /* by name */
    size_t tensors;
};

/* A file that is not named *.json is one of tensors. ERR_NOTFOUND, ERR_IO, ERR_CORRUPT, ERR_LIMIT; texts name the file. Reading through the
 * files' fd is thread-safe. */
int tensor_map_open(struct tensor_map **out, const char *path);
void tensor_map_close(struct tensor_map *map);  /* NULL is fine */

/* By its name with or without prefix; NULL when there is none. */
const struct mapped_tensor *tensor_map_find(const struct tensor_map *map, const char *name);

#endif
