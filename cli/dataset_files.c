/* `millrace dataset export` and `import`: a dataset's tokens to and from the files of other programs (dataset/convert/export.h,
 * dataset/convert/import.h).
 */
#include <inttypes.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/plain.h"
#include "cli/commands.h"
#include "cli/dataset_commands.h"
#include "cli/follow.h"
#include "cli/output.h"
#include "dataset/convert/export.h"
#include "dataset/convert/import.h"
#include "dataset/shard/manifest.h"
#include "dataset/source/sources.h"
#include "model/checkpoint/checkpoint.h"

enum { IMPORT_SHARD_TOKENS = 4194304 }; /* as dataset.shard_tokens */

/* Ctrl-C ends the work at its next look, so that nothing half-made stays behind. */
static volatile sig_atomic_t stopped;

static void on_signal(int number) {
    (void)number;
    stopped = 1;
}

static int look(void *arg) {
    (void)arg;
    return stopped;
}

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}; /* a second one ends the process */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Finds the word in names[], whose order is that of an enum. ERR_USAGE lists them. */
static int choose(int *out, const char *word, const char *const *names, int count, const char *option) {
    for (int i = 0; i < count; i++)
        if (strcmp(word, names[i]) == 0) {
            *out = i;
            return 0;
        }
    return err_set(ERR_USAGE, "%s %s: expected %s, %s or %s", option, word, names[0], names[1], names[2]);
}

/* `path` without links, as far as it is there. */
static char *resolve(const char *path) {
    char *real = realpath(path, NULL);
    if (real) return real;
    char *copy = mem_text(path), *last = mem_text(path);
    const char *above = dirname(copy);
    char *folder = strcmp(above, path) == 0 ? mem_text(path) : resolve(above);
    real = mem_format("%s/%s", folder, basename(last));
    free(folder);
    free(copy);
    free(last);
    return real;
}

/* Would what is written to `path` be among the files of a dataset or a run? It could take the place of one of them, or be taken for
 * one. `folder`: where it would lie. What is not there belongs to nobody, and is told by who writes. */
static int check_place(const char *path, const char *folder, const char *output) {
    static const struct {
        const char *name, *what;
    } others[] = {
        {MANIFEST_NAME, "a dataset"},
        {"millrace.db", "the state of a run"},
        {"../millrace.db", "the state of a run"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *other = mem_format("%s/%s", folder, others[i].name);
        bool there = file_exists(other);
        free(other);
        if (there) return err_set(ERR_USAGE, "--output %s: %s belongs to %s; choose another folder", output, folder, others[i].what);
    }
    if (checkpoint_is_own(folder)) return err_set(ERR_USAGE, "--output %s: %s is a checkpoint; choose another folder", output, folder);
    char *run = sources_writing_run(path);
    int code = run ? err_set(ERR_USAGE, "--output %s: the run whose output_dir is %s writes there; choose another place", output, run) : 0;
    free(run);
    return code;
}

static int check_export(const char *output) {
    char *copy = mem_text(output), *last = mem_text(output), *folder = resolve(dirname(copy));
    char *path = mem_format("%s/%s", folder, basename(last)); /* a link there is replaced, not followed */
    int code = check_place(path, folder, output);
    free(path);
    free(folder);
    free(last);
    free(copy);
    return code;
}

/* ---- export ---- */

static int report_export(const struct manifest *m, bool validation, const char *path, bool json) {
    struct split_counts counts = split_counts(m, validation);
    if (!json) {
        printf("%s: %s token%s of %" PRIu32 " bytes\n", path, text_count(counts.tokens), plural(counts.tokens), m->token_bytes);
        return 0;
    }
    json_t *object = json_object();
    json_set_text(object, "output", path);
    json_set_text(object, "split", validation ? "validation" : "train");
    json_set_count(object, "tokens", counts.tokens);
    json_set_count(object, "token_bytes", m->token_bytes);
    return output_json(object);
}

int cmd_dataset_export(int argc, char **argv) {
    static const char *const formats[] = {[TOKENS_RAW] = "bin", [TOKENS_LLMC] = "llmc", [TOKENS_NPY] = "npy"};
    const char *format = NULL, *path = NULL, *split = NULL;
    bool json = false, validation;
    const struct option_spec options[] = {
        {"format", 0, OPTION_TEXT, &format, 0, 0, "NAME", "bin: the ids alone, as nanoGPT reads them; llmc: llm.c's .bin; npy: numpy's"},
        {"output", 'o', OPTION_TEXT, &path, 0, 0, "FILE", "the file; one that is there is replaced when the new one is whole"},
        OPTION_SPLIT(&split),
        OPTION_JSON(&json),
        {0},
    };
    static const struct usage usage = {
        "dataset export",
        "DIR --format NAME --output FILE [OPTIONS]",
        "Writes the tokens of a split to one file for another program: ids of 2 or 4 bytes, little-endian, each checked on the way.\n"
        "With packing pad and best_fit an .npy has one row for each sequence.",
        "millrace dataset export runs/example --format bin --output train.bin\n"
        "millrace dataset export runs/example --format npy --split validation --output val.npy",
        1,
        1};
    char **arguments;
    int count, number, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    if (!format || !path)
        return err_set(ERR_USAGE, "dataset export: --format NAME and --output FILE are needed; see 'millrace dataset export --help'");
    TRY(choose(&number, format, formats, 3, "dataset export: --format"));
    TRY(split_option(&validation, split, "dataset export"));
    TRY(check_export(path));
    struct opened opened;
    TRY(opened_open(&opened, arguments[0]));
    catch_signals();
    code = dataset_export(&opened.manifest, opened.folder, validation, (enum token_format)number, path, look, NULL);
    if (code == 0) code = report_export(&opened.manifest, validation, path, json);
    opened_close(&opened);
    return code;
}

/* ---- import ---- */

struct import {
    struct import_options options;
    struct option_list validation;
    const char *output, *packing, *tokenizer;
    int64_t sequence_length, shard_tokens, eos, token_bytes; /* eos -1: the tokenizer's; token_bytes 0: as the tokenizer's ids need */
    bool json;
};

/* Without a name, and with an end-of-text token, no tokenizer is asked. */
static int take_tokenizer(struct import *import, uint8_t digest[SHA256_BYTES]) {
    struct import_options *o = &import->options;
    if (!import->tokenizer && import->eos >= 0) {
        o->eos = (uint32_t)import->eos;
        o->plain_bytes = import->token_bytes ? (uint32_t)import->token_bytes : 2;
        return 0;
    }
    struct tokenizer *tokenizer;
    o->tokenizer = import->tokenizer ? import->tokenizer : "gpt2";
    TRY(tokenizer_open(&tokenizer, o->tokenizer));
    int64_t eos = import->eos >= 0 ? import->eos : tokenizer_eos(tokenizer);
    o->vocabulary = (uint32_t)tokenizer_vocabulary(tokenizer);
    o->plain_bytes = import->token_bytes ? (uint32_t)import->token_bytes : tokenizer_token_bytes(tokenizer);
    tokenizer_digest(tokenizer, digest);
    o->tokenizer_digest = digest;
    tokenizer_close(tokenizer);
    if (eos < 0)
        return err_set(ERR_USAGE, "dataset import: tokenizer %s has no end-of-text token; --eos ID says which token ends documents",
                       o->tokenizer);
    if (eos >= o->vocabulary)
        return err_set(ERR_USAGE, "dataset import: --eos %" PRId64 ": the tokenizer's ids are below %" PRIu32, eos, o->vocabulary);
    o->eos = (uint32_t)eos;
    return 0;
}

/* Ids of another tokenizer look like one long document. */
static void warn_of_few_documents(const struct import *import, const struct manifest *m) {
    const struct import_options *o = &import->options;
    size_t files = o->train_files + o->validation_files;
    if (m->documents == files)
        output_warn(mem_format("each file is one document: token %" PRIu32 ", %s%s, is nowhere within; where documents end with another "
                               "token, say so with --tokenizer or --eos", o->eos, o->tokenizer ? "the end of text of " : "as --eos says",
                               o->tokenizer ? o->tokenizer : ""));
    if (o->validation_files == 0 && o->validation_fraction > 0 && m->documents > 0 && m->documents == m->train_documents)
        output_warn(mem_format("no document is held out for validation: the files have %s document%s; more documents, or "
                               "--validation FILE, mends that", text_count(m->documents), plural(m->documents)));
}

static int run_import(struct import *import) {
    uint8_t digest[SHA256_BYTES];
    struct opened opened;
    TRY(take_tokenizer(import, digest));
    catch_signals();
    import->options.tick = look;
    TRY(dataset_import(&opened.manifest, &import->options, import->output));
    opened.folder = mem_text(import->output);
    int code = opened_show(&opened, import->json);
    warn_of_few_documents(import, &opened.manifest);
    for (int validation = 0; validation < 2; validation++) {
        struct split_counts counts = split_counts(&opened.manifest, validation);
        if (counts.shards && counts.sequences == 0)
            output_warn(mem_format("the %s split has %s token%s and no sequence of %s: nothing is done with it; give it more tokens, or "
                                   "make --sequence-length smaller", validation ? "validation" : "training", text_count(counts.tokens),
                                   plural(counts.tokens), text_count(opened.manifest.sequence_length)));
    }
    opened_close(&opened);
    return code;
}

/* A dataset that is there is told by dataset_import(); a run that is still making its own has no manifest that this could see. */
static int check_import(const char *output) {
    char *folder = resolve(output), *manifest = mem_format("%s/" MANIFEST_NAME, folder);
    int code = 0;
    if (sources_is_run(folder)) code = err_set(ERR_USAGE, "--output %s is the output_dir of a run; choose another folder", output);
    else if (!file_exists(manifest)) code = check_place(folder, folder, output);
    free(manifest);
    free(folder);
    return code;
}

/* The planner speaks of the keys of a pipeline.yaml, and here its values came from options. */
static int in_options(int code) {
    static const char *const names[][2] = {{"dataset.sequence_length", "--sequence-length"}, {"dataset.shard_tokens", "--shard-tokens"},
                                           {"dataset.validation_fraction", "--validation-fraction"}};
    for (size_t i = 0; code < 0 && i < sizeof names / sizeof *names; i++)
        for (const char *at; (at = strstr(err_text(), names[i][0]));)
            code = err_set(code, "%.*s%s%s", (int)(at - err_text()), err_text(), names[i][1], at + strlen(names[i][0]));
    return code;
}

int cmd_dataset_import(int argc, char **argv) {
    static const char *const packings[] = {[PACKING_CONCAT] = "concat", [PACKING_PAD] = "pad", [PACKING_BEST_FIT] = "best_fit"};
    static struct import import = {.packing = "concat", .shard_tokens = IMPORT_SHARD_TOKENS, .eos = -1};
    struct import_options *o = &import.options;
    o->validation_fraction = 0.01;
    const struct option_spec options[] = {
        {"output", 'o', OPTION_TEXT, &import.output, 0, 0, "DIR", "the dataset folder to make"},
        {"sequence-length", 'T', OPTION_INT, &import.sequence_length, 1, 1 << 20, "T", "tokens of a sequence"},
        {"validation", 0, OPTION_LIST, &import.validation, 0, 0, "FILE", "a file of validation tokens; may be repeated"},
        {"validation-fraction", 0, OPTION_REAL, &o->validation_fraction, 0, 0.999, "F", "without such: share of documents (default: 0.01)"},
        {"tokenizer", 't', OPTION_TEXT, &import.tokenizer, 0, 0, "NAME", "whose ids they are: gpt2 (the default), or a path"},
        {"eos", 0, OPTION_INT, &import.eos, 0, INT32_MAX, "ID", "the token that ends documents; alone: of an unknown tokenizer"},
        {"token-bytes", 0, OPTION_INT, &import.token_bytes, 2, 4, "N", "of an id, 2 or 4, in files without a header"},
        {"packing", 0, OPTION_TEXT, &import.packing, 0, 0, "NAME", "concat (the default), pad or best_fit"},
        {"document-mask", 0, OPTION_FLAG, &o->document_mask, 0, 0, NULL, "documents of a sequence are not to see each other"},
        {"shard-tokens", 0, OPTION_INT, &import.shard_tokens, 1, 1 << 30, "N", "tokens of a full shard (default: 4194304)"},
        OPTION_JSON(&import.json),
        {0},
    };
    static const struct usage usage = {
        "dataset import",
        "FILE... --output DIR --sequence-length T [OPTIONS]",
        "Makes a dataset from token files: nanoGPT's or llm.c's .bin, numpy's .npy. The first bytes of a file decide which it is; without\n"
        "a header it is ids alone. A document ends where an end-of-text token comes. dataset.prepared in pipeline.yaml trains on it.",
        "millrace dataset import train.bin --validation val.bin --output data --sequence-length 1024",
        1,
        OPTION_LIST_MAX};
    char **arguments;
    int count, packing, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    if (!import.output || import.sequence_length == 0)
        return err_set(ERR_USAGE, "dataset import: --output DIR and --sequence-length T are needed; see 'millrace dataset import --help'");
    if (import.token_bytes == 3) return err_set(ERR_USAGE, "dataset import: --token-bytes 3: expected 2 or 4");
    TRY(choose(&packing, import.packing, packings, 3, "dataset import: --packing"));
    TRY(check_import(import.output));
    o->train = (const char *const *)arguments, o->train_files = (size_t)count;
    o->validation = import.validation.item, o->validation_files = import.validation.count;
    o->sequence_length = (uint64_t)import.sequence_length, o->shard_tokens = (uint64_t)import.shard_tokens;
    o->packing = (enum packing)packing;
    return in_options(run_import(&import));
}
