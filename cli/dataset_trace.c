/* `millrace dataset trace`: where the tokens of a sequence came from: files, members of archives, bytes. A shard's index leads to the piece
 * of text that a token is of; the tokens before it in that piece, decoded, are as long as the text before it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "cli/dataset_commands.h"
#include "cli/output.h"
#include "dataset/source/sources.h"

struct trace {
    const struct opened *opened;
    const struct tokenizer *tokenizer;
    bool validation;
    uint64_t from, to; /* the sequence, in its split */
    int64_t token;     /* in the sequence; -1: all documents */
    uint64_t covered;  /* tokens of the sequence that are of documents */
    size_t told;
    json_t *list; /* NULL: lines on standard output */
};

/* What one document, or one piece of a long one, has in the sequence. Places are in the split. */
struct part {
    struct shard_document entry;
    uint64_t begin;         /* of the entry */
    uint64_t first, tokens; /* without the end-of-text token */
    bool ends;              /* its end-of-text token follows, in the sequence */
    uint64_t token;         /* the one that is reported: the first, or the one that was asked for */
    uint32_t id;
    struct buf text; /* of the piece, before that token */
    struct buf token_text;
};

/* ---- bytes of text ---- */

struct decoding {
    const struct tokenizer *tokenizer;
    struct buf *out;
    uint32_t last; /* id */
};

static int decode(void *arg, const uint32_t *id, size_t count) {
    struct decoding *decoding = arg;
    decoding->last = id[count - 1];
    return tokenizer_decode(decoding->tokenizer, decoding->out, id, count);
}

static int decode_range(struct buf *out, uint32_t *out_last, const struct trace *trace, uint64_t first, uint64_t count) {
    struct decoding decoding = {.tokenizer = trace->tokenizer, .out = out};
    TRY(opened_tokens(trace->opened, trace->validation, first, count, decode, &decoding));
    *out_last = decoding.last;
    return 0;
}

/* The text of the piece before the token. Its tokens before the entry stand before it, except those of a document's rest with best_fit:
 * these stand where the document begins. */
static int find_text(struct part *part, const struct trace *trace) {
    const struct shard_document *entry = &part->entry;
    uint64_t document = part->begin - entry->document_token;
    uint32_t unused;
    if (entry->skipped && strcmp(trace->opened->manifest.packing, "concat") != 0)
        TRY(opened_document_begin(trace->opened, &document, entry->document));
    TRY(decode_range(&part->text, &unused, trace, document + entry->document_token - entry->skipped, entry->skipped));
    TRY(decode_range(&part->text, &unused, trace, part->begin, part->token - part->begin));
    return decode_range(&part->token_text, &part->id, trace, part->token, 1);
}

/* Then a source is a file of ids, and a piece of it is as long as its ids. */
static bool is_imported(const struct manifest *m) { return m->policy && strncmp(m->policy, "imported", 8) == 0; }

static uint64_t bytes_before(const struct part *part, const struct manifest *m) {
    return is_imported(m) ? (part->entry.skipped + part->token - part->begin) * m->token_bytes : part->text.size;
}

/* Was the text before the token as long in the file? Not when texts are normalized; and perhaps not when ill-formed parts of texts were
 * replaced and this one has a U+FFFD. */
static bool is_exact(const struct part *part, const struct manifest *m) {
    static const char replacement[] = "\xEF\xBF\xBD";
    if (is_imported(m)) return true;
    const char *normalization = m->policy ? strstr(m->policy, "normalization") : NULL;
    if (normalization && strncmp(normalization, "normalization: none", 19) != 0) return false;
    return m->replaced == 0 || part->text.size == 0 || !memmem(part->text.data, part->text.size, replacement, sizeof replacement - 1);
}

/* ---- telling ---- */

static const char *source_of(const struct part *part, const struct manifest *m) {
    return part->entry.source < m->sources ? source_shown(m->source[part->entry.source]) : "(a source that the manifest does not name)";
}

static void tell_json(const struct part *part, const struct trace *trace) {
    const struct manifest *m = &trace->opened->manifest;
    json_t *object = json_object(), *token = json_object();
    json_set_count(object, "document", part->entry.document);
    json_set_text(object, "source", source_of(part, m));
    json_set_text(object, "member", part->entry.member);
    json_set_count(object, "offset", part->entry.offset);
    json_set_count(object, "bytes", part->entry.bytes);
    json_set_count(object, "first", part->first - trace->from);
    json_set_count(object, "tokens", part->tokens);
    json_object_set_new(object, "ends", json_boolean(part->ends));
    json_set_count(object, "document_token", part->entry.document_token + part->first - part->begin);
    json_set_count(token, "number", part->token - trace->from);
    json_set_count(token, "id", part->id);
    json_object_set_new(token, "text", output_json_text(part->token_text.data, part->token_text.size));
    json_set_count(token, "text_offset", bytes_before(part, m));
    json_object_set_new(token, "exact", json_boolean(is_exact(part, m)));
    json_object_set_new(object, "token", token);
    json_array_append_new(trace->list, object);
}

static void tell_person(const struct part *part, const struct trace *trace) {
    const struct manifest *m = &trace->opened->manifest;
    uint64_t first = part->first - trace->from, last = first + part->tokens + part->ends - 1;
    bool exact = is_exact(part, m);
    char *place = mem_format("%s%s%s", source_of(part, m), part->entry.member ? "!" : "", part->entry.member ? part->entry.member : "");
    printf("document %" PRIu64 ", tokens %" PRIu64 " to %" PRIu64 " of the sequence%s\n  ", part->entry.document, first, last,
           part->ends ? ", with its end" : "");
    output_plain(stdout, place, strlen(place));
    printf(", %s at byte %" PRIu64 "\n", is_imported(m) ? "ids" : "text", part->entry.offset);
    free(place);
    printf("  token %" PRIu64 " (id %" PRIu32 "): %s%" PRIu64 " byte%s further%s\n", part->token - trace->from, part->id,
           exact ? "" : "about ", bytes_before(part, m), plural(bytes_before(part, m)),
           exact ? "" : "; the text was changed before it was tokenized");
}

/* ---- parts of the sequence ---- */

/* Tells of what the entry has in the sequence. begin: the entry's first token in the split. */
static int take_entry(struct trace *trace, const struct shard_document *entry, uint64_t begin) {
    uint64_t end = begin + entry->tokens, last = end < trace->to ? end : trace->to;
    struct part part = {.entry = *entry, .begin = begin, .first = begin > trace->from ? begin : trace->from};
    part.ends = entry->ends && end >= trace->from && end < trace->to;
    part.tokens = part.first < last ? last - part.first : 0;
    if (part.tokens == 0) part.first = end;
    if (part.tokens + part.ends == 0) return 0;
    trace->covered += part.tokens + part.ends;
    part.token = trace->token < 0 ? part.first : trace->from + (uint64_t)trace->token;
    if (part.token < part.first || part.token >= part.first + part.tokens + part.ends) return 0;
    int code = find_text(&part, trace);
    if (code == 0 && trace->list) tell_json(&part, trace);
    else if (code == 0) tell_person(&part, trace);
    trace->told += code == 0;
    buf_free(&part.text);
    buf_free(&part.token_text);
    return code;
}

/* A shard may begin with the end-of-text token of the last document of the shard before. */
static int take_end(struct trace *trace, size_t number) {
    uint64_t shard_tokens_max = trace->opened->manifest.shard_tokens;
    struct shard *shard;
    TRY(opened_shard(&shard, trace->opened, trace->validation, number - 1));
    CHECK(shard_documents(shard) > 0);
    struct shard_document entry = shard_document(shard, shard_documents(shard) - 1);
    entry.ends = true;
    int code = take_entry(trace, &entry, (number - 1) * shard_tokens_max + entry.first);
    shard_close(shard);
    return code;
}

static int take_entries(struct trace *trace) {
    size_t number = (size_t)(trace->from / trace->opened->manifest.shard_tokens), i = 0;
    uint64_t base = number * trace->opened->manifest.shard_tokens;
    struct shard *shard;
    TRY(opened_shard(&shard, trace->opened, trace->validation, number));
    int code = shard_find_token(shard, &i, trace->from - base);
    if (code == ERR_NOTFOUND) code = number ? take_end(trace, number) : 0;
    for (; i < shard_documents(shard) && code == 0 && output_alive(); i++) {
        struct shard_document entry = shard_document(shard, i);
        if (base + entry.first >= trace->to) break;
        code = take_entry(trace, &entry, base + entry.first);
    }
    shard_close(shard);
    return code;
}

static int run(struct trace *trace, uint64_t sequence, bool json) {
    const struct manifest *m = &trace->opened->manifest;
    TRY(opened_check_sequence(trace->opened, trace->validation, sequence));
    if (trace->token >= (int64_t)m->sequence_length)
        return err_set(ERR_NOTFOUND, "there is no token %" PRId64 ": a sequence has %" PRIu64 ", counted from 0", trace->token,
                       m->sequence_length);
    trace->from = sequence * m->sequence_length, trace->to = trace->from + m->sequence_length;
    if (json) trace->list = json_array();
    int code = take_entries(trace);
    if (code == 0 && trace->token >= 0 && trace->told == 0)
        code = err_set(ERR_NOTFOUND, "token %" PRId64 " of sequence %" PRIu64 " is padding", trace->token, sequence);
    uint64_t padding = m->sequence_length - trace->covered;
    if (code == 0 && json) {
        json_t *object = json_object();
        json_set_text(object, "split", trace->validation ? "validation" : "train");
        json_set_count(object, "sequence", sequence);
        json_set_count(object, "tokens", m->sequence_length);
        json_set_count(object, "padding", padding);
        json_object_set(object, "documents", trace->list);
        output_json(object);
    } else if (code == 0 && padding && trace->token < 0) {
        printf("%" PRIu64 " token%s of padding\n", padding, plural(padding));
    }
    json_decref(trace->list);
    return code;
}

int cmd_dataset_trace(int argc, char **argv) {
    int64_t sequence = -1, token = -1;
    const char *split = NULL, *name = NULL;
    bool json = false;
    const double most = 9e15;
    const struct option_spec options[] = {
        {"sequence", 0, OPTION_INT, &sequence, 0, most, "N", "the sequence, counted from 0 in its split"},
        OPTION_SPLIT(&split),
        {"token", 0, OPTION_INT, &token, 0, most, "K", "only where its token K came from, counted from 0"},
        OPTION_TOKENIZER(&name),
        OPTION_JSON(&json),
        {0},
    };
    static const struct usage usage = {
        "dataset trace",
        "DIR --sequence N [OPTIONS]",
        "Where the tokens of a sequence came from: for each document in it (and each piece of a very long one) the source file, the\n"
        "member of an archive, where its text, or the record that holds it, begins in the unpacked file, and how many bytes of text\n"
        "come before its first token in the sequence.",
        "millrace dataset trace runs/example --sequence 17\n"
        "millrace dataset trace runs/example --sequence 17 --token 200 --split validation --json",
        1,
        1};
    char **arguments;
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    if (sequence < 0) return err_set(ERR_USAGE, "dataset trace: --sequence N is missing; see 'millrace dataset trace --help'");
    struct trace trace = {.token = token};
    TRY(split_option(&trace.validation, split, "dataset trace"));
    struct opened opened;
    struct tokenizer *tokenizer = NULL;
    TRY(opened_open(&opened, arguments[0]));
    code = opened_tokenizer(&tokenizer, &opened, name);
    trace.opened = &opened, trace.tokenizer = tokenizer;
    if (code == 0) code = run(&trace, (uint64_t)sequence, json);
    tokenizer_close(tokenizer);
    opened_close(&opened);
    return code;
}
