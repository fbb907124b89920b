/* Byte-level BPE: text to token ids and back, exact for every input. GPT-2's tokenizer lives inside the binary; any other one comes from
 * Hugging Face's files (dataset/tokenizer/hf_tokenizer.h says which).
 *
 * Text is split by the tokenizer's pattern, GPT-2's being
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * with \s as Unicode 15.0's White_Space, then each pre-token is merged by rank (Sennrich et al. 2016, arXiv 1508.07909; Radford et al.
 * 2019). Ill-formed UTF-8 is read as U+FFFD, one for each maximal subpart (Unicode 15, section 3.9, as WHATWG decoders do), and
 * counted. One pre-token of more than 4 MiB (a word, or a run of spaces; PRETOKEN_BYTES_MAX in dataset/tokenizer/pretokenize.h) ends at the
 * last character border within 4 MiB of its begin, and the pattern starts again there. A tokenizer that differs from GPT-2's in its
 * vocabulary alone (what `millrace tokenizer train` writes) is as fast; others, and those whose ids cannot follow the ranks of merges
 * (dataset/tokenizer/vocabulary.h), are encoded the generic way (dataset/tokenizer/generic_encoder.h), which also cuts text of that size
 * that has no safe cut. */
#ifndef MILLRACE_DATASET_TOKENIZER_H
#define MILLRACE_DATASET_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "config/config.h"
#include "dataset/tokenizer/ids.h"
#include "dataset/unicode/utf8.h"

enum { GPT2_VOCABULARY = 50257, GPT2_END_OF_TEXT = 50256 };

struct tokenizer;   /* immutable once open; shared by threads */
int tokenizer_open_gpt2(struct tokenizer **out);
/* "gpt2", or the path of a Hugging Face tokenizer: its folder or its tokenizer.json. */
int tokenizer_open(struct tokenizer **out, const char *name);
/* The same from memory: what tokenizer_print() wrote, or any tokenizer.json; no bytes: gpt2. */
int tokenizer_parse(struct tokenizer **out, const void *bytes, size_t size);
/* Opens dataset.tokenizer, and fills in the model's vocab_size, bos_token_id and eos_token_id where the pipeline leaves them to it.
 * ERR_CONFIG: the configuration does not fit the tokenizer. */
int tokenizer_open_for(struct tokenizer **out, struct config *config);
void tokenizer_close(struct tokenizer *tokenizer);

/* Appends the whole tokenizer as one text, the same bytes for the same tokenizer from whatever files it came. */
int tokenizer_print(const struct tokenizer *tokenizer, struct buf *out);
void tokenizer_digest(const struct tokenizer *tokenizer, uint8_t out[32]);    /* SHA-256 of that */

int64_t tokenizer_vocabulary(const struct tokenizer *tokenizer);   /* the highest id + 1 */
int64_t tokenizer_bos(const struct tokenizer *tokenizer);          /* the token that begins a text; -1: none */
int64_t tokenizer_eos(const struct tokenizer *tokenizer);          /* that ends one */
uint32_t tokenizer_token_bytes(const struct tokenizer *tokenizer); /* of an id in a run or shard: 2 as long as all fit, else 4 */

/* Safe cuts: offsets at which text may be cut so that both sides, tokenized apart, give the ids of the whole (dataset/tokenizer/cut.h). For
 * GPT-2's pattern: just before an ASCII space or newline that follows a well-formed character which is not white space. No pre-token of the
 * pattern spans such a cut, none looks across it, and no ill-formed sequence does. tokenizer_cuts(): is there a rule for this tokenizer's
 * pattern at all? */
enum { TOKENIZER_BACK_BYTES = 4 };
bool tokenizer_cuts(const struct tokenizer *tokenizer);
/* The first safe cut in text[0, size): *out. `back` bytes before text are there, too; more than TOKENIZER_BACK_BYTES make no difference.
 * At the beginning of a document (back 0) there is none at 0. False: there is none. */
bool tokenizer_cut(const struct tokenizer *tokenizer, const uint8_t *text, size_t size, size_t back, size_t *out);

/* Encodes a stream of text: feed it in chunks of any size (a chunk may end inside a character or a word), then finish. Its
 * memory is bounded whatever is fed: 0.1 MiB, up to 16.3 MiB as it meets more words, and while a long pre-token is there up to 12 bytes for
 * each of its bytes, 50 MiB at most (the generic way: 40 bytes, 170 MiB; one whose pattern has no safe cuts holds whole
 * documents twice, with NFC three times and more where that lengthens them, and of more than 64 MiB they are ERR_LIMIT). One call adds at
 * most three ids for each byte of the text, and 4 Mi. After a failure it can only be closed. One thread at a time. */
struct encoder;
int encoder_open(struct encoder **out, const struct tokenizer *tokenizer);
int encoder_open_special(struct encoder **out, const struct tokenizer *tokenizer);  /* special tokens in the text are tokens, not text */
int encoder_feed(struct encoder *encoder, struct ids *out, const void *text, size_t text_bytes);
int encoder_finish(struct encoder *encoder, struct ids *out);  /* the text ends here; ready for the next one */
/* tick(): called again and again in a call that takes long, with what it has appended so far in its ids, which may be taken from there.
 * Below 0: the call ends with that. NULL: nobody is called. */
void encoder_set_tick(struct encoder *encoder, int (*tick)(void *arg), void *tick_arg);
uint64_t encoder_replaced(const struct encoder *encoder);      /* ill-formed sequences replaced, since it was opened */
void encoder_close(struct encoder *encoder);

/* One text at once. special: special tokens in the text are tokens ("<|endoftext|>" is 50256 in GPT-2), else they are ordinary text. */
int tokenizer_encode(const struct tokenizer *tokenizer, struct ids *out, const void *text, size_t text_bytes, bool special);

/* Appends the bytes of the ids; they need not be UTF-8. An id outside the vocabulary is ERR_CORRUPT and named. */
int tokenizer_decode(const struct tokenizer *tokenizer, struct buf *out, const uint32_t *id, size_t count);

/* Ids to well-formed text as they come: a character is written when it is whole, what cannot become one is U+FFFD. An all-zero struct with
 * a tokenizer is the beginning of a text. */
struct text_decoder {
    const struct tokenizer *tokenizer;
    struct utf8_replacer replacer;
    struct buf bytes;      /* room to work in */
};
int text_decoder_feed(struct text_decoder *decoder, struct buf *out, const uint32_t *id, size_t count);
int text_decoder_finish(struct text_decoder *decoder, struct buf *out);  /* the text ends here; ready for the next one */
void text_decoder_free(struct text_decoder *decoder);

/* The files of a Hugging Face tokenizer folder, which transformers' AutoTokenizer loads: tokenizer.json, tokenizer_config.json,
 * special_tokens_map.json, and vocab.json and merges.txt where they would do alone. max_length: model_max_length, 0: none. */
struct tokenizer_file {
    const char *name;
    struct buf text;
};
enum { TOKENIZER_FILES_MAX = 5 };
int tokenizer_print_files(const struct tokenizer *tokenizer, struct tokenizer_file out[TOKENIZER_FILES_MAX], size_t *out_count,
                          int64_t max_length);
void tokenizer_files_free(struct tokenizer_file files[TOKENIZER_FILES_MAX]);
int tokenizer_print_vocab(const struct tokenizer *tokenizer, struct buf *out);   /* vocab.json alone */
int tokenizer_print_merges(const struct tokenizer *tokenizer, struct buf *out);  /* merges.txt alone */

#endif
