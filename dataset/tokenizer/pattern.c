/* Translates a pattern from Oniguruma's syntax to PCRE2's, compiles it once, matches it. With PCRE2's JIT where the system allows it; the
 * results are the same without. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "dataset/tokenizer/pattern.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"

enum {
    JIT_STACK_BYTES = 1 << 15, JIT_STACK_BYTES_MAX = 8 << 20,
    HEAP_KIB_MAX = 64 << 10,   /* of a match without JIT */
    STEPS_MAX = 1 << 28,
    NAME_BYTES_MAX = 64,
};

struct pattern {
    pcre2_code *code;
};
struct matcher {
    const struct pattern *pattern;
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

/* ---- from Oniguruma's syntax to PCRE2's ---- */

struct translation {
    const char *regex, *at;
    struct buf *out;
    bool in_class;
};

static int refuse(const struct translation *t, const char *what) {
    return err_set(ERR_UNSUPPORTED, "the tokenizer's pattern %.200s: %s (character %zu) cannot be read exactly", t->regex, what,
                   (size_t)(t->at - t->regex));
}

static bool compiles(const char *regex) {
    int error;
    PCRE2_SIZE offset;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)regex, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &offset, NULL);
    pcre2_code_free(code);
    return code != NULL;
}

/* \p{Name}: of a script it is the script itself, not those characters that it shares with others. */
static int translate_property(struct translation *t) {
    const char *brace = t->at + 2, *close = strchr(brace, '}');
    if (*brace != '{' || !close || close - brace > NAME_BYTES_MAX) return refuse(t, "a property without a name in braces");
    bool inverted = brace[1] == '^';
    char *name = mem_format("%.*s", (int)(close - brace - 1 - inverted), brace + 1 + inverted);
    char *script = mem_format("\\p{sc:%s}", name);
    char letter = inverted ? (char)(t->at[1] ^ 'p' ^ 'P') : t->at[1];
    int code = buf_print(t->out, "\\%c{%s%s}", letter, compiles(script) ? "sc:" : "", name);
    free(name), free(script);
    t->at = close + 1;
    return code;
}

static int translate_escape(struct translation *t) {
    static const char same[] = "dDrntfaeAzx"; /* read alike */
    char c = t->at[1];
    const char *text = NULL;
    if (c == 'p' || c == 'P') return translate_property(t);
    if (c == 's') text = "\\p{White_Space}";
    else if (c == 'S') text = "\\P{White_Space}";
    else if (c == 'w' && t->in_class) text = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
    else if (c == 'w') text = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]";
    else if (c == 'W' && !t->in_class) text = "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]";
    else if (c == 'v') text = "\\x0B";
    t->at += 2;
    if (text) return buf_print(t->out, "%s", text);
    if (c == 'u' && strspn(t->at, "0123456789abcdefABCDEF") >= 4) {
        t->at += 4;
        return buf_print(t->out, "\\x{%.4s}", t->at - 4);
    }
    bool letter_or_digit = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    if (c == 0 || (letter_or_digit && !strchr(same, c))) {
        t->at -= 2;
        return refuse(t, "this escape");
    }
    return buf_append(t->out, t->at - 2, 2);
}

static int translate_one(struct translation *t) {
    const char *p = t->at;
    if (*p == '\\') return translate_escape(t);
    if (t->in_class) {
        if (*p == '&' && p[1] == '&') return refuse(t, "an intersection of sets");
        if (*p == '[') return refuse(t, "a set in a set");
        if (*p == ']') t->in_class = false;
    } else if (*p == '[') {
        t->in_class = true;
        size_t more = p[1] == '^';
        if (p[1 + more] == ']') return refuse(t, "a set that begins with ]");
        t->at += 1 + more;
        return buf_append(t->out, p, 1 + more);
    } else if (p[0] == '(' && p[1] == '?') {
        size_t flags = strspn(p + 2, "imx-");
        if (memchr(p + 2, 'm', flags) || memchr(p + 2, 'x', flags)) return refuse(t, "this option");
    } else if (p[0] == '{' && p[1] == ',') {
        return refuse(t, "a count without a beginning");
    } else if (p[0] == '}' && p[1] == '+') {
        return refuse(t, "a count that is possessive");
    }
    t->at++;
    return buf_append(t->out, p, 1);
}

static int translate(struct buf *out, const char *regex) {
    struct translation t = {.regex = regex, .at = regex, .out = out};
    while (*t.at) TRY(translate_one(&t));
    return 0;
}

/* ---- PCRE2 ---- */

static int compile(struct pattern *pattern, const char *regex, const struct buf *text, uint32_t options) {
    int error;
    PCRE2_SIZE offset;
    PCRE2_UCHAR message[128];
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    CHECK(context != NULL);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pattern->code = pcre2_compile(text->data ? text->data : (PCRE2_SPTR) "", text->size, options, &error, &offset, context);
    pcre2_compile_context_free(context);
    if (!pattern->code) {
        pcre2_get_error_message(error, message, sizeof message);
        return err_set(ERR_UNSUPPORTED, "the tokenizer's pattern %.200s: %s", regex, (const char *)message);
    }
    pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE); /* where there is none, it is slower */
    return 0;
}

int pattern_open(struct pattern **out, const char *regex, bool literal) {
    if (strlen(regex) > PATTERN_BYTES_MAX)
        return err_set(ERR_LIMIT, "the tokenizer's pattern has %zu bytes; at most %d", strlen(regex), PATTERN_BYTES_MAX);
    struct pattern *pattern = mem_alloc(sizeof *pattern);
    struct buf text = {0};
    int code = literal ? buf_append(&text, regex, strlen(regex)) : translate(&text, regex);
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE; /* in Ruby ^ and $ are of lines */
    if (code == 0) code = compile(pattern, regex, &text, literal ? PCRE2_UTF | PCRE2_LITERAL : options);
    buf_free(&text);
    if (code < 0) pattern_close(pattern);
    else *out = pattern;
    return code;
}

void pattern_close(struct pattern *pattern) {
    if (!pattern) return;
    pcre2_code_free(pattern->code);
    free(pattern);
}

int matcher_open(struct matcher **out, const struct pattern *pattern) {
    struct matcher *matcher = mem_alloc(sizeof *matcher);
    matcher->pattern = pattern;
    matcher->data = pcre2_match_data_create(1, NULL);
    matcher->context = pcre2_match_context_create(NULL);
    matcher->stack = pcre2_jit_stack_create(JIT_STACK_BYTES, JIT_STACK_BYTES_MAX, NULL);
    if (!matcher->data || !matcher->context) {
        matcher_close(matcher);
        return err_set(ERR_MEMORY, "out of memory for a pattern");
    }
    if (matcher->stack) pcre2_jit_stack_assign(matcher->context, NULL, matcher->stack);
    pcre2_set_heap_limit(matcher->context, HEAP_KIB_MAX);
    pcre2_set_match_limit(matcher->context, STEPS_MAX);
    pcre2_set_depth_limit(matcher->context, STEPS_MAX);
    *out = matcher;
    return 0;
}

void matcher_close(struct matcher *matcher) {
    if (!matcher) return;
    pcre2_match_data_free(matcher->data);
    pcre2_match_context_free(matcher->context);
    pcre2_jit_stack_free(matcher->stack);
    free(matcher);
}

int matcher_next(struct matcher *matcher, size_t *begin, size_t *end, const uint8_t *text, size_t size, size_t from) {
    const pcre2_code *code = matcher->pattern->code;
    int found = pcre2_match(code, text, size, from, PCRE2_NO_UTF_CHECK, matcher->data, matcher->context);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) /* without JIT the room is on the heap, and larger */
        found = pcre2_match(code, text, size, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, matcher->data, matcher->context);
    if (found == PCRE2_ERROR_NOMATCH) return 0;
    if (found < 0) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(found, message, sizeof message);
        return err_set(ERR_LIMIT, "the tokenizer's pattern gives up at byte %zu of a text of %zu: %s", from, size, (const char *)message);
    }
    const PCRE2_SIZE *borders = pcre2_get_ovector_pointer(matcher->data);
    *begin = borders[0], *end = borders[1];
    return 1;
}
