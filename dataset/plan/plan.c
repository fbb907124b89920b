/* Makes a plan by calling its steps: plan_documents() and plan_splits() (dataset/plan/documents.c), plan_mix() and plan_layout()
 * (layout.c), plan_check_jobs() (jobs.c); between them it checks the whole. Then it answers for the finished plan: totals, and the fields
 * of the manifest. No text, no tokens, no clock. */
#include "dataset/plan/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "dataset/ingest/left_out.h"
#include "dataset/plan/inside.h"
#include "dataset/shard/manifest.h"
#include "dataset/shard/shard_index.h"
#include "proto/body.h"

/* ---- Making ---- */

static int check_options(const struct plan_options *options) {
    uint64_t least = options->packing == PACKING_CONCAT ? 1 : 2;
    CHECK(options->token_bytes == 2 || options->token_bytes == 4);
    CHECK(options->token_bytes == 4 || options->eos <= UINT16_MAX);
    if (options->sequence_length < least || options->sequence_length > SHARD_FRAME_TOKENS_MAX)
        return err_set(ERR_CONFIG, "dataset.sequence_length %" PRIu64 " is not in %" PRIu64 " to %d", options->sequence_length, least,
                       SHARD_FRAME_TOKENS_MAX);
    if (!(options->validation_fraction >= 0 && options->validation_fraction <= 1))
        return err_set(ERR_CONFIG, "dataset.validation_fraction %s is not in 0 to 1", text_real(options->validation_fraction));
    if (options->runs > UINT32_MAX) return err_set(ERR_CONFIG, "%zu tokenize jobs are more than can be numbered", options->runs);
    return 0;
}

static int refuse_members(const struct dataset_plan *plan) {
    struct buf text = {0};
    int code = 0;
    for (size_t g = 0; g < plan->options.group_count; g++)
        for (size_t i = 0; code == 0 && i < plan->options.groups[g].members.count; i++)
            code = buf_print(&text, "%s\"%s\"", text.size ? ", " : "", plan->options.groups[g].members.item[i]);
    uint64_t members = plan->account.other_members;
    if (code == 0)
        code = err_set(ERR_CONFIG,
                       "the sources have no text: in dataset.sources, members %s matches none of the archives' %" PRIu64
                       " member%s (first: %s); name others, or leave `members` out to take all",
                       text.size ? (char *)text.data : "", members, plural(members), plan->first_other);
    buf_free(&text);
    return code;
}

static int refuse_for(const struct dataset_plan *plan, int code) { return plan_refuse(plan, "; ", code); }

static int check_training(const struct dataset_plan *plan) {
    const struct split_totals *train = &plan->split[0].totals, *validation = &plan->split[1].totals;
    uint64_t T = plan->options.sequence_length;
    if (train->tokens == 0 && validation->tokens == 0) {
        if (plan->drops)
            return refuse_for(plan, err_set(ERR_CONFIG, "the sources have no text that may stay: every document was empty or left out"));
        if (plan->account.read_documents == 0 && plan->first_other) return refuse_members(plan);
        return err_set(ERR_CONFIG, "the sources have no text: every file is empty; point dataset.sources at files with text");
    }
    if (train->tokens == 0)
        return refuse_for(plan, err_set(ERR_CONFIG, "no text is left for training: with dataset.validation_fraction %s every document is "
                                        "held out; set validation_fraction to 0 or add documents",
                                        text_real(plan->options.validation_fraction)));
    if (train->sequences == 0)
        return refuse_for(plan, err_set(ERR_CONFIG, "the training text has %" PRIu64 " token%s; one sequence of dataset.sequence_length "
                                        "needs %" PRIu64 ": add text, or make dataset.sequence_length smaller", train->tokens,
                                        plural(train->tokens), T + 1));
    return 0;
}

static int make_groups(struct dataset_plan *plan) {
    static const char *const split[] = {[SPLIT_BY_DIGEST] = "", [SPLIT_TRAIN] = "train", [SPLIT_VALIDATION] = "validation"};
    const struct plan_options *options = &plan->options;
    TRY(mem_try(&plan->group, options->group_count, sizeof *plan->group));
    for (size_t g = 0; g < options->group_count; g++) {
        millrace__manifest_group__init(&plan->group[g]);
        plan->group[g].name = mem_text(options->groups[g].name);
        plan->group[g].weight = options->groups[g].weight;
        plan->group[g].split = mem_text(split[options->groups[g].split]);
    }
    return 0;
}

static int lay_out(struct dataset_plan *plan) {
    for (int validation = 0; validation < 2; validation++) {
        uint32_t *order = NULL;
        size_t count;
        TRY(plan_mix(plan, &order, &count, validation));
        int code = plan->split[0].totals.documents + count < NO_DOCUMENT ? 0 : err_set(ERR_LIMIT, "more than %u documents", NO_DOCUMENT);
        if (code == 0) code = plan_layout(plan, order, count, validation);
        free(order);
        TRY(code);
    }
    uint64_t shards = plan->split[0].totals.shards + plan->split[1].totals.shards;
    if (shards <= MANIFEST_SHARDS_MAX) return 0;
    return err_set(ERR_CONFIG, "with dataset.shard_tokens %" PRIu64 " this dataset has %s shards, and may have %s; make it larger",
                   plan->options.shard_tokens, text_count(shards), text_count(MANIFEST_SHARDS_MAX));
}

static int make(struct dataset_plan *plan) {
    TRY(make_groups(plan));
    TRY(plan_documents(plan));
    TRY(left_out_check(&plan->account, plan->dropped, plan->drops, plan->options.max_left_out));
    TRY(plan_splits(plan));
    free(plan->digest);
    plan->digest = NULL;
    TRY(lay_out(plan));
    plan_end_account(plan);
    TRY(check_training(plan));
    return plan_check_jobs(plan);
}

int dataset_plan_from_runs(struct dataset_plan **out, const struct plan_options *options) {
    TRY(check_options(options));
    struct dataset_plan *plan = mem_alloc(sizeof *plan);
    plan->options = *options;
    millrace__account__init(&plan->account);
    millrace__ill_formed__init(&plan->ill_formed);
    plan->frame_tokens = frame_tokens_for(options->sequence_length);
    plan->shard_tokens = shard_tokens_for(options->shard_tokens, options->sequence_length);
    int code = make(plan);
    if (code < 0) {
        dataset_plan_free(plan);
        return code;
    }
    *out = plan;
    return 0;
}

void dataset_plan_free(struct dataset_plan *plan) {
    if (!plan) return;
    for (size_t g = 0; plan->group && g < plan->options.group_count; g++) {
        free(plan->group[g].name);
        free(plan->group[g].split);
    }
    free(plan->group);
    plan_free_drops(plan->dropped, plan->drops);
    free(plan->first_other);
    if (plan->ill_formed.files) free(plan->ill_formed.first);
    for (int i = 0; i < 2; i++) free(plan->split[i].chunk);
    free(plan->document);
    free(plan->piece);
    free(plan->digest);
    free(plan->change);
    free(plan->name);
    buf_free(&plan->names);
    free(plan);
}

/* ---- What it says ---- */

struct split_totals dataset_plan_totals(const struct dataset_plan *plan, bool validation) { return plan->split[validation].totals; }

static void *copy_of(const ProtobufCMessage *message) {
    ProtobufCMessage *copy;
    CHECK(body_copy(&copy, message) == 0); /* a few hundred bytes, of which the plan holds millions */
    return copy;
}

void dataset_plan_describe(const struct dataset_plan *plan, struct manifest *m) {
    static const char *const packing[] = {[PACKING_CONCAT] = "concat", [PACKING_PAD] = "pad", [PACKING_BEST_FIT] = "best_fit"};
    const struct split_totals *train = &plan->split[0].totals, *validation = &plan->split[1].totals;
    m->token_bytes = plan->options.token_bytes;
    m->eos = plan->options.eos;
    m->packing = mem_text(packing[plan->options.packing]);
    m->sequence_length = plan->options.sequence_length;
    m->frame_tokens = plan->frame_tokens;
    m->shard_tokens = plan->shard_tokens;
    m->documents = train->documents + validation->documents;
    m->tokens = train->tokens + validation->tokens;
    m->sequences = train->sequences + validation->sequences;
    m->train_documents = train->documents, m->train_tokens = train->tokens, m->train_sequences = train->sequences;
    m->train_shards = (size_t)train->shards;
    m->shards = (size_t)(train->shards + validation->shards);
    m->empty_documents = plan->empty_documents;
    m->replaced = plan->replaced;
    m->truncated_documents = plan->truncated_documents;
    m->truncated_tokens = plan->truncated_tokens;
    m->padding = plan->split[0].padding + plan->split[1].padding;
    if (plan->account.read_bytes) m->account = copy_of(&plan->account.base);
    if (plan->ill_formed.files) m->ill_formed = copy_of(&plan->ill_formed.base);
    m->groups = plan->options.group_count;
    m->group = mem_alloc((m->groups + 1) * sizeof *m->group);
    for (size_t g = 0; g < m->groups; g++) m->group[g] = copy_of(&plan->group[g].base);
    m->drops = plan->drops;
    m->dropped = mem_alloc((m->drops + 1) * sizeof *m->dropped);
    for (size_t i = 0; i < m->drops; i++) m->dropped[i] = copy_of(&plan->dropped[i]->base);
}
