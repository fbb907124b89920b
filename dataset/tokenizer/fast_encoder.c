/* Holds a window of well-formed text. When the window is full, and at the end of the text, the whole pre-tokens at its front are merged
 * (dataset/tokenizer/bpe.h) and what is left moves to the front. The window has 64 KiB and grows, up to 4 MiB, only while one pre-token
 * fills more than half of it. */
#include "dataset/tokenizer/fast_encoder.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/tokenizer/pretokenize.h"
#include "dataset/tokenizer/pretokens.h"
#include "dataset/unicode/utf8.h"

enum {
    WINDOW_BYTES = 1 << 16,                               /* as long as pre-tokens are short */
    WINDOW_BYTES_MAX = PRETOKEN_BYTES_MAX + WINDOW_BYTES, /* full, it always holds a whole pre-token */
    WINDOW_SLACK = PRETOKENS_SLACK,                       /* for the sentinel, and for reads of whole blocks */
};
_Static_assert(WINDOW_BYTES_MAX > PRETOKEN_BYTES_MAX + UTF8_REPLACE_ROOM, "a full window decides where its first pre-token ends");

struct fast_encoder {
    const struct vocabulary *vocabulary;
    const struct bpe_tables *tables;
    struct bpe *bpe;
    struct utf8_replacer replacer;
    uint8_t *window; /* capacity + WINDOW_SLACK bytes, of which size hold whole characters */
    size_t size, capacity;
};

static int window_resize(struct fast_encoder *encoder, size_t capacity) {
    uint8_t *window = realloc(encoder->window, capacity + WINDOW_SLACK);
    if (!window) return err_set(ERR_MEMORY, "out of memory: %zu bytes for a long word were wanted", capacity);
    encoder->window = window;
    encoder->capacity = capacity;
    return 0;
}

int fast_encoder_open(struct fast_encoder **out, const struct vocabulary *vocabulary, const struct bpe_tables *tables) {
    struct fast_encoder *encoder = mem_alloc(sizeof *encoder);
    encoder->vocabulary = vocabulary, encoder->tables = tables;
    int code = bpe_open(&encoder->bpe, vocabulary, tables);
    if (code == 0) code = window_resize(encoder, WINDOW_BYTES);
    if (code < 0) fast_encoder_close(encoder);
    else *out = encoder;
    return code;
}

void fast_encoder_close(struct fast_encoder *encoder) {
    if (!encoder) return;
    bpe_close(encoder->bpe);
    free(encoder->window);
    free(encoder);
}

uint64_t fast_encoder_replaced(const struct fast_encoder *encoder) { return encoder->replacer.replaced; }

/* From the vocabulary's ids to those that the tokenizer's files have. */
static void make_outer(uint32_t *id, size_t count, const struct vocabulary *vocabulary) {
    for (size_t i = 0; i < count && vocabulary->outer; i++) id[i] = vocabulary->outer[id[i]];
}

/* Encodes the window's whole pre-tokens (at the end of the text: everything) and moves what is left to its front. */
static int encode_window(struct fast_encoder *encoder, struct ids *out, bool final) {
    TRY(ids_reserve(out, encoder->size + PRETOKENS_IDS_SLACK));
    memset(encoder->window + encoder->size, PRETOKEN_SENTINEL, WINDOW_SLACK);
    const uint8_t *text = encoder->window, *end = text + encoder->size;
    while (text < end) {
        uint16_t border[PRETOKENS_BORDERS];
        size_t size = (size_t)(end - text), chunk = size < PRETOKENS_TEXT_BYTES ? size : PRETOKENS_TEXT_BYTES, count;
        size_t pretokens = encoder->tables->kernels->pretokenize(border, text, chunk, final && chunk == size);
        if (pretokens > 0) {
            TRY(bpe_encode_pretokens(encoder->bpe, out->id + out->count, &count, text, border, pretokens));
            text += border[pretokens];
        } else { /* one that is longer, or the last ones, some of which may be whole */
            size = pretoken_measure(text, size, final);
            if (size == 0) break;
            TRY(bpe_encode(encoder->bpe, out->id + out->count, &count, text, size));
            text += size;
        }
        make_outer(out->id + out->count, count, encoder->vocabulary);
        out->count += count;
    }
    encoder->size = (size_t)(end - text);
    memmove(encoder->window, text, encoder->size);
    return 0;
}

/* Makes room in a full window. A rest above half of it doubles it, so that no byte is looked at more than a few times. */
static int make_room(struct fast_encoder *encoder, struct ids *out) {
    TRY(encode_window(encoder, out, false));
    if (encoder->size <= encoder->capacity / 2 || encoder->capacity == WINDOW_BYTES_MAX) return 0;
    return window_resize(encoder, 2 * encoder->capacity < WINDOW_BYTES_MAX ? 2 * encoder->capacity : WINDOW_BYTES_MAX);
}

int fast_encoder_feed(struct fast_encoder *encoder, struct ids *out, const void *text, size_t text_bytes) {
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

int fast_encoder_finish(struct fast_encoder *encoder, struct ids *out) {
    if (encoder->capacity - encoder->size < UTF8_REPLACE_ROOM) TRY(make_room(encoder, out));
    encoder->size += utf8_replace_end(&encoder->replacer, encoder->window + encoder->size);
    TRY(encode_window(encoder, out, true));
    CHECK(encoder->size == 0);
    bpe_trim(encoder->bpe);
    return encoder->capacity > WINDOW_BYTES ? window_resize(encoder, WINDOW_BYTES) : 0;
}
