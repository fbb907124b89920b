/* The table of letters, made once. */
#include "dataset/tokenizer/byte_letters.h"

#include <pthread.h>
#include <string.h>

#include "dataset/unicode/utf8.h"

static struct byte_letters table;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make(void) {
    unsigned others = 0, printable = 0;
    memset(table.byte, -1, sizeof table.byte);
    for (unsigned b = 0; b < 256; b++) {
        table.letter[b] = (uint16_t)(letter_is_itself(b) ? b : 256 + others++);
        table.byte[table.letter[b]] = (int16_t)b;
    }
    for (unsigned letter = 0; letter < LETTERS_END; letter++)
        if (table.byte[letter] >= 0) table.order[printable++] = (uint8_t)table.byte[letter];
}

const struct byte_letters *byte_letters(void) {
    pthread_once(&once, make);
    return &table;
}

ptrdiff_t byte_letters_read(uint8_t *out, const char *text, size_t size) {
    const struct byte_letters *letters = byte_letters();
    const uint8_t *p = (const uint8_t *)text, *end = p + size;
    ptrdiff_t count = 0;
    while (p < end) {
        int length = utf8_measure(p, (size_t)(end - p));
        if (length <= 0) return -1;
        uint32_t letter = utf8_character(p);
        if (letter >= LETTERS_END || letters->byte[letter] < 0) return -1;
        out[count++] = (uint8_t)letters->byte[letter];
        p += length;
    }
    return count;
}
