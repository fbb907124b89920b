/* dataset.sources, and the functions for a value of any key on top of it.
 *
 * An entry of the list is read with the code of config/value.c, over the table of an entry's keys (source_fields). groups_parse() keeps a
 * struct origin for each entry while it works, with the location of every key, so that the rules between keys and between entries can say
 * where. */
#include "config/groups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "config/names.h"
#include "config/paths.h"
#include "config/value.h"

/* Where an entry, and each of its keys, was given; name NULL: it was not. */
struct origin {
    struct location at;
    struct location key[16];
    bool failed[16]; /* its value was not understood: rules about it say nothing */
    bool unknown;    /* a key that is none: it may be a slip for one that is missed */
};

static const struct field *find(const char *key) {
    for (size_t i = 0; i < source_field_count; i++) {
        const struct field *field = &source_fields[i];
        if (strcmp(field->key, key) == 0 || (field->alias && strcmp(field->alias, key) == 0)) return field;
    }
    CHECK(!"an unknown key of an entry"); /* asked with constants only */
    return NULL;
}

static struct location location_of(const struct origin *origin, const char *key) { return origin->key[find(key) - source_fields]; }
static bool given(const struct origin *origin, const char *key) { return location_of(origin, key).name != NULL; }
static bool failed(const struct origin *origin, const char *key) { return origin->failed[find(key) - source_fields]; }

static int note(struct faults *faults, int code) { return faults_note(faults, code, fault_place()); }

static void group_free(struct source_group *group) {
    for (size_t i = 0; i < source_field_count; i++) value_free(group, &source_fields[i]);
}

static void group_default(struct source_group *out) {
    *out = (struct source_group){.separator = mem_text("")};
    for (size_t i = 0; i < source_field_count; i++) value_default(out, &source_fields[i]);
}

/* ---- reading ---- */

static int apply_key(struct source_group *group, struct origin *origin, const struct entry *entry) {
    TRY(entry_once(entry));
    const char *key = strrchr(entry->key, '.') + 1;
    bool silent = entry->kind == ENTRY_SCALAR && entry->item->size > 0 && scalar_is_null(entry->item); /* as without the key */
    for (size_t i = 0; i < source_field_count; i++) {
        const struct field *field = &source_fields[i];
        if (strcmp(field->key, key) != 0 && (!field->alias || strcmp(field->alias, key) != 0)) continue;
        if (silent) return 0;
        if (origin->key[i].name)
            return fault(entry->key_at, entry->key, "given together with %s; expected one of %s and %s",
                         strcmp(field->key, key) == 0 ? field->alias : field->key, field->alias, field->key);
        origin->key[i] = entry->value_at;
        int code = value_parse(group, field, entry);
        origin->failed[i] = code < 0;
        return code;
    }
    origin->unknown = true;
    return name_refuse_source(entry->key_at, entry->key);
}

static int check_format(struct source_group *group, const struct origin *origin, struct faults *faults) {
    bool separated = given(origin, "separator"), known = !failed(origin, "format");
    if (separated && !given(origin, "format")) group->format = FORMAT_TEXT;
    bool plain = group->format == FORMAT_TEXT || group->format == FORMAT_LINES;
    if (separated && known && group->format != FORMAT_TEXT)
        TRY(note(faults, fault(location_of(origin, "separator"), "dataset.sources.separator",
                               "stands between documents of format text; expected it without format, or with format: text")));
    if (given(origin, "field") && known && (plain || separated))
        TRY(note(faults, fault(location_of(origin, "field"), "dataset.sources.field",
                               "names a part of structured documents; expected it with format jsonl, json, csv, tsv or auto")));
    if (given(origin, "weight") && group->split == SPLIT_VALIDATION)
        TRY(note(faults, fault(location_of(origin, "weight"), "dataset.sources.weight",
                               "is a share of the training tokens, and with split: validation the entry gives none; expected no weight "
                               "here")));
    return 0;
}

static int check_name(const struct source_group *group, struct location at) {
    for (const char *c = group->name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return fault(at, "dataset.sources.name", "has a control character in it; expected one line of text");
    return 0;
}

static int read_mapping(struct source_group *group, struct origin *origin, const struct entries *entries, struct faults *faults) {
    for (size_t i = 0; i < entries->count; i++) TRY(note(faults, apply_key(group, origin, &entries->entry[i])));
    if (!given(origin, "paths") && !origin->unknown)
        TRY(note(faults, fault(origin->at, "dataset.sources",
                               "an entry has no path; expected {path: \"corpus/*.txt\", ...}, or paths with a list")));
    if (group->name) TRY(note(faults, check_name(group, location_of(origin, "name"))));
    return check_format(group, origin, faults);
}

static int read_group(struct source_group *out, struct origin *origin, const struct field *field, const struct scalar *item, size_t number,
                      struct faults *faults) {
    struct location at = item->at;
    *origin = (struct origin){.at = at};
    group_default(out);
    if (item->mapping) {
        TRY(read_mapping(out, origin, item->mapping, faults));
    } else {
        struct entry path = {.kind = ENTRY_LIST, .item = (struct scalar *)item, .count = 1, .key_at = at, .value_at = at};
        TRY(note(faults, texts_parse(&out->paths, field, &path))); /* so that a fault names what the whole list takes */
    }
    if (!out->name) out->name = mem_format("source-%zu", number);
    return 0;
}

/* ---- rules between entries ---- */

static int check_names(const struct source_groups *groups, const struct origin *origin, struct faults *faults) {
    for (size_t i = 0; i < groups->count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (failed(&origin[i], "name") || failed(&origin[k], "name")) continue;
            if (strcmp(groups->item[i].name, groups->item[k].name) != 0) continue;
            const struct origin *named = given(&origin[i], "name") ? &origin[i] : &origin[k]; /* not two defaults: their numbers differ */
            char shown[SHOWN_BYTES];
            show(shown, groups->item[i].name, strlen(groups->item[i].name));
            TRY(note(faults, fault(location_of(named, "name"), "dataset.sources.name",
                                   "%s is the name of two entries; expected another (source-N, counted from 0, is that of one without a "
                                   "name)",
                                   shown)));
            break;
        }
    }
    return 0;
}

static int check_weights(const struct source_groups *groups, const struct origin *origin) {
    size_t trained = 0, weighted = 0;
    bool understood = true;
    for (size_t i = 0; i < groups->count; i++) {
        if (failed(&origin[i], "split")) return 0;
        trained += groups->item[i].split != SPLIT_VALIDATION;
        weighted += given(&origin[i], "weight");
        understood = understood && !failed(&origin[i], "weight") && !origin[i].unknown;
    }
    if (trained == 0)
        return fault(location_of(&origin[0], "split"), "dataset.sources.split",
                     "validation for every entry leaves nothing to train on; expected an entry without it");
    if (weighted == 0 || weighted == trained || !understood) return 0;
    for (size_t i = 0; i < groups->count; i++) {
        if (given(&origin[i], "weight") || groups->item[i].split == SPLIT_VALIDATION) continue;
        return fault(origin[i].at, "dataset.sources", "the entry %s has no weight, and others do; expected a weight for all or for none",
                     groups->item[i].name);
    }
    return 0;
}

static int check_standard_input(const struct source_groups *groups, const struct origin *origin) {
    size_t times = 0;
    for (size_t i = 0; i < groups->count; i++) {
        const struct text_list *paths = &groups->item[i].paths;
        for (size_t k = 0; k < paths->count; k++) {
            if (strcmp(paths->item[k], "-") != 0 || ++times == 1) continue;
            return fault(given(&origin[i], "paths") ? location_of(&origin[i], "paths") : origin[i].at, "dataset.sources",
                         "\"-\", standard input, is given twice; expected it once");
        }
    }
    return 0;
}

static void groups_free(struct source_groups *groups) {
    for (size_t i = 0; i < groups->count; i++) group_free(&groups->item[i]);
    free(groups->item);
    *groups = (struct source_groups){0};
}

static int groups_parse(struct source_groups *out, const struct field *field, const struct entry *entry, struct faults *faults) {
    if (entry->count == 0) { /* as it is printed beside dataset.prepared; without that, it is missing */
        groups_free(out);
        return 0;
    }
    CHECK(source_field_count <= sizeof((struct origin *)0)->key / sizeof(struct location));
    struct source_groups fresh = {.item = mem_alloc(entry->count * sizeof *fresh.item)};
    struct origin *origin = mem_alloc(entry->count * sizeof *origin);
    int code = 0;
    size_t before = faults->count;
    for (; fresh.count < entry->count && code == 0; fresh.count++)
        code = read_group(&fresh.item[fresh.count], &origin[fresh.count], field, &entry->item[fresh.count], fresh.count, faults);
    if (code == 0) code = check_names(&fresh, origin, faults);
    if (code == 0) code = note(faults, check_weights(&fresh, origin));
    if (code == 0) code = note(faults, check_standard_input(&fresh, origin));
    bool good = code == 0 && faults->count == before;
    groups_free(good ? out : &fresh);
    if (good) *out = fresh;
    free(origin);
    return code;
}

/* ---- the other ways ---- */

/* An entry with nothing but one path is printed as that path. Defaults are not printed. */
static int group_print(struct buf *out, const struct source_group *group, size_t number, const char *folder) {
    struct source_group plain;
    group_default(&plain);
    plain.name = mem_format("source-%zu", number);
    const char *comma = "";
    bool differs = group->paths.count != 1;
    for (size_t i = 0; i < source_field_count; i++)
        differs = differs || (&source_fields[i] != find("paths") && !value_equal(&source_fields[i], group, &plain));
    int code = 0;
    if (differs) code = buf_append(out, "{", 1);
    for (size_t i = 0; i < source_field_count && code == 0; i++) {
        const struct field *field = &source_fields[i];
        bool paths = field == find("paths");
        if (!paths && value_equal(field, group, &plain)) continue;
        if (differs) code = buf_print(out, "%s%s: ", comma, paths && group->paths.count == 1 ? field->alias : field->key);
        if (code == 0) code = value_print(out, field, group, folder);
        comma = ", ";
    }
    if (code == 0 && differs) code = buf_append(out, "}", 1);
    group_free(&plain);
    return code;
}

static int groups_print(struct buf *out, const struct source_groups *groups, const char *folder) {
    TRY(buf_append(out, "[", 1));
    for (size_t i = 0; i < groups->count; i++) {
        if (i) TRY(buf_append(out, ", ", 2));
        TRY(group_print(out, &groups->item[i], i, folder));
    }
    return buf_append(out, "]", 1);
}

static bool groups_equal(const struct source_groups *a, const struct source_groups *b) {
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++)
        for (size_t k = 0; k < source_field_count; k++)
            if (!value_equal(&source_fields[k], &a->item[i], &b->item[i])) return false;
    return true;
}

/* ---- the value of any key ---- */

static struct source_groups *groups_of(struct config *config, const struct field *field) {
    return field->type == FIELD_SOURCES ? (struct source_groups *)((char *)config + field->offset) : NULL;
}
static const struct source_groups *groups_in(const struct config *config, const struct field *field) {
    return field->type == FIELD_SOURCES ? (const struct source_groups *)((const char *)config + field->offset) : NULL;
}

int setting_parse(struct config *config, const struct field *field, const struct entry *entry, struct faults *faults) {
    struct source_groups *groups = groups_of(config, field);
    int code = groups ? value_check(field, entry) : value_parse(config, field, entry);
    return groups && code == 0 ? groups_parse(groups, field, entry, faults) : note(faults, code);
}

void setting_reset(struct config *config, const struct field *field) {
    struct source_groups *groups = groups_of(config, field);
    if (groups) groups_free(groups);
    else value_reset(config, field);
}

int setting_print(struct buf *out, const struct field *field, const struct config *config, const char *folder) {
    const struct source_groups *groups = groups_in(config, field);
    return groups ? groups_print(out, groups, folder) : value_print(out, field, config, folder);
}

bool setting_equal(const struct field *field, const struct config *a, const struct config *b) {
    const struct source_groups *groups = groups_in(a, field);
    return groups ? groups_equal(groups, groups_in(b, field)) : value_equal(field, a, b);
}

void setting_free(struct config *config, const struct field *field) {
    struct source_groups *groups = groups_of(config, field);
    if (groups) groups_free(groups);
    else value_free(config, field);
}
