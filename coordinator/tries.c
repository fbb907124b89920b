/* The number of a try says who is out; keeps that number, and with whom they begin. */
#include "coordinator/tries.h"

#include "base/err.h"

void tries_open(struct tries *tries) { *tries = (struct tries){.first_order = UINT64_MAX}; }

static size_t count_newer(const struct tried *member, size_t members, uint64_t order) {
    size_t n = 0;
    for (size_t i = 0; i < members; i++) n += member[i].order > order;
    return n;
}

/* How many are out, and from which on; the places count from the member with which the tries begin to ever older ones, round and round. */
static size_t choose(size_t *first, size_t members, size_t try) {
    size_t grows = members, one_left = 2 * members - 2; /* where the second and the third round begin */
    *first = try < grows ? try : try < one_left ? members - 1 : try - one_left;
    return try < grows ? 1 : try < one_left ? try - grows + 2 : members - 1;
}

bool tries_next(struct tries *tries, struct tried *member, size_t members) {
    CHECK(members >= 2);
    size_t try = tries->next % (3 * members - 3), first, count = choose(&first, members, try), outside = 0, added = 0, kept = 0;
    size_t begin = count_newer(member, members, tries->first_order) + first;
    tries->next = try + 1;
    for (int decide = 0; decide < 2; decide++)
        for (size_t i = 0; i < members; i++) {
            bool out = (count_newer(member, members, member[i].order) + 2 * members - begin) % members < count;
            if (decide) {
                bool alone = outside == members - 1; /* whoever was in could not end it */
                member[i].decides = out && (count == 1 || (!member[i].out && added == 1 && (kept == outside || alone)));
                member[i].out = out;
                continue;
            }
            outside += member[i].out;
            kept += out && member[i].out;
            added += out && !member[i].out;
        }
    return try == 0 || try == members || try == 2 * members - 2;
}

void tries_ended(struct tries *tries, size_t outside, uint64_t order) {
    if (outside == 1) *tries = (struct tries){.first_order = order};
    else if (outside && tries->next >= 2) tries->next -= 2;
}
