/* Training of a byte-level BPE tokenizer with GPT-2's pattern: from text to merges (Sennrich et al. 2016, arXiv 1508.07909).
 *
 * The same merges and ids as Hugging Face's BpeTrainer with ByteLevel's alphabet (tokenizers/src/models/bpe/trainer.rs), each text as one
 * sequence: special tokens first, then the 256 bytes in the order of their letters, then one merge after the other, the pair that occurs
 * most often, of equals the one with the lower ids. (But 8 MiB without a blank or newline behind a word end a text, at the last border
 * of a character in them.) The result follows from the texts alone, not from their order, their portions or threads. Memory: some 60 bytes
 * and 20 for each byte of each different pre-token; more than PRETOKEN_COUNTS_MAX pre-tokens are ERR_LIMIT. */
#ifndef MILLRACE_DATASET_TOKENIZER_TRAIN_H
#define MILLRACE_DATASET_TOKENIZER_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "dataset/tokenizer/tokenizer.h"

struct train_progress {
    uint64_t bytes;            /* of text counted */
    uint64_t pretokens;        /* different ones; 0: not known yet */
    int64_t tokens, wanted;    /* of the vocabulary; tokens 0: still counting */
};
struct train_options {
    int64_t vocab_size;        /* special tokens and bytes included; fewer when no pair is left */
    uint64_t min_frequency;    /* of a pair that is merged */
    const char *const *special;
    size_t special_count;
    int threads;
    int (*progress)(void *arg, const struct train_progress *progress);  /* NULL: nobody wants to know; not 0: stop, ERR_INTERRUPTED */
    void *progress_arg;
};

struct bpe_trainer;
int bpe_trainer_open(struct bpe_trainer **out, const struct train_options *options);  /* ERR_USAGE: a vocabulary too small or too large */
/* Text, in chunks of any size; bpe_trainer_end() after each document. */
int bpe_trainer_feed(struct bpe_trainer *trainer, const void *text, size_t size);
int bpe_trainer_end(struct bpe_trainer *trainer);
/* Does the merges. Only closing is left after it. The token <|endoftext|>, or else the first special one, begins and ends texts. */
int bpe_trainer_finish(struct bpe_trainer *trainer, struct tokenizer **out);
void bpe_trainer_close(struct bpe_trainer *trainer);

#endif
