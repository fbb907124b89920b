/* The trainer: counts pieces with all threads, a batch of text at a time, then has them merged (dataset/tokenizer/train_merges.h). Owns the
 * text that waits for its batch. */
#include "dataset/tokenizer/tokenizer_train.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/pool.h"
#include "dataset/tokenizer/byte_letters.h"
#include "dataset/tokenizer/cut.h"
#include "dataset/tokenizer/pretokenize.h"
#include "dataset/tokenizer/tokenizer_inside.h"
#include "dataset/tokenizer/train_merges.h"

enum {
    BATCH_BYTES = 1 << 20,                       /* of one thread's part of a batch */
    BATCH_BYTES_MAX = 2 * PIECE_BYTES_MAX,       /* of text without a place to cut */
    SPECIAL_MAX = 1 << 12,
};

/* One thread's part: texts, one after the other. */
struct batch {
    struct buf text;
    size_t *end;              /* of each text */
    size_t ends, ends_room;
    struct piece_counts counts;
    int code;
    char *error;
};
struct bpe_trainer {
    struct train_options options;
    struct hf_tokenizer *hf;
    struct pool *pool;
    struct batch *batch;      /* [threads] */
    size_t filling;           /* the batch that takes text */
    struct train_progress progress;
};

static int add_specials(struct hf_tokenizer *hf, const struct train_options *options) {
    for (size_t i = 0; i < options->special_count; i++) {
        const char *text = options->special[i];
        if (strlen(text) == 0) return err_set(ERR_USAGE, "a special token is empty");
        TRY(hf_add_token(hf, hf->ids, text, strlen(text)));
    }
    return 0;
}

static int add_bytes(struct hf_tokenizer *hf) {
    const struct byte_letters *letters = byte_letters();
    for (unsigned i = 0; i < 256; i++)
        if (hf->byte_id[letters->order[i]] == HF_NONE) TRY(hf_add_bytes(hf, hf->ids, &letters->order[i], 1));
    return 0;
}

int bpe_trainer_open(struct bpe_trainer **out, const struct train_options *options) {
    if (options->special_count > SPECIAL_MAX)
        return err_set(ERR_USAGE, "%zu special tokens; at most %d", options->special_count, SPECIAL_MAX);
    struct bpe_trainer *trainer = mem_alloc(sizeof *trainer);
    trainer->options = *options;
    trainer->hf = hf_make();
    trainer->batch = mem_alloc((size_t)options->threads * sizeof *trainer->batch);
    int code = pool_open_from(&trainer->pool, options->threads, "--threads");
    if (code == 0) code = add_specials(trainer->hf, options);
    if (code == 0) code = add_bytes(trainer->hf);
    if (code == 0 && (options->vocab_size < trainer->hf->ids || options->vocab_size > HF_IDS_MAX))
        code = err_set(ERR_USAGE, "a vocabulary of %lld; expected at least %u, the special tokens and the 256 bytes, and at most %d",
                       (long long)options->vocab_size, trainer->hf->ids, HF_IDS_MAX);
    if (code < 0) bpe_trainer_close(trainer);
    else *out = trainer;
    return code;
}

void bpe_trainer_close(struct bpe_trainer *trainer) {
    if (!trainer) return;
    for (int i = 0; i < trainer->options.threads; i++) {
        struct batch *batch = &trainer->batch[i];
        buf_free(&batch->text);
        free(batch->end), free(batch->error);
        piece_counts_free(&batch->counts);
    }
    free(trainer->batch);
    pool_close(trainer->pool);
    hf_close(trainer->hf);
    free(trainer);
}

/* ---- counting ---- */

static void count_batch(void *arg, size_t item) {
    struct batch *batch = &((struct batch *)arg)[item];
    size_t begin = 0;
    for (size_t i = 0; i < batch->ends && batch->code == 0; i++) {
        if (batch->end[i] > begin) batch->code = piece_counts_text(&batch->counts, batch->text.data + begin, batch->end[i] - begin);
        begin = batch->end[i];
    }
    if (batch->code < 0) batch->error = mem_text(err_text()); /* the text is per thread */
}

static int told(struct bpe_trainer *trainer) {
    const struct train_options *o = &trainer->options;
    if (o->progress && o->progress(o->progress_arg, &trainer->progress) != 0) return err_set(ERR_INTERRUPTED, "training was stopped");
    return 0;
}

/* Counts what all batches hold. */
static int count_all(struct bpe_trainer *trainer) {
    pool_run(trainer->pool, (size_t)trainer->options.threads, count_batch, trainer->batch);
    for (int i = 0; i < trainer->options.threads; i++) {
        struct batch *batch = &trainer->batch[i];
        if (batch->code < 0) return err_set(batch->code, "%s", batch->error);
        trainer->progress.bytes += batch->ends ? batch->end[batch->ends - 1] : 0;
        batch->ends = 0;
        buf_clear(&batch->text);
    }
    trainer->filling = 0;
    return told(trainer);
}

static void end_text(struct batch *batch, size_t end) {
    if (batch->ends == batch->ends_room) {
        batch->ends_room = batch->ends_room ? 2 * batch->ends_room : 64;
        batch->end = mem_resize(batch->end, batch->ends_room * sizeof *batch->end);
    }
    batch->end[batch->ends++] = end;
}

/* The batch that takes text is full: what comes behind the last place to cut goes to the next one. */
static int next_batch(struct bpe_trainer *trainer) {
    struct batch *batch = &trainer->batch[trainer->filling];
    size_t begin = batch->ends ? batch->end[batch->ends - 1] : 0, size = batch->text.size - begin;
    size_t cut = size ? cut_last(CUT_GPT2, batch->text.data + begin, size) : 0;
    if (size > 0 && cut == 0 && size < BATCH_BYTES_MAX && begin == 0) return 0; /* it takes more */
    if (size >= BATCH_BYTES_MAX && cut == 0) cut = size;
    if (cut > 0) end_text(batch, begin + cut);
    struct buf rest = {0};
    TRY(buf_append(&rest, batch->text.data + begin + cut, size - cut));
    int code = 0;
    if (++trainer->filling == (size_t)trainer->options.threads) code = count_all(trainer);
    if (code == 0) code = buf_append(&trainer->batch[trainer->filling].text, rest.data, rest.size);
    buf_free(&rest);
    return code;
}

int bpe_trainer_feed(struct bpe_trainer *trainer, const void *text, size_t size) {
    const uint8_t *p = text;
    while (size > 0) {
        struct batch *batch = &trainer->batch[trainer->filling];
        size_t n = size < BATCH_BYTES ? size : BATCH_BYTES;
        TRY(buf_append(&batch->text, p, n));
        p += n, size -= n;
        if (batch->text.size >= BATCH_BYTES) TRY(next_batch(trainer));
    }
    return 0;
}

int bpe_trainer_end(struct bpe_trainer *trainer) {
    struct batch *batch = &trainer->batch[trainer->filling];
    end_text(batch, batch->text.size);
    return batch->text.size >= BATCH_BYTES ? next_batch(trainer) : 0;
}

/* ---- merging ---- */

static int choose_end(struct hf_tokenizer *hf, const struct train_options *options) {
    for (size_t i = 0; i < options->special_count; i++) {
        const char *text = options->special[i];
        TRY(hf_add_added(hf, &(struct hf_added){.id = (uint32_t)i, .special = true}, text, strlen(text)));
        if (i == 0 || strcmp(text, "<|endoftext|>") == 0) hf->bos = hf->eos = (int64_t)i;
    }
    hf->stages = 1; /* GPT-2's pattern */
    return hf_finish(hf);
}

static int merged(void *arg) {
    struct bpe_trainer *trainer = arg;
    trainer->progress.tokens = trainer->hf->ids;
    return told(trainer);
}

int bpe_trainer_finish(struct bpe_trainer *trainer, struct tokenizer **out) {
    struct piece_counts *counts = &trainer->batch[0].counts;
    TRY(count_all(trainer));
    for (int i = 1; i < trainer->options.threads; i++) {
        TRY(piece_counts_join(counts, &trainer->batch[i].counts));
        piece_counts_free(&trainer->batch[i].counts);
    }
    piece_counts_sort(counts);
    trainer->progress.pieces = counts->pieces, trainer->progress.wanted = trainer->options.vocab_size;
    TRY(train_merges(trainer->hf, counts, (uint32_t)trainer->options.vocab_size, trainer->options.min_frequency, merged, trainer));
    TRY(choose_end(trainer->hf, &trainer->options));
    struct hf_tokenizer *hf = trainer->hf;
    trainer->hf = NULL;
    return tokenizer_of(out, hf);
}
