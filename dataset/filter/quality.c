/* Three filters that look at words and lines, in this order: Gopher's rules of quality, Gopher's rules of repetition, C4's. Only the second
 * keeps something between calls: struct repetition, arrays with an element for each word of a document, and a hash table of n-grams. */
#include "dataset/filter/quality.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/philox.h"
#include "dataset/filter/words.h"

/* ---- Gopher's rules of quality (Rae et al. 2021, arXiv 2112.11446, A1.1, "Quality Filtering") ---- */

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

/* ---- Gopher's rules of repetition ----
 *
 * Gopher's repetition rules (Rae et al. 2021, A1.1, "Repetition Removal", and Table A1): how much of a document says again what the
 * document has said. A unit is a paragraph, a line or a word; it is known by the hash of its bytes, and a run of n units by the n hashes.
 *
 * The paper's fractions as datatrove reads them: what is repeated counts from its second time on; characters of the n-gram that comes most
 * often are counted with the spaces in it and for each time it comes; duplicate n-grams of 5 to 10 are looked for from front to back, and
 * what one covers is passed over, so nothing counts twice. Not as there: lines have no white space around them and empty ones are none;
 * an n-gram that comes once is no repetition, however short the document. */

enum {
    NGRAM_MAX = 10,
    LINES_PERCENT_MAX = 30, LINE_CHARACTERS_PERCENT_MAX = 20, /* and the same for paragraphs */
    TOP_MIN = 2, TOP_MAX = 4, DUPLICATE_MIN = 5,
    TAG_SHIFT = 24, /* bits of the n-gram's key above its place: what else is in a chain is seldom looked at */
};
_Static_assert(POLICY_DOCUMENT_BYTES_MAX / 2 + 2 < 1 << TAG_SHIFT, "the place of any unit fits below the tag");
static const int top_percent_max[] = {[2] = 20, [3] = 18, [4] = 16};
static const int duplicate_percent_max[] = {[5] = 15, [6] = 14, [7] = 13, [8] = 12, [9] = 11, [10] = 10};
static const uint64_t MULTIPLIERS_KEY = 0x6E6772616D73; /* "ngrams" */

struct repetition {
    uint64_t multiplier[NGRAM_MAX];
    size_t units, capacity;
    uint64_t *hash;        /* of each unit */
    uint32_t *characters;
    uint32_t *count;       /* of an n-gram, at the unit where it was first */
    bool *repeats;         /* false: the n-gram that begins here comes once, and so does each longer one */
    size_t repeating;      /* how many are true */
    uint32_t *slot;        /* open addressing: tag << TAG_SHIFT | 1 + where an n-gram was first; 0: free */
    size_t slots;          /* in use: half again as many as repeat */
};

struct repetition *repetition_open(void) {
    struct repetition *r = mem_alloc(sizeof *r);
    for (unsigned n = 0; n < NGRAM_MAX; n++) {
        struct philox_block random = philox(MULTIPLIERS_KEY, 0, n);
        r->multiplier[n] = ((uint64_t)random.word[0] << 32 | random.word[1]) | 1;
    }
    return r;
}

static void release(struct repetition *r) {
    free(r->hash);
    free(r->characters);
    free(r->count);
    free(r->repeats);
    free(r->slot);
    r->hash = NULL;
    r->characters = r->count = r->slot = NULL;
    r->repeats = NULL;
    r->capacity = 0;
}

void repetition_close(struct repetition *repetition) {
    if (!repetition) return;
    release(repetition);
    free(repetition);
}

/* Room for the units of a text: every second byte at most begins one. What is not used is never touched, so it is no memory. */
static int make_room(struct repetition *r, size_t bytes) {
    size_t units = bytes / 2 + 1;
    if (units <= r->capacity) return 0;
    release(r);
    r->hash = malloc(units * sizeof *r->hash);
    r->characters = malloc(units * sizeof *r->characters);
    r->count = malloc(units * sizeof *r->count);
    r->repeats = malloc(units * sizeof *r->repeats);
    r->slot = malloc((units + units / 2 + 1) * sizeof *r->slot);
    if (!r->hash || !r->characters || !r->count || !r->repeats || !r->slot) {
        release(r);
        return err_set(ERR_MEMORY, "out of memory: %zu words of a document", units);
    }
    r->capacity = units;
    return 0;
}

static void add_unit(struct repetition *r, struct span unit, uint32_t characters) {
    CHECK(r->units < r->capacity);
    r->repeats[r->units] = true; /* for all that is known */
    r->hash[r->units] = xxh64_of(unit.begin, unit.bytes, 0);
    r->characters[r->units++] = characters;
    r->repeating = r->units;
}

/* ---- n-grams ---- */

static void forget(struct repetition *r) {
    r->slots = r->repeating + r->repeating / 2 + 1;
    memset(r->slot, 0, r->slots * sizeof *r->slot);
}

/* Of the n-gram of units [i, i + n). */
static uint64_t key_of(const struct repetition *r, size_t i, unsigned n) {
    uint64_t key = 0;
    for (unsigned k = 0; k < n; k++) key += r->hash[i + k] * r->multiplier[k];
    return key;
}

static size_t slot_of(const struct repetition *r, uint64_t key) { return (size_t)((unsigned __int128)key * r->slots >> 64); }

static size_t place_in(uint32_t slot) { return (slot & ((1u << TAG_SHIFT) - 1)) - 1; }

/* Where the n-gram of units [i, i + n) was first; i: here. */
static size_t first_place(struct repetition *r, size_t i, unsigned n) {
    uint64_t key = key_of(r, i, n);
    size_t s = slot_of(r, key);
    uint32_t tag = (uint32_t)key << TAG_SHIFT;
    for (; r->slot[s]; s = s + 1 == r->slots ? 0 : s + 1) {
        if ((r->slot[s] ^ tag) >> TAG_SHIFT) continue;
        size_t first = place_in(r->slot[s]);
        if (r->hash[first] == r->hash[i] && memcmp(r->hash + first, r->hash + i, n * sizeof *r->hash) == 0) return first;
    }
    r->slot[s] = tag | ((uint32_t)i + 1);
    return i;
}

static uint64_t characters_of(const struct repetition *r, size_t i, unsigned n) {
    uint64_t sum = 0;
    for (unsigned k = 0; k < n; k++) sum += r->characters[i + k];
    return sum;
}

/* Characters of n-grams that were there before, without those that overlap; *out_repeats: how many. */
static uint64_t repeated(struct repetition *r, unsigned n, uint64_t *out_repeats) {
    uint64_t characters = 0;
    *out_repeats = 0;
    forget(r);
    for (size_t i = 0; i + n <= r->units;) {
        if (!r->repeats[i] || first_place(r, i, n) == i) {
            i++;
            continue;
        }
        characters += characters_of(r, i, n);
        ++*out_repeats;
        i += n;
    }
    return characters;
}

/* Characters of the n-gram that comes most often (of several the first), all times together; *out_times: how often, 0 if none comes twice.
 * Which n-grams come once is known from then on: nearly all, so that this is most of the work, and longer n-grams are little. */
static uint64_t most_frequent(struct repetition *r, unsigned n, uint32_t *out_times) {
    size_t best = 0, repeating = 0;
    *out_times = 0;
    forget(r);
    for (size_t i = 0; i + n <= r->units; i++) {
        if (!r->repeats[i]) continue;
        size_t first = first_place(r, i, n);
        r->repeats[i] = first != i;
        if (first == i) {
            r->count[i] = 1;
            continue;
        }
        uint32_t times = ++r->count[first];
        r->repeats[first] = true;
        repeating += times == 2 ? 2 : 1;
        if (times < *out_times || (times == *out_times && first > best)) continue;
        best = first;
        *out_times = times;
    }
    r->repeating = repeating;
    return *out_times ? (characters_of(r, best, n) + n - 1) * *out_times : 0;
}

/* ---- Rules ---- */

static int judge(struct verdict *out, const char *name, int n, uint64_t part, uint64_t whole, int percent_max) {
    if (100 * part <= (uint64_t)percent_max * whole) return 1;
    char reason[POLICY_REASON_BYTES];
    snprintf(reason, sizeof reason, name, n);
    return quality_left_out(out, reason, "%llu of %llu; at most %d %% are wanted", (unsigned long long)part, (unsigned long long)whole,
                            percent_max);
}

static int judge_units(struct repetition *r, struct verdict *out, const char *unit, uint64_t characters) {
    uint64_t repeats, covered = repeated(r, 1, &repeats);
    char name[POLICY_REASON_BYTES];
    snprintf(name, sizeof name, "gopher_repetition: %ss", unit);
    if (judge(out, name, 0, repeats, r->units, LINES_PERCENT_MAX) == 0) return 0;
    snprintf(name, sizeof name, "gopher_repetition: %s_characters", unit);
    return judge(out, name, 0, covered, characters, LINE_CHARACTERS_PERCENT_MAX);
}

static void take_lines(struct repetition *r, const uint8_t *text, size_t bytes) {
    struct span line;
    r->units = 0;
    for (const uint8_t *at = text; line_next(&line, &at, text + bytes);)
        if (line.bytes) add_unit(r, line, (uint32_t)characters_in(line.begin, line.bytes));
}

/* Lines without an empty one between them. */
static void take_paragraphs(struct repetition *r, const uint8_t *text, size_t bytes) {
    struct span line, paragraph = {0};
    r->units = 0;
    for (const uint8_t *at = text, *end = text + bytes; paragraph.bytes || at < end;) {
        bool more = line_next(&line, &at, end);
        if (more && line.bytes) {
            if (!paragraph.bytes) paragraph.begin = line.begin;
            paragraph.bytes = (size_t)(line.begin + line.bytes - paragraph.begin);
        } else if (paragraph.bytes) {
            add_unit(r, paragraph, (uint32_t)characters_in(paragraph.begin, paragraph.bytes));
            paragraph.bytes = 0;
        }
    }
}

static void take_words(struct repetition *r, const uint8_t *text, size_t bytes) {
    struct word word;
    r->units = 0;
    for (const uint8_t *at = text; word_next(&word, &at, text + bytes);) add_unit(r, word.span, word.characters);
}

/* Where no n-gram comes twice, no longer one does. Those of DUPLICATE_MIN are gone through for that alone. */
static int judge_repeated_words(struct repetition *r, struct verdict *out, uint64_t characters, const struct policy_options *options) {
    for (int n = TOP_MIN; n <= DUPLICATE_MIN; n++) {
        uint32_t times;
        TRY(policy_tick(options));
        uint64_t covered = most_frequent(r, (unsigned)n, &times);
        if (times == 0) return 1;
        if (n <= TOP_MAX && judge(out, "gopher_repetition: top_%d_gram", n, covered, characters, top_percent_max[n]) == 0) return 0;
    }
    for (int n = DUPLICATE_MIN; n <= NGRAM_MAX; n++) {
        TRY(policy_tick(options));
        uint64_t repeats, covered = repeated(r, (unsigned)n, &repeats);
        if (repeats == 0) return 1;
        if (judge(out, "gopher_repetition: duplicate_%d_grams", n, covered, characters, duplicate_percent_max[n]) == 0) return 0;
    }
    return 1;
}

int quality_repetition(struct repetition *repetition, struct verdict *out, const uint8_t *text, size_t bytes,
                       const struct policy_options *options) {
    TRY(make_room(repetition, bytes));
    uint64_t characters = characters_in(text, bytes);
    take_paragraphs(repetition, text, bytes);
    if (judge_units(repetition, out, "paragraph", characters) == 0) return 0;
    TRY(policy_tick(options));
    take_lines(repetition, text, bytes);
    if (judge_units(repetition, out, "line", characters) == 0) return 0;
    TRY(policy_tick(options));
    take_words(repetition, text, bytes);
    return judge_repeated_words(repetition, out, characters, options);
}

/* ---- C4's rules ----
 *
 * C4's rules (Raffel et al. 2020, section 2.2): which lines of a page are kept, and which pages. What the paper leaves open follows the
 * code that made C4 (TensorFlow Datasets, text/c4_utils.py): a line loses its white space, an ellipsis is no end of a sentence. Not as
 * there:
 * - a page with "lorem ipsum" or a curly bracket is left out wherever they are, as the paper says; the code looks only at lines it keeps;
 * - a line may end in a typographic quotation mark, and in a citation marker behind its end mark;
 * - sentences are counted by their marks, not by a trained model (Punkt);
 * - the code's limit of 1000 characters to a word, which the paper does not have, is not there. */

enum {
    /* "any page with fewer than 3 sentences and only retained lines that contained at least 5 words" */
    LINE_WORDS_MIN = 5, SENTENCES_MIN = 3,
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
    for (const uint8_t *at = line.begin; words < LINE_WORDS_MIN && word_next(&word, &at, line.begin + line.bytes);) words++;
    return words == LINE_WORDS_MIN && !anywhere(line, begins_boilerplate);
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
