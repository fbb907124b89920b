/* Text generation and evaluation from loaded weights. Deterministic: Philox keyed by the seed. */
#ifndef MILLRACE_MODEL_GENERATE_H
#define MILLRACE_MODEL_GENERATE_H

#include <stdint.h>

#include "model/generate/decoder_weights.h"

#define GENERATE_TEMPERATURE_LEAST 1e-3 /* below, the highest logit always wins: greedy */

struct generate_options {
    bool greedy;               /* ties go to the lowest id */
    double temperature;        /* above 0 */
    int top_k;                 /* 0: off */
    double top_p;              /* 1: off */
    uint64_t seed;
    int min_new_tokens, max_new_tokens;  /* before min, no end can be chosen; stops after an end, which is kept in ids */
    const int32_t *end;        /* ids that end a text; NULL: the model's eos_token_id */
    int ends;
    const int32_t *tokenless;  /* ids for which the tokenizer has no token, as in padded vocabularies: never chosen */
    int tokenless_count;
};

/* Whether an id ends a text. */
bool generate_ends(const struct generate_options *options, const struct gpt2_config *config, int32_t id);

/* The first token that the prediction after `count` tokens sees, P = n_positions: when more than P would be needed, the last P / 2 are
 * taken up again. */
int generate_window(int count, int P);

/* Continues prompt[prompt_count]; writes the prompt and the new ids to out (room for prompt_count + max_new_tokens) and their number to
 * *out_count. Lays the weights out anew beside `params`, as large as they are, and uses a key/value cache. Past n_positions the window
 * slides: the last n_positions / 2 tokens are taken up again. An empty prompt starts from bos. on_token, which may be NULL, is called
 * with each new id; a return of not 0 stops. `sequence` numbers several samples of one seed. */
int gpt2_generate(int32_t *out, int *out_count, const struct gpt2_config *config, const float *params, const int32_t *prompt,
                  int prompt_count, const struct generate_options *options, uint32_t sequence, struct pool *pool,
                  int (*on_token)(void *, int32_t), void *arg);

/* The same from weights of any type that are laid out already. */
int gpt2_generate_from(int32_t *out, int *out_count, const struct decoder_weights *weights, const int32_t *prompt, int prompt_count,
                       const struct generate_options *options, uint32_t sequence, struct pool *pool, int (*on_token)(void *, int32_t),
                       void *arg);

/* Loss of a run of tokens: window k has the inputs kP .. kP+P-1, P = n_positions, each predicting its successor; the last window is
 * shorter. */
int gpt2_evaluate(double *out_loss_sum, uint64_t *out_tokens, const struct gpt2_config *config, const float *params, const int32_t *tokens,
                  size_t count, struct pool *pool, void (*tick)(void *, uint64_t done), void *arg);

/* The same as the decoder computes it, with weights of any type: what rounding them costs. */
int gpt2_evaluate_from(double *out_loss_sum, uint64_t *out_tokens, const struct decoder_weights *weights, const int32_t *tokens,
                       size_t count, struct pool *pool, void (*tick)(void *, uint64_t done), void *arg);

/* Choosing the next token from logits. Deterministic: no library function whose last bit differs between machines decides. */

/* The highest logit; ties go to the lowest id. -1 when a logit is NaN or none is finite. */
int32_t sample_greedy(const float *logits, int count);

/* Draws by temperature, then top-k, then top-p, in the order of transformers' warpers. Logits are overwritten; order has room for count
 * ids. uniform is in [0, 1). -1 as above. Among equal logits top-k and top-p take the lower ids first. */
int32_t sample_draw(float *logits, int32_t *order, int count, const struct generate_options *options, double uniform);

#endif
