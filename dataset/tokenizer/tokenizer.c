/* The encoder as others see it. GPT-2's, and those that differ from it in their vocabulary alone, are done here: it holds a window of
 * well-formed text, takes whole pieces from its front and has them merged. Owns the window; the pattern, the merges and UTF-8's rules are
 * elsewhere in this folder, as are other tokenizers and special tokens (dataset/tokenizer/encoder_any.h). The window grows only while one
 * piece fills it. */
#include "dataset/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/tokenizer/bpe.h"
#include "dataset/tokenizer/pieces.h"
#include "dataset/tokenizer/pretokenize.h"
#include "dataset/tokenizer/tokenizer_inside.h"
#include "dataset/unicode/utf8.h"

enum {
    WINDOW_BYTES = 1 << 16,                             /* as long as pieces are short */
    WINDOW_BYTES_MAX = PIECE_BYTES_MAX + WINDOW_BYTES,  /* full, it always holds a whole piece */
    WINDOW_SLACK = PIECES_SLACK,                        /* for the sentinel, and for reads of whole blocks */
};
_Static_assert(WINDOW_BYTES_MAX > PIECE_BYTES_MAX + UTF8_MEND_ROOM, "a full window decides where its first piece ends");

struct encoder {
    const struct tokenizer *tokenizer;
    struct encoder_any *any; /* does everything, where it is there */
    struct bpe *bpe;
    struct utf8_mender mender;
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
    return encoder->any ? encoder_any_replaced(encoder->any) : encoder->mender.replaced;
}

/* Ids as the tokenizer has them. */
static void make_outer(uint32_t *id, size_t count, const struct vocabulary *vocabulary) {
    for (size_t i = 0; i < count && vocabulary->outer; i++) id[i] = vocabulary->outer[id[i]];
}

/* Encodes the window's whole pieces (at the end of the text: everything) and moves what is left to its front. */
static int encode_window(struct encoder *encoder, struct ids *out, bool final) {
    TRY(ids_reserve(out, encoder->size + PIECES_IDS_SLACK));
    memset(encoder->window + encoder->size, PIECE_SENTINEL, WINDOW_SLACK);
    const uint8_t *text = encoder->window, *end = text + encoder->size;
    while (text < end) {
        uint16_t border[PIECES_BORDERS];
        size_t size = (size_t)(end - text), part = size < PIECES_TEXT_BYTES ? size : PIECES_TEXT_BYTES, count;
        size_t pieces = encoder->tokenizer->tables->kernels->split(border, text, part, final && part == size);
        if (pieces > 0) {
            TRY(bpe_encode_pieces(encoder->bpe, out->id + out->count, &count, text, border, pieces));
            text += border[pieces];
        } else { /* one that is longer, or the last ones, some of which may be whole */
            size = piece_measure(text, size, final);
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
        size_t took = utf8_mend(&encoder->mender, encoder->window + encoder->size, &written, room, rest, text_bytes);
        encoder->size += written;
        rest += took, text_bytes -= took;
        if (text_bytes > 0) TRY(make_room(encoder, out));
    }
    return 0;
}

int encoder_finish(struct encoder *encoder, struct ids *out) {
    if (encoder->any) return encoder_any_finish(encoder->any, out);
    if (encoder->capacity - encoder->size < UTF8_MEND_ROOM) TRY(make_room(encoder, out));
    encoder->size += utf8_mend_end(&encoder->mender, encoder->window + encoder->size);
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
