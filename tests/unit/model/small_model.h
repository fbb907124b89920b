/* A GPT-2 small enough for tests, with weights that make it opinionated. */
#ifndef MILLRACE_TESTS_UNIT_MODEL_SMALL_MODEL_H
#define MILLRACE_TESTS_UNIT_MODEL_SMALL_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/gpt2/gpt2.h"
#include "tests/unit/random.h"

static inline struct gpt2_config small_config(void) {
    return (struct gpt2_config){.vocab_size = 61, .n_positions = 24, .n_embd = 32, .n_layer = 3, .n_head = 4, .n_inner = 80,
                                .attn_pdrop = 0.1f, .embd_pdrop = 0.1f, .resid_pdrop = 0.1f, .layer_norm_epsilon = 1e-5f,
                                .initializer_range = 0.02f, .scale_attn_weights = true, .bos_token_id = 60, .eos_token_id = 60};
}

static inline float random_float(struct random *random, float size) { /* uniform in [-size, size) */
    return ((float)(random_next(random) >> 40) * 0x1p-23f - 1.0f) * size;
}

static inline float *small_params(const struct gpt2_config *config, struct random *random) {
    float *params;
    size_t count = gpt2_parameters(config);
    assert_int_equal(mem_try(&params, count, sizeof *params), 0);
    gpt2_init(params, config, random->seed);
    for (size_t i = 0; i < count; i++) params[i] += random_float(random, 0.35f);
    return params;
}

#endif
