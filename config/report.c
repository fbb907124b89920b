/* The configuration as text: printed as YAML, explained as the reference of all keys (docs/CONFIG.md), compared with another one. Each goes
 * through the table in its order. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/plain.h"
#include "config/config.h"
#include "config/fields.h"
#include "config/groups.h"
#include "config/value.h"

static int print(struct buf *out, const struct config *config, const char *folder) {
    const char *section = "";
    for (size_t i = 0; i < field_count; i++) {
        const struct field *field = &fields[i];
        if (strcmp(field->section, section) != 0) TRY(buf_print(out, "%s:\n", section = field->section));
        TRY(buf_print(out, "%s%s: ", section[0] ? "  " : "", field->key));
        TRY(setting_print(out, field, config, folder));
        TRY(buf_append(out, "\n", 1));
    }
    return 0;
}

int config_print(struct buf *out, const struct config *config) { return print(out, config, NULL); }
int config_print_movable(struct buf *out, const struct config *config) { return print(out, config, config->folder); }

/* Paths: whether the same file is there is not known here. */
static bool is_place(const struct field *field) {
    return field->type == FIELD_PATH || field->type == FIELD_PATHS || field->type == FIELD_SOURCES;
}

static bool is_length(const struct field *field) {
    return strcmp(field->key, "max_steps") == 0 || strcmp(field->key, "num_train_epochs") == 0;
}

/* Not where the default follows from other keys or the tokenizer: those values are always told. */
static bool is_default(const struct field *field, const struct config *config) {
    if (!field->fallback) return false;
    struct config plain = {0};
    setting_reset(&plain, field);
    bool same = setting_equal(field, &plain, config);
    setting_free(&plain, field);
    return same;
}

int config_print_marks(struct buf *out, const struct config *config) {
    for (size_t i = 0; i < field_count; i++) {
        const struct field *field = &fields[i];
        if (!field->alters || is_place(field) || is_length(field) || is_default(field, config)) continue;
        TRY(buf_print(out, "%s.%s: ", field->section, field->key));
        TRY(setting_print(out, field, config, NULL));
        TRY(buf_append(out, "\n", 1));
    }
    return 0;
}

/* Keys of the optimizers begin with the name of theirs; AdamW and Adam share theirs. */
static bool is_of_another_optimizer(const struct field *field, enum optim optim) {
    if (strncmp(field->key, "adam_", 5) == 0) return optim == OPTIM_SGD;
    return strncmp(field->key, "sgd_", 4) == 0 && optim != OPTIM_SGD;
}

/* What making a dataset asks for; the tokenizer, the length of sequences and how they are read have a part with each dataset. */
static bool is_of_making(const struct field *field) {
    static const char *const keys[] = {"validation_fraction", "shard_tokens", "packing", "deduplicate", "filters", "invalid_utf8",
                                       "normalization", "min_characters", "max_characters", "stopping_strategy", "max_left_out",
                                       "keep_runs"};
    if (strcmp(field->section, "dataset") != 0) return false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(field->key, keys[i]) == 0) return true;
    return strncmp(field->key, "minhash_", 8) == 0;
}

/* The key that leaves no part to this one, NULL: it has one. Some such keys are refused instead (config.c). */
static const char *outdone_by(const struct field *field, const struct config *config) {
    enum scheduler scheduler = config->training.lr_scheduler_type;
    const struct {
        const char *key, *other;
        bool outdone;
    } pairs[] = {
        {"pad_in_loss", "dataset.packing", config->dataset.packing == PACKING_CONCAT && !*config->dataset.prepared},
        {"num_train_epochs", "training.max_steps", config->training.max_steps > 0},
        {"decay_type", "training.lr_scheduler_type", scheduler != SCHEDULER_WARMUP_STABLE_DECAY},
        {"power", "training.lr_scheduler_type", scheduler != SCHEDULER_POLYNOMIAL},
    };
    if (is_of_another_optimizer(field, config->training.optim)) return "training.optim";
    if (*config->dataset.prepared && is_of_making(field)) return "dataset.prepared";
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (pairs[i].outdone && strcmp(field->key, pairs[i].key) == 0) return pairs[i].other;
    if (strncmp(field->key, "minhash_", 8) == 0 && config->dataset.deduplicate != DEDUPLICATE_NEAR) return "dataset.deduplicate";
    return NULL;
}

static int print_outdone(struct buf *out, const struct config *config) {
    for (size_t i = 0; i < field_count; i++) {
        const struct field *field = &fields[i];
        const char *other = outdone_by(field, config);
        if (!other || is_default(field, config)) continue;
        TRY(buf_print(out, "%s.%s ", field->section, field->key));
        TRY(setting_print(out, field, config, NULL));
        TRY(buf_print(out, " has no part with %s ", other));
        TRY(setting_print(out, field_find(other), config, NULL));
        TRY(buf_append(out, "\n", 1));
    }
    return 0;
}

int config_print_warnings(struct buf *out, const struct config *config, uint64_t max_steps) {
    uint64_t warmup = (uint64_t)config->training.warmup_steps;
    TRY(print_outdone(out, config));
    if (warmup > 0 && config->training.lr_scheduler_type == SCHEDULER_CONSTANT)
        return buf_print(out,
                         "training.warmup_steps %" PRIu64 " has no part with training.lr_scheduler_type constant, as in transformers: "
                         "constant_with_warmup has a warm-up\n",
                         warmup);
    if (max_steps == 0 || warmup < max_steps) return 0;
    return buf_print(out,
                     "training.warmup_steps %" PRIu64 " are not over when the run ends, after %" PRIu64
                     " step%s: the learning rate never gets to training.learning_rate\n",
                     warmup, max_steps, plural(max_steps));
}

static const char *const introduction =
    "# pipeline.yaml: every key\n"
    "\n"
    "Written by `millrace config --reference`. All keys are optional but `dataset.sources`. Any key can also be given on the command\n"
    "line: `--set training.max_steps=20`. Relative paths start at the folder of pipeline.yaml. Numbers are plain decimals (`8`, `0.1`,\n"
    "`1e-3`), truth values are `true` and `false`. A key marked *results* changes the bytes of the dataset or the weights: it cannot be\n"
    "changed over an output_dir in which steps are done; the others can, and so can `training.max_steps` and `training.num_train_epochs`\n"
    "as long as no step that is done would have had another learning rate: the results are those of the new length from the start.\n";

static int table_head(struct buf *out) {
    return buf_print(out, "| key | value | unit | default | alters | meaning |\n|---|---|---|---|---|---|\n");
}

static int section_reference(struct buf *out, const char *section) {
    TRY(buf_print(out, "\n## %s\n\n", section[0] ? section : "Top level"));
    return table_head(out);
}

static int field_reference(struct buf *out, const struct field *field) {
    char expected[EXPECTED_BYTES];
    value_expected(expected, field);
    TRY(buf_print(out, "| `%s`", field->key));
    if (field->alias) TRY(buf_print(out, " (or `%s`)", field->alias));
    TRY(buf_print(out, " | %s | %s | ", expected, field->unit ? field->unit : ""));
    if (field->fallback && !field->fallback[0]) TRY(buf_print(out, "empty"));
    else if (field->fallback) TRY(buf_print(out, "`%s`", field->fallback));
    else TRY(buf_print(out, "%s", field->derived ? field->derived : "required"));
    return buf_print(out, " | %s | %s |\n", field->alters ? "results" : "", field->help);
}

static const char *const sources_introduction =
    "\n"
    "### dataset.sources\n"
    "\n"
    "A text, a list of texts, or a list in which an entry is a text or a mapping:\n"
    "\n"
    "    dataset:\n"
    "      sources:\n"
    "        - corpus/**/*.txt\n"
    "        - { name: web, paths: [crawl/*.jsonl.zst], field: text, weight: 3 }\n"
    "        - { name: manuals, path: manuals.tar.xz, members: [\"*.txt\"], weight: 1 }\n"
    "        - { path: held-out.txt, separator: \"\\n\\n\\n\", split: validation }\n"
    "\n"
    "(In a real list every entry that is trained on has a weight, or none has.) The keys of a mapping, of which only `path` or `paths` is\n"
    "required:\n"
    "\n";

static int sources_reference(struct buf *out) {
    TRY(buf_print(out, "%s", sources_introduction));
    TRY(table_head(out));
    for (size_t i = 0; i < source_field_count; i++) TRY(field_reference(out, &source_fields[i]));
    return 0;
}

int config_reference(struct buf *out) {
    TRY(buf_print(out, "%s", introduction));
    for (size_t i = 0; i < field_count; i++) {
        const char *section = fields[i].section;
        if (i == 0 || strcmp(fields[i - 1].section, section) != 0) TRY(section_reference(out, section));
        TRY(field_reference(out, &fields[i]));
        bool last = i + 1 == field_count || strcmp(fields[i + 1].section, section) != 0;
        if (last && strcmp(section, "dataset") == 0) TRY(sources_reference(out));
    }
    return 0;
}

int config_compare(struct buf *altering, struct buf *harmless, const struct config *old, const struct config *fresh) {
    for (size_t i = 0; i < field_count; i++) {
        const struct field *field = &fields[i];
        if (setting_equal(field, old, fresh)) continue;
        struct buf *out = field->alters ? altering : harmless;
        char name[FIELD_NAME_BYTES];
        field_name(name, field);
        TRY(buf_print(out, "%s: ", name));
        TRY(setting_print(out, field, old, NULL));
        TRY(buf_append(out, " -> ", 4));
        TRY(setting_print(out, field, fresh, NULL));
        TRY(buf_append(out, "\n", 1));
    }
    return 0;
}
