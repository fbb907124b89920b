/* Doubles the array as it grows, in huge pages where the system has them. */
#include "dataset/tokenizer/ids.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"

/* To take page after page into use costs as much as to find the ids that go there. A refusal costs only that. */
static void ask_for_huge_pages(const void *begin, const void *end) {
    const uintptr_t page = 2 << 20, first = ((uintptr_t)begin + page - 1) / page * page, last = (uintptr_t)end / page * page;
    if (first < last) madvise((void *)first, last - first, MADV_HUGEPAGE);
}

int ids_reserve(struct ids *ids, size_t more) {
    if (more <= ids->capacity - ids->count) return 0;
    if (more > SIZE_MAX / sizeof *ids->id / 2 - ids->count)
        return err_set(ERR_MEMORY, "out of memory: room for %zu more token ids was wanted", more);
    size_t capacity = ids->capacity ? ids->capacity : 256;
    while (capacity - ids->count < more) capacity *= 2;
    uint32_t *id = realloc(ids->id, capacity * sizeof *id);
    if (!id) return err_set(ERR_MEMORY, "out of memory: %zu bytes for token ids were wanted", capacity * sizeof *id);
    ids->id = id;
    ids->capacity = capacity;
    ask_for_huge_pages(id + ids->count, id + capacity);
    return 0;
}

int ids_append(struct ids *ids, const uint32_t *id, size_t count) {
    TRY(ids_reserve(ids, count));
    if (count) memcpy(ids->id + ids->count, id, count * sizeof *id);
    ids->count += count;
    return 0;
}

void ids_free(struct ids *ids) {
    free(ids->id);
    *ids = (struct ids){0};
}
