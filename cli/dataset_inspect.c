/* `millrace dataset inspect`: what was left out of a dataset and why, with examples to look at, and what each source gave. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "cli/dataset_commands.h"
#include "cli/follow.h"
#include "cli/output.h"
#include "dataset/ingest/left_out.h"

/* "gopher_quality" asks for "gopher_quality: words" and all others of that filter, "gopher" also for those of gopher_repetition,
 * "gopher_quality: words" for that one alone. */
static bool asked_for(const char *reason, const char *wanted) {
    size_t length = wanted ? strlen(wanted) : 0;
    return !wanted || (strncmp(reason, wanted, length) == 0 && (reason[length] == 0 || strchr(":_", reason[length])));
}

static int check_reason(const struct manifest *m, const char *wanted) {
    struct buf known = {0};
    bool found = wanted == NULL;
    int code = 0;
    for (size_t i = 0; i < m->drops && code == 0; i++) {
        found = found || asked_for(m->dropped[i]->reason, wanted);
        code = buf_print(&known, "%s%s", i ? ", " : "", m->dropped[i]->reason);
    }
    if (code == 0 && !found)
        code = err_set(ERR_NOTFOUND, "--reason %s: no document was left out for that; the reasons here: %s", wanted,
                       m->drops ? (char *)known.data : "none");
    buf_free(&known);
    return code;
}

struct counts {
    uint64_t documents, bytes;
};

static struct counts left_out(const struct manifest *m) {
    struct counts all = {0};
    for (size_t i = 0; i < m->drops; i++) all.documents += m->dropped[i]->documents, all.bytes += m->dropped[i]->bytes;
    return all;
}

/* Of all documents that were looked at: those in the dataset, the empty ones, and those left out. */
static double share(const struct manifest *m, uint64_t documents) {
    uint64_t all = m->documents + m->empty_documents + left_out(m).documents;
    return all ? (double)documents / (double)all : 0;
}

/* ---- JSON ---- */

/* What is no text is not shown as one. */
static bool is_shown(const Millrace__Dropped *drop) { return strcmp(drop->reason, "binary") != 0; }

static json_t *drop_json(const struct manifest *m, const Millrace__Dropped *drop) {
    json_t *object = json_object(), *examples = json_array();
    json_set_text(object, "reason", drop->reason);
    json_set_count(object, "documents", drop->documents);
    json_set_count(object, "bytes", drop->bytes);
    json_object_set_new(object, "share", output_json_real(share(m, drop->documents)));
    for (size_t i = 0; i < drop->n_examples; i++) {
        const Millrace__Example *example = drop->examples[i];
        json_t *entry = json_object();
        json_set_text(entry, "source", example->source);
        json_set_count(entry, "offset", example->offset);
        if (example->line) json_set_count(entry, "line", example->line);
        json_set_text(entry, "detail", example->detail);
        json_set_text(entry, "text", is_shown(drop) ? example->text : "");
        json_array_append_new(examples, entry);
    }
    json_object_set_new(object, "examples", examples);
    return object;
}

static json_t *report_json(const struct opened *opened, const char *reason) {
    const struct manifest *m = &opened->manifest;
    json_t *object = json_object(), *drops = json_array();
    struct counts all = left_out(m);
    json_set_count(object, "documents", m->documents);
    json_set_count(object, "empty_documents", m->empty_documents);
    json_set_count(object, "left_out", all.documents);
    json_set_count(object, "left_out_bytes", all.bytes);
    json_object_set_new(object, "share", output_json_real(share(m, all.documents)));
    for (size_t i = 0; i < m->drops; i++)
        if (asked_for(m->dropped[i]->reason, reason)) json_array_append_new(drops, drop_json(m, m->dropped[i]));
    json_object_set_new(object, "reasons", drops);
    json_object_set_new(object, "account", left_out_json(m->account, m->dropped, m->drops));
    json_object_set_new(object, "sources", opened_groups_json(opened));
    return object;
}

/* ---- for people ---- */

/* The text on one line: well-formed, white space as blanks. */
static void print_line(const char *text) {
    json_t *clean = output_json_text(text, strlen(text));
    char *line = mem_text(json_string_value(clean));
    for (char *at = line; *at; at++)
        if (strchr("\t\n\v\f\r", *at)) *at = ' ';
    output_plain(stdout, line, strlen(line));
    free(line);
    json_decref(clean);
}

static void print_drop(const struct manifest *m, const Millrace__Dropped *drop) {
    printf("\n%s: %s document%s (%s), %s byte%s\n", drop->reason, text_count(drop->documents), plural(drop->documents),
           percent_text(share(m, drop->documents), 1), text_count(drop->bytes), plural(drop->bytes));
    for (size_t i = 0; i < drop->n_examples; i++) {
        const Millrace__Example *example = drop->examples[i];
        printf("  ");
        print_line(example->source);
        if (example->line) printf(":%" PRIu64, example->line);
        printf(", byte %" PRIu64, example->offset);
        if (example->detail[0]) printf(": "), print_line(example->detail);
        if (example->text[0] && is_shown(drop)) printf("\n    "), print_line(example->text);
        printf("\n");
    }
}

static void print_report(const struct opened *opened, const char *reason) {
    const struct manifest *m = &opened->manifest;
    struct counts all = left_out(m);
    printf("%s\n", opened->folder);
    opened_print_groups(opened);
    if (m->drops == 0) printf("\nleft out: nothing");
    else
        printf("\nleft out: %s document%s (%s), %s byte%s", text_count(all.documents), plural(all.documents),
               percent_text(share(m, all.documents), 1), text_count(all.bytes), plural(all.bytes));
    if (m->empty_documents) printf("; and %s document%s without a token", text_count(m->empty_documents), plural(m->empty_documents));
    printf("\n");
    for (size_t i = 0; i < m->drops && output_alive(); i++)
        if (asked_for(m->dropped[i]->reason, reason)) print_drop(m, m->dropped[i]);
}

int cmd_dataset_inspect(int argc, char **argv) {
    const char *reason = NULL;
    bool json = false;
    const struct option_spec options[] = {
        {"reason", 0, OPTION_TEXT, &reason, 0, 0, "NAME", "only this reason, or all of a filter: gopher_quality, or gopher for both"},
        OPTION_JSON(&json),
        {0},
    };
    static const struct usage usage = {
        "dataset inspect",
        "DIR [OPTIONS]",
        "What was left out of a dataset and why: how many documents, and how the first few of them begin.",
        "millrace dataset inspect runs/example\nmillrace dataset inspect runs/example --reason gopher --json",
        1,
        1};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    struct opened opened;
    TRY(opened_open(&opened, arguments[0]));
    code = check_reason(&opened.manifest, reason);
    if (code == 0 && json) code = output_json(report_json(&opened, reason));
    else if (code == 0) print_report(&opened, reason);
    opened_close(&opened);
    return code;
}
