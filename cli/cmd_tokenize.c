/* `millrace tokenize`: standard input to token ids, or token ids to bytes, in bounded memory whatever the input. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "dataset/source/text_file.h"
#include "dataset/tokenizer/tokenizer.h"

enum { CHUNK_BYTES = 1 << 16 };

/* Up to CHUNK_BYTES of standard input; *out_got is 0 at its end. */
static int read_chunk(char *out, size_t *out_got) {
    for (;;) {
        ssize_t n = read(STDIN_FILENO, out, CHUNK_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_errno("read standard input");
        *out_got = (size_t)n;
        return 0;
    }
}

/* ---- text to ids ---- */

struct encoding {
    struct encoder *encoder;
    struct ids ids;
    bool documents;
    bool line_begun;     /* the line has an id already */
    bool document_begun; /* a byte came since the last NUL */
};

static int print_ids(struct encoding *e) {
    for (size_t i = 0; i < e->ids.count; i++) {
        char text[12];
        int at = sizeof text;
        for (uint32_t id = e->ids.id[i], first = 1; first || id; id /= 10, first = 0) text[--at] = (char)('0' + id % 10);
        if (e->line_begun) putchar(' ');
        e->line_begun = true;
        output_bytes(text + at, sizeof text - (size_t)at);
    }
    e->ids.count = 0;
    return 0;
}

static int feed(struct encoding *e, const char *text, size_t bytes) {
    if (bytes == 0) return 0;
    TRY(encoder_feed(e->encoder, &e->ids, text, bytes));
    return print_ids(e);
}

static int end_text(struct encoding *e) {
    TRY(encoder_finish(e->encoder, &e->ids));
    return print_ids(e);
}

static int end_line(struct encoding *e) {
    TRY(end_text(e));
    putchar('\n');
    e->line_begun = e->document_begun = false;
    return 0;
}

static int encode_chunk(struct encoding *e, const char *text, size_t bytes) {
    while (bytes > 0) {
        const char *nul = e->documents ? memchr(text, 0, bytes) : NULL;
        size_t size = nul ? (size_t)(nul - text) : bytes;
        if (size > 0) e->document_begun = true;
        TRY(feed(e, text, size));
        if (nul) TRY(end_line(e));
        text += size + (nul != NULL);
        bytes -= size + (nul != NULL);
    }
    return 0;
}

/* Of what is text only much of it is warned of (text_file_warning()): of any bytes somebody may want back what they gave. */
static void warn_of_replaced(const struct encoder *encoder) {
    uint64_t count = encoder_replaced(encoder);
    if (count > 0)
        output_warn(mem_format("%s ill-formed UTF-8 sequence%s became U+FFFD%s: the ids do not give those bytes back", text_count(count),
                               plural(count), count == 1 ? "" : " each"));
}

static int encode(const struct tokenizer *tokenizer, bool special, bool documents, bool raw) {
    struct encoding e = {.documents = documents};
    struct text_file *file;
    TRY(text_file_open(&file, "-", &(struct text_file_options){.raw = raw, .nul_ends = documents}));
    char *chunk = mem_alloc(CHUNK_BYTES);
    size_t got = 1;
    int code = special ? encoder_open_special(&e.encoder, tokenizer) : encoder_open(&e.encoder, tokenizer);
    while (code == 0 && got > 0 && output_alive()) {
        code = text_file_read(file, chunk, &got, CHUNK_BYTES);
        if (code == 0) code = encode_chunk(&e, chunk, got);
    }
    if (code == 0 && (!documents || e.document_begun)) code = end_line(&e);
    if (code == 0) output_warn(text_file_left_out(file));
    if (code == 0) output_warn(text_file_warning(file));
    if (code == 0 && raw) warn_of_replaced(e.encoder);
    ids_free(&e.ids);
    encoder_close(e.encoder);
    free(chunk);
    text_file_close(file);
    return code;
}

/* ---- ids to text ---- */

struct decoding {
    const struct tokenizer *tokenizer;
    struct buf bytes;
    bool documents, line_begun;
    int digits;         /* of the id under way */
    uint64_t id, count; /* the id under way, ids before it */
    uint64_t place;     /* bytes read */
};

static int flush_bytes(struct decoding *d) {
    output_bytes(d->bytes.data, d->bytes.size);
    buf_clear(&d->bytes);
    return 0;
}

static int end_id(struct decoding *d) {
    if (d->digits == 0) return 0;
    int64_t ids = tokenizer_vocabulary(d->tokenizer);
    if (d->id >= (uint64_t)ids || tokenizer_decode(d->tokenizer, &d->bytes, &(uint32_t){(uint32_t)d->id}, 1) < 0)
        return err_set(ERR_CORRUPT,
                       "id %" PRIu64 " (number %" PRIu64 ", before byte %" PRIu64
                       " of the input) is not in the vocabulary; the last one is %" PRId64,
                       d->id, d->count + 1, d->place, ids - 1);
    d->count++;
    d->digits = 0, d->id = 0;
    return 0;
}

static int end_ids_line(struct decoding *d) {
    TRY(buf_append(&d->bytes, "", 1));
    d->line_begun = false;
    return 0;
}

static int decode_chunk(struct decoding *d, const char *text, size_t bytes) {
    enum { DIGITS_MAX = 18 }; /* leading zeros included; any more cannot be meant */
    for (size_t i = 0; i < bytes; i++, d->place++) {
        char c = text[i];
        if (c >= '0' && c <= '9' && d->digits < DIGITS_MAX) {
            d->id = 10 * d->id + (uint64_t)(c - '0');
            d->digits++;
            d->line_begun = true;
            continue;
        }
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r' && c != '\f' && c != '\v')
            return err_set(ERR_CORRUPT,
                           "byte %" PRIu64 " of the input, in id number %" PRIu64
                           ", is neither a digit nor white space (or the id is too long)",
                           d->place, d->count + 1);
        TRY(end_id(d));
        d->line_begun |= c != '\n';
        if (c == '\n' && d->documents) TRY(end_ids_line(d));
    }
    /* An id that is not whole may be a wrong one, and what fails at its beginning prints nothing; but chunks may all end inside of one. */
    return d->digits && d->bytes.size < CHUNK_BYTES ? 0 : flush_bytes(d);
}

static int decode(const struct tokenizer *tokenizer, bool documents) {
    struct decoding d = {.tokenizer = tokenizer, .documents = documents};
    char *chunk = mem_alloc(CHUNK_BYTES);
    size_t got = 1;
    int code = 0;
    while (code == 0 && got > 0 && output_alive()) {
        code = read_chunk(chunk, &got);
        if (code == 0) code = decode_chunk(&d, chunk, got);
    }
    if (code == 0) code = end_id(&d);
    if (code == 0 && documents && d.line_begun) code = end_ids_line(&d);
    if (code == 0) flush_bytes(&d);
    buf_free(&d.bytes);
    free(chunk);
    return code;
}

int cmd_tokenize(int argc, char **argv) {
    bool special = false, documents = false, backwards = false, raw = false;
    const char *name = "gpt2";
    const struct option_spec options[] = {
        {"tokenizer", 't', OPTION_TEXT, &name, 0, 0, "NAME", "gpt2 (the default), or the path of a Hugging Face folder or tokenizer.json"},
        {"special", 0, OPTION_FLAG, &special, 0, 0, NULL, "special tokens like <|endoftext|> are tokens, not ordinary text"},
        {"null", '0', OPTION_FLAG, &documents, 0, 0, NULL, "each document ends with NUL: one line of ids for each"},
        {"decode", 'd', OPTION_FLAG, &backwards, 0, 0, NULL, "the other way: ids to bytes (with -0: each line to bytes and NUL)"},
        {"raw", 0, OPTION_FLAG, &raw, 0, 0, NULL, "any bytes, undecoded, ill-formed UTF-8 as U+FFFD; else what is no text is refused"},
        {0},
    };
    static const struct usage usage = {"tokenize",
                                       "[OPTIONS] < INPUT > OUTPUT",
                                       "Text on standard input to token ids separated by spaces, with a newline at the end.",
                                       "printf 'Hello world' | millrace tokenize\n"
                                       "echo 15496 995 | millrace tokenize --decode\n"
                                       "millrace tokenize --tokenizer models/Qwen2.5 --special < text.txt > ids.txt\n"
                                       "find texts -name '*.txt' -exec cat {} \\; -printf '\\0' | millrace tokenize -0",
                                       0,
                                       0};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    if (backwards && raw) return err_set(ERR_USAGE, "tokenize: --raw says how to read text; --decode reads ids");
    if (backwards && special) return err_set(ERR_USAGE, "tokenize: --special says how to read text; --decode reads ids");
    struct tokenizer *tokenizer;
    TRY(tokenizer_open(&tokenizer, name));
    code = backwards ? decode(tokenizer, documents) : encode(tokenizer, special, documents, raw);
    tokenizer_close(tokenizer);
    return code;
}
