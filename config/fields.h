/* The one table of pipeline.yaml's keys. Whatever deals with keys (parsing, `--set`, printing, comparing, the reference) walks it, so
 * a key is added by adding its row and its member of struct config. */
#ifndef MILLRACE_CONFIG_FIELDS_H
#define MILLRACE_CONFIG_FIELDS_H

#include <stdbool.h>
#include <stddef.h>

enum field_type {
    FIELD_TEXT,    /* char * */
    FIELD_PATH,    /* char *, absolute once loaded unless it is empty or one of names */
    FIELD_TEXTS,   /* struct text_list; a single text is a list of one */
    FIELD_PATHS,   /* the same, of paths, globs, URLs and "-"; absolute once loaded */
    FIELD_SOURCES, /* struct source_groups: texts, and mappings of source_fields */
    FIELD_INTEGER, /* int64_t */
    FIELD_SEED,    /* uint64_t, the whole range */
    FIELD_REAL,    /* double */
    FIELD_BOOL,    /* bool */
    FIELD_CHOICE,  /* an enum: the index into names */
    FIELD_SET,     /* bool of each of names: a list of those that are true */
};

struct field {
    const char *section;      /* "" at the top level */
    const char *key;
    const char *alias;        /* another name for the same value in the same section; may be NULL */
    enum field_type type;
    size_t offset;            /* in struct config, of source_fields in struct source_group */
    double min, max;          /* numbers: both allowed unless open; texts: bytes of each */
    bool min_open, max_open;
    bool narrow;              /* computed with as a float, which is rounded: it must be in range, too */
    bool alters;              /* another value can give other bytes of dataset or weights */
    const char *unit;         /* may be NULL */
    const char *fallback;     /* the default as one would write it; NULL: derived or required */
    const char *derived;      /* for the reference when fallback is NULL; NULL: required */
    const char *const *names; /* CHOICE, SET: values in enum order; PATH: texts that are not paths; ends with NULL */
    const char *help;
};

/* SQLite takes no longer path: 512 bytes with "/state/millrace.db-journal". */
enum { OUTPUT_DIR_BYTES_MAX = 486 };

extern const struct field fields[];
extern const size_t field_count;

/* The keys of an entry of dataset.sources. */
extern const struct field source_fields[];
extern const size_t source_field_count;

/* The sections in the order of the table, without "". */
extern const char *const field_sections[];
extern const size_t field_section_count;

/* The row of "section.key" (or of a top level key), also by alias; NULL if there is none. */
const struct field *field_find(const char *dotted_key);

/* "section.key", or "key" at the top level. */
enum { FIELD_NAME_BYTES = 64 };
void field_name(char out[FIELD_NAME_BYTES], const struct field *field);

#endif
