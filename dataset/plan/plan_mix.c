/* The order of a split's documents. Without weights as they come; with weights the entries of dataset.sources take turns, so that at
 * any place each has had its share of the tokens so far. Shares are compared as doubles of exact integers, without a library's help: the
 * same on every machine. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/plan/plan_internal.h"

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

/* ---- Weights ---- */

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

static int fill_shares(struct mix *mix) {
    const struct plan_options *options = &mix->plan->options;
    double sum = 0;
    for (size_t g = 0; g < mix->groups; g++) {
        double weight = options->groups[g].split == SPLIT_VALIDATION ? 0 : options->groups[g].weight;
        if (weight > 0 && mix->group[g].count == 0)
            return err_set(ERR_CONFIG, "dataset.sources: %s has a weight, but no document of it is left for training",
                           options->groups[g].name);
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

/* ---- All ---- */

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
