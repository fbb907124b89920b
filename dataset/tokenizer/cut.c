/* The rules of the patterns that are known, and the search for safe cuts. */
#include "dataset/tokenizer/cut.h"

#include <string.h>

#include "dataset/tokenizer/pretokenize.h"
#include "dataset/tokenizer/tokenizer.h"
#include "dataset/unicode/utf8.h"

const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

enum { CUT_NEWER = CUT_BEFORE_BLANK | CUT_AFTER_NEWLINE, CUT_ANY = CUT_NEWER | CUT_BEFORE_NEWLINE };

#define REST_OF_CL100K "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

static const struct {
    const char *regex;
    unsigned rules;
} known[] = {
    {gpt2_pattern, CUT_GPT2},
    /* cl100k, Llama 3; then Qwen 2; then cl100k as tiktoken wrote it later */
    {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" REST_OF_CL100K, CUT_NEWER},
    {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" REST_OF_CL100K, CUT_NEWER},
    {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
     CUT_NEWER},
    /* o200k */
    {"[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" CONTRACTIONS
     "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", CUT_NEWER},
    /* numbers apart, as a stage before another; DeepSeek's other two */
    {"\\p{N}", CUT_ANY}, {"\\p{N}+", CUT_ANY}, {"\\p{N}{1,3}", CUT_ANY},
    {"[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+", CUT_ANY},
    {"[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*"
     "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", CUT_NEWER},
};

static unsigned stage_rules(const struct hf_stage *stage) {
    if (!stage->regex) return CUT_GPT2;
    for (size_t i = 0; i < sizeof known / sizeof *known && !stage->literal; i++)
        if (strcmp(stage->regex, known[i].regex) == 0) return known[i].rules;
    return 0;
}

/* The rules that stay when that token is looked for: no cut inside of it, and none at white space that it takes. */
static unsigned token_rules(const struct hf_tokenizer *hf, const struct hf_added *a) {
    unsigned rules = a->rstrip ? 0 : a->lstrip ? CUT_GPT2 : CUT_ANY;
    const uint8_t *text = hf->text.data + a->first;
    for (uint32_t i = 0; i < a->size; i++) {
        if (i > 0 && text[i] == ' ' && text[i - 1] > ' ') rules &= ~(unsigned)CUT_BEFORE_BLANK;
        if (i > 0 && text[i] == '\n' && text[i - 1] > ' ') rules &= ~(unsigned)CUT_BEFORE_NEWLINE;
        if (text[i] == '\n' && i + 1 < a->size) rules &= ~(unsigned)CUT_AFTER_NEWLINE;
    }
    return rules;
}

unsigned cut_rules(const struct hf_tokenizer *hf, bool added) {
    unsigned rules = hf->stages ? CUT_ANY : 0; /* without a stage the whole text is one pre-token */
    for (size_t i = 0; i < hf->stages; i++) rules &= stage_rules(&hf->stage[i]);
    if (hf->stages && rules == 0) return 0;
    if (hf->add_prefix_space) rules &= CUT_BEFORE_BLANK; /* what begins with a blank gets none */
    for (size_t i = 0; i < hf->added_count && added; i++) rules &= token_rules(hf, &hf->added[i]);
    return rules;
}

/* Whether the `back` bytes before text end with a whole character that is not white space. Anything that begins like a character begins
 * one, whatever came before it, so four bytes are enough to know. */
static bool follows_word(const uint8_t *text, size_t back) {
    for (size_t n = 1; n <= back && n <= TOKENIZER_BACK_BYTES; n++) {
        if ((text[-(ptrdiff_t)n] & 0xC0) == 0x80) continue;
        return utf8_measure(text - n, n) == (int)n && char_class(utf8_character(text - n)) != CHAR_SPACE;
    }
    return false;
}

/* Whether a byte tells by itself that no white space and no '/' begins with it: longer white space begins with C2, E1, E2 or E3. */
static bool begins_word(uint8_t byte) {
    return byte > ' ' && byte != '/' && byte != 0x7F && byte != 0xC2 && byte != 0xE1 && byte != 0xE2 && byte != 0xE3;
}

static inline bool is_safe(unsigned rules, const uint8_t *text, size_t back) {
    if (text[0] == ' ') return (rules & CUT_BEFORE_BLANK) && follows_word(text, back);
    if (text[0] == '\n') return (rules & CUT_BEFORE_NEWLINE) && follows_word(text, back);
    return (rules & CUT_AFTER_NEWLINE) && back > 0 && text[-1] == '\n' && begins_word(text[0]);
}

bool cut_first(size_t *out, unsigned rules, const uint8_t *text, size_t size, size_t back) {
    for (size_t i = 0; i < size && rules; i++) {
        if (!is_safe(rules, text + i, back + i)) continue;
        *out = i;
        return true;
    }
    return false;
}

size_t cut_last(unsigned rules, const uint8_t *text, size_t size) {
    for (size_t i = size; rules && i-- > 1;)
        if (is_safe(rules, text + i, i)) return i;
    return 0;
}
