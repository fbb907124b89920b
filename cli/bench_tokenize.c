/* `millrace bench tokenize`: how fast one thread turns a file's text into token ids, the text and the ids in memory, by processor time. The
 * file is read as documents of some size, as other programs are given it by tests/bench/bench_tokenizer.py, and so that passes over it need
 * no memory. */
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/plain.h"
#include "cli/bench_commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "dataset/tokenizer/tokenizer.h"

enum {
    BENCH_TEXT_BYTES_MAX = 1 << 30,
    BENCH_PASSES_MAX = 100,
    CHECKED_BYTES = 1 << 20, /* of documents whose ids go into the sum, for the comparison with other programs */
};

struct bench_text {
    struct buf text;
    int64_t document_bytes, passes;
    bool fresh; /* a new encoder for each document */
    const char *tokenizer;
};
struct bench_passes {
    uint64_t documents, tokens, sum;
    double seconds[BENCH_PASSES_MAX];
};

/* A document ends behind the first line feed at or behind its smallest size. */
static size_t document_size(const struct bench_text *bench, size_t at) {
    size_t rest = bench->text.size - at, least = (size_t)bench->document_bytes;
    if (rest <= least) return rest;
    const uint8_t *end = memchr(bench->text.data + at + least - 1, '\n', rest - least + 1);
    return end ? (size_t)(end - (bench->text.data + at)) + 1 : rest;
}

/* Of this process: what other programs do in the meantime does not count. */
static double processor_seconds(void) {
    struct timespec now;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static uint64_t sum_of(uint64_t sum, const struct ids *ids) {
    for (size_t i = 0; i < ids->count; i++) sum = (sum ^ ids->id[i]) * 0x100000001B3u; /* FNV's step, on whole ids */
    return sum;
}

static int run_pass(const struct bench_text *bench, const struct tokenizer *tokenizer, struct encoder **encoder, struct ids *ids,
                    struct bench_passes *passes, int64_t pass) {
    double begin = processor_seconds(), summing = 0;
    passes->documents = passes->tokens = 0, passes->sum = 0xCBF29CE484222325u;
    for (size_t at = 0, size; at < bench->text.size; at += size, passes->documents++) {
        size = document_size(bench, at);
        ids->count = 0;
        if (bench->fresh) {
            encoder_close(*encoder);
            *encoder = NULL;
            TRY(encoder_open(encoder, tokenizer));
        }
        TRY(encoder_feed(*encoder, ids, bench->text.data + at, size));
        TRY(encoder_finish(*encoder, ids));
        passes->tokens += ids->count;
        if (at >= CHECKED_BYTES) continue;
        double before = processor_seconds();
        passes->sum = sum_of(passes->sum, ids);
        summing += processor_seconds() - before;
    }
    passes->seconds[pass] = processor_seconds() - begin - summing;
    return 0;
}

static int run_passes(const struct bench_text *bench, struct bench_passes *passes) {
    struct tokenizer *tokenizer = NULL;
    struct encoder *encoder = NULL;
    struct ids ids = {0};
    TRY(tokenizer_open(&tokenizer, bench->tokenizer));
    int code = encoder_open(&encoder, tokenizer);
    for (int64_t pass = 0; code == 0 && pass < bench->passes; pass++) code = run_pass(bench, tokenizer, &encoder, &ids, passes, pass);
    ids_free(&ids);
    encoder_close(encoder);
    tokenizer_close(tokenizer);
    return code;
}

static int print_json(const struct bench_text *bench, const struct bench_passes *passes) {
    json_t *object = json_object(), *seconds = json_array();
    for (int64_t i = 0; i < bench->passes; i++) json_array_append_new(seconds, output_json_measured(passes->seconds[i]));
    json_object_set_new(object, "bytes", json_integer((json_int_t)bench->text.size));
    json_object_set_new(object, "documents", json_integer((json_int_t)passes->documents));
    json_object_set_new(object, "tokens", json_integer((json_int_t)passes->tokens));
    json_object_set_new(object, "seconds", seconds);
    char sum[17];
    snprintf(sum, sizeof sum, "%016llx", (unsigned long long)passes->sum);
    json_object_set_new(object, "sum", json_string(sum));
    return output_json(object);
}

static void print_text(const struct bench_text *bench, const struct bench_passes *passes) {
    double bytes = (double)bench->text.size;
    printf("%.1f MB in %llu document%s, %llu token%s, %.2f bytes a token\n", bytes / 1e6, (unsigned long long)passes->documents,
           plural(passes->documents), (unsigned long long)passes->tokens, plural(passes->tokens),
           bytes / (double)(passes->tokens ? passes->tokens : 1));
    for (int64_t i = 0; i < bench->passes; i++)
        printf("pass %lld: %.1f MB/s, %.1f million tokens/s\n", (long long)i + 1, bytes / 1e6 / passes->seconds[i],
               (double)passes->tokens / 1e6 / passes->seconds[i]);
}

int bench_tokenize(int argc, char **argv) {
    struct bench_text bench = {.document_bytes = 1 << 16, .passes = 3, .tokenizer = "gpt2"};
    bool json = false;
    const struct option_spec options[] = {
        {"tokenizer", 't', OPTION_TEXT, &bench.tokenizer, 0, 0, "NAME",
         "gpt2 (the default), or the path of a Hugging Face folder or tokenizer.json"},
        {"document-bytes", 0, OPTION_INT, &bench.document_bytes, 1, BENCH_TEXT_BYTES_MAX, "N",
         "cut the file after the first line that ends at N bytes or later (default: 65536)"},
        {"passes", 0, OPTION_INT, &bench.passes, 1, BENCH_PASSES_MAX, "N",
         "passes over the file; the first begins with nothing (default: 3)"},
        {"fresh", 0, OPTION_FLAG, &bench.fresh, 0, 0, NULL, "a new encoder for each document: nothing is remembered from one to the next"},
        OPTION_JSON(&json),
        {0},
    };
    static const struct usage usage = {
        "bench tokenize",
        "FILE [OPTIONS]",
        "Measures one thread that turns the text of a file, up to 1 GiB of it in memory, into token ids.",
        "millrace bench tokenize corpus.txt --passes 5",
        1,
        1};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    struct bench_passes passes = {0};
    code = file_read(&bench.text, arguments[0], BENCH_TEXT_BYTES_MAX);
    if (code == 0) code = run_passes(&bench, &passes);
    if (code == 0 && json) code = print_json(&bench, &passes);
    else if (code == 0) print_text(&bench, &passes);
    buf_free(&bench.text);
    return code;
}
