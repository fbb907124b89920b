/* A growing array of token ids. */
#ifndef MILLRACE_DATASET_IDS_H
#define MILLRACE_DATASET_IDS_H

#include <stddef.h>
#include <stdint.h>

struct ids {
    uint32_t *id;
    size_t count, capacity;
};
int ids_reserve(struct ids *ids, size_t more); /* room for so many behind the last */
int ids_append(struct ids *ids, const uint32_t *id, size_t count);
void ids_free(struct ids *ids);

#endif
