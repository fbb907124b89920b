/* A plan's arithmetic against published figures, the definitions, and a twin that moves the segments one by one. */
#include "estimate/plan.h"

#include <math.h>

#include "proto/steps.h"
#include "tests/unit/config/parse.h"
#include "tests/unit/random.h"

#define GPT2_SMALL "training: {global_batch: 512, slices: 16, max_steps: 1000, save_steps: 300, eval_steps: 100}\n" SOURCES
#define TINY "model: {n_layer: 2, n_head: 2, n_embd: 32, n_positions: 32}\ntraining: {global_batch: 8, slices: 8}\n" SOURCES

static struct plan plan_of(const char *text, const char *set, int64_t workers, struct plan_data data) {
    struct config config = accepted_with(text, set);
    struct plan plan;
    plan_make(&plan, &config, workers, &data);
    config_free(&config);
    return plan;
}

static void gpt2_small_has_its_published_size(void **state) {
    (void)state;
    struct plan plan = plan_of(GPT2_SMALL, "training.seed=1", 2, (struct plan_data){0});
    assert_true(plan.parameters.total == 124439808);
    assert_true(plan.parameters.token_embedding == 50257 * 768 && plan.parameters.position_embedding == 1024 * 768);
    assert_true(plan.parameters.attention == 12 * (4 * 768 * 768 + 4 * 768));
    assert_true(plan.parameters.feed_forward == 12 * (8 * 768 * 768 + 5 * 768));
    assert_true(plan.parameters.norms == 12 * 4 * 768 + 2 * 768);
    assert_true(plan.tokens_per_step == 512 * 1024 && plan.steps == 1000 && plan.tokens == 524288000);
    double matrices = 50257.0 * 768 + 12.0 * 12 * 768 * 768;
    assert_true(plan.flop_per_step == 6 * matrices * 524288 + 12.0 * 12 * 768 * 1024 * 524288);
    assert_true(plan.flop == 1000 * plan.flop_per_step);
    assert_true(plan.slice_sequences == 32 && plan.batch == 2); /* 2048 tokens */
}

static void workers_without_a_slice_are_told(void **state) {
    (void)state;
    struct plan plan = plan_of(TINY, "training.slices=4", 6, (struct plan_data){0});
    assert_int_equal(plan.workers, 6);
    assert_int_equal(plan.busy_workers, 4);
}

static void steps_follow_from_what_there_is_to_train_on(void **state) {
    (void)state;
    struct plan unknown = plan_of(TINY, "training.num_train_epochs=3", 1, (struct plan_data){0});
    assert_true(unknown.steps == 0 && unknown.flop == 0 && unknown.checkpoints.written == 0 && unknown.epochs == 0);
    struct plan_data data = {.source = PLAN_MANIFEST, .train_sequences = 85, .validation_sequences = 0};
    struct plan known = plan_of(TINY, "training.num_train_epochs=3", 1, data);
    assert_true(known.steps == 32 && known.evaluations == 0); /* 3 * 85 / 8, up */
    assert_true(plan_of(TINY, "training.max_steps=5", 1, data).steps == 5);
}

static void the_cache_holds_tokens_as_wide_as_shards_have_them(void **state) {
    (void)state;
    struct plan_data data = {.source = PLAN_MANIFEST, .tokens = 100000, .token_bytes = 2, .train_sequences = 3125};
    struct plan whole = plan_of(TINY, "model.vocab_size=50257", 1, data);
    assert_int_equal(whole.shape.cache_bytes, 200000);
    assert_int_equal(plan_of(TINY, "model.vocab_size=70000", 1, data).shape.cache_bytes, 200000); /* padded: the ids are the same */
    data.token_bytes = 4;
    assert_int_equal(plan_of(TINY, "model.vocab_size=70000", 1, data).shape.cache_bytes, 400000);
}

static void checkpoints_are_counted_with_the_one_before(void **state) {
    (void)state;
    struct plan plan = plan_of(GPT2_SMALL, "training.save_total_limit=0", 2, (struct plan_data){0});
    assert_true(plan.checkpoints.bytes == 3 * 4 * 124439808.0);
    assert_true(plan.checkpoints.written == 4 && plan.checkpoints.kept_max == 4); /* 300, 600, 900, 1000 */
    plan = plan_of(GPT2_SMALL, "training.save_total_limit=2", 2, (struct plan_data){0});
    assert_true(plan.checkpoints.kept_max == 3);
    plan = plan_of(GPT2_SMALL, "training.save_steps=0", 2, (struct plan_data){0});
    assert_true(plan.checkpoints.written == 1 && plan.checkpoints.kept_max == 1);
    assert_true(plan.evaluations == 10);
}

/* Every segment's way, as exchange.c asks for it. */
static void bytes_on_the_wire_are_those_of_every_segment(void **state) {
    (void)state;
    struct random random = random_open("wire");
    for (int round = 0; round < 20; round++) {
        int64_t members = (int64_t)random_in(&random, 1, 12), slices = (int64_t)1 << random_in(&random, 0, 6);
        struct config config = accepted("training: {global_batch: 64}\n" SOURCES);
        struct plan plan;
        config.training.slices = slices;
        plan_make(&plan, &config, members, &(struct plan_data){0});
        static struct slice_set assigned[12], held[12];
        static struct node cover[SLICES_MAX];
        double sent[12] = {0}, received[12] = {0}, most_sent = 0, most_received = 0, all = 0;
        slices_assign(assigned, held, (size_t)members, (uint32_t)slices);
        for (size_t s = 0; s < segment_count(124439808); s++)
            for (int64_t from = 0; from < members; from++) {
                int64_t owner = (int64_t)s % members;
                double bytes = 4.0 * (double)segment_size(124439808, s);
                if (from == owner) continue;
                double parts = (double)nodes_cover(cover, &assigned[from], (uint32_t)slices);
                sent[from] += parts * bytes, received[owner] += parts * bytes; /* its sums to the owner */
                sent[owner] += bytes, received[from] += bytes;                 /* and the whole sum back */
            }
        for (int64_t i = 0; i < members; i++) {
            if (sent[i] > most_sent) most_sent = sent[i];
            if (received[i] > most_received) most_received = received[i];
            all += sent[i];
        }
        assert_true(plan.wire.sent == most_sent && plan.wire.received == most_received && plan.wire.all == all);
        config_free(&config);
    }
}

static void times_grow_with_what_there_is_to_do(void **state) {
    (void)state;
    struct calibration measured = {
        .part_seconds = 2, .apply_seconds = 0.5, .add_seconds = 0.25, .pack_seconds = 1e-9, .unpack_seconds = 1e-9};
    struct plan_data data = {.source = PLAN_ESTIMATED, .text_bytes = 6e6, .train_sequences = 1000, .validation_sequences = 30};
    struct plan plan = plan_of(TINY, "training.max_steps=10", 2, data); /* 8 slices of 1 sequence, 1 at a time */
    struct plan_times times = plan_times_of(&plan, &measured, 1e6, 2);
    assert_true(times.compute == 4 * 2 * 2 && times.sum == 3 * 0.25 && times.apply == 2 * 0.5 && times.tokenize == 3);
    assert_true(fabs(times.exchange / (plan.wire.sent + plan.wire.received) - 1e-9) < 1e-18);
    assert_true(times.step == times.compute + times.sum + times.exchange + times.apply);
    assert_true(times.train == 10 * times.step && times.evaluate == 30 * 2.0 / 3);
    assert_true(times.total == times.tokenize + times.train + times.evaluate);
    plan = plan_of(TINY, "training.eval_sequences=12", 2, data);
    times = plan_times_of(&plan, &measured, 1e6, 2);
    assert_true(plan.evaluations > 0 && times.evaluate == plan.evaluations * 12 * 2.0 / 3);
    plan = plan_of(TINY, "training.eval_sequences=31", 2, data); /* there are 30 */
    times = plan_times_of(&plan, &measured, 1e6, 2);
    assert_true(times.evaluate == plan.evaluations * 30 * 2.0 / 3);
    plan = plan_of(TINY, "training.max_steps=10", 3, data);
    assert_true(plan_times_of(&plan, &measured, 1e6, 3).compute == 3 * 3 * 2); /* the third round has work for two */
    plan = plan_of(TINY, "training.num_train_epochs=1", 1, (struct plan_data){0});
    times = plan_times_of(&plan, &measured, 0, 4);
    assert_true(times.step > 0 && times.train == 0 && times.tokenize == 0 && times.exchange == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_small_has_its_published_size),
        cmocka_unit_test(workers_without_a_slice_are_told),
        cmocka_unit_test(steps_follow_from_what_there_is_to_train_on),
        cmocka_unit_test(the_cache_holds_tokens_as_wide_as_shards_have_them),
        cmocka_unit_test(checkpoints_are_counted_with_the_one_before),
        cmocka_unit_test(bytes_on_the_wire_are_those_of_every_segment),
        cmocka_unit_test(times_grow_with_what_there_is_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
