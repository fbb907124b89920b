/* Text to ids where the pattern is GPT-2's, ids follow from the ranks of merges, and no added token is looked for: GPT-2 itself, and what
 * `millrace tokenizer train` writes. dataset/tokenizer/generic_encoder.h does all others.
 *
 * Order of calls: open; for each text feed as often as there are bytes, then finish; close. One thread at a time. */
#ifndef MILLRACE_DATASET_FAST_ENCODER_H
#define MILLRACE_DATASET_FAST_ENCODER_H

#include <stddef.h>
#include <stdint.h>

#include "dataset/tokenizer/bpe.h"
#include "dataset/tokenizer/ids.h"
#include "dataset/tokenizer/vocabulary.h"

struct fast_encoder;
int fast_encoder_open(struct fast_encoder **out, const struct vocabulary *vocabulary, const struct bpe_tables *tables);
int fast_encoder_feed(struct fast_encoder *encoder, struct ids *out, const void *text, size_t text_bytes);
int fast_encoder_finish(struct fast_encoder *encoder, struct ids *out);
uint64_t fast_encoder_replaced(const struct fast_encoder *encoder);
void fast_encoder_close(struct fast_encoder *encoder); /* NULL is fine */

#endif
