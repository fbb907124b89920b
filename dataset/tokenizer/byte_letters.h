/* How byte-level tokenizers write bytes as text: the printable ones as themselves, the others as U+0100, U+0101, ... in ascending order, so
 * that no token holds a space or a control character (openai/gpt-2, bytes_to_unicode() in src/encoder.py). */
#ifndef MILLRACE_DATASET_BYTE_LETTERS_H
#define MILLRACE_DATASET_BYTE_LETTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LETTERS_END = 324 };  /* all letters are below */

static inline bool letter_is_itself(unsigned byte) {
    return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/* byte -> letter, letter -> byte or -1, and the bytes in the order of their letters, which is the order of ids in GPT-2. */
struct byte_letters {
    uint16_t letter[256];
    int16_t byte[LETTERS_END];
    uint8_t order[256];
};
const struct byte_letters *byte_letters(void);

/* Text to bytes. Returns how many bytes, or -1 when some character is no letter; out has room for `size`. */
ptrdiff_t byte_letters_read(uint8_t *out, const char *text, size_t size);

#endif
