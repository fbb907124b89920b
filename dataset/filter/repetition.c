/* Gopher's repetition rules (Rae et al. 2021, A1.1, "Repetition Removal", and Table A1): how much of a document says again what the
 * document has said. A unit is a paragraph, a line or a word; it is known by the hash of its bytes, and a run of n units by the n hashes.
 *
 * The paper's fractions as datatrove reads them: what is repeated counts from its second time on; characters of the n-gram that comes most
 * often are counted with the spaces in it and for each time it comes; duplicate n-grams of 5 to 10 are looked for from front to back, and
 * what one covers is passed over, so nothing counts twice. Not as there: lines have no white space around them and empty ones are none;
 * an n-gram that comes once is no repetition, however short the document. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/philox.h"
#include "dataset/filter/quality.h"
#include "dataset/filter/words.h"

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
static int judge_words(struct repetition *r, struct verdict *out, uint64_t characters, const struct policy_options *options) {
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
    return judge_words(repetition, out, characters, options);
}
