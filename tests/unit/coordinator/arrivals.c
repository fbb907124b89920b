/* What a worker says of its output is compared with the output, and both with the job: one lie after the other. */
#include "tests/unit/dataset/shards.h"

#include "coordinator/arrivals.h"
#include "dataset/ingest/token_run_build.h"

static struct tokenizer *tokenizer;
static struct config config;
static char *path;

static int begin(void **state) {
    if (make_test_folder(state) != 0) return -1;
    path = mem_format("%s/output", test_folder);
    config = (struct config){0};
    config.dataset.minhash_bands = 2, config.dataset.minhash_rows = 2, config.dataset.minhash_words = 2;
    return tokenizer_open(&tokenizer, "gpt2");
}

static int end(void **state) {
    tokenizer_close(tokenizer);
    free(path);
    return remove_test_folder(state);
}

static int check(const Millrace__Lease *lease, const Millrace__Done *done) {
    struct arrival_terms terms = arrival_terms_of(&config, tokenizer);
    bool pack = lease->work_case == MILLRACE__LEASE__WORK_PACK;
    return pack ? arrival_check_shard(&terms, lease, done, path) : arrival_check_run(&terms, lease, done, path);
}

/* ---- runs ---- */

struct run_told {
    uint32_t token_bytes, ids, source, vocabulary_more;
    uint64_t tokens;
    bool near, without_bands, has_next;
    uint64_t next[4], from[4]; /* part, member, documents, text */
};
static const struct run_told honest = {.token_bytes = 2, .ids = 50256, .source = 1, .tokens = 3};

/* Two documents of one and of two tokens. */
static void write_run(const struct run_told *run) {
    struct token_run_builder builder;
    struct buf sealed = {0}, file = {0};
    uint8_t digest[SHA256_BYTES] = {1};
    token_run_builder_open(&builder, run->token_bytes);
    for (uint32_t i = 0; i < 2; i++) {
        token_run_builder_piece(&builder, i ? run->source : 0, token_run_builder_member(&builder, ""), 0);
        builder.table.flags[i] = TOKEN_RUN_BEGINS | TOKEN_RUN_ENDS;
        builder.table.piece_tokens[i] = i + 1, builder.table.bytes[i] = 10;
        SUCCEEDS(token_run_builder_block(&builder, digest));
        if (run->near && !run->without_bands) SUCCEEDS(token_run_builder_bands(&builder, (const uint64_t[]){i, 7}, 2));
    }
    builder.table.read_bytes = 20;
    SUCCEEDS(token_run_builder_seal(&builder, &sealed));
    for (int i = 0; i < 3; i++) SUCCEEDS(buf_append(&file, i < 2 ? &(uint32_t){5} : &run->ids, run->token_bytes));
    SUCCEEDS(buf_append(&file, sealed.data, sealed.size));
    SUCCEEDS(file_publish(path, file.data, file.size));
    token_run_builder_close(&builder);
    buf_free(&sealed);
    buf_free(&file);
}

static void set_place(Millrace__Place *out, const uint64_t from[4]) {
    millrace__place__init(out);
    out->part = (uint32_t)from[0], out->member = from[1], out->documents = from[2], out->text = from[3];
}

static int take_run(const struct run_told *run) {
    Millrace__SourcePart part = MILLRACE__SOURCE_PART__INIT, *parts[] = {&part, &part};
    Millrace__TokenizeJob job = MILLRACE__TOKENIZE_JOB__INIT;
    Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    Millrace__Place next, from;
    write_run(run);
    set_place(&next, run->next);
    set_place(&from, run->from);
    job.parts = parts, job.n_parts = 2, job.from = &from;
    result.tokens = run->tokens, result.documents = 2, result.next = run->has_next ? &next : NULL;
    lease.work_case = MILLRACE__LEASE__WORK_TOKENIZE, lease.tokenize = &job;
    done.result_case = MILLRACE__DONE__RESULT_TOKENIZE, done.tokenize = &result;
    config.dataset.deduplicate = run->near ? DEDUPLICATE_NEAR : DEDUPLICATE_EXACT;
    return check(&lease, &done);
}

static void a_run_that_is_what_was_told_is_taken(void **state) {
    (void)state;
    struct run_told run = honest;
    SUCCEEDS(take_run(&run));
    run.near = true;
    SUCCEEDS(take_run(&run));
    run.has_next = true;
    const uint64_t later[][4] = {{1, 0, 0, 0}, {0, 4, 0, 0}, {0, 3, 8, 0}, {0, 3, 7, 2}}, here[4] = {0, 3, 7, 1};
    memcpy(run.from, here, sizeof here);
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        memcpy(run.next, later[i], sizeof later[i]);
        SUCCEEDS(take_run(&run));
    }
}

/* Such a chain of jobs would never end, or have no job. */
static void a_run_that_does_not_go_on_is_refused(void **state) {
    (void)state;
    const uint64_t bad[][4] = {{2, 0, 0, 0}, {0, 3, 7, 1}, {0, 3, 7, 0}, {0, 3, 6, 9}, {0, 2, 9, 9}}, here[4] = {0, 3, 7, 1};
    struct run_told run = honest;
    run.has_next = true;
    memcpy(run.from, here, sizeof here);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy(run.next, bad[i], sizeof bad[i]);
        assert_int_equal(take_run(&run), ERR_PEER);
    }
}

static void a_run_that_is_not_what_was_told_is_refused(void **state) {
    (void)state;
    struct run_told run = honest;
    run.token_bytes = 4;
    assert_int_equal(take_run(&run), ERR_PEER);
    run = honest, run.tokens = 4;
    assert_int_equal(take_run(&run), ERR_PEER);
    run = honest, run.source = 2;
    assert_int_equal(take_run(&run), ERR_PEER);
    run = honest, run.near = run.without_bands = true;
    assert_int_equal(take_run(&run), ERR_PEER);
    run = honest, run.ids = 50257; /* one more than the tokenizer's highest */
    assert_true(take_run(&run) < 0);
}

/* ---- shards ---- */

static int take_shard(Millrace__PackJob *job, uint64_t tokens, uint64_t documents) {
    Millrace__PackResult result = MILLRACE__PACK_RESULT__INIT;
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    result.tokens = tokens, result.documents = documents;
    lease.work_case = MILLRACE__LEASE__WORK_PACK, lease.pack = job;
    done.result_case = MILLRACE__DONE__RESULT_PACK, done.pack = &result;
    return check(&lease, &done);
}

static void a_shard_is_the_one_that_its_job_asks_for_or_is_refused(void **state) {
    (void)state;
    struct corpus corpus = corpus_make(3, 40, 60, 4);
    corpus_cut(&corpus, 1, 1, 10);
    Millrace__PackJob *job = small_job(&corpus, 10, 500, 64);
    Millrace__PackResult made;
    struct buf bytes = {0};
    SUCCEEDS(build(&bytes, &made, job, &corpus));
    SUCCEEDS(file_publish(path, bytes.data, bytes.size));
    SUCCEEDS(take_shard(job, made.tokens, made.documents));
    assert_int_equal(take_shard(job, made.tokens + 1, made.documents), ERR_PEER);
    assert_true(take_shard(job, made.tokens, made.documents + 1) < 0);
    job->first_token++;
    assert_true(take_shard(job, made.tokens, made.documents) < 0);
    job->first_token--, job->tokens--;
    assert_true(take_shard(job, made.tokens - 1, made.documents) < 0);
    job->tokens++, job->eos++;
    assert_true(take_shard(job, made.tokens, made.documents) < 0);
    job->eos--, job->separate = !job->separate;
    assert_true(take_shard(job, made.tokens, made.documents) < 0);
    job->separate = !job->separate, job->frame_tokens *= 2;
    assert_true(take_shard(job, made.tokens, made.documents) < 0);
    job->frame_tokens /= 2, job->first_document++;
    assert_true(take_shard(job, made.tokens, made.documents) < 0);
    job->first_document--;
    SUCCEEDS(take_shard(job, made.tokens, made.documents));
    buf_free(&bytes);
    millrace__pack_job__free_unpacked(job, NULL);
    corpus_free(&corpus);
}

/* The token that ends documents may be another one than all of the tokenizer's. */
static void an_end_of_text_beyond_the_tokenizer_is_no_fault(void **state) {
    (void)state;
    struct corpus corpus = corpus_make(4, 40, 60, 4);
    corpus_cut(&corpus, 1, 1, 10);
    Millrace__PackJob *job = small_job(&corpus, 0, 500, 64);
    Millrace__PackResult made;
    struct buf bytes = {0};
    job->eos = 60000;
    SUCCEEDS(build(&bytes, &made, job, &corpus));
    SUCCEEDS(file_publish(path, bytes.data, bytes.size));
    SUCCEEDS(take_shard(job, made.tokens, made.documents));
    buf_free(&bytes);
    millrace__pack_job__free_unpacked(job, NULL);
    corpus_free(&corpus);
}

static void the_result_of_another_kind_of_job_is_refused(void **state) {
    (void)state;
    Millrace__PackJob job = MILLRACE__PACK_JOB__INIT;
    Millrace__TokenizeResult result = MILLRACE__TOKENIZE_RESULT__INIT;
    Millrace__Lease lease = MILLRACE__LEASE__INIT;
    Millrace__Done done = MILLRACE__DONE__INIT;
    lease.work_case = MILLRACE__LEASE__WORK_PACK, lease.pack = &job;
    done.result_case = MILLRACE__DONE__RESULT_TOKENIZE, done.tokenize = &result;
    assert_int_equal(check(&lease, &done), ERR_PEER);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_run_that_is_what_was_told_is_taken, begin, end),
        cmocka_unit_test_setup_teardown(a_run_that_does_not_go_on_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(a_run_that_is_not_what_was_told_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(a_shard_is_the_one_that_its_job_asks_for_or_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(an_end_of_text_beyond_the_tokenizer_is_no_fault, begin, end),
        cmocka_unit_test_setup_teardown(the_result_of_another_kind_of_job_is_refused, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
