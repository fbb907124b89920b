/* From pipeline.yaml and `--set` to a checked struct config. Owns a struct load while it works: the config, where each value was given, and
 * the faults so far, which are reported together.
 *
 * Order: defaults from the table, the file, each --set, what follows from other keys, absolute paths, and last the rules that tie keys
 * together. A rule that is broken points at the line where the value was given. Beyond the file itself it only asks the disk whether a
 * tokenizer without a slash in its name exists: sources are found by dataset/source/sources.c. */
#include "config/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/faults.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/plain.h"
#include "config/fields.h"
#include "config/groups.h"
#include "config/names.h"
#include "config/paths.h"
#include "config/value.h"
#include "config/yaml.h"

enum {
    SLICES_DEFAULT_MAX = 8, /* enough for eight workers; more slices cost memory and messages */
    GPT2_VOCAB_SIZE = 50257,
    GPT2_END_OF_TEXT = 50256,
};

struct load {
    struct config config;
    const char *name;        /* of the text, for messages */
    struct location *origin; /* field_count; name NULL: the default */
    struct location sources_at; /* where a missing dataset.sources is reported */
    char **set_name;         /* "--set KEY"; places point into them */
    size_t set_count;
    bool *failed;      /* field_count; of keys whose value was not understood: rules about them say nothing */
    struct faults faults;
};

/* Keeps the text of an ERR_CONFIG and goes on, so that a person sees all faults at once. Other codes are returned. */
static int note(struct load *load, int code) {
    return faults_note(&load->faults, code, fault_place());
}

/* ---- values ---- */

/* The value of the ids that are to be taken from the tokenizer. */
static void no_tokens(struct config *config, const struct field *field) {
    void *value = (char *)config + field->offset;
    if (value == &config->model.bos_token_id || value == &config->model.eos_token_id) *(int64_t *)value = -1;
}

static void set_defaults(struct config *config) {
    for (size_t i = 0; i < field_count; i++) {
        value_default(config, &fields[i]);
        no_tokens(config, &fields[i]);
    }
}

static bool is_section(const char *key) {
    for (size_t i = 0; i < field_section_count; i++)
        if (strcmp(field_sections[i], key) == 0) return true;
    return false;
}

static int apply_section(const struct entry *entry) {
    bool empty = entry->kind == ENTRY_SCALAR && entry->item->size == 0 && !entry->item->quoted;
    if (entry->kind == ENTRY_SECTION || empty) return 0;
    return fault(entry->value_at, entry->key, "is a value; expected a section: keys indented below, or { key: value }");
}

/* A key that has two names was given by both. */
static int same_twice(struct load *load, const struct field *field, const struct entry *entry, struct location first) {
    CHECK(field->type == FIELD_INTEGER); /* copying a config copies no text */
    struct config before = load->config;
    TRY(setting_parse(&load->config, field, entry, &load->faults));
    if (setting_equal(field, &before, &load->config)) return 0;
    int64_t old, fresh;
    memcpy(&old, (char *)&before + field->offset, sizeof old);
    memcpy(&fresh, (char *)&load->config + field->offset, sizeof fresh);
    return fault(entry->value_at, entry->key,
                 "%" PRId64 " differs from the %" PRId64 " of line %d, and %s is another name for %s; expected one of them", fresh, old,
                 first.line, field->alias, field->key);
}

/* null: as without the key. */
static int apply_null(struct load *load, const struct field *field, bool from_file) {
    if (from_file) return 0; /* nothing but its alias can have been given */
    load->origin[field - fields] = (struct location){0};
    load->failed[field - fields] = false;
    setting_reset(&load->config, field);
    no_tokens(&load->config, field);
    return 0;
}

static int apply(struct load *load, const struct entry *entry, bool from_file) {
    const struct field *field = field_find(entry->key);
    int once = entry_once(entry);
    if (once < 0 && field) load->failed[field - fields] = true;
    TRY(once);
    if (!field && is_section(entry->key)) return apply_section(entry);
    bool silent = entry->kind == ENTRY_SCALAR && entry->item->size > 0 && scalar_is_null(entry->item);
    if (field && silent) return apply_null(load, field, from_file);
    if (!field) return name_says_nothing(entry) ? 0 : name_refuse(entry->key_at, entry->key);
    struct location *origin = &load->origin[field - fields];
    size_t before = load->faults.count;
    TRY(from_file && origin->name ? note(load, same_twice(load, field, entry, *origin))
                                  : setting_parse(&load->config, field, entry, &load->faults));
    if (load->faults.count > before) load->failed[field - fields] = true;
    else if (!origin->name || !from_file) *origin = entry->value_at;
    return 0;
}

static int apply_file(struct load *load, const char *text, size_t text_bytes) {
    struct entries entries = {0};
    TRY(entries_read(&entries, load->name, text, text_bytes));
    int code = 0;
    const char *unknown = NULL; /* section: its keys are not looked at */
    for (size_t i = 0; i < entries.count && code == 0; i++) {
        const struct entry *entry = &entries.entry[i];
        size_t bytes = unknown ? strlen(unknown) : 0;
        if (unknown && strncmp(entry->key, unknown, bytes) == 0 && entry->key[bytes] == '.') continue;
        code = note(load, apply(load, entry, true));
        if (entry->kind == ENTRY_SECTION && !is_section(entry->key)) unknown = entry->key;
        if (strcmp(entries.entry[i].key, "dataset") == 0) load->sources_at = entries.entry[i].key_at;
    }
    entries_free(&entries);
    return code;
}

static int apply_set(struct load *load, const char *set) {
    enum { SHOWN_MAX = 128 }; /* longer than any key */
    size_t key_bytes = strcspn(set, "=");
    char *name = mem_format("--set %.*s", key_bytes > SHOWN_MAX ? SHOWN_MAX : (int)key_bytes, set);
    load->set_name[load->set_count++] = name;
    for (char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    struct location at = {.name = name};
    if (set[key_bytes] != '=' || key_bytes == 0 || key_bytes > SHOWN_MAX)
        return fault(at, NULL, "is not a setting; expected dotted.key=value");
    char *key = mem_format("%.*s", (int)key_bytes, set);
    struct entry entry;
    int code = 0;
    if (is_section(key)) code = fault(at, NULL, "is a section; expected one of its keys: %s.KEY=VALUE", key);
    if (code == 0) code = entry_read_value(&entry, name, key, set + key_bytes + 1);
    if (code == 0) {
        code = apply(load, &entry, false);
        if (strcmp(key, "dataset.sources") == 0) load->sources_at = at; /* also null and [], which take the file's away */
        entry_free(&entry);
    }
    free(key);
    return code;
}

/* ---- what follows from other keys ---- */

static int make_absolute(char **path, const struct load *load, const struct field *field, bool glob) {
    struct buf out = {0};
    int code = path_absolute(&out, *path, load->config.folder, glob);
    if (code == 0 && (double)out.size > field->max) {
        struct location at = load->origin[field - fields];
        char key[FIELD_NAME_BYTES];
        field_name(key, field);
        if (!at.name) at = (struct location){load->name, 1, 1};
        code = fault(at, key, "with its folder before it is %zu bytes long; expected at most %.0f", out.size, field->max);
    }
    if (code == 0) {
        free(*path);
        *path = mem_text((const char *)out.data);
    }
    buf_free(&out);
    return code;
}

/* A name that is allowed in place of a path, such as "gpt2". */
static bool is_name(const struct field *field, const char *text) {
    for (size_t i = 0; field->names && field->names[i]; i++)
        if (strcmp(field->names[i], text) == 0) return true;
    return text[0] == 0;
}

/* A slip in a name must not become a path: one without a folder has to be there, or to look like a file's. */
static int check_path(const struct load *load, const struct field *field, const char *path) {
    size_t n = strlen(path);
    if (!field->names || strchr(path, '/') || (n > 5 && strcmp(path + n - 5, ".json") == 0)) return 0;
    char *there = mem_format("%s/%s", load->config.folder, path), shown[SHOWN_BYTES], what[SHOWN_BYTES + 32];
    bool exists = file_exists(there);
    free(there);
    if (exists) return 0;
    show(shown, path, n);
    snprintf(what, sizeof what, "%s is not known", shown);
    return value_refuse(load->origin[field - fields], field, what);
}

static int resolve_sources(struct load *load, const struct field *field, struct source_groups *groups) {
    for (size_t i = 0; i < groups->count; i++) {
        struct text_list *paths = &groups->item[i].paths;
        for (size_t k = 0; k < paths->count; k++)
            if (!path_is_remote(paths->item[k])) TRY(make_absolute(&paths->item[k], load, field, true));
    }
    return 0;
}

/* A run would lay its folders between those of the system. */
static int refuse_root(const struct load *load, const struct field *field) {
    char *real = realpath(load->config.output_dir, NULL), key[FIELD_NAME_BYTES];
    bool root = real && strcmp(real, "/") == 0;
    struct location at = load->origin[field - fields];
    free(real);
    field_name(key, field);
    return root ? fault(at, key, "a run cannot write into the root folder; expected a folder of its own, such as runs/NAME") : 0;
}

static int resolve_paths(struct load *load) {
    for (size_t i = 0; i < field_count; i++) {
        const struct field *field = &fields[i];
        void *value = (char *)&load->config + field->offset;
        if (field->type == FIELD_SOURCES) TRY(note(load, resolve_sources(load, field, value)));
        if (field->type != FIELD_PATH || is_name(field, *(char **)value)) continue;
        int code = check_path(load, field, *(char **)value);
        if (code == 0) code = make_absolute(value, load, field, false);
        if (code == 0 && value == &load->config.output_dir) code = refuse_root(load, field);
        TRY(note(load, code));
    }
    return 0;
}

static int64_t largest_divisor(int64_t n, int64_t at_most) {
    for (int64_t d = at_most; d > 1; d--)
        if (n % d == 0) return d;
    return 1;
}

static bool given(const struct load *load, const char *key) { return load->origin[field_find(key) - fields].name != NULL; }

static void derive(struct load *load) {
    struct config *config = &load->config;
    if (!config->output_dir) config->output_dir = mem_format("runs/%s", config->run_name);
    if (!config_tokenizer_is_path(config)) {
        if (config->model.vocab_size == 0) config->model.vocab_size = GPT2_VOCAB_SIZE;
        if (config->model.bos_token_id < 0) config->model.bos_token_id = GPT2_END_OF_TEXT;
        if (config->model.eos_token_id < 0) config->model.eos_token_id = GPT2_END_OF_TEXT;
    }
    if (config->dataset.sequence_length == 0) config->dataset.sequence_length = config->model.n_positions;
    if (config->training.lr_scheduler_type == SCHEDULER_CONSTANT && !given(load, "training.warmup_steps"))
        config->training.warmup_steps = 0; /* as in transformers this schedule has no warm-up */
    if (config->training.slices == 0) config->training.slices = largest_divisor(config->training.global_batch, SLICES_DEFAULT_MAX);
}

static int resolve_folder(struct load *load, const char *folder) {
    struct location at = {.name = load->name};
    load->config.folder = realpath(folder[0] ? folder : ".", NULL);
    if (!load->config.folder && folder[0] == '/') load->config.folder = mem_text(folder); /* another machine's: kept as a name */
    if (!load->config.folder) return fault(at, NULL, "its folder: %s; expected a folder that can be read", strerror(errno));
    if (!utf8_valid(load->config.folder)) return fault(at, NULL, "its folder's name is not UTF-8; rename the folder or move the file");
    return 0;
}

/* ---- rules that tie keys together ---- */

/* A fault that two keys share: shown at the first one that was given; --set is nearer to the person than the file. */
static int clash(const struct load *load, const char *key, const char *other, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static int clash(const struct load *load, const char *key, const char *other, const char *format, ...) {
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    const struct field *a = field_find(key), *b = field_find(other);
    CHECK(a && b);
    if (load->failed[a - fields] || load->failed[b - fields]) return 0; /* that fault is reported already */
    struct location first = load->origin[a - fields], second = load->origin[b - fields];
    if (second.name && (!first.name || (first.line && !second.line))) return fault(second, other, "%s", what);
    if (first.name) return fault(first, key, "%s", what);
    return fault((struct location){load->name, 1, 1}, key, "%s", what);
}

static int check_names(struct load *load) {
    const struct config *config = &load->config;
    char shown[SHOWN_BYTES];
    bool line = true, folder = config->run_name[0] != '.' && !strchr(config->run_name, '/');
    for (const char *c = config->run_name; *c; c++) line = line && (unsigned char)*c >= 0x20 && *c != 0x7f;
    show(shown, config->run_name, strlen(config->run_name));
    if (!line)
        TRY(note(load, clash(load, "run_name", "run_name", "%s has control characters; expected one line of text", shown)));
    else if (!folder && !given(load, "output_dir"))
        TRY(note(load, clash(load, "run_name", "run_name",
                             "%s cannot name a folder; expected text without / that does not begin with a dot, or an output_dir", shown)));
    bool prepared = config->dataset.prepared[0] != 0, unreadable = load->failed[field_find("dataset.sources") - fields];
    if (config->dataset.sources.count == 0 && !prepared && !unreadable)
        TRY(note(load, fault(load->sources_at, "dataset.sources",
                             "is missing; expected a list of text files or globs: sources: [\"corpus/**/*.txt\"]")));
    if (config->dataset.sources.count && prepared)
        TRY(note(load,
                 clash(load, "dataset.prepared", "dataset.sources",
                       "dataset.prepared is a dataset made before, and dataset.sources says what to make one of; expected one of them")));
    return 0;
}

static int check_documents(struct load *load) {
    int64_t least = load->config.dataset.min_characters, most = load->config.dataset.max_characters;
    if (most == 0 || least <= most) return 0;
    TRY(note(load, clash(load, "dataset.min_characters", "dataset.max_characters",
                         "dataset.min_characters %" PRId64 " is more than dataset.max_characters %" PRId64 "; expected at most as many",
                         least, most)));
    return 0;
}

static int check_model(struct load *load) {
    const struct config *config = &load->config;
    int64_t vocab = config->model.vocab_size, embd = config->model.n_embd, head = config->model.n_head;
    if (!config_tokenizer_is_path(config) && vocab < GPT2_VOCAB_SIZE)
        TRY(note(load, clash(load, "model.vocab_size", "dataset.tokenizer",
                             "model.vocab_size %" PRId64 " does not fit dataset.tokenizer %s; expected at least %d", vocab,
                             config->dataset.tokenizer, GPT2_VOCAB_SIZE)));
    if (!config_tokenizer_is_path(config)) vocab = GPT2_VOCAB_SIZE; /* what is beyond it is padding: no token */
    if (vocab && config->model.bos_token_id >= vocab)
        TRY(note(load, clash(load, "model.bos_token_id", "model.vocab_size",
                             "model.bos_token_id %" PRId64 " is not in the vocabulary; expected an id below %" PRId64,
                             config->model.bos_token_id, vocab)));
    if (vocab && config->model.eos_token_id >= vocab)
        TRY(note(load, clash(load, "model.eos_token_id", "model.vocab_size",
                             "model.eos_token_id %" PRId64 " is not in the vocabulary; expected an id below %" PRId64,
                             config->model.eos_token_id, vocab)));
    if (embd % head != 0)
        TRY(note(load,
                 clash(load, "model.n_embd", "model.n_head",
                       "model.n_head %" PRId64 " does not divide model.n_embd %" PRId64 "; expected heads of equal width", head, embd)));
    return 0;
}

/* What belongs to another schedule would do nothing, unseen. */
static int check_schedule(struct load *load) {
    const struct config *config = &load->config;
    enum scheduler type = config->training.lr_scheduler_type;
    bool ends_above = type == SCHEDULER_COSINE_WITH_MIN_LR || type == SCHEDULER_WARMUP_STABLE_DECAY || type == SCHEDULER_POLYNOMIAL;
    if (config->training.min_lr_rate > 0 && !ends_above)
        TRY(note(load, clash(load, "training.min_lr_rate", "training.lr_scheduler_type",
                             "training.min_lr_rate is not used by this training.lr_scheduler_type; expected cosine_with_min_lr, "
                             "warmup_stable_decay or polynomial")));
    if (config->training.num_decay_steps > 0 && type != SCHEDULER_WARMUP_STABLE_DECAY)
        TRY(note(load, clash(load, "training.num_decay_steps", "training.lr_scheduler_type",
                             "training.num_decay_steps is not used by this training.lr_scheduler_type; expected warmup_stable_decay")));
    return 0;
}

/* Keys of another optimizer have no part, and are no fault: config_print_warnings() names them. */
static int check_optimizer(struct load *load) {
    const struct config *config = &load->config;
    if (config->training.eval_ema && !(config->training.ema_decay > 0))
        TRY(note(load, clash(load, "training.eval_ema", "training.ema_decay",
                             "training.eval_ema has no average to evaluate; expected a training.ema_decay above 0")));
    if (config->training.sgd_nesterov && config->training.optim == OPTIM_SGD && !(config->training.sgd_momentum > 0))
        TRY(note(load, clash(load, "training.sgd_nesterov", "training.sgd_momentum",
                             "training.sgd_nesterov is a form of momentum; expected a training.sgd_momentum above 0")));
    return 0;
}

static int check_training(struct load *load) {
    const struct config *config = &load->config;
    int64_t length = config->dataset.sequence_length, positions = config->model.n_positions;
    if (length > positions)
        TRY(note(load, clash(load, "dataset.sequence_length", "model.n_positions",
                             "dataset.sequence_length %" PRId64 " is more than model.n_positions %" PRId64 "; expected at most as many",
                             length, positions)));
    int64_t batch = config->training.global_batch, slices = config->training.slices;
    if (batch % slices != 0)
        TRY(note(load, clash(load, "training.slices", "training.global_batch",
                             "training.slices %" PRId64 " does not divide training.global_batch %" PRId64
                             "; expected a divisor, such as %" PRId64,
                             slices, batch, largest_divisor(batch, slices < batch ? slices : batch))));
    TRY(check_schedule(load));
    TRY(check_optimizer(load));
    return 0;
}

/* What config_print() makes of it must be accepted again, also when the folder lengthened every source. */
static int check_size(const struct load *load) {
    struct buf printed = {.max_bytes = YAML_TEXT_BYTES_MAX};
    int code = config_print(&printed, &load->config);
    buf_free(&printed);
    if (code != ERR_LIMIT) return code;
    return clash(load, "dataset.sources", "sample.prompt",
                 "written out in full the configuration is longer than %d bytes; expected globs instead of many paths",
                 YAML_TEXT_BYTES_MAX);
}

static int run_load(struct load *load, const char *text, size_t text_bytes, const char *folder, const char *const *sets, size_t set_count) {
    set_defaults(&load->config);
    TRY(resolve_folder(load, folder));
    TRY(apply_file(load, text, text_bytes));
    for (size_t i = 0; i < set_count; i++) TRY(note(load, apply_set(load, sets[i])));
    TRY(check_names(load));
    derive(load);
    TRY(check_documents(load));
    TRY(check_model(load));
    TRY(check_training(load));
    TRY(resolve_paths(load));
    TRY(faults_tell(&load->faults));
    return check_size(load);
}

int config_parse(struct config *out, const char *name, const char *text, size_t text_bytes, const char *folder, const char *const *sets,
                 size_t set_count) {
    struct load load = {.name = name, .sources_at = {name, 1, 1}};
    load.origin = mem_alloc(field_count * sizeof *load.origin);
    load.failed = mem_alloc(field_count * sizeof *load.failed);
    load.set_name = mem_alloc(set_count * sizeof *load.set_name);
    int code = run_load(&load, text, text_bytes, folder, sets, set_count);
    if (code == 0) *out = load.config;
    else config_free(&load.config);
    for (size_t i = 0; i < load.set_count; i++) free(load.set_name[i]);
    free(load.set_name);
    free(load.origin);
    free(load.failed);
    faults_free(&load.faults);
    return code;
}

/* Only regular files: opening a pipe would wait for its other end. */
static int check_file(const char *path) {
    struct location at = {.name = path};
    struct stat st;
    if (stat(path, &st) != 0) return fault(at, NULL, "%s; expected the path of a pipeline file", strerror(errno));
    if (S_ISDIR(st.st_mode)) return fault(at, NULL, "is a folder; expected the pipeline file in it, such as %s/pipeline.yaml", path);
    if (!S_ISREG(st.st_mode)) return fault(at, NULL, "is not a regular file; expected a pipeline file");
    if (st.st_size > YAML_TEXT_BYTES_MAX) return fault(at, NULL, "longer than %d bytes; expected a few KiB", YAML_TEXT_BYTES_MAX);
    return 0;
}

int config_load(struct config *out, const char *path, const char *const *sets, size_t set_count) {
    TRY(check_file(path));
    struct buf text = {0};
    if (file_read(&text, path, YAML_TEXT_BYTES_MAX) < 0) {
        buf_free(&text);
        return err_set(ERR_CONFIG, "%s; expected a pipeline file that can be read", err_text());
    }
    const char *slash = strrchr(path, '/');
    char *folder = !slash ? mem_text(".") : slash == path ? mem_text("/") : mem_format("%.*s", (int)(slash - path), path);
    int code = config_parse(out, path, text.data ? (const char *)text.data : "", text.size, folder, sets, set_count);
    if (code == 0) out->file = realpath(path, NULL);
    free(folder);
    buf_free(&text);
    return code;
}

bool config_tokenizer_is_path(const struct config *config) { return strcmp(config->dataset.tokenizer, "gpt2") != 0; }

static int fit_token(int64_t *id, const char *key, int64_t of_tokenizer, int64_t vocab_size, const char *tokenizer) {
    if (*id < 0) *id = of_tokenizer;
    if (*id < 0)
        return err_set(ERR_CONFIG, "dataset.tokenizer: %s has no token that ends a text; write its id as model.%s", tokenizer, key);
    if (*id >= vocab_size)
        return err_set(ERR_CONFIG, "model.%s %" PRId64 " is not in the vocabulary of dataset.tokenizer %s; expected an id below %" PRId64,
                       key, *id, tokenizer, vocab_size);
    return 0;
}

int config_fit_tokenizer(struct config *config, int64_t vocab_size, int64_t bos_token_id, int64_t eos_token_id) {
    const char *tokenizer = config->dataset.tokenizer;
    int64_t vocab = config->model.vocab_size ? config->model.vocab_size : vocab_size;
    int64_t bos = config->model.bos_token_id, eos = config->model.eos_token_id;
    if (vocab < vocab_size)
        return err_set(ERR_CONFIG,
                       "model.vocab_size %" PRId64 " does not fit dataset.tokenizer %s; expected at least %" PRId64 ", or no such line",
                       vocab, tokenizer, vocab_size);
    TRY(fit_token(&eos, "eos_token_id", eos_token_id, vocab_size, tokenizer));
    TRY(fit_token(&bos, "bos_token_id", bos_token_id < 0 ? eos : bos_token_id, vocab_size, tokenizer));
    config->model.vocab_size = vocab, config->model.bos_token_id = bos, config->model.eos_token_id = eos;
    return 0;
}

void config_free(struct config *config) {
    for (size_t i = 0; i < field_count; i++) setting_free(config, &fields[i]);
    free(config->folder);
    free(config->file);
    *config = (struct config){0};
}
