/* Opens a tokenizer by its name, path or bytes, and answers for it: ids, bytes of ids, files, digest, cuts, encoding.
 *
 * A struct tokenizer is one of three. GPT-2 itself: vocabulary and tables come from the merges in the binary, `generic` holds its special
 * token alone. One with GPT-2's pattern and ids that follow its ranks: vocabulary and tables are made from its files. Any other one:
 * `generic` alone, which then has patterns and merges too. */
#include "dataset/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "dataset/tokenizer/bpe.h"
#include "dataset/tokenizer/cut.h"
#include "dataset/tokenizer/fast_encoder.h"
#include "dataset/tokenizer/generic_encoder.h"
#include "dataset/tokenizer/pretokens.h"
#include "dataset/tokenizer/tokenizer_inside.h"
#include "dataset/tokenizer/vocabulary.h"
#include "dataset/unicode/utf8.h"

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
    else code = generic_tokenizer_open(&tokenizer->generic, special, true);
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
        if (code == 0) generic_tokenizer_set_ends((*out)->generic, bos, eos);
        return code;
    }
    struct tokenizer *tokenizer = mem_alloc(sizeof *tokenizer);
    code = open_like_gpt2(tokenizer, hf);
    if (code < 0) hf_close(hf);
    else code = generic_tokenizer_open(&tokenizer->generic, hf, tokenizer->vocabulary != NULL);
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

int tokenizer_open_for(struct tokenizer **out, struct config *config) {
    TRY(tokenizer_open(out, config->dataset.tokenizer));
    int code = config_fit_tokenizer(config, tokenizer_vocabulary(*out), tokenizer_bos(*out), tokenizer_eos(*out));
    if (code == 0) return 0;
    tokenizer_close(*out);
    *out = NULL;
    return code;
}

void tokenizer_close(struct tokenizer *tokenizer) {
    if (!tokenizer) return;
    generic_tokenizer_close(tokenizer->generic);
    bpe_tables_close(tokenizer->tables);
    vocabulary_close(tokenizer->vocabulary);
    free(tokenizer);
}

/* ---- answers ---- */

/* Calls print() with all that the files say. */
static int with_files(const struct tokenizer *tokenizer, int (*print)(const struct hf_tokenizer *, void *), void *arg) {
    const struct hf_tokenizer *hf = generic_tokenizer_files(tokenizer->generic);
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

int64_t tokenizer_vocabulary(const struct tokenizer *tokenizer) { return generic_tokenizer_files(tokenizer->generic)->ids; }
int64_t tokenizer_bos(const struct tokenizer *tokenizer) { return generic_tokenizer_files(tokenizer->generic)->bos; }
int64_t tokenizer_eos(const struct tokenizer *tokenizer) { return generic_tokenizer_files(tokenizer->generic)->eos; }
uint32_t tokenizer_token_bytes(const struct tokenizer *tokenizer) { return tokenizer_vocabulary(tokenizer) <= 1 << 16 ? 2 : 4; }

bool tokenizer_cuts(const struct tokenizer *tokenizer) { return generic_tokenizer_rules(tokenizer->generic) != 0; }

bool tokenizer_cut(const struct tokenizer *tokenizer, const uint8_t *text, size_t size, size_t back, size_t *out) {
    return cut_first(out, generic_tokenizer_rules(tokenizer->generic), text, size, back);
}

int tokenizer_decode(const struct tokenizer *tokenizer, struct buf *out, const uint32_t *id, size_t count) {
    const struct vocabulary *v = tokenizer->gpt2 ? tokenizer->vocabulary : NULL;
    const struct hf_tokenizer *hf = generic_tokenizer_files(tokenizer->generic);
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

/* ---- encoding: the fast way where there is one, else the generic way ---- */

struct encoder {
    struct fast_encoder *fast; /* one of the two */
    struct generic_encoder *generic;
};

static int open_encoder(struct encoder *encoder, const struct tokenizer *tokenizer, bool special) {
    struct fast_encoder *fast = NULL;
    if (tokenizer->vocabulary) TRY(fast_encoder_open(&fast, tokenizer->vocabulary, tokenizer->tables));
    if (special || !fast) return generic_encoder_open(&encoder->generic, tokenizer->generic, special, fast);
    encoder->fast = fast;
    return 0;
}

static int encoder_make(struct encoder **out, const struct tokenizer *tokenizer, bool special) {
    struct encoder *encoder = mem_alloc(sizeof *encoder);
    int code = open_encoder(encoder, tokenizer, special);
    if (code < 0) encoder_close(encoder);
    else *out = encoder;
    return code;
}

int encoder_open(struct encoder **out, const struct tokenizer *tokenizer) { return encoder_make(out, tokenizer, false); }
int encoder_open_special(struct encoder **out, const struct tokenizer *tokenizer) { return encoder_make(out, tokenizer, true); }

void encoder_close(struct encoder *encoder) {
    if (!encoder) return;
    generic_encoder_close(encoder->generic);
    fast_encoder_close(encoder->fast);
    free(encoder);
}

void encoder_set_tick(struct encoder *encoder, int (*tick)(void *), void *tick_arg) {
    if (encoder->generic) generic_encoder_set_tick(encoder->generic, tick, tick_arg); /* the fast one never takes long */
}

uint64_t encoder_replaced(const struct encoder *encoder) {
    return encoder->fast ? fast_encoder_replaced(encoder->fast) : generic_encoder_replaced(encoder->generic);
}

int encoder_feed(struct encoder *encoder, struct ids *out, const void *text, size_t text_bytes) {
    return encoder->fast ? fast_encoder_feed(encoder->fast, out, text, text_bytes)
                         : generic_encoder_feed(encoder->generic, out, text, text_bytes);
}

int encoder_finish(struct encoder *encoder, struct ids *out) {
    return encoder->fast ? fast_encoder_finish(encoder->fast, out) : generic_encoder_finish(encoder->generic, out);
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
