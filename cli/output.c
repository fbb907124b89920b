/* Standard output and JSON for every command. Keeps the first write error, because stdio forgets its reason. */
#include "cli/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "dataset/unicode/utf8.h"
#include "proto/steps.h"

static int lost; /* errno of the first failed write; 0: none */

static void flush(void) {
    errno = 0;
    if ((fflush(stdout) != 0 || ferror(stdout)) && !lost) lost = errno ? errno : EIO;
}

bool output_alive(void) {
    flush();
    return lost == 0;
}

void output_warn(char *words) {
    if (words) fprintf(stderr, "warning   %s\n", words);
    free(words);
}

char *output_idle_workers(int64_t workers, int64_t slices) {
    int64_t busy = workers > 0 ? (int64_t)slices_busy((size_t)workers, (uint32_t)slices) : 0;
    if (busy == workers) return NULL;
    return mem_format("%lld of %lld workers will have no slice to compute: %s", (long long)(workers - busy), (long long)workers,
                      workers > slices ? "they are more than training.slices" : "their number does not divide training.slices");
}

int output_finish(void) {
    flush();
    if (lost == 0 || lost == EPIPE) return 0;
    errno = lost;
    return err_errno("standard output");
}

void output_plain(FILE *out, const void *text, size_t size_bytes) {
    const char *at = text;
    for (size_t left = size_bytes, taken; left > 0; at += taken, left -= taken) {
        char one[PLAIN_ONE_BYTES];
        size_t n = plain_one(one, at, left, true, &taken);
        if (out == stdout) output_bytes(one, n);
        else fwrite(one, 1, n, out);
    }
}

void output_bytes(const void *bytes, size_t size_bytes) {
    if (size_bytes == 0) return; /* fwrite() must not see NULL */
    errno = 0;
    if (fwrite(bytes, 1, size_bytes, stdout) != size_bytes && !lost) lost = errno ? errno : EIO;
}

static int dump(const char *bytes, size_t size_bytes, void *arg) {
    (void)arg;
    output_bytes(bytes, size_bytes);
    return 0; /* output_finish() reports a failure */
}

int output_json(json_t *object) {
    enum { DIGITS = 15 }; /* what was written with as many comes out as it was: 7.54847751, not 7.5484775099999997 */
    CHECK(object != NULL);
    CHECK(json_dump_callback(object, dump, NULL, JSON_COMPACT | JSON_REAL_PRECISION(DIGITS)) == 0);
    json_decref(object);
    output_bytes("\n", 1);
    flush();
    return 0;
}

json_t *output_ending(int code) {
    int exit_code = err_exit_code(code);
    json_t *object = json_object();
    json_object_set_new(object, "state", json_string(exit_code == 130 ? "stopped" : exit_code == 2 ? "refused" : "failed"));
    json_object_set_new(object, "reason", output_json_text(err_text(), strlen(err_text())));
    return object;
}

void output_json_ending(int code) { output_json(output_ending(code)); }

char *output_word(const char *text) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-";
    if (*text && text[strspn(text, plain)] == 0) return mem_text(text);
    char *word = mem_alloc(4 * strlen(text) + 3), *at = word; /* a ' becomes '\'' */
    *at++ = '\'';
    for (; *text; text++)
        if (*text == '\'') at += sprintf(at, "'\\''");
        else *at++ = *text;
    *at++ = '\'';
    *at = 0;
    return word;
}

json_t *output_json_text(const void *bytes, size_t size_bytes) {
    struct buf clean = {0};
    struct utf8_replacer replacer = {0};
    size_t room = 3 * size_bytes + 2 * UTF8_REPLACE_ROOM; /* each byte becomes a U+FFFD at most */
    CHECK(buf_reserve(&clean, room) == 0);
    CHECK(utf8_replace(&replacer, clean.data, &clean.size, room, bytes, size_bytes) == size_bytes);
    clean.size += utf8_replace_end(&replacer, clean.data + clean.size);
    json_t *text = json_stringn((const char *)clean.data, clean.size);
    buf_free(&clean);
    CHECK(text != NULL);
    return text;
}

json_t *output_json_measured(double value) {
    char text[32];
    snprintf(text, sizeof text, "%.9g", value);
    return output_json_real(strtod(text, NULL));
}

json_t *output_json_real(double value) {
    json_t *number = json_real(value);
    return number ? number : json_null(); /* jansson has no NaN and no infinity, as JSON has none */
}
