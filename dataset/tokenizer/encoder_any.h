/* Text to ids for any tokenizer, and the search for added tokens for all of them. Text is held up to a place where it may be cut
 * (dataset/tokenizer/cut.h); then added tokens are taken out, what lies between is normalized, split stage by stage and merged. */
#ifndef MILLRACE_DATASET_ENCODER_ANY_H
#define MILLRACE_DATASET_ENCODER_ANY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataset/tokenizer/hf_tokenizer.h"
#include "dataset/tokenizer/tokenizer.h"

enum { ENCODER_HOLD_BYTES_MAX = 64 << 20 };  /* of text without a place to cut, for patterns without a rule */

struct tokenizer_any;   /* immutable, shared by threads */
/* Takes `hf` over, also on failure. fast: what lies between added tokens is encoded by somebody else: no merges and patterns are needed. */
int tokenizer_any_open(struct tokenizer_any **out, struct hf_tokenizer *hf, bool fast);
void tokenizer_any_close(struct tokenizer_any *any);
const struct hf_tokenizer *tokenizer_any_files(const struct tokenizer_any *any);
void tokenizer_any_ends(struct tokenizer_any *any, int64_t bos, int64_t eos);  /* before anybody shares it */
unsigned tokenizer_any_rules(const struct tokenizer_any *any);  /* of text in which special tokens are ordinary */

/* As struct encoder (dataset/tokenizer/tokenizer.h). special: special tokens in the text are tokens. fast: encodes what lies between added
 * tokens; is closed with this one, also when opening fails. */
struct encoder_any;
int encoder_any_open(struct encoder_any **out, const struct tokenizer_any *any, bool special, struct encoder *fast);
int encoder_any_feed(struct encoder_any *encoder, struct ids *out, const void *text, size_t text_bytes);
int encoder_any_finish(struct encoder_any *encoder, struct ids *out);
uint64_t encoder_any_replaced(const struct encoder_any *encoder);
void encoder_any_close(struct encoder_any *encoder);

#endif
