/* GPT-2's pattern as a scanner: where the first pre-token of a text ends.
 *
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * (openai/gpt-2, src/encoder.py), with Unicode's general categories L* and N* and its property White_Space. The pattern matches
 * everywhere, so the pre-tokens tile the text, and where one ends depends on what comes from its begin on, not on anything before it. */
#ifndef MILLRACE_DATASET_PRETOKENIZE_H
#define MILLRACE_DATASET_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum char_class { CHAR_OTHER, CHAR_LETTER, CHAR_NUMBER, CHAR_SPACE };
enum char_class char_class(uint32_t character);

enum {
    /* A pre-token is merged as a whole, so somebody has to hold it. Longer ones end at the last character border within this many bytes of
     * where they begin, and the pattern starts again there. Words, numbers and runs of spaces of that size are no language. */
    PRETOKEN_BYTES_MAX = 4 << 20,
    PRETOKEN_SENTINEL = 0xFF, /* occurs in no UTF-8: ends every loop over characters of a class without a look at the size */
};

/* Bytes of the first pre-token of text[0..size): well-formed UTF-8, size > 0, text[size] == PRETOKEN_SENTINEL. 0 when the pre-token may go
 * on behind text[size); never so when the text ends there (`final`) or when size > PRETOKEN_BYTES_MAX. */
size_t pretoken_measure(const uint8_t *text, size_t size, bool final);

#endif
