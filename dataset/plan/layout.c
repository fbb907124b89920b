/* The second half of a plan, in this order: the order of documents in a split (plan_mix(), by weights), which rests share a sequence
 * (best-fit decreasing, for packing best_fit), and the position of each token (plan_layout()). */
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/plan/inside.h"

/* ---- The order of documents ----
 *
 * Without weights as they come; with weights the entries of dataset.sources take turns, so that at any place each has had its share of the
 * tokens so far. Shares are compared as doubles of exact integers, without a library's help: the same on every machine. */

/* An entry's documents, in order. */
struct queue_of_group {
    uint32_t *document;
    size_t count, next;
    uint32_t rounds;          /* times that it was used up */
    double share;
    uint64_t tokens;          /* taken so far */
};

struct mix {
    struct dataset_plan *plan;
    struct queue_of_group *group;
    size_t groups;
    uint64_t tokens;          /* taken so far */
    uint32_t *order;
    size_t count, max;
};

static bool weighted(const struct plan_options *options) {
    for (size_t g = 0; g < options->group_count; g++)
        if (options->groups[g].weight > 0) return true;
    return false;
}

static int take(struct mix *mix, uint32_t document) {
    if (mix->count == NO_DOCUMENT - 1) return err_set(ERR_LIMIT, "more than %u documents", NO_DOCUMENT - 1);
    TRY(plan_grow(&mix->order, mix->count, &mix->max, sizeof *mix->order));
    mix->order[mix->count++] = document;
    return 0;
}

static int in_source_order(struct mix *mix, enum side side) {
    for (size_t d = 0; d < mix->plan->documents; d++)
        if (mix->plan->document[d].side == side) TRY(take(mix, (uint32_t)d));
    return 0;
}

/* By weights. */

static int fill_groups(struct mix *mix) {
    const struct dataset_plan *plan = mix->plan;
    for (size_t d = 0; d < plan->documents; d++)
        if (plan->document[d].side == SIDE_TRAIN) mix->group[document_group(plan, d)].count++;
    for (size_t g = 0; g < mix->groups; g++) {
        TRY(mem_try(&mix->group[g].document, mix->group[g].count, sizeof(uint32_t)));
        mix->group[g].count = 0;
    }
    for (size_t d = 0; d < plan->documents; d++) {
        struct queue_of_group *group = &mix->group[document_group(plan, d)];
        if (plan->document[d].side == SIDE_TRAIN) group->document[group->count++] = (uint32_t)d;
    }
    return 0;
}

/* What was left out when it was read is not known for each entry, but for all. */
static int refuse_share(const struct dataset_plan *plan, size_t group) {
    unsigned long long held = 0;
    for (size_t d = 0; d < plan->documents; d++) held += document_group(plan, d) == group && plan->document[d].side == SIDE_VALIDATION;
    err_set(ERR_CONFIG,
            "dataset.sources: %s has a weight, but no document of it is left for training: %llu of it %s held out for validation",
            plan->options.groups[group].name, held, held == 1 ? "is" : "are");
    return plan_refuse(plan, plan->options.group_count > 1 ? "; of all entries, " : "; ", ERR_CONFIG);
}

static int fill_shares(struct mix *mix) {
    const struct plan_options *options = &mix->plan->options;
    double sum = 0;
    for (size_t g = 0; g < mix->groups; g++) {
        double weight = options->groups[g].split == SPLIT_VALIDATION ? 0 : options->groups[g].weight;
        if (weight > 0 && mix->group[g].count == 0) return refuse_share(mix->plan, g);
        mix->group[g].share = weight;
        sum += weight;
    }
    for (size_t g = 0; g < mix->groups; g++) mix->group[g].share /= sum;
    return 0;
}

/* The entry that lacks most of its share. */
static struct queue_of_group *most_lacking(const struct mix *mix) {
    struct queue_of_group *found = NULL;
    double most = 0;
    for (size_t g = 0; g < mix->groups; g++) {
        struct queue_of_group *group = &mix->group[g];
        if (!(group->share > 0)) continue;
        double lacks = group->share * (double)mix->tokens - (double)group->tokens;
        if (!found || lacks > most) found = group, most = lacks;
    }
    return found;
}

static bool all_used_up(const struct mix *mix) {
    for (size_t g = 0; g < mix->groups; g++)
        if (mix->group[g].share > 0 && mix->group[g].rounds == 0) return false;
    return true;
}

static int interleave(struct mix *mix) {
    const struct plan_options *options = &mix->plan->options;
    for (;;) {
        struct queue_of_group *group = most_lacking(mix);
        if (!group) return 0; /* no entry for training */
        uint32_t document = group->document[group->next++];
        TRY(take(mix, document));
        uint64_t tokens = plan_stored(mix->plan, document);
        group->tokens += tokens;
        mix->tokens += tokens;
        if (group->next < group->count) continue;
        group->next = 0;
        group->rounds++;
        if (options->stopping == STOPPING_FIRST_EXHAUSTED || all_used_up(mix)) return 0;
        if (group->rounds == PLAN_ROUNDS_MAX)
            return err_set(ERR_CONFIG,
                           "dataset.sources: %s would be repeated more than %d times until the others are used up; give it less "
                           "weight, or set dataset.stopping_strategy to first_exhausted",
                           options->groups[group - mix->group].name, PLAN_ROUNDS_MAX);
    }
}

/* What no turn came for. */
static int drop_rest(struct mix *mix) {
    for (size_t g = 0; g < mix->groups; g++) {
        const struct queue_of_group *group = &mix->group[g];
        if (group->rounds) continue;
        for (size_t i = group->next; i < group->count; i++) TRY(plan_drop(mix->plan, "weight", group->document[i], NO_DOCUMENT));
    }
    return 0;
}

static int by_weight(struct mix *mix) {
    mix->groups = mix->plan->options.group_count;
    mix->group = mem_alloc((mix->groups + 1) * sizeof *mix->group);
    int code = fill_groups(mix);
    if (code == 0) code = fill_shares(mix);
    if (code == 0) code = interleave(mix);
    if (code == 0) code = drop_rest(mix);
    for (size_t g = 0; g < mix->groups; g++) free(mix->group[g].document);
    free(mix->group);
    return code;
}

static void count_group(const struct mix *mix, bool validation) {
    for (size_t i = 0; i < mix->count; i++) {
        Millrace__ManifestGroup *group = &mix->plan->group[document_group(mix->plan, mix->order[i])];
        uint64_t tokens = plan_stored(mix->plan, mix->order[i]);
        if (validation) group->validation_documents++, group->validation_tokens += tokens;
        else group->train_documents++, group->train_tokens += tokens;
    }
}

int plan_mix(struct dataset_plan *plan, uint32_t **out, size_t *out_count, bool validation) {
    struct mix mix = {.plan = plan};
    int code = !validation && weighted(&plan->options) ? by_weight(&mix) : in_source_order(&mix, validation ? SIDE_VALIDATION : SIDE_TRAIN);
    if (code < 0) {
        free(mix.order);
        return code;
    }
    count_group(&mix, validation);
    *out = mix.order;
    *out_count = mix.count;
    return 0;
}

/* ---- Which rests share a sequence: best-fit decreasing ----
 *
 * Items are sorted by counting, bins wait in one queue for each amount of room, and a tree of bits tells which queues are not
 * empty. Knows nothing of documents. */

/* A set of numbers below 64^BIT_LEVELS: bit i of a level says whether word i of the level below has any bit. */
enum { BIT_LEVELS = 4 };
_Static_assert(1 << 6 * BIT_LEVELS > 4 << 20, "a sequence is at most a frame (dataset/shard/shard_index.h)");

struct bits {
    uint64_t *level[BIT_LEVELS];
};

enum { NO_BIN = UINT32_MAX };

struct bins {
    uint32_t capacity, count;
    uint32_t *room;           /* of each bin */
    uint32_t *next;           /* the bin behind it in its queue */
    uint32_t *head, *tail;    /* of the queue for each amount of room */
    struct bits filled;       /* queues with a bin */
};

static int bits_open(struct bits *bits, size_t numbers) {
    for (int l = 0; l < BIT_LEVELS; l++) {
        numbers = numbers / 64 + 1;
        TRY(mem_try(&bits->level[l], numbers, sizeof(uint64_t)));
    }
    return 0;
}

static void bits_set(struct bits *bits, uint32_t i) {
    for (int l = 0; l < BIT_LEVELS; l++, i /= 64) bits->level[l][i / 64] |= UINT64_C(1) << i % 64;
}

static void bits_clear(struct bits *bits, uint32_t i) {
    for (int l = 0; l < BIT_LEVELS; l++, i /= 64) {
        bits->level[l][i / 64] &= ~(UINT64_C(1) << i % 64);
        if (bits->level[l][i / 64]) return;
    }
}

/* The smallest member at or above i that is at most `last`; false: there is none. */
static bool bits_next(const struct bits *bits, uint32_t *out, uint32_t i, uint32_t last) {
    for (int l = 0; l < BIT_LEVELS; l++) {
        if (i > last >> 6 * l) return false;
        uint64_t word = bits->level[l][i / 64] >> i % 64;
        if (word) {
            i += (uint32_t)__builtin_ctzll(word);
            while (l-- > 0) i = i * 64 + (uint32_t)__builtin_ctzll(bits->level[l][i]);
            *out = i;
            return true;
        }
        i = i / 64 + 1;
    }
    return false;
}

static void put_in_queue(struct bins *bins, uint32_t bin) {
    uint32_t room = bins->room[bin];
    bins->next[bin] = NO_BIN;
    if (bins->head[room] == NO_BIN) bins->head[room] = bin, bits_set(&bins->filled, room);
    else bins->next[bins->tail[room]] = bin;
    bins->tail[room] = bin;
}

static uint32_t take_from_queue(struct bins *bins, uint32_t room) {
    uint32_t bin = bins->head[room];
    bins->head[room] = bins->next[bin];
    if (bins->head[room] == NO_BIN) bits_clear(&bins->filled, room);
    return bin;
}

static uint32_t place(struct bins *bins, uint32_t size) {
    uint32_t room, bin;
    if (bits_next(&bins->filled, &room, size, bins->capacity)) {
        bin = take_from_queue(bins, room);
    } else {
        bin = bins->count++;
        bins->room[bin] = bins->capacity;
    }
    bins->room[bin] -= size;
    if (bins->room[bin]) put_in_queue(bins, bin);
    return bin;
}

/* sorted[] gets the items, the longest first. */
static int sort_items(uint32_t *sorted, const uint32_t *size, size_t count, uint32_t capacity) {
    size_t *begin; /* where items of each length begin */
    TRY(mem_try(&begin, (size_t)capacity + 2, sizeof *begin));
    for (size_t i = 0; i < count; i++) begin[size[i]]++;
    for (size_t length = capacity, at = 0; length + 1 > 0; length--) {
        size_t items = begin[length];
        begin[length] = at;
        at += items;
    }
    for (size_t i = 0; i < count; i++) sorted[begin[size[i]]++] = (uint32_t)i;
    free(begin);
    return 0;
}

static int bins_open(struct bins *bins, size_t bins_max, uint32_t capacity) {
    bins->capacity = capacity;
    TRY(mem_try(&bins->room, bins_max, sizeof(uint32_t)));
    TRY(mem_try(&bins->next, bins_max, sizeof(uint32_t)));
    TRY(mem_try(&bins->head, (size_t)capacity + 1, sizeof(uint32_t)));
    TRY(mem_try(&bins->tail, (size_t)capacity + 1, sizeof(uint32_t)));
    for (size_t i = 0; i <= capacity; i++) bins->head[i] = NO_BIN;
    return bits_open(&bins->filled, (size_t)capacity + 1);
}

static void bins_close(struct bins *bins) {
    free(bins->room);
    free(bins->next);
    free(bins->head);
    free(bins->tail);
    for (int l = 0; l < BIT_LEVELS; l++) free(bins->filled.level[l]);
}

/* size[count], each 0 (no item) to capacity. Puts every item into a bin: the longest first, at equal length the first; into the bin with
 * the least room that has enough, of equal ones the one that has had that much room for longest; else into a new one. bin[count] gets the
 * number of each item's bin, counted as they were opened; *out_bins how many there are. Fast for millions: a step is a search in a tree of
 * bits over the amounts of room. Fails with ERR_MEMORY alone. */
static int best_fit(uint32_t *bin, size_t *out_bins, const uint32_t *size, size_t count, uint32_t capacity) {
    CHECK(count < NO_BIN);
    struct bins bins = {0};
    uint32_t *sorted;
    TRY(mem_try(&sorted, count, sizeof *sorted));
    int code = bins_open(&bins, count, capacity);
    if (code == 0) code = sort_items(sorted, size, count, capacity);
    for (size_t i = 0; code == 0 && i < count && size[sorted[i]] > 0; i++) bin[sorted[i]] = place(&bins, size[sorted[i]]);
    if (code == 0) *out_bins = bins.count;
    bins_close(&bins);
    free(sorted);
    return code;
}

/* ---- Where each token lies ----
 *
 * Chunks, each with its position. concat and pad are one pass; best_fit puts whole sequences of a
 * document where it comes, and its rest into the sequence that best_fit() chose. */

uint64_t plan_stored(const struct dataset_plan *plan, size_t document) {
    uint64_t tokens = document_tokens(plan, document), T = plan->options.sequence_length;
    switch (plan->options.packing) {
    case PACKING_PAD: return tokens < T ? tokens + 1 : T;
    case PACKING_BEST_FIT: return tokens % T ? tokens + 1 : tokens;
    default: return tokens + 1;
    }
}

/* Of a document in best_fit: the tokens that fill whole sequences. */
static uint64_t whole_tokens(const struct dataset_plan *plan, uint64_t stored) {
    uint64_t T = plan->options.sequence_length;
    return stored / T * T;
}

uint64_t plan_chunk_tokens(const struct dataset_plan *plan, const struct chunk *chunk) {
    uint64_t stored = plan_stored(plan, chunk->document), whole = whole_tokens(plan, stored);
    bool only_whole = plan->options.packing == PACKING_BEST_FIT && chunk->token == 0 && whole > 0;
    return (only_whole ? whole : stored) - chunk->token;
}

/* concat and pad. */

static uint64_t one_after_the_other(struct dataset_plan *plan, struct split *split, const uint32_t *order, size_t count,
                                    uint32_t first_number) {
    bool pad = plan->options.packing == PACKING_PAD;
    uint64_t position = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t stored = plan_stored(plan, order[i]), tokens = document_tokens(plan, order[i]);
        split->chunk[split->chunks++] = (struct chunk){.position = position, .document = order[i], .number = first_number + (uint32_t)i};
        position += pad ? plan->options.sequence_length : stored;
        if (pad) split->padding += plan->options.sequence_length - stored;
        if (stored < tokens) plan->truncated_documents++, plan->truncated_tokens += tokens - stored;
    }
    return position;
}

/* best_fit. */

struct fitting {
    uint32_t *rest;           /* of each document in order: tokens that do not fill a sequence */
    uint32_t *bin;            /* where that goes */
    size_t bins;
    uint64_t *place;          /* of each bin: the next free token's position; 0 sequences yet: NO_PLACE */
};
#define NO_PLACE UINT64_MAX

static int fit(struct fitting *fitting, const struct dataset_plan *plan, const uint32_t *order, size_t count) {
    uint64_t T = plan->options.sequence_length;
    TRY(mem_try(&fitting->rest, count, sizeof(uint32_t)));
    TRY(mem_try(&fitting->bin, count, sizeof(uint32_t)));
    for (size_t i = 0; i < count; i++) fitting->rest[i] = (uint32_t)(plan_stored(plan, order[i]) % T);
    TRY(best_fit(fitting->bin, &fitting->bins, fitting->rest, count, (uint32_t)T));
    TRY(mem_try(&fitting->place, fitting->bins, sizeof(uint64_t)));
    for (size_t b = 0; b < fitting->bins; b++) fitting->place[b] = NO_PLACE;
    return 0;
}

static int by_position(const void *left, const void *right) {
    const struct chunk *a = left, *b = right;
    return (a->position > b->position) - (a->position < b->position);
}

/* Chunks hold the place in the order where their number belongs: a rest may come before the document's beginning. */
static int give_numbers(struct split *split, size_t count, uint32_t first_number) {
    uint32_t *number;
    TRY(mem_try(&number, count, sizeof *number));
    for (size_t i = 0; i < split->chunks; i++)
        if (split->chunk[i].token == 0) number[split->chunk[i].number] = first_number++;
    for (size_t i = 0; i < split->chunks; i++) split->chunk[i].number = number[split->chunk[i].number];
    free(number);
    return 0;
}

static uint64_t lay_fitted(struct dataset_plan *plan, struct split *split, const struct fitting *fitting, const uint32_t *order,
                           size_t count) {
    uint64_t T = plan->options.sequence_length, position = 0, used = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t stored = plan_stored(plan, order[i]), whole = whole_tokens(plan, stored);
        used += stored;
        if (whole) {
            split->chunk[split->chunks++] = (struct chunk){.position = position, .document = order[i], .number = (uint32_t)i};
            position += whole;
        }
        if (!fitting->rest[i]) continue;
        uint64_t *place = &fitting->place[fitting->bin[i]];
        if (*place == NO_PLACE) {
            *place = position;
            position += T;
        }
        split->chunk[split->chunks++] = (struct chunk){.position = *place, .token = whole, .document = order[i], .number = (uint32_t)i};
        *place += fitting->rest[i];
    }
    split->padding = position - used;
    return position;
}

static int fitted(struct dataset_plan *plan, struct split *split, uint64_t *out_tokens, const uint32_t *order, size_t count,
                  uint32_t first_number) {
    struct fitting fitting = {0};
    int code = fit(&fitting, plan, order, count);
    if (code == 0) {
        *out_tokens = lay_fitted(plan, split, &fitting, order, count);
        qsort(split->chunk, split->chunks, sizeof *split->chunk, by_position);
        code = give_numbers(split, count, first_number);
    }
    free(fitting.rest);
    free(fitting.bin);
    free(fitting.place);
    return code;
}

int plan_layout(struct dataset_plan *plan, const uint32_t *order, size_t count, bool validation) {
    struct split *split = &plan->split[validation];
    uint32_t first_number = validation ? (uint32_t)plan->split[0].totals.documents : 0;
    bool fits = plan->options.packing == PACKING_BEST_FIT;
    TRY(mem_try(&split->chunk, (fits ? 2 * count : count) + 1, sizeof *split->chunk));
    uint64_t tokens = 0;
    if (fits) TRY(fitted(plan, split, &tokens, order, count, first_number));
    else tokens = one_after_the_other(plan, split, order, count, first_number);
    split->chunk[split->chunks] = (struct chunk){.position = tokens, .document = NO_DOCUMENT};
    split->totals.documents = count;
    split->totals.tokens = tokens;
    split->totals.sequences = sequences_in(tokens, plan->options.sequence_length, plan->options.packing != PACKING_CONCAT);
    split->totals.shards = tokens / plan->shard_tokens + (tokens % plan->shard_tokens != 0);
    return 0;
}
