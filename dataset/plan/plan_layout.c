/* Where the documents of a split lie: chunks, each with its position. concat and pad are one pass; best_fit puts whole sequences of a
 * document where it comes, and its rest into the sequence that best_fit() chose. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/plan/plan_best_fit.h"
#include "dataset/plan/plan_internal.h"

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

/* ---- concat, pad ---- */

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

/* ---- best_fit ---- */

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

/* ---- All ---- */

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
    if (split->totals.shards > UINT32_MAX) return err_set(ERR_CONFIG, "too many shards; make dataset.shard_tokens larger");
    return 0;
}
