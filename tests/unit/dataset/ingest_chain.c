/* A source file, whole or damaged, is the same however jobs end and whoever does them: a job chain that one ingest does without a break
 * gives run for run the bytes of one that begins anew at each place, and its documents and its account follow from the file alone. Files
 * are made by libarchive, in memory, with members that are larger and smaller than what is read at once. */
#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "dataset/ingest/ingest.h"
#include "dataset/ingest/token_run.h"
#include "dataset/ingest/tokenize_jobs.h"
#include "dataset/source/unpack.h"
#include "tests/unit/dataset/sources_made.h"

static struct tokenizer *tokenizer;
static struct encoder *encoder;
static int open_tokenizer(void **state) {
    (void)state;
    return tokenizer_open_gpt2(&tokenizer) < 0 ? -1 : encoder_open(&encoder, tokenizer);
}
static int close_tokenizer(void **state) {
    (void)state;
    encoder_close(encoder);
    tokenizer_close(tokenizer);
    return 0;
}

/* ---- files ---- */

enum { FILE_BYTES_MAX = 8 << 20, MEMBERS_MAX = 12 };

static const struct kind {
    const char *suffix;
    int format, filter;
} kinds[] = {
    {"jsonl", 0, 0},
    {"jsonl.gz", ARCHIVE_FORMAT_RAW, ARCHIVE_FILTER_GZIP},
    {"jsonl.zst", ARCHIVE_FORMAT_RAW, ARCHIVE_FILTER_ZSTD},
    {"jsonl.xz", ARCHIVE_FORMAT_RAW, ARCHIVE_FILTER_XZ},
    {"txt.bz2", ARCHIVE_FORMAT_RAW, ARCHIVE_FILTER_BZIP2},
    {"jsonl.lz4", ARCHIVE_FORMAT_RAW, ARCHIVE_FILTER_LZ4},
    {"txt.lzma", ARCHIVE_FORMAT_RAW, ARCHIVE_FILTER_LZMA},
    {"tar", ARCHIVE_FORMAT_TAR_USTAR, 0},
    {"tar.gz", ARCHIVE_FORMAT_TAR_USTAR, ARCHIVE_FILTER_GZIP},
    {"tar.zst", ARCHIVE_FORMAT_TAR_USTAR, ARCHIVE_FILTER_ZSTD},
    {"tar.xz", ARCHIVE_FORMAT_TAR_USTAR, ARCHIVE_FILTER_XZ},
    {"zip", ARCHIVE_FORMAT_ZIP, 0},
    {"7z", ARCHIVE_FORMAT_7ZIP, 0},
    {"cpio", ARCHIVE_FORMAT_CPIO_POSIX, 0},
};
enum { KINDS = sizeof kinds / sizeof *kinds, TAR = 7, ZIP = 11 };

/* Words that do not get much smaller by packing. */
static void add_words(struct buf *out, struct random *random, size_t size) {
    static const char letters[] = "etaoinshrdlucmfwypvbgkqjxz0123456789 ETAOINSHRDLUCMFWYPVBGK .,-";
    for (size_t end = out->size + size; out->size < end;) {
        char word[11];
        uint64_t bits = random_next(random);
        for (int i = 0; i < 10; i++) word[i] = letters[bits >> 6 * i & 63] ? letters[bits >> 6 * i & 63] : ' ';
        buf_append(out, word, 10);
    }
}

static struct buf member_made(struct random *random, const char *kind, size_t size) {
    struct buf out = {0};
    buf_append(&out, "", 0);
    if (strcmp(kind, "bin") == 0) buf_append(&out, "\x7F" "ELF\2\1\1", 7);
    if (strcmp(kind, "jsonl") != 0) add_words(&out, random, size);
    else while (out.size < size) {
        buf_print(&out, "{\"text\": \"");
        add_words(&out, random, (size_t)random_in(random, 0, random_in(random, 0, 20) ? 3000 : 100000));
        buf_print(&out, random_in(random, 0, 40) ? "\"}\n" : "\n");
    }
    return out;
}

static size_t size_made(struct random *random) {
    return (size_t)random_in(random, 0, random_in(random, 0, 2) ? random_in(random, 0, 1) ? 20000 : 2000 : 400000);
}

static struct buf pack_made(struct random *random, const struct kind *kind, int depth);

static void add_member(struct archive *archive, struct random *random, int number, int depth) {
    static const char *const suffixes[] = {"jsonl", "jsonl", "txt", "txt", "bin"};
    const struct kind *inner = depth == 0 && random_in(random, 0, 3) == 0 ? &kinds[random_in(random, 1, KINDS - 1)] : NULL;
    const char *suffix = inner ? inner->suffix : suffixes[random_in(random, 0, 4)];
    struct buf bytes = inner ? pack_made(random, inner, depth + 1) : member_made(random, suffix, size_made(random));
    char name[64];
    snprintf(name, sizeof name, "%s/%d.%s", random_in(random, 0, 1) ? "a" : "b", number, suffix);
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, (la_int64_t)bytes.size);
    assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
    assert_int_equal(archive_write_data(archive, bytes.data, bytes.size), bytes.size);
    archive_entry_free(entry);
    buf_free(&bytes);
}

/* Puts words behind an archive, and before it. */
static void around_made(struct buf *archive, struct random *random, bool before) {
    struct buf out = {0};
    assert_int_equal(buf_reserve(&out, FILE_BYTES_MAX), 0);
    if (before && random_in(random, 0, 3) == 0) add_words(&out, random, (size_t)random_in(random, 1, 40000));
    buf_append(&out, archive->data, archive->size);
    if (random_in(random, 0, 3) == 0) add_words(&out, random, (size_t)random_in(random, 1, random_in(random, 0, 1) ? 300 : 40000));
    buf_free(archive);
    *archive = out;
}

static struct buf pack_made(struct random *random, const struct kind *kind, int depth) {
    if (kind->format == 0) return member_made(random, "jsonl", size_made(random));
    struct buf out = {0};
    size_t used = 0;
    assert_int_equal(buf_reserve(&out, FILE_BYTES_MAX), 0);
    struct archive *archive = archive_write_new();
    assert_int_equal(archive_write_set_format(archive, kind->format), ARCHIVE_OK);
    if (kind->filter) assert_int_equal(archive_write_add_filter(archive, kind->filter), ARCHIVE_OK);
    if (kind->format == ARCHIVE_FORMAT_ZIP && random_in(random, 0, 1)) archive_write_zip_set_compression_store(archive);
    assert_int_equal(archive_write_set_bytes_in_last_block(archive, 1), ARCHIVE_OK);
    assert_int_equal(archive_write_open_memory(archive, out.data, FILE_BYTES_MAX, &used), ARCHIVE_OK);
    bool raw = kind->format == ARCHIVE_FORMAT_RAW;
    uint64_t members = raw ? 1 : random_in(random, 0, MEMBERS_MAX);
    if (raw) {
        struct archive_entry *entry = archive_entry_new();
        struct buf bytes = member_made(random, *kind->suffix == 'j' ? "jsonl" : "txt", size_made(random) * 2);
        archive_entry_set_filetype(entry, AE_IFREG);
        assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
        assert_int_equal(archive_write_data(archive, bytes.data, bytes.size), bytes.size);
        archive_entry_free(entry);
        buf_free(&bytes);
    } else {
        for (uint64_t i = 0; i < members; i++) add_member(archive, random, (int)i, depth);
    }
    assert_int_equal(archive_write_close(archive), ARCHIVE_OK);
    archive_write_free(archive);
    out.size = used;
    if (kind->format == ARCHIVE_FORMAT_ZIP || kind->format == ARCHIVE_FORMAT_7ZIP || kind->format == ARCHIVE_FORMAT_CPIO_POSIX)
        around_made(&out, random, kind->format == ARCHIVE_FORMAT_ZIP && depth == 0);
    return out;
}

static struct made_file file;

static void file_made(struct random *random, const struct kind *kind, bool damaged) {
    buf_free(&file.bytes);
    file = (struct made_file){.bytes = pack_made(random, kind, 0)};
    file.group = random_in(random, 0, 2) ? MADE_AUTO : MADE_SOME_MEMBERS;
    snprintf(file.name, sizeof file.name, "/made/x.%s", kind->suffix);
    if (!damaged || file.bytes.size == 0) return;
    if (random_in(random, 0, 2) == 0) file.bytes.size = (size_t)random_in(random, 0, file.bytes.size - 1);
    else
        for (uint64_t n = random_in(random, 1, 3); n > 0; n--)
            file.bytes.data[random_in(random, 0, file.bytes.size - 1)] ^= (uint8_t)(1 << random_in(random, 0, 7));
}

static int read_made(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    (void)arg;
    size_t left = offset < file.bytes.size ? file.bytes.size - (size_t)offset : 0;
    *out_got = size_bytes < left ? size_bytes : left;
    if (*out_got) memcpy(out, file.bytes.data + offset, *out_got);
    return 0;
}
static int open_made(void *arg, struct byte_reader *out, const Millrace__SourcePart *part) {
    (void)arg, (void)part;
    *out = (struct byte_reader){read_made, NULL, file.name, file.bytes.size};
    return 0;
}
static void close_made(void *arg, struct byte_reader *reader) { (void)arg, (void)reader; }
static int collect(void *arg, const void *bytes, size_t size_bytes) { return buf_append(arg, bytes, size_bytes); }

static struct ingest_options options_of(uint64_t text_bytes, uint64_t block_bytes, bool whole) {
    struct ingest_options options = {.tokenizer = tokenizer, .token_bytes = 2, .groups = made_groups, .group_count = MADE_GROUPS,
                                     .max_left_out = 1, .text_bytes = text_bytes, .block_bytes = block_bytes, .open = open_made,
                                     .close = close_made};
    options.policy.min_characters = whole;
    return options;
}

/* ---- what came of a file ---- */

struct total {
    struct buf documents; /* where each is, and its ids */
    uint64_t read_bytes, around_bytes, text_bytes, other_members, left_out;
    char reason[8][200];  /* what was left out for it, and the first one */
    uint64_t reason_documents[8], reason_bytes[8];
    size_t reasons;
};

static void add_reason(struct total *total, const Millrace__Dropped *dropped) {
    size_t i = 0;
    while (i < total->reasons && strncmp(total->reason[i], dropped->reason, strlen(dropped->reason)) != 0) i++;
    assert_true(i < 8 && dropped->n_examples > 0);
    const Millrace__Example *first = dropped->examples[0];
    if (i == total->reasons)
        snprintf(total->reason[total->reasons++], 200, "%s %s %llu %s", dropped->reason, first->source, (unsigned long long)first->offset,
                 first->detail);
    total->reason_documents[i] += dropped->documents, total->reason_bytes[i] += dropped->bytes;
}

static void add_run(struct total *total, const struct buf *run) {
    Millrace__RunTable *t;
    if (token_run_table_parse(&t, run->data, run->size) < 0) fail_msg("%s", err_text());
    const uint8_t *ids = run->data;
    for (size_t i = 0; i < t->n_source; i++) {
        if (t->flags[i] & TOKEN_RUN_BEGINS)
            buf_print(&total->documents, "\n%s at %llu: ", t->member[i] ? t->member_name[t->member[i] - 1] : "",
                      (unsigned long long)t->offset[i]);
        buf_append(&total->documents, ids, 2 * t->piece_tokens[i]);
        ids += 2 * t->piece_tokens[i];
        total->text_bytes += token_run_piece_bytes(t, i);
    }
    total->read_bytes += t->read_bytes, total->around_bytes += t->around_bytes, total->other_members += t->other_members;
    for (size_t i = 0; i < t->n_dropped; i++) add_reason(total, t->dropped[i]);
    millrace__run_table__free_unpacked(t, NULL);
}

static const char *total_differs(const struct total *a, const struct total *b) {
    size_t size = a->documents.size;
    if (size != b->documents.size || (size && memcmp(a->documents.data, b->documents.data, size) != 0)) return "documents";
    if (a->read_bytes != b->read_bytes) return "bytes read";
    if (a->around_bytes != b->around_bytes || a->text_bytes != b->text_bytes) return "bytes around documents";
    if (a->other_members != b->other_members) return "members passed over";
    if (a->reasons != b->reasons) return "reasons";
    for (size_t i = 0; i < a->reasons; i++)
        if (strcmp(a->reason[i], b->reason[i]) != 0 || a->reason_documents[i] != b->reason_documents[i] ||
            a->reason_bytes[i] != b->reason_bytes[i]) {
            print_message("%s: %llu bytes, %s: %llu bytes\n", a->reason[i], (unsigned long long)a->reason_bytes[i], b->reason[i],
                          (unsigned long long)b->reason_bytes[i]);
            return "what was left out";
        }
    return NULL;
}

/* ---- chains ---- */

struct chain {
    struct total total;
    uint64_t text_bytes, block_bytes;
    bool whole, anew; /* the policy sees whole documents; each run is also done by an ingest that is opened for it */
    int runs, breaks, failed;
    const char *wrong;
};

static bool same_end(const Millrace__Place *a, const Millrace__Place *b) {
    if (!a || !b) return a == b;
    return a->part == b->part && a->member == b->member && a->documents == b->documents && a->text == b->text;
}

static void check_anew(struct chain *chain, const struct ingest_options *options, const Millrace__TokenizeJob *job, int wanted,
                       const struct buf *run, const Millrace__TokenizeResult *result) {
    struct ingest *ingest;
    struct buf again = {0};
    Millrace__TokenizeResult fresh = MILLRACE__TOKENIZE_RESULT__INIT;
    assert_int_equal(ingest_open(&ingest, options, job), 0);
    int code = ingest_run(ingest, &fresh, encoder, collect, &again);
    if (code != wanted) chain->wrong = code < 0 ? err_text() : "no error when opened anew";
    else if (code == 0 && !same_end(fresh.next, result->next)) chain->wrong = "another end when opened anew";
    else if (code == 0 && (again.size != run->size || memcmp(again.data, run->data, run->size) != 0)) {
        struct total totals[2] = {0};
        add_run(&totals[0], run), add_run(&totals[1], &again);
        chain->wrong = total_differs(&totals[0], &totals[1]);
        if (!chain->wrong) chain->wrong = "another run when opened anew";
        buf_free(&totals[0].documents), buf_free(&totals[1].documents);
    }
    chain->breaks += job->from != NULL;
    ingest_close(ingest);
    buf_free(&again);
}

static int do_chain(void *arg, const Millrace__TokenizeJob *job) {
    struct chain *chain = arg;
    struct ingest_options options = options_of(chain->text_bytes, chain->block_bytes, chain->whole);
    Millrace__TokenizeJob here = *job;
    Millrace__Place place = MILLRACE__PLACE__INIT;
    struct ingest *ingest;
    assert_int_equal(ingest_open(&ingest, &options, &here), 0);
    for (bool done = false; !done && !chain->wrong && chain->failed == 0;) {
        struct buf run = {0};
        Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
        int code = ingest_run(ingest, &result, encoder, collect, &run);
        if (code < 0) chain->failed = code, encoder_close(encoder), assert_int_equal(encoder_open(&encoder, tokenizer), 0);
        else add_run(&chain->total, &run), chain->runs++;
        if (chain->anew) check_anew(chain, &options, &here, code, &run, &result);
        done = !result.next;
        if (result.next) place = *result.next, here.from = &place;
        buf_free(&run);
    }
    ingest_close(ingest);
    return 0;
}

/* block_bytes 0: the file as one job. */
static void do_file(struct chain *chain) {
    struct byte_reader reader = {read_made, NULL, file.name, file.bytes.size};
    struct job_source source = {.name = file.name, .size = file.bytes.size, .group = file.group};
    Millrace__SourcePart part = MILLRACE__SOURCE_PART__INIT, *pointer = &part;
    Millrace__TokenizeJob job = MILLRACE__TOKENIZE_JOB__INIT;
    if (chain->block_bytes > 0) {
        uint64_t *index = NULL;
        source.content = content_of(file.bytes.data, file.bytes.size < CONTENT_HEAD_BYTES ? file.bytes.size : CONTENT_HEAD_BYTES).kind;
        if (unpack_needed(file.name) && unpack_index(&index, &source.members, &reader) < 0) source.members = 0;
        source.member_bytes = index;
        assert_int_equal(tokenize_jobs_plan_sized(&source, 1, made_groups, chain->whole, chain->block_bytes, do_chain, chain), 0);
        free(index);
        return;
    }
    part.name = file.name, part.group = file.group;
    part.end = part.size = file.bytes.size;
    part.stream = source_is_stream(file.name, &made_groups[file.group]);
    job.parts = &pointer, job.n_parts = 1;
    do_chain(chain, &job);
}

static void a_chain_that_begins_anew_gives_the_same_runs(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    int runs = 0, breaks = 0, wrong = 0;
    for (int round = 0; round < 80; round++) {
        size_t sought = random_in(&random, 0, 1) ? ZIP : TAR;
        const struct kind *kind = &kinds[random_in(&random, 0, 2) ? random_in(&random, 0, KINDS - 1) : sought];
        bool damaged = random_in(&random, 0, 3) > 0;
        file_made(&random, kind, damaged);
        bool whole = random_in(&random, 0, 1);
        struct chain all = {.text_bytes = UINT64_MAX, .whole = whole}, some = all;
        some.text_bytes = random_in(&random, 1, 1 + file.bytes.size / random_in(&random, 1, 6)), some.anew = true;
        do_file(&all);
        do_file(&some);
        if (!some.wrong && all.failed != some.failed) some.wrong = "another error";
        if (!some.wrong && !all.failed) some.wrong = total_differs(&all.total, &some.total);
        if (some.wrong) {
            print_message("MILLRACE_SEED=%llu round %d: %s%s of %zu bytes, jobs of %llu: %s\n", (unsigned long long)random.seed, round,
                          damaged ? "damaged " : "", file.name, file.bytes.size, (unsigned long long)some.text_bytes, some.wrong);
            wrong++;
        }
        runs += some.runs, breaks += some.breaks;
        buf_free(&all.total.documents), buf_free(&some.total.documents);
    }
    print_message("%d runs, %d begun anew behind a place\n", runs, breaks);
    assert_int_equal(wrong, 0);
    assert_true(breaks > 80);
}

/* A tar or a zip that is damaged loses what lies behind the damage in its part, so that there the parts have to be the same. */
static void however_a_file_is_divided_its_documents_and_account_are_the_same(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    int wrong = 0, parts = 0;
    for (int round = 0; round < 40; round++) {
        const struct kind *kind = &kinds[random_in(&random, 0, 1) ? random_in(&random, 0, KINDS - 1) : random_in(&random, 0, 2)];
        bool divided = kind->format == ARCHIVE_FORMAT_TAR_USTAR ? kind->filter == 0 : kind->format == ARCHIVE_FORMAT_ZIP;
        bool damaged = random_in(&random, 0, 2) > 0;
        file_made(&random, kind, damaged);
        struct chain all = {.text_bytes = UINT64_MAX, .whole = random_in(&random, 0, 1)}, some = all;
        some.text_bytes = random_in(&random, 1, 1 + file.bytes.size / random_in(&random, 1, 9));
        some.block_bytes = damaged && divided ? FILE_BYTES_MAX : random_in(&random, 300, random_in(&random, 0, 1) ? 5000 : 1 << 20);
        do_file(&all);
        do_file(&some);
        if (all.failed != some.failed) some.wrong = "another error";
        if (!some.wrong && !all.failed) some.wrong = total_differs(&all.total, &some.total);
        if (some.wrong) {
            print_message("MILLRACE_SEED=%llu round %d: %s%s of %zu bytes, blocks of %llu: %s\n", (unsigned long long)random.seed, round,
                          damaged ? "damaged " : "", file.name, file.bytes.size, (unsigned long long)some.block_bytes, some.wrong);
            wrong++;
        }
        parts += some.runs;
        buf_free(&all.total.documents), buf_free(&some.total.documents);
    }
    print_message("%d runs\n", parts);
    assert_int_equal(wrong, 0);
    assert_true(parts > 60);
}

/* libarchive looks for a zip's directory in the last 16 KiB; of one that does not begin the file it knows nothing else. */
static bool is_known_as_zip(void) {
    size_t at = file.bytes.size - 4;
    while (at > 0 && memcmp(file.bytes.data + at, "PK\5\6", 4) != 0) at--;
    return file.bytes.size - at <= 16 << 10 || memcmp(file.bytes.data, "PK", 2) == 0;
}

static void what_lies_around_a_divided_zip_is_counted_once(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    int divided = 0;
    for (int round = 0; round < 10; round++) {
        file_made(&random, &kinds[ZIP], false);
        add_words(&file.bytes, &random, 1000);
        struct chain all = {.text_bytes = UINT64_MAX}, some = {.text_bytes = UINT64_MAX, .block_bytes = 300};
        do_file(&all);
        do_file(&some);
        const char *wrong = total_differs(&all.total, &some.total);
        if (wrong) fail_msg("MILLRACE_SEED=%llu round %d: %s", (unsigned long long)random.seed, round, wrong);
        size_t i = 0;
        while (i < all.total.reasons && strncmp(all.total.reason[i], "damaged", 7) != 0) i++;
        if (is_known_as_zip())
            assert_true(i < all.total.reasons && all.total.reason_documents[i] >= 1 && all.total.reason_bytes[i] >= 1000);
        divided += some.runs > 1;
        buf_free(&all.total.documents), buf_free(&some.total.documents);
    }
    assert_true(divided > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(however_a_file_is_divided_its_documents_and_account_are_the_same),
        cmocka_unit_test(what_lies_around_a_divided_zip_is_counted_once),
        cmocka_unit_test(a_chain_that_begins_anew_gives_the_same_runs),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
