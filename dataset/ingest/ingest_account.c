/* The account of what an ingest reads (docs/FORMATS.md, "Account" and "Damage"): every byte of a member belongs to a document, is around
 * documents, or is left out for a reason. Called by dataset/ingest/ingest.c, which decides; counts into the table of the token run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "dataset/ingest/ingest_inside.h"

void account_left_out(struct ingest *in, const char *reason, const char *detail, uint64_t offset, uint64_t line, uint64_t bytes,
                      const uint8_t *text, size_t text_bytes) {
    struct token_run_left_out document = {reason, detail, in->part->name, in->member, offset, line, bytes, text, text_bytes};
    token_run_builder_drop(&in->table, &document);
}

/* The account of the member's bytes goes on to `offset`; what lay before that is nobody's text. */
void account_around(struct ingest *in, uint64_t offset) {
    CHECK(offset >= in->accounted);
    in->table.table.around_bytes += offset - in->accounted;
    in->table.table.read_bytes += offset - in->accounted;
    in->accounted = offset;
}

/* A mark counts in the run of what comes first behind it. */
void account_mark(struct ingest *in) {
    in->table.table.around_bytes += in->mark, in->table.table.read_bytes += in->mark;
    in->mark = 0;
}

/* The record's bytes; those that are not its text's are around it. */
void account_record(struct ingest *in, const struct record *record, uint64_t text_bytes) {
    account_around(in, record->offset);
    in->table.table.around_bytes += record->record_bytes - text_bytes;
    in->table.table.read_bytes += record->record_bytes;
    in->accounted += record->record_bytes;
}

void account_binary(struct ingest *in, const struct content *content, uint64_t size, const uint8_t *head, size_t bytes) {
    char detail[RECORDS_PREFIX_BYTES];
    bool packed = content->kind == CONTENT_PACKED;
    snprintf(detail, sizeof detail, "%s%s; %s", content->name, packed ? " under a name that does not say so" : "",
             packed ? "rename it" : content->advice);
    account_left_out(in, "binary", detail, 0, 0, size, head, bytes);
    in->table.table.read_bytes += size;
}

static void left_out_damaged(struct ingest *in, uint64_t offset, uint64_t bytes) {
    if (!in->member) in->member = mem_text("");
    account_left_out(in, in->damage_reason, in->damage, offset, 0, bytes, NULL, 0);
    in->table.table.read_bytes += bytes;
    free(in->damage);
    in->damage = NULL;
}

/* Leaves out what is lost to damage: `rest` bytes that came before it and are no whole record, and what lies behind it in the file. */
void account_damaged(struct ingest *in, uint64_t offset, uint64_t rest) {
    uint64_t used = in->unpack ? unpack_used(in->unpack) : in->part->begin;
    if (used < in->part->end) rest += in->part->end - used;
    left_out_damaged(in, offset, rest);
    in->broken = true;
}

/* The file's bytes have no sense from here on; err_text() says why. One that changed meanwhile is not damaged. */
int account_damage_found(struct ingest *in, enum unpack_fault fault) {
    const char *text = err_text(), *lead[] = {in->part->name, in->member ? in->member : ""};
    for (size_t i = 0; i < sizeof lead / sizeof *lead; i++) {
        size_t n = strlen(lead[i]);
        if (n > 0 && strncmp(text, lead[i], n) == 0 && strncmp(text + n, ": ", 2) == 0) text += n + 2;
    }
    in->damage = mem_text(text);
    in->damage_reason = fault == UNPACK_DAMAGED || fault == UNPACK_AROUND ? "damaged" : "unreadable";
    return ingest_check_part(in);
}

int account_passed(struct ingest *in, enum unpack_fault fault) {
    if (!in->member) in->member = mem_text(unpack_name(in->unpack));
    int code = account_damage_found(in, fault);
    /* a member that nobody can read may say of itself what it likes */
    uint64_t told = unpack_pass(in->unpack), most = in->part->size * UNPACKED_RATIO_MAX;
    left_out_damaged(in, 0, told < most ? told : most);
    free(in->member);
    in->member = NULL;
    return code;
}
