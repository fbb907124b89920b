/* YAML as a flat list of (dotted key, value, location). Only the part of YAML that pipeline.yaml needs: a mapping of keys and sections of
 * keys, values that are scalars or lists of scalars and flat mappings. Anchors, aliases, tags, several documents, deep nesting
 * and large texts are errors, so the time to an answer is bounded by the length of the text. */
#ifndef MILLRACE_CONFIG_YAML_H
#define MILLRACE_CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    YAML_TEXT_BYTES_MAX = 1 << 20, /* a thousand times what people write */
    YAML_KEYS_MAX = 512,           /* several times the keys there are; finding duplicates compares all pairs */
    YAML_KEY_BYTES_MAX = 64,
    YAML_ITEMS_MAX = 4096,         /* of a list */
    YAML_ITEM_KEYS_MAX = 32,       /* of a mapping in a list */
    YAML_DEPTH_MAX = 8,            /* four are needed; the rest is for saying at the right key that it is too deep */
};

struct location {
    const char *name; /* borrowed: the file, or "--set KEY"; NULL: no location */
    int line, column; /* from 1; line 0: the name is all there is */
};

struct entries;

/* A scalar, or in a list also a mapping of keys to scalars and lists of scalars. */
struct scalar {
    char *text;       /* size bytes, then a NUL that does not count; NULL: a mapping */
    size_t size;
    bool quoted;      /* or a block scalar: certainly a text */
    struct location at;
    struct entries *mapping; /* owned; its keys are "KEY OF THE LIST.key" */
};

enum entry_kind { ENTRY_SCALAR, ENTRY_LIST, ENTRY_SECTION, ENTRY_TOO_DEEP };

struct entry {
    char *key;            /* "section.key" or "key" */
    struct location key_at;
    struct location value_at;
    struct location first; /* where the same key was given before; without a name: nowhere */
    enum entry_kind kind;
    struct scalar *item;  /* one for a scalar; owned */
    size_t count;
};

struct entries {
    struct entry *entry;
    size_t count;
};

/* Reads a whole text. On failure *out is untouched. */
int entries_read(struct entries *out, const char *name, const char *text, size_t text_bytes);

/* Reads one value (a scalar or a list; no mapping by itself) from the command line as the value of `key`; an empty text is the empty
 * text, "-" is itself. `name` is "--set KEY". */
int entry_read_value(struct entry *out, const char *name, const char *key, const char *text);

/* ERR_CONFIG when the entry's key was given before. */
int entry_once(const struct entry *entry);

/* null, ~ or nothing at all. */
bool scalar_is_null(const struct scalar *scalar);

void entries_free(struct entries *entries);
void entry_free(struct entry *entry);

/* Sets ERR_CONFIG and "name:line:column: key: TEXT", or "name: TEXT" for a location without a line, whose name says the key (one inside a
 * list's mapping is said as well). key may be NULL. */
int fault(struct location at, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Where the last fault() of this thread was, as faults_note() wants it: by line and column, and behind all lines what has none. */
int64_t fault_place(void);

/* A text for messages: control characters escaped, cut to a readable length, in double quotes. */
enum { SHOWN_BYTES = 64 };
void show(char out[SHOWN_BYTES], const char *text, size_t size_bytes);

#endif
