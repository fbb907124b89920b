/* Files to records: the same in portions of any size, and the same when a file is divided. A byte for the format, one for the portion, one
 * for the division, then the file. */
#include "dataset/ingest/records.h"

#include "tests/fuzz/fuzz.h"

enum { FORMATS = 7 };

static struct records_options options_of(uint32_t kind) {
    static const enum source_format formats[FORMATS] = {FORMAT_TEXT, FORMAT_TEXT, FORMAT_LINES, FORMAT_JSONL,
                                                        FORMAT_JSON, FORMAT_CSV,  FORMAT_TSV};
    static const char *const separators[] = {"\n\n", "--", "<|end|>", "aba"};
    enum source_format format = formats[kind % FORMATS];
    bool separated = kind % FORMATS == 1, json = format == FORMAT_JSON || format == FORMAT_JSONL;
    return (struct records_options){
        .format = format,
        .field = json && kind / FORMATS % 2 ? "a.b" : "text",
        .separator = separated ? separators[kind / FORMATS % 4] : "",
        .whole = kind / FORMATS % 2,
        .end = UINT64_MAX,
    };
}

static void put_record(struct buf *out, const struct record *record) {
    if (record->reason) {
        CHECK(record->bytes <= RECORDS_PREFIX_BYTES && record->detail != NULL);
        CHECK(buf_print(out, "\n!%s %s @%llu:", record->reason, record->detail, (unsigned long long)record->offset) == 0);
    } else if (record->begins) {
        CHECK(buf_print(out, "\n@%llu:", (unsigned long long)record->offset) == 0);
    }
    CHECK(buf_append(out, record->text, record->bytes) == 0);
    if (record->ends) CHECK(buf_append(out, "\n;", 2) == 0);
}

/* Appends what the file holds; the error that ends it, too. */
static void list(struct buf *out, const struct records_options *options, const uint8_t *file, size_t size, size_t portion) {
    struct records *records;
    struct record record;
    CHECK(records_open(&records, options) == 0);
    size_t at = (size_t)records_from(records);
    int code;
    while ((code = records_next(records, &record, false)) >= 0 && code != RECORDS_END) {
        if (code == RECORDS_ONE) {
            put_record(out, &record);
        } else if (at >= size) {
            records_finish(records);
        } else {
            size_t bytes = size - at < portion ? size - at : portion;
            uint8_t *room;
            CHECK(records_room(records, &room, bytes) == 0);
            memcpy(room, file + at, bytes);
            records_fed(records, bytes);
            at += bytes;
        }
    }
    if (code < 0) CHECK(buf_print(out, "\nerror %d", code) == 0);
    records_close(records);
}

static void check_same(const struct buf *a, const struct buf *b, const char *what) {
    if (a->size != b->size || memcmp(a->data, b->data, a->size) != 0)
        fuzz_fail("other records %s:\n%.*s\n---- instead of\n%.*s\n", what, (int)b->size, b->data, (int)a->size, a->data);
}

void fuzz(const uint8_t *data, size_t size) {
    struct fuzz_input input = {data, size};
    uint32_t kind = fuzz_number(&input, 1), portion = fuzz_number(&input, 1), division = fuzz_number(&input, 1);
    struct records_options options = options_of(kind);
    struct buf whole = {0}, portions = {0}, divided = {0};
    CHECK(buf_append(&whole, "", 0) == 0 && buf_append(&portions, "", 0) == 0 && buf_append(&divided, "", 0) == 0);
    list(&whole, &options, input.at, input.left, input.left + 1);
    list(&portions, &options, input.at, input.left, 1 + portion % 61);
    check_same(&whole, &portions, "in portions");
    bool divisible = options.format == FORMAT_LINES || options.format == FORMAT_JSONL || options.separator[0];
    if (divisible && input.left) {
        options.end = division * input.left / 256;
        list(&divided, &options, input.at, input.left, 7);
        options.begin = options.end;
        options.end = UINT64_MAX;
        list(&divided, &options, input.at, input.left, 1000);
        check_same(&whole, &divided, "when divided");
    }
    buf_free(&whole);
    buf_free(&portions);
    buf_free(&divided);
}

void fuzz_seeds(void (*add)(const void *bytes, size_t size_bytes)) {
    static const char *const texts[FORMATS] = {
        "\xef\xbb\xbfOne text.\nOf lines.\n",
        "one\n\ntwo--three<|end|>abababa\n\n\n\nfour",
        "first\r\nsecond\n\nlast",
        ("{\"text\": \"one\", \"a\": {\"b\": \"deep \\u0000 \\ud83c\\udff3\"}}\n\"a string\"\n\n{\"text\": 5}\n{\"text\": \"cut\n[1]\n"
         "{\"a\": NaN, \"t\\u0065xt\": \"\\ud800 \x01\"}\n"),
        "\xef\xbb\xbf[{\"text\": \"one\", \"a\": {\"b\": \"x\"}}, \"two\", {\"id\": [1, 2.5e3, null, true]}]",
        "id,text\n1,\"quoted \"\"field\"\", with\na break\"\r\n2,plain\n\n3\n4,\"open",
        "text\ta\tb\none\t\"two\"\tthree\n\"x\ty\"\t2\t3\r\n",
    };
    for (unsigned kind = 0; kind < 4 * FORMATS; kind++) {
        struct buf seed = {0};
        uint8_t head[3] = {(uint8_t)kind, (uint8_t)(5 * kind), (uint8_t)(37 * kind)};
        CHECK(buf_append(&seed, head, 3) == 0 && buf_append(&seed, texts[kind % FORMATS], strlen(texts[kind % FORMATS])) == 0);
        add(seed.data, seed.size);
        buf_free(&seed);
    }
}
