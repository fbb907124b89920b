/* One gradient and two optimizer steps from fixed weights, tokens and rates. The coordinator admits workers to training by this digest
 * alone, not by their processors' names. */
#include "model/trial/self_test.h"

#include "base/err.h"
#include "model/trial/trial.h"

enum { SELF_TEST_SEED = 20190214 }; /* GPT-2's publication; any constant does */

/* Its kind, the type of its moments, momentum, nesterov and the average's decay are the pipeline's; all else is constant. */
static struct optimizer optimizer_like(const struct optimizer *like) {
    return (struct optimizer){.kind = like->kind,
                              .moments_type = like->moments_type,
                              .seed = SELF_TEST_SEED,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .epsilon = 1e-8,
                              .momentum = like->momentum,
                              .nesterov = like->nesterov,
                              .weight_decay = 0.1,
                              .ema_decay = like->ema_decay,
                              .learning_rate = 1e-3,
                              .step = 1};
}

static void compute(uint8_t out[SHA256_BYTES], struct trial *t) {
    struct {
        double loss, squares;
        uint8_t grads[XXH128_BYTES], state[XXH128_BYTES];
    } answer;
    struct optimizer *optimizer = &t->optimizer;
    optimizer_begin(t->state, &t->config, optimizer, t->pool);
    if (t->config.document_mask && t->config.eos_token_id >= 0)
        t->tokens[t->T / 3] = t->config.eos_token_id; /* so that there are two documents */
    trial_gradient(t, 1);
    answer.loss = t->loss;
    vectors_digest(answer.grads, (const float *const[]){t->grads}, 1, t->N, t->pool);
    answer.squares = square_sum(t->grads, t->N);
    optimizer->scale = gradient_scale(answer.squares, t->counted, 1.0);
    for (; optimizer->step <= 2; optimizer->step++) /* the second one finds moments that are not 0 */
        optimizer_apply(t->state, t->grads, &t->config, optimizer, t->pool);
    state_digest(answer.state, t->state, &t->parts, t->N, t->pool);
    sha256_of(out, &answer, sizeof answer);
}

int self_test(uint8_t out[SHA256_BYTES], const struct gpt2_config *config, const struct optimizer *optimizer, int sequence_length,
              struct pool *pool) {
    struct trial trial;
    struct optimizer like = optimizer_like(optimizer);
    int code = trial_open(&trial, config, &like, 1, sequence_length, pool);
    if (code == 0) compute(out, &trial);
    trial_close(&trial);
    return code;
}
