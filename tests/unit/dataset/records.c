/* Records: what each format holds, whatever the portions in which it comes, and wherever a file is divided. */
#include "dataset/ingest/records.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "tests/unit/random.h"

static size_t count_of(const char *text, size_t size, char c) {
    size_t count = 0;
    for (size_t i = 0; i < size; i++) count += text[i] == c;
    return count;
}
static size_t line_ends(const char *text, size_t size) { return count_of(text, size, '\n'); }

/* Of a table each carriage return may be a line end, too: where it is alone, and no text. */
static void check_lines(uint64_t lines, enum source_format format, const char *text, size_t size) {
    bool table = format == FORMAT_CSV || format == FORMAT_TSV;
    assert_in_range(lines, line_ends(text, size), line_ends(text, size) + (table ? count_of(text, size, '\r') : 0));
}

static bool with_lines; /* list() puts before each document how many line ends are before it */
static uint64_t spanned, line_count; /* by all calls of list(): bytes that were records', or around them; line ends in those */

/* Records do not overlap, and each is on its line. */
static void check_place(const struct record *record, const struct records *records, uint64_t *accounted, enum source_format format,
                        const char *text) {
    if (!record->line) return; /* a part of a text */
    uint64_t first = records_first(records);
    if (*accounted == UINT64_MAX) *accounted = first;
    assert_true(record->offset >= *accounted && record->offset + record->record_bytes <= records_at(records));
    check_lines(record->line - 1, format, text + first, record->offset - first);
    *accounted = record->offset + record->record_bytes;
}

/* Appends "<text>" for each document, "!reason@offset" for each record left out, as they come in portions of up to `portion` bytes. */
static int list(struct buf *out, const struct records_options *options, const char *text, size_t size, size_t portion) {
    struct records *records;
    struct record record;
    assert_int_equal(records_open(&records, options), 0);
    size_t at = (size_t)records_from(records);
    uint64_t accounted = UINT64_MAX;
    int code;
    while ((code = records_next(records, &record, false)) >= 0 && code != RECORDS_END) {
        if (code == RECORDS_MORE) {
            size_t n = at < size && size - at < portion ? size - at : portion;
            uint8_t *room;
            if (at >= size) {
                records_finish(records);
                continue;
            }
            assert_int_equal(records_room(records, &room, n), 0);
            memcpy(room, text + at, n);
            records_fed(records, n);
            at += n;
            continue;
        }
        check_place(&record, records, &accounted, options->format, text);
        if (record.reason) {
            assert_true(record.bytes <= RECORDS_PREFIX_BYTES);
            buf_print(out, "!%s@%llu", record.reason, (unsigned long long)record.offset);
        } else {
            if (with_lines) buf_print(out, "%llu", (unsigned long long)record.line - 1);
            if (record.begins) buf_append(out, "<", 1);
            for (const uint8_t *from = record.text, *end = from + record.bytes; from < end;) {
                const uint8_t *nul = memchr(from, 0, (size_t)(end - from));
                buf_append(out, from, (size_t)((nul ? nul : end) - from));
                if (nul) buf_append(out, "\\0", 2);
                from = nul ? nul + 1 : end;
            }
            if (record.ends) buf_append(out, ">", 1);
        }
    }
    if (code >= 0) spanned += records_at(records) - records_first(records), line_count += records_lines(records);
    records_close(records);
    return code < 0 ? code : 0;
}

static int list_lines(struct buf *out, const struct records_options *options, const char *text, size_t size, size_t portion) {
    with_lines = true;
    int code = list(out, options, text, size, portion);
    with_lines = false;
    return code;
}

static struct records_options options_of(enum source_format format) {
    return (struct records_options){.format = format, .field = "text", .end = UINT64_MAX};
}

struct known {
    struct records_options options;
    const char *text, *expected;
};
static void check_known(const struct known *known, size_t count) {
    static const size_t portions[] = {1, 2, 3, 5, 1000};
    for (size_t i = 0; i < count; i++)
        for (size_t p = 0; p < sizeof portions / sizeof *portions; p++) {
            struct buf out = {0};
            buf_append(&out, "", 0);
            assert_int_equal(list(&out, &known[i].options, known[i].text, strlen(known[i].text), portions[p]), 0);
            if (strcmp((char *)out.data, known[i].expected) != 0)
                fail_msg("case %zu in portions of %zu: %s instead of %s", i, portions[p], out.data, known[i].expected);
            buf_free(&out);
        }
}
#define CHECK_KNOWN(...) \
    check_known((const struct known[]){__VA_ARGS__}, sizeof((const struct known[]){__VA_ARGS__}) / sizeof(struct known))

#define TEXT {.format = FORMAT_TEXT, .end = UINT64_MAX}
#define WHOLE {.format = FORMAT_TEXT, .whole = true, .end = UINT64_MAX}
#define BETWEEN(s) {.format = FORMAT_TEXT, .separator = s, .end = UINT64_MAX}
#define LINES {.format = FORMAT_LINES, .end = UINT64_MAX}
#define OF(f, name) {.format = f, .field = name, .end = UINT64_MAX}

static void a_text_is_one_document(void **state) {
    (void)state;
    CHECK_KNOWN({TEXT, "", "<>"}, {TEXT, "a\nb\n", "<a\nb\n>"}, {WHOLE, "", "<>"}, {WHOLE, "\xEF\xBB\xBF" "a b", "<\xEF\xBB\xBF" "a b>"});
}

static void text_between_separators_is_a_document(void **state) {
    (void)state;
    CHECK_KNOWN({BETWEEN("--x"), "", ""}, {BETWEEN("--x"), "a--xb", "<a><b>"}, {BETWEEN("--x"), "a--x", "<a>"},
                {BETWEEN("--x"), "--x--xa-", "<><><a->"}, {BETWEEN("\n\n"), "a\n\nb\nc\n\n\n\n\nd\n\n\n", "<a><b\nc><d>"},
                {BETWEEN("\n\n"), "\n\n\n", "<>"}, {BETWEEN("aba"), "1ababa2aba3", "<1><2><3>"}, {BETWEEN("aab"), "aaab-aab", "<a><->"},
                {BETWEEN("<|endoftext|>"), "one<|endoftext|>\ntwo<|endof", "<one><\ntwo<|endof>"});
}

static void a_line_is_a_document(void **state) {
    (void)state;
    CHECK_KNOWN({LINES, "", ""}, {LINES, "a\nb", "<a><b>"}, {LINES, "a\r\n\r\n\nb\r\n", "<a><><><b>"}, {LINES, "\r\r\nx\r", "<\r><x\r>"});
}

static void json_lines_are_objects_or_strings(void **state) {
    (void)state;
    CHECK_KNOWN({OF(FORMAT_JSONL, "text"), "\xEF\xBB\xBF{\"text\": \"a\\u0000\\n\"}\n\n \r\n\"b\"\r\n{\"text\":\"c\"}", "<a\\0\n><b><c>"},
                {OF(FORMAT_JSONL, "text"), "{\"t\":1}\n{\"text\":1}\n{\n7\n{\"text\":\"\\ud800\"}\n{\"text\":\"\"}\n",
                 "!bad_record@0!bad_record@8!bad_record@19!bad_record@21<\xFF><>"},
                {OF(FORMAT_JSONL, "a.b"), "{\"a\":{\"b\":\"x\"}}\n{\"a.b\":\"y\"}\n{\"a\":\"z\"}\n", "<x><y>!bad_record@28"},
                {OF(FORMAT_JSONL, "text"), "{\"n\":123456789012345678901234567890,\"text\":\"x\"}\n", "<x>"});
}

static void json_is_read_record_by_record(void **state) {
    (void)state;
    CHECK_KNOWN({OF(FORMAT_JSON, "text"), "[{\"text\":\"a]}\\\"\"}, \"b\" ,{\"text\":\"c\",\"d\":[[{}]]}]\n", "<a]}\"><b><c>"},
                {OF(FORMAT_JSON, "text"), "{\n \"text\": \"a\"\n}\n", "<a>"}, {OF(FORMAT_JSON, "text"), "", ""},
                {OF(FORMAT_JSON, "text"), "\xEF\xBB\xBF [] ", ""},
                {OF(FORMAT_JSON, "text"), "{\"text\":\"a\"}{\"text\":\"b\"}\n\"c\"", "<a><b><c>"},
                {OF(FORMAT_JSON, "text"), "[1, null,[\"x\"],{\"text\":\"a\"}]", "!bad_record@1!bad_record@4!bad_record@9<a>"},
                {OF(FORMAT_JSON, "text"), "[{\"text\":\"a\"},{\"te", "<a>!bad_record@14!bad_record@18"},
                {OF(FORMAT_JSON, "text"), "[\"a\", \"b\"", "<a><b>!bad_record@9"},
                {OF(FORMAT_JSON, "text"), "}{\"text\":\"a\"}", "!bad_record@0<a>"});
}

static void tables_are_quoted_as_rfc_4180_says(void **state) {
    (void)state;
    CHECK_KNOWN({OF(FORMAT_CSV, "text"), "id,text\r\n1,a\r\n2,\"b, \"\"c\"\"\r\nd\"\r\n\r\n3,\n4,x\"y\"\n", "<a><b, \"c\"\r\nd><><x\"y\">"},
                {OF(FORMAT_CSV, "text"), "\xEF\xBB\xBF\"text\",n\na,1\n\"\",\n", "<a><>"},
                {OF(FORMAT_CSV, "text"), "text\n\"a\"\r\n\"b\"", "<a><b>"}, {OF(FORMAT_CSV, "text"), "text", ""},
                {OF(FORMAT_CSV, "text"), "text,text\na,b", "<a>"});
}

static void a_row_of_other_columns_is_left_out(void **state) {
    (void)state;
    CHECK_KNOWN({OF(FORMAT_CSV, "text"), "a,text,b\n1,2,3\n1\n1,2\n1,2,3,4\n1,,\n", "<2>!bad_record@15!bad_record@17!bad_record@21<>"},
                {OF(FORMAT_TSV, "text"), "a\ttext\n1\t2\t3\n1\n1\t2\n", "!bad_record@7!bad_record@13<2>"});
}

static void tabs_stand_for_commas_where_the_first_line_has_them(void **state) {
    (void)state;
    CHECK_KNOWN({OF(FORMAT_CSV, "text"), "n\ttext\r\n1\ta,b\n2\t\"c\td\n\"\n", "<a,b><c\td\n>"},
                {OF(FORMAT_CSV, "text"), "text,n\tm\na\tb,2\n", "<a\tb>"}, {OF(FORMAT_CSV, "text"), "text\ta", ""});
}

static void quotes_are_text_between_tabs(void **state) {
    (void)state;
    CHECK_KNOWN({OF(FORMAT_TSV, "text"), "n\ttext\n1\ta,b\n2\t\"c\n3\td\"\"e\"\n\"4\tf\r\n", "<a,b><\"c><d\"\"e\"><f>"});
}

static void a_quote_too_many_costs_its_row(void **state) {
    (void)state;
    CHECK_KNOWN({OF(FORMAT_CSV, "text"), "text\n\"a\"b\nc\n", "!bad_record@5<c>"},
                {OF(FORMAT_CSV, "text"), "text\n\"a\nb", "!bad_record@5<b>"},
                {OF(FORMAT_CSV, "text"), "text\n\"a\nb\nc\n\"d\"\ne\n", "!bad_record@5<b><c><d><e>"},
                {OF(FORMAT_CSV, "text"), "n,text\n1,\"a\n2,\"b\"\n3,\"c\nd\"\n4,\"e\n", "!bad_record@7<b><c\nd>!bad_record@26"},
                {OF(FORMAT_CSV, "text"), "n,text\n1,\"a\"b\nx, y\"\n2,\"c\"\n3,d\"\n", "!bad_record@7!bad_record@14<c><d\">"},
                {OF(FORMAT_CSV, "text"), "n,text\n1,\"a\r\n2,\",b\"\r\n3,c", "!bad_record@7<,b><c>"},
                {OF(FORMAT_CSV, "text"), "n,text\n1,\"a\"\rb\n3,c", "<a>!bad_record@13<c>"});
}

static void a_row_may_end_with_a_carriage_return(void **state) {
    (void)state;
    CHECK_KNOWN({OF(FORMAT_CSV, "text"), "text,n\ra,1\r\r\"b\r\"\"c\",2\rd,3", "<a><b\r\"c><d>"},
                {OF(FORMAT_CSV, "text"), "n\ttext\r1\ta,b\r2\tc\r", "<a,b><c>"},
                {OF(FORMAT_TSV, "text"), "text\tn\r\"a\t1\rb\t2\r", "<\"a><b>"},
                {OF(FORMAT_CSV, "text"), "text\ra\nb\r\nc\r\r\nd", "<a><b><c><d>"},
                {OF(FORMAT_CSV, "text"), "text\r\"a\"\r\"b\"\r", "<a><b>"},
                {OF(FORMAT_CSV, "text"), "n,text\r1\r2,b\r\"3,c\r4,d\r", "!bad_record@7<b>!bad_record@13<d>"});
}

/* What Python's csv module makes of a table in which every quote is in its place: the rows' ends are found byte by byte. */
static void naive_table(struct buf *out, const char *text, size_t size, char comma, bool quotes) {
    struct buf field = {0};
    uint64_t rows = 0, lines = 0, line = 0; /* line ends so far; before the row under way */
    size_t column = 0, begin = 0;
    bool quoted = false, ended = true;
    buf_append(&field, "", 0);
    for (size_t i = 0; i <= size; i++) {
        char c = i < size ? text[i] : '\n';
        if (i == size && ended) break;
        if (quoted && !(c == '"' && text[i + 1] != '"')) {
            buf_append(&field, &c, 1);
            lines += c == '\n';
            i += c == '"';
        } else if (quoted || (c == '"' && quotes)) {
            quoted = !quoted;
            ended = false;
        } else if (c == comma || c == '\n' || c == '\r') {
            bool ends_row = c != comma, blank = ends_row && begin == i;
            if (!blank && column == 1 && rows > 0) buf_print(out, "%llu<%s>", (unsigned long long)line, (char *)field.data);
            buf_clear(&field), buf_append(&field, "", 0);
            column = ends_row ? 0 : column + 1;
            rows += ends_row && !blank;
            if (c == '\r' && i + 1 < size && text[i + 1] == '\n') i++;
            lines += ends_row;
            if (ends_row) begin = i + 1, line = lines;
            ended = ends_row;
        } else {
            buf_append(&field, &c, 1);
            ended = false;
        }
    }
    buf_free(&field);
}

static void put_field(struct random *random, struct buf *table, bool quotes) {
    static const char *const words[] = {"a", "b c", "\xC3\xA9", ";", ",", "\t", "\r", "\n", "\r\n", "\"\""};
    bool quoted = quotes && random_in(random, 0, 2) == 0;
    if (quoted) buf_append(table, "\"", 1);
    for (size_t n = (size_t)random_in(random, 0, 6); n > 0; n--) {
        const char *word = words[random_in(random, 0, quoted ? 9 : 3)];
        buf_append(table, word, strlen(word));
    }
    if (quoted) buf_append(table, "\"", 1);
}

/* Whatever ends the rows, and wherever portions do. */
static void rows_end_as_a_naive_reader_finds_them(void **state) {
    (void)state;
    static const char *const ends[] = {"\n", "\r\n", "\r"};
    struct random random = random_open(__func__);
    for (int round = 0; round < 4000; round++) {
        struct records_options options = options_of(round % 4 == 0 ? FORMAT_TSV : FORMAT_CSV);
        bool quotes = options.format == FORMAT_CSV;
        char comma = quotes ? ',' : '\t';
        size_t end = (size_t)random_in(&random, 0, 3); /* 3: each row with another one */
        struct buf table = {0}, expected = {0}, got = {0};
        buf_print(&table, "n%ctext%s", comma, ends[end % 3]);
        for (size_t rows = (size_t)random_in(&random, 0, 9); rows > 0; rows--) {
            if (random_in(&random, 0, 9) > 0) {
                put_field(&random, &table, quotes);
                buf_append(&table, &comma, 1);
                put_field(&random, &table, quotes);
            }
            const char *row_end = ends[end < 3 ? end : (size_t)random_in(&random, 0, 2)];
            if (rows > 1 || random_in(&random, 0, 1)) buf_append(&table, row_end, strlen(row_end));
        }
        buf_append(&table, "", 0), buf_append(&expected, "", 0), buf_append(&got, "", 0);
        naive_table(&expected, (char *)table.data, table.size, comma, quotes);
        assert_int_equal(list_lines(&got, &options, (char *)table.data, table.size, (size_t)random_in(&random, 1, 7)), 0);
        if (strcmp((char *)expected.data, (char *)got.data) != 0)
            fail_msg("MILLRACE_SEED=%llu round %d: %s: %s instead of %s", (unsigned long long)random.seed, round, table.data, got.data,
                     expected.data);
        buf_free(&table), buf_free(&expected), buf_free(&got);
    }
}

static void a_table_without_the_column_is_refused(void **state) {
    (void)state;
    struct buf out = {0};
    struct records_options options = options_of(FORMAT_CSV);
    assert_int_equal(list(&out, &options, "id,body\n1,a\n", 12, 100), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "no column \"text\" in its first row (id, body)"));
    buf_free(&out);
}

static void the_suffix_names_the_format(void **state) {
    (void)state;
    struct source_group automatic = {.format = FORMAT_AUTO}, lines = {.format = FORMAT_LINES};
    assert_int_equal(records_format("/a/b.jsonl", &automatic), FORMAT_JSONL);
    assert_int_equal(records_format("b.NDJSON.gz", &automatic), FORMAT_JSONL);
    assert_int_equal(records_format("https://x/b.json.zst?y=1", &automatic), FORMAT_JSON);
    assert_int_equal(records_format("b.csv.xz", &automatic), FORMAT_CSV);
    assert_int_equal(records_format("b.tsv", &automatic), FORMAT_TSV);
    assert_int_equal(records_format("b.json.txt", &automatic), FORMAT_TEXT);
    assert_int_equal(records_format("json", &automatic), FORMAT_TEXT);
    assert_int_equal(records_format("b.json", &lines), FORMAT_LINES);
}

/* ---- long records -------------------------------------------------------------------------------------------------------------------- */

/* A record of `size` bytes between two short ones, in portions of `portion`. */
static void check_long(enum source_format format, size_t size, size_t portion, const char *expected) {
    struct buf text = {0}, out = {0};
    const bool json = format == FORMAT_JSON || format == FORMAT_JSONL, table = format == FORMAT_CSV;
    buf_print(&text, "%s%s\n", table ? "text\n" : "", json ? "\"a\"" : "a");
    const size_t begin = text.size;
    buf_reserve(&text, size + 100);
    memset(text.data + begin, 'x', size);
    text.size += size;
    if (json || table) text.data[begin] = text.data[text.size - 1] = '"';
    if (table) memset(text.data + begin + 1, '\n', 10);
    buf_print(&text, "\n%s\n", json ? "\"b\"" : "b");
    struct records_options options = options_of(format);
    buf_append(&out, "", 0);
    assert_int_equal(list(&out, &options, (char *)text.data, text.size, portion), 0);
    if (strncmp((char *)out.data, expected, strlen(expected)) != 0 || strcmp((char *)out.data + out.size - 3, "<b>") != 0)
        fail_msg("format %d, %zu bytes in portions of %zu: %.60s", format, size, portion, out.data);
    buf_free(&text), buf_free(&out);
}

static void a_record_that_is_too_long_is_left_out(void **state) {
    (void)state;
    static const enum source_format formats[] = {FORMAT_LINES, FORMAT_JSONL, FORMAT_JSON, FORMAT_CSV};
    static const char *const places[] = {"<a>!too_long@2<b>", "<a>!too_long@4<b>", "<a>!too_long@4<b>",
                                         "<a>!bad_record@7!bad_record@18<b>"};
    static const size_t portions[] = {1 << 20, 1000003, 40 << 20};
    for (size_t f = 0; f < 4; f++)
        for (size_t p = 0; p < 3; p++) {
            check_long(formats[f], RECORDS_BYTES_MAX, portions[p], "<a><");
            check_long(formats[f], RECORDS_BYTES_MAX + 1, portions[p], places[f]);
        }
    check_long(FORMAT_LINES, 40 << 20, 1 << 20, places[0]);
}

/* ---- random tables ------------------------------------------------------------------------------------------------------------------- */

/* Tables that Python's csv wrote, for each of which there is what it reads in them, or in the damaged one. */
static void check_oracle(const char *kind) {
    char path[] = "/tmp/millrace-records-XXXXXX", *command, *line = NULL;
    int fd = mkstemp(path), count = 0;
    assert_true(fd >= 0);
    command = mem_format("/usr/bin/python3 -B tests/unit/dataset/csv_oracle.py %s %s", kind, path);
    assert_int_equal(system(command), 0);
    FILE *in = fdopen(fd, "r");
    struct random random = random_open(kind);
    size_t room = 0;
    for (; getline(&line, &room, in) > 0; count++) { /* format, most lines that may be no rows or too many, the table, its documents */
        char format[8];
        int lost, at, table_bytes, texts;
        assert_int_equal(sscanf(line, "%7s %d %d %d %n", format, &lost, &table_bytes, &texts, &at), 4);
        char *table = line + at;
        for (int i = 0; i < table_bytes; i++) sscanf(table + 2 * i, "%2hhx", (unsigned char *)&table[i]);
        char *next = line + at + 2 * table_bytes + 1;
        struct records_options options = options_of(strcmp(format, "csv") == 0 ? FORMAT_CSV : FORMAT_TSV);
        struct buf out = {0};
        buf_append(&out, "", 0);
        if (list(&out, &options, table, (size_t)table_bytes, (size_t)random_in(&random, 1, 50)) < 0) fail_msg("%s", err_text());
        char *got = (char *)out.data;
        int missing = 0;
        for (int i = 0; i < texts; i++, next += strcspn(next, " \n") + 1) { /* each in its turn, with others between them */
            size_t bytes = strcspn(next, " \n") / 2;
            char *text = mem_alloc(bytes + 3);
            for (size_t k = 0; k < bytes; k++) sscanf(next + 2 * k, "%2hhx", (unsigned char *)&text[k + 1]);
            text[0] = '<', text[bytes + 1] = '>';
            char *found = strstr(got, text);
            missing += found == NULL;
            if (lost == 0) assert_true(found == got || !found);
            if (found) got = found + bytes + 2;
            free(text);
        }
        if (missing > lost || (lost == 0 && *got)) fail_msg("%d of %d rows are missing: table %d\n%.*s\nread as\n%s", missing, texts, count,
                                                            table_bytes, table, out.data);
        buf_free(&out);
    }
    assert_true(count >= 1000);
    free(line), free(command);
    fclose(in);
    unlink(path);
}

static void tables_that_python_writes_arrive(void **state) {
    (void)state;
    check_oracle("whole");
}

static void a_damaged_quote_costs_one_row(void **state) {
    (void)state;
    check_oracle("damaged");
}

static void a_long_row_is_the_same_in_any_portions(void **state) {
    (void)state;
    static const char *const rows[] = {"\"x\n%*s\n\ny\"\n", "%*s,\"a\nb\"\n", "\"%*s\na,b\"\n", "\"a\n\"\",%*s\"\n\"\n"};
    struct records_options options = options_of(FORMAT_CSV);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int size = RECORDS_BYTES_MAX - 12; size < RECORDS_BYTES_MAX + 2; size += size < RECORDS_BYTES_MAX - 4 ? 5 : 2) {
            struct buf table = {0}, whole = {0}, parts = {0};
            buf_print(&table, "text,n\n1,2\n");
            buf_print(&table, rows[i], size, "");
            buf_print(&table, "\"z\",0\n");
            assert_int_equal(list(&whole, &options, (char *)table.data, table.size, table.size), 0);
            assert_int_equal(list(&parts, &options, (char *)table.data, table.size, (size_t)(1 << 20) + 7 * (size_t)size % 1000), 0);
            if (whole.size != parts.size || memcmp(whole.data, parts.data, whole.size) != 0) fail_msg("row %zu, %d", i, size);
            assert_string_equal(whole.data + whole.size - 3, "<z>");
            buf_free(&table), buf_free(&whole), buf_free(&parts);
        }
}

/* ---- divided files ------------------------------------------------------------------------------------------------------------------- */

static void ranges_have_the_records_of_the_whole(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    static const char *const separators[] = {"\n", "\n\n", "abab", "--", "<|x|>"};
    for (int round = 0; round < 3000; round++) {
        const char *separator = separators[random_in(&random, 0, 4)];
        struct records_options options = options_of(round % 3 == 0 ? FORMAT_LINES : FORMAT_TEXT);
        options.separator = separator;
        struct buf text = {0}, whole = {0}, parts = {0};
        size_t size = (size_t)random_in(&random, 0, 60);
        while (text.size < size) {
            if (random_in(&random, 0, 3) == 0) buf_append(&text, separator, strlen(separator));
            else buf_append(&text, &"\nab-<|x>\r"[random_in(&random, 0, 8)], 1);
        }
        buf_append(&text, "", 0), buf_append(&whole, "", 0), buf_append(&parts, "", 0);
        spanned = line_count = 0;
        assert_int_equal(list(&whole, &options, (char *)text.data, text.size, 1000), 0);
        for (uint64_t begin = 0; begin < text.size || begin == 0; begin = options.end) {
            options.begin = begin, options.end = begin + random_in(&random, 1, 20);
            assert_int_equal(list(&parts, &options, (char *)text.data, text.size, (size_t)random_in(&random, 1, 9)), 0);
        }
        if (spanned != 2 * text.size || line_count != 2 * line_ends((char *)text.data, text.size)) /* once whole, once divided */
            fail_msg("MILLRACE_SEED=%llu round %d: %s: %llu bytes", (unsigned long long)random.seed, round, text.data,
                     (unsigned long long)spanned);
        if (strcmp((char *)whole.data, (char *)parts.data) != 0)
            fail_msg("MILLRACE_SEED=%llu round %d: %s: %s, in parts %s", (unsigned long long)random.seed, round, text.data, whole.data,
                     parts.data);
        buf_free(&text), buf_free(&whole), buf_free(&parts);
    }
}

/* Rubbish made of what the formats are made of: nothing hangs, and portions make no difference. */
static void rubbish_is_read_the_same_in_any_portions(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    static const char *const words[] = {"{",  "}",  "[", "]",          "\"", "\\", ",", "\t",
                                        "\n", "\r", " ", "\"text\"", ":",  "a",  "1", "\xEF\xBB\xBF", "\x80"};
    for (int round = 0; round < 4000; round++) {
        struct records_options options = options_of((enum source_format)random_in(&random, FORMAT_TEXT, FORMAT_TSV));
        if (round % 2) options.field = "a";
        struct buf text = {0}, whole = {0}, parts = {0};
        if (options.format >= FORMAT_CSV) buf_print(&text, "%s\n", options.field);
        for (size_t n = (size_t)random_in(&random, 0, 60); n > 0; n--) {
            const char *word = words[random_in(&random, 0, sizeof words / sizeof *words - 1)];
            buf_append(&text, word, strlen(word));
        }
        buf_append(&text, "", 0), buf_append(&whole, "", 0), buf_append(&parts, "", 0);
        spanned = line_count = 0;
        int code = list(&whole, &options, (char *)text.data, text.size, 1000);
        if (code == 0 && options.format != FORMAT_TEXT) {
            assert_int_equal(spanned, text.size);
            check_lines(line_count, options.format, (char *)text.data, text.size);
        }
        assert_int_equal(list(&parts, &options, (char *)text.data, text.size, (size_t)random_in(&random, 1, 5)), code);
        if (strcmp((char *)whole.data, (char *)parts.data) != 0)
            fail_msg("MILLRACE_SEED=%llu round %d: %s: %s or %s", (unsigned long long)random.seed, round, text.data, whole.data,
                     parts.data);
        buf_free(&text), buf_free(&whole), buf_free(&parts);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_one_document),
        cmocka_unit_test(text_between_separators_is_a_document),
        cmocka_unit_test(a_line_is_a_document),
        cmocka_unit_test(json_lines_are_objects_or_strings),
        cmocka_unit_test(json_is_read_record_by_record),
        cmocka_unit_test(tables_are_quoted_as_rfc_4180_says),
        cmocka_unit_test(a_row_of_other_columns_is_left_out),
        cmocka_unit_test(tabs_stand_for_commas_where_the_first_line_has_them),
        cmocka_unit_test(quotes_are_text_between_tabs),
        cmocka_unit_test(a_quote_too_many_costs_its_row),
        cmocka_unit_test(a_row_may_end_with_a_carriage_return),
        cmocka_unit_test(rows_end_as_a_naive_reader_finds_them),
        cmocka_unit_test(tables_that_python_writes_arrive),
        cmocka_unit_test(a_damaged_quote_costs_one_row),
        cmocka_unit_test(a_long_row_is_the_same_in_any_portions),
        cmocka_unit_test(a_table_without_the_column_is_refused),
        cmocka_unit_test(the_suffix_names_the_format),
        cmocka_unit_test(a_record_that_is_too_long_is_left_out),
        cmocka_unit_test(ranges_have_the_records_of_the_whole),
        cmocka_unit_test(rubbish_is_read_the_same_in_any_portions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
