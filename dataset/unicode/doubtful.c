/* Counts ill-formed sequences against the text's size, and words the warning. */
#include "dataset/unicode/doubtful.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/plain.h"

enum {
    BYTES_A_SEQUENCE = 1000,
    SEQUENCES_LEAST = 10,    /* fewer may be a slip, or damage */
};

bool utf8_is_doubtful(uint64_t sequences, uint64_t bytes) {
    return sequences >= SEQUENCES_LEAST && sequences > bytes / BYTES_A_SEQUENCE;
}

char *utf8_doubtful_words(const char *place, uint64_t sequences, uint64_t bytes, uint64_t others) {
    size_t room = 6 * strlen(place) + 1; /* an escaped character is at most that long */
    char *plain = mem_alloc(room), *more = others ? mem_format(" (and %s other file%s)", text_count(others), plural(others)) : mem_text("");
    bool is_piped = strncmp(place, "standard input", 14) == 0 && (!place[14] || place[14] == '!');
    plain_text(plain, room, place, false);
    char *words = mem_format("%s%s: %s ill-formed UTF-8 sequence%s in %s byte%s of text (%s), each read as U+FFFD: it looks like " UTF8_ELSE
                             "; convert it: " UTF8_CONVERT " FILE %s",
                             plain, more, text_count(sequences), plural(sequences), text_count(bytes), plural(bytes),
                             percent_text((double)sequences, (double)bytes), is_piped ? "| millrace ..." : "> NEW");
    free(plain);
    free(more);
    return words;
}
