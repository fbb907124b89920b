/* Ingest: whatever the formats, the planner's sizes, the limits and the places at which jobs are cut, every token of every document comes
 * exactly once. The policy is a made-up one: what is tested here is that ingest does what it says. */
#include "dataset/ingest/ingest.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "dataset/ingest/token_run.h"
#include "dataset/ingest/tokenize_jobs.h"
#include "dataset/source/unpack.h"
#include "tests/unit/dataset/sources_made.h"

static struct tokenizer *tokenizer;
static int open_tokenizer(void **state) {
    (void)state;
    return tokenizer_open_gpt2(&tokenizer);
}
static struct encoder *encoder; /* kept from run to run and from test to test, as a worker keeps its own from job to job */
static int close_tokenizer(void **state) {
    (void)state;
    encoder_close(encoder);
    tokenizer_close(tokenizer);
    return 0;
}

/* ---- a made-up policy: with min_characters it sees whole documents, leaves out shorter ones (in bytes) and writes Z for z ---- */

struct policy {
    struct policy_options options;
    struct buf text;
};
static uint64_t judged; /* documents, by all of them */
int policy_open(struct policy **out, const struct policy_options *options) {
    *out = mem_alloc(sizeof **out);
    (*out)->options = *options;
    return 0;
}
bool policy_sees_whole(const struct policy *policy) { return policy->options.min_characters > 0; }
int policy_judge(struct policy *policy, struct verdict *out, const void *text, size_t bytes) {
    assert_true(policy_sees_whole(policy) && bytes <= POLICY_DOCUMENT_BYTES_MAX);
    judged++;
    if (memmem(text, bytes, "refuse", 6)) return err_set(ERR_CONFIG, "refused");
    buf_clear(&policy->text);
    assert_int_equal(buf_append(&policy->text, text, bytes), 0);
    for (size_t i = 0; i < bytes; i++)
        if (policy->text.data[i] == 'z') policy->text.data[i] = 'Z';
    *out = (struct verdict){.kept = bytes + 1 >= policy->options.min_characters, .text = policy->text.data, .bytes = bytes};
    for (uint32_t i = 0; i < policy->options.minhash_bands; i++) out->band[i] = bytes + i;
    strcpy(out->reason, "short");
    strcpy(out->detail, "too short");
    return 0;
}
void policy_close(struct policy *policy) {
    if (policy) buf_free(&policy->text);
    free(policy);
}

static int run_ingest(struct ingest *ingest, Millrace__TokenizeResult *out, int (*write)(void *, const void *, size_t), void *write_arg) {
    if (!encoder) assert_int_equal(encoder_open(&encoder, tokenizer), 0);
    int code = ingest_run(ingest, out, encoder, write, write_arg);
    if (code < 0) encoder_close(encoder), encoder = NULL;
    return code;
}

/* ---- files in memory ---- */

static uint64_t reads_left; /* until one fails */
static int read_made(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    const struct made_file *file = arg;
    assert_true(size_bytes <= READER_BYTES_MAX);
    if (reads_left-- == 0) return err_set(ERR_TIMEOUT, "killed");
    size_t left = offset < file->bytes.size ? file->bytes.size - (size_t)offset : 0;
    *out_got = size_bytes < left ? size_bytes : left;
    if (*out_got) memcpy(out, file->bytes.data + offset, *out_got);
    return 0;
}
static int files_open;
static int open_made(void *arg, struct byte_reader *out, const Millrace__SourcePart *part) {
    struct made *made = arg;
    struct made_file *file = &made->file[part->file];
    assert_string_equal(part->name, file->name);
    *out = (struct byte_reader){read_made, file, file->name, file->bytes.size};
    files_open++;
    return 0;
}
static void close_made(void *arg, struct byte_reader *reader) {
    (void)arg, (void)reader;
    files_open--;
}
static int collect(void *arg, const void *bytes, size_t size_bytes) { return buf_append(arg, bytes, size_bytes); }

static struct ingest_options options_of(struct made *made, uint64_t text_bytes, uint64_t block_bytes) {
    return (struct ingest_options){.tokenizer = tokenizer, .token_bytes = 2, .groups = made_groups, .group_count = MADE_GROUPS,
                                   .text_bytes = text_bytes, .block_bytes = block_bytes,
                                   .open = open_made, .close = close_made, .arg = made};
}

static Millrace__RunTable *table_of(const struct buf *run) {
    struct seal seal;
    ProtobufCMessage *message;
    assert_true(run->size >= SEAL_BYTES);
    assert_int_equal(seal_read(&seal, run->data + run->size - SEAL_BYTES, &token_run_seal), 0);
    const uint8_t *packed = run->data + run->size - SEAL_BYTES - seal.size_bytes;
    assert_int_equal(seal_unpack(&message, &seal, packed, &token_run_seal), 0);
    Millrace__RunTable *table = (Millrace__RunTable *)message;
    assert_int_equal(token_run_table_check(table), 0);
    assert_int_equal(table->tokens * table->token_bytes, packed - run->data);
    return table;
}

/* ---- every token of every document exactly once ---- */

struct check {
    struct made *made;
    struct random *random;
    struct ingest_options options;
    uint64_t block_bytes;
    size_t at;              /* the document that comes next, or is under way */
    bool under_way;
    uint64_t bytes;         /* of it that were seen */
    struct ids ids;         /* of it */
    struct buf digests;
    uint64_t dropped, bad, binary;
    uint64_t read_bytes, around_bytes, text_bytes, bad_bytes, binary_bytes, other_members;
    uint64_t replaced_bytes;         /* of texts that the policy changed */
    uint64_t lines[MADE_FILES_MAX];  /* of the parts of a file so far */
    int runs, kills;
    const char *wrong;
};

static bool is_kept(const struct check *check, const struct made_document *document) {
    return document->text.size + 1 >= check->options.policy.min_characters;
}

/* The digests of blocks, from the rule as dataset/ingest/token_run.h says it. */
static void block_digests(struct buf *out, const uint8_t *text, size_t size, uint64_t block_bytes) {
    size_t begin = 0;
    do {
        size_t border = (size_t)((begin / block_bytes + 1) * block_bytes), cut, end = size;
        if (border < size && tokenizer_cut(tokenizer, text + border, size - border, border, &cut)) end = border + cut;
        uint8_t digest[SHA256_BYTES];
        sha256_of(digest, text + begin, end - begin);
        buf_append(out, digest, sizeof digest);
        begin = end;
    } while (begin < size);
}

static void check_document(struct check *check, const struct made_document *document) {
    struct ids ids = {0};
    struct buf digests = {0}, text = {0};
    buf_append(&text, document->text.data, document->text.size);
    for (size_t i = 0; i < text.size && check->options.policy.min_characters; i++)
        if (text.data[i] == 'z') text.data[i] = 'Z';
    assert_int_equal(tokenizer_encode(tokenizer, &ids, text.data, text.size, false), 0);
    block_digests(&digests, text.data, text.size, check->block_bytes);
    bool same = ids.count == check->ids.count && (ids.count == 0 || memcmp(ids.id, check->ids.id, ids.count * sizeof *ids.id) == 0);
    if (check->bytes != text.size) check->wrong = "bytes";
    else if (!same) check->wrong = "ids";
    else if (digests.size != check->digests.size || memcmp(digests.data, check->digests.data, digests.size) != 0) check->wrong = "digests";
    ids_free(&ids), buf_free(&digests), buf_free(&text);
    check->ids.count = 0;
    buf_clear(&check->digests);
    check->bytes = 0;
}

static void check_piece(struct check *check, const Millrace__TokenizeJob *job, const Millrace__RunTable *t, size_t i, const uint8_t *ids,
                        const uint8_t *digests) {
    if (t->flags[i] & TOKEN_RUN_BEGINS)
        while (!check->under_way && check->at < check->made->documents && !is_kept(check, &check->made->document[check->at])) check->at++;
    if (check->at == check->made->documents) {
        check->wrong = "too many documents";
        return;
    }
    const struct made_document *document = &check->made->document[check->at];
    const char *member = t->member[i] ? t->member_name[t->member[i] - 1] : "";
    if (check->under_way == ((t->flags[i] & TOKEN_RUN_BEGINS) != 0)) check->wrong = "flags";
    else if (job->parts[t->source[i]]->file != document->file) check->wrong = "the file";
    else if (strcmp(member, document->member) != 0) check->wrong = "the member";
    else if (t->offset[i] != document->offset + check->bytes) check->wrong = "offset";
    for (uint64_t k = 0; k < t->piece_tokens[i]; k++) ids_append(&check->ids, &(uint32_t){(uint32_t)(ids[2 * k] | ids[2 * k + 1] << 8)}, 1);
    buf_append(&check->digests, digests, t->blocks[i] * SHA256_BYTES);
    check->bytes += t->bytes[i];
    check->under_way = !(t->flags[i] & TOKEN_RUN_ENDS);
    if (check->under_way || check->wrong) return;
    check_document(check, document);
    check->at++;
}

/* A record that was left out is on the line that its offset says. */
static void check_line(struct check *check, const Millrace__TokenizeJob *job, const Millrace__Example *example) {
    const struct made_file *file = NULL;
    for (size_t i = 0; i < job->n_parts; i++)
        if (strcmp(job->parts[i]->name, example->source) == 0) file = &check->made->file[job->parts[i]->file];
    if (!file || unpack_needed(file->name)) return;
    uint64_t line = 1 + check->lines[file - check->made->file];
    for (size_t i = 0; i < example->offset; i++) line -= file->bytes.data[i] == '\n';
    if (line + example->line != 2) check->wrong = "the line of a record";
}

static void check_account(struct check *check, const Millrace__TokenizeJob *job, const Millrace__RunTable *t) {
    check->read_bytes += t->read_bytes, check->around_bytes += t->around_bytes, check->other_members += t->other_members;
    for (size_t i = 0; i < t->n_source; i++) {
        check->text_bytes += token_run_piece_bytes(t, i);
        if (t->n_changed) check->replaced_bytes += t->changed[i];
    }
    for (size_t i = 0; i < t->n_dropped; i++) {
        const Millrace__Dropped *dropped = t->dropped[i];
        if (strcmp(dropped->reason, "short") == 0) check->text_bytes += dropped->bytes;
        else if (strcmp(dropped->reason, "binary") == 0) check->binary_bytes += dropped->bytes;
        else check->bad_bytes += dropped->bytes;
        for (size_t k = 0; k < dropped->n_examples; k++)
            if (strcmp(dropped->reason, "binary") != 0) check_line(check, job, dropped->examples[k]);
    }
    if (t->lines) check->lines[job->parts[0]->file] += t->lines;
}

/* Every byte is in one account, however files are divided and runs end. */
static const char *account_differs(const struct check *check) {
    const struct made *made = check->made;
    uint64_t text = 0, changed = 0;
    for (size_t i = 0; i < made->documents; i++) {
        const struct buf *it = &made->document[i].text;
        text += it->size;
        bool judged_one = check->options.policy.min_characters && is_kept(check, &made->document[i]);
        if (judged_one && it->size && memchr(it->data, 'z', it->size)) changed += it->size;
    }
    if (check->read_bytes != made->read_bytes) return "bytes read";
    if (check->text_bytes != text) return "bytes of text";
    if (check->replaced_bytes != changed) return "bytes changed";
    if (check->bad_bytes != made->bad_bytes || check->binary_bytes != made->binary_bytes) return "bytes left out";
    if (check->around_bytes != made->read_bytes - text - made->bad_bytes - made->binary_bytes) return "bytes around";
    return check->other_members == made->other_members ? NULL : "members passed over";
}

static void check_run(struct check *check, const Millrace__TokenizeJob *job, const struct buf *run,
                      const Millrace__TokenizeResult *result) {
    Millrace__RunTable *t = table_of(run);
    const uint8_t *ids = run->data, *digests = t->digests.data;
    uint64_t documents = 0;
    for (size_t i = 0; i < t->n_source && !check->wrong; i++) {
        check_piece(check, job, t, i, ids, digests);
        ids += 2 * t->piece_tokens[i], digests += t->blocks[i] * SHA256_BYTES;
        documents += (t->flags[i] & TOKEN_RUN_ENDS) != 0;
    }
    if (t->bands.len != t->n_source * 8 * check->options.policy.minhash_bands) check->wrong = "bands";
    if (documents != result->documents || t->tokens != result->tokens) check->wrong = "the result's sums";
    check_account(check, job, t);
    for (size_t i = 0; i < t->n_dropped; i++) {
        uint64_t *sum = strcmp(t->dropped[i]->reason, "short") == 0       ? &check->dropped
                        : strcmp(t->dropped[i]->reason, "binary") == 0    ? &check->binary
                        : strcmp(t->dropped[i]->reason, "bad_record") == 0 ? &check->bad
                                                                          : NULL;
        if (sum) *sum += t->dropped[i]->documents;
        else check->wrong = "a reason";
    }
    check->runs++;
    millrace__run_table__free_unpacked(t, NULL);
}

/* An ingest that was kept open did this run, with an encoder that has seen much: one that is opened at the place, with a new encoder, gives
 * the same bytes and ends at the same place. */
static void check_again(struct check *check, const Millrace__TokenizeJob *job, const struct buf *run,
                        const Millrace__TokenizeResult *result) {
    struct ingest *ingest;
    struct encoder *new_encoder;
    struct buf again = {0};
    Millrace__TokenizeResult fresh = MILLRACE__TOKENIZE_RESULT__INIT;
    reads_left = UINT64_MAX;
    assert_int_equal(ingest_open(&ingest, &check->options, job), 0);
    assert_int_equal(encoder_open(&new_encoder, tokenizer), 0);
    assert_true(ingest_continues(ingest, job));
    if (ingest_run(ingest, &fresh, new_encoder, collect, &again) != 0) check->wrong = err_text();
    else if (again.size != run->size || memcmp(again.data, run->data, run->size) != 0) check->wrong = "another run when opened anew";
    else if (!fresh.next != !result->next) check->wrong = "another end when opened anew";
    else if (fresh.next && (fresh.next->part != result->next->part || fresh.next->member != result->next->member ||
                            fresh.next->documents != result->next->documents || fresh.next->text != result->next->text))
        check->wrong = "another place when opened anew";
    ingest_close(ingest);
    encoder_close(new_encoder);
    buf_free(&again);
}

/* Does a job and those that go on from it: kept open, opened anew, or killed on the way. */
static int check_job(void *arg, const Millrace__TokenizeJob *job) {
    struct check *check = arg;
    Millrace__TokenizeJob here = *job;
    Millrace__Place place = MILLRACE__PLACE__INIT;
    struct ingest *ingest = NULL;
    for (bool done = false; !done && !check->wrong;) {
        struct buf run = {0};
        Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
        reads_left = random_in(check->random, 0, 3) == 0 ? random_in(check->random, 0, 5) : UINT64_MAX;
        if (ingest && random_in(check->random, 0, 1)) ingest_close(ingest), ingest = NULL;
        bool kept_open = ingest != NULL;
        if (ingest && !ingest_continues(ingest, &here)) check->wrong = "an ingest that does not know where it stands";
        int code = ingest ? 0 : ingest_open(&ingest, &check->options, &here);
        assert_int_equal(code, 0);
        code = run_ingest(ingest, &result, collect, &run);
        if (code == ERR_TIMEOUT || (code < 0 && strstr(err_text(), "killed"))) {
            ingest_close(ingest), ingest = NULL;
            check->kills++;
        } else if (code < 0) {
            check->wrong = err_text();
        } else {
            check_run(check, &here, &run, &result);
            if (kept_open) check_again(check, &here, &run, &result);
            done = !result.next;
            if (result.next) place = *result.next, here.from = &place;
        }
        buf_free(&run);
    }
    ingest_close(ingest);
    return 0;
}

static void plan_and_check(struct check *check) {
    struct made *made = check->made;
    struct job_source source[MADE_FILES_MAX];
    uint64_t *index[MADE_FILES_MAX] = {0};
    reads_left = UINT64_MAX;
    for (size_t i = 0; i < made->files; i++) {
        struct byte_reader reader = {read_made, &made->file[i], made->file[i].name, made->file[i].bytes.size};
        source[i] = (struct job_source){.name = reader.name, .size = reader.size, .file = (uint32_t)i, .group = made->file[i].group};
        if (unpack_needed(reader.name)) assert_int_equal(unpack_index(&index[i], &source[i].members, &reader), 0);
        source[i].member_bytes = index[i];
    }
    assert_int_equal(tokenize_jobs_plan_sized(source, made->files, made_groups, check->options.policy.min_characters > 0,
                                              check->block_bytes, check_job, check),
                     0);
    for (size_t i = 0; i < made->files; i++) free(index[i]);
}

static void every_token_of_every_document_comes_exactly_once(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    int runs = 0, kills = 0;
    for (int round = 0; round < 400; round++) {
        struct made *made = made_open(&random);
        struct check check = {.made = made, .random = &random, .block_bytes = random_in(&random, 20, 300)};
        check.options = options_of(made, random_in(&random, 0, 2) ? random_in(&random, 1, 500) : UINT64_MAX, check.block_bytes);
        if (random_in(&random, 0, 1)) check.options.policy.min_characters = random_in(&random, 1, 5);
        if (check.options.policy.min_characters) check.options.policy.minhash_bands = (uint32_t)random_in(&random, 0, 3);
        uint64_t dropped = 0;
        for (size_t i = 0; i < made->documents; i++) dropped += !is_kept(&check, &made->document[i]);
        plan_and_check(&check);
        while (check.at < made->documents && !is_kept(&check, &made->document[check.at])) check.at++;
        if (!check.wrong && (check.at != made->documents || check.under_way)) check.wrong = "documents are missing";
        if (!check.wrong) check.wrong = account_differs(&check);
        if (!check.wrong && (check.dropped != dropped || check.bad != made->bad || check.binary != made->binary)) check.wrong = "left out";
        if (check.wrong) {
            const struct made_document *document = check.at < made->documents ? &made->document[check.at] : NULL;
            fail_msg("MILLRACE_SEED=%llu round %d: %s; document %zu of %s!%s", (unsigned long long)random.seed, round, check.wrong,
                     check.at, document ? made->file[document->file].name : "", document ? document->member : "");
        }
        assert_int_equal(files_open, 0);
        runs += check.runs, kills += check.kills;
        ids_free(&check.ids), buf_free(&check.digests);
        made_close(made);
    }
    print_message("%d runs, %d kills\n", runs, kills);
    assert_true(runs > 1000 && kills > 100);
}

/* ---- one file ---- */

static struct made *made_of(const char *name, uint32_t group, const char *text) {
    struct made *made = mem_alloc(sizeof *made);
    made->files = 1;
    snprintf(made->file[0].name, sizeof made->file[0].name, "%s", name);
    made->file[0].group = group;
    buf_append(&made->file[0].bytes, text, strlen(text));
    return made;
}

/* The whole file as one job. The run is left in *out when it is not NULL. */
static int ingest_all(struct buf *out, const struct ingest_options *options, Millrace__TokenizeResult *result, Millrace__Place *from) {
    struct made *made = options->arg;
    Millrace__SourcePart part = MILLRACE__SOURCE_PART__INIT, *pointer = &part;
    part.name = made->file[0].name;
    part.end = part.size = made->file[0].bytes.size;
    part.group = made->file[0].group;
    part.stream = source_is_stream(part.name, &made_groups[part.group]);
    Millrace__TokenizeJob job = MILLRACE__TOKENIZE_JOB__INIT;
    job.parts = &pointer, job.n_parts = 1, job.from = from;
    struct ingest *ingest;
    struct buf run = {0};
    reads_left = UINT64_MAX;
    result->next = NULL; /* that of an ingest before is gone with it */
    int code = ingest_open(&ingest, options, &job);
    if (code == 0) {
        code = run_ingest(ingest, result, collect, out ? out : &run);
        if (result->next) *from = *result->next;
        ingest_close(ingest);
    }
    buf_free(&run);
    return code;
}

static void settings_that_do_not_fit_a_file_are_told(void **state) {
    (void)state;
    struct buf text = {0};
    for (int i = 0; i < 1200; i++) buf_print(&text, i % 2 || i == 500 ? "{\"body\": \"a\"}\n" : "{\"text\": \"a\"}\n");
    struct made *made = made_of("/made/x.jsonl", MADE_AUTO, (char *)text.data);
    struct ingest_options options = options_of(made, INGEST_TEXT_BYTES, RUN_BLOCK_BYTES);
    Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
    assert_int_equal(ingest_all(NULL, &options, &result, NULL), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "/made/x.jsonl: 501 of its first 1000 records cannot be used (501 of them: no "
                                        "field \"text\"; it has \"body\")"));
    made->file[0].bytes.size = 0;
    for (int i = 0; i < 1200; i++) buf_print(&made->file[0].bytes, i % 2 ? "{\"body\": \"a\"}\n" : "{\"text\": \"a\"}\n");
    assert_int_equal(ingest_all(NULL, &options, &result, NULL), 0); /* half of them are */
    assert_int_equal(result.documents, 600);
    made_close(made);
    buf_clear(&text);
    for (int i = 0; i < 20; i++) buf_print(&text, "{\"id\": %d, \"body\": \"a\"}\n", i);
    buf_print(&text, "{\"id\": 20, \"body");
    made = made_of("/made/y.jsonl", MADE_AUTO, (char *)text.data);
    options.arg = made;
    assert_int_equal(ingest_all(NULL, &options, &result, NULL), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "21 of its first 21 records cannot be used "
                                        "(20 of them: no field \"text\"; it has \"id\", \"body\")"));
    made_close(made);
    made = made_of("/made/x.csv", MADE_AUTO, "id,body\n1,a\n");
    options.arg = made;
    assert_int_equal(ingest_all(NULL, &options, &result, NULL), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "/made/x.csv: no column \"text\""));
    made_close(made), buf_free(&text);
}

static void what_is_left_out_is_counted_and_shown(void **state) {
    (void)state;
    struct buf text = {0}, run = {0};
    for (int i = 0; i < 5; i++) buf_print(&text, "{\"text\": \"enough\"}\n{\"text\": %d\n\"a\"\n", i);
    buf_append(&text, "{\"\xC3", 3);
    for (int i = 0; i < 500; i++) buf_append(&text, "\xC3\xA9", 2);
    struct made *made = made_of("/made/x.jsonl", MADE_AUTO, (char *)text.data);
    struct ingest_options options = options_of(made, INGEST_TEXT_BYTES, RUN_BLOCK_BYTES);
    options.policy.min_characters = 4;
    Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
    assert_int_equal(ingest_all(&run, &options, &result, NULL), 0);
    Millrace__RunTable *table = table_of(&run);
    assert_int_equal(table->n_source, 5);
    assert_int_equal(table->n_dropped, 2);
    const Millrace__Dropped *bad = table->dropped[0], *small = table->dropped[1];
    assert_string_equal(bad->reason, "bad_record");
    assert_int_equal(bad->documents, 6);
    assert_int_equal(bad->n_examples, TOKEN_RUN_EXAMPLES_MAX);
    assert_string_equal(bad->examples[1]->source, "/made/x.jsonl");
    assert_int_equal(bad->examples[1]->offset, 53);
    assert_string_equal(bad->examples[1]->text, "{\"text\": 1");
    assert_non_null(strstr(bad->examples[1]->detail, "not JSON"));
    assert_int_equal(small->documents, 5);
    assert_int_equal(small->bytes, 5);
    assert_string_equal(small->examples[0]->text, "a");
    millrace__run_table__free_unpacked(table, NULL);
    made_close(made), buf_free(&text), buf_free(&run);
}

static void an_example_is_well_formed_and_short(void **state) {
    (void)state;
    struct buf text = {0}, run = {0};
    buf_append(&text, "{\x80", 2);
    for (int i = 0; i < 500; i++) buf_append(&text, "\xE6\x97\xA5", 3);
    struct made *made = made_of("/made/x.jsonl", MADE_AUTO, (char *)text.data);
    struct ingest_options options = options_of(made, INGEST_TEXT_BYTES, RUN_BLOCK_BYTES);
    Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
    assert_int_equal(ingest_all(&run, &options, &result, NULL), 0);
    Millrace__RunTable *table = table_of(&run);
    const char *example = table->dropped[0]->examples[0]->text;
    assert_int_equal(strlen(example), 1 + 3 + 3 * 132);
    assert_int_equal(strncmp(example, "{\xEF\xBF\xBD\xE6\x97\xA5", 7), 0);
    assert_string_equal(example + strlen(example) - 3, "\xE6\x97\xA5");
    millrace__run_table__free_unpacked(table, NULL);
    made_close(made), buf_free(&text), buf_free(&run);
}

static void a_document_that_the_policy_refuses_is_named(void **state) {
    (void)state;
    struct made *made = made_of("/made/x.txt", MADE_LINES, "one\nrefuse\n");
    struct ingest_options options = options_of(made, INGEST_TEXT_BYTES, RUN_BLOCK_BYTES);
    options.policy.min_characters = 1;
    Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
    assert_int_equal(ingest_all(NULL, &options, &result, NULL), ERR_CONFIG);
    assert_string_equal(err_text(), "/made/x.txt: the document at byte 4: refused");
    made_close(made);
}

static void nothing_is_judged_twice(void **state) {
    (void)state;
    struct buf text = {0};
    for (int i = 0; i < 300; i++) buf_print(&text, "line number %d\n", i);
    struct made *made = made_of("/made/x.txt", MADE_LINES, (char *)text.data);
    struct ingest_options options = options_of(made, 100, RUN_BLOCK_BYTES);
    options.policy.min_characters = 1;
    Millrace__Place place = MILLRACE__PLACE__INIT;
    uint64_t documents = 0, bytes = 0;
    int runs = 0;
    judged = 0;
    for (bool done = false; !done; runs++) {
        Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
        assert_int_equal(ingest_all(NULL, &options, &result, &place), 0);
        documents += result.documents, bytes += result.source_bytes;
        done = !result.next;
    }
    assert_int_equal(documents, 300);
    assert_int_equal(judged, 300);
    assert_true(runs > 30);
    assert_true(bytes <= text.size);
    made_close(made), buf_free(&text);
}

/* A file that is another one after `checks_left` looks at it. */
static int checks_left;
static int check_made(void *arg, struct byte_reader *reader) {
    (void)arg;
    return checks_left-- > 0 ? 0 : err_set(ERR_CORRUPT, "%s is another file", reader->name);
}

/* At the end of each run, and of each part; and damage that nobody made is not what is told. */
static void what_was_read_counts_only_when_the_file_is_the_same(void **state) {
    (void)state;
    struct made *made = made_of("/made/x.txt", MADE_LINES, "one\ntwo\nthree\n");
    struct made *bad = made_of("/made/x.csv", MADE_AUTO, "a,b\n1,2\n"); /* without the column */
    struct ingest_options options = options_of(made, 5, 8);
    Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
    Millrace__Place place = MILLRACE__PLACE__INIT;
    options.check = check_made;
    for (int checks = 0; checks < 3; checks++) {
        place = (Millrace__Place)MILLRACE__PLACE__INIT;
        checks_left = checks;
        int code = ingest_all(NULL, &options, &result, &place);
        assert_int_equal(code, checks == 0 ? ERR_CORRUPT : 0);
        if (code == 0) assert_non_null(result.next);
        if (code == 0) code = ingest_all(NULL, &options, &result, &place);
        assert_int_equal(code, checks <= 1 ? ERR_CORRUPT : 0);
    }
    assert_non_null(strstr(err_text(), "/made/x.txt is another file"));
    options.arg = bad;
    for (int checks = 0; checks < 2; checks++) {
        checks_left = checks;
        place = (Millrace__Place)MILLRACE__PLACE__INIT;
        assert_int_equal(ingest_all(NULL, &options, &result, &place), checks ? ERR_CONFIG : ERR_CORRUPT);
        assert_non_null(strstr(err_text(), checks ? "no column" : "/made/x.csv is another file"));
    }
    assert_int_equal(files_open, 0);
    made_close(made), made_close(bad);
}

static void what_goes_wrong_ends_the_run(void **state) {
    (void)state;
    struct made *made = made_of("/made/x.txt", MADE_AUTO, "some words here\n");
    struct ingest_options options = options_of(made, INGEST_TEXT_BYTES, 8);
    Millrace__SourcePart part = MILLRACE__SOURCE_PART__INIT, *pointer = &part;
    Millrace__TokenizeJob job = MILLRACE__TOKENIZE_JOB__INIT;
    Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
    struct ingest *ingest = NULL;
    struct buf run = {0};
    part.name = made->file[0].name, job.parts = &pointer, job.n_parts = 1;
    static const struct {
        uint64_t begin, end, size;
        uint32_t group;
        bool opens;
    } known[] = {{0, 16, 16, 0, true}, {8, 16, 16, 0, true}, {4, 16, 16, 0, false}, {0, 12, 16, 0, false}, {8, 8, 16, 0, false},
                 {16, 8, 16, 0, false}, {0, 24, 16, 0, false}, {0, 16, 16, 9, false}, {0, 17, 17, 0, true}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        part.begin = known[i].begin, part.end = known[i].end, part.size = known[i].size, part.group = known[i].group;
        assert_int_equal(ingest_open(&ingest, &options, &job), known[i].opens ? 0 : ERR_CORRUPT);
        reads_left = UINT64_MAX;
        if (known[i].opens) assert_int_equal(run_ingest(ingest, &result, collect, &run), known[i].size == 16 ? 0 : ERR_CORRUPT);
        if (known[i].opens) ingest_close(ingest);
    }
    assert_non_null(strstr(err_text(), "/made/x.txt changed while it was read"));
    assert_int_equal(files_open, 0);
    made_close(made), buf_free(&run);
}

/* ---- memory ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { LINE_MIB = 24, WATCHED = 1 }; /* by a tool that takes memory of its own */
#else
enum { LINE_MIB = 200, WATCHED = 0 };
#endif
static int read_line(void *arg, void *out, size_t *out_got, size_t size_bytes, uint64_t offset) {
    (void)arg;
    for (size_t i = 0; i < size_bytes; i++) ((uint8_t *)out)[i] = (uint8_t)('a' + (offset + i) % 26);
    *out_got = size_bytes;
    return 0;
}
static int open_line(void *arg, struct byte_reader *out, const Millrace__SourcePart *part) {
    (void)arg;
    files_open++;
    *out = (struct byte_reader){read_line, NULL, part->name, part->size};
    return 0;
}
static int ticks;
static int count_ticks(void *arg) { return (void)arg, ++ticks, 0; }
static int stop(void *arg) { return (void)arg, 1; }
static long peak_resident_mib(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss >> 10;
}

static void a_line_that_is_too_long_passes_through(void **state) {
    (void)state;
    struct made *made = made_of("/made/x.txt", MADE_LINES, "");
    struct ingest_options options = options_of(made, INGEST_TEXT_BYTES, RUN_BLOCK_BYTES);
    options.open = open_line, options.tick = count_ticks;
    Millrace__SourcePart part = MILLRACE__SOURCE_PART__INIT, *pointer = &part;
    part.name = made->file[0].name, part.group = MADE_LINES, part.end = part.size = (uint64_t)LINE_MIB << 20;
    Millrace__TokenizeJob job = MILLRACE__TOKENIZE_JOB__INIT;
    job.parts = &pointer, job.n_parts = 1;
    Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
    struct ingest *ingest;
    struct buf run = {0};
    const long before = peak_resident_mib();
    assert_int_equal(ingest_open(&ingest, &options, &job), 0);
    assert_int_equal(run_ingest(ingest, &result, collect, &run), 0);
    assert_true(ticks >= LINE_MIB);
    assert_int_equal(result.source_bytes, part.size);
    Millrace__RunTable *table = table_of(&run);
    assert_int_equal(table->n_source, 0);
    assert_string_equal(table->dropped[0]->reason, "too_long");
    assert_int_equal(table->dropped[0]->bytes, part.size);
    assert_int_equal(strlen(table->dropped[0]->examples[0]->text), TOKEN_RUN_EXAMPLE_BYTES);
    print_message("peak resident memory: %ld MiB, %ld before\n", peak_resident_mib(), before);
    if (!WATCHED && before < 60) assert_true(peak_resident_mib() < before + 60); /* valgrind takes more to begin with */
    millrace__run_table__free_unpacked(table, NULL);
    ingest_close(ingest);
    options.tick = stop;
    assert_int_equal(ingest_open(&ingest, &options, &job), 0);
    assert_int_equal(run_ingest(ingest, &result, collect, &run), ERR_INTERRUPTED);
    ingest_close(ingest);
    made_close(made), buf_free(&run);
}

/* Of a text that can be cut nowhere all is one token run: what nobody would take ends where it is too long. */
static void a_token_run_that_is_too_long_is_refused_where_it_becomes_so(void **state) {
    (void)state;
    static const struct {
        uint32_t group;
        const char *text, *says; /* NULL: it is made */
    } cases[] = {{MADE_AUTO, "abcdefgh", "x.txt: the text from byte 0 on makes a token run of more than 300,000 bytes, which is the most: "
                                         "it has no blank and no line end at which it could be cut; divide it into several files"},
                 {MADE_AUTO, "abc defg", NULL},
                 {MADE_LINES, "q!x@z#j$", "it has several tokens for each byte"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct made *made = made_of("/made/x.txt", cases[i].group, "");
        for (int k = 0; k < 200000; k++) assert_int_equal(buf_append(&made->file[0].bytes, cases[i].text, 8), 0);
        struct ingest_options options = options_of(made, 1000, 500);
        options.run_bytes = 300000;
        Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
        Millrace__Place from = MILLRACE__PLACE__INIT;
        int code = ingest_all(NULL, &options, &result, &from);
        assert_int_equal(code, cases[i].says ? ERR_CONFIG : 0);
        if (cases[i].says && !strstr(err_text(), cases[i].says)) fail_msg("%s", err_text());
        made_close(made);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_that_is_too_long_passes_through),
        cmocka_unit_test(every_token_of_every_document_comes_exactly_once),
        cmocka_unit_test(settings_that_do_not_fit_a_file_are_told),
        cmocka_unit_test(what_is_left_out_is_counted_and_shown),
        cmocka_unit_test(an_example_is_well_formed_and_short),
        cmocka_unit_test(a_document_that_the_policy_refuses_is_named),
        cmocka_unit_test(nothing_is_judged_twice),
        cmocka_unit_test(what_was_read_counts_only_when_the_file_is_the_same),
        cmocka_unit_test(what_goes_wrong_ends_the_run),
        cmocka_unit_test(a_token_run_that_is_too_long_is_refused_where_it_becomes_so),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
