/* One gradient and two optimizer steps from fixed weights, tokens and rates. The coordinator admits workers to training by this digest
 * alone, not by their processors' names. */
#include "model/trial/self_test.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/philox.h"

enum { KNOWN_SEED = 20190214 }; /* GPT-2's publication; any constant does */

struct known {
    struct gpt2 *model;
    void *state[STATE_PARTS];
    float *grads;
    int32_t *tokens; /* [T + 1] */
};

static int known_open(struct known *k, const struct gpt2_config *config, const struct state_parts *parts, int T, struct pool *pool) {
    size_t N = gpt2_parameters(config);
    TRY(state_open(k->state, parts, N));
    TRY(mem_try(&k->grads, N, sizeof(float)));
    TRY(mem_try(&k->tokens, (size_t)T + 1, sizeof(int32_t)));
    return gpt2_open(&k->model, config, 1, T, true, pool);
}

static void known_close(struct known *k) {
    gpt2_close(k->model);
    state_close(k->state);
    free(k->grads);
    free(k->tokens);
}

static void known_compute(uint8_t out[SHA256_BYTES], struct known *k, const struct gpt2_config *config, const struct optimizer *like, int T,
                          struct pool *pool) {
    size_t N = gpt2_parameters(config);
    struct {
        double loss, squares;
        uint8_t grads[XXH128_BYTES], state[XXH128_BYTES];
    } answer;
    uint64_t counted;
    struct state_parts parts = optimizer_parts(like);
    struct optimizer optimizer = {.kind = like->kind,
                                  .moments_type = like->moments_type,
                                  .seed = KNOWN_SEED,
                                  .beta1 = 0.9,
                                  .beta2 = 0.999,
                                  .epsilon = 1e-8,
                                  .momentum = like->momentum,
                                  .nesterov = like->nesterov,
                                  .weight_decay = 0.1,
                                  .ema_decay = like->ema_decay,
                                  .learning_rate = 1e-3,
                                  .step = 1};
    optimizer_begin(k->state, config, &optimizer);
    for (int i = 0; i <= T; i++) k->tokens[i] = (int32_t)(philox(KNOWN_SEED, 1, (uint64_t)i).word[0] % (uint32_t)config->vocab_size);
    if (config->document_mask && config->eos_token_id >= 0) k->tokens[T / 3] = config->eos_token_id; /* so that there are two documents */
    struct gpt2_random random = {.seed = KNOWN_SEED, .step = 1};
    gpt2_gradient(k->model, k->grads, &answer.loss, &counted, k->state[STATE_WEIGHTS], k->tokens, k->tokens + 1, 1, T, &random);
    vectors_digest(answer.grads, (const float *const[]){k->grads}, 1, N, pool);
    answer.squares = square_sum(k->grads, N);
    optimizer.scale = gradient_scale(answer.squares, counted, 1.0);
    for (; optimizer.step <= 2; optimizer.step++)
        optimizer_apply(k->state, k->grads, config, &optimizer, pool); /* moments that are not 0 */
    state_digest(answer.state, k->state, &parts, N, pool);
    sha256_of(out, &answer, sizeof answer);
}

int self_test(uint8_t out[SHA256_BYTES], const struct gpt2_config *config, const struct optimizer *optimizer, int sequence_length,
                      struct pool *pool) {
    struct known known = {0};
    struct state_parts parts = optimizer_parts(optimizer);
    int code = known_open(&known, config, &parts, sequence_length, pool);
    if (code == 0) known_compute(out, &known, config, optimizer, sequence_length, pool);
    known_close(&known);
    return code;
}
