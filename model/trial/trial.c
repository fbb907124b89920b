/* Opens and runs a training step on made-up tokens. Measures and decides nothing. */
#include "model/trial/trial.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/philox.h"

enum { TOKENS_SITE = 1 }; /* keeps tokens apart from what else is drawn with the seed */

int trial_open(struct trial *out, const struct gpt2_config *config, const struct optimizer *optimizer, int B, int T, struct pool *pool) {
    *out = (struct trial){.config = *config,
                          .optimizer = *optimizer,
                          .parts = optimizer_parts(optimizer),
                          .pool = pool,
                          .B = B,
                          .T = T,
                          .N = gpt2_parameters(config)};
    size_t count = (size_t)B * (size_t)T + 1;
    TRY(state_open(out->state, &out->parts, out->N));
    TRY(mem_try(&out->grads, out->N, sizeof(float)));
    TRY(mem_try(&out->tokens, count, sizeof(int32_t)));
    for (size_t i = 0; i < count; i++)
        out->tokens[i] = (int32_t)(philox(optimizer->seed, TOKENS_SITE, i).word[0] % (uint32_t)config->vocab_size);
    return gpt2_open(&out->model, config, gpt2_batch_for(config, B, T), T, true, pool);
}

void trial_close(struct trial *trial) {
    gpt2_close(trial->model);
    state_close(trial->state);
    free(trial->grads);
    free(trial->tokens);
}

void trial_gradient(struct trial *trial, uint64_t step) {
    struct gpt2_random random = {.seed = trial->optimizer.seed, .step = step};
    gpt2_gradient(trial->model, trial->grads, &trial->loss, &trial->counted, trial->state[STATE_WEIGHTS], trial->tokens, trial->tokens + 1,
                  trial->B, trial->T, &random);
}
