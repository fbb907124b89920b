/* The account of what was read: documents that are left out, with counts and the first few examples of each reason, and those that stay.
 * Reasons are sorted by name, so that nothing depends on how runs were cut. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/plan/plan_internal.h"

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
