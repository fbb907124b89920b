/* Numbers and texts in the forms in which people read them. Short results lie in a ring of buffers of the calling thread, so that several
 * can be arguments of one printf(). plain_text() escapes what a terminal or a log must not get. */
#include "base/plain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXTS = 12, TEXT_BYTES = 48 };

static char *next_text(void) {
    static _Thread_local char ring[TEXTS][TEXT_BYTES];
    static _Thread_local unsigned next;
    return ring[next++ % TEXTS];
}

const char *text_count(uint64_t n) {
    char digits[TEXT_BYTES], *out = next_text(), *p = out;
    int size = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    for (int i = 0; i < size; i++) {
        if (i && (size - i) % 3 == 0) *p++ = ',';
        *p++ = digits[i];
    }
    *p = 0;
    return out;
}

const char *text_bytes(double bytes) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    int unit = 0;
    while (bytes >= 1000 && unit < 5) bytes /= 1000, unit++;
    char *out = next_text();
    snprintf(out, TEXT_BYTES, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

const char *text_seconds(double seconds) {
    char *out = next_text();
    long s = lround(seconds);
    if (s < 60) snprintf(out, TEXT_BYTES, "%ld s", s);
    else if (s < 3600) snprintf(out, TEXT_BYTES, "%ld min %02ld s", s / 60, s % 60);
    else snprintf(out, TEXT_BYTES, "%ld h %02ld min", s / 3600, s % 3600 / 60);
    return out;
}

const char *text_real(double value) {
    enum { DIGITS_MAX = 17 }; /* of any double */
    char *out = next_text();
    int digits = 0;
    if (value == floor(value) && fabs(value) < 1e15) snprintf(out, TEXT_BYTES, "%.0f", value);
    else do snprintf(out, TEXT_BYTES, "%.*g", ++digits, value);
        while (digits < DIGITS_MAX && strtod(out, NULL) != value);
    return out;
}

const char *text_perplexity(double loss, int decimals) {
    const double plain_max = 1e9; /* above it nobody reads digits */
    char *out = next_text();
    double perplexity = exp(loss);
    if (isnan(loss)) snprintf(out, TEXT_BYTES, "nan"); /* without its sign */
    else if (perplexity < plain_max) snprintf(out, TEXT_BYTES, "%.*f", decimals, perplexity);
    else snprintf(out, TEXT_BYTES, "%.4g", perplexity);
    return out;
}

const char *percent_text(double part, double all) {
    const double least = 0.0001, whole = 99.5; /* below the one %g has an exponent, above the other it would round to 100 */
    char *out = next_text();
    double percent = all > 0 ? 100 * part / all : 0;
    if (percent > 0 && percent < least) snprintf(out, TEXT_BYTES, "less than %g %%", least);
    else if (percent < whole) snprintf(out, TEXT_BYTES, "%.2g %%", percent);
    else if (part < all) snprintf(out, TEXT_BYTES, "%.1f %%", floor(10 * percent) / 10);
    else snprintf(out, TEXT_BYTES, "%.0f %%", percent);
    return out;
}

size_t utf8_decode(unsigned *out, const char *text, size_t size_bytes) {
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *s = (const unsigned char *)text;
    if (size_bytes == 0) return 0;
    size_t n = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    if (n == 0 || n > size_bytes) return 0;
    unsigned c = n == 1 ? s[0] : s[0] & (0xFFu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3F);
    }
    if (c < least[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return 0;
    *out = c;
    return n;
}

bool utf8_valid(const char *text) {
    size_t left = strlen(text), n;
    unsigned c;
    for (; left; text += n, left -= n)
        if ((n = utf8_decode(&c, text, left)) == 0) return false;
    return true;
}

/* C0 and C1 controls, line and paragraph separators, marks and overrides of direction, a byte order mark. */
static bool is_harmless(unsigned c) {
    if (c < 0x20 || (c >= 0x7F && c < 0xA0)) return false;
    return !(c >= 0x200E && c <= 0x200F) && !(c >= 0x2028 && c <= 0x202E) && !(c >= 0x2066 && c <= 0x2069) && c != 0xFEFF;
}

size_t plain_one(char out[PLAIN_ONE_BYTES], const char *text, size_t size_bytes, bool lines, size_t *out_bytes) {
    unsigned c;
    size_t n = utf8_decode(&c, text, size_bytes);
    *out_bytes = n ? n : 1;
    if (n == 0) return (size_t)snprintf(out, PLAIN_ONE_BYTES, "\\x%02X", (unsigned)(unsigned char)*text);
    if (is_harmless(c) || (lines && (c == '\n' || c == '\t'))) return memcpy(out, text, n), n;
    if (c == '\n') return (size_t)snprintf(out, PLAIN_ONE_BYTES, "\\n");
    return (size_t)snprintf(out, PLAIN_ONE_BYTES, c < 0x100 ? "\\x%02X" : "\\u%04X", c);
}

void plain_text(char *out, size_t room_bytes, const char *text, bool lines) {
    size_t used = 0, left = strlen(text), taken;
    for (; left > 0; text += taken, left -= taken) {
        char one[PLAIN_ONE_BYTES];
        size_t n = plain_one(one, text, left, lines, &taken);
        if (used + n >= room_bytes) break;
        memcpy(out + used, one, n);
        used += n;
    }
    out[used] = 0;
}

bool plain_is(const char *text) {
    unsigned c;
    for (size_t left = strlen(text), n; left > 0; text += n, left -= n)
        if ((n = utf8_decode(&c, text, left)) == 0 || !is_harmless(c)) return false;
    return true;
}
