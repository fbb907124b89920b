/* The merges of a training: from counted pieces to tokens, the most frequent pair first. */
#ifndef MILLRACE_DATASET_TRAIN_MERGES_H
#define MILLRACE_DATASET_TRAIN_MERGES_H

#include <stdint.h>

#include "dataset/tokenizer/hf_tokenizer.h"
#include "dataset/tokenizer/piece_counts.h"

/* Adds tokens and merges to hf, which holds special tokens and bytes, until it has vocab_size tokens or no pair occurs min_frequency times.
 * Frees what counts holds. merged() is called after every merge; when it is negative, training stops with that code. */
int train_merges(struct hf_tokenizer *hf, struct piece_counts *counts, uint32_t vocab_size, uint64_t min_frequency,
                 int (*merged)(void *arg), void *arg);

#endif
