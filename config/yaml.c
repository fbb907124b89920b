/* The only file that calls libyaml. Reads the parser's events into a flat list of entries, each with its location: no tree or graph is
 * built that a hostile file could make large. Which keys exist is not known here. */
#include "config/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/err.h"
#include "base/mem.h"

struct reader {
    yaml_parser_t parser;
    yaml_event_t event;  /* the current one; its texts live until the next */
    const char *name;
    const char *text;
    size_t text_bytes;
    bool has_lines; /* false: a value of the command line, where lines mean nothing */
    struct entries out;
};

static _Thread_local int64_t last_place;

int64_t fault_place(void) { return last_place; }

int fault(struct location at, const char *key, const char *format, ...) {
    enum { NAME_BYTES_MAX = 300 }; /* a longer path would push the reason out of the error text */
    char what[768];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    last_place = at.line ? (int64_t)at.line << 32 | at.column : INT64_MAX;
    size_t n = strlen(at.name);
    const char *name = n > NAME_BYTES_MAX ? at.name + n - NAME_BYTES_MAX : at.name;
    if (at.line == 0) {
        size_t key_bytes = key ? strlen(key) : 0;
        bool said = key_bytes == 0 || (n >= key_bytes && strcmp(at.name + n - key_bytes, key) == 0);
        return said ? err_set(ERR_CONFIG, "%s: %s", name, what) : err_set(ERR_CONFIG, "%s: %s: %s", name, key, what);
    }
    if (!key) return err_set(ERR_CONFIG, "%s:%d:%d: %s", name, at.line, at.column, what);
    return err_set(ERR_CONFIG, "%s:%d:%d: %s: %s", name, at.line, at.column, key, what);
}

void show(char out[SHOWN_BYTES], const char *text, size_t size_bytes) {
    enum { ROOM = SHOWN_BYTES - 12 }; /* the longest escape, the ellipsis, quote and NUL */
    size_t n = 0, i = 0;
    out[n++] = '"';
    for (; i < size_bytes && n < ROOM; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7f) n += (size_t)sprintf(out + n, "\\x%02x", c);
        else out[n++] = (char)c;
    }
    if (i < size_bytes) {
        while (n > 1 && ((unsigned char)text[i] & 0xC0) == 0x80) i--, n--; /* cut between characters, not inside one */
        memcpy(out + n, "...", 3);
        n += 3;
    }
    out[n++] = '"';
    out[n] = 0;
}

static struct location location_of(const struct reader *reader, const yaml_mark_t *mark) {
    if (!reader->has_lines) return (struct location){.name = reader->name};
    return (struct location){.name = reader->name, .line = (int)mark->line + 1, .column = (int)mark->column + 1};
}

static struct location location_of_offset(const struct reader *reader, size_t offset) {
    yaml_mark_t mark = {0};
    for (size_t i = 0; i < offset && i < reader->text_bytes; i++) {
        unsigned char c = (unsigned char)reader->text[i];
        if (c == '\n') mark.line++, mark.column = 0;
        else if ((c & 0xC0) != 0x80) mark.column++;
    }
    return location_of(reader, &mark);
}

static int parser_fault(const struct reader *reader) {
    const yaml_parser_t *parser = &reader->parser;
    const char *problem = parser->problem ? parser->problem : "cannot be read";
    if (parser->error == YAML_MEMORY_ERROR) return err_set(ERR_MEMORY, "%s: out of memory", reader->name);
    if (parser->error == YAML_READER_ERROR)
        return fault(location_of_offset(reader, parser->problem_offset), NULL, "%s; expected printable text in UTF-8", problem);
    return fault(location_of(reader, &parser->problem_mark), NULL, "%s%s%s; expected %s", problem, parser->context ? " " : "",
                 parser->context ? parser->context : "",
                 reader->has_lines ? "YAML: \"key: value\" lines, sections indented by spaces" : "a YAML value; put text in quotes");
}

static int refuse_references(const struct reader *reader) {
    const yaml_event_t *event = &reader->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (event->type) {
    case YAML_ALIAS_EVENT: anchor = event->data.alias.anchor; break;
    case YAML_SCALAR_EVENT: anchor = event->data.scalar.anchor, tag = event->data.scalar.tag; break;
    case YAML_SEQUENCE_START_EVENT: anchor = event->data.sequence_start.anchor, tag = event->data.sequence_start.tag; break;
    case YAML_MAPPING_START_EVENT: anchor = event->data.mapping_start.anchor, tag = event->data.mapping_start.tag; break;
    case YAML_DOCUMENT_START_EVENT:
        if (event->data.document_start.tag_directives.start != event->data.document_start.tag_directives.end)
            return fault(location_of(reader, &event->start_mark), NULL, "%%TAG is not used here; expected plain values");
        break;
    default: break;
    }
    char shown[SHOWN_BYTES];
    struct location at = location_of(reader, &event->start_mark);
    if (anchor) {
        show(shown, (const char *)anchor, strlen((const char *)anchor));
        return fault(at, NULL, "%s %s is not used here; expected the value itself", event->type == YAML_ALIAS_EVENT ? "alias" : "anchor",
                     shown);
    }
    if (tag) {
        show(shown, (const char *)tag, strlen((const char *)tag));
        return fault(at, NULL, "tag %s is not used here; expected a plain value", shown);
    }
    return 0;
}

static int next(struct reader *reader) {
    yaml_event_delete(&reader->event);
    if (!yaml_parser_parse(&reader->parser, &reader->event)) return parser_fault(reader);
    return refuse_references(reader);
}

static void scalar_take(struct scalar *out, const struct reader *reader) {
    const yaml_event_t *event = &reader->event;
    size_t n = event->data.scalar.length;
    *out = (struct scalar){.text = mem_alloc(n + 1), .size = n, .at = location_of(reader, &event->start_mark)};
    memcpy(out->text, event->data.scalar.value, n);
    out->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
}

/* Reads to the end of the value that began with the current event; it will be refused, where its key is known. */
static int skip_value(struct reader *reader) {
    int depth = 0;
    for (;;) {
        yaml_event_type_t type = reader->event.type;
        if (type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT) depth++;
        if (type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT) depth--;
        if (depth == 0) return 0;
        if (depth > YAML_DEPTH_MAX)
            return fault(location_of(reader, &reader->event.start_mark), NULL,
                         "nested more than %d levels deep; expected sections with values", YAML_DEPTH_MAX);
        TRY(next(reader));
    }
}

/* The current event is a key: appends an entry for it. */
static int begin_entry(struct reader *reader, struct entries *out, const char *section, size_t keys_max) {
    struct location at = location_of(reader, &reader->event.start_mark);
    if (reader->event.type != YAML_SCALAR_EVENT) return fault(at, NULL, "a key is a list or a mapping; expected a name");
    const char *key = (const char *)reader->event.data.scalar.value;
    size_t key_bytes = reader->event.data.scalar.length;
    char shown[SHOWN_BYTES];
    show(shown, key, key_bytes);
    if (key_bytes == 0 || key_bytes > YAML_KEY_BYTES_MAX || strlen(key) != key_bytes)
        return fault(at, NULL, "%s is not a key; expected a name of 1 to %d characters", shown, YAML_KEY_BYTES_MAX);
    if (strchr(key, '.')) return fault(at, NULL, "%s is not a key; expected the section's name with its keys indented below", shown);
    char *dotted = section ? mem_format("%s.%s", section, key) : mem_text(key);
    struct location first = {0};
    for (size_t i = out->count; i > 0; i--)
        if (strcmp(out->entry[i - 1].key, dotted) == 0) first = out->entry[i - 1].key_at;
    if (out->count == keys_max) {
        free(dotted);
        return fault(at, NULL, "too many keys; expected at most %zu", keys_max);
    }
    if (!out->entry) out->entry = mem_alloc(keys_max * sizeof *out->entry); /* so entries never move */
    out->entry[out->count++] = (struct entry){.key = dotted, .key_at = at, .first = first};
    return 0;
}

static int read_value(struct reader *reader, struct entry *entry, bool in_mapping);

/* The current event begins a mapping in the list of that key. */
static int read_item_mapping(struct reader *reader, struct scalar *out, const char *key) {
    *out = (struct scalar){.at = location_of(reader, &reader->event.start_mark), .mapping = mem_alloc(sizeof *out->mapping)};
    for (;;) {
        TRY(next(reader));
        if (reader->event.type == YAML_MAPPING_END_EVENT) return 0;
        TRY(begin_entry(reader, out->mapping, key, YAML_ITEM_KEYS_MAX));
        TRY(next(reader));
        TRY(read_value(reader, &out->mapping->entry[out->mapping->count - 1], true));
    }
}

/* in_mapping: of a list's mapping, in which there are no further mappings. */
static int read_list(struct reader *reader, struct entry *entry, bool in_mapping) {
    size_t room = 0;
    entry->kind = ENTRY_LIST;
    for (;;) {
        TRY(next(reader));
        if (reader->event.type == YAML_SEQUENCE_END_EVENT) return 0;
        bool mapping = reader->event.type == YAML_MAPPING_START_EVENT && !in_mapping;
        if (reader->event.type != YAML_SCALAR_EVENT && !mapping) {
            entry->kind = ENTRY_TOO_DEEP;
            TRY(skip_value(reader));
            continue;
        }
        if (entry->count == YAML_ITEMS_MAX)
            return fault(location_of(reader, &reader->event.start_mark), entry->key, "the list is too long; expected at most %d values",
                         YAML_ITEMS_MAX);
        if (entry->count == room) {
            room = room ? 2 * room : 8;
            entry->item = mem_resize(entry->item, room * sizeof *entry->item);
        }
        struct scalar *item = &entry->item[entry->count++];
        if (mapping) TRY(read_item_mapping(reader, item, entry->key));
        else scalar_take(item, reader);
    }
}

/* The current event begins the value. */
static int read_value(struct reader *reader, struct entry *entry, bool in_mapping) {
    entry->value_at = location_of(reader, &reader->event.start_mark);
    if (reader->event.type == YAML_SEQUENCE_START_EVENT) return read_list(reader, entry, in_mapping);
    if (reader->event.type == YAML_MAPPING_START_EVENT) {
        entry->kind = ENTRY_TOO_DEEP;
        return skip_value(reader);
    }
    entry->kind = ENTRY_SCALAR;
    entry->item = mem_alloc(sizeof *entry->item);
    entry->count = 1;
    scalar_take(entry->item, reader);
    return 0;
}

/* The current event began the mapping; reads up to its end. section NULL: the top level. */
static int read_mapping(struct reader *reader, const char *section) {
    for (;;) {
        TRY(next(reader));
        if (reader->event.type == YAML_MAPPING_END_EVENT) return 0;
        TRY(begin_entry(reader, &reader->out, section, YAML_KEYS_MAX));
        struct entry *entry = &reader->out.entry[reader->out.count - 1];
        TRY(next(reader));
        if (!section && reader->event.type == YAML_MAPPING_START_EVENT) {
            entry->kind = ENTRY_SECTION;
            entry->value_at = location_of(reader, &reader->event.start_mark);
            TRY(read_mapping(reader, entry->key));
        } else {
            TRY(read_value(reader, entry, false));
        }
    }
}

static bool is_nothing(const yaml_event_t *event) {
    return event->type == YAML_SCALAR_EVENT && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && event->data.scalar.length == 0;
}

static int read_document(struct reader *reader) {
    TRY(next(reader)); /* the stream begins */
    TRY(next(reader));
    if (reader->event.type == YAML_STREAM_END_EVENT) return 0; /* nothing but comments */
    TRY(next(reader));
    if (reader->event.type == YAML_MAPPING_START_EVENT) TRY(read_mapping(reader, NULL));
    else if (!is_nothing(&reader->event))
        return fault(location_of(reader, &reader->event.start_mark), NULL, "this is not a mapping; expected \"key: value\" lines");
    TRY(next(reader)); /* the document ends */
    TRY(next(reader));
    if (reader->event.type == YAML_STREAM_END_EVENT) return 0;
    return fault(location_of(reader, &reader->event.start_mark), NULL, "a second document begins; expected one");
}

static void reader_open(struct reader *out, const char *name, const char *text, size_t text_bytes, bool has_lines) {
    *out = (struct reader){.name = name, .text = text, .text_bytes = text_bytes, .has_lines = has_lines};
    CHECK(yaml_parser_initialize(&out->parser)); /* fails only without memory for a few KiB */
    yaml_parser_set_encoding(&out->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&out->parser, (const unsigned char *)text, text_bytes);
}

static void reader_close(struct reader *reader) {
    yaml_event_delete(&reader->event);
    yaml_parser_delete(&reader->parser);
}

int entries_read(struct entries *out, const char *name, const char *text, size_t text_bytes) {
    static const char mark[] = "\xEF\xBB\xBF"; /* some editors begin a UTF-8 file with it */
    if (text_bytes > YAML_TEXT_BYTES_MAX)
        return fault((struct location){name, 1, 1}, NULL, "longer than %d bytes; expected a few KiB", YAML_TEXT_BYTES_MAX);
    if (text_bytes >= 3 && memcmp(text, mark, 3) == 0) text += 3, text_bytes -= 3;
    struct reader reader;
    reader_open(&reader, name, text, text_bytes, true);
    int code = read_document(&reader);
    if (code == 0) *out = reader.out;
    else entries_free(&reader.out);
    reader_close(&reader);
    return code;
}

/* YAML reads `a #b` as `a`; on the command line that would lose what was typed. */
static bool value_is_whole(const struct reader *reader) {
    size_t end = reader->event.end_mark.index; /* counts characters */
    size_t i = 0;
    for (size_t seen = 0; i < reader->text_bytes; i++)
        if (((unsigned char)reader->text[i] & 0xC0) != 0x80 && seen++ == end) break;
    for (; i < reader->text_bytes; i++)
        if (reader->text[i] != ' ' && reader->text[i] != '\n') return false;
    return true;
}

static int read_lone_value(struct reader *reader, struct entry *entry) {
    struct location at = {.name = reader->name};
    TRY(next(reader));
    TRY(next(reader));
    if (reader->event.type == YAML_STREAM_END_EVENT) return fault(at, NULL, "has no value; expected one, in quotes if it begins with #");
    TRY(next(reader));
    TRY(read_value(reader, entry, false));
    if (entry->kind == ENTRY_TOO_DEEP)
        return fault(at, NULL, "is a mapping or nested; expected one value or [a, list]; put text in quotes");
    if (!value_is_whole(reader)) return fault(at, NULL, "something follows the value; expected one value; put text in quotes");
    TRY(next(reader)); /* the document ends */
    return next(reader);
}

int entry_read_value(struct entry *out, const char *name, const char *key, const char *text) {
    struct location at = {.name = name};
    size_t text_bytes = strnlen(text, YAML_TEXT_BYTES_MAX + 1);
    if (text_bytes > YAML_TEXT_BYTES_MAX) return fault(at, NULL, "longer than %d bytes; expected a shorter value", YAML_TEXT_BYTES_MAX);
    struct entry entry = {.key = mem_text(key), .key_at = at, .value_at = at};
    if (text_bytes == 0 || strcmp(text, "-") == 0) { /* standard input; to YAML a list of nothing */
        entry.item = mem_alloc(sizeof *entry.item);
        *entry.item = (struct scalar){.text = mem_text(text), .size = text_bytes, .quoted = true, .at = at};
        entry.count = 1;
        *out = entry;
        return 0;
    }
    struct reader reader;
    reader_open(&reader, name, text, text_bytes, false);
    int code = read_lone_value(&reader, &entry);
    reader_close(&reader);
    if (code == 0) *out = entry;
    else entry_free(&entry);
    return code;
}

int entry_once(const struct entry *entry) {
    if (!entry->first.name) return 0;
    if (entry->key_at.line == 0) return fault(entry->key_at, entry->key, "given twice; expected it once");
    return fault(entry->key_at, entry->key, "given twice, first in line %d; expected it once", entry->first.line);
}

bool scalar_is_null(const struct scalar *scalar) {
    if (scalar->mapping || scalar->quoted) return false;
    return scalar->size == 0 || strcmp(scalar->text, "~") == 0 || strcasecmp(scalar->text, "null") == 0;
}

void entry_free(struct entry *entry) {
    for (size_t i = 0; i < entry->count; i++) {
        free(entry->item[i].text);
        if (entry->item[i].mapping) entries_free(entry->item[i].mapping);
        free(entry->item[i].mapping);
    }
    free(entry->item);
    free(entry->key);
    *entry = (struct entry){0};
}

void entries_free(struct entries *entries) {
    for (size_t i = 0; i < entries->count; i++) entry_free(&entries->entry[i]);
    free(entries->entry);
    *entries = (struct entries){0};
}
