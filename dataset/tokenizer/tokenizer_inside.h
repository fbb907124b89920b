/* What a struct tokenizer is made of, for dataset/tokenizer/tokenizer.c and the trainer, which makes one. */
#ifndef MILLRACE_DATASET_TOKENIZER_INSIDE_H
#define MILLRACE_DATASET_TOKENIZER_INSIDE_H

#include "dataset/tokenizer/bpe.h"
#include "dataset/tokenizer/generic_encoder.h"
#include "dataset/tokenizer/tokenizer.h"
#include "dataset/tokenizer/vocabulary.h"

struct tokenizer {
    struct vocabulary *vocabulary;  /* of one with GPT-2's pattern, with its tables; NULL: any other one */
    struct bpe_tables *tables;
    struct generic_tokenizer *generic; /* what the files say; of GPT-2 only what concerns special tokens */
    bool gpt2;                      /* the one in the binary */
};
int tokenizer_of(struct tokenizer **out, struct hf_tokenizer *hf);  /* takes hf over, also on failure */

#endif
