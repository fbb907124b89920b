/* Goes through a job's parts, their members and their records, one after the other, and stops where a token run is full.
 *
 * A struct ingest (dataset/ingest/ingest_inside.h) always is before the first record that was found and not used, in->record; so an ingest
 * that stays open goes on there with the next job, and a fresh one skips to there. ingest_run() makes one token run: next_record() opens
 * parts and members as needed and finds the record, then the record is judged and encoded, or counted as left out. Finding records, judging
 * and encoding are in dataset/ingest/records.c, dataset/filter/policy.c and dataset/ingest/encode.c.
 *
 * Threads: one, the caller's. */
#include "dataset/ingest/ingest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/plain.h"
#include "dataset/ingest/ingest_inside.h"
#include "dataset/ingest/members.h"
#include "dataset/ingest/token_run.h"
#include "proto/body.h"

enum {
    STREAM_READ_BYTES = 1 << 18,
    BORDER_READ_BYTES = 1 << 12, /* asked for behind a part's end, where its last record nearly always ends; then eight times as much */
    JUDGED_RECORDS = 1000, JUDGED_RECORDS_MIN = 16,
};

/* ---- opening ------------------------------------------------------------------------------------------------------------------------- */

static int corrupt_part(const Millrace__SourcePart *part, const char *what) {
    return err_set(ERR_CORRUPT, "%s, bytes %llu to %llu of %llu: %s", part->name, (unsigned long long)part->begin,
                   (unsigned long long)part->end, (unsigned long long)part->size, what);
}

static int check_range(const struct ingest *in, const Millrace__SourcePart *part) {
    uint64_t block = in->options.block_bytes;
    if (part->group >= in->options.group_count) return corrupt_part(part, "its entry of dataset.sources is not there");
    if (part->begin > part->end || part->end > part->size) return corrupt_part(part, "not a part of a file");
    if (part->stream) return part->members > 0 || part->first_member == 0 ? 0 : corrupt_part(part, "not a range of members");
    if (part->begin == part->end && part->size > 0) return corrupt_part(part, "an empty part");
    if (part->begin % block != 0 || (part->end % block != 0 && part->end != part->size))
        return corrupt_part(part, "its borders are not those of blocks");
    return 0;
}

int ingest_open(struct ingest **out, const struct ingest_options *options, const Millrace__TokenizeJob *job) {
    CHECK(options->text_bytes > 0);
    struct ingest *in = mem_alloc(sizeof *in);
    in->options = *options;
    if (options->block_bytes == 0) in->options.block_bytes = RUN_BLOCK_BYTES;
    if (options->run_bytes == 0) in->options.run_bytes = TOKEN_RUN_BYTES_MAX;
    in->next = (Millrace__Place)MILLRACE__PLACE__INIT;
    struct encode_options encode = {options->tokenizer, options->token_bytes, in->options.block_bytes, options->tick, options->arg};
    int code = body_copy(&in->job, &job->base);
    for (size_t i = 0; code == 0 && i < in->job->n_parts; i++) code = check_range(in, in->job->parts[i]);
    if (code == 0 && job->from && job->from->part >= job->n_parts) code = err_set(ERR_CORRUPT, "a job that goes on behind its parts");
    struct policy_options policy = options->policy;
    policy.tick = options->tick, policy.tick_arg = options->arg;
    if (code == 0) code = policy_open(&in->policy, &policy);
    if (code < 0) {
        ingest_close(in);
        return code;
    }
    in->encode = encode_open(&encode);
    in->judges = policy_sees_whole(in->policy);
    if (job->from) {
        in->next.part = in->part_number = job->from->part;
        in->next.member = in->skip_members = job->from->member;
        in->next.documents = in->skip_documents = job->from->documents;
        in->next.text = in->skip_text = job->from->text;
        in->catching_up = true;
    }
    *out = in;
    return 0;
}

static void member_end(struct ingest *in) {
    records_close(in->records);
    free(in->member);
    in->records = NULL, in->member = NULL;
    in->has_record = in->in_document = in->at_block_border = in->counting = false;
    in->members++;
    in->member_documents = 0;
}

static void part_end(struct ingest *in) {
    member_end(in);
    free(in->damage);
    in->damage = NULL, in->broken = false;
    unpack_close(in->unpack);
    in->unpack = NULL;
    in->options.close(in->options.arg, &in->reader);
    in->part_open = false;
    in->part_number++;
    in->members = 0;
}

void ingest_close(struct ingest *in) {
    if (!in) return;
    if (in->part_open) part_end(in);
    encode_close(in->encode);
    policy_close(in->policy);
    buf_free(&in->first);
    free(in->raw);
    if (in->job) millrace__tokenize_job__free_unpacked(in->job, NULL);
    free(in);
}

bool ingest_continues(const struct ingest *in, const Millrace__TokenizeJob *job) {
    static const Millrace__Place beginning = MILLRACE__PLACE__INIT;
    const Millrace__Place *from = job->from ? job->from : &beginning, *here = &in->next;
    if (in->failed || in->done || from->part != here->part || from->member != here->member || from->documents != here->documents ||
        from->text != here->text)
        return false;
    Millrace__TokenizeJob parts[2] = {*job, *in->job};
    struct buf packed[2] = {{0}, {0}};
    bool same = true;
    for (int i = 0; i < 2; i++) {
        parts[i].from = NULL;
        same = same && body_pack(&packed[i], &parts[i].base) == 0;
    }
    same = same && packed[0].size == packed[1].size && memcmp(packed[0].data, packed[1].data, packed[0].size) == 0;
    buf_free(&packed[0]), buf_free(&packed[1]);
    return same;
}

/* ---- parts and members --------------------------------------------------------------------------------------------------------------- */

static int tick(const struct ingest *in) {
    if (in->options.tick && in->options.tick(in->options.arg) != 0) return err_set(ERR_INTERRUPTED, "tokenizing was stopped");
    return 0;
}

/* What reads the file may have named it. */
static int add_where(int code, const struct ingest *in) {
    if (strncmp(err_text(), in->part->name, strlen(in->part->name)) == 0) return code;
    return err_add(code, "%s%s%s", in->part->name, in->member && *in->member ? "!" : "", in->member ? in->member : "");
}

static int changed(const struct ingest *in) {
    return err_set(ERR_CORRUPT, "%s changed while it was read; start the run again", in->part->name);
}

/* A file that changes under the reader's hands may look damaged: then that is the reason. */
static int blame(struct ingest *in, int code) {
    if (!in->part_open || code == ERR_INTERRUPTED) return code;
    struct err before = err_take();
    if (ingest_check_part(in) == ERR_CORRUPT) return ERR_CORRUPT;
    err_give(&before);
    return code;
}

static bool is_plain_text(enum source_format format, const struct source_group *group) {
    return format == FORMAT_TEXT && !(group->separator && *group->separator);
}

/* What a file is that is to be read as it lies, by its beginning. Of a part of one that is divided it was seen before
 * (dataset/ingest/tokenize_jobs.h). */
static int look(struct ingest *in) {
    const struct source_group *group = in->group;
    size_t got = 0, want = in->part->size < READER_BYTES_MAX ? (size_t)in->part->size : READER_BYTES_MAX;
    buf_clear(&in->first);
    TRY(buf_reserve(&in->first, want));
    if (want > 0) TRY(in->reader.read(in->reader.arg, in->first.data, &got, want, 0));
    if (got < want) return changed(in);
    in->first.size = got;
    in->content = content_of(in->first.data, got);
    bool text = is_plain_text(records_format(in->part->name, group), group);
    return content_is_stream(in->content.kind, text);
}

/* As unpack_read(), but that a member is at its end where damage begins. */
static int read_packed(struct ingest *in, uint8_t *out, size_t *out_got, size_t size_bytes) {
    *out_got = 0;
    if (in->damage) return 0;
    int code = unpack_read(in->unpack, out, out_got, size_bytes);
    if (code == 0) return 0;
    enum unpack_fault fault = unpack_fault(in->unpack);
    return fault == UNPACK_DAMAGED || fault == UNPACK_REFUSED ? account_damage_found(in, fault) : code;
}

static int part_begin(struct ingest *in) {
    in->part = in->job->parts[in->part_number];
    in->group = &in->options.groups[in->part->group];
    in->used = in->fed = 0;
    TRY(in->options.open(in->options.arg, &in->reader, in->part));
    in->part_open = true;
    if (in->reader.size != in->part->size) return changed(in);
    bool whole = in->part->begin == 0 && in->part->end == in->part->size;
    int stream = in->part->stream;
    in->content = (struct content){.kind = CONTENT_TEXT};
    in->first.size = 0;
    if (!stream && whole) TRY(stream = look(in));
    if (!stream) {
        in->table.table.range_begin = in->part->begin; /* such a part is its job's only one */
        return 0;
    }
    enum unpack_fault fault;
    int code = unpack_open_at(&in->unpack, &fault, &in->reader, in->part->first_member, in->part->members, in->part->begin);
    if (code < 0 && fault != UNPACK_SOUND) return account_damage_found(in, fault);
    TRY(code);
    unpack_tick(in->unpack, in->options.tick, in->options.arg);
    if (in->part->end == in->part->size) unpack_to_end(in->unpack);
    return 0;
}

/* Bytes of the member that is open that became documents, or lie before the next one. */
static uint64_t member_done(const struct ingest *in) {
    if (in->in_pieces) return in->has_record ? in->record.offset : in->at;
    return in->counting ? in->accounted : 0;
}

/* How much of the part's file was used, for progress and for scaling: of what was unpacked, the share that became documents. */
static uint64_t part_used(const struct ingest *in) {
    const Millrace__SourcePart *part = in->part;
    uint64_t whole = part->end - part->begin, at = in->unpack ? unpack_used(in->unpack) : member_done(in);
    if (in->unpack && in->records && in->fed > 0) {
        uint64_t done = member_done(in), ahead = in->member_fed > done ? in->member_fed - done : 0;
        uint64_t taken = at > part->begin ? at - part->begin : 0;
        at = part->begin + (uint64_t)((double)taken * (double)(in->fed - ahead) / (double)in->fed);
    }
    uint64_t used = at > part->begin ? at - part->begin : 0;
    return used < whole ? used : whole;
}

static void tell_used(struct ingest *in, uint64_t used) {
    if (used > in->used && !in->catching_up) in->source_bytes += used - in->used;
    if (used > in->used) in->used = used;
}

/* A member that begins with head[bytes] is no text: counts it. */
static int pass_binary(struct ingest *in, const struct content *content, const uint8_t *head, size_t bytes) {
    uint8_t *rest = mem_alloc(STREAM_READ_BYTES);
    uint64_t size = bytes;
    int code = 0;
    for (size_t got = 1; got > 0 && code == 0; size += got) {
        got = 0;
        code = tick(in);
        if (code == 0) code = read_packed(in, rest, &got, STREAM_READ_BYTES);
    }
    if (code == 0) account_binary(in, content, size, head, bytes);
    free(rest);
    return code;
}

/* Bytes of the member, as they came: to the records as UTF-8. */
static int member_feed(struct ingest *in, const uint8_t *bytes, size_t size) {
    uint8_t *room;
    TRY(records_room(in->records, &room, in->is_utf16 ? utf16_room(size) : size));
    if (in->is_utf16) size = utf16_to_utf8(&in->utf16, room, bytes, size);
    else memcpy(room, bytes, size);
    in->fed += size, in->member_fed += size;
    records_fed(in->records, size);
    return 0;
}

static int member_open(struct ingest *in, const struct content *content, const uint8_t *head, size_t head_bytes) {
    const struct source_group *group = in->group;
    struct records_options options = {.field = group->field, .separator = group->separator, .whole = in->judges, .end = UINT64_MAX};
    options.format = records_format(*in->member ? in->member : in->part->name, group);
    bool plain_text = is_plain_text(options.format, group);
    in->is_text = plain_text;
    in->in_pieces = plain_text && !in->judges;
    in->seeks_cut = false;
    in->text_from = in->skip_text;
    if (!in->unpack) {
        if (options.format == FORMAT_JSON || options.format == FORMAT_CSV || options.format == FORMAT_TSV)
            return corrupt_part(in->part, "records of this format cannot be found from the middle");
        if (plain_text && in->judges && in->part->end - in->part->begin < in->part->size)
            return corrupt_part(in->part, "the policy has to see the whole document");
        if (!plain_text) options.begin = in->part->begin, options.end = in->part->end;
        if (in->in_pieces && in->text_from == 0) in->text_from = in->part->begin, in->seeks_cut = in->text_from > 0;
        if (in->in_pieces && in->text_from > TOKENIZER_BACK_BYTES) options.begin = in->text_from - TOKENIZER_BACK_BYTES;
    }
    in->skip_text = 0;
    in->records_seen = in->records_bad = 0;
    memset(in->bad_kind, 0, sizeof in->bad_kind);
    in->member_fed = 0;
    in->border_read = BORDER_READ_BYTES;
    encode_reset(in->encode);
    TRY(records_open(&in->records, &options));
    in->at = records_from(in->records);
    in->is_utf16 = content->kind == CONTENT_UTF16_LE || content->kind == CONTENT_UTF16_BE;
    in->utf16 = (struct utf16){.big_endian = content->kind == CONTENT_UTF16_BE};
    size_t mark = in->is_utf16 ? 2 : content->kind == CONTENT_UTF8_MARK && plain_text ? UTF8_MARK_BYTES : 0;
    in->mark = in->text_from == 0 ? mark : 0;
    return head_bytes > mark ? member_feed(in, head + mark, head_bytes - mark) : 0;
}

/* Goes to the next member that holds text. 1: there is one. */
static int member_begin(struct ingest *in) {
    if ((in->broken || in->damage) && in->skip_members > 0) return changed(in);
    if (in->damage) account_damaged(in, 0, 0); /* it cannot even be opened */
    if (in->broken) return 0;
    if (!in->unpack) {
        if (in->members > 0) return 0;
        in->member = mem_text("");
        if (in->content.kind == CONTENT_OTHER) {
            account_binary(in, &in->content, in->part->size, in->first.data, in->first.size);
            return 0;
        }
        TRY(member_open(in, &(struct content){.kind = CONTENT_TEXT}, NULL, 0));
        return 1;
    }
    for (const char *name;; in->members++) {
        TRY(tick(in));
        int code = unpack_next(in->unpack, &name);
        enum unpack_fault fault = code < 0 ? unpack_fault(in->unpack) : UNPACK_SOUND;
        bool ends = fault == UNPACK_DAMAGED || fault == UNPACK_REFUSED;
        if ((code == 0 || ends) && in->skip_members > 0) return changed(in);
        if (ends) {
            TRY(account_damage_found(in, fault));
            account_damaged(in, unpack_used(in->unpack), 0);
            return 0;
        }
        bool passable = fault == UNPACK_PASSABLE || fault == UNPACK_AROUND; /* it counts as a member: the others keep their numbers */
        if (code <= 0 && !passable) return code;
        if (passable) name = unpack_name(in->unpack);
        if (in->skip_members > 0) {
            in->skip_members--;
            if (passable) unpack_pass(in->unpack);
            continue;
        }
        if (passable && (fault == UNPACK_AROUND || !*name || members_want(in->group, name))) {
            TRY(account_passed(in, fault));
            continue;
        }
        if (passable) unpack_pass(in->unpack);
        if (*name && !members_want(in->group, name)) {
            if (in->table.table.other_members++ == 0) in->table.table.first_other = mem_text(name);
            continue;
        }
        in->member = mem_text(name);
        uint8_t head[CONTENT_HEAD_BYTES];
        size_t bytes = 0, got = 1;
        for (; code > 0 && got > 0 && bytes < sizeof head; bytes += got) {
            got = 0;
            code = read_packed(in, head + bytes, &got, sizeof head - bytes);
            if (code < 0 && unpack_fault(in->unpack) != UNPACK_PASSABLE) return code;
            code = code < 0 ? 0 : 1;
        }
        if (code == 0) {
            TRY(account_passed(in, UNPACK_PASSABLE));
            continue;
        }
        if (in->damage && bytes == 0) {
            account_damaged(in, 0, 0);
            return 0;
        }
        struct content content = content_of(head, bytes);
        if (content.kind != CONTENT_OTHER && content.kind != CONTENT_PACKED) {
            TRY(member_open(in, &content, head, bytes));
            return 1;
        }
        TRY(pass_binary(in, &content, head, bytes));
        if (in->damage) {
            account_damaged(in, 0, 0);
            return 0;
        }
        free(in->member);
        in->member = NULL;
    }
}

/* Reads the next portion of a member in UTF-16. */
static int member_read_utf16(struct ingest *in) {
    size_t got = 0;
    TRY(tick(in));
    if (!in->raw) in->raw = mem_alloc(STREAM_READ_BYTES);
    TRY(read_packed(in, in->raw, &got, STREAM_READ_BYTES));
    if (got > 0) return member_feed(in, in->raw, got);
    if (in->damage && !in->is_text) return 0;
    uint8_t *room;
    TRY(records_room(in->records, &room, utf16_room(0)));
    records_fed(in->records, utf16_end(&in->utf16, room));
    records_finish(in->records);
    return 0;
}

/* Reads the next portion of the member that is open. */
static int member_read(struct ingest *in) {
    if (in->is_utf16) return member_read_utf16(in);
    uint8_t *room;
    size_t got = 0, want = STREAM_READ_BYTES;
    TRY(tick(in));
    if (!in->unpack) {
        const Millrace__SourcePart *part = in->part;
        uint64_t left = (in->at < part->end ? part->end : part->size) - in->at;
        want = in->at < part->end ? READER_BYTES_MAX : in->border_read;
        if (in->at >= part->end && in->border_read < READER_BYTES_MAX) in->border_read *= 8;
        if (want > READER_BYTES_MAX) want = READER_BYTES_MAX;
        if (want > left) want = (size_t)left;
    }
    if (want > 0) {
        bool first = !in->unpack && in->at == 0 && in->first.size > 0;
        TRY(records_room(in->records, &room, want));
        if (first) memcpy(room, in->first.data, got = in->first.size < want ? in->first.size : want);
        else TRY(in->unpack ? read_packed(in, room, &got, want) : in->reader.read(in->reader.arg, room, &got, want, in->at));
        CHECK(got <= want);
        if (!in->unpack && got < want) return changed(in);
        in->at += got;
        in->fed += got, in->member_fed += got;
        records_fed(in->records, got);
    }
    if (got == 0 && (!in->damage || in->is_text)) records_finish(in->records);
    return 0;
}

/* ---- records ------------------------------------------------------------------------------------------------------------------------- */

/* A reason's details are behind a colon or a semicolon. Of more kinds than there is room for, the last are not counted. */
static void count_bad(struct ingest *in, const char *detail) {
    in->records_bad++;
    for (size_t i = 0; i < RECORDS_BAD_KINDS_MAX; i++) {
        struct bad_kind *kind = &in->bad_kind[i];
        size_t alike = strcspn(detail, ":;");
        if (kind->count == 0) snprintf(kind->first, sizeof kind->first, "%s", detail);
        else if (strcspn(kind->first, ":;") != alike || strncmp(kind->first, detail, alike) != 0) continue;
        kind->count++;
        return;
    }
}

static const struct bad_kind *most_frequent(const struct ingest *in) {
    const struct bad_kind *most = in->bad_kind;
    for (size_t i = 1; i < RECORDS_BAD_KINDS_MAX; i++)
        if (in->bad_kind[i].count > most->count) most = &in->bad_kind[i];
    return most;
}

/* Settings that do not fit a file are an error early, instead of a dataset that is nearly empty. */
static int check_bad(const struct ingest *in, bool all) {
    uint64_t seen = in->records_seen;
    if (all ? seen >= JUDGED_RECORDS || seen < JUDGED_RECORDS_MIN : seen != JUDGED_RECORDS) return 0;
    if (2 * in->records_bad <= seen || in->options.max_left_out >= 0.5) return 0;
    const struct bad_kind *most = most_frequent(in);
    return err_set(ERR_CONFIG,
                   "%llu of its first %llu records cannot be used (%llu of them: %s); see format and field of the entry \"%s\" of "
                   "dataset.sources, which reads field \"%s\"",
                   (unsigned long long)in->records_bad, (unsigned long long)seen, (unsigned long long)most->count, most->first,
                   in->group->name ? in->group->name : "",
                   in->group->field ? in->group->field : "");
}

/* The member has no more records: counts the bytes after the last one, and the lines of a part of a file, for the parts after it. */
static int last_record(struct ingest *in) {
    if (!in->in_pieces) account_around(in, records_at(in->records));
    account_mark(in);
    if (in->damage) account_damaged(in, in->member_fed, 0);
    if (!in->unpack && in->part->end < in->part->size) in->table.table.lines += records_lines(in->records);
    return check_bad(in, true);
}

/* There would be more of them, and the one that the damage is in is lost. */
static int cut_record(struct ingest *in) {
    if (in->skip_documents > 0) return changed(in);
    uint64_t at = records_at(in->records);
    if (!in->counting) in->accounted = records_first(in->records), in->counting = true;
    account_around(in, at);
    account_mark(in);
    account_damaged(in, at, in->member_fed - at);
    return check_bad(in, true);
}

/* Looks for a record in the member that is open. 1: in->record is one, 0: the member is at its end. */
static int member_record(struct ingest *in) {
    for (;;) {
        int code = records_next(in->records, &in->record, in->skip_documents > 0 && in->records_seen >= JUDGED_RECORDS);
        if (!in->counting && code > 0) in->accounted = records_first(in->records), in->counting = true;
        if (code == RECORDS_MORE && in->damage && !in->is_text) return cut_record(in);
        if (code == RECORDS_MORE) code = member_read(in);
        else if (code == RECORDS_END) return in->skip_documents > 0 ? changed(in) : last_record(in);
        else if (code == RECORDS_ONE) {
            if (in->in_pieces) return 1;
            in->records_seen++;
            if (in->record.reason && strcmp(in->record.reason, "bad_record") == 0) count_bad(in, in->record.detail);
            TRY(check_bad(in, false));
            if (in->skip_documents == 0) return 1;
            in->skip_documents--, in->member_documents++;
            in->mark = 0;
            in->accounted = in->record.offset + in->record.record_bytes;
            code = 0;
        }
        TRY(code);
    }
}

/* Makes in->record the first record that was not used. 0: the parts are done. */
static int find_record(struct ingest *in) {
    while (!in->has_record) {
        if (!in->part_open) {
            if (in->part_number == in->job->n_parts) return 0;
            TRY(part_begin(in));
        }
        int code = in->records ? 1 : member_begin(in);
        if (code < 0) return add_where(code, in);
        if (code == 0) {
            tell_used(in, in->part->end - in->part->begin);
            TRY(ingest_check_part(in));
            part_end(in);
            continue;
        }
        code = member_record(in);
        if (code < 0) return add_where(code, in);
        if (code == 0) member_end(in);
        else in->has_record = true;
    }
    return 1;
}

static void begin_piece(struct ingest *in, uint64_t at, uint64_t offset) {
    token_run_builder_piece(&in->table, in->part->source, token_run_builder_member(&in->table, in->member), offset);
    if (at == 0) in->table.table.flags[in->table.table.n_flags - 1] |= TOKEN_RUN_BEGINS;
    encode_begin(in->encode, at);
}

static int end_document(struct ingest *in) {
    in->table.table.flags[in->table.table.n_flags - 1] |= TOKEN_RUN_ENDS;
    in->documents++;
    return encode_end(in->encode, true);
}

static bool is_changed(const struct verdict *verdict, const struct record *record) {
    if (verdict->bytes != record->bytes || record->bytes > record->record_bytes) return true;
    return verdict->text != record->text && memcmp(verdict->text, record->text, record->bytes) != 0;
}

/* A record that is a document, or is left out. */
static int use_record(struct ingest *in) {
    const struct record *record = &in->record;
    struct verdict verdict = {.kept = true, .text = record->text, .bytes = record->bytes};
    in->used_up += record->record_bytes;
    in->has_record = false;
    account_mark(in);
    in->member_documents++;
    if (record->reason) {
        account_record(in, record, record->record_bytes);
        account_left_out(in, record->reason, record->detail, record->offset, record->line, record->record_bytes, record->text,
                         record->bytes);
        return 0;
    }
    /* A text may be longer than what it was written with: U+FFFD for a byte. */
    uint64_t text_bytes = record->bytes < record->record_bytes ? record->bytes : record->record_bytes;
    account_record(in, record, text_bytes);
    if (in->judges) {
        int code = policy_judge(in->policy, &verdict, record->text, record->bytes);
        if (code < 0) return err_add(code, "the document at byte %llu", (unsigned long long)record->offset);
    }
    if (!verdict.kept) {
        account_left_out(in, verdict.reason, verdict.detail, record->offset, record->line, text_bytes, record->text, record->bytes);
        return 0;
    }
    begin_piece(in, 0, record->offset);
    if (is_changed(&verdict, record)) token_run_builder_changed(&in->table, text_bytes);
    in->table.table.replaced[in->table.table.n_replaced - 1] = (uint32_t)verdict.replaced;
    TRY(token_run_builder_bands(&in->table, verdict.band, in->options.policy.minhash_bands));
    for (size_t done = 0, took; done < verdict.bytes; done += took) {
        bool border;
        TRY(encode_text(in->encode, &took, &border, verdict.text + done, verdict.bytes - done));
    }
    return end_document(in);
}

static void take_from_record(struct record *record, size_t bytes) {
    record->text += bytes, record->bytes -= bytes, record->offset += bytes;
}

/* Passes over the bytes before the job's text. True: the job's text begins with the record as it is now. */
static bool reach_text(struct ingest *in) {
    struct record *record = &in->record;
    if (record->offset < in->text_from) {
        uint64_t before = in->text_from - record->offset;
        size_t n = before < record->bytes ? (size_t)before : record->bytes;
        encode_pass(in->encode, record->text, n);
        take_from_record(record, n);
    }
    if (record->offset < in->text_from || !in->seeks_cut) return record->offset >= in->text_from;
    size_t most = in->part->end - record->offset < record->bytes ? (size_t)(in->part->end - record->offset) : record->bytes, took;
    bool found = encode_seek(in->encode, &took, record->text, most);
    take_from_record(record, took);
    return found;
}

/* A part of a document that is a whole file or member: as far as a block border. */
static int use_part(struct ingest *in) {
    struct record *record = &in->record;
    bool range = !in->unpack && in->part->end < in->part->size;
    if (!in->in_document) {
        if (!reach_text(in)) {
            in->has_record = record->bytes > 0;
            if (in->seeks_cut && record->offset >= in->part->end) member_end(in); /* all of it belongs to the part before */
            else if (record->ends && record->bytes == 0) return changed(in);
            return 0;
        }
        in->in_document = true;
        account_mark(in);
        begin_piece(in, record->offset, record->offset);
    }
    size_t took;
    TRY(encode_text(in->encode, &took, &in->at_block_border, record->text, record->bytes));
    take_from_record(record, took);
    in->used_up += took;
    in->table.table.read_bytes += took;
    if (in->at_block_border && range && record->offset >= in->part->end) {
        TRY(encode_end(in->encode, false));
        member_end(in);
        return 0;
    }
    in->has_record = record->bytes > 0;
    if (!record->ends || record->bytes > 0) return 0;
    in->in_document = in->at_block_border = false;
    in->member_documents++;
    return end_document(in);
}

/* ---- token runs
 * ---------------------------------------------------------------------------------------------------------------------------- */

static bool is_full(const struct ingest *in) {
    return (!in->in_document || in->at_block_border) &&
           (in->used_up >= in->options.text_bytes || in->table.table.n_source >= INGEST_PIECES_MAX);
}

/* The token run ends before in->record. */
static int pause_here(struct ingest *in) {
    if (in->in_document) TRY(encode_end(in->encode, false));
    tell_used(in, part_used(in));
    in->next.part = in->part_number;
    in->next.member = in->members;
    in->next.documents = in->member_documents;
    in->next.text = in->in_document ? encode_at(in->encode) : 0;
    return 0;
}

static int use_records(struct ingest *in) {
    for (int found; (found = find_record(in)) != 0;) {
        TRY(found);
        if (is_full(in)) return pause_here(in);
        if (in->catching_up) {
            in->used = part_used(in);
            in->catching_up = false;
        }
        int code = in->in_pieces ? use_part(in) : use_record(in);
        if (code < 0) return add_where(code, in);
    }
    in->done = true;
    return 0;
}

/* Nobody takes such a run, whoever makes it. */
static int refuse_length(const struct ingest *in) {
    size_t pieces = in->table.table.n_source;
    bool nested = in->member && *in->member;
    const char *why = "it has several tokens for each byte";
    if (in->in_pieces && tokenizer_cuts(in->options.tokenizer)) why = "it has no blank and no line end at which it could be cut";
    else if (in->in_pieces) why = "with this tokenizer's pattern it can be cut nowhere";
    return err_set(ERR_CONFIG, "%s%s%s: the text from byte %llu on makes a token run of more than %s bytes, which is the most: %s; "
                   "divide it into several files", in->part->name, nested ? "!" : "", nested ? in->member : "",
                   (unsigned long long)(pieces ? in->table.table.offset[pieces - 1] : 0), text_count(in->options.run_bytes), why);
}

static int write_some(void *arg, const void *bytes, size_t size_bytes) {
    struct ingest *in = arg;
    if (size_bytes > in->options.run_bytes - in->written) return refuse_length(in);
    in->written += size_bytes;
    return in->write(in->write_arg, bytes, size_bytes);
}

static int make_run(struct ingest *in, struct encoder *encoder) {
    encode_into(in->encode, encoder, &in->table, write_some, in);
    if (in->part_open && !in->part->stream) in->table.table.range_begin = in->part->begin;
    if (in->in_document) begin_piece(in, encode_at(in->encode), encode_at(in->encode));
    in->used_up = in->documents = in->source_bytes = in->written = 0;
    TRY(use_records(in));
    if (in->part_open) TRY(ingest_check_part(in));
    TRY(encode_flush(in->encode));
    struct buf sealed = {0};
    int code = token_run_builder_seal(&in->table, &sealed);
    if (code == 0) code = write_some(in, sealed.data, sealed.size);
    buf_free(&sealed);
    return code;
}

int ingest_run(struct ingest *in, Millrace__TokenizeResult *out, struct encoder *encoder,
               int (*write)(void *arg, const void *bytes, size_t size_bytes), void *write_arg) {
    CHECK(!in->failed && !in->done);
    token_run_builder_open(&in->table, in->options.token_bytes);
    in->write = write, in->write_arg = write_arg;
    int code = make_run(in, encoder);
    if (code < 0) code = blame(in, code);
    in->failed = code < 0;
    if (code == 0) {
        out->tokens = in->table.table.tokens;
        out->documents = in->documents;
        out->source_bytes = in->source_bytes;
        out->next = in->done ? NULL : &in->next;
    }
    token_run_builder_close(&in->table);
    return code;
}
