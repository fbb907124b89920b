/* Gopher's quality rules: what a look at words and lines tells (Rae et al. 2021, A1.1, "Quality Filtering"). */
#include "dataset/filter/quality.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "dataset/filter/words.h"

enum {
    /* "any document that does not contain between 50 and 100,000 words, or whose mean word length is outside the range of 3 to 10" */
    WORDS_MIN = 50, WORDS_MAX = 100000, WORD_LENGTH_MIN = 3, WORD_LENGTH_MAX = 10,
    /* "a symbol-to-word ratio greater than 0.1 for either the hash symbol or the ellipsis" */
    SYMBOLS_PERCENT_MAX = 10,
    /* "more than 90% of lines starting with a bullet point, or more than 30% ending with an ellipsis" */
    BULLETS_PERCENT_MAX = 90, ELLIPSIS_LINES_PERCENT_MAX = 30,
    /* "80% of words in a document contain at least one alphabetic character" */
    LETTERS_PERCENT_MIN = 80,
    /* "at least two of the following English words: the, be, to, of, and, that, have, with" */
    STOP_WORDS_MIN = 2,
};
static const char stop_words[][4] = {"the", "be", "to", "of", "and", "that", "have", "with"};
#define ELLIPSIS "\u2026"

int quality_left_out(struct verdict *out, const char *reason, const char *format, ...) {
    snprintf(out->reason, sizeof out->reason, "%s", reason);
    va_list args;
    va_start(args, format);
    vsnprintf(out->detail, sizeof out->detail, format, args);
    va_end(args);
    return 0;
}

struct counts {
    uint64_t words, characters, with_letter; /* characters: of words */
    uint64_t hashes, ellipses;
    uint64_t lines, bullet_lines, ellipsis_lines;
    unsigned stop_words;                     /* bits: which were there */
};

static unsigned stop_word(struct span word) {
    if (word.bytes < 2 || word.bytes > sizeof *stop_words) return 0;
    char bytes[sizeof *stop_words] = {0};
    for (size_t i = 0; i < word.bytes; i++) bytes[i] = (char)word.begin[i];
    for (unsigned i = 0; i < sizeof stop_words / sizeof *stop_words; i++)
        if (memcmp(stop_words[i], bytes, sizeof bytes) == 0) return 1u << i;
    return 0;
}

static void count_words(struct counts *counts, const uint8_t *text, size_t bytes) {
    struct word word;
    for (const uint8_t *at = text; word_next(&word, &at, text + bytes);) {
        counts->words++;
        counts->characters += word.characters;
        counts->with_letter += word.has_letter;
        counts->stop_words |= stop_word(word.span);
    }
}

static uint64_t occurrences(const uint8_t *text, size_t bytes, const char *what) {
    const uint8_t *end = text + bytes;
    size_t size = strlen(what);
    uint64_t count = 0;
    while ((text = memchr(text, what[0], (size_t)(end - text)))) {
        bool found = (size_t)(end - text) >= size && memcmp(text, what, size) == 0;
        count += found;
        text += found ? size : 1;
    }
    return count;
}

/* Datatrove knows the first and the last but one of these. */
static bool begins_with_bullet(struct span line) {
    return span_begins(line, "\u2022") || span_begins(line, "\u2023") || span_begins(line, "\u25E6") || span_begins(line, "\u25AA") ||
           span_begins(line, "-") || span_begins(line, "*");
}

static void count_lines(struct counts *counts, const uint8_t *text, size_t bytes) {
    struct span line;
    for (const uint8_t *at = text; line_next(&line, &at, text + bytes);) {
        counts->lines++;
        counts->bullet_lines += begins_with_bullet(line);
        counts->ellipsis_lines += span_ends(line, "...") || span_ends(line, ELLIPSIS);
    }
}

static int judge_words(struct verdict *out, const struct counts *counts) {
    unsigned long long words = counts->words, characters = counts->characters;
    if (words < WORDS_MIN || words > WORDS_MAX)
        return quality_left_out(out, "gopher_quality: words", "%llu words; %d to %d are wanted", words, WORDS_MIN, WORDS_MAX);
    if (characters < WORD_LENGTH_MIN * words || characters > WORD_LENGTH_MAX * words)
        return quality_left_out(out, "gopher_quality: word_length", "%llu characters in %llu words; %d to %d for each are wanted",
                                characters, words, WORD_LENGTH_MIN, WORD_LENGTH_MAX);
    if (100 * counts->with_letter < LETTERS_PERCENT_MIN * words)
        return quality_left_out(out, "gopher_quality: letters", "%llu of %llu words have a letter; %d %% are wanted",
                                (unsigned long long)counts->with_letter, words, LETTERS_PERCENT_MIN);
    int found = __builtin_popcount(counts->stop_words);
    if (found < STOP_WORDS_MIN)
        return quality_left_out(out, "gopher_quality: stop_words", "%d of the be to of and that have with; %d are wanted", found,
                                STOP_WORDS_MIN);
    return 1;
}

static int judge_share(struct verdict *out, const char *reason, uint64_t part, const char *what, uint64_t whole, int percent_max) {
    if (100 * part <= (uint64_t)percent_max * whole) return 1;
    return quality_left_out(out, reason, "%llu %s %llu; at most %d %% are wanted", (unsigned long long)part, what,
                            (unsigned long long)whole, percent_max);
}

int quality_gopher(struct verdict *out, const uint8_t *text, size_t bytes) {
    struct counts counts = {0};
    count_words(&counts, text, bytes);
    if (judge_words(out, &counts) == 0) return 0;
    counts.hashes = occurrences(text, bytes, "#");
    counts.ellipses = occurrences(text, bytes, "...") + occurrences(text, bytes, ELLIPSIS);
    count_lines(&counts, text, bytes);
    return judge_share(out, "gopher_quality: hashes", counts.hashes, "'#' to words:", counts.words, SYMBOLS_PERCENT_MAX) &&
           judge_share(out, "gopher_quality: ellipses", counts.ellipses, "ellipses to words:", counts.words, SYMBOLS_PERCENT_MAX) &&
           judge_share(out, "gopher_quality: bullets", counts.bullet_lines, "lines with a bullet, of", counts.lines,
                       BULLETS_PERCENT_MAX) &&
           judge_share(out, "gopher_quality: ellipsis_lines", counts.ellipsis_lines, "lines end with an ellipsis, of", counts.lines,
                       ELLIPSIS_LINES_PERCENT_MAX);
}
