/* Which reasons are faults, and an account as text: the line of an error, and JSON. */
#include "dataset/ingest/left_out.h"

#include <inttypes.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "dataset/unicode/utf8.h"

/* All other reasons were asked for: filters, duplicates, limits of length, invalid_utf8: drop, weights. */
static const char *const faults[] = {"bad_record", "too_long", "binary", "damaged", "unreadable"};

bool left_out_is_fault(const char *reason) {
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        if (strcmp(reason, faults[i]) == 0) return true;
    return false;
}

int left_out_place(struct buf *out, const Millrace__Example *example) {
    if (example->line) return buf_print(out, "%s:%" PRIu64, example->source, example->line);
    return buf_print(out, "%s, byte %" PRIu64, example->source, example->offset);
}

/* ---- what stops a build ---- */

struct sums {
    uint64_t documents, bytes;
};

/* Of a fault's place and of its words in an error: what is cut is in the middle of a long path or behind the words, so that with a fault of
 * each kind there is room for what to do (ERR_TEXT_BYTES). */
enum { PLACE_SHOWN_BYTES = 400, DETAIL_SHOWN_BYTES = 200 };

/* Cuts at character borders. */
static int print_middle(struct buf *out, const char *text) {
    size_t size = strlen(text), head = PLACE_SHOWN_BYTES / 4;
    if (size <= PLACE_SHOWN_BYTES) return buf_print(out, "%s", text);
    size_t tail = size - (PLACE_SHOWN_BYTES - head);
    while (head > 0 && ((unsigned char)text[head] & 0xC0) == 0x80) head--;
    while (((unsigned char)text[tail] & 0xC0) == 0x80) tail++;
    return buf_print(out, "%.*s...%s", (int)head, text, text + tail);
}

int left_out_first(struct buf *out, const Millrace__Dropped *dropped) {
    if (dropped->n_examples == 0) return 0;
    const Millrace__Example *first = dropped->examples[0];
    TRY(buf_print(out, " (first: "));
    struct buf place = {0};
    int code = left_out_place(&place, first);
    if (code == 0) code = print_middle(out, (const char *)place.data);
    buf_free(&place);
    size_t shown = strlen(first->detail);
    if (shown > DETAIL_SHOWN_BYTES) shown = DETAIL_SHOWN_BYTES;
    while (shown > 0 && ((unsigned char)first->detail[shown] & 0xC0) == 0x80) shown--;
    return code < 0 ? code : buf_print(out, "%s%.*s)", shown ? ", " : "", (int)shown, first->detail);
}

static int print_fault(struct buf *out, const Millrace__Dropped *dropped) {
    TRY(buf_print(out, "%s%s %s", out->size ? ", " : "", dropped->reason, text_count(dropped->documents)));
    return left_out_first(out, dropped);
}

static bool is_more(uint64_t part, uint64_t all, double most) { return part > 0 && (double)part > most * (double)all; }

int left_out_check(const Millrace__Account *account, Millrace__Dropped *const *dropped, size_t drops, double most) {
    struct sums sum = {0};
    for (size_t i = 0; i < drops; i++)
        if (left_out_is_fault(dropped[i]->reason)) sum.documents += dropped[i]->documents, sum.bytes += dropped[i]->bytes;
    bool documents = is_more(sum.documents, account->read_documents, most), bytes = is_more(sum.bytes, account->read_bytes, most);
    if (!documents && !bytes) return 0;
    struct buf text = {0};
    int code = 0;
    for (size_t i = 0; i < drops && code == 0; i++)
        if (left_out_is_fault(dropped[i]->reason)) code = print_fault(&text, dropped[i]);
    uint64_t part = documents ? sum.documents : sum.bytes, all = documents ? account->read_documents : account->read_bytes;
    if (code == 0)
        code = err_set(ERR_CONFIG,
                       "%s of %s %s (%s) cannot be used, and dataset.max_left_out is %s: %s; fix the sources, "
                       "name other ones, or raise dataset.max_left_out to go on without them",
                       text_count(part), text_count(all), documents ? "documents" : "bytes", percent_text((double)part, (double)all),
                       text_real(most), (char *)text.data);
    buf_free(&text);
    return code;
}

/* ---- for programs ---- */

/* JSON of any bytes: paths need not be UTF-8. */
static json_t *any_text(const char *text) {
    size_t bytes = strlen(text), size = 0;
    const size_t room = 3 * bytes + 2 * UTF8_REPLACE_ROOM; /* each byte becomes a U+FFFD at most */
    uint8_t *valid = mem_alloc(room);
    struct utf8_replacer replacer = {0};
    utf8_replace(&replacer, valid, &size, room, (const uint8_t *)text, bytes);
    size += utf8_replace_end(&replacer, valid + size);
    json_t *json = json_stringn((const char *)valid, size);
    free(valid);
    return json;
}

static json_t *count(uint64_t value) { return json_integer((json_int_t)value); }

static json_t *first_json(const Millrace__Dropped *dropped) {
    struct buf place = {0};
    if (dropped->n_examples == 0 || left_out_place(&place, dropped->examples[0]) < 0) return json_null();
    const Millrace__Example *first = dropped->examples[0];
    json_t *object = json_object();
    json_object_set_new(object, "place", any_text((char *)place.data));
    json_object_set_new(object, "source", any_text(first->source));
    json_object_set_new(object, "offset", count(first->offset));
    json_object_set_new(object, "line", first->line ? count(first->line) : json_null());
    json_object_set_new(object, "detail", any_text(first->detail));
    buf_free(&place);
    return object;
}

json_t *left_out_json(const Millrace__Account *account, Millrace__Dropped *const *dropped, size_t drops) {
    json_t *object = json_object(), *list = json_array();
    if (account) {
        json_object_set_new(object, "read_documents", count(account->read_documents));
        json_object_set_new(object, "read_bytes", count(account->read_bytes));
        json_object_set_new(object, "kept_documents", count(account->kept_documents));
        json_object_set_new(object, "kept_bytes", count(account->kept_bytes));
        json_object_set_new(object, "changed_documents", count(account->changed_documents));
        json_object_set_new(object, "changed_bytes", count(account->changed_bytes));
        uint64_t empty = account->read_documents - account->kept_documents - account->changed_documents;
        for (size_t i = 0; i < drops; i++) empty -= dropped[i]->documents;
        json_object_set_new(object, "empty_documents", count(empty));
        json_object_set_new(object, "empty_bytes", count(account->empty_bytes));
        json_object_set_new(object, "around_bytes", count(account->around_bytes));
        json_object_set_new(object, "other_members", count(account->other_members));
    }
    for (size_t i = 0; i < drops; i++) {
        json_t *entry = json_object();
        json_object_set_new(entry, "reason", any_text(dropped[i]->reason));
        json_object_set_new(entry, "fault", json_boolean(left_out_is_fault(dropped[i]->reason)));
        json_object_set_new(entry, "documents", count(dropped[i]->documents));
        json_object_set_new(entry, "bytes", count(dropped[i]->bytes));
        json_object_set_new(entry, "first", first_json(dropped[i]));
        json_array_append_new(list, entry);
    }
    json_object_set_new(object, "left_out", list);
    return object;
}
