/* The plan of a dataset: documents from the runs' tables, then which of them stay, on which side, in which order, at which place; pack jobs
 * follow. This file goes from one to the next and says what is wrong with the whole; each part has a file. No text, no tokens, no clock. */
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
#include "dataset/shard/shard_index.h"

/* ---- Making ---- */

static int check_options(const struct plan_options *options) {
    uint64_t least = options->packing == PACKING_CONCAT ? 1 : 2;
    CHECK(options->token_bytes == 2 || options->token_bytes == 4);
    CHECK(options->token_bytes == 4 || options->eos <= UINT16_MAX);
    if (options->sequence_length < least || options->sequence_length > SHARD_FRAME_TOKENS_MAX)
        return err_set(ERR_CONFIG, "dataset.sequence_length %" PRIu64 " is not in %" PRIu64 " to %d", options->sequence_length, least,
                       SHARD_FRAME_TOKENS_MAX);
    if (!(options->validation_fraction >= 0 && options->validation_fraction <= 1))
        return err_set(ERR_CONFIG, "dataset.validation_fraction %g is not in 0 to 1", options->validation_fraction);
    if (options->runs > UINT32_MAX) return err_set(ERR_CONFIG, "%zu tokenize jobs are more than can be numbered", options->runs);
    return 0;
}

static int check_training(const struct dataset_plan *plan) {
    const struct split_totals *train = &plan->split[0].totals, *validation = &plan->split[1].totals;
    uint64_t T = plan->options.sequence_length;
    if (train->tokens == 0 && validation->tokens == 0) {
        const Millrace__Dropped *dropped = plan->drops ? plan->dropped[0] : NULL;
        if (dropped)
            return err_set(ERR_CONFIG,
                           "the sources have no text that may stay: every document was empty or left out, %" PRIu64 " for \"%s\"",
                           dropped->documents, dropped->reason);
        return err_set(ERR_CONFIG, "the sources have no text: every file is empty; point dataset.sources at files with text");
    }
    if (train->tokens == 0)
        return err_set(ERR_CONFIG, "no text is left for training: with dataset.validation_fraction %g every document is held out; set "
                       "validation_fraction to 0 or add documents", plan->options.validation_fraction);
    if (train->sequences == 0)
        return err_set(ERR_CONFIG, "the training text has %" PRIu64 " token%s; one sequence of dataset.sequence_length needs %" PRIu64
                       ": add text, or make dataset.sequence_length smaller", train->tokens, plural(train->tokens), T + 1);
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
    return 0;
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
    struct buf packed = {0};
    CHECK(buf_reserve(&packed, protobuf_c_message_get_packed_size(message)) == 0);
    packed.size = protobuf_c_message_pack(message, packed.data);
    ProtobufCMessage *copy = protobuf_c_message_unpack(message->descriptor, NULL, packed.size, packed.data);
    buf_free(&packed);
    CHECK(copy);
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
    m->groups = plan->options.group_count;
    m->group = mem_alloc((m->groups + 1) * sizeof *m->group);
    for (size_t g = 0; g < m->groups; g++) m->group[g] = copy_of(&plan->group[g].base);
    m->drops = plan->drops;
    m->dropped = mem_alloc((m->drops + 1) * sizeof *m->dropped);
    for (size_t i = 0; i < m->drops; i++) m->dropped[i] = copy_of(&plan->dropped[i]->base);
}

/* ---- The account of what was read ----
 *
 * Holds documents that are left out, with counts and the first few examples of each reason, and those that stay.
 * Reasons are sorted by name, so that nothing depends on how runs were cut. */

/* The entry of a reason, made where there is none. */
static int find(Millrace__Dropped **out, struct dataset_plan *plan, const char *reason) {
    size_t low = 0, high = plan->drops;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(plan->dropped[middle]->reason, reason);
        if (order == 0) {
            *out = plan->dropped[middle];
            return 0;
        }
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    TRY(plan_grow(&plan->dropped, plan->drops, &plan->drops_max, sizeof(Millrace__Dropped *)));
    memmove(&plan->dropped[low + 1], &plan->dropped[low], (plan->drops++ - low) * sizeof(Millrace__Dropped *));
    Millrace__Dropped *entry = plan->dropped[low] = mem_alloc(sizeof *entry);
    millrace__dropped__init(entry);
    entry->reason = mem_text(reason);
    entry->examples = mem_alloc(PLAN_EXAMPLES_MAX * sizeof *entry->examples);
    *out = entry;
    return 0;
}

/* Takes the texts, which may be NULL. */
static void add_example(Millrace__Dropped *entry, char *source, uint64_t offset, uint64_t line, char *detail, char *text) {
    Millrace__Example *example = entry->examples[entry->n_examples++] = mem_alloc(sizeof *example);
    millrace__example__init(example);
    example->source = source;
    example->offset = offset, example->line = line;
    if (detail) example->detail = detail;
    if (text) example->text = text;
}

/* Lines are counted from where the run's part of a file begins; those of the parts before it are in `lines`. A run with such a part has no
 * other one. */
int plan_take_drops(struct dataset_plan *plan, const Millrace__RunTable *table) {
    if (table->range_begin == 0) plan->lines = 0;
    for (size_t i = 0; i < table->n_dropped; i++) {
        const Millrace__Dropped *from = table->dropped[i];
        Millrace__Dropped *entry;
        TRY(find(&entry, plan, from->reason));
        plan->account.read_documents += from->documents;
        entry->documents += from->documents;
        entry->bytes += from->bytes;
        for (size_t k = 0; k < from->n_examples && entry->n_examples < PLAN_EXAMPLES_MAX; k++) {
            const Millrace__Example *example = from->examples[k];
            uint64_t line = example->line ? example->line + plan->lines : 0;
            add_example(entry, mem_text(example->source), example->offset, line, mem_text(example->detail), mem_text(example->text));
        }
    }
    plan->lines += table->lines;
    plan->account.read_bytes += table->read_bytes;
    plan->account.around_bytes += table->around_bytes;
    plan->account.other_members += table->other_members;
    return 0;
}

/* The path, and the member if it is one. */
static char *place_text(const struct dataset_plan *plan, size_t d) {
    const struct document *document = &plan->document[d];
    const char *path = plan->options.source_path[document->source];
    if (!document->member) return mem_text(path);
    return mem_format("%s!%s", path, (const char *)plan->names.data + plan->name[document->member - 1]);
}

/* What it was before it was changed; NULL: it was not. */
static const struct change *change_of(const struct dataset_plan *plan, size_t document) {
    size_t low = 0, high = plan->changes;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (plan->change[middle].document < document) low = middle + 1;
        else high = middle;
    }
    return low < plan->changes && plan->change[low].document == document ? &plan->change[low] : NULL;
}

static uint64_t bytes_before(const struct dataset_plan *plan, size_t document) {
    const struct change *change = change_of(plan, document);
    return change ? change->bytes : document_bytes(plan, document);
}

void plan_end_account(struct dataset_plan *plan) {
    Millrace__Account *account = &plan->account;
    for (size_t d = 0, next = 0; d < plan->documents; d++) {
        bool changed = next < plan->changes && plan->change[next].document == d;
        uint64_t bytes = changed ? plan->change[next++].bytes : document_bytes(plan, d);
        if (plan->document[d].side == SIDE_OUT) continue;
        if (changed) account->changed_documents++, account->changed_bytes += bytes;
        else account->kept_documents++, account->kept_bytes += bytes;
    }
}

int plan_drop(struct dataset_plan *plan, const char *reason, size_t document, size_t like) {
    Millrace__Dropped *entry;
    TRY(find(&entry, plan, reason));
    entry->documents++;
    entry->bytes += bytes_before(plan, document);
    plan->document[document].side = SIDE_OUT;
    if (entry->n_examples == PLAN_EXAMPLES_MAX) return 0;
    char *detail = NULL;
    if (like != NO_DOCUMENT) {
        char *place = place_text(plan, like);
        detail = mem_format("as %s at %" PRIu64, place, document_offset(plan, like));
        free(place);
    }
    add_example(entry, place_text(plan, document), document_offset(plan, document), 0, detail, NULL);
    return 0;
}

void plan_free_drops(Millrace__Dropped **dropped, size_t drops) {
    for (size_t i = 0; i < drops; i++) millrace__dropped__free_unpacked(dropped[i], NULL);
    free(dropped);
}
