/* Text to ids for any tokenizer, and the search for added tokens for all of them. Text is held up to a safe cut (dataset/tokenizer/cut.h);
 * then added tokens are taken out, and what lies between them is normalized, split into pre-tokens stage by stage, and merged.
 *
 * Order of calls: generic_tokenizer_open() once; for each thread generic_encoder_open(); then as in dataset/tokenizer/fast_encoder.h. */
#ifndef MILLRACE_DATASET_GENERIC_ENCODER_H
#define MILLRACE_DATASET_GENERIC_ENCODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataset/tokenizer/fast_encoder.h"
#include "dataset/tokenizer/hf_tokenizer.h"
#include "dataset/tokenizer/ids.h"

enum { ENCODER_HOLD_BYTES_MAX = 64 << 20 }; /* of text for patterns without a rule where it may be cut */

struct generic_tokenizer; /* immutable, shared by threads */
/* Owns `hf` from now on, also on failure. fast: a fast_encoder encodes what lies between added tokens, so no merges and patterns are
 * needed. */
int generic_tokenizer_open(struct generic_tokenizer **out, struct hf_tokenizer *hf, bool fast);
void generic_tokenizer_close(struct generic_tokenizer *tokenizer);
const struct hf_tokenizer *generic_tokenizer_files(const struct generic_tokenizer *tokenizer);
void generic_tokenizer_set_ends(struct generic_tokenizer *tokenizer, int64_t bos, int64_t eos); /* before anybody shares it */
unsigned generic_tokenizer_rules(const struct generic_tokenizer *tokenizer); /* of text in which special tokens are ordinary */

/* special: special tokens in the text are tokens. fast: encodes what lies between added tokens, or NULL; is closed with this one, also when
 * opening fails. */
struct generic_encoder;
int generic_encoder_open(struct generic_encoder **out, const struct generic_tokenizer *tokenizer, bool special, struct fast_encoder *fast);
void generic_encoder_set_tick(struct generic_encoder *encoder, int (*tick)(void *arg), void *tick_arg); /* encoder_set_tick() */
int generic_encoder_feed(struct generic_encoder *encoder, struct ids *out, const void *text, size_t text_bytes);
int generic_encoder_finish(struct generic_encoder *encoder, struct ids *out);
uint64_t generic_encoder_replaced(const struct generic_encoder *encoder);
void generic_encoder_close(struct generic_encoder *encoder);

#endif
