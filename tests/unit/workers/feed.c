/* The feed: sequences and targets as the twin of the plan has them, whatever the cache holds, and no broken frame. */
#include "tests/unit/dataset/shards.h"
#include "tests/unit/dataset/twin.h"

#include "dataset/shard/manifest.h"
#include "workers/feed.h"

enum { SHARDS_MAX = 8 };

/* A training split in files, served frame by frame. */
struct served {
    struct corpus corpus;
    struct plan_options options;
    struct twin twin;
    struct shard *shard[SHARDS_MAX];
    Millrace__Geometry geometry;
    size_t fetched, asked, broken;  /* broken: the next so many frames have a changed byte */
    uint32_t asked_shard, asked_frame;
};

static int fetch(void *arg, struct buf *out, int64_t *out_next, const char *split, uint32_t shard, uint32_t frame) {
    struct served *served = arg;
    assert_string_equal(split, "train");
    served->fetched++;
    size_t before = out->size;
    TRY(shard_read_frame(served->shard[shard], out, out_next, frame));
    if (served->broken && served->broken--) out->data[before + (out->size - before) / 2] ^= 1;
    return 0;
}

static void ask(void *arg, const char *split, uint32_t shard, uint32_t frame) {
    struct served *served = arg;
    assert_string_equal(split, "train");
    served->asked++;
    served->asked_shard = shard, served->asked_frame = frame;
}

static void serve(struct served *served, enum packing packing, uint64_t T, uint32_t token_bytes) {
    *served = (struct served){.corpus = corpus_make(5, 80, 9000, token_bytes)};
    corpus_cut(&served->corpus, 1, 2, 3000);
    served->options = corpus_options(&served->corpus, 0, T, 1);
    served->options.packing = packing;
    served->twin = twin_make(&served->corpus, &served->options);
    struct dataset_plan *plan;
    SUCCEEDS(dataset_plan_from_runs(&plan, &served->options));
    struct manifest manifest = {0};
    dataset_plan_describe(plan, &manifest);
    served->geometry = manifest_geometry(&manifest, false);
    assert_true(dataset_plan_jobs(plan) > 1 && dataset_plan_jobs(plan) <= SHARDS_MAX);
    for (size_t i = 0; i < dataset_plan_jobs(plan); i++) {
        Millrace__PackJob *job;
        Millrace__PackResult result;
        struct buf file = {0};
        char *path = mem_format("%s/%zu", test_folder, i);
        SUCCEEDS(dataset_plan_job(&job, plan, i));
        SUCCEEDS(build(&file, &result, job, &served->corpus));
        write_file(path, file.data, file.size);
        SUCCEEDS(shard_open(&served->shard[i], path));
        millrace__pack_job__free_unpacked(job, NULL);
        buf_free(&file);
        free(path);
    }
    manifest_free(&manifest);
    dataset_plan_free(plan);
}

static void serve_no_more(struct served *served) {
    for (size_t i = 0; i < SHARDS_MAX; i++) shard_close(served->shard[i]);
    twin_free(&served->twin);
    corpus_free(&served->corpus);
}

static struct feed *open_feed(struct served *served, size_t cache_bytes, bool pad_in_loss) {
    return feed_open(&(struct feed_options){.cache_bytes = cache_bytes, .vocab_size = 50257, .pad_in_loss = pad_in_loss, .fetch = fetch,
                                            .ask = ask, .arg = served});
}

static void check_sequence(struct served *served, struct feed *feed, uint64_t sequence, bool pad_in_loss) {
    uint64_t T = served->geometry.sequence_length;
    int32_t *tokens = mem_alloc(2 * T * sizeof *tokens), *targets = tokens + T;
    SUCCEEDS(feed_sequence(feed, tokens, targets, &served->geometry, sequence));
    const struct origin *origin = &served->twin.split[0].origin[sequence * T];
    bool separate = served->options.packing != PACKING_CONCAT;
    for (uint64_t t = 0; t < T; t++) {
        assert_int_equal(tokens[t], origin[t].token);
        bool last = separate && t + 1 == T, padding = !last && origin[t + 1].kind == PADDING && !pad_in_loss;
        assert_int_equal(targets[t], last || padding ? FEED_IGNORED : (int32_t)origin[t + 1].token);
    }
    free(tokens);
}

static void every_sequence_is_as_the_documents_are(void **state) {
    (void)state;
    static const struct {
        enum packing packing;
        uint64_t T;
        uint32_t token_bytes;
    } cases[] = {
        {PACKING_CONCAT, 256, 2}, {PACKING_CONCAT, 300, 4}, {PACKING_PAD, 2000, 2}, {PACKING_BEST_FIT, 512, 4}, {PACKING_BEST_FIT, 100, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct served served;
        serve(&served, cases[i].packing, cases[i].T, cases[i].token_bytes);
        for (int pad_in_loss = 0; pad_in_loss < 2; pad_in_loss++) {
            struct feed *feed = open_feed(&served, i % 2 ? 300000 : 0, pad_in_loss); /* room for a frame or two, or for none */
            uint64_t sequences = geometry_sequences(&served.geometry);
            for (uint64_t p = 0; p < sequences; p++) check_sequence(&served, feed, p, pad_in_loss);
            for (uint64_t p = 0; p < 50; p++) check_sequence(&served, feed, order_sequence(1, p, &served.geometry, 0), pad_in_loss);
            feed_close(feed);
        }
        serve_no_more(&served);
    }
}

static void frames_that_were_asked_for_are_not_fetched(void **state) {
    (void)state;
    struct served served;
    serve(&served, PACKING_CONCAT, 256, 2);
    struct feed *feed = open_feed(&served, 1 << 20, false);
    uint64_t other = served.geometry.shard_tokens / 256; /* the first sequence of the second shard */
    check_sequence(&served, feed, 0, false);
    feed_expect(feed, &served.geometry, 1);
    assert_int_equal(served.asked, 0); /* the frame is here */
    feed_expect(feed, &served.geometry, other);
    assert_int_equal(served.asked, 1);
    assert_int_equal(served.asked_shard, 1);
    struct buf packed = {0};
    int64_t next;
    SUCCEEDS(shard_read_frame(served.shard[1], &packed, &next, served.asked_frame));
    packed.data[packed.size / 2] ^= 1; /* on its way it was broken */
    assert_int_equal(feed_put(feed, packed.data, packed.size, next, &served.geometry, 1, served.asked_frame), ERR_CORRUPT);
    packed.data[packed.size / 2] ^= 1;
    assert_int_equal(feed_put(feed, packed.data, packed.size, next, &served.geometry, 77, 0), ERR_CORRUPT); /* there is no such frame */
    SUCCEEDS(feed_put(feed, packed.data, packed.size, next, &served.geometry, 1, served.asked_frame));
    SUCCEEDS(feed_put(feed, packed.data, packed.size, next, &served.geometry, 1, served.asked_frame)); /* twice is fine */
    served.fetched = 0;
    check_sequence(&served, feed, other, false);
    check_sequence(&served, feed, 0, false);
    assert_int_equal(served.fetched, 0);
    buf_free(&packed);
    feed_close(feed);
    serve_no_more(&served);
}

static void the_least_recently_used_frame_goes_first(void **state) {
    (void)state;
    struct served served;
    serve(&served, PACKING_CONCAT, 256, 2);
    struct feed *feed = open_feed(&served, 2 * 65536 * 2, false); /* two frames */
    uint64_t in_frame = served.geometry.frame_tokens / 256;
    static const struct { uint64_t frame; size_t fetches; } uses[] = {{0, 1}, {1, 1}, {0, 0}, {2, 1}, {0, 0}, {1, 1}, {0, 0}, {2, 1}};
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++) {
        served.fetched = 0;
        check_sequence(&served, feed, uses[i].frame * in_frame, false);
        assert_int_equal(served.fetched, uses[i].fetches);
    }
    feed_close(feed);
    serve_no_more(&served);
}

static void broken_frames_and_foreign_tokens_are_refused(void **state) {
    (void)state;
    struct served served;
    serve(&served, PACKING_CONCAT, 256, 2);
    struct feed *feed = open_feed(&served, 1 << 20, false);
    int32_t tokens[256], targets[256];
    served.broken = 1;
    assert_int_equal(feed_sequence(feed, tokens, targets, &served.geometry, 0), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "train shard 0, frame 0"));
    check_sequence(&served, feed, 0, false); /* the next time it comes whole */
    feed_close(feed);
    feed = feed_open(&(struct feed_options){.cache_bytes = 1 << 20, .vocab_size = 1000, .fetch = fetch, .ask = ask, .arg = &served});
    assert_int_equal(feed_sequence(feed, tokens, targets, &served.geometry, 0), ERR_CORRUPT);
    assert_non_null(strstr(err_text(), "vocabulary of 1000"));
    feed_close(feed);
    Millrace__Geometry shorter = served.geometry; /* the frame is not the size that was announced */
    shorter.frame_tokens = shorter.shard_tokens = 32768;
    feed = open_feed(&served, 1 << 20, false);
    assert_int_equal(feed_sequence(feed, tokens, targets, &shorter, 0), ERR_CORRUPT);
    feed_close(feed);
    serve_no_more(&served);
}

/* Also one that is only a target: the token behind the sequence. */
static void the_largest_token_of_a_vocabulary_is_taken_and_the_next_one_is_not(void **state) {
    (void)state;
    enum { T = 8 };
    struct served served;
    int32_t tokens[T], targets[T];
    serve(&served, PACKING_CONCAT, T, 2);
    const struct origin *origin = served.twin.split[0].origin;
    uint64_t sequence = 0;
    for (uint64_t t = 0; t < T; t++) /* of the sequence that is looked for, each token is below the one behind it */
        if (origin[sequence * T + t].token >= origin[(sequence + 1) * T].token) sequence++, t = UINT64_MAX;
    assert_true(sequence < geometry_sequences(&served.geometry));
    uint32_t largest = origin[(sequence + 1) * T].token;
    for (uint32_t size = largest; size <= largest + 1; size++) {
        struct feed *feed = feed_open(&(struct feed_options){.vocab_size = size, .fetch = fetch, .ask = ask, .arg = &served});
        assert_int_equal(feed_sequence(feed, tokens, targets, &served.geometry, sequence), size > largest ? 0 : ERR_CORRUPT);
        feed_close(feed);
    }
    assert_int_equal(targets[T - 1], largest);
    serve_no_more(&served);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sequence_is_as_the_documents_are),
        cmocka_unit_test(frames_that_were_asked_for_are_not_fetched),
        cmocka_unit_test(the_least_recently_used_frame_goes_first),
        cmocka_unit_test(broken_frames_and_foreign_tokens_are_refused),
        cmocka_unit_test(the_largest_token_of_a_vocabulary_is_taken_and_the_next_one_is_not),
    };
    return cmocka_run_group_tests_name("workers/feed", tests, make_test_folder, remove_test_folder);
}
