/* A small table, searched from end to end when views change: it holds the members of one view, or the givers of one join. */
#include "workers/addresses.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

uint64_t addresses_number(struct addresses *a, const char *endpoint) {
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->address[i].endpoint, endpoint) == 0) return a->address[i].number;
    a->address = mem_resize(a->address, (a->count + 1) * sizeof *a->address);
    a->address[a->count++] = (struct address){++a->newest, mem_text(endpoint)};
    return a->newest;
}

const char *addresses_find(const struct addresses *a, uint64_t number) {
    for (size_t i = 0; i < a->count; i++)
        if (a->address[i].number == number) return a->address[i].endpoint;
    return NULL;
}

static bool is_among(uint64_t number, const uint64_t *numbers, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (numbers[i] == number) return true;
    return false;
}

void addresses_keep(struct addresses *a, const uint64_t *numbers, size_t count) {
    size_t kept = 0;
    for (size_t i = 0; i < a->count; i++) {
        if (is_among(a->address[i].number, numbers, count)) a->address[kept++] = a->address[i];
        else free(a->address[i].endpoint);
    }
    a->count = kept;
}

void addresses_close(struct addresses *a) {
    addresses_keep(a, NULL, 0);
    free(a->address);
    *a = (struct addresses){0};
}
