/* Finds where records end and which text they hold, in a window over the bytes that were fed. The window begins at the record under way and
 * grows with it; of a record that is too long only its first bytes are kept.
 *
 * Order of calls: records_room(), records_fed() as bytes come, records_finish() at the end of the file; in between records_next() until it
 * asks for more. Knows no files, jobs, policies or tokens. */
#include "dataset/ingest/records.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "dataset/ingest/json_text.h"
#include "dataset/source/unpack.h"

enum { DETAIL_BYTES = 256, COLUMNS_SHOWN_BYTES = 200, MARK_BYTES = 3 /* of a byte order mark */ };
_Static_assert((int)DETAIL_BYTES >= (int)JSON_WHY_BYTES, "a detail may be why a record is not JSON");
static const char TOO_LONG_DETAIL[] = "longer than 16 MiB";
_Static_assert(RECORDS_BYTES_MAX == 16 << 20, "TOO_LONG_DETAIL says it");

struct records {
    struct records_options options;
    char *field, *separator;
    size_t separator_bytes;
    bool overlaps;              /* the separator can begin inside itself */

    struct buf window;
    uint64_t window_offset;     /* of window.data[0] in the file */
    size_t begin, scan;         /* of the record under way; up to where its end was looked for */
    bool opened, begun, finished, ended;
    bool border;                /* behind a separator that may go on */
    bool owned;                 /* the record under way belongs to [options.begin, options.end), or the one before it did */
    uint64_t first, lines;      /* where the first one begins that does; line ends from there to the record under way */
    enum { PASS_NOTHING, PASS_BEFORE, PASS_TOO_LONG } passing; /* bytes of the record under way are not kept, and why */
    uint64_t passed;            /* how many of them are gone */
    uint64_t record_offset, record_line; /* PASS_TOO_LONG: where it begins, and how */
    uint8_t prefix[RECORDS_PREFIX_BYTES];

    /* JSON */
    bool in_array, in_value, in_string, escaped;
    uint32_t depth;
    /* tables */
    enum {
        FIELD_BEGINS, FIELD_PLAIN, FIELD_QUOTED,
        FIELD_QUOTE, /* behind a quote that closes, or is the first of two */
        ROW_LOST
    } state;
    uint8_t comma;              /* 0: not known yet */
    size_t row_columns;         /* of the row under way: those that have ended */
    size_t row_line;            /* behind its first line end within quotes, from its beginning; 0: there was none */
    bool row_loose;             /* it has a quote within a field that does not begin with one */
    const char *row_fault;      /* why it is no row */
    bool mistrust;              /* the row before was none */
    bool has_column;
    size_t column, columns;

    struct buf text;            /* of the last record, where it differs from the bytes in the file */
    char detail[DETAIL_BYTES];
};

/* ---- formats ------------------------------------------------------------------------------------------------------------------------- */

enum source_format records_format(const char *name, const struct source_group *group) {
    static const struct {
        const char *suffix;
        enum source_format format;
    } known[] = {{".jsonl", FORMAT_JSONL}, {".ndjson", FORMAT_JSONL}, {".json", FORMAT_JSON}, {".csv", FORMAT_CSV}, {".tsv", FORMAT_TSV}};
    if (group->format != FORMAT_AUTO) return group->format;
    size_t stem = unpack_stem(name);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t n = strlen(known[i].suffix);
        if (stem >= n && strncasecmp(name + stem - n, known[i].suffix, n) == 0) return known[i].format;
    }
    return FORMAT_TEXT;
}

static bool is_json(const struct records *r) { return r->options.format == FORMAT_JSON || r->options.format == FORMAT_JSONL; }
static bool is_table(const struct records *r) { return r->options.format == FORMAT_CSV || r->options.format == FORMAT_TSV; }
static bool is_plain(const struct records *r) { return r->options.format == FORMAT_TEXT && r->separator_bytes == 0; }
static bool is_separated(const struct records *r) { return r->separator_bytes > 0; }

int records_open(struct records **out, const struct records_options *options) {
    CHECK(options->format != FORMAT_AUTO);
    struct records *r = mem_alloc(sizeof *r);
    r->options = *options;
    r->field = mem_text(options->field ? options->field : "");
    const char *separator = options->format == FORMAT_TEXT && options->separator ? options->separator : "";
    if (options->format == FORMAT_LINES || options->format == FORMAT_JSONL) separator = "\n";
    r->separator = mem_text(separator);
    r->separator_bytes = strlen(separator);
    for (size_t n = 1; n < r->separator_bytes; n++)
        if (memcmp(separator, separator + n, r->separator_bytes - n) == 0) r->overlaps = true;
    CHECK(is_separated(r) || is_plain(r) || options->begin == 0);
    r->window_offset = records_from(r);
    int code = buf_append(&r->window, "", 0); /* so that an empty window is somewhere */
    if (code < 0) records_close(r);
    else *out = r;
    return code;
}

uint64_t records_from(const struct records *r) {
    return r->options.begin > r->separator_bytes + MARK_BYTES ? r->options.begin - r->separator_bytes : 0;
}

void records_close(struct records *r) {
    if (!r) return;
    buf_free(&r->window), buf_free(&r->text);
    free(r->field), free(r->separator);
    free(r);
}

/* ---- the window ---------------------------------------------------------------------------------------------------------------------- */

static uint64_t offset_of(const struct records *r, size_t at) { return r->window_offset + at; }

static uint64_t line_ends(const uint8_t *from, const uint8_t *end) {
    uint64_t count = 0;
    while (from < end && (from = memchr(from, '\n', (size_t)(end - from)))) from++, count++;
    return count;
}

/* The record under way begins later. Of lines, what is passed holds no line end but at its end. */
static void begin_at(struct records *r, size_t at) {
    const uint8_t *from = r->window.data + r->begin, *end = r->window.data + at;
    bool by_line = r->separator_bytes == 1 && r->separator[0] == '\n';
    if (r->owned) r->lines += by_line && end > from ? end[-1] == '\n' : line_ends(from, end);
    r->begin = at;
}

uint64_t records_first(const struct records *r) { return r->owned ? r->first : records_at(r); }
uint64_t records_at(const struct records *r) { return offset_of(r, r->begin); }
uint64_t records_lines(const struct records *r) { return r->lines; }

/* Drops the bytes before the record under way, but for those that may belong to a separator. */
static void window_move(struct records *r) {
    size_t keep = r->begin < r->separator_bytes ? 0 : r->begin - r->separator_bytes;
    if (keep == 0) return;
    r->window.size -= keep;
    memmove(r->window.data, r->window.data + keep, r->window.size);
    r->window_offset += keep, r->begin -= keep, r->scan -= keep;
}

int records_room(struct records *r, uint8_t **out, size_t size_bytes) {
    CHECK(!r->finished);
    window_move(r);
    TRY(buf_reserve(&r->window, size_bytes));
    *out = r->window.data + r->window.size;
    return 0;
}

void records_fed(struct records *r, size_t size_bytes) {
    CHECK(size_bytes <= r->window.capacity - r->window.size);
    r->window.size += size_bytes;
}

void records_finish(struct records *r) { r->finished = true; }

/* The record under way has no end in the window yet. */
static void grow_or_pass(struct records *r) {
    if (r->passing == PASS_NOTHING && r->scan - r->begin > RECORDS_BYTES_MAX) {
        memcpy(r->prefix, r->window.data + r->begin, sizeof r->prefix);
        r->record_offset = offset_of(r, r->begin), r->record_line = r->lines + 1;
        r->passing = PASS_TOO_LONG;
    }
    if (r->passing == PASS_NOTHING) return;
    r->passed += r->scan - r->begin;
    begin_at(r, r->scan);
}

/* ---- where records end --------------------------------------------------------------------------------------------------------------- */
/* Each looks on from scan and says whether the record under way ends in the window: [begin, *end), the next one begins at *next. At the end
 * of the file all that is left is one. */

static bool take_rest(const struct records *r, size_t *end, size_t *next) {
    *end = *next = r->window.size;
    return r->finished && (r->window.size > r->begin || r->passing == PASS_TOO_LONG);
}

static const uint8_t *find(const struct records *r, size_t from, size_t until) {
    const uint8_t *data = r->window.data;
    if (until < from + r->separator_bytes) return NULL;
    return r->separator_bytes == 1 ? memchr(data + from, r->separator[0], until - from)
                                   : memmem(data + from, until - from, r->separator, r->separator_bytes);
}

static bool end_separated(struct records *r, size_t *end, size_t *next) {
    const uint8_t *found = find(r, r->scan, r->window.size);
    if (found) {
        *end = (size_t)(found - r->window.data);
        *next = *end + r->separator_bytes;
        return true;
    }
    size_t torn = r->separator_bytes - 1; /* of a separator whose rest has not come */
    if (r->finished) r->scan = r->window.size;
    else if (r->window.size > r->scan + torn) r->scan = r->window.size - torn;
    return take_rest(r, end, next);
}

/* Moves begin behind separators that overlap the one before it. False: what decides has not come yet. */
static bool settle_border(struct records *r) {
    size_t n = r->separator_bytes;
    while (r->overlaps) {
        size_t from = r->begin - n + 1, until = r->begin + n - 1;
        const uint8_t *found = find(r, from, until < r->window.size ? until : r->window.size);
        if (!found && until > r->window.size && !r->finished) return false;
        if (!found) break;
        begin_at(r, (size_t)(found - r->window.data) + n);
    }
    r->border = false;
    r->scan = r->begin;
    return true;
}

static bool is_space(uint8_t c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/* Finds the beginning of a JSON value: *out is false when there is none in the window. */
static bool begin_value(struct records *r) {
    for (; r->scan < r->window.size; r->scan++) {
        uint8_t c = r->window.data[r->scan];
        if (c == '[' && !r->in_array) r->in_array = true;
        else if (c == ']' && r->in_array) r->in_array = false;
        else if (!is_space(c) && c != ',') break;
    }
    begin_at(r, r->scan);
    return r->scan < r->window.size;
}

/* A nested value: to the bracket that closes it. */
static bool end_nested(struct records *r) {
    const uint8_t *data = r->window.data;
    for (; r->scan < r->window.size; r->scan++) {
        uint8_t c = data[r->scan];
        if (r->in_string) {
            if (r->escaped) r->escaped = false;
            else if (c == '\\') r->escaped = true;
            else if (c == '"') r->in_string = false;
        } else if (c == '"') {
            r->in_string = true;
        } else if (c == '{' || c == '[') {
            r->depth++;
        } else if (c == '}' || c == ']') {
            r->depth -= r->depth > 0;
        }
        if (!r->in_string && r->depth == 0) {
            r->scan++;
            return true;
        }
    }
    return false;
}

static bool end_json(struct records *r, size_t *end, size_t *next) {
    if (!r->in_value) {
        if (!begin_value(r)) {
            bool open_array = r->finished && r->in_array;
            r->in_array = r->in_array && !open_array;
            *end = *next = r->window.size;
            return open_array;
        }
        r->in_value = true;
    }
    uint8_t first = r->passing == PASS_TOO_LONG ? r->prefix[0] : r->window.data[r->begin];
    bool ends = false;
    if (first == '{' || first == '[' || first == '"') {
        ends = end_nested(r);
    } else { /* a number, a word, or rubbish: to what can follow one; a bracket that closes nothing stands alone */
        for (; r->scan < r->window.size && !ends; r->scan += !ends) {
            uint8_t c = r->window.data[r->scan];
            ends = (r->scan > r->begin || r->passed > 0) && (is_space(c) || (c && strchr(",{}[]\"", c)));
        }
    }
    *end = *next = r->scan;
    if (!ends && !take_rest(r, end, next)) return false;
    r->in_value = r->in_string = r->escaped = false;
    r->depth = 0;
    return true;
}

/* The row ends, as a whole or, when it is none, with its first line: what is behind that may be rows. */
static bool close_row(struct records *r, size_t *end, size_t *next, bool line_end) {
    bool again = r->row_fault && r->row_line > 0;
    *end = again ? r->begin + r->row_line - 1 : r->scan;
    *next = again ? *end + 1 : r->scan + line_end;
    r->mistrust = r->row_fault != NULL;
    r->state = FIELD_BEGINS;
    r->row_columns = r->row_line = 0;
    r->row_loose = false;
    return true;
}

static const char LOOSE[] = "quotes within a field, behind a row that is none";

/* At the end of a line that is not within quotes: line_end: a byte that ends it, LF or a CR alone. */
static bool end_line(struct records *r, size_t *end, size_t *next, bool line_end) {
    const uint8_t *row = r->window.data + r->begin;
    size_t size = r->scan - r->begin;
    bool blank = size == 0 || (size == 1 && line_end && *row == '\r');
    bool mistrust = r->mistrust;
    if (blank || r->row_fault || !r->has_column) {
        close_row(r, end, next, line_end);
        r->mistrust |= blank && mistrust;
        return true;
    }
    if (r->row_columns + 1 != r->columns) {
        snprintf(r->detail, sizeof r->detail, "a row of %zu columns; the first row names %zu", r->row_columns + 1, r->columns);
        r->row_fault = r->detail;
    } else if (r->row_loose && r->mistrust) {
        r->row_fault = LOOSE;
    }
    close_row(r, end, next, line_end);
    if (r->row_fault == LOOSE) r->mistrust = false; /* once: there are tables in which every row has such quotes */
    return true;
}

/* Behind the first line end in [from, at); 0: there is none, or a carriage return as the last byte before `until` may go on. */
static size_t behind_line(const uint8_t *data, size_t from, size_t at, size_t until) {
    const uint8_t *feed = memchr(data + from, '\n', at - from);
    if (feed) at = (size_t)(feed - data);
    const uint8_t *carriage = memchr(data + from, '\r', at - from);
    if (!carriage) return feed ? at + 1 : 0;
    size_t next = (size_t)(carriage - data) + 1;
    return next == until ? 0 : next + (data[next] == '\n');
}

/* Looks on for the quote that closes a field, as far as a record may go. */
static void pass_quoted(struct records *r) {
    size_t most = r->begin + RECORDS_BYTES_MAX + 1, until = r->window.size < most ? r->window.size : most;
    const uint8_t *data = r->window.data, *quote = memchr(data + r->scan, '"', until - r->scan);
    size_t at = quote ? (size_t)(quote - data) : until;
    size_t from = r->scan - (data[r->scan - 1] == '\r'); /* the portion before may have ended with it */
    size_t line = r->row_line == 0 ? behind_line(data, from, at, until) : 0;
    if (line > 0) r->row_line = line - r->begin;
    r->scan = at + (quote != NULL);
    if (quote) r->state = FIELD_QUOTE;
}

/* A row that is too long is lost right there, wherever portions end: from then on quotes mean nothing. */
static void limit_row(struct records *r) {
    if (r->state == ROW_LOST || r->scan - r->begin <= RECORDS_BYTES_MAX) return;
    r->row_fault = "longer than 16 MiB, or quotes that are not closed";
    r->state = ROW_LOST;
}

/* What is between columns: of a csv a tab where the first line has tabs and no comma. False: that line is not there yet. */
static bool settle_comma(struct records *r) {
    const uint8_t *line = r->window.data + r->begin, *end = memchr(line, '\n', r->window.size - r->begin);
    size_t size = end ? (size_t)(end - line) : r->window.size - r->begin;
    const uint8_t *carriage = memchr(line, '\r', size);
    if (carriage) end = carriage, size = (size_t)(end - line);
    if (!end && !r->finished && size <= RECORDS_BYTES_MAX) return false;
    if (size > RECORDS_BYTES_MAX) size = RECORDS_BYTES_MAX;
    bool tabs = r->options.format == FORMAT_TSV || (memchr(line, '\t', size) && !memchr(line, ',', size));
    r->comma = tabs ? '\t' : ',';
    return true;
}

/* RFC 4180, and strictly: behind the quotes of a field comes the next one or the row's end, and quotes inside are doubled. (libcsv, which
 * is for this, ends at the first fault or keeps none, and tells no places.) */
static bool end_row(struct records *r, size_t *end, size_t *next) {
    const bool quotes = r->options.format == FORMAT_CSV;
    if (r->comma == 0 && !settle_comma(r)) return false;
    const uint8_t comma = r->comma;
    for (;;) {
        limit_row(r);
        if (r->state == ROW_LOST && r->row_line > 0) return close_row(r, end, next, false);
        if (r->scan == r->window.size) break;
        if (r->state == FIELD_QUOTED) {
            pass_quoted(r);
            continue;
        }
        uint8_t c = r->window.data[r->scan];
        if (c == '\n') return end_line(r, end, next, true);
        if (c == '\r') {
            bool last = r->scan + 1 == r->window.size;
            if (last && !r->finished) break;
            if (last || r->window.data[r->scan + 1] != '\n') return end_line(r, end, next, true);
        } else if (r->state == ROW_LOST) {
            /* to the end of the line */
        } else if (r->state == FIELD_QUOTE && c != comma && c != '"') {
            r->row_fault = "a quote within quotes that is not doubled, or is one too many";
            r->state = ROW_LOST;
            continue;
        } else if (c == comma) {
            r->state = FIELD_BEGINS;
            r->row_columns++;
        } else if (c == '"' && quotes && r->state != FIELD_PLAIN) {
            r->state = FIELD_QUOTED;
        } else {
            r->row_loose |= c == '"' && quotes;
            r->state = FIELD_PLAIN;
        }
        r->scan++;
    }
    if (!r->finished || (r->begin == r->window.size && r->passing != PASS_TOO_LONG)) return false;
    if (r->state == FIELD_QUOTED) r->row_fault = "the file ends within its quotes";
    return end_line(r, end, next, false);
}

static bool end_record(struct records *r, size_t *end, size_t *next) {
    if (is_separated(r)) return end_separated(r, end, next);
    if (r->options.format == FORMAT_JSON) return end_json(r, end, next);
    if (is_table(r)) return end_row(r, end, next);
    r->scan = r->window.size;
    if (!r->begun && r->finished) { /* a text as a whole: also an empty one */
        *end = *next = r->scan;
        return true;
    }
    return false;
}

/* ---- what is in them ----------------------------------------------------------------------------------------------------------------- */

static int leave_out(struct record *out, const char *reason, const char *detail) {
    out->reason = reason, out->detail = detail;
    if (out->bytes > RECORDS_PREFIX_BYTES) out->bytes = RECORDS_PREFIX_BYTES;
    return 0;
}
static int bad(struct record *out, const char *detail) { return leave_out(out, "bad_record", detail); }

static int read_json(struct records *r, struct record *out) {
    if (out->bytes == 0) return bad(out, "the file ends inside an array");
    int found = json_text(&out->text, &out->bytes, &r->text, r->detail, out->text, out->bytes, r->field);
    return found == 0 ? bad(out, r->detail) : found;
}

struct row {
    const uint8_t *text;
    size_t size, at;
    bool more; /* another field begins at `at` */
};
static struct row row_of(const struct record *record) { return (struct row){record->text, record->bytes, 0, true}; }

/* Takes the next field, unquoted into r->text when it begins with a quote. */
static int read_field(struct records *r, struct row *row, const uint8_t **text, size_t *bytes) {
    const uint8_t *all = row->text;
    size_t at = row->at;
    bool quoted = at < row->size && all[at] == '"' && r->options.format == FORMAT_CSV;
    buf_clear(&r->text);
    if (quoted) {
        bool doubled;
        do { /* from behind a quote to the next one */
            size_t from = at + 1;
            const uint8_t *quote = memchr(all + from, '"', row->size - from);
            at = quote ? (size_t)(quote - all) + 1 : row->size;
            doubled = quote && at < row->size && all[at] == '"';
            TRY(buf_append(&r->text, all + from, at - from - (quote && !doubled)));
        } while (doubled);
    }
    const uint8_t *comma = at < row->size ? memchr(all + at, r->comma, row->size - at) : NULL;
    size_t rest = (comma ? (size_t)(comma - all) : row->size) - at;
    row->at = at + rest + 1;
    row->more = comma != NULL;
    if (quoted) TRY(buf_append(&r->text, all + at, rest));
    *text = quoted ? r->text.data : all + at;
    *bytes = quoted ? r->text.size : rest;
    return 0;
}

static int read_header(struct records *r, const struct record *record) {
    char names[COLUMNS_SHOWN_BYTES] = "";
    size_t shown = 0, bytes;
    struct row row = row_of(record);
    for (r->columns = 0; row.more; r->columns++) {
        const uint8_t *name;
        TRY(read_field(r, &row, &name, &bytes));
        if (!r->has_column && bytes == strlen(r->field) && memcmp(name, r->field, bytes) == 0) {
            r->column = r->columns;
            r->has_column = true;
        }
        if (shown + bytes + 3 > sizeof names) continue;
        shown += (size_t)sprintf(names + shown, "%s%.*s", r->columns ? ", " : "", (int)bytes, (const char *)name);
    }
    if (r->has_column) return 0;
    return err_set(ERR_CONFIG, "no column \"%s\" in its first row (%s); dataset.sources.field names the column with the text", r->field,
                   names);
}

static int read_row(struct records *r, struct record *out) {
    struct row row = row_of(out);
    for (size_t column = 0; column <= r->column; column++) TRY(read_field(r, &row, &out->text, &out->bytes));
    return 0;
}

/* ---- one after the other ------------------------------------------------------------------------------------------------------------- */

/* Text that is handed on as it comes. */
static int next_part(struct records *r, struct record *out) {
    if (r->begin == r->window.size && !r->finished) return RECORDS_MORE;
    size_t bytes = r->window.size - r->begin;
    *out = (struct record){r->window.data + r->begin, bytes, offset_of(r, r->begin), !r->begun, r->finished, NULL, NULL, bytes, 0};
    r->begin = r->scan = r->window.size;
    r->begun = true;
    r->ended = r->finished;
    return RECORDS_ONE;
}

static bool is_blank(const uint8_t *text, size_t size) {
    while (size > 0 && is_space(text[size - 1])) size--;
    return size == 0;
}

/* Lines and rows end with LF or CR LF; rows also with CR. */
static bool has_line_ends(const struct records *r) { return is_table(r) || r->options.format == FORMAT_LINES; }

/* The record [begin, end), whose end was found: its text, or why it is left out. */
static int take(struct records *r, struct record *out, size_t end, size_t next) {
    bool too_long = r->passing == PASS_TOO_LONG;
    *out = (struct record){.begins = true, .ends = true, .record_bytes = r->passed + (next - r->begin)};
    out->offset = too_long ? r->record_offset : offset_of(r, r->begin);
    out->line = too_long ? r->record_line : r->lines + 1;
    out->text = too_long ? r->prefix : r->window.data + r->begin;
    out->bytes = too_long ? sizeof r->prefix : end - r->begin;
    if (too_long || out->bytes > RECORDS_BYTES_MAX) return leave_out(out, "too_long", TOO_LONG_DETAIL);
    if (has_line_ends(r) && next > end && out->bytes > 0 && out->text[out->bytes - 1] == '\r') out->bytes--;
    return 0;
}

/* The text in it. 0: it is no record after all. */
static int read_record(struct records *r, struct record *out, bool skip) {
    const char *fault = r->row_fault;
    r->row_fault = NULL;
    if (fault && !out->reason) bad(out, fault);
    if (out->reason && (r->has_column || !is_table(r))) return RECORDS_ONE;
    if (out->reason) return err_set(ERR_CONFIG, "its first row, which names the columns, is none: %s", out->detail);
    if (is_table(r)) {
        if (out->bytes == 0) return 0;
        if (!r->has_column) return read_header(r, out);
        if (!skip) TRY(read_row(r, out));
    } else if (is_json(r)) {
        if (r->options.format == FORMAT_JSONL && is_blank(out->text, out->bytes)) return 0;
        if (!skip) TRY(read_json(r, out));
    }
    return RECORDS_ONE;
}

/* Skips a byte order mark. False: what decides has not come yet. */
static bool skip_mark(struct records *r) {
    if (r->window.size < MARK_BYTES && !r->finished) return false;
    if (r->window.size >= MARK_BYTES && memcmp(r->window.data, "\xEF\xBB\xBF", MARK_BYTES) == 0) r->begin = r->scan = MARK_BYTES;
    return true;
}

/* Goes to where the next record begins. False: what decides has not come yet. */
static bool settle(struct records *r) {
    if (!r->opened && !is_plain(r) && r->window_offset == 0 && !skip_mark(r)) return false;
    r->opened = true;
    if (r->border && !settle_border(r)) return false;
    if (r->passing != PASS_NOTHING) return true;
    if (offset_of(r, r->begin) < r->options.begin) r->passing = PASS_BEFORE;
    else if (offset_of(r, r->begin) >= r->options.end) r->ended = true;
    else if (!r->owned) r->owned = true, r->first = r->options.begin > 0 ? offset_of(r, r->begin) : 0;
    return true;
}

int records_next(struct records *r, struct record *out, bool skip) {
    if (is_plain(r) && !r->options.whole && !r->ended) return next_part(r, out);
    for (;;) {
        size_t end, next;
        if (!r->ended && !settle(r)) return RECORDS_MORE;
        if (r->ended) return RECORDS_END;
        if (!end_record(r, &end, &next)) {
            grow_or_pass(r);
            r->ended = r->finished;
            return r->finished ? RECORDS_END : RECORDS_MORE;
        }
        bool before = r->passing == PASS_BEFORE;
        TRY(take(r, out, end, next));
        if (is_table(r) && next > end && r->window.data[next - 1] == '\r') r->lines++; /* alone; begin_at() counts line feeds */
        begin_at(r, next);
        r->scan = next;
        r->border = r->overlaps && next > end;
        r->begun = true;
        r->passing = PASS_NOTHING, r->passed = 0;
        int code = before ? 0 : read_record(r, out, skip);
        if (code != 0) return code;
    }
}
