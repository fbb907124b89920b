/* Shards that are whole: what goes in comes out, wherever the borders fall. */
#include "tests/unit/dataset/shards.h"
#include "tests/unit/dataset/twin.h"
#include "tests/unit/random.h"

#include <pthread.h>

#include "dataset/shard/manifest.h"

/* All documents one after the other. out->token is the caller's. */
static struct document_made one_array(const struct corpus *corpus) {
    size_t tokens;
    struct place *place = corpus_places(&tokens, corpus);
    struct document_made all = {mem_alloc(tokens * sizeof(uint32_t)), tokens, {0}};
    for (size_t i = 0; i < tokens; i++)
        all.token[i] = place[i].eot ? END_OF_TEXT : corpus->document[place[i].source].token[place[i].document_token];
    free(place);
    return all;
}

/* Compares a shard file with the tokens it must hold; all[] is the split, the shard begins at `begin`. */
static void check_shard(uint64_t seed, const char *path, const struct document_made *all, uint64_t begin, uint64_t tokens,
                        uint64_t frame_tokens, uint32_t token_bytes) {
    struct shard *shard;
    HOLDS(seed, shard_open(&shard, path) == 0);
    HOLDS(seed, shard_tokens(shard) == tokens && shard_token_bytes(shard) == token_bytes);
    HOLDS(seed, shard_frames(shard) == (tokens + frame_tokens - 1) / frame_tokens);
    HOLDS(seed, shard_verify(shard, NULL) == 0);
    struct buf packed = {0}, bytes = {0};
    uint64_t at = begin;
    for (size_t f = 0; f < shard_frames(shard); f++) {
        buf_clear(&packed);
        buf_clear(&bytes);
        int64_t next = -2;
        HOLDS(seed, shard_read_frame(shard, &packed, &next, f) == 0);
        HOLDS(seed, frame_expand(&bytes, packed.data, packed.size, frame_tokens * token_bytes) == 0);
        for (size_t i = 0; i < bytes.size; i += token_bytes, at++) HOLDS(seed, token_get(bytes.data + i, token_bytes) == all->token[at]);
        HOLDS(seed, next == (at < all->tokens ? (int64_t)all->token[at] : -1));
    }
    HOLDS(seed, at == begin + tokens);
    buf_free(&packed);
    buf_free(&bytes);
    shard_close(shard);
}

static void tokens_come_back_wherever_the_borders_fall(void **state) {
    (void)state;
    char *path = mem_format("%s/small", test_folder);
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct dice dice = {seed, 1 << 20};
        struct corpus corpus = corpus_make(seed, 1 + dice_throw(&dice, 12), 1 + dice_throw(&dice, 20), seed % 3 ? 2 : 4);
        corpus_cut(&corpus, seed, seed, 1 + dice_throw(&dice, 10));
        struct document_made all = one_array(&corpus);
        uint64_t frame_tokens = 1 + dice_throw(&dice, 9), step = frame_tokens * (1 + dice_throw(&dice, 4)), documents = 0, begun = 0;
        for (size_t d = 0; d < corpus.documents; d++) documents += corpus.document[d].tokens > 0;
        for (uint64_t begin = 0; begin < all.tokens; begin += step) {
            struct buf file = {0};
            Millrace__PackJob *job = small_job(&corpus, begin, step, frame_tokens);
            Millrace__PackResult result;
            HOLDS(seed, build(&file, &result, job, &corpus) == 0);
            begun += result.documents;
            write_file(path, file.data, file.size);
            check_shard(seed, path, &all, begin, job->tokens, frame_tokens, corpus.token_bytes);
            millrace__pack_job__free_unpacked(job, NULL);
            buf_free(&file);
        }
        HOLDS(seed, begun == documents); /* each document begins in one shard */
        free(all.token);
        corpus_free(&corpus);
    }
    free(path);
}

static void the_index_leads_back_to_the_sources(void **state) {
    (void)state;
    char *path = mem_format("%s/documents", test_folder);
    struct corpus corpus = corpus_make(3, 30, 12, 2);
    corpus_cut(&corpus, 5, 6, 5);
    size_t total;
    struct place *place = corpus_places(&total, &corpus);
    for (uint64_t begin = 0; begin < total; begin += 3) {
        struct buf file = {0};
        small_shard(&file, &corpus, begin, 21, 7);
        write_file(path, file.data, file.size);
        struct shard *shard;
        SUCCEEDS(shard_open(&shard, path));
        uint64_t end = begin + 21 < total ? begin + 21 : total;
        size_t known = 0; /* entries that have been met */
        for (uint64_t i = begin; i < end; i++) {
            size_t k;
            int code = shard_find_token(shard, &k, i - begin);
            if (i == begin && place[i].eot) { /* the document is in the shard before */
                assert_int_equal(code, ERR_NOTFOUND);
                continue;
            }
            SUCCEEDS(code);
            struct shard_document entry = shard_document(shard, k);
            uint64_t within = i - begin - entry.first;
            assert_true(within < entry.tokens || (place[i].eot && within == entry.tokens && entry.ends));
            assert_int_equal(entry.document, place[i].document);
            assert_int_equal(entry.document_token + within, place[i].document_token);
            assert_int_equal(entry.skipped + within, place[i].skipped);
            assert_int_equal(entry.source, place[i].source);
            assert_int_equal(entry.offset, place[i].offset);
            assert_int_equal(entry.bytes, place[i].bytes);
            known = k + 1;
            size_t begins;
            if (place[i].document_token == 0) {
                SUCCEEDS(shard_find_document(shard, &begins, place[i].document));
                assert_int_equal(begins, k);
            }
        }
        size_t none;
        assert_int_equal(shard_documents(shard), known);
        assert_int_equal(shard_find_token(shard, &none, end - begin), ERR_NOTFOUND);
        assert_int_equal(shard_find_document(shard, &none, place[end - 1].document + 1), ERR_NOTFOUND);
        if (place[begin].document_token) assert_int_equal(shard_find_document(shard, &none, place[begin].document), ERR_NOTFOUND);
        shard_close(shard);
        buf_free(&file);
    }
    free(place);
    free(path);
    corpus_free(&corpus);
}

static void a_shard_of_one_end_of_text_is_fine(void **state) {
    (void)state;
    char *path = mem_format("%s/eot", test_folder);
    struct corpus corpus = corpus_of((size_t[]){8}, 1, 2);
    corpus_cut(&corpus, 1, 1, 100);
    Millrace__PackJob *job = small_job(&corpus, 8, 8, 4);
    assert_int_equal(job->tokens, 1);
    Millrace__PackResult result;
    struct buf file = {0};
    SUCCEEDS(build(&file, &result, job, &corpus));
    assert_int_equal(result.documents, 0);
    write_file(path, file.data, file.size);
    struct shard *shard;
    SUCCEEDS(shard_open(&shard, path));
    assert_int_equal(shard_documents(shard), 0);
    assert_int_equal(shard_tokens(shard), 1);
    SUCCEEDS(shard_verify(shard, NULL));
    shard_close(shard);
    millrace__pack_job__free_unpacked(job, NULL);
    buf_free(&file);
    free(path);
    corpus_free(&corpus);
}

/* ---- From documents to sequences ---- */

/* Builds every shard of the plan in the test folder; out_digest: of all token bytes, as the manifest has it. */
static void build_all(uint8_t out_digest[SHA256_BYTES], struct corpus *corpus, const struct dataset_plan *plan) {
    struct sha256 *sha = sha256_open();
    uint64_t documents = 0;
    for (size_t i = 0; i < dataset_plan_jobs(plan); i++) {
        Millrace__PackJob *job;
        Millrace__PackResult result;
        struct buf file = {0};
        SUCCEEDS(dataset_plan_job(&job, plan, i));
        SUCCEEDS(build(&file, &result, job, corpus));
        documents += result.documents;
        char name[48];
        shard_name(name, strcmp(job->split, "validation") == 0, job->shard);
        char *path = mem_format("%s/%s", test_folder, name);
        write_file(path, file.data, file.size);
        struct shard *shard;
        SUCCEEDS(shard_open(&shard, path));
        SUCCEEDS(shard_verify(shard, sha));
        shard_close(shard);
        millrace__pack_job__free_unpacked(job, NULL);
        buf_free(&file);
        free(path);
    }
    HOLDS(corpus->seed, documents == dataset_plan_totals(plan, false).documents + dataset_plan_totals(plan, true).documents);
    sha256_finish(sha, out_digest);
    sha256_close(sha);
}

/* Reads one sequence the way a worker does: one frame, and the token after it. */
static void check_sequence(uint64_t seed, const Millrace__Geometry *geometry, struct shard *const *shards, const struct document_made *all,
                           uint64_t sequence) {
    struct sequence_place place = sequence_place(geometry, sequence);
    struct buf packed = {0}, bytes = {0};
    int64_t next;
    HOLDS(seed, shard_read_frame(shards[place.shard], &packed, &next, place.frame) == 0);
    HOLDS(seed, frame_expand(&bytes, packed.data, packed.size, geometry->frame_tokens * geometry->token_bytes) == 0);
    uint64_t T = geometry->sequence_length, tokens = bytes.size / geometry->token_bytes;
    HOLDS(seed, place.first + T <= tokens);
    for (uint64_t t = 0; t < T + !geometry->separate; t++) { /* T inputs; the last token is a target alone */
        uint64_t i = place.first + t;
        int64_t token = i < tokens ? (int64_t)token_get(bytes.data + i * geometry->token_bytes, geometry->token_bytes) : next;
        HOLDS(seed, token == (int64_t)all->token[sequence * T + t]);
    }
    buf_free(&packed);
    buf_free(&bytes);
}

/* The index of a shard: every token leads to its document and place. */
static void check_index(const struct corpus *corpus, const struct shard *shard, const struct twin_split *split, uint64_t begin) {
    uint64_t seed = corpus->seed;
    for (uint64_t t = 0; t < shard_tokens(shard); t += 1 + t % 7) {
        const struct origin *origin = &split->origin[begin + t];
        size_t k;
        if (origin->kind == PADDING || (t == 0 && origin->kind == ENDS)) continue;
        HOLDS(seed, shard_find_token(shard, &k, t) == 0);
        struct shard_document entry = shard_document(shard, k);
        char *member = corpus_member(origin->document);
        HOLDS(seed, entry.document == origin->number && entry.source == origin->document);
        HOLDS(seed, entry.document_token + (t - entry.first) == origin->document_token);
        HOLDS(seed, entry.offset == corpus_offset(origin->document, (size_t)(entry.document_token - entry.skipped)));
        HOLDS(seed, member ? entry.member && strcmp(member, entry.member) == 0 : !entry.member);
        free(member);
        if (origin->document_token == 0)
            HOLDS(seed, shard_find_document(shard, &k, origin->number) == 0 && shard_document(shard, k).first == t);
    }
}

static void check_split(const struct corpus *corpus, const struct dataset_plan *plan, const struct twin *twin, bool side) {
    struct split_totals totals = dataset_plan_totals(plan, side);
    const struct twin_split *split = &twin->split[side];
    struct document_made all = {mem_alloc(split->tokens * sizeof(uint32_t)), split->tokens, {0}};
    for (size_t i = 0; i < split->tokens; i++) all.token[i] = split->origin[i].token;
    Millrace__Geometry geometry = MILLRACE__GEOMETRY__INIT;
    uint64_t T = twin->options->sequence_length;
    geometry.tokens = totals.tokens;
    geometry.frame_tokens = frame_tokens_for(T);
    geometry.shard_tokens = shard_tokens_for(twin->options->shard_tokens, T);
    geometry.token_bytes = corpus->token_bytes;
    geometry.sequence_length = (uint32_t)T;
    geometry.separate = twin->options->packing != PACKING_CONCAT;
    struct shard **shards = mem_alloc(totals.shards * sizeof *shards);
    for (uint32_t s = 0; s < totals.shards; s++) {
        char name[48];
        shard_name(name, side, s);
        char *path = mem_format("%s/%s", test_folder, name);
        SUCCEEDS(shard_open(&shards[s], path));
        uint64_t begin = s * geometry.shard_tokens, left = totals.tokens - begin;
        check_shard(corpus->seed, path, &all, begin, left < geometry.shard_tokens ? left : geometry.shard_tokens, geometry.frame_tokens,
                    corpus->token_bytes);
        check_index(corpus, shards[s], split, begin);
        free(path);
    }
    struct dice dice = {corpus->seed, 1 << 24};
    for (int i = 0; totals.sequences && i < 60; i++)
        check_sequence(corpus->seed, &geometry, shards, &all, dice_throw(&dice, totals.sequences));
    uint64_t frames = geometry.frame_tokens / T; /* and those at borders, where the last target is in the next frame */
    for (uint64_t i = frames - 1; i < totals.sequences; i += frames) check_sequence(corpus->seed, &geometry, shards, &all, i);
    if (totals.sequences) check_sequence(corpus->seed, &geometry, shards, &all, totals.sequences - 1);
    for (size_t s = 0; s < totals.shards; s++) shard_close(shards[s]);
    free(shards);
    free(all.token);
}

static void shards_hold_what_the_twin_says_in_every_packing(void **state) {
    (void)state;
    static const struct {
        uint64_t T, shard_tokens;
        double fraction;
        uint32_t token_bytes;
        enum packing packing;
    } cases[] = {{256, 65536, 0, 2, PACKING_CONCAT},        {256, 131072, 0.3, 2, PACKING_CONCAT}, {1000, 1, 0.3, 4, PACKING_CONCAT},
                 {7, 1 << 30, 0.1, 2, PACKING_CONCAT},      {70000, 70000, 0.1, 2, PACKING_CONCAT}, {1, 65536, 0.01, 4, PACKING_CONCAT},
                 {256, 65536, 0.3, 2, PACKING_PAD},         {9000, 1, 0.1, 4, PACKING_PAD},         {256, 65536, 0.2, 2, PACKING_BEST_FIT},
                 {1000, 1, 0.3, 4, PACKING_BEST_FIT},       {20000, 1, 0.1, 2, PACKING_BEST_FIT},   {3, 65536, 0.2, 2, PACKING_BEST_FIT}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct corpus corpus = corpus_make(100 + i, 40, i % 2 ? 20000 : 9000, cases[i].token_bytes);
        corpus_cut(&corpus, i, i, 4000);
        struct plan_options options = corpus_options(&corpus, cases[i].fraction, cases[i].T, cases[i].shard_tokens);
        options.packing = cases[i].packing;
        struct twin twin = twin_make(&corpus, &options);
        struct dataset_plan *plan;
        SUCCEEDS(dataset_plan_from_runs(&plan, &options));
        uint8_t digest[SHA256_BYTES];
        build_all(digest, &corpus, plan);
        for (int side = 0; side < 2; side++) check_split(&corpus, plan, &twin, side);
        dataset_plan_free(plan);
        twin_free(&twin);
        corpus_free(&corpus);
    }
}

static void digest_of(uint8_t out[SHA256_BYTES], struct corpus *corpus, double fraction, uint64_t T, uint64_t shard_tokens) {
    struct dataset_plan *plan;
    SUCCEEDS(corpus_plan(&plan, corpus, fraction, T, shard_tokens));
    build_all(out, corpus, plan);
    dataset_plan_free(plan);
}

static void the_tokens_do_not_depend_on_shards_pieces_or_runs(void **state) {
    (void)state;
    struct corpus corpus = corpus_make(77, 60, 9000, 2);
    uint8_t want[SHA256_BYTES], got[SHA256_BYTES];
    corpus_cut(&corpus, 1, 1, 3000);
    digest_of(want, &corpus, 0.2, 256, 65536);
    digest_of(got, &corpus, 0.2, 256, 131072); /* other shards */
    assert_memory_equal(got, want, SHA256_BYTES);
    digest_of(got, &corpus, 0.2, 100, 1 << 30); /* other sequences and one shard */
    assert_memory_equal(got, want, SHA256_BYTES);
    corpus_cut(&corpus, 1, 999, 3000); /* the same pieces in other runs */
    digest_of(got, &corpus, 0.2, 256, 65536);
    assert_memory_equal(got, want, SHA256_BYTES);

    corpus_cut(&corpus, 2, 2, 100); /* other pieces */
    digest_of(got, &corpus, 0.2, 256, 65536);
    assert_memory_equal(got, want, SHA256_BYTES);
    corpus_cut(&corpus, 3, 3, 1000000);
    digest_of(got, &corpus, 0.2, 256, 65536);
    assert_memory_equal(got, want, SHA256_BYTES);

    size_t d = 0; /* and one other token does matter */
    while (corpus.document[d].tokens == 0) d++;
    corpus.document[d].token[0] ^= 1;
    corpus_cut(&corpus, 3, 3, 1000000);
    digest_of(got, &corpus, 0.2, 256, 65536);
    assert_memory_not_equal(got, want, SHA256_BYTES);
    corpus_free(&corpus);
}

static void zstd_prints_exactly_the_tokens(void **state) {
    (void)state;
    if (system("zstd --version >/dev/null 2>&1") != 0) {
        print_message("the zstd tool is not installed\n");
        skip();
    }
    struct corpus corpus = corpus_make(8, 20, 400, 2);
    corpus_cut(&corpus, 8, 8, 100);
    struct document_made all = one_array(&corpus);
    struct buf file = {0};
    small_shard(&file, &corpus, 0, all.tokens, 128);
    char *path = mem_format("%s/plain.zst", test_folder), *command = mem_format("zstd -dcq %s", path);
    write_file(path, file.data, file.size);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    for (size_t i = 0; i < all.tokens; i++) {
        uint8_t bytes[2];
        assert_int_equal(fread(bytes, 1, 2, pipe), 2);
        assert_int_equal(token_get(bytes, 2), all.token[i]);
    }
    assert_int_equal(fgetc(pipe), EOF);
    assert_int_equal(pclose(pipe), 0);
    free(path);
    free(command);
    buf_free(&file);
    free(all.token);
    corpus_free(&corpus);
}

/* ---- Reading runs ---- */

static size_t reads_for(struct corpus *corpus, const struct plan_options *options, size_t *out_extents) {
    struct dataset_plan *plan;
    Millrace__PackJob *job;
    Millrace__PackResult result;
    struct buf file = {0};
    SUCCEEDS(dataset_plan_from_runs(&plan, options));
    SUCCEEDS(dataset_plan_job(&job, plan, 0));
    corpus->reads = 0;
    SUCCEEDS(build(&file, &result, job, corpus));
    *out_extents = job->n_run;
    buf_free(&file);
    millrace__pack_job__free_unpacked(job, NULL);
    dataset_plan_free(plan);
    return corpus->reads;
}

static void small_documents_are_read_many_at_once(void **state) {
    (void)state;
    struct corpus corpus = corpus_make(31, 20000, 20, 2);
    struct source_group groups[2] = {{.name = (char *)"a", .weight = 2}, {.name = (char *)"b", .weight = 1}};
    corpus_whole(&corpus);
    struct plan_options options = corpus_options(&corpus, 0, 16, 1 << 30);
    size_t extents, reads = reads_for(&corpus, &options, &extents);
    assert_true(extents > 15000 && reads <= 6);
    for (size_t d = 0; d < corpus.documents; d++) corpus.group[d] = d >= corpus.documents / 2; /* two places of the run in turns */
    options.groups = groups;
    options.group_count = 2;
    reads = reads_for(&corpus, &options, &extents);
    assert_true(extents > 10000 && reads <= 16);
    corpus_free(&corpus);
}

/* What the builder says that it will read, and what it reads. */
struct foresight {
    struct corpus *corpus;
    struct stretch {
        uint32_t run;
        size_t size_bytes;
        uint64_t offset;
    } open[RUN_READS_EXPECTED];
    size_t opened, surprises;
};

static struct stretch *find_open(struct foresight *foresight, uint32_t run, size_t size_bytes, uint64_t offset) {
    for (size_t i = 0; i < foresight->opened; i++) {
        struct stretch *s = &foresight->open[i];
        if (s->run == run && s->size_bytes == size_bytes && s->offset == offset) return s;
    }
    return NULL;
}

static void expect_stretch(void *arg, uint32_t run, size_t size_bytes, uint64_t offset) {
    struct foresight *foresight = arg;
    if (find_open(foresight, run, size_bytes, offset)) return;
    assert_true(foresight->opened < RUN_READS_EXPECTED);
    foresight->open[foresight->opened++] = (struct stretch){run, size_bytes, offset};
}

static int read_stretch(void *arg, uint32_t run, void *out, size_t size_bytes, uint64_t offset) {
    struct foresight *foresight = arg;
    struct stretch *s = find_open(foresight, run, size_bytes, offset);
    if (s) *s = foresight->open[--foresight->opened];
    else foresight->surprises++;
    return corpus_read(foresight->corpus, run, out, size_bytes, offset);
}

static void every_read_but_the_first_is_expected(void **state) {
    (void)state;
    struct corpus corpus = corpus_make(47, 30000, 100, 2);
    struct source_group groups[2] = {{.name = (char *)"a", .weight = 2}, {.name = (char *)"b", .weight = 1}};
    corpus_cut(&corpus, 47, 5, 200);
    struct plan_options options = corpus_options(&corpus, 0, 16, 1 << 30);
    for (int mixed = 0; mixed < 3; mixed++) {
        struct dataset_plan *plan;
        Millrace__PackJob *job;
        Millrace__PackResult result;
        struct buf file = {0}, again = {0};
        for (size_t d = 0; d < corpus.documents && mixed == 1; d++) corpus.group[d] = d >= corpus.documents / 2;
        if (mixed) options.groups = groups, options.group_count = 2;
        if (mixed == 2) options.packing = PACKING_BEST_FIT, options.sequence_length = 1024;
        SUCCEEDS(dataset_plan_from_runs(&plan, &options));
        SUCCEEDS(dataset_plan_job(&job, plan, 0));
        corpus.reads = 0;
        SUCCEEDS(build(&file, &result, job, &corpus));
        size_t reads = corpus.reads;
        struct foresight foresight = {.corpus = &corpus};
        struct token_run_reader reader = {read_stretch, expect_stretch, &foresight};
        SUCCEEDS(shard_build(&result, job, &reader, collect, &again, NULL, NULL));
        print_message("%zu reads, %zu not expected, %zu expected in vain\n", reads, foresight.surprises, foresight.opened);
        assert_int_equal(corpus.reads, 2 * reads);
        assert_int_equal(file.size, again.size);
        assert_memory_equal(file.data, again.data, file.size);
        assert_true(reads > 10);
        assert_int_equal(foresight.surprises, 1);
        assert_int_equal(foresight.opened, 0);
        buf_free(&file), buf_free(&again);
        millrace__pack_job__free_unpacked(job, NULL);
        dataset_plan_free(plan);
    }
    corpus_free(&corpus);
}

/* ---- Building that stops ---- */

static int count_tick(void *arg) {
    int *left = arg;
    return (*left)-- == 0;
}

static int refuse_write(void *arg, const void *bytes, size_t size_bytes) {
    (void)bytes;
    uint64_t *room = arg;
    if (*room < size_bytes) return err_set(ERR_NOSPACE, "no room");
    *room -= size_bytes;
    return 0;
}

static void building_is_the_same_each_time_and_stops_when_told(void **state) {
    (void)state;
    struct corpus corpus = corpus_make(9, 10, 60, 2);
    corpus_cut(&corpus, 9, 9, 20);
    Millrace__PackJob *job = small_job(&corpus, 3, 100, 10);
    struct token_run_reader reader = {.read = corpus_read, .arg = &corpus};
    Millrace__PackResult result;
    struct buf first = {0}, second = {0};
    SUCCEEDS(build(&first, &result, job, &corpus));
    int left = 10; /* the tenth frame is the last: never asked once more */
    SUCCEEDS(shard_build(&result, job, &reader, collect, &second, count_tick, &left));
    assert_int_equal(left, 0);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);
    for (int stop = 0; stop < 10; stop++) {
        left = stop;
        buf_clear(&second);
        result.tokens = 4711;
        assert_int_equal(shard_build(&result, job, &reader, collect, &second, count_tick, &left), ERR_INTERRUPTED);
        assert_int_equal(result.tokens, 4711); /* untouched */
    }
    for (uint64_t room = 0; room < first.size; room++) {
        uint64_t r = room;
        assert_int_equal(shard_build(&result, job, &reader, refuse_write, &r, NULL, NULL), ERR_NOSPACE);
    }
    corpus.run[job->run[1]].bytes.size = 0; /* a run that is not there */
    assert_int_equal(shard_build(&result, job, &reader, collect, &second, NULL, NULL), ERR_IO);
    buf_free(&first);
    buf_free(&second);
    millrace__pack_job__free_unpacked(job, NULL);
    corpus_free(&corpus);
}

static void jobs_that_do_not_make_a_shard_are_refused(void **state) {
    (void)state;
    struct corpus corpus = corpus_of((size_t[]){10, 9, 0, 12, 11, 14}, 6, 2);
    corpus_cut(&corpus, 10, 10, 8);
    enum { LIES = 25 };
    for (int lie = 0; lie <= LIES; lie++) {
        Millrace__PackJob *job = small_job(&corpus, 0, 40, 10);
        assert_true(job->n_run >= 4);
        size_t ended = 0; /* an extent that ends a document inside the shard */
        while (!job->ends[ended]) ended++;
        switch (lie) {
        case 0: job->tokens += 2; break;
        case 1: job->tokens -= 3; break;
        case 2: job->tokens = 0; break;
        case 3: job->frame_tokens = 0; break;
        case 4: job->frame_tokens = UINT64_MAX; break;
        case 5: job->token_bytes = 3; break;
        case 6: job->split[0] = 'x'; break;
        case 7: job->count[0] = UINT64_MAX; break;
        case 8: job->first[0] = UINT64_MAX / 2; break;
        case 9: job->count[0] = 0, job->tokens -= 5; break;
        case 10: job->ends[ended] = 0, job->tokens--; break; /* the next document follows without an end */
        case 11: job->document[ended + 1] = job->document[ended]; break;
        case 12: job->document[ended] = 99; break;
        case 13: job->first_token = UINT64_MAX - 3; break;
        case 14: job->n_first--; break;
        case 15: job->n_skipped--; break;
        case 16: job->ends[ended] = 2; break;
        case 17: job->eos = 65536; break;
        case 18: job->first_document = 1; break;
        case 19: job->separate = 7; break;   /* not a part of the frame */
        case 20: job->separate = 10; break;  /* documents reach over sequences */
        case 21: job->padding[ended] = 3, job->tokens += 3; break; /* padding in one array */
        case 22: job->document_token[ended + 1] = 1; break;
        case 23: job->n_run = 0; break;
        case 24: job->n_document = 0; break;
        default: break;
        }
        struct buf file = {0};
        Millrace__PackResult result;
        int code = build(&file, &result, job, &corpus), want = lie < LIES ? ERR_CORRUPT : 0;
        if (code != want) fail_msg("lie %d: %d %s", lie, code, err_text());
        buf_free(&file);
        millrace__pack_job__free_unpacked(job, NULL);
    }
    corpus_free(&corpus);
}

/* ---- Several readers ---- */

static void *verify_often(void *arg) {
    const struct shard *shard = arg;
    for (int i = 0; i < 50; i++)
        if (shard_verify(shard, NULL) != 0) return arg;
    return NULL;
}

static void several_threads_read_one_shard(void **state) {
    (void)state;
    struct corpus corpus = corpus_make(12, 20, 400, 2);
    corpus_cut(&corpus, 8, 8, 100);
    struct buf file = {0};
    small_shard(&file, &corpus, 5, 3000, 100);
    char *path = mem_format("%s/shared", test_folder);
    write_file(path, file.data, file.size);
    struct shard *shard;
    SUCCEEDS(shard_open(&shard, path));
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&thread[i], NULL, verify_often, shard), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        assert_int_equal(pthread_join(thread[i], &failed), 0);
        assert_null(failed);
    }
    shard_close(shard);
    free(path);
    buf_free(&file);
    corpus_free(&corpus);
}

static void the_largest_token_is_found_wherever_it_lies(void **state) {
    (void)state;
    struct random random = random_open(__func__);
    for (int round = 0; round < 3000; round++) {
        uint8_t bytes[4 * 200];
        uint32_t width = round % 2 ? 2 : 4, most = 0;
        size_t count = random_in(&random, 0, 200);
        for (size_t i = 0; i < count; i++) {
            uint32_t token = (uint32_t)random_in(&random, 0, width == 2 ? UINT16_MAX : UINT32_MAX);
            token_put(bytes + i * width, token, width);
            if (token > most) most = token;
        }
        assert_int_equal(tokens_most(bytes, count * width, width), most);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_token_is_found_wherever_it_lies),
        cmocka_unit_test(tokens_come_back_wherever_the_borders_fall),
        cmocka_unit_test(the_index_leads_back_to_the_sources),
        cmocka_unit_test(a_shard_of_one_end_of_text_is_fine),
        cmocka_unit_test(shards_hold_what_the_twin_says_in_every_packing),
        cmocka_unit_test(the_tokens_do_not_depend_on_shards_pieces_or_runs),
        cmocka_unit_test(zstd_prints_exactly_the_tokens),
        cmocka_unit_test(small_documents_are_read_many_at_once),
        cmocka_unit_test(every_read_but_the_first_is_expected),
        cmocka_unit_test(building_is_the_same_each_time_and_stops_when_told),
        cmocka_unit_test(jobs_that_do_not_make_a_shard_are_refused),
        cmocka_unit_test(several_threads_read_one_shard),
    };
    return cmocka_run_group_tests_name("dataset/shard", tests, make_test_folder, remove_test_folder);
}
