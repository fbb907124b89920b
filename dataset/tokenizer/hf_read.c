/* From Hugging Face's files to a struct hf_tokenizer. Everything that would change ids is either understood or refused; what only people
 * read is skipped. The JSON is freed when it has been read. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "dataset/tokenizer/hf_tokenizer.h"

enum { CONFIG_BYTES_MAX = 16 << 20 };
static const char END_OF_TEXT[] = "<|endoftext|>";

struct reading {
    const char *name;   /* of the file, for messages */
    struct hf_tokenizer *hf;
};

static int unsupported(const struct reading *r, const char *what, const char *which) {
    return err_set(ERR_UNSUPPORTED, "%s: %s \"%.60s\" is not supported; byte-level BPE with Split, Digits, ByteLevel and NFC is", r->name,
                   what, which ? which : "(not a text)");
}

static int named(const struct reading *r, int code) { return code < 0 ? err_add(code, "%s", r->name) : 0; }

/* null, and what stands for it */
static bool absent(const json_t *value) { return !value || json_is_null(value) || json_is_false(value); }

static int flag(const struct reading *r, bool *out, const json_t *object, const char *key, bool fallback) {
    const json_t *value = json_object_get(object, key);
    if (value && !json_is_boolean(value)) return err_set(ERR_CORRUPT, "%s: %s must be true or false", r->name, key);
    *out = value ? json_is_true(value) : fallback;
    return 0;
}

/* Is it that text, all of it? A string of JSON may have a NUL inside. */
static bool is_text(const json_t *value, const char *text, size_t size) {
    return json_is_string(value) && json_string_length(value) == size && memcmp(json_string_value(value), text, size) == 0;
}

/* *out: the text, NULL when there is none; one that only seems to end is refused. */
static int read_text(const struct reading *r, const char **out, const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    *out = json_string_value(value);
    return *out && strlen(*out) < json_string_length(value) ? unsupported(r, "a NUL inside of", key) : 0;
}

static const char *type_of(const json_t *object) { return json_string_value(json_object_get(object, "type")); }
static bool is_type(const json_t *object, const char *type) { return is_text(json_object_get(object, "type"), type, strlen(type)); }

/* ---- the model ---- */

static int read_vocab(struct reading *r, const json_t *vocab) {
    if (!json_is_object(vocab)) return err_set(ERR_CORRUPT, "%s: the vocabulary is not a JSON object", r->name);
    for (void *i = json_object_iter((json_t *)vocab); i; i = json_object_iter_next((json_t *)vocab, i)) {
        const json_t *id = json_object_iter_value(i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= HF_IDS_MAX)
            return err_set(ERR_CORRUPT, "%s: the id of the token \"%.80s\" is not a whole number below %d", r->name,
                           json_object_iter_key(i), HF_IDS_MAX);
        const char *token = json_object_iter_key(i);
        TRY(named(r, hf_add_token(r->hf, (uint32_t)json_integer_value(id), token, json_object_iter_key_len(i))));
    }
    return 0;
}

static int read_merge(struct reading *r, const char *line, size_t size) {
    const char *space = memchr(line, ' ', size);
    if (!space) return err_set(ERR_CORRUPT, "%s: merge %u has no space between two tokens", r->name, r->hf->merges + 1);
    size_t left = (size_t)(space - line);
    return named(r, hf_add_merge(r->hf, line, left, space + 1, size - left - 1));
}

static int read_merges(struct reading *r, const json_t *merges) {
    size_t i;
    json_t *merge;
    if (!json_is_array(merges)) return err_set(ERR_CORRUPT, "%s: merges is not a list", r->name);
    json_array_foreach(merges, i, merge) {
        const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
        if (json_is_string(merge)) TRY(read_merge(r, json_string_value(merge), json_string_length(merge)));
        else if (json_is_string(left) && json_is_string(right) && json_array_size(merge) == 2)
            TRY(named(r, hf_add_merge(r->hf, json_string_value(left), json_string_length(left), json_string_value(right),
                                      json_string_length(right))));
        else return err_set(ERR_CORRUPT, "%s: merge %zu is neither \"a b\" nor [\"a\", \"b\"]", r->name, i + 1);
    }
    return 0;
}

static int refuse_affix(const struct reading *r, const json_t *model, const char *key) {
    const json_t *value = json_object_get(model, key);
    if (absent(value) || (json_is_string(value) && json_string_length(value) == 0)) return 0;
    return unsupported(r, key, json_string_value(value));
}

static int read_model(struct reading *r, const json_t *model) {
    bool fallback = false;
    if (!json_is_object(model)) return err_set(ERR_CORRUPT, "%s: there is no model", r->name);
    if (type_of(model) && !is_type(model, "BPE")) return unsupported(r, "the model", type_of(model));
    if (json_number_value(json_object_get(model, "dropout")) > 0) return unsupported(r, "the model's", "dropout");
    TRY(refuse_affix(r, model, "continuing_subword_prefix"));
    TRY(refuse_affix(r, model, "end_of_word_suffix"));
    TRY(flag(r, &fallback, model, "byte_fallback", false));
    if (fallback) return unsupported(r, "the model's", "byte_fallback");
    TRY(flag(r, &r->hf->ignore_merges, model, "ignore_merges", false));
    TRY(read_vocab(r, json_object_get(model, "vocab")));
    return read_merges(r, json_object_get(model, "merges"));
}

/* ---- how text is prepared ---- */

static int read_normalizer(struct reading *r, const json_t *normalizer) {
    if (absent(normalizer)) return 0;
    if (is_type(normalizer, "Sequence")) {
        size_t i;
        json_t *one;
        json_array_foreach(json_object_get(normalizer, "normalizers"), i, one) TRY(read_normalizer(r, one));
        return 0;
    }
    if (!is_type(normalizer, "NFC")) return unsupported(r, "the normalizer", type_of(normalizer));
    r->hf->nfc = true;
    return 0;
}

static int add_stage(struct reading *r, const char *regex, bool literal, bool drop_gaps, bool drop_matches) {
    if (r->hf->stages == HF_STAGES_MAX) return err_set(ERR_LIMIT, "%s: more than %d pre-tokenizers", r->name, HF_STAGES_MAX);
    char *copy = regex ? mem_text(regex) : NULL;
    r->hf->stage[r->hf->stages++] = (struct hf_stage){copy, literal, drop_gaps, drop_matches};
    return 0;
}

static int read_split(struct reading *r, const json_t *split) {
    const json_t *pattern = json_object_get(split, "pattern");
    const char *regex, *literal, *behavior;
    TRY(read_text(r, &regex, pattern, "Regex"));
    TRY(read_text(r, &literal, pattern, "String"));
    TRY(read_text(r, &behavior, split, "behavior"));
    if ((!regex && !literal) || !behavior) return err_set(ERR_CORRUPT, "%s: a Split has no pattern or behavior", r->name);
    if (strlen(regex ? regex : literal) == 0) return unsupported(r, "a Split with the pattern", "");
    bool invert = false, removed = strcmp(behavior, "Removed") == 0;
    TRY(flag(r, &invert, split, "invert", false));
    if (!removed && strcmp(behavior, "Isolated") != 0) return unsupported(r, "Split's behavior", behavior);
    return add_stage(r, regex ? regex : literal, !regex, removed && invert, removed && !invert);
}

static int read_byte_level(struct reading *r, const json_t *level) {
    bool use_regex = true;
    TRY(flag(r, &use_regex, level, "use_regex", true));
    TRY(flag(r, &r->hf->add_prefix_space, level, "add_prefix_space", true));
    if (r->hf->add_prefix_space && r->hf->stages > 0) return unsupported(r, "behind another pre-tokenizer", "add_prefix_space");
    return use_regex ? add_stage(r, NULL, false, false, false) : 0;
}

static int read_pre_tokenizer(struct reading *r, const json_t *pre, bool last) {
    if (is_type(pre, "Sequence")) {
        const json_t *list = json_object_get(pre, "pretokenizers");
        if (json_array_size(list) == 0) return unsupported(r, "the pre_tokenizer", "Sequence of nothing");
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(read_pre_tokenizer(r, json_array_get(list, i), last && i + 1 == json_array_size(list)));
        return 0;
    }
    bool byte_level = is_type(pre, "ByteLevel");
    if (byte_level && last) return read_byte_level(r, pre);
    if (byte_level) return unsupported(r, "anything behind the pre_tokenizer", "ByteLevel");
    if (last) return unsupported(r, "a last pre_tokenizer", absent(pre) ? "null" : type_of(pre));
    if (is_type(pre, "Split")) return read_split(r, pre);
    if (!is_type(pre, "Digits")) return unsupported(r, "the pre_tokenizer", type_of(pre));
    bool individual = false;
    TRY(flag(r, &individual, pre, "individual_digits", false));
    return add_stage(r, individual ? "\\p{N}" : "\\p{N}+", false, false, false);
}

/* ---- added tokens ---- */

static int read_added(struct reading *r, const json_t *token, json_int_t id) {
    const json_t *content = json_object_get(token, "content");
    if (!json_is_string(content) || id < 0 || id >= HF_IDS_MAX)
        return err_set(ERR_CORRUPT, "%s: an added token has no content, or no id below %d", r->name, HF_IDS_MAX);
    struct hf_added added = {.id = (uint32_t)id};
    bool single_word = false;
    TRY(flag(r, &single_word, token, "single_word", false));
    TRY(flag(r, &added.special, token, "special", false));
    TRY(flag(r, &added.lstrip, token, "lstrip", false));
    TRY(flag(r, &added.rstrip, token, "rstrip", false));
    TRY(flag(r, &added.normalized, token, "normalized", !added.special));
    if (single_word) return unsupported(r, "single_word of the added token", json_string_value(content));
    return named(r, hf_add_added(r->hf, &added, json_string_value(content), json_string_length(content)));
}

static bool added_has(const struct hf_tokenizer *hf, uint32_t id) {
    for (size_t i = 0; i < hf->added_count; i++)
        if (hf->added[i].id == id) return true;
    return false;
}

/* The id of a token by what it looks like, or -1. */
static int64_t id_of(const struct hf_tokenizer *hf, const char *text, size_t size) {
    for (size_t i = 0; i < hf->added_count; i++)
        if (hf->added[i].size == size && memcmp(hf->text.data + hf->added[i].first, text, size) == 0) return hf->added[i].id;
    uint32_t id = hf_find(hf, text, size, false); /* letters of ASCII stand for themselves */
    for (size_t i = 0; i < size; i++)
        if (text[i] <= ' ' || text[i] > '~') id = HF_NONE;
    return id == HF_NONE ? -1 : (int64_t)id;
}

/* "text" or {"content": "text"}; *out stays as it was when nothing is said. */
static int read_named_token(const struct reading *r, int64_t *out, const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!value) return 0;
    if (json_is_object(value)) value = json_object_get(value, "content");
    if (json_is_null(value)) {
        *out = -1;
        return 0;
    }
    if (!json_is_string(value)) return err_set(ERR_CORRUPT, "%s: %s is not a token", r->name, key);
    *out = id_of(r->hf, json_string_value(value), json_string_length(value));
    if (*out < 0) return err_set(ERR_CORRUPT, "%s: %s, \"%.80s\", is not in the vocabulary", r->name, key, json_string_value(value));
    return 0;
}

static int read_ends(struct reading *r, const json_t *object) {
    TRY(read_named_token(r, &r->hf->bos, object, "bos_token"));
    return read_named_token(r, &r->hf->eos, object, "eos_token");
}

/* ---- files ---- */

static int load(json_t **out, const char *name, const void *text, size_t size, size_t flags) {
    json_error_t error;
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | flags, &error);
    if (json_is_object(*out)) return 0;
    json_decref(*out);
    *out = NULL;
    return err_set(ERR_CORRUPT, "%s: not a JSON object%s%s", name, error.text[0] ? ": " : "", error.text);
}

static int read_tokenizer(struct reading *r, const json_t *root) {
    size_t i;
    json_t *token;
    TRY(read_model(r, json_object_get(root, "model")));
    TRY(read_normalizer(r, json_object_get(root, "normalizer")));
    TRY(read_pre_tokenizer(r, json_object_get(root, "pre_tokenizer"), true));
    json_array_foreach(json_object_get(root, "added_tokens"), i, token) {
        const json_t *id = json_object_get(token, "id");
        TRY(read_added(r, token, json_is_integer(id) ? json_integer_value(id) : -1));
    }
    r->hf->eos = id_of(r->hf, END_OF_TEXT, sizeof END_OF_TEXT - 1); /* unless the files say something */
    return read_ends(r, root);
}

int hf_parse(struct hf_tokenizer **out, const char *name, const void *json, size_t size) {
    json_t *root;
    TRY(load(&root, name, json, size, 0));
    struct reading r = {.name = name, .hf = hf_make()};
    int code = read_tokenizer(&r, root);
    if (code == 0) code = named(&r, hf_finish(r.hf));
    json_decref(root);
    if (code < 0) hf_close(r.hf);
    else *out = r.hf;
    return code;
}

/* FOLDER/NAME as JSON; *out NULL when there is no such file. */
static int load_beside(json_t **out, struct reading *r, char **path, const char *folder, const char *name, bool config) {
    struct buf text = {0};
    free(*path);
    *path = mem_format("%s/%s", folder, name);
    r->name = *path;
    *out = NULL;
    if (!file_exists(*path)) return 0;
    int code = file_read(&text, *path, config ? CONFIG_BYTES_MAX : HF_FILE_BYTES_MAX);
    /* model_max_length is 1e30 in many, written as a whole number */
    if (code == 0) code = load(out, *path, text.data, text.size, config ? JSON_DECODE_INT_AS_REAL : 0);
    buf_free(&text);
    return code;
}

/* merges.txt: "#version" lines, then one merge a line. */
static int read_merges_file(struct reading *r, const char *folder, char **path) {
    struct buf text = {0};
    free(*path);
    r->name = *path = mem_format("%s/merges.txt", folder);
    int code = file_read(&text, *path, HF_FILE_BYTES_MAX);
    const char *p = (const char *)text.data, *end = p + text.size;
    while (code == 0 && p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline ? newline : end;
        size_t size = (size_t)(stop - p);
        if (size > 0 && p[size - 1] == '\r') size--;
        bool version = size >= 8 && memcmp(p, "#version", 8) == 0;
        if (!version && size > 0) code = read_merge(r, p, size);
        p = newline ? newline + 1 : end;
    }
    buf_free(&text);
    return code;
}

static bool is_token(const json_t *value, const char *text, size_t size) {
    if (json_is_object(value)) value = json_object_get(value, "content");
    return is_text(value, text, size);
}

/* Does special_tokens_map.json name it, alone or in a list? */
static bool is_special(const json_t *special, const char *text, size_t size) {
    for (void *i = json_object_iter((json_t *)special); i; i = json_object_iter_next((json_t *)special, i)) {
        const json_t *value = json_object_iter_value(i), *item;
        size_t n;
        if (is_token(value, text, size)) return true;
        json_array_foreach(value, n, item)
            if (is_token(item, text, size)) return true;
    }
    return false;
}

static int read_added_ids(struct reading *r, const json_t *list, const json_t *special) {
    for (void *i = json_object_iter((json_t *)list); i; i = json_object_iter_next((json_t *)list, i)) {
        const char *text = json_object_iter_key(i);
        size_t size = json_object_iter_key_len(i);
        const json_t *id = json_object_iter_value(i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= HF_IDS_MAX)
            return err_set(ERR_CORRUPT, "%s: token \"%.80s\" has no id below %d", r->name, text, HF_IDS_MAX);
        struct hf_added added = {.id = (uint32_t)json_integer_value(id), .special = is_special(special, text, size)};
        added.normalized = !added.special;
        if (id_of(r->hf, text, size) == added.id && added_has(r->hf, added.id)) continue;
        TRY(named(r, hf_add_added(r->hf, &added, text, size)));
    }
    return 0;
}

/* Tokens that were added later, as older versions of transformers wrote them: read where tokenizer_config.json does not list all itself. */
static int read_added_file(struct reading *r, const char *folder, char **path, const json_t *config, const json_t *special) {
    json_t *list;
    const char *name = r->name;
    if (json_object_get(config, "added_tokens_decoder")) return 0;
    int code = load_beside(&list, r, path, folder, "added_tokens.json", false);
    if (code == 0) code = read_added_ids(r, list, special);
    json_decref(list);
    r->name = name;
    return code;
}

/* Special tokens of a folder without tokenizer.json: what tokenizer_config.json lists, and <|endoftext|>, as GPT2Tokenizer has it. */
static int read_added_of_config(struct reading *r, const json_t *config) {
    const json_t *list = json_object_get(config, "added_tokens_decoder");
    for (void *i = json_object_iter((json_t *)list); i; i = json_object_iter_next((json_t *)list, i)) {
        char *end;
        long id = strtol(json_object_iter_key(i), &end, 10);
        TRY(read_added(r, json_object_iter_value(i), *end ? -1 : id));
    }
    int64_t eos = id_of(r->hf, END_OF_TEXT, sizeof END_OF_TEXT - 1);
    if (eos < 0) return 0;
    r->hf->bos = r->hf->eos = eos;
    if (added_has(r->hf, (uint32_t)eos)) return 0;
    struct hf_added end = {.id = (uint32_t)eos, .special = true};
    return named(r, hf_add_added(r->hf, &end, END_OF_TEXT, sizeof END_OF_TEXT - 1));
}

static int read_plain_folder(struct reading *r, const char *folder, char **path, const json_t *config, const char *config_name,
                             const json_t *special) {
    json_t *vocab;
    TRY(load_beside(&vocab, r, path, folder, "vocab.json", false));
    if (!vocab)
        return err_set(ERR_CONFIG, "%s holds no tokenizer: neither tokenizer.json nor vocab.json and merges.txt", folder);
    int code = read_vocab(r, vocab);
    json_decref(vocab);
    if (code == 0) code = read_merges_file(r, folder, path);
    if (code == 0) code = read_added_file(r, folder, path, config, special);
    r->name = config_name;
    if (code == 0) code = flag(r, &r->hf->add_prefix_space, config, "add_prefix_space", false);
    if (code == 0) code = add_stage(r, NULL, false, false, false);
    return code == 0 ? read_added_of_config(r, config) : code;
}

static int read_folder(struct reading *r, const char *folder) {
    char *path = NULL, *config_name = mem_format("%s/tokenizer_config.json", folder);
    json_t *config = NULL, *special = NULL, *root = NULL;
    int code = load_beside(&config, r, &path, folder, "tokenizer_config.json", true);
    if (code == 0) code = load_beside(&special, r, &path, folder, "special_tokens_map.json", true);
    if (code == 0) code = load_beside(&root, r, &path, folder, "tokenizer.json", false);
    if (code == 0) code = root ? read_tokenizer(r, root) : read_plain_folder(r, folder, &path, config, config_name, special);
    if (code == 0 && root) code = read_added_file(r, folder, &path, config, special);
    if (code == 0) code = read_ends(r, special);
    r->name = config_name;
    if (code == 0) code = read_ends(r, config);
    if (code == 0) code = named(r, hf_finish(r->hf));
    json_decref(config), json_decref(special), json_decref(root);
    free(path), free(config_name);
    return code;
}

static int read_file(struct reading *r, const char *path) {
    struct buf text = {0};
    json_t *root = NULL;
    r->name = path;
    int code = file_read(&text, path, HF_FILE_BYTES_MAX);
    if (code == 0) code = load(&root, path, text.data, text.size, 0);
    buf_free(&text);
    if (code == 0) code = read_tokenizer(r, root);
    json_decref(root);
    return code;
}

int hf_read(struct hf_tokenizer **out, const char *path) {
    char *inside = mem_format("%s/.", path);
    bool folder = file_exists(inside);
    free(inside);
    /* a tokenizer.json brings along what its folder says of it */
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    bool by_folder = folder || strcmp(base, "tokenizer.json") == 0;
    char *place = mem_text(folder ? path : slash ? path : ".");
    if (!folder && slash) place[slash == path ? 1 : slash - path] = 0;
    struct reading r = {.name = path, .hf = hf_make()};
    int code = !file_exists(path) ? err_set(ERR_CONFIG, "there is no tokenizer %s; give gpt2, a folder or a tokenizer.json", path) : 0;
    if (code == 0 && by_folder) code = read_folder(&r, place);
    else if (code == 0) {
        code = read_file(&r, path);
        if (code == 0) code = named(&r, hf_finish(r.hf));
    }
    free(place);
    if (code < 0) hf_close(r.hf);
    else *out = r.hf;
    return code;
}
