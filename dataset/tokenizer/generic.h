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

/* Byte-pair encoding of one pre-token for any vocabulary: ranks are of pairs, ids are in any order, several merges may lead to one token.
 * As long as two neighbours merge, the pair of lowest rank does, the leftmost of equals first (Sennrich et al. 2016, arXiv 1508.07909).
 * dataset/tokenizer/bpe.h does the same faster where ids follow from ranks. */

struct bpe_table;  /* the merges by pair; immutable, shared by threads */
int bpe_table_open(struct bpe_table **out, const struct hf_tokenizer *hf);
void bpe_table_close(struct bpe_table *table);

struct bpe_any; /* what one thread needs: a cache of 1.5 MiB, and 28 bytes for each byte of the longest pre-token */
int bpe_any_open(struct bpe_any **out, const struct bpe_table *table);
void bpe_any_close(struct bpe_any *bpe);

/* Appends the ids of pretoken[0, size), 0 < size < 2^31. Time: n log n. */
int bpe_any_encode(struct bpe_any *bpe, struct ids *out, const uint8_t *pretoken, size_t size);
void bpe_any_trim(struct bpe_any *bpe); /* gives back the room for long pre-tokens when it is large */

#endif
