/* Where text may be cut so that both sides, tokenized apart, give the ids of the whole: rules for the patterns that tokenizers in use
 * have.
 *
 * No rule looks further than one character to each side, so a cut is safe when no pre-token can span it and no pre-token's end depends on
 * what comes after it:
 *   before a blank   ' ' after a character that is not white space. In all of these patterns a blank begins a pre-token, alone, in a run of
 *                    white space or before one word; what ends a pre-token looks only at white space behind white space.
 *   before a newline '\n' after such a character. Only in GPT-2's: the others let newlines follow punctuation in one pre-token.
 *   after a newline  '\n' before a character that is neither white space nor '/'. Only in those others, where the last newline of a run
 *                    ends a pre-token; GPT-2's pattern looks at what follows a run of white space. ('/' goes on behind newlines in o200k.)
 * Any other pattern has no rule. A normalizer NFC changes nothing: no character combines with a blank or newline before it. */
#ifndef MILLRACE_DATASET_CUT_H
#define MILLRACE_DATASET_CUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataset/tokenizer/hf_tokenizer.h"

enum { CUT_BEFORE_BLANK = 1, CUT_BEFORE_NEWLINE = 2, CUT_AFTER_NEWLINE = 4, CUT_GPT2 = CUT_BEFORE_BLANK | CUT_BEFORE_NEWLINE };

extern const char gpt2_pattern[];

/* Rules of a tokenizer; with `added` tokens looked for in the text. 0: none. */
unsigned cut_rules(const struct hf_tokenizer *hf, bool added);

/* The first safe cut in text[0, size), with `back` bytes before it; the last one above 0 in well-formed text, or 0. */
bool cut_first(size_t *out, unsigned rules, const uint8_t *text, size_t size, size_t back);
size_t cut_last(unsigned rules, const uint8_t *text, size_t size);

#endif
