/* The text of a JSON record: known ones, and random ones beside Python's json (json_oracle.py). */
#include "dataset/ingest/json_text.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "tests/unit/random.h"

static int find(const uint8_t **text, size_t *bytes, struct buf *room, char *why, const char *record, const char *field) {
    return json_text(text, bytes, room, why, (const uint8_t *)record, strlen(record), field);
}

static void records_are_read(void **state) {
    (void)state;
    static const struct {
        const char *record, *field, *text;
    } known[] = {
        {"{\"text\":\"a\"}", "text", "a"},
        {" \"b c\"\r\n", "text", "b c"},
        {"{\"id\":-12.5,\"a\":[1,{\"text\":\"no\"},[]],\"b\":{},\"c\":null,\"d\":true,\"text\":\"\",\"e\":false}", "text", ""},
        {"{ \"text\" : \"first\" , \"text\":\"last\" }", "text", "last"},
        {"{\"text\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t.\\u00e9\\u65E5\\ud83d\\ude42\\u0041\"}", "text",
         "\"\\/\b\f\n\r\t.\xC3\xA9\xE6\x97\xA5\xF0\x9F\x99\x82" "A"},
        {"{\"text\":\"0123456789abcdefghij\xE6\x97\xA5klmnopqrstuvw\"}", "text", "0123456789abcdefghij\xE6\x97\xA5klmnopqrstuvw"},
        {"{\"score\": NaN, \"b\": [Infinity, -Infinity], \"text\": \"a\"}", "text", "a"},
        {"{\"t\\u0065xt\":\"a\"}", "text", "a"},
        {"{\"a\":1.5E+99999,\"b\":-0,\"text\":\"a\"}", "text", "a"},
        {"\"x\\ud83d\\n\\ude42\\ud83d\\ud83d\\ude42\\ud800\"", "text", "x\xFF\n\xFF\xFF\xF0\x9F\x99\x82\xFF"},
        {"\"tab\t, \x01, \xE6\x97\"", "text", "tab\t, \x01, \xE6\x97"},
        {"{\"a\":{\"b\":\"nested\"}}", "a.b", "nested"},
        {"{\"a.b\":\"whole\",\"a\":{\"b\":\"nested\"}}", "a.b", "whole"},
        {"{\"a\":{\"b\":\"x\",\"c\":{\"d\":\"y\"}},\"a\":{\"c\":{\"d\":\"z\",\"b\":1}}}", "a.c.d", "z"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const uint8_t *text = NULL;
        size_t bytes = 0;
        char why[JSON_WHY_BYTES];
        struct buf room = {0};
        if (find(&text, &bytes, &room, why, known[i].record, known[i].field) != 1) fail_msg("%s: %s", known[i].record, why);
        assert_int_equal(bytes, strlen(known[i].text));
        assert_memory_equal(text, known[i].text, bytes);
        buf_free(&room);
    }
}

static void what_is_no_record_says_why(void **state) {
    (void)state;
    static const struct {
        const char *record, *field, *why;
    } known[] = {
        {"", "text", "not JSON: ends too early"},
        {"{}", "text", "no field \"text\""},
        {"7", "text", "neither an object nor a string"},
        {"NaN", "text", "neither an object nor a string"},
        {"[\"a\"]", "text", "neither an object nor a string"},
        {"{\"text\":1}", "text", "field \"text\" is not a string"},
        {"{\"text\":\"a\",\"text\":null}", "text", "field \"text\" is not a string"},
        {"{\"text\":\"a\"", "text", "not JSON: ends too early"},
        {"{\"text\":\"a\"}x", "text", "not JSON: x at its byte 12"},
        {"{\"text\":\"a\",}", "text", "not JSON: } at its byte 12"},
        {"{\"a\":01,\"text\":\"a\"}", "text", "not JSON: 1 at its byte 6"},
        {"{\"a\":nan,\"text\":\"a\"}", "text", "not JSON: n at its byte 5"},
        {"{\"a\":+1}", "text", "not JSON: + at its byte 5"},
        {"{'text':'a'}", "text", "not JSON: ' at its byte 1"},
        {"\"\\x\"", "text", "not JSON: x at its byte 2"},
        {"\"a\\", "text", "not JSON: ends too early"},
        {"{\"a\": \x01}", "text", "not JSON: 0x01 at its byte 6"},
        {"{\"a\":{\"b\":\"x\"},\"a\":{}}", "a.b", "no field \"a.b\"; it has \"a\", \"a\""},
        {"{\"a\":{\"b\":\"x\"},\"a\":\"b\"}", "a.b", "no field \"a.b\"; it has \"a\", \"a\""},
        {" {\"id\" :[{\"no\":1}], \"b\x1By\":\"}\"} ", "text", "no field \"text\"; it has \"id\", \"b\\x1By\""},
        {"{\"id\":1,\"0123456789012345678901234567890123\":1}", "text", "no field \"text\"; it has \"id\""},
        {"{\"a\":{\"b\":[\"x\"]}}", "a.b", "field \"a.b\" is not a string"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const uint8_t *text;
        size_t bytes;
        char why[JSON_WHY_BYTES] = "";
        struct buf room = {0};
        if (find(&text, &bytes, &room, why, known[i].record, known[i].field) != 0) fail_msg("%s", known[i].record);
        assert_string_equal(why, known[i].why);
        buf_free(&room);
    }
}

static void deep_records_are_read_and_endless_ones_refused(void **state) {
    (void)state;
    static const struct {
        size_t depth;
        int found;
    } known[] = {{1000, 1}, {JSON_DEPTH_MAX - 1, 1}, {JSON_DEPTH_MAX, 0}, {10000000, 0}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct buf record = {0}, room = {0};
        const uint8_t *text;
        size_t bytes;
        char why[JSON_WHY_BYTES] = "";
        buf_print(&record, "{\"a\":");
        for (size_t n = 0; n < known[i].depth; n++) buf_append(&record, "[", 1);
        for (size_t n = 0; n < known[i].depth; n++) buf_append(&record, "]", 1);
        buf_print(&record, ",\"text\":\"x\"}");
        assert_int_equal(json_text(&text, &bytes, &room, why, record.data, record.size, "text"), known[i].found);
        if (!known[i].found) assert_non_null(strstr(why, "nested deeper than 2048"));
        buf_free(&record), buf_free(&room);
    }
}

/* A record from a grammar, with a fault now and then. */
static void print_value(struct buf *out, struct random *random, int depth);
static void print_string(struct buf *out, struct random *random) {
    static const char *const words[] = {"text", "a", " ", "\\n", "\\\"", "\\u00e9", "\\ud83d\\ude42", "\xC3\xA9", "\xE6\x97\xA5", "\\u0000",
                                        "plain words of some length", "\\ud83d", "\x80", "\n", "\\q", "\\u12", "\xF0\x9F\x99\x82"};
    buf_print(out, "\"");
    for (uint64_t n = random_in(random, 0, 5); n > 0; n--) {
        const char *word = words[random_in(random, 0, random_in(random, 0, 40) ? 10 : 16)];
        buf_append(out, word, strlen(word));
    }
    buf_print(out, "\"");
}
static void print_list(struct buf *out, struct random *random, int depth, bool object) {
    buf_print(out, object ? "{" : "[");
    for (uint64_t n = random_in(random, 0, 4), i = 0; i < n; i++) {
        if (i > 0) buf_print(out, random_in(random, 0, 60) ? ", " : " ");
        if (object && random_in(random, 0, 2)) buf_print(out, "\"text\"");
        else if (object) print_string(out, random);
        if (object) buf_print(out, random_in(random, 0, 60) ? ":" : ": ,");
        print_value(out, random, depth + 1);
    }
    buf_print(out, random_in(random, 0, 80) ? (object ? "}" : "]") : "");
}
static void print_value(struct buf *out, struct random *random, int depth) {
    static const char *const others[] = {"0", "-1", "17", "3.25", "true", "false", "null", "1e3", "1E-9",
                                         "NaN", "-Infinity", "1e999", "-", "01", "1.", "nul", "-0.0", "Inf"};
    uint64_t kind = random_in(random, 0, 9);
    if (kind < 4 || (depth > 3 && kind > 6)) print_string(out, random);
    else if (kind < 7) buf_print(out, "%s", others[random_in(random, 0, random_in(random, 0, 9) ? 10 : 16)]);
    else print_list(out, random, depth, kind != 7);
}

static void put_hex(FILE *file, const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) fprintf(file, "%02x", bytes[i]);
}

static char folder[] = "/tmp/millrace-json-XXXXXX";
static int set_up(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}
static int tear_down(void **state) {
    (void)state;
    return folder_remove(folder);
}

static void ask_oracle(const char *words) {
    char here[4096];
    assert_non_null(getcwd(here, sizeof here));
    char *command = mem_format("cd %s && /usr/bin/python3 -B %s/tests/unit/dataset/json_oracle.py %s", folder, here, words);
    assert_int_equal(system(command), 0);
    free(command);
}
static FILE *open_file(const char *name, const char *mode) {
    char *path = mem_format("%s/%s", folder, name);
    FILE *file = fopen(path, mode);
    assert_non_null(file);
    free(path);
    return file;
}

static void it_says_what_python_says(void **state) {
    (void)state;
    enum { ROUNDS = 60000 };
    struct random random = random_open(__func__);
    FILE *in = open_file("records", "w"), *ours = open_file("ours", "w");
    int found = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct buf record = {0}, room = {0};
        buf_append(&record, "", 0);
        if (round % 8) print_list(&record, &random, 0, true);
        else print_value(&record, &random, 0);
        if (random_in(&random, 0, 30) == 0) record.data[random_in(&random, 0, record.size - 1)] = (uint8_t)random_next(&random);
        const uint8_t *text;
        size_t bytes;
        char why[JSON_WHY_BYTES];
        int code = json_text(&text, &bytes, &room, why, record.data, record.size, "text");
        put_hex(in, record.data, record.size), fputc('\n', in);
        fputc(code ? '+' : '-', ours);
        if (code) put_hex(ours, text, bytes);
        fputc('\n', ours);
        found += code;
        buf_free(&record), buf_free(&room);
    }
    fclose(in), fclose(ours);
    assert_true(found > ROUNDS / 6 && found < ROUNDS * 5 / 6);
    ask_oracle("check records theirs");
    char *command = mem_format("cd %s && paste records ours theirs | awk '$2 != $3' | head -3 | tee bad && test ! -s bad", folder);
    if (system(command) != 0) fail_msg("MILLRACE_SEED=%llu: others", (unsigned long long)random.seed);
    free(command);
}

static size_t from_hex(uint8_t *bytes) {
    size_t size = 0;
    for (unsigned byte; sscanf((char *)bytes + 2 * size, "%2x", &byte) == 1; size++) bytes[size] = (uint8_t)byte;
    bytes[size] = 0;
    return size;
}

static void every_document_that_python_writes_arrives(void **state) {
    (void)state;
    ask_oracle("write written");
    FILE *in = open_file("written", "r");
    char *line = NULL;
    size_t room_bytes = 0;
    int count = 0;
    for (; getline(&line, &room_bytes, in) > 0; count++) {
        struct buf room = {0};
        char why[JSON_WHY_BYTES] = "", *wanted = strchr(line, ' ') + 1, *path = strchr(wanted, ' ') + 1;
        const uint8_t *text;
        size_t bytes, path_bytes = from_hex((uint8_t *)path), wanted_bytes;
        path[-1] = wanted[-1] = 0;
        assert_true(path_bytes > 0);
        wanted_bytes = from_hex((uint8_t *)wanted);
        size_t size = from_hex((uint8_t *)line);
        if (json_text(&text, &bytes, &room, why, (uint8_t *)line, size, path) != 1) fail_msg("%s: %s", line, why);
        if (bytes != wanted_bytes || memcmp(text, wanted, bytes) != 0) fail_msg("%s: \"%.*s\"", line, (int)bytes, text);
        buf_free(&room);
    }
    free(line);
    fclose(in);
    assert_true(count == 4000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_read),
        cmocka_unit_test(what_is_no_record_says_why),
        cmocka_unit_test(deep_records_are_read_and_endless_ones_refused),
        cmocka_unit_test(it_says_what_python_says),
        cmocka_unit_test(every_document_that_python_writes_arrives),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
