/* Text goes three ways: to the encoder, whose ids go to the writer; to SHA-256, one digest a block; and through a search for the cuts at
 * which blocks begin. A struct encode has the block under way, one chunk of ids that is not written yet, and the last bytes of text, which
 * a cut may depend on.
 *
 * Order of calls: encode_into() for each token run; for each piece encode_begin(), encode_text() up to block borders, encode_end(); last
 * encode_flush(). */
#include "dataset/ingest/encode.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"

enum {
    FEED_BYTES = 1 << 16, /* between two ticks */
    WRITE_IDS = 1 << 16,  /* ids of one write */
};

struct encode {
    struct encode_options options;
    struct encoder *encoder;     /* the caller's */
    struct sha256 *block;        /* NULL: no block has begun */
    struct token_run_builder *builder;
    int (*write)(void *, const void *, size_t);
    void *write_arg;
    struct ids ids;
    size_t counted;              /* of them, in the last piece's tokens */
    uint8_t *packed;             /* WRITE_IDS ids as they are written */
    uint64_t at, border;         /* offsets in the document: what is done; from where on the next cut is looked for */
    uint8_t back[TOKENIZER_BACK_BYTES];/* the last bytes before `at` */
    size_t back_bytes;
    uint8_t *around;             /* TOKENIZER_BACK_BYTES + FEED_BYTES: text in which a cut is looked for */
};

struct encode *encode_open(const struct encode_options *options) {
    CHECK(options->token_bytes == 2 || options->token_bytes == 4);
    struct encode *encode = mem_alloc(sizeof *encode);
    encode->options = *options;
    encode->packed = mem_alloc(WRITE_IDS * options->token_bytes);
    encode->around = mem_alloc(TOKENIZER_BACK_BYTES + FEED_BYTES);
    return encode;
}

void encode_close(struct encode *encode) {
    if (!encode) return;
    sha256_close(encode->block);
    ids_free(&encode->ids);
    free(encode->packed), free(encode->around);
    free(encode);
}

void encode_into(struct encode *encode, struct encoder *encoder, struct token_run_builder *builder,
                 int (*write)(void *, const void *, size_t), void *write_arg) {
    encode->encoder = encoder, encode->builder = builder, encode->write = write, encode->write_arg = write_arg;
}

uint64_t encode_at(const struct encode *encode) { return encode->at; }

void encode_reset(struct encode *encode) {
    CHECK(encode->block == NULL);
    encode->back_bytes = 0;
}

void encode_pass(struct encode *encode, const uint8_t *text, size_t bytes) {
    if (bytes < TOKENIZER_BACK_BYTES) {
        size_t kept = encode->back_bytes < TOKENIZER_BACK_BYTES - bytes ? encode->back_bytes : TOKENIZER_BACK_BYTES - bytes;
        memmove(encode->back, encode->back + encode->back_bytes - kept, kept);
        memcpy(encode->back + kept, text, bytes);
        encode->back_bytes = kept + bytes;
    } else {
        memcpy(encode->back, text + bytes - TOKENIZER_BACK_BYTES, TOKENIZER_BACK_BYTES);
        encode->back_bytes = TOKENIZER_BACK_BYTES;
    }
}

/* The first safe cut in up to FEED_BYTES that follow what was passed. */
static bool find_cut(struct encode *encode, size_t *out, const uint8_t *text, size_t bytes) {
    memcpy(encode->around, encode->back, encode->back_bytes);
    memcpy(encode->around + encode->back_bytes, text, bytes);
    return tokenizer_cut(encode->options.tokenizer, encode->around + encode->back_bytes, bytes, encode->back_bytes, out);
}

bool encode_seek(struct encode *encode, size_t *out_took, const uint8_t *text, size_t bytes) {
    bool found = false;
    for (*out_took = 0; *out_took < bytes && !found;) {
        size_t n = bytes - *out_took < FEED_BYTES ? bytes - *out_took : FEED_BYTES;
        found = find_cut(encode, &n, text + *out_took, n);
        encode_pass(encode, text + *out_took, n);
        *out_took += n;
    }
    return found;
}

void encode_begin(struct encode *encode, uint64_t at) {
    CHECK(encode->block == NULL);
    encode->at = at;
    encode->border = (at / encode->options.block_bytes + 1) * encode->options.block_bytes;
    if (at == 0) encode->back_bytes = 0;
}

/* Writes ids in chunks; `all`: also the last, smaller one. */
static int write_ids(struct encode *encode, bool all) {
    size_t done = 0;
    uint32_t width = encode->options.token_bytes;
    while (encode->ids.count - done >= (all ? 1 : WRITE_IDS)) {
        size_t n = encode->ids.count - done < WRITE_IDS ? encode->ids.count - done : WRITE_IDS;
        for (size_t i = 0; i < n; i++)
            for (uint32_t b = 0; b < width; b++) encode->packed[i * width + b] = (uint8_t)(encode->ids.id[done + i] >> 8 * b);
        TRY(encode->write(encode->write_arg, encode->packed, n * width));
        done += n;
    }
    if (done == 0) return 0;
    memmove(encode->ids.id, encode->ids.id + done, (encode->ids.count - done) * sizeof *encode->ids.id);
    encode->ids.count -= done, encode->counted -= done;
    return 0;
}

int encode_flush(struct encode *encode) { return write_ids(encode, true); }

static int block_end(struct encode *encode) {
    uint8_t digest[SHA256_BYTES];
    if (!encode->block) encode->block = sha256_open();
    sha256_finish(encode->block, digest);
    sha256_close(encode->block);
    encode->block = NULL;
    return token_run_builder_block(encode->builder, digest);
}

/* New ids count for the last piece. */
static int take_ids(struct encode *encode) {
    encode->builder->table.piece_tokens[encode->builder->table.n_source - 1] += encode->ids.count - encode->counted;
    encode->counted = encode->ids.count;
    return write_ids(encode, false);
}

static int tick(const struct encode *encode) {
    bool stop = encode->options.tick && encode->options.tick(encode->options.tick_arg) != 0;
    return stop ? err_set(ERR_INTERRUPTED, "tokenizing was stopped") : 0;
}

/* A long text may be encoded in one call: its ids go on as they come, and take no room. */
static int encoder_tick(void *arg) {
    TRY(take_ids(arg));
    return tick(arg);
}

/* What the encoder does counts for the last piece. */
static int encode_counted(struct encode *encode, const uint8_t *text, size_t bytes, bool finish) {
    size_t i = encode->builder->table.n_source - 1;
    uint64_t replaced = encoder_replaced(encode->encoder);
    encoder_set_tick(encode->encoder, encoder_tick, encode);
    int code = finish ? encoder_finish(encode->encoder, &encode->ids) : encoder_feed(encode->encoder, &encode->ids, text, bytes);
    encoder_set_tick(encode->encoder, NULL, NULL); /* the encoder may live longer */
    if (code == ERR_LIMIT) code = err_set(ERR_CONFIG, "%s", err_text()); /* the text is at fault, and nobody can take it */
    TRY(code);
    encode->builder->table.bytes[i] += bytes;
    encode->builder->table.replaced[i] += (uint32_t)(encoder_replaced(encode->encoder) - replaced);
    return take_ids(encode);
}

/* How much of text the block under way takes; *out_cut: it ends there. */
static size_t block_takes(struct encode *encode, bool *out_cut, const uint8_t *text, size_t bytes) {
    *out_cut = false;
    if (encode->at < encode->border) return encode->border - encode->at < bytes ? (size_t)(encode->border - encode->at) : bytes;
    *out_cut = find_cut(encode, &bytes, text, bytes);
    return bytes;
}

int encode_text(struct encode *encode, size_t *out_took, bool *out_border, const uint8_t *text, size_t bytes) {
    *out_border = false;
    for (*out_took = 0; *out_took < bytes && !*out_border;) {
        const uint8_t *from = text + *out_took;
        size_t left = bytes - *out_took, n = block_takes(encode, out_border, from, left < FEED_BYTES ? left : FEED_BYTES);
        if (n > 0) {
            if (!encode->block) encode->block = sha256_open();
            sha256_add(encode->block, from, n);
            TRY(encode_counted(encode, from, n, false));
            TRY(tick(encode));
            encode_pass(encode, from, n);
            encode->at += n, *out_took += n;
        }
        if (!*out_border) continue;
        TRY(block_end(encode));
        encode->border = (encode->at / encode->options.block_bytes + 1) * encode->options.block_bytes;
    }
    return 0;
}

int encode_end(struct encode *encode, bool ends) {
    if (ends && (encode->block || encode->at == 0)) TRY(block_end(encode));
    CHECK(encode->block == NULL);
    return encode_counted(encode, NULL, 0, true);
}
