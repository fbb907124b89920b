/* A worker's memory against the plain sums, and refusals whose advice must be true. */
#include "estimate/memory.h"

#include "tests/unit/config/parse.h"
#include "tests/unit/random.h"

#define SMALL                                                                                    \
    "model: {n_layer: 4, n_head: 4, n_embd: 64, n_positions: 512}\n"                             \
    "training: {global_batch: 64, slices: 8, ema_decay: 0.9}\n" SOURCES

static struct worker_memory memory_of(const struct config *config, int64_t members) {
    struct worker_shape shape = worker_shape_of(config, members, 1);
    return worker_memory(&shape);
}

static struct worker_memory memory_with(const char *set, int64_t members) {
    struct config config = accepted_with(SMALL, set);
    struct worker_memory memory = memory_of(&config, members);
    config_free(&config);
    return memory;
}

static void vectors_are_counted_as_the_optimizer_has_them(void **state) {
    (void)state;
    const double N = 50257 * 64 + 512 * 64 + 4 * (12 * 64 * 64 + 13 * 64) + 2 * 64, vector = 4 * N;
    struct worker_memory memory = memory_with("training.ema_decay=0", 1);
    assert_true(memory.weights == vector && memory.gradient == vector && memory.optimizer == 2 * vector);
    assert_true(memory_with("training.ema_decay=0.99", 1).optimizer == 3 * vector);
    assert_true(memory_with("training.optim=sgd", 1).optimizer == 2 * vector); /* momentum and average */
    assert_true(memory_with("training.optim_state=bf16", 1).optimizer == 2 * vector); /* two halves and the average */
    struct config config = accepted_with(SMALL, "training.ema_decay=0");
    config.training.optim = OPTIM_SGD, config.training.sgd_momentum = 0;
    assert_true(memory_of(&config, 1).optimizer == 0);
    config.training.optim_state = MOMENTS_BF16;
    assert_true(memory_of(&config, 1).optimizer == 0);
    config_free(&config);
}

static void sums_of_slices_are_log2_of_them_and_one(void **state) {
    (void)state;
    struct worker_memory memory = memory_with("training.slices=8", 1);
    assert_true(memory.partial_sums == 4 * memory.weights && memory.exchange == 0);
    assert_true(memory.total - memory.least == 64 << 20); /* the cache may stay empty */
    assert_true(memory_with("training.slices=1", 1).partial_sums == memory.weights);
    struct worker_memory among_four = memory_with("training.slices=8", 4);
    assert_true(among_four.partial_sums == 4 * memory.weights); /* the first of them may be alone at first */
    assert_true(memory.least - among_four.least == 2 * memory.weights);
    assert_true(among_four.exchange > 0);
}

static void less_is_kept_with_checkpointing_and_with_smaller_parts(void **state) {
    (void)state;
    struct worker_memory plain = memory_with("training.micro_batch=4", 2);
    assert_true(memory_with("training.micro_batch=1", 2).activations.kept * 4 == plain.activations.kept);
    struct config config = accepted_with(SMALL, "training.micro_batch=4");
    struct worker_shape shape = worker_shape_of(&config, 2, 1);
    shape.model.gradient_checkpointing = true;
    assert_true((double)worker_memory(&shape).activations.kept < 0.5 * (double)plain.activations.kept);
    config_free(&config);
}

static void the_whole_is_the_sum_of_its_parts(void **state) {
    (void)state;
    struct random random = random_open("parts");
    for (int i = 0; i < 50; i++) {
        struct config config = accepted(SMALL);
        config.training.slices = (int64_t)1 << random_in(&random, 0, 6);
        config.training.micro_batch = (int64_t)random_in(&random, 0, 9);
        struct worker_memory m = memory_of(&config, (int64_t)random_in(&random, 1, 300));
        double sum = m.weights + m.optimizer + m.gradient + m.partial_sums + (double)m.activations.total + m.exchange + m.data + m.process;
        assert_true(m.total == sum && m.least <= m.total && m.least > m.weights * 6);
        config_free(&config);
    }
}

/* ---- refusing ---- */

static struct worker_shape shape_with(struct config *config) {
    *config = accepted(SMALL);
    config->training.micro_batch = 8;
    return worker_shape_of(config, 2, 1);
}

static void it_is_refused_when_one_byte_is_missing(void **state) {
    (void)state;
    struct config config;
    struct worker_shape shape = shape_with(&config);
    struct machine_memory machine = {.physical_bytes = (uint64_t)1 << 40};
    machine.limit_bytes = (uint64_t)(2 * worker_memory(&shape).least);
    assert_int_equal(worker_memory_check(&shape, 2, &machine), 0);
    machine.limit_bytes--;
    assert_int_equal(worker_memory_check(&shape, 2, &machine), ERR_MEMORY);
    char bytes[32];
    snprintf(bytes, sizeof bytes, "(%llu bytes)", (unsigned long long)machine.limit_bytes);
    assert_non_null(strstr(err_text(), bytes));
    snprintf(bytes, sizeof bytes, "(%llu bytes)", (unsigned long long)machine.limit_bytes + 1);
    assert_non_null(strstr(err_text(), bytes));
    assert_int_equal(worker_memory_check(&shape, 1, &machine), 0);
    config_free(&config);
}

static void a_process_that_may_not_have_the_addresses_is_refused(void **state) {
    (void)state;
    struct config config;
    struct worker_shape shape = shape_with(&config);
    struct machine_memory machine = {.limit_bytes = (uint64_t)1 << 40, .process_bytes = (uint64_t)worker_memory(&shape).least};
    assert_int_equal(worker_memory_check(&shape, 2, &machine), 0);
    machine.process_bytes--;
    assert_int_equal(worker_memory_check(&shape, 2, &machine), ERR_MEMORY);
    assert_non_null(strstr(err_text(), "RLIMIT_AS"));
    assert_non_null(strstr(err_text(), "gradient_checkpointing: true"));
    assert_null(strstr(err_text(), "1 worker on")); /* which would have no more */
    machine.process_bytes = 0;
    assert_int_equal(worker_memory_check(&shape, 2, &machine), 0);
    config_free(&config);
}

/* Does as the advice says: each "key: value" in it, and fewer workers. */
static int64_t follow(struct worker_shape *shape, const char *advice, int64_t workers) {
    const char *at;
    if (strstr(advice, "gradient_checkpointing: true")) shape->model.gradient_checkpointing = true;
    if ((at = strstr(advice, "micro_batch: "))) shape->model.micro_batch = atoi(at + strlen("micro_batch: "));
    if ((at = strstr(advice, "slices: "))) shape->slices = atoi(at + strlen("slices: "));
    if (strstr(advice, "ema_decay: 0")) shape->optimizer.ema_decay = 0;
    if (strstr(advice, "optim_state: bf16")) shape->optimizer.moments_type = MOMENTS_BF16;
    if (strstr(advice, "optim: sgd")) shape->optimizer.kind = OPTIM_SGD, shape->optimizer.momentum = 0.9;
    if (strstr(advice, "1 worker on")) shape->members -= workers - 1, workers = 1;
    return workers;
}

static void what_is_advised_fits(void **state) {
    (void)state;
    struct config config;
    struct worker_shape shape = shape_with(&config);
    double most = 2 * worker_memory(&shape).least;
    int advised = 0, hopeless = 0, narrow = 0, batches[9] = {0};
    for (uint64_t limit = (uint64_t)most - 1; limit > (uint64_t)most / 50; limit = limit * 93 / 100) {
        struct machine_memory machine = {.limit_bytes = limit};
        assert_int_equal(worker_memory_check(&shape, 2, &machine), ERR_MEMORY);
        char text[1024], *rest;
        snprintf(text, sizeof text, "%s", strstr(err_text(), "what would fit: ") + strlen("what would fit: "));
        if (strstr(text, "a smaller model")) {
            hopeless++;
            continue;
        }
        for (char *advice = text; advice; advice = rest) { /* one after the other */
            rest = strstr(advice, ", or ");
            if (rest) *rest = '\0', rest += strlen(", or ");
            struct worker_shape changed = shape;
            int64_t workers = follow(&changed, advice, 2);
            if (worker_memory_check(&changed, workers, &machine) != 0) fail_msg("'%s' does not fit: %s", advice, err_text());
            if (strstr(advice, "optim_state")) narrow++;
            if (strstr(advice, "micro_batch")) batches[changed.model.micro_batch]++;
            advised++;
        }
    }
    assert_true(advised >= 10 && hopeless >= 3 && narrow > 0);
    assert_true(batches[4] > 0 && batches[1] > 0); /* no smaller than it has to be */
    config_free(&config);
}

/* No moments, or narrow ones already: nothing to save there. */
static void state_that_cannot_be_narrower_is_not_advised(void **state) {
    (void)state;
    struct config config;
    struct worker_shape shape = shape_with(&config);
    for (int i = 0; i < 3; i++) {
        struct worker_shape changed = shape;
        if (i == 1) changed.optimizer.moments_type = MOMENTS_BF16;
        if (i == 2) changed.optimizer.kind = OPTIM_SGD, changed.optimizer.momentum = 0;
        struct machine_memory machine = {.limit_bytes = (uint64_t)(2 * worker_memory(&changed).least) - 1};
        assert_int_equal(worker_memory_check(&changed, 2, &machine), ERR_MEMORY);
        assert_int_equal(strstr(err_text(), "training.optim_state: bf16 (") != NULL, i == 0);
    }
    config_free(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_are_counted_as_the_optimizer_has_them),
        cmocka_unit_test(sums_of_slices_are_log2_of_them_and_one),
        cmocka_unit_test(less_is_kept_with_checkpointing_and_with_smaller_parts),
        cmocka_unit_test(the_whole_is_the_sum_of_its_parts),
        cmocka_unit_test(it_is_refused_when_one_byte_is_missing),
        cmocka_unit_test(a_process_that_may_not_have_the_addresses_is_refused),
        cmocka_unit_test(what_is_advised_fits),
        cmocka_unit_test(state_that_cannot_be_narrower_is_not_advised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
