/* Which documents stay, and on which side. Equal and nearly equal ones are found by sorting, a few MinHash bands at a time, so that memory
 * is bounded; who hangs together is a forest whose roots are the first in source order, so that no order of joining matters. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/ingest/run.h"
#include "dataset/plan/plan_internal.h"

enum { BANDS_MEMORY = 256 << 20 };  /* bands that are held at once; of millions of documents several, of a billion one */

/* ---- Equal ---- */

static int by_digest(const void *left, const void *right, void *digests) {
    uint8_t (*digest)[PLAN_DIGEST_BYTES] = digests;
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    int order = memcmp(digest[a], digest[b], PLAN_DIGEST_BYTES);
    return order ? order : (a > b) - (a < b);
}

/* twin[d]: the first document with the digest of d. */
static int find_twins(const struct dataset_plan *plan, uint32_t **out) {
    uint32_t *sorted, *twin;
    TRY(mem_try(&sorted, plan->documents, sizeof *sorted));
    int code = mem_try(&twin, plan->documents, sizeof *twin);
    if (code < 0) {
        free(sorted);
        return code;
    }
    for (size_t i = 0; i < plan->documents; i++) sorted[i] = (uint32_t)i;
    qsort_r(sorted, plan->documents, sizeof *sorted, by_digest, plan->digest);
    for (size_t i = 0, first = 0; i < plan->documents; i++) {
        if (memcmp(plan->digest[sorted[i]], plan->digest[sorted[first]], PLAN_DIGEST_BYTES) != 0) first = i;
        twin[sorted[i]] = sorted[first];
    }
    *out = twin;
    free(sorted);
    return 0;
}

/* ---- Nearly equal ---- */

static uint32_t root_of(uint32_t *parent, uint32_t d) {
    while (parent[d] != d) {
        parent[d] = parent[parent[d]];
        d = parent[d];
    }
    return d;
}

static void join(uint32_t *parent, uint32_t a, uint32_t b) {
    a = root_of(parent, a), b = root_of(parent, b);
    if (a < b) parent[b] = a;
    else parent[a] = b;
}

struct band_value {
    uint64_t value;
    uint32_t document;
};

static int by_value(const void *left, const void *right) {
    const struct band_value *a = left, *b = right;
    if (a->value != b->value) return a->value < b->value ? -1 : 1;
    return (a->document > b->document) - (a->document < b->document);
}

/* Some bands of all documents: value[band * documents + document]. */
struct bands {
    uint64_t *value;
    uint32_t first, count;
    size_t document;          /* the walk's */
    uint64_t tokens;          /* of it so far */
};

/* A document that came through plan_documents(): the piece that begins it holds its bands. */
static void take_bands(struct bands *bands, const struct dataset_plan *plan, const Millrace__RunTable *table) {
    const uint32_t all = plan->options.minhash_bands;
    for (size_t i = 0; i < table->n_source; i++) {
        if (table->flags[i] & RUN_BEGINS) bands->tokens = 0;
        bands->tokens += table->piece_tokens[i];
        if ((table->flags[i] & RUN_BEGINS) && bands->document < plan->documents)
            for (uint32_t b = 0; b < bands->count; b++) {
                const uint8_t *at = table->bands.data + (i * all + bands->first + b) * sizeof(uint64_t);
                uint64_t value = 0;
                for (int k = 7; k >= 0; k--) value = value << 8 | at[k];
                bands->value[b * plan->documents + bands->document] = value;
            }
        if ((table->flags[i] & RUN_ENDS) && bands->tokens) bands->document++; /* else the next one's values take its place */
    }
}

static int load_bands(struct bands *bands, const struct dataset_plan *plan) {
    const struct plan_options *options = &plan->options;
    bands->document = 0;
    for (size_t run = 0; run < options->runs; run++) {
        Millrace__RunTable *table;
        TRY(options->load(options->arg, run, &table));
        bool same = table->bands.len == table->n_source * options->minhash_bands * sizeof(uint64_t);
        if (same) take_bands(bands, plan, table);
        millrace__run_table__free_unpacked(table, NULL);
        if (!same) return err_set(ERR_CORRUPT, "run %zu: another table than before", run);
    }
    return bands->document == plan->documents ? 0 : err_set(ERR_CORRUPT, "the runs have other documents than before");
}

static void join_band(uint32_t *parent, struct band_value *sorted, const uint64_t *value, size_t documents) {
    size_t count = 0;
    for (size_t d = 0; d < documents; d++)
        if (value[d]) sorted[count++] = (struct band_value){value[d], (uint32_t)d};
    qsort(sorted, count, sizeof *sorted, by_value);
    for (size_t i = 1; i < count; i++)
        if (sorted[i].value == sorted[i - 1].value) join(parent, sorted[i].document, sorted[i - 1].document);
}

static int join_near(const struct dataset_plan *plan, uint32_t *parent) {
    const uint32_t all = plan->options.minhash_bands;
    size_t at_once = BANDS_MEMORY / sizeof(uint64_t) / plan->documents;
    at_once = at_once < 1 ? 1 : at_once > all ? all : at_once;
    struct bands bands = {0};
    struct band_value *sorted = NULL;
    int code = mem_try(&bands.value, at_once * plan->documents, sizeof *bands.value);
    if (code == 0) code = mem_try(&sorted, plan->documents, sizeof *sorted);
    for (bands.first = 0; code == 0 && bands.first < all; bands.first += bands.count) {
        bands.count = all - bands.first < at_once ? all - bands.first : (uint32_t)at_once;
        code = load_bands(&bands, plan);
        for (uint32_t b = 0; code == 0 && b < bands.count; b++)
            join_band(parent, sorted, bands.value + b * plan->documents, plan->documents);
    }
    free(sorted);
    free(bands.value);
    return code;
}

static int leave_duplicates_out(struct dataset_plan *plan, const uint32_t *twin) {
    uint32_t *parent;
    TRY(mem_try(&parent, plan->documents, sizeof *parent));
    memcpy(parent, twin, plan->documents * sizeof *parent);
    int code = plan->options.deduplicate == DEDUPLICATE_NEAR ? join_near(plan, parent) : 0;
    for (size_t d = 0; code == 0 && d < plan->documents; d++) {
        uint32_t first = root_of(parent, (uint32_t)d);
        if (twin[d] != d) code = plan_drop(plan, "duplicate", d, twin[d]);
        else if (first != d) code = plan_drop(plan, "near_duplicate", d, first);
    }
    free(parent);
    return code;
}

/* ---- Sides ---- */

static uint64_t digest_head(const uint8_t *digest) {
    uint64_t head = 0;
    for (int i = 0; i < 8; i++) head = head << 8 | digest[i];
    return head;
}

/* head / 2^64 < fraction, exactly: a fraction times 2^64 is a double without rounding, and only its ceiling matters. */
static bool below(uint64_t head, double fraction) {
    double limit = ceil(ldexp(fraction, 64));
    return limit >= 0x1p64 || (limit > 0 && head < (uint64_t)limit);
}

static enum source_split group_split(const struct dataset_plan *plan, size_t d) {
    return plan->options.groups[document_group(plan, d)].split;
}

static size_t count_side(const struct dataset_plan *plan, enum side side) {
    size_t count = 0;
    for (size_t d = 0; d < plan->documents; d++) count += plan->document[d].side == side;
    return count;
}

static void choose_sides(struct dataset_plan *plan) {
    for (size_t d = 0; d < plan->documents; d++) {
        if (plan->document[d].side == SIDE_OUT) continue;
        enum source_split split = group_split(plan, d);
        bool held = split == SPLIT_VALIDATION ||
                    (split == SPLIT_BY_DIGEST && below(digest_head(plan->digest[d]), plan->options.validation_fraction));
        plan->document[d].side = held ? SIDE_VALIDATION : SIDE_TRAIN;
    }
}

/* Is document d of those that the digest decides about? */
static bool by_digest_on(const struct dataset_plan *plan, size_t d, enum side side) {
    return plan->document[d].side == side && group_split(plan, d) == SPLIT_BY_DIGEST;
}

/* Gives `side`, which is empty, the documents of an extreme digest, if that does not empty the other. */
static void fill_side(struct dataset_plan *plan, enum side side) {
    enum side other = side == SIDE_TRAIN ? SIDE_VALIDATION : SIDE_TRAIN;
    size_t found = plan->documents, moved = 0, there = count_side(plan, other);
    for (size_t d = 0; d < plan->documents; d++) {
        if (!by_digest_on(plan, d, other)) continue;
        int order = found == plan->documents ? 0 : memcmp(plan->digest[d], plan->digest[found], PLAN_DIGEST_BYTES);
        if (found == plan->documents || (side == SIDE_TRAIN ? order > 0 : order < 0)) found = d, moved = 1;
        else moved += order == 0;
    }
    if (moved == there) return;
    for (size_t d = 0; d < plan->documents; d++)
        if (by_digest_on(plan, d, other) && memcmp(plan->digest[d], plan->digest[found], PLAN_DIGEST_BYTES) == 0)
            plan->document[d].side = side;
}

/* A text of validation is not trained on, whatever entry another copy of it is in. */
static int leave_known_out(struct dataset_plan *plan, const uint32_t *twin) {
    uint32_t *held;           /* by twin: a validation document + 1 */
    TRY(mem_try(&held, plan->documents, sizeof *held));
    for (size_t d = plan->documents; d-- > 0;)
        if (plan->document[d].side == SIDE_VALIDATION) held[twin[d]] = (uint32_t)d + 1;
    int code = 0;
    for (size_t d = 0; code == 0 && d < plan->documents; d++)
        if (plan->document[d].side == SIDE_TRAIN && held[twin[d]]) code = plan_drop(plan, "in_validation", d, held[twin[d]] - 1);
    free(held);
    return code;
}

int plan_splits(struct dataset_plan *plan) {
    uint32_t *twin = NULL;
    TRY(find_twins(plan, &twin));
    int code = plan->options.deduplicate == DEDUPLICATE_NONE ? 0 : leave_duplicates_out(plan, twin);
    choose_sides(plan);
    if (plan->options.validation_fraction > 0) {
        if (count_side(plan, SIDE_VALIDATION) == 0) fill_side(plan, SIDE_VALIDATION);
        if (count_side(plan, SIDE_TRAIN) == 0) fill_side(plan, SIDE_TRAIN);
    }
    if (code == 0) code = leave_known_out(plan, twin);
    free(twin);
    return code;
}
