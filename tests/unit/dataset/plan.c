/* The plan against its naive twin: which documents stay, where each token lies, and where it came from. */
#include "tests/unit/dataset/twin.h"

#include "base/clock.h"
#include "dataset/shard/shard_index.h"

static void frames_hold_whole_sequences_and_shards_whole_frames(void **state) {
    (void)state;
    static const uint64_t lengths[] = {1, 2, 3, 7, 256, 1000, 1024, 65535, 65536, 65537, 1 << 20};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint64_t frame = frame_tokens_for(lengths[i]);
        assert_true(frame >= lengths[i] && frame % lengths[i] == 0);
        assert_true(frame == lengths[i] || (frame <= 65536 && frame > 32768));
        assert_int_equal(shard_tokens_for(0, lengths[i]), frame);
        assert_int_equal(shard_tokens_for(frame - 1, lengths[i]), frame);
        assert_int_equal(shard_tokens_for(2 * frame - 1, lengths[i]), frame);
        assert_int_equal(shard_tokens_for(2 * frame, lengths[i]), 2 * frame);
        uint64_t effective = shard_tokens_for(10000000, lengths[i]);
        assert_int_equal(shard_tokens_for(effective, lengths[i]), effective);
    }
    assert_int_equal(frame_tokens_for(256), 65536);
    assert_int_equal(frame_tokens_for(1000), 65000);
}

static void sequences_that_overlap_need_one_token_more(void **state) {
    (void)state;
    static const struct {
        uint64_t tokens, one_array, separate;
    } cases[] = {{0, 0, 0}, {1, 0, 0}, {4, 0, 1}, {5, 1, 1}, {8, 1, 2}, {9, 2, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(sequences_in(cases[i].tokens, 4, false), cases[i].one_array);
        assert_int_equal(sequences_in(cases[i].tokens, 4, true), cases[i].separate);
    }
}

/* ---- Jobs ---- */

static uint64_t column_at(const uint64_t *column, size_t count, size_t i) { return count ? column[i] : 0; }

/* One extent's origin: the run has the token, and the source position is the piece's. */
static void check_place(const struct corpus *corpus, const Millrace__PackJob *job, size_t k, const struct origin *at) {
    uint64_t seed = corpus->seed, skipped = column_at(job->skipped, job->n_skipped, k);
    char *member = corpus_member(at->document);
    uint32_t number = job->n_member ? job->member[k] : 0;
    HOLDS(seed, job->source[k] == at->document);
    HOLDS(seed, member ? number && strcmp(job->member_name[number - 1], member) == 0 : number == 0);
    uint64_t piece_first = at->document_token - skipped; /* the piece's first token in the document */
    HOLDS(seed, skipped <= at->document_token && job->offset[k] == corpus_offset(at->document, (size_t)piece_first));
    free(member);
}

/* Goes through a job's tokens and compares each with the twin's. */
static void check_job(const struct corpus *corpus, const Millrace__PackJob *job, const struct twin_split *split) {
    uint64_t seed = corpus->seed, at = job->first_token, end = at + job->tokens + (at + job->tokens < split->tokens), begun = 0;
    for (size_t k = 0; k < job->n_run; k++) {
        const struct origin *first = &split->origin[at];
        HOLDS(seed, at < end && job->document[k] == first->number && first->kind != PADDING);
        HOLDS(seed, column_at(job->document_token, job->n_document_token, k) == first->document_token);
        check_place(corpus, job, k, first);
        if (first->kind == TEXT && first->document_token == 0 && begun++ == 0) HOLDS(seed, job->first_document == first->number);
        for (uint64_t t = 0; t < job->count[k]; t++, at++) {
            const struct buf *run = &corpus->run[job->run[k]].bytes;
            HOLDS(seed, at < end && (job->first[k] + t + 1) * corpus->token_bytes <= run->size);
            uint32_t token = token_get(run->data + (job->first[k] + t) * corpus->token_bytes, corpus->token_bytes);
            const struct origin *origin = &split->origin[at];
            HOLDS(seed, origin->kind == TEXT && origin->token == token && origin->number == job->document[k]);
            HOLDS(seed, origin->document_token == first->document_token + t);
        }
        if (job->ends[k]) {
            HOLDS(seed, at < end && split->origin[at].kind == ENDS && split->origin[at].number == job->document[k]);
            at++;
        }
        for (uint32_t p = 0; job->n_padding && p < job->padding[k]; p++, at++) HOLDS(seed, at < end && split->origin[at].kind == PADDING);
    }
    HOLDS(seed, at == end);
}

static void check_plan(const struct dataset_plan *plan, const struct twin *twin) {
    const struct corpus *corpus = twin->corpus;
    uint64_t seed = corpus->seed;
    size_t i = 0;
    for (int side = 0; side < 2; side++) {
        struct split_totals totals = dataset_plan_totals(plan, side);
        const struct twin_split *split = &twin->split[side];
        HOLDS(seed, totals.tokens == split->tokens && totals.documents == split->documents);
        uint64_t at = 0;
        for (uint32_t shard = 0; shard < totals.shards; shard++, i++) {
            Millrace__PackJob *job;
            SUCCEEDS(dataset_plan_job(&job, plan, i));
            HOLDS(seed, strcmp(job->split, side ? "validation" : "train") == 0 && job->shard == shard && job->first_token == at);
            HOLDS(seed, job->token_bytes == corpus->token_bytes && job->tokens > 0 && job->eos == END_OF_TEXT);
            HOLDS(seed, job->separate == (twin->options->packing == PACKING_CONCAT ? 0 : twin->options->sequence_length));
            check_job(corpus, job, split);
            at += job->tokens;
            millrace__pack_job__free_unpacked(job, NULL);
        }
        HOLDS(seed, at == split->tokens);
    }
    HOLDS(seed, i == dataset_plan_jobs(plan));
}

/* ---- The report ---- */

static uint64_t dropped(const struct manifest *m, const char *reason) {
    for (size_t i = 0; i < m->drops; i++)
        if (strcmp(m->dropped[i]->reason, reason) == 0) {
            uint64_t documents = m->dropped[i]->documents;
            assert_int_equal(m->dropped[i]->n_examples, documents < PLAN_EXAMPLES_MAX ? documents : PLAN_EXAMPLES_MAX);
            return documents;
        }
    return 0;
}

static void check_report(const struct dataset_plan *plan, const struct twin *twin) {
    struct manifest m = {0};
    uint64_t seed = twin->corpus->seed, train[8] = {0}, held[8] = {0}, padding = 0, cut = 0;
    dataset_plan_describe(plan, &m);
    HOLDS(seed, dropped(&m, "duplicate") == twin_count(twin, TWIN_EXACT));
    HOLDS(seed, dropped(&m, "near_duplicate") == twin_count(twin, TWIN_NEAR));
    HOLDS(seed, dropped(&m, "in_validation") == twin_count(twin, TWIN_KNOWN));
    HOLDS(seed, dropped(&m, "weight") == twin_count(twin, TWIN_WEIGHT));
    HOLDS(seed, m.empty_documents == twin_count(twin, TWIN_EMPTY));
    HOLDS(seed, m.documents == twin->split[0].documents + twin->split[1].documents && m.train_documents == twin->split[0].documents);
    HOLDS(seed, m.tokens == twin->split[0].tokens + twin->split[1].tokens);
    for (int side = 0; side < 2; side++) {
        const struct twin_split *split = &twin->split[side];
        for (size_t i = 0; i < split->documents; i++) {
            size_t d = split->order[i];
            (side ? held : train)[twin->corpus->group[d]] += twin_stored(twin, d);
            if (twin->options->packing == PACKING_PAD && twin_stored(twin, d) < twin->corpus->document[d].tokens)
                cut += twin->corpus->document[d].tokens - twin_stored(twin, d);
        }
        for (size_t t = 0; t < split->tokens; t++) padding += split->origin[t].kind == PADDING;
    }
    HOLDS(seed, m.padding == padding && m.truncated_tokens == cut);
    for (size_t g = 0; g < m.groups; g++) HOLDS(seed, m.group[g]->train_tokens == train[g] && m.group[g]->validation_tokens == held[g]);
    manifest_free(&m);
}

/* ---- Against the twin ---- */

static const enum packing packings[] = {PACKING_CONCAT, PACKING_PAD, PACKING_BEST_FIT};

/* Some documents repeat others, or share bands with them. */
static void make_alike(struct corpus *corpus, struct dice *dice) {
    corpus->bands = 3;
    for (size_t d = 0; d < corpus->documents; d++) {
        for (uint32_t b = 0; b < corpus->bands; b++) corpus->document[d].band[b] = dice_throw(dice, 9 * corpus->documents);
        if (d && dice_throw(dice, 5) == 0) {
            size_t from = dice_throw(dice, d);
            corpus_copy(corpus, d, from);
            memcpy(corpus->document[d].band, corpus->document[from].band, sizeof corpus->document[d].band);
        }
    }
}

static void check_against_twin(struct corpus *corpus, const struct plan_options *options) {
    uint64_t seed = corpus->seed, T = options->sequence_length;
    CHECK(T > 0);
    struct twin twin = twin_make(corpus, options);
    struct dataset_plan *plan = NULL;
    int code = dataset_plan_from_runs(&plan, options);
    uint64_t least = T + (options->packing == PACKING_CONCAT);
    if (twin.split[0].tokens < least) {
        HOLDS(seed, code == ERR_CONFIG);
    } else {
        HOLDS(seed, code == 0);
        uint64_t one = options->packing == PACKING_CONCAT;
        HOLDS(seed, dataset_plan_totals(plan, false).sequences == (twin.split[0].tokens - one) / T);
        check_plan(plan, &twin);
        check_report(plan, &twin);
        dataset_plan_free(plan);
    }
    twin_free(&twin);
}

static void every_token_of_every_document_lies_where_the_twin_puts_it(void **state) {
    (void)state;
    static const double fractions[] = {0, 1e-18, 0.1, 0.5, 0.999, 1};
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct dice dice = {seed, 1 << 20};
        struct corpus corpus = corpus_make(seed, 2 + dice_throw(&dice, 60), 1 + dice_throw(&dice, seed % 3 ? 30 : 3000), seed % 4 ? 2 : 4);
        if (seed % 2) make_alike(&corpus, &dice);
        corpus_cut(&corpus, seed, seed + 1, 1 + dice_throw(&dice, 1000));
        struct plan_options options = corpus_options(&corpus, fractions[dice_throw(&dice, 6)], 2 + dice_throw(&dice, seed % 5 ? 40 : 4000),
                                                     dice_throw(&dice, 100000));
        options.minhash_bands = corpus.bands;
        options.deduplicate = corpus.bands ? DEDUPLICATE_NEAR : (enum deduplicate)dice_throw(&dice, 2);
        for (size_t p = 0; p < 3; p++) {
            options.packing = packings[p];
            check_against_twin(&corpus, &options);
        }
        corpus_free(&corpus);
    }
}

static void groups_are_mixed_by_weight_as_the_twin_does(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        struct dice dice = {seed, 1 << 20};
        struct corpus corpus = corpus_make(seed, 40 + dice_throw(&dice, 30), 50, 2);
        make_alike(&corpus, &dice);
        struct source_group groups[4] = {{.name = (char *)"a", .weight = 1 + (double)dice_throw(&dice, 7)},
                                         {.name = (char *)"b", .weight = 0.1 * (double)(1 + dice_throw(&dice, 9)), .split = SPLIT_TRAIN},
                                         {.name = (char *)"c", .weight = 2},
                                         {.name = (char *)"d", .split = SPLIT_VALIDATION}};
        for (size_t d = 0; d < corpus.documents; d++) corpus.group[d] = (uint32_t)dice_throw(&dice, 4);
        corpus_cut(&corpus, seed, seed + 1, 20);
        struct plan_options options = corpus_options(&corpus, 0.1, 2 + dice_throw(&dice, 30), 1);
        options.groups = groups;
        options.group_count = 4;
        options.packing = packings[seed % 3];
        options.stopping = seed / 3 % 2 ? STOPPING_ALL_EXHAUSTED : STOPPING_FIRST_EXHAUSTED;
        options.minhash_bands = corpus.bands;
        options.deduplicate = (enum deduplicate)(seed / 6 % 3);
        if (options.deduplicate != DEDUPLICATE_NEAR) corpus.bands = 0;
        check_against_twin(&corpus, &options);
        corpus_free(&corpus);
    }
}

static void shares_are_kept_to_within_a_document_at_every_place(void **state) {
    (void)state;
    struct corpus corpus = corpus_make(4, 3000, 40, 2);
    struct source_group groups[2] = {{.name = (char *)"much", .weight = 0.7}, {.name = (char *)"little", .weight = 0.3}};
    for (size_t d = 0; d < corpus.documents; d++) corpus.group[d] = d >= 1500;
    corpus_whole(&corpus);
    struct plan_options options = corpus_options(&corpus, 0, 16, 1 << 30);
    options.groups = groups;
    options.group_count = 2;
    options.stopping = STOPPING_ALL_EXHAUSTED;
    struct dataset_plan *plan;
    SUCCEEDS(dataset_plan_from_runs(&plan, &options));
    Millrace__PackJob *job;
    SUCCEEDS(dataset_plan_job(&job, plan, 0));
    double taken[2] = {0}, all = 0;
    for (size_t k = 0; k < job->n_run; k++) {
        taken[job->source[k] >= 1500] += (double)job->count[k] + 1;
        all += (double)job->count[k] + 1;
        for (int g = 0; g < 2; g++) assert_true(taken[g] - groups[g].weight * all <= 41 && groups[g].weight * all - taken[g] <= 41);
    }
    millrace__pack_job__free_unpacked(job, NULL);
    dataset_plan_free(plan);
    corpus_free(&corpus);
}

static void a_source_that_would_be_repeated_for_ever_is_refused(void **state) {
    (void)state;
    struct corpus corpus = corpus_of((size_t[]){1, 60000}, 2, 2);
    struct source_group groups[2] = {{.name = (char *)"tiny", .weight = 0.99}, {.name = (char *)"large", .weight = 0.01}};
    corpus.group[1] = 1;
    corpus_whole(&corpus);
    struct plan_options options = corpus_options(&corpus, 0, 16, 1);
    options.groups = groups;
    options.group_count = 2;
    options.stopping = STOPPING_ALL_EXHAUSTED;
    struct dataset_plan *plan;
    SUCCEEDS(dataset_plan_from_runs(&plan, &options)); /* the large document comes second */
    dataset_plan_free(plan);
    corpus_free(&corpus);
    corpus = corpus_of((size_t[]){1, 30000, 30000}, 3, 2);
    corpus.group[1] = corpus.group[2] = 1;
    corpus_whole(&corpus);
    options = corpus_options(&corpus, 0, 16, 1);
    options.groups = groups;
    options.group_count = 2;
    options.stopping = STOPPING_ALL_EXHAUSTED;
    assert_int_equal(dataset_plan_from_runs(&plan, &options), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "tiny"));
    options.stopping = STOPPING_FIRST_EXHAUSTED;
    groups[1].split = SPLIT_VALIDATION;
    groups[1].weight = 0;
    groups[0].weight = 1;
    assert_int_equal(dataset_plan_from_runs(&plan, &options), ERR_CONFIG); /* a document of 2 tokens makes no sequence */
    corpus.group[0] = 1;
    assert_int_equal(dataset_plan_from_runs(&plan, &options), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "has a weight"));
    corpus_free(&corpus);
}

/* ---- How runs are cut does not matter ---- */

/* All jobs, but for which run each token is in. */
static void print_jobs(struct buf *out, const struct dataset_plan *plan) {
    for (size_t i = 0; i < dataset_plan_jobs(plan); i++) {
        Millrace__PackJob *job;
        SUCCEEDS(dataset_plan_job(&job, plan, i));
        memset(job->run, 0, job->n_run * sizeof *job->run);
        memset(job->first, 0, job->n_first * sizeof *job->first);
        SUCCEEDS(buf_reserve(out, millrace__pack_job__get_packed_size(job)));
        out->size += millrace__pack_job__pack(job, out->data + out->size);
        millrace__pack_job__free_unpacked(job, NULL);
    }
    struct manifest m = {0};
    dataset_plan_describe(plan, &m);
    for (size_t i = 0; i < m.drops; i++)
        SUCCEEDS(buf_print(out, "%s %" PRIu64 " %s\n", m.dropped[i]->reason, m.dropped[i]->documents, m.dropped[i]->examples[0]->source));
    manifest_free(&m);
}

static void how_runs_are_cut_does_not_matter(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct dice dice = {seed, 1 << 20};
        struct corpus corpus = corpus_make(seed, 50, 60, 2);
        make_alike(&corpus, &dice);
        struct buf want = {0}, got = {0};
        for (uint64_t cut = 0; cut < 5; cut++) {
            corpus_cut(&corpus, seed, 100 * seed + cut, 20);
            struct plan_options options = corpus_options(&corpus, 0.1, 16, 1);
            options.packing = packings[seed % 3];
            options.deduplicate = DEDUPLICATE_NEAR;
            options.minhash_bands = corpus.bands;
            struct dataset_plan *plan;
            SUCCEEDS(dataset_plan_from_runs(&plan, &options));
            print_jobs(cut ? &got : &want, plan);
            dataset_plan_free(plan);
            if (!cut) continue;
            HOLDS(seed, got.size == want.size && (!got.size || memcmp(got.data, want.data, got.size) == 0));
            buf_clear(&got);
        }
        buf_free(&want);
        buf_free(&got);
        corpus_free(&corpus);
    }
}

/* ---- Sides ---- */

/* The document that validation holds when it holds one. */
static uint64_t only_held_out(const struct dataset_plan *plan) {
    assert_int_equal(dataset_plan_totals(plan, true).documents, 1);
    Millrace__PackJob *job;
    SUCCEEDS(dataset_plan_job(&job, plan, (size_t)dataset_plan_totals(plan, false).shards));
    uint64_t document = job->source[0];
    millrace__pack_job__free_unpacked(job, NULL);
    return document;
}

static void each_side_gets_a_document_when_the_digests_put_all_on_one(void **state) {
    (void)state;
    struct corpus corpus = corpus_of((size_t[]){10, 10, 10, 10}, 4, 2);
    corpus_whole(&corpus);
    size_t least = 0;
    uint8_t digest[4][SHA256_BYTES];
    for (size_t d = 0; d < 4; d++) {
        corpus_digest(&corpus, digest[d], d);
        if (memcmp(digest[d], digest[least], SHA256_BYTES) < 0) least = d;
    }
    struct dataset_plan *plan;
    SUCCEEDS(corpus_plan(&plan, &corpus, 1e-19, 4, 1)); /* no digest is below it */
    assert_int_equal(only_held_out(plan), least);
    dataset_plan_free(plan);
    SUCCEEDS(corpus_plan(&plan, &corpus, 1, 4, 1));     /* every digest is */
    assert_int_equal(dataset_plan_totals(plan, false).documents, 1);
    dataset_plan_free(plan);
    SUCCEEDS(corpus_plan(&plan, &corpus, 0, 4, 1));     /* nothing was asked for */
    assert_int_equal(dataset_plan_totals(plan, true).documents, 0);
    assert_int_equal(dataset_plan_totals(plan, true).shards, 0);
    dataset_plan_free(plan);
    corpus_free(&corpus);
}

static void equal_documents_are_never_on_both_sides(void **state) {
    (void)state;
    struct corpus corpus = corpus_of((size_t[]){10, 10, 10}, 3, 2);
    corpus_copy(&corpus, 1, 0);
    corpus_copy(&corpus, 2, 0);
    corpus_whole(&corpus);
    struct dataset_plan *plan;
    SUCCEEDS(corpus_plan(&plan, &corpus, 1e-19, 4, 1)); /* all are one text: it stays where it is */
    assert_int_equal(dataset_plan_totals(plan, true).documents, 0);
    dataset_plan_free(plan);
    assert_int_equal(corpus_plan(&plan, &corpus, 1, 4, 1), ERR_CONFIG);

    struct source_group groups[2] = {{.name = (char *)"text"}, {.name = (char *)"held", .split = SPLIT_VALIDATION}};
    struct plan_options options = corpus_options(&corpus, 0, 4, 1);
    options.groups = groups;
    options.group_count = 2;
    corpus_document(&corpus, 0, 9); /* 1 is of training, 2, the same text, of validation */
    corpus.group[2] = 1;
    corpus_whole(&corpus);
    SUCCEEDS(dataset_plan_from_runs(&plan, &options));
    assert_int_equal(dataset_plan_totals(plan, false).documents, 1);
    assert_int_equal(only_held_out(plan), 2);
    struct manifest m = {0};
    dataset_plan_describe(plan, &m);
    assert_int_equal(dropped(&m, "in_validation"), 1);
    assert_string_equal(m.dropped[0]->examples[0]->source, "/text/1!member-0");
    assert_string_equal(m.dropped[0]->examples[0]->detail, "as /text/2 at 2000000");
    manifest_free(&m);
    dataset_plan_free(plan);
    corpus_free(&corpus);
}

static void a_document_is_held_out_exactly_below_the_fraction(void **state) {
    (void)state;
    struct corpus corpus = corpus_of((size_t[]){10, 10, 10}, 3, 2);
    corpus_whole(&corpus);
    uint8_t digest[SHA256_BYTES];
    corpus_digest(&corpus, digest, 1);
    uint64_t head = 0;
    for (int i = 0; i < 8; i++) head = head << 8 | digest[i];
    /* Doubles just at, or next to, this document's share: the plan must agree with exact arithmetic on each. */
    double near = (double)head * 0x1p-64;
    for (int step = -3; step <= 3; step++) {
        struct plan_options options = corpus_options(&corpus, near * (1 + step * 0x1p-52), 4, 1);
        check_against_twin(&corpus, &options);
    }
    corpus_free(&corpus);
}

/* ---- Borders, and what is refused ---- */

static void training_text_that_is_too_short_is_refused_with_advice(void **state) {
    (void)state;
    struct dataset_plan *plan;
    struct corpus corpus = corpus_of((size_t[]){0, 0}, 2, 2);
    corpus_whole(&corpus);
    assert_int_equal(corpus_plan(&plan, &corpus, 0.1, 4, 1), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "dataset.sources"));
    corpus_uncut(&corpus);
    for (enum deduplicate how = DEDUPLICATE_NONE; how <= DEDUPLICATE_NEAR; how++) { /* no runs at all */
        struct plan_options options = corpus_options(&corpus, 0.1, 4, 1);
        options.deduplicate = how;
        assert_int_equal(dataset_plan_from_runs(&plan, &options), ERR_CONFIG);
        assert_non_null(strstr(err_text(), "dataset.sources"));
    }
    corpus_free(&corpus);

    corpus = corpus_of((size_t[]){9}, 1, 2);
    corpus_whole(&corpus);
    assert_int_equal(corpus_plan(&plan, &corpus, 1, 4, 1), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "validation_fraction"));
    assert_int_equal(corpus_plan(&plan, &corpus, 0, 10, 1), ERR_CONFIG); /* 9 tokens and <|endoftext|> */
    assert_non_null(strstr(err_text(), "sequence_length"));
    SUCCEEDS(corpus_plan(&plan, &corpus, 0, 9, 1));
    assert_int_equal(dataset_plan_totals(plan, false).sequences, 1);
    dataset_plan_free(plan);
    assert_int_equal(corpus_plan(&plan, &corpus, 0, 0, 1), ERR_CONFIG);
    assert_int_equal(corpus_plan(&plan, &corpus, -0.5, 4, 1), ERR_CONFIG);
    corpus_free(&corpus);
}

static void every_place_of_a_border_near_the_end_of_a_document_is_right(void **state) {
    (void)state;
    for (size_t first = 65533; first <= 65538; first++) {
        for (size_t second = 65533; second <= 65538; second++) {
            struct corpus corpus = corpus_of((size_t[]){first, second, 1, 1}, 4, 2);
            corpus_cut(&corpus, first, second, 40000);
            struct plan_options options = corpus_options(&corpus, 0, 256, 65536);
            for (size_t p = 0; p < 3; p++) {
                options.packing = packings[p];
                check_against_twin(&corpus, &options);
            }
            corpus_free(&corpus);
        }
    }
}

static int lie;               /* which of the following the table tells */

static int load_lie(void *arg, size_t run, Millrace__RunTable **out) {
    SUCCEEDS(corpus_load(arg, run, out));
    Millrace__RunTable *table = *out;
    switch (lie) {
    case 1: table->flags[2] = TOKEN_RUN_ENDS; break;   /* goes on with nothing */
    case 2: table->flags[1] = TOKEN_RUN_BEGINS; break; /* does not end */
    case 3: table->flags[table->n_flags - 1] = TOKEN_RUN_BEGINS; break;
    case 4: table->source[1] = 99; break;
    case 5: table->digests.len -= SHA256_BYTES; break;
    case 6: table->piece_tokens[1] = UINT64_MAX - 3; break;
    case 7: table->tokens++; break;
    case 8: table->n_bytes--; break;
    case 9: table->member[0] = 77; break;
    case 10: table->bytes[0] = UINT64_MAX; break;
    case 11: table->token_bytes = 4; break;
    case 12: table->bands.len = 8; break;
    case 13: /* one too few; the rest of a column that holds nothing */
        table->n_changed = table->n_source - 1;
        table->changed = mem_alloc(table->n_source * sizeof *table->changed);
        break;
    default: break;
    }
    return 0;
}

static void tables_that_cannot_be_are_refused(void **state) {
    (void)state;
    struct corpus corpus = corpus_of((size_t[]){9, 9, 9}, 3, 2);
    corpus_whole(&corpus);
    struct plan_options options = corpus_options(&corpus, 0, 4, 1);
    options.load = load_lie;
    struct dataset_plan *plan;
    for (lie = 1; lie <= 13; lie++) {
        int code = dataset_plan_from_runs(&plan, &options);
        if (code != ERR_CORRUPT) fail_msg("lie %d: %d %s", lie, code, err_text());
    }
    lie = 0;
    SUCCEEDS(dataset_plan_from_runs(&plan, &options));
    dataset_plan_free(plan);
    corpus_free(&corpus);
}

/* ---- Many ---- */

struct many {
    size_t pieces;
    bool one_document;
    uint64_t tokens; /* of each piece; 0: one */
};


static int load_many(void *arg, size_t run, Millrace__RunTable **out) {
    const struct many *many = arg;
    size_t n = many->pieces;
    (void)run;
    Millrace__RunTable *table = mem_alloc(sizeof *table);
    millrace__run_table__init(table);
    table->token_bytes = 2;
    uint64_t tokens = many->tokens ? many->tokens : 1;
    table->tokens = n * tokens;
    table->source = mem_alloc(n * sizeof *table->source);
    table->member = mem_alloc(n * sizeof *table->member);
    table->offset = mem_alloc(n * sizeof *table->offset);
    table->bytes = mem_alloc(n * sizeof *table->bytes);
    table->piece_tokens = mem_alloc(n * sizeof *table->piece_tokens);
    table->flags = mem_alloc(n * sizeof *table->flags);
    table->blocks = mem_alloc(n * sizeof *table->blocks);
    table->replaced = mem_alloc(n * sizeof *table->replaced);
    table->digests = (ProtobufCBinaryData){n * SHA256_BYTES, mem_alloc(n * SHA256_BYTES)};
    table->n_source = table->n_member = table->n_offset = table->n_bytes = table->n_piece_tokens = table->n_flags = table->n_blocks =
        table->n_replaced = n;
    for (size_t i = 0; i < n; i++) {
        table->piece_tokens[i] = tokens, table->blocks[i] = 1;
        table->bytes[i] = 5;
        table->offset[i] = 6 * i;
        table->flags[i] = many->one_document ? (i == 0 ? TOKEN_RUN_BEGINS : 0) | (i + 1 == n ? TOKEN_RUN_ENDS : 0)
                                             : TOKEN_RUN_BEGINS | TOKEN_RUN_ENDS;
        memcpy(table->digests.data + i * SHA256_BYTES, &i, sizeof i);
    }
    *out = table;
    return 0;
}

static struct plan_options options_of_many(struct many *many) {
    static const uint32_t group[1] = {0};
    static const char *const path[1] = {"/text"};
    return (struct plan_options){.token_bytes = 2,
                                 .eos = END_OF_TEXT,
                                 .sequence_length = 256,
                                 .shard_tokens = 65536,
                                 .groups = corpus_one_group,
                                 .group_count = 1,
                                 .source_path = path,
                                 .source_group = group,
                                 .sources = 1,
                                 .runs = 1,
                                 .load = load_many,
                                 .arg = many};
}

static void a_million_documents_are_planned_without_quadratic_work(void **state) {
    (void)state;
    struct many many = {.pieces = 1000000};
    for (size_t p = 0; p < 3; p++) {
        struct plan_options options = options_of_many(&many);
        options.packing = packings[p];
        options.sequence_length = p == 1 ? 2 : 256;
        options.validation_fraction = 0.01;
        struct dataset_plan *plan;
        double began = clock_seconds();
        SUCCEEDS(dataset_plan_from_runs(&plan, &options));
        print_message("packing %zu: a million documents in %.2f s\n", p, clock_seconds() - began);
        uint64_t begun = 0;
        for (size_t i = 0; i < dataset_plan_jobs(plan); i++) {
            Millrace__PackJob *job;
            SUCCEEDS(dataset_plan_job(&job, plan, i));
            uint64_t left = job->tokens;
            for (size_t k = 0; k < job->n_run && left; k++) {
                begun += job->count[k]; /* one token each */
                left -= job->count[k];
                left -= left < job->ends[k] ? left : job->ends[k];
                if (job->n_padding) left -= left < job->padding[k] ? left : job->padding[k];
            }
            millrace__pack_job__free_unpacked(job, NULL);
        }
        assert_int_equal(begun, many.pieces);
        dataset_plan_free(plan);
    }
}

static void a_shard_of_too_many_extents_is_refused_at_planning(void **state) {
    (void)state;
    struct many many = {.pieces = SHARD_EXTENTS_MAX + 1, .one_document = true};
    struct plan_options options = options_of_many(&many);
    options.shard_tokens = UINT64_C(1) << 32;
    struct dataset_plan *plan;
    assert_int_equal(dataset_plan_from_runs(&plan, &options), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "shard_tokens"));
    many.pieces--;
    SUCCEEDS(dataset_plan_from_runs(&plan, &options));
    assert_int_equal(dataset_plan_jobs(plan), 1);
    Millrace__PackJob *job;
    SUCCEEDS(dataset_plan_job(&job, plan, 0));
    print_message("%zu extents in a job of %zu bytes\n", job->n_run, millrace__pack_job__get_packed_size(job));
    millrace__pack_job__free_unpacked(job, NULL);
    dataset_plan_free(plan);
}

/* Before it is known that the manifest cannot name them all, they would all be packed. */
static void more_shards_than_a_manifest_names_are_refused_at_planning(void **state) {
    (void)state;
    enum { SHARDS_OF_RUN = 1 << 15 };
    struct many many = {.pieces = 1, .tokens = SHARDS_OF_RUN * UINT64_C(65536) - 1}; /* and a token that ends it */
    struct plan_options options = options_of_many(&many);
    struct dataset_plan *plan;
    options.runs = MANIFEST_SHARDS_MAX / SHARDS_OF_RUN;
    SUCCEEDS(dataset_plan_from_runs(&plan, &options));
    assert_int_equal(dataset_plan_jobs(plan), MANIFEST_SHARDS_MAX);
    dataset_plan_free(plan);
    options.runs++;
    assert_int_equal(dataset_plan_from_runs(&plan, &options), ERR_CONFIG);
    assert_non_null(strstr(err_text(), "dataset.shard_tokens 65536 this dataset has 1,081,344 shards, and may have 1,048,576"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_hold_whole_sequences_and_shards_whole_frames),
        cmocka_unit_test(sequences_that_overlap_need_one_token_more),
        cmocka_unit_test(every_token_of_every_document_lies_where_the_twin_puts_it),
        cmocka_unit_test(groups_are_mixed_by_weight_as_the_twin_does),
        cmocka_unit_test(shares_are_kept_to_within_a_document_at_every_place),
        cmocka_unit_test(a_source_that_would_be_repeated_for_ever_is_refused),
        cmocka_unit_test(how_runs_are_cut_does_not_matter),
        cmocka_unit_test(each_side_gets_a_document_when_the_digests_put_all_on_one),
        cmocka_unit_test(equal_documents_are_never_on_both_sides),
        cmocka_unit_test(a_document_is_held_out_exactly_below_the_fraction),
        cmocka_unit_test(training_text_that_is_too_short_is_refused_with_advice),
        cmocka_unit_test(every_place_of_a_border_near_the_end_of_a_document_is_right),
        cmocka_unit_test(tables_that_cannot_be_are_refused),
        cmocka_unit_test(a_million_documents_are_planned_without_quadratic_work),
        cmocka_unit_test(a_shard_of_too_many_extents_is_refused_at_planning),
        cmocka_unit_test(more_shards_than_a_manifest_names_are_refused_at_planning),
    };
    return cmocka_run_group_tests_name("dataset/plan", tests, NULL, NULL);
}
