/* The encoder as others see it. GPT-2's, and those that differ from it in their vocabulary alone, are done here: it holds a window of
 * well-formed text, takes whole pre-tokens from its front and has them merged. Owns the window; the pattern, the merges and UTF-8's rules
 * are elsewhere in this folder, as are other tokenizers and special tokens (dataset/tokenizer/generic.h). The window grows only while one
 * pre-token fills it. */
#include "dataset/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "dataset/tokenizer/bpe.h"
#include "dataset/tokenizer/cut.h"
#include "dataset/tokenizer/pretokenize.h"
#include "dataset/tokenizer/pretokens.h"
#include "dataset/tokenizer/tokenizer_inside.h"
#include "dataset/tokenizer/vocabulary.h"
#include "dataset/unicode/utf8.h"

/* ---- Opening one, and what it answers ----
 *
 * Opens tokenizers by name, path or bytes, and answers for them: ids, bytes of ids, files, digest, places to cut text. Encodes nothing. */

extern const char gpt2_vocab_bpe[], gpt2_vocab_bpe_end[]; /* dataset/tokenizer/gpt2_vocab.bpe, linked in */

static const char END_OF_TEXT[] = "<|endoftext|>";

/* ---- GPT-2 ---- */

static int gpt2_add_special(struct hf_tokenizer *hf) {
    hf->stages = 1; /* GPT-2's pattern */
    hf->bos = hf->eos = GPT2_END_OF_TEXT;
    return hf_add_added(hf, &(struct hf_added){.id = GPT2_END_OF_TEXT, .special = true}, END_OF_TEXT, sizeof END_OF_TEXT - 1);
}

static int gpt2_add_merges(struct hf_tokenizer *hf) {
    const char *p = memchr(gpt2_vocab_bpe, '\n', (size_t)(gpt2_vocab_bpe_end - gpt2_vocab_bpe)); /* behind the version */
    for (uint32_t id = 256; ++p < gpt2_vocab_bpe_end; id++) {
        const char *space = memchr(p, ' ', (size_t)(gpt2_vocab_bpe_end - p)), *stop = memchr(p, '\n', (size_t)(gpt2_vocab_bpe_end - p));
        size_t left = (size_t)(space - p), right = (size_t)(stop - space - 1);
        char both[2 * VOCABULARY_TOKEN_BYTES_MAX];
        CHECK(left + right <= sizeof both); /* vocabulary_open() has read the same text */
        memcpy(both, p, left);
        memcpy(both + left, space + 1, right);
        TRY(hf_add_token(hf, id, both, left + right));
        TRY(hf_add_merge(hf, p, left, space + 1, right));
        p = stop;
    }
    return 0;
}

/* GPT-2 as Hugging Face's files say it. */
static int gpt2_files(struct hf_tokenizer **out) {
    const struct byte_letters *letters = byte_letters();
    struct hf_tokenizer *hf = hf_make();
    int code = 0;
    for (uint32_t id = 0; id < 256 && code == 0; id++) code = hf_add_bytes(hf, id, &letters->order[id], 1);
    if (code == 0) code = gpt2_add_merges(hf);
    if (code == 0) code = hf_add_token(hf, GPT2_END_OF_TEXT, END_OF_TEXT, sizeof END_OF_TEXT - 1);
    if (code == 0) code = gpt2_add_special(hf);
    if (code == 0) code = hf_finish(hf);
    if (code < 0) hf_close(hf);
    else *out = hf;
    return code;
}

int tokenizer_open_gpt2(struct tokenizer **out) {
    struct tokenizer *tokenizer = mem_alloc(sizeof *tokenizer);
    struct hf_tokenizer *special = hf_make();
    tokenizer->gpt2 = true;
    int code = gpt2_add_special(special);
    if (code < 0) hf_close(special);
    else code = tokenizer_any_open(&tokenizer->any, special, true);
    if (code == 0) code = vocabulary_open(&tokenizer->vocabulary, gpt2_vocab_bpe, (size_t)(gpt2_vocab_bpe_end - gpt2_vocab_bpe));
    if (code == 0) code = bpe_tables_open(&tokenizer->tables, tokenizer->vocabulary, pretoken_kernels());
    if (code < 0) tokenizer_close(tokenizer);
    else *out = tokenizer;
    return code;
}

/* ---- others ---- */

/* Is the vocabulary all that makes it another one than GPT-2? dataset/tokenizer/bpe.c can merge for it then, if its ids follow its ranks.
 * */
static bool is_like_gpt2(const struct hf_tokenizer *hf) {
    if (hf->stages != 1 || hf->nfc || hf->add_prefix_space || hf->ignore_merges) return false;
    const struct hf_stage *stage = &hf->stage[0];
    bool others = stage->regex && (stage->literal || strcmp(stage->regex, gpt2_pattern) != 0);
    if (others || stage->drop_gaps || stage->drop_matches) return false;
    for (size_t i = 0; i < hf->added_count; i++)
        if (!hf->added[i].special) return false; /* looked for in every text */
    return true;
}

/* Leaves tokenizer->vocabulary NULL where the general encoder is to do it. */
static int open_like_gpt2(struct tokenizer *tokenizer, const struct hf_tokenizer *hf) {
    if (!is_like_gpt2(hf)) return 0;
    int code = vocabulary_of(&tokenizer->vocabulary, hf);
    if (code == ERR_UNSUPPORTED) return 0;
    return code == 0 ? bpe_tables_open(&tokenizer->tables, tokenizer->vocabulary, pretoken_kernels()) : code;
}

static int same_print(bool *out, const struct hf_tokenizer *a, const struct hf_tokenizer *b) {
    struct buf x = {0}, y = {0};
    int code = hf_print(a, &x);
    if (code == 0) code = hf_print(b, &y);
    *out = code == 0 && x.size == y.size && memcmp(x.data, y.data, x.size) == 0;
    buf_free(&x), buf_free(&y);
    return code;
}

/* Files that are GPT-2's open the one in the binary, which is faster. What they say of bos and eos holds. */
static int is_gpt2(bool *out, struct hf_tokenizer *hf) {
    struct hf_tokenizer *gpt2;
    *out = false;
    if (hf->ids != GPT2_VOCABULARY || hf->merges != VOCABULARY_MERGES) return 0;
    TRY(gpt2_files(&gpt2));
    gpt2->bos = hf->bos, gpt2->eos = hf->eos;
    int code = same_print(out, hf, gpt2);
    hf_close(gpt2);
    return code;
}

int tokenizer_of(struct tokenizer **out, struct hf_tokenizer *hf) {
    bool gpt2;
    int code = is_gpt2(&gpt2, hf);
    if (code < 0 || gpt2) {
        int64_t bos = hf->bos, eos = hf->eos;
        hf_close(hf);
        if (code == 0) code = tokenizer_open_gpt2(out);
        if (code == 0) tokenizer_any_ends((*out)->any, bos, eos);
        return code;
    }
    struct tokenizer *tokenizer = mem_alloc(sizeof *tokenizer);
    code = open_like_gpt2(tokenizer, hf);
    if (code < 0) hf_close(hf);
    else code = tokenizer_any_open(&tokenizer->any, hf, tokenizer->vocabulary != NULL);
    if (code < 0) tokenizer_close(tokenizer);
    else *out = tokenizer;
    return code;
}

int tokenizer_open(struct tokenizer **out, const char *name) {
    if (strcmp(name, "gpt2") == 0) return tokenizer_open_gpt2(out);
    struct hf_tokenizer *hf;
    TRY(hf_read(&hf, name));
    int code = tokenizer_of(out, hf);
    return code < 0 ? err_add(code, "tokenizer %s", name) : 0;
}

int tokenizer_parse(struct tokenizer **out, const void *bytes, size_t size) {
    if (size == 0) return tokenizer_open_gpt2(out);
    struct hf_tokenizer *hf;
    TRY(hf_parse(&hf, "the tokenizer", bytes, size));
    return tokenizer_of(out, hf);
}

void tokenizer_close(struct tokenizer *tokenizer) {
    if (!tokenizer) return;
    tokenizer_any_close(tokenizer->any);
    bpe_tables_close(tokenizer->tables);
    vocabulary_close(tokenizer->vocabulary);
    free(tokenizer);
}

/* ---- answers ---- */

/* Calls print() with all that the files say. */
static int with_files(const struct tokenizer *tokenizer, int (*print)(const struct hf_tokenizer *, void *), void *arg) {
    const struct hf_tokenizer *hf = tokenizer_any_files(tokenizer->any);
    if (!tokenizer->gpt2) return print(hf, arg);
    struct hf_tokenizer *gpt2;
    TRY(gpt2_files(&gpt2));
    gpt2->bos = hf->bos, gpt2->eos = hf->eos;
    int code = print(gpt2, arg);
    hf_close(gpt2);
    return code;
}

static int print_all(const struct hf_tokenizer *hf, void *out) { return hf_print(hf, out); }

int tokenizer_print(const struct tokenizer *tokenizer, struct buf *out) { return with_files(tokenizer, print_all, out); }

void tokenizer_digest(const struct tokenizer *tokenizer, uint8_t out[32]) {
    struct buf text = {0};
    CHECK(tokenizer_print(tokenizer, &text) == 0); /* without a ceiling only memory could fail */
    sha256_of(out, text.data, text.size);
    buf_free(&text);
}

int64_t tokenizer_vocabulary(const struct tokenizer *tokenizer) { return tokenizer_any_files(tokenizer->any)->ids; }
int64_t tokenizer_bos(const struct tokenizer *tokenizer) { return tokenizer_any_files(tokenizer->any)->bos; }
int64_t tokenizer_eos(const struct tokenizer *tokenizer) { return tokenizer_any_files(tokenizer->any)->eos; }
uint32_t tokenizer_token_bytes(const struct tokenizer *tokenizer) { return tokenizer_vocabulary(tokenizer) <= 1 << 16 ? 2 : 4; }

bool tokenizer_cuts(const struct tokenizer *tokenizer) { return tokenizer_any_rules(tokenizer->any) != 0; }

bool tokenizer_cut(const struct tokenizer *tokenizer, const uint8_t *text, size_t size, size_t back, size_t *out) {
    return cut_first(out, tokenizer_any_rules(tokenizer->any), text, size, back);
}

int tokenizer_decode(const struct tokenizer *tokenizer, struct buf *out, const uint32_t *id, size_t count) {
    const struct vocabulary *v = tokenizer->gpt2 ? tokenizer->vocabulary : NULL;
    const struct hf_tokenizer *hf = tokenizer_any_files(tokenizer->any);
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size_t length = id[i] >= hf->ids ? 0 : v ? v->length[id[i]] : hf->token[id[i]].size;
        if (length == 0)
            return err_set(ERR_CORRUPT, "token %zu has the id %u, which is not in the vocabulary; it ends at %u", i, id[i], hf->ids - 1);
        size += length;
    }
    TRY(buf_reserve(out, size));
    for (size_t i = 0; i < count; i++) {
        const struct hf_token *token = &hf->token[id[i]];
        if (v) TRY(buf_append(out, v->text.data + v->first[id[i]], v->length[id[i]]));
        else TRY(buf_append(out, hf->text.data + token->first, token->size));
    }
    return 0;
}

/* Appends what `in` becomes, with a character that its end cuts off kept for later. */
static int append_valid(struct text_decoder *decoder, struct buf *out, const uint8_t *in, size_t size) {
    while (size > 0) {
        size_t written;
        TRY(buf_reserve(out, size + 2 * UTF8_REPLACE_ROOM));
        size_t took = utf8_replace(&decoder->replacer, out->data + out->size, &written, size + 2 * UTF8_REPLACE_ROOM, in, size);
        out->size += written;
        in += took, size -= took;
    }
    if (out->data) out->data[out->size] = 0;
    return 0;
}

int text_decoder_feed(struct text_decoder *decoder, struct buf *out, const uint32_t *id, size_t count) {
    buf_clear(&decoder->bytes);
    TRY(tokenizer_decode(decoder->tokenizer, &decoder->bytes, id, count));
    return append_valid(decoder, out, decoder->bytes.data, decoder->bytes.size);
}

int text_decoder_finish(struct text_decoder *decoder, struct buf *out) {
    uint8_t rest[UTF8_REPLACE_ROOM];
    return buf_append(out, rest, utf8_replace_end(&decoder->replacer, rest));
}

void text_decoder_free(struct text_decoder *decoder) {
    buf_free(&decoder->bytes);
    *decoder = (struct text_decoder){0};
}

/* ---- files ---- */

static int print_vocab(const struct hf_tokenizer *hf, void *out) { return hf_print_vocab(hf, out); }
static int print_merges(const struct hf_tokenizer *hf, void *out) { return hf_print_merges(hf, out); }
int tokenizer_print_vocab(const struct tokenizer *tokenizer, struct buf *out) { return with_files(tokenizer, print_vocab, out); }
int tokenizer_print_merges(const struct tokenizer *tokenizer, struct buf *out) { return with_files(tokenizer, print_merges, out); }

struct printing {
    struct tokenizer_file *file;
    size_t count;
    int64_t max_length;
};

static int print_files(const struct hf_tokenizer *hf, void *arg) {
    struct printing *p = arg;
    p->file[p->count].name = "tokenizer.json";
    TRY(hf_print_tokenizer(hf, &p->file[p->count++].text));
    p->file[p->count].name = "tokenizer_config.json";
    TRY(hf_print_settings(hf, &p->file[p->count++].text, p->max_length));
    p->file[p->count].name = "special_tokens_map.json";
    TRY(hf_print_special_map(hf, &p->file[p->count++].text));
    if (!hf_is_plain(hf)) return 0;
    p->file[p->count].name = "vocab.json";
    TRY(hf_print_vocab(hf, &p->file[p->count++].text));
    p->file[p->count].name = "merges.txt";
    return hf_print_merges(hf, &p->file[p->count++].text);
}

int tokenizer_print_files(const struct tokenizer *tokenizer, struct tokenizer_file out[TOKENIZER_FILES_MAX], size_t *out_count,
                          int64_t max_length) {
    for (size_t i = 0; i < TOKENIZER_FILES_MAX; i++) out[i] = (struct tokenizer_file){0};
    struct printing printing = {.file = out, .max_length = max_length};
    int code = with_files(tokenizer, print_files, &printing);
    if (code < 0) tokenizer_files_free(out);
    else *out_count = printing.count;
    return code;
}

void tokenizer_files_free(struct tokenizer_file files[TOKENIZER_FILES_MAX]) {
    for (size_t i = 0; i < TOKENIZER_FILES_MAX; i++) {
        buf_free(&files[i].text);
        files[i].name = NULL;
    }
}

/* ---- Encoding ---- */

enum {
    WINDOW_BYTES = 1 << 16,                               /* as long as pre-tokens are short */
    WINDOW_BYTES_MAX = PRETOKEN_BYTES_MAX + WINDOW_BYTES, /* full, it always holds a whole pre-token */
    WINDOW_SLACK = PRETOKENS_SLACK,                       /* for the sentinel, and for reads of whole blocks */
};
_Static_assert(WINDOW_BYTES_MAX > PRETOKEN_BYTES_MAX + UTF8_REPLACE_ROOM, "a full window decides where its first pre-token ends");

struct encoder {
    const struct tokenizer *tokenizer;
    struct encoder_any *any; /* does everything, where it is there */
    struct bpe *bpe;
    struct utf8_replacer replacer;
    uint8_t *window;        /* capacity + WINDOW_SLACK bytes, of which size hold whole characters */
    size_t size, capacity;
};

/* To take page after page into use costs as much as to find the ids that go there. A refusal costs only that. */
static void ask_for_huge_pages(const void *begin, const void *end) {
    const uintptr_t page = 2 << 20, first = ((uintptr_t)begin + page - 1) / page * page, last = (uintptr_t)end / page * page;
    if (first < last) madvise((void *)first, last - first, MADV_HUGEPAGE);
}

static int ids_reserve(struct ids *ids, size_t more) {
    if (more <= ids->capacity - ids->count) return 0;
    if (more > SIZE_MAX / sizeof *ids->id / 2 - ids->count)
        return err_set(ERR_MEMORY, "out of memory: room for %zu more token ids was wanted", more);
    size_t capacity = ids->capacity ? ids->capacity : 256;
    while (capacity - ids->count < more) capacity *= 2;
    uint32_t *id = realloc(ids->id, capacity * sizeof *id);
    if (!id) return err_set(ERR_MEMORY, "out of memory: %zu bytes for token ids were wanted", capacity * sizeof *id);
    ids->id = id;
    ids->capacity = capacity;
    ask_for_huge_pages(id + ids->count, id + capacity);
    return 0;
}

int ids_append(struct ids *ids, const uint32_t *id, size_t count) {
    TRY(ids_reserve(ids, count));
    if (count) memcpy(ids->id + ids->count, id, count * sizeof *id);
    ids->count += count;
    return 0;
}

void ids_free(struct ids *ids) {
    free(ids->id);
    *ids = (struct ids){0};
}

static int window_resize(struct encoder *encoder, size_t capacity) {
    uint8_t *window = realloc(encoder->window, capacity + WINDOW_SLACK);
    if (!window) return err_set(ERR_MEMORY, "out of memory: %zu bytes for a long word were wanted", capacity);
    encoder->window = window;
    encoder->capacity = capacity;
    return 0;
}

int encoder_open(struct encoder **out, const struct tokenizer *tokenizer) {
    struct encoder *encoder = mem_alloc(sizeof *encoder);
    encoder->tokenizer = tokenizer;
    int code = 0;
    if (!tokenizer->vocabulary) {
        code = encoder_any_open(&encoder->any, tokenizer->any, false, NULL);
    } else {
        code = bpe_open(&encoder->bpe, tokenizer->vocabulary, tokenizer->tables);
        if (code == 0) code = window_resize(encoder, WINDOW_BYTES);
    }
    if (code < 0) encoder_close(encoder);
    else *out = encoder;
    return code;
}

int encoder_open_special(struct encoder **out, const struct tokenizer *tokenizer) {
    struct encoder *encoder = mem_alloc(sizeof *encoder), *fast = NULL;
    encoder->tokenizer = tokenizer;
    int code = tokenizer->vocabulary ? encoder_open(&fast, tokenizer) : 0;
    if (code == 0) code = encoder_any_open(&encoder->any, tokenizer->any, true, fast);
    if (code < 0) encoder_close(encoder);
    else *out = encoder;
    return code;
}

void encoder_close(struct encoder *encoder) {
    if (!encoder) return;
    encoder_any_close(encoder->any);
    bpe_close(encoder->bpe);
    free(encoder->window);
    free(encoder);
}

uint64_t encoder_replaced(const struct encoder *encoder) {
    return encoder->any ? encoder_any_replaced(encoder->any) : encoder->replacer.replaced;
}

/* Ids as the tokenizer has them. */
static void make_outer(uint32_t *id, size_t count, const struct vocabulary *vocabulary) {
    for (size_t i = 0; i < count && vocabulary->outer; i++) id[i] = vocabulary->outer[id[i]];
}

/* Encodes the window's whole pre-tokens (at the end of the text: everything) and moves what is left to its front. */
static int encode_window(struct encoder *encoder, struct ids *out, bool final) {
    TRY(ids_reserve(out, encoder->size + PRETOKENS_IDS_SLACK));
    memset(encoder->window + encoder->size, PRETOKEN_SENTINEL, WINDOW_SLACK);
    const uint8_t *text = encoder->window, *end = text + encoder->size;
    while (text < end) {
        uint16_t border[PRETOKENS_BORDERS];
        size_t size = (size_t)(end - text), part = size < PRETOKENS_TEXT_BYTES ? size : PRETOKENS_TEXT_BYTES, count;
        size_t pretokens = encoder->tokenizer->tables->kernels->split(border, text, part, final && part == size);
        if (pretokens > 0) {
            TRY(bpe_encode_pretokens(encoder->bpe, out->id + out->count, &count, text, border, pretokens));
            text += border[pretokens];
        } else { /* one that is longer, or the last ones, some of which may be whole */
            size = pretoken_measure(text, size, final);
            if (size == 0) break;
            TRY(bpe_encode(encoder->bpe, out->id + out->count, &count, text, size));
            text += size;
        }
        make_outer(out->id + out->count, count, encoder->tokenizer->vocabulary);
        out->count += count;
    }
    encoder->size = (size_t)(end - text);
    memmove(encoder->window, text, encoder->size);
    return 0;
}

/* Makes room in a full window. A rest above half of it doubles it, so that no byte is looked at more than a few times. */
static int make_room(struct encoder *encoder, struct ids *out) {
    TRY(encode_window(encoder, out, false));
    if (encoder->size <= encoder->capacity / 2 || encoder->capacity == WINDOW_BYTES_MAX) return 0;
    return window_resize(encoder, 2 * encoder->capacity < WINDOW_BYTES_MAX ? 2 * encoder->capacity : WINDOW_BYTES_MAX);
}

int encoder_feed(struct encoder *encoder, struct ids *out, const void *text, size_t text_bytes) {
    if (encoder->any) return encoder_any_feed(encoder->any, out, text, text_bytes);
    const uint8_t *rest = text;
    while (text_bytes > 0) {
        size_t written, room = encoder->capacity - encoder->size;
        size_t took = utf8_replace(&encoder->replacer, encoder->window + encoder->size, &written, room, rest, text_bytes);
        encoder->size += written;
        rest += took, text_bytes -= took;
        if (text_bytes > 0) TRY(make_room(encoder, out));
    }
    return 0;
}

int encoder_finish(struct encoder *encoder, struct ids *out) {
    if (encoder->any) return encoder_any_finish(encoder->any, out);
    if (encoder->capacity - encoder->size < UTF8_REPLACE_ROOM) TRY(make_room(encoder, out));
    encoder->size += utf8_replace_end(&encoder->replacer, encoder->window + encoder->size);
    TRY(encode_window(encoder, out, true));
    CHECK(encoder->size == 0);
    bpe_trim(encoder->bpe);
    return encoder->capacity > WINDOW_BYTES ? window_resize(encoder, WINDOW_BYTES) : 0;
}

int tokenizer_encode(const struct tokenizer *tokenizer, struct ids *out, const void *text, size_t text_bytes, bool special) {
    struct encoder *encoder;
    size_t count = out->count;
    TRY(special ? encoder_open_special(&encoder, tokenizer) : encoder_open(&encoder, tokenizer));
    int code = encoder_feed(encoder, out, text, text_bytes);
    if (code == 0) code = encoder_finish(encoder, out);
    if (code < 0) out->count = count;
    encoder_close(encoder);
    return code;
}
