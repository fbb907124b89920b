/* A table of pieces by their bytes. */
#include "dataset/tokenizer/piece_counts.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/tokenizer/pieces.h"
#include "dataset/tokenizer/pretokenize.h"
#include "dataset/unicode/utf8.h"

static uint64_t hash_of(const uint8_t *bytes, size_t size) {
    uint64_t hash = size * 0x9E3779B97F4A7C15u;
    while (size > 0) {
        uint64_t word = 0;
        size_t n = size < 8 ? size : 8;
        memcpy(&word, bytes, n);
        hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
        bytes += n, size -= n;
    }
    return hash;
}

static uint32_t *slot_of(const struct piece_counts *counts, uint64_t hash, const uint8_t *bytes, size_t size) {
    for (size_t i = hash & (counts->slots - 1);; i = (i + 1) & (counts->slots - 1)) {
        uint32_t number = counts->slot[i];
        if (number == 0) return &counts->slot[i];
        const struct piece_count *piece = &counts->piece[number - 1];
        if (piece->hash == hash && piece->size == size && memcmp(counts->text.data + piece->first, bytes, size) == 0)
            return &counts->slot[i];
    }
}

static int slots_grow(struct piece_counts *counts) {
    size_t slots = counts->slots ? 4 * counts->slots : 1 << 16;
    uint32_t *slot;
    TRY(mem_try(&slot, slots, sizeof *slot));
    for (size_t k = 0; k < counts->pieces; k++) {
        size_t i = counts->piece[k].hash & (slots - 1);
        while (slot[i]) i = (i + 1) & (slots - 1);
        slot[i] = (uint32_t)k + 1;
    }
    free(counts->slot);
    counts->slot = slot, counts->slots = slots;
    return 0;
}

static int pieces_grow(struct piece_counts *counts) {
    size_t room = counts->pieces_room ? 2 * counts->pieces_room : 1 << 12;
    if (room > PIECE_COUNTS_MAX)
        return err_set(ERR_LIMIT, "the text has more than %d different pieces (words, numbers, runs of signs); train on a part of it",
                       PIECE_COUNTS_MAX);
    struct piece_count *piece = realloc(counts->piece, room * sizeof *piece);
    if (!piece) return err_set(ERR_MEMORY, "out of memory: %zu bytes for different pieces were wanted", room * sizeof *piece);
    counts->piece = piece, counts->pieces_room = room;
    return 0;
}

static int count_piece(struct piece_counts *counts, uint64_t hash, const uint8_t *bytes, size_t size, uint64_t count) {
    if (2 * counts->pieces >= counts->slots) TRY(slots_grow(counts));
    uint32_t *slot = slot_of(counts, hash, bytes, size);
    if (*slot == 0) {
        if (counts->pieces == counts->pieces_room) TRY(pieces_grow(counts));
        size_t first = counts->text.size;
        counts->text.max_bytes = UINT32_MAX;
        if (buf_append(&counts->text, bytes, size) < 0) return err_add(ERR_LIMIT, "the text's different pieces; train on a part of it");
        counts->piece[counts->pieces++] = (struct piece_count){hash, 0, (uint32_t)first, (uint32_t)size};
        *slot = (uint32_t)counts->pieces;
    }
    counts->piece[*slot - 1].count += count;
    return 0;
}

/* Well-formed text with PIECES_SLACK bytes of PIECE_SENTINEL behind it. */
static int count_mended(struct piece_counts *counts, const uint8_t *text, size_t size) {
    const struct piece_kernels *kernels = piece_kernels();
    const uint8_t *end = text + size;
    while (text < end) {
        uint16_t border[PIECES_BORDERS];
        size_t left = (size_t)(end - text), part = left < PIECES_TEXT_BYTES ? left : PIECES_TEXT_BYTES;
        size_t pieces = kernels->split(border, text, part, part == left);
        for (size_t k = 0; k < pieces; k++) {
            const uint8_t *piece = text + border[k];
            size_t n = (size_t)border[k + 1] - border[k];
            if (n > 1) TRY(count_piece(counts, hash_of(piece, n), piece, n, 1));
        }
        if (pieces > 0) {
            text += border[pieces];
            continue;
        }
        size_t n = piece_measure(text, left, true);
        if (n > 1) TRY(count_piece(counts, hash_of(text, n), text, n, 1));
        text += n;
    }
    return 0;
}

int piece_counts_text(struct piece_counts *counts, const uint8_t *text, size_t size) {
    struct utf8_mender mender = {0};
    size_t written, room = 3 * size + 2 * UTF8_MEND_ROOM; /* each byte becomes a U+FFFD at most */
    buf_clear(&counts->mended);
    TRY(buf_reserve(&counts->mended, room + PIECES_SLACK));
    uint8_t *mended = counts->mended.data;
    CHECK(utf8_mend(&mender, mended, &written, room, text, size) == size);
    written += utf8_mend_end(&mender, mended + written);
    memset(mended + written, PIECE_SENTINEL, PIECES_SLACK);
    return count_mended(counts, mended, written);
}

int piece_counts_join(struct piece_counts *counts, const struct piece_counts *more) {
    for (size_t i = 0; i < more->pieces; i++) {
        const struct piece_count *piece = &more->piece[i];
        TRY(count_piece(counts, piece->hash, more->text.data + piece->first, piece->size, piece->count));
    }
    return 0;
}

static int by_bytes(const void *a, const void *b, void *text) {
    const struct piece_count *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    size_t size = x->size < y->size ? x->size : y->size;
    int order = memcmp((const uint8_t *)text + x->first, (const uint8_t *)text + y->first, size);
    return order ? order : x->size < y->size ? -1 : x->size > y->size;
}

void piece_counts_sort(struct piece_counts *counts) {
    if (counts->pieces) qsort_r(counts->piece, counts->pieces, sizeof *counts->piece, by_bytes, counts->text.data);
    free(counts->slot);
    counts->slot = NULL, counts->slots = 0;
}

void piece_counts_free(struct piece_counts *counts) {
    buf_free(&counts->text), buf_free(&counts->mended);
    free(counts->piece), free(counts->slot);
    *counts = (struct piece_counts){0};
}
