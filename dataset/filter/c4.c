/* C4's rules (Raffel et al. 2020, section 2.2): which lines of a page are kept, and which pages. What the paper leaves open follows the
 * code that made C4 (TensorFlow Datasets, text/c4_utils.py): a line loses its white space, an ellipsis is no end of a sentence. Not as
 * there:
 * - a page with "lorem ipsum" or a curly bracket is left out wherever they are, as the paper says; the code looks only at lines it keeps;
 * - a line may end in a typographic quotation mark, and in a citation marker behind its end mark;
 * - sentences are counted by their marks, not by a trained model (Punkt);
 * - the code's limit of 1000 characters to a word, which the paper does not have, is not there. */
#include <string.h>

#include "base/err.h"
#include "dataset/filter/quality.h"
#include "dataset/filter/words.h"

enum {
    WORDS_MIN = 5, SENTENCES_MIN = 3, /* "any page with fewer than 3 sentences and only retained lines that contained at least 5 words" */
};

static inline uint8_t lower(uint8_t byte) { return (uint8_t)(byte - 'A') < 26 ? byte | 0x20 : byte; }

/* In letters of any case. */
static inline bool begins(struct span text, const char *phrase) {
    size_t i = 0;
    while (phrase[i] && i < text.bytes && lower(text.begin[i]) == (uint8_t)phrase[i]) i++;
    return phrase[i] == 0;
}

/* "any page where the phrase 'lorem ipsum' appeared" */
static bool begins_placeholder(struct span text) { return lower(*text.begin) == 'l' && begins(text, "lorem ipsum"); }

/* "any line with the word Javascript"; "any lines containing the strings 'terms of use', 'privacy policy', ..." */
static bool begins_boilerplate(struct span text) {
    switch (lower(*text.begin)) {
    case 'j': return begins(text, "javascript");
    case 't': return begins(text, "terms of use");
    case 'p': return begins(text, "privacy policy");
    case 'c': return begins(text, "cookie policy");
    case 'u': return begins(text, "uses cookies") || begins(text, "use of cookies") || begins(text, "use cookies");
    default: return false;
    }
}

static inline bool anywhere(struct span text, bool (*begins_here)(struct span text)) {
    for (; text.bytes; text.begin++, text.bytes--)
        if (begins_here(text)) return true;
    return false;
}

/* Bytes of the citation marker that text begins with: "[1]", "[]", "[edit]", "[citation needed]". 0: none. */
static size_t citation_marker(struct span text) {
    if (span_begins(text, "[edit]")) return strlen("[edit]");
    if (span_begins(text, "[citation needed]")) return strlen("[citation needed]");
    size_t i = 1;
    while (i < text.bytes && text.begin[i] >= '0' && text.begin[i] <= '9') i++;
    return i < text.bytes && text.begin[i] == ']' ? i + 1 : 0;
}

/* Appends the line without citation markers. */
static int copy_line(struct buf *out, struct span line) {
    while (line.bytes) {
        const uint8_t *bracket = memchr(line.begin, '[', line.bytes);
        size_t plain = bracket ? (size_t)(bracket - line.begin) : line.bytes;
        TRY(buf_append(out, line.begin, plain));
        line = (struct span){line.begin + plain, line.bytes - plain};
        if (line.bytes == 0) break;
        size_t marker = citation_marker(line), taken = marker ? marker : 1;
        if (!marker) TRY(buf_append(out, line.begin, 1));
        line = (struct span){line.begin + taken, line.bytes - taken};
    }
    return 0;
}

/* "a terminal punctuation mark (i.e. a period, exclamation mark, question mark, or end quotation mark)" */
static bool is_kept(struct span line) {
    bool ends = span_ends(line, ".") || span_ends(line, "!") || span_ends(line, "?") || span_ends(line, "\"") || span_ends(line, "\u201D");
    if (!ends || span_ends(line, "...")) return false;
    struct word word;
    int words = 0;
    for (const uint8_t *at = line.begin; words < WORDS_MIN && word_next(&word, &at, line.begin + line.bytes);) words++;
    return words == WORDS_MIN && !anywhere(line, begins_boilerplate);
}

static bool is_end_mark(uint8_t byte) { return byte == '.' || byte == '!' || byte == '?'; }

static size_t closer(struct span word) {
    if (span_ends(word, "\"") || span_ends(word, "'") || span_ends(word, ")") || span_ends(word, "]")) return 1;
    return span_ends(word, "\u201D") || span_ends(word, "\u2019") ? 3 : 0;
}

/* Does a word end a sentence? Not an initial: "J.", "U.S." */
static bool ends_sentence(struct span word) {
    for (size_t size; (size = closer(word));) word.bytes -= size;
    size_t n = word.bytes;
    if (n == 0 || !is_end_mark(word.begin[n - 1])) return false;
    bool initial = word.begin[n - 1] == '.' && n >= 2 && (uint8_t)(word.begin[n - 2] - 'A') < 26 && (n == 2 || word.begin[n - 3] == '.');
    return !initial;
}

/* A sentence ends with a word that ends in a mark, before a word that is not in lower case, and at the end of the line. */
static uint64_t sentences_in(struct span line) {
    uint64_t sentences = 1;
    struct word word;
    bool ended = false;
    for (const uint8_t *at = line.begin; word_next(&word, &at, line.begin + line.bytes);) {
        if (ended && !((uint8_t)(word.span.begin[0] - 'a') < 26)) sentences++;
        ended = ends_sentence(word.span);
    }
    return sentences;
}

int quality_c4(struct verdict *out, struct buf *kept, const uint8_t *text, size_t bytes) {
    buf_clear(kept);
    TRY(buf_append(kept, "", 0)); /* so that an empty one is somewhere */
    if (memchr(text, '{', bytes)) return quality_left_out(out, "c4: curly_bracket", "there is a '{'");
    if (anywhere((struct span){text, bytes}, begins_placeholder))
        return quality_left_out(out, "c4: lorem_ipsum", "there is a \"lorem ipsum\"");
    uint64_t sentences = 0;
    struct span line;
    for (const uint8_t *at = text; line_next(&line, &at, text + bytes);) {
        size_t before = kept->size;
        if (before) TRY(buf_append(kept, "\n", 1));
        size_t begin = kept->size;
        TRY(copy_line(kept, line));
        const uint8_t *copy = kept->data + begin;
        if (kept->size == begin || !line_next(&line, &copy, kept->data + kept->size) || !is_kept(line)) {
            kept->size = before;
            continue;
        }
        sentences += sentences_in(line);
        memmove(kept->data + begin, line.begin, line.bytes);
        kept->size = begin + line.bytes;
    }
    if (sentences >= SENTENCES_MIN) return 1;
    return quality_left_out(out, "c4: sentences", "%llu sentences in lines that are kept; at least %d are wanted",
                            (unsigned long long)sentences, SENTENCES_MIN);
}
