/* One value of one key, of any type but FIELD_SOURCES: from YAML to struct config and back. Everything here follows the row of the table;
 * no key is known by name. config/groups.h adds dataset.sources, whose entries have keys and values themselves. */
#ifndef MILLRACE_CONFIG_VALUE_H
#define MILLRACE_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "config/config.h"
#include "config/fields.h"
#include "config/yaml.h"

/* `base` is what the field's offset counts from: a struct config, or a struct source_group for source_fields.
 *
 * Stores the entry's value, releasing the one that was there. ERR_CONFIG names location, key, fault and expectation; the value there
 * stays as it was. */
int value_parse(void *base, const struct field *field, const struct entry *entry);

/* Whether the entry has the form that the field takes: a value, a list where a list is taken, nothing nested. ERR_CONFIG: it has not. */
int value_check(const struct field *field, const struct entry *entry);

/* As value_parse(), of a list of texts; a single text is a list of one. */
int texts_parse(struct text_list *out, const struct field *field, const struct entry *entry);

/* The field's default, where it has one. */
void value_default(void *base, const struct field *field);

/* Releases the value; then its default, all zeros where it has none. */
void value_reset(void *base, const struct field *field);

/* Appends the value in YAML's flow form, texts in double quotes, numbers in the shortest form that reads back equal. Paths below
 * `folder` are printed relative to it; NULL: all are absolute. */
int value_print(struct buf *out, const struct field *field, const void *base, const char *folder);

bool value_equal(const struct field *field, const void *a, const void *b);
void value_free(void *base, const struct field *field);

/* ERR_CONFIG: the location, the key, what is wrong there, and what is expected. */
int value_refuse(struct location at, const struct field *field, const char *what);

/* What the key takes, for people: "a number above 0, at most 10". */
enum { EXPECTED_BYTES = 192 };
void value_expected(char out[EXPECTED_BYTES], const struct field *field);

/* Appends a text in double quotes as YAML reads it back. The text is valid UTF-8. */
int text_print(struct buf *out, const char *text);

#endif
