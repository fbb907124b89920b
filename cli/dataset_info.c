/* `millrace dataset info`: what a dataset holds, by numbers. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/plain.h"
#include "cli/dataset_commands.h"
#include "cli/follow.h"
#include "cli/output.h"
#include "dataset/ingest/left_out.h"

/* ---- JSON ---- */

static json_t *split_json(struct split_counts counts) {
    json_t *object = json_object();
    json_set_count(object, "documents", counts.documents);
    json_set_count(object, "tokens", counts.tokens);
    json_set_count(object, "sequences", counts.sequences);
    json_set_count(object, "shards", counts.shards);
    return object;
}

static json_t *counts_left_out(const struct manifest *m) {
    json_t *object = json_object();
    for (size_t i = 0; i < m->drops; i++) json_set_count(object, m->dropped[i]->reason, m->dropped[i]->documents);
    return object;
}

static bool has_tokenizer_digest(const struct manifest *m) {
    for (size_t i = 0; i < SHA256_BYTES; i++)
        if (m->tokenizer_digest[i]) return true;
    return false;
}

static json_t *info_json(const struct opened *opened) {
    const struct manifest *m = &opened->manifest;
    json_t *object = split_json((struct split_counts){m->documents, m->tokens, m->sequences, m->shards});
    json_set_digest(object, "digest", m->digest);
    json_object_set_new(object, "train", split_json(split_counts(m, false)));
    json_object_set_new(object, "validation", split_json(split_counts(m, true)));
    json_set_count(object, "sequence_length", m->sequence_length);
    json_set_text(object, "packing", m->packing);
    json_object_set_new(object, "document_mask", json_boolean(m->document_mask));
    json_set_count(object, "padding", m->padding);
    json_set_count(object, "truncated_documents", m->truncated_documents);
    json_set_count(object, "truncated_tokens", m->truncated_tokens);
    json_set_count(object, "token_bytes", m->token_bytes);
    json_set_count(object, "eos", m->eos);
    json_set_text(object, "tokenizer", m->tokenizer);
    if (has_tokenizer_digest(m)) json_set_digest(object, "tokenizer_digest", m->tokenizer_digest);
    json_set_text(object, "policy", m->policy);
    json_set_count(object, "source_files", m->sources);
    json_object_set_new(object, "sources", opened_groups_json(opened));
    json_set_count(object, "empty_documents", m->empty_documents);
    json_set_count(object, "replaced", m->replaced);
    json_object_set_new(object, "left_out", counts_left_out(m));
    json_object_set_new(object, "account", left_out_json(m->account, m->dropped, m->drops));
    return object;
}

/* ---- for people ---- */

static void print_counts(const char *name, struct split_counts c) {
    printf("  %-12s %12s %14s %12s %8s\n", name, text_count(c.documents), text_count(c.tokens), text_count(c.sequences),
           text_count(c.shards));
}

static void print_left_out(const struct manifest *m) {
    if (m->drops == 0) return;
    printf("  left out");
    for (size_t i = 0; i < m->drops; i++) printf("%s %s %s", i ? "," : ":", m->dropped[i]->reason, text_count(m->dropped[i]->documents));
    printf(" ('millrace dataset inspect' shows examples)\n");
}

static void print_info(const struct opened *opened) {
    const struct manifest *m = &opened->manifest;
    char digest[SHA256_HEX];
    hex_of(digest, m->digest, SHA256_BYTES);
    printf("%s\n  %-12s %12s %14s %12s %8s\n", opened->folder, "", "documents", "tokens", "sequences", "shards");
    print_counts("training", split_counts(m, false));
    print_counts("validation", split_counts(m, true));
    print_counts("together", (struct split_counts){m->documents, m->tokens, m->sequences, m->shards});
    if (m->groups > 1) opened_print_groups(opened);
    printf("  from %s source file%s; %s document%s without a token; %s ill-formed UTF-8 sequence%s replaced\n", text_count(m->sources),
           plural(m->sources), text_count(m->empty_documents), plural(m->empty_documents), text_count(m->replaced), plural(m->replaced));
    print_left_out(m);
    printf("  sequences of %s token%s, packing %s%s", text_count(m->sequence_length), plural(m->sequence_length), m->packing,
           m->document_mask ? ", document mask" : "");
    if (m->padding) printf("; %s token%s of padding", text_count(m->padding), plural(m->padding));
    if (m->truncated_documents)
        printf("; %s document%s cut by %s token%s", text_count(m->truncated_documents), plural(m->truncated_documents),
               text_count(m->truncated_tokens), plural(m->truncated_tokens));
    printf("\n  tokenizer %s, %" PRIu32 " bytes a token, end of text %" PRIu32 "\n", m->tokenizer ? m->tokenizer : "not told",
           m->token_bytes, m->eos);
    if (m->policy) printf("  %s\n", m->policy);
    printf("  digest %s\n", digest);
}

int opened_show(const struct opened *opened, bool json) {
    if (json) return output_json(info_json(opened));
    print_info(opened);
    return 0;
}

int cmd_dataset_info(int argc, char **argv) {
    bool json = false;
    const struct option_spec options[] = {OPTION_JSON(&json), {0}};
    static const struct usage usage = {
        "dataset info",
        "DIR [OPTIONS]",
        "Counts, sources, packing and digest of a dataset. DIR is a run's output_dir, or the dataset folder in it.",
        "millrace dataset info runs/example --json",
        1,
        1};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    struct opened opened;
    TRY(opened_open(&opened, arguments[0]));
    code = opened_show(&opened, json);
    opened_close(&opened);
    return code;
}
