/* A weight that is infinite or not a number, in any tensor, must be seen in the loss or in the gradient's norm, which is what the
 * coordinator skips a step for; by every set of kernels, in float32 and in bfloat16, where rounding must not hide it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/gpt2/gpt2.h"
#include "model/optim/optimizer.h"
#include "tests/unit/model/sets.h"
#include "tests/unit/model/small_model.h"
#include "tests/unit/random.h"

enum { B = 2, T = 20 };

static struct random rng;

struct setting {
    struct gpt2_config config;
    struct pool *pool;
    struct gpt2 *model;
    float *params, *grads;
    int32_t tokens[B * T], targets[B * T];
    size_t N;
};

static void setting_open(struct setting *s, bool bf16) {
    s->config = small_config();
    s->config.bf16 = bf16, s->N = gpt2_parameters(&s->config);
    s->params = small_params(&s->config, &rng), s->grads = mem_alloc(s->N * sizeof(float));
    for (int i = 0; i < B * T; i++) {
        s->tokens[i] = (int32_t)random_in(&rng, 0, (uint64_t)s->config.vocab_size - 1);
        s->targets[i] = (int32_t)random_in(&rng, 0, (uint64_t)s->config.vocab_size - 1);
    }
    assert_int_equal(pool_open(&s->pool, 2), 0);
    assert_int_equal(gpt2_open(&s->model, &s->config, 1, T, true, s->pool), 0);
}

static void setting_close(struct setting *s) {
    gpt2_close(s->model);
    pool_close(s->pool);
    free(s->params), free(s->grads);
}

/* Neither the loss nor the gradient's norm says that anything is wrong. */
static bool looks_good(struct setting *s) {
    double loss;
    uint64_t counted;
    gpt2_gradient(s->model, s->grads, &loss, &counted, s->params, s->tokens, s->targets, B, T, NULL);
    return isfinite(loss) && isfinite(square_sum(s->grads, s->N));
}

/* One element of each tensor; of the positions' embeddings one that is used. */
static void try_every_tensor(struct setting *s, const char *set, float bad) {
    size_t count = gpt2_tensor_count(&s->config);
    struct gpt2_tensor *tensors = mem_alloc(count * sizeof *tensors);
    gpt2_tensors(tensors, &s->config);
    for (size_t i = 0; i < count; i++) {
        bool positions = strcmp(tensors[i].name, "transformer.wpe.weight") == 0;
        size_t size = positions ? (size_t)T * (size_t)s->config.n_embd : tensors[i].size,
               at = tensors[i].offset + random_in(&rng, 0, size - 1);
        float was = s->params[at];
        s->params[at] = bad;
        if (looks_good(s)) fail_msg("%s: %g in %s is not seen%s", set, (double)bad, tensors[i].name, s->config.bf16 ? " in bfloat16" : "");
        s->params[at] = was;
    }
    free(tensors);
}

static void a_bad_weight_in_any_tensor_is_seen(void **state) {
    (void)state;
    struct sets sets = sets_here();
    const uint32_t low_bits = 0x7f800001u; /* NaN that becomes infinity when its lower half is cut off */
    float bad[] = {NAN, INFINITY, -INFINITY, 0.0f};
    memcpy(&bad[3], &low_bits, sizeof low_bits);
    for (size_t s = 0; s < sets.count; s++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            struct setting setting;
            kernel_set_use(sets.set[s]);
            setting_open(&setting, bf16);
            assert_true(looks_good(&setting));
            for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) try_every_tensor(&setting, sets.set[s]->name, bad[i]);
            assert_true(looks_good(&setting)); /* nothing stays behind */
            setting_close(&setting);
        }
    kernel_set_use(NULL);
}

static int start(void **state) {
    (void)state;
    rng = random_open("bad numbers");
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_bad_weight_in_any_tensor_is_seen)};
    return cmocka_run_group_tests(tests, start, NULL);
}
