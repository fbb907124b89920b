/* One value: parsing, checking, printing, comparing, by the type in its row of the table. Keeps nothing.
 *
 * Numbers are plain decimals and booleans are true or false: the forms that YAML 1.1, YAML 1.2 and people read alike. Paths become absolute
 * later (config/config.c). strtod() and printf() run in the C locale, which the program never leaves. */
#include "config/value.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "config/paths.h"

enum { NUMBER_BYTES_MAX = 48 }; /* more digits than any number here can use */

_Static_assert(sizeof(enum activation) == sizeof(int) && sizeof(enum scheduler) == sizeof(int) && sizeof(enum compression) == sizeof(int),
               "a choice is stored as an int");

static void *slot(void *base, const struct field *field) { return (char *)base + field->offset; }
static const void *slot_of(const void *base, const struct field *field) { return (const char *)base + field->offset; }

/* ---- what is expected ---- */

static void names_expected(char out[EXPECTED_BYTES], const char *start, const char *const *names) {
    int n = snprintf(out, EXPECTED_BYTES, "%s", start);
    for (int i = 0; names[i]; i++) n += snprintf(out + n, EXPECTED_BYTES - (size_t)n, "%s%s", i ? ", " : "", names[i]);
    CHECK(n < EXPECTED_BYTES);
}

void value_expected(char out[EXPECTED_BYTES], const struct field *field) {
    const char *from = field->min_open ? "above" : "from", *to = field->max_open ? ", below" : field->min_open ? ", at most" : " to";
    switch (field->type) {
    case FIELD_TEXT: snprintf(out, EXPECTED_BYTES, "text of %.0f to %.0f bytes", field->min, field->max); return;
    case FIELD_PATH:
        if (field->names) snprintf(out, EXPECTED_BYTES, "%s, or a path", field->names[0]);
        else snprintf(out, EXPECTED_BYTES, "a path of %.0f to %.0f bytes", field->min, field->max);
        return;
    case FIELD_TEXTS: snprintf(out, EXPECTED_BYTES, "a text or a list of texts"); return;
    case FIELD_PATHS: snprintf(out, EXPECTED_BYTES, "a path, glob, http(s) URL or \"-\", or a list of them"); return;
    case FIELD_SOURCES:
        snprintf(out, EXPECTED_BYTES, "a list of paths, globs or URLs, [\"corpus/*.txt\"], or of mappings, [{path: web, weight: 2}]");
        return;
    case FIELD_INTEGER: snprintf(out, EXPECTED_BYTES, "a whole number %s %.0f%s %.0f", from, field->min, to, field->max); return;
    case FIELD_SEED: snprintf(out, EXPECTED_BYTES, "a whole number from 0 to %" PRIu64, UINT64_MAX); return;
    case FIELD_REAL: snprintf(out, EXPECTED_BYTES, "a number %s %g%s %g", from, field->min, to, field->max); return;
    case FIELD_BOOL: snprintf(out, EXPECTED_BYTES, "true or false"); return;
    case FIELD_CHOICE: names_expected(out, field->names[1] ? "one of " : "", field->names); return;
    case FIELD_SET: names_expected(out, "a list, any of ", field->names); return;
    }
    CHECK(!"a field type without a case");
}

int value_refuse(struct location at, const struct field *field, const char *what) {
    char name[FIELD_NAME_BYTES], expected[EXPECTED_BYTES];
    field_name(name, field);
    value_expected(expected, field);
    return fault(at, name, "%s; expected %s", what, expected);
}

static int refuse_scalar(const struct scalar *scalar, const struct field *field, const char *what) {
    char shown[SHOWN_BYTES], text[2 * SHOWN_BYTES + 64];
    show(shown, scalar->text, scalar->size);
    snprintf(text, sizeof text, "%s %s", shown, what);
    return value_refuse(scalar->at, field, text);
}

/* ---- numbers ---- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* -?(0|[1-9][0-9]*) : a leading zero means octal to some readers of YAML */
static bool is_whole_number(const char *s) {
    if (*s == '-') s++;
    if (!is_digit(*s) || (*s == '0' && s[1])) return false;
    while (is_digit(*s)) s++;
    return *s == 0;
}

/* -?(digits[.digits*] | .digits)([eE][+-]?digits)? */
static bool is_number(const char *s) {
    if (*s == '-') s++;
    if (*s == '0' && is_digit(s[1])) return false;
    size_t digits = 0;
    for (; is_digit(*s); s++) digits++;
    if (*s == '.') s++;
    for (; is_digit(*s); s++) digits++;
    if (digits == 0) return false;
    if (*s == 'e' || *s == 'E') {
        s++;
        if (*s == '+' || *s == '-') s++;
        if (!is_digit(*s)) return false;
        while (is_digit(*s)) s++;
    }
    return *s == 0;
}

static bool in_range(const struct field *field, double value) {
    return (field->min_open ? value > field->min : value >= field->min) && (field->max_open ? value < field->max : value <= field->max);
}

static int number_check(const struct field *field, const struct scalar *scalar, bool whole) {
    const char *what = whole ? "is not a whole number" : "is not a number";
    bool short_enough = scalar->size <= NUMBER_BYTES_MAX && strlen(scalar->text) == scalar->size;
    if (!short_enough || !(whole ? is_whole_number(scalar->text) : is_number(scalar->text))) return refuse_scalar(scalar, field, what);
    if (scalar->quoted) return refuse_scalar(scalar, field, "in quotes is text, not a number");
    return 0;
}

static int integer_parse(int64_t *out, const struct field *field, const struct scalar *scalar) {
    TRY(number_check(field, scalar, true));
    errno = 0;
    long long value = strtoll(scalar->text, NULL, 10);
    if (errno || !in_range(field, (double)value)) return refuse_scalar(scalar, field, "is out of range");
    *out = value;
    return 0;
}

static int seed_parse(uint64_t *out, const struct field *field, const struct scalar *scalar) {
    TRY(number_check(field, scalar, true));
    errno = 0;
    unsigned long long value = strtoull(scalar->text, NULL, 10);
    if (errno || scalar->text[0] == '-') return refuse_scalar(scalar, field, "is out of range");
    *out = value;
    return 0;
}

static int real_parse(double *out, const struct field *field, const struct scalar *scalar) {
    TRY(number_check(field, scalar, false));
    errno = 0;
    double value = strtod(scalar->text, NULL);
    bool usable = errno == 0 && isfinite(value) && fpclassify(value) != FP_SUBNORMAL;
    if (field->narrow && !in_range(field, (float)value)) usable = false;
    if (!usable || !in_range(field, value)) return refuse_scalar(scalar, field, "is out of range");
    *out = value + 0.0; /* -0 becomes 0: they compare equal and must also print so */
    return 0;
}

/* ---- the other types ---- */

/* As YAML 1.1 and 1.2 and Python write it: true, True, TRUE. */
static bool is_word(const char *text, const char *word) {
    if (strcasecmp(text, word) != 0) return false;
    bool upper = text[1] >= 'A' && text[1] <= 'Z';
    for (size_t i = 1; text[i]; i++)
        if ((text[i] >= 'A' && text[i] <= 'Z') != upper) return false;
    return !upper || (text[0] >= 'A' && text[0] <= 'Z');
}

static int bool_parse(bool *out, const struct field *field, const struct scalar *scalar) {
    static const char *const old_forms[] = {"yes", "no", "on", "off", "y", "n"};
    bool truth = is_word(scalar->text, "true");
    if (!truth && !is_word(scalar->text, "false")) {
        for (size_t i = 0; i < sizeof old_forms / sizeof old_forms[0]; i++)
            if (strcasecmp(scalar->text, old_forms[i]) == 0)
                return refuse_scalar(scalar, field, "is a truth value in old YAML and a word in new YAML");
        return refuse_scalar(scalar, field, "is not a truth value");
    }
    if (scalar->quoted) return refuse_scalar(scalar, field, "in quotes is text, not a truth value");
    *out = truth;
    return 0;
}

static int choice_parse(int *out, const struct field *field, const struct scalar *scalar) {
    for (int i = 0; field->names[i]; i++) {
        if (strcmp(scalar->text, field->names[i]) != 0) continue;
        *out = i;
        return 0;
    }
    return refuse_scalar(scalar, field, "is not known");
}

static int text_check(const struct field *field, const struct scalar *scalar) {
    if (strlen(scalar->text) != scalar->size) return refuse_scalar(scalar, field, "has a NUL character in it");
    if (scalar->size == 0 && field->min > 0) return refuse_scalar(scalar, field, "is empty");
    if ((double)scalar->size < field->min || (double)scalar->size > field->max) return refuse_scalar(scalar, field, "is too long");
    return 0;
}

static void texts_free(struct text_list *list) {
    for (size_t i = 0; i < list->count; i++) free(list->item[i]);
    free(list->item);
    *list = (struct text_list){0};
}

static int item_check(const struct field *field, const struct scalar *item) {
    if (item->mapping) return value_refuse(item->at, field, "is a mapping");
    if (scalar_is_null(item)) return value_refuse(item->at, field, "an entry of the list is empty");
    bool path = field->type == FIELD_PATHS || field->type == FIELD_SOURCES;
    if (path && strstr(item->text, "://") && !path_is_remote(item->text))
        return refuse_scalar(item, field, "is a URL of another kind than http:// and https://");
    return field->type == FIELD_SET ? 0 : text_check(field, item);
}

int texts_parse(struct text_list *out, const struct field *field, const struct entry *entry) {
    if (entry->count == 0) return value_refuse(entry->value_at, field, "the list is empty");
    for (size_t i = 0; i < entry->count; i++) TRY(item_check(field, &entry->item[i]));
    texts_free(out);
    out->item = mem_alloc(entry->count * sizeof *out->item);
    for (; out->count < entry->count; out->count++) out->item[out->count] = mem_text(entry->item[out->count].text);
    return 0;
}

static size_t names_count(const char *const *names) {
    size_t count = 0;
    while (names[count]) count++;
    return count;
}

static int set_parse(bool *out, const struct field *field, const struct entry *entry) {
    enum { NAMES_MAX = 16 };
    bool fresh[NAMES_MAX] = {0};
    size_t count = names_count(field->names);
    CHECK(count <= NAMES_MAX);
    for (size_t i = 0; i < entry->count; i++) {
        int choice = 0;
        TRY(item_check(field, &entry->item[i]));
        TRY(choice_parse(&choice, field, &entry->item[i]));
        if (fresh[choice]) return refuse_scalar(&entry->item[i], field, "is in the list twice");
        fresh[choice] = true;
    }
    memcpy(out, fresh, count * sizeof *out);
    return 0;
}

static int text_parse(char **out, const struct field *field, const struct scalar *scalar) {
    TRY(text_check(field, scalar));
    free(*out);
    *out = mem_text(scalar->text);
    return 0;
}

static bool takes_list(const struct field *field) {
    return field->type == FIELD_TEXTS || field->type == FIELD_PATHS || field->type == FIELD_SOURCES || field->type == FIELD_SET;
}

int value_check(const struct field *field, const struct entry *entry) {
    if (entry->kind == ENTRY_SECTION) return value_refuse(entry->value_at, field, "is a section");
    if (entry->kind == ENTRY_TOO_DEEP) return value_refuse(entry->value_at, field, "is a mapping or nested list");
    if (entry->kind == ENTRY_LIST && !takes_list(field)) return value_refuse(entry->value_at, field, "is a list");
    if (entry->kind == ENTRY_SCALAR && scalar_is_null(entry->item))
        return value_refuse(entry->value_at, field, "has no value; leave it out, or write null, for the default");
    return 0;
}

int value_parse(void *base, const struct field *field, const struct entry *entry) {
    void *out = slot(base, field);
    TRY(value_check(field, entry));
    switch (field->type) {
    case FIELD_TEXT:
    case FIELD_PATH: return text_parse(out, field, entry->item);
    case FIELD_TEXTS:
    case FIELD_PATHS: return texts_parse(out, field, entry);
    case FIELD_SOURCES: break;
    case FIELD_INTEGER: return integer_parse(out, field, entry->item);
    case FIELD_SEED: return seed_parse(out, field, entry->item);
    case FIELD_REAL: return real_parse(out, field, entry->item);
    case FIELD_BOOL: return bool_parse(out, field, entry->item);
    case FIELD_CHOICE: return choice_parse(out, field, entry->item);
    case FIELD_SET: return set_parse(out, field, entry);
    }
    CHECK(!"a field type without a case");
    return 0;
}

void value_default(void *base, const struct field *field) {
    if (!field->fallback || field->type == FIELD_SET) return; /* a set begins empty */
    struct location at = {.name = "default"};
    struct scalar scalar = {.text = mem_text(field->fallback), .size = strlen(field->fallback), .at = at};
    struct entry entry = {.kind = ENTRY_SCALAR, .item = &scalar, .count = 1, .key_at = at, .value_at = at};
    scalar.quoted = field->type == FIELD_TEXT || field->type == FIELD_PATH;
    CHECK(value_parse(base, field, &entry) == 0);
    free(scalar.text);
}

void value_reset(void *base, const struct field *field) {
    void *value = slot(base, field);
    value_free(base, field); /* texts, lists */
    switch (field->type) {
    case FIELD_INTEGER: *(int64_t *)value = 0; break;
    case FIELD_SEED: *(uint64_t *)value = 0; break;
    case FIELD_REAL: *(double *)value = 0; break;
    case FIELD_BOOL: *(bool *)value = false; break;
    case FIELD_CHOICE: *(int *)value = 0; break;
    case FIELD_SET: memset(value, 0, names_count(field->names) * sizeof(bool)); break;
    case FIELD_TEXT:
    case FIELD_PATH:
    case FIELD_TEXTS:
    case FIELD_PATHS:
    case FIELD_SOURCES: break;
    }
    value_default(base, field);
}

/* ---- back to text ---- */

/* YAML refuses the control characters, folds its line breaks (U+0085, U+2028, U+2029) and may drop a byte order mark. */
static bool is_plain(unsigned c) {
    if (c < 0x20 || (c >= 0x7F && c < 0xA0) || c == '"' || c == '\\') return false;
    return c != 0x2028 && c != 0x2029 && c != 0xFEFF && c != 0xFFFE && c != 0xFFFF;
}

int text_print(struct buf *out, const char *text) {
    TRY(buf_append(out, "\"", 1));
    for (size_t left = strlen(text), n; left; text += n, left -= n) {
        unsigned c;
        n = utf8_decode(&c, text, left);
        CHECK(n > 0);
        if (is_plain(c)) TRY(buf_append(out, text, n));
        else if (c == '"' || c == '\\') TRY(buf_print(out, "\\%c", (char)c));
        else if (c == '\n') TRY(buf_append(out, "\\n", 2));
        else if (c == '\t') TRY(buf_append(out, "\\t", 2));
        else if (c < 0x100) TRY(buf_print(out, "\\x%02X", c));
        else TRY(buf_print(out, "\\u%04X", c));
    }
    return buf_append(out, "\"", 1);
}

static int path_print(struct buf *out, const char *path, const char *folder, bool glob) {
    if (!folder || path[0] != '/') return text_print(out, path);
    struct buf relative = {0};
    int code = path_relative(&relative, path, folder, glob);
    if (code == 0) code = text_print(out, (const char *)relative.data);
    buf_free(&relative);
    return code;
}

/* As people write it: a list of one is that one. */
static int texts_print(struct buf *out, const struct text_list *list, const char *folder) {
    if (list->count != 1) TRY(buf_append(out, "[", 1));
    for (size_t i = 0; i < list->count; i++) {
        if (i) TRY(buf_append(out, ", ", 2));
        TRY(path_print(out, list->item[i], folder, true));
    }
    return list->count != 1 ? buf_append(out, "]", 1) : 0;
}

static int set_print(struct buf *out, const struct field *field, const bool *value) {
    const char *comma = "";
    TRY(buf_append(out, "[", 1));
    for (size_t i = 0; field->names[i]; i++) {
        if (!value[i]) continue;
        TRY(buf_print(out, "%s%s", comma, field->names[i]));
        comma = ", ";
    }
    return buf_append(out, "]", 1);
}

int value_print(struct buf *out, const struct field *field, const void *base, const char *folder) {
    const void *value = slot_of(base, field);
    switch (field->type) {
    case FIELD_TEXT: return text_print(out, *(char *const *)value);
    case FIELD_PATH: return path_print(out, *(char *const *)value, folder, false);
    case FIELD_TEXTS: return texts_print(out, value, NULL);
    case FIELD_PATHS: return texts_print(out, value, folder);
    case FIELD_SOURCES: break;
    case FIELD_INTEGER: return buf_print(out, "%" PRId64, *(const int64_t *)value);
    case FIELD_SEED: return buf_print(out, "%" PRIu64, *(const uint64_t *)value);
    case FIELD_REAL: return buf_print(out, "%s", text_real(*(const double *)value));
    case FIELD_BOOL: return buf_print(out, "%s", *(const bool *)value ? "true" : "false");
    case FIELD_CHOICE: return buf_print(out, "%s", field->names[*(const int *)value]);
    case FIELD_SET: return set_print(out, field, value);
    }
    CHECK(!"a field type without a case");
    return 0;
}

static bool texts_equal(const struct text_list *a, const struct text_list *b) {
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->item[i], b->item[i]) != 0) return false;
    return true;
}

bool value_equal(const struct field *field, const void *a, const void *b) {
    const void *left = slot_of(a, field), *right = slot_of(b, field);
    switch (field->type) {
    case FIELD_TEXT:
    case FIELD_PATH: return strcmp(*(char *const *)left, *(char *const *)right) == 0;
    case FIELD_TEXTS:
    case FIELD_PATHS: return texts_equal(left, right);
    case FIELD_SOURCES: break;
    case FIELD_INTEGER: return *(const int64_t *)left == *(const int64_t *)right;
    case FIELD_SEED: return *(const uint64_t *)left == *(const uint64_t *)right;
    case FIELD_REAL: return *(const double *)left == *(const double *)right;
    case FIELD_BOOL: return *(const bool *)left == *(const bool *)right;
    case FIELD_CHOICE: return *(const int *)left == *(const int *)right;
    case FIELD_SET: return memcmp(left, right, names_count(field->names) * sizeof(bool)) == 0;
    }
    CHECK(!"a field type without a case");
    return false;
}

void value_free(void *base, const struct field *field) {
    void *value = slot(base, field);
    if (field->type == FIELD_TEXTS || field->type == FIELD_PATHS) texts_free(value);
    if (field->type != FIELD_TEXT && field->type != FIELD_PATH) return;
    free(*(char **)value);
    *(char **)value = NULL;
}
